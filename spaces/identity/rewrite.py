"""One way to write each design: rewriting rules that keep the gradient, applied until none of them changes anything.

The gradient of a token is A·(π − δ) + Σ_k B_k·(π − R_k) plus the signed term, with A = w·γ and B_k = w·(1 − γ)·share_k
over the distributions R_k that are not the student's own (which moves nothing). Two designs are equal when these are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from ..contrast import Gem
from ..gamma.bump import Bump
from ..gamma.confidence import Anchored, Constant, Power
from ..gamma.shape import TopkEntropy
from ..residual import Geometric, Mixture, Previous, Reference, Residual, Student, Teacher, Uniform
from ..target import PreviousPolicy, TargetSpec, Weight, drops_tokens
from .rewrite_gamma import constant, factored, is_binary, round_off, same_gamma

NAMED: dict[str, Residual] = {
    "student": Student(),
    "uniform": Uniform(),
    "reference": Reference(),
    "previous": Previous(),
    "teacher": Teacher(),
}
Model = TypeVar("Model", bound=BaseModel)
NOTHING = TargetSpec(gamma=Constant(value=0.0))
"""The design that teaches nothing."""


def canonical(spec: TargetSpec) -> TargetSpec:
    """The canonical way to write `spec`: equal results are equal gradients, and every known identity is applied.

    It is a name, not a design to train: its knobs may lie outside the validity that is asked of people.
    """
    current = _rounded(spec)
    while True:
        simpler = current
        for rule in RULES:
            simpler = rule(simpler)
        simpler = _rounded(simpler)
        if simpler == current:
            return current
        current = simpler


def trust_has_one_writing(spec: TargetSpec) -> TargetSpec:
    """The rules of γ; a mix of 0 settles an anchored weight too, at 1."""
    gamma, weight = spec.gamma, spec.weight
    anchored = weight.kind == "anchored" and isinstance(gamma, Anchored)
    if isinstance(gamma, Anchored) and anchored and (gamma.mix == 0 or gamma.lam == gamma.exponent == 0):
        spec, anchored = _weighted(spec, "unit", weight.scale), False
    return _with(spec, gamma=same_gamma(gamma, anchored), residual_loss="kl")


def anchored_weight_is_a_sum(spec: TargetSpec) -> TargetSpec:
    """w = p^α + λ: A = p^α and B = λ. Where only the label teaches, p^α is left; α = 0 makes constants of both."""
    gamma, scale = spec.gamma, spec.weight.scale
    if spec.weight.kind != "anchored" or not isinstance(gamma, Anchored):
        return spec
    low, high = gamma.ends()
    movable = gamma.schedule is None or (gamma.lam == 0 and low == 1)
    if movable and low == high and (low == 1 or _only_label(spec)):
        return _anchored_constant(spec, gamma, low)
    if gamma.schedule is not None or gamma.mix != 1:
        return spec
    if gamma.exponent == 0:
        return _weighted(spec, "unit", scale * (1 + gamma.lam), gamma=constant(gamma, 1 / (1 + gamma.lam)))
    if not gamma.modified and _only_label(spec):
        return _weighted(spec, "unit", scale, gamma=Power(exponent=gamma.exponent, source=gamma.source))
    return spec


def one_source_has_one_name(spec: TargetSpec) -> TargetSpec:
    """Temperatures are exponents; a pool or mixture of one source is that source; the student's own tail is itself."""
    residual: Residual = spec.residual
    match residual:
        case Uniform():
            residual = residual.model_copy(update={"temperature": 1.0, "adaptive": None})
        case Student(temperature=1.0, adaptive=None) if residual.tail == "student":
            residual = Student(exclude_label=residual.exclude_label)
        case Geometric():
            residual = _pooled(residual)
        case Mixture():
            residual = _mixed(residual)
    return _with(spec, residual=residual)


def idle_parts_go(spec: TargetSpec) -> TargetSpec:
    """A residual that no mass reaches or that is the student itself; a contrast that is zero; a policy nobody asks."""
    residual = spec.residual if spec.residual_acts else Student()
    asked = spec.needs & {"previous", "old_logprobs"} and spec.previous != PreviousPolicy()
    return _with(
        spec,
        residual=residual,
        contrast=spec.contrast if spec.contrast_acts else None,
        previous=spec.previous if asked else None,
    )


