"""What every γ × residual × signed term × weight must hold; a new family inherits all of it by joining the tables."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

import pytest
import torch
import yaml
from target_specs import EXTRAS, GAMMAS, RESIDUALS, detached_rows, spec_of
from token_rows import edge_rows, noting, random_rows

from qtarget.spaces import TargetSpec
from qtarget.spaces.rows import Rows
from qtarget.spaces.target import AnyContrast, AnyGamma, AnyResidual, count, design, trust
from qtarget.trainers.loss.dense import dense_target_loss

PAIRS = [(residual, "plain") for residual in RESIDUALS]
WITH_EXTRAS = [("teacher", extra) for extra in EXTRAS]
COMBINATIONS = sorted({*PAIRS, *WITH_EXTRAS})
"""What each family of trust is combined with: residual and the rest."""
ORDINARY = random_rows("contract", tokens=14, vocab=9)
ROWS = detached_rows(ORDINARY)
EDGES = edge_rows()


def test_the_tables_hold_every_family() -> None:
    assert {spec_of(name).gamma.kind for name in GAMMAS} == _kinds(AnyGamma)
    assert {spec_of("one", name).residual.kind for name in RESIDUALS} == _kinds(AnyResidual)
    contrasts = {spec.contrast.kind for name in EXTRAS if (spec := spec_of("one", extra=name)).contrast}
    assert contrasts == _kinds(AnyContrast)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_target_is_lawful(gamma: str) -> None:
    for residual, extra in COMBINATIONS:
        with noting(residual, extra):
            check_lawful(spec_of(gamma, residual, extra))


def check_lawful(spec: TargetSpec) -> None:
    """Q sums to what is stated, the gradient sums to zero, and it is that of the cross-entropy to Q."""
    target = design(spec, ROWS)
    torch.testing.assert_close(target.q.sum(-1), target.q_sum, rtol=1e-12, atol=1e-12)
    if spec.residual.tail != "drop":
        torch.testing.assert_close(target.q_sum, torch.ones_like(target.q_sum), rtol=1e-12, atol=1e-12)
    z = ORDINARY.logits[ORDINARY.labels >= 0].clone().requires_grad_()
    loss = -(target.weight[:, None] * target.q * z.log_softmax(-1)).sum()
    (expected,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(target.logit_gradient(), expected, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("gamma", GAMMAS)
def test_loss_is_finite_in_half_precision_and_survives_the_edges(gamma: str) -> None:
    for residual, extra in COMBINATIONS:
        with noting(residual, extra):
            check_finite(spec_of(gamma, residual, extra))


def check_finite(spec: TargetSpec) -> None:
    """In half precision everywhere, and without NaN where a value has no price."""
    for rows in (ORDINARY.to(torch.bfloat16), EDGES.to(torch.bfloat16), EDGES.to(torch.float32), EDGES):
        logits = rows.logits.clone().requires_grad_()
        inputs = {**rows.inputs(), "previous_logits": rows.teacher_logits}
        loss = dense_target_loss(logits, rows.labels, spec, **inputs)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert not loss.isnan() and gradient.isfinite().all()
        assert not gradient[rows.labels < 0].any()
        if rows.logits.dtype == torch.bfloat16 and rows.logits.isfinite().all():
            assert loss.isfinite()


@pytest.mark.parametrize(
    ("gamma", "residual", "extra"),
    [
        *((gamma, "teacher", "plain") for gamma in GAMMAS),
        *(("half", residual, "plain") for residual in RESIDUALS),
        *(("half", "teacher", extra) for extra in EXTRAS),
    ],
)
def test_design_survives_json_and_yaml(gamma: str, residual: str, extra: str) -> None:
    spec = spec_of(gamma, residual, extra)
    assert TargetSpec.model_validate_json(spec.model_dump_json()) == spec
    assert TargetSpec.model_validate(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json")))) == spec
    assert spec.title()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_trust_stays_inside_its_bounds(gamma: str) -> None:
    family = spec_of(gamma).gamma
    for rows in (ROWS, detached_rows(EDGES), detached_rows(random_rows("sharp", scale=9.0))):
        low, high = family.ends()
        trusted = family.trust(rows)
        assert (trusted >= low - 1e-12).all() and (trusted <= high + 1e-12).all()
        low, high = family.bounds()
        unmodified = family.statistic(rows)
        assert (unmodified >= low - 1e-12).all() and (unmodified <= high + 1e-12).all()


@pytest.mark.parametrize("gamma", [name for name in GAMMAS if spec_of(name).gamma.monotone])
def test_trust_is_monotone_in_p_where_claimed(gamma: str) -> None:
    family = spec_of(gamma).gamma.model_copy(update={"floor": None, "ceiling": None, "mix": 1.0})
    moving = torch.linspace(-30, 0, 200, dtype=torch.float64)
    others = {source: torch.full_like(moving, -1) for source in ("student", "reference", "teacher")}
    others[getattr(family, "source", "student")] = moving
    rows = Rows(
        label_logprobs=others["student"],
        reference_label_logprobs=others["reference"],
        teacher_label_logprobs=others["teacher"],
    )
    falls = family.monotone == "decreasing" or family.model_dump().get("exponent", 0) < 0
    steps = family.statistic(rows).diff() * (-1 if falls else 1)
    assert (steps >= -1e-15).all() and steps.max() > 0


@pytest.mark.parametrize("gamma", [name for name in GAMMAS if spec_of(name).gamma.sees != "rows"])
def test_trust_that_sees_labels_or_margins_needs_no_dense_rows(gamma: str) -> None:
    lead = ROWS.margins() if spec_of(gamma).gamma.sees == "margins" else None
    dense = ("logits", "logprobs", "teacher_logprobs", "reference_logprobs", "previous_logprobs")
    sparse = replace(ROWS, label_margins=lead, **dict.fromkeys(dense))
    torch.testing.assert_close(trust(spec_of(gamma), sparse), trust(spec_of(gamma), ROWS), rtol=0, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_only_batch_families_depend_on_other_tokens(gamma: str) -> None:
    family = spec_of(gamma).gamma
    half = _slice(ROWS, 5)
    alone = family.trust(half)
    together = family.trust(ROWS)[:5]
    assert torch.equal(alone, together) or family.scope == "batch"


@pytest.mark.parametrize("part", ["gamma", "residual", "contrast"])
def test_a_family_fails_by_name_without_what_it_needs_and_only_then(part: str) -> None:
    specs = {
        "gamma": [spec_of(name) for name in GAMMAS],
        "residual": [spec_of("half", name) for name in RESIDUALS],
        "contrast": [spec_of("one", extra=name) for name in EXTRAS],
    }
    for spec in specs[part]:
        for need in ("teacher", "reference", "previous", "old_logprobs", "critical", "sequence_ids"):
            rows = _without(ROWS, need)
            if need in spec.needs:
                with pytest.raises(ValueError, match=f"needs `{need}`"):
                    design(spec, rows)
            else:
                assert design(spec, rows).q.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_nothing_of_the_target_carries_a_gradient(gamma: str) -> None:
    z = ORDINARY.logits[ORDINARY.labels >= 0].clone().requires_grad_()
    logprobs = z.log_softmax(-1)
    assert ROWS.labels is not None
    label = logprobs.gather(-1, ROWS.labels[:, None]).squeeze(-1)
    rows = replace(ROWS, logprobs=logprobs, label_logprobs=label)
    for residual, extra in WITH_EXTRAS:
        target = design(spec_of(gamma, residual, extra), rows)
        columns = (target.weight, target.value, target.q_sum, target.label)
        assert not any(column.requires_grad for column in columns), extra


@pytest.mark.parametrize("gamma", GAMMAS)
def test_denominators_count_valid_kept_or_weighted_tokens(gamma: str) -> None:
    for residual, extra in WITH_EXTRAS:
        with noting(residual, extra):
            check_denominators(spec_of(gamma, residual, extra))


def check_denominators(spec: TargetSpec) -> None:
    """All tokens, those that carry a gradient, or the sum of their weights."""
    trusted = trust(spec, ROWS)
    target = design(spec, ROWS, trusted)
    counts = {
        each: count(spec.model_copy(update={"denominator": each}), trusted, target.weight)
        for each in ("all", "kept", "weights")
    }
    assert (counts["all"] == 1).all()
    if spec.gamma.ends()[0] >= 0:
        assert (counts["weights"] >= 0).all()
    else:
        with pytest.raises(ValueError, match="never below 0"):
            TargetSpec.model_validate(spec.model_dump() | {"denominator": "weights"})
    silent = target.logit_gradient().abs().sum(-1) == 0
    if spec.gamma.masks and spec.gamma.kind != "proximal":
        assert torch.equal(counts["kept"] == 0, silent)
    else:
        assert set(counts["kept"].tolist()) <= {0.0, 1.0}


def _kinds(union: object) -> set[str]:
    return {family.model_fields["kind"].default for family in get_args(union)}


def _slice(rows: Rows, tokens: int) -> Rows:
    columns = {field.name: getattr(rows, field.name) for field in fields(rows)}
    cut = {name: value[:tokens] for name, value in columns.items() if isinstance(value, torch.Tensor)}
    return Rows(**{**columns, **cut})


def _without(rows: Rows, need: str) -> Rows:
    columns = {field.name for field in fields(rows)}
    gone = {need, f"{need}_logprobs", f"{need}_label_logprobs"} & columns
    return replace(rows, **{name: None for name in gone if need != "old_logprobs" or name == "old_logprobs"})
