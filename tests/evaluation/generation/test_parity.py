"""A backend is compared with the model's own generate() before it is used, and what it may not be is said."""

import copy
import random

import pytest
import torch
from tiny_llama import tiny_llama, with_adapters
from transformers import MambaConfig, MambaForCausalLM

from qtarget.evaluation.generation.backends import PlainBackend, TransformersBackend
from qtarget.evaluation.generation.completions import Request, Sampling
from qtarget.evaluation.generation.parity import PROMPTS, Parity, checked, parity
from qtarget.evaluation.generation.vllm_backend import VllmBackend, merged_weights
from qtarget.evaluation.problems.load import Problem
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow

GREEDY = Sampling(max_new_tokens=40, end_tokens=frozenset({2}), batch_size=8)
PROBLEMS = [
    Problem(id=str(n), task="t", question_hash=str(n), prompt=f"{n} + {n * n} =", gold="1", chat=False)
    for n in range(20)
]


def requests_of(count):
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(4, 53) for _ in range(rng.randrange(1, 30))) for _ in range(count)]
    return [Request(index, prompt, key=rng.getrandbits(63)) for index, prompt in enumerate(prompts)]


def test_parity_finds_equal_backends_equal_and_a_wrong_one_wrong(model, tokenizer):
    requests = requests_of(10)
    same = parity(TransformersBackend(model, tokenizer), model, tokenizer, requests, GREEDY)
    assert same == Parity(10, 10, 0.0) and same.agrees(1e-4)
    other = TransformersBackend(tiny_llama(1, len(tokenizer)), tokenizer)
    wrong = parity(other, model, tokenizer, requests, GREEDY)
    assert wrong.identical < 3 and not wrong.agrees(0.5)


def test_a_near_tie_is_measured_in_logits(model, tokenizer):
    """A head moved by rounding's size turns few answers, and the gap says how little it took."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.lm_head.weight.add_(
            2e-3 * torch.randn(moved.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
        )
    found = parity(TransformersBackend(moved, tokenizer), model, tokenizer, requests_of(60), GREEDY)
    assert 0 < found.identical < 60
    assert 0 < found.largest_gap < 0.5 and found.agrees(0.5) and not found.agrees(found.largest_gap / 2)


def test_the_default_backend_passes_and_the_record_says_so(model, tokenizer):
    found = checked(
        "transformers", lambda m: TransformersBackend(m, tokenizer), model, tokenizer, PROBLEMS, greedy=True
    )
    assert found.as_dict() == {
        "used": "transformers", "compared": PROMPTS, "identical": PROMPTS, "largest_gap": 0.0, "note": found.note,
    }  # fmt: skip
    assert "4 of 4 answers equal those of plain generate()" in found.note
    assert isinstance(found.backend(model), TransformersBackend)


def test_what_a_generation_config_asks_for_in_vain_is_said(tokenizer):
    model = tiny_llama(0, len(tokenizer))
    model.generation_config.num_beams = 4
    model.generation_config.no_repeat_ngram_size = 3
    found = checked("transformers", lambda m: TransformersBackend(m, tokenizer), model, tokenizer, PROBLEMS, True)
    assert found.name == "transformers"
    assert found.note.endswith("set aside from the model's generation_config: num_beams=4, no_repeat_ngram_size=3")


def wrong_one(tokenizer):
    other = tiny_llama(1, len(tokenizer))
    return lambda model: TransformersBackend(other, tokenizer)


def test_a_backend_that_answers_otherwise_is_replaced_in_a_greedy_study(model, tokenizer, caplog):
    found = checked("transformers", wrong_one(tokenizer), model, tokenizer, PROBLEMS, greedy=True)
    assert found.name == "plain" and isinstance(found.backend(model), PlainBackend)
    assert "differ by up to" in found.note and "using plain generate()" in caplog.text


def test_a_backend_that_answers_otherwise_is_refused_in_a_study_that_samples(model, tokenizer):
    with pytest.raises(UserError, match=r"(?s)must answer as the model's own generate\(\).*temperature: 0") as raised:
        checked("transformers", wrong_one(tokenizer), model, tokenizer, PROBLEMS, greedy=False)
    assert raised.value.field == "evaluation.backend"


def test_an_architecture_that_batches_cannot_serve_is_answered_one_problem_at_a_time(tokenizer):
    model = MambaForCausalLM(MambaConfig(vocab_size=53, hidden_size=16, num_hidden_layers=1, state_size=4))
    found = checked(
        "transformers", lambda m: TransformersBackend(m, tokenizer), model, tokenizer, PROBLEMS, greedy=True
    )
    assert found.name == "plain" and "attention layers" in found.note


def test_the_plain_backend_needs_no_check(model, tokenizer):
    found = checked("plain", wrong_one(tokenizer), model, tokenizer, PROBLEMS, greedy=True)
    assert found.parity is None and isinstance(found.backend(model), PlainBackend)


def test_missing_vllm_names_the_extra(tmp_path, model, tokenizer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    with pytest.raises(UserError, match=r"qtarget\[vllm\]"):
        VllmBackend(model, tokenizer, tmp_path)


def test_weights_are_handed_over_as_the_base_names_them_with_adapters_merged(tokenizer):
    base = tiny_llama(6, len(tokenizer))
    names = [name for name, _ in base.named_parameters()]
    assert [name for name, _ in merged_weights(base)] == names
    adapted = with_adapters(copy.deepcopy(base))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = adapted(ids).logits
        weights = dict(merged_weights(adapted))
        assert list(weights) == names
        base.load_state_dict(weights, strict=False)
        torch.testing.assert_close(base(ids).logits, expected, atol=5e-5, rtol=1e-5)  # two products become one sum
        assert torch.equal(adapted(ids).logits, expected), "left as it was"
