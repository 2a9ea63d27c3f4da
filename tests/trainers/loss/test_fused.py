"""The chunked loss against the dense one in float64: value and gradients, every preset and every kind of source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from target_specs import GAMMAS as FAMILIES
from target_specs import spec_of
from torch import Tensor

from qtarget.spaces import presets
from qtarget.spaces.target import TargetSpec
from qtarget.trainers.loss import CachedSlice, HiddenHead, LabelOnly, dense_target_loss, fused_target_loss
from qtarget.trainers.loss.row_form import Plan

TOKENS, VOCAB, WIDTH = 11, 29, 6
SMALL_CHUNK = 85 * VOCAB * 8
"""Bytes that force two or three chunks in float64 where the whole vocabulary is needed."""
SPECS = {name: presets.get(name) for name in presets.names()}


@pytest.fixture(autouse=True)
def two_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are worked on in parts, as they are on a CPU when the vocabulary is large."""
    monkeypatch.setattr("qtarget.trainers.loss.tail_softmax.BLOCK_BYTES", 2 * 8 * VOCAB)


@dataclass(frozen=True, eq=False)
class Problem:
    """N tokens of a model with a head, with everything any design may ask for."""

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    bias: Tensor
    sources: dict[str, HiddenHead]
    columns: dict[str, Tensor]
    softcap: float | None = None
    logit_scale: float = 1.0
    real_vocab: int | None = None

    @classmethod
    def make(cls, seed: int = 0, dtype: torch.dtype = torch.float64, **head: Any) -> Problem:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        labels = torch.randint(0, VOCAB - 4, (TOKENS,), generator=generator)
        labels[[0, 4, TOKENS - 1]] = -100
        sources = {
            name: HiddenHead(normal(TOKENS, 5), normal(VOCAB, 5), normal(VOCAB))
            for name in ("teacher", "reference", "previous")
        }
        columns = {
            "old_logprobs": -normal(TOKENS).abs(),
            "critical": torch.rand(TOKENS, generator=generator) < 0.4,
            "sequence_ids": torch.arange(TOKENS) // 4,
            "weights": 0.2 + 2 * torch.rand(TOKENS, generator=generator, dtype=torch.float64).to(dtype),
        }
        return cls(normal(TOKENS, WIDTH), normal(VOCAB, WIDTH), labels, normal(VOCAB), sources, columns, **head)

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The head as a model writes it."""
        logits = (hidden @ weight.T + bias) * self.logit_scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def source_logprobs(self, name: str) -> Tensor:
        source = self.sources[name]
        assert source.bias is not None
        return (source.hidden @ source.weight.T + source.bias).log_softmax(-1)

    def dense(self, spec: TargetSpec, logprobs: dict[str, Tensor] | None = None) -> list[Tensor]:
        """Value and gradients of the dense loss; `logprobs` replaces what the sources say."""
        leaves = [tensor.detach().requires_grad_() for tensor in (self.hidden, self.weight, self.bias)]
        given = {name: self.source_logprobs(name) for name in self.sources} | (logprobs or {})
        loss = dense_target_loss(
            self.logits(*leaves),
            self.labels,
            spec,
            teacher_logits=given["teacher"],
            reference_logits=given["reference"],
            previous_logits=given["previous"],
            real_vocab=self.real_vocab,
            **self.columns,
        )
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    def fused(self, spec: TargetSpec, sources: dict[str, Any] | None = None, **extra: Any) -> list[Tensor]:
        """Value and gradients of the fused loss; `sources` replaces the hidden-state sources."""
        leaves = [tensor.detach().requires_grad_() for tensor in (self.hidden, self.weight, self.bias)]
        loss = fused_target_loss(
            leaves[0],
            leaves[1],
            self.labels,
            spec,
            bias=leaves[2],
            **{**self.sources, **(sources or {})},
            **self.columns,
            **self.head,
            **{"max_chunk_bytes": SMALL_CHUNK, **extra},
        )
        return [loss.loss_sum.detach(), *torch.autograd.grad(loss.loss_sum, leaves)]

    @property
    def head(self) -> dict[str, Any]:
        return {"softcap": self.softcap, "logit_scale": self.logit_scale, "real_vocab": self.real_vocab}


def cached(logprobs: Tensor, labels: Tensor, k: int, **extra: Any) -> CachedSlice:
    """The k likeliest entries of each row, as a cache would hand them out."""
    top, ids = logprobs.topk(k, dim=-1)
    label = logprobs.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return CachedSlice(ids=ids, logprobs=top, label_logprob=label, **extra)


def completed(source: CachedSlice, student: Tensor, labels: Tensor) -> Tensor:
    """What a cached slice stands for, row by row in probabilities: the tail is shared out like the student's."""
    rows = []
    for ids, logprobs, label_logprob, probs, label in zip(
        source.ids, source.logprobs, source.label_logprob, student.softmax(-1), labels.clamp(min=0), strict=True
    ):
        known = {int(i): float(p.exp()) for i, p in zip(ids, logprobs, strict=True) if i >= 0}
        known.setdefault(int(label), float(label_logprob.exp()))
        row = probs.clone()
        row[list(known)] = 0
        row *= (1 - sum(known.values())) / row.sum() if len(known) < len(row) else 0
        row[list(known)] = torch.tensor(list(known.values()), dtype=row.dtype)
        rows.append(row)
    return torch.stack(rows).log()


