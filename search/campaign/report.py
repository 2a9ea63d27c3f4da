"""`qtarget report` on a campaign: one page for all pairs, each pair's own report beside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..compare.ranking import Comparison
from ..compare.tables import cells, columns, held, sentences
from ..report import figures as figures
from ..report.costs import failures
from ..report.items import paired
from ..report.pictures import pictures
from ..report.sheets import Sheets
from ..report.write import check_out, describe, write_pages, write_report
from ..study.campaign_config import Campaign, is_single
from ..study.files import require_writable
from ..terminal.verdict import decisive
from .pairs import PairData, compared, facts, gaps, gather_campaign, verdict

INDEX = "index.html"
LONGEST_NAME = 80
"""Characters in the name of a report's folder."""


def write_reports(
    paths: Sequence[Path],
    console: Console,
    *,
    out: Path | None = None,
    compute: bool = True,
    price: float | None = None,
) -> dict[str, Any]:
    """Write the report of a study, or of a campaign: that of a file with `matrix`, or of several files or folders.

    Returns the files by kind. Raises UserError as `write_report` and `gather_campaign` do.
    """
    if is_single(paths):
        return write_report(paths[0], console, out=out, compute=compute, price=price)
    check_out(out)
    campaign, pairs = gather_campaign(paths)
    index = (out or default_place(campaign, pairs) / INDEX).absolute()
    require_writable(index.parent, "--out" if out else "folder", "name another place: `--out FILE.html`")
    index.parent.mkdir(parents=True, exist_ok=True)
    rows = [_pair(pair, campaign, index, console, compute, price) for pair in pairs]
    page = {**_page(campaign, pairs, rows), "command": shlex.join(map(str, paths)), "price": price}
    files: dict[str, Any] = write_pages(page, index, "campaign")
    console.print(
        f"{page['verdict']}\n{page['held']}\nReport of {len(pairs)} pairs written to {index}, with a page for each "
        "pair and Markdown beside it",
        soft_wrap=True,
        markup=False,
    )
    return {**files, "pairs": {row["pair"].data.name: row["files"] for row in rows}}


def default_place(campaign: Campaign, pairs: Sequence[PairData]) -> Path:
    """A folder beside those of the studies, or here when they do not lie side by side."""
    parents = {pair.data.folder.parent for pair in pairs}
    parent = parents.pop() if len(parents) == 1 else Path.cwd()
    return parent / f"{campaign.name.replace(' ', '')[:LONGEST_NAME]}-report"


def _pair(
    pair: PairData, campaign: Campaign, index: Path, console: Console, compute: bool, price: float | None
) -> dict[str, Any]:
    """Write a pair's own report, and return what the campaign's page says of it."""
    own: dict[str, Any] = {"pair": pair, "files": None, "fault": None, "failures": failures(pair.data), **_lead(pair)}
    if not pair.started:
        return own
    try:
        page = describe(pair.data, pictures(pair.data, console, compute=compute), shlex.quote(pair.path))
        page |= {"price": price, "up": {"name": campaign.name, "href": index.name}}
        return {**own, "files": write_pages(page, index.with_name(pair.file))}
    except Exception as error:  # one pair's page, whatever ails it, does not take the others with it
        return {**own, "fault": f"{type(error).__name__}: {error}"[:300]}


def _lead(pair: PairData) -> dict[str, Any]:
    """The winner of a pair, and how far it is ahead of plain SFT: confirmed, else on the search problems."""
    data = pair.data
    if data.verdict is not None:
        shown = decisive(data.verdict)
        return {"winner": str(shown["title"]), "against": shown, "hollow": False}
    if data.winner is None:
        return {"winner": None, "against": None, "hollow": True}
    against = None
    if data.sft is not None and data.winner is not data.sft:
        sheets = Sheets(data)
        found = paired(sheets.of(data.winner).scores, sheets.of(data.sft).scores, str(data.winner.number))
        against = None if found is None else vars(found)
    return {"winner": f"trial {data.winner.number}: {data.winner.title}", "against": against, "hollow": True}


def _page(campaign: Campaign, pairs: Sequence[PairData], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything that the templates say, as plain values; texts are not escaped yet."""
    found, notes = compared(pairs)
    tone, said = verdict(pairs)
    faults = [
        f"{row['pair'].short}: its own report could not be written ({row['fault']})" for row in rows if row["fault"]
    ]
    return {
        "campaign": campaign,
        "tone": tone,
        "verdict": said,
        "held": "" if found is None else held(found),
        "missing": [*gaps(pairs), *notes, *faults],
        "rows": rows,
        "compared": None if found is None else _compared(found),
        "facts": facts(pairs),
        "failures": [(row["pair"], each) for row in rows for each in row["failures"]],
        "plots": _plots(rows, found),
    }


def _compared(found: Comparison) -> dict[str, Any]:
    return {
        "columns": columns(found),
        "rows": [list(cells(row)) for row in found.rows],
        "sentences": sentences(found)[1:],
    }


def _plots(rows: Sequence[dict[str, Any]], found: Comparison | None) -> dict[str, str]:
    """SVG by name; what there is nothing to draw of is left out."""
    leads = [{**row["against"], "title": row["pair"].short, "hollow": row["hollow"]} for row in rows if row["against"]]
    plots = {"effects": figures.effects(leads, "The winner of each pair against plain SFT")} if leads else {}
    return plots if found is None else {**plots, "ranks": figures.ranks(found)}
