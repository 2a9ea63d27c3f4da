"""`qtarget check`: what would fail in the night fails now, and the night's length is known before it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from ...evaluation.statistics.standing import Line
from ...spaces.errors import UserError
from ..confirmation.candidates import SFT, candidates, lacking
from ..confirmation.power import Plan, planned
from ..confirmation.race import line_of
from ..loop.budget import is_confirmed
from ..store.disk import WAITING, free_bytes, needed_bytes
from ..store.halving import Halving
from ..store.history import load_history
from ..study.config import StudyConfig
from ..study.config_file import find_study
from ..study.parts import shortness
from .learnt import show_learnt
from .progress import ask_and_show
from .reach import reached_storage, reached_tracking
from .tables import show_bias

WORST, USUAL = "seconds", "usual_seconds"
"""Times of a step: of the longest demonstrations, and of those of mean length."""


def check_study(path: Path, console: Console) -> dict[str, Any]:
    """Validate a study (file or folder), try its inputs in an engine, print what it found and what the study will cost.

    Raises UserError for what the user can mend, RuntimeError for anything else that would fail.
    """
    config = find_study(path)
    reached = {"storage": reached_storage(config), "tracking": reached_tracking(config)}
    for name, url in reached.items():
        console.print(f"{name:<10} {url}", soft_wrap=True, markup=False)
    console.print("Loading model and data, then one worst-case step for each kind of design ...")
    facts = ask_and_show("check", {"study": str(path)}, console)
    plan = confirmation_plan(config) if is_confirmed(config) else None
    usual, worst = (_trial_seconds(config, facts, config.evaluation.report_problems, kind) for kind in (USUAL, WORST))
    facts |= reached | {
        "study": config.study,
        "trials": config.search.slots,
        "estimate_seconds": estimate_seconds(config, facts),
        "expected_seconds": search_seconds(config, facts, USUAL),
        "confirmation_seconds": 0.0 if plan is None else plan.cost * usual,
        "confirmation_most_seconds": 0.0 if plan is None else plan.most * worst,
        "confirmation_training_seconds": usual,
        "confirmation_plan": None if plan is None else plan.as_dict(),
        "disk": disk_facts(config, facts["checkpoint_bytes"]),
    }
    doubts = [shortness(config.full_steps, config.training.steps), scarce(facts["disk"])]
    doubts += [] if plan is None else [*lacking(config), plan.shortfall]
    facts["warnings"] = [*facts["warnings"], *(line for line in doubts if line is not None)]
    _show(config, facts, plan, console)
    return facts


def _show(config: StudyConfig, facts: Mapping[str, Any], plan: Plan | None, console: Console) -> None:
    """Print what was found, and the plan of the confirmation if there will be one."""
    for name, line in facts["inputs"].items():
        console.print(f"{name:<10} {line}", soft_wrap=True, markup=False)
    for line in facts["fast_paths"]:
        console.print(f"fast path  {line}", soft_wrap=True, markup=False)
    size = config.space.size()
    console.print(
        f"space      {size.dimensions} dimensions, {size.combinations} combination(s) of families, "
        f"{config.search.slots} trials{_more(config)}",
        soft_wrap=True,
    )
    for title, worst in facts["worst_steps"].items():
        console.print(
            f"step       {title}: {worst['seconds']:.2f} s and {worst['peak_bytes'] / 2**30:.2f} GiB at worst "
            f"(longest demonstration {worst['longest']} tokens)",
            soft_wrap=True,
        )
    disk = facts["disk"]
    console.print(
        f"disk       {decimal(disk['free_bytes'])} free for {disk['folder']}; a checkpoint takes "
        f"{decimal(disk['checkpoint_bytes'])}",
        soft_wrap=True,
        markup=False,
    )
    if plan is not None:
        for line in plan.lines(facts["confirmation_training_seconds"]):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    show_bias(facts["cache_bias"], console)
    for line in problem_lines(facts):
        console.print(line, soft_wrap=True, markup=False)
    verdicts = ", ".join(f"{count} {name}" for name, count in facts["verdicts"].items() if count)
    error = f" (first error: {facts['first_error']})" if facts["first_error"] else ""
    console.print(f"verdicts   of the untrained model: {verdicts}{error}", soft_wrap=True, markup=False)
    show_learnt(facts["learnt"], console)
    shown = [each["said"] for each in facts["learnt"]["differences"]]
    said = list(dict.fromkeys([*shown, *facts["warnings"]]))
    for line in said[len(shown) :]:
        console.print(f"look at    {line}", soft_wrap=True, style="yellow", markup=False)
    verdict = f"{len(said)} thing(s) to look at, above." if said else "All is well."
    console.print(f"{_duration(facts)} {verdict}", soft_wrap=True)


def disk_facts(config: StudyConfig, checkpoint: int) -> dict[str, Any]:
    """Room for a study's checkpoints of so many bytes, with one engine, and how many paused trials keep theirs."""
    return {
        "folder": str(config.study_folder),
        "free_bytes": free_bytes(config.study_folder),
        "checkpoint_bytes": checkpoint,
        "needed_bytes": needed_bytes(config.limits.disk_gigabytes, checkpoint, 1),
        "paused": 0 if Halving.of(config) is None else WAITING,
    }