def assert_equal(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-9) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("name", SPECS)
def test_equals_the_dense_loss_with_exact_sources(name: str) -> None:
    problem = Problem.make()
    assert_equal(problem.fused(SPECS[name]), problem.dense(SPECS[name]))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("k", [1, 6, VOCAB])
def test_equals_the_dense_loss_on_what_the_cache_stands_for(name: str, k: int) -> None:
    problem = Problem.make(1)
    student = problem.logits(problem.hidden, problem.weight, problem.bias)
    slices = {key: cached(problem.source_logprobs(key), problem.labels, k) for key in ("teacher", "reference")}
    dense = {key: completed(one, student, problem.labels) for key, one in slices.items()}
    assert_equal(problem.fused(SPECS[name], slices), problem.dense(SPECS[name], dense))


HEADS: dict[str, dict[str, Any]] = {
    "softcap": {"softcap": 4.0},
    "logit scale": {"logit_scale": 0.3},
    "both": {"softcap": 4.0, "logit_scale": -1.7},
    "padded": {"real_vocab": VOCAB - 3},
    "padded and capped": {"real_vocab": VOCAB - 3, "softcap": 4.0},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["sft", "label_smoothing", "eaft", "target_sft", "gem"])
def test_heads_of_all_families_are_exact(head: str, name: str) -> None:
    problem = Problem.make(2, **HEADS[head])
    student = problem.logits(problem.hidden, problem.weight, problem.bias)
    source = cached(problem.source_logprobs("teacher"), problem.labels, 5)
    dense = {"teacher": completed(source, student, problem.labels)}
    assert_equal(problem.fused(SPECS[name], {"teacher": source}), problem.dense(SPECS[name], dense))
    assert_equal(problem.fused(SPECS[name]), problem.dense(SPECS[name]))


