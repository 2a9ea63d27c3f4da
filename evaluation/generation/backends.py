"""Who generates: our batched loop, or the model's own generate(). vLLM has a file of its own."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig

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
        for request in requests:
            with evaluation_mode(self.model), plain_generation(self.model):
                completion = self._one(request, sampling)
            yield completion

    def _one(self, request: Request, sampling: Sampling) -> Completion:
        started = time.perf_counter()
        prompt = torch.tensor([request.prompt], device=self.model.get_input_embeddings().weight.device)
        ends = sorted(sampling.end_tokens)
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
            stop_strings=list(sampling.stop) or None,
        )
        output = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=settings,
            tokenizer=self.tokenizer,
        )
        tokens = tuple(output[0, prompt.shape[1] :].tolist())
        return finished(self.tokenizer, request, tokens, sampling, time.perf_counter() - started)


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_beam_groups": (1,), "penalty_alpha": (0, 0.0), "dola_layers": (), "constraints": (),
    "force_words_ids": (), "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,),
    "repetition_penalty": (1,), "encoder_repetition_penalty": (1,), "exponential_decay_length_penalty": (),
    "suppress_tokens": ([],), "begin_suppress_tokens": ([],), "bad_words_ids": ([],), "sequence_bias": ({}, []),
    "forced_bos_token_id": (), "forced_eos_token_id": (), "guidance_scale": (1,), "min_length": (0,),
    "min_new_tokens": (0,), "max_time": (), "stop_strings": ([],), "token_healing": (False,), "watermarking_config": (),
}  # fmt: skip
"""Settings of a generation configuration that make greedy answers other than the likeliest tokens, and what leaves them
as they are besides None."""


def set_aside(model: Any) -> list[str]:
    """`name=value` of what the model's generation configuration would change and no backend heeds.

    Scores are of the model itself: the likeliest token (or a draw from all of them), until an end token.
    """
    config = getattr(model, "generation_config", None)
    values = {name: getattr(config, name, None) for name in _NEUTRAL}
    return [
        f"{name}={value!r:.60}"
        for name, value in values.items()
        if value is not None and all(value != neutral for neutral in _NEUTRAL[name])
    ]


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """A generation configuration that says nothing; afterwards the model has its own again."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = [(each, each.generation_config) for each in {id(each): each for each in (model, inner)}.values()]
    for each, _ in kept:
        each.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for each, config in kept:
            each.generation_config = config
