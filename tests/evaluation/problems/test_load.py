"""Problems from files of every shape the suites have, splits by content, and what is refused."""

import json
from pathlib import Path

import pytest

from qtarget.evaluation.problems.load import Problem, load_problems, spelled_golds_of, unreadable_golds
from qtarget.evaluation.problems.splits import allot, content_hash, is_for_search, training_hashes
from qtarget.evaluation.problems.suites import SUITES, resolve
from qtarget.evaluation.settings import EvaluationSettings, TaskSettings
from qtarget.evaluation.verification.verdict import Verdict
from qtarget.evaluation.verification.verify import judge
from qtarget.spaces.errors import UserError


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sums(count: int) -> list[dict[str, object]]:
    return [{"question": f"What is {i} + {i}?", "answer": str(2 * i), "level": i % 2} for i in range(count)]


def settings(path: str | Path, *, problems: int = 8, report: int = 0, **task: object) -> EvaluationSettings:
    first = TaskSettings.model_validate({"path": str(path), "kind": "numeric", **task})
    return EvaluationSettings(tasks=(first,), problems=problems, report_problems=report)


def questions(problems: tuple[Problem, ...]) -> set[str]:
    return {problem.question_hash for problem in problems}


class TestSplits:
    def test_no_question_is_in_both_across_seeds_order_and_growth(self, tmp_path):
        search: set[str] = set()
        report: set[str] = set()
        for seed in range(5):
            rows = sums(100 + 50 * seed)
            path = write_jsonl(tmp_path / f"{seed}.jsonl", rows[::-1] if seed % 2 else rows)
            splits = load_problems(settings(path, problems=40, report=40), tmp_path, seed)
            assert (len(splits.search), len(splits.report)) == (40, 40)
            search |= questions(splits.search)
            report |= questions(splits.report)
        assert not search & report
        assert len(search) > 40  # other seeds draw other problems

    def test_the_same_seed_draws_the_same_problems_in_the_same_order(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", sums(50))
        shuffled = write_jsonl(tmp_path / "b.jsonl", sums(50)[::-1])
        first = load_problems(settings(path), tmp_path, 3).search
        again = load_problems(settings(shuffled), tmp_path, 3).search
        assert [problem.id for problem in first] == [problem.id for problem in again]
        other = load_problems(settings(path), tmp_path, 4).search
        assert [problem.id for problem in first] != [problem.id for problem in other]

    def test_without_a_report_split_all_rows_may_be_searched(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", sums(10))
        assert len(load_problems(settings(path, problems=10), tmp_path, 0).search) == 10

    def test_duplicates_are_counted_and_left_out(self, tmp_path):
        rows = [*sums(10), {"question": "  what IS 3 + 3?", "answer": "6"}, *sums(4)]
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        splits = load_problems(settings(path, problems=10), tmp_path, 0)
        assert splits.counts[0].duplicates == 5
        assert len(questions(splits.search)) == 10

    @pytest.mark.parametrize(
        ("question", "template", "training_text"),
        [
            ("What is 3 + 3?", "{question}", "What is 3 + 3?"),
            ("What is 3 + 3?", "{question}", "what is 3  +\t3?\n"),
            ("What is 3 + 3, my dear?", "{question}", "Question: What is 3 + 3, my dear?\nAnswer:"),
            ("What is 3 + 3, my dear?", "{question}", "Be brief.\n\nWhat is 3 + 3, my dear?"),
            ("What is 3 + 3?", "Be brief.\n\n{question}", "Be brief.\n\nWhat is 3 + 3?"),
        ],
    )
    def test_training_questions_are_counted_and_left_out(self, tmp_path, question, template, training_text):
        path = write_jsonl(tmp_path / "a.jsonl", [*sums(3), {"question": question, "answer": "6"}])
        config = settings(path, problems=3, template=template)
        splits = load_problems(config, tmp_path, 0, training_hashes([training_text, "unrelated"]))
        assert splits.in_training == 1
        assert content_hash(question) not in questions(splits.search)

    def test_a_split_that_cannot_be_filled_says_what_there_is(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", sums(10))
        with pytest.raises(UserError, match=r"needs 8 problems of a, but has \d: 10 read, 0 repeated, 0 seen"):
            load_problems(settings(path, problems=8, report=8), tmp_path, 0)

    def test_halves_are_about_equal(self):
        share = sum(is_for_search(content_hash(str(i))) for i in range(4000)) / 4000
        assert abs(share - 0.5) < 0.03

    def test_tasks_share_problems_by_weight(self, tmp_path):
        write_jsonl(tmp_path / "a.jsonl", sums(60))
        write_jsonl(tmp_path / "b.jsonl", [{"question": f"Half of {2 * i}?", "answer": i} for i in range(60)])
        tasks = (
            TaskSettings(path="a.jsonl", kind="numeric", weight=3.0),
            TaskSettings(path="b.jsonl", kind="numeric", weight=1.0),
        )
        splits = load_problems(EvaluationSettings(tasks=tasks, problems=20), tmp_path, 0)
        names = [problem.task for problem in splits.search]
        assert (names.count("a"), names.count("b")) == (15, 5)
        assert "b" in names[:15]  # mixed, not one task after the other

    @pytest.mark.parametrize(
        ("total", "weights", "counts"), [(10, [1, 1, 1], [4, 3, 3]), (0, [1, 2], [0, 0]), (7, [0.1, 100], [0, 7])]
    )
    def test_allot(self, total, weights, counts):
        assert allot(total, weights) == counts


class TestFiles:
    def test_parquet_csv_and_nested_columns(self, tmp_path):
        import pyarrow as pa
        from pyarrow import parquet

        rows = [{"q": {"text": f"What is {i}?"}, "a": float(i)} for i in range(5)]
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        config = settings("a.parquet", problems=5, question_column="q.text", answer_column="a")
        problems = load_problems(config, tmp_path, 0).search
        assert {(problem.prompt, problem.gold) for problem in problems} == {(f"What is {i}?", str(i)) for i in range(5)}

    def test_anything_load_dataset_takes(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        folder = tmp_path / "set"
        folder.mkdir()
        write_jsonl(folder / "test.jsonl", sums(6))
        problems = load_problems(settings("set", problems=6, split="test"), tmp_path, 0).search
        assert len(problems) == 6
        with pytest.raises(UserError, match="`split` must be one of test"):
            load_problems(settings("set", split="absent"), tmp_path, 0)

    def test_worked_examples_and_literal_braces(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", sums(4))
        config = settings(
            path,
            problems=4,
            template="Q: {question} (level {level}) \\boxed{} {{answer}}",
            shots=[{"question": "What is 1 + 0?", "answer": "It is 1."}],
        )
        prompts = {problem.prompt for problem in load_problems(config, tmp_path, 0).search}
        shot = "Q: What is 1 + 0? (level ) \\boxed{} {answer}\nIt is 1.\n\n"
        assert shot + "Q: What is 2 + 2? (level 0) \\boxed{} {answer}" in prompts

    def test_where_keeps_matching_rows(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", sums(10))
        assert len(load_problems(settings(path, problems=5, where={"level": ["1"]}), tmp_path, 0).search) == 5
        with pytest.raises(UserError, match="none is left after `where`"):
            load_problems(settings(path, where={"level": ["7"]}), tmp_path, 0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("task", "message"),
        [
            ({"question_column": "problem"}, "no column `problem`; it has: question, answer, level"),
            ({"answer_column": "solution"}, "no column `solution`"),
            ({"template": "{question} {hint}"}, "no column `hint`"),
            ({"choices_column": "options"}, "no column `options`"),
            ({"where": {"topic": ["x"]}}, "no column `topic`"),
            ({"template": "{question} {answer}"}, "must not show the answer"),
            ({"template": "{question} {choices}"}, "neither `choices` nor `choices_column`"),
            ({"path": "absent.jsonl"}, "must exist, but .*absent.jsonl does not; relative paths start at"),
            ({"source": "suite", "path": "gsm9k"}, "must be one of gsm8k, math500"),
        ],
    )
    def test_a_wrong_name_says_what_there_is(self, tmp_path, task, message):
        write_jsonl(tmp_path / "a.jsonl", sums(10))
        with pytest.raises(UserError, match=message):
            load_problems(settings(**{"path": "a.jsonl", **task}), tmp_path, 0)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"question": "q", "answer": None}, "line 11 of .* has none in `answer`"),
            ({"question": "q", "answer": "  "}, "line 11 of .* has none in `answer`"),
            ({"question": "q", "answer": "many"}, "line 11 of .*'many' is not one number"),
            ({"question": "q", "answer": "5 or 6"}, "is not one number"),
            ({"question": " ", "answer": "5"}, "must have a question, but line 11 of .* has none in `question`"),
            ({"question": None, "answer": "5"}, "must have a question"),
        ],
    )
    def test_a_missing_question_and_a_missing_or_unreadable_gold(self, tmp_path, row, message):
        path = write_jsonl(tmp_path / "a.jsonl", [*sums(10), row])
        with pytest.raises(UserError, match=message):
            load_problems(settings(path), tmp_path, 0)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b"\xff\xfe{}", "it is UTF-16|must be UTF-8, but line 3"),
            (b"{'a': 1}", "must be a JSON object, but line 3"),
            (b"[1]", "line 3 of a.jsonl is a list"),
        ],
    )
    def test_a_broken_line_is_named(self, tmp_path, line, message):
        path = write_jsonl(tmp_path / "a.jsonl", sums(2))
        path.write_bytes(path.read_bytes() + line + b"\n")
        with pytest.raises(UserError, match=message):
            load_problems(settings(path), tmp_path, 0)

    @pytest.mark.slow
    def test_a_verifier_beside_the_file_is_found_and_a_missing_one_is_told(self, tmp_path):
        write_jsonl(tmp_path / "a.jsonl", sums(10))
        (tmp_path / "beside_the_file.py").write_text(
            "def ends(completion, gold):\n    return completion.endswith(gold)\n"
        )
        found = load_problems(settings(path="a.jsonl", verifier="beside_the_file:ends"), tmp_path, 0).search
        judged = judge(found[0].claim(f"it is {found[0].gold}"))
        assert judged.verdict is Verdict.CORRECT, judged.detail
        for name, said in (("beside_the_file:begins", "AttributeError"), ("nowhere_at_all:f", "ModuleNotFoundError")):
            with pytest.raises(UserError, match=rf"`verifier` must name a function .*{said}.*put the module into"):
                load_problems(settings(path="a.jsonl", verifier=name), tmp_path, 0)

    def test_options_of_another_source(self):
        with pytest.raises(ValueError, match="`config` must be empty unless `source` is gym or lm_eval"):
            TaskSettings(path="a.jsonl", config={"min": 1})
        with pytest.raises(ValueError, match="must not both be given"):
            TaskSettings(path="a.jsonl", choices=("a",), choices_column="b")

    def test_math_golds_are_checked_on_demand(self, tmp_path):
        rows = [{"question": f"q{i}", "answer": "x+1"} for i in range(3)]
        path = write_jsonl(tmp_path / "a.jsonl", [*rows, {"question": "q", "answer": "\\frac{"}])
        problems = load_problems(settings(path, problems=4, kind="math"), tmp_path, 0).search
        assert [(problem.gold, "cannot be parsed" in detail) for problem, detail in unreadable_golds(problems)] == [
            ("\\frac{", True)
        ]


