"""One way to write each design: rewriting rules that keep the gradient, applied until none of them changes anything.

The gradient of a token is A·(π − δ) + Σ_k B_k·(π − R_k) plus the signed term, with A = w·γ and B_k = w·(1 − γ)·share_k
over the distributions R_k that are not the student's own (which moves nothing). Two designs are equal when these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .contrast import Gem
from .gamma import Gamma
from .gamma_confidence import Anchored, Bump, Constant, Focal, Power, Threshold, Tilt
from .gamma_ratio import Critical, LikelihoodRatio
from .gamma_shape import Mass, SurprisePower, TopkEntropy
from .residual import Geometric, Mixture, Previous, Reference, Residual, Student, Teacher, Uniform
from .target import TargetSpec, Weight, drops_tokens

DIGITS = 12
"""Significant digits of a canonical number: two ways to compute the same knob may differ in the last bits."""

NAMED: dict[str, type[Residual]] = {
    "student": Student,
    "uniform": Uniform,
    "reference": Reference,
    "previous": Previous,
    "teacher": Teacher,
}


def canonical(spec: TargetSpec) -> TargetSpec:
    """The canonical way to write `spec`: equal results are equal gradients, and every known identity is applied."""
    current = _rounded(spec)
    while True:
        simpler = current
        for rule in RULES:
            simpler = rule(simpler)
        simpler = _rounded(simpler)
        if simpler == current:
            return current
        current = simpler


def values_train_nothing(spec: TargetSpec) -> TargetSpec:
    """The form of the logged value does not reach the gradient."""
    gamma = spec.gamma
    if isinstance(gamma, Power):
        gamma = gamma.model_copy(update={"stopped": True})
    return _with(spec, gamma=gamma, residual_loss="kl")


def gamma_has_one_family(spec: TargetSpec) -> TargetSpec:
    """p⁰ = 1 and its like; tilt(β) = anchored at λ = 1/(e^β − 1); a capped ratio's ceiling is its cap."""
    gamma = spec.gamma
    match gamma:
        case Power(exponent=0.0) | Focal(exponent=0.0) | TopkEntropy(exponent=0.0):
            return _with(spec, gamma=_constant(gamma, 1.0))
        case Anchored(lam=0.0) if spec.weight.kind != "anchored":
            return _with(spec, gamma=_constant(gamma, 1.0))
        case Tilt(beta=0.0):
            return _with(spec, gamma=_constant(gamma, 0.0))
        case Tilt():
            anchored = Anchored(lam=_round(1 / math.expm1(gamma.beta)), source=gamma.source)
            return _with(spec, gamma=_modified_as(gamma, anchored))
        case SurprisePower(low=1.0, high=1.0):
            return _with(spec, gamma=_modified_as(gamma, Power(source=gamma.source)))
        case LikelihoodRatio() if gamma.ceiling is not None and 0 < gamma.ceiling < gamma.cap:
            return _with(spec, gamma=gamma.model_copy(update={"cap": gamma.ceiling, "ceiling": None}))
        case _:
            return spec


def modifiers_act_or_go(spec: TargetSpec) -> TargetSpec:
    """A floor below the family's range or a ceiling above it does nothing; beyond its other end it makes a constant."""
    gamma = spec.gamma
    low, high = gamma.bounds()
    if isinstance(gamma, Constant) or gamma.mix == 0:
        return _with(spec, gamma=_constant(gamma, low))
    if spec.weight.kind != "anchored":  # whose rule needs its family
        if gamma.ceiling is not None and gamma.ceiling <= min(1, max(gamma.floor, low)):
            return _with(spec, gamma=_constant(gamma, gamma.ceiling))
        if gamma.floor >= high:
            return _with(spec, gamma=_constant(gamma, gamma.floor))
    floor = 0.0 if gamma.floor <= low else gamma.floor
    ceiling = None if gamma.ceiling is None or gamma.ceiling >= high else gamma.ceiling
    return _with(spec, gamma=gamma.model_copy(update={"floor": floor, "ceiling": ceiling}))


def masks_have_two_values(spec: TargetSpec) -> TargetSpec:
    """A 0/1 mask with floor, ceiling and mix takes two values: write them as floor and ceiling."""
    gamma = spec.gamma
    if not _is_binary(gamma) or gamma.mix == 1 or gamma.schedule is not None:
        return spec
    top = 1.0 if gamma.ceiling is None else gamma.ceiling
    low, high = (1 - gamma.mix * (1 - value) for value in (gamma.floor, top))
    return _with(spec, gamma=gamma.model_copy(update={"floor": low, "ceiling": high if high < 1 else None, "mix": 1.0}))


