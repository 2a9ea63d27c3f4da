"""How much a teacher cache loses against the exact teacher, and what it saves.

    python benchmarks/cache_quality.py MODEL TEXT [--examples 24] [--steps 0 8] [--out quality.json]

MODEL is a folder or hub id; TEXT is a JSONL file of demonstrations (prompt, completion), or `gsm_symbolic` for worked
solutions from reasoning-gym. The teacher is MODEL as it is; the student is MODEL after some steps of plain SFT, so that
the shape of its tail differs from the teacher's as it does in training. Per kind of cache:

    bytes       a labelled token, on disk, index included
    KL          KL(exact || cached) in nats a token; the cached tail takes the student's shape; infinite for zero fill.
                With 0 steps it is the rounding on disk alone; as the student moves away it stays a fixed share of
                KL(exact || student), about the tail mass
    cosine      between the gradients of distillation (gamma = 0) towards the exact and towards the cached teacher, at
                the hidden states and at the head, by the fused loss: the smaller of the two, mean and worst
                micro-batch. Any mixture with labels lies nearer to 1; meaningless while student and teacher are one
    zero fill   the same entries without a tail: logit gradient m*pi - q, m = the kept mass

Then one optimiser step of distillation with the live teacher against one with the cache, interleaved.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from torch import nn

from qtarget.spaces.target import TargetSpec
from qtarget.trainers.data.batches import collate
from qtarget.trainers.data.demonstrations import Demonstrations
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.sft import train
from qtarget.trainers.models.load import load_model, load_tokenizer, pad_token_id
from qtarget.trainers.settings import CacheSettings, DataSettings, ModelSettings, TrainingSettings
from qtarget.trainers.teachers.bias import DISTILLATION, CacheBias, cache_bias
from qtarget.trainers.teachers.build import build
from qtarget.trainers.teachers.cache import TeacherCache
from qtarget.trainers.teachers.key import cache_key
from qtarget.trainers.teachers.sources import CachedModel, FrozenModel, Source

KINDS = {
    "top-64": CacheSettings(),
    "top-16": CacheSettings(k=16),
    "adaptive": CacheSettings(k=512, min_prob=1e-4),
}


def write_text(path: Path, number: int) -> None:
    """Worked solutions of reasoning-gym's gsm_symbolic as demonstrations."""
    import reasoning_gym

    rows = reasoning_gym.create_dataset("gsm_symbolic", size=number, seed=20250101)
    lines = [json.dumps({"prompt": row["question"], "completion": row["metadata"]["answer_cot"]}) for row in rows]
    path.write_text("\n".join(lines), "utf-8")


def students(model: nn.Module, data: Demonstrations, steps: list[int], rate: float) -> Iterator[tuple[int, nn.Module]]:
    """The model after each number of steps of plain SFT."""
    for number in steps:
        student = copy.deepcopy(model)
        if number:
            settings = TrainingSettings(
                steps=number, effective_batch=4, micro_batch=4, learning_rate=rate, warmup_fraction=0.0
            )
            train(student, data, TargetSpec(), settings, seed=0, folder=None)
        yield number, student


def one_step(model: nn.Module, data: Demonstrations, source: Source) -> float:
    """Seconds of one optimiser step of distillation, four sequences."""
    settings = TrainingSettings(steps=1, effective_batch=4, micro_batch=4, learning_rate=1e-7, warmup_fraction=0.0)
    return train(model, data, DISTILLATION, settings, seed=0, folder=None, teacher=source).seconds


def time_steps(model: nn.Module, data: Demonstrations, sources: dict[str, Source], repeats: int) -> dict[str, float]:
    """Median step times, interleaved, the first of each left out."""
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(repeats + 1):
        for name, source in sources.items():
            seconds[name].append(one_step(model, data, source))
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return median | {"live / cached": median["live"] / median["cached"]}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """All rows and the step times."""
    text, base, settings = Path(options.text), Path.cwd(), ModelSettings(path=options.model)
    if options.text == "gsm_symbolic":
        write_text(text := folder / "text.jsonl", options.examples)
    tokenizer = load_tokenizer(settings, base)
    data = load_demonstrations(DataSettings(path=str(text), max_examples=options.examples), tokenizer, base)
    print(data.summary())
    model = load_model(settings, base, "fp32")
    pad = pad_token_id(tokenizer, len(tokenizer))
    teacher = FrozenModel(copy.deepcopy(model))
    caches: dict[str, TeacherCache] = {}
    for name in options.kinds:
        key = cache_key(settings, base, tokenizer, data, max_length=1024, cache=KINDS[name])
        started = time.perf_counter()
        caches[name] = TeacherCache.open(build(teacher, data, key, folder, pad_token_id=pad), key)
        print(f"{name}: built in {time.perf_counter() - started:.1f} s", flush=True)
    order = sorted(range(len(data)), key=lambda index: data[index].length)[: options.batches * 4]
    batches = [collate([data[i] for i in order[n : n + 4]], order[n : n + 4], pad) for n in range(0, len(order), 4)]
    found = []
    for steps, student in students(model, data, options.steps, options.learning_rate):
        for name, bias in cache_bias(student, teacher, caches, batches).items():
            found.append(row(name, steps, caches[name], bias))
            print(found[-1], flush=True)
    report: dict[str, object] = {"quality": found}
    if options.repeats:
        sources: dict[str, Source] = {"live": teacher, "cached": CachedModel(caches[options.kinds[0]])}
        report["step"] = time_steps(model, data, sources, options.repeats)
        print(f"step: {report['step']}")
    return report


def row(name: str, steps: int, cache: TeacherCache, bias: CacheBias) -> dict[str, object]:
    """One cache for one student, as numbers."""
    manifest = cache.manifest
    size = {
        "bytes_per_token": manifest.bytes_per_token,
        "entries_per_token": manifest.entries_per_token,
        "tail_mass": manifest.mean_tail_mass,
    }
    return {"cache": name, "student_steps": steps} | size | asdict(bias)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--examples", type=int, default=24, help="demonstrations in the cache")
    parser.add_argument("--batches", type=int, default=4, help="micro-batches of 4 that are compared")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["top-64", "adaptive"])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 8], help="SFT steps of the student")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each kind; 0 leaves the timing out")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1), "utf-8")


if __name__ == "__main__":
    main()
