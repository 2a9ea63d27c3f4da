"""The table of published objectives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qtarget.spaces import TargetSpec, presets

DESIGNED = [
    "sft",
    "dft",
    "beyond_log",
    "profit",
    "eaft",
    "iw_sft",
    "cft",
    "label_smoothing",
    "sft_kl",
    "asft",
    "psft",
    "gem",
    "gem_logsigmoid",
    "kd",
    "hybrid_kd",
    "target_sft",
    "gift",
    "prift",
    "deft",
    "idft",
    "talr",
    "chord_phi",
    "focal",
]


def test_every_designed_preset_is_there() -> None:
    assert set(DESIGNED) <= set(presets.names())


def test_table_is_json_with_one_row_a_preset() -> None:
    rows = json.loads(json.dumps(presets.table()))
    assert [row["name"] for row in rows] == presets.names()
    for row in rows:
        assert all(row[column] for column in ("title", "gamma", "residual", "weight", "loss", "source"))
        assert presets.get(row["name"], **row["knobs"]) == presets.get(row["name"])
        assert set(row["needs"]) == presets.get(row["name"]).needs


def test_knobs_reach_the_design() -> None:
    assert presets.get("asft", lam=0.05).gamma.model_dump()["lam"] == 0.05
    assert presets.get("eaft", k=10).gamma.model_dump()["k"] == 10
    assert presets.get("hybrid_kd", lam=0.3).gamma.model_dump()["value"] == 0.7


@pytest.mark.parametrize("name", presets.names())
def test_presets_round_trip_and_are_valid_at_the_ends_of_their_knobs(name: str) -> None:
    knobs = presets.PRESETS[name].knobs
    for end in ("low", "default", "high"):
        spec = presets.get(name, **{knob: getattr(rule, end) for knob, rule in knobs.items()})
        assert TargetSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("sft2", {}, "unknown preset 'sft2'; known presets: sft, dft"),
        ("sft", {"lam": 1}, "preset 'sft' has no knob 'lam'; its knobs: none"),
        ("asft", {"lambda": 1}, "preset 'asft' has no knob 'lambda'; its knobs: lam"),
        ("asft", {"lam": -0.1}, r"`lam` must be a number in \[0, 1000\], but got lam=-0.1"),
        ("hybrid_kd", {"lam": 1.1}, r"`lam` must be a number in \[0, 1\], but got lam=1.1"),
        ("target_sft", {"eta": float("nan")}, "`eta` must be a number"),
        ("target_sft", {"eta": "half"}, "`eta` must be a number"),
        ("target_sft", {"eta": True}, "`eta` must be a number"),
        ("eaft", {"k": 2.5}, "`k` must be a whole number"),
        ("eaft", {"k": 1}, r"`k` must be a whole number in \[2, 4096\]"),
    ],
)
def test_bad_knobs_are_refused_with_rule_value_and_remedy(name: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        presets.get(name, **knobs)


def test_presets_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        presets.get("sft").denominator = "kept"  # type: ignore[misc]