GAMMAS: list[dict[str, Any]] = [
    {"kind": "power", "exponent": 0.5, "floor": 0.1, "mix": 0.7},
    {"kind": "power", "exponent": 2.0, "source": "reference"},
    {"kind": "concentration_power"},
    {"kind": "surprise_power", "source": "teacher"},
    {"kind": "median_power", "source": "teacher"},
    {"kind": "likelihood_ratio", "level": "sum"},
    {"kind": "anchored", "lam": 0.3},
    {"kind": "constant", "value": 0.0},
]
RESIDUALS: list[dict[str, Any]] = [
    {"kind": "student", "exclude_label": True},
    {"kind": "uniform"},
    {"kind": "uniform", "exclude_label": True},
    {"kind": "reference"},
    {"kind": "teacher", "exclude_label": True},
    {"kind": "teacher", "temperature": 0.7},
    {"kind": "reference", "top_k": 3, "tail": "drop"},
    {"kind": "geometric", "teacher": 0.3, "reference": 0.2},
    {"kind": "geometric", "teacher": 0.8, "reference": 0.7},
    {"kind": "mixture", "teacher": 0.5, "reference": 0.0, "student": 0.2},
    {"kind": "mixture", "teacher": 0.2, "reference": 0.3, "uniform": 0.2},
    {"kind": "previous"},
]
REST: list[dict[str, Any]] = [
    {"residual_loss": "ce"},
    {"weight": {"kind": "trust", "scale": 0.5}},
    {"contrast": {"kind": "reverse_kl", "coefficient": 0.2}},
    {"contrast": {"kind": "entropy_bonus", "coefficient": 0.1}, "denominator": "kept"},
]


@pytest.mark.parametrize("gamma", GAMMAS, ids=lambda gamma: gamma["kind"])
@pytest.mark.parametrize("residual", RESIDUALS, ids=lambda residual: "-".join(map(str, residual.values())))
def test_every_combination_of_trust_and_residual_is_exact(gamma: dict[str, Any], residual: dict[str, Any]) -> None:
    """Whether it has a row form or not; the rest of the design varies along."""
    rest = REST[(GAMMAS.index(gamma) + RESIDUALS.index(residual)) % len(REST)]
    if gamma["kind"] == "anchored":
        rest = {"weight": {"kind": "anchored"}, "residual_loss": "ce"}
    spec = TargetSpec.model_validate({"gamma": gamma, "residual": residual, **rest})
    problem = Problem.make(3)
    assert_equal(problem.fused(spec), problem.dense(spec))
    student = problem.logits(problem.hidden, problem.weight, problem.bias)
    slices = {key: cached(problem.source_logprobs(key), problem.labels, 4) for key in ("teacher", "reference")}
    dense = {key: completed(one, student, problem.labels) for key, one in slices.items()}
    assert_equal(problem.fused(spec, slices), problem.dense(spec, dense))


@pytest.mark.parametrize("gamma", FAMILIES)
def test_every_family_of_trust_is_exact_live_and_cached(gamma: str) -> None:
    """Beside a teacher as residual; `previous` stays live, for no cache holds it."""
    spec, problem = spec_of(gamma, "teacher"), Problem.make(12)
    assert_equal(problem.fused(spec), problem.dense(spec))
    student = problem.logits(problem.hidden, problem.weight, problem.bias)
    slices = {key: cached(problem.source_logprobs(key), problem.labels, 5) for key in ("teacher", "reference")}
    dense = {key: completed(one, student, problem.labels) for key, one in slices.items()}
    assert_equal(problem.fused(spec, slices), problem.dense(spec, dense))


LABEL_ANCHORED = [
    (name, source)
    for name, spec in SPECS.items()
    for source in sorted((spec.needs & {"teacher", "reference"}) - spec.needs_rows)
]


@pytest.mark.parametrize(("name", "source"), LABEL_ANCHORED)
def test_the_label_alone_is_enough_for_designs_that_see_no_more(name: str, source: str) -> None:
    problem = Problem.make(8)
    exact = problem.source_logprobs(source)
    at_label = LabelOnly(exact.gather(1, problem.labels.clamp(min=0)[:, None])[:, 0])
    expected = problem.dense(SPECS[name])
    assert_equal(problem.fused(SPECS[name], {source: at_label}), expected)
    leaves = [tensor.detach().requires_grad_() for tensor in (problem.hidden, problem.weight, problem.bias)]
    given = {f"{source}_label_logprobs": at_label.logprobs, **problem.columns}
    loss = dense_target_loss(problem.logits(*leaves), problem.labels, SPECS[name], **given)
    assert_equal([loss.detach(), *torch.autograd.grad(loss, leaves)], expected)


