"""A full run: resumable bit for bit, loadable by transformers, kept by rule, refused with other data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from qtarget.spaces import presets
from qtarget.spaces.errors import UserError
from qtarget.trainers.loop.full_run import FullRun, keep, models_folder
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.run_settings import RunSettings
from qtarget.trainers.settings import LoraSettings, ModelSettings, TrainingSettings
from qtarget.trainers.teachers.sources import FrozenModel

TRAINING = TrainingSettings(steps=9, effective_batch=8, micro_batch=4, learning_rate=3e-3, checkpoint_every=2)


@pytest.fixture
def base(make_model, tokenizer, tmp_path: Path) -> Path:
    """A folder with the model `base`."""
    make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path


def full_run(base: Path, data, out: str, run: RunSettings | None = None, training=TRAINING, target="target_sft"):
    model = ModelSettings(path="base")
    resident = ResidentModel(model, base, device=torch.device("cpu"))
    return FullRun(resident, data, presets.get(target), training, run or RunSettings(), model=model, base=base,
                   folder=base / out, seed=3)  # fmt: skip


def finish(run: FullRun, make_model, **options):
    def source(role: str) -> FrozenModel | None:
        if role == "teacher":
            return FrozenModel(make_model(seed=2))
        return run.resident.reference() if "reference" in run.target.needs else None

    return run.finish(source=source, **options)


def test_the_saved_model_is_the_trained_one(base, sums, make_model):
    run = full_run(base, sums, "out", RunSettings(shard_gigabytes=1e-5))
    assert finish(run, make_model).status == "finished"
    assert len(list((base / "out" / "model").glob("model-*.safetensors"))) > 1, "in shards"
    loaded = AutoModelForCausalLM.from_pretrained(base / "out" / "model")
    for mine, saved in zip(run.trained.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(mine, saved)
    steps = [json.loads(line)["step"] for line in (base / "out" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 10))


def test_stopped_and_resumed_it_ends_the_same(base, sums, make_model):
    straight = full_run(base, sums, "straight")
    finish(straight, make_model)
    first = full_run(base, sums, "halted")
    assert finish(first, make_model, on_step=lambda report: report.step == 5).status == "stopped"
    assert not (base / "halted" / "model").exists()
    finish(full_run(base, sums, "halted"), make_model)
    files = [load_file(base / out / "model" / "model.safetensors") for out in ("straight", "halted")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_adapters_are_merged_into_a_model_that_stands_alone(base, sums, make_model):
    pytest.importorskip("peft")
    training = TRAINING.model_copy(update={"lora": LoraSettings(rank=4)})
    run = full_run(base, sums, "lora", training=training, target="asft")  # its reference is the base without adapters
    finish(run, make_model)
    loaded = AutoModelForCausalLM.from_pretrained(base / "lora" / "model").eval()
    inputs = sums[0].inputs[None]
    with torch.no_grad():
        adapted = run.trained.eval()(input_ids=inputs).logits
        plain = AutoModelForCausalLM.from_pretrained(base / "base").eval()(input_ids=inputs).logits
        torch.testing.assert_close(loaded(input_ids=inputs).logits, adapted, atol=1e-5, rtol=1e-4)
    assert (adapted - plain).abs().max() > 1e-3
    assert (base / "lora" / "model" / "adapter" / "adapter_config.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings=True`", "ignore:`is_gradient_checkpointing`"
)  # peft's, when it loads the adapter again
def test_adapters_on_a_tied_embedding_leave_the_head_alone(base, sums, make_model):
    peft = pytest.importorskip("peft")
    model = make_model()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(base / "base")
    lora = LoraSettings(rank=4, alpha=8.0, target_modules=("embed_tokens", "q_proj"))
    training = TRAINING.model_copy(update={"lora": lora, "learning_rate": 0.02, "steps": 20})
    run = full_run(base, sums, "out", training=training, target="sft")
    finish(run, make_model)
    saved = base / "out" / "model"
    plain, merged = (AutoModelForCausalLM.from_pretrained(each).eval() for each in (base / "base", saved))
    beside = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base / "base"), saved / "adapter")
    trained = {"plain": plain, "merged": merged, "beside": beside.eval(), "trained": run.trained.eval()}
    losses = {name: answer_loss(each, sums) for name, each in trained.items()}
    assert losses["merged"] == pytest.approx(losses["beside"], abs=1e-5) == losses["trained"]
    assert losses["merged"] < losses["plain"] - 0.1
    assert not merged.config.tie_word_embeddings


def answer_loss(model, data) -> float:
    """Nats per learnt token."""
    found = []
    for example in data:
        with torch.no_grad():
            logits = model(input_ids=example.inputs[None]).logits[0]
        found.append(torch.nn.functional.cross_entropy(logits, example.labels, ignore_index=-100, reduction="sum"))
    return float(sum(found)) / data.num_labels


def test_activation_checkpointing_changes_no_weight(base, sums, make_model):
    for out, on in (("kept", False), ("recomputed", True)):
        finish(full_run(base, sums, out, RunSettings(activation_checkpointing=on)), make_model)
    files = [load_file(base / out / "model" / "model.safetensors") for out in ("kept", "recomputed")]
    for name, tensor in files[0].items():
        torch.testing.assert_close(files[1][name], tensor, atol=1e-6, rtol=1e-5)


def test_models_on_the_way_are_kept_by_rule(base, sums, make_model):
    scores = {2: 0.1, 4: 0.9, 6: 0.2, 8: 0.3}
    run = full_run(base, sums, "out", RunSettings(save_every=2, evaluate_every=2, keep=1))
    finish(run, make_model, evaluate=lambda model, step: scores[step])
    assert sorted(path.name for path in models_folder(base / "out").iterdir()) == ["step-000004", "step-000008"]
    AutoModelForCausalLM.from_pretrained(models_folder(base / "out") / "step-000004")
    assert full_run(base, sums, "out", RunSettings(save_every=2)).scores == scores


def test_an_evaluation_that_is_stopped_stops_the_run(base, sums, make_model):
    outcome = finish(full_run(base, sums, "out", RunSettings(evaluate_every=3)), make_model, evaluate=lambda *_: None)
    assert (outcome.status, outcome.step) == ("stopped", 3)


@pytest.mark.parametrize("change", ["data", "target", "training"])
def test_another_run_in_the_same_folder_is_refused_by_name(base, sums, make_model, change):
    finish(full_run(base, sums, "out"), make_model, on_step=lambda report: True)
    data = replace(sums, examples=sums.examples[1:]) if change == "data" else sums
    training = TRAINING.model_copy(update={"learning_rate": 1e-4}) if change == "training" else TRAINING
    with pytest.raises(UserError, match=f"holds one with other {change}"):
        full_run(base, data, "out", training=training, target="kd" if change == "target" else "target_sft")


def test_the_key_that_differs_is_told_with_both_values(base, sums, make_model):
    finish(full_run(base, sums, "out"), make_model, on_step=lambda report: True)
    lora = LoraSettings(rank=2)
    longer = TRAINING.model_copy(update={"steps": 11, "lora": lora})
    with pytest.raises(
        UserError, match=r"other training.lora \(null there, .*\), training.steps \(9 there, 11 now\); "
    ) as told:
        full_run(base, sums, "out", training=longer)
    assert "data" not in str(told.value) and len(str(told.value)) < 400


def test_what_only_changes_how_it_is_computed_may_change(base, sums, make_model):
    finish(full_run(base, sums, "out"), make_model, on_step=lambda report: report.step == 3)
    halved = TRAINING.model_copy(update={"micro_batch": 2})
    assert finish(full_run(base, sums, "out", RunSettings(packing=True), training=halved), make_model).step == 9


def test_epochs_give_the_number_of_steps(base, sums):
    assert full_run(base, sums, "out", RunSettings(epochs=2)).training.steps == 10  # 40 sums, 8 a step
    with pytest.raises(ValueError, match="exclude each other"):
        RunSettings(steps=3, epochs=1)


def test_the_rule_keeps_the_newest_and_the_best(tmp_path):
    for step in (10, 20, 30, 40):
        (tmp_path / f"step-{step:06d}").mkdir()
    assert keep(tmp_path, 2, {10: 0.5, 20: 0.5, 30: 0.4}) == ["step-000010", "step-000030", "step-000040"]
    assert not (tmp_path / "step-000020").exists()
