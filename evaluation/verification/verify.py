"""Is a completion's final answer the right one? One strict verdict, the same in any thread, process and year.

The answer is extracted (`answers.py`) and compared as a whole by `kind` (`compare.py`):

- `numeric`: one number (`numeric.py`); integers exactly, other golds within a stated relative tolerance
- `math`: equal texts, words and numbers as above; everything else symbolically (math-verify) in a worker process
- `choice`: the option's letter
- `exact`: equality after Unicode NFC and with white space collapsed

Or a user's `module:function` decides, or the reasoning-gym or lm-evaluation-harness task the problem comes from; these
run in a worker too. A
gold that says nothing is an ERROR whatever the completion says, so that a broken data set never scores points. The
principles are written out in docs/answers.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..extraction.answers import clean, explicit_answer, extract_answer
from ..reading.numeric import DEFAULT_TOLERANCE
from ..reading.points import Tolerance
from ..settings import Kind
from .compare import COMPARISONS
from .pool import shared_pool
from .verdict import Judgement, Pending, Verdict

__all__ = ["Claim", "Judgement", "Verdict", "fingerprint", "judge", "judge_all", "spelled_golds", "verify"]

DEFAULT_LIMIT = 10.0
"""Seconds of wall clock for one comparison in a worker; most take milliseconds, also on a busy machine."""

_PARSERS = ("math-verify", "latex2sympy2_extended", "sympy")
_JUDGES = ("reading", "extraction", "verification")


@dataclass(frozen=True)
class Claim:
    """One completion to be judged."""

    completion: str
    gold: str
    kind: Kind = "math"
    verifier: str | None = None
    """`module:function` that decides instead of `kind`."""
    entry: dict[str, Any] | None = None
    """The reasoning-gym entry, or document of an lm-evaluation-harness task (`harness_entry`), whose own scorer decides
    instead of `kind`."""
    truncated: bool = False
    """The completion was cut off at the token limit."""
    tolerance: float = DEFAULT_TOLERANCE
    """Relative; for golds that are no integers."""
    absolute: float = 0.0
    """How far an answer may be from any number, for golds that come with an error of their own."""
    reasoning: bool = False
    """The prompt ends in an opened `<think>` that the completion has to close (`answers.opens_reasoning`)."""


def verify(
    completion: str,
    gold: str,
    kind: Kind = "math",
    *,
    verifier: str | None = None,
    truncated: bool = False,
    tolerance: float = DEFAULT_TOLERANCE,
    limit: float = DEFAULT_LIMIT,
    reasoning: bool = False,
) -> Verdict:
    """The verdict on one completion. `limit`: seconds for the comparison, should it need a worker.

    Raises ValueError for an unknown kind; nothing in `completion` or `gold` raises.
    """
    claim = Claim(completion, gold, kind, verifier, None, truncated, tolerance, reasoning=reasoning)
    return judge(claim, limit=limit).verdict


def judge(claim: Claim, *, limit: float = DEFAULT_LIMIT) -> Judgement:
    """One judgement; the comparison may take `limit` seconds."""
    return judge_all([claim], limit=limit)[0]


def judge_all(claims: Sequence[Claim], *, limit: float = DEFAULT_LIMIT) -> list[Judgement]:
    """Judgements in the order of the claims; what needs a worker is shared among the pool's workers."""
    prepared = [_prepare(claim) for claim in claims]
    pending = [item for item in prepared if isinstance(item, Pending)]
    replies = iter(shared_pool().ask_all([item.job for item in pending], limit) if pending else ())
    return [item if isinstance(item, Judgement) else _settle(item, *next(replies)) for item in prepared]


def spelled_golds(golds: Sequence[str], *, limit: float = DEFAULT_LIMIT) -> list[str]:
    """Mathematical golds that no parser reads, so that only the same spelling matches them."""
    jobs = [{"do": "read", "gold": _gold_answer(gold)} for gold in golds]
    replies = shared_pool().ask_all(jobs, limit) if jobs else []
    return [gold for gold, (verdict, _) in zip(golds, replies, strict=True) if verdict != "correct"]


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Identity of what judges: sources that read, extract and compare, and versions of math-verify's packages."""
    floor = Path(__file__).parents[1]
    parts = [f"{name} {version(name)}" for name in _PARSERS]
    files = [path for room in _JUDGES for path in sorted((floor / room).glob("*.py"))]
    parts += [path.name + path.read_text("utf-8") for path in files]
    return sha256("\0".join(parts).encode()).hexdigest()[:16]


def _settle(item: Pending, verdict: str, detail: str) -> Judgement:
    return item.settle(Verdict(verdict), detail)


def _prepare(claim: Claim) -> Judgement | Pending:
    """Everything that needs no worker: extraction, and comparison where it is cheap."""
    if claim.kind not in COMPARISONS:
        raise ValueError(f"`kind` must be one of {', '.join(COMPARISONS)}, but got {claim.kind!r}")
    if claim.verifier is not None:
        return Pending(_verifier_job(claim.verifier, claim), None, claim.truncated)
    if claim.entry is not None and "harness" in claim.entry:
        return Pending(_harness_job(claim.entry["harness"], claim.completion), None, claim.truncated, tells=True)
    gold = _gold_answer(claim.gold)
    if not gold and claim.entry is None:
        return Judgement(Verdict.ERROR, None, "the problem has no gold answer")
    kind = "exact" if claim.entry is not None else claim.kind
    answer = extract_answer(claim.completion, kind, reasoning=claim.reasoning)
    if claim.truncated and (answer is None or not answer.closed):
        return Judgement(Verdict.TRUNCATED, answer.text if answer else None)
    if claim.entry is None:
        return COMPARISONS[claim.kind](answer, gold, Tolerance(claim.tolerance, claim.absolute))
    if answer is None:
        return Judgement(Verdict.NO_ANSWER)
    gym_job = {"do": "gym", "answer": answer.text, "gold": claim.gold, "entry": claim.entry, "module": "reasoning_gym"}
    return Pending(gym_job, answer.text)


def _verifier_job(verifier: str, claim: Claim) -> dict[str, Any]:
    module = verifier.partition(":")[0]
    return {
        "do": "verifier",
        "verifier": verifier,
        "module": module,
        "completion": claim.completion,
        "gold": claim.gold,
    }


def _harness_job(entry: dict[str, Any], completion: str) -> dict[str, Any]:
    """`entry` has `likelihoods` where these are the answer, and not a text."""
    source = entry["source"]
    return {
        "do": "harness",
        "first": {"do": "load harness", "source": source},
        "source": source,
        "task": entry["task"],
        "doc": entry["doc"],
        "answers": entry.get("likelihoods") or [completion],
    }


def _gold_answer(gold: str) -> str:
    """The gold itself, or what it marks as its answer when it is a worked solution."""
    marked = explicit_answer(gold)
    return clean(marked.text if marked is not None else gold)
