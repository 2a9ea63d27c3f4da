"""Tasks of lm-evaluation-harness: the library's own run of the same model is the oracle, item by item."""

from __future__ import annotations

import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from harness_world import COMPARED, GENERATED, write_lines, write_task, write_tasks
from tiny_llama import tiny_llama

from qtarget.evaluation.generation.learnt_and_asked import learnt_and_asked
from qtarget.evaluation.problems.load import Splits, content_of, load_problems
from qtarget.evaluation.problems.splits import training_hashes
from qtarget.evaluation.scoring.evaluate import evaluate
from qtarget.evaluation.scoring.items import Item, read_items
from qtarget.evaluation.scoring.retention_measure import RetentionMeasure
from qtarget.evaluation.settings import EvaluationSettings, RetentionSettings, TaskSettings
from qtarget.evaluation.verification import harness, pool
from qtarget.evaluation.verification.rejudge import rejudge
from qtarget.evaluation.verification.worker import answer_request
from qtarget.spaces.errors import UserError
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.settings import DataSettings


@pytest.fixture(autouse=True, scope="module")
def here():
    """What a worker does is done in this process: a worker of its own takes seconds to import what it needs."""

    class Here:
        def ask(self, request: dict[str, Any], limit: float) -> tuple[str, str]:
            verdict, detail = answer_request(json.loads(json.dumps(request | {"limit": limit})))
            return verdict, json.loads(json.dumps(detail))

        def ask_all(self, requests: list[dict[str, Any]], limit: float) -> list[tuple[str, str]]:
            return [self.ask(request, limit) for request in requests]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_shared", Here())
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def load(folder: Path, path: str, problems: int = 12, report: int = 0, **config: Any) -> Splits:
    task = TaskSettings(source="lm_eval", path=path, config={"include_path": ".", **config})
    settings = EvaluationSettings(tasks=(task,), problems=problems, report_problems=report)
    return load_problems(settings, folder, seed=0)


def score(model, tokenizer, splits: Splits, path: Path, **changes: Any) -> dict[tuple[str, int], Item]:
    settings = EvaluationSettings(tasks=(TaskSettings(path="unused"),), batch_size=5, **changes)
    evaluate(model, tokenizer, splits.search, settings, seed=0, items_path=path, block=7)
    return {(item.task, item.entry["harness"]["doc"]): item for item in read_items(path)}


