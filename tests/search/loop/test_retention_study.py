"""Studies that measure what trials forget: in results, tables and tracking, as a constraint and as an objective."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from raced_tables import confirm
from rich.console import Console
from scripted_study import Recorder
from small_study import small_config, write_small_study

from qtarget.evaluation.scoring.retention_measure import RetentionMeasure
from qtarget.evaluation.statistics.confirmation import Outcome
from qtarget.search.confirmation.candidates import candidates
from qtarget.search.loop.confirm import winner_within
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import TrialRecord, best, front, load_history, plain_sft
from qtarget.search.study.config_file import load_study, parse_study
from qtarget.search.terminal.status import show_status
from qtarget.search.terminal.tables import winner_sentence
from qtarget.search.tracking.names import flatten
from qtarget.spaces import presets
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow

TEXT = "some words that the base has its own mind about\n\nand others, 1 2 3\n\nthe end of a text\n"
BASELINES = ["sft", {"preset": "sft", "training": {"learning_rate": 1e-4}}]


def write(folder: Path, retention: dict[str, Any], **changes: Any) -> Path:
    evaluation = {**small_config()["evaluation"], "retention": retention}
    study = write_small_study(folder, evaluation=evaluation, baselines=BASELINES, **changes)
    (folder / "general.txt").write_text(TEXT)
    rows = ({"question": word[::-1], "answer": word[0]} for word in ("abcd", "bcde", "cdef", "defg", "efgh", "fgha"))
    (folder / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return study


def run(study: Path) -> tuple[list[TrialRecord], Recorder]:
    config, recorder = load_study(study), Recorder()
    assert run_study(config, [recorder]).state == "finished"
    return load_history(config), recorder


@pytest.fixture(scope="module")
def constrained(tmp_path_factory) -> tuple[Path, list[TrialRecord], Recorder]:
    """Two baselines, one of which hardly moves; divergence from the base may be 0.01 nats."""
    folder = tmp_path_factory.mktemp("constrained")
    search = {**small_config()["search"], "trials": 3, "pruner": "none"}
    study = write(folder, {"text": "general.txt", "role": "constraint", "limit": 0.01}, search=search)
    return study, *run(study)


def result(record: TrialRecord) -> dict[str, Any]:
    return json.loads((record.folder / "result.json").read_text())


def test_every_trial_says_what_it_forgot_in_its_result(constrained) -> None:
    _, records, _ = constrained
    kept = [result(record)["retention"] for record in records]
    for each in kept:
        assert each["unit"] == "nats per token" and each["direction"] == "minimize" and each["standard_error"] > 0
        assert each["forgotten"] == each["value"] >= 0 and each["limit"] == 0.01
        assert each["feasible"] == (each["forgotten"] <= 0.01)
        assert flatten({"retention": each})["retention.value"] == each["value"]  # what MLflow gets
    assert kept[0]["value"] > 0.1 > 0.01 > kept[1]["value"]  # lr 0.01 against lr 1e-4


def test_the_divergence_is_that_of_the_trained_model(constrained) -> None:
    """From the checkpoint that is kept, window by window, in probabilities."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    study, records, _ = constrained
    record = next(r for r in records if (r.folder / "checkpoint").exists())
    base, trained = (AutoModelForCausalLM.from_pretrained(study.parent / "model") for _ in range(2))
    tokenizer = AutoTokenizer.from_pretrained(study.parent / "model")
    [weights] = (record.folder / "checkpoint").glob("*.safetensors")
    stored = load_file(weights)
    names = dict(trained.named_parameters())
    found = {name: value for key, value in stored.items() for name in names if key.endswith(name)}
    assert found.keys() == names.keys()
    trained.load_state_dict(found, strict=False)
    total = tokens = 0.0
    with torch.no_grad():
        for text in TEXT.strip().split("\n\n"):
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            p, q = (model(ids).logits[0, :-1].double().softmax(-1) for model in (base, trained))
            total += float((p * (p / q).log()).sum())
            tokens += ids.shape[1] - 1
    assert record.retention["value"] == pytest.approx(total / tokens, rel=2e-3)


def test_a_trial_that_forgets_too_much_is_infeasible_for_people_and_for_the_sampler(constrained) -> None:
    study, records, recorder = constrained
    assert [record.state for record in records[:2]] == ["infeasible", "complete"]
    config = load_study(study)
    stored = optuna.load_study(study_name="small", storage=f"sqlite:///{config.study_folder}/study.db").trials
    assert stored[0].constraints["retention"] == pytest.approx(records[0].retention["forgotten"] - 0.01)
    assert stored[0].constraints["retention"] > 0 > stored[1].constraints["retention"]
    assert stored[0].user_attrs["retention"]["value"] == records[0].retention["value"]
    ended = {event.number: event for event in recorder.of("TrialEnded")}
    assert ended[0].state == "infeasible" and "allowed 0.01" in ended[0].reason
    console = Console(record=True, width=200)
    show_status(study, console)
    shown = console.export_text()
    assert "nats per token" in shown and "allowed 0.01" in shown and "Not beaten in both" in shown


