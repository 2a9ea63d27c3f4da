"""A design as `compute_loss_func` of transformers' `Trainer` and of TRL's `SFTTrainer`.

Both give the model's outputs, labels and the number of labels of the whole optimiser step; the loss is divided by that
number, so that it is the same whatever the number of micro-batches and ranks. What they do not give (the inputs, for a
teacher or reference to read) is seen by a hook on the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.target import TargetSpec
from .module import TargetLoss

MODELS = ("teacher", "reference")
SEEN = ("input_ids", "attention_mask", "position_ids")


class TrainerLoss:
    """What `compute_loss_func` returns: called with outputs, labels and the number of items of an optimiser step."""

    def __init__(self, loss: TargetLoss, models: dict[str, nn.Module], progress: Callable[[], float] | None) -> None:
        self.loss, self._models, self._progress = loss, models, progress
        self._inputs: dict[str, Tensor] = {}

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        progress = 0.0 if self._progress is None else self._progress()
        given = {name: self._asked(model, outputs.logits) for name, model in self._models.items()}
        found: Tensor = self.loss(
            logits=outputs.logits, labels=labels, num_items=num_items_in_batch, progress=progress, **given
        )
        return found

    def watch(self, model: nn.Module) -> None:
        """Remember what `model` reads at each pass."""
        model.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = dict(zip(SEEN, arguments, strict=False))
        self._inputs = {name: value for name in SEEN if (value := (first | named).get(name)) is not None}

    @torch.no_grad()
    def _asked(self, model: nn.Module, logits: Tensor) -> Tensor:
        """(sequences, positions, vocab) logits of another model for what the trained one has just read."""
        if "input_ids" not in self._inputs or self._inputs["input_ids"].shape != logits.shape[:2]:
            raise ValueError(
                "the inputs of the last pass must be known for a teacher or reference to read them, but they are not; "
                "pass the model that the trainer trains as `model`"
            )
        found: Tensor = model(**self._inputs, use_cache=False).logits
        return found


def compute_loss_func(
    spec: TargetSpec | str,
    *,
    model: nn.Module | None = None,
    teacher: nn.Module | None = None,
    reference: nn.Module | None = None,
    progress: Callable[[], float] | None = None,
    real_vocab: int | None = None,
    **knobs: Any,
) -> TrainerLoss:
    """The loss of a design for `Trainer(..., compute_loss_func=...)` or `SFTTrainer(..., compute_loss_func=...)`.

        trainer = SFTTrainer(model, compute_loss_func=compute_loss_func("target_sft", model=model, teacher=teacher))

    Args:
        spec: a design, or the name of a published objective with its `knobs`.
        model: the model that is trained; needed with a teacher or reference, which read what it reads.
        teacher: on the device of the model, with its vocabulary.
        reference: a frozen copy of the model as it was before training.
        progress: share of the training that is done, for designs with a schedule.
        real_vocab: how many entries the tokenizer can produce; None: all rows of the head.
        knobs: of the published objective.

    Raises:
        UserError: a design that needs more than a trainer gives: the previous policy, marked tokens, the tokens of
            a whole optimiser step at once, or a schedule without `progress`.
    """
    loss = TargetLoss(spec, shift=True, real_vocab=real_vocab, **knobs)
    named = {"teacher": teacher, "reference": reference}
    models = {name: each for name, each in named.items() if each is not None and name in loss.spec.needs}
    _refuse(loss.spec, frozenset({*models, "sequence_ids"}), progress)
    if models and model is None:
        raise UserError(
            f"`model` must be given with {' and '.join(models)}, which read what it reads; pass the model that the "
            "trainer trains"
        )
    hook = TrainerLoss(loss, models, progress)
    for each in models.values():
        each.eval().requires_grad_(False)
    if models and model is not None:
        hook.watch(model)
    return hook


def _refuse(spec: TargetSpec, given: frozenset[str], progress: Callable[[], float] | None) -> None:
    lacking = sorted(spec.missing(given))
    whole = spec.denominator != "all" or (spec.gamma.scope == "batch" and not spec.gamma.within_sequence)
    why = (
        f"needs {' and '.join(lacking)}" if lacking
        else "looks at all tokens of an optimiser step at once" if whole
        else "has a schedule, and `progress` was not given" if spec.gamma.schedule is not None and progress is None
        else None
    )  # fmt: skip
    if why is not None:
        models = [name for name in lacking if name in MODELS]
        remedy = (
            f"pass `{models[0]}=`" if models else "use `qtarget.TargetLoss` in a loop of your own, or qtarget export"
        )
        raise UserError(f"a trainer gives outputs and labels alone, but {spec.title()!r} {why}; {remedy}")
