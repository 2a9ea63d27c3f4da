"""`verify` against its specification (verdicts.yaml), in every place it may be called from, and against bad input."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qtarget.evaluation import Verdict, verify
from qtarget.evaluation.extraction.answers import opens_reasoning
from qtarget.evaluation.verification.verify import Claim, fingerprint, judge, judge_all

_HERE = Path(__file__).parent
_TABLE = yaml.safe_load((_HERE / "verdicts.yaml").read_text(encoding="utf-8"))
CASES = [(group, *case) for group, cases in _TABLE.items() for case in cases]
HARD = {
    group: cases
    for name in ("answers.yaml", "completions.yaml")
    for group, cases in yaml.safe_load((_HERE / name).read_text(encoding="utf-8")).items()
}
HANGING = r"\boxed{9^{9^{9^{9}}}}"


def _id(case: tuple[str, ...]) -> str:
    return f"{case[0]}: {case[1]} {case[2]!r} <- {case[3]!r}"[:100]


@pytest.mark.parametrize(("group", "kind", "gold", "completion", "verdict"), CASES, ids=map(_id, CASES))
def test_specification(group, kind, gold, completion, verdict):
    assert verify(completion, gold, kind) is Verdict(verdict)


@pytest.mark.parametrize("group", HARD)
def test_hard_answers(group):
    rows = [(kind, gold, text, good) for kind, gold, *both in HARD[group] for good in (0, 1) for text in both[good]]
    judged = judge_all([Claim(completion, gold, kind) for kind, gold, completion, _ in rows])
    found = [(row[:3], judgement.verdict.value) for row, judgement in zip(rows, judged, strict=True)]
    assert [each for each, row in zip(found, rows, strict=True) if (each[1] == "correct") != (row[3] == 0)] == []


def test_a_gold_is_equal_to_itself_in_a_box_and_in_a_sentence():
    golds = {(kind, gold) for cases in HARD.values() for kind, gold, *_ in cases if "\n" not in gold}
    claims = [Claim(f"\\boxed{{{gold}}}", gold, kind) for kind, gold in sorted(golds)]
    claims += [Claim(f"The answer is {gold}", gold, kind) for kind, gold in sorted(golds)]
    wrong = [claim for claim, judged in zip(claims, judge_all(claims), strict=True) if judged.verdict != "correct"]
    assert wrong == []


def test_the_specification_is_large_and_half_negative():
    negative = sum(case[-1] != "correct" for case in CASES)
    assert len(CASES) >= 150
    assert 0.5 <= negative / len(CASES) <= 0.6


def test_verdicts_agree_in_a_thread_and_in_a_batch():
    sample = [case for case in CASES if case[1] == "math"]
    expected = [Verdict(case[-1]) for case in sample]
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.extend(verify(c, g, k) for _, k, g, c, _ in sample))
    thread.start()
    batch = [judgement.verdict for judgement in judge_all([Claim(c, g, k) for _, k, g, c, _ in sample])]
    thread.join()
    assert found == expected
    assert batch == expected


@pytest.mark.slow
def test_verdicts_agree_in_a_daemonic_process():
    """A daemonic process may have no children of multiprocessing's; the workers must start all the same."""
    script = """
import multiprocessing
from qtarget.evaluation import verify

def work(queue):
    queue.put([verify(r"\\boxed{\\sqrt{4}}", "2").name, verify("5 or 6", "5").name])

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    assert verify(r"\\boxed{\\sqrt{9}}", "3").name == "CORRECT"  # the parent's worker must not be shared
    process = context.Process(target=work, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=240) == ["CORRECT", "WRONG"]
    process.join()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=250)


@pytest.mark.slow
def test_a_hanging_comparison_ends_at_its_limit_and_the_next_is_right():
    assert verify(HANGING, "5", limit=1.0) is Verdict.TIMEOUT
    assert verify(r"\boxed{x+1}", "1+x") is Verdict.CORRECT


@pytest.mark.slow
def test_a_batch_survives_a_hanging_item():
    claims = [Claim(rf"\boxed{{x+{i}}}", "x+1") for i in range(3)]
    claims.insert(1, Claim(HANGING, "5"))
    verdicts = [judgement.verdict for judgement in judge_all(claims, limit=1.0)]
    assert verdicts == [Verdict.WRONG, Verdict.TIMEOUT, Verdict.CORRECT, Verdict.WRONG]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["math", "numeric", "choice", "exact"])
@pytest.mark.parametrize(
    "completion",
    [
        "7" * 100_000,
        r"\boxed{" + "7" * 100_000 + "}",
        r"\boxed{" * 15_000,
        "<answer>" * 12_000,
        "####" * 25_000,
        "the answer is " * 8_000,
        "(" * 100_000,
        "1 or " * 20_000,
        "1," * 50_000,
        "\ud800\udfff\x00\x1b" * 1_000 + " 7",
        "\\" * 100_000,
        "$" * 100_000,
        "a " * 50_000,
        "`" * 60_000,
        "```\n" * 15_000,
        "**a " * 16_000,
        "\\(" * 30_000,
        "answer " * 9_000,
        "\nQuestion: is the answer 7" * 2_500,
        "A. x\n" * 12_000,
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_large_and_broken_text_is_judged_quickly(kind, completion):
    gold = "B" if kind == "choice" else "6"
    start = time.process_time()  # a worker's part has its own limit, past which the verdict is another one
    assert verify(completion, gold, kind) in (Verdict.WRONG, Verdict.NO_ANSWER)
    assert time.process_time() - start < 15


def test_invalid_unicode_does_not_hide_an_answer():
    assert verify("\ud800 the answer is 5", "5", "numeric") is Verdict.CORRECT
    assert verify("\ud800 \\boxed{\\sqrt{25}}", "5") is Verdict.CORRECT
    assert verify("\ud800", "\ud800", "exact") is Verdict.CORRECT


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("First we add 4 and 2, then", Verdict.TRUNCATED),
        ("So it is 42", Verdict.TRUNCATED),  # could have become 420
        ("#### 42", Verdict.TRUNCATED),
        ("#### 42\nQuestion: what", Verdict.CORRECT),
        ("#### 41\nQuestion: what", Verdict.WRONG),
        ("\\boxed{42} and moreov", Verdict.CORRECT),
        ("\\boxed{42", Verdict.TRUNCATED),
        ("The answer is 42", Verdict.TRUNCATED),
        ("The answer is 42. Now", Verdict.CORRECT),
        ("<think>The answer is 42.", Verdict.TRUNCATED),
        ("", Verdict.TRUNCATED),
    ],
)
def test_a_truncated_completion_counts_only_with_a_finished_answer(completion, verdict):
    assert verify(completion, "42", "numeric", truncated=True) is verdict


@pytest.mark.parametrize(
    ("gold", "completion", "tolerance", "verdict"),
    [
        ("3.3333", "3.33", 1e-6, Verdict.WRONG),
        ("3.3333", "3.33", 1e-2, Verdict.CORRECT),
        ("100", "100.5", 1e-2, Verdict.WRONG),  # integers stay exact
        ("100.5", "101", 1e-2, Verdict.CORRECT),
    ],
)
def test_the_tolerance_is_relative_and_for_decimals_only(gold, completion, tolerance, verdict):
    assert verify(completion, gold, "numeric", tolerance=tolerance) is verdict


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`kind` must be one of math, numeric, choice, exact"):
        verify("5", "5", "maths")


@pytest.mark.slow
def test_a_users_verifier_decides(verifiers):
    assert verify("it is so", "so", verifier=f"{verifiers}:ends") is Verdict.CORRECT
    assert verify("it is so", "no", verifier=f"{verifiers}:ends") is Verdict.WRONG
    assert verify("it is so", "no", verifier=f"{verifiers}:ends", truncated=True) is Verdict.TRUNCATED
    assert verify("it is so", "so", verifier=f"{verifiers}:named") is Verdict.NO_ANSWER


@pytest.mark.parametrize(
    ("function", "detail"),
    [
        ("broken", "ZeroDivisionError: by design"),
        ("odd", "must return a bool"),
        ("crash", "worker died"),
        ("missing", "AttributeError"),
    ],
)
def test_a_failing_verifier_is_an_error_with_its_reason(verifiers, function, detail):
    judgement = judge(Claim("x", "x", verifier=f"{verifiers}:{function}"))
    assert judgement.verdict is Verdict.ERROR
    assert detail in judgement.detail
    assert verify("so", "so", verifier=f"{verifiers}:ends") is Verdict.CORRECT


@pytest.mark.slow
def test_a_verifier_that_never_returns_is_a_timeout(verifiers):
    assert verify("x", "x", verifier=f"{verifiers}:loop", limit=0.5) is Verdict.TIMEOUT


def test_a_missing_module_is_an_error():
    judgement = judge(Claim("x", "x", verifier="no_such_module:f"))
    assert judgement.verdict is Verdict.ERROR
    assert "no_such_module" in judgement.detail


@pytest.mark.started_anew
def test_importing_evaluation_loads_no_torch():
    script = (
        "import sys, qtarget.evaluation, qtarget.evaluation.problems.load as p; "
        "assert not {'torch', 'transformers', 'datasets', 'math_verify'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=250)


@given(st.integers(-(10**12), 10**12), st.integers(-(10**6), 10**6), st.sampled_from(["{}", "#### {}", "So it is {}."]))
@settings(max_examples=200)
def test_integers_are_equal_or_wrong(gold, difference, form):
    expected = Verdict.CORRECT if difference == 0 else Verdict.WRONG
    for kind in ("numeric", "math"):
        assert verify(form.format(gold + difference), str(gold), kind) is expected
        assert verify(form.format(f"{gold + difference:,}"), str(gold), kind) is expected


@given(st.text(max_size=60), st.sampled_from(["numeric", "choice", "exact"]))
@settings(max_examples=100)
def test_any_text_has_a_verdict(text, kind):
    assert verify(text, "B" if kind == "choice" else "7", kind) in set(Verdict) - {Verdict.ERROR, Verdict.TIMEOUT}


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("The answer is 42.", Verdict.NO_ANSWER),
        ("The answer is 41.</think>The answer is 42.", Verdict.CORRECT),
        ("The answer is 42.</think>The answer is 41.", Verdict.WRONG),
        ("\\boxed{42}", Verdict.NO_ANSWER),
        ("</think>42", Verdict.CORRECT),
    ],
)
def test_reasoning_that_the_prompt_opened_has_to_end(completion, verdict):
    assert verify(completion, "42", "numeric", reasoning=True) is verdict


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|Assistant|><think>", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),  # reasoning switched off
        ("Put your thoughts into <think>, then answer.\n", False),
        ("", False),
    ],
)
def test_a_prompt_may_end_in_opened_reasoning(prompt, opened):
    assert opens_reasoning(prompt) is opened


def test_an_absolute_error_counts_for_integers_too():
    for answer, verdict in (("3.05", Verdict.CORRECT), ("3.2", Verdict.WRONG)):
        for kind in ("math", "numeric"):
            assert judge(Claim(f"\\boxed{{{answer}}}", "3", kind, absolute=0.1)).verdict is verdict


@pytest.mark.slow
def test_the_same_code_has_the_same_identity():
    script = "from qtarget.evaluation.verification.verify import fingerprint; print(fingerprint())"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert other == fingerprint() and len(other) == 16
