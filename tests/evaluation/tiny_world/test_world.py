"""The tiny world: sums, splits, noise, tokenizer, and a build small enough for seconds."""

import json
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from qtarget.evaluation.problems.load import Splits, load_problems
from qtarget.evaluation.problems.splits import training_hashes
from qtarget.evaluation.tiny_world.models import character_tokenizer
from qtarget.evaluation.tiny_world.study import study_text
from qtarget.evaluation.tiny_world.sums import (
    corrupt,
    new_solution,
    plain_solution,
    problem_sums,
    question,
    split_of,
    training_sums,
)
from qtarget.evaluation.tiny_world.world import WorldSettings, build, main
from qtarget.evaluation.verification.verify import Verdict, verify
from qtarget.search.study.config import StudyConfig
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.models.load import load_model, load_tokenizer
from qtarget.trainers.settings import ModelSettings

SMALL = WorldSettings(width=16, layers=1, pretraining_steps=3, demonstrations=40, teacher_steps=2)
FILES = ("base/model.safetensors", "teacher/model.safetensors", "demonstrations.jsonl", "problems.jsonl", "study.yaml")

Progress = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Progress]:
    """A small world and the progress of its build."""
    folder = tmp_path_factory.mktemp("world")
    progress: Progress = []
    build(folder, 0, lambda *report: progress.append(report), SMALL)
    return folder, progress


@pytest.fixture(scope="module")
def config(world: tuple[Path, Progress]) -> StudyConfig:
    return StudyConfig.model_validate(yaml.safe_load((world[0] / "study.yaml").read_text()))


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("sum_", [(66, 58), (10, 10), (99, 99), (47, 5 + 30), (12, 80)])
def test_working_is_column_addition(sum_: tuple[int, int]) -> None:
    columns = re.findall(r"(\d)\+(\d)\+(\d)=(\d)(\d)", new_solution(sum_))
    assert [f"{tens}{ones}" for _, _, _, tens, ones in columns] == [
        f"{int(a) + int(b) + int(carry):02d}" for a, b, carry, _, _ in columns
    ]
    assert [a for a, *_ in columns] == list(reversed(str(sum_[0])))
    assert [b for _, b, *_ in columns] == list(reversed(str(sum_[1])))
    assert columns[0][2] == "0" and columns[1][2] == columns[0][3]
    assert columns[1][3] + columns[1][4] + columns[0][4] == f"{sum(sum_):03d}"
    plain = plain_solution(sum_, random.Random(1))
    assert re.sub(r"\D", "", plain) == re.sub(r"\D", "", new_solution(sum_)), "the base knows the same digits"


def test_only_the_new_format_is_scored_as_an_answer() -> None:
    assert verify(new_solution((66, 58)), "124", "exact") is Verdict.CORRECT
    styles = {plain_solution((66, 58), random.Random(seed)) for seed in range(300)}
    assert len(styles) == 27 and not any("#" in style or ">" in style or " " in style for style in styles)
    assert {verify(style, "124", "exact") for style in styles} == {Verdict.WRONG}
    assert verify(new_solution((66, 58)).replace("####124", "####1 24"), "124", "exact") is Verdict.WRONG


def test_splits_are_disjoint_in_unordered_pairs_and_cover_all_sums() -> None:
    training = {tuple(sorted(each)) for each in training_sums()}
    problems = {tuple(sorted(each)) for each in problem_sums()}
    assert len(problems) == len(problem_sums()), "a pair is a problem once"
    assert not training & problems
    assert len(training) + len(problems) == 90 * 91 / 2
    assert 0.15 < len(problems) / (90 * 91 / 2) < 0.25
    assert split_of((17, 25)) == split_of((25, 17))


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_noise_replaces_the_wanted_share_of_digits_and_nothing_else(noise: float) -> None:
    clean = new_solution((66, 58)) * 400
    noisy = corrupt(clean, noise, random.Random(7))
    digits = [(a, b) for a, b in zip(clean, noisy, strict=True) if a.isdigit()]
    assert all(a == b for a, b in zip(clean, noisy, strict=True) if not a.isdigit())
    assert all(b.isdigit() for _, b in digits)
    changed = sum(a != b for a, b in digits) / len(digits)
    assert changed == pytest.approx(0.9 * noise, abs=0.02), "one replacement in ten hits the digit itself"


