"""What is read after a search is held against what the search used: its configuration, its inputs, its problems."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_study import SCORES, write_answers
from rich.console import Console
from scripted_study import scripted
from small_study import small_config, write_small_study

from qtarget.search.campaign.session import confirm_file
from qtarget.search.commands.evaluate import evaluate_model
from qtarget.search.compare.ranking import compare_studies
from qtarget.search.export.write import export_winner
from qtarget.search.loop import supervisor
from qtarget.search.loop.confirm import VERDICT_FILE, stored_verdict, within_scores
from qtarget.search.loop.seen import refuse_seen, seen_problems
from qtarget.search.loop.supervisor import run_study
from qtarget.search.report.data import gather
from qtarget.search.store.history import load_history
from qtarget.search.study.config_file import load_study
from qtarget.search.study.files import SEEN_FILE, read_json, write_json
from qtarget.search.terminal.status import show_status
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished search without report problems, with scripted engines; so are those of its confirmation."""
    monkeypatch.setattr(supervisor, "place", lambda ranks, workers: (scripted, workers))
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(small_config(tracking={"uri": "none"}, confirmation={"seeds": 2, "longer": None}))
    )
    config = load_study(tmp_path / "study.yaml")
    config.study_folder.mkdir(parents=True)
    (config.study_folder / "script.json").write_text(json.dumps({"scores": SCORES}))
    run_study(config)
    for record in load_history(config):
        write_answers(record.folder / "items.jsonl", record.score or 0.0)
    return tmp_path / "study.yaml"


def confirm(study: Path) -> dict[str, Any] | None:
    """Confirm with a deadline, and so without loading the models for the report."""
    return confirm_file(study, QUIET, until="2100-01-01T00:00")


def edit(study: Path, **changes: Any) -> Path:
    """The study's file with other settings in some sections."""
    read = yaml.safe_load(study.read_text())
    study.write_text(yaml.safe_dump({**read, **{name: {**read[name], **each} for name, each in changes.items()}}))
    return study


def script_of_confirmations(study: Path, monkeypatch: pytest.MonkeyPatch, **script: Any) -> None:
    """What engines of a confirmation do, whose folder does not exist yet."""

    def launch(folder: Path, index: int) -> Any:
        (folder / "script.json").write_text(json.dumps({"items": True, **script}))
        return scripted(folder, index)

    monkeypatch.setattr(supervisor, "place", lambda ranks, workers: (launch, workers))


def test_a_confirmation_asks_for_problems_that_were_not_kept_back(searched: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="must be above 0 for a confirmation"):
        confirm(searched)
    edit(searched, evaluation={"report_problems": 12})
    script_of_confirmations(searched, monkeypatch)
    verdict = confirm(searched)
    assert verdict is not None
    (folder,) = load_study(searched).study_folder.glob("confirmation-*-12")
    assert read_json(folder / SEEN_FILE) == {"problems": sorted(f"search-{number:03d}" for number in range(16))}
    kept = json.loads((folder / "study.json").read_text())["confirms"]
    assert kept == {"fingerprints": {"data": "d", "model": "m", "evaluation": "e"}, "report_problems": 0}
    assert run_study(load_study(searched)).state == "finished", "the search itself is as it was"


def test_a_confirmation_that_asked_what_trials_had_seen_says_nothing(searched: Path, monkeypatch) -> None:
    edit(searched, evaluation={"report_problems": 12})
    write_answers(load_history(load_study(searched))[0].folder / "rungs" / "step-000004.jsonl", 0.5, 3, prefix="p")
    write_answers(load_history(load_study(searched))[0].folder / "retention.jsonl", 0.5, 3, prefix="kept")
    assert {"p-002", "kept-002", "search-015"} <= seen_problems(load_study(searched))
    script_of_confirmations(searched, monkeypatch)
    confirm(searched)
    (folder,) = load_study(searched).study_folder.glob("confirmation-*-12")
    write_json(folder / SEEN_FILE, {"problems": ["report-003", "report-004", "other"]})
    with pytest.raises(UserError, match="trials have seen 2 of its 16"):
        refuse_seen(folder)


@pytest.mark.parametrize("name", ["data", "model", "evaluation"])
def test_a_confirmation_of_other_inputs_is_refused(searched: Path, monkeypatch, name: str) -> None:
    edit(searched, evaluation={"report_problems": 12})
    script_of_confirmations(searched, monkeypatch, fingerprints={name: "other"})
    with pytest.raises(UserError, match=f"a confirmation must use what the search .* used, but {name} has fingerprint"):
        confirm(searched)
    assert stored_verdict(load_study(searched)) is None


