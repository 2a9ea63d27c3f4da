"""What a report finds of a study: storage, trial folders, verdict; what is missing or damaged is said."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from ...evaluation.statistics.confirmation import Comparison
from ...spaces import TargetSpec, presets
from ...spaces.errors import UserError
from ..loop.confirm import verdict_files, within_scores
from ..store.history import State, TrialRecord, best, plain_sft, read_records
from ..store.slots import slots_of
from ..store.storage import open_storage, sqlite_path
from ..store.study import held_against, storage_url
from ..study.config import PUBLISHED, StudyConfig
from ..study.config_file import FOLDER_FILE, load_study, read_folder
from ..study.trial import trial_folder
from ..terminal.verdict import decisive

COMPARISON = {field.name for field in fields(Comparison)}
"""What a verdict says of each design."""


@dataclass(frozen=True)
class StudyData:
    """A study as far as it can be read."""

    folder: Path
    name: str
    config: StudyConfig | None
    records: tuple[TrialRecord, ...] = ()
    results: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Contents of result.json by the number of the trial whose folder it is."""
    importances: Mapping[str, float] = field(default_factory=dict)
    """Share of the score's variation that each searched parameter explains among good trials (PED-ANOVA)."""
    verdict: Mapping[str, Any] | None = None
    confirmation: StudyData | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What the storage says about the study itself: version, fingerprints."""
    missing: tuple[str, ...] = ()
    """Sentences about what is not there or cannot be read."""
    damaged: bool = False
    """Whether something that was written cannot be read."""

    @property
    def winner(self) -> TrialRecord | None:
        """The trial whose design the verdict rests on; without a verdict, the best of the search."""
        if self.verdict is None:
            return best(self.records)
        found = decisive(self.verdict)["title"]
        numbers = [each.get("trial") for each in self.verdict.get("candidates", ()) if each["title"] == found]
        known = next((record for record in self.records if record.number in numbers), None)
        if known is not None:
            return known
        named = (record for record in self.records if f"trial {record.number}: {record.title}" == found)
        published = best(record for record in self.records if record.baseline == found)
        return next(named, None) or published or best(self.records)

    @property
    def sft(self) -> TrialRecord | None:
        return plain_sft(self.records)


class Notes(list[str]):
    """Sentences about what could not be read."""

    damaged = False

    def read(self, what: str, reader: Callable[[], Any], default: Any = None) -> Any:
        """What `reader` finds; `default`, and a sentence, where the file is damaged."""
        try:
            return reader()
        except (ValueError, TypeError, AttributeError, LookupError, OSError) as error:  # json, pydantic: ValueErrors
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            self.append(f"{what} cannot be read ({reason}); it is left out.")
            self.damaged = True
            return default


def gather(path: Path) -> StudyData:
    """The study of a YAML file or of a study's folder, wherever that folder was copied to.

    Raises UserError when there is no such folder.
    """
    notes = Notes()
    config, folder = _find(path, notes)
    if not folder.is_dir():
        raise UserError(f"a report needs a study's folder, but there is no {folder}; run the study, or check the path")
    return _gather(folder, config, notes)


def gather_pair(config: StudyConfig) -> StudyData:
    """The study that a campaign's file describes; one that was never started is empty, and says so."""
    if not config.study_folder.is_dir():
        note = f"The pair was never started: there is no {config.study_folder}."
        return StudyData(config.study_folder, config.study, config, missing=(note,))
    return _gather(config.study_folder, config, Notes())


def _find(path: Path, notes: Notes) -> tuple[StudyConfig | None, Path]:
    if not path.is_dir():
        config = load_study(path)
        return config, config.study_folder
    folder = path.absolute()
    return _config_of(folder, notes), folder


def _config_of(folder: Path, notes: Notes) -> StudyConfig | None:
    """The configuration kept in a folder, its paths as they are where the folder lies now."""
    if not (folder / FOLDER_FILE).is_file():
        notes.append(f"The study's settings are missing: {FOLDER_FILE} is not there.")
        return None
    config: StudyConfig | None = notes.read(f"{folder.name}/{FOLDER_FILE}", lambda: read_folder(folder))
    return config


def _gather(folder: Path, config: StudyConfig | None, notes: Notes) -> StudyData:
    stored = _from_storage(folder, config, notes)
    records = stored.records if stored is not None else _from_folders(folder, notes)
    numbers = {record.number for record in records if record.same_as is None}
    results = {number: found for number in sorted(numbers) if (found := _result(folder, number, notes)) is not None}
    if not records:
        notes.append("No trial has been started yet: there is nothing to show but the settings.")
    if stored is not None and config is not None:
        search = held_against(config, stored.attributes)
        config = search.config
        notes += [search.note] if search.note is not None else []
    verdict, place = (None, None) if config is not None and config.candidates else _verdict(folder, notes)
    return StudyData(
        folder=folder,
        name=config.study if config is not None else folder.name,
        config=config,
        records=tuple(records),
        results=results,
        importances=stored.importances if stored is not None else {},
        verdict=verdict,
        confirmation=_gather(place, _config_of(place, notes), notes) if place is not None else None,
        attributes=stored.attributes if stored is not None else {},
        missing=tuple(dict.fromkeys(notes)),
        damaged=notes.damaged or (stored is None and bool(records)),
    )