def test_the_label_alone_serves_a_dense_design_too() -> None:
    content = {"gamma": {"kind": "power", "source": "reference"}, "contrast": {"kind": "gem"}}
    spec, problem = TargetSpec.model_validate(content), Problem.make(8)
    exact = problem.source_logprobs("reference")
    at_label = LabelOnly(exact.gather(1, problem.labels.clamp(min=0)[:, None])[:, 0])
    assert_equal(problem.fused(spec, {"reference": at_label}), problem.dense(spec))


@pytest.mark.parametrize("name", ["asft", "prift_mass", "lp_sft"])
def test_the_label_alone_is_refused_by_designs_that_see_more(name: str) -> None:
    problem = Problem.make(8)
    at_label = LabelOnly(torch.zeros(TOKENS).double())
    with pytest.raises(ValueError, match="looks at the whole distribution of `reference`"):
        problem.fused(SPECS[name], {"reference": at_label})


@pytest.mark.parametrize("k", [10, 12, 20])
@pytest.mark.parametrize("anchor", ["reference", "teacher"])
def test_a_cached_top_k_is_the_whole_anchor_of_alternatives(k: int, anchor: str) -> None:
    """Not what the cache stands for but what it was made from: nothing of LP-SFT's term lies in the tail."""
    contrast = {"kind": "plateau", "coefficient": 0.7, "anchor": anchor, "temperature": 0.8}
    spec, problem = TargetSpec.model_validate({"contrast": contrast}), Problem.make(9)
    source = cached(problem.source_logprobs(anchor), problem.labels, k)
    assert not Plan.make([spec], frozenset({anchor}), capped=True, vocab=VOCAB, fewest=lambda name: k).dense
    assert_equal(problem.fused(spec, {anchor: source}), problem.dense(spec))
    both = {name: cached(problem.source_logprobs(name), problem.labels, k) for name in ("teacher", "reference")}
    mixed = spec.model_copy(update={"gamma": SPECS["dft"].gamma, "residual": SPECS["target_sft"].residual})
    student = problem.logits(problem.hidden, problem.weight, problem.bias)
    dense = {name: completed(one, student, problem.labels) for name, one in both.items() if name != anchor}
    if anchor == "reference":  # the residual is the teacher's: what its cache stands for
        assert_equal(problem.fused(mixed, both), problem.dense(mixed, dense))


def test_alternatives_beyond_a_short_cache_row_are_those_that_it_stands_for() -> None:
    problem = Problem.make(9)
    full = cached(problem.source_logprobs("reference"), problem.labels, 12)
    ids, logprobs = full.ids.clone(), full.logprobs.clone()
    ids[3, 5:], logprobs[3, 5:] = -1, -torch.inf
    short = CachedSlice(ids, logprobs, full.label_logprob)
    student = problem.logits(problem.hidden, problem.weight, problem.bias)
    dense = {"reference": completed(short, student, problem.labels)}
    assert_equal(problem.fused(SPECS["lp_sft"], {"reference": short}), problem.dense(SPECS["lp_sft"], dense))


