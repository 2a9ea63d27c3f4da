"""What all trials of an engine share, resident: models, data, problems, sources of residuals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ...evaluation.problems.load import load_problems
from ...evaluation.problems.splits import training_hashes
from ...evaluation.settings import EvaluationSettings
from ...spaces import TargetSpec
from ...spaces.identity import content_id
from ...trainers.data.demonstrations import Demonstrations
from ...trainers.data.fit import check_ends
from ...trainers.data.load import load_demonstrations, load_rows, turn_reader
from ...trainers.loop.resident import ResidentModel, needs_frozen_copy
from ...trainers.settings import DataSettings, ModelSettings
from ...trainers.teachers.sources import CachedModel
from ..study.config import StudyConfig
from .cache import cache_bias, study_caches
from .scoring import Scoring, needs_base


class Engine:
    """Everything that trials share, resident."""

    def __init__(self, config: StudyConfig) -> None:
        base = config.base_folder
        self._config = config
        self._opened: dict[ModelSettings, CachedModel] = {}
        needs, live = config.needs, config.cache is None
        self.resident = ResidentModel(
            config.model,
            base,
            precision=config.training.precision,
            reference=(live and needs_frozen_copy(needs, config.training.lora)) or needs_base(config),
            teacher=config.teacher if live and "teacher" in needs else None,
            sharded=config.engine.strategy == "fsdp" and PartialState().num_processes > 1,
        )
        self.tokenizer = self.resident.tokenizer
        with PartialState().main_process_first():  # of several ranks one prepares the data, the others find it
            self.data = load_demonstrations(config.data, self.tokenizer, base)
            self.ends = meet(self.resident, self.data, config.data, config.evaluation)
            seen = training_hashes(training_prompts(config.data, base))
            self.splits = load_problems(config.evaluation, base, config.search.seed, seen)
            self.scoring = Scoring(config, self.resident, self.splits.search, seen)
        self.problems = {"search": self.splits.search, "report": self.splits.report}

    def sources(self, target: TargetSpec) -> dict[str, Any]:
        """Reference and teacher of a design, live or from the cache that all trials share; None where it needs none."""
        resident, config, needs = self.resident, self._config, target.needs
        if config.cache is not None:
            return {
                "reference": self._cached(config.model) if "reference" in needs else None,
                "teacher": self._cached(config.teacher) if "teacher" in needs and config.teacher else None,
            }
        return {
            "reference": resident.reference() if "reference" in needs else None,
            "teacher": resident.teacher if "teacher" in needs else None,
        }

    def _cached(self, model: ModelSettings) -> CachedModel:
        """Opened once an engine; built first when it is not there."""
        if model not in self._opened:
            caches, _ = study_caches(self._config, self.data, self.tokenizer)
            # every rank calls: they build together
            self._opened[model] = caches.open_or_build(model, device=self.resident.device)
        return self._opened[model]

    def cache_bias(self) -> dict[str, Any] | None:
        """What the study's caches lose, measured once a study; None where models are asked live."""
        return None if self._config.cache is None else cache_bias(self._config, self.resident, self.data)

    def fingerprints(self) -> dict[str, str]:
        """Content of all inputs: equal fingerprints and settings give equal trials."""
        found = {
            "model": self.resident.fingerprint,
            "data": self.data.fingerprint,
            "evaluation": content_id([[problem.id for problem in problems] for problems in self.problems.values()]),
        }
        found |= self.scoring.fingerprints()
        if self.resident.teacher_fingerprint is not None:
            found["teacher"] = self.resident.teacher_fingerprint
        elif "teacher" in self._config.needs and self._config.teacher is not None:
            found["teacher"] = self._cached(self._config.teacher).cache.manifest.key.id
        return found

    def describe(self) -> dict[str, str]:
        """What was found, in a line each, for people."""
        left_out = self.splits.in_training
        return {
            "data": self.data.summary(),
            "problems": f"{len(self.splits.search)} to search with, {len(self.splits.report)} kept for the report, "
            f"{left_out} left out because the demonstrations contain them",
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "ends": self.ends,
            **self._adapters(),
        }

    def _adapters(self) -> dict[str, str]:
        lora = self._config.training.lora
        return {} if lora is None else {"adapters": self.resident.described_adapters(lora)}


def meet(
    resident: ResidentModel, data: Demonstrations, settings: DataSettings, evaluation: EvaluationSettings | None
) -> str:
    """Let the model meet what it is trained and scored on; where answers end, in a line for people.

    Raises UserError for demonstrations that the model cannot read, and where nothing ends an answer.
    """
    chat = settings.chat or (evaluation is not None and any(task.chat for task in evaluation.tasks))
    resident.meet(data, settings, chat=chat and bool(resident.tokenizer.chat_template))
    stop = None if evaluation is None else evaluation.stop
    return check_ends(data, resident.end_tokens, resident.tokenizer, chat=settings.chat, stop=stop)


def training_prompts(settings: DataSettings, base: Path) -> Iterator[str]:
    """What the demonstrations ask: problems among them would be remembered, not solved."""
    rows = load_rows(settings, base)
    to_turn = turn_reader(settings, list(rows.column_names))
    for number, row in enumerate(rows):
        prompt = to_turn(row, number).prompt
        if isinstance(prompt, str):
            yield prompt
        else:
            yield from (str(message["content"]) for message in prompt if message["role"] == "user")