def scarce(disk: Mapping[str, Any]) -> str | None:
    """A sentence where the disk is too small for all checkpoints, or for any."""
    free, needed, paused = disk["free_bytes"], disk["needed_bytes"], disk["paused"]
    said = f"{decimal(free)} are free for {disk['folder']}"
    if free < needed:
        return (
            f"{said}, but a trial starts only with {decimal(needed)}: its checkpoint, the one it replaces, and some to "
            "spare; free some, set `folder` to a larger disk, or `limits.disk_gigabytes` to less"
        )
    room = (free - needed) // disk["checkpoint_bytes"] if disk["checkpoint_bytes"] else paused
    if room >= paused:
        return None
    return (
        f"{said}, room for the checkpoints of {room} of {paused} paused trials; those that rank last make way, and "
        "train anew should they go on after all"
    )


def _more(config: StudyConfig) -> str:
    halving = Halving.of(config)
    return f"' worth of steps ({halving.budget}), spent on more of them" if halving is not None else ""


def _duration(facts: Mapping[str, Any]) -> str:
    """What to expect of the study and its confirmation, and the most that they can take."""
    seconds, most = facts["confirmation_seconds"], facts["confirmation_most_seconds"]
    after = f"; its confirmation about {spoken_time(seconds)}, {spoken_time(most)} at most" if seconds else ""
    return (
        f"The study takes about {spoken_time(facts['expected_seconds'])}, {spoken_time(facts['estimate_seconds'])} at "
        f"most, if every step is a worst case{after}."
    )


def problem_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The problems as the engine found them, who answers them, and what else is measured."""
    found = facts["problems"]
    for task in found["tasks"]:
        yield (
            f"task       {task['task']}: {task['read']} rows read, {task['duplicates']} repeated, "
            f"{task['in_training']} also in training (left out); room for {task['search']} to search, "
            f"{task['report']} to report"
        )
    if unusable := found["unusable_golds"]:
        first = unusable[0]
        yield (
            f"golds      {len(unusable)} that no answer can match, each an error in every trial "
            f"(first: {first['gold']!r}, {first['why']})"
        )
    if spelled := found["spelled_golds"]:
        yield (
            f"golds      {len(spelled)} that no parser reads, matched by the same spelling alone "
            f"(first: {spelled[0]!r})"
        )
    yield f"prompts    longest {found['longest_prompt']} tokens"
    yield f"answers    by {facts['backend']['note']}"
    if facts["retention"] is not None:
        kept = facts["retention"]
        value = f"{kept['value']:.4g} {kept['unit']}"
        yield f"retention  {kept['name']}: {value} untrained, {kept['seconds']:.1f} s a trial"


def estimate_seconds(config: StudyConfig, facts: Mapping[str, Any]) -> float:
    """Upper estimate of the whole search: every step and every problem of every trial, nothing pruned, in seconds."""
    return search_seconds(config, facts, WORST)


def search_seconds(config: StudyConfig, facts: Mapping[str, Any], step_kind: str) -> float:
    """All trials, or their worth of steps with the scores at rungs; `step_kind`: WORST or USUAL."""
    trials, halving = config.search.slots, Halving.of(config)
    whole = trials * _trial_seconds(config, facts, config.evaluation.problems, step_kind)
    if halving is None:
        return whole
    rung = halving.rungs[0]
    scoring = _trial_seconds(config, facts, rung.problems, step_kind) - _trial_seconds(config, facts, 0, step_kind)
    return whole * halving.whole / halving.steps + scoring * (halving.budget // halving.cost(0, rung.step))


def confirmation_plan(config: StudyConfig) -> Plan:
    """The confirmation as far as it can be planned: with the noise of trials that are there, else an assumed one."""
    try:
        records = load_history(config)
    except UserError:  # it has not begun
        records = []
    try:
        line = line_of(candidates(config, records))
    except UserError:
        count = config.confirmation.designs + 1
        published = any(each.preset != SFT for each in config.baseline_settings())
        line = Line(count + published, count if published else None)
    return planned(config, records, line)


def _trial_seconds(config: StudyConfig, facts: Mapping[str, Any], problems: int, step_kind: str) -> float:
    """A training and its scoring on so many problems, by the dearest kind of design; `step_kind`: WORST or USUAL."""
    step = max(each[step_kind] for each in facts["worst_steps"].values())
    kept = facts.get("retention") or {"seconds": 0.0}
    answers = problems * config.evaluation.samples * facts["seconds_per_problem"]
    return float(config.training.steps * step + answers + kept["seconds"])


def spoken_time(seconds: float) -> str:
    """Hours, or minutes when they are few."""
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
