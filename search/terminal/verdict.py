"""A confirmation's verdict in words: better than plain SFT, better than what is published, and does the lead last?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .tables import headed


def show_verdict(verdict: Mapping[str, Any], console: Console) -> None:
    """The table of a verdict, and its answers."""
    console.print(confirmation_table(verdict))
    first, *others = answers(verdict)
    whole = not console.record  # a picture has an edge
    console.print(f"{_word(verdict)}: {first}", soft_wrap=whole, style="bold", markup=False, highlight=False)
    for sentence in others:
        console.print(sentence, soft_wrap=whole, markup=False, highlight=False)


def confirmation_table(verdict: Mapping[str, Any]) -> Table:
    """Each candidate against plain SFT: effect in points with its interval, corrected for all that is compared."""
    trained = f", {verdict['trainings']} trainings" if verdict.get("trainings") else ""
    longer = f" and {verdict['long_trainings']} longer ones" if verdict.get("long_trainings") else ""
    title = f"Confirmation: {verdict['seeds']} fresh seeds, {verdict['problems']} untouched problems{trained}{longer}"
    table = headed(title, "design", "seeds>", "score>", "points above SFT>", "expect>", "p (corrected)>", "verdict")
    forgotten = {each["title"]: each["retention"] for each in verdict["candidates"] if each.get("retention")}
    if forgotten:
        table.add_column("forgotten", justify="right")
    kept = {title: [f"{found['forgotten']:.3g}"] for title, found in forgotten.items()}
    own = str(verdict.get("sft_seeds", verdict["seeds"]))
    table.add_row("sft", own, f"{verdict['sft_score']:.3f}", "", "", "", "", *kept.get("sft", []))
    for found in sorted(verdict["comparisons"], key=lambda each: -float(each["effect"])):
        table.add_row(
            escape(found["title"]),
            str(found["seeds"]),
            f"{found['score']:.3f}",
            points(found),
            f"{100 * found['shrunken']:+.1f}",
            f"{found['adjusted_p_value']:.2g}",
            found["outcome"],
            *kept.get(found["title"], []),
        )
    return table


def confirmation_sentence(verdict: Mapping[str, Any]) -> str:
    """All answers of a verdict as one text."""
    return f"{_word(verdict)}: {' '.join(answers(verdict))}"


def answers(verdict: Mapping[str, Any]) -> list[str]:
    """The answers in sentences, the one about plain SFT first; what is not asked or not decided is said."""
    return [_against_sft(verdict), *_against_published(verdict), *_over_length(verdict)]


def decisive(verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    """The comparison a verdict rests on: its winner's, or the one of most seeds, of these the largest effect.

    Where nothing wins, the largest effect of all is that of a candidate given up after a lucky seed.
    """
    best: Mapping[str, Any] = max(verdict["comparisons"], key=lambda each: (each.get("seeds", 0), each["effect"]))
    return next((each for each in verdict["comparisons"] if each["title"] == verdict["winner"]), best)


def points(found: Mapping[str, Any], name: str = "effect") -> str:
    """A difference of scores in points, with its interval."""
    return f"{100 * found[name]:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"


def _word(verdict: Mapping[str, Any]) -> str:
    return "Confirmed so far" if verdict["undecided"] else "Confirmed"


def _against_sft(verdict: Mapping[str, Any]) -> str:
    shown = decisive(verdict)
    evidence = f"{points(shown)} points over {shown['seeds']} seeds and {verdict['problems']} problems."
    if verdict["winner"] is None and "sft" in verdict["undecided"]:
        return f"Whether {shown['title']} is better than plain SFT is not decided yet: {evidence}"
    if verdict["winner"] is None:
        return (
            f"The search found nothing better than {_sft(verdict)}: {shown['title']} is {shown['outcome']}, {evidence}"
        )
    if not found_a_design(verdict):
        title = shown["title"]
        return (
            f"The search found nothing better than {title}, a published objective, which is better than SFT: {evidence}"
        )
    return f"{shown['title']} is {shown['outcome']}: {evidence}"


def found_a_design(verdict: Mapping[str, Any]) -> bool:
    """Whether something wins that is neither plain SFT nor published."""
    roles = {each["title"]: each.get("role") for each in verdict["candidates"]}
    return verdict["winner"] is not None and roles.get(verdict["winner"]) != "published"


def _sft(verdict: Mapping[str, Any]) -> str:
    """Plain SFT, with its learning rate where that was searched."""
    sft: Mapping[str, Any] = next((each for each in verdict["candidates"] if each.get("role") == "sft"), {})
    rate = sft.get("training", {}).get("learning_rate")
    return "plain SFT" if rate is None else f"plain SFT at {rate:.2g}"


def _against_published(verdict: Mapping[str, Any]) -> Iterator[str]:
    found = verdict["against_published"]
    if verdict["no_rival"] is not None:
        yield str(verdict["no_rival"])
    elif found is not None and found["title"] == verdict["winner"]:
        rival = f"the best published objective, {found['rival']}, tuned alike"
        if found["settled"]:
            yield f"It is better than {rival}: {points(found)} points."
        elif "published" in verdict["undecided"]:
            yield f"Whether it is better than {rival}, is not decided yet: {points(found)} points."
        else:
            yield f"Whether it is better than {rival}, cannot be told: {points(found)} points."
    elif found is not None:
        yield f"{found['title']} against {found['rival']}, the best published objective: {points(found)} points."


def _over_length(verdict: Mapping[str, Any]) -> Iterator[str]:
    """What becomes of the winner's lead in a longer training."""
    for found in verdict["lasting"]:
        rival = "plain SFT" if found["rival"] == "sft" else found["rival"]
        change = f"{100 * found['shorter']:+.1f} points become {100 * found['longer']:+.1f}, a change of "
        change += f"{points(found, 'change')}, over {found['seeds']} seeds"
        length = f"Trained {verdict['longer']:g} times as long"
        if found["trend"] != "cannot be told":
            yield f"{length}, its lead over {rival} {found['trend']}: {change}."
        else:
            decided = "is not decided yet" if "length" in verdict["undecided"] else "cannot be told"
            yield f"{length}, what becomes of its lead over {rival} {decided}: {change}."
    if verdict["winner"] is not None and "length" in verdict["undecided"] and not verdict["lasting"]:
        yield "Whether its lead lasts in a longer training is not decided yet."
