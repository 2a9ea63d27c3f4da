"""Equal ids exactly when gradients are equal."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from target_specs import WORLDS, clipped, equal_directions, grid, specs, training_direction
from torch import Tensor

from qtarget.spaces import TargetSpec, presets
from qtarget.spaces.gamma.base import Gamma
from qtarget.spaces.identity import canonical, canonical_id, canonical_json, content_id, derive_seed, spec_id
from qtarget.spaces.identity.rewrite_gamma import same_gamma
from qtarget.spaces.presets import get

DFT: dict[str, Any] = {"gamma": {"kind": "power"}}
SFT: dict[str, Any] = {}
SAME: dict[str, list[Any]] = {
    "DFT": [
        get("dft"),
        get("target_sft", eta=0),
        get("beyond_log", alpha=1),
        get("asft", lam=0),
        {"gamma": {"kind": "anchored", "lam": 0}, "weight": {"kind": "anchored"}},
        {"gamma": {"kind": "power"}, "residual": {"kind": "teacher"}, "weight": {"kind": "trust"}},
        {"gamma": {"kind": "power", "floor": 0, "ceiling": 1}},
        {"gamma": {"kind": "surprise_power", "low": 1, "high": 1}},
        {"gamma": {"kind": "power"}, "residual": {"kind": "student", "top_k": 4, "tail": "student"}},
        {"gamma": {"kind": "power"}, "residual": {"kind": "mixture", "student": 1, "reference": 0, "teacher": 0}},
        get("asft_k3", lam=0),
        get("cadft", beta=0),
        {"gamma": {"kind": "tempered_likelihood", "level": "token", "temperature": 1}},
        {"gamma": {"kind": "power", "schedule": {"shape": "step"}}},
        {"gamma": {"kind": "power"}, "previous": {"every": 3, "decay": 0.5}},
    ],
    "SFT": [
        get("sft"),
        get("gem", beta=1),
        get("beyond_log", alpha=0),
        get("sft_kl", lam=0),
        get("label_smoothing", lam=0),
        get("hybrid_kd", lam=0),
        get("focal", power=0),
        get("sft_entropy", lam=0),
        {"gamma": {"kind": "power", "floor": 1}},
        {"gamma": {"kind": "power", "mix": 0}, "residual": {"kind": "teacher"}},
        {"gamma": {"kind": "constant", "value": 0.25}, "weight": {"scale": 4}},
        {"gamma": {"kind": "constant", "value": 0.25}, "denominator": "weights"},
        {"gamma": {"kind": "constant", "schedule": {"direction": "from_one"}}, "denominator": "kept"},
        get("sft_k3", lam=0),
        get("lp_sft", mu=0),
        get("curiosft", alpha=0),
        {"contrast": {"kind": "plateau", "top_k": 1}},
        {"gamma": {"kind": "power", "schedule": {"shape": "step", "direction": "to_one"}}},
    ],
    "SFT + KL": [
        get("sft_kl", lam=0.25),
        {"gamma": {"kind": "constant", "value": 0.8}, "residual": {"kind": "reference"}, "weight": {"scale": 1.25}},
        {
            "gamma": {"kind": "constant", "value": 0.8},
            "residual": {"kind": "geometric", "reference": 2, "teacher": 0, "temperature": 2},
            "weight": {"scale": 1.25},
        },
        {
            "gamma": {"kind": "anchored", "lam": 0.5, "exponent": 0},
            "weight": {"kind": "anchored"},
            "residual": {"kind": "mixture", "student": 1, "reference": 1, "teacher": 0},
        },
    ],
    "half a power": [
        get("beyond_log", alpha=0.5),
        {"gamma": {"kind": "tempered_likelihood", "level": "token", "temperature": 2}},
        {"gamma": {"kind": "label_penalty", "lam": 0, "exponent": 0.5, "source": "teacher"}},
        {"gamma": {"kind": "sequence_outlier", "strength": 0, "exponent": 0.5}},
    ],
    "two stages": [
        {"gamma": {"kind": "critical", "schedule": {"shape": "step", "start": 0.2}}},
        {"gamma": {"kind": "critical", "schedule": {"shape": "step", "start": 0.2, "end": 0.4}}},
    ],
    "distillation": [
        get("kd"),
        get("hybrid_kd", lam=1),
        {"gamma": {"kind": "power", "source": "teacher"}, "residual": {"kind": "teacher", "exclude_label": True}},
        {"gamma": {"kind": "tilt", "beta": 0}, "residual": {"kind": "geometric", "teacher": 1}},
    ],
    "GIFT": [
        get("gift", beta=2),
        {
            "gamma": {"kind": "anchored", "lam": 0.15651764274966568, "source": "reference"},  # 1/(e² − 1)
            "residual": {"kind": "reference"},
        },
    ],
    "nothing": [
        {"gamma": {"kind": "constant", "value": 0}},
        {"gamma": {"kind": "power", "ceiling": 0}},
        {"gamma": {"kind": "power"}, "residual": {"kind": "student", "exclude_label": True}},
    ],
}


def as_spec(design: Any) -> TargetSpec:
    return design if isinstance(design, TargetSpec) else TargetSpec.model_validate(design)


@pytest.mark.parametrize("name", SAME)
def test_known_identities_share_an_id_and_a_gradient(name: str) -> None:
    first, *others = [as_spec(design) for design in SAME[name]]
    for other in others:
        assert equal_directions(training_direction(first), training_direction(other)), other.title()
        assert canonical_id(other) == canonical_id(first), other.title()


def test_groups_of_identities_have_different_ids() -> None:
    assert len({canonical_id(as_spec(designs[0])) for designs in SAME.values()}) == len(SAME)


def test_presets_at_their_defaults_are_all_different() -> None:
    assert len({canonical_id(get(name)) for name in presets.names()}) == len(presets.names())


def test_hybrid_distillation_with_a_detached_share_is_target_sft_at_full_teacher() -> None:
    per_token = {"gamma": {"kind": "power"}, "residual": {"kind": "teacher"}}
    assert canonical_id(get("target_sft", eta=1)) == canonical_id(as_spec(per_token))


def test_every_trust_of_the_grid_shares_its_form_exactly_with_its_values() -> None:
    """All families, knobs and modifiers: no two trusts under one form, none under two."""
    forms: dict[str, Tensor] = {}
    for family in grid():
        raw = torch.cat([family.statistic(rows) for rows in WORLDS])
        for gamma in clipped(family):
            trust = raw.clamp(-torch.inf if gamma.floor is None else gamma.floor, gamma.ceiling)
            found = (1 - gamma.mix * (1 - trust)).mul(1e9).round() + 0.0  # no −0
            form = settled(gamma)
            assert torch.equal(forms.setdefault(form, found), found), gamma.title()
    values: dict[bytes, str] = {}
    for form, found in forms.items():
        other = values.setdefault(found.numpy().tobytes(), form)
        assert other == form, f"{other} | {form}"


def settled(gamma: Gamma) -> str:
    """The canonical form of a trust whose residual gets the rest."""
    simpler = same_gamma(gamma, anchored_weight=False)
    return settled(simpler) if simpler != gamma else simpler.model_dump_json()


@seed(derive_seed("test", "pairs") % 2**32)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(specs(), specs(), st.sampled_from(["gamma", "residual", "contrast", "weight", "denominator"]))
@pytest.mark.slow
def test_two_designs_share_an_id_exactly_when_they_train_alike(a: TargetSpec, b: TargetSpec, part: str) -> None:
    if part == "weight" and b.weight.kind == "anchored":
        part = "denominator"
    crossed = a.model_copy(update={part: getattr(b, part)})
    if crossed.weight.kind == "anchored" and crossed.gamma.kind != "anchored":
        crossed = b
    alike = equal_directions(training_direction(a), training_direction(crossed))
    assert alike == (canonical_id(a) == canonical_id(crossed)), f"{a.title()} | {crossed.title()}"


@pytest.mark.slow
def test_many_designs_share_ids_exactly_with_their_gradients() -> None:
    """Every pair of a few hundred designs: no two gradients under one id, no gradient under two."""
    drawn: list[TargetSpec] = []

    @seed(derive_seed("test", "many") % 2**32)
    @settings(max_examples=250, phases=[Phase.generate], database=None)
    @given(specs())
    def collect(spec: TargetSpec) -> None:
        drawn.append(spec)

    collect()
    known: dict[str, TargetSpec] = {}
    for spec in drawn:
        name = canonical_id(spec)
        if name in known:
            assert equal_directions(training_direction(known[name]), training_direction(spec)), spec.title()
        known.setdefault(name, spec)
    directions = {name: training_direction(spec) for name, spec in known.items()}
    names = sorted(known, key=lambda name: float(directions[name][0]))
    for first, second in pairwise(names):
        assert not equal_directions(directions[first], directions[second]), known[first].title()


@seed(derive_seed("test", "canonical") % 2**32)
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(specs())
@pytest.mark.slow
def test_canonical_form_is_settled_and_keeps_the_gradient(spec: TargetSpec) -> None:
    form = canonical(spec)
    assert canonical(form) == form
    assert equal_directions(training_direction(form), training_direction(spec))


def test_value_forms_have_one_id_and_two_spec_ids() -> None:
    kl, ce = get("kd"), get("kd").model_copy(update={"residual_loss": "kl"})
    assert canonical_id(kl) == canonical_id(ce) and spec_id(kl) != spec_id(ce)


def test_knobs_that_differ_in_the_last_bit_only_are_one_design() -> None:
    assert canonical_id(get("label_smoothing", lam=0.3)) == canonical_id(get("label_smoothing", lam=0.1 + 0.2))


def test_an_inclusive_threshold_is_another_design() -> None:
    strict, inclusive = ({"gamma": {"kind": "threshold", "inclusive": each}} for each in (False, True))
    assert canonical_id(as_spec(strict)) != canonical_id(as_spec(inclusive))


def test_canonical_json_is_sorted_compact_and_exact() -> None:
    assert canonical_json({"b": 0.1, "a": [1, None, "ψ"]}) == '{"a":[1,null,"ψ"],"b":0.1}'


def test_content_id_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert content_id({"a": 1, "b": 2}) == content_id({"b": 2, "a": 1})
    assert content_id({"a": 1}) != content_id({"a": 2})
    assert content_id(as_spec(DFT)) == content_id(as_spec(DFT).model_dump(mode="json"))
    assert content_id({"x": as_spec(SFT)}) == content_id({"x": as_spec(SFT).model_dump(mode="json")})


@pytest.mark.parametrize("content", [{"a": float("nan")}, {"a": {1, 2}}, {"a": object()}])
def test_content_that_json_cannot_say_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(content)


def test_seeds_come_from_names() -> None:
    assert derive_seed("study", 1) == derive_seed("study", 1) == derive_seed("study", "1")
    assert derive_seed("study", 1) != derive_seed("study", 2) != derive_seed("study1")
    assert derive_seed("a", "bc") != derive_seed("ab", "c")
    assert all(0 <= derive_seed(number) < 2**63 for number in range(100))
