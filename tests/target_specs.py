"""Designs to test with: a member of every family and modifier, hypothesis strategies, a gradient as a fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from hypothesis import strategies as st
from token_rows import TokenRows, random_rows
from torch import Tensor

from qtarget.spaces import TargetSpec
from qtarget.spaces.gamma.base import Gamma
from qtarget.spaces.rows import Rows
from qtarget.spaces.target import count, design, trust

GAMMAS: dict[str, dict[str, Any]] = {
    "one": {"kind": "constant"},
    "half": {"kind": "constant", "value": 0.5},
    "zero": {"kind": "constant", "value": 0},
    "power": {"kind": "power", "exponent": 0.5},
    "prior-averse": {"kind": "power", "exponent": -0.5, "ceiling": 3},
    "reference power": {"kind": "power", "source": "reference"},
    "threshold": {"kind": "threshold", "low": 0.2},
    "band": {"kind": "threshold", "low": 0.1, "high": 0.6, "exponent": 1, "inclusive": True},
    "soft threshold": {"kind": "soft_threshold"},
    "anchored": {"kind": "anchored", "lam": 0.3},
    "bump": {"kind": "bump", "scale": 4},
    "shaping": {"kind": "shaping"},
    "information": {"kind": "information", "silent": 0.8},
    "margin": {"kind": "margin", "width": 2},
    "focal": {"kind": "focal", "exponent": 0.5},
    "stopped focal": {"kind": "focal", "stopped": True},
    "tilt": {"kind": "tilt", "beta": 3, "source": "teacher"},
    "entropy": {"kind": "topk_entropy", "k": 4, "exponent": 0.33},
    "entropy by 3": {"kind": "topk_entropy", "normalizer": 3},
    "concentration": {"kind": "concentration_power"},
    "surprise": {"kind": "surprise_power"},
    "mass": {"kind": "mass", "mass": 0.6, "source": "reference"},
    "sequence ratio": {"kind": "likelihood_ratio"},
    "trajectory ratio": {"kind": "likelihood_ratio", "level": "sum"},
    "token ratio": {"kind": "likelihood_ratio", "level": "token", "floor": 0.2, "cap": 1.8},
    "proximal": {"kind": "proximal"},
    "sigmoid ratio": {"kind": "sigmoid_ratio", "beta": 0.7},
    "gap": {"kind": "gap", "slope": 2},
    "label anchor": {"kind": "label_penalty", "lam": 0.2},
    "squared label anchor": {"kind": "label_penalty", "estimator": "k2", "lam": 0.5, "source": "previous", "limit": 1},
    "floored label anchor": {"kind": "label_penalty", "lam": 0.9, "source": "teacher", "floor": 0},
    "tempered anchor": {"kind": "tempered_penalty"},
    "diversity": {"kind": "diversity", "theta": 0.7},
    "cayley": {"kind": "cayley_power"},
    "median cap": {"kind": "median_cap", "ratio": 0.5},
    "rank": {"kind": "rank", "share": 0.6},
    "excess rank": {"kind": "rank", "by": "excess", "keep": "highest"},
    "critical": {"kind": "critical"},
    "median": {"kind": "median_power"},
    "sequence outlier": {"kind": "sequence_outlier", "strength": 2},
    "sequence likelihood": {"kind": "tempered_likelihood", "source": "reference"},
    "tempered sequence": {"kind": "tempered_likelihood", "temperature": 0.7},
    "token likelihood": {"kind": "tempered_likelihood", "level": "token"},
    "clipped power": {"kind": "power", "floor": 0.1, "ceiling": 0.6},
    "mixed power": {"kind": "power", "mix": 0.4},
}
"""Every γ family, and each modifier once."""

RESIDUALS: dict[str, dict[str, Any]] = {
    "student": {"kind": "student"},
    "sharp student": {"kind": "student", "temperature": 0.5},
    "student without label": {"kind": "student", "exclude_label": True},
    "uniform": {"kind": "uniform"},
    "uniform without label": {"kind": "uniform", "exclude_label": True},
    "reference": {"kind": "reference"},
    "previous": {"kind": "previous", "temperature": 2},
    "previous by entropy": {"kind": "previous", "adaptive": {}},
    "teacher": {"kind": "teacher"},
    "teacher top-3": {"kind": "teacher", "top_k": 3},
    "teacher top-3 dropped": {"kind": "teacher", "top_k": 3, "tail": "drop"},
    "teacher top-p to student": {"kind": "teacher", "top_p": 0.8, "tail": "student"},
    "teacher without label top-2 to uniform": {
        "kind": "teacher",
        "top_k": 2,
        "tail": "uniform",
        "exclude_label": True,
    },
    "geometric": {"kind": "geometric", "teacher": 0.4, "reference": 0.2},
    "sharp pool": {"kind": "geometric", "teacher": 0.8, "reference": 0.7, "temperature": 0.8},
    "mixture": {"kind": "mixture", "student": 0.3, "uniform": 0.1, "teacher": 0.6, "reference": 0},
}
"""Every residual family and modifier."""

EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"weight": {"scale": 2.5}},
    "trust": {"weight": {"kind": "trust"}},
    "gem": {"contrast": {"kind": "gem"}},
    "gem_logsigmoid": {"contrast": {"kind": "gem", "link": "logsigmoid", "coefficient": 0.5}},
    "reverse_kl": {"contrast": {"kind": "reverse_kl", "coefficient": 0.3}},
    "plateau": {"contrast": {"kind": "plateau", "coefficient": 0.6, "top_k": 4, "temperature": 2}},
    "entropy_bonus": {"contrast": {"kind": "entropy_bonus", "coefficient": 0.1}},
    "cross-entropy value": {"residual_loss": "ce"},
}
"""Signed terms, weights and value forms."""


def spec_of(gamma: str, residual: str = "student", extra: str = "plain") -> TargetSpec:
    """A member of the three tables as a design."""
    return TargetSpec.model_validate({"gamma": GAMMAS[gamma], "residual": RESIDUALS[residual], **EXTRAS[extra]})


def detached_rows(rows: TokenRows, real_vocab: int | None = None) -> Rows:
    """The valid tokens of `rows` as a design sees them."""
    valid = rows.labels >= 0
    labels = rows.labels[valid]

    def label(logits: Tensor) -> Tensor:
        return logits[valid].log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)

    return Rows(
        label_logprobs=label(rows.logits),
        teacher_label_logprobs=label(rows.teacher_logits),
        reference_label_logprobs=label(rows.reference_logits),
        old_logprobs=rows.old_logprobs[valid],
        critical=rows.critical[valid],
        sequence_ids=rows.sequence_ids[valid],
        logits=rows.logits[valid],
        logprobs=rows.logits[valid].log_softmax(-1),
        labels=labels,
        teacher_logprobs=rows.teacher_logits[valid].log_softmax(-1),
        reference_logprobs=rows.reference_logits[valid].log_softmax(-1),
        previous_logprobs=rows.previous_logits[valid].log_softmax(-1),
        real_vocab=real_vocab,
    )


def _worlds() -> list[Rows]:
    near, far, sharp = (random_rows(name, 18, 7, scale) for name, scale in (("n", 0.7), ("f", 2.5), ("s", 7.0)))
    return [detached_rows(rows) for rows in (near, far, _extreme(sharp.with_(reference_logits=2.5 * far.logits)))]


def _extreme(rows: TokenRows) -> TokenRows:
    """Short sequences from what all policies expect to what none does, and a previous policy far from the student.

    Without them a clipped score of sequences, or a clipped ratio to the previous policy, passes for a constant.
    """
    labels = rows.labels.clamp(min=0)[:, None]

    def lifted(logits: Tensor, *lifts: float) -> Tensor:
        lift = torch.tensor(lifts, dtype=logits.dtype).repeat_interleave(3)
        lift[5] = 30  # one sure token among hopeless ones
        return logits.scatter_add(1, labels, lift[:, None])

    far = torch.linspace(-9, 9, len(labels), dtype=rows.logits.dtype)
    return rows.with_(
        logits=lifted(rows.logits, 30, -40, 12, 8, 14, 4),
        teacher_logits=lifted(rows.teacher_logits, 30, -40, 8, 12, 15, 10),
        reference_logits=lifted(rows.reference_logits, 30, -40, 10, 14, 7, 9),
        old_logprobs=(rows.old_logprobs + far).clamp(max=0),
        sequence_ids=torch.arange(len(labels)) // 3,
    )


WORLDS = _worlds()
"""Rows on which two designs with different gradients differ."""


def training_direction(spec: TargetSpec) -> Tensor:
    """What `spec` does to the logits of whole batches, at three moments of the training, divided as it asks."""
    moments = (0.0, 0.35, 1.0) if spec.gamma.schedule else (0.0,)
    found = [_batch_direction(spec.at(moment), rows) for moment in moments for rows in WORLDS]
    return torch.cat(found * (3 // len(moments)))


def _batch_direction(spec: TargetSpec, rows: Rows) -> Tensor:
    gamma = trust(spec, rows)
    target = design(spec, rows, gamma)
    total = count(spec, gamma, target.weight).sum()
    return (target.logit_gradient() / total if total else target.logit_gradient()).flatten()


def equal_directions(first: Tensor, second: Tensor) -> bool:
    """Whether two fingerprints agree to rounding."""
    size = max(1.0, float(first.abs().max()))
    return bool((first - second).abs().max() < 1e-9 * size)


def _some(**knobs: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A few knobs, each drawn from the given values; left out now and then."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in knobs.items()})


SOURCES = ("student", "reference", "teacher")
FAMILY_KNOBS: dict[str, dict[str, tuple[Any, ...]]] = {
    "constant": {"value": (0, 0.5, 1)},
    "power": {"exponent": (0, 0.5, 1), "stopped": (True, False), "source": SOURCES},
    "threshold": {"low": (0.1, 0.3), "exponent": (0, 1), "source": SOURCES},
    "soft_threshold": {"low": (0.1, 0.3)},
    "anchored": {"lam": (0, 0.5, 1), "exponent": (0, 0.5, 1), "source": SOURCES},
    "bump": {"scale": (1, 2)},
    "shaping": {"lam": (0.1, 2)},
    "information": {"silent": (0.7, 0.93)},
    "margin": {"margin": (0, 1.5), "width": (0.8, 2)},
    "focal": {"exponent": (0, 1), "stopped": (True, False)},
    "tilt": {"beta": (0, 2), "source": SOURCES},
    "topk_entropy": {"k": (2, 5), "normalizer": ("log_k", 1, 2), "exponent": (0, 1, 2)},
    "concentration_power": {},
    "surprise_power": {"low": (0.1, 1), "high": (1, 2)},
    "mass": {"mass": (0.5, 0.9), "source": SOURCES},
    "likelihood_ratio": {"level": ("token", "sequence", "sum"), "cap": (1, 16)},
    "label_penalty": {
        "estimator": ("k2", "k3"),
        "lam": (0, 0.3),
        "exponent": (0, 1),
        "source": ("reference", "teacher", "previous"),
    },
    "tempered_penalty": {"lam": (0, 0.5), "exponent": (0, 1), "source": ("reference", "previous")},
    "proximal": {"eps": (0.1, 0.3)},
    "critical": {},
    "median_power": {"floor": (0, 0.3)},
    "sequence_outlier": {"strength": (0, 1), "exponent": (0, 1)},
    "tempered_likelihood": {
        "level": ("token", "sequence"),
        "temperature": ("median", 0.5, 2),
        "source": SOURCES,
    },
    "sigmoid_ratio": {"beta": (0.5, 1)},
    "gap": {"slope": (0, 0.5), "floor": (0, 0.8)},
    "diversity": {"lam": (0, 1), "theta": (0.6, 0.95)},
    "cayley_power": {},
    "median_cap": {"ratio": (0.5, 3)},
    "rank": {"by": ("loss", "excess"), "keep": ("lowest", "highest"), "share": (0.4, 0.7)},
}
RARELY_APART = ("surprise_power", "diversity")
"""Clipped, these differ from their neighbours on rows too rare to meet here."""
FLOORS = CEILINGS = (0.0, 0.2, 0.5, 1.0)
MIXES = (0.0, 0.5, 1.0)
MODIFIERS = _some(floor=FLOORS, ceiling=CEILINGS, mix=MIXES)
SCHEDULES = _some(direction=("from_one", "to_one"), shape=("linear", "cosine", "step"), start=(0, 0.2))


def grid() -> Iterator[Gamma]:
    """Every family at every combination of its knobs."""
    for kind, knobs in FAMILY_KNOBS.items():
        for values in product(*knobs.values()):
            yield TargetSpec.model_validate({"gamma": {"kind": kind, **dict(zip(knobs, values, strict=True))}}).gamma


def clipped(gamma: Gamma) -> Iterator[Gamma]:
    """`gamma` with every combination of the modifiers of the grid; as it is where that tells too little."""
    yield gamma
    if gamma.kind in RARELY_APART:
        return
    for floor, ceiling, mix in product((gamma.floor, *FLOORS), (None, *CEILINGS), MIXES[1:]):
        yield gamma.model_copy(update={"floor": floor, "ceiling": ceiling, "mix": mix})


@st.composite
def gammas(draw: st.DrawFn) -> dict[str, Any]:
    """Any family with knobs and modifiers on a coarse grid, so that coincidences between families are met."""
    kind = draw(st.sampled_from(sorted(FAMILY_KNOBS)))
    knobs = {name: draw(st.sampled_from(values)) for name, values in FAMILY_KNOBS[kind].items()}
    content: dict[str, Any] = {"kind": kind, **knobs}
    if kind not in RARELY_APART and draw(st.booleans()):
        content |= draw(MODIFIERS)
    still = kind == "constant" or content.get("ceiling") == 0 or content.get("beta") == 0
    if not still and draw(st.integers(0, 9)) == 0:
        content["schedule"] = draw(SCHEDULES)
    return content


@st.composite
def residuals(draw: st.DrawFn) -> dict[str, Any]:
    """Any residual family with knobs and modifiers on a coarse grid."""
    kind = draw(st.sampled_from(["student", "uniform", "reference", "previous", "teacher", "geometric", "mixture"]))
    content: dict[str, Any] = {"kind": kind, **draw(_some(temperature=(0.5, 1, 2), exclude_label=(False, True)))}
    if kind == "geometric":
        content |= draw(_some(teacher=(0, 0.5, 1), reference=(0, 0.5, 1)))
    if kind == "mixture":
        shares = {name: draw(st.sampled_from([0, 0.5, 1])) for name in ("student", "uniform", "reference", "teacher")}
        content |= shares | {"student": max(shares["student"], 0.5 * (shares["reference"] + shares["teacher"] == 0))}
    if kind != "uniform" and draw(st.integers(0, 4)) == 0:
        tail = draw(st.sampled_from(["renormalise", "student", "uniform", "drop"]))
        content |= {"top_k": draw(st.sampled_from([2, 3])), "tail": tail}
    return content


CONTRASTS = st.one_of(
    st.none(),
    st.none(),
    _some(coefficient=(0, 0.5, 1), beta=(0.5, 1, 2), link=("linear", "logsigmoid")).map(lambda k: {"kind": "gem", **k}),
    _some(coefficient=(0, 0.5), anchor=("reference", "teacher")).map(lambda k: {"kind": "reverse_kl", **k}),
    _some(coefficient=(0, 0.5)).map(lambda k: {"kind": "entropy_bonus", **k}),
    _some(coefficient=(0, 0.5), top_k=(1, 3), anchor=("reference", "teacher")).map(lambda k: {"kind": "plateau", **k}),
)


@st.composite
def specs(draw: st.DrawFn) -> TargetSpec:
    """Any design of the coarse grid."""
    gamma = draw(gammas())
    below_zero = TargetSpec.model_validate({"gamma": gamma}).gamma.ends()[0] < 0
    kinds = ["unit", "trust", *(["anchored"] if gamma["kind"] == "anchored" else [])]
    return TargetSpec.model_validate(
        {
            "gamma": gamma,
            "residual": draw(residuals()),
            "contrast": draw(CONTRASTS),
            "weight": {"kind": draw(st.sampled_from(kinds)), "scale": draw(st.sampled_from([0.5, 1, 2]))},
            "denominator": draw(st.sampled_from(["all", "kept"] if below_zero else ["all", "kept", "weights"])),
            "residual_loss": draw(st.sampled_from(["kl", "ce"])),
        }
    )
