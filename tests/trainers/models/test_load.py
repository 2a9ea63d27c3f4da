"""Loading models and tokenizers, from folders and GGUF files, with and without adapters."""

from __future__ import annotations

import copy
import json
import sys

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedTokenizerFast,
)

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.batches import collate
from qtarget.trainers.models.head import hidden_states, output_head
from qtarget.trainers.models.load import attach_lora, check_vocabulary, load_model, load_tokenizer, model_fingerprint
from qtarget.trainers.settings import LoraSettings, ModelSettings
from qtarget.trainers.teachers.sources import FrozenModel

INPUTS = torch.tensor([[5, 6, 7, 8, 9]])
SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


@pytest.fixture
def folder(tmp_path, make_model, tokenizer):
    make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path


def logits(model):
    with torch.no_grad():
        return model(input_ids=INPUTS).logits


def test_a_local_folder_gives_its_weights_and_tokenizer(folder, make_model, tokenizer):
    model = load_model(ModelSettings(path="base"), folder, "fp32")
    assert torch.equal(logits(model), logits(make_model()))
    assert load_tokenizer(ModelSettings(path="./base"), folder).get_vocab() == tokenizer.get_vocab()
    assert model_fingerprint(model) == model_fingerprint(make_model())
    assert model_fingerprint(model) != model_fingerprint(make_model(seed=1))


def test_precision_is_that_of_the_weights(folder):
    model = load_model(ModelSettings(path="base"), folder, "bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_template_file_replaces_the_tokenizers_own(folder):
    (folder / "t.jinja").write_text("{{ messages[0].content }}!")
    tokenizer = load_tokenizer(ModelSettings(path="base", chat_template="t.jinja"), folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hey"}], tokenize=False) == "hey!"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"path": "./missing"}, "model.path"),
        ({"path": "missing.gguf"}, "model.path"),
        ({"path": "base/config.json"}, "model.path"),
        ({"path": "base", "chat_template": "missing.jinja"}, "model.chat_template"),
    ],
)
def test_what_is_not_there_is_refused_with_its_field(folder, settings, field):
    with pytest.raises(UserError) as caught:
        load_tokenizer(ModelSettings(**settings), folder)
    assert caught.value.field == field


