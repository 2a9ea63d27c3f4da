"""What is worth saying about data that are used nevertheless: each thing once, with how often and where first."""

from __future__ import annotations


class Notes:
    """Collects remarks while rows are read."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def count(self, remark: str, place: str) -> None:
        """A remark that may hold for many rows."""
        self._counts[remark] = self._counts.get(remark, 0) + 1
        self._first.setdefault(remark, place)

    def say(self, remark: str) -> None:
        """A remark that holds once."""
        self._counts.setdefault(remark, 0)

    def lines(self) -> tuple[str, ...]:
        """One sentence a remark, in the order in which they came up."""
        return tuple(self._line(remark, count) for remark, count in self._counts.items())

    def _line(self, remark: str, count: int) -> str:
        if not count:
            return remark
        times = "once" if count == 1 else f"{count} times"
        return f"{remark} ({times}, first in {self._first[remark]})"
