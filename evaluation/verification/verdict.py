"""What can become of one completion."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What became of one completion. Only CORRECT scores; every other verdict is counted by its name."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    TRUNCATED = "truncated"
    """Cut off at the token limit before a final answer was complete."""
    TIMEOUT = "timeout"
    """The comparison ran past its time or memory limit."""
    ERROR = "error"
    """The gold cannot be read or the verifier failed: the fault is not the model's."""


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it rests on."""

    verdict: Verdict
    answer: str | None = None
    """The extracted answer."""
    detail: str = ""
    """Why, for errors and timeouts."""


@dataclass(frozen=True)
class Pending:
    """A comparison that a worker process has to make."""

    job: dict[str, Any]
    answer: str | None = None
    truncated: bool = False
    tells: bool = False
    """The worker's detail is the answer that it compared."""

    def settle(self, verdict: Verdict, detail: str) -> Judgement:
        """The judgement once the worker has answered."""
        if self.tells and verdict in (Verdict.CORRECT, Verdict.WRONG):
            cut = self.truncated and verdict is Verdict.WRONG
            return Judgement(Verdict.TRUNCATED if cut else verdict, detail)
        cut = self.truncated and verdict in (Verdict.WRONG, Verdict.NO_ANSWER)
        return Judgement(Verdict.TRUNCATED if cut else verdict, self.answer, detail)