def anchored_weight_is_a_sum(spec: TargetSpec) -> TargetSpec:
    """w = p^α + λ: A = p^α and B = λ. At λ = 0, and where only the label teaches, p^α is left; α = 0 is constant."""
    gamma, scale = spec.gamma, spec.weight.scale
    if (
        spec.weight.kind != "anchored"
        or not isinstance(gamma, Anchored)
        or gamma.schedule is not None
        or gamma.mix != 1
    ):
        return spec
    if gamma.exponent == 0:
        constant = _constant(gamma, 1 / (1 + gamma.lam))
        return _with(spec, gamma=constant, weight=Weight(scale=scale * (1 + gamma.lam)))
    power = Power(exponent=gamma.exponent, source=gamma.source)
    if gamma.lam == 0 and not gamma.modified:
        return _with(spec, gamma=power, weight=Weight(kind="trust", scale=scale))
    if not gamma.modified and _only_label(spec):
        return _with(spec, gamma=power, weight=Weight(scale=scale))
    return spec


def one_source_has_one_name(spec: TargetSpec) -> TargetSpec:
    """Temperatures are exponents; a pool or mixture of one source is that source; the student's own tail is itself."""
    residual: Residual = spec.residual
    match residual:
        case Uniform():
            residual = residual.model_copy(update={"temperature": 1.0})
        case Student(temperature=1.0) if residual.tail == "student":
            residual = Student(exclude_label=residual.exclude_label)
        case Geometric():
            residual = _pooled(residual)
        case Mixture():
            residual = _mixed(residual)
    return _with(spec, residual=residual)


def idle_residuals_go(spec: TargetSpec) -> TargetSpec:
    """Mass that no token gives away, or that goes to the student itself, has no residual.

    DFT with the label excluded from the student's residual is p·δ + (1 − p)·π₋y = π: nothing is taught.
    """
    if not spec.residual_acts:
        return _with(spec, residual=Student())
    gamma, residual = spec.gamma, spec.residual
    itself = gamma == Power() and residual == Student(exclude_label=True)
    return _with(spec, gamma=Constant(value=0.0), residual=Student()) if itself else spec


def idle_contrasts_go(spec: TargetSpec) -> TargetSpec:
    """A coefficient of 0; GEM's linear form at β = 1, where q = π."""
    contrast = spec.contrast
    idle = contrast is not None and (
        contrast.coefficient == 0 or (isinstance(contrast, Gem) and contrast.link == "linear" and contrast.beta == 1)
    )
    return _with(spec, contrast=None) if idle else spec


def student_share_is_weight(spec: TargetSpec) -> TargetSpec:
    """A mixture's student component moves nothing: B shrinks by its share. It goes where A/B still has a family."""
    residual, gamma, weight = spec.residual, spec.gamma, spec.weight
    share = residual.student_share
    if not spec.residual_acts or share == 0 or not isinstance(residual, Mixture):
        return spec
    others = residual.model_copy(update={"student": 0.0})
    if isinstance(gamma, Constant) and not gamma.modified:
        total = gamma.value + (1 - gamma.value) * (1 - share)
        return _scaled(spec, total, gamma=Constant(value=_round(gamma.value / total)), residual=others)
    if weight.kind == "anchored" and isinstance(gamma, Anchored) and not gamma.modified:
        return _with(spec, gamma=gamma.model_copy(update={"lam": gamma.lam * (1 - share)}), residual=others)
    return spec


def constants_are_scales(spec: TargetSpec) -> TargetSpec:
    """Where only the label teaches, a constant factor of γ is a scale of the loss: c·SFT, a bump's scale, a normaliser.

    The contrast keeps its own size.
    """
    gamma, weight = spec.gamma, spec.weight
    if spec.residual_acts or weight.kind == "anchored":
        return spec
    factor, unit = _factored(gamma)
    if weight.kind == "trust":
        if spec.contrast is None or isinstance(gamma, Constant):
            return _with(spec, gamma=unit, weight=Weight(scale=weight.scale * factor))
        return _with(spec, gamma=unit, weight=Weight(kind="trust", scale=weight.scale * factor))
    if factor == 0:
        return _nothing_from_the_label(spec)
    return _scaled(spec, factor, gamma=unit)


def denominators_that_count_alike(spec: TargetSpec) -> TargetSpec:
    """Kept tokens are all tokens unless a mask drops some; a sum of equal weights is a count."""
    gamma, weight = spec.gamma, spec.weight
    if spec.denominator == "kept" and not drops_tokens(spec):
        return _with(spec, denominator="all")
    if spec.denominator != "weights":
        return spec
    spec = _with(spec, weight=weight.model_copy(update={"scale": 1.0}))
    if weight.kind == "unit" and isinstance(gamma, Constant) and not gamma.modified:
        total = gamma.value + (1 - gamma.value) * (1 - _share(spec))
        return _with(spec, denominator="all", weight=Weight(scale=1 / total if total else 1.0))
    if weight.kind == "unit" and spec.residual_acts and _share(spec) == 0:
        return _with(spec, denominator="all")
    if _only_label(spec) and _is_binary(gamma) and not gamma.modified:
        return _with(spec, denominator="kept")
    return spec


