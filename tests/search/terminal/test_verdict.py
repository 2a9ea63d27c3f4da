"""A verdict in words: what is found, what is not asked, what is not decided; verdicts of before read as they did."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from qtarget.search.export.tracking import verdict_metrics
from qtarget.search.loop.confirm import within_scores
from qtarget.search.terminal.verdict import answers, confirmation_sentence, show_verdict

DESIGN, PUBLISHED = "trial 7: γ = p^0.5", "hybrid_kd at 0.0002"


def comparison(title: str, effect: float, outcome: str) -> dict[str, Any]:
    return {
        "title": title, "outcome": outcome, "score": 0.4 + effect, "effect": effect, "low": effect - 0.05,
        "high": effect + 0.05, "shrunken": effect, "adjusted_p_value": 0.01, "seeds": 5,
    }  # fmt: skip


def verdict(winner: str | None = DESIGN, **changes: Any) -> dict[str, Any]:
    better = "better than SFT"
    found = {
        "winner": winner, "seeds": 6, "problems": 256, "sft_score": 0.4, "trainings": 14, "long_trainings": 9,
        "comparisons": [
            comparison(DESIGN, 0.1, better if winner == DESIGN else "not distinguishable from SFT"),
            comparison(PUBLISHED, 0.06, better if winner == PUBLISHED else "not distinguishable from SFT"),
        ],
        "candidates": [{"title": "sft", "role": "sft", "training": {"learning_rate": 5e-4}},
                       {"title": DESIGN, "role": "design"},
                       {"title": PUBLISHED, "role": "published"}],
        "against_published": {"title": DESIGN, "rival": PUBLISHED, "settled": True, "effect": 0.04, "low": 0.01,
                              "high": 0.07},
        "lasting": [{"rival": "sft", "trend": "shrinks", "shorter": 0.1, "longer": 0.02, "change": -0.08, "low": -0.12,
                     "high": -0.04, "seeds": 3}],
        "undecided": [], "no_rival": None, "longer": 2.0,
    }  # fmt: skip
    return found | changes


def test_three_answers() -> None:
    assert answers(verdict()) == [
        f"{DESIGN} is better than SFT: +10.0 [+5.0, +15.0] points over 5 seeds and 256 problems.",
        f"It is better than the best published objective, {PUBLISHED}, tuned alike: +4.0 [+1.0, +7.0] points.",
        "Trained 2 times as long, its lead over plain SFT shrinks: +10.0 points become +2.0, a change of "
        "-8.0 [-12.0, -4.0], over 3 seeds.",
    ]
    screen = io.StringIO()
    show_verdict(verdict(sft_seeds=77), Console(file=screen, width=200))
    (row,) = [line for line in screen.getvalue().splitlines() if line.startswith("│ sft ")]
    assert row.split("│")[2].strip() == "77", "its own runs, not the most of any"
    assert (
        "14 trainings and 9 longer ones" in screen.getvalue() and f"Confirmed: {DESIGN} is better" in screen.getvalue()
    )
    assert verdict_metrics(verdict()) == {
        "confirmed_lead_over_sft": 0.1, "confirmed_lead_over_published": 0.04, "lead_change_longer_sft": -0.08,
    }  # fmt: skip


def test_a_published_objective_that_wins_is_a_result() -> None:
    rivalry = {**verdict()["against_published"], "settled": False, "effect": -0.02, "low": -0.06, "high": 0.02}
    first, second, *_ = answers(verdict(PUBLISHED, against_published=rivalry))
    assert first.startswith(
        f"The search found nothing better than {PUBLISHED}, a published objective, which is better than"
    )
    assert second == f"{DESIGN} against {PUBLISHED}, the best published objective: -2.0 [-6.0, +2.0] points."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"winner": None},
            f"nothing better than plain SFT at 0.0005: {DESIGN} is not distinguishable from SFT, +10.0",
        ),
        (
            {"winner": None, "undecided": ["sft", "published", "length"]},
            "is better than plain SFT is not decided yet: +10.0",
        ),
        (
            {"undecided": ["published", "length"], "lasting": []},
            "Whether its lead lasts in a longer training is not decided yet.",
        ),
        ({"undecided": ["length"]}, "Confirmed so far"),
        (
            {"no_rival": "No published objective had a trial.", "against_published": None},
            "No published objective had a trial.",
        ),
    ],
)
def test_what_is_open_is_said(changes: dict[str, Any], said: str) -> None:
    found = verdict(**changes)
    if found["winner"] is None:
        found["comparisons"][0]["outcome"] = "not distinguishable from SFT"
    assert said in confirmation_sentence(found)


@pytest.mark.parametrize(
    ("undecided", "said"), [([], "cannot be told"), (["published", "length"], "is not decided yet")]
)
def test_a_lead_over_the_published_objective_that_is_not_settled(undecided: list[str], said: str) -> None:
    rivalry = {**verdict()["against_published"], "settled": False}
    assert f"tuned alike, {said}: +4.0" in answers(verdict(against_published=rivalry, undecided=undecided))[1]


def test_where_nothing_wins_the_candidate_of_most_seeds_is_named() -> None:
    given_up = {**comparison(PUBLISHED, 0.3, "not distinguishable from SFT"), "seeds": 1}
    found = verdict(None, comparisons=[given_up, verdict(None)["comparisons"][0]], against_published=None, lasting=[])
    assert answers(found)[0] == (
        f"The search found nothing better than plain SFT at 0.0005: {DESIGN} is not distinguishable from SFT, "
        "+10.0 [+5.0, +15.0] points over 5 seeds and 256 problems."
    )


def test_a_verdict_of_before_says_what_it_said() -> None:
    known = ("winner", "seeds", "problems", "sft_score", "comparisons", "candidates")
    before = {name: value for name, value in verdict().items() if name in known}
    before["comparisons"] = [{k: v for k, v in each.items() if k != "seeds"} for each in before["comparisons"]]
    before["candidates"] = [{"title": each["title"]} for each in before["candidates"]]
    found = within_scores(before)
    assert answers(found) == [f"{DESIGN} is better than SFT: +10.0 [+5.0, +15.0] points over 6 seeds and 256 problems."]
    assert verdict_metrics(found) == {"confirmed_lead_over_sft": 0.1}
