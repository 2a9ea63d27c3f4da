"""What chat templates leave out of messages, and what text does to their structure: each is said or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizer_families import TEMPLATE, family

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.models.load import load_tokenizer
from qtarget.trainers.paths import refuse_unreadable
from qtarget.trainers.settings import DataSettings, ModelSettings

ASK, SAY = {"role": "user", "content": "what is 1"}, {"role": "assistant", "content": "the sum"}
CALL = {"name": "add", "arguments": '{"a": 1}'}
TOOL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
NO_SYSTEM = TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] if m['role'] != 'system' }}")
NO_THINKING = TEMPLATE.replace(
    "{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] if not loop.last else m['content'] }}"
)


def notes(folder: Path, *messages: dict[str, Any], template: str = TEMPLATE, **row: Any) -> list[str]:
    """What is said of a row besides; the tokenizer has a template that writes role and content alone."""
    tokenizer, _ = family("byte_level")
    tokenizer.chat_template = template
    (folder / "d.jsonl").write_text(json.dumps({"messages": messages, **row}) + "\n")
    return list(load_demonstrations(DataSettings(path="d.jsonl"), tokenizer, folder).notes)


@pytest.mark.parametrize(
    ("messages", "key", "role"),
    [
        ([{"role": "system", "content": "be brief"}, ASK, SAY], "content", "system"),
        ([ASK, {"role": "assistant", "content": "", "tool_calls": [TOOL]}, ASK, SAY], "tool_calls", "assistant"),
        ([ASK, {"role": "assistant", "content": None, "function_call": CALL}, ASK, SAY], "function_call", "assistant"),
        ([{**ASK, "images": ["x.png"]}, SAY], "images", "user"),
        ([{**ASK, "context": {"page": "seven"}}, SAY], "context", "user"),
    ],
)
def test_what_is_lost_before_an_answer_is_said(tmp_path: Path, messages: list[Any], key: str, role: str) -> None:
    (said,) = notes(tmp_path, *messages, template=NO_SYSTEM)
    assert f"the key `{key}` of a message of role `{role}` is not in what the chat template writes" in said
    assert "line 1 of d.jsonl" in said


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": " be\nbrief "}, ASK, SAY],
        [{**ASK, "name": "me", "id": "7"}, {**SAY, "weight": 1}],
        [{**ASK, "ready": True, "number": 3}, SAY],
    ],
)
def test_what_is_there_or_says_nothing_is_not_mentioned(tmp_path: Path, messages: list[Any]) -> None:
    assert notes(tmp_path, *messages) == []


def test_earlier_reasoning_may_go_and_tools_may_answer_in_json(tmp_path: Path) -> None:
    thought = {"role": "assistant", "content": "<think>hm</think>the sum"}
    assert notes(tmp_path, ASK, thought, ASK, SAY, template=NO_THINKING) == []
    quoted = TEMPLATE.replace(
        "{{ m['content'] }}", "{{ m['content'] | tojson if m['role'] == 'tool' else m['content'] }}"
    )
    assert notes(tmp_path, ASK, {"role": "tool", "content": '{"a": "ö"}'}, SAY, template=quoted) == []


def test_an_old_call_of_a_function_that_is_not_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not hold 'add' of its `function_call`"):
        notes(tmp_path, ASK, {**SAY, "function_call": CALL})
    written = TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] }}{{ m.function_call if m.function_call }}")
    assert notes(tmp_path, ASK, {"role": "assistant", "content": None, "function_call": CALL}, template=written) == []


def test_pictures_beside_a_conversation_are_not_read_and_that_is_said(tmp_path: Path) -> None:
    (said,) = notes(tmp_path, ASK, SAY, images=["x.png"], audio=[])
    assert "a column `images` is not read" in said


def test_a_template_token_inside_a_message_is_said(tmp_path: Path) -> None:
    for messages in ([{**ASK, "content": "what <|end|> is"}, SAY], [ASK, {**SAY, "content": "the <|end|> sum"}]):
        (said,) = notes(tmp_path, *messages)
        assert "the text of a message holds '<|end|>'" in said
    assert notes(tmp_path, {**ASK, "content": "what <|other|> </s> is"}, SAY) == [], "no token of the template"


def test_a_variable_that_the_template_does_not_read_is_said(tmp_path: Path) -> None:
    tokenizer, _ = family("byte_level")
    tokenizer.chat_template = TEMPLATE + "{% if enable_thinking %}{% endif %}"
    (tmp_path / "d.jsonl").write_text(json.dumps({"messages": [ASK, SAY]}) + "\n")
    for name, said in (("enable_thinking", 0), ("enable_thinkng", 1)):
        settings = DataSettings(path="d.jsonl", chat_template_kwargs={name: False})
        found = load_demonstrations(settings, tokenizer, tmp_path).notes
        assert len(found) == said and all("reads no variable `enable_thinkng`" in note for note in found)


def test_messages_may_be_json_in_a_table(tmp_path: Path) -> None:
    tokenizer, _ = family("byte_level")
    (tmp_path / "d.csv").write_text('messages\n"' + json.dumps([ASK, SAY]).replace('"', '""') + '"\n')
    (tmp_path / "d.jsonl").write_text(json.dumps({"messages": [ASK, SAY]}) + "\n")
    found = [load_demonstrations(DataSettings(path=name), tokenizer, tmp_path) for name in ("d.csv", "d.jsonl")]
    assert found[0].fingerprint == found[1].fingerprint
    (tmp_path / "d.csv").write_text("messages\nhello\n")
    with pytest.raises(UserError, match=r"`messages` must be JSON where it is text .* line 2 of d.csv has 'hello'"):
        load_demonstrations(DataSettings(path="d.csv"), tokenizer, tmp_path)


def test_a_file_of_another_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: honest(path, mode) and not str(path).endswith(".safetensors"))
    (tmp_path / "m").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "m" / name).write_text("{}")
    with pytest.raises(UserError, match=r"m/model.safetensors must be readable, but its rights do not let this user"):
        load_tokenizer(ModelSettings(path="m"), tmp_path)


def test_a_pointer_is_not_the_file(tmp_path: Path) -> None:
    file = tmp_path / "d.parquet"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(UserError, match=r"d\.parquet must be the file itself, but it is a pointer of Git LFS"):
        load_demonstrations(DataSettings(path="d.parquet"), family("bpe")[0], tmp_path)
    file.write_bytes(b"version https://git-lfs.github.com/spec/" + b"x" * 2000)
    refuse_unreadable(file, "d", "data.path")
