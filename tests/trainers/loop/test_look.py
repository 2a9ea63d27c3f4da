"""A look on the way: the weights it shows, and that the training goes on as if there had been none."""

from __future__ import annotations

import pytest
import torch

from qtarget.spaces import presets
from qtarget.trainers.loop.look import Branch, Look
from qtarget.trainers.loop.optimizer import learning_rate
from qtarget.trainers.loop.sft import train
from qtarget.trainers.settings import TrainingSettings
from qtarget.trainers.teachers.sources import FrozenModel

SETTINGS = TrainingSettings(
    steps=6, effective_batch=8, micro_batch=4, learning_rate=3e-3, checkpoint_every=50, old_policy_every=2
)


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "psft", "curiosft"])
def test_what_a_look_does_is_undone(make_model, sums, tmp_path, name):
    """Bit for bit, also where a previous policy goes along; and again when the run resumes where the look was."""
    target, seen = presets.get(name), []

    def run(model, folder=None, looks=()):
        needs = {"reference": FrozenModel(make_model(seed=1))} if "reference" in target.needs else {}
        return train(model, sums, target, SETTINGS, seed=3, folder=folder, looks=looks, **needs)

    straight, looked, paused, resumed = (make_model() for _ in range(4))
    run(straight)

    def show(model, stop):
        return lambda step: bool(seen.append((step, weights(model)))) or stop

    outcome = run(looked, tmp_path / "looked", [Look(2, 2, show(looked, False)), Look(4, 0, show(looked, False))])
    assert outcome.status == "finished" and [step for step, _ in seen] == [2, 4]
    assert torch.equal(weights(straight), weights(looked))

    stopped = run(paused, tmp_path / "paused", [Look(2, 2, show(paused, True))])
    assert (stopped.status, stopped.step) == ("stopped", 2)
    assert torch.equal(seen[2][1], seen[0][1]), "the same look"
    run(resumed, tmp_path / "paused", [Look(2, 2, show(resumed, False))])
    assert torch.equal(seen[3][1], seen[0][1]), "had again, because the checkpoint lies there"
    assert torch.equal(weights(straight), weights(resumed))


def test_a_look_shows_weights_at_a_rate_that_falls_to_nothing(make_model, sums, tmp_path):
    """As a training by hand whose rate falls linearly from where the schedule stood."""
    seen = []
    model = make_model()
    look = Look(2, 2, lambda step: bool(seen.append(weights(model))) or True)
    train(model, sums, presets.get("sft"), SETTINGS, seed=3, folder=tmp_path, looks=[look])
    rate = learning_rate(SETTINGS, 2)
    branch = Branch(2, 2, rate)
    assert [branch.learning_rate(step) for step in (2, 3)] == [pytest.approx(rate * 2 / 3), pytest.approx(rate / 3)]
    plain = make_model()
    stop = lambda report: report.step == 2  # noqa: E731
    train(plain, sums, presets.get("sft"), SETTINGS, seed=3, folder=None, on_step=stop)
    assert not torch.equal(weights(plain), seen[0])
    assert (weights(plain) - seen[0]).abs().max() <= 2 * rate * (1 + SETTINGS.weight_decay), "two small steps away"


def test_a_look_with_steps_needs_a_folder(make_model, sums):
    with pytest.raises(ValueError, match="must have a folder"):
        train(make_model(), sums, presets.get("sft"), SETTINGS, seed=3, folder=None,
              looks=[Look(2, 2, lambda step: False)])  # fmt: skip
