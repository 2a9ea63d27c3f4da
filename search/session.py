"""One call of `qtarget run` or `qtarget status`: the study, its listeners, and the table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from ..spaces.errors import UserError
from .budget import Budget, confirmation_cost, is_confirmed
from .cache_commands import BIAS_FILE, show_bias
from .config import StudyConfig
from .config_file import find_study, load_study
from .confirm import candidates, conclude, confirmation_config, stored_verdict
from .events import Listener
from .history import TrialRecord, best, front, load_history, plain_sft
from .launcher import engines
from .live import snapshot, standing
from .progress import ProgressDisplay
from .redaction import redact
from .study import joined_config, storage_url
from .summary import Summary
from .supervisor import join_study, run_study
from .tables import confirmation_sentence, confirmation_table, front_table, trials_table, winner_sentence
from .tracking import MlflowTracking
from .trial import read_json


def run_file(
    path: Path,
    console: Console,
    *,
    trials: int | None = None,
    workers: int = 1,
    confirmation_workers: int | None = None,
    until: str | None = None,
    hours: float | None = None,
) -> dict[str, Any]:
    """Create or resume the study of a YAML file, show it while it runs, and sum it up.

    Several workers change what a sampler sees when, and so what it finds; a confirmation is the same with any number.
    """
    config, deadline = load_study(path), parse_until(until)
    afterwards = engines(config.engine.ranks, confirmation_workers or workers) if is_confirmed(config) else 0
    heard = listeners(config, console)
    summary = run_study(config, heard, trials=trials, workers=workers, until=deadline, hours=hours, reserve=afterwards)
    found = _sum_up(config, summary, console)
    return _confirm_if_due(config, found, console, Budget(deadline, hours, afterwards))


def join_and_show(
    url: str,
    name: str,
    console: Console,
    *,
    base: Path | None = None,
    workers: int = 1,
    until: str | None = None,
    hours: float | None = None,
) -> dict[str, Any]:
    """Work on a study that exists, show it, and sum it up."""
    config = joined_config(url, name, base)
    heard, deadline = listeners(config, console), parse_until(until)
    summary = join_study(url, name, heard, base=base, workers=workers, until=deadline, hours=hours)
    return _sum_up(config, summary, console)


def _sum_up(config: StudyConfig, summary: Summary, console: Console) -> dict[str, Any]:
    records = load_history(config)
    console.print(trials_table(records, f"Study {config.study}"))
    _show_front(records, console)
    console.print(winner_sentence(summary.winner, summary.sft), soft_wrap=True)
    if summary.state == "stopped":
        console.print("Stopped; nothing is lost. The same command goes on from the checkpoints.")
    console.print(f"Everything is in {config.study_folder}", soft_wrap=True)
    return summary.as_dict()


def _show_front(records: Sequence[TrialRecord], console: Console) -> None:
    """Where a study measures what its trials forget."""
    if found := front(records):
        console.print(front_table(found))


def _confirm_if_due(config: StudyConfig, found: dict[str, Any], console: Console, budget: Budget) -> dict[str, Any]:
    """Confirm what a search has found, if its budget lets it; else say that there was no time."""
    if not budget.reserve or found["ended"] == "signal":
        return found
    records = load_history(config)
    cost = confirmation_cost(config, records)
    if cost is None:  # plain SFT and another design are the least to compare
        return found
    if found["ended"] in ("deadline", "hours"):
        why = f"No time to confirm: that takes {cost.shown(budget.reserve)}. The same command goes on."
        console.print(why, soft_wrap=True)
        return {**found, "unconfirmed": why}
    used = config.engine.ranks * sum(record.seconds or 0.0 for record in records) / 3600
    hours = None if budget.hours is None else budget.hours - used
    verdict = confirm_study(config, console, workers=budget.reserve, deadline=budget.until, hours=hours)
    finished = verdict is not None and found["state"] == "finished"
    return {**found, "confirmation": verdict, "state": "finished" if finished else "stopped"}


def confirm_file(path: Path, console: Console, *, workers: int = 1, until: str | None = None) -> dict[str, Any] | None:
    """Confirm the best designs of a study; create or resume. None when it was stopped before its verdict."""
    return confirm_study(find_study(path), console, workers=workers, deadline=parse_until(until))


def confirm_study(
    config: StudyConfig,
    console: Console,
    *,
    workers: int = 1,
    deadline: datetime | None = None,
    hours: float | None = None,
) -> dict[str, Any] | None:
    """Retrain the best designs and plain SFT with fresh seeds, score them on the report problems, say what holds."""
    chosen = candidates(config, load_history(config))
    confirmation = confirmation_config(config, chosen)
    names, seeds = ", ".join(candidate.title for candidate in chosen), config.confirmation.seeds
    console.print(f"Confirming with {seeds} fresh seeds on untouched problems: {names}", soft_wrap=True)
    heard = listeners(confirmation, console)
    summary = run_study(confirmation, heard, workers=workers, until=deadline, hours=hours)
    if summary.state != "finished":
        why = "was stopped" if summary.ended == "signal" else "had no time to end"
        console.print(f"The confirmation {why}; `qtarget confirm` goes on with it.")
        return None
    retention = config.evaluation.retention
    verdict = conclude(confirmation, None if retention is None else retention.limit)
    console.print(confirmation_table(verdict))
    console.print(confirmation_sentence(verdict), soft_wrap=True, style="bold")
    _report(config, console, in_time=deadline is None)
    return verdict


def _report(config: StudyConfig, console: Console, *, in_time: bool) -> None:
    """Write the report of a confirmed study; with a deadline, without loading the models once more."""
    from .report import write_report  # matplotlib takes a second to import

    try:
        write_report(config.study_folder, console, compute=in_time)
    except Exception as error:  # the study is finished and its verdict written, whatever becomes of a page
        console.print(f"The report could not be written: {error}", markup=False, soft_wrap=True)


def parse_until(text: str | None, now: datetime | None = None) -> datetime | None:
    """The next moment a clock shows `07:00` here, or an ISO date and time (local where it names no zone).

    Raises UserError for anything else, and for a moment that has passed.
    """
    if text is None:
        return None
    now = now or datetime.now().astimezone()
    try:
        if "T" in text or "-" in text:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.astimezone()
        else:
            clock = time.fromisoformat(text)
            moment = datetime.combine(now.date(), clock).astimezone()
            if moment <= now:
                moment = datetime.combine(now.date() + timedelta(days=1), clock).astimezone()
    except ValueError:
        raise UserError(f"`--until` must be a time like 07:00 or 2030-01-31T07:00, but got {text!r}") from None
    if moment <= now:
        raise UserError(f"`--until` must lie ahead, but got {moment.isoformat()}, and it is {now.isoformat()}")
    return moment


def listeners(config: StudyConfig, console: Console) -> list[Listener]:
    """Progress on the terminal, and MLflow unless it is switched off."""
    found: list[Listener] = [ProgressDisplay(console)]
    if config.tracking.uri != "none":
        experiment = config.tracking.experiment or f"{Path(config.model.path).name} on {Path(config.data.path).stem}"
        uri, key = tracking_uri(config), study_key(config)
        found.append(MlflowTracking(uri, experiment, config.study, config.study_folder, key=key))
    return found


def tracking_uri(config: StudyConfig) -> str:
    """The configured store, or an SQLite file in the study's folder."""
    return config.tracking.uri or f"sqlite:///{config.study_folder}/mlflow.db"


