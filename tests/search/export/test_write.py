"""What `qtarget export` writes, of which design, and what it refuses."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from exported_study import SCORES, export, finished_study, titles, verdict_of
from imports import ROOT
from safetensors.torch import load_file
from small_study import write_small_study

from qtarget.search.export.choice import choose
from qtarget.search.export.files import accelerate_files
from qtarget.search.store.history import load_history
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import load_study
from qtarget.search.study.winner_file import against_search, load_winner
from qtarget.spaces import presets
from qtarget.spaces.errors import UserError
from qtarget.trainers.run_settings import RunSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A study of three baselines with real models and data; its engine is scripted, its scores are SCORES."""
    return finished_study(tmp_path_factory.mktemp("study"), {"scores": SCORES})


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory) -> tuple[StudyConfig, dict[str, Any]]:
    """The study with a confirmation that prefers Target-SFT to the best of the search, and its export."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(finished.parent, folder / "study")
    config = load_study(folder / "study" / finished.name)
    verdict_of(config, {titles(config)[1]: 0.35, titles(config)[2]: 0.9})
    return config, export(folder / "study" / finished.name, folder / "out")


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(finished.parent, tmp_path / "study")
    return tmp_path / "study" / finished.name


def test_the_confirmed_design_is_exported_with_all_its_files(exported) -> None:
    config, found = exported
    folder = Path(found["directory"])
    assert found["confirmed"] and "prefers it to the best of the search, trial 1" in found["note"]
    assert found["check"]["loss"] < 1e-5 and found["check"]["gradient"] < 1e-5
    winner = load_winner(folder)
    assert winner.target == presets.get("target_sft") and winner.training.learning_rate == 0.02
    written = """winner.yaml sft.yaml target_loss.py target_data.py target_model.py target_reading target_trainer.py
    train_trl.py axolotl.yaml target_axolotl.py one_gpu.yaml fsdp_8gpu.yaml MODEL_CARD.md provenance.json check.json"""
    assert set(written.split()) == set(found["files"])
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["confirmation"]["outcome"] == "better than SFT" and provenance["preset"] == "target_sft"
    assert load_winner(folder / "sft.yaml").target == presets.get("sft")
    card = (folder / "MODEL_CARD.md").read_text()
    assert "**The search found nothing better than trial 2: target_sft, a published objective" in card
    check_tracking(config, found["tracking"])


@pytest.fixture
def axolotl_plugin(exported, monkeypatch) -> Iterator[ModuleType]:
    """`target_axolotl.py` of an export; axolotl is not installed: something stands for the three names of it."""
    names = {
        "common.datasets": "TrainDatasetMeta",
        "core.trainers": "AxolotlTrainer",
        "integrations.base": "BasePlugin",
    }
    for path, name in names.items():
        held = (lambda *given: given) if name == "TrainDatasetMeta" else type(name, (), {})
        monkeypatch.setitem(sys.modules, f"axolotl.{path}", SimpleNamespace(**{name: held}))
    folder = Path(exported[1]["directory"])
    monkeypatch.syspath_prepend(shutil.copytree(folder, folder.with_name("edited"), dirs_exist_ok=True))
    yield importlib.import_module("target_axolotl")
    for name in [name for name in sys.modules if name.startswith("target_")]:
        del sys.modules[name]


def test_axolotl_trains_for_as_long_as_winner_yaml_says(axolotl_plugin: ModuleType) -> None:
    file = axolotl_plugin.HERE / "winner.yaml"
    winner = yaml.safe_load(file.read_text())
    batch, default = winner["training"]["effective_batch"], winner["training"]["steps"]

    def steps(run: dict[str, Any], batch_size: int = batch, max_steps: int | None = None) -> tuple[int, int]:
        file.write_text(yaml.safe_dump(winner | {"run": run}))
        cfg = SimpleNamespace(batch_size=batch_size, max_steps=max_steps)
        rows, _, found = axolotl_plugin.TargetPlugin().load_datasets(cfg)
        return len(rows), found

    rows, found = steps({})
    assert (found, steps({"steps": 7})[1], steps({"steps": 7}, max_steps=5)[1]) == (default, 7, 5)
    passes = [steps({"epochs": 2.5})[1], steps({"epochs": 2.5}, batch_size=2 * batch)[1]]
    assert passes == [RunSettings(epochs=2.5).num_steps(default, rows, size) for size in (batch, 2 * batch)]
    assert passes[0] not in (default, passes[1])


def check_tracking(config: StudyConfig, tracked: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{config.study_folder}/mlflow.db")
    assert {each.path for each in client.list_artifacts(tracked["run"], "export")} >= {"export/winner.yaml"}
    version = client.get_model_version_by_alias("small", "confirmed")
    assert version.run_id == tracked["run"] and version.source.endswith("/export")


def test_only_unconfirmed_exports_the_best_of_the_search_and_says_so(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no finished confirmation.*--unconfirmed"):
        export(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    text = yaml.safe_load(study.read_text()) | {"tracking": {"uri": "http://127.0.0.1:9"}, "full_steps": 40}
    study.write_text(yaml.safe_dump(text))
    found = export(study, tmp_path / "out", unconfirmed=True)
    assert load_winner(tmp_path / "out").run.steps == 40
    assert not found["confirmed"] and not found["tracking"]["logged"], "a store that is down never fails the export"
    assert load_winner(tmp_path / "out").target == presets.get("dft")
    assert "**Not confirmed.**" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    with pytest.raises(UserError, match="must be a new or empty folder"):
        export(study, tmp_path / "out", unconfirmed=True)


def test_where_nothing_better_was_confirmed_plain_sft_is_exported_as_such(study: Path, tmp_path: Path) -> None:
    config = load_study(study)
    verdict_of(config, {titles(config)[1]: 0.3, titles(config)[2]: 0.28})
    found = export(study, tmp_path / "out")
    assert (found["title"], found["confirmed"]) == ("sft", False)
    assert found["note"] == "the confirmation found nothing better"
    assert load_winner(tmp_path / "out").target == presets.get("sft")
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())["confirmation"]
    assert provenance["outcome"] == "not distinguishable from SFT" and "effect" not in provenance
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert f"**{provenance['answers'][0]}**" in card and "**The search found nothing better than plain SFT" in card
    assert choose(config, load_history(config), unconfirmed=True).title.startswith("trial 1: ")


@pytest.mark.parametrize("name", ["data", "model", "teacher"])
def test_what_is_not_as_the_search_saw_it_is_not_exported(study: Path, tmp_path: Path, name: str) -> None:
    config = load_study(study)
    verdict_of(config, {titles(config)[2]: 0.9})
    if name == "data":
        rows = (study.parent / "train.jsonl").read_text().splitlines(keepends=True)
        (study.parent / "train.jsonl").write_text("".join(rows[:20]))
    else:
        other = {"model": "teacher", "teacher": "model"}[name]
        shutil.copyfile(study.parent / other / "model.safetensors", study.parent / name / "model.safetensors")
    with pytest.raises(
        UserError, match=f"an export must use what the search of 'small' used, but {name} has fingerprint"
    ):
        export(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_takes_what_the_search_used_and_finds_it_wherever_both_were_moved(
    study: Path, tmp_path: Path
) -> None:
    folder = study.parent / "runs" / "small"
    text = yaml.safe_load(study.read_text())
    study.write_text(yaml.safe_dump({**text, "training": {**text["training"], "steps": 7}}))
    with pytest.raises(UserError, match=r"`training\.steps` is 7, was 8"):
        export(study, study.parent / "out", unconfirmed=True)
    export(folder, study.parent / "out", unconfirmed=True)
    moved = study.parent.rename(tmp_path / "moved")
    winner = load_winner(moved / "out")
    assert winner.training.steps == 8 and winner.base_folder == moved
    card = (moved / "out" / "MODEL_CARD.md").read_text()
    assert "chosen, not confirmed, for runs of 8 steps" in card
    (moved / "out").rename(tmp_path / "elsewhere")
    assert load_winner(tmp_path / "elsewhere").base_folder == study.parent, "where the inputs were then"
    assert against_search(winner, winner.provenance["fingerprints"], "a full run") == []
    chosen = winner.model_copy(update={"data": winner.data.model_copy(update={"path": "more.jsonl"})})
    other = {**winner.provenance["fingerprints"], "data": "other"}
    assert against_search(chosen, other, "a full run") == ["data is not what the search used: winner.yaml says so"]
    with pytest.raises(UserError, match="a full run must use what the search of 'small' used, but data has"):
        against_search(winner, other, "a full run")


def test_a_study_without_a_complete_trial_is_refused(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "failed", {str(number): ["oom"] for number in range(3)})
    with pytest.raises(UserError, match=r"needs a complete trial.*(failed|infeasible)"):
        export(study, tmp_path / "out", unconfirmed=True)


def test_a_study_that_never_ran_is_refused(tmp_path: Path) -> None:
    study = write_small_study(tmp_path / "new")
    with pytest.raises(UserError, match="run it first"):
        export(study, tmp_path / "out", unconfirmed=True)


def test_a_teacher_that_is_gone_is_named(study: Path, tmp_path: Path) -> None:
    config = load_study(study)
    verdict_of(config, {titles(config)[2]: 0.9})
    shutil.rmtree(study.parent / "teacher")
    with pytest.raises(UserError, match=r"`path` must name a .* that can be read, but teacher"):
        export(study, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


@pytest.mark.parametrize(("text", "said"), [("target: {gamma: {kind: nonsense}}", "gamma"), ("- 1\n-", "file")])
def test_a_faulty_winner_file_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "winner.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_winner(tmp_path)


def test_the_trl_script_makes_the_first_steps_of_qtarget_train_without_qtarget(exported) -> None:
    folder = exported[1]["directory"]
    command = [sys.executable, str(ROOT / "benchmarks" / "export_parity.py"), folder, "--json"]
    done = subprocess.run([*command, "--steps", "3", "--micro-batch", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same_names"] and found["parameters"] > 10
    assert found["worst_parameter"] < 1e-4
    assert max(found["gradient_by_step"]) < 1e-2  # AdamW's first steps blow the smallest gradients up


def test_the_exported_loss_works_inside_ddp_and_fsdp(exported) -> None:
    folder = exported[1]["directory"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(ROOT / "tests" / "exported_on_two_ranks.py"), folder]
    environment = os.environ | {"PYTHONPATH": folder}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {"ddp", "fsdp1", "fsdp2", "fsdp2, head alone"} and max(found.values()) < 1e-5


def test_the_trl_script_trains_the_same_weights_on_two_ranks_replicated_and_sharded(exported, tmp_path) -> None:
    folder = Path(exported[1]["directory"])
    copy = tmp_path / "export"
    shutil.copytree(folder, copy)
    winner = yaml.safe_load((copy / "winner.yaml").read_text())
    winner["training"] |= {"micro_batch": 1, "effective_batch": 4}
    winner["run"]["steps"] = 2
    (copy / "winner.yaml").write_text(yaml.safe_dump(winner))
    sharded = yaml.safe_load((copy / "fsdp_8gpu.yaml").read_text()) | {"num_processes": 2}
    (copy / "fsdp.yaml").write_text(yaml.safe_dump(sharded))
    accelerate = ["-m", "accelerate.commands.launch", "--config_file", str(copy / "fsdp.yaml")]
    launches = {
        "one": [],
        "ddp": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
        "fsdp": [*accelerate, "--main_process_port", "0", str(ROOT / "tests" / "fsdp_on_cpu.py")],
    }
    weights = {}
    for name, launch in launches.items():
        script = [str(copy / "train_trl.py"), "--out", str(tmp_path / name)]
        environment = os.environ
        done = subprocess.run([sys.executable, *launch, *script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "FutureWarning" not in done.stderr
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    assert (tmp_path / "fsdp" / "checkpoint-2" / "pytorch_model_fsdp_0").is_dir(), "accelerate has sharded the model"
    for other in ("ddp", "fsdp"):
        assert weights["one"].keys() == weights[other].keys()
        assert max(float((weights["one"][key] - weights[other][key]).abs().max()) for key in weights["one"]) < 3e-6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_accelerate_reads_its_configurations_as_meant(tmp_path, monkeypatch, precision) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    read = {}
    for name, text in accelerate_files(precision).items():
        (tmp_path / name).write_text(text)
        parser = launch_command_parser()
        known = {option.removeprefix("--") for option in parser._option_string_actions}
        assert yaml.safe_load(text).get("fsdp_config", {}).keys() <= known, "accelerate takes any key and ignores it"
        given = ["--config_file", str(tmp_path / name), "train_trl.py"]
        read[name], _, from_file = _validate_launch_command(parser.parse_args(given))
        assert from_file and read[name].mixed_precision == ("no" if precision == "fp32" else "bf16")
    assert (read["one_gpu.yaml"].num_processes, read["one_gpu.yaml"].use_fsdp) == (1, False)
    assert (read["fsdp_8gpu.yaml"].num_processes, read["fsdp_8gpu.yaml"].use_fsdp) == (8, True)
    for key, value in prepare_multi_gpu_env(read["fsdp_8gpu.yaml"]).items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.cpu_ram_efficient_loading) == (2, True, False)
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT" and not plugin.activation_checkpointing
