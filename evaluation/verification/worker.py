"""The killable process in which answers are compared: one JSON object a line in, one out.

It owns everything that may hang, crash or raise: sympy, a user's verifier, a reasoning-gym scorer, a metric of
lm-evaluation-harness. The caller holds the wall clock; as a second fuse the process ends itself when one item takes
twice the limit, even if nobody is left to kill it. Standard output is kept for the replies, so a verifier that prints
does no harm.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TextIO

MEMORY_LIMIT = 4 * 2**30
"""Bytes of private memory one worker may hold."""

Reply = tuple[str, str]
"""(verdict, detail)."""


def compare_math(answer: str, gold: str, relative: float, absolute: float) -> Reply:
    """Comparison of two mathematical answers, LaTeX or plain."""
    from ..reading.points import Tolerance
    from ..reading.symbolic import same_answer

    try:
        return ("correct" if same_answer(gold, answer, Tolerance(relative, absolute)) else "wrong"), ""
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # sympy raises many kinds over an answer that makes no sense
        return "wrong", _told(error)


def read_gold(gold: str) -> Reply:
    """Whether a parser reads all parts of a mathematical gold, so that it is matched by other spellings too."""
    from ..reading.symbolic import is_read

    return ("correct" if is_read(gold) else "wrong"), ""


def run_verifier(verifier: str, completion: str, gold: str) -> Reply:
    """A user's `module:function`, called with (completion, gold); it returns a bool or a verdict's name."""
    outcome = _function(verifier)(completion, gold)
    if isinstance(outcome, bool):
        return ("correct" if outcome else "wrong"), ""
    name = str(getattr(outcome, "value", outcome)).lower()
    if name in ("correct", "wrong", "no_answer", "truncated", "timeout", "error"):
        return name, ""
    return "error", f"`{verifier}` must return a bool or the name of a Verdict, but returned {outcome!r:.80}"


@lru_cache(maxsize=16)
def _function(verifier: str) -> Callable[[str, str], object]:
    module, _, name = verifier.partition(":")
    function: Callable[[str, str], object] = getattr(importlib.import_module(module), name)
    return function


def score_gym(answer: str, gold: str, entry: dict[str, Any]) -> Reply:
    """The task's own scorer, where anything below full marks is wrong."""
    from .gym import score_entry

    return ("correct" if score_entry(answer, gold, entry) else "wrong"), ""


def make_gym_items(request: dict[str, Any]) -> Reply:
    """Problems of a reasoning-gym task: made here because this process has a fixed hash seed."""
    from .gym import make_items

    return make_items(request["task"], request["config"], request["seed"], request["start"])


def make_harness_items(request: dict[str, Any]) -> Reply:
    """What a task of lm-evaluation-harness asks: made here because the same process judges by it."""
    from .harness import make_items

    return make_items(request["source"])


def load_harness(request: dict[str, Any]) -> Reply:
    """The task before its first item, so that it is not on the item's clock."""
    from .harness import prepare

    return prepare(request["source"])


def score_harness(request: dict[str, Any]) -> Reply:
    """The task's own filters and metric."""
    from .harness import score

    return score(request["source"], request["task"], request["doc"], request["answers"])


def _load(request: dict[str, Any]) -> Reply:
    importlib.import_module(request["module"])
    return "correct", ""


def _find(request: dict[str, Any]) -> Reply:
    return ("correct" if callable(_function(request["verifier"])) else "wrong"), "it cannot be called"


_ANSWERS: dict[str, Callable[[dict[str, Any]], Reply]] = {
    "load": _load,
    "make": make_gym_items,
    "read": lambda request: read_gold(request["gold"]),
    "math": lambda request: compare_math(request["answer"], request["gold"], request["relative"], request["absolute"]),
    "find": _find,
    "verifier": lambda request: run_verifier(request["verifier"], request["completion"], request["gold"]),
    "gym": lambda request: score_gym(request["answer"], request["gold"], request["entry"]),
    "make harness": make_harness_items,
    "load harness": load_harness,
    "harness": score_harness,
}


def answer_request(request: dict[str, Any]) -> Reply:
    """Run one request; whatever it raises becomes an error with the exception's text."""
    try:
        answer = _ANSWERS.get(request["do"])
        return ("error", f"unknown request {request['do']!r}") if answer is None else answer(request)
    except (MemoryError, RecursionError) as error:
        return "timeout", f"out of resources: {type(error).__name__}"
    except Exception as error:
        return "error", _told(error)


def _told(error: Exception) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300]


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests until the input ends."""
    replies.write('{"ready": true}\n')
    replies.flush()
    for line in requests:
        request = json.loads(line)
        faulthandler.dump_traceback_later(2 * request["limit"] + 1, exit=True, file=2)
        verdict, detail = answer_request(request)
        faulthandler.cancel_dump_traceback_later()
        replies.write(json.dumps({"verdict": verdict, "detail": detail}) + "\n")
        replies.flush()


def main() -> None:
    """Entry point: keep the real standard output for replies and silence everything else."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    compare_math(
        "x+1", "1+x", 0.0, 0.0
    )  # imports and grammar tables belong to the start, not to the first item's clock
    serve(sys.stdin, replies)