def study_key(config: StudyConfig) -> str:
    """What its runs are found by in a store that several studies share: its name, and where it is kept."""
    place = storage_url(config)
    return f"{config.study}@{config.study_folder.resolve() if place.startswith('sqlite') else redact(place)}"


def show_status(path: Path, console: Console) -> dict[str, Any]:
    """Print the table of a study and what is left of it; returns the same as data."""
    config = find_study(path)
    records = load_history(config)
    left = sum(not record.finished for record in records)
    console.print(
        trials_table(records, f"Study {config.study}: {len(records) - left} of {len(records)} trials finished")
    )
    _show_front(records, console)
    now = snapshot(config, records)
    for part in standing(now):
        console.print(part)
    console.print(winner_sentence(best(records), plain_sft(records)), soft_wrap=True)
    bias = read_json(config.study_folder / BIAS_FILE)
    show_bias(bias, console)
    verdict = stored_verdict(config)
    if verdict is not None:
        console.print(confirmation_table(verdict))
        console.print(confirmation_sentence(verdict), soft_wrap=True, style="bold")
    return {
        "study": config.study,
        "folder": str(config.study_folder),
        "trials": [record.as_dict() for record in records],
        "unfinished": left,
        "confirmation": verdict,
        "cache_bias": bias,
        "seconds": now.spent_seconds,
        **now.as_dict(),
    }
