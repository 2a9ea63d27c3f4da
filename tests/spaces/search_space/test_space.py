"""What may be searched: points and parameters are each other's inverse, published objectives are found, bounds hold."""

from __future__ import annotations

import json
from typing import Any, get_args

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from qtarget.spaces import Point, SearchSpace, presets
from qtarget.spaces.identity import canonical_id
from qtarget.spaces.search_space.choosers import Value
from qtarget.spaces.spec import AnyGamma

COMPACT = SearchSpace()
WIDE = SearchSpace.model_validate(
    {
        "gamma": {
            "power": {"floor": "search", "ceiling": "search"},
            "anchored": {"exponent": [0, 2]},
            "topk_entropy": {"k": [5, 30], "normalizer": 3.0},
            "threshold": {"source": {"options": ["student", "reference"]}},
            "likelihood_ratio": {},
            "critical": {},
        },
        "residual": {
            "student": {},
            "uniform": {},
            "reference": {},
            "geometric": {"temperature": "search", "reference": 0},
            "mixture": {"uniform": [0, 1]},
        },
        "contrast": {"none": {}, "gem": {"coefficient": 1}, "reverse_kl": {}},
        "weight": {"unit": {}, "anchored": {}},
        "training": {"learning_rate": [1e-5, 1e-3, "log"], "weight_decay": 0.1},
    }
)
LISTS = SearchSpace.model_validate(
    {
        "gamma": {"power": {"exponent": {"options": [0, 0.5, "1"]}, "ceiling": "search"}},
        "residual": {"geometric": {"temperature": {"options": [1.0, 2.0]}}},
        "training": {"learning_rate": {"options": ["1e-5", 3e-5, 1e-4]}, "effective_batch": {"options": [16, 32]}},
    }
)
EVERYTHING = SearchSpace.model_validate("everything")
SPACES = {"compact": COMPACT, "wide": WIDE, "lists": LISTS, "everything": EVERYTHING}
ALWAYS = {"reference", "previous", "old_logprobs", "sequence_ids"}
IN_COMPACT = ("sft", "dft", "beyond_log", "kd", "hybrid_kd", "target_sft")


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@settings(max_examples=150)
@given(seed=st.integers(0, 2**63 - 1))
def test_parameters_and_points_are_exact_inverses(space: SearchSpace, seed: int) -> None:
    point = space.sample(seed)
    parameters = space.parameters(point)
    assert parameters is not None
    assert space.point(parameters) == point
    assert space.parameters(space.point(parameters)) == parameters
    assert json.loads(json.dumps(parameters)) == parameters


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_optuna_draws_points_and_stores_their_parameters(space: SearchSpace) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    for _ in range(30):
        trial = study.ask()
        point = space.suggest(_Chooser(trial))
        assert space.parameters(point) == trial.params
        study.tell(trial, 0.0)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_enqueued_parameters_come_back_as_their_point(space: SearchSpace) -> None:
    study = optuna.create_study()
    point = space.sample(11)
    study.enqueue_trial(space.parameters(point) or {})
    assert space.suggest(_Chooser(study.ask())) == point


class _Chooser:
    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def real(self, name: str, low: float, high: float, log: bool = False) -> float:
        return self.trial.suggest_float(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int) -> int:
        return self.trial.suggest_int(name, low, high)

    def choice(self, name: str, options: Any) -> Any:
        return self.trial.suggest_categorical(name, list(options))


@pytest.mark.parametrize("name", presets.names())
def test_the_compact_core_holds_its_published_points_and_no_other(name: str) -> None:
    point = Point(presets.get(name), {"learning_rate": 5e-5})
    parameters = COMPACT.parameters(point)
    assert (parameters is not None) == (name in IN_COMPACT)
    if parameters is not None:
        assert canonical_id(COMPACT.point(parameters).target) == canonical_id(point.target)


