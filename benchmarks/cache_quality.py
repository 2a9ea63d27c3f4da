"""How much a teacher cache loses against the exact teacher, and what it saves.

    python benchmarks/cache_quality.py MODEL TEXT [--examples 24] [--steps 0 8] [--out quality.json]

MODEL is a folder or hub id; TEXT is a JSONL file of demonstrations (prompt, completion), or `gsm_symbolic` for worked
solutions from reasoning-gym. The teacher is MODEL as it is; the student is MODEL after some steps of plain SFT, so that
the shape of its tail differs from the teacher's as it does in training. Per kind of cache:

    bytes       a labelled token, on disk, index included
    KL          KL(exact || cached) in nats a token; the cached tail takes the student's shape; infinite for zero fill
    cosine      between the gradients of distillation (gamma = 0) towards the exact and towards the cached teacher, at
                the hidden states and at the head, by the fused loss: the smaller of the two, mean and worst
                micro-batch. Any mixture with labels lies nearer to 1
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
from qtarget.trainers.head import OutputHead, hidden_states, output_head
from qtarget.trainers.loss import fused_target_loss
from qtarget.trainers.models import load_model, load_tokenizer, pad_token_id
from qtarget.trainers.residual_source import CachedSlice, HiddenHead, ResidualSource, top_entries, widen
from qtarget.trainers.settings import CacheSettings, DataSettings, ModelSettings, TrainingSettings
from qtarget.trainers.sft import train
from qtarget.trainers.sources import CachedModel, FrozenModel, Source

KINDS = {
    "top-64": CacheSettings(),
    "top-16": CacheSettings(k=16),
    "adaptive": CacheSettings(k=512, tail_mass=0.003),
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
    cosine: float
    worst_cosine: float
    zero_fill_cosine: float
    zero_fill_worst_cosine: float


@dataclass(frozen=True, eq=False)
class Student:
    """A student after some steps, with what it and the teacher compute on each batch."""

    steps: int
    head: OutputHead
    hidden: list[Tensor]  # (T, H) a batch
    exact: list[HiddenHead]  # the teacher's rows of the same tokens


def write_text(path: Path, number: int) -> None:
    """Worked solutions of reasoning-gym's gsm_symbolic as demonstrations."""
    import reasoning_gym

    rows = reasoning_gym.create_dataset("gsm_symbolic", size=number, seed=20250101)
    lines = [json.dumps({"prompt": row["question"], "completion": row["metadata"]["answer_cot"]}) for row in rows]
    path.write_text("\n".join(lines), "utf-8")


@torch.no_grad()
def divergence(student: Student, number: int, rows: CachedSlice, labels: Tensor) -> float:
    """Sum over the tokens of a batch of KL(exact || cached), nats."""
    exact = student.exact[number]
    truth = (exact.hidden @ exact.weight.T).double().log_softmax(-1)
    logprobs = student.head.logits(student.hidden[number]).double().log_softmax(-1)
    cached = widen(top_entries(rows, labels, torch.float64), logprobs)
    return float((truth.exp() * (truth - cached)).sum())


def gradients(student: Student, number: int, labels: Tensor, teacher: ResidualSource) -> list[Tensor]:
    """Of distillation by the fused loss, at the hidden states and at the head."""
    hidden = student.hidden[number].clone().requires_grad_()
    weight = student.head.weight.detach().clone().requires_grad_()
    loss = fused_target_loss(hidden, weight, labels, DISTIL, teacher=teacher).loss_sum
    return list(torch.autograd.grad(loss, [hidden, weight]))


@torch.no_grad()
def zero_fill_gradients(student: Student, number: int, rows: CachedSlice) -> list[Tensor]:
    """The same from the logit gradient m*pi - q of a top-k target without a tail."""
    hidden, weight = student.hidden[number], student.head.weight
    kept = rows.logprobs.exp().where(rows.ids >= 0, 0.0)
    gradient = (hidden @ weight.T).softmax(-1) * kept.sum(-1, keepdim=True)
    gradient.scatter_add_(1, rows.ids.clamp(min=0), -kept)
    return [gradient @ weight, gradient.T @ hidden]


