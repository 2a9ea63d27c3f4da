"""How an engine scores models: a backend that was checked against plain generate(), and what trials must not forget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...evaluation.generation.backends import Backend
from ...evaluation.generation.batched import evaluation_mode
from ...evaluation.generation.parity import Checked, backend_factory, checked, conditions
from ...evaluation.problems.load import Problem
from ...evaluation.scoring.evaluate import OnBlock
from ...evaluation.scoring.retention import remembered
from ...evaluation.scoring.retention_measure import RetentionMeasure
from ...spaces.identity import content_id
from ...trainers.data.style import Style
from ...trainers.loop.resident import ResidentModel
from ...trainers.teachers.answers import Answers
from ..study.config import StudyConfig
from ..study.files import read_json, write_json

BACKEND_FILE = "backend.json"
"""In the study's folder: who generates, and how it compared with plain generate()."""


class Scoring:
    """What all evaluations of an engine share."""

    def __init__(
        self,
        config: StudyConfig,
        resident: ResidentModel,
        problems: Sequence[Problem],
        seen: Collection[str],
        style: Style,
    ) -> None:
        """`seen`: content hashes of the training prompts; `style`: how the demonstrations ask."""
        self._config, self._resident, self._problems = config, resident, problems
        self._checked: Checked | None = None
        self._retention: RetentionMeasure | None = None
        self._seed = config.search.seed
        settings, base = config.evaluation, config.base_folder
        if settings.retention is not None:
            tokenizer = resident.tokenizer
            self._retention = RetentionMeasure(settings, settings.retention, tokenizer, base, self._seed, seen, style)

    def fingerprints(self) -> dict[str, str]:
        """Content of what trials must not forget."""
        return {} if self._retention is None else {"retention": self._retention.fingerprint}

    def prepare(self, base: Any, on_block: OnBlock) -> bool:
        """Check the backend and ask the untouched base what later trials are compared with; False when stopped."""
        if self._checked is None:
            self._checked = self._check(base)
        if self._retention is not None and not self._retention.knows_base:
            self._retention.ask_base(base, self._seed, self.backend(base), on_block)
            return self._retention.knows_base
        return True

    def backend(self, model: Any) -> Backend:
        """Who generates `model`'s answers."""
        assert self._checked is not None, "`prepare` comes first"
        return self._checked.backend(model)

    def described_backend(self) -> dict[str, Any]:
        """Name and check of the backend, for the record."""
        assert self._checked is not None, "`prepare` comes first"
        return self._checked.as_dict()

    def retention(self, model: Any, items: Path | None, on_block: OnBlock) -> tuple[bool, dict[str, Any] | None]:
        """(whether it went through, what `model` kept); nothing to keep: None."""
        if self._retention is None:
            return True, None
        base = self._base_logits if self._retention.compares_logits else None
        found = self._retention.measure(
            model, base, seed=self._seed, items_path=items, backend=self.backend(model), on_block=on_block
        )
        return found is not None, found

    @cached_property
    def _base_logits(self) -> Callable[[Tensor, Tensor], Tensor]:
        frozen = self._resident.reference()
        network: Any = frozen.model

        @torch.no_grad()
        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            with network.disable_adapter() if frozen.adapters_off else nullcontext(), evaluation_mode(network):
                return torch.as_tensor(network(input_ids=ids, attention_mask=mask).logits)

        return remembered(logits, Answers())

    def _check(self, base: Any) -> Checked:
        """Once a study and host: its folder keeps the outcome, for as long as all that it depends on stays the same."""
        settings, tokenizer = self._config.evaluation, self._resident.tokenizer
        name, greedy = settings.backend, settings.temperature == 0
        make = backend_factory(name, base, tokenizer)
        depends = conditions(name, base, tokenizer, self._problems, greedy=greedy)
        of = content_id([self._resident.fingerprint, depends])
        file = self._config.study_folder / BACKEND_FILE
        record = kept(file)
        if record.get("of") == of and record.get("used") == name != "plain":
            return Checked.from_dict(make, record)
        found = checked(name, make, base, tokenizer, self._problems, greedy=greedy)
        if file.parent.is_dir():  # `check` leaves the disk as it was
            write_json(file, found.as_dict() | {"of": of})
        return found


def kept(file: Path) -> dict[str, Any]:
    """A record of before; an empty one where there is none that can be read."""
    try:
        return read_json(file) or {}
    except (OSError, ValueError):
        return {}


def needs_base(config: StudyConfig) -> bool:
    """Whether full fine-tunes need the untouched base beside them to be measured."""
    retention = config.evaluation.retention
    return config.training.lora is None and retention is not None and retention.text is not None
