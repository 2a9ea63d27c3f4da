"""The per-item record of an evaluation: JSON lines, one a (problem, sample), written as decided and resumed from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import IO, Any, Self

from pydantic import ValidationError

from ...spaces.errors import UserError
from ...spaces.settings import Settings
from ..generation.completions import Finish
from ..reading.numeric import DEFAULT_TOLERANCE
from ..settings import Kind
from ..verification.verdict import Verdict


class Item(Settings):
    """One completion and what became of it."""

    problem: str
    """Id of the problem."""
    task: str
    sample: int
    """0 ≤ sample < k."""
    prompt: str
    """As the model saw it, chat template included."""
    completion: str
    gold: str
    answer: str | None
    """The extracted answer."""
    verdict: Verdict
    detail: str
    """Why, for errors and timeouts."""
    finish: Finish
    tokens: int
    """Generated tokens."""
    seconds: float
    """Wall time of the completion, shared with the rest of its batch."""
    kind: Kind | None = None
    """How it was judged, with the four fields that follow; None in files of before this was kept."""
    tolerance: float = DEFAULT_TOLERANCE
    absolute: float = 0.0
    verifier: str | None = None
    entry: dict[str, Any] | None = None
    judged_by: str = ""
    """Identity of the code that judged (`verify.fingerprint`)."""
    sampling: str
    """Identity of seed and sampling settings: items of different identity are not mixed."""


class ItemLog:
    """The items decided so far, in memory and, with a path, on disk. Use as a context manager.

    A tail that a crash tore is cut off, the file as it was kept beside it as `NAME.torn-N`.

    Raises UserError for a broken line before the last good one, and for items of another seed or sampling settings.
    """

    def __init__(self, path: Path | None, sampling: str) -> None:
        self.items: dict[tuple[str, int], Item] = {}
        self._file: IO[str] | None = None
        if path is None:
            return
        for item in read_items(path) if path.exists() else []:
            if item.sampling != sampling:
                raise UserError(
                    f"{path} must hold items of one seed and one set of sampling settings, but has {item.sampling} "
                    f"where this evaluation is {sampling}; evaluate into another file, or move this one away"
                )
            self.items[item.problem, item.sample] = item
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def add(self, item: Item) -> None:
        """Record `item`; it survives the death of this process."""
        self.items[item.problem, item.sample] = item
        if self._file is not None:
            self._file.write(item.model_dump_json() + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Make what was added survive a power cut."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self.sync()
            self._file.close()


def read_items(path: Path) -> list[Item]:
    """The items of a file, after cutting off a torn tail."""
    lines = path.read_bytes().split(b"\n")
    items: list[Item | None] = [_parse(line) for line in lines[:-1]]
    good = len(items)
    while good and items[good - 1] is None:
        good -= 1
    if good < len(items) or lines[-1]:
        _cut(path, sum(len(line) + 1 for line in lines[:good]))
    for number, item in enumerate(items[:good], start=1):
        if item is None:
            raise UserError(
                f"Every line of {path} must be one item, but line {number} is none and good ones follow it; "
                "delete the line, or the file, to evaluate again what is missing"
            )
    return [item for item in items[:good] if item is not None]


def _parse(line: bytes) -> Item | None:
    try:
        return Item.model_validate_json(line)
    except ValidationError:
        return None


def _cut(path: Path, size: int) -> None:
    """Truncate `path` to `size` bytes, after copying it."""
    copies = len(list(path.parent.glob(f"{path.name}.torn-*")))
    shutil.copyfile(path, path.with_name(f"{path.name}.torn-{copies + 1}"))
    os.truncate(path, size)
