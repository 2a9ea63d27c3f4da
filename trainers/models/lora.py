"""Low-rank adapters on a base model: attached by a seed, refused with a reason, described in a line."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ...spaces.errors import UserError
from ...spaces.identity import derive_seed
from ..settings import LoraSettings
from .merging import lora_options, matches, plain
from .ranks import is_sharded
from .transformers_versions import old_names_of_peft

FIELD = "training.lora"


def attach_lora(model: PreTrainedModel, lora: LoraSettings, seed: int) -> nn.Module:
    """Fresh low-rank adapters on a frozen base; equal seeds give equal adapters, whatever was drawn before.

    Raises UserError for settings that fit no module of the model, and where peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError(
            "`lora` needs the package peft, which is not installed; run `pip install qtarget[lora]`", field=FIELD
        ) from error
    _check_saved(model, lora)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")  # `merged` unties where it must
        torch.manual_seed(derive_seed("lora", seed))
        try:
            with old_names_of_peft():
                adapted = peft.get_peft_model(model, peft.LoraConfig(**lora_options(model, lora.model_dump())))
        except ValueError as error:
            raise UserError(
                f"`target_modules` must name linear layers of the model, but got {_shown(lora.target_modules)} "
                f"({str(error).strip().partition(chr(10))[0]}); its linear layers are {_linear_layers(model)}: name "
                "some, give a regular expression for whole names, or `all-linear`",
                field=f"{FIELD}.target_modules",
            ) from error
    assert isinstance(adapted, nn.Module)
    return adapted


def detached(adapted: Any) -> Any:
    """The base as it was before: peft alone would leave what was trained in full (`modules_to_save`) in its place."""
    for module in list(adapted.get_base_model().modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "original_module"):
                setattr(module, name, child.original_module)
    return adapted.unload()


def unmatched(adapted: Any, lora: LoraSettings) -> list[str]:
    """Names in a list of `target_modules` that are no module of the model."""
    found = adapted.targeted_module_names
    given = [] if isinstance(lora.target_modules, str) else lora.target_modules
    return [each for each in given if not any(matches(name, each) for name in found)]


def describe_adapters(adapted: Any, lora: LoraSettings) -> tuple[str, list[str]]:
    """What is adapted and trained, in a line for people; and which names were in vain, in sentences."""
    kinds = Counter(name.rpartition(".")[2] for name in adapted.targeted_module_names)
    trained, total = adapted.get_nb_trainable_parameters()
    text = f"rank {lora.rank} on {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}"
    if lora.modules_to_save:
        text += f"; {', '.join(lora.modules_to_save)} in full"
    text += f"; {trained:,} of {total:,} parameters are trained"
    vain = [f"`lora.target_modules` names {each!r}, which no module is called" for each in unmatched(adapted, lora)]
    return text, vain


def check_added(adapted: Any, tokens: Sequence[str]) -> None:
    """Raise UserError when rows of added tokens would stay as they started: adapters freeze embedding and head."""
    base = adapted.get_base_model()
    layers = (base.get_input_embeddings(), base.get_output_embeddings())
    if tokens and any(layer is plain(layer) for layer in layers):
        wanted = [plain(layer) for layer in layers]
        found = [name for name, module in base.named_modules(remove_duplicate=False) if module in wanted]
        names = dict.fromkeys(re.sub(r"\.(base_layer|original_module)$", "", name).split(".")[-1] for name in found)
        raise UserError(
            f"added tokens ({', '.join(tokens)}) must be trained, but beside adapters embedding and head stay as they "
            f"are; set `lora.modules_to_save: [{', '.join(names)}]`",
            field=f"{FIELD}.modules_to_save",
        )


def _check_saved(model: PreTrainedModel, lora: LoraSettings) -> None:
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    vain = [each for each in lora.modules_to_save if not any(matches(name, each) for name in names)]
    if vain:
        ends = sorted({re.sub(r"\d+\.", "", name).rpartition(".")[2] for name in names} - {""})
        raise UserError(
            f"`modules_to_save` must name modules of the model, but {vain[0]!r} is none; known are {', '.join(ends)}",
            field=f"{FIELD}.modules_to_save",
        )
    if lora.modules_to_save and any(is_sharded(parameter) for parameter in model.parameters()):
        raise UserError(
            "`modules_to_save` needs whole weights on every rank, but the model is spread over them; use "
            "`strategy: ddp`, or leave it out",
            field=f"{FIELD}.modules_to_save",
        )


def _linear_layers(model: Any) -> str:
    head = model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return ", ".join(sorted(found))


def _shown(targets: tuple[str, ...] | str) -> str:
    return repr(targets) if isinstance(targets, str) else ", ".join(targets)
