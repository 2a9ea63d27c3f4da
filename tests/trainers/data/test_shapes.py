"""From a row to what is learnt: every shape, every part of a message, and every way in which a row can be wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.demonstrations import Demonstration, Demonstrations
from qtarget.trainers.data.load import load_demonstrations, read_turns
from qtarget.trainers.settings import DataSettings, SourceSettings

TURNS = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}"
END = "<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}call {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
NAMES = CALLS.replace("c.function.arguments", "1")
ASK, SAY = {"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}
CUT = TURNS.replace("m.content", "m.content.split('k')[-1]") + END
AGAIN = [ASK, SAY, {"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4."}]
ADD = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "x y"}}}
PART = {"type": "text"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def load(folder: Path, tokenizer: Any, rows: list[dict[str, Any]], template: str | None = None, **settings: Any):
    (folder / "data.jsonl").write_text("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
    if template is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = template
    return load_demonstrations(DataSettings(path="data.jsonl", **settings), tokenizer, folder)


def learnt(tokenizer: Any, example: Demonstration) -> str:
    return str(tokenizer.decode(example.token_ids[example.completion]))


def text(tokenizer: Any, example: Demonstration) -> str:
    """The whole text, with what is learnt in brackets."""
    marks = zip(example.token_ids.tolist(), example.completion.tolist(), strict=True)
    return "".join(
        tokenizer.decode([token]) if not on else f"[{tokenizer.decode([token])}]" for token, on in marks
    ).replace("][", "")


def messages(*given: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": list(given), **columns}


@pytest.mark.parametrize(
    ("row", "settings", "wanted"),
    [
        (messages(*AGAIN), {}, "<u>1+1<e><a>2<e><u>2+2<e><a>[4.<e>]"),
        (messages(*AGAIN), {"learn": "all"}, "<u>1+1<e><a>[2<e>]<u>2+2<e><a>[4.<e>]"),
        (messages(ASK, {**SAY, "weight": 0}, *AGAIN[2:]), {"learn": "all"}, "<u>1+1<e><a>2<e><u>2+2<e><a>[4.<e>]"),
        (messages(*AGAIN[:3], {**AGAIN[3], "train": False}), {"learn": "all"}, "<u>1+1<e><a>[2<e>]"),
        (messages(ASK, {**SAY, "weight": 1.0}), {}, "<u>1+1<e><a>[2<e>]"),
        (messages(SAY, *AGAIN), {"learn": "all"}, "<a>2<e><u>1+1<e><a>[2<e>]<u>2+2<e><a>[4.<e>]"),
        (messages({"role": "Human", "content": "1"}, {"role": "gpt", "content": "2"}), {}, "<u>1<e><a>[2<e>]"),
        (
            {"conversations": [{"from": "human", "value": "1"}, {"from": "gpt", "value": "2"}], "system": "s"},
            {},
            "<s>s<e><u>1<e><a>[2<e>]",
        ),
        (
            {"talk": [{"from": "user", "value": "1"}, {"from": "assistant", "value": "2"}]},
            {"messages_column": "talk"},
            "<u>1<e><a>[2<e>]",
        ),
        ({"instruction": "a", "input": "b", "output": "c"}, {}, "<u>a<pad>b<e><a>[c<e>]"),  # <pad>: unknown
        ({"instruction": "a", "input": "", "output": "c"}, {}, "<u>a<e><a>[c<e>]"),
        (
            {"instruction": "a", "output": "c", "system": "s", "history": [["d", "e"]]},
            {},
            "<s>s<e><u>d<e><a>e<e><u>a<e><a>[c<e>]",
        ),
        ({"text": "one text"}, {}, "[one text<e>]"),
        ({"words": "one text<e>"}, {"text_column": "words", "chat": False}, "[one text<e>]"),
        (messages({**ASK, "content": [PART | {"text": "1"}, PART | {"text": "+1"}]}, SAY), {}, "<u>1+1<e><a>[2<e>]"),
        ({"prompt": [ASK], "completion": [{**SAY, "content": [PART | {"text": "2"}]}]}, {}, "<u>1+1<e><a>[2<e>]"),
    ],
)  # fmt: skip
def test_every_shape(tmp_path: Path, tokenizer: Any, row: Any, settings: Any, wanted: str) -> None:
    (example,) = load(tmp_path, tokenizer, [row], **settings)
    assert text(tokenizer, example) == wanted


def test_a_message_reaches_the_template_whole(tmp_path: Path, tokenizer: Any) -> None:
    template = (
        "{% if tools %}tools {{ tools | tojson }}<e>{% endif %}{{ mood }}"
        + TURNS.replace(
            "{{ m.content }}",
            "{% if m.reasoning_content %}why {{ m.reasoning_content }}. {% endif %}{{ m.name }}{{ m.content }}" + CALLS,
        )
        + END
    )
    call = {"role": "assistant", "content": None, "reasoning_content": "sum", "tool_calls": [ADD], "name": "me"}
    row = messages(ASK, call, tools=[TOOL], chat_template_kwargs={"mood": "row"})
    (example,) = load(tmp_path, tokenizer, [row], template, chat_template_kwargs={"mood": "all"})
    said = text(tokenizer, example).replace("<pad>", "?")
    assert said.startswith("tools ") and "row<u>1+1<e><a>[why sum. mecall add ?" in said
    as_json = messages(ASK, call, tools=json.dumps([TOOL]), chat_template_kwargs='{"mood": "row"}')
    (same,) = load(tmp_path, tokenizer, [as_json], template)
    assert same.content == example.content


@pytest.mark.parametrize(
    ("template", "row", "said"),
    [
        (TURNS + END, messages(ASK, {**SAY, "content": None, "tool_calls": [ADD]}), "'add' of its `tool_calls`"),
        (TURNS + NAMES + END, messages(ASK, {**SAY, "tool_calls": [ADD]}), "'b' of its"),
        (
            TURNS + CALLS + END,
            messages(ASK, {**SAY, "tool_calls": [{"function": {"name": "add", "arguments": '{"a": "b"}'}}]}),
            r"""'\{"a": "b"\}' of its `tool_calls`""",  # written as JSON twice
        ),
        (TURNS + END, messages(ASK, {**SAY, "reasoning_content": "so"}), "its `reasoning_content` 'so'"),
        (CUT, messages(ASK, {**SAY, "content": "akb"}), "its `content` 'akb'"),
        (TURNS + END, messages(ASK, SAY, tools=[TOOL]), "must render the tools .* does not hold 'add'"),
    ],
)  # fmt: skip
def test_what_a_template_would_lose_is_refused_with_its_row(
    tmp_path: Path, tokenizer: Any, template: str, row: Any, said: str
) -> None:
    with pytest.raises(
        UserError, match=f"line 2 of data.jsonl does not hold {said}" if "tools ." not in said else said
    ):
        load(tmp_path, tokenizer, [messages(ASK, SAY), row], template)


def test_a_template_that_wraps_or_trims_loses_nothing(tmp_path: Path, tokenizer: Any) -> None:
    template = TURNS.replace("m.content", "m.content | trim | replace(' ', '\n')") + END
    (example,) = load(tmp_path, tokenizer, [messages(ASK, {**SAY, "content": " a b\n"})], template)
    assert learnt(tokenizer, example) == "a\nb<e>"


def test_a_template_that_shortens_earlier_answers_makes_each_a_demonstration(tmp_path: Path, tokenizer: Any) -> None:
    shortening = (
        "{% for m in messages %}<{{ m.role[0] }}>{{ m.content if m.role == 'user' or loop.last else '-' }}" + END
    )
    found = load(tmp_path, tokenizer, [messages(*AGAIN)], shortening, learn="all")
    assert [text(tokenizer, each) for each in found] == ["<u>1+1<e><a>[2<e>]", "<u>1+1<e><a>-<e><u>2+2<e><a>[4.<e>]"]
    assert [each.place for each in found] == ["line 1 of data.jsonl"] * 2


def test_a_template_that_cuts_text_does_not_get_parts_to_print_as_code(tmp_path: Path, tokenizer: Any) -> None:
    for cut in ("{{ m.content[:2] }}", "{{ m.content | truncate(12, true, '') }}"):
        with pytest.raises(UserError, match="must render every answer whole"):
            load(
                tmp_path,
                tokenizer,
                [messages(ASK, {**SAY, "content": "a" * 40})],
                TURNS.replace("{{ m.content }}", cut) + END,
            )


def test_a_template_that_reads_only_parts_gets_parts(tmp_path: Path, tokenizer: Any) -> None:
    parts = TURNS.replace("{{ m.content }}", "{% for p in m.content %}{{ p.text }}{% endfor %}") + END
    (example,) = load(tmp_path, tokenizer, [messages(ASK, SAY)], parts)
    assert text(tokenizer, example) == "<u>1+1<e><a>[2<e>]"


def test_what_is_asked_is_what_problems_are_compared_with(tmp_path: Path, tokenizer: Any) -> None:
    rows = [messages({**ASK, "content": [{"type": "text", "text": "1+1"}]}, SAY, *AGAIN[2:]), messages(ASK, SAY)]
    load(tmp_path, tokenizer, rows)
    asked = [list(turn.asked) for turn in read_turns(DataSettings(path="data.jsonl"), tmp_path)]
    assert asked == [["1+1", "2+2"], ["1+1"]]


GOOD = {"prompt": "1", "completion": "2"}


@pytest.mark.parametrize(
    ("row", "settings", "said"),
    [
        (messages({**ASK, "content": None}, SAY), {}, "`messages` must be text.* has null"),
        (messages({**ASK, "content": 5}, SAY), {}, "`messages` must be text.* has 5"),
        (messages({**ASK, "content": [{"type": "image"}]}, SAY), {}, "read no other parts; leave the row out"),
        (messages({**ASK, "content": []}, SAY), {}, r"must be text.* has \[\]"),
        (messages({"role": None, "content": "1"}, SAY), {}, "messages with a role .* has null"),
        (messages({"content": "1"}, SAY), {}, "messages with a role .* has null"),
        (messages({"role": 3, "content": "1"}, SAY), {}, "messages with a role .* has 3"),
        (messages("1", SAY), {}, "list of {role, content}"),
        ({"messages": "1"}, {}, "must be a list of {role, content}"),
        ({"messages": []}, {}, r"with a message in it, but .* has \[\]"),
        (messages(ASK), {}, "an assistant message to learn from"),
        (messages(SAY), {}, "something to answer"),
        (messages(ASK, {**SAY, "content": None}), {}, "must be text.* has null"),
        (messages(ASK, {**SAY, "reasoning_content": 3}), {}, "`messages.reasoning_content` must be text"),
        (messages(ASK, {**SAY, "tool_calls": "add"}), {}, "`tool_calls` are a list"),
        (messages(ASK, {**SAY, "tool_calls": [{"function": {}}]}), {}, "`tool_calls` are a list"),
        (messages(ASK, {**SAY, "weight": -0.5}), {"learn": "all"}, "`messages.weight` must be a number from 0 up"),
        (messages(ASK, {**SAY, "weight": "1"}), {"learn": "all"}, "`messages.weight` must be a number from 0 up"),
        (messages(ASK, {**SAY, "train": 0.5}), {"learn": "all"}, "`messages.train` must be true or false"),
        (messages(ASK, {**SAY, "weight": 0}), {}, "set `data.learn: all`"),
        (messages(ASK, {**SAY, "weight": 1}, *AGAIN[2:]), {}, "set `data.learn: all`"),
        (messages(ASK, SAY, tools="hammer"), {}, "`tools` must be JSON where it is text"),
        (messages(ASK, SAY, tools={"a": 1}), {}, "`tools` must be a list of tools"),
        (messages(ASK, SAY, chat_template_kwargs={"tokenize": 1}), {}, "an object of the template's variables"),
        (messages(ASK, SAY), {"chat": False}, "set `chat: true`, or give columns prompt and completion"),
        ({"prompt": [], "completion": "2"}, {}, r"`prompt` must be text or a list .* has \[\]"),
        ({"prompt": "", "completion": "2"}, {}, "`prompt` must be text .* and not empty, .* has ''"),
        ({"prompt": " ", "completion": "2"}, {"chat": False}, "`prompt` must be text .* and not empty"),
        ({"prompt": [ASK], "completion": "2"}, {"chat": False}, "text where `data.chat` is false"),
        ({"prompt": "1", "completion": 2}, {"chat": False}, "text where `data.chat` is false"),
        ({"prompt": "1", "completion": [ASK, SAY]}, {}, "put the earlier turns into the prompt"),
        ({"prompt": "\ud800", "completion": "2"}, {}, "`prompt` must be Unicode text"),
        ({"instruction": "a", "output": None}, {}, "`output` must be text"),
        ({"instruction": None, "output": "a"}, {}, "`instruction` must be text"),
        ({"instruction": "a", "output": "b", "history": ["c"]}, {}, "`history` must be pairs"),
        ({"instruction": "a", "output": "b"}, {"chat": False}, "join instruction and input"),
        ({"text": 5}, {}, "`text` must be text"),
        ({**GOOD, "s": [[0, 9]]}, {"critical_column": "s"}, r"within the completion's 1 characters"),
        ({**GOOD, "s": [[0, True]]}, {"critical_column": "s"}, "list of character spans"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line_and_a_remedy(
    tmp_path: Path, tokenizer: Any, row: Any, settings: Any, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        load(tmp_path, tokenizer, [row, row], **settings)
    assert "line 1 of data.jsonl" in str(caught.value)


def test_columns_that_nobody_asked_for_do_not_matter(tmp_path: Path, tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [{**GOOD, "note": None}] * 5
    plain = load(tmp_path, tokenizer, rows)
    odd = load(tmp_path, tokenizer, [*rows[:4], {**GOOD, "note": {"a": 1}, "more": [2]}])
    assert odd.fingerprint == plain.fingerprint
    with pytest.raises(UserError, match=r"line 5 of data.jsonl has no column 'completion'"):
        load(tmp_path, tokenizer, [*rows[:4], {"prompt": "1", "note": "x"}])


def notes(data: Demonstrations) -> str:
    return "\n".join(data.notes)


def test_what_is_odd_but_usable_is_said_with_its_place(tmp_path: Path, tokenizer: Any) -> None:
    rows = [
        messages({"role": "human", "content": "1"}, SAY),
        messages({"role": "narrator", "content": "1"}, SAY),
        messages(ASK, {**SAY, "content": " "}),
        messages(ASK, {**SAY, "mood": "calm"}),
        messages(ASK, SAY),
        messages(ASK, {**SAY, "content": "2" * 40}),
    ]
    said = notes(load(tmp_path, tokenizer, rows, max_length=20))
    assert "the role `human` is read as `user` (once, first in line 1 of data.jsonl)" in said
    assert "the role `narrator` is none that chat templates know" in said
    assert "an empty completion is learnt" in said and "(once, first in line 3 of data.jsonl)" in said
    assert "there more than once, and learnt as often (once, first in line 5 of data.jsonl)" in said
    assert "the key `mood` of an answer is not in what its chat template writes (once, first in line 4" in said
    assert "1 of 6 demonstrations (16.7 %) are longer than max_length=20" in said and "line 6 of data.jsonl" in said
    assert "a column `system` is not read beside `prompt`" in notes(load(tmp_path, tokenizer, [GOOD | {"system": "s"}]))
    assert notes(load(tmp_path, tokenizer, [messages(ASK, SAY)])) == ""
    said = notes(load(tmp_path, tokenizer, [messages(ASK, SAY) | GOOD]))
    assert "messages is learnt, not prompt and completion, which it has too; `data.prompt_column` chooses" in said


def mixture(folder: Path, tokenizer: Any, weights: tuple[float | None, ...], **settings: Any) -> Demonstrations:
    sizes = (20, 6, 9)[: len(weights)]
    for name, size in zip("abc", sizes, strict=False):
        rows = ({"prompt": f"{name}{n}", "completion": str(n)} for n in range(size))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tuple(SourceSettings(path=f"{name}.jsonl", weight=w) for name, w in zip("abc", weights, strict=False))
    return load_demonstrations(DataSettings(path=path, **settings), tokenizer, folder)


def counts(data: Demonstrations) -> list[int]:
    places = [example.place[-7] for example in data]
    return [places.count(name) for name in "abc"]


def test_sources_are_joined_or_mixed_by_weight_without_repeating_any(tmp_path: Path, tokenizer: Any) -> None:
    assert counts(mixture(tmp_path, tokenizer, (None, None, None))) == [20, 6, 9]
    mixed = mixture(tmp_path, tokenizer, (1.0, 1.0, 2.0))
    assert counts(mixed) == [4, 4, 9]
    assert counts(mixture(tmp_path, tokenizer, (2.0, 1.0))) == [12, 6, 0]
    assert counts(mixture(tmp_path, tokenizer, (2.0, 1.0), max_examples=9)) == [6, 3, 0]
    assert mixture(tmp_path, tokenizer, (1.0, 1.0, 2.0)).fingerprint == mixed.fingerprint
    assert "a.jsonl: 4 of 20 demonstrations are used, by its weight" in notes(mixed)
    with pytest.raises(UserError, match=r"must have a weight, or none, but only a.jsonl has"):
        mixture(tmp_path, tokenizer, (1.0, None))
    with pytest.raises(UserError, match=r"must name every source once, but a.jsonl is there twice"):
        load_demonstrations(DataSettings(path=("a.jsonl", "a.jsonl")), tokenizer, tmp_path)


def test_sources_of_different_shapes(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(messages(ASK, SAY)) + "\n")
    (tmp_path / "b.csv").write_text("q,a\n1+1,2\n")
    path = ("a.jsonl", SourceSettings(path="b.csv", prompt_column="q", completion_column="a"))
    first, second = load_demonstrations(DataSettings(path=path), tokenizer, tmp_path)
    assert first.content == second.content
