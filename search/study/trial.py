"""One trial as data: what decides it, and the folder that its files live in."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any, Literal

from ...evaluation.settings import FROM_DEMONSTRATIONS, EvaluationSettings
from ...spaces.identity import canonical, content_id
from ...spaces.settings import Settings
from ...spaces.target import TargetSpec
from ...trainers.settings import DataSettings, ModelSettings, TrainingSettings
from .files import read_json, write_atomic, write_json

UNDECISIVE = {
    "training": {"micro_batch", "checkpoint_every"},
    "evaluation": {"batch_size", "report_problems"},
}
"""Settings that change how fast a trial runs, not what it computes: no part of its identity."""


LATER: dict[str, tuple[Any, ...]] = {
    "text_column": (None,),
    "tools_column": (None,),
    "learn": ("last",),
    "system": (FROM_DEMONSTRATIONS,),
    "few_shot": ([],),
    "chat_template_kwargs": (None, {}),
    "gold_is": (None,),
    "error_column": (None,),
    "weight_column": (None,),
    "reference_logprob_column": (None,),
}
"""Settings that came later, with the values that change nothing: no part of an identity then."""


class Rung(Settings):
    step: int
    """Optimiser steps done."""
    problems: int
    """Search problems scored there, always the first ones."""
    decay_steps: int = 0
    """Optimiser steps at a falling learning rate before the score, undone after it."""


class TrialSpec(Settings):
    """Everything that decides a trial. Equal specs have equal ids."""

    format: int = 1
    target: TargetSpec
    training: TrainingSettings
    model: ModelSettings
    teacher: ModelSettings | None = None
    data: DataSettings
    evaluation: EvaluationSettings
    rungs: tuple[Rung, ...] = ()
    seed: int
    """The study's seed: data order, initialisation and sampling noise are the same in every trial."""
    split: Literal["search", "report"] = "search"
    """Problems that score it: `report` for confirmation only."""
    fingerprints: dict[str, str]
    """Content of data, model, teacher, problems as the engine found them."""

    @property
    def id(self) -> str:
        return self._id_with(self.target)

    @property
    def canonical_id(self) -> str:
        """Shared by trials whose targets are provably the same gradient; the seed does not matter less for that."""
        return self._id_with(canonical(self.target))

    def _id_with(self, target: TargetSpec) -> str:
        data = self.model_dump(mode="json", exclude={"target", "rungs"})
        for section, names in UNDECISIVE.items():
            data[section] = {key: value for key, value in data[section].items() if key not in names}
        data |= {section: _without_unset(data[section]) for section in ("data", "evaluation", "training", "model")}
        return content_id({**data, "target": target.model_dump(mode="json")})


def _without_unset(value: Any) -> Any:
    """JSON data without the later fields that change nothing."""
    if isinstance(value, list):
        return [_without_unset(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_unset(each) for key, each in value.items() if each not in LATER.get(key, ())}


class TrialFolder:
    """`spec.json, metrics.jsonl, checkpoint/, rungs/, items.jsonl, result.json`; the result is written last."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def metrics(self) -> Path:
        """One JSON object a line and optimiser step."""
        return self.path / "metrics.jsonl"

    @property
    def items(self) -> Path:
        """One JSON object a line, (problem, sample)."""
        return self.path / "items.jsonl"

    def rung_items(self, step: int) -> Path:
        return self.path / "rungs" / f"step-{step:06d}.jsonl"

    @property
    def result(self) -> dict[str, Any] | None:
        """What came out, or None while the trial is not through."""
        return read_json(self.path / "result.json")

    def write_result(self, result: dict[str, Any]) -> None:
        write_json(self.path / "result.json", result)

    def prepare(self, spec: TrialSpec) -> None:
        """Make the folder hold `spec`; what another spec has left there (of a deleted study) is moved aside."""
        before = read_json(self.path / "spec.json")
        if before is not None and TrialSpec.model_validate(before).id != spec.id:
            self.path.rename(_free_name(self.path, "replaced"))
        write_json(self.path / "spec.json", spec.model_dump(mode="json"))

    def progress(self) -> str:
        """Changes whenever something was saved that a next attempt need not do again."""
        saved = self.path / "checkpoint"  # of one process, or of ranks that each wrote a share
        kept = [
            *saved.glob("*.safetensors"),
            *saved.glob("step-*/manifest.json"),
            self.items,
            *(self.path / "rungs").glob("*.jsonl"),
        ]
        found = ((path, path.stat()) for path in sorted(kept) if path.exists())
        return content_id([[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in found])

    def cut_metrics(self, first_step: int) -> None:
        """Forget the steps from `first_step` on, which are about to be done again; a torn tail is kept beside."""
        if self.metrics.exists():
            lines = self.metrics.read_text("utf-8").splitlines(keepends=True)
            if lines and not lines[-1].endswith("\n"):
                shutil.copyfile(self.metrics, _free_name(self.metrics, "torn"))
            write_atomic(self.metrics, "".join(line for line in lines if _is_before(line, first_step)))


def _free_name(path: Path, what: str) -> Path:
    names = (path.with_name(f"{path.name}.{what}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def trial_folder(study_folder: Path, number: int) -> TrialFolder:
    return TrialFolder(study_folder / "trials" / f"{number:04d}")


def _is_before(line: str, step: int) -> bool:
    """Whether a metrics line is whole and older than `step`; a torn tail is not."""
    try:
        return line.endswith("\n") and int(json.loads(line)["step"]) < step
    except (ValueError, KeyError, TypeError):
        return False