@pytest.mark.parametrize(
    ("name", "knobs", "inside"),
    [
        ("hybrid_kd", {"lam": 0.9}, True),
        ("hybrid_kd", {"lam": 1}, True),
        ("target_sft", {"eta": 0}, True),
        ("asft", {"lam": 0}, True),
        ("beyond_log", {"alpha": 2}, True),
        ("beyond_log", {"alpha": 10}, False),
    ],
)
def test_knobs_decide_whether_a_published_point_is_inside(name: str, knobs: dict[str, float], inside: bool) -> None:
    parameters = COMPACT.parameters(Point(presets.get(name, **knobs), {"learning_rate": 5e-5}))
    assert (parameters is not None) == inside


@pytest.mark.parametrize("name", ["sft", "dft", "profit", "iw_sft", "cft", "sft_kl", "asft", "gem", "kd"])
def test_the_wide_space_holds_its_published_points(name: str) -> None:
    spec = presets.get(name)
    parameters = WIDE.parameters(Point(spec, {"learning_rate": 5e-5, "weight_decay": 0.1}))
    assert parameters is not None
    assert canonical_id(WIDE.point(parameters).target) == canonical_id(spec)


def test_a_fixed_knob_at_another_value_keeps_a_published_point_out() -> None:
    point = Point(presets.get("eaft"), {"learning_rate": 5e-5, "weight_decay": 0.1})
    assert WIDE.parameters(point) is None  # its normaliser is fixed at 3


def test_the_compact_core_is_compact() -> None:
    size = COMPACT.size()
    assert size.dimensions <= 7 and size.combinations == 1
    assert COMPACT.needs == {"reference", "teacher"} and COMPACT.training_knobs == ("learning_rate",)


def test_size_counts_families_integers_and_options() -> None:
    space = SearchSpace.model_validate(
        {
            "gamma": {"topk_entropy": {"k": [5, 9], "exponent": 1}, "threshold": {"low": 0.1, "source": OPTIONS}},
            "residual": {"student": {}},
            "training": {},
        }
    )
    assert space.size() == (2, 2, 5 + 2)


OPTIONS = {"options": ["student", "reference"]}


def test_a_list_of_values_is_drawn_from_and_counted() -> None:
    points = [LISTS.sample(seed) for seed in range(60)]
    assert {point.training["learning_rate"] for point in points} == {1e-5, 3e-5, 1e-4}
    assert {point.training["effective_batch"] for point in points} == {16, 32}
    assert {point.target.gamma.exponent for point in points} == {0, 0.5, 1}  # type: ignore[union-attr]
    assert LISTS.size().points == 3 * 10 * 2 * LEVELS_OF_SHARES * 3 * 2
    sft = Point(presets.get("sft"), {"learning_rate": 3e-5, "effective_batch": 32})
    assert (LISTS.parameters(sft) or {})["training.learning_rate"] == 3e-5
    assert LISTS.parameters(Point(sft.target, {**sft.training, "learning_rate": 4e-5})) is None


LEVELS_OF_SHARES = 10 * 10
"""Of teacher and reference, which the geometric residual searches by default."""


@pytest.mark.parametrize(
    ("parameters", "faults"),
    [
        ({"gamma.power.exponent": 0.5, "training.learning_rate": 3e-5}, []),
        ({"gamma.power.exponent": 0.7}, ["`gamma.power.exponent` must be in 0 | 0.5 | 1, but is 0.7"]),
        ({"gamma.power.ceiling": 1.5}, ["`gamma.power.ceiling` must be in [0, 1], but is 1.5"]),
        ({"learning_rate": 3e-5}, ["`learning_rate` is no parameter of it; known are"]),
        ({"gamma.power.ceiling": "high", "gamma.power.mix": 1}, ["`gamma.power.ceiling`", "`gamma.power.mix`"]),
    ],
)
def test_faults_of_single_parameters_are_named(parameters: dict[str, Value], faults: list[str]) -> None:
    found = LISTS.faults(parameters)
    assert len(found) == len(faults) and all(said in fault for said, fault in zip(faults, found, strict=True))


def test_weight_rules_are_only_drawn_for_their_family() -> None:
    kinds = {(point.target.gamma.kind, point.target.weight.kind) for point in map(WIDE.sample, range(300))}
    assert ("anchored", "anchored") in kinds and ("anchored", "unit") in kinds
    assert all(weight == "unit" for gamma, weight in kinds if gamma != "anchored")


