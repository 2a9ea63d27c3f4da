"""A model folder scored on a file of problems, as the command does it."""

import json

import pytest
from tiny_llama import character_tokenizer, tiny_llama

from qtarget.evaluation.scoring.evaluate import Evaluation
from qtarget.evaluation.scoring.model import run
from qtarget.evaluation.settings import EvaluationSettings, TaskSettings
from qtarget.spaces.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("world")
    tokenizer = character_tokenizer()
    tokenizer.save_pretrained(base / "model")
    tiny_llama(0, len(tokenizer)).save_pretrained(base / "model")
    rows = [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(12)]
    (base / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return base


SETTINGS = EvaluationSettings(
    tasks=(TaskSettings(path="sums.jsonl", kind="numeric"),), problems=10, max_new_tokens=8, batch_size=4
)


@pytest.mark.slow
def test_result_and_items_are_written_and_resumed(folder, tmp_path):
    progress = []
    result = run("model", SETTINGS, folder, tmp_path / "out", on_block=lambda *done: progress.append(done) and None)
    assert progress == [(10, 10)]
    assert Evaluation.model_validate_json((tmp_path / "out/evaluation.json").read_text()) == result
    items = (tmp_path / "out/items.jsonl").read_text()
    assert len(items.splitlines()) == result.num_problems == 10
    again = run("model", SETTINGS, folder, tmp_path / "out")
    assert again.item_scores == result.item_scores
    assert (tmp_path / "out/items.jsonl").read_text() == items


def test_without_a_folder_nothing_is_written(folder):
    before = sorted(folder.iterdir())
    assert run("model", SETTINGS, folder, precision="bf16").num_problems == 10
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("model", ["./no-such-folder", "sums.jsonl"])
def test_a_model_that_cannot_be_read_is_the_users_error(folder, model):
    with pytest.raises(UserError):
        run(model, SETTINGS, folder)
