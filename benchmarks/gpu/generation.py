"""Part e: answers per second, and whether they are those of `generate()`, one problem at a time.

Random weights rarely end an answer, so one token in `ENDS` counts as an end. Useful tokens only: those up to and with
the end. Arms: qtarget's loop; `generate()` on fixed batches with its growing cache, and with a static one; a decoding
step on a static cache captured once as a CUDA graph and replayed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import StaticCache

from qtarget.evaluation.generation.backends import PlainBackend
from qtarget.evaluation.generation.batched import generate
from qtarget.evaluation.generation.completions import Request, Sampling

from .made import Sizes, device, llama, peak, tokenizer, wait
from .run import Measurement

ENDS = 97
COMPARED, TOKENS = 4, 32
"""Problems that `generate()` answers one at a time, as the reference, and tokens of each at most."""
Answers = dict[int, tuple[int, ...]]


def measurements(sizes: Sizes, folder: Path) -> Iterator[Measurement]:
    @cache
    def model(dtype: torch.dtype) -> Any:
        return llama(sizes.model, dtype, seed=1)

    yield Measurement("equality", 8, lambda: equality(sizes, model(torch.float32)))
    model.cache_clear()
    for size in sizes.batch_sizes:
        yield Measurement(f"speed-{size}", 18, lambda size=size: speeds(sizes, model(torch.bfloat16), size))


def requests_of(sizes: Sizes) -> list[Request]:
    generator = torch.Generator().manual_seed(0)
    longest = sizes.lengths[0]
    made = []
    for number in range(sizes.prompts):
        length = longest // 2 + (longest // 2) * (number * 7 % sizes.prompts) // sizes.prompts
        prompt = torch.randint(3, sizes.model["vocab_size"], (length,), generator=generator)
        made.append(Request(number, tuple(prompt.tolist())))
    return made


def sampling_of(sizes: Sizes, batch: int) -> Sampling:
    return Sampling(sizes.new_tokens, frozenset(range(2, sizes.model["vocab_size"], ENDS)), batch_size=batch)


def arms(model: Any, sizes: Sizes, requests: Sequence[Request], batch: int) -> dict[str, Callable[[], Answers]]:
    sampling = sampling_of(sizes, batch)
    words = tokenizer(sizes.model["vocab_size"])
    longest_first = sorted(requests, key=lambda request: -len(request.prompt))
    found: dict[str, Callable[[], Answers]] = {
        "ours": lambda: {each.index: each.tokens for each in generate(model, words, longest_first, sampling)},
        "fixed": lambda: fixed_batches(model, requests, sampling),
        "static": lambda: fixed_batches(model, requests, sampling, cache_implementation="static", disable_compile=True),
    }
    found["graph" if torch.cuda.is_available() else "step"] = lambda: replayed(model, requests, sampling)
    return found


@torch.no_grad()
def fixed_batches(model: Any, requests: Sequence[Request], sampling: Sampling, **options: Any) -> Answers:
    """generate() on so many requests at a time, left-padded, in the given order."""
    found: Answers = {}
    for batch in batches(requests, sampling.batch_size):
        ids, mask = padded(batch)
        output = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(sampling.end_tokens), pad_token_id=0, **options,
        )  # fmt: skip
        found |= cut(batch, output[:, ids.shape[1] :].tolist(), sampling)
    return found


@torch.no_grad()
def replayed(model: Any, requests: Sequence[Request], sampling: Sampling) -> Answers:
    """One decoding step on a static cache, captured as a CUDA graph for the largest batch and replayed for each token;
    without a GPU the step itself, again and again.

    Every batch is padded to the same shape; the prefill runs outside the graph.
    """
    width = max(len(request.prompt) for request in requests)
    room = width + sampling.max_new_tokens
    size = sampling.batch_size
    place = device()
    cache = StaticCache(config=model.config, max_cache_len=room)
    token = torch.zeros(size, 1, dtype=torch.long, device=place)
    mask = torch.zeros(size, room, dtype=torch.long, device=place)
    positions = torch.zeros(size, 1, dtype=torch.long, device=place)
    column = torch.zeros(1, dtype=torch.long, device=place)

    def step() -> Tensor:
        mask.index_fill_(1, column, 1)
        logits = model(
            input_ids=token, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            cache_position=column,
        ).logits[:, -1]  # fmt: skip
        token.copy_(logits.float().argmax(-1, keepdim=True))
        positions.add_(1)
        column.add_(1)
        return token

    found: Answers = {}
    again: Callable[[], object] | None = None
    for batch in batches(requests, size):
        rows = [*batch, *[batch[0]] * (size - len(batch))]
        ids, given = padded(rows, width)
        cache.reset()
        columns = torch.arange(width, device=place)
        logits = model(
            input_ids=ids, attention_mask=torch.cat([given, mask.new_zeros(size, room - width)], 1),
            position_ids=(given.cumsum(1) - 1).clamp(min=0), past_key_values=cache, use_cache=True,
            cache_position=columns, logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip

        def enter(logits: Tensor = logits, given: Tensor = given) -> None:
            mask.zero_()
            mask[:, :width] = given
            token.copy_(logits.float().argmax(-1, keepdim=True))
            positions.copy_(given.sum(1, keepdim=True))
            column.fill_(width)
            for layer in cache.layers:  # they count what passes, warm-ups too
                layer.cumulative_length.fill_(width)

        if again is None:
            step_twice(step, enter)
            again = captured(step, enter).replay if torch.cuda.is_available() else step
        enter()
        made = [token.clone()]
        for _ in range(sampling.max_new_tokens - 1):
            again()
            made.append(token.clone())
        found |= cut(batch, torch.cat(made, 1).tolist(), sampling)
    return found


def step_twice(step: Callable[[], Tensor], enter: Callable[[], None]) -> None:
    """Warm up, as a graph wants it: on a side stream where there is a GPU."""
    side = torch.cuda.Stream() if torch.cuda.is_available() else None
    if side is not None:
        side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            enter()
            step()
    if side is not None:
        torch.cuda.current_stream().wait_stream(side)


def captured(step: Callable[[], Tensor], enter: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """The step as a graph; `enter` puts the inputs where they were."""
    enter()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def batches(requests: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
    return (requests[start : start + size] for start in range(0, len(requests), size))


def padded(batch: Sequence[Request], width: int | None = None) -> tuple[Tensor, Tensor]:
    """Ids and mask (sequences, columns), padded on the left."""
    width = width or max(len(request.prompt) for request in batch)
    ids = [[0] * (width - len(request.prompt)) + list(request.prompt) for request in batch]
    mask = [[0] * (width - len(request.prompt)) + [1] * len(request.prompt) for request in batch]
    return torch.tensor(ids, device=device()), torch.tensor(mask, device=device())


def cut(batch: Sequence[Request], rows: Sequence[Sequence[int]], sampling: Sampling) -> Answers:
    """Each row up to and with its first end."""
    found: Answers = {}
    for request, row in zip(batch, rows, strict=False):
        ends = [place for place, token in enumerate(row) if token in sampling.end_tokens]
        found[request.index] = tuple(row[: ends[0] + 1] if ends else row)
    return found


def equality(sizes: Sizes, model: Any) -> dict[str, Any]:
    """Float32: every arm against generate() on single problems, token for token."""
    requests, sizes = requests_of(sizes)[:COMPARED], replace(sizes, new_tokens=min(TOKENS, sizes.new_tokens))
    plain = PlainBackend(model, tokenizer(sizes.model["vocab_size"]))
    expected = {each.index: each.tokens for each in plain.generate(requests, sampling_of(sizes, 1))}
    equal, reasons = {}, {}
    for name, arm in arms(model, sizes, requests, len(requests)).items():
        try:
            found = arm()
            equal[name] = sum(found[number] == tokens for number, tokens in expected.items())
        except Exception as error:  # an arm that a version of transformers does not know is named
            reasons[name] = f"{type(error).__name__}: {str(error)[:200]}"
    return {
        "compared": len(expected),
        "equal": equal,
        "not_run": reasons,
        "passes": equal.get("ours") == len(expected),
    }


def speeds(sizes: Sizes, model: Any, batch: int) -> dict[str, Any]:
    """Bfloat16: useful tokens a second of each arm, twice, after a first batch that is not timed."""
    requests, speed, reasons, memory = requests_of(sizes), {}, {}, {}
    first = arms(model, sizes, requests[:batch], batch)
    for name, arm in arms(model, sizes, requests, batch).items():
        try:
            with peak() as found:
                first[name]()
            memory[name] = found["bytes"]
            taken = []
            for _ in range(2):
                wait()
                started = time.perf_counter()
                answers = arm()
                wait()
                taken.append(sum(map(len, answers.values())) / (time.perf_counter() - started))
            speed[name] = statistics.median(taken)
        except Exception as error:
            reasons[name] = f"{type(error).__name__}: {str(error)[:200]}"
    best = max((value for name, value in speed.items() if name in ("fixed", "static")), default=None)
    ratios = {}
    if best and "ours" in speed:
        ratios["G12 scoring, ours / generate()"] = {"medians": speed["ours"] / best, "rule": ">=", "limit": 5.0}
    return {"tokens_per_second": speed, "peak_extra_bytes": memory, "not_run": reasons, "ratios": ratios}
