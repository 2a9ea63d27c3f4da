"""The trainer of an exported design: transformers' `Trainer`, and what is built on it, with the loss of
`target_loss.py`. `target_trainer.py` of an export, for `train_trl.py` and `target_axolotl.py`.

The data are ordered and divided into optimiser steps as in the search, whatever the number of GPUs; a step's loss is
divided once, by what the design divides by (`num_items_in_batch`: the tokens of all micro-batches of all ranks).
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from target_data import Order
from target_loss import (
    BATCH_SCOPE,
    DENOMINATOR,
    IGNORE_INDEX,
    NEEDS,
    NEEDS_ROWS,
    REFRESH,
    Head,
    joined,
    label_scalars,
    target_loss,
    trust,
)
from target_model import base_of, load_model
from torch import Tensor, nn
from transformers import Trainer

# --- the loss inside the model


class Request:
    """What a forward pass is asked for. A plain class: wrappers of the model must not cast what it carries."""

    def __init__(self, labels: Tensor, scalars: bool = False, **given: Any) -> None:
        self.labels, self.scalars, self.given = labels, scalars, given


def head_of(model: Any, hidden: Tensor) -> Head:
    """Hidden states (sequences, positions, H) with the head of the model, one row a token."""
    layer, config = model.get_output_embeddings(), model.config
    if hasattr(layer, "unshard"):  # FSDP 2 gathers a layer's weights when the layer is called, which the head is not
        layer.unshard()
    scale = 1 / config.logits_scaling if getattr(config, "logits_scaling", None) else 1.0
    for name in ("logit_scale", "lm_head_multiplier"):
        scale = float(getattr(config, name, None) or scale)
    cap = getattr(config, "final_logit_softcapping", None)
    return Head(hidden.flatten(0, 1), layer.weight, layer.bias, cap, scale)


def states(model: Any, input_ids: Tensor) -> Head:
    """Hidden states of a model with its head."""
    decoder = getattr(model, model.base_model_prefix)
    return head_of(model, decoder(input_ids=input_ids, use_cache=False).last_hidden_state)


def put_loss_inside(model: Any) -> None:
    """Let the forward pass return the loss: there the head is whole under DDP and FSDP, and logits exist in chunks."""
    plain = model.forward

    def forward(self: Any, input_ids: Tensor | None = None, target: Request | None = None, **others: Any) -> Any:
        if target is None or input_ids is None:
            return plain(input_ids=input_ids, **others)
        student = states(self, input_ids)
        if target.scalars:
            return label_scalars(student, target.labels, **target.given)
        found = target_loss(student, target.labels, **target.given)
        return found.loss_sum, found.denominator

    model.forward = MethodType(forward, model)


# --- the trainer


class TargetTrainer(Trainer):
    """A Trainer, or with another class below it that one, whose loss is that of `target_loss.py`."""

    loss_is_scaled_for_ga = True

    def follow(self, winner: dict[str, Any], base: Path, steps: int) -> None:
        """Train the design of `winner.yaml` for `steps` steps; called once, before training."""
        self.model_accepts_loss_kwargs = True  # the loss divides by `num_items_in_batch`
        add_up_in_float32(self.accelerator)
        self.winner, self.base = winner, base
        self.training, self.seed, self.steps = winner["training"], winner["seed"], steps
        put_loss_inside(base_of(self.model))
        self.in_data = {"reference"} - NEEDS_ROWS if winner["data"].get("reference_logprob_column") else set()
        self.frozen: dict[str, Any] = {}
        for name, settings in (("reference", winner["model"]), ("teacher", winner.get("teacher"))):
            if name in NEEDS - self.in_data:
                self.frozen[name] = load_model(settings, base).to(self.args.device).eval().requires_grad_(False)
        self.previous: Any = None
        if NEEDS & {"old_logprobs", "previous"}:
            if self.is_fsdp_enabled:
                raise ValueError(
                    "this design compares with an earlier state of the weights, which FSDP shards; use DDP"
                )
            self.previous = copy.deepcopy(base_of(self.model)).eval().requires_grad_(False)
            self.averages = {name: each.float() for name, each in self.previous.named_parameters()}
        tokenizer: Any = self.processing_class
        known = max(tokenizer.get_vocab().values()) + 1
        self.real_vocab = known if known < base_of(self.model).get_output_embeddings().weight.shape[0] else None

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        return Order(lengths, self.training["effective_batch"], self.steps, self.seed)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Linear rise, then a half cosine towards 0, or constant."""
        warmup = round(self.training["warmup_fraction"] * num_training_steps)

        def factor(step: int) -> float:
            if step < warmup:
                return float((step + 1) / (warmup + 1))
            if self.training["decay"] == "constant":
                return 1.0
            return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, num_training_steps - warmup))

        stepped: Any = optimizer or self.optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(stepped, factor)
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The micro-batches of an optimiser step, and what its loss is divided by."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._refresh_previous()
        if batches and (BATCH_SCOPE or DENOMINATOR != "all"):
            return batches, self._look_ahead(batches, items)
        if batches and "weights" in batches[0]:  # a token counts as often as its weight says
            counts = torch.stack(
                [(batch["weights"] * (batch["labels"] != IGNORE_INDEX))[:, 1:].sum() for batch in batches]
            )
            items = self.accelerator.reduce(counts.sum().to(self.args.device), "sum")
        return batches, items

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, count = model(input_ids=inputs["input_ids"], target=self.request(inputs))
        items = count if num_items_in_batch is None else torch.as_tensor(num_items_in_batch, device=loss.device)
        loss = loss / items if bool(items > 0) else 0 * loss
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # the wrappers average over ranks
        return (loss, None) if return_outputs else loss

    def request(self, inputs: Any, scalars: bool = False) -> Request:
        """Everything the design looks at, for labels moved to the positions that predict them."""
        ids, device = inputs["input_ids"], self.args.device
        labels = _next(inputs["labels"].to(device), IGNORE_INDEX)
        given: dict[str, Any] = {"critical": _next(inputs["critical"].to(device), 0).bool()}
        numbers = torch.arange(len(ids), device=device)[:, None] + inputs.get("first_sequence", 0)
        given["sequence_ids"] = numbers.expand(ids.shape).flatten()
        for name, column in (("weights", "weights"), ("reference_logprobs", "reference_label_logprobs")):
            if name in inputs:
                given[column] = _next(inputs[name].to(device), 0)
        given["progress"] = self.state.global_step / max(1, self.steps - 1)
        models = self.frozen | ({} if self.previous is None else {"previous": self.previous})
        with torch.no_grad(), self.compute_loss_context_manager():
            for name, model in models.items():
                given[name] = states(model, ids.to(device))
        if "old_logprobs" in NEEDS:
            given["old_logprobs"] = _scattered(label_scalars(given["previous"], labels).label_logprobs, labels)
        if "gamma" in inputs:
            given["gamma"] = inputs["gamma"].to(device)
        return Request(labels, scalars, real_vocab=self.real_vocab, **given)

    def _look_ahead(self, batches: list[Any], items: Any) -> Any:
        """γ and divisor of a whole optimiser step, over all micro-batches and ranks, without gradients."""
        model, rank = self.model_wrapped, self.accelerator.process_index
        model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for number, batch in enumerate(batches):
                batch["first_sequence"] = (rank * len(batches) + number) * self.args.per_device_train_batch_size
            if BATCH_SCOPE:
                self._share_trust(batches, [self._ask(model, batch, scalars=True) for batch in batches])
            if DENOMINATOR != "all":
                counts = torch.stack([self._ask(model, batch)[1] for batch in batches])
                items = self.accelerator.reduce(counts.sum(), "sum")
        model.train()
        return items

    def _share_trust(self, batches: list[Any], mine: list[Any]) -> None:
        device = PartialState().device
        everyone = [each.to("cpu") for each in mine] if self.accelerator.num_processes > 1 else mine
        everyone = gather_object(everyone) if self.accelerator.num_processes > 1 else everyone
        gamma = trust(joined([each.to(device) for each in everyone]))
        sizes = [len(each.label_logprobs) for each in everyone]
        start = sum(sizes[: self.accelerator.process_index * len(mine)])
        for batch, rows in zip(batches, mine, strict=True):
            stop = start + len(rows.label_logprobs)
            batch["gamma"] = _scattered(gamma[start:stop], _next(batch["labels"].to(device), IGNORE_INDEX))
            start = stop

    def _ask(self, model: nn.Module, batch: Any, scalars: bool = False) -> Any:
        return model(input_ids=batch["input_ids"].to(self.args.device), target=self.request(batch, scalars))

    def _refresh_previous(self) -> None:
        """Move the previous policy towards the weights where a window of steps starts; averages are in float32."""
        every, decay = REFRESH[0] or self.training["old_policy_every"], REFRESH[1]
        if self.previous is not None and self.state.global_step % every == 0:
            current = dict(base_of(self.model).named_parameters())
            with torch.no_grad():
                for name, parameter in self.previous.named_parameters():
                    parameter.copy_(self.averages[name].lerp_(current[name].float(), 1 - decay))


def add_up_in_float32(accelerator: Any) -> None:
    """Under FSDP 2 and bf16, accelerate would round loss, divisor and the sum of the ranks' gradients to bf16."""
    policy: Any = getattr(fsdp_of(accelerator), "mixed_precision_policy", None)
    if hasattr(policy, "output_dtype"):
        float32 = replace(policy, reduce_dtype=torch.float32, output_dtype=None)
        accelerator.state.fsdp_plugin.mixed_precision_policy = float32


def fsdp_of(accelerator: Any) -> Any:
    return getattr(accelerator.state, "fsdp_plugin", None)


def _next(values: Tensor, fill: int) -> Tensor:
    """What belongs to the token that each position predicts, one row a token."""
    return torch.cat([values[:, 1:], values.new_full((len(values), 1), fill)], 1).flatten()


def _scattered(values: Tensor, labels: Tensor) -> Tensor:
    """Values of the tokens with a label, at their places among all tokens."""
    return values.new_zeros(len(labels)).masked_scatter(labels != IGNORE_INDEX, values)
