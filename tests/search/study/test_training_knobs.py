"""Training settings that are searched: those of adapters, and the range of learning rates that adapters want."""

from typing import Any

import pytest
from small_study import small_config

from qtarget.search.study.config_file import parse_study
from qtarget.spaces.errors import UserError
from qtarget.trainers.settings import TrainingSettings

LORA = {"rank": 8, "alpha": 16}


def training(**changes: Any) -> dict[str, Any]:
    return {**small_config()["training"], **changes}


def test_adapters_are_searched_at_ten_times_the_learning_rate() -> None:
    def rates(**changes: Any) -> tuple[float, float]:
        read = {key: value for key, value in small_config(**changes).items() if key != "space"}
        rule = parse_study(read).space.training["learning_rate"]
        return rule.low, rule.high  # type: ignore[union-attr]

    full, adapters = rates(), rates(training=training(lora=LORA))
    assert adapters == pytest.approx((10 * full[0], 10 * full[1]))
    given = small_config(training=training(lora=LORA))
    assert parse_study(given).space.training["learning_rate"].low == 0.003, "what is given stays"  # type: ignore[union-attr]


def test_settings_of_adapters_are_knobs() -> None:
    knobs = {"lora.rank": {"options": [4, 16]}, "lora.dropout": [0.0, 0.2], "warmup_fraction": [0.0, 0.3]}
    config = parse_study(small_config(training=training(lora=LORA), space={"training": knobs}))
    settings = config.training.with_knobs({"lora.rank": 4.0, "lora.dropout": 0.1, "warmup_fraction": 0.2})
    assert settings.lora is not None and (settings.lora.rank, settings.lora.alpha) == (4, 16)
    assert (settings.lora.dropout, settings.warmup_fraction) == (0.1, 0.2)
    assert config.training.knob("lora.rank") == 8 and config.training.knob("learning_rate") == 0.01
    assert TrainingSettings().knob("lora.rank") is None


@pytest.mark.parametrize(
    ("lora", "knobs", "message"),
    [
        (None, {"lora.rank": {"options": [4, 8]}}, "is a setting of adapters, but `training.lora` is none"),
        (LORA, {"lora.rank": [4, 8]}, "takes whole numbers"),
        (LORA, {"lora.dropout": [0.5, 1.5]}, "must only hold what training takes, but got 1.5"),
        (LORA, {"lora.width": [1, 2]}, "must name training settings, but got lora.width"),
    ],
)
def test_impossible_knobs_are_refused(lora: Any, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_study(small_config(training=training(lora=lora), space={"training": knobs}))
