"""What a study asks for: the cache when it is there, one pass of the teacher when it is not."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_llama import character_tokenizer, tiny_llama

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.batches import collate
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.models.load import load_model
from qtarget.trainers.settings import CacheSettings, DataSettings, ModelSettings
from qtarget.trainers.teachers.cached import CachedModels
from qtarget.trainers.teachers.format import CacheError
from qtarget.trainers.teachers.sources import FrozenModel, label_logprobs

TEACHER = ModelSettings(path="teacher")


@pytest.fixture
def models(tmp_path: Path) -> CachedModels:
    tokenizer = character_tokenizer()
    tiny_llama(0, vocab=len(tokenizer)).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    (tmp_path / "data.jsonl").write_text(
        "\n".join(f'{{"prompt": "{n}+{n}=", "completion": "{n + n}."}}' for n in range(20))
    )
    settings = DataSettings(path="data.jsonl", max_length=64)
    data = load_demonstrations(settings, tokenizer, tmp_path)
    cache = CacheSettings(k=len(tokenizer), dtype="float32")
    return CachedModels(data, settings, tokenizer, tmp_path, settings=cache, root=tmp_path / "root")


def test_a_missing_cache_is_an_error_to_open_and_is_built_on_request(models: CachedModels) -> None:
    with pytest.raises(CacheError, match="qtarget cache build"):
        models.open(TEACHER)
    progress: list[tuple[int, int]] = []
    built = models.open_or_build(TEACHER, on_progress=lambda done, total: progress.append((done, total)))
    assert progress == [(models.data.num_labels,) * 2]
    live = FrozenModel(load_model(TEACHER, models.base, "fp32"))
    batch = collate(models.data[3:6], [3, 4, 5], 0)
    rows = built.rows(batch)
    expected = live.head.logits(live.rows(batch).hidden).log_softmax(-1)
    torch.testing.assert_close(rows.logprobs, expected.gather(1, rows.ids), rtol=1e-4, atol=1e-4)


def test_a_built_cache_does_not_load_the_teacher_again(models: CachedModels) -> None:
    models.open_or_build(TEACHER)
    (models.base / "teacher" / "config.json").rename(models.base / "config.json")
    with pytest.raises(CacheError, match="differs in model"):
        models.open(TEACHER)  # the configuration is part of the content
    (models.base / "config.json").rename(models.base / "teacher" / "config.json")
    for path in (models.base / "teacher").glob("tokenizer*"):
        path.unlink()  # loading would now fail
    assert len(models.open_or_build(TEACHER).cache) == 20


def test_labels_alone_have_their_own_cache_and_the_rows_serve_where_they_are_there(models: CachedModels) -> None:
    labels = models.open_or_build(TEACHER, rows=False)
    assert not labels.cache.has_rows and models.open(TEACHER, rows=False).cache.folder == labels.cache.folder
    with pytest.raises(CacheError, match="the nearest there is differs in k, content"):
        models.open(TEACHER)
    rows = models.open_or_build(TEACHER)
    assert rows.cache.has_rows and rows.cache.folder != labels.cache.folder
    assert models.open(TEACHER, rows=False).cache.folder == labels.cache.folder, "what was used goes on being used"
    batch = collate(models.data[3:6], [3, 4, 5], 0)
    torch.testing.assert_close(label_logprobs(labels, batch), label_logprobs(rows, batch), rtol=1e-5, atol=1e-5)
    shutil.rmtree(labels.cache.folder)
    assert models.open_or_build(TEACHER, rows=False).cache.folder == rows.cache.folder
    models.settings = CacheSettings(k=3, dtype="float32")
    assert models.open_or_build(TEACHER, rows=False).cache.folder == labels.cache.folder, "k is none of theirs"


def test_a_torn_cache_is_repaired(models: CachedModels) -> None:
    folder = models.open_or_build(TEACHER).cache.folder
    shard = folder / "shard-00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-8])
    with pytest.raises(CacheError, match="torn"):
        models.open(TEACHER)
    models.open_or_build(TEACHER)
    assert shard.read_bytes() == whole


def test_other_weights_get_their_own_cache(models: CachedModels) -> None:
    first = models.open_or_build(TEACHER).cache.folder
    shutil.copytree(models.base / "teacher", models.base / "other")
    assert models.open(ModelSettings(path="other")).cache.folder == first, "the same content shares"
    tiny_llama(1, vocab=len(models.tokenizer)).save_pretrained(models.base / "other")
    assert models.open_or_build(ModelSettings(path="other")).cache.folder != first


def test_the_bias_is_measured_for_a_student(models: CachedModels) -> None:
    models.settings = CacheSettings(k=4)
    models.open_or_build(TEACHER)
    student = tiny_llama(1, vocab=len(models.tokenizer))
    bias = models.bias(TEACHER, student, examples=6)
    chosen = [0, 3, 6, 10, 13, 16]
    assert bias.tokens == sum(models.data[index].num_labels for index in chosen)
    assert 0 < bias.kl < bias.student_kl
    assert 0.9 < bias.worst_cosine <= bias.cosine < 1
    itself = load_model(TEACHER, models.base, "fp32")
    assert models.bias(TEACHER, itself, examples=6).kl < 1e-5 < bias.kl


def test_a_teacher_with_other_tokens_is_refused(models: CachedModels) -> None:
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<strange>"])
    tokenizer.save_pretrained(models.base / "teacher")
    with pytest.raises(UserError, match="must have the vocabulary of the model"):
        models.open_or_build(TEACHER)
