"""What all trials of an engine share, resident: models, data, problems, sources of residuals."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ...evaluation.generation.learnt_and_asked import learnt_and_asked
from ...evaluation.generation.prompts import structured
from ...evaluation.problems.load import Problem, Splits, content_of, load_problems
from ...evaluation.problems.mismatches import Difference, all_differences, warnings
from ...evaluation.problems.splits import training_hashes
from ...evaluation.problems.untouched import untouched_problems
from ...evaluation.settings import EvaluationSettings
from ...spaces import TargetSpec
from ...spaces.identity import content_id
from ...trainers.data.demonstrations import Demonstrations
from ...trainers.data.fit import Ends, check_ends
from ...trainers.data.load import load_demonstrations, read_turns
from ...trainers.data.style import Style
from ...trainers.loop.checkpoint import checkpoint_bytes
from ...trainers.loop.resident import ResidentModel, needs_frozen_copy
from ...trainers.settings import DataSettings, ModelSettings
from ...trainers.teachers.sources import CachedModel, LabelColumn, Source
from ..study.config import StudyConfig
from ..study.files import SEEN_FILE, read_json
from .cache import cache_bias, study_caches
from .scoring import Scoring, needs_base


class Engine:
    """Everything that trials share, resident."""

    def __init__(self, config: StudyConfig) -> None:
        base = config.base_folder
        self._config = config
        self._opened: dict[str, CachedModel] = {}
        needs, live = config.needs - config.in_data, config.cache is None
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
            self.data = load_demonstrations(config.data, self.tokenizer, base, day=config.date)
            self.ends = meet(self.resident, self.data, config.data, config.evaluation)
            self.resident.remember()
            lora = config.training.lora
            self.adapters = None if lora is None else self.resident.described_adapters(lora)
            self.checkpoint_bytes = checkpoint_bytes(self.resident.trained_parameters)
            seen, style = training_hashes(training_prompts(config.data, base)), self.data.style
            self.splits = load_problems(searched_settings(config), base, config.search.seed, seen, style)
            self.scoring = Scoring(config, self.resident, self.splits.search, seen, style)
            report = self.splits.report if config.confirms is None else untouched(config, self.splits, seen, style)
        self.problems = {"search": self.splits.search, "report": report}

    def sources(self, target: TargetSpec) -> dict[str, Any]:
        """Reference and teacher of a design, live or from the cache that all trials share; None where it needs none."""
        return {role: self._source(role, target) if role in target.needs else None for role in ("reference", "teacher")}

    def _source(self, role: str, target: TargetSpec) -> Source | None:
        if role == "reference" and self.data.has_reference_logprobs and role not in target.needs_rows:
            return LabelColumn()
        if self._config.cache is None:
            return self.resident.reference() if role == "reference" else self.resident.teacher
        model = self._config.model if role == "reference" else self._config.teacher
        return None if model is None else self._cached(role, model)

    def _cached(self, role: str, model: ModelSettings) -> CachedModel:
        """Opened once an engine; built first when it is not there."""
        if role not in self._opened:
            caches, _ = study_caches(self._config, self.data, self.tokenizer)
            rows = role in self._config.needs_rows
            # every rank calls: they build together
            self._opened[role] = caches.open_or_build(model, rows=rows, device=self.resident.device)
        return self._opened[role]

    def cache_bias(self) -> dict[str, Any] | None:
        """What the study's caches lose, measured once a study; None where models are asked live."""
        return None if self._config.cache is None else cache_bias(self._config, self.resident, self.data)

    def fingerprints(self) -> dict[str, str]:
        """Content of all inputs: equal fingerprints and settings give equal trials."""
        found = {
            "model": self.resident.fingerprint,
            "data": self.data.fingerprint,
            "evaluation": problems_fingerprint(self.splits),
        }
        if self.problems["report"] != self.splits.report:
            found["report"] = content_id([problem.id for problem in self.problems["report"]])
        found |= self.scoring.fingerprints()
        if self.resident.teacher_fingerprint is not None:
            found["teacher"] = self.resident.teacher_fingerprint
        elif "teacher" in self._config.needs and self._config.teacher is not None:
            found["teacher"] = self._cached("teacher", self._config.teacher).cache.manifest.key.id
        return found

    def warnings(self) -> list[str]:
        """What is worth a look before a night is spent, a sentence each."""
        asked = [problem for split in self.problems.values() for problem in split]
        notes = [*self.splits.notes, *structured(self.tokenizer, asked)]
        found = warnings(self.data, notes, self._config.training, self.differences)
        return [*found, *self.ends.notes, *(self.adapters[1] if self.adapters else [])]

    @cached_property
    def differences(self) -> list[Difference]:
        """What differs between learning the demonstrations and answering the problems."""
        asked, ends = self._config.evaluation, self.resident.end_tokens
        return all_differences(self.data, self.splits.search, asked, self.tokenizer, ends)

    def learnt(self) -> dict[str, Any]:
        """Two demonstrations as given and as learnt, one problem as asked, and what differs: JSON data."""
        turns = read_turns(self._config.data, self._config.base_folder)
        found = [*self.differences, *(Difference("end", note) for note in self.ends.notes)]
        ends = self.resident.end_tokens
        return learnt_and_asked(self.data, turns, self.splits.search, self.tokenizer, ends, found)

    def describe(self) -> dict[str, str]:
        """What was found, in a line each, for people."""
        left_out, report = self.splits.in_training, self.problems["report"]
        return {
            "data": self.data.summary(),
            "problems": f"{len(self.splits.search)} to search with, {len(report)} kept for the report, "
            f"{left_out} left out because the demonstrations contain them",
            "date": f"{self.data.style.day}, for chat templates that print one",
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "ends": self.ends.line,
            **({} if self.adapters is None else {"adapters": self.adapters[0]}),
        }


