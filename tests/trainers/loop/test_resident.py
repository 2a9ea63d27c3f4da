"""A resident base gives every trial the same start, and the preflight changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors import safe_open

from qtarget.spaces import presets
from qtarget.spaces.errors import UserError
from qtarget.trainers.data.batches import collate
from qtarget.trainers.loop.checkpoint import checkpoint_bytes, checkpoint_file
from qtarget.trainers.loop.preflight import longest_batch, worst_case_step
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.loop.sft import train
from qtarget.trainers.models.load import model_fingerprint
from qtarget.trainers.settings import LoraSettings, ModelSettings, TrainingSettings

SETTINGS = TrainingSettings(steps=3, effective_batch=8, micro_batch=4, learning_rate=3e-3)
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, make_model, tokenizer):
    for name, seed in (("base", 0), ("teacher", 1)):
        make_model(seed=seed, vocab=len(tokenizer) + 5).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def run(resident, data, preset, lora=None, reference=False):
    model = resident.fresh(lora, seed=2)
    start = snapshot(model)
    train(
        model, data, presets.get(preset), SETTINGS, seed=3, folder=None,
        reference=resident.reference() if reference else None, teacher=resident.teacher,
        pad_token_id=resident.pad_token_id, real_vocab=resident.real_vocab,
    )  # fmt: skip
    return start, snapshot(model)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_the_size_of_a_checkpoint_is_known_before_there_is_one(folder, sums, lora):
    resident = ResidentModel(ModelSettings(path="base"), folder, device=CPU)
    model = resident.fresh(lora, seed=2)
    expected = checkpoint_bytes(resident.trained_parameters)
    settings = SETTINGS.model_copy(update={"checkpoint_every": 2})
    train(
        model, sums, presets.get("sft"), settings, seed=3, folder=folder,
        pad_token_id=resident.pad_token_id, real_vocab=resident.real_vocab, on_step=lambda report: report.step == 2,
    )  # fmt: skip
    with safe_open(checkpoint_file(folder), "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    assert expected <= 4 * sum(math.prod(shape) for shape in shapes) < 1.01 * expected + 4096


@pytest.mark.slow
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(
    "lora", [None, LoraSettings(rank=2), LoraSettings(rank=2, modules_to_save=("lm_head", "norm"))]
)
def test_trials_start_alike_whatever_ran_before(folder, sums, lora, reference):
    resident = ResidentModel(ModelSettings(path="base"), folder, device=CPU, reference=reference)
    first = run(resident, sums, "sft", lora)
    run(resident, sums, "dft", None)
    run(resident, sums, "dft", LoraSettings(rank=4, target_modules=("q_proj",)))
    again = run(resident, sums, "sft", lora)
    for one, other in zip(first, again, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(first[0][name], first[1][name]) for name in first[0])


def test_the_reference_stays_the_base_while_the_model_trains(folder, sums, make_model, tokenizer):
    resident = ResidentModel(ModelSettings(path="base"), folder, device=CPU, reference=True)
    batch = collate(sums[:2], [0, 1], 0)
    expected = resident.reference().rows(batch).hidden
    run(resident, sums, "sft_kl", None, reference=True)
    assert torch.equal(resident.reference().rows(batch).hidden, expected)
    run(resident, sums, "sft_kl", LoraSettings(rank=2), reference=True)
    assert torch.equal(resident.reference().rows(batch).hidden, expected)
    assert resident.fingerprint == model_fingerprint(make_model(vocab=len(tokenizer) + 5))


def test_full_fine_tuning_without_a_copy_has_no_reference(folder):
    resident = ResidentModel(ModelSettings(path="base"), folder, device=CPU)
    resident.fresh()
    with pytest.raises(UserError, match="second copy of the base"):
        resident.reference()


@pytest.mark.parametrize("padding", [0, 5, 9])
def test_heads_may_be_padded_differently(folder, sums, tokenizer, make_model, padding):
    make_model(seed=1, vocab=len(tokenizer) + padding).save_pretrained(folder / "teacher")
    resident = ResidentModel(ModelSettings(path="base"), folder, device=CPU, teacher=ModelSettings(path="teacher"))
    assert resident.real_vocab == len(tokenizer)
    start, end = run(resident, sums, "kd")
    assert any(not torch.equal(start[name], end[name]) for name in start)


def test_a_teacher_with_another_vocabulary_is_refused(folder, tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<extra>"])
    other.save_pretrained(folder / "teacher")
    with pytest.raises(UserError, match="'<extra>'") as caught:
        ResidentModel(ModelSettings(path="base"), folder, device=CPU, teacher=ModelSettings(path="teacher"))
    assert caught.value.field == "teacher.path"


@pytest.mark.parametrize("preset", ["sft", "psft"])
def test_the_preflight_changes_nothing(make_model, sums, preset):
    model = make_model()
    before = snapshot(model)
    state = torch.get_rng_state()
    found = worst_case_step(model, sums, presets.get(preset), SETTINGS)
    assert all(torch.equal(before[name], tensor) for name, tensor in snapshot(model).items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    lengths = sorted((len(example.token_ids) for example in sums), reverse=True)
    assert (found.longest, found.tokens) == (lengths[0], 4 * (lengths[0] - 1))
    assert 0 < found.usual_seconds < found.seconds and found.peak_bytes > 2**20


def test_the_longest_demonstrations_repeat_where_there_are_few(sums):
    batch = longest_batch(type(sums)(sums.examples[:2], 2), 5, 0)
    assert sorted(batch.indices.tolist()) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


@pytest.mark.parametrize(("preset", "need"), [("kd", "teacher"), ("sft_kl", "reference"), ("cft", "critical")])
def test_a_design_without_what_it_needs_is_refused(make_model, sums, preset, need):
    with pytest.raises(UserError, match=f"needs '{need}', but this run has none"):
        train(make_model(), sums, presets.get(preset), SETTINGS, seed=3, folder=None)
    with pytest.raises(UserError, match=need):
        worst_case_step(make_model(), sums, presets.get(preset), SETTINGS)
