"""The exported loss of every design is the reference loss, value and gradient, in a file that needs torch alone."""

from __future__ import annotations

import ast
import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from target_specs import EXTRAS, GAMMAS, RESIDUALS, spec_of, specs
from token_rows import TokenRows, random_rows

from qtarget.search.export.loss import loss_source
from qtarget.spaces import TargetSpec, presets
from qtarget.trainers.loss import dense_target_loss, fused_target_loss

SCHEDULES = ({"direction": "from_one"}, {"direction": "to_one", "shape": "cosine", "start": 0.2})
ANY_MOMENT = 0.3


def module_of(spec: TargetSpec) -> ModuleType:
    """The exported file, executed."""
    module = ModuleType("exported_target_loss")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(loss_source(spec), "target_loss.py", "exec"), vars(module))
    return module


def exported(spec: TargetSpec, rows: TokenRows, progress: float = 0.0, chunk: int = 2**28):
    """Value and gradient of the exported loss: hidden states are the logits, and the head is the identity."""
    module = module_of(spec)
    eye = torch.eye(rows.logits.shape[1], dtype=rows.logits.dtype)
    hidden = rows.logits.clone().requires_grad_()
    given = {
        "teacher": module.Head(rows.teacher_logits, eye),
        "reference": module.Head(rows.reference_logits, eye),
        "previous": module.Head(rows.previous_logits, eye),
    }
    columns = {name: getattr(rows, name) for name in ("old_logprobs", "critical", "sequence_ids")}
    found = module.target_loss(
        module.Head(hidden, eye), rows.labels, **given, **columns, progress=progress, max_chunk_bytes=chunk
    )
    (3 * found.loss_sum).backward()
    return found, hidden.grad / 3


def expected(spec: TargetSpec, rows: TokenRows):
    logits = rows.logits.clone().requires_grad_()
    value = dense_target_loss(logits, rows.labels, spec, **rows.inputs())
    value.backward()
    return value, logits.grad


def check(spec: TargetSpec, progress: float = 0.0, chunk: int = 2**28) -> None:
    rows = random_rows("export")
    found, gradient = exported(spec, rows, progress, chunk)
    value, wanted = expected(spec.at(progress), rows)
    torch.testing.assert_close(found.loss_sum, value.detach(), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=1e-12)


def every_family() -> list[tuple[str, str, str]]:
    """Each trust family with a residual that acts, each residual, each extra."""
    trusts = [(name, "geometric", "plain") for name in GAMMAS]
    residuals = [("power", name, "plain") for name in RESIDUALS]
    return [*trusts, *residuals, *[("half", "teacher", name) for name in EXTRAS]]


@pytest.mark.parametrize("name", presets.names())
def test_every_preset(name: str) -> None:
    check(presets.get(name))


@pytest.mark.slow
@pytest.mark.parametrize("parts", every_family(), ids=" / ".join)
def test_every_family_and_modifier(parts: tuple[str, str, str]) -> None:
    check(spec_of(*parts))


@settings(max_examples=60)
@given(specs())
@pytest.mark.slow
def test_any_design_of_the_space_at_any_moment(spec: TargetSpec) -> None:
    check(spec, ANY_MOMENT)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_a_schedule_moves_trust_and_anchored_weight(schedule: dict, progress: float) -> None:
    for gamma, weight in (({"kind": "power", "stopped": False}, "unit"), ({"kind": "anchored"}, "anchored")):
        content = {
            "gamma": {**gamma, "schedule": schedule},
            "residual": {"kind": "teacher"},
            "weight": {"kind": weight},
        }
        check(TargetSpec.model_validate(content), progress)


@pytest.mark.parametrize("name", ["target_sft", "talr", "sft_topk"])
def test_chunks_change_nothing_also_where_trust_looks_at_a_whole_batch(name: str) -> None:
    check(presets.get(name), chunk=8 * 11 * 5)


@pytest.mark.parametrize("name", ["asft_k3", "flow", "stm", "prift", "gift"])
def test_a_label_column_stands_for_a_model_where_it_is_enough(name: str) -> None:
    spec, rows = presets.get(name), random_rows("export")
    module, eye = module_of(spec), torch.eye(11, dtype=torch.float64)
    labels = rows.labels.clamp(min=0)[:, None]
    column = rows.reference_logits.log_softmax(-1).gather(-1, labels).squeeze(-1)
    student, given = module.Head(rows.logits, eye), {"sequence_ids": rows.sequence_ids}

    def from_column():
        return module.target_loss(student, rows.labels, reference_label_logprobs=column, **given)

    if "reference" in spec.needs_rows:
        with pytest.raises(ValueError, match="needs reference"):
            from_column()
    else:
        reference = module.Head(rows.reference_logits, eye)
        expected = module.target_loss(student, rows.labels, reference=reference, **given)
        torch.testing.assert_close(from_column().loss_sum, expected.loss_sum, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "profit", "asft", "gem_logsigmoid", "lp_sft", "kd"])