# One row in the shape of each suite's data set, a right completion and a wrong one.
SUITE_ROWS: dict[str, tuple[dict[str, object], str, str]] = {
    "gsm8k": ({"question": "2+2?", "answer": "2+2=<<2+2=4>>4\n#### 4"}, "\\boxed{4}", "\\boxed{5}"),
    "math500": (
        {"problem": "2+2?", "solution": "$\\boxed{4}$", "answer": "\\frac{8}{2}", "level": 1},
        "\\boxed{4}",
        "\\boxed{8}",
    ),
    "amc23": ({"id": 0, "question": "2+2?", "answer": 27.0, "url": "u"}, "\\boxed{27}", "\\boxed{2.7}"),
    "aime24": ({"id": 60, "problem": "2+2?", "solution": "s", "answer": "033", "year": "2024"}, "\\boxed{33}", "034"),
    "aime25": ({"problem": "2+2?", "answer": "70", "id": "0"}, "The answer is 70.", "The answer is 71."),
    "olympiadbench": (
        {"question": "2+2?", "final_answer": ["$\\frac{1}{2 n+2}$"], "is_multiple_answer": False, "error": None},
        "\\boxed{\\frac{1}{2(n+1)}}",
        "\\boxed{\\frac{1}{2n}}",
    ),
    "minerva": ({"question": "2+2?", "answer": "\\arcsin{1.3 \\sin{\\theta_w}}"}, "", "\\boxed{2}"),
    "medqa": (
        {"question": "Which?", "answer": "Cu", "options": {"A": "Fe", "B": "Cu"}, "answer_idx": "B"},
        "The answer is (B) Cu.",
        "The answer is (A).",
    ),
    "medmcqa": (
        {"question": "Which?", "opa": "Fe", "opb": "Cu", "opc": "Zn", "opd": "Ag", "cop": 2, "exp": None},
        "The answer is (C).",
        "The answer is (B).",
    ),
    "pubmedqa": (
        {"question": "Does it?", "context": {"contexts": ["One.", "Two."]}, "final_decision": "no"},
        "The answer is (B).",
        "The answer is (A).",
    ),
    "mmlu_pro_medical": (
        {"question": "Which?", "options": list("abcdefghij"), "answer": "J", "answer_index": 9, "category": "health"},
        "The answer is (J).",
        "The answer is (I).",
    ),
}


