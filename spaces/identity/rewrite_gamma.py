"""Rewriting rules of γ alone: families that coincide at some knobs, modifiers that cannot act, factors."""

from __future__ import annotations

import math

from ..gamma.base import Gamma
from ..gamma.batch import Rank, SequenceOutlier, TemperedLikelihood
from ..gamma.bump import Bump
from ..gamma.confidence import Anchored, Constant, Power, Threshold, Tilt
from ..gamma.ratio import Critical, LikelihoodRatio, Penalty
from ..gamma.shape import Mass, SurprisePower, TopkEntropy

DIGITS = 12
"""Significant digits of a canonical number: two ways to compute the same knob may differ in the last bits."""

CEILING_LIMIT = 100.0
"""No ceiling is larger."""


def round_off(value: float) -> float:
    """`value` to DIGITS significant digits."""
    return float(f"{value:.{DIGITS - 1}e}")


def same_gamma(gamma: Gamma, anchored_weight: bool) -> Gamma:
    """γ written in its simplest family; one whose outer weight is p^α + λ must stay in its own."""
    for rule in (_schedule, _family, _modifiers) if not anchored_weight else (_schedule, _idle_modifiers):
        gamma = rule(gamma)
    return _two_valued(gamma)


def constant(gamma: Gamma, value: float) -> Gamma:
    """The constant that `gamma` is when its family is `value`, its modifiers worked in and its schedule kept."""
    value = max(floor_of(gamma), value)
    value = value if gamma.ceiling is None else min(gamma.ceiling, value)
    mixed = round_off(1 - gamma.mix * (1 - value))
    return Constant() if mixed == 1 else Constant().model_copy(update={"value": mixed, "schedule": gamma.schedule})


def floor_of(gamma: Gamma) -> float:
    """The floor of γ; −∞ where there is none."""
    return -math.inf if gamma.floor is None else gamma.floor


def factored(gamma: Gamma) -> tuple[float, Gamma]:
    """γ = factor·unit with a unit that no other factor could leave; (1, γ) when there is none."""
    if gamma.schedule is not None or gamma.mix != 1:
        return 1.0, gamma
    match gamma:
        case Constant():
            return gamma.value, Constant() if gamma.value else gamma
        case Bump() if not gamma.modified:
            return gamma.scale, gamma.model_copy(update={"scale": 1.0})
        case TopkEntropy(normalizer=float()) if gamma.floor == 0:
            return _entropy_factored(gamma)
        case _ if is_binary(gamma) and gamma.ceiling is not None:
            return gamma.ceiling, gamma.model_copy(update={"floor": floor_of(gamma) / gamma.ceiling, "ceiling": None})
        case _:
            return 1.0, gamma


def is_binary(gamma: Gamma) -> bool:
    """Whether the unmodified family is 0 or 1 everywhere."""
    return isinstance(gamma, Critical | Mass | Rank) or (isinstance(gamma, Threshold) and gamma.exponent == 0)


def _schedule(gamma: Gamma) -> Gamma:
    """A switch has no end; one at the start is none, or never comes."""
    schedule = gamma.schedule
    if schedule is None or schedule.shape != "step":
        return gamma
    if schedule.start > 0:
        return gamma.model_copy(update={"schedule": schedule.model_copy(update={"end": 1.0})})
    return gamma.model_copy(update={"schedule": None, "mix": gamma.mix if schedule.direction == "from_one" else 0.0})


def _family(gamma: Gamma) -> Gamma:
    """p⁰ = 1 and its like; tilt(β) = anchored at λ = 1/(e^β − 1); a ratio's ceiling is its cap."""
    low, high = gamma.bounds()
    if low == high:
        return constant(gamma, low)
    match gamma:
        case Tilt() if gamma.beta > 1e-9:
            anchored = Anchored().model_copy(update={"lam": 1 / math.expm1(gamma.beta), "source": gamma.source})
            return _modified_as(gamma, anchored)
        case Threshold(low=float()):
            return _plain_threshold(gamma)
        case TopkEntropy(k=2, normalizer="log_k"):  # no vocabulary has fewer than 2 entries
            return gamma.model_copy(update={"normalizer": math.log(2)})
        case LikelihoodRatio() if gamma.ceiling is not None and floor_of(gamma) < gamma.ceiling < gamma.cap:
            return gamma.model_copy(update={"cap": gamma.ceiling, "ceiling": None})
        case Power(stopped=False):  # only the logged value
            return gamma.model_copy(update={"stopped": True})
        case _:
            return _power(gamma)


