"""`qtarget train`: killed and started again it ends the same; Ctrl-C keeps what is done; bad input is named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from rich.console import Console
from small_study import small_config, write_small_study
from transformers import AutoModelForCausalLM

from qtarget.search.commands.train import launcher, train_winner
from qtarget.search.export.files import accelerate_files
from qtarget.search.launchers.helper import MODULE
from qtarget.spaces import presets
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow

CONSOLE = Console(quiet=True)
RUN = {"evaluate_every": 2, "save_every": 2, "keep": 1, "steps": 5}
TRAINING = {"steps": 40, "effective_batch": 8, "micro_batch": 4, "learning_rate": 0.003, "checkpoint_every": 2}


def write_winner(folder: Path, target: str = "target_sft", **changes: Any) -> Path:
    """A winner over the models and data of the small study."""
    write_small_study(folder)
    config = small_config()
    content = {
        "target": presets.get(target).model_dump(mode="json"),
        "training": TRAINING,
        "model": config["model"],
        "teacher": config["teacher"],
        "data": config["data"],
        "evaluation": {**config["evaluation"], "report_problems": 12},
    }
    path = folder / "winner.yaml"
    path.write_text(json.dumps(content | changes))  # JSON is YAML
    return path


def train(winner: Path, out: Path, tracking: str = "none", **changes: Any) -> dict[str, Any]:
    return train_winner(winner, out, CONSOLE, changes=changes, training={}, tracking=tracking)


def test_killed_and_started_again_it_saves_the_same_bytes(tmp_path: Path) -> None:
    winner = write_winner(tmp_path, run={"packing": True}, evaluation=None)
    with start(winner, tmp_path / "straight") as whole:
        assert b'"done"' in whole.stdout.read()
    with start(winner, tmp_path / "killed") as process:
        wait_for(tmp_path / "killed" / "metrics.jsonl", 19, process)
        process.send_signal(signal.SIGKILL)
    with start(winner, tmp_path / "killed") as again:
        assert b'"done"' in again.stdout.read()
    files = [(tmp_path / out / "model" / "model.safetensors").read_bytes() for out in ("straight", "killed")]
    assert files[0] == files[1]
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 41))


def start(winner: Path, out: Path) -> subprocess.Popen[bytes]:
    """The process that `qtarget train` starts; it lives as long as its standard input."""
    request = out.with_name(f"{out.name}.json")
    request.write_text(json.dumps({"winner": str(winner), "out": str(out), "changes": {}}))
    command = [sys.executable, "-m", MODULE, "train", str(request)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)


def wait_for(path: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 250
    while not path.exists() or f'"step": {step},' not in path.read_text():
        assert process.poll() is None and time.monotonic() < deadline, "the run ended too early"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A winner trained by one process for five steps, and what the command returned."""
    folder = tmp_path_factory.mktemp("trained")
    found = train(write_winner(folder), folder / "out", f"sqlite:///{folder}/mlflow.db", run=RUN, seed=5)
    return folder, found


def test_a_run_is_scored_saved_and_tracked(trained) -> None:
    folder, found = trained
    assert (found["status"], found["step"], found["report"]["split"]) == ("finished", 5, "report")
    assert found["report"]["num_problems"] == 12
    assert AutoModelForCausalLM.from_pretrained(found["model"]).config.model_type == "llama"
    scores = (folder / "out" / "scores.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in scores] == [2, 4]
    check_tracking(f"sqlite:///{folder}/mlflow.db", folder / "out")


def check_tracking(uri: str, out: Path) -> None:
    from mlflow import MlflowClient

    run = json.loads((out / "tracking.json").read_text())[uri]
    client = MlflowClient(uri)
    assert [each.step for each in client.get_metric_history(run, "train/loss")] == [1, 2, 3, 4, 5]
    assert [each.step for each in client.get_metric_history(run, "search/score")] == [2, 4]
    assert client.get_run(run).info.status == "FINISHED"
    assert client.get_run(run).data.params["run.save_every"] == "2"


def test_ctrl_c_keeps_what_is_done_and_a_tracking_store_that_is_down_stops_nothing(tmp_path: Path) -> None:
    winner, out = write_winner(tmp_path, training={**TRAINING, "steps": 4000}, evaluation=None), tmp_path / "out"
    command = [sys.executable, "-m", "qtarget", "train", str(winner), "--out", str(out), "--json"]
    command += ["--tracking", "http://127.0.0.1:9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(out / "metrics.jsonl", 5, process)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=250)
    assert process.returncode == 130 and "out of reach" in errors, errors
    found = json.loads(said)
    assert found["status"] == "stopped" and found["step"] >= 5
    assert (out / "checkpoint" / "state.safetensors").exists() and not (out / "model").exists()


def test_options_that_exclude_each_other_are_refused_before_anything_starts(tmp_path: Path) -> None:
    winner = write_winner(tmp_path)
    with pytest.raises(UserError, match="exclude each other"):
        train(winner, tmp_path / "out", run={"steps": 3, "epochs": 2})
    assert not (tmp_path / "out").exists()


def test_several_ranks_and_accelerate_start_the_same_module(tmp_path: Path) -> None:
    assert launcher(1, None) == [sys.executable]
    assert launcher(4, None)[-2:] == ["--nproc_per_node", "4"]
    with pytest.raises(UserError, match="no file"):
        launcher(1, tmp_path / "fsdp.yaml")
    with pytest.raises(UserError, match="give it with `--launch`"):
        launcher(1, None, machine_rank=1)
    (tmp_path / "fsdp.yaml").touch()
    assert launcher(1, tmp_path / "fsdp.yaml", machine_rank=1)[-2:] == ["--machine_rank", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="gloo on the loopback device")
def test_two_ranks_of_which_one_is_killed_go_on_sharded_and_end_where_one_does(trained, monkeypatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    folder, alone = trained
    out, winner, fsdp = folder / "ranks", folder / "winner.yaml", folder / "fsdp.yaml"
    kill_rank_1(winner, out)
    fsdp.write_text(yaml.safe_dump(yaml.safe_load(accelerate_files("fp32")["fsdp_8gpu.yaml"]) | {"num_processes": 2}))
    changes = {"run": RUN, "seed": 5}
    found = train_winner(winner, out, CONSOLE, changes=changes, training={}, launch=fsdp, tracking="none")
    assert (alone["ranks"], found["ranks"]) == (1, 2)
    assert [path.name for path in (out / "checkpoint").iterdir()] == ["step-000005"]
    one, two = (AutoModelForCausalLM.from_pretrained(each["model"]) for each in (alone, found))
    for mine, other in zip(one.parameters(), two.parameters(), strict=True):
        assert (mine - other).abs().max() < 1e-4
    assert abs(alone["report"]["score"] - found["report"]["score"]) < 0.2


def kill_rank_1(winner: Path, out: Path) -> None:
    """`qtarget train` on two replicas, of which one dies after the second step."""
    command = [sys.executable, "-m", "qtarget", "train", str(winner), "--out", str(out), "--ranks", "2"]
    for name, value in (RUN | {"seed": 5}).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--tracking", "none"], stdout=pipe, stderr=pipe, text=True) as process:
        wait_for(out / "metrics.jsonl", 1, process)
        ranks = psutil.Process(process.pid).children(recursive=True)
        doomed = next(each for each in ranks if each.environ().get("RANK") == "1")
        wait_for(out / "metrics.jsonl", 2, process)
        doomed.kill()
        said, errors = process.communicate(timeout=250)
    assert process.returncode == 1 and "goes on from its last checkpoint" in said
    assert "exitcode  : -9" in errors, "who died first, not who noticed"