def agreement(ours: list[Tensor], truth: list[Tensor]) -> float:
    """The smaller cosine of the two gradients."""
    pairs = zip(ours, truth, strict=True)
    return min(float((a * b).sum() / (a.norm() * b.norm())) for a, b in pairs)


def compare(name: str, student: Student, cache: TeacherCache, batches: list[Batch]) -> Quality:
    """One student, one cache, a pass over the batches."""
    kl = tokens = 0.0
    ours, zero = [], []
    for number, batch in enumerate(batches):
        rows, labels = CachedModel(cache).rows(batch), batch.flat_labels
        kl += divergence(student, number, rows, labels)
        tokens += len(labels)
        if student.steps > 0:  # at the start student and teacher are one model: there is no gradient to compare
            truth = gradients(student, number, labels, student.exact[number])
            ours.append(agreement(gradients(student, number, labels, rows), truth))
            zero.append(agreement(zero_fill_gradients(student, number, rows), truth))
    manifest, none = cache.manifest, [float("nan")]
    return Quality(
        cache=name,
        student_steps=student.steps,
        bytes_per_token=manifest.bytes_per_token,
        entries_per_token=manifest.entries_per_token,
        tail_mass=manifest.mean_tail_mass,
        kl=kl / tokens,
        cosine=statistics.fmean(ours or none),
        worst_cosine=min(ours or none),
        zero_fill_cosine=statistics.fmean(zero or none),
        zero_fill_worst_cosine=min(zero or none),
    )


def students(
    model: nn.Module, teacher: FrozenModel, data: Demonstrations, batches: list[Batch], options: argparse.Namespace
) -> Iterator[Student]:
    """The model after each number of steps of plain SFT."""
    exact = [teacher.rows(batch) for batch in batches]
    for steps in options.steps:
        student = copy.deepcopy(model)
        if steps:
            settings = TrainingSettings(
                steps=steps, effective_batch=4, micro_batch=4, learning_rate=options.learning_rate, warmup_fraction=0.0
            )
            train(student, data, SFT, settings, seed=0, folder=None)
        with torch.no_grad():
            hidden = [hidden_states(student.eval(), batch.inputs)[batch.valid] for batch in batches]
        yield Student(steps, output_head(student), hidden, exact)


def one_step(model: nn.Module, data: Demonstrations, source: Source) -> float:
    """Seconds of one optimiser step of distillation, four sequences."""
    settings = TrainingSettings(steps=1, effective_batch=4, micro_batch=4, learning_rate=1e-7, warmup_fraction=0.0)
    return train(model, data, DISTIL, settings, seed=0, folder=None, teacher=source).seconds


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
    pad, model = pad_token_id(tokenizer), load_model(settings, base, "fp32")
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
    for student in students(model, teacher, data, batches, options):
        for name, cache in caches.items():
            found.append(compare(name, student, cache, batches))
            print_row(found[-1])
    report: dict[str, object] = {"quality": [asdict(row) for row in found]}
    if options.repeats:
        sources: dict[str, Source] = {"live": teacher, "cached": CachedModel(caches[options.kinds[0]])}
        report["step"] = time_steps(model, data, sources, options.repeats)
        print(f"step: {report['step']}")
    return report


def print_row(row: Quality) -> None:
    print(
        f"{row.cache:9s} student +{row.student_steps:<3d} {row.bytes_per_token:6.1f} B/token "
        f"{row.entries_per_token:6.1f} entries  tail {row.tail_mass:.4f}  KL {row.kl:.2e}  "
        f"cosine {row.cosine:.6f} worst {row.worst_cosine:.6f} "
        f"(zero fill {row.zero_fill_cosine:.6f}, {row.zero_fill_worst_cosine:.6f}, KL infinite)",
        flush=True,
    )


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