def _power(gamma: Gamma) -> Gamma:
    """Families that are a power of p at some of their knobs."""
    match gamma:
        case SurprisePower(low=1.0, high=1.0):
            power = Power(source=gamma.source)
        case SequenceOutlier(strength=0.0):
            power = Power(exponent=gamma.exponent, source=gamma.source)
        case TemperedLikelihood(level="token", temperature=float()):
            power = Power(source=gamma.source).model_copy(update={"exponent": 1 / float(gamma.temperature)})
        case Penalty(lam=0.0):
            power = Power(exponent=gamma.exponent)
        case _:
            return gamma
    return _modified_as(gamma, power)


def _modifiers(gamma: Gamma) -> Gamma:
    """Modifiers that leave nothing of the family make a constant."""
    low, high = gamma.bounds()
    if gamma.mix == 0:
        return Constant()
    if isinstance(gamma, Constant):
        return constant(gamma, gamma.value)
    floor = floor_of(gamma)
    if gamma.ceiling is not None and gamma.ceiling <= min(1, max(floor, low)):
        return constant(gamma, gamma.ceiling)
    return constant(gamma, floor) if floor >= high else _idle_modifiers(gamma)


def _idle_modifiers(gamma: Gamma) -> Gamma:
    """A floor below the family's range or a ceiling above it does nothing."""
    low, high = gamma.bounds()
    floor = (0.0 if low >= 0 else None) if floor_of(gamma) <= low else gamma.floor
    ceiling = None if gamma.ceiling is None or gamma.ceiling >= high else gamma.ceiling
    return gamma.model_copy(update={"floor": floor, "ceiling": ceiling})


def _two_valued(gamma: Gamma) -> Gamma:
    """A 0/1 mask with floor, ceiling and mix takes two values: write them as floor and ceiling."""
    if not is_binary(gamma) or gamma.mix == 1 or gamma.schedule is not None:
        return gamma
    top = 1.0 if gamma.ceiling is None else gamma.ceiling
    low, high = (1 - gamma.mix * (1 - value) for value in (floor_of(gamma), top))
    return gamma.model_copy(update={"floor": low, "ceiling": high if high < 1 else None, "mix": 1.0})


def _plain_threshold(gamma: Threshold) -> Gamma:
    """p^α·1[low < p < high]: the floor may hide the lower end, the ceiling the power."""
    if gamma.low == 1 and not gamma.inclusive:
        return constant(gamma, 0.0)
    if gamma.exponent == 0:
        return gamma
    edge = (gamma.low or 0.0) ** gamma.exponent
    if gamma.high is None and floor_of(gamma) >= edge:
        return _modified_as(gamma, Power(exponent=gamma.exponent, source=gamma.source))
    if gamma.ceiling is not None and gamma.ceiling <= edge:
        return gamma.model_copy(update={"exponent": 0.0})
    return gamma


def _entropy_factored(gamma: TopkEntropy) -> tuple[float, Gamma]:
    """min(c, (H/n)^e) = n^−e·min(c·n^e, H^e)."""
    size = float(gamma.normalizer) ** gamma.exponent
    ceiling = None if gamma.ceiling is None else gamma.ceiling * size
    if ceiling is not None and ceiling > CEILING_LIMIT:
        return 1.0, gamma
    return 1 / size, gamma.model_copy(update={"normalizer": 1.0, "ceiling": ceiling})


def _modified_as(source: Gamma, target: Gamma) -> Gamma:
    """`target` with the modifiers of `source`."""
    return target.model_copy(update={name: getattr(source, name) for name in Gamma.model_fields if name != "kind"})
