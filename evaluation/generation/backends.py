"""Who generates: our batched loop, or the model's own generate(). vLLM has a file of its own."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ...spaces.errors import UserError
from .batched import evaluation_mode, generate
from .completions import Completion, Request, Sampling, finished


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