def library(model, tokenizer, folder: Path, **options: Any) -> dict[str, list[dict[str, Any]]]:
    """Samples by task, of lm-evaluation-harness's own run."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    with chdir(folder):
        found = lm_eval.simple_evaluate(wrapped, tasks=["local_both"], task_manager=tasks, bootstrap_iters=0, **options)
    return found["samples"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("chat", [False, True])
def test_prompts_completions_and_scores_are_those_of_the_library(model, tokenizer, folder, tmp_path, chat):
    theirs = library(model, tokenizer, folder, apply_chat_template=chat)
    splits = load(folder, "local_both", problems=24, apply_chat_template=chat)
    ours = score(model, tokenizer, splits, tmp_path / "items.jsonl")
    assert len(ours) == 24
    for sample in theirs["local_sums"]:
        if sample["filter"] == "first":
            item = ours["local_sums", sample["doc_id"]]
            assert item.prompt == sample["arguments"][0][0]
            assert [item.completion] == sample["resps"][0]
            assert item.answer == sample["filtered_resps"][0]
            assert (item.verdict == "correct") == sample["exact_match"]
    for sample in theirs["local_choices"]:
        item = ours["local_choices", sample["doc_id"]]
        assert item.prompt == sample["arguments"][0][0]
        mine = [value for value, _ in item.entry["harness"]["likelihoods"]]
        assert mine == pytest.approx([response[0][0] for response in sample["resps"]], abs=1e-4)
        assert (item.verdict == "correct") == sample["acc"]
    scored = {task: {ours[task, doc].verdict == "correct" for doc in range(12)} for task in theirs}
    assert chat or scored == {"local_sums": {False, True}, "local_choices": {False, True}}


def test_another_metric_filter_and_number_of_examples(model, tokenizer, folder, tmp_path):
    first = score(model, tokenizer, load(folder, "local_sums"), tmp_path / "first.jsonl")
    last = score(model, tokenizer, load(folder, "local_sums", filter="last", num_fewshot=0), tmp_path / "last.jsonl")
    for item in last.values():
        letters = [each for each in item.completion if each.islower()]
        assert item.prompt.count("q:") == 1 and item.answer == (letters[-1] if letters else "[invalid]")
    assert all(item.prompt.count("q:") == 3 for item in first.values())
    plain = score(model, tokenizer, load(folder, "local_choices"), tmp_path / "acc.jsonl")
    normed = score(model, tokenizer, load(folder, "local_choices", metric="acc_norm"), tmp_path / "norm.jsonl")
    for key, item in normed.items():
        question, choices = item.entry["harness"]["likelihoods"], ["a", "be", "0", "cd e"]
        per_letter = [value / len(text) for (value, _), text in zip(question, choices, strict=False)]
        assert (item.verdict == "correct") == (choices[per_letter.index(max(per_letter))] == item.gold)
        assert plain[key].completion.strip() == plain[key].answer
    assert {key for key in plain if plain[key].verdict != normed[key].verdict}


def test_a_study_s_own_sampling_is_not_the_task_s(model, tokenizer, folder, tmp_path):
    splits = load(folder, "local_sums", gen_kwargs={"max_gen_toks": 3, "until": ["z"]})
    found = score(model, tokenizer, splits, tmp_path / "items.jsonl", max_new_tokens=40, stop=("f",), temperature=0.9)
    assert all(item.tokens <= 3 and "z" not in item.completion for item in found.values())
    assert any("f" in item.completion for item in found.values())


def test_stored_items_are_judged_again_alike(model, tokenizer, folder, tmp_path):
    score(model, tokenizer, load(folder, "local_both", problems=24), tmp_path / "items.jsonl", samples=2)
    judged = rejudge(tmp_path / "items.jsonl")
    assert len(judged) == 48 and not any(each.changed for each in judged)


def test_a_race_ends_at_a_whole_block_of_mixed_tasks(model, tokenizer, folder):
    settings = EvaluationSettings(tasks=(TaskSettings(path="unused"),), batch_size=5)
    problems = load(folder, "local_both", problems=24).search
    looks: list[tuple[float, ...]] = []
    whole = evaluate(
        model, tokenizer, problems, settings, seed=0, race=lambda scores: bool(looks.append(scores)), block=7
    )
    cut = evaluate(model, tokenizer, problems, settings, seed=0, race=lambda scores: True, block=7)
    assert {problem.task for problem in problems[:7]} == {"local_sums", "local_choices"}
    assert cut.stopped and cut.item_scores == looks[0] == whole.item_scores[:7]
    assert set(whole.tasks) == {"local_sums", "local_choices"} and not whole.stopped


def test_retention_on_a_task_of_the_library(model, tokenizer, folder):
    kept = TaskSettings(source="lm_eval", path="local_both", config={"include_path": "."})
    settings = EvaluationSettings(tasks=(kept,), problems=2)
    measure = RetentionMeasure(settings, RetentionSettings(tasks=(kept,), problems=24), tokenizer, folder, seed=0)
    measure.ask_base(model, seed=0)
    same = measure.measure(model, None, seed=0)
    other = measure.measure(tiny_llama(1, len(tokenizer)), None, seed=0)
    assert same is not None and same["forgotten"] == 0 and same["problems"] == 24
    assert other is not None and other["forgotten"] == pytest.approx(same["value"] - other["value"])


def test_search_and_report_are_split_by_content_and_training_is_left_out(folder):
    splits = load(folder, "local_both", problems=6, report=6)
    assert not {each.question_hash for each in splits.search} & {each.question_hash for each in splits.report}
    task = TaskSettings(source="lm_eval", path="local_sums", config={"include_path": "."})
    settings = EvaluationSettings(tasks=(task,), problems=10)
    learnt = training_hashes(["17 + 31", "34 + 62"])
    left = load_problems(settings, folder, 0, learnt)
    assert left.in_training == 2
    assert not {"17 + 31", "34 + 62"} & {each.harness.fields[0] for each in left.search if each.harness}


def test_what_is_asked_identifies_the_problems(folder):
    options = ({}, {"num_fewshot": 1}, {"filter": "last"}, {"gen_kwargs": {"max_gen_toks": 5}})
    found = [content_of(load(folder, "local_sums", **each).search) for each in options]
    assert all(one != other for number, one in enumerate(found) for other in found[:number])


MEAN = {"aggregation": "mean", "higher_is_better": True}


@pytest.mark.parametrize(
    ("changes", "config", "said"),
    [
        ({}, {"metric": "bleu"}, "scores each item .* got 'bleu'; use exact_match"),
        ({}, {"filter": "middle"}, "`config.filter` must be one of first, last .* got 'middle'"),
        ({"metric_list": [{"metric": "bleu"}]}, {}, "has bleu; use another task"),
        ({"metric_list": [{"metric": "ter"}, {"metric": "exact_match", **MEAN}]}, {"metric": "ter"}, "use exact_match"),
        ({"output_type": "loglikelihood_rolling", "metric_list": None}, {}, "output types .* loglikelihood_rolling"),
        ({"repeats": 4}, {}, "`repeats` of a task must be 1, but odd has 4"),
        ({"generation_kwargs": {"until": ["x"], "top_k": 5}}, {}, "odd has top_k: 5"),
        ({"doc_to_text": "{{nothing.there}}"}, {}, "must load, but it raises UndefinedError"),
        ({"test_split": "validation"}, {}, "must load, but it raises KeyError"),
        ({"num_fewshot": 30}, {}, "ask for fewer `num_fewshot`"),
        ({"unsafe_code": True}, {}, "runs the code that models write"),
    ],
)
def test_a_task_that_cannot_be_used_is_refused_with_the_reason(tmp_path, changes, config, said):
    write_lines(tmp_path / "rows.jsonl", [{"question": f"{number} + 1", "answer": "f"} for number in range(4)])
    task = GENERATED | {"task": "odd"} | changes
    write_task(tmp_path, task, train="rows.jsonl", test="rows.jsonl")
    with pytest.raises(UserError, match=said):
        load(tmp_path, "odd.yaml", problems=2, **config)


def test_a_metric_with_parts_of_marks_is_refused_before_a_model_answers(tmp_path):
    write_lines(tmp_path / "rows.jsonl", [{"question": f"{number} + 1", "answer": "one two"} for number in range(4)])
    (tmp_path / "part.py").write_text(
        "def overlap(references, predictions, **_):\n"
        "    a, b = set(references[0].split()), set(predictions[0].split())\n    return len(a & b) / len(a | b)\n"
    )
    path = write_task(
        tmp_path,
        GENERATED | {"task": "parts", "filter_list": None, "metric_list": []},
        train="rows.jsonl",
        test="rows.jsonl",
    )
    text = path.read_text().replace(
        "metric_list: []",
        "metric_list:\n- metric: !function part.overlap\n  aggregation: mean\n  higher_is_better: true",
    )
    path.write_text(text)
    with pytest.raises(UserError, match=r"must be 0 or 1 for every item, but overlap of parts gave 0.5"):
        load(tmp_path, "parts.yaml", problems=2)


def test_an_unknown_name_comes_with_the_closest_and_a_missing_file_is_told(folder, monkeypatch):
    from lm_eval import tasks

    real = tasks.TaskManager
    monkeypatch.setattr(tasks, "TaskManager", lambda **given: real(**given | {"include_defaults": False}))
    with pytest.raises(UserError, match="got 'local_sum'; the closest are local_sums"):
        load(folder, "local_sum")
    with pytest.raises(UserError, match=r"a YAML file that is there, but none is at local_sum.yaml in /"):
        load(folder, "local_sum.yaml")
    write_task(folder, COMPARED | {"task": "gone"}, test="gone.jsonl")
    with pytest.raises(UserError, match=r"'gone.yaml' .* FileNotFoundError: .*if its data set cannot be reached"):
        load(folder, "gone.yaml")


def test_where_options_are_compared_these_are_shown_and_no_end(model, tokenizer, folder):
    write_lines(folder / "shown.jsonl", [{"prompt": "a", "completion": "b"}])
    data = load_demonstrations(DataSettings(path="shown.jsonl"), tokenizer, folder)
    [problem, *_] = load(folder, "local_choices.yaml").search
    found = learnt_and_asked(data, [], [problem], tokenizer, [], [])["problem"]
    assert found["options"] == [text for _, text in problem.harness.continuations]
    asked = "".join(token["text"] for segment in found["segments"] for token in segment["tokens"])
    assert asked == problem.harness.contexts[0]


def test_only_so_many_documents(folder):
    assert load(folder, "local_choices", problems=5, limit=5).counts[0].read == 5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"config": {"fewshots": 3}}, "`config.fewshots` of an `lm_eval` task: Extra inputs .* num_fewshot"),
        ({"template": "{question}?"}, "`template` must not be given with `source: lm_eval`"),
        ({"chat": True}, "`chat` must not be given with `source: lm_eval`"),
        ({"path": ["a", "b"]}, "`path` must be one name with `source: lm_eval`"),
    ],
)
def test_settings_that_a_task_decides_itself_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        TaskSettings(**{"source": "lm_eval", "path": "gsm8k"} | fields)


def test_settings_survive_being_written_and_read():
    task = TaskSettings(source="lm_eval", path="gsm8k", config={"apply_chat_template": True})
    assert task.chat and TaskSettings.model_validate(task.model_dump()) == task
    assert TaskSettings.model_validate(json.loads(task.model_dump_json())) == task


def test_without_the_library_the_extra_is_named(folder, monkeypatch):
    def missing(source):
        raise ModuleNotFoundError("No module named 'lm_eval'")

    monkeypatch.setattr(harness, "make_items", missing)
    with pytest.raises(UserError, match=r"pip install 'qtarget\[lm-eval\]'"):
        load(folder, "local_sums", limit=3)


@pytest.mark.slow
def test_a_real_worker_makes_and_judges(model, tokenizer, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_shared", None)
    splits = load(folder, "local_both", problems=24, fewshot_seed=1)
    found = score(model, tokenizer, splits, tmp_path / "items.jsonl")
    pool.shared_pool().close()
    assert len(found) == 24 and {item.verdict for item in found.values()} <= {"correct", "wrong", "truncated"}
