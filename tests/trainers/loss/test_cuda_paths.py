"""What only a GPU runs, followed on tensors that have a shape, a type and a device but no content.

An operation that CUDA lacks, a tensor left on the host and a wait for the device (reading a value) raise here. Builds
of torch without CUDA cannot make such tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from qtarget.spaces import presets
from qtarget.trainers.loss import CachedSlice, HiddenHead, LossSum, call, fused_target_loss, fused_target_losses
from qtarget.trainers.loss import tail_softmax as passes
from qtarget.trainers.loss.gradients import Wanted

TOKENS, WIDTH, VOCAB, ENTRIES = 12, 8, 64, 5
COUNTS_SEQUENCES = {"iw_sft", "talr", "minor_sft", "cadft", "flow"}
"""They look at whole sequences, and wait once a batch to learn how many there are."""

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this torch was built without CUDA")


class NoAutograd:
    """Autograd asks the driver for a context; the gradients are worked out before it."""

    @staticmethod
    def apply(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, values: Tensor, gradients: Any
    ) -> tuple[Tensor, ...]:
        assert gradients.hidden.shape[-2:] == hidden.shape and gradients.hidden.dtype == hidden.dtype
        return values.unbind()


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(passes, "HAS_TRITON", False)
    monkeypatch.setattr(call, "_SumWithGradient", NoAutograd)
    with FakeTensorMode(allow_non_fake_inputs=False), torch.no_grad():
        yield


def wanted(weight: bool) -> Any:
    return lambda head, hidden: Wanted(True, weight, weight and head.bias is not None)


def on_gpu(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, device="cuda", dtype=dtype)


def inputs(needs: frozenset[str], dtype: torch.dtype, *, live: bool) -> dict[str, Any]:
    cached = CachedSlice(
        on_gpu(TOKENS, ENTRIES, dtype=torch.int32), on_gpu(TOKENS, ENTRIES), on_gpu(TOKENS), fewest=ENTRIES
    )
    source = HiddenHead(on_gpu(TOKENS, WIDTH, dtype=dtype), on_gpu(VOCAB, WIDTH, dtype=dtype)) if live else cached
    given: dict[str, Any] = dict.fromkeys(needs & {"teacher", "reference", "previous"}, source)
    columns = {
        "old_logprobs": on_gpu(TOKENS),
        "critical": on_gpu(TOKENS, dtype=torch.bool),
        "sequence_ids": on_gpu(TOKENS, dtype=torch.int64),
    }
    return given | {name: column for name, column in columns.items() if name in needs}


@pytest.mark.parametrize("live", [False, True], ids=["cached", "live"])
@pytest.mark.parametrize("name", presets.names())
def test_no_preset_waits_for_the_gpu(name: str, live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype = torch.float32 if live else torch.bfloat16
    monkeypatch.setattr(call.HeadArguments, "wanted", wanted(weight=True))
    spec = presets.get(name)
    labels, weights = on_gpu(TOKENS, dtype=torch.int64), on_gpu(TOKENS)
    leaves = on_gpu(TOKENS, WIDTH, dtype=dtype), on_gpu(VOCAB, WIDTH, dtype=dtype)
    given = inputs(spec.needs, dtype, live=live)

    def loss(**more: Any) -> LossSum:
        return fused_target_loss(*leaves, labels, spec, weights=weights, **given, **more)

    if name in COUNTS_SEQUENCES:
        with pytest.raises(DynamicOutputShapeException):
            loss(num_valid=TOKENS)
        return
    capped = {"bias": on_gpu(VOCAB, dtype=dtype), "softcap": 30.0, "num_valid": TOKENS - 3}
    found = [loss(num_valid=TOKENS), loss(**capped)]
    assert {each.loss_sum.device.type for each in found} == {"cuda"}
    assert {each.entropy.dtype for each in found} == {torch.float32}


def test_designs_on_one_forward_pass_do_not_wait_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call.HeadArguments, "wanted", wanted(weight=False))
    specs = [presets.get(name) for name in ("sft", "dft", "kd", "target_sft", "label_smoothing")]
    given = inputs(frozenset({"teacher"}), torch.bfloat16, live=False)
    leaves = on_gpu(TOKENS, WIDTH, dtype=torch.bfloat16), on_gpu(VOCAB, WIDTH, dtype=torch.bfloat16)
    labels = on_gpu(TOKENS, dtype=torch.int64)
    found = fused_target_losses(*leaves, labels, specs, num_valid=TOKENS - 1, **given)
    assert len(found) == len(specs)


def test_labels_that_are_not_counted_are_looked_at() -> None:
    """What `num_valid` saves: without it, the host asks the device."""
    leaves = on_gpu(TOKENS, WIDTH), on_gpu(VOCAB, WIDTH)
    with pytest.raises(DataDependentOutputException):
        fused_target_loss(*leaves, on_gpu(TOKENS, dtype=torch.int64), presets.get("sft"))