def meet(
    resident: ResidentModel, data: Demonstrations, settings: DataSettings, evaluation: EvaluationSettings | None
) -> Ends:
    """Let the model meet what it is trained and scored on; where answers end.

    Raises UserError for demonstrations that the model cannot read, and where nothing ends an answer.
    """
    chat = settings.chat or (evaluation is not None and any(task.chat for task in evaluation.tasks))
    resident.meet(data, chat=chat and bool(resident.tokenizer.chat_template))
    stop = None if evaluation is None else evaluation.stop
    return check_ends(data, resident.end_tokens, resident.tokenizer, chat=settings.chat, stop=stop)


def searched_settings(config: StudyConfig) -> EvaluationSettings:
    """How the search of a study, or the search that it confirms, divides its problems."""
    kept = config.evaluation.report_problems if config.confirms is None else config.confirms.report_problems
    return config.evaluation.model_copy(update={"report_problems": kept})


def untouched(config: StudyConfig, splits: Splits, training: Collection[str], style: Style) -> tuple[Problem, ...]:
    """What a confirmation asks: the problems that its search kept back, others where they were seen or do not suffice.

    Raises UserError when there are not enough that no trial has seen.
    """
    known = (read_json(config.study_folder / SEEN_FILE) or {}).get("problems", [])
    if len(splits.report) == config.evaluation.report_problems and not {each.id for each in splits.report} & {*known}:
        return splits.report
    known = [*known, *(problem.question_hash for problem in splits.search)]
    return untouched_problems(config.evaluation, config.base_folder, config.search.seed, training, known, style)


def problems_fingerprint(splits: Splits) -> str:
    """Content of all problems of a study."""
    return content_id([content_of(problems) for problems in (splits.search, splits.report)])


def training_prompts(settings: DataSettings, base: Path) -> Iterator[str]:
    """What the demonstrations ask: problems among them would be remembered, not solved."""
    return (asked for turn in read_turns(settings, base) for asked in turn.asked)
