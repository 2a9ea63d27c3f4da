"""The picture of what is learnt: its tokens are those of training and of generation, on six families of tokenizers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizer_families import FAMILIES, family

from qtarget.evaluation.generation.learnt_and_asked import HEAD, TAIL, learnt_and_asked, token_texts
from qtarget.evaluation.generation.prompts import encode, render, structured
from qtarget.evaluation.problems.load import Problem, load_problems
from qtarget.evaluation.problems.mismatches import Difference
from qtarget.evaluation.settings import EvaluationSettings
from qtarget.trainers.data.demonstrations import Demonstration, Demonstrations
from qtarget.trainers.data.load import load_demonstrations, read_turns
from qtarget.trainers.settings import DataSettings

ASKED, SAID = "what is 40 plus 57", "the sum is 97"
ENDS = (2, 4)


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def picture(folder: Path, tokenizer: Any, problem: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    """Of the rows in d.jsonl, and of a problem that asks what the first of them asks."""
    settings = DataSettings(**({"path": "d.jsonl"} | data))
    learnt = load_demonstrations(settings, tokenizer, folder)
    write(folder / "p.jsonl", {"question": ASKED, "answer": "97"}, {"question": "what is 1 plus 2", "answer": "3"})
    task = {"path": "p.jsonl", "chat": settings.chat, **(problem or {})}
    asked = EvaluationSettings.model_validate({"tasks": [task], "problems": 2})
    problems = load_problems(asked, folder, 0, style=learnt.style).search
    chosen = [each for each in problems if each.prompt == ASKED]
    return learnt_and_asked(learnt, read_turns(settings, folder), chosen, tokenizer, ENDS, [])


def ids(segments: list[dict[str, Any]]) -> list[int]:
    return [token["id"] for segment in segments for token in [*segment["tokens"], *segment["then"]]]


def text(segments: list[dict[str, Any]]) -> str:
    return "".join(token["text"] for segment in segments for token in [*segment["tokens"], *segment["then"]])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("chat", [True, False])
def test_a_question_has_the_same_tokens_where_it_is_learnt_and_where_it_is_asked(
    tmp_path: Path, name: str, chat: bool
) -> None:
    tokenizer, _ = family(name)
    write(
        tmp_path / "d.jsonl", {"prompt": ASKED, "completion": SAID}, {"prompt": "what is 1 plus 2", "completion": "3"}
    )
    if not chat and name == "no_end":
        tokenizer.eos_token = "</s>"  # plain text has no other end
    found = picture(tmp_path, tokenizer, chat=chat)
    first, second = found["demonstrations"]
    before, answer = first["segments"][:2]
    assert (before["learnt"], answer["learnt"]) == (False, True)
    assert ids([before]) == ids(found["problem"]["segments"])
    assert SAID in text([answer]).strip() and text([before]).replace(" ", "").find(ASKED.replace(" ", "")) >= 0
    assert first["end"]["stops"] and tokenizer.convert_tokens_to_ids(first["end"]["text"]) in ENDS
    assert first["place"] == "line 1 of d.jsonl" and second["place"] == "line 2 of d.jsonl"
    roles = ["user", "assistant"] if chat else ["prompt", "completion"]
    assert [(part["role"], part["text"]) for part in first["given"]] == list(zip(roles, (ASKED, SAID), strict=True))
    assert found["problem"]["gold"] == "97" and found["problem"]["given"][-1]["text"] == ASKED
    marked = [token["text"] for segment in first["segments"] for token in segment["tokens"] if token["special"]]
    assert ("<|turn|>" in marked and "<|end|>" in marked) == chat and json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_are_those_of_the_labels(tmp_path: Path, name: str) -> None:
    tokenizer, _ = family(name)
    turns = [{"role": role, "content": said} for role, said in (("user", ASKED), ("assistant", SAID))]
    write(tmp_path / "d.jsonl", {"messages": [*turns, *turns]}, {"messages": turns})
    shown = picture(tmp_path, tokenizer, learn="all")["demonstrations"][0]
    (example, _) = load_demonstrations(DataSettings(path="d.jsonl", learn="all"), tokenizer, tmp_path)
    learnt = [token["id"] for part in shown["segments"] if part["learnt"] for token in part["tokens"]]
    assert learnt == example.labels[example.labels >= 0].tolist() and len(learnt) == shown["labels"]
    assert ids(shown["segments"]) == example.token_ids.tolist() and shown["tokens"] == len(example.token_ids)
    assert [part["learnt"] for part in shown["segments"]][:4] == [False, True, False, True]


def test_weights_and_critical_tokens_are_stretches_of_their_own() -> None:
    tokenizer, _ = family("byte_level")
    tokens = torch.tensor(tokenizer("abcdefgh")["input_ids"], dtype=torch.int32)
    count = len(tokens)
    learnt = torch.ones(count, dtype=torch.bool)
    weights, critical = torch.ones(count), torch.zeros(count, dtype=torch.bool)
    weights[2:4], weights[4], critical[count - 1] = 0.5, 0.0, True
    example = Demonstration(tokens, learnt, critical, weights)
    (shown,) = learnt_and_asked(Demonstrations((example,), 1), [], [], tokenizer, [], [])["demonstrations"]
    assert [(part["learnt"], part["weight"], part["critical"], len(part["tokens"])) for part in shown["segments"]] == [
        (False, 0.0, False, 1), (True, 1.0, False, 1), (True, 0.5, False, 2), (False, 0.0, False, 1),
        (True, 1.0, False, count - 6), (True, 1.0, True, 1),
    ]  # fmt: skip
    assert shown["labels"] == example.num_labels and not shown["end"]["stops"] and shown["given"] == []


def test_long_stretches_lose_their_middle_and_say_how_much(tmp_path: Path) -> None:
    tokenizer, _ = family("byte_level")
    write(tmp_path / "d.jsonl", {"prompt": ASKED, "completion": "z" * 5000})
    (only,) = picture(tmp_path, tokenizer, max_length=9000)["demonstrations"]
    answer = only["segments"][1]
    assert (len(answer["tokens"]), len(answer["then"])) == (HEAD, TAIL)
    assert answer["left_out"] + HEAD + TAIL == only["labels"] > 5000
    assert answer["then"][-2]["text"] == "<|end|>" and only["end"]["behind"] == 1
    assert [(len(part["text"]), part["left_out"]) for part in only["given"]] == [(len(ASKED), 0), (4000, 1000)]


def test_the_second_demonstration_is_built_otherwise_than_the_first(tmp_path: Path) -> None:
    tokenizer, _ = family("bpe")
    told = [{"role": "system", "content": "be brief"}, {"role": "user", "content": ASKED}]
    write(tmp_path / "d.jsonl", *[{"prompt": ASKED, "completion": str(n)} for n in range(4)],
          {"prompt": told, "completion": "5"})  # fmt: skip
    found = picture(tmp_path, tokenizer)
    assert [each["place"] for each in found["demonstrations"]] == ["line 1 of d.jsonl", "line 5 of d.jsonl"]
    assert found["demonstrations"][1]["given"][0] == {"role": "system", "text": "be brief", "left_out": 0}
    write(tmp_path / "e.jsonl", {"prompt": ASKED, "completion": "6"})
    write(tmp_path / "d.jsonl", *[{"prompt": ASKED, "completion": str(n)} for n in range(4)])
    found = picture(tmp_path, tokenizer, path=("d.jsonl", "e.jsonl"))
    assert [each["place"] for each in found["demonstrations"]] == ["line 1 of d.jsonl", "line 1 of e.jsonl"]


def test_tools_variables_examples_and_calls_are_among_what_is_given(tmp_path: Path) -> None:
    tokenizer, _ = family("byte_level")
    tokenizer.chat_template = (
        "{{ tools | tojson if tools else '' }}{% for m in messages %}<|turn|>{{ m.role }} {{ m.content }}"
        "{{ m.tool_calls | tojson if m.tool_calls else '' }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant {% endif %}"
    )
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 40}}}
    row = {
        "messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "", "tool_calls": [call]}],
        "tools": [{"type": "function", "function": {"name": "add"}}],
        "chat_template_kwargs": {"style": "short"},
    }
    write(tmp_path / "d.jsonl", row)
    examples = [{"question": "q", "answer": "a"}]
    found = picture(tmp_path, tokenizer, {"system": "be brief", "few_shot": examples})
    given = found["demonstrations"][0]["given"]
    assert [part["role"] for part in given] == ["tools", "variables", "user", "assistant", "assistant.tool_calls"]
    assert json.loads(given[-1]["text"]) == [call]
    asked = [(part["role"], part["text"]) for part in found["problem"]["given"]]
    assert asked == [
        ("variables", '{"style": "short"}'), ("system", "be brief"), ("user", "q"), ("assistant", "a"), ("user", ASKED),
    ]  # fmt: skip


@pytest.mark.parametrize("said", ["größer als 3 – 漢字, 😀👩‍👩‍👧!", "a  b\t c\n\n d", " leading", "</s>x<|end|>"])
@pytest.mark.parametrize("name", ["byte_level", "several_ends"])
def test_the_texts_of_all_tokens_are_the_text(name: str, said: str) -> None:
    tokenizer, _ = family(name)
    tokens = tokenizer(said)["input_ids"]
    texts = token_texts(tokenizer, tokens, range(len(tokens)))
    assert "".join(texts) == said
    assert any(not each for each in texts) == any(ord(letter) > 127 for letter in said), "torn characters wait"


def test_a_decoder_that_changes_its_mind_shows_tokens_by_name() -> None:
    class Undecided:
        def decode(self, ids: list[int], **_: Any) -> str:
            return " ".join(map(str, reversed(ids)))

        def convert_ids_to_tokens(self, token: int) -> str:
            return f"<{token}>"

    assert token_texts(Undecided(), [7, 8], [1]) == ["<8>"]


def test_differences_are_handed_on_and_nothing_is_asked_where_nothing_is_scored(tmp_path: Path) -> None:
    tokenizer, _ = family("bpe")
    write(tmp_path / "d.jsonl", {"prompt": ASKED, "completion": SAID})
    data = load_demonstrations(DataSettings(path="d.jsonl"), tokenizer, tmp_path)
    found = learnt_and_asked(data, [], [], tokenizer, [], [Difference("seam", "a space")])
    assert found["problem"] is None and found["differences"] == [{"kind": "seam", "said": "a space"}]
    assert found["demonstrations"][0]["given"] == [] and not found["demonstrations"][0]["end"]["stops"]


def test_a_prompt_is_what_the_evaluator_asks(tmp_path: Path) -> None:
    tokenizer, _ = family("appends_end")
    write(tmp_path / "d.jsonl", {"prompt": ASKED, "completion": SAID})
    asked = Problem(id="1", task="t", question_hash="h", prompt=ASKED, gold="97", chat=False)
    data = load_demonstrations(DataSettings(path="d.jsonl", chat=False), tokenizer, tmp_path)
    found = learnt_and_asked(data, [], [asked], tokenizer, ENDS, [])["problem"]
    assert ids(found["segments"]) == list(encode(tokenizer, render(tokenizer, asked), chat=False))
    assert found["ends"] == ["</s>", "<|end|>"] and all(a != b for a, b in pairwise(found["ends"]))


def test_a_question_with_a_token_of_the_template_is_counted() -> None:
    tokenizer, _ = family("byte_level")
    texts = ["what <|end|> is", "what is", "a <|turn|>", "<|turn|>", "</s>"]
    asked = [Problem(id=text, task="t", question_hash=text, prompt=text, gold="1") for text in texts]
    said = structured(tokenizer, asked)
    assert [each.partition(",")[0] for each in said] == [
        "1 question(s) hold '<|end|>'",
        "2 question(s) hold '<|turn|>'",
    ]
    assert structured(tokenizer, [each.model_copy(update={"chat": False}) for each in asked]) == []
    tokenizer.chat_template = None
    assert structured(tokenizer, asked) == []
