"""Stored answers are judged again without a model: from items of an evaluation and from any completions with golds."""

import gzip
import json
from pathlib import Path

import pytest

from qtarget.evaluation.verification.rejudge import rejudge, transitions
from qtarget.evaluation.verification.verdict import Verdict
from qtarget.evaluation.verification.verify import fingerprint
from qtarget.spaces.errors import UserError


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_only_what_changed_is_marked(tmp_path):
    rows = [
        {"completion": "The answer is 5.", "gold": "5", "kind": "numeric", "verdict": "correct"},
        {"completion": "\\boxed{x>5}", "gold": "5", "kind": "math", "verdict": "correct"},
        {"completion": "So **5**.", "gold": "5", "kind": "numeric", "verdict": "no_answer"},
        {"completion": "\\boxed{6}", "gold": "5", "kind": "math", "correct": False},
        {"completion": "\\boxed{5}", "gold": "5", "kind": "math", "correct": False},
        {"completion": "\\boxed{5}", "gold": "5", "kind": "math"},
    ]
    judged = rejudge(write(tmp_path / "a.jsonl", rows))
    assert [each.line for each in judged if each.changed] == [2, 3, 5]
    assert [each.now.verdict.value for each in judged] == ["correct", "wrong", "correct", "wrong", "correct", "correct"]
    assert transitions(judged)["correct", "wrong"] == 1 and transitions(judged)["-", "correct"] == 1


@pytest.mark.slow
def test_items_carry_how_they_were_judged(tmp_path, verifiers):
    rows = [
        {"completion": "The answer is 4", "gold": "4", "kind": "numeric", "finish": "length"},
        {"completion": "4", "gold": "4", "kind": "numeric", "prompt": "<|assistant|><think>\n"},
        {"completion": "3.3", "gold": "3.33", "kind": "numeric", "tolerance": 0.1},
        {"completion": "\\boxed{7.4}", "gold": "7", "kind": "math", "absolute": 0.5},
        {"completion": "so", "gold": "so", "verifier": f"{verifiers}:ends"},
        {"completion": "b", "gold": "B", "kind": "choice"},
    ]
    (tmp_path / "trial").mkdir()
    write(tmp_path / "trial" / "items.jsonl", rows)
    verdicts = [each.now.verdict for each in rejudge(tmp_path / "trial")]
    assert verdicts == [Verdict.TRUNCATED, Verdict.NO_ANSWER, *[Verdict.CORRECT] * 4]


def test_a_kind_is_given_or_asked_for(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"completion": "The answer is (B).", "gold": "B"}])
    with pytest.raises(UserError, match=r"line 1 has no `kind`; give `--kind`"):
        rejudge(path)
    assert rejudge(path, "choice")[0].now.verdict is Verdict.CORRECT


def test_a_torn_last_line_is_passed_over_and_the_file_stays_as_it_is(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"completion": "5", "gold": "5", "kind": "numeric"}] * 2)
    path.write_bytes(path.read_bytes() + b'{"completion": "5", "go')
    before = path.read_bytes()
    assert len(rejudge(path)) == 2
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not json\n", r"line 1 is none: "),
        (b'{"gold": "5"}\n', r"line 1 is none: `completion`: Field required; mend the line"),
        (b'{"completion": "5", "gold": null}\n', r"`gold`: Input should be a valid string"),
        (b'{"completion": "5", "gold": {"a": 5}}\n', r"`gold`: Input should be a valid string"),
        (b"\n", r"There must be answers to judge, but .* holds none"),
        (b'{"completion": "5", "gold": "5", "kind": "maths"}\n', r"`kind`: Input should be"),
        (b'{"completion": "\xff", "gold": "5"}\n', r"line 1 is none: "),
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        rejudge(tmp_path / "a.jsonl")


def test_golds_are_read_as_problems_are(tmp_path):
    rows = [
        {"completion": "The answer is 4.", "gold": 4, "kind": "numeric"},
        {"completion": "\\boxed{4.5 \\times 10^{33}}", "gold": 4.5e33, "kind": "math"},
        {"completion": "\\boxed{4}", "gold": 4.0, "kind": "math"},
        {"completion": "\\boxed{3, 2}", "gold": [2, "3"], "kind": "math"},
        {"completion": "\\boxed{2}", "gold": [2, 3], "kind": "math"},
    ]
    verdicts = [each.now.verdict for each in rejudge(write(tmp_path / "a.jsonl", rows))]
    assert verdicts == [*[Verdict.CORRECT] * 4, Verdict.WRONG]


def test_files_may_be_compressed_or_begin_with_a_byte_order_mark(tmp_path):
    line = b'{"completion": "5", "gold": "5", "kind": "numeric"}\r\n'
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line))
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(line)[:-9])
    assert [len(rejudge(tmp_path / name)) for name in ("a.jsonl", "a.jsonl.gz")] == [1, 1]
    with pytest.raises(UserError, match=r"torn.jsonl.gz cannot be read"):
        rejudge(tmp_path / "torn.jsonl.gz")


def test_a_study_folder_means_all_its_trials(tmp_path):
    for trial, completion in (("0000", "5"), ("0001", "6")):
        (tmp_path / "trials" / trial).mkdir(parents=True)
        row = {"completion": completion, "gold": "5", "kind": "numeric", "verdict": "correct"}
        write(tmp_path / "trials" / trial / "items.jsonl", [row])
    judged = rejudge(tmp_path)
    assert [(each.folder, each.line, each.changed) for each in judged] == [
        ("trials/0000", 1, False),
        ("trials/0001", 1, True),
    ]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read: .*; give the path of an `items.jsonl`"):
        rejudge(tmp_path / "absent")


@pytest.mark.slow
def test_items_of_an_evaluation_are_judged_again_to_the_same_verdicts(tmp_path, model, tokenizer):
    from qtarget.evaluation.problems.load import Problem
    from qtarget.evaluation.scoring.evaluate import evaluate
    from qtarget.evaluation.settings import EvaluationSettings, TaskSettings

    problems = [
        Problem(id=str(n), task="t", question_hash=str(n), prompt=f"{n} + {n} =", gold=str(2 * n), chat=False)
        for n in range(8)
    ]
    settings = EvaluationSettings(tasks=(TaskSettings(path="unused"),), max_new_tokens=12)
    evaluate(model, tokenizer, problems, settings, seed=1, items_path=tmp_path / "items.jsonl")
    judged = rejudge(tmp_path)
    assert len(judged) == 8 and not any(each.changed for each in judged)
    assert {each.stored.judged_by for each in judged} == {fingerprint()}
    assert {each.stored.kind for each in judged} == {"math"}
