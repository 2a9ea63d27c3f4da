"""The key of a cache: found from files, and different whenever the numbers would be."""

import shutil
from pathlib import Path

import pytest
from cache_world import demonstrations
from tiny_llama import character_tokenizer, tiny_llama

from qtarget.spaces.errors import UserError
from qtarget.trainers.settings import CacheSettings, ModelSettings
from qtarget.trainers.teachers.key import cache_key, model_content


def saved(folder: Path, seed: int = 0) -> ModelSettings:
    tiny_llama(seed, vocab=60).save_pretrained(folder)
    return ModelSettings(path=folder.name)


def test_the_content_of_a_model_is_its_files_not_its_place(tmp_path: Path) -> None:
    first = model_content(saved(tmp_path / "a"), tmp_path)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("a note")
    assert model_content(ModelSettings(path="b"), tmp_path) == first
    assert model_content(saved(tmp_path / "c", seed=1), tmp_path) != first
    weights = tmp_path / "b" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert model_content(ModelSettings(path="b"), tmp_path) != first


def test_a_gguf_file_counts_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF one")
    first = model_content(ModelSettings(path="m.gguf"), tmp_path)
    assert model_content(ModelSettings(path=".", gguf_file="m.gguf"), tmp_path) == first
    (tmp_path / "m.gguf").write_bytes(b"GGUF two")
    assert model_content(ModelSettings(path="m.gguf"), tmp_path) != first


def test_a_model_on_the_hub_counts_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for commit in ("1" * 40, "2" * 40):
        repository = tmp_path / commit[0] / "models--someone--tiny"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        settings = ModelSettings(path="someone/tiny")
        contents.append(model_content(settings, tmp_path, hub_cache=repository.parent))
    assert contents[0] != contents[1]
    with pytest.raises(UserError, match="someone/other cannot be found"):
        model_content(ModelSettings(path="someone/other"), tmp_path, hub_cache=tmp_path / "1")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"must be a model folder with \*.safetensors or a GGUF file"):
        model_content(ModelSettings(path="empty"), tmp_path)


def test_the_key_follows_template_data_and_vocabulary(tmp_path: Path) -> None:
    model, tokenizer, data = saved(tmp_path / "a"), character_tokenizer(), demonstrations()
    first = cache_key(model, tmp_path, tokenizer, data, max_length=64)
    assert first.vocab == len(tokenizer) and first.bits == 6
    assert cache_key(model, tmp_path, character_tokenizer(), data, max_length=64) == first
    other = cache_key(model, tmp_path, character_tokenizer("{{ messages }}"), data, max_length=64)
    assert first.differences(other) == ["template"]
    other = cache_key(
        model, tmp_path, tokenizer, demonstrations(seed=1), max_length=64, cache=CacheSettings(k=8), precision="bf16"
    )
    assert first.differences(other) == ["data", "k", "precision"]
    tokenizer.add_tokens(["<new>"])
    assert first.differences(cache_key(model, tmp_path, tokenizer, data, max_length=64)) == ["tokenizer", "vocab"]
