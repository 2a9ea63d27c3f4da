"""What an engine says of its inputs before a night: everything worth a look, and the date that templates print."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from rich.console import Console
from small_study import small_config, write_small_study

from qtarget.search.engine.check import unusual_rates
from qtarget.search.engine.inputs import Engine
from qtarget.search.engine.train import DATE_FILE, Training
from qtarget.search.study.config_file import load_study, parse_study
from qtarget.search.terminal.check import check_study

DATED = "{{ strftime_now('%d%m') }}{% for m in messages %}{{ m.role[0] }}:{{ m.content }}<turn>\n{% endfor %}a:"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Demonstrations with a system message, one of them empty, none of them as many as an effective batch."""
    path = write_small_study(tmp_path, training={**small_config()["training"], "effective_batch": 64}, full_steps=900)
    words = [("abcd", "a"), ("bcda", "b"), ("cdab", " ")]
    roles = ("system", "user", "assistant")
    rows = [[{"role": r, "content": c} for r, c in zip(roles, ("be brief", *pair), strict=True)] for pair in words]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def test_check_prints_what_is_worth_a_look_instead_of_all_is_well(study: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    facts = check_study(study, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert len(facts["warnings"]) == 3 and "All is well" not in printed
    assert facts["fast_paths"] == [] or "fast path  loss: " in printed
    assert "look at    an empty completion is learnt" in printed and "line 3 of train.jsonl" in printed
    assert "look at    `training.effective_batch` is 64, more than the 3 demonstrations" in printed
    assert "of 900 steps (`full_steps`)" in printed
    assert f"date       {datetime.date.today()}" in printed
    assert "  loss     a│" in printed and "asked      a problem of problems" in printed
    assert json.loads(json.dumps(facts["learnt"])) == facts["learnt"]


def test_a_study_on_another_day_has_the_same_fingerprints_by_its_date(study: Path, tmp_path: Path) -> None:
    template = DATED.replace("a:", "{% if add_generation_prompt %}a:{% endif %}")
    (tmp_path / "dated.jinja").write_text(template)
    model = {"path": "model", "chat_template": "dated.jinja"}
    config = load_study(study).model_copy(update={"teacher": None})
    config = config.model_copy(update={"model": config.model.model_validate(model)})
    days = [datetime.date(2024, 2, 9), datetime.date(2024, 2, 9), datetime.date(2024, 2, 10)]
    engines = [Engine(config.model_copy(update={"date": day})) for day in days]
    prints = [engine.fingerprints()["data"] for engine in engines]
    assert prints[0] == prints[1] != prints[2]
    problem = engines[0].splits.search[0]
    assert [turn["content"] for turn in problem.asking.turns] == ["be brief"] and problem.asking.day == days[0]


def test_a_training_goes_on_with_the_date_it_began_with(tmp_path: Path) -> None:
    given = SimpleNamespace(out=tmp_path, winner=SimpleNamespace(date=None))
    assert Training._day(given) is None  # type: ignore[arg-type]
    (tmp_path / DATE_FILE).write_text("2024-02-09\n")
    assert Training._day(given) == datetime.date(2024, 2, 9)  # type: ignore[arg-type]
    given.winner.date = datetime.date(2024, 2, 10)
    assert Training._day(given) == given.winner.date  # type: ignore[arg-type]


@pytest.mark.parametrize(("weights", "said"), [(10**6, 1), (5 * 10**8, 0), (10**11, 1)])
def test_a_range_that_nobody_gave_is_held_against_the_models_size(weights: int, said: int) -> None:
    model = torch.nn.Module()
    model.register_parameter("weight", torch.nn.Parameter(torch.empty(weights, device="meta")))
    unnamed = parse_study({key: value for key, value in small_config().items() if key != "space"})
    notes = list(unusual_rates(unnamed, model))
    assert len(notes) == said and all(f"{weights:,} parameters" in note for note in notes)
    for note in notes:  # the remedy, as it is written, is taken and ends the doubt
        mended = yaml.safe_load(note.split("`")[3])
        assert list(unusual_rates(parse_study({**small_config(), **mended}), model)) == []
    assert list(unusual_rates(parse_study(small_config()), model)) == []