def test_samples_stay_inside_and_differ() -> None:
    points = [COMPACT.sample(seed) for seed in range(200)]
    assert len({canonical_id(point.target) for point in points}) > 190
    rates = [point.training["learning_rate"] for point in points]
    assert 5e-6 <= min(rates) < 8e-6 and 3e-4 < max(rates) <= 5e-4
    assert 60 < sum(rate < 5e-5 for rate in rates) < 140  # half of a log range lies below its middle


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_space_survives_yaml_and_json(space: SearchSpace) -> None:
    assert SearchSpace.model_validate(yaml.safe_load(yaml.safe_dump(space.model_dump(mode="json")))) == space
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space


def test_a_space_prints_itself() -> None:
    text = str(WIDE)
    assert "gamma.power.exponent" in text and "gamma = power" in text and "[1e-05, 0.001]" in text
    assert {"parameter", "range", "scale", "when"} == set(WIDE.table()[0])
    assert json.dumps(WIDE.table())


@pytest.mark.parametrize("available", [set(), {"reference"}, {"teacher"}, {"reference", "teacher", "sequence_ids"}])
def test_a_space_shrinks_to_the_inputs_that_are_there(available: set[str]) -> None:
    for space in (COMPACT, WIDE):
        smaller = space.for_inputs(available)
        assert smaller.needs <= available
        assert all(smaller.sample(seed).target.needs <= available for seed in range(40))


def test_a_space_that_needs_what_is_missing_is_refused() -> None:
    space = SearchSpace.model_validate({"residual": {"teacher": {}}})
    with pytest.raises(ValueError, match="no family of `residual` is left"):
        space.for_inputs({"reference"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gamma": {"powr": {}}}, "`gamma.powr` is no family; known are constant, power"),
        ({"gamma": {"power": {"alpha": 1}}}, "`gamma.power.alpha` is no knob"),
        ({"gamma": {"power": [0, 1]}}, "`gamma.power` must map knobs to values"),
        ({"gamma": {}}, "at least 1 item"),
        ({"gamma": {"constant": {"value": [0, 1.5]}}}, r"`gamma.constant.value` must lie inside its validity, .* 1.5"),
        ({"gamma": {"constant": {"value": 2}}}, "`gamma.constant.value` must lie inside its validity"),
        ({"gamma": {"power": {"exponent": [2, 1]}}}, "`low` must be below `high`"),
        ({"gamma": {"power": {"exponent": [0, 1, "log"]}}}, "`low` must be above 0 on a log scale"),
        ({"gamma": {"power": {"exponent": [-1, 1]}}}, "at {'exponent': -1.0}: a negative `exponent` needs a `ceiling`"),
        ({"gamma": {"threshold": {"low": [0.1, 0.5], "high": [0.4, 0.6]}}}, "`low` must be below `high`"),
        ({"gamma": {"power": {"mix": "search"}}}, "`gamma.power.mix` declares no search range"),
        ({"gamma": {"threshold": {"source": {"options": ["student", "oracle"]}}}}, "`gamma.threshold.source`"),
        ({"weight": {"anchored": {}}}, "needs the γ family `anchored`"),
        ({"training": {"learning_rate": [0, 1, "log"]}}, "above 0 on a log scale"),
        ({"gama": {}}, "gama"),
        ({"gamma": {"power": {"exponent": [0.1, 0.2, 0.3]}}}, r"`gamma.power.exponent`.*{options: \[0.1, 0.2, 0.3\]}"),
        ({"gamma": {"power": {"exponent": "loguniform"}}}, r"'loguniform'.*\[low, high, log\], `search` or {options"),
        ({"gamma": {"power": {"exponent": {"options": [1, 1.0]}}}}, "must be different values"),
        ({"training": {"learning_rate": [0.001, 0.003, 0.01]}}, r"{options: \[0.001, 0.003, 0.01\]}"),
        ({"training": {"learning_rate": [1e-5, 1e-2, "LOG"]}}, r"'LOG'\]; a logarithmic range is \[1e-05, 0.01, log\]"),
        ({"training": {"learning_rate": [1e-5, 1e-2, "loguniform"]}}, r"is \[1e-05, 0.01, log\]"),
        ({"training": {"learning_rate": [1e-5, 1e-2, True]}}, r"is \[1e-05, 0.01, log\]"),
        ({"training": {"learning_rate": [1e-5]}}, r"{options: \[1e-05\]}"),
        ({"training": {"learning_rate": "search"}}, r"must be a number, \[low, high\], \[low, high, log\] or {options"),
        ({"training": {"learning_rate": {"options": [1e-5, "high"]}}}, "must be a number"),
    ],
)
def test_bad_spaces_are_refused_with_their_path(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchSpace.model_validate(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma.power.exponent": 3.0}, r"`gamma.power.exponent` must be in \[0, 2\], but got 3.0"),
        ({"gamma.power.exponent": "high"}, "`gamma.power.exponent` must be in"),
        ({"gamma.power.exponent": None}, "`gamma.power.exponent` is missing"),
    ],
)
def test_parameters_outside_the_space_are_refused(change: dict[str, Any], message: str) -> None:
    parameters: dict[str, Value] = (COMPACT.parameters(COMPACT.sample(1)) or {}) | change
    with pytest.raises(ValueError, match=message):
        COMPACT.point({name: value for name, value in parameters.items() if value is not None})


