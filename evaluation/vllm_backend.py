"""Generation by vLLM in this process (extra `vllm`): started once, weights handed over before every evaluation."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..spaces.errors import UserError
from .generate import Completion, Request, Sampling, finished


class VllmBackend:
    """vLLM on the weights of a model that lives in this process. Its sampling noise is its own, seeded per request.

    The engine sleeps between evaluations, so that training has the device's memory. Merged LoRA weights are handed over
    like any others.
    """

    def __init__(
        self, model: Any, tokenizer: Any, folder: Path, *, max_model_len: int | None = None, memory: float = 0.4
    ) -> None:
        """`folder`: scratch space for the model's configuration and first weights; `memory`: share of the device's that
        vLLM may take while it works. Raises UserError when vLLM is not installed.
        """
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # its model must be in this process to take our weights
        try:
            from vllm import LLM
        except ImportError as error:
            raise UserError(
                "The backend `vllm` needs the package vllm, but it is not installed; "
                "pip install 'qtarget[vllm]', or use the transformers backend"
            ) from error
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        self._tokenizer = tokenizer
        self._engine = LLM(
            model=str(folder), max_model_len=max_model_len, gpu_memory_utilization=memory, enable_sleep_mode=True
        )
        self._engine.sleep(level=2)
        self._model = model

    def load(self, model: Any) -> None:
        """Generate with `model`'s weights from now on."""
        self._model = model

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
        prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        with self._awake():
            outputs = self._engine.generate(prompts, parameters)
        seconds = (time.perf_counter() - started) / max(len(requests), 1)
        for request, output in zip(requests, outputs, strict=True):
            yield finished(self._tokenizer, request, tuple(output.outputs[0].token_ids), sampling, seconds)

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """Weights handed over on waking, as a deep sleep forgets them."""
        self._engine.wake_up(tags=["weights"])
        weights = list(merged_weights(self._model))
        self._engine.apply_model(lambda network: network.load_weights(weights))
        self._engine.reset_prefix_cache()
        self._engine.wake_up(tags=["kv_cache"])
        try:
            yield
        finally:
            self._engine.sleep(level=2)


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each parameter as the base architecture calls it, adapters merged into what they adapt.

    The values of adapted parameters are copies; the model is left as it was.
    """
    adapted = hasattr(model, "merge_adapter")
    if adapted:
        model.merge_adapter()
    try:
        for name, parameter in model.named_parameters():
            if adapted and (model.prefix in name or "original_module" in name):
                continue
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            value = parameter.detach()
            yield plain.replace("modules_to_save.default.", ""), value.clone() if adapted else value
    finally:
        if adapted:
            model.unmerge_adapter()
