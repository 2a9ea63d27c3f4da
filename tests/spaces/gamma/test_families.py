"""γ and residual families against numbers worked out by hand, and the rules of their modifiers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from target_specs import detached_rows
from token_rows import TokenRows
from torch import Tensor

from qtarget.spaces import TargetSpec
from qtarget.spaces.rows import LabelRows, Rows
from qtarget.spaces.target import count, design, trust
from qtarget.spaces.temperature import AdaptiveTemperature


def rows(student: list[float], label: int, **others: list[float]) -> Rows:
    """One token with the given probabilities."""

    def logits(probs: list[float]) -> Tensor:
        return torch.tensor([probs], dtype=torch.float64).log()

    world = TokenRows(
        logits=logits(student),
        labels=torch.tensor([label]),
        teacher_logits=logits(others.get("teacher", student)),
        reference_logits=logits(others.get("reference", student)),
        old_logprobs=torch.tensor([others.get("old", [0.5])[0]], dtype=torch.float64).log(),
        critical=torch.tensor([True]),
        sequence_ids=torch.tensor([0]),
        previous_logits=logits(others.get("previous", student)),
    )
    return detached_rows(world)


def gamma_of(where: LabelRows, **gamma: Any) -> list[float]:
    found = trust(TargetSpec.model_validate({"gamma": gamma}), where)
    return [round(value, 12) for value in found.tolist()]


def residual_of(where: Rows, **residual: Any) -> list[float]:
    spec = TargetSpec.model_validate({"gamma": {"kind": "constant", "value": 0}, "residual": residual})
    return [round(value, 12) for value in design(spec, where).q[0].tolist()]


QUARTER = rows([0.25, 0.5, 0.125, 0.125], 0, teacher=[0.1, 0.2, 0.3, 0.4], reference=[0.5, 0.25, 0.25, 0.0])


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        ({"kind": "power", "exponent": 2}, 0.0625),
        ({"kind": "power", "source": "reference"}, 0.5),
        ({"kind": "power", "source": "teacher", "exponent": 0}, 1.0),
        ({"kind": "power", "exponent": -0.5, "ceiling": 3}, 2.0),
        ({"kind": "power", "exponent": -1, "ceiling": 3}, 3.0),
        ({"kind": "threshold", "low": 0.25}, 0.0),
        ({"kind": "threshold", "low": 0.25, "inclusive": True}, 1.0),
        ({"kind": "threshold", "low": 0.2, "high": 0.3, "exponent": 1}, 0.25),
        ({"kind": "threshold", "low": None, "high": 0.2}, 0.0),
        ({"kind": "threshold", "low": 0}, 1.0),
        ({"kind": "threshold", "low": 1}, 0.0),
        ({"kind": "soft_threshold", "low": 0.25}, 0.5),
        ({"kind": "soft_threshold", "low": 0.2, "width": 0.05}, 1 / (1 + math.exp(-1))),
        ({"kind": "anchored", "lam": 0.75}, 0.25),
        ({"kind": "anchored", "lam": 1, "exponent": 0}, 0.5),
        ({"kind": "bump", "scale": 4}, 0.75),
        ({"kind": "shaping", "lam": 0.25}, 0.25),
        ({"kind": "shaping", "lam": 0.75}, 0.1875),
        ({"kind": "information", "silent": 0.9}, 0.25 * 1.5),
        ({"kind": "information", "silent": 0.75, "source": "teacher"}, 0.1 * 3),
        ({"kind": "margin", "margin": 0, "width": math.log(2)}, math.exp(-0.5)),
        ({"kind": "margin", "margin": -math.log(2)}, 1.0),
        ({"kind": "label_penalty", "lam": 0.2}, 0.25 + 0.2 * (0.5 / 0.25 - 1)),
        ({"kind": "label_penalty", "lam": 0.2, "exponent": 0, "source": "previous"}, 1.2),
        ({"kind": "label_penalty", "lam": 1, "source": "teacher"}, 0.25 - 0.6),
        ({"kind": "label_penalty", "lam": 1, "source": "teacher", "floor": 0}, 0.0),
        ({"kind": "label_penalty", "lam": 0.2, "estimator": "k2"}, 0.25 + 0.2 * math.log(2)),
        ({"kind": "label_penalty", "lam": 0.2, "estimator": "k2", "limit": 0.5}, 0.25),
        ({"kind": "label_penalty", "lam": 0.2, "limit": 0.5}, 0.25),
        (
            {"kind": "tempered_penalty"},
            1 + math.log(4 / (1 + 4 ** (1 / 3) + 2 * 2 ** (-2 / 3))),
        ),  # the entropy saturates
        ({"kind": "focal", "exponent": 1}, 0.75 + 0.25 * math.log(4)),
        ({"kind": "focal", "exponent": 1, "stopped": True}, 0.75),
        ({"kind": "tilt", "beta": math.log(4)}, 3 / 7),
        ({"kind": "topk_entropy", "k": 4}, 1.75 / 2),
        ({"kind": "topk_entropy", "k": 4, "normalizer": math.log(2), "exponent": 2}, 1.75**2),
        ({"kind": "topk_entropy", "k": 2, "normalizer": 3.0}, (math.log(3) - 2 / 3 * math.log(2)) / 3),
        ({"kind": "concentration_power"}, 0.25**0.34375 * 0.34375 / (0.34375 + 1e-6)),
        ({"kind": "surprise_power", "high": 32}, 0.25 ** (4 * math.exp(-1.75 * math.log(2)))),
        ({"kind": "mass", "mass": 0.5}, 1.0),
        ({"kind": "mass", "mass": 0.49}, 0.0),
        ({"kind": "mass", "mass": 0.6}, 1.0),
        ({"kind": "mass", "mass": 0.1, "source": "reference"}, 1.0),
        ({"kind": "likelihood_ratio", "level": "token"}, 0.5),
        ({"kind": "likelihood_ratio", "level": "token", "temperature": 2}, 0.25),
        ({"kind": "proximal"}, 0.5),
        ({"kind": "critical"}, 1.0),
        ({"kind": "median_power"}, math.exp(-1)),
        ({"kind": "power", "floor": 0.4}, 0.4),
        ({"kind": "power", "ceiling": 0.2}, 0.2),
        ({"kind": "power", "floor": 0.4, "ceiling": 0.3}, 0.3),
        ({"kind": "power", "mix": 0.2}, 1 - 0.2 * 0.75),
    ],
)
def test_trust_of_one_token(gamma: dict[str, Any], expected: float) -> None:
    assert gamma_of(QUARTER, **gamma) == [pytest.approx(expected, abs=1e-11)]


@pytest.mark.parametrize(
    ("residual", "expected"),
    [
        ({"kind": "student"}, [0.25, 0.5, 0.125, 0.125]),
        ({"kind": "student", "temperature": 0.5}, [2 / 11, 8 / 11, 0.5 / 11, 0.5 / 11]),
        ({"kind": "student", "exclude_label": True}, [0, 2 / 3, 1 / 6, 1 / 6]),
        ({"kind": "uniform"}, [0.25, 0.25, 0.25, 0.25]),
        ({"kind": "uniform", "exclude_label": True}, [0, 1 / 3, 1 / 3, 1 / 3]),
        ({"kind": "reference", "temperature": 2}, [2**0.5 - 1, 1 - 2**-0.5, 1 - 2**-0.5, 0]),
        ({"kind": "teacher", "top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"kind": "teacher", "top_k": 2, "tail": "drop"}, [0, 0, 0.3, 0.4]),
        ({"kind": "teacher", "top_k": 2, "tail": "student"}, [0.1, 0.2, 0.3, 0.4]),
        ({"kind": "teacher", "top_k": 2, "tail": "uniform"}, [0.15, 0.15, 0.3, 0.4]),
        ({"kind": "teacher", "top_p": 0.5}, [0, 0, 3 / 7, 4 / 7]),
        ({"kind": "teacher", "top_p": 0.4}, [0, 0, 0, 1]),
        ({"kind": "teacher", "top_p": 0.95, "top_k": 1}, [0, 0, 0, 1]),
        ({"kind": "teacher", "top_k": 4, "tail": "uniform"}, [0.1, 0.2, 0.3, 0.4]),
        ({"kind": "teacher", "exclude_label": True, "top_k": 1, "tail": "student"}, [0, 4 / 9, 1 / 9, 4 / 9]),
        ({"kind": "geometric", "teacher": 0, "reference": 1}, [0.5, 0.25, 0.25, 0]),
        ({"kind": "geometric", "teacher": 1, "reference": 1}, [1 / 3.5, 1 / 3.5, 1.5 / 3.5, 0]),
        ({"kind": "mixture", "teacher": 1, "reference": 1}, [0.3, 0.225, 0.275, 0.2]),
        ({"kind": "mixture", "teacher": 0, "reference": 0}, [0.25, 0.5, 0.125, 0.125]),
        ({"kind": "mixture", "teacher": 0.5, "uniform": 0.5, "reference": 0}, [0.175, 0.225, 0.275, 0.325]),
    ],
)
def test_residual_of_one_token(residual: dict[str, Any], expected: list[float]) -> None:
    assert residual_of(QUARTER, **residual) == pytest.approx(expected, abs=1e-11)


def test_a_label_excluded_from_a_certain_residual_leaves_the_others_even() -> None:
    certain = rows([0.5, 0.25, 0.25], 0, teacher=[1.0, 0.0, 0.0])
    assert residual_of(certain, kind="teacher", exclude_label=True) == [0, 0.5, 0.5]


def test_a_pool_without_common_support_falls_back_to_the_student() -> None:
    apart = rows([0.5, 0.25, 0.25], 0, teacher=[1.0, 0.0, 0.0], reference=[0.0, 0.5, 0.5])
    assert residual_of(apart, kind="geometric", teacher=0.5, reference=0.5) == [0.5, 0.25, 0.25]


def test_sequence_families_average_over_their_own_sequence() -> None:
    log_p = torch.tensor([0.5, 0.5, 0.1, 0.2], dtype=torch.float64).log()
    reference = torch.tensor([0.25, 0.25, 0.2, 0.4], dtype=torch.float64).log()
    batch = LabelRows(log_p, reference_label_logprobs=reference, sequence_ids=torch.tensor([7, 7, 3, 3]))
    assert gamma_of(batch, kind="likelihood_ratio") == pytest.approx([2, 2, 0.5, 0.5])
    assert gamma_of(batch, kind="likelihood_ratio", level="sum") == pytest.approx([4, 4, 0.25, 0.25])
    assert gamma_of(batch, kind="likelihood_ratio", cap=1.5) == pytest.approx([1.5, 1.5, 0.5, 0.5])
    own = [math.log(2), (math.log(10) + math.log(5)) / 2]  # mean NLL of the two sequences
    likely = [math.exp(-cost) for cost in own for _ in range(2)]
    assert gamma_of(batch, kind="tempered_likelihood", temperature=1) == pytest.approx(likely)
    relative = [math.exp(-2 * cost / sum(own)) for cost in own for _ in range(2)]
    assert gamma_of(batch, kind="tempered_likelihood") == pytest.approx(relative)
    middle = (math.log(2) + math.log(5)) / 2
    each = [math.exp(value / middle) for value in log_p.tolist()]
    assert gamma_of(batch, kind="tempered_likelihood", level="token") == pytest.approx(each)
    # of two sequences the dearer one lies one standard deviation above the mean
    kept = [0.5, 0.5, 0.1 * math.exp(-3), 0.2 * math.exp(-3)]
    assert gamma_of(batch, kind="sequence_outlier", strength=3) == pytest.approx(kept, rel=1e-5)
    tau = math.log(2)  # the lower median of log 2 and the other sequence's larger mean
    assert gamma_of(batch, kind="median_power") == pytest.approx([math.exp(value / tau) for value in log_p.tolist()])


@pytest.mark.parametrize("silent", [0.6, 0.8, 0.93, 0.999])
def test_information_is_largest_where_it_says_and_silent_from_its_end_on(silent: float) -> None:
    p = torch.linspace(1e-4, 1, 20001, dtype=torch.float64)
    family = TargetSpec.model_validate({"gamma": {"kind": "information", "silent": silent}}).gamma
    found = family.trust(LabelRows(p.log()))
    assert float(found.max()) == pytest.approx(family.bounds()[1], rel=1e-6)
    assert not found[p > silent + 1e-9].any() and (found[p < silent - 1e-9] > 0).all()
    assert silent != 0.93 or float(p[found.argmax()]) == pytest.approx(0.57, abs=0.005)


def test_an_adaptive_temperature_raises_the_entropy_by_what_it_promises() -> None:
    generator = torch.Generator().manual_seed(4)
    spread = torch.linspace(0.2, 2.2, 40, dtype=torch.float64)[:, None]
    logprobs = (spread * torch.randn(40, 60, generator=generator, dtype=torch.float64)).log_softmax(-1)
    certain = torch.full((1, 60), -20.0, dtype=torch.float64)
    certain[0, 3] = 0.0
    rows = torch.cat([logprobs, certain.log_softmax(-1)])
    rule = AdaptiveTemperature()
    tau = rule.of(rows)
    assert float(tau[-1]) == rule.low and (tau >= rule.low).all() and (tau <= rule.high).all()
    entropy = torch.special.entr(rows.exp()).sum(-1)
    wanted = entropy + 0.5 * torch.sigmoid(2 * (entropy - 1.2))
    reached = torch.special.entr((rows / tau[:, None]).softmax(-1)).sum(-1)
    inside = (tau > rule.low + 1e-3) & (tau < rule.high - 1e-3)
    assert int(inside.sum()) > 8
    torch.testing.assert_close(reached[inside], wanted[inside], rtol=0, atol=1e-6)
    assert (reached[tau > rule.high - 1e-6] <= wanted[tau > rule.high - 1e-6] + 1e-6).all()


@pytest.mark.parametrize(
    ("content", "moved"),
    [
        ({"top_k": 3}, [0, 1 / 2 - 4 / 5, 1 / 2 - 1 / 5, 0]),  # the label is among the three and left out
        ({"top_k": 2}, [0, 0, 0, 0]),  # one alternative has no shape
        (
            {"top_k": 3, "anchor": "teacher", "temperature": 0.5},  # the label is not among them; shares are squared
            [0, 4 / 14 - 4 / 6, 1 / 14 - 1 / 6, 9 / 14 - 1 / 6],
        ),
    ],
)
def test_alternatives_keep_the_shape_that_their_anchor_gives_them(content: dict[str, Any], moved: list[float]) -> None:
    where = rows([0.25, 0.5, 0.125, 0.125], 0, reference=[0.4, 0.25, 0.25, 0.1], teacher=[0.1, 0.3, 0.15, 0.45])
    spec = TargetSpec.model_validate({"contrast": {"kind": "plateau", **content}})
    assert design(spec, where).q[0].tolist() == pytest.approx([1.0, *moved[1:]], abs=1e-12)


@pytest.mark.parametrize("old", [0.25, 0.2, 0.19])
def test_the_proximal_ratio_stops_at_its_upper_clip(old: float) -> None:
    where = rows([0.25, 0.75], 0, old=[old])
    ratio = 0.25 / old
    assert gamma_of(where, kind="proximal", eps=0.28) == pytest.approx([ratio if ratio < 1.28 else 0.0])


def test_denominators_by_hand() -> None:
    log_p = torch.tensor([0.5, 0.05, 0.2], dtype=torch.float64).log()
    batch = LabelRows(log_p)
    content: dict[str, Any] = {"gamma": {"kind": "threshold", "low": 0.1, "exponent": 1}}
    gamma = trust(TargetSpec.model_validate(content), batch)
    weight = torch.full_like(gamma, 2.0)

    def total(denominator: str, **more: Any) -> float:
        spec = TargetSpec.model_validate(content | more | {"denominator": denominator})
        return float(count(spec, gamma, weight).sum())

    assert (total("all"), total("kept"), total("weights")) == pytest.approx((3, 2, 1.4))
    teacher = {"residual": {"kind": "teacher"}}
    assert (total("all", **teacher), total("kept", **teacher), total("weights", **teacher)) == pytest.approx((3, 3, 6))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gamma": {"kind": "powr"}}, "powr"),
        ({"gamma": {"kind": "power", "exponent": -1}}, "needs a `ceiling`"),
        ({"gamma": {"kind": "power", "exponent": 99}}, "less than or equal to 32"),
        ({"gamma": {"kind": "power", "alpha": 1}}, "alpha"),
        ({"gamma": {"kind": "constant", "value": 1.3}}, "less than or equal to 1"),
        ({"gamma": {"kind": "constant", "value": float("nan")}}, "finite"),
        ({"gamma": {"kind": "threshold", "low": None}}, "needs `low` or `high`"),
        ({"gamma": {"kind": "threshold", "low": 0.5, "high": 0.4}}, "`low` must be below `high`"),
        ({"gamma": {"kind": "power", "schedule": {"start": 0.5, "end": 0.4}}}, "`start` must be below `end`"),
        ({"gamma": {"kind": "power", "source": "oracle"}}, "source"),
        ({"residual": {"kind": "oracle"}}, "oracle"),
        ({"residual": {"kind": "uniform", "top_k": 2}}, "cannot be truncated"),
        ({"residual": {"kind": "teacher", "tail": "drop"}}, "without `top_k` or `top_p`"),
        ({"residual": {"kind": "teacher", "temperature": 0}}, "temperature"),
        ({"residual": {"kind": "geometric", "teacher": 0, "student": 0}}, "an exponent above 0"),
        ({"gamma": {"kind": "information", "silent": 0.5}}, "silent"),
        ({"gamma": {"kind": "tempered_likelihood", "temperature": "mean"}}, "temperature"),
        (
            {"gamma": {"kind": "tempered_penalty", "temperature": {"low": 1.5, "high": 1.2}}},
            "`low` must be below `high`",
        ),
        ({"residual": {"kind": "previous", "temperature": 2, "adaptive": {}}}, "exclude each other"),
        ({"gamma": {"kind": "label_penalty"}, "denominator": "weights"}, "never below 0"),
        ({"previous": {"decay": 1}}, "decay"),
        ({"contrast": {"kind": "gem", "beta": 0}}, "beta"),
        ({"weight": {"kind": "anchored"}}, "needs the γ family `anchored`"),
        ({"weight": {"scale": 0}}, "greater than 0"),
        ({"denominator": "some"}, "denominator"),
        ({"gama": {}}, "gama"),
    ],
)
def test_designs_out_of_validity_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TargetSpec.model_validate(content)


@pytest.mark.parametrize(
    ("content", "needs"),
    [
        ({}, set()),
        ({"residual": {"kind": "teacher"}}, set()),  # γ = 1 gives the residual nothing
        ({"gamma": {"kind": "power"}, "residual": {"kind": "teacher"}}, {"teacher"}),
        ({"gamma": {"kind": "power", "mix": 0}, "residual": {"kind": "teacher"}}, set()),
        ({"gamma": {"kind": "power"}, "residual": {"kind": "geometric", "teacher": 0}}, set()),
        ({"gamma": {"kind": "power"}, "residual": {"kind": "geometric", "reference": 1, "teacher": 0}}, {"reference"}),
        ({"gamma": {"kind": "power"}, "residual": {"kind": "previous"}}, {"previous"}),
        ({"gamma": {"kind": "power", "source": "teacher"}}, {"teacher"}),
        ({"gamma": {"kind": "likelihood_ratio"}}, {"reference", "sequence_ids"}),
        ({"gamma": {"kind": "proximal"}}, {"old_logprobs"}),
        ({"gamma": {"kind": "label_penalty", "source": "previous"}}, {"old_logprobs"}),
        ({"gamma": {"kind": "label_penalty", "lam": 0}}, set()),
        ({"gamma": {"kind": "tempered_penalty"}}, {"previous"}),
        ({"gamma": {"kind": "tempered_likelihood", "source": "reference"}}, {"reference", "sequence_ids"}),
        ({"gamma": {"kind": "tempered_likelihood", "level": "token"}}, set()),
        ({"contrast": {"kind": "plateau"}}, {"reference"}),
        ({"contrast": {"kind": "plateau", "top_k": 1}}, set()),
        ({"gamma": {"kind": "critical"}}, {"critical"}),
        ({"contrast": {"kind": "reverse_kl"}}, {"reference"}),
        ({"contrast": {"kind": "reverse_kl", "coefficient": 0}}, set()),
    ],
)
def test_needs_are_what_the_design_looks_at(content: dict[str, Any], needs: set[str]) -> None:
    spec = TargetSpec.model_validate(content)
    assert spec.needs == needs
    assert spec.missing({"reference"}) == needs - {"reference"}


@pytest.mark.parametrize(
    ("content", "rows_of"),
    [
        ({"gamma": {"kind": "label_penalty"}}, set()),
        ({"gamma": {"kind": "power", "source": "reference"}}, set()),
        ({"gamma": {"kind": "mass", "source": "reference"}}, {"reference"}),
        ({"gamma": {"kind": "tempered_penalty"}}, {"previous"}),
        ({"gamma": {"kind": "label_penalty"}, "residual": {"kind": "reference"}}, {"reference"}),
        ({"gamma": {"kind": "power", "source": "reference"}, "residual": {"kind": "teacher"}}, {"teacher"}),
        ({"contrast": {"kind": "plateau"}}, {"reference"}),
    ],
)
def test_designs_say_of_whom_they_see_more_than_the_label(content: dict[str, Any], rows_of: set[str]) -> None:
    assert TargetSpec.model_validate(content).needs_rows == rows_of
