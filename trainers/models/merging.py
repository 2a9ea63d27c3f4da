"""Adapters by peft, and the model without them that computes the same.

Needs torch and peft alone: exports carry this file (`search/export/reading.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def tied(model: Any) -> bool:
    """Whether embedding and head of a causal language model are one tensor; adapters around them do not count."""
    embedding, head = (plain(layer) for layer in (model.get_input_embeddings(), model.get_output_embeddings()))
    return head is not None and embedding.weight is head.weight


def plain(layer: Any) -> Any:
    """The layer below the adapters or the trained copy that peft put in its place."""
    while (inner := getattr(layer, "base_layer", None) or getattr(layer, "original_module", None)) is not None:
        layer = inner
    return layer


def lora_options(model: Any, lora: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of peft's LoraConfig for settings as winner.yaml holds them."""
    targets, saved = lora["target_modules"], list(lora.get("modules_to_save") or ())
    layers = [each for each in (model.get_input_embeddings(), model.get_output_embeddings()) if each is not None]
    embedded = any(matches(name, each) for each in saved for name, module in model.named_modules() if module in layers)
    return {
        "task_type": "CAUSAL_LM",
        "r": lora["rank"],
        "lora_alpha": lora["alpha"],
        "lora_dropout": lora["dropout"],
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "modules_to_save": saved or None,
        # one tensor before, one tensor trained
        **({"ensure_weight_tying": True} if embedded and tied(model) else {}),
    }


def matches(name: str, given: str) -> bool:
    """Whether `given` is the full name of a module or its end."""
    return name == given or name.endswith(f".{given}")


def adapted_alone(model: Any) -> bool:
    """Whether adapters change the embedding but not the head that is tied to it: merged, they are two tensors."""
    base = model.get_base_model()
    return hasattr(base.get_input_embeddings(), "base_layer") and tied(base)


@torch.no_grad()
def merged(model: Any) -> Any:
    """The transformers model that computes what `model` with its adapters does; `model` is used up.

    Where adapters change an embedding that the head is tied to, the two are two tensors from here on.
    """
    if adapted_alone(model):
        head = plain(model.get_base_model().get_output_embeddings())
        head.weight = nn.Parameter(head.weight.detach().clone())
        say_tied(model.get_base_model(), False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")  # which is seen to here
        whole = model.merge_and_unload()
    say_tied(whole, tied(whole))
    return whole


def say_tied(model: Any, value: bool) -> None:
    """Let the configuration say whether embedding and head are one tensor: loaders go by it."""
    for config in (model.config, model.config.get_text_config(decoder=True)):
        if getattr(config, "tie_word_embeddings", value) != value:
            config.tie_word_embeddings = value
    if not value and hasattr(model, "all_tied_weights_keys"):
        model.all_tied_weights_keys = {}