@pytest.mark.parametrize("verb", ["confirm", "export", "evaluate"])
def test_a_changed_file_is_refused_with_the_way_out(searched: Path, tmp_path: Path, verb: str) -> None:
    edit(searched, evaluation={"report_problems": 12}, training={"steps": 5, "micro_batch": 4})
    verbs: dict[str, Any] = {
        "confirm": lambda: confirm(searched),
        "export": lambda: export_winner(searched, tmp_path / "out", QUIET, unconfirmed=True),
        "evaluate": lambda: evaluate_model("model", searched, None, QUIET),
    }
    with pytest.raises(
        UserError, match=r"`training\.steps` is 5, was 8\. Set it back, or name the study's folder"
    ) as raised:
        verbs[verb]()
    assert raised.value.field == "training.steps" and "micro_batch" not in str(raised.value)


def test_what_only_looks_says_what_has_changed_and_shows_what_was_searched(searched: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(searched.parent / "runs", other / "runs")
    shutil.copy(searched, other / "study.yaml")
    edit(searched, training={"steps": 5})
    screen = Console(file=io.StringIO(), width=300)
    assert show_status(searched, screen)["changed"] == ["training.steps"]
    said = "file has changed since it was searched: `training.steps` is 5, was 8"
    assert said in screen.file.getvalue()  # type: ignore[attr-defined]
    data = gather(searched)
    assert data.config is not None and data.config.training.steps == 8
    assert any(said in note for note in data.missing)
    assert [note for note in compare_studies([searched, other / "study.yaml"]).notes if said in note]
    assert show_status(other / "study.yaml", QUIET)["changed"] == []


def test_failed_replicates_run_again(searched: Path, monkeypatch) -> None:
    edit(searched, evaluation={"report_problems": 12}, limits={"retries": 0})
    script_of_confirmations(searched, monkeypatch, **{"1": ["kill"]})
    with pytest.raises(UserError, match=r"\[1\] are not complete"):
        confirm(searched)
    script_of_confirmations(searched, monkeypatch)
    assert confirm(searched) is not None


def test_the_newest_verdict_is_no_matter_of_dates(searched: Path) -> None:
    folder = load_study(searched).study_folder
    verdict = {"winner": None, "comparisons": [{"title": "x", "low": -11.5, "high": 0.5}]}
    for order, name in ((2, "a"), (1, "b")):  # the older one is copied last
        write_json(folder / f"confirmation-{name}" / VERDICT_FILE, {**verdict, "order": order, "outcome": name})
    found = stored_verdict(load_study(searched))
    assert found is not None and found["outcome"] == "a"
    assert (found["comparisons"][0]["low"], found["comparisons"][0]["high"]) == (-1.0, 0.5)
    assert within_scores(verdict)["comparisons"][0]["low"] == -1.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of two trials with a real model, which kept no problems back."""
    search = {**small_config()["search"], "trials": 2, "pruner": "none"}
    changes: dict[str, Any] = {
        "search": search,
        "tracking": {"uri": "none"},
        "confirmation": {"seeds": 2, "longer": None},
    }
    study = write_small_study(tmp_path_factory.mktemp("trained"), **changes)
    run_study(load_study(study))
    return study


def test_real_engines_confirm_on_problems_that_no_trial_saw(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path / "copy")
    study = edit(tmp_path / "copy" / "study.yaml", evaluation={"report_problems": 24})
    verdict = confirm(study)
    assert verdict is not None and verdict["problems"] == 24
    (folder,) = load_study(study).study_folder.glob("confirmation-*-24")
    asked = {json.loads(line)["problem"] for line in (folder / "trials/0000/items.jsonl").read_text().splitlines()}
    assert len(asked) == 24 and not asked & seen_problems(load_study(study))
    with pytest.raises(
        UserError, match=r"needs 25 problems of problems\.jsonl that no trial has seen, but 24 are left"
    ):
        confirm(edit(study, evaluation={"report_problems": 25}))


def test_real_engines_refuse_other_golds_and_data(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path / "copy")
    study = tmp_path / "copy" / "study.yaml"
    rows = (tmp_path / "copy" / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "copy" / "train.jsonl").write_text("".join(rows[:20]))
    with pytest.raises(UserError, match="an export must use what the search of 'small' used, but data has fingerprint"):
        export_winner(study, tmp_path / "out", QUIET, unconfirmed=True)
    golds = (tmp_path / "copy" / "problems.jsonl").read_text().replace('"answer": "', '"answer": "z')
    (tmp_path / "copy" / "problems.jsonl").write_text(golds)
    with pytest.raises(UserError, match=r"data has fingerprint .* evaluation has fingerprint"):
        confirm(edit(study, evaluation={"report_problems": 12}))
