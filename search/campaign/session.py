"""One call of `qtarget run` on one study: its listeners, the table at the end, the confirmation after it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from ...spaces.errors import UserError
from ..confirmation.candidates import candidates
from ..confirmation.power import planned
from ..confirmation.race import line_of
from ..export.tracking import track_verdict
from ..launchers.choose import engines
from ..loop.budget import Budget, confirmation_cost, is_confirmed, parse_until, seconds_each
from ..loop.by_hand import rerun
from ..loop.confirm import conclude, confirmation_config, is_decided
from ..loop.seen import note_seen
from ..loop.summary import Summary, stopped_sentence
from ..loop.supervisor import join_study, run_study
from ..store.history import TrialRecord, load_history
from ..store.study import joined_config, searched
from ..study.config import StudyConfig
from ..study.config_file import find_study, load_study
from ..study.events import Listener
from ..study.files import require_writable
from ..terminal.progress import ProgressDisplay
from ..terminal.status import show_front
from ..terminal.tables import trials_table, winner_sentence
from ..terminal.verdict import show_verdict
from ..tracking.address import study_place, tracking_uri
from ..tracking.mlflow import MlflowTracking


def run_file(path: Path, console: Console, **options: Any) -> dict[str, Any]:
    """Create or resume the study of a YAML file, as `run_study_and_show` does."""
    return run_study_and_show(load_study(path), console, **options)


def run_study_and_show(
    config: StudyConfig,
    console: Console,
    *,
    trials: int | None = None,
    workers: int = 1,
    confirmation_workers: int | None = None,
    until: str | None = None,
    hours: float | None = None,
) -> dict[str, Any]:
    """Create or resume a study, show it while it runs, and sum it up; confirm it where that is due.

    Several workers change what a sampler sees when, and so what it finds; a confirmation is the same with any number.
    """
    deadline = parse_until(until)
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
    records = _records(config, summary.counts)
    if not records:
        console.print("Stopped before the study began; nothing is lost. The same command starts it.")
        return summary.as_dict()
    console.print(trials_table(records, f"Study {config.study}"))
    show_front(records, console)
    console.print(winner_sentence(summary.winner, summary.sft), soft_wrap=True)
    if summary.state == "stopped":
        console.print(stopped_sentence(records))
    console.print(f"Everything is in {config.study_folder}", soft_wrap=True, markup=False)
    return summary.as_dict()


def _records(config: StudyConfig, counts: Mapping[str, int]) -> list[TrialRecord]:
    """All slots; none where a stop came before the study was created, which has no `counts` then."""
    try:
        return load_history(config)
    except UserError:
        if counts:
            raise
        return []


def _confirm_if_due(config: StudyConfig, found: dict[str, Any], console: Console, budget: Budget) -> dict[str, Any]:
    """Confirm what a search has found, if its budget lets it; else say that there was no time."""
    if not budget.reserve or found["ended"] == "signal":
        return found
    records = _records(config, found["counts"])
    cost = confirmation_cost(config, records)
    if cost is None:  # plain SFT and another design are the least to compare
        return _unconfirmed(config, records, found, console)
    if found["ended"] in ("deadline", "hours"):
        why = f"No time to confirm: that takes {cost.shown(budget.reserve)}. The same command goes on."
        console.print(why, soft_wrap=True)
        return {**found, "unconfirmed": why}
    used = config.engine.ranks * sum(record.seconds or 0.0 for record in records) / 3600
    hours = None if budget.hours is None else budget.hours - used
    verdict = confirm_study(config, console, workers=budget.reserve, deadline=budget.until, hours=hours)
    finished = is_decided(verdict) and found["state"] == "finished"
    return {**found, "confirmation": verdict, "state": "finished" if finished else "stopped"}


def _unconfirmed(
    config: StudyConfig, records: list[TrialRecord], found: dict[str, Any], console: Console
) -> dict[str, Any]:
    """Say why there is nothing to confirm, where a search is through."""
    try:
        candidates(config, records)
    except UserError as error:
        if found["state"] == "finished":
            console.print(f"Not confirmed: {error}", soft_wrap=True, markup=False)
            return {**found, "unconfirmed": f"Not confirmed: {error}"}
    return found


def confirm_file(path: Path, console: Console, *, workers: int = 1, until: str | None = None) -> dict[str, Any] | None:
    """Confirm the best designs of a study; create or resume. The verdict, as `confirm_study` gives it."""
    return confirm_study(find_study(path), console, workers=workers, deadline=parse_until(until))


def confirm_study(
    config: StudyConfig,
    console: Console,
    *,
    workers: int = 1,
    deadline: datetime | None = None,
    hours: float | None = None,
) -> dict[str, Any] | None:
    """Race candidates with fresh seeds on the report problems, say what holds.

    One that is stopped before its end says what it leaves `undecided`; None where too little is trained for that.
    """
    search = searched(config)
    search.refuse_changes("a confirmation")
    records = load_history(config)
    chosen = candidates(config, records)
    plan = planned(config, records, line_of(chosen))
    confirmation = confirmation_config(config, chosen, search, plan.settings)
    note_seen(config, confirmation)
    with suppress(UserError):  # it was never begun
        rerun(confirmation)
    names = ", ".join(candidate.title for candidate in chosen)
    console.print(f"Confirming with fresh seeds on untouched problems: {names}", soft_wrap=True, markup=False)
    for line in plan.lines(seconds_each(config, records), workers):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if plan.shortfall is not None:
        console.print(f"look at    {plan.shortfall}", soft_wrap=True, style="yellow", markup=False)
    heard = listeners(confirmation, console)
    summary = run_study(confirmation, heard, workers=workers, until=deadline, hours=hours)
    retention = config.evaluation.retention
    limit = None if retention is None else retention.limit
    if summary.state != "finished":
        why = "was stopped" if summary.ended == "signal" else "had no time to end"
        console.print(f"The confirmation {why}; `qtarget confirm` goes on with it.")
        with suppress(UserError):
            verdict = conclude(confirmation, limit)
            show_verdict(verdict, console)
            return verdict
        return None
    verdict = conclude(confirmation, limit)
    show_verdict(verdict, console)
    track_verdict(config, verdict)
    _report(config, console, in_time=deadline is None)
    return verdict


def _report(config: StudyConfig, console: Console, *, in_time: bool) -> None:
    """Write the report of a confirmed study; with a deadline, without loading the models once more."""
    from ..report.write import write_report  # matplotlib takes a second to import

    try:
        write_report(config.study_folder, console, compute=in_time)
    except Exception as error:  # the study is finished and its verdict written, whatever becomes of a page
        console.print(f"The report could not be written: {error}", markup=False, soft_wrap=True)


def listeners(config: StudyConfig, console: Console) -> list[Listener]:
    """Progress on the terminal, and MLflow unless it is switched off.

    Raises UserError where the study's folder cannot be written.
    """
    require_writable(config.study_folder, "folder")
    found: list[Listener] = [ProgressDisplay(console)]
    if config.tracking.uri != "none":
        experiment = config.tracking.experiment or f"{Path(config.model.path).name} on {config.data.title}"
        uri, place = tracking_uri(config), study_place(config)
        found.append(MlflowTracking(uri, experiment, config.study, config.study_folder, place=place))
    return found
