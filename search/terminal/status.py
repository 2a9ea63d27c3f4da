"""`qtarget status`: the table of a study and what is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..loop.confirm import stored_verdict
from ..store.history import TrialRecord, best, front, load_history, plain_sft
from ..store.study import searched
from ..study.config_file import find_study
from ..study.files import BIAS_FILE, read_json
from ..study.folder_file import FOLDER_FILE
from .live import snapshot, standing
from .rungs import agreements, rungs
from .tables import front_table, show_bias, trials_table, winner_sentence
from .verdict import show_verdict


def show_status(path: Path, console: Console) -> dict[str, Any]:
    """Print the table of a study and what is left of it; returns the same as data."""
    search = searched(find_study(path))
    config, records = search.config, load_history(search.config)
    now = snapshot(config, records)
    left = now.left
    console.print(
        trials_table(records, f"Study {config.study}: {len(records) - left} of {len(records)} trials finished")
    )
    if search.note is not None:
        console.print(search.note, soft_wrap=True, markup=False, style="yellow")
    show_front(records, console)
    for part in standing(now):
        console.print(part)
    for line in agreements(config, records):
        console.print(line, soft_wrap=not console.record, markup=False, highlight=False)
    console.print(winner_sentence(best(records), plain_sft(records)), soft_wrap=not console.record)
    bias = read_json(config.study_folder / BIAS_FILE)
    show_bias(bias, console)
    verdict = stored_verdict(config)
    if verdict is not None:
        show_verdict(verdict, console)
    elif any(config.study_folder.glob(f"confirmation-*/{FOLDER_FILE}")):
        console.print("A confirmation has begun and decided nothing yet; `qtarget confirm` goes on with it.")
    return {
        "study": config.study,
        "folder": str(config.study_folder),
        "trials": [record.as_dict() for record in records],
        "unfinished": left,
        "confirmation": verdict,
        "changed": [change.field for change in search.changes],
        "cache_bias": bias,
        "rungs": rungs(config, records),
        "seconds": now.spent_seconds,
        **now.as_dict(),
    }


def show_front(records: Sequence[TrialRecord], console: Console) -> None:
    """Where a study measures what its trials forget."""
    if found := front(records):
        console.print(front_table(found))
