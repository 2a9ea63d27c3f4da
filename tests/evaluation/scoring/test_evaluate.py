"""The whole evaluation on a real (tiny) model: scores, blocks, early ends, and resuming after a crash."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tiny_llama import character_tokenizer, tiny_llama

from qtarget.evaluation.generation.backends import PlainBackend, TransformersBackend
from qtarget.evaluation.problems.load import Problem
from qtarget.evaluation.scoring.evaluate import evaluate
from qtarget.evaluation.scoring.items import read_items
from qtarget.evaluation.scoring.scores import summarise
from qtarget.evaluation.settings import EvaluationSettings, TaskSettings
from qtarget.spaces.errors import UserError

SETTINGS = EvaluationSettings(
    tasks=(TaskSettings(path="unused.jsonl"),), samples=3, max_new_tokens=12, temperature=0.7, batch_size=8
)

STOP = tuple("0123456789+-*/=.,:?! \naeioulnrst#")


def problem(index: int, gold: str, **changes: object) -> Problem:
    fields = dict(id=f"{index:04d}", task="sums", question_hash=f"{index}", prompt=f"{index}+{index}=", gold=gold)
    return Problem(**(fields | dict(kind="exact", chat=True) | changes))


@pytest.fixture(scope="module")
def problems(model, tokenizer) -> list[Problem]:
    """Gold answers that the model gives with temperature 0, so that sampled scores are neither all 0 nor all 1."""
    asked = [problem(index, "?") for index in range(20)]
    greedy = evaluate_items(model, tokenizer, asked, SETTINGS.model_copy(update={"temperature": 0.0, "stop": STOP}))
    return [problem(int(item.problem), item.completion if item.completion.isalnum() else "nothing") for item in greedy]


@pytest.fixture(scope="module")
def settings() -> EvaluationSettings:
    """Nearly every completion ends by itself."""
    return SETTINGS.model_copy(update={"stop": STOP})


def evaluate_items(model, tokenizer, problems, settings, folder=None):
    import tempfile

    path = Path(folder or tempfile.mkdtemp()) / "items.jsonl"
    evaluate(model, tokenizer, problems, settings, seed=1, samples=1, items_path=path)
    found = {item.problem: item for item in read_items(path)}
    return [found[p.id] for p in problems]


def test_score_is_the_mean_over_problems_with_its_clustered_error(model, tokenizer, problems, settings, tmp_path):
    path = tmp_path / "items.jsonl"
    result = evaluate(model, tokenizer, problems, settings, seed=1, items_path=path, block=8)
    items = read_items(path)
    assert len(items) == 60 == sum(result.verdicts.values())
    by_problem = [[i.verdict == "correct" for i in items if i.problem == p.id] for p in problems]
    assert all(len(samples) == 3 for samples in by_problem)
    means = np.mean(by_problem, axis=1)
    assert 0 < result.score < 1
    assert result.item_scores == pytest.approx(means)
    assert result.score == pytest.approx(means.mean())
    assert result.standard_error == pytest.approx(stats.sem(means))
    assert result.problem_ids == tuple(p.id for p in problems)
    assert result.tokens == sum(item.tokens for item in items)
    assert not result.stopped


def test_tasks_are_told_apart(model, tokenizer, problems, settings):
    asked = [p.model_copy(update={"task": "even" if int(p.id) % 2 == 0 else "odd"}) for p in problems]
    result = evaluate(model, tokenizer, asked, settings, seed=1)
    scores = np.array(result.item_scores)
    assert list(result.tasks) == ["even", "odd"]
    for name, part in (("even", scores[::2]), ("odd", scores[1::2])):
        found = result.tasks[name]
        assert found.num_problems == 10 and found.score == pytest.approx(part.mean())
        assert found.standard_error == pytest.approx(stats.sem(part))
        assert found.pass_at_k == pytest.approx((part > 0).mean())  # of 3 samples, any


def test_every_item_says_what_was_asked_answered_and_decided(model, tokenizer, problems, settings, tmp_path):
    item = evaluate_items(model, tokenizer, problems, settings, tmp_path)[3]
    assert item.prompt == "u:3+3=<turn>\na:"
    assert (item.gold, item.task, item.sample) == (problems[3].gold, "sums", 0)
    assert item.seconds > 0
    row = json.loads((tmp_path / "items.jsonl").read_text().splitlines()[0])
    assert {"problem", "sample", "prompt", "completion", "verdict", "gold", "tokens", "seconds"} <= set(row)


def test_truncated_completions_are_counted_as_such(model, tokenizer, problems):
    asked = [p.model_copy(update={"gold": "12345", "kind": "numeric"}) for p in problems]
    result = evaluate(model, tokenizer, asked, SETTINGS, seed=1, samples=1)
    assert result.cut > 3
    assert 3 < result.verdicts["truncated"] <= result.cut
    assert set(result.verdicts) == {"correct", "wrong", "no_answer", "truncated", "timeout", "error"}


@pytest.mark.parametrize("torn", ["half a line", "no newline", "garbage"])
def test_a_torn_file_is_resumed_with_the_same_result(model, tokenizer, problems, settings, tmp_path, torn):
    path = tmp_path / "items.jsonl"
    whole = evaluate(model, tokenizer, problems, settings, seed=1, items_path=path)
    lines = path.read_bytes().splitlines(keepends=True)
    tail = {"half a line": lines[25][:40], "no newline": lines[25].rstrip(), "garbage": b"\0\xff\n\0\0\n\0"}[torn]
    path.write_bytes(b"".join(lines[:25]) + tail)
    again = evaluate(model, tokenizer, problems, settings, seed=1, items_path=path)
    assert again.model_copy(update={"seconds": whole.seconds}) == whole
    assert path.read_bytes().splitlines(keepends=True)[:25] == lines[:25]
    assert len(read_items(path)) == 60
    assert (tmp_path / "items.jsonl.torn-1").read_bytes().endswith(tail)


def test_a_complete_file_needs_no_model(model, tokenizer, problems, settings, tmp_path):
    path = tmp_path / "items.jsonl"
    whole = evaluate(model, tokenizer, problems, settings, seed=1, items_path=path)
    other = tiny_llama(9, len(tokenizer))
    again = evaluate(other, tokenizer, problems, settings, seed=1, items_path=path)
    assert again.item_scores == whole.item_scores


def test_a_broken_line_in_the_middle_is_refused_by_number(model, tokenizer, problems, settings, tmp_path):
    path = tmp_path / "items.jsonl"
    evaluate(model, tokenizer, problems, settings, seed=1, items_path=path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], '{"problem": 3}', *lines[5:]]) + "\n")
    with pytest.raises(UserError, match="line 5"):
        evaluate(model, tokenizer, problems, settings, seed=1, items_path=path)


@pytest.mark.parametrize("change", [{"seed": 2}, {"temperature": 0.5}, {"stop": ("xx",)}])
def test_items_of_other_sampling_are_not_mixed_in(model, tokenizer, problems, settings, tmp_path, change):
    path = tmp_path / "items.jsonl"
    evaluate(model, tokenizer, problems, settings, seed=1, items_path=path)
    seed = change.pop("seed", 1)
    with pytest.raises(UserError, match="another file"):
        evaluate(model, tokenizer, problems, settings.model_copy(update=change), seed=seed, items_path=path)


def test_blocks_come_in_order_and_an_early_end_keeps_whole_blocks(model, tokenizer, problems, settings, tmp_path):
    whole = evaluate(model, tokenizer, problems, settings, seed=1)
    seen = []

    def on_block(done, total):
        seen.append((done, total))
        return done >= 12

    path = tmp_path / "items.jsonl"
    part = evaluate(model, tokenizer, problems, settings, seed=1, items_path=path, on_block=on_block, block=6)
    assert seen == [(6, 20), (12, 20)]
    assert part.stopped and part.num_problems == 12
    assert part.item_scores == whole.item_scores[:12]
    rest = evaluate(model, tokenizer, problems, settings, seed=1, items_path=path, block=6)
    assert rest.item_scores == whole.item_scores and not rest.stopped


@pytest.mark.parametrize("ends", ["last block", "early", "error"])
def test_the_model_is_left_in_training_mode_however_it_ends(tokenizer, problems, settings, ends):
    model = tiny_llama(0, len(tokenizer)).train()

    def on_block(done, total):
        if ends == "error":
            raise KeyError("the caller's own")
        return ends == "early"

    if ends == "error":
        with pytest.raises(KeyError):
            evaluate(model, tokenizer, problems, settings, seed=1, on_block=on_block, block=5)
    else:
        evaluate(model, tokenizer, problems, settings, seed=1, on_block=on_block, block=5)
    assert all(module.training for module in model.modules())


def test_race_sees_the_scores_so_far(model, tokenizer, problems, settings):
    seen = []
    result = evaluate(
        model, tokenizer, problems, settings, seed=1, race=lambda s: seen.append(s) or len(s) == 14, block=7
    )
    assert [len(scores) for scores in seen] == [7, 14]
    assert result.stopped and result.item_scores == seen[-1]


class Counting:
    """A backend that counts what it was asked for."""

    def __init__(self, backend):
        self._backend, self.asked = backend, 0

    def generate(self, requests, sampling):
        self.asked += len(requests)
        yield from self._backend.generate(requests, sampling)


def test_a_race_generates_nothing_beyond_its_last_look(model, tokenizer, problems, settings):
    """The tokens a raced trial reports are all that were made."""
    backend = Counting(TransformersBackend(model, tokenizer))
    result = evaluate(
        model, tokenizer, problems, settings, seed=1, race=lambda s: len(s) >= 8, block=4, growth=2.0, backend=backend
    )
    assert result.num_problems == 8 and backend.asked == 8 * settings.samples


def test_a_race_that_nobody_stops_changes_nothing(model, tokenizer, problems, settings):
    whole = evaluate(model, tokenizer, problems, settings, seed=1)
    raced = evaluate(model, tokenizer, problems, settings, seed=1, race=lambda s: False, block=3, growth=1.5)
    assert raced.item_scores == whole.item_scores and raced.tokens == whole.tokens and not raced.stopped


def test_an_end_after_the_last_block_is_no_early_end(model, tokenizer, problems, settings):
    assert not evaluate(
        model, tokenizer, problems, settings, seed=1, on_block=lambda done, total: done == total
    ).stopped


def test_batch_and_block_sizes_do_not_change_the_result(model, tokenizer, problems, settings):
    whole = evaluate(model, tokenizer, problems, settings, seed=1)
    other = evaluate(model, tokenizer, problems, settings.model_copy(update={"batch_size": 3}), seed=1, block=5)
    assert other.item_scores == whole.item_scores
    assert evaluate(model, tokenizer, problems, settings, seed=2).item_scores != whole.item_scores


def test_more_samples_extend_the_same_draws(model, tokenizer, problems, settings, tmp_path):
    path = tmp_path / "items.jsonl"
    evaluate(model, tokenizer, problems, settings, seed=1, samples=1, items_path=path)
    first = {item.problem: item.completion for item in read_items(path)}
    evaluate(model, tokenizer, problems, settings, seed=1, samples=2, items_path=path)
    assert {item.problem: item.completion for item in read_items(path) if item.sample == 0} == first


@pytest.mark.slow
def test_backends_agree_under_greedy_decoding(model, tokenizer, problems):
    greedy = SETTINGS.model_copy(update={"temperature": 0.0, "stop": ("q",)})
    results = [
        evaluate(model, tokenizer, problems, greedy, seed=1, samples=1, backend=backend(model, tokenizer))
        for backend in (TransformersBackend, PlainBackend)
    ]
    assert results[0].model_copy(update={"seconds": 0.0}) == results[1].model_copy(update={"seconds": 0.0})


def test_a_verifier_that_raises_is_an_error_verdict_and_the_rest_goes_on(model, tokenizer, problems, settings):
    asked = [p.model_copy(update={"verifier": "math:no_such_function"}) if p.id == "0000" else p for p in problems]
    result = evaluate(model, tokenizer, asked, settings, seed=1)
    assert result.verdicts["error"] == 3
    assert result.num_problems == 20
    assert "no_such_function" in result.first_error


def test_plain_prompts_use_no_template(tokenizer, settings, tmp_path):
    bare = character_tokenizer(template=None)
    model = tiny_llama(0, len(bare))
    asked = [problem(index, "1", chat=False) for index in range(3)]
    assert evaluate_items(model, bare, asked, settings, tmp_path)[2].prompt == "2+2="
    with pytest.raises(UserError, match="chat template"):
        evaluate(model, bare, [problem(0, "1"), problem(1, "1")], settings, seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:1], "at least 2"),
        (lambda p: [], "at least 2"),
        (lambda p: [*p, p[0]], "different ids"),
        (lambda p: [*p, problem(99, "1", prompt="9" * 300)], "positions"),
    ],
)
def test_bad_problems_are_refused(model, tokenizer, problems, settings, change, message):
    with pytest.raises(UserError, match=message):
        evaluate(model, tokenizer, change(problems), settings, seed=1)


def test_summary_of_stored_items_equals_the_evaluation(model, tokenizer, problems, settings, tmp_path):
    path = tmp_path / "items.jsonl"
    whole = evaluate(model, tokenizer, problems, settings, seed=1, items_path=path)
    order = {p.id: index for index, p in enumerate(problems)}
    items = sorted(read_items(path), key=lambda item: (order[item.problem], item.sample))
    assert summarise(items, 3, seconds=whole.seconds) == whole
