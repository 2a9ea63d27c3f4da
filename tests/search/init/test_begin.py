"""From a model and a data file to a study that `check` accepts: every shape, problems given or held out."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tiny_llama import character_tokenizer, tiny_llama

from qtarget.evaluation.survey import look
from qtarget.search.engine.check import PROBLEMS, check
from qtarget.search.init import begin as begin_module
from qtarget.search.init.begin import begin
from qtarget.search.init.paths import only_one, seen_from
from qtarget.search.init.question import Options
from qtarget.search.study.config_file import load_study
from qtarget.spaces.errors import UserError

SUMS = [(a, b) for a in range(6) for b in range(8)]


class Silent:
    def send(self, kind: str, **fields: Any) -> None:
        """Say nothing."""


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Models with and without a chat template, demonstrations in every shape, and problems."""
    folder = tmp_path_factory.mktemp("home")
    for name, tokenizer in (("chat", character_tokenizer()), ("plain", character_tokenizer(None))):
        tiny_llama(1, len(tokenizer), num_hidden_layers=2).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    tokenizer = character_tokenizer()
    tiny_llama(2, len(tokenizer), num_hidden_layers=4).save_pretrained(folder / "larger")
    tokenizer.save_pretrained(folder / "larger")
    asked = [(f"what is {a}+{b}?", f"we add: {a}+{b}={a + b}.\n#### {a + b}") for a, b in SUMS]
    random.Random(1).shuffle(asked)
    talk = [[{"role": "user", "content": q}, {"role": "assistant", "content": s}] for q, s in asked]
    hello = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    write(folder / "messages.jsonl", [{"messages": each} for each in talk])
    write(folder / "several.jsonl", [{"messages": [*hello, *each]} for each in talk])
    shared = [[{"from": "human", "value": q}, {"from": "gpt", "value": s}] for q, s in asked]
    write(folder / "sharegpt.jsonl", [{"system": "be exact", "conversations": each} for each in shared])
    alpaca = [{"instruction": "add", "input": f"{a} and {b}", "output": str(a + b)} for a, b in SUMS]
    write(folder / "alpaca.jsonl", alpaca)
    write(folder / "joined.jsonl", [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a, b in SUMS])
    write(folder / "texts.jsonl", [{"text": f"{a} plus {b} makes {a + b}."} for a, b in SUMS])
    write(folder / "problems.jsonl", [{"problem": f"how much is {a} plus {b}?", "answer": a + b} for a, b in SUMS])
    with (folder / "table.csv").open("w") as file:
        csv.writer(file).writerows([("query", "response"), *asked])
    return folder


@pytest.fixture
def here(home, monkeypatch) -> Path:
    """Inside it, with what looks at models in this process: the same code, without its start."""
    monkeypatch.chdir(home)
    monkeypatch.setattr(begin_module, "ask_and_show", lambda verb, wish, console: look.answer(wish, Silent()))
    return home


def begun(name: str, *, data: str = "", **options: Any) -> dict[str, Any]:
    """`data`: names with a space between them."""
    given = Options(data=tuple(data.split()), **options)
    found = begin(Path(name), given, Console(file=io.StringIO()), yes=True, force=True)
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "data", "tasks"),
    [
        ("chat", "messages.jsonl", ()),
        ("plain", "sharegpt.jsonl", ()),
        ("plain", "alpaca.jsonl", ()),
        ("plain", "joined.jsonl", ()),
        ("chat", "table.csv", ()),
        ("chat", "several.jsonl", ("problems.jsonl",)),
        ("chat", "texts.jsonl", ("problems.jsonl",)),
    ],
)
def test_the_study_passes_check(here, model, data, tasks):
    begun("study.yaml", model=model, data=data, tasks=tasks)
    config = load_study(here / "study.yaml")
    facts = check(config)
    assert [line for line in facts["warnings"] if "is read as" not in line and "without the chat" not in line] == []
    assert facts["problems"]["unusable_golds"] == []
    answered = min(PROBLEMS, config.evaluation.problems)
    assert sum(facts["verdicts"].values()) == answered and not facts["verdicts"]["error"]


def test_every_choice_says_why_and_reads_back_as_it_was_made(here):
    found = begun("why.yaml", model="chat", data="messages.jsonl", tasks=("problems.jsonl",), hours=1)
    text = (here / "why.yaml").read_text()
    config = load_study(here / "why.yaml")
    assert config.training.precision == "fp32" and "without a GPU" in text
    longest = max(map(int, found["found"]["data"]["lengths"]))
    assert longest <= config.data.max_length <= longest + 15 and f"the longest has {longest}" in text
    assert config.training.effective_batch == 8 and config.evaluation.tasks[0].kind == "numeric"
    assert config.evaluation.problems + config.evaluation.report_problems == len(SUMS)
    low, rate, high = 0.0005, config.training.learning_rate, 0.008
    assert yaml.safe_load(text)["space"] == {"training": {"learning_rate": [low, high, "log"]}} and low < rate < high
    assert "# teacher: {path: larger}" in text  # beside it lies a larger model with its vocabulary
    assert max(map(len, text.splitlines())) <= 120


def test_held_out_problems_are_files_of_their_own(here):
    found = begun("own.yaml", model="chat", data="messages.jsonl")
    assert [Path(each).name for each in found["files"]] == [
        "own-demonstrations.jsonl",
        "own-problems.jsonl",
        "own.yaml",
    ]
    assert load_study(here / "own.yaml").data.path == "own-demonstrations.jsonl"
    assert "numeric: 48 of 48 answers end in a number" in (here / "own.yaml").read_text()


