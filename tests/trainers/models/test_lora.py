"""Adapters by pattern, modules trained in full, and merging that computes what base and adapters did."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from qtarget.evaluation.generation.vllm_backend import merged_weights
from qtarget.spaces.errors import UserError
from qtarget.trainers.models.head import hidden_states, output_head
from qtarget.trainers.models.lora import attach_lora, check_added, describe_adapters, detached, unmatched
from qtarget.trainers.models.merging import merged, tied
from qtarget.trainers.settings import LoraSettings
from qtarget.trainers.teachers.sources import FrozenModel

INPUTS = torch.tensor([[5, 6, 7, 8, 9, 3]])


def tie(model):
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return model


def moved(adapted):
    """Every trained weight changed, as by a training."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return adapted.eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=INPUTS).logits


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (".*q_proj", 2),
        (r"model\.layers\.1\..*(q|v)_proj", 2),
        ("q_proj", 2),
        (["layers.0.self_attn.k_proj", "up_proj"], 3),
        ("all-linear", 14),
    ],
)
def test_targets_are_names_patterns_or_all(make_model, targets, count):
    lora = LoraSettings(target_modules=targets)
    adapted = attach_lora(make_model(), lora, seed=0)
    assert len(adapted.targeted_module_names) == count and not unmatched(adapted, lora)
    assert LoraSettings.model_validate(json.loads(lora.model_dump_json())) == lora


@pytest.mark.parametrize("targets", ["(q_proj", [], [""], 3, {"a": 1}])
def test_what_is_neither_is_refused_in_one_sentence(targets):
    with pytest.raises(ValidationError, match="`target_modules` must be") as caught:
        LoraSettings(target_modules=targets)
    assert caught.value.error_count() == 1


def test_identities_of_earlier_settings_stay():
    assert LoraSettings().model_dump(mode="json").keys() == {"rank", "alpha", "dropout", "target_modules"}
    assert "modules_to_save" in LoraSettings(modules_to_save=("norm",)).model_dump(mode="json")


def test_half_matched_lists_are_said(make_model):
    lora = LoraSettings(target_modules=("q_proj", "query_key_value"), modules_to_save=("norm",))
    adapted = attach_lora(make_model(), lora, seed=0)
    assert unmatched(adapted, lora) == ["query_key_value"]
    line, notes = describe_adapters(adapted, lora)
    assert line.startswith("rank 16 on 2 q_proj; norm in full; ") and "query_key_value" not in line
    assert notes == ["`lora.target_modules` names 'query_key_value', which no module is called"]


@pytest.mark.parametrize(
    ("lora", "part", "field"),
    [
        ({"target_modules": "q_pro"}, "down_proj, gate_proj, k_proj", "target_modules"),
        ({"target_modules": r".*\.q"}, r"got '.*\\.q'", "target_modules"),
        ({"target_modules": ("norm",)}, "must name linear layers", "target_modules"),
        ({"modules_to_save": ("embed",)}, "'embed' is none; known are", "modules_to_save"),
    ],
)
def test_what_fits_no_module_is_refused_with_those_there_are(make_model, lora, part, field):
    with pytest.raises(UserError) as caught:
        attach_lora(make_model(), LoraSettings(**lora), seed=0)
    assert part in str(caught.value) and caught.value.field == f"training.lora.{field}"


CASES = {
    "adapted embedding": {"target_modules": ("embed_tokens", "q_proj")},
    "adapted by a pattern": {"target_modules": ".*(embed_tokens|v_proj)"},
    "embedding in full": {"modules_to_save": ("embed_tokens",)},
    "head in full": {"modules_to_save": ("lm_head",)},
    "both in full": {"modules_to_save": ("embed_tokens", "lm_head")},
    "all linear": {},
}


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings=True`", "ignore:`is_gradient_checkpointing`"
)  # peft's, when it loads the adapter again
@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_merged_model_computes_what_base_and_adapters_did(make_model, tmp_path, case, is_tied):
    base = tie(make_model()) if is_tied else make_model()
    base.save_pretrained(tmp_path / "base")
    lora = LoraSettings(rank=4, alpha=8.0, **CASES[case])
    adapted = moved(attach_lora(copy.deepcopy(base), lora, seed=0))
    expected = logits(adapted)
    assert (expected - logits(base)).abs().max() > 1e-3
    head = output_head(adapted)  # what the training computes with
    torch.testing.assert_close(head.logits(hidden_states(adapted, INPUTS)), expected)
    handed = dict(merged_weights(adapted))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    whole = merged(adapted)
    stays_tied = is_tied and "adapted" not in case
    assert tied(whole) == whole.config.tie_word_embeddings == stays_tied
    whole.save_pretrained(tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(logits(again.eval()), expected, atol=1e-5, rtol=1e-5)
    for name, tensor in loaded.named_parameters():
        torch.testing.assert_close(handed.pop(name), tensor, atol=1e-5, rtol=1e-5)
    assert not handed, "other engines get the same weights"


def test_modules_in_full_leave_base_and_reference_as_they_were(make_model):
    base = tie(make_model())
    expected = FrozenModel(copy.deepcopy(base)).head.weight
    adapted = moved(attach_lora(base, LoraSettings(rank=2, modules_to_save=("embed_tokens", "lm_head")), seed=0))
    frozen = FrozenModel(adapted, adapters_off=True)
    assert torch.equal(frozen.head.weight, expected)
    assert not torch.equal(output_head(adapted).weight, expected)
    restored = detached(adapted)
    assert tied(restored) and torch.equal(restored.lm_head.weight, expected)


def test_added_tokens_are_trained_or_refused(make_model):
    for lora, fits in (
        ({}, False),
        ({"modules_to_save": ("embed_tokens",)}, False),
        ({"modules_to_save": ("embed_tokens", "lm_head")}, True),
    ):
        adapted = attach_lora(make_model(), LoraSettings(**lora), seed=0)
        check_added(adapted, ())
        if fits:
            check_added(adapted, ("<ans>",))
        else:
            with pytest.raises(UserError, match=r"<ans>.*modules_to_save: \[embed_tokens, lm_head\]"):
                check_added(adapted, ("<ans>",))
    tied_base = attach_lora(tie(make_model()), LoraSettings(modules_to_save=("embed_tokens",)), seed=0)
    check_added(tied_base, ("<ans>",))
