"""Where versions of transformers differ: each difference is met here alone, with the version that ends it.

`standalone/trl.py`, which leaves with an export, keeps its own.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .head import base_model


def cache_argument(model: Any) -> str:
    """Name of the forward pass's argument for the keys and values of earlier tokens.

    transformers 5.24 renamed `past_key_values` to `cache`, and warns. The model is asked and not the version, since
    code that comes with a model may keep the old name. Can go with 5.24 as the lowest version, and such code renamed.
    """
    return "cache" if "cache" in inspect.signature(base_model(model).forward).parameters else "past_key_values"


def recompute_activations(model: Any) -> None:
    """Let the backward pass compute the activations of a transformers model's layers again, which saves their memory.

    transformers 5.23 renamed `gradient_checkpointing_enable`, and warns. Can go with 5.23 as the lowest version.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


@contextmanager
def old_names_of_peft() -> Iterator[None]:
    """Inside, peft may ask a model for `is_gradient_checkpointing`, which transformers 5.23 renamed, without a warning.

    Can go with the first peft that asks by the new name; 0.21.2 does not.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
