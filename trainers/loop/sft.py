"""Supervised fine-tuning towards a target: the one training loop.

An optimiser step sums losses and gradients over all micro-batches of all ranks and divides once, by the valid tokens of
the whole effective batch. Everything random in a step is seeded by its number, so a resumed run repeats itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ...spaces.identity import derive_seed
from ...spaces.target import PreviousPolicy, TargetSpec
from ..data.batches import Batch, BatchOrder, EffectiveBatch, Layout, micro_batch_of_rank
from ..data.demonstrations import Demonstrations
from ..settings import TrainingSettings
from ..teachers.sources import FrozenModel, Source
from .batch_trust import batch_trust, needs_trust_pass
from .checkpoint import Checkpoint, load_checkpoint, run_identity, save_checkpoint
from .look import Branch, Look
from .objective import Objective
from .old_policy import OldPolicy, PreviousModel
from .optimizer import Optimizer, learning_rate
from .packing import laid_out
from .reports import DivergedError, StepReport, Totals, TrainingOutcome

__all__ = ["DivergedError", "StepReport", "TrainingOutcome", "train"]


def train(
    model: nn.Module,
    data: Demonstrations,
    target: TargetSpec,
    settings: TrainingSettings,
    *,
    seed: int,
    folder: Path | None,
    reference: Source | None = None,
    teacher: Source | None = None,
    on_step: Callable[[StepReport], bool] | None = None,
    looks: Sequence[Look] = (),
    pad_token_id: int = 0,
    real_vocab: int | None = None,
    layout: Layout | None = None,
) -> TrainingOutcome:
    """Fine-tune `model` in place on `data` towards `target`, resuming from the checkpoint in `folder` if there is one.

    Trains the parameters that require a gradient. `on_step` is called after every optimiser step on every rank and may
    evaluate the model; when it returns True on any rank, all ranks stop there with a checkpoint. `looks` are had when
    the training reaches their steps, or resumes there. Without a folder there are no checkpoints. A model sharded by
    `ranks.shard` is trained as such. Without a `layout`, sequences of a forward pass are padded where that costs next
    to nothing or the model needs it, else packed.

    Raises DivergedError before a step with a non-finite loss or gradient, UserError when the target needs something
    that is not given or `folder` holds another run.
    """
    objective = Objective(model, reference, teacher, dense=settings.loss == "dense", real_vocab=real_vocab)
    objective.check_needs(target, data)
    models = [model, *(source.model for source in (reference, teacher) if isinstance(source, FrozenModel))]
    with laid_out(models, layout) as chosen:
        run = _Run(objective, data, target, settings, seed, folder, pad_token_id, chosen)
        return run.finish(on_step, looks)


class _Run:
    """The state of one fine-tune."""

    def __init__(
        self,
        objective: Objective,
        data: Demonstrations,
        target: TargetSpec,
        settings: TrainingSettings,
        seed: int,
        folder: Path | None,
        pad_token_id: int,
        layout: Layout | None = None,
    ) -> None:
        self.objective, self.target, self.settings, self.seed, self.folder = objective, target, settings, seed, folder
        self.device = objective.head.weight.device
        self.accelerator = Accelerator(cpu=self.device.type == "cpu")
        self.micro_batch = micro_batch_of_rank(
            settings.micro_batch, settings.effective_batch, self.accelerator.num_processes
        )
        self.order = BatchOrder(data, settings.effective_batch, seed, pad_token_id, layout)
        self.optimizer = Optimizer(objective.model, settings)
        self.old_policy, self.previous = self._policies()
        self.identity = run_identity(data, target, settings, seed) if folder is not None else ""
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.branch: Branch | None = None
        self._resume()

    def finish(self, on_step: Callable[[StepReport], bool] | None, looks: Sequence[Look] = ()) -> TrainingOutcome:
        """Do the remaining steps, or those until `on_step` or a look stops."""
        saved, places = self.step, {look.step: look for look in looks}
        while self.step < self.settings.steps:
            if self.step in places and self._stops_at(places[self.step]):
                return TrainingOutcome("stopped", self.step, self.tokens, self.seconds)
            report = self._next_step()
            stop = on_step is not None and on_step(report)
            if self._any_rank(stop):
                self._save()
                return TrainingOutcome("stopped", self.step, self.tokens, self.seconds)
            if self.step - saved >= self.settings.checkpoint_every or self.step == self.settings.steps:
                self._save()
                saved = self.step
        return TrainingOutcome("finished", self.step, self.tokens, self.seconds)

    def _stops_at(self, look: Look) -> bool:
        """Show the weights; whether the training ends here, with the checkpoint that it has reached."""
        step, tokens = self.step, self.tokens
        if look.decay_steps:
            self._save()
            self._try_further(look.decay_steps)
        stop = self._any_rank(look.show(step))
        if stop and not look.decay_steps:
            self._save()
        elif not stop and look.decay_steps:
            seconds = self.seconds
            self._resume()
            self.seconds = seconds  # those of the steps undone were spent all the same
        self.step, self.tokens = step, tokens
        return stop

    def _try_further(self, steps: int) -> None:
        """Steps at a falling learning rate, which the checkpoint just saved will undo."""
        if self.folder is None:
            raise ValueError("a look with `decay_steps` must have a folder for its checkpoint, but got folder=None")
        self.branch = Branch(self.step, steps, learning_rate(self.settings, self.step))
        for _ in range(steps):
            self._next_step()
        self.branch = None

    def _next_step(self) -> StepReport:
        started = time.perf_counter()
        batch = self.order.at(self.step)
        self.objective.model.train()
        with _seeded(derive_seed("step", self.seed, self.step, self.accelerator.process_index), self.device):
            if self.previous is not None:
                self.previous.refresh(self.step)
            if self.old_policy is not None:
                self.old_policy.refresh(self.step, self.settings.steps)
            totals = self._accumulate(batch)
        rate = self.branch.learning_rate(self.step) if self.branch else learning_rate(self.settings, self.step)
        norm = self.optimizer.clip()
        if not (math.isfinite(totals.loss) and math.isfinite(norm)):
            self.optimizer.clear()
            raise DivergedError(self.step + 1, totals.loss, norm)
        self.optimizer.step(rate)
        return self._count(batch.num_tokens, totals, rate, norm, time.perf_counter() - started)

    def _count(self, tokens: int, totals: Totals, rate: float, norm: float, seconds: float) -> StepReport:
        self.step += 1
        self.tokens += tokens
        self.seconds += seconds
        return StepReport(
            step=self.step,
            steps=self.settings.steps,
            loss=totals.loss / totals.denominator if totals.denominator else 0.0,
            tokens=tokens,
            learning_rate=rate,
            gradient_norm=norm,
            label_prob=totals.label_prob / tokens,
            entropy=totals.entropy / tokens,
            seconds=seconds,
        )

    def _accumulate(self, batch: EffectiveBatch) -> Totals:
        """Gradients of the mean loss over the effective batch into the masters, summed over ranks."""
        progress = self.step / max(1, self.settings.steps - 1)
        target = self.target.at(progress)
        gamma = self._trust(target, batch)
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        for part in batch.micro_batches(self.micro_batch, rank=rank, ranks=ranks):
            micro = part.to(self.device)
            loss = self.objective.loss(micro, target, **self._columns(batch, micro, gamma))
            torch.autograd.backward(loss.loss_sum / batch.num_tokens)
            self.optimizer.collect()
            sums += Totals.sums(loss)
        if ranks > 1:
            self.optimizer.sum_over_ranks(self.accelerator)
            sums = self.accelerator.reduce(sums, "sum")
        totals = Totals(*sums.tolist())
        if target.denominator != "all" or self.order.data.has_weights:
            self.optimizer.scale(batch.num_tokens / totals.denominator if totals.denominator else 0.0)
        return totals

    def _trust(self, target: TargetSpec, batch: EffectiveBatch) -> Tensor | None:
        """γ of the effective batch where its micro-batches alone would give another."""
        if not needs_trust_pass(target, len(batch.examples) // self.micro_batch):
            return None
        return batch_trust(self.objective, target, batch, self.micro_batch, self.old_policy)

    def _columns(self, batch: EffectiveBatch, micro: Batch, gamma: Tensor | None) -> dict[str, Any]:
        """What the loss of a micro-batch takes from beyond it."""
        given: dict[str, Any] = {}
        if self.old_policy is not None:
            given["old_logprobs"] = self.old_policy.rows(batch, micro)
        if self.previous is not None and "previous" in self.target.needs:
            given["previous"] = self.previous.source.rows(micro)
        if gamma is not None:
            given["gamma"] = gamma[batch.tokens_of(micro)]
        return given

    def _policies(self) -> tuple[OldPolicy | None, PreviousModel | None]:
        needs, model, head = self.target.needs, self.objective.model, self.objective.head
        rule = self.target.previous or PreviousPolicy()
        every, previous, old = rule.every or self.settings.old_policy_every, None, None
        if "previous" in needs or ("old_logprobs" in needs and rule.decay):
            previous = PreviousModel(model, every=every, decay=rule.decay)
            model, head = previous.source.model, previous.source.head
        if "old_logprobs" in needs:
            old = OldPolicy(model, head, self.order, every=every, micro_batch=self.micro_batch)
        return old, previous

    def _any_rank(self, stop: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return stop
        if stop:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def _save(self) -> None:
        if self.folder is None:
            return
        save_checkpoint(self.folder, Checkpoint(self.identity, self.step, self.tokens, self.seconds, self._state()))

    def _state(self) -> dict[str, Tensor]:
        parts = {"weight": self.optimizer.weights()}
        if self.step < self.settings.steps:  # a finished run needs its weights only
            parts["moment"] = self.optimizer.moments()
            parts["old"] = {} if self.old_policy is None else self.old_policy.state()
            parts["previous"] = {} if self.previous is None else self.previous.state()
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def _room(self, key: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        part, _, name = key.partition("/")
        return self.optimizer.room(name if part == "weight" else name.rpartition("/")[0], shape, dtype)

    def _resume(self) -> None:
        if self.folder is None:
            return
        checkpoint = load_checkpoint(self.folder, self.identity, self._room)
        if checkpoint is None:
            return
        parts: dict[str, dict[str, Tensor]] = {"weight": {}, "moment": {}, "old": {}, "previous": {}}
        for key, tensor in checkpoint.tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        self.optimizer.set_weights(parts["weight"])
        self.optimizer.set_moments(parts["moment"])
        if self.old_policy is not None:
            self.old_policy.restore(parts["old"])
        if self.previous is not None:
            self.previous.restore(parts["previous"])
        self.step, self.tokens, self.seconds = checkpoint.step, checkpoint.tokens, checkpoint.seconds


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from `seed` inside; the generators outside go on as if nothing had happened."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
