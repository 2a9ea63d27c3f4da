"""Which rows a `path` names: those of a file, of files by pattern, of a folder's split, or of a hub data set.

Local files are read as they are now, without a cache in between; `datasets` reads what lies on the hub, in its own
folders (`save_to_disk`), and what a folder's card says about its files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ..paths import DATA_SUFFIXES, local_path, matching_files
from .formats import READERS, Row, is_readable, read, suffix_of, without_nulls

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Words in the names of a folder's files, or of folders in it, that say which split they belong to."""
ABOUT = ("dataset_info.json", "dataset_infos.json", "config.json")
"""Files of a folder that describe data."""
SAVED = ("dataset_dict.json", "state.json")
"""Files of a folder that `datasets` wrote."""


def read_path(
    path: str,
    base: Path,
    *,
    name: str | None = None,
    split: str = "train",
    field: str,
    say: Callable[[str], None] = lambda note: None,
    one_split: bool = False,
) -> Iterator[Row]:
    """The rows of a file, a pattern, a folder or a hub id, in their order; relative paths start at `base`.

    `name`: configuration of a data set; `split`: `train`, `train[:100]`, `train+test`; `say` hears which files of a
    folder are left unread. `one_split`: a file, or files by pattern, are whatever split is asked for, not `train`.

    Raises UserError with `field` for what is not there or cannot be read; most of it while rows are taken.
    """
    files = matching_files(path, base, field=field)
    only = re.split(r"\W", split)[0] if one_split else "train"
    if files is not None:
        return _of_splits({only: files}, split, base, path, field)
    local = local_path(path, base, suffixes=DATA_SUFFIXES, field=field)
    if local is None:
        return _of_library(path, name, split, field)
    if local.is_file():
        return _of_splits({only: [local]}, split, base, path, field)
    if any((local / saved).is_file() for saved in SAVED):
        return _saved(local, path, split, field)
    return _of_splits(folder_splits(local, name, path, field, say), split, base, path, field)


def title_of(path: Path, base: Path) -> str:
    """How messages name a file: as seen from `base` where it lies below it."""
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def folder_splits(
    folder: Path, name: str | None, path: str, field: str, say: Callable[[str], None]
) -> dict[str, list[Path]]:
    """A folder's files by split, as their names or the folder's card say; without either all are `train`.

    Raises UserError where data of the folder would go unread without a word.
    """
    if name is not None or _has_configurations(folder / "README.md"):
        return _configured(folder, name, path, field)
    found = sorted(each for each in folder.rglob("*") if each.is_file() and not _is_beside(each, folder))
    files = [each for each in found if is_readable(each)]
    if others := [each for each in found if not is_readable(each)]:
        say(f"not read in {path}: {_some(others, folder)}")
    if not files:
        raise UserError(
            f"`path` must be a folder with files that end in one of {', '.join(READERS)}, but {path} has "
            f"{_some(found, folder) or 'no file'}; convert them, or name another folder",
            field=field,
        )
    splits: dict[str, list[Path]] = {}
    for each in files:
        splits.setdefault(_split_of(each.relative_to(folder)), []).append(each)
    if splits.keys() == {""}:
        splits = {"train": files}
    _refuse_unread(splits, folder, path, field)
    return splits


def _refuse_unread(splits: dict[str, list[Path]], folder: Path, path: str, field: str) -> None:
    """Files that belong to no split while others do, and files of two formats in one split, are not read in silence."""
    if unread := splits.get(""):
        raise UserError(
            f"the name of every file in {path} must say its split ({', '.join(SPLITS)}) when that of one does, but "
            f"{_some(unread, folder)} say none; name the files you mean: `path: [{path}/..., ...]`",
            field=field,
        )
    for split, files in splits.items():
        if len({suffix_of(each).replace("nd", "").replace("jsonl", "json") for each in files}) > 1:
            raise UserError(
                f"the {split} files in {path} must be of one format, but there are {_some(files, folder)}; name the "
                f"files you mean: `path: [{path}/..., ...]`, or `path: {path}/*.jsonl`",
                field=field,
            )


