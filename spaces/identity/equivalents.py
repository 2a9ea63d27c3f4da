"""Other ways to write a design that keep its gradient, to find a published objective in the families of a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from ..contrast import Contrast, EntropyBonus, Gem, ReverseKl
from ..gamma.base import Gamma
from ..gamma.confidence import Anchored, Constant, Power
from ..residual import Geometric, Mixture, Previous, Reference, Residual, Student, Teacher, Uniform
from ..target import TargetSpec, Weight
from .rewrite import canonical


def writings(spec: TargetSpec, families: Mapping[str, tuple[str, ...]]) -> Iterator[TargetSpec]:
    """`spec` itself first, then candidates in the given families of gamma, residual, contrast and weight.

    A candidate is a guess: whoever uses it compares canonical ids.
    """
    yield spec
    for form in (spec, canonical(spec)):
        gammas = [each for each in _gammas(form.gamma) if each.kind in families["gamma"]]
        residuals = [each for each in _residuals(form) if each.kind in families["residual"]]
        contrasts = [each for each in (form.contrast, *_idle_contrasts()) if _kind(each) in families["contrast"]]
        weights = [form.weight, Weight(), *([Weight(kind="anchored")] if "anchored" in families["weight"] else [])]
        for gamma, residual, contrast, weight in product(gammas, residuals, contrasts, weights):
            if weight.kind != "anchored" or isinstance(gamma, Anchored):
                update = {"gamma": gamma, "residual": residual, "contrast": contrast, "weight": weight}
                yield form.model_copy(update=update)


def _gammas(gamma: Gamma) -> Iterator[Gamma]:
    yield gamma
    if isinstance(gamma, Power) and not gamma.modified and gamma.exponent > 0:
        yield Anchored(lam=0.0, exponent=gamma.exponent, source=gamma.source)
    if isinstance(gamma, Constant) and not gamma.modified:
        ceiling = None if gamma.value == 1 else gamma.value
        yield Power(exponent=0.0, ceiling=ceiling)
        if gamma.value > 0:
            yield Anchored(exponent=0.0, lam=1 / gamma.value - 1)


def _residuals(spec: TargetSpec) -> Iterator[Residual]:
    residual = spec.residual
    yield residual
    if isinstance(residual, Student | Reference | Teacher):
        teacher, reference = float(isinstance(residual, Teacher)), float(isinstance(residual, Reference))
        yield Geometric(teacher=teacher, reference=reference, temperature=residual.temperature)
    if isinstance(residual, Student | Reference | Teacher | Previous | Uniform) and not residual.modified:
        yield Mixture.model_validate({"reference": 0.0, "teacher": 0.0, residual.kind: 1.0})
    if not spec.residual_acts:  # any will do, since no mass reaches it
        yield from (Student(), Uniform(), Reference(), Teacher(), Previous())


def _idle_contrasts() -> tuple[Contrast, ...]:
    return Gem(beta=1.0), Gem(coefficient=0.0), ReverseKl(coefficient=0.0), EntropyBonus(coefficient=0.0)


def _kind(contrast: Contrast | None) -> str:
    return "none" if contrast is None else contrast.kind
