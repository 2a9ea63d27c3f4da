"""Tables and sentences for people: the trials of a study, the winner against plain SFT, the published objectives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..store.history import TrialRecord
from ..store.outcome import race_sentence, retention_sentence
from .progress import STATE_STYLE


def headed(title: str, *columns: str, **look: Any) -> Table:
    """An empty table; columns whose name ends with `>` are set to the right. `look`: options of rich's tables."""
    table = Table(title=title, title_justify="left", header_style="bold", **look)
    for name in columns:
        table.add_column(name.removesuffix(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    return table


def trials_table(records: Sequence[TrialRecord], title: str) -> Table:
    """Every slot, best score first, then those without one in the order of the queue."""
    table = headed(title, "#>", "target", "lr>", "score ± s.e.>", "time>", "state", "note")
    ranked = sorted(records, key=lambda record: (-(record.score if _counts(record) else -1.0), record.number))  # type: ignore[operator]
    for record in ranked:
        table.add_row(*_row(record), style="bold" if record is ranked[0] and _counts(record) else None)
    return table


def _counts(record: TrialRecord) -> bool:
    return record.state == "complete" and record.score is not None


def _row(record: TrialRecord) -> Iterable[str]:
    rate = record.training.get("learning_rate")
    yield str(record.number)
    yield f"[bold]{escape(record.title)}[/]" if record.baseline else escape(record.title)
    yield f"{rate:.2g}" if rate is not None else ""
    yield score_text(record)
    yield f"{record.seconds:.1f} s" if record.seconds is not None else ""
    yield f"[{STATE_STYLE.get(record.state, 'dim')}]{record.state}[/]"
    yield escape(_note(record))


def _note(record: TrialRecord) -> str:
    notes = [f"same gradient as trial {record.same_as}"] if record.same_as is not None else []
    if record.rerun_of is not None:
        notes.append(f"trial {record.rerun_of} again, which failed")
    if record.attempts > 1:
        notes.append(f"{record.attempts} attempts ({', '.join(step['why'] for step in record.chain)})")
    notes += [f"{record.verdicts[name]} {name}" for name in ("error", "timeout") if record.verdicts.get(name)]
    if record.race is not None and record.race["stop"]:
        notes.append(str(race_sentence(record.race)))
    if record.retention is not None:
        notes.append(retention_sentence(record.retention))
    if record.failure:
        notes.append(f"{record.failure['kind']}: {record.failure['message'].splitlines()[0][:80]}")
    return "; ".join(notes)


def score_text(record: TrialRecord) -> str:
    if record.score is None:
        return ""
    error = "" if record.standard_error is None else f" ± {record.standard_error:.3f}"
    return f"{record.score:.3f}{error}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def front_table(records: Sequence[TrialRecord]) -> Table:
    """Score against forgetting: the trials that no other beats in both."""
    first = records[0].retention or {}
    table = Table(title=f"Not beaten in both score and retention ({first['name']})", title_justify="left")
    for name in ("#", "target", "score ± s.e.", f"forgotten ({first['unit']})"):
        table.add_column(name, justify="left" if name == "target" else "right", overflow="fold")
    for record in records:
        kept = record.retention or {}
        error = kept.get("forgotten_standard_error")
        spread = "" if error is None else f" ± {error:.2g}"
        table.add_row(str(record.number), escape(record.title), score_text(record), f"{kept['forgotten']:.3g}{spread}")
    return table


def winner_sentence(winner: TrialRecord | None, sft: TrialRecord | None) -> str:
    """The result in one sentence, with what it does not claim."""
    if winner is None:
        return "No trial has finished yet."
    found = f"Best on the search problems: trial {winner.number}, {winner.title}, {score_text(winner)}"
    if sft is None:
        return f"{found}. Plain SFT has no score, so there is nothing to compare it with."
    if sft.number == winner.number:
        return f"{found}. That is plain SFT: no other target did better."
    runs = (sft.score or 0.0, *sft.repeated)
    usual = sum(runs) / len(runs)
    points = 100 * ((winner.score or 0.0) - usual)
    seeds = f" ({usual:.3f} over {len(runs)} seeds)" if sft.repeated else ""
    forgot = " (it forgets more than is allowed)" if sft.state == "infeasible" else ""
    return (
        f"{found}; plain SFT {score_text(sft)}{seeds}{forgot}: {points:+.1f} points. "
        "The best of many is partly luck; only a confirmation says how much of the gap is real."
    )


def show_bias(bias: Mapping[str, Any] | None, console: Console) -> None:
    """A line for each cached model of a study: how far its cached distribution is from the exact one."""
    if bias is None:
        return
    for role, facts in bias["roles"].items():
        console.print(
            f"cache      {role}: KL(exact || cached) {facts['kl']:.1e} nats a token, gradient cosine "
            f"{facts['cosine']:.5f} (zero fill {facts['zero_fill_cosine']:.5f}), {facts['bytes_per_token']:.0f} bytes "
            f"a token; seen from {bias['student']} on {facts['tokens']} tokens",
            soft_wrap=True,
        )


def presets_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The published objectives, one a row."""
    columns = ("name", "gamma", "residual", "weight", "loss", "knobs", "source")
    table = Table(header_style="bold", row_styles=["", "dim"], caption="Q = γ·δ(y) + (1 − γ)·residual; logit gradient "
                  "weight·(ΣQ·π − Q); k3(x) = x − 1 − log x. `--json` has titles and needed inputs too.")  # fmt: skip
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name == "name")
    for row in rows:
        advised = "".join(f"\nadvised: {knob}={value}" for knob, value in row["recommended"].items())
        said = {**row, "knobs": _cell(row["knobs"]) + advised, "source": f"{row['source']}\nread {row['read']}"}
        table.add_row(*(escape(_cell(said[name])) for name in columns))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)
