"""What a frozen model says of a batch is asked once, as long as there is room, and is what it would say again."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from qtarget.spaces import presets
from qtarget.trainers.data.batches import collate
from qtarget.trainers.loop.packing import pack
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.loop.sft import train
from qtarget.trainers.settings import LoraSettings, ModelSettings, TrainingSettings
from qtarget.trainers.teachers.answers import Answers, host_share
from qtarget.trainers.teachers.sources import FrozenModel

SETTINGS = TrainingSettings(steps=3, effective_batch=8, micro_batch=4, learning_rate=3e-3)


@pytest.fixture
def folder(tmp_path, make_model, tokenizer):
    for name, seed in (("base", 0), ("teacher", 1)):
        make_model(seed=seed, vocab=len(tokenizer)).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(("preset", "lora"), [("kd", None), ("sft_kl", None), ("sft_kl", LoraSettings(rank=2))])
def test_a_trial_that_asks_what_another_asked_trains_the_same(folder, sums, preset, lora, monkeypatch):
    resident = ResidentModel(
        ModelSettings(path="base"), folder, device=torch.device("cpu"), reference=True,
        teacher=ModelSettings(path="teacher"),
    )  # fmt: skip
    asked, ask = [], FrozenModel._ask
    monkeypatch.setattr(FrozenModel, "_ask", lambda self, batch: asked.append(batch) or ask(self, batch))

    def trained(seed=3):
        """Its weights, and how often a frozen model was asked."""
        asked.clear()
        model = resident.fresh(lora, seed=2)
        train(model, sums, presets.get(preset), SETTINGS, seed=seed, folder=None, reference=resident.reference(),
              teacher=resident.teacher, pad_token_id=resident.pad_token_id)  # fmt: skip
        return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()]), len(asked)

    live, passes = trained()
    resident.remember()
    first, again = trained(), trained()
    assert (passes, first[1], again[1]) == (6, 6, 0)
    assert torch.equal(live, first[0]) and torch.equal(live, again[0])
    other, passes = trained(seed=4)
    assert passes == 6 and not torch.equal(other, live), "another order is another training"


def test_equal_batches_alone_are_answered_from_memory(sums):
    answers, asked = Answers(), []

    def said(batch):
        def ask():
            asked.append(batch)
            return torch.full((len(batch.positions), 2), float(len(asked)))

        found = answers.of(batch.content, ask)
        assert found.shape == (len(batch.positions), 2)
        return float(found[0, 0])

    one, other = [sums[0], sums[1]], [sums[1], sums[2]]
    assert [said(collate(one, [0, 1], 0)), said(collate(other, [1, 2], 0))] == [1, 2]
    assert [said(collate(other, [1, 2], 0)), said(collate(one, [0, 1], 0))] == [2, 1]
    assert said(pack(one, [0, 1], 0)) == 3, "in another layout it is rounded otherwise"
    assert said(pack(one, [0, 1], 0, first_sequence=4)) == 3, "wherever in its effective batch"
    assert len(asked) == 3


def test_what_does_not_fit_is_asked_each_time(sums):
    batches = [collate([sums[index]], [index], 0) for index in range(2)]
    size = 4 * len(batches[0].positions)
    answers, asked = Answers(size), []

    def ask(batch):
        asked.append(int(batch.indices[0]))
        return torch.zeros(len(batch.positions), 1)

    for batch in batches * 2:
        answers.of(batch.content, partial(ask, batch))
    assert asked == [0, 1, 1], "the first stays: it comes again before the second does"
    assert 2**20 < host_share() <= 2**31
