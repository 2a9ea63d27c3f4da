"""What a call of the fused loss promises around its value: gradients on demand, dtypes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from qtarget.spaces import presets
from qtarget.trainers.loss import CachedSlice, HiddenHead, dense_target_loss, fused_target_loss, fused_target_losses
from qtarget.trainers.loss.head import LINE_BYTES, PAGE_BYTES, WORKSPACE, padded
from qtarget.trainers.loss.inputs import poisoned_labels
from qtarget.trainers.loss.row_form import Plan

TOKENS, VOCAB, WIDTH = 19, 41, 8
SFT = presets.get("sft")
TARGET_SFT = presets.get("target_sft", eta=0.4)


def problem(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (tokens, width), head (vocab, width) and labels, two of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(VOCAB, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(VOCAB, (TOKENS,), generator=generator)
    labels[[2, 11]] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def teacher(seed: int = 1) -> Tensor:
    """Log-probabilities (tokens, vocab)."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(TOKENS, VOCAB, generator=generator, dtype=torch.float64)).log_softmax(-1)


def cached(labels: Tensor, k: int = 6) -> CachedSlice:
    logprobs = teacher()
    top, ids = logprobs.topk(k)
    return CachedSlice(ids, top, logprobs.gather(1, labels.clamp(min=0)[:, None])[:, 0])


def test_sft_is_cross_entropy() -> None:
    hidden, weight, labels = problem()
    loss = fused_target_loss(hidden, weight, labels, SFT)
    expected = cross_entropy(hidden @ weight.T, labels, reduction="sum")
    torch.testing.assert_close(loss.loss_sum, expected)
    found = torch.autograd.grad(loss.loss_sum, (hidden, weight))
    torch.testing.assert_close(found, torch.autograd.grad(expected, (hidden, weight)))


def test_reports_each_token_and_the_denominator() -> None:
    hidden, weight, labels = problem()
    loss = fused_target_loss(hidden, weight, labels, presets.get("profit", tau=0.02))
    probs = (hidden @ weight.T).detach().softmax(-1)
    valid = labels != -100
    label = probs.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    assert loss.num_tokens == int(valid.sum())
    torch.testing.assert_close(loss.p_label, label * valid)
    torch.testing.assert_close(loss.entropy, torch.special.entr(probs).sum(1) * valid)
    assert loss.denominator == loss.num_tokens
    kept = presets.get("profit", tau=0.02).model_copy(update={"denominator": "kept"})
    assert fused_target_loss(hidden, weight, labels, kept).denominator == ((label > 0.02) & valid).sum()


@pytest.mark.parametrize("factor", [0.25, -3.0])
def test_the_upstream_gradient_scales_everything(factor: float) -> None:
    hidden, weight, labels = problem()
    bias = torch.zeros(VOCAB, dtype=torch.float64, requires_grad=True)
    leaves = (hidden, weight, bias)
    plain, scaled = (fused_target_loss(hidden, weight, labels, SFT, bias=bias).loss_sum for _ in range(2))
    expected = [factor * grad for grad in torch.autograd.grad(plain, leaves)]
    torch.testing.assert_close(list(torch.autograd.grad(factor * scaled, leaves)), expected)


def test_a_tied_embedding_gets_both_gradients() -> None:
    _, weight, labels = problem()
    inputs = torch.arange(TOKENS) % VOCAB
    hidden = torch.tanh(weight[inputs])
    (found,) = torch.autograd.grad(fused_target_loss(hidden, weight, labels, SFT).loss_sum, weight)
    (expected,) = torch.autograd.grad(
        cross_entropy(torch.tanh(weight[inputs]) @ weight.T, labels, reduction="sum"), weight
    )
    torch.testing.assert_close(found, expected)


def test_a_frozen_part_gets_no_gradient_and_costs_none() -> None:
    hidden, weight, labels = problem()
    fused_target_loss(hidden, weight.detach(), labels, SFT).loss_sum.backward()
    assert hidden.grad is not None and weight.grad is None
    (only_head,) = torch.autograd.grad(fused_target_loss(hidden.detach(), weight, labels, SFT).loss_sum, weight)
    (expected,) = torch.autograd.grad(cross_entropy(hidden @ weight.T, labels, reduction="sum"), weight)
    torch.testing.assert_close(only_head, expected)
    with torch.no_grad():
        assert not fused_target_loss(hidden, weight, labels, SFT).loss_sum.requires_grad


