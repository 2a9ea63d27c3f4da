"""Who generates: our batched loop, the model's own generate(), or vLLM; and a check that two of them agree."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..spaces.errors import UserError
from .generate import Completion, Request, Sampling, evaluation_mode, finished, generate


class Backend(Protocol):
    """Makes the completions of requests, in any order, each yielded when it is ready."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Completion]: ...


@dataclass(frozen=True)
class TransformersBackend:
    """Batched decoding with the weights in this process (`generate.py`). The default."""

    model: Any
    tokenizer: Any

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Completion]:
        return generate(self.model, self.tokenizer, requests, sampling)


@dataclass(frozen=True)
class PlainBackend:
    """`model.generate(do_sample=False)`, one request at a time: slow, greedy, and the reference for the others."""

    model: Any
    tokenizer: Any

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Completion]:
        if sampling.temperature:
            raise UserError(
                f"`temperature` must be 0 with the plain backend, but got {sampling.temperature}; "
                "use the transformers backend, whose noise does not depend on the batch"
            )
        with evaluation_mode(self.model):
            for request in requests:
                yield self._one(request, sampling)

    def _one(self, request: Request, sampling: Sampling) -> Completion:
        started = time.perf_counter()
        prompt = torch.tensor([request.prompt], device=self.model.get_input_embeddings().weight.device)
        ends = sorted(sampling.end_tokens)
        output = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            repetition_penalty=1.0,  # whatever the model's generation_config says: scores are of the model itself
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
            stop_strings=list(sampling.stop) or None,
            tokenizer=self.tokenizer,
        )
        tokens = tuple(output[0, prompt.shape[1] :].tolist())
        return finished(self.tokenizer, request, tokens, sampling, time.perf_counter() - started)


class VllmBackend:
    """vLLM (extra `vllm`) on a model folder. Its sampling noise is its own, seeded per request.

    The weights are those of the folder; after a change, save the folder again and make a new backend.
    """

    def __init__(self, folder: Path, tokenizer: Any, *, max_model_len: int | None = None) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise UserError(
                "The backend `vllm` needs the package vllm, but it is not installed; "
                "pip install 'qtarget[vllm]', or use the transformers backend"
            ) from error
        self._engine = LLM(model=str(folder), max_model_len=max_model_len)
        self._tokenizer = tokenizer

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Completion]:
        """All requests in one call: vLLM schedules them itself, and yields nothing before the last has ended."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                max_tokens=sampling.max_new_tokens,
                stop=list(sampling.stop),
                stop_token_ids=sorted(sampling.end_tokens),
                seed=request.key,
            )
            for request in requests
        ]
        started = time.perf_counter()
        outputs = self._engine.generate([{"prompt_token_ids": list(r.prompt)} for r in requests], parameters)
        seconds = (time.perf_counter() - started) / max(len(requests), 1)
        for request, output in zip(requests, outputs, strict=True):
            yield finished(self._tokenizer, request, tuple(output.outputs[0].token_ids), sampling, seconds)


@dataclass(frozen=True)
class Parity:
    """How a backend's greedy completions compare with plain generate()."""

    compared: int
    identical: int
    largest_gap: float
    """Logits. Where two completions part, how far the backend's token lies below the best; 0 if all are identical."""

    def agrees(self, tolerance: float) -> bool:
        """Whether every difference is a near-tie, so that rounding explains it."""
        return self.largest_gap <= tolerance


def parity(backend: Backend, model: Any, tokenizer: Any, requests: Sequence[Request], sampling: Sampling) -> Parity:
    """Compare `backend` with `model.generate()` on a few requests, greedily.

    Rounding may turn a near-tie (`largest_gap` of the order of 1e-4 in float32, 0.1 in bfloat16); a wrong mask,
    position or weight shows as a gap of whole logits.
    """
    theirs = {completion.index: completion for completion in backend.generate(requests, sampling)}
    ours = {completion.index: completion for completion in PlainBackend(model, tokenizer).generate(requests, sampling)}
    gaps = [
        _gap(model, request, theirs[request.index].tokens, ours[request.index].tokens)
        for request in requests
        if theirs[request.index].tokens != ours[request.index].tokens
    ]
    return Parity(len(requests), len(requests) - len(gaps), max(gaps, default=0.0))


@torch.no_grad()
def _gap(model: Any, request: Request, other: tuple[int, ...], plain: tuple[int, ...]) -> float:
    """Logit of the best token minus that of `other`'s, where the two part; infinite when one merely ends earlier."""
    common = next((i for i, (a, b) in enumerate(zip(other, plain, strict=False)) if a != b), None)
    if common is None:
        return float("inf")
    ids = torch.tensor([[*request.prompt, *plain[:common]]], device=model.get_input_embeddings().weight.device)
    with evaluation_mode(model):
        logits = model(input_ids=ids).logits[0, -1].float()
    return float(logits.max() - logits[other[common]])
