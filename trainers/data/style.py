"""How demonstrations ask: what a model that learnt from them expects to be asked like, and so what tasks take over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from .turns import Conversation, PlainText, Turn

MOST_EXAMPLES = 64
"""Examples that tasks may ask for."""
KEPT = 16 * MOST_EXAMPLES
SYSTEM_ROLES = ("system", "developer")
ENOUGH = 4
"""So many different questions show what all of them have in common."""


@dataclass(frozen=True)
class Style:
    """What all demonstrations have in common."""

    chat: bool = True
    """Whether they go through the chat template."""
    system: str | None = None
    """The system message that all of them begin with; None where they differ."""
    systems: int = 0
    """How many different system messages there are, none counted as one of them where any is there."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template that all of them have."""
    differing_kwargs: bool = False
    """Whether rows set other variables beside these."""
    tools: bool = False
    """Whether any of them shows tools."""
    day: date | None = None
    """What their template prints as today."""
    examples: tuple[tuple[str, str], ...] = ()
    """Single questions with their answers, in an order drawn by their content."""
    opening: str = ""
    """What all of their questions begin with; nothing where these are too few to say."""
    closing: str = ""
    """What all of their questions end with."""


class Frame:
    """What all of some texts begin and end with."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._different: set[str] = set()
        self.opening = self.closing = ""
        for text in texts:
            self.see(text)

    def see(self, text: str) -> None:
        first = not self._different
        self.opening = text if first else beginning(self.opening, text)
        self.closing = text if first else ending(self.closing, text)
        if len(self._different) < ENOUGH:
            self._different.add(text)

    @property
    def tells(self) -> bool:
        """Whether there were enough different texts to say what is common to all."""
        return len(self._different) >= ENOUGH


def beginning(first: str, second: str) -> str:
    """What two texts both begin with."""
    pairs = zip(first, second, strict=False)
    return first[: next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))]


def ending(first: str, second: str) -> str:
    """What two texts both end with."""
    length = min(len(first), len(second))
    return beginning(first[len(first) - length :][::-1], second[len(second) - length :][::-1])[::-1]


class StyleWatch:
    """Looks at demonstrations as they are read."""

    def __init__(self) -> None:
        self._systems: dict[str | None, int] = {}
        self._variables: dict[str, Mapping[str, Any]] = {}
        self._tools = self._plain = False
        self._examples: dict[bytes, tuple[str, str, str]] = {}
        self._questions = Frame()

    def see(self, turn: Turn) -> None:
        self._see_question(turn)
        if not isinstance(turn, Conversation):
            self._plain = True
            return
        system, rest = _split(turn)
        self._systems[system] = self._systems.get(system, 0) + 1
        self._variables.setdefault(json.dumps(turn.template_kwargs, sort_keys=True, default=str), turn.template_kwargs)
        self._tools |= turn.tools is not None
        if [message["role"] for message in rest] == ["user", "assistant"] and rest[1].keys() == {"role", "content"}:
            self._offer(turn.place, *(message["content"] for message in rest))

    def style(self, variables: Mapping[str, Any], day: date, kept: Collection[str]) -> Style:
        """`variables`: those of the settings; `kept`: places of the demonstrations that are learnt from."""
        rows = list(self._variables.values())
        examples = [(ask, say) for _, (ask, say, place) in sorted(self._examples.items()) if place in kept]
        return Style(
            chat=not self._plain,
            system=next(iter(self._systems)) if len(self._systems) == 1 else None,
            systems=0 if set(self._systems) <= {None} else len(self._systems),
            template_kwargs={**variables, **(rows[0] if len(rows) == 1 else {})},
            differing_kwargs=len(rows) > 1,
            tools=self._tools,
            day=day,
            examples=tuple(examples[:MOST_EXAMPLES]),
            opening=self._questions.opening if self._questions.tells else "",
            closing=self._questions.closing if self._questions.tells else "",
        )

    def _see_question(self, turn: Turn) -> None:
        """The last thing that is asked; whole texts ask nothing."""
        asked = [] if isinstance(turn, PlainText) and turn.whole else list(turn.asked)
        if asked:
            self._questions.see(asked[-1])

    def _offer(self, place: str, asked: str, said: str) -> None:
        """Keep the first examples in an order that their content decides, each question once."""
        if not said.strip():
            return
        self._examples.setdefault(hashlib.sha256(f"few shot\0{asked}".encode()).digest(), (asked, said, place))
        if len(self._examples) > 2 * KEPT:
            self._examples = dict(sorted(self._examples.items())[:KEPT])


def _split(turn: Conversation) -> tuple[str | None, list[Mapping[str, Any]]]:
    first, *rest = turn.messages
    return (first["content"], rest) if first["role"] in SYSTEM_ROLES else (None, list(turn.messages))
