"""Weights and log-probabilities that the data bring along, from a study to its export and to the full run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from imports import ROOT
from rich.console import Console
from small_study import small_config, write_small_study

from qtarget.search.engine.helper import Silent
from qtarget.search.engine.train import Training
from qtarget.search.export.write import export_winner
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.config_file import load_study
from qtarget.search.study.trial import TrialSpec, trial_folder
from qtarget.search.study.winner_file import load_winner
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow
CONSOLE = Console(quiet=True)
COLUMNS = {"weight_column": "count", "reference_logprob_column": "known"}
ANCHOR = {"gamma": {"label_penalty": {}}, "residual": {"student": {}}, "training": {"learning_rate": 0.01}}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, Path]:
    """A finished study of anchors at the label, with real models; and its export."""
    folder = tmp_path_factory.mktemp("known")
    small = small_config()
    path = write_small_study(
        folder, teacher=None, space=ANCHOR, baselines=["asft_k3"], tracking={"uri": "none"},
        data={**small["data"], **COLUMNS}, training={**small["training"], "steps": 4, "micro_batch": 4},
        search={**small["search"], "trials": 2, "rungs": []},
    )  # fmt: skip
    bring_along(folder / "train.jsonl")
    assert run_study(load_study(path)).state == "finished"
    export_winner(path, folder / "out", CONSOLE, unconfirmed=True)
    return path, folder / "out"


def bring_along(path: Path, first: float = 3.0) -> None:
    """A weight a token, a row or a span of characters, and log-probabilities, for the letter and its two ends."""
    counts = [[first, 0.5, 1], 2, [[0, 1, 0.25]], 1, [0, 1, 1]]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    known = ({"count": counts[n % 5], "known": [-0.1 * (n % 7), -0.5, -0.25]} for n in range(len(rows)))
    path.write_text("".join(json.dumps(row | more) + "\n" for row, more in zip(rows, known, strict=True)))


def losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def test_study_export_and_full_run_agree(study: tuple[Path, Path], tmp_path: Path) -> None:
    path, out = study
    check = json.loads((out / "check.json").read_text())
    assert check["loss_difference"] < 1e-10 and check["gradient_difference"] < 1e-10
    winner, config = load_winner(out), load_study(path)
    assert winner.target.needs == winner.in_data == {"reference"}
    number = next(each.number for each in load_history(config) if each.target == winner.target)
    training = Training(winner, tmp_path / "run", Silent())
    assert training.resident._frozen is None, "no second model is in memory"
    training.finish()
    assert losses(tmp_path / "run" / "metrics.jsonl") == losses(trial_folder(config.study_folder, number).metrics)


def test_the_trl_script_sees_the_same_columns(study: tuple[Path, Path]) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "export_parity.py"), str(study[1]), "--json", "--steps", "3"]
    done = subprocess.run([*command, "--micro-batch", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["worst_parameter"] < 1e-4 and max(found["gradient_by_step"]) < 1e-2


def test_other_weights_are_other_data(study: tuple[Path, Path], tmp_path: Path) -> None:
    path, _ = study
    before = (path.parent / "train.jsonl").read_text()
    bring_along(path.parent / "train.jsonl", first=2.0)
    try:
        with pytest.raises(UserError, match="must use what the search of 'small' used, but data has fingerprint"):
            export_winner(path, tmp_path / "out", CONSOLE, unconfirmed=True)
    finally:
        (path.parent / "train.jsonl").write_text(before)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_part_of_a_trial(study: tuple[Path, Path], column: str) -> None:
    config = load_study(study[0])
    written = json.loads((trial_folder(config.study_folder, 0).path / "spec.json").read_text())
    spec = TrialSpec.model_validate(written)
    without = spec.model_copy(update={"data": spec.data.model_copy(update={column: None})})
    assert without.id != spec.id