@pytest.mark.parametrize("name", SUITES)
def test_suites_read_rows_of_their_shape(tmp_path, name):
    row, right, wrong = SUITE_ROWS[name]
    suite = resolve(TaskSettings(source="suite", path=name))
    other = {**row, suite.question_column: "Another?"}
    write_jsonl(tmp_path / "local.jsonl", [row, other])
    local = suite.model_copy(update={"path": "local.jsonl"})
    problems = load_problems(EvaluationSettings(tasks=(local,), problems=2), tmp_path, 0).search
    problem = next(problem for problem in problems if "Another" not in problem.prompt)
    right = right or f"\\boxed{{{problem.gold}}}"
    assert judge(problem.claim(right)).verdict is Verdict.CORRECT
    assert judge(problem.claim(wrong)).verdict is Verdict.WRONG
    assert str(row[suite.question_column]) in problem.prompt


def test_suites_have_exact_hub_ids():
    where = {name: (suite.path, suite.name, suite.split) for name, suite in SUITES.items()}
    assert where["gsm8k"] == ("openai/gsm8k", "main", "test")
    assert where["olympiadbench"] == ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train")
    assert where["pubmedqa"] == ("qiaojin/PubMedQA", "pqa_labeled", "train")
    assert set(where) == set(SUITE_ROWS)


