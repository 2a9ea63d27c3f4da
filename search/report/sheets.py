"""The items files of a study, each read once, with notes on what is torn or gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..store.history import TrialRecord
from ..terminal.verdict import decisive
from .data import StudyData
from .items import Sheet, last_sheet

SFT = "sft"


class Sheets:
    """Answers by trial."""

    def __init__(self, data: StudyData) -> None:
        self._data = data
        self._read: dict[Path, Sheet] = {}
        complete = [record for record in data.records if record.state == "complete" and record.same_as is None]
        self.notes = [note for record in complete if (note := self._note(record)) is not None]

    def _note(self, record: TrialRecord) -> str | None:
        sheet = self.of(record)
        if sheet.broken:
            return f"trial {record.number}: {sheet.broken} broken line(s) in items.jsonl, {len(sheet.answers)} good."
        return None if sheet.answers else f"trial {record.number}: items.jsonl is missing, and with it the answers."

    def of(self, record: TrialRecord | None) -> Sheet:
        """The answers of a trial; of a pruned one, those at its last rung."""
        if record is None:
            return Sheet()
        if record.folder not in self._read:
            self._read[record.folder] = last_sheet(record.folder)
        return self._read[record.folder]

    def confirmed(self) -> tuple[Sheet, Sheet] | None:
        """The confirmed winner's answers on the untouched problems and those of plain SFT, averaged over seeds."""
        verdict, confirmation = self._data.verdict, self._data.confirmation
        if verdict is None or confirmation is None:
            return None
        titles = (decisive(verdict)["title"], SFT)
        ours, theirs = ([self.of(each) for each in confirmation.records if each.title == title] for title in titles)
        return (_merged(ours), _merged(theirs)) if ours and theirs else None


def _merged(sheets: Sequence[Sheet]) -> Sheet:
    """Answers of the first, scores averaged over all that have the problem."""
    problems = {problem for sheet in sheets for problem in sheet.scores}
    found = {problem: [sheet.scores[problem] for sheet in sheets if problem in sheet.scores] for problem in problems}
    scores = {problem: sum(values) / len(values) for problem, values in found.items()}
    return Sheet(tuple(answer for sheet in sheets for answer in sheet.answers), 0, scores)
