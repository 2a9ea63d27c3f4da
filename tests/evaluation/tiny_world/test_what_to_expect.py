"""A small version of benchmarks/what_to_expect.py: worlds, kinds of objectives, a run that goes on where it was."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qtarget.evaluation.tiny_world.world import WorldSettings, build
from qtarget.spaces import presets

TINY = {"width": 16, "layers": 1, "pretraining_steps": 2, "demonstrations": 40, "teacher_steps": 2}
NAMES = ["sft", "cft", "asft_k3", "target_sft"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "what_to_expect.py"
    spec = importlib.util.spec_from_file_location("what_to_expect", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_each_world_changes_one_thing(script: ModuleType) -> None:
    first, *others = (WorldSettings(**changes).model_dump() for changes in script.WORLDS.values())
    changed = [{key for key in other if other[key] != first.get(key)} for other in others]
    assert changed == [{"noise"}, {"familiar"}, {"pretraining_steps"}, {"teacher_score", "teacher_steps"}]


def test_every_preset_has_a_kind(script: ModuleType) -> None:
    kinds = {name: script.group(presets.get(name)) for name in presets.names()}
    assert set(kinds.values()) == set(script.GROUPS)
    assert {kinds[name] for name in ("sft", "label_smoothing", "gem", "focal", "cft")} == {"label first"}
    assert {kinds[name] for name in ("dft", "profit", "talr", "luffy", "chord_phi")} == {"trusts what it believes"}
    assert {kinds[name] for name in ("asft", "sft_k3", "prift", "flow")} == {"anchored to the base"}
    assert {kinds[name] for name in ("kd", "target_sft")} == {"distilled"}


@pytest.mark.slow
def test_a_call_does_what_is_missing_and_shows_what_is_there(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds = {"noisy": TINY, "known format": TINY | {"familiar": 0.5}}
    results = script.run(tmp_path, [0], NAMES, worlds, steps=1, scored=4)
    assert len(results.scores) == 2 * (2 + len(NAMES))
    assert all(score is None or 0 <= score <= 1 for score in results.scores.values())
    path = tmp_path / "results.jsonl"
    *kept, last = path.read_text().splitlines()
    path.write_text("\n".join(kept) + "\n" + last[:-4])  # as a killed call may leave it
    monkeypatch.setattr(script.Place, "trained", lambda *_: 0.75)
    again = script.run(tmp_path, [0], NAMES, worlds, steps=1, scored=4)
    assert again.scores.keys() == results.scores.keys()
    assert [key for key in again.scores if again.scores[key] != results.scores[key]] == [("known format", 0, NAMES[-1])]
    assert all(json.loads(line) for line in path.read_text().splitlines())
    page = tmp_path / "what-to-expect.md"
    page.write_text("before\n" + "an old table\n".join(script.MARKS) + "\nafter\n")
    script.write_page(again, list(worlds), tmp_path)
    assert "| `target_sft` | distilled |" in page.read_text() and "old" not in page.read_text()
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")
    assert (tmp_path / "what-to-expect.png").read_bytes()[1:4] == b"PNG"


def test_what_asks_no_teacher_is_not_trained_again_where_the_teacher_alone_differs(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter(range(100))
    monkeypatch.setattr(script, "_score", lambda *_: next(scores) / 100)
    monkeypatch.setattr(script.Place, "build", lambda *_: None)
    found = script.run(tmp_path, [0], NAMES, {name: {} for name in ("noisy", "clean", "strong teacher")}).scores
    same = {name for name in ("base", "teacher", *NAMES) if found["noisy", 0, name] == found["strong teacher", 0, name]}
    assert same == {"base", "sft", "cft", "asft_k3"} and len(set(found.values())) == 14


def test_a_familiar_format_changes_the_base_alone(tmp_path: Path) -> None:
    for name, familiar in (("new", 0.0), ("known", 0.9)):
        build(tmp_path / name, 0, settings=WorldSettings(**TINY, familiar=familiar))
    same = {
        file: (tmp_path / "new" / file).read_bytes() == (tmp_path / "known" / file).read_bytes()
        for file in ("demonstrations.jsonl", "problems.jsonl", "base/model.safetensors")
    }
    assert same == {"demonstrations.jsonl": True, "problems.jsonl": True, "base/model.safetensors": False}
    kept = json.loads((tmp_path / "new" / "world.json").read_text())["settings"]
    assert "familiar" not in kept, "worlds of before have the same key"
