"""A comparison for people: one table on the terminal, the same in Markdown, and the finding in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...spaces.errors import UserError
from ..study.files import write_atomic
from .figure import FORMATS, draw_ranks
from .ranking import BETTER, MIXED, WORSE, Comparison, Place, Row, compare_studies


def compare_and_show(paths: list[Path], console: Console, out: Path | None = None) -> dict[str, object]:
    """Print what the studies say together; `out`: a Markdown file (with the figure beside it) or an image.

    Raises UserError as `compare_studies` does, and for another kind of file.
    """
    if out is not None and out.suffix.lower() not in (".md", *FORMATS):
        raise UserError(f"`--out` must end in .md, {', '.join(FORMATS)}, but got {out.name!r}; rename it")
    found = compare_studies(paths)
    console.print(comparison_table(found))
    for sentence in [*sentences(found), *found.notes]:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        _write(found, out)
        console.print(f"Written to {out}", soft_wrap=True, markup=False)
    return found.as_dict()


def _write(found: Comparison, out: Path) -> None:
    if out.suffix.lower() != ".md":
        draw_ranks(found, out)
        return
    picture = out.with_suffix(".png")
    draw_ranks(found, picture)
    write_atomic(out, markdown(found, picture.name))


def columns(found: Comparison) -> list[str]:
    return ["design", *found.short_names, "mean rank", "against SFT"]


def cells(row: Row) -> Iterator[str]:
    """A shared design: score and rank with its interval in each pair, the mean rank, and what holds across pairs."""
    yield row.title
    yield from (_place(place) for place in row.places)
    yield f"{row.mean_rank:.1f} [{row.low:.1f}, {row.high:.1f}]"
    yield row.outcome or ""


def _place(place: Place) -> str:
    return f"{place.score:.3f}  #{place.rank:g} [{place.low:g}, {place.high:g}]"


def comparison_table(found: Comparison) -> Table:
    """The shared designs, best mean rank first."""
    table = Table(title=f"{len(found.rows)} designs that all {len(found.studies)} studies tried", title_justify="left")
    for index, name in enumerate(columns(found)):
        table.add_column(
            escape(name), justify="left" if index in (0, len(found.studies) + 2) else "right", overflow="fold"
        )
    for row in found.rows:
        table.add_row(*(escape(cell).replace("  #", "\n#") for cell in cells(row)))
    return table


def sentences(found: Comparison) -> list[str]:
    """What holds across pairs, who wins where, and what these numbers do not contain."""
    said = [held(found)]
    for winner in found.winners:
        gain = "" if winner.shared else (
            f", {100 * winner.gain:+.1f} points [{100 * winner.low:+.1f}, {100 * winner.high:+.1f}] above the best "
            "shared design"
        )  # fmt: skip
        confirmed = "not confirmed" if winner.confirmed is None else f"its confirmation says: {winner.confirmed}"
        said.append(
            f"{winner.study}: best is trial {winner.trial}, {winner.title}, {winner.score:.3f}{gain} ({confirmed})."
        )
    said.append(
        "Ranks and effects are of search problems and one training seed; intervals (95 %) resample problems. The best "
        "of many is partly luck: `qtarget confirm` says how much."
    )
    return said


def held(found: Comparison) -> str:
    """What each shared design is against plain SFT across the pairs, in one sentence."""
    if all(row.outcome is None for row in found.rows):
        return "Plain SFT is not among the shared designs, so nothing is said against it."
    named = {
        outcome: ", ".join(row.title for row in found.rows if row.outcome == outcome)
        for outcome in (BETTER, WORSE, MIXED)
    }
    parts = [f"{outcome}: {titles}" for outcome, titles in named.items() if titles]
    return f"Across these pairs: {'; '.join(parts) or 'no design is settled against SFT'}."


def markdown(found: Comparison, picture: str) -> str:
    """The comparison as a Markdown page that shows `picture`."""
    names = columns(found)
    lines = [f"# {len(found.studies)} studies compared", "", f"![Ranks of the shared designs]({picture})", ""]
    lines += [f"| {' | '.join(map(_cell, names))} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(map(_cell, cells(row)))} |" for row in found.rows]
    lines += ["", *(f"- {_cell(sentence)}" for sentence in sentences(found)), ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that Markdown shows as it is."""
    for mark in ("\\", "|", "*", "_", "<", "`", "[", "]", "#"):
        text = text.replace(mark, f"\\{mark}")
    return text
