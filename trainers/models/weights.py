"""Are the weights of a model all there, of the right shape, and finite? Asked once, before a night."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...spaces.errors import UserError

SHOWN = 3
"""Tensors that a message names."""


def check_loaded(info: Mapping[str, Any], path: str, unused: Sequence[str], field: str) -> None:
    """Raise UserError for tensors that the model lacks, has in another shape, or cannot place.

    `info`: what `from_pretrained(output_loading_info=True)` says; `unused`: patterns of tensors that may stay unread.
    """
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"the files of a model must hold all its weights, but those of {path} lack {_named(missing)}: it would "
            "train from random ones; save the model whole, with its head (`AutoModelForCausalLM`)",
            field=f"{field}.path",
        )
    shapes = sorted((name, tuple(found), tuple(wanted)) for name, found, wanted in info["mismatched_keys"])
    if shapes:
        told = [f"{name} ({list(found)} instead of {list(wanted)})" for name, found, wanted in shapes]
        raise UserError(
            f"the weights of a model must have the shapes that its config.json says, but in {path} it is otherwise "
            f"with {_named(told)}; mend config.json, or save the model again",
            field=f"{field}.path",
        )
    left = sorted(name for name in info["unexpected_keys"] if not any(re.fullmatch(each, name) for each in unused))
    if left:
        raise UserError(
            f"a model must have a place for every tensor of its files, but there is none for {_named(left)} of {path}: "
            "config.json may say another model; mend it, or name what may stay unread in `unused_tensors`",
            field=f"{field}.unused_tensors",
        )


@torch.no_grad()
def check_finite(model: nn.Module, path: str, field: str) -> None:
    """Raise UserError that names the weights which are not finite."""
    broken = [f"{name} ({_broken(tensor)})" for name, tensor in model.named_parameters() if not _finite(tensor)]
    if broken:
        raise UserError(
            f"the weights of a model must be finite, but those of {path} are not: {_named(broken)}; get or save the "
            "model again",
            field=f"{field}.path",
        )


def _finite(tensor: torch.Tensor) -> bool:
    """Without a copy of the tensor: least and largest entry are NaN where any is."""
    return tensor.numel() == 0 or all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor))


def _broken(tensor: torch.Tensor) -> str:
    return f"{int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} entries"


def _named(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - SHOWN
    return ", ".join(listed[:SHOWN]) + (f" and {more} more" if more > 0 else "")
