"""One question with its known answer, ready to be asked and judged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import Field

from ...spaces.settings import Settings
from ..facts import Fact
from ..reading.numeric import DEFAULT_TOLERANCE
from ..settings import Kind
from ..verification.harness import HarnessItem
from ..verification.verify import Claim
from .asking import Asking
from .splits import content_hash


class Problem(Settings):
    """One question with its known answer, ready to be asked and judged."""

    id: str
    """Hash of question and gold, and of the whole prompt where another library makes it: the same problem has the same
    id in every study."""
    task: str
    question_hash: str
    """Hash of the normalised question; decides the split."""
    prompt: str
    """The user message; the chat template comes on top when `chat` is set."""
    gold: str
    kind: Kind = "math"
    verifier: str | None = None
    entry: dict[str, Any] | None = None
    """The reasoning-gym item, or lm-evaluation-harness document, whose own scorer judges."""
    harness: HarnessItem | None = None
    """How a task of lm-evaluation-harness asks it; `prompt` and `chat` then are for people."""
    known_by: frozenset[str] = frozenset()
    """More content hashes by which demonstrations may know it."""
    chat: bool = True
    asking: Asking = Asking()
    """What comes before the user message."""
    tolerance: float = DEFAULT_TOLERANCE
    absolute: float = 0.0
    """Error that the data set allows an answer to this problem, in the gold's unit."""
    facts: dict[str, Fact] = Field(default_factory=dict)
    """What else is known of it, by name: a report slices by these."""

    def is_among(self, hashes: Collection[str]) -> bool:
        """Whether its question, or its whole prompt, is among the content hashes of other texts."""
        return any(each in hashes for each in (self.question_hash, content_hash(self.prompt), *self.known_by))

    def claim(
        self,
        completion: str,
        *,
        truncated: bool = False,
        reasoning: bool = False,
        likelihoods: Sequence[tuple[float, bool]] = (),
    ) -> Claim:
        """A completion of this problem, to be judged by `verify.judge`; `likelihoods`: where these are the answer."""
        entry = self.entry
        if likelihoods and entry is not None:
            entry = {"harness": {**entry["harness"], "likelihoods": [list(each) for each in likelihoods]}}
        return Claim(
            completion,
            self.gold,
            self.kind,
            self.verifier,
            entry,
            truncated,
            self.tolerance,
            self.absolute,
            reasoning,
        )
