"""What a full run adds to the training of a trial: length, packing, checkpoints to keep, evaluation on the way."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from ..spaces.settings import Settings


class RunSettings(Settings):
    """How a winner is trained in full. None of it changes what one optimiser step computes."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps; default: as many as a trial of the search."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the demonstrations, instead of `steps`."""
    packing: bool = False
    """Put the sequences of a forward pass into one row without padding; none sees another."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    evaluate_every: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps between evaluations on the search problems; None: only at the end, on the report problems."""
    save_every: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps between saved models; None: only the last one is saved."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Newest saved models to keep, beside the one with the best evaluation."""
    shard_gigabytes: Annotated[float, Field(gt=0)] = 5.0
    """Largest file of a saved model."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"`steps` and `epochs` exclude each other, but got {self.steps} and {self.epochs}; keep one"
            )
        return self

    def num_steps(self, default: int, examples: int, effective_batch: int) -> int:
        """Optimiser steps of the run."""
        if self.epochs is not None:
            return max(1, round(self.epochs * examples / effective_batch))
        return self.steps or default