@dataclass(frozen=True)
class _Stored:
    records: list[TrialRecord]
    importances: Mapping[str, float]
    attributes: Mapping[str, Any]


def _from_storage(folder: Path, config: StudyConfig | None, notes: Notes) -> _Stored | None:
    """What the storage knows; None, with a note, when it is gone or broken."""
    if config is None:
        return None
    url = storage_url(config)
    file = sqlite_path(url) if url.startswith("sqlite") else None
    if file is not None and not file.is_file():
        notes.append(f"The study's storage is missing: {file.name} is not there; trials are read from folders.")
        return None
    try:
        with closing(open_storage(url, config.study, reading=True)) as storage:
            study = optuna.load_study(study_name=config.study, storage=storage.backend)
            trials = slots_of(study.get_trials(deepcopy=False))
            return _Stored(_readable(trials, folder, notes), _importances(study), dict(study.user_attrs))
    except KeyError:
        notes.append(f"The storage knows no study named {config.study}; trials are read from folders.")
    except (UserError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error).splitlines()[0][:200]
        notes.append(f"The study's storage cannot be read ({reason}); trials are read from folders.")
    return None


def _readable(trials: Sequence[optuna.trial.FrozenTrial], folder: Path, notes: Notes) -> list[TrialRecord]:
    found = []
    for trial in trials:
        found += notes.read(f"trial {trial.number} in the storage", partial(read_records, [trial], folder), [])
    return found


def _importances(study: optuna.Study) -> dict[str, float]:
    """Optuna's parameter importances, largest first; empty where too few trials differ."""
    try:
        score = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "too small to compute importances": all would be equal
            found = optuna.importance.get_param_importances(study, target=score)
    except (ValueError, RuntimeError, ZeroDivisionError, UserWarning):  # each evaluator refuses in its own way
        return {}
    return {name: share for name, share in sorted(found.items(), key=lambda pair: -pair[1]) if share == share}


def _from_folders(folder: Path, notes: Notes) -> list[TrialRecord]:
    """Records as far as the trials' own files tell; scores of rungs and attempts are known to the storage alone."""
    numbers = sorted(int(path.name) for path in (folder / "trials").glob("*") if path.name.isdecimal())
    records = (_folder_record(folder, number, notes) for number in numbers)
    return [record for record in records if record is not None]


def _folder_record(folder: Path, number: int, notes: Notes) -> TrialRecord | None:
    place = trial_folder(folder, number)
    spec = notes.read(f"trial {number}: spec.json", lambda: _mapping(place.path / "spec.json"))
    if spec is None:
        return None
    target = notes.read(f"trial {number}: target", lambda: TargetSpec.model_validate(spec["target"]))
    result = _result(folder, number, Notes()) or {}
    named = next((name for name in PUBLISHED if target == presets.get(name)), None)
    state: State = result.get("state", "running")
    parts = [result[name] for name in ("training_seconds", "evaluation_seconds") if name in result]
    return TrialRecord(
        number=number,
        title=named or (target.title() if target is not None else "-"),
        state=state,
        target=target,
        baseline=named,
        training={"learning_rate": spec.get("training", {}).get("learning_rate")},
        parameters={},
        score=result.get("score"),
        standard_error=result.get("standard_error"),
        seconds=sum(parts) if parts else None,
        verdicts=result.get("verdicts", {}),
        rungs={},
        attempts=1,
        chain=[],
        same_as=None,
        failure=None,
        folder=place.path,
        spec_id=result.get("id"),
    )


def _result(folder: Path, number: int, notes: Notes) -> Mapping[str, Any] | None:
    found = notes.read(f"trial {number}: result.json", lambda: trial_folder(folder, number).result)
    return found if isinstance(found, Mapping) else None


def _verdict(folder: Path, notes: Notes) -> tuple[Mapping[str, Any] | None, Path | None]:
    """The newest verdict and the folder of its confirmation; a confirmation without a verdict has the folder only."""
    for file in reversed(verdict_files(folder)):
        found = notes.read(f"{file.parent.name}/{file.name}", partial(_whole_verdict, file))
        if found is not None:
            return found, file.parent
    places = sorted(folder.glob("confirmation-*/"), key=lambda place: place.stat().st_mtime)
    if not places:
        notes.append("The winner has not been confirmed: the best of many is partly luck (`qtarget confirm`).")
        return None, None
    notes.append("The confirmation has not reached a verdict (`qtarget confirm` goes on with it).")
    return None, places[-1]


def _whole_verdict(file: Path) -> Mapping[str, Any]:
    """A verdict with everything that a report says of it; ValueError for any other file."""
    found = _mapping(file)
    lacking = {"outcome", "winner", "sft_score", "problems", "seeds", "comparisons"} - found.keys()
    lacking |= {name for each in found.get("comparisons", []) for name in COMPARISON - each.keys() - {"seeds"}}
    if lacking or not found["comparisons"]:
        raise ValueError(f"it lacks {', '.join(sorted(lacking)) or 'comparisons'}")
    return within_scores(found)


def _mapping(file: Path) -> Mapping[str, Any]:
    found = json.loads(file.read_text("utf-8"))
    if not isinstance(found, Mapping):
        raise ValueError(f"it must hold a JSON object, but holds a {type(found).__name__}")
    return found
