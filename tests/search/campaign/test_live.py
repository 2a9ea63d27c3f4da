"""A whole campaign followed, shown in dashboards and checked: what is said is what its studies hold."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import optuna
import psutil
import pytest
from campaign_study import mixed_campaign, studies, write_campaign
from report_study import confirm, search
from rich.console import Console

from qtarget.search.campaign.budget import due_confirmation
from qtarget.search.campaign.check import check_files
from qtarget.search.campaign.live import campaign_now, follow_all, view
from qtarget.search.commands.dashboard import SeveralStorages
from qtarget.search.store.history import load_history
from qtarget.search.store.queue import Queue
from qtarget.search.store.storage import open_storage
from qtarget.search.store.study import storage_url
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow


def text_of(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mixed, and a third trial of the half-way pair has been at work for six of its eight steps."""
    path = mixed_campaign(tmp_path_factory.mktemp("live"))
    config = studies(path)["halfway"]
    storage = open_storage(storage_url(config), config.study)
    queue = Queue(config, storage)
    queue.fill([], 3)
    assert queue.claim() is not None
    storage.close()
    folder = config.study_folder / "trials" / "0002"
    folder.mkdir()
    lines = [{"step": step, "loss": 2.0 / step, "seconds": 0.5} for step in range(1, 7)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_every_pair_and_what_runs_in_it_is_on_the_frame(campaign: Path) -> None:
    shown = text_of(view(campaign_now([campaign])))
    assert "words" in shown and "6 of 16 trials finished, 1 of 4 pairs confirmed" in shown
    rows = {line.split()[0]: line for line in shown.splitlines() if line.split()[:1]}
    assert "4/4" in rows["done"] and "confirmed" in rows["done"] and "#2" in rows["done"] and "better" in rows["done"]
    assert "0/4" in rows["absent"] and "not begun" in rows["absent"]
    running = shown[shown.index("Running") :]
    assert "halfway" in running and "6/8" in running and "0.333" in running
    assert "crash" in running.split("Failures and repeated attempts")[1]
    assert "2/4" in shown and "searching" in shown and "expected end" in shown


def test_what_is_left_counts_shares_not_queues(campaign: Path) -> None:
    now = campaign_now([campaign])
    by_name = {pair.name: pair for pair in now.pairs}
    assert by_name["halfway"].open_trials == pytest.approx(2 - 6 / 8), "two of its share of four, one nearly through"
    assert by_name["absent"].open_trials == 4 and by_name["done"].over and not by_name["absent"].over
    cost = due_confirmation(by_name["halfway"].config)
    assert cost is not None and now.confirmations_left == pytest.approx(cost.engine_seconds)
    means = {name: sum(times) / len(times) for name in ("done", "halfway") if (times := by_name[name].trial_seconds)}
    every = [seconds for pair in now.pairs for seconds in pair.trial_seconds]
    mean = sum(every) / len(every)
    assert now.search_left == pytest.approx(1.25 * means["halfway"] + 8 * mean), "pairs without times: the mean of all"
    assert now.as_dict()["left_seconds"] == pytest.approx(now.search_left + now.confirmations_left)


def test_a_campaign_is_followed_to_its_end(tmp_path: Path) -> None:
    path = write_campaign(tmp_path, ("a", "b"))
    for config in studies(path).values():
        search(config)
        assert due_confirmation(config) is not None
        confirm(config)
        assert due_confirmation(config) is None, "its verdict is there"
    console = Console(file=io.StringIO(), width=160)
    facts = follow_all([path], console, every=0.05)
    assert facts["left_seconds"] == 0 and facts["expected_end"] is None
    assert [each["now"] for each in facts["studies"]] == ["confirmed"] * 2
    assert "8 of 8 trials finished, 2 of 2 pairs confirmed" in console.file.getvalue()  # type: ignore[attr-defined]


def test_several_storages_are_one_to_a_dashboard(campaign: Path) -> None:
    configs = [studies(campaign)[name] for name in ("done", "halfway")]
    union = SeveralStorages([open_storage(storage_url(config)).backend for config in configs])
    found = union.get_all_studies()
    assert sorted(study.study_name for study in found) == ["words.done", "words.halfway"]
    assert len({study._study_id for study in found}) == 2
    for config in configs:
        study = optuna.load_study(study_name=config.study, storage=union)
        own = load_history(config)
        assert [trial.values and trial.values[0] for trial in study.trials] == [record.score for record in own]
        assert all(union.get_trial(trial._trial_id).number == trial.number for trial in study.trials)
    study.set_user_attr("note", "kept where the study is")
    assert optuna.load_study(study_name=config.study, storage=storage_url(config)).user_attrs["note"]
    with pytest.raises(RuntimeError, match="cannot tell where a new study belongs"):
        optuna.create_study(storage=union)
    with pytest.raises(KeyError):
        union.get_study_id_from_name("words.absent")


def test_one_dashboard_shows_all_started_pairs_until_ctrl_c(campaign: Path, tmp_path: Path) -> None:
    two = write_campaign(campaign.parent, ("done", "halfway", "absent")).rename(campaign.parent / "three.yaml")
    command = [sys.executable, "-m", "qtarget", "ui", str(two)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as shown:
        assert shown.stdout is not None
        assert "words.absent was never started" in shown.stdout.readline()
        link = shown.stdout.readline().split()[-1]
        with urllib.request.urlopen(link.replace("/dashboard", "/api/studies"), timeout=200) as page:
            names = {each["study_name"] for each in json.load(page)["study_summaries"]}
        assert names == {"words.done", "words.halfway"}
        servers = psutil.Process(shown.pid).children(recursive=True)
        os.kill(shown.pid, signal.SIGINT)
        assert shown.wait(200) == 0
    assert psutil.wait_procs(servers, timeout=200)[1] == []


def test_a_check_finds_the_faults_of_all_pairs_and_leaves_no_trace(tmp_path: Path) -> None:
    path = write_campaign(tmp_path, ("a", "b"), model={"path": "./nowhere"})
    console = Console(file=io.StringIO(), width=160)
    with pytest.raises(UserError, match=r"2 of 2 studies cannot work.*\nwords\.a: .*\nwords\.b: "):
        check_files([path], console)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="at least one a study"):
        check_files([write_campaign(tmp_path, ("a", "b"), budget={"trials": 1})], console)
