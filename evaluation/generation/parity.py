"""Does a backend answer as the model's own generate() does? Asked before its first use in a study."""

from __future__ import annotations

import logging
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ...spaces.errors import UserError
from ...spaces.identity import content_id
from ..problems.load import Problem
from .answering import prompt_of
from .backends import Backend, PlainBackend, TransformersBackend, set_aside
from .batched import evaluation_mode
from .completions import Request, Sampling
from .prompts import end_tokens

PROMPTS, TOKENS = 4, 16
"""What a check costs: so many prompts with so many tokens each, one at a time."""
TOLERANCE = {torch.float32: 0.01, torch.float64: 0.01}
"""Logits that rounding explains; half a logit in 16-bit precision."""

COMPUTING = ("torch", "transformers", "vllm")
"""Packages that a comparison is one of."""

log = logging.getLogger(__name__)


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


def backend_factory(name: str, model: Any, tokenizer: Any) -> Callable[[Any], Backend]:
    """From a model of `model`'s architecture to its backend `name`; vLLM starts once and takes each model's weights."""
    if name != "vllm":
        return lambda network: TransformersBackend(network, tokenizer)
    from .vllm_backend import VllmBackend

    with tempfile.TemporaryDirectory(prefix="qtarget-vllm-") as folder:  # from then on weights are handed over
        engine = VllmBackend(model, tokenizer, Path(folder))

    def with_weights(network: Any) -> Backend:
        engine.load(network)
        return engine

    return with_weights


@dataclass(frozen=True)
class Checked:
    """A backend that may be used, and what its check said."""

    backend: Callable[[Any], Backend]
    """From a model to its backend."""
    name: str
    """Of the backend that is used, which may be another than was asked for."""
    parity: Parity | None
    """None for the plain backend, which is the reference."""
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the record."""
        return {"used": self.name, "note": self.note, **(asdict(self.parity) if self.parity else {})}

    @classmethod
    def from_dict(cls, backend: Callable[[Any], Backend], record: Mapping[str, Any]) -> Checked:
        """What `as_dict` gave of a backend that was compared."""
        parity = Parity(record["compared"], record["identical"], record["largest_gap"])
        return cls(backend, record["used"], parity, record["note"])


def checked(
    name: str, make: Callable[[Any], Backend], model: Any, tokenizer: Any, problems: Sequence[Problem], greedy: bool
) -> Checked:
    """The backend `name`, made by `make`, if it answers a few of `problems` greedily as plain generate() does.

    Rounding may turn a near-tie. Otherwise a greedy study falls back to plain generate(), with a warning. Raises
    UserError for a study that samples, whose noise plain generate() does not know.
    """
    ignored = (
        f"; set aside from the model's generation_config: {', '.join(names)}" if (names := set_aside(model)) else ""
    )
    plain = Checked(
        lambda m: PlainBackend(m, tokenizer), "plain", None, f"plain generate(), one problem at a time{ignored}"
    )
    if name == "plain":
        return plain
    requests, sampling = _questions(model, tokenizer, problems)
    try:
        found = parity(make(model), model, tokenizer, requests, sampling)
        tolerance = TOLERANCE.get(model.get_input_embeddings().weight.dtype, 0.5)
        said = f"{name}: {found.identical} of {found.compared} answers equal those of plain generate()"
        if found.agrees(tolerance):
            return Checked(make, name, found, f"{said}, largest gap {found.largest_gap:.2g} logits{ignored}")
        why = f"{said}; the others differ by up to {found.largest_gap:.2g} logits, rounding explains {tolerance}"
    except UserError as error:
        why = str(error)
    if not greedy:
        raise UserError(
            f"A backend must answer as the model's own generate() does, but {why}; set `evaluation.temperature: 0` to "
            "use plain generate(), or another backend",
            field="evaluation.backend",
        )
    log.warning("%s; using plain generate()", why)
    return replace(plain, note=f"plain generate(), one problem at a time, because {why}{ignored}")


def conditions(name: str, model: Any, tokenizer: Any, problems: Sequence[Problem], *, greedy: bool) -> str:
    """An id of what the check of the backend `name` depends on besides weights: configurations, questions, host, code.

    Where it and the weights are the same, so is the outcome.
    """
    requests, sampling = _questions(model, tokenizer, problems)
    weight, code = model.get_input_embeddings().weight, sorted(Path(__file__).parent.glob("*.py"))
    told = (getattr(model, each, None) for each in ("config", "generation_config"))
    return content_id(
        {
            "backend": [name, greedy, str(weight.dtype)],
            "model": [None if each is None else each.to_json_string() for each in told],
            "attention": str(model.config._attn_implementation),
            "questions": [asdict(sampling) | {"end_tokens": sorted(sampling.end_tokens)}, [r.prompt for r in requests]],
            "host": [platform.node(), torch.backends.cpu.get_cpu_capability(), _device(weight.device)],
            "packages": [_version(each) for each in COMPUTING],
            "code": [sha256(each.read_bytes()).hexdigest() for each in code],
        }
    )


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _questions(model: Any, tokenizer: Any, problems: Sequence[Problem]) -> tuple[list[Request], Sampling]:
    """The shortest of the first problems, and how to answer them."""
    ends = end_tokens(model, tokenizer, chat=any(problem.chat for problem in problems))
    sampling = Sampling(TOKENS, ends, batch_size=PROMPTS)
    asked = (prompt_of(tokenizer, problem, sampling).ids for problem in problems[: 8 * PROMPTS])
    return [Request(index, ids) for index, ids in enumerate(sorted(asked, key=len)[:PROMPTS])], sampling
