"""Studies for these tests: real storage and processes, engines that need no model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_study import Recorder
from small_study import small_config

from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def scripted_study(tmp_path: Path) -> Callable[..., StudyConfig]:
    """Builds a study whose engine follows `script`; `changes` replace top-level keys of the small study."""

    def build(script: dict[str, Any] | None = None, **changes: Any) -> StudyConfig:
        config = parse_study(small_config(**changes) | {"base": str(tmp_path)})
        config.study_folder.mkdir(parents=True, exist_ok=True)
        (config.study_folder / "script.json").write_text(json.dumps(script or {}))
        return config

    return build