@pytest.mark.parametrize("name", ["sft", "profit", "asft", "gem", "talr", "label_smoothing"])
@pytest.mark.parametrize("denominator", ["all", "kept", "weights"])
def test_a_weight_of_two_is_the_token_twice(name: str, denominator: str) -> None:
    """In value, gradient and denominator; the statistics of a batch count each token once, so talr's T is given."""
    problem = Problem.make(10)
    spec = SPECS[name].model_copy(update={"denominator": denominator})
    twice = torch.arange(TOKENS) % 3 == 1
    order = torch.cat([torch.arange(TOKENS), torch.arange(TOKENS)[twice]])

    def found(index: Tensor, weights: Tensor | None) -> list[Tensor]:
        hidden = problem.hidden.detach().requires_grad_()
        columns = {key: column[index] for key, column in problem.columns.items() if key != "weights"}
        sources = {key: source.select(index) for key, source in problem.sources.items()}
        gamma = torch.linspace(0.1, 1, TOKENS).double()[index] if spec.gamma.scope == "batch" else None
        loss = fused_target_loss(
            hidden[index],
            problem.weight,
            problem.labels[index],
            spec,
            **sources,
            **columns,
            weights=weights,
            gamma=gamma,
        )
        assert loss.denominator is not None
        return [loss.loss_sum.detach(), loss.denominator, *torch.autograd.grad(loss.loss_sum, hidden)]

    weighted = found(torch.arange(TOKENS), torch.where(twice, 2.0, 1.0).double())
    assert_equal(weighted, found(order, None))
    if denominator == "all":
        assert float(weighted[1]) > int((problem.labels >= 0).sum())


def test_dense_tensors_may_stand_in_for_models() -> None:
    problem = Problem.make(4)
    sources = {name: problem.source_logprobs(name) for name in problem.sources}
    for name in ("target_sft", "asft", "prift"):
        assert_equal(problem.fused(SPECS[name], sources), problem.dense(SPECS[name]))


def test_a_teacher_with_other_padding_counts_on_the_real_vocabulary_only() -> None:
    problem = Problem.make(5, real_vocab=VOCAB - 3)
    wide = HiddenHead(torch.randn(TOKENS, 5).double(), torch.randn(VOCAB + 9, 5).double())
    logits = wide.hidden @ wide.weight.T
    spec = SPECS["target_sft"]
    expected = problem.dense(spec, {"teacher": logits})
    assert_equal(problem.fused(spec, {"teacher": wide}), expected)
    assert_equal(problem.fused(spec, {"teacher": logits}), expected)


def test_a_cache_row_may_keep_fewer_entries_than_others() -> None:
    problem = Problem.make(6)
    full = cached(problem.source_logprobs("teacher"), problem.labels, 6)
    short = torch.arange(TOKENS) % 2 == 0
    ids, logprobs = full.ids.clone().int(), full.logprobs.clone()
    ids[short, 2:], logprobs[short, 2:] = -1, -torch.inf
    ragged = CachedSlice(ids, logprobs, full.label_logprob)
    student = problem.logits(problem.hidden, problem.weight, problem.bias)
    dense = {"teacher": completed(ragged, student, problem.labels)}
    assert_equal(problem.fused(SPECS["target_sft"], {"teacher": ragged}), problem.dense(SPECS["target_sft"], dense))


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
def test_the_result_does_not_depend_on_the_chunks(rows: int) -> None:
    problem = Problem.make(7)
    source = {"teacher": cached(problem.source_logprobs("teacher"), problem.labels, 5)}
    for name in ("target_sft", "talr", "gem"):
        expected = problem.fused(SPECS[name], source, max_chunk_bytes=2**30)
        assert_equal(problem.fused(SPECS[name], source, max_chunk_bytes=rows * 20 * VOCAB * 8), expected)


@pytest.mark.parametrize("vocab", [2, 3])
def test_tiny_vocabularies(vocab: int) -> None:
    hidden, weight = torch.randn(5, 4).double().requires_grad_(), torch.randn(vocab, 4).double().requires_grad_()
    labels = torch.arange(5) % vocab
    for name in ("sft", "label_smoothing", "eaft", "dft"):
        found = fused_target_loss(hidden, weight, labels, SPECS[name]).loss_sum
        expected = dense_target_loss(hidden @ weight.T, labels, SPECS[name])
        grads = (torch.autograd.grad(loss, (hidden, weight)) for loss in (found, expected))
        assert_equal([found.detach(), *next(grads)], [expected.detach(), *next(grads)])
