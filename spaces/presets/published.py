"""The table of published objectives: how to build each, its knobs with their published values, and its source.

Where papers and code disagree is in docs/objectives.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..contrast import Gem
from ..gamma.confidence import Anchored, Constant, Power, Threshold
from ..gamma.ratio import Critical, LikelihoodRatio, Proximal
from ..gamma.shape import TopkEntropy
from ..residual import Geometric, Reference, Teacher, Uniform
from ..target import TargetSpec, Weight


@dataclass(frozen=True)
class Knob:
    """A number that the authors of an objective chose, and where it may lie; whole when `default` is an int."""

    default: float
    low: float
    high: float
    recommended: float | None = None
    """What the authors advise, where their code's default is another."""

    def check(self, name: str, value: float, preset: str) -> float:
        """`value`, or a ValueError when it is out of validity."""
        whole = isinstance(self.default, int)
        number = isinstance(value, int | float) and not isinstance(value, bool) and (not whole or value == int(value))
        if not number or not self.low <= value <= self.high:
            raise ValueError(
                f"`{name}` must be a {'whole ' if whole else ''}number in [{self.low:g}, {self.high:g}], but got "
                f"{name}={value!r} (preset {preset!r}); the published value is {self.default:g}"
            )
        return value


@dataclass(frozen=True)
class Preset:
    """A published objective: how to build it, and how to say it."""

    title: str
    build: Callable[..., TargetSpec]
    gamma: str
    residual: str
    weight: str
    loss: str
    source: str
    """arXiv id, or where the objective is from."""
    knobs: dict[str, Knob] = field(default_factory=dict)
    read: str = "2026-11-22"
    """Day on which the source was last read."""


def divergence_to(gamma: Any, residual: Any, weight: str = "unit") -> TargetSpec:
    return TargetSpec(gamma=gamma, residual=residual, weight=Weight.model_validate({"kind": weight}))


def cross_entropy_to(gamma: Any, residual: Any) -> TargetSpec:
    return TargetSpec(gamma=gamma, residual=residual, residual_loss="ce")


def label_only(gamma: Any) -> TargetSpec:
    return TargetSpec(gamma=gamma)


def signed(contrast: Any) -> TargetSpec:
    return TargetSpec(contrast=contrast)


OBJECTIVES: dict[str, Preset] = {
    "sft": Preset("Supervised fine-tuning", TargetSpec, "1", "student", "1", "−log p", "cross-entropy"),
    "dft": Preset(
        "Dynamic fine-tuning", lambda: label_only(Power()), "p", "student", "1", "−sg(p)·log p", "2508.05629"
    ),
    "beyond_log": Preset(
        "Beyond log-likelihood",
        lambda alpha: label_only(Power(exponent=alpha, stopped=False)),
        "p^alpha",
        "student",
        "1",
        "(1 − p^alpha)/alpha",
        "2510.00526",
        {"alpha": Knob(0.5, 0, 32)},
    ),
    "profit": Preset(
        "ProFit",
        lambda tau: label_only(Threshold(low=tau)),
        "1[p > tau]",
        "student",
        "1",
        "−1[sg(p) > tau]·log p",
        "2601.09195",
        {"tau": Knob(0.1, 0, 1)},
    ),
    "eaft": Preset(
        "Entropy-adaptive fine-tuning",
        lambda k: label_only(TopkEntropy(k=int(k))),
        "H(top-k of π)/ln k",
        "student",
        "1",
        "−sg(H/ln k)·log p",
        "2601.02151",
        {"k": Knob(20, 2, 4096)},
    ),
    "iw_sft": Preset(
        "Importance-weighted SFT",
        lambda cap: label_only(LikelihoodRatio(cap=cap)),
        "min(cap, exp(mean over the sequence of log π/π_ref))",
        "student",
        "1",
        "−sg(γ)·log p",
        "2507.12856",
        {"cap": Knob(16.0, 1e-3, 100)},
    ),
    "cft": Preset(
        "Critical token fine-tuning", lambda: label_only(Critical()), "c", "student", "1", "−c·log p", "2510.10974"
    ),
    "label_smoothing": Preset(
        "Label smoothing",
        lambda lam: cross_entropy_to(Constant(value=1 - lam), Uniform()),
        "1 − lam",
        "uniform",
        "1",
        "−(1 − lam)·log p − lam/V·Σ log π",
        "1512.00567",
        {"lam": Knob(0.1, 0, 1)},
    ),
    "sft_kl": Preset(
        "SFT + KL to the reference",
        lambda lam: divergence_to(Anchored(lam=lam, exponent=0), Reference(), "anchored"),
        "1/(1 + lam)",
        "reference",
        "1 + lam",
        "−log p + lam·KL(π_ref‖π)",
        "2509.04259",
        {"lam": Knob(0.1, 0, 1e3)},
    ),
    "asft": Preset(
        "Anchored SFT",
        lambda lam: divergence_to(Anchored(lam=lam), Reference(), "anchored"),
        "p/(p + lam)",
        "reference",
        "p + lam",
        "−sg(p)·log p + lam·KL(π_ref‖π)",
        "2509.23753",
        {"lam": Knob(0.1, 0, 1e3, recommended=0.03)},
        read="2026-11-28",
    ),
    "psft": Preset(
        "Proximal SFT",
        lambda eps: label_only(Proximal(eps=eps)),
        "r·1[r < 1 + eps], r = p/π_old(y)",
        "student",
        "1",
        "−min(r, 1 + eps)",
        "2508.17784",
        {"eps": Knob(0.28, 1e-3, 10)},
    ),
    "gem": Preset(
        "GEM, linear",
        lambda beta: signed(Gem(beta=beta)),
        "1",
        "+π − π^(1/beta)",
        "1",
        "CE(δ, π) − CE(sg π^(1/beta), π)",
        "2408.16673",
        {"beta": Knob(0.7, 0.05, 20)},
    ),
    "gem_logsigmoid": Preset(
        "GEM, log-sigmoid",
        lambda beta: signed(Gem(beta=beta, link="logsigmoid")),
        "W = Σr",
        "+π − r, r = π^(1/beta)·σ(0.01(z − z_y))",
        "1",
        "−Σ r·(log p − log π)",
        "2408.16673",
        {"beta": Knob(0.7, 0.05, 20)},
    ),
    "kd": Preset(
        "Knowledge distillation",
        lambda: cross_entropy_to(Constant(value=0.0), Teacher()),
        "0",
        "teacher",
        "1",
        "−Σ π_T·log π",
        "1503.02531",
    ),
    "hybrid_kd": Preset(
        "SFT + distillation",
        lambda lam: divergence_to(Constant(value=1 - lam), Teacher()),
        "1 − lam",
        "teacher",
        "1",
        "−(1 − lam)·log p + lam·KL(π_T‖π)",
        "1503.02531",
        {"lam": Knob(0.5, 0, 1)},
    ),
    "target_sft": Preset(
        "Target-SFT",
        lambda eta: cross_entropy_to(Power(), Geometric(teacher=eta)),
        "p",
        "student^(1−eta)·teacher^eta",
        "1",
        "−Σ Q·log π",
        "2606.11189",
        {"eta": Knob(0.5, 0, 1)},
    ),
}
