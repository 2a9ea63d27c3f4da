"""Judges stored answers again, without a model: what a file says, what the verdict is now, and what changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from ...spaces.errors import UserError
from ...spaces.settings import Settings
from ...trainers.data.formats import BROKEN, OPENERS
from ..extraction.answers import opens_reasoning
from ..reading.numeric import DEFAULT_TOLERANCE
from ..settings import Kind
from .verdict import Judgement, Verdict
from .verify import DEFAULT_LIMIT, Claim, judge_all


class StoredAnswer(Settings):
    """One line of a file: an item of an evaluation, or any completion with its gold. Other fields are passed over."""

    model_config = Settings.model_config | {"extra": "ignore"}

    completion: str
    gold: str
    kind: Kind | None = None
    verdict: Verdict | None = None
    """What it was judged before."""
    correct: bool | None = None
    """The same from files that only know right and wrong."""
    answer: str | None = None
    finish: str = "end"
    truncated: bool = False
    prompt: str = ""
    verifier: str | None = None
    entry: dict[str, Any] | None = None
    tolerance: float = Field(default=DEFAULT_TOLERANCE, ge=0)
    absolute: float = Field(default=0.0, ge=0)
    judged_by: str = ""

    @field_validator("gold", mode="before")
    @classmethod
    def _as_problems_are_read(cls, gold: Any) -> Any:
        """A number as its digits, several answers as one list."""
        if isinstance(gold, list) and gold:
            return ", ".join(str(cls._as_problems_are_read(each)) for each in gold)
        if isinstance(gold, float) and gold.is_integer() and abs(gold) < 2**53:
            return str(int(gold))
        return str(gold) if isinstance(gold, int | float) else gold

    @property
    def before(self) -> str | None:
        """The verdict in the file; "correct" or "not correct" where it only knows that; None without either."""
        if self.verdict is not None:
            return self.verdict.value
        return None if self.correct is None else "correct" if self.correct else "not correct"

    def claim(self, kind: Kind | None) -> Claim:
        """To be judged again; `kind` for lines that name none."""
        truncated = self.truncated or self.finish == "length"
        how = self.kind or kind or "math"
        reasoning = opens_reasoning(self.prompt)
        return Claim(
            self.completion,
            self.gold,
            how,
            self.verifier,
            self.entry,
            truncated,
            self.tolerance,
            self.absolute,
            reasoning,
        )


@dataclass(frozen=True)
class Judged:
    """A stored answer with its verdict of today."""

    line: int
    stored: StoredAnswer
    now: Judgement
    folder: str = ""
    """Of the trial, where several are judged together."""

    @property
    def changed(self) -> bool:
        """Whether the verdict differs from the one in the file; not for lines that have none."""
        before = self.stored.before
        if before == "not correct":
            return self.now.verdict is Verdict.CORRECT
        return before is not None and before != self.now.verdict.value

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for programs."""
        return {
            "folder": self.folder,
            "line": self.line,
            "before": self.stored.before,
            "now": self.now.verdict.value,
            "gold": self.stored.gold,
            "answer_before": self.stored.answer,
            "answer": self.now.answer,
            "detail": self.now.detail,
            "completion": self.stored.completion,
        }


def rejudge(path: Path, kind: Kind | None = None, *, limit: float = DEFAULT_LIMIT) -> list[Judged]:
    """Judge every line of a JSONL file, compressed or not, of `items.jsonl` in a folder, or of all those below it.

    `kind`: for lines that name none. Files are only read. Raises UserError for a missing file, one without answers, a
    line that is no answer, and lines without a kind when none is given; a last line that a crash tore is passed over.
    """
    stored = [(file, line, answer) for file in _files(path) for line, answer in _read(file)]
    if not stored:
        raise UserError(f"There must be answers to judge, but {path} holds none; give another file or folder")
    nameless = next(((file, line) for file, line, each in stored if each.kind is None and each.verifier is None), None)
    if nameless is not None and kind is None:
        raise UserError(
            f"Every answer must say how it is compared, but {nameless[0]}, line {nameless[1]} has no `kind`; give "
            "`--kind` (math, numeric, choice or exact)"
        )
    judgements = judge_all([answer.claim(kind) for _, _, answer in stored], limit=limit)
    several = len({file for file, _, _ in stored}) > 1
    return [
        Judged(line, answer, judgement, str(file.parent.relative_to(path)) if several else "")
        for (file, line, answer), judgement in zip(stored, judgements, strict=True)
    ]


def _files(path: Path) -> list[Path]:
    """The file, or the items of a trial, a study or an evaluation."""
    if not path.is_dir():
        return [path]
    own = path / "items.jsonl"
    return [own] if own.is_file() else sorted(path.rglob("items.jsonl")) or [own]


def transitions(judged: Sequence[Judged]) -> Counter[tuple[str, str]]:
    """How many went from which verdict to which; lines without an earlier verdict count from "-"."""
    return Counter((each.stored.before or "-", each.now.verdict.value) for each in judged)


def _read(file: Path) -> Iterator[tuple[int, StoredAnswer]]:
    try:
        with OPENERS.get(file.suffix.lower(), open)(file, "rb") as opened:
            lines = opened.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except BROKEN as error:
        raise UserError(
            f"Answers are read from a JSONL file or a folder with `items.jsonl`, but {file} cannot be read: "
            f"{getattr(error, 'strerror', None) or error}; give the path of an `items.jsonl`"
        ) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, StoredAnswer.model_validate(json.loads(line.decode("utf-8")))
        except (ValueError, ValidationError) as error:
            if number == len(lines):
                return  # torn: it has no end of line
            raise UserError(
                f"Every line must be a JSON object with texts `completion` and `gold`, but {file}, line {number} is "
                f"none: {_reason(error)}; mend the line, or leave it out"
            ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"
    return str(error)