def _split_of(relative: Path) -> str:
    """The split that the name of a file, or else of a folder above it, names; "" where none does."""
    for part in reversed(relative.parts):
        words = re.split(r"[^a-z]+", part.lower())
        for split, known in SPLITS.items():
            if any(word in known for word in words):
                return split
    return ""


def _is_beside(path: Path, folder: Path) -> bool:
    """Whether a file of a folder is about the data, or hidden."""
    hidden = any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
    return hidden or path.name in ABOUT or path.suffix.lower() == ".md" or path.stem.upper() in ("README", "LICENSE")


def _some(files: Sequence[Path], folder: Path, shown: int = 4) -> str:
    names = [str(each.relative_to(folder)) for each in files]
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _has_configurations(card: Path) -> bool:
    """Whether a data card says which files belong to which split."""
    text = card.read_text("utf-8", "replace") if card.is_file() else ""
    head = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
    return re.search(r"^configs:", head, re.M) is not None


def _configured(folder: Path, name: str | None, path: str, field: str) -> dict[str, list[Path]]:
    import datasets

    try:
        builder = datasets.load_dataset_builder(str(folder), name)
        return {str(split): [Path(each) for each in files] for split, files in builder.config.data_files.items()}
    except Exception as error:  # every builder raises its own classes
        raise _unreadable(path, name, None, error, field) from error


def _of_splits(files: dict[str, list[Path]], split: str, base: Path, path: str, field: str) -> Iterator[Row]:
    def rows(name: str) -> Iterator[Row]:
        for each in files[name]:
            yield from read(each, title_of(each, base), field)

    if split in files:
        yield from rows(split)
        return
    known = {name: list(rows(name)) for name in files if name in re.split(r"\W+", split)}
    for part in _instructions(split, {name: len(known.get(name, ())) for name in files}, path, field):
        yield from islice(known[part.splitname], part.from_, part.to)


def _instructions(split: str, lengths: dict[str, int], path: str, field: str) -> list[Any]:
    """What a split such as `train[:10%]+test` asks for: name, first row, row after the last."""
    import datasets

    try:
        return list(datasets.ReadInstruction.from_spec(split).to_absolute(lengths))
    except Exception as error:
        raise UserError(
            f"`split` must be one of {', '.join(lengths)}, or a part such as {next(iter(lengths))}[:100], but got "
            f"split={split} for {path} ({error}); mend it",
            field=f"{field.rpartition('.')[0]}.split" if "." in field else field,
        ) from error


def _of_library(path: str, name: str | None, split: str, field: str) -> Iterator[Row]:
    import datasets

    try:
        rows = datasets.load_dataset(path, name, split=split)
    except Exception as error:  # every builder and hub client raises its own classes
        raise _unreadable(path, name, split, error, field) from error
    yield from _numbered(rows, f"{path} ({split})")


def _saved(folder: Path, path: str, split: str, field: str) -> Iterator[Row]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise _unreadable(path, None, split, error, field) from error
    splits = dict(saved) if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    for part in _instructions(split, {name: len(rows) for name, rows in splits.items()}, path, field):
        rows = splits[part.splitname].select(range(part.from_, part.to))
        yield from _numbered(rows, f"{path} ({part.splitname})", part.from_)


def _numbered(rows: Iterable[Any], title: str, before: int = 0) -> Iterator[Row]:
    for number, row in enumerate(rows, before + 1):
        yield Row({key: without_nulls(value) for key, value in row.items()}, f"row {number} of {title}")


def _unreadable(path: str, name: str | None, split: str | None, error: Exception, field: str) -> UserError:
    cause = error.__cause__ or error
    asked = ", ".join(f"{key}={value}" for key, value in (("name", name), ("split", split)) if value is not None)
    return UserError(
        f"`path` must be a data set that can be read, but {path} ({asked or 'no name'}) failed with "
        f"{type(cause).__name__}: {cause}; mend the file, or check the name, the split and the network",
        field=field,
    )