def test_a_given_field_wins_over_the_suites():
    task = resolve(TaskSettings(source="suite", path="gsm8k", split="train", template="{question}", weight=2.0))
    assert (task.path, task.split, task.template, task.kind, task.weight) == (
        "openai/gsm8k",
        "train",
        "{question}",
        "numeric",
        2.0,
    )


def test_options_are_listed_with_letters(tmp_path):
    rows = [{"question": f"Which is {i}?", "answer": i % 3, "options": ["0", "1", "2"]} for i in range(6)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    problems = load_problems(settings(path, problems=6, kind="choice", choices_column="options"), tmp_path, 0).search
    assert {problem.gold for problem in problems} == {"A", "B", "C"}
    assert problems[0].prompt.endswith("?\n\nA. 0\nB. 1\nC. 2")
    bad = write_jsonl(tmp_path / "b.jsonl", [{"question": "q", "answer": "9", "options": ["x", "y"]}] * 2)
    with pytest.raises(UserError, match=r"one of the 2 options, but line 1 of .* has '9'"):
        load_problems(settings(bad, kind="choice", choices_column="options"), tmp_path, 0)


def golds(folder: Path, rows: list[dict[str, object]], **task: object) -> list[str]:
    """The golds of rows, in their order."""
    numbered = [{"question": f"Which is {i}?", **row} for i, row in enumerate(rows)]
    path = write_jsonl(folder / "golds.jsonl", numbered)
    found = load_problems(settings(path, problems=len(rows), **task), folder, 0).search
    by_question = {problem.prompt.splitlines()[0]: problem.gold for problem in found}
    return [by_question[str(row["question"])] for row in numbered]


NUMBERS, CROSSED, KEYED = (
    ["1", "2", "3", "4"],
    {"A": "B", "B": "A"},
    {"text": ["x", "y", "z"], "label": ["1", "2", "3"]},
)


@pytest.mark.parametrize(
    ("options", "answers", "letters"),
    [
        (NUMBERS, [1, 0, 3], "BAD"),  # an integer is an index, whatever the options say
        (NUMBERS, [1.0, 3.0], "BD"),  # a column with missing values comes as floats
        (NUMBERS, [1, 4, 2], "ADB"),  # counted from 1, as the 4 shows
        (["red", "blue"], ["blue", "red"], "BA"),
        (["red", "blue"], ["B", "a", "(b)"], "BAB"),
        (["red", "blue"], ["0", "1"], "AB"),
        (CROSSED, ["A", "B"], "AB"),  # a key before a text
        ({"10": "j", "2": "b", "1": "a"}, ["10", "2"], "CB"),
        ({"A": "x", "B": None, "C": "z"}, ["C", "A"], "BA"),  # what is shown second is B
        (KEYED, ["1", "3"], "AC"),
    ],
)
def test_a_column_of_golds_is_read_one_way(tmp_path, options, answers, letters):
    rows = [{"answer": answer, "options": options} for answer in answers]
    assert golds(tmp_path, rows, kind="choice", choices_column="options") == list(letters)


def test_a_gold_that_names_two_options_is_refused_until_one_reading_is_named(tmp_path):
    rows = [{"answer": "2", "options": NUMBERS}, {"answer": "1", "options": NUMBERS}]
    with pytest.raises(
        UserError, match=r"'2' in row 1 of .* read as text and another read as index; .*`gold_is: text`"
    ):
        golds(tmp_path, rows, kind="choice", choices_column="options")
    assert golds(tmp_path, rows, kind="choice", choices_column="options", gold_is="text") == ["B", "A"]
    assert golds(tmp_path, rows, kind="choice", choices_column="options", gold_is="index") == ["C", "B"]


def test_the_text_of_two_options_names_neither(tmp_path):
    rows = [{"answer": "x", "options": ["x", "x", "y"]}]
    with pytest.raises(UserError, match="one of the 3 options"):
        golds(tmp_path, rows * 2, kind="choice", choices_column="options")


def test_large_floats_keep_their_digits(tmp_path):
    found = golds(tmp_path, [{"answer": 6.02e23}, {"answer": 27.0}, {"answer": 1.6e-19}])
    assert found == ["6.02e+23", "27", "1.6e-19"]


def test_a_row_may_have_an_error_of_its_own(tmp_path):
    rows = [{"answer": ["3.2"], "off": "1e-1"}, {"answer": ["3", "4"], "off": None}, {"answer": "8", "off": 0.5}]
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": f"q{i}", **row} for i, row in enumerate(rows)])
    config = settings(path, problems=3, kind="math", error_column="off")
    problems = {problem.prompt: problem for problem in load_problems(config, tmp_path, 0).search}
    claims = [
        ("q0", "3.29", True),
        ("q0", "3.31", False),
        ("q1", "4, 3", True),
        ("q1", "4, 3.1", False),
        ("q2", "8.4", True),
    ]
    for question, answer, right in claims:
        verdict = judge(problems[question].claim(f"\\boxed{{{answer}}}")).verdict
        assert verdict is (Verdict.CORRECT if right else Verdict.WRONG), (question, answer)
    bad = write_jsonl(tmp_path / "b.jsonl", [{"question": f"q{i}", "answer": "1", "off": "some"} for i in range(2)])
    with pytest.raises(UserError, match=r"`off` must be a number .* line 1 of .* has 'some'"):
        load_problems(settings(bad, problems=2, error_column="off"), tmp_path, 0)


def test_golds_that_no_parser_reads_match_themselves_and_are_named(tmp_path):
    texts = ["x+1", r"\heartsuit \star 3", "b>a>c", r"m_{\max}=n^2-n-1", "E_{1},E_{2}", r"\{x \mid x \ge 0\}"]
    rows = [{"question": f"q{i}", "answer": text} for i, text in enumerate(texts)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    problems = load_problems(settings(path, problems=len(rows), kind="math"), tmp_path, 0).search
    assert unreadable_golds(problems) == []
    assert {judge(problem.claim(f"\\boxed{{{problem.gold}}}")).verdict for problem in problems} == {Verdict.CORRECT}
    assert spelled_golds_of(problems) == [r"\heartsuit \star 3"]