def test_tokenizer_is_lossless_and_keeps_the_answer_mark_whole(tmp_path: Path) -> None:
    character_tokenizer().save_pretrained(tmp_path)
    tokenizer = load_tokenizer(ModelSettings(path=str(tmp_path)), tmp_path)
    text = new_solution((66, 58))
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text) - 3
    assert tokenizer.decode(ids) == text
    chat = [{"role": "user", "content": "66+58"}, {"role": "assistant", "content": text}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == f"<user>66+58<assistant>{text}<end>"
    assert tokenizer("<end>")["input_ids"] == [tokenizer.eos_token_id]


def test_world_is_complete(world: tuple[Path, Progress]) -> None:
    folder, progress = world
    assert all((folder / name).is_file() for name in (*FILES, "world.json"))
    manifest = json.loads((folder / "world.json").read_text())
    assert manifest["seed"] == 0 and manifest["lessons"].keys() == {"2"}
    assert len(rows(folder / "demonstrations.jsonl")) == SMALL.demonstrations
    for phase, total in (("pretraining", 3), ("teacher", 2)):
        assert [done for name, done, _ in progress if name == phase] == list(range(1, total + 1))
        assert {of for name, _, of in progress if name == phase} == {total}


def test_study_reads_the_world_and_no_problem_is_in_training(world: tuple[Path, Progress], config: StudyConfig) -> None:
    folder, _ = world
    tokenizer = load_tokenizer(config.model, folder)
    data = load_demonstrations(config.data, tokenizer, folder)
    assert (len(data), data.num_too_long) == (SMALL.demonstrations, 0)
    prompts = [row["prompt"] for row in rows(folder / "demonstrations.jsonl")]
    splits: Splits = load_problems(config.evaluation, folder, 0, training_hashes(prompts))
    assert splits.in_training == 0
    assert (len(splits.search), len(splits.report)) == (config.evaluation.problems, config.evaluation.report_problems)
    longest = max(len(tokenizer(new_solution(each))["input_ids"]) for each in problem_sums())
    assert longest < config.evaluation.max_new_tokens


def test_teacher_is_the_base_with_other_weights(world: tuple[Path, Progress], config: StudyConfig) -> None:
    folder, _ = world
    assert config.teacher is not None
    base, teacher = (load_model(settings, folder, "fp32").state_dict() for settings in (config.model, config.teacher))
    assert base.keys() == teacher.keys()
    assert any(not base[name].equal(teacher[name]) for name in base)


def test_study_holds_every_published_baseline_and_sixteen_trials_or_more(config: StudyConfig) -> None:
    names = {baseline.preset for baseline in config.baseline_settings()}
    assert names >= {"sft", "dft", "label_smoothing", "sft_kl", "asft", "kd", "hybrid_kd", "target_sft"}
    assert config.search.trials >= max(16, len(config.baseline_settings()) + 8)


def test_seed_decides_the_study() -> None:
    assert yaml.safe_load(study_text(5))["search"]["seed"] == 5


def test_equal_seeds_give_equal_files(world: tuple[Path, Progress], tmp_path: Path) -> None:
    build(tmp_path, 0, settings=SMALL)
    assert all((tmp_path / name).read_bytes() == (world[0] / name).read_bytes() for name in FILES)


def test_other_seed_gives_another_world_with_the_same_problems(world: tuple[Path, Progress], tmp_path: Path) -> None:
    build(tmp_path, 1, settings=SMALL)
    same = {name for name in FILES if (tmp_path / name).read_bytes() == (world[0] / name).read_bytes()}
    assert same == {"problems.jsonl"}


@pytest.mark.slow
def test_finished_world_is_reused_and_a_torn_one_rebuilt(tmp_path: Path) -> None:
    build(tmp_path, 0, settings=SMALL)
    progress: Progress = []
    build(tmp_path, 0, lambda *report: progress.append(report), SMALL)
    assert progress == []
    kept = (tmp_path / "base/model.safetensors").read_bytes()
    (tmp_path / "world.json").unlink()
    (tmp_path / "base/model.safetensors").write_bytes(b"torn")
    build(tmp_path, 0, lambda *report: progress.append(report), SMALL)
    assert progress and (tmp_path / "base/model.safetensors").read_bytes() == kept


@pytest.mark.slow
@pytest.mark.parametrize("manifest", ["[]", '{"key": "of another world"}'])
def test_foreign_manifest_does_not_count(tmp_path: Path, manifest: str) -> None:
    build(tmp_path, 0, settings=SMALL)
    (tmp_path / "world.json").write_text(manifest)
    progress: Progress = []
    build(tmp_path, 0, lambda *report: progress.append(report), SMALL)
    assert progress


def test_command_prints_progress_as_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--seed", "3", "--settings", SMALL.model_dump_json()]) == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(report.keys() == {"type", "phase", "done", "total"} for report in reports)
    assert all(a["done"] < b["done"] for a, b in pairwise(reports) if a["phase"] == b["phase"])
    assert (tmp_path / "study.yaml").is_file()


def test_noise_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="noise"):
        WorldSettings(noise=1.5)


def test_question_is_the_prompt_of_its_demonstration(world: tuple[Path, Progress]) -> None:
    prompts = {row["prompt"] for row in rows(world[0] / "demonstrations.jsonl")}
    assert prompts <= {question(each) for each in training_sums()}
