"""How much a teacher cache loses against the exact teacher, and what it saves.

    python benchmarks/cache_quality.py MODEL TEXT [--examples 48] [--steps 0 20] [--out quality.json]

MODEL is a folder or hub id; TEXT is a JSONL file of demonstrations (prompt, completion), or `gsm_symbolic` for worked
solutions from reasoning-gym. The teacher is MODEL as it is; the student is MODEL after some steps of plain SFT, so that
the shape of its tail differs from the teacher's as it does in training. Per kind of cache:

    bytes       a valid token, on disk, index included
    KL          KL(exact || cached) in nats a token; the cached tail takes the student's shape; infinite for zero fill
    cosine      between the parameter gradients of distillation (gamma = 0) towards the exact and the cached teacher,
                of one micro-batch: mean and worst. Any mixture with labels lies nearer to 1
    zero fill   the same entries without a tail: gradient m*pi - q, m = the kept mass

Then one optimiser step with the live teacher against one with the cache, interleaved.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qtarget.spaces.target import TargetSpec
from qtarget.trainers.batches import Batch, collate
from qtarget.trainers.cache import TeacherCache
from qtarget.trainers.cache_build import build
from qtarget.trainers.cache_key import cache_key
from qtarget.trainers.data import load_demonstrations
from qtarget.trainers.demonstrations import Demonstrations
from qtarget.trainers.head import hidden_states
from qtarget.trainers.models import load_model, load_tokenizer, pad_token_id
from qtarget.trainers.objective import Objective
from qtarget.trainers.residual_source import CachedSlice, top_entries, widen
from qtarget.trainers.settings import DataSettings, ModelSettings, TrainingSettings
from qtarget.trainers.sft import train
from qtarget.trainers.sources import CachedModel, FrozenModel, Source

KINDS = {
    "top-64": {"k": 64},
    "top-16": {"k": 16},
    "adaptive, tail 0.5 %, k <= 512": {"k": 512, "tail_mass": 0.005},
}
SFT = TargetSpec()
DISTIL = TargetSpec.model_validate({"gamma": {"kind": "constant", "value": 0.0}, "residual": {"kind": "teacher"}})


@dataclass(frozen=True)
class Quality:
    """One kind of cache against the exact teacher, for a student after some steps."""

    cache: str
    student_steps: int
    bytes_per_token: float
    entries_per_token: float
    tail_mass: float
    kl: float
    zero_fill_kl: float
    cosine: float
    worst_cosine: float
    zero_fill_cosine: float
    zero_fill_worst_cosine: float


def write_text(path: Path, number: int) -> None:
    """Worked solutions of reasoning-gym's gsm_symbolic as demonstrations."""
    import reasoning_gym

    rows = reasoning_gym.create_dataset("gsm_symbolic", size=number, seed=20250101)
    lines = [json.dumps({"prompt": row["question"], "completion": row["metadata"]["answer_cot"]}) for row in rows]
    path.write_text("\n".join(lines), "utf-8")


def exact_logprobs(teacher: FrozenModel, batch: Batch, vocab: int) -> Tensor:
    """log r (T, V), nats."""
    with torch.no_grad():
        return teacher.head.logits(teacher.rows(batch).hidden)[:, :vocab].float().log_softmax(-1)


def divergence(exact: Tensor, cached: Tensor) -> float:
    """Sum over tokens of KL(exact || cached), nats; both (T, V) log-probs."""
    exact, cached = exact.double(), cached.double()
    return float((exact.exp() * (exact - cached)).sum())


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    """Gradient of all parameters, (parameters,), by one backward pass."""
    gradients = torch.autograd.grad(loss, [parameter for parameter in model.parameters() if parameter.requires_grad])
    return torch.cat([part.reshape(-1) for part in gradients])


def zero_fill_loss(model: nn.Module, objective: Objective, batch: Batch, rows: CachedSlice) -> Tensor:
    """A loss whose logit gradient is m*pi - q: what a top-k target without a tail trains."""
    logprobs = objective.head.logits(hidden_states(model, batch.inputs)[batch.valid]).float().log_softmax(-1)
    kept = rows.logprobs.exp().where(rows.ids >= 0, 0.0)
    return -(kept * logprobs.gather(1, rows.ids.clamp(min=0))).sum()


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one, other) / (one.norm() * other.norm()))