@pytest.mark.parametrize(
    "training", [{}, {"learning_rate": 1.0}, {"learning_rate": 5e-5, "weight_decay": 0.1}, {"warmup": 5e-5}]
)
def test_training_knobs_outside_the_space_have_no_parameters(training: dict[str, float]) -> None:
    assert COMPACT.parameters(Point(presets.get("sft"), training)) is None


def test_everything_is_every_family_and_holds_what_was_published() -> None:
    assert set(EVERYTHING.gamma) == {family.model_fields["kind"].default for family in get_args(AnyGamma)}
    outside = {name for name in presets.names() if not EVERYTHING.holds(presets.get(name))}
    # per kept token, with a scale of its own, or with a previous policy of its own
    assert outside == {"sft_topk", "stm", "kd_tempered", "curiosft"}


def test_each_family_of_everything_starts_at_its_published_point() -> None:
    found = EVERYTHING.starts(EVERYTHING.needs)
    named = {presets.get(name).gamma.kind for name in presets.names() if EVERYTHING.holds(presets.get(name))}
    assert {target.gamma.kind for target in found.values()} == named
    assert all(target == presets.get(name) for name, target in found.items())
    assert "dft" in found and "beyond_log" not in found, "one a family: that of the two which is listed first"
    without = EVERYTHING.for_inputs(ALWAYS)
    assert without.starts(ALWAYS).keys() == found.keys() - {"cft", "kd", "target_sft"}
    assert not COMPACT.starts(COMPACT.needs)


def test_a_named_space_takes_parts_of_its_own_and_survives_a_file() -> None:
    given = {"preset": "everything", "contrast": {"none": {}}, "training": {"learning_rate": 1e-4}}
    space = SearchSpace.model_validate(given)
    assert space.gamma == EVERYTHING.gamma and set(space.contrast) == {"none"}
    assert space.asked == {"contrast", "training"} and not EVERYTHING.asked
    assert SearchSpace.model_validate(space.model_dump(mode="json")) == space
    assert SearchSpace.model_validate(yaml.safe_load(yaml.safe_dump(EVERYTHING.model_dump(mode="json")))) == EVERYTHING
    assert "preset" not in COMPACT.model_dump()
    with pytest.raises(ValidationError, match="'everything'"):
        SearchSpace.model_validate("anything")


def test_spaces_say_of_whom_they_see_more_than_the_label() -> None:
    anchor = {
        "gamma": {"label_penalty": {"source": {"options": ["reference", "teacher"]}}},
        "residual": {"student": {}},
    }
    space = SearchSpace.model_validate(anchor)
    assert space.needs == {"reference", "teacher"} and space.needs_rows == set()
    assert COMPACT.needs_rows == COMPACT.needs == {"teacher", "reference"}
    assert SearchSpace.model_validate(anchor | {"contrast": {"plateau": {}}}).needs_rows == {"reference"}
