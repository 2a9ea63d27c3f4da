"""Small versions of the drills under benchmarks/, on real processes, servers and memory limits."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from postgres import server_binaries
from rich.console import Console
from scripted_study import TESTS, scripted
from small_study import small_config

from qtarget.search.campaign.session import listeners
from qtarget.search.loop.supervisor import run_study
from qtarget.search.study.config_file import write_folder

pytestmark = pytest.mark.slow

RUN = (  # with deliveries as often as there is something to deliver, for kills to meet them
    "import sys; from pathlib import Path; from rich.console import Console; from scripted_study import scripted\n"
    "from qtarget.search.study.config_file import read_folder; from qtarget.search.loop.supervisor import run_study\n"
    "from qtarget.search.campaign.session import listeners; config = read_folder(Path(sys.argv[1]))\n"
    "from qtarget.search.tracking import mlflow; mlflow.MOST_GATHER_SECONDS = 0.1\n"
    "run_study(config, listeners(config, Console(quiet=True)), launch=scripted)"
)


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    path = Path(__file__).parents[3] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_kills_around_tell_and_tracking_change_nothing(scripted_study, monkeypatch) -> None:
    """The real engine's phases are in test_real_study.py."""
    drill = benchmark("crash_drill")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    search = {**small_config()["search"], "trials": 5, "sampler": "random"}
    script = {"all_steps": True, "seconds": 0.4}
    calm, fired = (scripted_study(script, study=name, search=search) for name in ("calm", "fired"))
    run_study(calm, listeners(calm, Console(quiet=True)), launch=scripted)
    write_folder(fired)
    killer = drill.Killer(fired.study_folder, random.Random(1), 3, ("tell", "tracking", "starting"))
    report = drill.drill(calm, fired, killer, [sys.executable, "-c", RUN, str(fired.study_folder)])
    assert report["faults"] == [] and report["kills"] == 3
    assert report["slots"] == 5


@pytest.mark.skipif(server_binaries() is None, reason="no PostgreSQL server is installed")
def test_joiners_are_killed_and_the_server_restarts_and_each_slot_is_done_once(tmp_path: Path) -> None:
    drill = benchmark("many_workers")
    report = drill.run_drill(tmp_path, "postgresql", 18, drill.Drill(3, kills=2, restarts=1, between=1.0, seed=0))
    assert report["faults"] == []
    assert (report["kills"], report["server restarts"]) == (2, 1)


def test_a_trial_without_memory_gets_through_with_smaller_micro_batches(tmp_path: Path, monkeypatch) -> None:
    report = benchmark("oom_drill").run_drill(tmp_path, megabytes=130.0, steps=2)
    assert report["faults"] == []
    assert report["micro-batch"][0] == 64 and report["chain"][0] == "oom"


def test_an_outage_of_the_tracking_server_loses_nothing(tmp_path: Path) -> None:
    assert benchmark("outage_drill").run_drill(tmp_path, trials=4, seconds=0.2)["faults"] == []


def test_claims_are_measured(tmp_path: Path) -> None:
    """Two simulated workers, on whatever database there is."""
    drill = benchmark("claims")
    row = drill.measure(f"sqlite:///{tmp_path}/study.db", workers=2, slots=8, seconds=20.0)
    assert row["workers"] == 2 and row["claims a second"] > 0 and os.path.exists(tmp_path / "study.db")