def compare(
    name: str, steps: int, student: nn.Module, teacher: FrozenModel, cache: TeacherCache, batches: list[Batch]
) -> Quality:
    """One student, one cache, a pass over the batches."""
    vocab = cache.manifest.key.vocab
    live, cached = Objective(student, teacher=teacher), Objective(student, teacher=CachedModel(cache))
    kl = tokens = 0.0
    ours, zero = [], []
    for batch in batches:
        rows = CachedModel(cache).rows(batch)
        exact = exact_logprobs(teacher, batch, vocab)
        with torch.no_grad():
            student_logprobs = live.head.logits(hidden_states(student, batch.inputs)[batch.valid])[:, :vocab]
        entries = top_entries(rows, batch.flat_labels, torch.float32)
        kl += divergence(exact, widen(entries, student_logprobs.float().log_softmax(-1)))
        tokens += len(batch.flat_labels)
        truth = gradient(student, live.loss(batch, DISTIL).loss_sum)
        if steps > 0:  # at the start student and teacher are one model: there is no gradient to compare
            ours.append(cosine(truth, gradient(student, cached.loss(batch, DISTIL).loss_sum)))
            zero.append(cosine(truth, gradient(student, zero_fill_loss(student, live, batch, rows))))
    manifest = cache.manifest
    return Quality(
        cache=name,
        student_steps=steps,
        bytes_per_token=manifest.bytes_per_token,
        entries_per_token=manifest.entries_per_token,
        tail_mass=manifest.mean_tail_mass,
        kl=kl / tokens,
        zero_fill_kl=float("inf") if manifest.mean_tail_mass > 0 else 0.0,
        cosine=statistics.fmean(ours) if ours else float("nan"),
        worst_cosine=min(ours, default=float("nan")),
        zero_fill_cosine=statistics.fmean(zero) if zero else float("nan"),
        zero_fill_worst_cosine=min(zero, default=float("nan")),
    )


def students(
    model: nn.Module, data: Demonstrations, steps: list[int], rate: float, pad: int
) -> Iterator[tuple[int, nn.Module]]:
    """The model after each number of steps of plain SFT."""
    for number in steps:
        student = copy.deepcopy(model)
        if number:
            settings = TrainingSettings(steps=number, effective_batch=8, micro_batch=4, learning_rate=rate)
            train(student, data, SFT, settings, seed=0, folder=None, pad_token_id=pad)
        yield number, student.eval()


def step_seconds(model: nn.Module, data: Demonstrations, source: Source, batch: int, pad: int) -> float:
    """Median time of an optimiser step of distillation."""
    settings = TrainingSettings(steps=2, effective_batch=batch, micro_batch=batch, learning_rate=1e-7)
    seconds: list[float] = []
    train(
        model, data, DISTIL, settings, seed=0, folder=None, teacher=source, pad_token_id=pad,
        on_step=lambda report: seconds.append(report.seconds) or False,  # type: ignore[func-returns-value]
    )  # fmt: skip
    return statistics.median(seconds)


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(arguments, Path(folder))
    print(json.dumps(report["step"], indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1), "utf-8")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    text = Path(arguments.text)
    if arguments.text == "gsm_symbolic":
        write_text(text := folder / "text.jsonl", arguments.examples)
    settings, base = ModelSettings(path=arguments.model), Path.cwd()
    tokenizer = load_tokenizer(settings, base)
    data = load_demonstrations(DataSettings(path=str(text), max_examples=arguments.examples), tokenizer, base)
    print(data.summary())
    pad, model = pad_token_id(tokenizer), load_model(settings, base, "fp32")
    teacher = FrozenModel(copy.deepcopy(model))
    caches = {}
    for name, options in KINDS.items():
        key = cache_key(settings, base, tokenizer, data, max_length=1024, **options)  # type: ignore[arg-type]
        started = time.perf_counter()
        caches[name] = TeacherCache.open(build(teacher, data, key, folder, pad_token_id=pad), key)
        print(f"{name}: built in {time.perf_counter() - started:.1f} s")
    order = sorted(range(len(data)), key=lambda index: data[index].length)[: arguments.batches * 4]
    batches = [collate([data[i] for i in order[n : n + 4]], order[n : n + 4], pad) for n in range(0, len(order), 4)]
    found = []
    for steps, student in students(model, data, arguments.steps, arguments.learning_rate, pad):
        for name, cache in caches.items():
            found.append(compare(name, steps, student, teacher, cache, batches))
            print_row(found[-1])
    return {"quality": [asdict(row) for row in found], "step": time_steps(arguments, model, data, teacher, caches, pad)}


def time_steps(
    arguments: argparse.Namespace,
    model: nn.Module,
    data: Demonstrations,
    teacher: FrozenModel,
    caches: dict[str, TeacherCache],
    pad: int,
) -> dict[str, float]:
    """Median step times, live and cached, interleaved."""
    sources: dict[str, Source] = {"live": teacher, "cached": CachedModel(caches["top-64"])}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(arguments.repeats):
        for name, source in sources.items():
            seconds[name].append(step_seconds(model, data, source, 4, pad))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return median | {"live / cached": median["live"] / median["cached"]}


def print_row(row: Quality) -> None:
    print(
        f"{row.cache:32s} student +{row.student_steps:<3d} {row.bytes_per_token:6.1f} B/token "
        f"{row.entries_per_token:6.1f} entries  tail {row.tail_mass:.4f}  "
        f"KL {row.kl:.2e} (zero fill {row.zero_fill_kl}) "
        f"cosine {row.cosine:.6f} worst {row.worst_cosine:.6f} (zero fill {row.zero_fill_cosine:.6f}, "
        f"{row.zero_fill_worst_cosine:.6f})"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--examples", type=int, default=48, help="demonstrations in the cache")
    parser.add_argument("--batches", type=int, default=6, help="micro-batches of 4 whose gradients are compared")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 5, 20], help="SFT steps of the student")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