def test_weights_that_are_not_safetensors_are_refused(folder, make_model):
    base = folder / "base"
    (base / "model.safetensors").unlink()
    torch.save(make_model().state_dict(), base / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_model(ModelSettings(path="base"), folder, "fp32")


def test_code_of_a_model_is_not_run_unless_allowed(folder):
    config = json.loads((folder / "base" / "config.json").read_text())
    config |= {
        "model_type": "unheard-of",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    }
    (folder / "base" / "config.json").write_text(json.dumps(config))
    (folder / "base" / "evil.py").write_text(f"open({str(folder / 'was_run')!r}, 'w')")
    with pytest.raises(UserError):
        load_model(ModelSettings(path="base"), folder, "fp32")
    assert not (folder / "was_run").exists()


def test_equal_seeds_give_equal_adapters_whatever_was_drawn_before(make_model):
    states = []
    for noise in (0, 3):
        torch.rand(noise)
        adapted = attach_lora(make_model(), LoraSettings(rank=2), seed=4)
        states.append({name: p.detach() for name, p in adapted.named_parameters() if p.requires_grad})
    assert states[0].keys() == states[1].keys()
    assert all("lora_" in name and torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("extra", ["lora", "gguf"])
def test_a_missing_extra_is_named(tmp_path, make_model, monkeypatch, extra):
    monkeypatch.setitem(sys.modules, {"lora": "peft", "gguf": "gguf"}[extra], None)
    (tmp_path / "tiny.gguf").touch()
    with pytest.raises(UserError, match=rf"pip install qtarget\[{extra}\]"):
        if extra == "lora":
            attach_lora(make_model(), LoraSettings(), seed=0)
        else:
            load_model(ModelSettings(path="tiny.gguf"), tmp_path, "fp32")


def test_unknown_target_modules_are_refused(make_model):
    with pytest.raises(UserError, match="nonsense") as caught:
        attach_lora(make_model(), LoraSettings(target_modules=("nonsense",)), seed=0)
    assert caught.value.field == "training.lora.target_modules"


def test_an_adapted_head_is_refused(make_model):
    adapted = attach_lora(make_model(), LoraSettings(target_modules=("lm_head",)), seed=0)
    with pytest.raises(UserError, match="output head must be one linear layer"):
        output_head(adapted)


def test_reference_of_an_adapted_model_is_its_base(make_model, sums):
    adapted = attach_lora(make_model(), LoraSettings(rank=4, dropout=0.5), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    adapted.train()
    batch = collate(sums[:3], [0, 1, 2], 0)
    found = FrozenModel(adapted, adapters_off=True).rows(batch)
    expected = FrozenModel(make_model()).rows(batch)
    assert torch.equal(found.hidden, expected.hidden)
    assert not torch.equal(hidden_states(adapted.eval(), batch.inputs)[batch.valid], expected.hidden)
    assert any(parameter.requires_grad for parameter in adapted.parameters())


@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (Gemma2ForCausalLM, Gemma2Config(**SMALL, final_logit_softcapping=2.0)),
        (CohereForCausalLM, CohereConfig(**SMALL, logit_scale=0.25)),
        (GraniteForCausalLM, GraniteConfig(**SMALL, logits_scaling=3.0)),
    ],
)
def test_caps_and_scales_of_the_head_are_found(model_class, config):
    torch.manual_seed(0)
    model = model_class(config).eval()
    torch.nn.init.normal_(model.get_output_embeddings().weight, std=1.0)
    with torch.no_grad():
        head = output_head(model)
        found = head.logits(hidden_states(model, INPUTS))
    torch.testing.assert_close(found, logits(model))
    assert (head.softcap, head.logit_scale) != (None, 1.0)


def test_a_head_that_does_more_is_refused(make_model):
    model = make_model()
    forward = type(model).forward

    class Odd(type(model)):
        def forward(self, *args, **kwargs):
            output = forward(self, *args, **kwargs)
            output.logits = output.logits + torch.arange(output.logits.shape[-1])
            return output

    model.__class__ = Odd
    with pytest.raises(UserError, match="linear head over its last hidden state"):
        output_head(model)


def test_label_logprobs_are_those_of_a_plain_softmax(make_model, monkeypatch):
    monkeypatch.setattr("qtarget.trainers.models.head.LOGPROB_CHUNK_BYTES", 512)
    model = make_model(dtype=torch.float64)
    head = output_head(model)
    hidden, labels = torch.randn(7, 32, dtype=torch.float64), torch.arange(7)
    expected = (hidden @ head.weight.T).softmax(1).gather(1, labels[:, None]).log().squeeze(1)
    torch.testing.assert_close(head.label_logprobs(hidden, labels), expected.detach())


def test_vocabularies_must_mean_the_same_by_every_id(tokenizer):
    assert check_vocabulary(tokenizer, copy.deepcopy(tokenizer)) == len(tokenizer)
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<new>"])
    with pytest.raises(UserError, match=r"1 tokens differ in their ids \(model / teacher: '<new>': None / ") as caught:
        check_vocabulary(tokenizer, other)
    assert caught.value.field == "teacher.path"


def write_gguf(model, path):
    """A Llama in llama.cpp's format with a byte-level vocabulary, unquantised."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*map(chr, range(65, 63 + config.vocab_size)), "AB", "BA"])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["A B", "B A"])  # older transformers read a list of one as its item
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        stem, suffix = name.rsplit(".", 1)
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(stem.split(".")[-1])
        if heads is not None:  # llama.cpp interleaves the halves of each rotary pair
            tensor = tensor.view(heads, 2, -1, tensor.shape[-1]).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_gives_a_plain_model_that_trains_and_saves(tmp_path, make_model):
    original = make_model()
    write_gguf(original, tmp_path / "tiny.gguf")
    model = load_model(ModelSettings(path="tiny.gguf"), tmp_path, "fp32")
    torch.testing.assert_close(logits(model), logits(original), atol=1e-5, rtol=1e-5)
    assert not hasattr(model.config, "quantization_config")
    named = load_model(ModelSettings(path=".", gguf_file="tiny.gguf"), tmp_path, "bf16")
    assert named.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "saved")
    again = load_model(ModelSettings(path="saved"), tmp_path, "fp32")
    assert torch.equal(logits(again), logits(model))
    assert isinstance(load_tokenizer(ModelSettings(path="tiny.gguf"), tmp_path), PreTrainedTokenizerFast)
