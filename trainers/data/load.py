"""Demonstrations from a local file, a folder or a hub data set, in the shapes that data sets come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...spaces.errors import UserError
from ..paths import local_path
from ..settings import DataSettings
from .demonstrations import Demonstration, Demonstrations
from .tokenization import Span, Turn, require_chat_template, tokenize

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
TOKENIZE_BATCH = 1000
FIELD = "data"

Row = Mapping[str, Any]


def load_demonstrations(settings: DataSettings, tokenizer: PreTrainedTokenizerBase, base: Path) -> Demonstrations:
    """Read, render through the chat template and tokenise; relative paths start at `base`.

    Raises UserError for a missing file, column or chat template, for an empty data set, and when no demonstration
    fits into `max_length`.
    """
    rows = load_rows(settings, base)
    if len(rows) == 0:
        raise UserError(f"`path` must hold demonstrations, but {settings.path} is empty", field=f"{FIELD}.path")
    to_turn = turn_reader(settings, list(rows.column_names))
    if settings.chat:
        require_chat_template(tokenizer)
    if settings.critical_column is not None and not tokenizer.is_fast:
        raise UserError(
            "`critical_column` needs a fast tokenizer (it maps characters to tokens), but "
            f"{type(tokenizer).__name__} is a slow one; use a model with a tokenizer.json",
            field=f"{FIELD}.critical_column",
        )
    examples: list[Demonstration] = []
    for start in range(0, len(rows), TOKENIZE_BATCH):
        stop = min(start + TOKENIZE_BATCH, len(rows))
        turns = [to_turn(rows[number], number) for number in range(start, stop)]
        examples += tokenize(tokenizer, turns)
    return select(examples, settings)


def select(examples: Sequence[Demonstration], settings: DataSettings) -> Demonstrations:
    """Leave out what has no loss or is too long, then keep `max_examples` of the rest, chosen by their content."""
    with_loss = [number for number, example in enumerate(examples) if example.num_labels]
    kept = [number for number in with_loss if len(examples[number].token_ids) <= settings.max_length]
    if not kept:
        shortest = min((len(examples[number].token_ids) for number in with_loss), default=0)
        raise UserError(
            f"`max_length` must leave at least one demonstration, but all {len(examples)} of {settings.path} are "
            f"longer than max_length={settings.max_length} tokens or have an empty completion (the shortest "
            f"has {shortest}); raise `max_length`",
            field=f"{FIELD}.max_length",
        )
    num_kept = len(kept)
    if settings.max_examples is not None and settings.max_examples < num_kept:
        chosen = sorted(kept, key=lambda i: hashlib.sha256(b"max_examples" + examples[i].content).digest())
        kept = sorted(chosen[: settings.max_examples])
    return Demonstrations(
        tuple(examples[number] for number in kept),
        num_rows=len(examples),
        num_too_long=len(with_loss) - num_kept,
        num_without_loss=len(examples) - len(with_loss),
        rows=tuple(kept),
    )


def load_rows(settings: DataSettings, base: Path) -> Any:
    """The rows as a `datasets.Dataset`; reads local files by their suffix and everything else by `load_dataset`."""
    import datasets  # slow to import; most of this module works without

    local = local_path(settings.path, base, suffixes=tuple(FORMATS), field=f"{FIELD}.path")
    if local is not None and local.is_file() and local.stat().st_size == 0:
        raise UserError(f"`path` must hold demonstrations, but {local} is empty", field=f"{FIELD}.path")
    try:
        if local is not None and local.is_file():
            builder = FORMATS.get(local.suffix)
            if builder is None:
                raise UserError(
                    f"`path` must end in one of {', '.join(FORMATS)}, but got {local}; convert the file",
                    field=f"{FIELD}.path",
                )
            return datasets.load_dataset(builder, settings.name, data_files=str(local), split=settings.split)
        return datasets.load_dataset(str(local or settings.path), settings.name, split=settings.split)
    except UserError:
        raise
    except Exception as error:  # every builder and hub client raises its own classes
        cause = error.__cause__ or error
        raise UserError(
            f"`path` must be a data set that can be read, but {settings.path} (name={settings.name}, "
            f"split={settings.split}) failed with {type(cause).__name__}: {cause}; mend the file, or check the "
            "name, the split and the network",
            field=f"{FIELD}.path",
        ) from error


def turn_reader(settings: DataSettings, columns: list[str]) -> Callable[[Row, int], Turn]:
    """The function that reads a row, by the columns that the settings name or the data set has."""
    messages, prompt, completion = _columns(settings, columns)

    def read(row: Row, number: int) -> Turn:
        where = f"row {number} of {settings.path}"
        critical = None
        if settings.critical_column is not None:
            critical = _spans(row[settings.critical_column], where, settings.critical_column)
        if messages is not None:
            given, answer = _split_conversation(row[messages], where, messages)
        else:
            given, answer = _messages(row[prompt], "user", where, prompt), _answer(row[completion], where, completion)
        if not settings.chat:
            return Turn("".join(str(message["content"]) for message in given), answer, critical)
        return Turn(tuple(given), answer, critical)

    return read


def _columns(settings: DataSettings, columns: list[str]) -> tuple[str | None, str, str]:
    messages = settings.messages_column
    named = (settings.prompt_column, settings.completion_column)
    if messages is not None and any(named):
        raise UserError(
            "`messages_column` excludes `prompt_column` and `completion_column`; keep one of the two forms",
            field=f"{FIELD}.messages_column",
        )
    if messages is None and not any(named) and "messages" in columns:
        messages = "messages"
    prompt, completion = named[0] or "prompt", named[1] or "completion"
    wanted = {"messages_column": messages} if messages else {"prompt_column": prompt, "completion_column": completion}
    for key, column in (wanted | {"critical_column": settings.critical_column}).items():
        if column is not None and column not in columns:
            raise UserError(
                f"`{key}` must name a column of {settings.path}, but it has no column {column!r}; "
                f"its columns are {', '.join(columns)}",
                field=f"{FIELD}.{key}",
            )
    return messages, prompt, completion


def _split_conversation(value: Any, where: str, column: str) -> tuple[list[Row], str]:
    conversation = _messages(value, "user", where, column)
    answers = [i for i, message in enumerate(conversation) if message["role"] == "assistant"]
    if not answers:
        raise UserError(
            f"`{column}` must hold an assistant message to learn from, but {where} has only "
            f"{[message['role'] for message in conversation]}; leave the row out",
            field=f"{FIELD}.messages_column",
        )
    last = answers[-1]
    return conversation[:last], _text(conversation[last].get("content"), where, column)


def _messages(value: Any, role: str, where: str, column: str) -> list[Row]:
    """A list of messages; plain text becomes one message of `role`."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in value):
        raise UserError(
            f"`{column}` must be text or a list of {{role, content}}, but {where} has {str(value)[:80]!r}; "
            "mend the row",
            field=FIELD,
        )
    # A column of structs is unified by the reader: keys that a message lacks come back as None.
    return [{key: entry for key, entry in message.items() if entry is not None} for message in value]


def _answer(value: Any, where: str, column: str) -> str:
    conversation = _messages(value, "assistant", where, column)
    if len(conversation) != 1:
        raise UserError(
            f"`{column}` must be text or one assistant message, but {where} has {len(conversation)} messages; "
            "put the earlier turns into the prompt",
            field=f"{FIELD}.completion_column",
        )
    return _text(conversation[0].get("content"), where, column)


def _text(value: Any, where: str, column: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"`{column}` must be text, but {where} has {str(value)[:80]!r}; mend the row", field=FIELD)
    return value


def _spans(value: Any, where: str, column: str) -> tuple[Span, ...]:
    pairs: list[Any] = value if isinstance(value, list) else [None]
    if not all(isinstance(pair, list) and len(pair) == 2 and 0 <= pair[0] <= pair[1] for pair in pairs):
        raise UserError(
            f"`{column}` must be a list of character spans [[start, end], ...] of the completion, but {where} has "
            f"{str(value)[:80]!r}; mend the row",
            field=f"{FIELD}.critical_column",
        )
    return tuple((int(start), int(end)) for start, end in pairs)
