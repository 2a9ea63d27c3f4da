"""Every fault in a study file is told with its path, the rule, the value and the remedy."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_study import small_config, write_small_study

from qtarget.search.loop.plan import first_slots
from qtarget.search.study.config_file import load_evaluation, load_study, parse_study, read_folder, write_folder
from qtarget.search.study.parts import shortness
from qtarget.spaces.errors import UserError


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small study with the value at a dotted path replaced or added."""
    config: Any = small_config()
    *parents, leaf = path.split(".")
    below = config
    for part in parents:
        below = below[int(part)] if part.isdigit() else below.setdefault(part, {})
    below[int(leaf) if leaf.isdigit() else leaf] = value
    return dict(config)


@pytest.mark.parametrize(
    ("path", "value", "field", "said"),
    [
        ("modle", {"path": "x"}, "modle", ["`modle`", "did you mean `model`"]),
        ("training.step", 5, "training.step", ["`training.step`", "did you mean `steps`"]),
        ("evaluation.tasks.0.knid", "math", "evaluation.tasks[0].knid", ["`evaluation.tasks[0].knid`", "`kind`"]),
        ("evaluation.tasks.0.kind", "maths", "evaluation.tasks[0].kind", ["'maths'", "'math'", "must be"]),
        ("training.steps", 0, "training.steps", ["`training.steps`", "greater than or equal to 1", "got 0"]),
        ("training.micro_batch", 3, "training", ["multiple of `micro_batch`", "8 and 3", "divides"]),
        ("search.sampler", "grid", "search.sampler", ["'grid'", "'tpe'"]),
        ("search.rungs", [0.5, -1], "search.rungs[1]", ["`search.rungs[1]`", "greater than 0", "-1"]),
        ("study", "a/b", "study", ["`study`", "'a/b'"]),
        ("baselines", ["sfft"], "baselines[0]", ["`baselines[0]`", "sfft", "sft"]),
        (
            "baselines",
            ["sft", {"preset": "asft", "knobs": {"lam": -1}}],
            "baselines[1]",
            ["`baselines[1]`", "lam", "-1"],
        ),
        ("baselines", [{"preset": "sft", "training": {"lr": 1}}], "baselines[0].training", ["lr", "learning_rate"]),
        ("space", {"gamma": {"pwoer": {}}}, "space.gamma", ["`space.gamma", "pwoer", "power"]),
        ("space", {"training": {"lr": [1e-5, 1e-3]}}, "space.training", ["lr", "learning_rate"]),
        ("space", {"gamma": {"power": {"exponent": [0.1, -2]}}}, "space.gamma", ["0.1", "-2"]),
        (
            "space",
            {"gamma": {"power": {"exponent": [1, 2, 3]}}},
            "space.gamma",
            ["`space.gamma.power.exponent`", "[1, 2, 3]"],
        ),
        ("space.training.learning_rate", [1, "y"], "space.training.learning_rate", ["`high` must be a valid number"]),
        ("space.training.learning_rate", [1e-5, 1e-2, "LOG"], "space.training.learning_rate", ["[1e-05, 0.01, log]"]),
        ("space.training.learning_rate", {"options": [-1]}, "space.training.learning_rate", ["-1", "greater than 0"]),
        (
            "space.training.effective_batch",
            [8, 64],
            "space.training.effective_batch",
            ["whole numbers", "{options: [8, 64]}"],
        ),
        ("space.training.effective_batch", {"options": [17]}, "space.training.effective_batch", ["multiple of", "17"]),
        ("baselines", [5], "baselines[0]", ["`baselines[0]` must be a valid string or a valid dictionary, but got 5"]),
        ("baselines", [{"preset": "sft", "knobs": 3}], "baselines[0].knobs", ["must be a valid dictionary"]),
        (
            "training.lora",
            {"target_modules": 5},
            "training.lora.target_modules",
            ["must be `all-linear`, a list of names or a regular expression, but got 5"],
        ),
        (
            "evaluation.tasks.0.choices_column",
            5,
            "evaluation.tasks[0].choices_column",
            ["must be a valid string or a valid list"],
        ),
        ("evaluation.tasks.0.template", {"question": None}, "evaluation.tasks[0].template", ["'{question}'", "quote"]),
        ("warm_start", [5], "warm_start[0]", ["`warm_start[0]` must be a valid string"]),
        ("model", "m", "model", ["`model` must be a valid dictionary"]),
        ("study", "..", "study", ["more than dots", "'..'"]),
        ("full_steps", 1, "full_steps", ["at least `training.steps`", "leave `training.steps` out"]),
        ("full_steps", 2.5, "full_steps", ["`full_steps` must be", "2.5"]),
        ("study", "x" * 300, "study", ["at most 200 bytes", "300"]),
        ("study", "ü" * 120, "study", ["at most 200 bytes", "240"]),
        ("study", {"X": None}, "study", ["must be a valid string", "'{X}'"]),
    ],
)
def test_a_fault_names_path_rule_value_and_remedy(path: str, value: Any, field: str, said: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        parse_study(changed(path, value))
    assert raised.value.field == field
    for words in said:
        assert words in str(raised.value)
    lines = str(raised.value).splitlines()
    assert len(lines) == 1, "a fault is told once, whatever forms a value may have"
    assert not re.search(
        r"function-|\w\[\w+, |instance of|literal\[|`[\w.\[\]]*\.(str|float|int|Range|tuple)\b", lines[0]
    )


def test_all_faults_are_listed_at_once() -> None:
    config = changed("training.steps", 0) | {"modle": 1, "study": ""}
    with pytest.raises(UserError) as raised:
        parse_study(config)
    assert all(part in str(raised.value) for part in ("`training.steps`", "`modle`", "`study`"))


@pytest.mark.parametrize("missing", ["study", "model", "data", "evaluation"])
def test_a_missing_section_is_named(missing: str) -> None:
    config = small_config()
    del config[missing]
    with pytest.raises(UserError, match=f"`{missing}` must be given; add it"):
        parse_study(config)


@pytest.mark.parametrize("baseline", ["kd", "target_sft", "hybrid_kd"])
def test_a_baseline_that_needs_a_teacher_is_refused_without_one(baseline: str) -> None:
    config = small_config(baselines=["sft", baseline], teacher=None)
    with pytest.raises(UserError, match=r"`baselines\[1\]`.*needs a teacher: add `teacher"):
        parse_study(config)


def test_a_space_that_needs_a_teacher_is_refused_without_one() -> None:
    config = small_config(teacher=None, space={"residual": {"teacher": {}}})
    with pytest.raises(UserError, match="`space` must need only what the study has, but needs a teacher"):
        parse_study(config)


def test_space_and_baselines_follow_the_inputs_when_not_given() -> None:
    config = small_config()
    del config["baselines"]
    with_teacher, without = parse_study(config), parse_study(config | {"teacher": None})
    assert "teacher" in with_teacher.needs
    assert "teacher" not in without.needs
    named = {baseline.preset for baseline in without.baseline_settings()}
    assert {"sft", "dft", "asft"} <= named and not named & {"kd", "target_sft"}
    assert {"kd", "target_sft"} <= {baseline.preset for baseline in with_teacher.baseline_settings()}


def test_a_named_space_shrinks_to_the_inputs_unless_a_part_is_asked_for() -> None:
    lean = parse_study(small_config(teacher=None, space="everything"))
    assert "teacher" not in lean.needs and "critical" not in lean.space.gamma and "label_penalty" in lean.space.gamma
    full = parse_study(
        small_config(space={"preset": "everything", "training": {"learning_rate": [0.003, 0.03, "log"]}})
    )
    assert full.needs_rows == {"teacher", "reference", "previous"}
    with pytest.raises(UserError, match="`space` must need only what the study has, but needs marked spans"):
        parse_study(small_config(space={"preset": "everything", "gamma": {"critical": {}}, "weight": {"unit": {}}}))


def test_families_of_a_named_space_start_at_published_points_in_half_of_the_trials() -> None:
    space = {"preset": "everything", "training": {"learning_rate": [0.003, 0.03, "log"]}}
    config = parse_study(small_config(space=space, search={"trials": 200}))
    slots = first_slots(config)
    assert [slot.attributes.get("baseline") for slot in slots[:3]] == ["sft", "dft", None]
    starts = [slot for slot in slots[2:] if slot.parameters]
    assert len(starts) == len(config.space.starts(config.inputs)) - 2
    assert all(slot.parameters and "baseline" not in slot.attributes for slot in starts)
    assert "asft_k3" in {slot.attributes["title"] for slot in starts}
    few = parse_study(small_config(space=space, search={"trials": 10}))
    assert sum("title" in slot.attributes for slot in first_slots(few)) == 4, "the sampler has the other half"
    core = first_slots(parse_study(small_config(search={"trials": 200})))
    assert not any("title" in slot.attributes for slot in core)


def test_a_column_of_the_reference_spares_the_model_where_it_is_enough() -> None:
    column = {"path": "train.jsonl", "reference_logprob_column": "r"}
    cheap = {"gamma": {"label_penalty": {}}, "residual": {"student": {}}, "training": {"learning_rate": 0.01}}
    config = parse_study(small_config(data=column, space=cheap))
    assert config.needs == {"reference"} and not config.needs_rows and config.in_data == {"reference"}
    assert not parse_study(small_config(space=cheap)).in_data
    more = parse_study(small_config(data=column, space=cheap, baselines=["sft", "asft"]))
    assert more.needs_rows == {"reference"} and not more.in_data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study: [", "must be YAML"),
        ("study: a\nstudy: b\n", "`study` is given twice"),
        ("- a\n- b\n", "must hold `study`"),
        ("!!python/object/apply:os.system ['true']", "must be YAML"),
        ("", "must hold `study`"),
        ("study: {{ X }}\n", r"`{{ X }}` without quotes is no text; quote it"),
        ("study: a\nmodel: {path: {{ model.path }}}\n", r"`{{ model.path }}` without quotes"),
        ("? [a, b]\n: c\n", "a key is a list"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_study(tmp_path / "study.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is none at .*nowhere\.yaml"):
        load_study(tmp_path / "nowhere.yaml")


def test_the_folder_lies_beside_the_file_wherever_the_command_is_called(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "study.yaml").write_text(yaml.safe_dump(small_config()))
    monkeypatch.chdir(tmp_path)
    from_above = load_study("a/study.yaml")
    monkeypatch.chdir(tmp_path / "a")
    assert load_study("study.yaml") == from_above
    assert from_above.study_folder == tmp_path / "a" / "runs" / "small"


def test_the_folder_keeps_the_configuration_for_its_owner(tmp_path: Path) -> None:
    config = parse_study(small_config(base=str(tmp_path), storage="postgresql://me:secret@host/db"))
    write_folder(config)
    assert read_folder(config.study_folder) == config
    assert (config.study_folder / "study.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("task", [{"source": "lm_eval", "path": "gsm8k"}, {"source": "gym", "path": "gsm_symbolic"}])
def test_tasks_of_other_libraries_come_back_from_the_folder_as_they_were(task: dict[str, str], tmp_path: Path) -> None:
    evaluation = {"tasks": [task], "problems": 8, "retention": {"tasks": [task], "problems": 8}}
    config = parse_study(small_config(base=str(tmp_path), evaluation=evaluation))
    write_folder(config)
    assert read_folder(config.study_folder) == config


def test_base_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small_study(tmp_path / "studies", base="..")
    monkeypatch.chdir("/")
    assert load_study(path).base_folder == tmp_path.resolve()
    settings, base = load_evaluation(path)
    assert base == tmp_path.resolve() and settings == load_study(path).evaluation


@pytest.mark.parametrize(
    ("full", "training", "confirmation", "steps", "longer"),
    [
        (1800, {}, {}, 600, 2.0),  # a third
        (1800, {"steps": 200}, {}, 200, 3.0),  # longer runs of a third
        (1800, {"steps": 800}, {}, 800, 2.0),
        (1800, {"steps": 1500}, {}, 1500, 1.2),
        (1800, {"steps": 1800}, {}, 1800, None),
        (1800, {}, {"longer": 3.0}, 600, 3.0),
        (4, {}, {}, 1, 2.0),
        (None, {}, {}, 100, 2.0),
    ],
)
def test_lengths_follow_from_the_full_training(full, training, confirmation, steps: int, longer: float | None) -> None:
    content = {**small_config(), "full_steps": full, "training": training, "confirmation": confirmation}
    config = parse_study(content)
    assert (config.training.steps, config.confirmation.longer) == (steps, pytest.approx(longer))
    assert parse_study(config.model_dump(mode="json")) == config


def test_trials_much_shorter_than_the_full_training_are_doubted() -> None:
    assert shortness(None, 10) is None and shortness(1800, 600) is None and shortness(100, 33) is None
    said = shortness(1800, 200)
    assert said is not None and "200 of 1800 steps" in said and "out for 600" in said
