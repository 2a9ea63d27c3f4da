"""A backend is checked once a study; what later engines find kept is as good as checking again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import write_small_study

from qtarget.evaluation.generation.backends import PlainBackend
from qtarget.search.engine.inputs import Engine
from qtarget.search.engine.scoring import BACKEND_FILE, Scoring
from qtarget.search.study.config_file import load_study


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(load_study(write_small_study(tmp_path_factory.mktemp("scored"))))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each use of plain generate() answered."""
    found: list[int] = []
    generate = PlainBackend.generate

    def counted(self: PlainBackend, requests: Any, sampling: Any) -> Any:
        found.append(len(requests))
        return generate(self, requests, sampling)

    monkeypatch.setattr(PlainBackend, "generate", counted)
    return found


def prepare(engine: Engine, **evaluation: Any) -> dict[str, Any]:
    """What an engine that starts says of its backend."""
    config = engine._config
    changed = config.model_copy(update={"evaluation": config.evaluation.model_copy(update=evaluation)})
    scoring = Scoring(changed, engine.resident, engine.splits.search, set(), engine.data.style)
    assert scoring.prepare(engine.resident.fresh(), lambda done, total: False)
    return scoring.described_backend()


@pytest.fixture
def folder(engine: Engine) -> Iterator[Path]:
    found = engine._config.study_folder
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.mark.slow
def test_a_second_engine_does_not_ask_again_unless_something_is_different(
    engine: Engine, folder: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(engine)
    assert asked == [4] and not folder.exists(), "without a study's folder nothing is kept"
    folder.mkdir(parents=True)
    first = prepare(engine)
    assert asked == [4, 4] and json.loads((folder / BACKEND_FILE).read_text())["compared"] == 4
    assert prepare(engine) == first and asked == [4, 4]
    with monkeypatch.context() as patch:
        patch.setattr(engine.resident, "fingerprint", "of other weights")
        prepare(engine)
    prepare(engine)
    assert asked == [4] * 4, "other weights are asked, and then the first ones again"
    prepare(engine, temperature=1.0)
    assert asked == [4] * 5
    (folder / BACKEND_FILE).write_text("{half a rec")
    assert prepare(engine) == first and asked == [4] * 6


def test_a_fallback_is_tried_again(
    engine: Engine, folder: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that was not good enough may be so by now, and a warning that is not repeated is overlooked."""
    monkeypatch.setattr("qtarget.evaluation.generation.parity.TOLERANCE", {torch.float32: -1.0})
    folder.mkdir(parents=True)
    assert prepare(engine)["used"] == prepare(engine)["used"] == "plain"
    assert asked == [4, 4]
