"""`verify` against its specification (verdicts.yaml), in every place it may be called from, and against bad input."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qtarget.evaluation import Verdict, verify
from qtarget.evaluation.verification.pool import shared_pool
from qtarget.evaluation.verification.verify import Claim, judge, judge_all

_TABLE = yaml.safe_load((Path(__file__).parent / "verdicts.yaml").read_text(encoding="utf-8"))
CASES = [(group, *case) for group, cases in _TABLE.items() for case in cases]


def _id(case: tuple[str, ...]) -> str:
    return f"{case[0]}: {case[1]} {case[2]!r} <- {case[3]!r}"[:100]


@pytest.mark.parametrize(("group", "kind", "gold", "completion", "verdict"), CASES, ids=map(_id, CASES))
def test_specification(group, kind, gold, completion, verdict):
    assert verify(completion, gold, kind) is Verdict(verdict)


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
    assert queue.get(timeout=60) == ["CORRECT", "WRONG"]
    process.join()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_hanging_comparison_ends_at_its_limit_and_the_next_is_right():
    start = time.monotonic()
    assert verify(r"\boxed{10^{10^{10}}}", "x+5", limit=1.0) is Verdict.TIMEOUT
    assert time.monotonic() - start < 30  # one limit, and perhaps the start of a worker
    assert verify(r"\boxed{x+1}", "1+x") is Verdict.CORRECT


def test_a_batch_survives_a_hanging_item():
    claims = [Claim(rf"\boxed{{x+{i}}}", "x+1") for i in range(3)]
    claims.insert(1, Claim(r"\boxed{10^{10^{10}}}", "x+5"))
    verdicts = [judgement.verdict for judgement in judge_all(claims, limit=1.0)]
    assert verdicts == [Verdict.WRONG, Verdict.TIMEOUT, Verdict.CORRECT, Verdict.WRONG]


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
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_large_and_broken_text_is_judged_quickly(kind, completion):
    gold = "B" if kind == "choice" else "6"
    start = time.monotonic()
    assert verify(completion, gold, kind) in (Verdict.WRONG, Verdict.NO_ANSWER)
    assert time.monotonic() - start < 15


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


@pytest.fixture(scope="module")
def verifiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("verifiers")
    (folder / "my_verifiers.py").write_text(
        "def ends(completion, gold):\n    print('noise on stdout', flush=True)\n    return completion.endswith(gold)\n"
        "def named(completion, gold):\n    return 'no_answer'\n"
        "def broken(completion, gold):\n    raise ZeroDivisionError('by design')\n"
        "def odd(completion, gold):\n    return 0.7\n"
        "def crash(completion, gold):\n    import os; os._exit(3)\n"
        "def loop(completion, gold):\n    while True: pass\n"
    )
    shared_pool().close()  # workers keep the path they were started with
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield "my_verifiers"
    shared_pool().close()


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


def test_a_verifier_that_never_returns_is_a_timeout(verifiers):
    assert verify("x", "x", verifier=f"{verifiers}:loop", limit=0.5) is Verdict.TIMEOUT


def test_a_missing_module_is_an_error():
    judgement = judge(Claim("x", "x", verifier="no_such_module:f"))
    assert judgement.verdict is Verdict.ERROR
    assert "no_such_module" in judgement.detail


def test_importing_evaluation_loads_no_torch():
    script = (
        "import sys, qtarget.evaluation, qtarget.evaluation.problems.load as p; "
        "assert not {'torch', 'transformers', 'datasets', 'math_verify'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@given(st.integers(-(10**12), 10**12), st.integers(-(10**6), 10**6), st.sampled_from(["{}", "#### {}", "So it is {}."]))
@settings(max_examples=200, deadline=None)
def test_integers_are_equal_or_wrong(gold, difference, form):
    expected = Verdict.CORRECT if difference == 0 else Verdict.WRONG
    for kind in ("numeric", "math"):
        assert verify(form.format(gold + difference), str(gold), kind) is expected
        assert verify(form.format(f"{gold + difference:,}"), str(gold), kind) is expected


@given(st.text(max_size=60), st.sampled_from(["numeric", "choice", "exact"]))
@settings(max_examples=100, deadline=None)
def test_any_text_has_a_verdict(text, kind):
    assert verify(text, "B" if kind == "choice" else "7", kind) in set(Verdict) - {Verdict.ERROR, Verdict.TIMEOUT}