def _nothing_from_the_label(spec: TargetSpec) -> TargetSpec:
    """γ = 0 on the student's own mass: only a contrast is left, with one scale."""
    if spec.contrast is None:
        return TargetSpec(gamma=Constant(value=0.0))
    contrast = spec.contrast.model_copy(update={"coefficient": 1.0})
    scale = spec.weight.scale * spec.contrast.coefficient
    return _with(spec, contrast=contrast, weight=Weight(scale=scale))


def _factored(gamma: Gamma) -> tuple[float, Gamma]:
    """γ = factor·unit with the factor as large as it gets; (1, γ) when there is none."""
    if gamma.schedule is not None or gamma.mix != 1:
        return 1.0, gamma
    if isinstance(gamma, Constant):
        return gamma.value, Constant() if gamma.value else gamma
    if _is_binary(gamma) and gamma.ceiling is not None:
        floor = gamma.floor / gamma.ceiling
        return gamma.ceiling, gamma.model_copy(update={"floor": floor, "ceiling": None})
    if isinstance(gamma, Bump) and not gamma.modified:
        return gamma.scale, gamma.model_copy(update={"scale": 1.0})
    if isinstance(gamma, TopkEntropy) and not gamma.modified and gamma.normalizer != "log_k":
        return gamma.normalizer**-gamma.exponent, gamma.model_copy(update={"normalizer": 1.0})
    return 1.0, gamma


def _pooled(residual: Geometric) -> Residual:
    exponents = {name: exponent / residual.temperature for name, exponent in residual.exponents().items()}
    active = [name for name, exponent in exponents.items() if exponent]
    if len(active) > 1:
        return residual.model_copy(update={**exponents, "temperature": 1.0})
    (name,) = active
    return _as(residual, NAMED[name], temperature=1 / exponents[name])


def _mixed(residual: Mixture) -> Residual:
    shares = residual.shares()
    if len(shares) > 1 or (residual.truncated and "uniform" in shares):
        return residual.model_copy(update={name: shares.get(name, 0.0) for name in NAMED})
    (name,) = shares
    return _as(residual, NAMED[name])


def _as(source: Residual, family: type[Residual], **update: Any) -> Residual:
    """A member of `family` with the modifiers of `source`, and `update`."""
    modifiers = {name: getattr(source, name) for name in Residual.model_fields if name != "kind"}
    return family.model_validate(modifiers | update)


def _modified_as(source: Gamma, target: Gamma) -> Gamma:
    """`target` with the modifiers of `source`."""
    return target.model_copy(update={name: getattr(source, name) for name in Gamma.model_fields if name != "kind"})


def _constant(gamma: Gamma, value: float) -> Gamma:
    """The constant that `gamma` is when its family is `value`, its modifiers worked in and its schedule kept."""
    value = max(gamma.floor, value)
    value = value if gamma.ceiling is None else min(gamma.ceiling, value)
    mixed = _round(1 - gamma.mix * (1 - value))
    return Constant() if mixed == 1 else Constant(value=mixed, schedule=gamma.schedule)


def _is_binary(gamma: Gamma) -> bool:
    """Whether the unmodified family is 0 or 1 everywhere."""
    return isinstance(gamma, Critical | Mass) or (isinstance(gamma, Threshold) and gamma.exponent == 0)


def _share(spec: TargetSpec) -> float:
    return spec.residual.student_share if spec.residual_acts else 1.0


def _only_label(spec: TargetSpec) -> bool:
    return not spec.residual_acts and spec.contrast is None


def _scaled(spec: TargetSpec, factor: float, **update: Any) -> TargetSpec:
    """`spec` with its loss times `factor` and its contrast as it was."""
    weight = spec.weight.model_copy(update={"scale": spec.weight.scale * factor})
    contrast = spec.contrast and spec.contrast.model_copy(update={"coefficient": spec.contrast.coefficient / factor})
    return _with(spec, weight=weight, contrast=contrast, **update)


def _with(spec: TargetSpec, **update: Any) -> TargetSpec:
    return spec.model_copy(update=update)


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS - 1}e}")


def _rounded(spec: TargetSpec) -> TargetSpec:
    return TargetSpec.model_validate(_rounded_content(spec.model_dump()))


def _rounded_content(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _rounded_content(value) for key, value in content.items()}
    return _round(content) if isinstance(content, float) else content


RULES: tuple[Callable[[TargetSpec], TargetSpec], ...] = (
    values_train_nothing,
    gamma_has_one_family,
    modifiers_act_or_go,
    masks_have_two_values,
    anchored_weight_is_a_sum,
    one_source_has_one_name,
    idle_contrasts_go,
    idle_residuals_go,
    denominators_that_count_alike,
    student_share_is_weight,
    constants_are_scales,
)
