"""Problems split off demonstrations by the content of their questions, and the demonstrations that are left.

Held out are single questions with one answer whose end can be compared. A row that asks what a problem asks, as a whole
or in one of its lines, is no demonstration any more.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...spaces.errors import UserError
from ...trainers.data.files import read_path
from ...trainers.data.formats import Row
from ...trainers.data.notes import Notes
from ...trainers.data.shapes import turn_reader
from ...trainers.data.sources import sources
from ...trainers.data.style import SYSTEM_ROLES
from ...trainers.data.turns import Conversation, Turn
from ...trainers.settings import DataSettings
from ..problems.splits import content_hash, is_for_search, training_hashes
from .facts import HeldOut
from .golds import Pair, Reading, golds_of, reading_of_answers

SHARE = 0.125
"""Of the questions, in each of the two halves: problems to search with, and problems kept for the report."""
MOST = 256
"""Problems of a half."""
LEAST = 2
MOST_ROWS = 5
"""Rows that may be lost for one problem; a question that more rows hold is none."""
FEWEST = 8
"""Questions below which nothing is held out."""


@dataclass(frozen=True)
class Read:
    """Demonstrations as they are written."""

    rows: list[Row]
    turns: list[Turn]

    def pairs(self) -> dict[int, Pair]:
        """Single questions with their answers, by the number of their row."""
        found = ((number, pair_of(turn)) for number, turn in enumerate(self.turns))
        return {number: pair for number, pair in found if pair is not None}


def read_rows(settings: DataSettings, base: Path) -> Read:
    """Every row of the sources of `settings`. Raises UserError as loading demonstrations does."""
    found = Read([], [])
    for source in sources(settings):
        rows = list(read_path(source.path, base, name=source.name, split=source.split, field="data.path"))
        if not rows:
            raise UserError(f"`--data` must hold demonstrations, but {source.path} is empty", field="data.path")
        read = turn_reader(source, rows[0].values, source.path, Notes())
        found.rows.extend(rows)
        found.turns.extend(read(row) for row in rows)
    return found


def pair_of(turn: Turn) -> Pair | None:
    """Question and answer of a demonstration that is nothing else, a system message aside."""
    if not isinstance(turn, Conversation):
        return None if turn.whole or not turn.prompt.strip() else Pair(turn.prompt, turn.completion)
    messages = [each for each in turn.messages if each["role"] not in SYSTEM_ROLES]
    if [each["role"] for each in messages] != ["user", "assistant"] or turn.tools is not None:
        return None
    return Pair(messages[0]["content"], messages[1]["content"])


def hold_out(read: Read, folder: Path, reading: Reading) -> tuple[HeldOut, list[tuple[str, str]]]:
    """Write `problems.jsonl` and `demonstrations.jsonl`; what was held out, and some of the problems.

    Raises UserError when there are too few questions for two problems and something to learn.
    """
    pairs = read.pairs()
    asking = _rows_by_question(read.turns)
    usable = {content_hash(pair.question): pair for pair in pairs.values()}
    usable = {key: pair for key, pair in usable.items() if len(asking[key]) <= MOST_ROWS}
    if len(usable) < FEWEST:
        raise UserError(
            f"at least {FEWEST} different questions with an answer each are needed to hold problems out, but the "
            f"{len(read.rows)} demonstrations have {len(usable)}; name problems with known answers: --tasks "
            "problems.jsonl, or a suite such as --tasks gsm8k",
            field="evaluation.tasks",
        )
    problems = _drawn(usable, reading)
    lost = {number for key, _, _ in problems for number in asking[key]}
    kept = [row for number, row in enumerate(read.rows) if number not in lost]
    _write(folder / "problems.jsonl", ({"question": question, "answer": gold} for _, question, gold in problems))
    _write(folder / "demonstrations.jsonl", (dict(row.values) for row in kept))
    found = HeldOut(problems=len(problems), demonstrations=len(kept), removed=len(lost))
    return found, [(question, gold) for _, question, gold in problems[:2]]


def pairs_of(read: Read) -> Sequence[Pair]:
    """Single questions with their answers. Raises UserError where there is none."""
    found = list(read.pairs().values())
    if not found:
        raise UserError(
            "problems can be held out of demonstrations with one question and one answer, but none of the "
            f"{len(read.rows)} is one (whole texts, several turns, or tools); name problems with known answers: "
            "--tasks problems.jsonl, or a suite such as --tasks gsm8k",
            field="evaluation.tasks",
        )
    return found


def reading_of(read: Read, kind: str | None) -> Reading:
    """How the answers of demonstrations can be compared. Raises UserError where they cannot."""
    return reading_of_answers(pairs_of(read), kind)  # type: ignore[arg-type]


def _rows_by_question(turns: Sequence[Turn]) -> dict[str, set[int]]:
    """Rows that a text is asked in, as a whole or as a line, by the hash of the text."""
    found: dict[str, set[int]] = defaultdict(set)
    for number, turn in enumerate(turns):
        for key in training_hashes(turn.asked):
            found[key].add(number)
    return found


def _drawn(usable: dict[str, Pair], reading: Reading) -> list[tuple[str, str, str]]:
    """(hash, question, gold) of the problems of both halves, in an order that their content decides."""
    wanted = min(MOST, max(LEAST, round(SHARE * len(usable))))
    drawn: list[tuple[str, str, str]] = []
    for search in (True, False):
        half = sorted(key for key in usable if is_for_search(key) is search)
        found: list[tuple[str, str, str]] = []
        while half and len(found) < wanted:
            some, half = half[: wanted - len(found)], half[wanted - len(found) :]
            golds = golds_of([usable[key] for key in some], reading.kind)
            found += [(key, usable[key].question, gold) for key, gold in zip(some, golds, strict=True) if gold]
        drawn += found
    return drawn


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_line(row) + "\n")


def _line(row: dict[str, object]) -> str:
    text = json.dumps(row, ensure_ascii=False, default=str)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a character in a column that is not read
        text = json.dumps(row, default=str)
    return text