def labels_put_back_in(spec: TargetSpec) -> TargetSpec:
    """p·δ + (1 − p)·R₋y = R where p = R(y): trusting a source by its own p, and it for the rest, is that source.

    The student without the label is a re-weighting by (γ − p)/(1 − p): p^½ makes it p^½/(p^½ + 1), and a bump
    c·p(1 − p) makes it what an anchor of 1/c does.
    """
    gamma, residual = spec.gamma, spec.residual
    whole = residual.model_copy(update={"exclude_label": False})
    if spec.weight.kind != "unit" or not residual.exclude_label or whole.modified:
        return spec
    if isinstance(gamma, Power) and gamma == Power(source=gamma.source) and gamma.source == residual.kind:
        return _with(spec, gamma=Constant(value=0.0), residual=whole)
    if residual.kind != "student":
        return spec
    if gamma == Power(exponent=0.5):
        return _with(spec, gamma=Anchored(lam=1.0, exponent=0.5), residual=whole)
    if isinstance(gamma, Bump) and gamma == Bump(scale=gamma.scale) and spec.contrast is None:
        return _weighted(spec, "anchored", spec.weight.scale * gamma.scale, gamma=Anchored(lam=1 / gamma.scale))
    return spec


def denominators_that_count_alike(spec: TargetSpec) -> TargetSpec:
    """Kept tokens are all tokens unless a mask drops some; a sum of equal weights is a count; a scale cancels."""
    gamma, weight = spec.gamma, spec.weight
    if spec.denominator == "kept" and not drops_tokens(spec):
        return _with(spec, denominator="all")
    if spec.denominator != "weights":
        return spec
    if _only_label(spec):
        return _normalised_label(spec)
    spec = _weighted(spec, weight.kind, 1.0)
    if weight.kind == "trust":
        return _normalised_trust(spec)
    if weight.kind != "unit":
        return spec
    if spec.contrast is not None or spec.residual.student_share == 0:
        return _with(spec, denominator="all")
    if isinstance(gamma, Constant) and not gamma.modified:
        total = gamma.value + (1 - gamma.value) * (1 - spec.residual.student_share)
        return _weighted(spec, "unit", 1 / total, denominator="all")
    return spec


def student_share_is_weight(spec: TargetSpec) -> TargetSpec:
    """A mixture's student component moves nothing: B shrinks by its share. It goes where A/B still has a family."""
    residual, gamma, weight = spec.residual, spec.gamma, spec.weight
    share = residual.student_share
    if not spec.residual_acts or share == 0 or not isinstance(residual, Mixture):
        return spec
    others = residual.model_copy(update={"student": 0.0})
    if isinstance(gamma, Constant) and not gamma.modified:
        total = gamma.value + (1 - gamma.value) * (1 - share)
        return _scaled(spec, total, gamma=constant(gamma, gamma.value / total), residual=others)
    two_terms = weight.kind == "anchored" and spec.contrast is None and not gamma.modified
    if two_terms and isinstance(gamma, Anchored):
        return _with(spec, gamma=gamma.model_copy(update={"lam": gamma.lam * (1 - share)}), residual=others)
    return spec


def contrasts_that_are_residuals(spec: TargetSpec) -> TargetSpec:
    """c·(π − q) takes away from a residual q = π^(1/β): with B = 1 − γ − c left, one of the two goes."""
    gamma, residual, contrast = spec.gamma, spec.residual, spec.contrast
    if not isinstance(contrast, Gem) or contrast.link != "linear" or spec.weight.kind != "unit":
        return spec
    if residual != Student(temperature=contrast.beta) or not isinstance(gamma, Constant) or gamma.modified:
        return spec
    left = round_off(1 - gamma.value - contrast.coefficient)
    if left <= 0:
        kept = contrast.model_copy(update={"coefficient": -left})
        return _with(spec, residual=Student(), contrast=kept)
    total = gamma.value + left
    return _weighted(spec, "unit", spec.weight.scale * total, gamma=constant(gamma, gamma.value / total), contrast=None)


def constants_are_scales(spec: TargetSpec) -> TargetSpec:
    """Where only the label teaches, a constant factor of γ is a scale of the loss: c·SFT, a bump's scale, a normaliser.

    The contrast keeps its own size.
    """
    gamma, weight = spec.gamma, spec.weight
    if spec.residual_acts or weight.kind == "anchored":
        return spec
    factor, unit = factored(gamma)
    if factor == 0:
        return _nothing_from_the_label(spec)
    if weight.kind == "trust":
        kind = "unit" if spec.contrast is None or unit == Constant() else "trust"
        return _weighted(spec, kind, weight.scale * factor, gamma=unit)
    return _scaled(spec, factor, gamma=unit)