def test_gradients_are_handed_out_once() -> None:
    loss = fused_target_loss(*problem(), SFT).loss_sum
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed out once"):
        loss.backward()


def test_a_call_leaves_the_results_of_the_one_before_alone() -> None:
    hidden, weight, labels = problem()
    expected = fused_target_loss(hidden, weight, labels, SFT)
    wanted = torch.autograd.grad(expected.loss_sum, (hidden, weight))
    WORKSPACE.release()
    with torch.inference_mode():
        fused_target_loss(hidden, weight, labels, SFT)
    first = fused_target_loss(hidden, weight, labels, SFT)
    fused_target_loss(-3 * hidden, weight, labels, presets.get("gem"))
    for one, other in zip(torch.autograd.grad(first.loss_sum, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(first.p_label, expected.p_label)
    torch.testing.assert_close(first.entropy, expected.entropy)


@pytest.mark.parametrize(("vocab", "softcap"), [(16_384, None), (20_001, None), (16_384, 5.0)])
@pytest.mark.parametrize("name", ["sft", "target_sft", "gem"])  # row form, row form with entries, dense
def test_rows_that_lie_apart_in_memory_give_the_same(name: str, vocab: int, softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(5, 4, generator=generator, requires_grad=True)
    weight = torch.randn(vocab, 4, generator=generator, requires_grad=True)
    labels = torch.randint(vocab, (5,), generator=generator)
    logprobs = torch.randn(5, vocab, generator=generator).log_softmax(-1)
    top, ids = logprobs.topk(vocab)  # all of them: the cached teacher is exact
    given = (
        {"teacher": CachedSlice(ids, top, logprobs.gather(1, labels[:, None])[:, 0])} if name == "target_sft" else {}
    )
    found = fused_target_loss(
        hidden, weight, labels, presets.get(name), softcap=softcap, max_chunk_bytes=2**28, **given
    )
    leaves = [hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()]
    logits = leaves[0] @ leaves[1].T
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    dense = {f"{key}_logits": logprobs.double() for key in given}
    expected = dense_target_loss(logits, labels, presets.get(name), **dense)
    torch.testing.assert_close(found.loss_sum.double(), expected, rtol=1e-6, atol=0.0)
    grads = zip(
        torch.autograd.grad(found.loss_sum, (hidden, weight)), torch.autograd.grad(expected, leaves), strict=True
    )
    for grad, wanted in grads:
        torch.testing.assert_close(grad.double(), wanted, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("vocab", [16_384, 32_000, 32_768, 49_152, 50_257, 128_256, 151_936, 262_144])
def test_long_rows_lie_an_odd_number_of_pages_and_a_line_apart(vocab: int, itemsize: int) -> None:
    width = padded(vocab, itemsize) * itemsize
    assert width - LINE_BYTES >= vocab * itemsize
    assert (width - LINE_BYTES) % (2 * PAGE_BYTES) == PAGE_BYTES
    assert width <= 1.13 * vocab * itemsize
    assert padded(1000, itemsize) == 1000


def test_without_a_valid_token_the_loss_is_zero_and_still_supports_backward() -> None:
    hidden, weight, labels = problem()
    for spec in (SFT, presets.get("gem"), presets.get("talr")):
        ids = torch.zeros(TOKENS, dtype=torch.long)
        loss = fused_target_loss(hidden, weight, torch.full_like(labels, -100), spec, sequence_ids=ids)
        assert loss.loss_sum == 0 and loss.num_tokens == 0
        for grad in torch.autograd.grad(loss.loss_sum, (hidden, weight)):
            assert not grad.any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize("name", ["sft", "dft", "label_smoothing", "target_sft", "asft", "kd", "gem", "eaft"])
def test_lower_precision_stays_close_to_float64(name: str, dtype: torch.dtype, tolerance: float) -> None:
    hidden, weight, labels = problem(dtype)
    spec = presets.get(name)
    source = cached(labels)
    given: dict[str, Any] = {need: source for need in spec.needs}
    loss = fused_target_loss(hidden, weight, labels, spec, **given)
    grads = torch.autograd.grad(loss.loss_sum, (hidden, weight))
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    expected = fused_target_loss(*exact, labels, spec, **given)
    assert loss.loss_sum.dtype == torch.float32
    assert abs(loss.loss_sum.item() / expected.loss_sum.item() - 1) <= tolerance
    for found, other in zip(grads, torch.autograd.grad(expected.loss_sum, exact), strict=True):
        assert found.dtype == dtype
        cosine = torch.nn.functional.cosine_similarity(found.double().flatten(), other.flatten(), dim=0)
        assert cosine >= (0.9999 if dtype == torch.bfloat16 else 1 - 1e-9)


def test_weight_gradients_of_many_bf16_chunks_add_up_in_float32() -> None:
    """256 and forty times a half: a bf16 sum would drop every half."""
    hidden = torch.ones(41, 1, dtype=torch.bfloat16)
    hidden[0] = 512
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    loss = fused_target_loss(hidden, weight, torch.zeros(41, dtype=torch.long), SFT, max_chunk_bytes=2 * 4 * 3)
    loss.loss_sum.backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad.flatten().float(), torch.tensor([-276.0, 276.0]))


def test_confident_rows_keep_their_tail_gradient_in_float32() -> None:
    """1 − p(y) = 3e-9 is lost in float32 when it is computed as a difference; here neither it nor a small γ is."""
    weight = torch.eye(3)
    hidden = torch.tensor([[20.0, 0.0, -1.0]], requires_grad=True)
    labels = torch.tensor([0])
    (found,) = torch.autograd.grad(fused_target_loss(hidden, weight, labels, SFT).loss_sum, hidden)
    exact = hidden.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(cross_entropy(exact, labels, reduction="sum"), exact)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    hopeless = torch.tensor([1])
    (found,) = torch.autograd.grad(fused_target_loss(hidden, weight, hopeless, presets.get("dft")).loss_sum, hidden)
    expected = exact.softmax(-1)[0, 1] * (exact.softmax(-1) - torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-5, atol=0)


def test_extreme_logits_stay_finite() -> None:
    weight = torch.eye(4) * 1e4
    hidden = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(6) % 4
    source = CachedSlice(torch.tensor([[0, 1]] * 6), torch.tensor([[0.7, 0.2]] * 6).log(), torch.full((6,), -20.0))
    for name in ("sft", "dft", "target_sft", "kd", "label_smoothing"):
        loss = fused_target_loss(hidden, weight, labels, presets.get(name), teacher=source)
        (grad,) = torch.autograd.grad(loss.loss_sum, hidden)
        assert torch.isfinite(loss.loss_sum) and torch.isfinite(grad).all()


def test_autocast_changes_nothing_but_the_head_is_read_in_the_hidden_dtype() -> None:
    hidden, weight, labels = problem(torch.float32)
    low = hidden.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        full = fused_target_loss(hidden, weight, labels, SFT)
        mixed = fused_target_loss(low, weight, labels, SFT)
    torch.testing.assert_close(full.loss_sum, fused_target_loss(hidden, weight, labels, SFT).loss_sum, rtol=0, atol=0)
    (grad,) = torch.autograd.grad(mixed.loss_sum, weight)
    assert grad.dtype == torch.float32
    torch.testing.assert_close(
        mixed.loss_sum, fused_target_loss(low, weight.detach().bfloat16(), labels, SFT).loss_sum, rtol=0, atol=0
    )


@pytest.mark.parametrize("source", ["cached", "dense"])
@pytest.mark.parametrize("head", [{}, {"softcap": 5.0, "logit_scale": 0.5}])
def test_designs_on_one_forward_pass_equal_separate_calls(source: str, head: dict[str, Any]) -> None:
    hidden, weight, labels = problem()
    names = ("sft", "dft", "label_smoothing", "target_sft", "kd", "gem", "eaft", "asft")
    given: dict[str, Any] = {
        "teacher": cached(labels) if source == "cached" else teacher(),
        "reference": teacher(2),
        **head,
    }
    bias = torch.linspace(-1, 1, VOCAB, dtype=torch.float64)
    specs = [presets.get(name) for name in names]
    together = fused_target_losses(hidden, weight.detach(), labels, specs, bias=bias, max_chunk_bytes=2**17, **given)
    for spec, one in zip(specs, together, strict=True):
        alone = fused_target_loss(hidden, weight.detach(), labels, spec, bias=bias, **given)
        torch.testing.assert_close(one.loss_sum, alone.loss_sum)
        torch.testing.assert_close(one.p_label, alone.p_label)
        torch.testing.assert_close(one.entropy, alone.entropy)
    factors = torch.arange(1.0, len(specs) + 1, dtype=torch.float64)
    (found,) = torch.autograd.grad(sum(f * one.loss_sum for f, one in zip(factors, together, strict=True)), hidden)
    expected = torch.zeros_like(hidden)
    for factor, spec in zip(factors, specs, strict=True):
        alone = fused_target_loss(hidden, weight.detach(), labels, spec, bias=bias, **given)
        expected += factor * torch.autograd.grad(alone.loss_sum, hidden)[0]
    torch.testing.assert_close(found, expected)


def test_designs_on_one_forward_pass_want_a_frozen_head() -> None:
    with pytest.raises(ValueError, match="must be frozen"):
        fused_target_losses(*problem(), [SFT, SFT])


def test_trust_of_a_larger_batch_is_taken_as_given() -> None:
    hidden, weight, labels = problem()
    ids = torch.arange(TOKENS) // 4
    gamma = torch.linspace(0, 1, TOKENS, dtype=torch.float64)
    loss = fused_target_loss(hidden, weight, labels, presets.get("talr"), sequence_ids=ids, gamma=gamma)
    expected = gamma * cross_entropy(hidden @ weight.T, labels, reduction="none")
    torch.testing.assert_close(loss.loss_sum, expected.sum())
    with pytest.raises(ValueError, match="looks at one token"):
        fused_target_loss(hidden, weight, labels, presets.get("dft"), gamma=gamma)


def test_a_known_number_of_valid_tokens_changes_nothing() -> None:
    hidden, weight, labels = problem()
    counted = fused_target_loss(hidden, weight, labels, SFT, num_valid=TOKENS - 2)
    torch.testing.assert_close(counted.loss_sum, fused_target_loss(hidden, weight, labels, SFT).loss_sum)
    with pytest.raises(ValueError, match="`num_valid` must be how many labels are not -100, 17, but got 19"):
        fused_target_loss(hidden, weight, labels, SFT, num_valid=TOKENS)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_broken_hidden_state_is_named_with_its_token(bad: float, softcap: float | None) -> None:
    hidden, weight, labels = problem()
    broken = hidden.detach().clone()
    broken[2, 0] = bad  # ignored, so it does not matter
    fused_target_loss(broken, weight, labels, SFT, softcap=softcap)
    broken[[5, 9], 3] = bad
    with pytest.raises(ValueError, match=r"those of token 5 hold NaN or inf \(2 of 17"):
        fused_target_loss(broken, weight, labels, SFT, softcap=softcap)
    unchecked = fused_target_loss(broken, weight, labels, SFT, check_finite=False)
    with pytest.raises(ValueError, match=r"those of token 5 are not \(2 of 17"):
        unchecked.require_finite()


def test_a_broken_head_is_named() -> None:
    hidden, weight, labels = problem()
    broken = weight.detach().clone()
    broken[7, 1] = torch.nan
    with pytest.raises(ValueError, match="token 0 are not"):
        fused_target_loss(hidden, broken, labels, SFT)


@pytest.mark.parametrize("label", [VOCAB, -1, -101, 10**9])
def test_a_label_out_of_the_vocabulary_is_refused(label: int) -> None:
    hidden, weight, labels = problem()
    labels[4] = label
    with pytest.raises(ValueError, match=rf"in \[0, {VOCAB}\), but got {label} at token 4"):
        fused_target_loss(hidden, weight, labels, SFT)


def test_labels_that_may_not_be_waited_for_poison_the_loss_instead() -> None:
    labels = torch.tensor([-100, 0, VOCAB - 1])
    safe, poison = poisoned_labels(labels, VOCAB, 2)
    assert safe.tolist() == [0, 0, VOCAB - 1] and poison == 0
    for broken in ([-100, -1, 0], [-100, VOCAB, 0], [-100, -100, 0], [0, 0, 0]):
        safe, poison = poisoned_labels(torch.tensor(broken), VOCAB, 2)
        assert poison.isnan() and safe.min() >= 0 and safe.max() < VOCAB


def test_only_designs_that_bend_the_tail_need_the_whole_vocabulary() -> None:
    """The price of cross-entropy is for all others; a preset that loses its row form shows up here."""
    specs = [presets.get(name) for name in presets.names()]
    cached = frozenset({"teacher", "reference"})

    def dense_of(cached: frozenset[str], entries: int = 64) -> set[str]:
        plan = Plan.make(specs, cached, capped=False, vocab=VOCAB, fewest=lambda name: entries)
        return {presets.names()[number] for number, _ in plan.dense}

    dense, without = dense_of(cached), dense_of(frozenset())
    assert dense <= {"gem", "gem_logsigmoid", "sft_reverse_kl", "sft_entropy", "kd_tempered"}
    assert dense_of(cached, entries=9) == dense | {"lp_sft"}  # its alternatives are ten
    assert without >= dense | {"kd", "target_sft", "asft", "lp_sft"}
    assert not without & {"sft", "dft", "label_smoothing", "prift", "trimsft", "asft_k3", "flow", "infosft"}


@pytest.mark.parametrize("name", ["sft", "gem"])
def test_a_cap_below_one_row_is_refused_with_what_it_takes(name: str) -> None:
    hidden, weight, labels = problem()
    with pytest.raises(ValueError, match="give at least") as error:
        fused_target_loss(hidden, weight, labels, presets.get(name), max_chunk_bytes=100)
    enough = int(str(error.value).split("give at least ")[1].split()[0])
    assert fused_target_loss(hidden, weight, labels, presets.get(name), max_chunk_bytes=enough).num_tokens == TOKENS - 2
    with pytest.raises(ValueError, match="give at least"):
        fused_target_loss(hidden, weight, labels, presets.get(name), max_chunk_bytes=enough - 1)


BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "missing teacher": ({"spec": TARGET_SFT}, "needs `teacher`, but it was not given"),
    "teacher rows": (
        {"spec": TARGET_SFT, "teacher": teacher()[1:]},
        "`teacher` must have one row per label, but got 18",
    ),
    "teacher vocabulary": (
        {"spec": TARGET_SFT, "teacher": teacher()[:, 1:]},
        "student's 41 vocabulary entries, but has 40",
    ),
    "narrow teacher": (
        {"spec": TARGET_SFT, "real_vocab": 40, "teacher": HiddenHead(torch.ones(TOKENS, 2), torch.ones(39, 2))},
        "but has 39",
    ),
    "column rows": ({"critical": torch.ones(3)}, "`critical` must have one row per label, but got 3"),
    "labels": ({"labels": torch.zeros(3, dtype=torch.long)}, "flatten batch and time first"),
    "width": ({"head_weight": torch.ones(VOCAB, WIDTH + 1, dtype=torch.float64)}, "flatten batch and time first"),
    "flattened head": ({"head_weight": torch.ones(VOCAB * WIDTH)}, "under FSDP"),
    "bias": ({"bias": torch.ones(3)}, r"`bias` must be \(vocab,\)"),
    "softcap": ({"softcap": 0.0}, "`softcap` must be above 0"),
    "real vocabulary": ({"real_vocab": VOCAB + 1}, "`real_vocab` must be in"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_is_refused_with_the_rule(case: str) -> None:
    changes, message = BAD_CALLS[case]
    hidden, weight, labels = problem()
    call: dict[str, Any] = {"hidden": hidden, "head_weight": weight, "labels": labels, "spec": SFT, **changes}
    with pytest.raises(ValueError, match=message):
        fused_target_loss(**call)


def test_gradients_are_finite_differences_of_the_frozen_target() -> None:
    """Independent of any formula for Q: the loss −ΣQ·log π with Q held still, differentiated numerically."""
    hidden, weight, labels = problem()
    logits = (hidden @ weight.T).detach().requires_grad_()
    spec = presets.get("hybrid_kd", lam=0.3)
    (gradient,) = torch.autograd.grad(dense_target_loss(logits, labels, spec, teacher_logits=teacher()), logits)
    valid = labels != -100
    target = logits.detach().softmax(-1)[valid] - gradient[valid]
    (found,) = torch.autograd.grad(fused_target_loss(hidden, weight, labels, spec, teacher=teacher()).loss_sum, hidden)

    def frozen(states: Tensor) -> Tensor:
        return -(target * (states @ weight.detach().T).log_softmax(-1)[valid]).sum()

    step = 1e-6
    for token, column in ((0, 0), (5, 3), (18, 7)):
        shift = torch.zeros_like(hidden)
        shift[token, column] = step
        slope = (frozen(hidden.detach() + shift) - frozen(hidden.detach() - shift)) / (2 * step)
        assert abs(slope.item() - found[token, column].item()) < 1e-7
