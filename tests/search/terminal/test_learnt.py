"""The picture of what is learnt on terminals that know colours, on those that do not, in pipes and in ASCII."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from qtarget.search.terminal.learnt import CONTEXT, LABEL, LOSS, STRETCHES, show_learnt


def tokens(*texts: str) -> list[dict[str, Any]]:
    return [{"id": n, "text": text, "special": text.startswith("<|")} for n, text in enumerate(texts)]


def stretch(*texts: str, learnt: bool = False, weight: float = 1.0, critical: bool = False) -> dict[str, Any]:
    return {
        "learnt": learnt, "weight": weight if learnt else 0.0, "critical": critical, "tokens": tokens(*texts),
        "left_out": 0, "then": [],
    }  # fmt: skip


def found(*segments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A picture of one demonstration and one problem."""
    demonstration = {
        "place": "line 1 of d.jsonl",
        "given": [{"role": "user", "text": "1 + 1\nis?", "left_out": 0}],
        "tokens": 9,
        "labels": 3,
        "segments": list(segments) or [stretch("<|turn|>", "user", "\n", "is?"), stretch("2", "<|end|>", learnt=True)],
        "end": {"id": 4, "text": "<|end|>", "stops": True, "behind": 1},
    }
    problem = {
        "task": "sums", "given": [{"role": "user", "text": "2 + 2", "left_out": 7}], "gold": "4", "tokens": 4,
        "segments": [stretch("<|turn|>", "2 + 2")], "ends": ["<|end|>"],
    }  # fmt: skip
    return {"demonstrations": [{**demonstration, **changes}], "problem": problem, "differences": []}


def printed(picture: dict[str, Any], encoding: str = "utf-8", **options: Any) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
    show_learnt(picture, Console(file=file, **options))
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_a_pipe_gets_whole_lines_with_bars_between_tokens() -> None:
    lines = printed(found(), width=30).splitlines()
    assert lines == [
        "learnt     line 1 of d.jsonl: 9 tokens, 3 with a loss",
        "  given    user: 1 + 1",
        "             is?",
        "  no loss  <|turn|>│user│⏎",
        "           is?",
        "  loss     2│<|end|>",
        "  end      <|end|>, where generation stops; 1 token(s) are learnt behind it",
        "asked      a problem of sums: 4 tokens; right is 4",
        "  given    user: 2 + 2 … (7 characters more)",
        "  prompt   <|turn|>│2 + 2",
        "  end      generation stops at <|end|>",
        "differs    nothing: problems are asked as demonstrations are learnt",
    ]


def test_a_terminal_that_knows_colours_shades_tokens_and_marks_losses() -> None:
    shown = printed(found(), force_terminal=True, color_system="standard", width=80)
    assert "│" not in shown and "\x1b[35m<|turn|>\x1b[0m" in shown, "special tokens have a colour of their own"
    assert "\x1b[30;42m2\x1b[0m" in shown and "\x1b[1;30;43m<|end|>\x1b[0m" in shown
    neighbours = printed(found(stretch("a", "b", learnt=True)), force_terminal=True, color_system="standard")
    assert "\x1b[30;42ma\x1b[0m\x1b[30;102mb\x1b[0m" in neighbours


def test_without_colours_nothing_is_lost() -> None:
    bare = printed(found(), force_terminal=True, color_system="standard", no_color=True, width=80)
    assert "│" in bare and not re.search("\x1b\\[[0-9;]*[34][0-7]", bare)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_old_locale_gets_ascii(encoding: str) -> None:
    picture = found(stretch("größe", "\t", "漢\n", learnt=True, weight=0.5))
    shown = printed(picture, encoding)
    assert shown.isascii() and "  loss x0.5gr\\xf6\\xdfe|\\t|\\u6f22\\n\n" in shown.replace("x0.5  ", "x0.5")
    assert "2 + 2 ... (7 characters more)" in shown


@pytest.mark.parametrize("width", [20, 34, 60])
def test_a_narrow_terminal_folds_behind_the_labels(width: int) -> None:
    shown = printed(found(stretch(*"abcdefghij" * 9, learnt=True)), force_terminal=True, color_system=None, width=width)
    lines = shown.splitlines()[:-1]  # the last one is left to the terminal, as all sentences are
    assert all(len(line.rstrip()) <= max(width, LABEL + 10) for line in lines)
    assert "".join(line[LABEL:] for line in lines).replace("│", "").count("abcdefghij") == 9


def test_text_of_others_steers_no_terminal() -> None:
    hostile = "\x1b[31mred\x07 [bold]x[/bold]\r\u202eback"
    picture = found(
        stretch(hostile, learnt=True), place=hostile, given=[{"role": hostile, "text": hostile, "left_out": 0}]
    )
    picture["problem"] |= {"gold": hostile, "ends": [hostile]}
    picture["differences"] = [{"kind": "seam", "said": hostile}]
    shown = printed(picture)
    assert not set("\x1b\x07\r\u202e") & set(shown) and shown.count("␛[31mred") == 7
    assert "[bold]x[/bold]" in shown


def test_long_stretches_and_many_of_them_are_cut() -> None:
    shown = printed(found(stretch(*"x" * 500), stretch(*"y" * 500, learnt=True)))
    assert shown.count("x│") + shown.count("│x") > 0 and f"{500 - sum(CONTEXT)} tokens more" in shown
    assert f"{500 - sum(LOSS)} tokens more" in shown
    weighted = [stretch("z", learnt=True, weight=number / 10) for number in range(2, 20)]
    shown = printed(found(*weighted))
    assert f"{18 - STRETCHES} stretches more" in shown and "loss ×0.2" in shown
    assert "critical" in printed(found(stretch("z", learnt=True, critical=True)))


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (None, "nothing is learnt"),
        ({"id": 1, "text": "\n", "stops": False, "behind": 0}, "the last token that is learnt, ⏎, does not stop"),
        ({"id": 1, "text": "<|end|>", "stops": True, "behind": 0}, "<|end|>, where generation stops\n"),
    ],
)
def test_where_an_answer_ends(end: dict[str, Any] | None, said: str) -> None:
    assert said in printed(found(end=end))


def test_every_difference_is_printed() -> None:
    picture = found() | {"differences": [{"kind": "seam", "said": "a [space]"}], "problem": None}
    assert printed(picture).splitlines()[-1] == "differs    a [space]"
