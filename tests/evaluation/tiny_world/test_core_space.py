"""benchmarks/core_space.py: what its arms search, and searches that go on where they were; scores from a formula."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from qtarget.spaces import Point, TargetSpec, presets


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
        return importlib.import_module("core_space")


@dataclass
class Formula:
    """A world whose best design is a bump at a high learning rate."""

    seed: int = 0
    trained_repeats: list[int] = field(default_factory=list)

    def trained(self, target: TargetSpec, steps: int, learning_rate: float, repeat: int) -> float:
        self.trained_repeats.append(repeat)
        return 0.5 * (target.gamma.kind == "shaping") + 100 * learning_rate - 0.01 * repeat


def test_every_arm_holds_the_core_and_its_own_published_point(script: ModuleType) -> None:
    training = {"learning_rate": script.LEARNING_RATE}
    for arm, (added, _) in script.ADDED.items():
        space = script.space_of(arm)
        assert script.space_of("core").gamma.items() <= space.gamma.items()
        for name in ("sft", "dft", "kd", "hybrid_kd", "target_sft", *([added] if added else [])):
            assert space.parameters(Point(presets.get(name), training)) is not None, f"{name} in {arm}"
        assert added == "" or script.space_of("core").parameters(Point(presets.get(added), training)) is None


def test_a_search_finds_what_is_added_and_goes_on_where_it_was(script: ModuleType, tmp_path: Path) -> None:
    path, place, fresh = tmp_path / "trainings.jsonl", Formula(), Formula()

    def found(arm: str) -> object:
        return script.search(script.Trainings(path), place, fresh, "noisy", arm, 14, 1)

    core, bump = found("core"), found("core + bump")
    assert core.family == "power" and bump.family == "shaping" and bump.fresh > core.fresh + 0.3
    assert bump.fresh == pytest.approx(bump.searched - 0.015)
    assert fresh.trained_repeats == [1, 2, 1, 2] and set(place.trained_repeats) == {0}
    assert len(place.trained_repeats) == 2 * 11 - 5, "three baselines lie outside, five are shared"
    trainings = len(place.trained_repeats)
    whole = path.read_text()
    path.write_text(whole[:-4])  # as a killed call may leave it
    assert [found("core"), found("core + bump")] == [core, bump]
    assert len(place.trained_repeats) == trainings and fresh.trained_repeats == [1, 2, 1, 2, 2]
    assert path.read_text() == whole.rsplit("\n", 2)[0] + "\n" + path.read_text().splitlines()[-1] + "\n"
    lines = script.table([core, bump]).splitlines()
    assert len(lines) == 4 and "| 1 of 1 |" in lines[3] and f"{100 * (bump.fresh - core.fresh):+.1f}" in lines[3]


def test_an_interval_is_that_of_student(script: ModuleType) -> None:
    assert script.interval(script.np.array([1.0, 3.0])) == "+2.0 (-10.7 to +14.7)"