def test_several_files_are_learnt_from_and_held_out_of_together(here):
    rows = (here / "messages.jsonl").read_text().splitlines(keepends=True)
    (here / "one.jsonl").write_text("".join(rows[:20]))
    (here / "two.jsonl").write_text("".join(rows[20:]))
    found = begun("parts.yaml", model="chat", data="one.jsonl two.jsonl", tasks=("problems.jsonl",))
    assert found["found"]["data"]["rows"] == len(SUMS)
    assert load_study(here / "parts.yaml").data.paths == ("one.jsonl", "two.jsonl")
    assert "--data one.jsonl --data two.jsonl" in (here / "parts.yaml").read_text()
    held = begun("both.yaml", model="chat", data="one.jsonl two.jsonl")["found"]["problems"]["held_out"]
    whole = begun("whole.yaml", model="chat", data="messages.jsonl")["found"]["problems"]["held_out"]
    assert held == whole
    assert (here / "both-problems.jsonl").read_text() == (here / "whole-problems.jsonl").read_text()


def test_a_named_teacher_is_in_the_file(here):
    begun("taught.yaml", model="chat", data="messages.jsonl", tasks=("problems.jsonl",), teacher="larger")
    config = load_study(here / "taught.yaml")
    assert config.teacher is not None and config.teacher.path == "larger"


def test_paths_are_seen_from_the_study_file(here):
    begun("deep/er/study.yaml", model="chat", data="messages.jsonl", tasks=("problems.jsonl",))
    config = load_study(here / "deep/er/study.yaml")
    assert (config.model.path, config.data.path) == ("../../chat", "../../messages.jsonl")
    named = ("lm_eval:alpaca.jsonl", "lm_eval:gsm8k", "gsm8k")
    assert [seen_from(here / "deep", each) for each in named] == ["lm_eval:../alpaca.jsonl", "lm_eval:gsm8k", "gsm8k"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "`--model` must be given.*in .* there is chat, larger, plain"),
        ({"model": "chat"}, "`--data` must be given.*there is alpaca.jsonl"),
        ({"model": "./gone", "data": "messages.jsonl"}, "nothing at ./gone.*there is chat"),
        ({"model": "chat", "data": "gone.jsonl"}, "nothing at gone.jsonl.*there is alpaca.jsonl"),
        ({"model": "messages.jsonl", "data": "messages.jsonl"}, "must be a folder, a GGUF file or a hub id"),
        ({"model": "chat", "data": "messages.jsonl", "tasks": ("gsm9k",)}, "none of the suites gsm8k, "),
        ({"model": "chat", "data": "texts.jsonl"}, "none of the 48 is one"),
    ],
)
def test_what_is_wrong_is_said_with_what_there_is(here, options, said):
    with pytest.raises(UserError, match=said):
        begun("never.yaml", **options)
    assert not Path("never.yaml").exists()


def test_demonstrations_that_the_model_cannot_read_are_refused(here):
    write(here / "long.jsonl", [{"prompt": f"{a}+{b}=" * 99, "completion": "1"} for a, b in SUMS])
    with pytest.raises(UserError, match=r"the model's 256 positions, but the shortest of 48 has \d+ tokens"):
        begun("never.yaml", model="plain", data="long.jsonl", tasks=("problems.jsonl",))


def test_nothing_is_overwritten(here):
    Path("mine.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"overwrites nothing, but .*mine\.yaml is there"):
        begin(Path("mine.yaml"), Options(model="chat", data=("messages.jsonl",)), Console(), yes=True)
    assert Path("mine.yaml").read_text() == "mine"


def test_the_only_model_and_the_only_data_file_are_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("mine/config.json", "train.jsonl"):
        (tmp_path / name).touch()
    assert (only_one("--model"), only_one("--data")) == ("mine", "train.jsonl")
    (tmp_path / "more.csv").touch()
    assert only_one("--data") == ""


@pytest.mark.slow
def test_on_a_terminal_what_is_missing_is_asked(home):
    """The real command on a real terminal: a wrong model, model, data, a teacher and an agreement are typed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "qtarget", "init", "asked.yaml", "--tasks", "problems.jsonl"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=home) as process:
        os.close(theirs)
        heard = ""
        for question, answer in (
            ("hub id: ", b"./gone\n"),
            ("hub id: ", b"chat\n"),
            ("Demonstrations: ", b"messages.jsonl\n"),
            ("(y/N)", b"y\n"),
            ("(Y/n)", b"\n"),
        ):
            while question not in heard:
                heard += os.read(ours, 4096).decode("utf-8", "replace")
            heard = ""
            os.write(ours, answer)
        rest = _rest(ours)
        assert process.wait() == 0, rest
    config = load_study(home / "asked.yaml")
    assert config.teacher is not None and config.teacher.path == "larger"


def _rest(descriptor: int) -> str:
    heard = b""
    while True:
        try:
            read = os.read(descriptor, 4096)
        except OSError:  # the other end has left
            return heard.decode()
        if not read:
            return heard.decode()
        heard += read


@pytest.mark.slow
def test_where_nobody_can_be_asked_the_command_ends_with_2(home):
    done = subprocess.run(
        [sys.executable, "-m", "qtarget", "init", "no.yaml", "--yes"], capture_output=True, text=True, cwd=home
    )
    assert done.returncode == 2 and "qtarget: `--model` must be given" in done.stderr


@pytest.mark.slow
def test_version_is_printed():
    done = subprocess.run([sys.executable, "-m", "qtarget", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("qtarget 0.")