def test_plain_sft_that_forgets_too_much_is_still_what_others_are_compared_with(constrained) -> None:
    study, records, _ = constrained
    sft, other = records[0], records[1]
    assert sft.state == "infeasible" and sft.score == result(sft)["score"]
    assert plain_sft(records) == other, "a feasible one comes first"
    assert plain_sft([sft]) == sft and best([sft]) is None
    assert "(it forgets more than is allowed)" in winner_sentence(other, sft)
    published = replace(other, baseline="target_sft", target=presets.get("target_sft"), number=7)
    config = load_study(study)
    titles = {each.title for each in candidates(config, [sft, replace(other, baseline="dft"), published])}
    assert "sft" in titles and any(title.startswith("target_sft") for title in titles)
    infeasible = replace(published, state="infeasible")
    third = replace(other, baseline="dft", target=presets.get("dft"))
    assert {each.title.split(" ")[0] for each in candidates(config, [sft, third, infeasible])} == {"sft", "dft"}


def test_the_winner_of_a_confirmation_keeps_within_the_limit() -> None:
    rng = np.random.default_rng(0)
    scores = {
        title: value + 0.01 * rng.normal(size=(20, 3)) for title, value in (("sft", 0.0), ("more", 0.9), ("less", 0.6))
    }
    raced = confirm(scores.pop("sft"), scores, rng)
    both = tuple(replace(each, outcome=Outcome.BETTER) for each in raced.comparisons)
    found = replace(raced, comparisons=both)
    kept = [{"title": "more", "retention": {"forgotten": 0.8}}, {"title": "less", "retention": {"forgotten": 0.7}}]
    assert [winner_within(found, kept, limit) for limit in (None, 0.9, 0.75, 0.1)] == ["more", "more", "less", "more"]
    unmeasured = [{**each, "retention": None} for each in kept]
    assert winner_within(found, unmeasured, None) == found.winner == "more"


def test_accuracy_on_other_tasks_is_compared_with_the_bases_and_can_be_an_objective(tmp_path: Path) -> None:
    search = {**small_config()["search"], "trials": 3, "pruner": "none", "startup_trials": 1}
    retention = {"tasks": [{"path": "other.jsonl", "kind": "exact"}], "problems": 6, "role": "objective"}
    study = write(tmp_path, retention, search=search)
    records, _ = run(study)
    kept = [record.retention for record in records]
    assert all(each["unit"] == "share of problems" and each["problems"] == 6 for each in kept)
    assert all(each["forgotten"] == pytest.approx(each["base"] - each["value"]) for each in kept)
    stored = optuna.load_study(study_name="small", storage=f"sqlite:///{tmp_path}/runs/small/study.db")
    assert len(stored.directions) == 2
    assert [trial.values for trial in stored.trials] == [[r.score, -r.retention["forgotten"]] for r in records]
    on_front = front(records)
    assert {record.number for record in on_front} <= {trial.number for trial in stored.best_trials}
    assert on_front[0].score == max(record.score for record in records)


@pytest.mark.parametrize(
    ("retention", "said"),
    [
        ({}, "`tasks` or `text` must be given"),
        ({"text": "general.txt", "tasks": [{"path": "other.jsonl"}]}, "not both"),
        ({"text": "general.txt", "role": "constraint"}, "`limit` must go with `role: constraint`"),
        ({"text": "general.txt", "role": "objective"}, "`search.pruner` must be none"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(retention: dict[str, Any], said: str) -> None:
    evaluation = {**small_config()["evaluation"], "retention": retention}
    with pytest.raises(UserError, match=said):
        parse_study(small_config(evaluation=evaluation))


@pytest.mark.parametrize(
    ("retention", "said"),
    [
        ({"text": "nowhere.txt"}, "`retention.text` must be a readable file in UTF-8"),
        ({"text": "broken.txt"}, "`retention.text` must be a readable file in UTF-8"),
        ({"text": "empty.txt"}, "needs general text of at least two tokens"),
        ({"text": "other.jsonl"}, "no column `text`; it has: question, answer"),
        ({"text": "other.jsonl", "text_column": "question"}, None),
    ],
)
def test_texts_are_read_or_refused(tmp_path: Path, retention: dict[str, Any], said: str | None) -> None:
    from tiny_llama import character_tokenizer

    config = load_study(write(tmp_path, retention))
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "broken.txt").write_bytes(b"a\xff\n")

    def measure() -> RetentionMeasure:
        settings = config.evaluation
        return RetentionMeasure(settings, settings.retention, character_tokenizer(), tmp_path, 0)

    if said is None:
        assert measure().compares_logits and measure().fingerprint == measure().fingerprint
    else:
        with pytest.raises(UserError, match=said):
            measure()
