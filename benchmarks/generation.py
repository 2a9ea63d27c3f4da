"""How much faster batched generation is than the model's own generate(), with the same answers.

    python benchmarks/generation.py MODEL [--problems 48] [--tokens 256] [--batch 32] [--one 48] [--precision fp32]
        [--repeats 3] [--clock cpu] [--vllm]

MODEL is a folder or hub id of a chat model; the problems are reasoning-gym's `gsm_symbolic`. The arms, greedy, in turn
within every repeat:

    ours      qtarget's loop: length-sorted, sequences retired and replaced as they end
    apart     the same, reading what all prompts begin with for each of them
    one       generate() one problem at a time, the first --one of them (it is slow, and its speed needs no more)
    fixed     generate() on fixed batches in the given order, left-padded
    vllm      qtarget's vLLM backend, handing over the weights included, its start not (--vllm)

Useful tokens only: those up to and with the end token. Reported are the medians of the ratios within a repeat, and how
many completions equal those of `one`, token for token. On a machine that does other work, measure one thread
(OMP_NUM_THREADS=1) by `--clock cpu`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from qtarget.evaluation.generation import batched
from qtarget.evaluation.generation.backends import PlainBackend
from qtarget.evaluation.generation.batched import Request, Sampling, generate
from qtarget.evaluation.generation.prompts import encode, end_tokens, render
from qtarget.evaluation.problems.load import load_problems
from qtarget.evaluation.settings import EvaluationSettings, TaskSettings
from qtarget.trainers.models.load import load_model, load_tokenizer
from qtarget.trainers.settings import ModelSettings

Tokens = dict[int, tuple[int, ...]]
Arm = Callable[[], Tokens]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def requests_for(tokenizer: Any, count: int) -> list[Request]:
    """Chat prompts of `gsm_symbolic`, in the order drawn."""
    task = TaskSettings(source="gym", path="gsm_symbolic", kind="numeric")
    problems = load_problems(EvaluationSettings(tasks=(task,), problems=count), Path(), seed=0).search
    texts = [render(tokenizer, problem) for problem in problems]
    return [Request(index, encode(tokenizer, text, chat=True)) for index, text in enumerate(texts)]


@torch.no_grad()
def fixed_batches(model: Any, requests: Sequence[Request], sampling: Sampling) -> Tokens:
    """generate() on `batch_size` requests at a time, left-padded, in the given order."""
    found: Tokens = {}
    end = min(sampling.end_tokens)
    for start in range(0, len(requests), sampling.batch_size):
        batch = requests[start : start + sampling.batch_size]
        width = max(len(request.prompt) for request in batch)
        ids = torch.tensor([[end] * (width - len(r.prompt)) + list(r.prompt) for r in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(r.prompt)) + [1] * len(r.prompt) for r in batch], device=model.device)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(sampling.end_tokens),
            pad_token_id=end,
        )
        for request, row in zip(batch, output[:, width:].tolist(), strict=True):
            ends = [position for position, token in enumerate(row) if token in sampling.end_tokens]
            found[request.index] = tuple(row[: ends[0] + 1] if ends else row)
    return found


def apart(model: Any, tokenizer: Any, requests: Sequence[Request], sampling: Sampling) -> Tokens:
    """Our loop without a prefix."""
    with patch.object(batched, "common_prefix", return_value=()):
        return {each.index: each.tokens for each in generate(model, tokenizer, requests, sampling)}


def vllm_arm(model: Any, tokenizer: Any, requests: Sequence[Request], sampling: Sampling) -> Arm:
    """vLLM started on `model`, which stays in this process and hands its weights over before every call."""
    from qtarget.evaluation.generation.vllm_backend import VllmBackend

    with tempfile.TemporaryDirectory() as folder:
        backend = VllmBackend(model, tokenizer, Path(folder))
    return lambda: {c.index: c.tokens for c in backend.generate(requests, sampling)}


def measure(
    arms: dict[str, Arm], repeats: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, Tokens]]:
    """Useful tokens per second of each arm in each repeat, and what each arm generated."""
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    outputs: dict[str, Tokens] = {}
    for repeat in range(repeats):
        names = list(arms) if repeat % 2 == 0 else list(arms)[::-1]
        for name in names:
            started = clock()
            outputs[name] = arms[name]()
            seconds = clock() - started
            speeds[name].append(sum(map(len, outputs[name].values())) / seconds)
    return speeds, outputs


def report(speeds: dict[str, list[float]], outputs: dict[str, Tokens]) -> dict[str, Any]:
    """Speeds, ratios and agreement as plain numbers."""
    lengths = sorted(map(len, outputs["ours"].values()))
    return {
        "tokens_per_second": {name: round(statistics.median(values), 1) for name, values in speeds.items()},
        "ours_over": {
            name: round(statistics.median(a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)), 2)
            for name in speeds
            if name != "ours"
        },
        "equal_to_one": {
            name: f"{sum(outputs[name][i] == tokens for i, tokens in outputs['one'].items())} of {len(outputs['one'])}"
            for name in outputs
            if name != "one"
        },
        "completion_tokens": {"shortest": lengths[0], "median": statistics.median(lengths), "longest": lengths[-1]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--problems", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--one", type=int, default=48)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--vllm", action="store_true")
    arguments = parser.parse_args()

    settings = ModelSettings(path=arguments.model)
    tokenizer = load_tokenizer(settings, Path())
    model: Any = load_model(settings, Path(), arguments.precision).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    requests = requests_for(tokenizer, arguments.problems)
    sampling = Sampling(arguments.tokens, end_tokens(model, tokenizer, chat=True), batch_size=arguments.batch)
    longest_first = sorted(requests, key=lambda request: -len(request.prompt))
    plain = PlainBackend(model, tokenizer)
    arms: dict[str, Arm] = {
        "ours": lambda: {c.index: c.tokens for c in generate(model, tokenizer, longest_first, sampling)},
        "apart": lambda: apart(model, tokenizer, longest_first, sampling),
        "one": lambda: {c.index: c.tokens for c in plain.generate(requests[: arguments.one], sampling)},
        "fixed": lambda: fixed_batches(model, requests, sampling),
    }
    if arguments.vllm:
        arms["vllm"] = vllm_arm(model, tokenizer, requests, sampling)
    speeds, outputs = measure(arms, arguments.repeats, CLOCKS[arguments.clock])
    print(json.dumps(report(speeds, outputs), indent=2))


if __name__ == "__main__":
    main()
