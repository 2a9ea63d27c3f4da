"""How large a model is, by its configuration alone: no weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ...spaces.errors import UserError
from ..settings import ModelSettings
from .load import source_of


@dataclass(frozen=True)
class Size:
    """What decides memory and time of a fine-tune."""

    architecture: str
    parameters: int
    layers: int
    width: int
    """Of a hidden state."""
    vocabulary: int
    """Rows of the head."""
    positions: int | None
    """Most tokens that the model reads; None where it knows no such limit."""


def size_of(settings: ModelSettings, base: Path, *, field: str = "model") -> Size:
    """The size of a causal language model; relative paths start at `base`. Raises UserError where there is none."""
    source = source_of(settings, base, field)
    try:
        config: Any = AutoConfig.from_pretrained(source.path, **source.arguments)
        with torch.device("meta"):
            make: Any = AutoModelForCausalLM.from_config
            model: Any = make(config, trust_remote_code=settings.trust_remote_code)
    except Exception as error:  # hub client, file formats and remote code raise their own classes
        raise UserError(
            f"`{field}.path` must name a causal language model, but {settings.path} failed with "
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}; give a folder with config.json, a "
            "GGUF file, or a hub id",
            field=f"{field}.path",
        ) from error
    text = config.get_text_config(decoder=True)
    return Size(
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=int(getattr(text, "num_hidden_layers", 1)),
        width=int(model.get_input_embeddings().embedding_dim),
        vocabulary=int(model.get_output_embeddings().weight.shape[0]),
        positions=getattr(text, "max_position_embeddings", None),
    )
