"""The settings of the study that fit what was found, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...evaluation.survey.facts import ProblemFacts, Survey
from ...spaces.errors import UserError
from ...spaces.search_space.rates import searched_rates, usual_rate
from ..terminal.check import spoken_time as in_hours
from .costs import ROOM, Plan, fits, memory_bytes, quantile, trial_seconds

BATCHES = (64, 32, 16, 8, 4, 2, 1)
STEPS_A_PASS = 8
"""Optimiser steps that see all demonstrations once, at least, where there are enough for batches of eight."""
PASSES = 2
STEPS = (40, 300)
TRIALS = (16, 40)
LONG = 4096
"""Tokens; longer demonstrations are kept only where nearly all are so long."""
MOST_NEW_TOKENS = 4096


@dataclass
class Choices:
    """Settings of a study, and why, by their dotted path."""

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def take(self, path: str, value: Any, reason: str = "") -> None:
        """Set a value; sections are made as they are needed."""
        *sections, key = path.split(".")
        place = self.settings
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
        if reason:
            self.reasons[path] = reason


@dataclass(frozen=True)
class Named:
    """What the study file names: paths as they stand in it."""

    study: str
    model: dict[str, Any]
    data: str | list[str]
    teacher: str | None
    tasks: tuple[dict[str, Any], ...]


def choose(found: Survey, named: Named, hours: float) -> Choices:
    """A study of at most `hours`, as far as that can be estimated."""
    chosen, plan = Choices(), _plan(found)
    chosen.take("study", named.study, "its name, and that of its folder in runs/")
    _models(chosen, found, named)
    _data(chosen, found, named, plan)
    trials, plan = _trials(found, plan, hours)
    _training(chosen, found, plan)
    seconds = trial_seconds(found, plan)
    over = trials * seconds > 3600 * hours
    fewest = f", more than the {spoken_time(3600 * hours)} asked for: fewer trials are no search" if over else ""
    chosen.take(
        "search.trials", trials,
        f"about {spoken_time(seconds)} each, {spoken_time(trials * seconds)} in all{fewest}; roughly: `qtarget check` "
        "measures",
    )  # fmt: skip
    _evaluation(chosen, found.problems, named, plan)
    return chosen


def _plan(found: Survey) -> Plan:
    """Full fine-tuning where it fits, adapters where it does not, at the largest micro-batch that fits."""
    lengths, rows = found.data.lengths, sum(found.data.lengths.values())
    held = found.problems.held_out
    rows = rows if held is None else held.demonstrations
    batch = next(each for each in BATCHES if each * STEPS_A_PASS <= rows or each <= min(8, rows))
    steps = min(STEPS[1], max(STEPS[0], round(PASSES * rows / batch)))
    longest = max(lengths)
    length = longest if longest <= LONG else max(LONG, quantile(lengths, 0.99))
    positions = found.model.positions
    length = 16 * -(-length // 16) if positions is None else min(16 * -(-length // 16), positions + 1)
    plans = [
        Plan(
            precision="bf16" if found.machine.is_gpu else "fp32",
            lora=lora,
            micro_batch=micro,
            effective_batch=batch,
            steps=steps,
            max_length=length,
            max_new_tokens=_new_tokens(found),
            problems=found.problems.search,
        )
        for lora in (False, True)
        for micro in BATCHES
        if micro <= batch
    ]
    return next((plan for plan in plans if fits(found, plan)), plans[-1])


def _new_tokens(found: Survey) -> int:
    """Room for the longest answer and a quarter more, within the model's positions."""
    answers = found.data.answer_lengths
    wanted = min(MOST_NEW_TOKENS, max(quantile(answers, 0.99) * 1.5, min(max(answers), MOST_NEW_TOKENS) * 1.25) + 4)
    positions = found.model.positions
    room = MOST_NEW_TOKENS if positions is None else positions - found.problems.longest_prompt
    return max(1, min(16 * -(-int(wanted) // 16), room))


def _trials(found: Survey, plan: Plan, hours: float) -> tuple[int, Plan]:
    """As many trials as the hours hold, with fewer steps where they hold too few."""
    while True:
        trials = int(3600 * hours / trial_seconds(found, plan))
        if trials >= TRIALS[0] or plan.steps <= STEPS[0]:
            return min(TRIALS[1], max(TRIALS[0], trials)), plan
        plan = Plan(**{**vars(plan), "steps": max(STEPS[0], plan.steps // 2)})


def _models(chosen: Choices, found: Survey, named: Named) -> None:
    size = found.model
    limit = "" if size.positions is None else f", reads {size.positions} tokens at most"
    chosen.take("model", named.model, f"{size.architecture}, {spoken_count(size.parameters)} parameters{limit}")
    if found.data.template is not None:
        chosen.reasons["model"] += (
            "; its tokenizer has no chat template, so a plain one was written: look at it before the first run"
        )
    if named.teacher is not None and found.teacher is not None:
        parameters = spoken_count(found.teacher.parameters)
        chosen.take("teacher", {"path": named.teacher}, f"{parameters} parameters, the same vocabulary")


def _data(chosen: Choices, found: Survey, named: Named, plan: Plan) -> None:
    data, held = found.data, found.problems.held_out
    origin = "" if held is None else (
        f"; {held.removed} of the {data.rows} ask what a problem below asks, and are left out of this copy"
    )  # fmt: skip
    rows = data.rows if held is None else held.demonstrations
    chosen.take("data.path", named.data, f"{rows} demonstrations, columns: {data.shape}{origin}")
    for key, value in data.settings.items():
        if held is None or key not in ("name", "split"):
            chosen.take(f"data.{key}", value, _REASONS.get(key, ""))
    longest, total = max(data.lengths), sum(data.lengths.values())
    left = sum(count for length, count in data.lengths.items() if length > plan.max_length)
    reason = f"tokens; the longest has {longest}, half have at most {quantile(data.lengths, 0.5)}"
    if left == total:
        raise UserError(
            f"a demonstration must fit the model's {found.model.positions} positions, but the shortest of {total} has "
            f"{min(data.lengths)} tokens; shorten them, or take another model",
            field="data.max_length",
        )
    if left:
        reason += f": {left} of {total} are left out"
    chosen.take("data.max_length", plan.max_length, reason)


_REASONS = {
    "learn": "conversations have several answers: each is learnt",
    "chat": "the tokenizer has no chat template: prompt and completion are joined as they are",
}


def _training(chosen: Choices, found: Survey, plan: Plan) -> None:
    machine, held = found.machine, found.problems.held_out
    rows = held.demonstrations if held else sum(found.data.lengths.values())
    passes = plan.steps * plan.effective_batch / rows
    chosen.take("training.steps", plan.steps, f"{passes:.1f} passes over the demonstrations")
    chosen.take("training.effective_batch", plan.effective_batch, "sequences an optimiser step")
    estimate = f"about {spoken_bytes(memory_bytes(found, plan))} of the {spoken_bytes(machine.memory_bytes)} free"
    room = "" if fits(found, plan) else f", more than {ROOM:.0%} of it: it may not fit, `qtarget check` tells"
    chosen.take("training.micro_batch", plan.micro_batch, f"sequences a forward pass; {estimate}{room}")
    rate = usual_rate(found.model.parameters, plan.lora)
    chosen.take("training.learning_rate", rate, "usual for this size; searched around it, below")
    reason = f"on {machine.device}" if machine.is_gpu else "without a GPU"
    chosen.take("training.precision", plan.precision, reason)
    if plan.lora:
        extra = "" if found.has_lora else ": pip install 'qtarget[lora]' first"
        chosen.take("training.lora", {"rank": 16}, f"adapters: full fine-tuning would not fit the memory{extra}")
    rates = searched_rates(found.model.parameters, plan.lora)
    ends = {"learning_rate": [rates.low, rates.high, "log"]}
    chosen.take("space.training", ends, "with the target: none should win by its step size")


def _evaluation(chosen: Choices, problems: ProblemFacts, named: Named, plan: Plan) -> None:
    reason = "; ".join(dict.fromkeys(problems.kinds))
    if problems.held_out is not None:
        reason += ". The golds are the demonstrations' own answers: where these are wrong, so are the golds"
    chosen.take("evaluation.tasks", [dict(task) for task in named.tasks], reason)
    chosen.take("evaluation.problems", problems.search, _error(problems.search))
    untouched = "nobody looks at these before the confirmation, which `run` makes after the search and `check` times"
    reason = untouched if problems.report else "too few are left for any"
    chosen.take("evaluation.report_problems", problems.report, reason)
    chosen.take("evaluation.max_new_tokens", plan.max_new_tokens, "room for the longest answers, and a little more")


def _error(problems: int) -> str:
    return f"the search looks at these; the standard error of a score is at most {50 / problems**0.5:.1f} points"


def spoken_time(seconds: float) -> str:
    """Seconds where they are few, else minutes or hours."""
    return f"{seconds:.0f} s" if seconds < 90 else in_hours(seconds)


def spoken_bytes(number: float) -> str:
    """12.3 GiB, 64 MiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def spoken_count(number: int) -> str:
    """1.5 B, 135 M, 280 K."""
    for factor, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= factor:
            return f"{number / factor:.3g} {letter}"
    return str(number)
