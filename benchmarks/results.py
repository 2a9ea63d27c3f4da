"""The page docs/results.md from the studies of a campaign: what was found on each pair, whatever it was.

    python benchmarks/results.py CAMPAIGN.yaml [--docs docs] [--readme README.md]

A row a pair that is confirmed: scores of plain SFT, of the best published objective tuned alike, and of the best design
found, on untouched problems and fresh seeds, with the intervals of the confirmation. Pairs that are still searched are
named below the table. The table is printed; with `--docs`, table and pictures of the page are renewed, with `--readme`
the short table of that page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qtarget.search.campaign.pairs import PairData, compared, gather_campaign
from qtarget.search.compare.figure import draw_ranks
from qtarget.search.terminal.verdict import answers, points

MARKS = ("<!-- results -->\n", "<!-- end of results -->")
"""Lines of the page between which the table stands."""
HEADS = (
    "pair",
    "plain SFT",
    "best published, tuned alike",
    "found",
    "found over published",
    "forgotten, nats",
    "hours",
)
SHORT_HEADS = ("pair", "plain SFT", "found over plain SFT", "found over the best published")
PICTURES = ("results.png", "results-ranks.png")
Verdict = Mapping[str, Any]


def titles(verdict: Verdict) -> dict[str, str]:
    """Of plain SFT, of the best published objective, and of the best design, as far as they were candidates."""
    effects = {each["title"]: float(each["effect"]) for each in verdict["comparisons"]}
    found: dict[str, str] = {}
    for each in sorted(verdict["candidates"], key=lambda each: -effects.get(each["title"], 0.0)):
        found.setdefault(each["role"], each["title"])
    return found


def compared_with_sft(verdict: Verdict, title: str | None) -> Mapping[str, Any] | None:
    return next((each for each in verdict["comparisons"] if each["title"] == title), None)


def row(pair: PairData) -> list[str]:
    """The cells of a confirmed pair: scores and differences in points, differences with their intervals."""
    verdict = pair.data.verdict
    assert verdict is not None
    named = titles(verdict)
    hours = (pair.search_seconds + pair.confirmation_seconds) / 3600
    kept = {each["title"]: each["retention"] for each in verdict["candidates"] if each.get("retention")}
    forgotten = [f"{role} {kept[name]['forgotten']:.2g}" for role, name in named.items() if name in kept]
    return [
        pair.short,
        f"{100 * verdict['sft_score']:.1f}",
        _side(verdict, named.get("published")),
        _side(verdict, named.get("design")),
        _over_published(verdict, named),
        ", ".join(forgotten),
        f"{hours:.1f}",
    ]


def _side(verdict: Verdict, title: str | None) -> str:
    """Score, points above plain SFT, and who it is."""
    found = compared_with_sft(verdict, title)
    return "" if found is None else f"{100 * found['score']:.1f}: {points(found)}<br>{title}"


def _over_published(verdict: Verdict, named: Mapping[str, str]) -> str:
    found = verdict["against_published"]
    if found is None:
        return "not asked"
    asked = found["title"] == named.get("design")
    return points(found) if asked else f"{points(found)} ({found['title']} over {found['rival']})"


def table(pairs: Sequence[PairData]) -> str:
    """Markdown: the confirmed pairs, the answers of each in sentences, and what still runs."""
    done = [pair for pair in pairs if pair.data.verdict is not None]
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    lines += [f"| {' | '.join(row(pair))} |" for pair in done]
    said = [f"* {pair.short}: {' '.join(answers(pair.data.verdict))}" for pair in done if pair.data.verdict]
    return "\n".join([*(lines if done else []), "", *said, *([""] if said else []), *running(pairs)]).strip()


def short_table(pairs: Sequence[PairData]) -> str:
    """Markdown: what was found on the confirmed pairs, in points."""
    lines = [f"| {' | '.join(SHORT_HEADS)} |", "|---" + "|--:" * (len(SHORT_HEADS) - 1) + "|"]
    for pair in pairs:
        if (verdict := pair.data.verdict) is not None:
            named = titles(verdict)
            found = compared_with_sft(verdict, named.get("design"))
            over = "" if found is None else points(found)
            cells = (pair.short, f"{100 * verdict['sft_score']:.1f}", over, _over_published(verdict, named))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def running(pairs: Sequence[PairData]) -> Iterator[str]:
    """What is not confirmed, and how far it is."""
    for pair in pairs:
        if pair.data.verdict is None:
            yield f"* {pair.short}: not confirmed yet ({pair.state}, {pair.finished} of {pair.slots} trials)."


def draw(pairs: Sequence[PairData], folder: Path) -> list[str]:
    """Points above plain SFT, and where the shared designs rank; returns the pictures that could be drawn."""
    effects, ranks = (folder / name for name in PICTURES)
    done = [pair for pair in pairs if pair.data.verdict is not None]
    if done:
        _effects(done, effects)
    found, _ = compared(pairs)
    if found is not None:
        draw_ranks(found, ranks)
    return [path.name for path, drawn in ((effects, done), (ranks, found)) if drawn]


def _effects(pairs: Sequence[PairData], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 0.7 * len(pairs) + 1.2), layout="constrained")
    panel = figure.subplots()
    panel.axvline(0, color="#444444", linewidth=0.8)
    looks = {"published": ("#0072b2", 0.14, "best published objective"), "design": ("#d55e00", -0.14, "found")}
    for place, pair in enumerate(reversed(pairs)):
        assert pair.data.verdict is not None
        named = titles(pair.data.verdict)
        for role, (color, above, label) in looks.items():
            found = compared_with_sft(pair.data.verdict, named.get(role))
            if found is not None:
                low, effect, high = (100 * found[name] for name in ("low", "effect", "high"))
                panel.plot([low, high], [place + above] * 2, color=color, linewidth=2)
                panel.plot(effect, place + above, "o", color=color, label="" if place else label)
    panel.set_ylim(-0.5, len(pairs) - 0.5)
    panel.set_yticks(range(len(pairs)), [pair.short for pair in reversed(pairs)])
    panel.set_xlabel("points above plain SFT, with the interval of the confirmation")
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def write_page(pairs: Sequence[PairData], folder: Path) -> None:
    """Put table and pictures into the page."""
    pictures = "\n\n".join(f"![{Path(name).stem}]({name})" for name in draw(pairs, folder))
    renew(folder / "results.md", f"{table(pairs)}\n\n{pictures}")


def renew(page: Path, text: str) -> None:
    """Put `text` between the marks of a page."""
    begin, end = MARKS
    head, rest = page.read_text("utf-8").split(begin)
    page.write_text(f"{head}{begin}{text}\n{end}{rest.split(end)[1]}", "utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path, nargs="+", help="a campaign's file, or files and folders of studies")
    parser.add_argument("--docs", type=Path, help="folder with results.md, whose table and pictures are renewed")
    parser.add_argument("--readme", type=Path, help="a page whose short table is renewed")
    given = parser.parse_args(argv)
    _, pairs = gather_campaign(given.campaign)
    print(table(pairs))
    if given.docs:
        write_page(pairs, given.docs)
    if given.readme:
        renew(given.readme, short_table(pairs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