def _normalised_label(spec: TargetSpec) -> TargetSpec:
    """Σ(w·γ·loss)/Σ(w·γ): what is constant over a batch cancels; a mask is a count of the kept."""
    gamma = spec.gamma
    low, high = gamma.ends()
    weight_is_constant = not isinstance(gamma, Anchored) or gamma.exponent == 0 or spec.weight.kind != "anchored"
    if low == high > 0 and weight_is_constant:
        return TargetSpec()
    spec = _weighted(spec, spec.weight.kind, 1.0)
    if is_binary(gamma) and not gamma.modified:
        return _with(spec, denominator="kept")
    if isinstance(gamma, TopkEntropy) and not gamma.modified:
        return _with(spec, gamma=gamma.model_copy(update={"normalizer": 1.0}))
    return spec


def _normalised_trust(spec: TargetSpec) -> TargetSpec:
    """Σ(γ·(label + contrast))/Σγ: a γ that is constant over a batch cancels; a mask is a count of the kept."""
    low, high = spec.gamma.ends()
    if low == high > 0:
        return _weighted(spec, "unit", 1.0, gamma=Constant(), denominator="all")
    binary = is_binary(spec.gamma) and not spec.gamma.modified
    return _with(spec, denominator="kept") if binary else spec


def _anchored_constant(spec: TargetSpec, gamma: Anchored, value: float) -> TargetSpec:
    """γ = value with w = 1 + mix·(p^α + λ − 1) = total·(1 − m·(1 − p^α)), total = 1 + mix·λ and m = mix/total."""
    if value == 0:
        return NOTHING
    total = 1 + gamma.mix * gamma.lam
    power = Power(exponent=gamma.exponent, source=gamma.source)
    moved = power.model_copy(update={"mix": gamma.mix / total, "schedule": gamma.schedule})
    return _weighted(spec, "trust", spec.weight.scale * total * value, gamma=moved)


def _nothing_from_the_label(spec: TargetSpec) -> TargetSpec:
    """γ = 0 on the student's own mass: at most a contrast is left, with one scale."""
    if spec.contrast is None or spec.weight.kind == "trust":
        return NOTHING
    contrast = spec.contrast.model_copy(update={"coefficient": 1.0})
    return _weighted(spec, "unit", spec.weight.scale * spec.contrast.coefficient, contrast=contrast)


def _pooled(residual: Geometric) -> Residual:
    exponents = {name: exponent / residual.temperature for name, exponent in residual.exponents().items()}
    active = [name for name, exponent in exponents.items() if exponent]
    if len(active) > 1:
        return residual.model_copy(update={**exponents, "temperature": 1.0})
    (name,) = active
    if residual.adaptive is not None and exponents[name] != 1:  # τ depends on the distribution that it flattens
        return residual
    return _as(residual, name, temperature=1 / exponents[name])


def _mixed(residual: Mixture) -> Residual:
    shares = residual.shares()
    if len(shares) > 1 or (residual.truncated and "uniform" in shares):
        return residual.model_copy(update={name: shares.get(name, 0.0) for name in NAMED})
    (name,) = shares
    return _as(residual, name)


def _as(source: Residual, name: str, **update: Any) -> Residual:
    """The family `name` with the modifiers of `source`, and `update`."""
    modifiers = {field: getattr(source, field) for field in Residual.model_fields if field != "kind"}
    return NAMED[name].model_copy(update=modifiers | update)


def _only_label(spec: TargetSpec) -> bool:
    return not spec.residual_acts and spec.contrast is None


def _scaled(spec: TargetSpec, factor: float, **update: Any) -> TargetSpec:
    """`spec` with its loss times `factor` and its contrast as it was."""
    contrast = spec.contrast and spec.contrast.model_copy(update={"coefficient": spec.contrast.coefficient / factor})
    return _weighted(spec, spec.weight.kind, spec.weight.scale * factor, contrast=contrast, **update)


def _weighted(spec: TargetSpec, kind: str, scale: float, **update: Any) -> TargetSpec:
    return _with(spec, weight=Weight().model_copy(update={"kind": kind, "scale": scale}), **update)


def _with(spec: TargetSpec, **update: Any) -> TargetSpec:
    return spec.model_copy(update=update)


def _rounded(model: Model) -> Model:
    return model.model_copy(update={name: _rounded_value(value) for name, value in model})


def _rounded_value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _rounded(value)
    return round_off(value) if isinstance(value, float) else value


RULES: tuple[Callable[[TargetSpec], TargetSpec], ...] = (
    trust_has_one_writing,
    anchored_weight_is_a_sum,
    one_source_has_one_name,
    idle_parts_go,
    labels_put_back_in,
    denominators_that_count_alike,
    student_share_is_weight,
    contrasts_that_are_residuals,
    constants_are_scales,
)
