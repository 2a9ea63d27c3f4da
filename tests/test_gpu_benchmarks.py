"""The GPU's benchmarks at tiny sizes, without one: cut off at any moment, whole afterwards, nothing done twice."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from imports import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu" / "run_all.sh"
PARTS = "abcfe"
PATIENCE = 280.0
"""Seconds until a first result at most; only a hang comes near."""


def module(name: str) -> ModuleType:
    """A file of benchmarks/gpu that needs none of the others."""
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", SCRIPT.parent / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def start(results: Path, parts: str = PARTS, seconds: int = 900) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "SECONDS_ALLOWED": str(seconds),
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    pipe = subprocess.PIPE
    command = [str(SCRIPT), str(results), "--tiny", "--parts", parts]
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def measured(results: Path) -> dict[str, dict[str, Any]]:
    """Every result that is there; each must be whole."""
    aside = {"all.json", "machine.json"}
    return {path.stem: json.loads(path.read_text()) for path in results.glob("*.json") if path.name not in aside}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    first = start(tmp_path)
    deadline = time.monotonic() + PATIENCE
    while not measured(tmp_path) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = measured(tmp_path)
    assert before and all(row["state"] == "done" for row in before.values()), before

    second = start(tmp_path)
    said, errors = second.communicate()
    assert second.returncode == 0, errors
    after = measured(tmp_path)
    assert len(after) > len(before) and {name: after[name] for name in before} == before
    assert {row["state"] for row in after.values()} == {"done"}, {n: r.get("why") for n, r in after.items()}
    assert {name[0] for name in after} == set(PARTS)
    judged = {name: row["values"]["passes"] for name, row in after.items() if "passes" in row["values"]}
    assert judged and all(judged.values()), judged
    assert after["e-equality"]["values"]["equal"]["ours"] == after["e-equality"]["values"]["compared"]
    assert len(json.loads((tmp_path / "all.json").read_text())["measurements"]) == len(after)
    assert "### Loss layer" in said and "f-cache" in said
    assert not any(f" {name}: " in said for name in before), "what is done is not begun again"


def test_without_time_nothing_is_begun_and_the_folder_says_so(tmp_path: Path) -> None:
    run = start(tmp_path, seconds=3)
    _, errors = run.communicate()
    assert measured(tmp_path) == {} and "cannot be read" in errors


def test_what_ends_the_process_is_failed_once_and_tried_again_by_the_next_call(tmp_path: Path) -> None:
    record = module("record")
    results = record.Results(tmp_path, "one", "tiny")
    results.done("a", 1.0, {"x": 1})
    results.begin("b")  # and here the process ends
    again = record.Results(tmp_path, "one", "tiny")
    assert again.settled("a") and again.settled("b") and "the process ended" in measured(tmp_path)["b"]["why"]
    later = record.Results(tmp_path, "two", "tiny")
    assert later.settled("a") and not later.settled("b")
    assert later.values("a") == {"x": 1} and later.values("b") is None


def test_a_folder_of_which_one_file_was_kept_is_whole_again(tmp_path: Path) -> None:
    record = module("record")
    record.Results(tmp_path / "here", "one", "tiny").done("a", 1.0, {"x": 1})
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "all.json").write_text((tmp_path / "here" / "all.json").read_text())
    moved = record.Results(tmp_path / "there", "two", "tiny")
    assert moved.settled("a") and moved.values("a") == {"x": 1}


def test_one_folder_holds_the_results_of_one_machine(tmp_path: Path) -> None:
    record = module("record")
    record.Results(tmp_path, "one", "tiny")
    with pytest.raises(record.OtherMachine, match="another sizes; name another folder"):
        record.Results(tmp_path, "two", "full")


GPU = {"device": "NVIDIA H200", "torch": "2.11.0", "sizes": "full", "memory_gib": 139.8}
RATIO = {"G1 soft / three matrix products": {"medians": 1.5, "rule": "<=", "limit": 1.45}}


def test_a_goal_that_is_missed_is_said_to_be(tmp_path: Path) -> None:
    table = module("table")
    rows = [
        {"name": "b-soft", "state": "done", "values": {"ratios": RATIO, "not_run": {"liger_jsd": "ImportError: no"}}},
        {"name": "c-full", "state": "skipped", "why": "takes about 12 s"},
    ]
    text = "\n".join(table.lines({"machine": GPU, "measurements": rows}))
    assert "| G1 soft / three matrix products (soft) | 1.50 | <= 1.45 | missed |" in text
    assert "| b-soft: liger_jsd | ImportError: no |" in text and "| c-full | skipped: takes about 12 s |" in text


def test_the_document_has_a_place_that_results_fill(tmp_path: Path) -> None:
    table, document = module("table"), (ROOT / "docs" / "performance.md").read_text("utf-8")
    once = table.put(document, "results of a card", Path("docs/performance.md"))
    twice = table.put(once, "results of another", Path("docs/performance.md"))
    assert "results of a card" in once and "results of a card" not in twice and "results of another" in twice
    assert twice.partition(table.BEGIN)[0] == document.partition(table.BEGIN)[0]
    with pytest.raises(SystemExit, match="must hold the lines"):
        table.put("no marks", "text", Path("other.md"))