@pytest.mark.parametrize("kind", ["all", "kept", "weights"])
def test_weights_of_the_data_are_those_of_the_trainer(name: str, kind: str) -> None:
    spec, rows = presets.get(name).model_copy(update={"denominator": kind}), random_rows("export")
    weights = torch.linspace(0.1, 3, len(rows.labels), dtype=torch.float64)
    module, eye = module_of(spec), torch.eye(11, dtype=torch.float64)
    hidden = rows.logits.clone().requires_grad_()
    models = {each: module.Head(getattr(rows, f"{each}_logits"), eye) for each in ("teacher", "reference")}
    found = module.target_loss(module.Head(hidden, eye), rows.labels, **models, weights=weights)
    logits = rows.logits.clone().requires_grad_()
    sources = {f"{each}_logits": getattr(rows, f"{each}_logits") for each in models}
    value = dense_target_loss(logits, rows.labels, spec, **sources, weights=weights)
    torch.testing.assert_close(found.loss_sum, value, rtol=1e-12, atol=1e-12)
    (mine,), (wanted,) = torch.autograd.grad(found.loss_sum, hidden), torch.autograd.grad(value, logits)
    torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12)
    fused = fused_target_loss(
        rows.logits, eye, rows.labels, spec, weights=weights,
        **{each: getattr(rows, f"{each}_logits").log_softmax(-1) for each in models},
    )  # fmt: skip
    torch.testing.assert_close(found.denominator, fused.denominator)


@pytest.mark.parametrize("kind", ["all", "kept", "weights"])
def test_the_denominator_is_what_the_trainer_divides_by(kind: str) -> None:
    spec = presets.get("profit", tau=0.2).model_copy(update={"denominator": kind})
    rows = random_rows("export")
    found, _ = exported(spec, rows)
    p = rows.logits.softmax(-1).gather(-1, rows.labels.clamp(min=0)[:, None]).squeeze(-1)[rows.labels >= 0]
    wanted = len(p) if kind == "all" else (p > 0.2).sum()
    assert float(found.denominator) == float(wanted) and float(wanted) > 0


def test_a_head_with_cap_scale_bias_and_padding_has_the_gradients_of_its_parts() -> None:
    spec, module = presets.get("target_sft"), module_of(presets.get("target_sft"))
    rows = random_rows("head", vocab=13)
    generator = torch.Generator().manual_seed(5)
    hidden, weight, bias = (torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_()
                            for size in ((24, 6), (13, 6), (13,)))  # fmt: skip
    teacher, eye = rows.teacher_logits[:, :12], torch.eye(12, dtype=torch.float64)
    found = module.target_loss(
        module.Head(hidden, weight, bias, 4.0, 1.7), rows.labels, teacher=module.Head(teacher, eye), real_vocab=11
    )
    mine = torch.autograd.grad(found.loss_sum, (hidden, weight, bias))
    logits = 4.0 * torch.tanh(1.7 * (hidden @ weight.T + bias) / 4.0)
    value = dense_target_loss(logits, rows.labels, spec, teacher_logits=teacher, real_vocab=11)
    torch.testing.assert_close(found.loss_sum, value)
    for one, other in zip(mine, torch.autograd.grad(value, (hidden, weight, bias)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_the_file_imports_nothing_but_torch_and_the_standard_library() -> None:
    for name in presets.names():
        tree = ast.parse(loss_source(presets.get(name)))
        found = {
            (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert found <= {"torch", *sys.stdlib_module_names}


def test_a_design_without_its_teacher_is_refused_with_its_name() -> None:
    module = module_of(presets.get("kd"))
    rows = random_rows("export")
    with pytest.raises(ValueError, match="needs teacher"):
        module.target_loss(module.Head(rows.logits, torch.eye(11, dtype=torch.float64)), rows.labels)


def test_the_frame_itself_is_plain_sft() -> None:
    from qtarget.trainers.standalone import loss as frame

    rows = random_rows("export")
    hidden = rows.logits.clone().requires_grad_()
    loss = frame.target_loss(frame.Head(hidden, torch.eye(11, dtype=torch.float64)), rows.labels).loss_sum
    loss.backward()
    logits = rows.logits.clone().requires_grad_()
    plain = torch.nn.functional.cross_entropy(logits, rows.labels, ignore_index=-100, reduction="sum")
    plain.backward()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(hidden.grad, logits.grad)
