"""A model that does not hold what its configuration says is refused, by the names of its tensors."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from qtarget.spaces.errors import UserError
from qtarget.trainers.models.load import load_model
from qtarget.trainers.settings import LoraSettings, ModelSettings

LAYER = "model.layers.1.mlp.up_proj.weight"
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def folder(tmp_path, make_model, tokenizer):
    make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path


def change(folder, edit):
    """Rewrite the tensors of the model."""
    file = folder / "base" / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, {"format": "pt"})


def configure(folder, **changes):
    file = folder / "base" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(folder, *parts, precision="fp32", field="model.path"):
    with pytest.raises(UserError) as caught:
        load_model(ModelSettings(path="base"), folder, precision)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert caught.value.field == field


def test_a_model_without_its_head_is_refused(folder, make_model):
    make_model().model.save_pretrained(folder / "base")
    refused(folder, "lack lm_head.weight", "random")


def test_a_tied_model_needs_no_head_in_its_files(folder, make_model):
    configure(folder, tie_word_embeddings=True)
    change(folder, lambda tensors: tensors.pop("lm_head.weight"))
    model = load_model(ModelSettings(path="base"), folder, "fp32")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_missing_layers_are_counted(folder):
    configure(folder, num_hidden_layers=4)
    refused(folder, "model.layers.2.input_layernorm.weight", "and 15 more")


def test_layers_beyond_the_configuration_are_refused_unless_named(folder):
    configure(folder, num_hidden_layers=1)
    refused(folder, "model.layers.1.input_layernorm.weight", "and 6 more", field="model.unused_tensors")
    settings = ModelSettings(path="base", unused_tensors=(r"model\.layers\.1\..*",))
    assert len(load_model(settings, folder, "fp32").model.layers) == 1
    with pytest.raises(UserError, match=r"and 6 more"):
        load_model(ModelSettings(path="base", unused_tensors=("layers",)), folder, "fp32")


def test_shapes_are_told(folder):
    change(folder, lambda tensors: tensors.update({LAYER: torch.ones(10, 32)}))
    refused(folder, f"{LAYER} ([10, 32] instead of [64, 32])")


@pytest.mark.parametrize(
    ("name", "value", "precision"),
    [(LAYER, NAN, "fp32"), ("lm_head.weight", INF, "bf16"), ("model.norm.weight", -INF, "fp32")],
)
def test_weights_that_are_not_finite_are_refused(folder, name, value, precision):
    change(folder, lambda tensors: tensors[name].view(-1)[3:5].fill_(value))
    size = load_file(folder / "base" / "model.safetensors")[name].numel()
    refused(folder, f"{name} (2 of {size} entries)", precision=precision)


def test_a_folder_of_adapters_is_no_model(folder, make_model):
    from qtarget.trainers.models.lora import attach_lora

    adapted = attach_lora(load_model(ModelSettings(path="base"), folder, "fp32"), LoraSettings(), seed=0)
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)
    with pytest.raises(UserError, match="holds adapters for another"):
        load_model(ModelSettings(path="adapter"), folder, "fp32")
