"""winner.yaml: everything a full training run needs, written by `qtarget export` and read by `qtarget train`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ...evaluation.settings import EvaluationSettings
from ...spaces.errors import UserError
from ...spaces.settings import Settings
from ...spaces.target import TargetSpec
from ...trainers.paths import expanded, lies_in
from ...trainers.run_settings import RunSettings
from ...trainers.settings import CacheSettings, DataSettings, ModelSettings, TrainingSettings
from .faults import refusal
from .resume import hold_against

FILE = "winner.yaml"


class WinnerFile(Settings):
    """A target with everything that trains it."""

    target: TargetSpec
    training: TrainingSettings
    run: RunSettings = RunSettings()
    model: ModelSettings
    teacher: ModelSettings | None = None
    cache: CacheSettings | None = None
    """Ask teacher and reference once and keep their answers; default: ask them live."""
    data: DataSettings
    evaluation: EvaluationSettings | None = None
    seed: int = 0
    """Decides data order, new adapters and sampling noise."""
    split_seed: int = 0
    """Seed of the study: which problems are for searching, and which for the report."""
    date: datetime.date | None = None
    """The study's: what chat templates print as today. None: today."""
    base: str = "."
    """Folder that relative paths start from, itself relative to this file's."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Where it comes from; `fingerprints` and `inputs` are what the search used, `base` is where that lay, and `beside`
    where it lay as seen from this file's folder."""

    @property
    def base_folder(self) -> Path:
        return Path(self.base)

    @property
    def in_data(self) -> frozenset[str]:
        """Models that need not be asked, because the data have all that the target looks at."""
        column = self.data.reference_logprob_column is not None
        return frozenset({"reference"} if column and "reference" not in self.target.needs_rows else ())


def load_winner(path: Path) -> WinnerFile:
    """The winner at `path`, a file or an export's folder; raises UserError that lists every fault of the file."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"the winner must be a YAML file, but there is none at {file}; write one with `qtarget export`")
    try:
        read = yaml.safe_load(file.read_text("utf-8"))
        found = WinnerFile.model_validate(read)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} must be YAML in UTF-8, but {' '.join(str(error).split())}; mend that place") from None
    except ValidationError as error:
        raise refusal(error, str(file), read, WinnerFile) from None
    return found.model_copy(update={"base": str(_base(found, file.absolute().parent))})


def _base(winner: WinnerFile, folder: Path) -> Path:
    """Where the winner's inputs lie: as seen from its file, where they were, or around a file that was moved along.

    A `base` that was edited is what it says.
    """
    first, known = (folder / expanded(winner.base, "base")).resolve(), winner.provenance
    places = [first, *folder.parents[:3]]
    if winner.base == known.get("base") and "beside" in known:
        places.insert(0, (folder / known["beside"]).resolve())
    paths = (*winner.data.paths, winner.model.path)
    return next((each for each in places if any(lies_in(each, path) for path in paths)), first)


def inputs_of(winner: WinnerFile) -> dict[str, Any]:
    """What is read, and how, by the name of its fingerprint: what an edited winner.yaml may mean to change."""
    plain = winner.model_dump(mode="json", include={"model", "teacher", "data", "date", "evaluation", "split_seed"})
    precision, data = winner.training.precision, [plain["data"], plain["date"]]
    return {
        "model": [plain["model"], precision],
        "teacher": [plain["teacher"], precision, winner.cache and [winner.cache.model_dump(mode="json"), data]],
        "data": [data, plain["model"]],
        "evaluation": [plain["evaluation"], plain["split_seed"], data],
    }


def against_search(winner: WinnerFile, found: Mapping[str, str], what: str) -> list[str]:
    """What is not as in the search because the file says so, in sentences. `found`: fingerprints of what was read
    for `what`.

    Raises UserError when something changed that the file names as the search did.
    """
    used, now = winner.provenance.get("inputs"), inputs_of(winner)
    stored = winner.provenance.get("fingerprints", {})
    other = [name for name in found if name in stored and stored[name] != found[name]]
    if used is None:  # of a version that did not say what it had read
        return [f"{name} is not what the search used" for name in other]
    if silent := {name: found[name] for name in other if used.get(name) == now[name]}:
        hold_against(stored, silent, str(winner.provenance.get("study")), what)
    return [f"{name} is not what the search used: {FILE} says so" for name in other]
