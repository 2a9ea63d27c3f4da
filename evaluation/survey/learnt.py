"""Demonstrations as tokens: how long they are, what of them is learnt, and what to do without a chat template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ...trainers.data.demonstrations import Demonstration, Demonstrations
from ...trainers.data.load import load_demonstrations
from ...trainers.data.turns import Conversation
from ...trainers.settings import DataSettings
from .facts import Segment
from .held_out import Read

UNLIMITED = 2**30
"""Tokens; nothing is left out of a look."""
SHOWN = 2
TEMPLATE = """\
{#- Written by qtarget init: the tokenizer has no chat template. Change it as you like, before the first run. -#}
{%- for message in messages -%}
### {{ message['role'] | capitalize }}:
{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}

{% endfor -%}
{%- if add_generation_prompt -%}
### Assistant:
{% endif -%}
"""
"""Heads and texts in lines of their own, so that no token spans the border between question and answer."""


def settings_without_template(read: Read, columns: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """Settings of `data`, and a template to write, for a tokenizer that has none.

    Text in two columns is joined as it is where white space or a sign stands between the two. `columns`: those of the
    shape, one for messages.
    """
    talks = [turn for turn in read.turns if isinstance(turn, Conversation)]
    plain = len(columns) > 1 and "instruction" not in columns and all(isinstance(row.values[columns[0]], str) and
        isinstance(row.values[columns[1]], str) for row in read.rows)  # fmt: skip
    joined = plain and sum(_joins(turn) for turn in talks) > len(talks) / 2
    return ({"chat": False}, None) if joined else ({}, TEMPLATE if talks else None)


def _joins(turn: Conversation) -> bool:
    """Whether question and answer can stand one behind the other as they are."""
    question, answer = (each["content"] for each in turn.messages[-2:])
    return question[-1:].isspace() or answer[:1].isspace() or question[-1:] in ":=>"


def data_facts(read: Read, settings: DataSettings, tokenizer: Any, base: Path) -> dict[str, Any]:
    """What becomes of demonstrations, as training will see them: fields of `DataFacts`.

    Raises UserError for a row that breaks a rule.
    """
    data = load_demonstrations(settings.model_copy(update={"max_length": UNLIMITED}), tokenizer, base)
    return {
        "rows": len(read.rows),
        "chat": data.style.chat,
        "lengths": dict(sorted(Counter(len(each.token_ids) for each in data).items())),
        "answer_lengths": dict(sorted(Counter(each.num_labels for each in data).items())),
        "notes": data.notes,
        "shown": tuple(segments(each, tokenizer) for each in _first(data)),
    }


def _first(data: Demonstrations) -> tuple[Demonstration, ...]:
    """The first ones that are of ordinary length: half of all are no longer."""
    middle = sorted(each.length for each in data)[len(data) // 2]
    return tuple([each for each in data if each.length <= middle][:SHOWN])


def segments(example: Demonstration, tokenizer: Any) -> tuple[Segment, ...]:
    """The text of a demonstration, special tokens too, cut where learning begins and ends."""
    marked = zip(example.token_ids.tolist(), example.learnt.tolist(), strict=True)
    groups = groupby(marked, key=lambda pair: pair[1])
    return tuple((tokenizer.decode([token for token, _ in group]), bool(learnt)) for learnt, group in groups)
