"""Causal language models and tokenizers from the hub, a local folder or a GGUF file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from ...spaces.errors import UserError
from ..paths import local_path, refuse_unreadable
from ..settings import LoraSettings, ModelSettings
from .lora import attach_lora
from .tokens import add_tokens, give_rows
from .weights import check_finite, check_loaded

Precision = Literal["fp32", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
FIELD = "model"


@dataclass(frozen=True)
class ModelSource:
    """Arguments that `from_pretrained` needs to find a model."""

    path: str
    gguf_file: str | None
    revision: str | None
    trust_remote_code: bool

    @property
    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.gguf_file is not None:
            found["gguf_file"] = self.gguf_file
        if self.revision is not None:
            found["revision"] = self.revision
        return found


def load_tokenizer(settings: ModelSettings, base: Path, *, field: str = FIELD) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with the chat template of the settings when they name one.

    Relative paths start at `base`. Raises UserError when the model or the template cannot be read.
    """
    tokenizer = _plain_tokenizer(settings, base, field)
    add_tokens(tokenizer, settings.add_tokens)
    if settings.chat_template is not None:
        template = local_path(settings.chat_template, base, suffixes=("",), field=f"{field}.chat_template")
        assert template is not None
        tokenizer.chat_template = _template(template, f"{field}.chat_template")
    return tokenizer


def _template(path: Path, field: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"`{field}` must be a file of UTF-8 text, but {path} is not ({error}); mend it", field=field
        ) from error


def load_model(
    settings: ModelSettings,
    base: Path,
    precision: Precision,
    lora: LoraSettings | None = None,
    seed: int = 0,
    *,
    device: torch.device | None = None,
    field: str = FIELD,
) -> nn.Module:
    """A causal language model with weights in `precision`, with fresh adapters when `lora` is given.

    Raises UserError when it cannot be read, has no safetensors, lacks a weight, has one that is not finite or that it
    cannot place, or when a needed extra is missing.
    """
    source = source_of(settings, base, field)
    if source.gguf_file is not None:
        _require_gguf(field)
    weights = {"use_safetensors": True} if source.gguf_file is None else _dequantized()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.path,
            dtype=DTYPES[precision],
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **weights,
            **source.arguments,
        )
    except Exception as error:
        raise _unreadable("model", settings, error, field) from error
    model, info = loaded
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(
            f"`path` must be a whole model, but {settings.path} holds adapters for another one; merge them into it "
            "first (peft: `merge_and_unload`, then `save_pretrained`)",
            field=f"{field}.path",
        )
    check_loaded(info, settings.path, settings.unused_tensors, field)
    check_finite(model, settings.path, field)
    if source.gguf_file is not None:
        _drop_quantization(model)
    if settings.add_tokens:
        known = _plain_tokenizer(settings, base, field).get_vocab().values()
        give_rows(model, set(known), set(load_tokenizer(settings, base, field=field).get_vocab().values()))
    placed: PreTrainedModel = model if device is None else model.to(device)
    return placed if lora is None else attach_lora(placed, lora, seed)


def pad_token_id(tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    """A token to pad with on the right, where no position with a loss can see it; one of the model's `rows`."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(candidate, int) and candidate < rows:
            return candidate
    return 0


def model_fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights; the precision of loading counts."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_vocabulary(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> int:
    """Size of the common vocabulary of two tokenizers that mean the same by every id.

    Heads may be padded to different sizes; tokens may not differ. Raises UserError with the differences.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours != theirs:
        differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        shown = ", ".join(f"{token!r}: {ours.get(token)} / {theirs.get(token)}" for token in differing[:5])
        raise UserError(
            f"the teacher must have the vocabulary of the model, but {len(differing)} tokens differ in their ids "
            f"(model / teacher: {shown}{', ...' if len(differing) > 5 else ''}); choose a teacher "
            "of the same family, with the same `add_tokens`",
            field="teacher.path",
        )
    return max(ours.values()) + 1


def _plain_tokenizer(settings: ModelSettings, base: Path, field: str) -> PreTrainedTokenizerBase:
    """As it lies in the model's folder."""
    source = source_of(settings, base, field)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.arguments)
    except Exception as error:  # hub client, file formats and remote code raise their own classes
        raise _unreadable("tokenizer", settings, error, field) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def source_of(settings: ModelSettings, base: Path, field: str) -> ModelSource:
    """Where transformers finds the model of the settings. Raises UserError for a path that can be no model."""
    local = local_path(settings.path, base, suffixes=(".gguf", ".safetensors"), field=f"{field}.path")
    path, gguf = settings.path, settings.gguf_file
    if local is not None:
        path = str(local)
        for file in sorted(local.iterdir()) if local.is_dir() else [local]:
            refuse_unreadable(
                file, f"{settings.path}/{file.name}" if local.is_dir() else settings.path, f"{field}.path"
            )
        if local.is_file() and local.suffix != ".gguf":
            raise UserError(
                f"`path` must be a folder, a GGUF file or a hub id, but {local} is another file; give the folder "
                "that holds config.json",
                field=f"{field}.path",
            )
        if local.is_file():
            path, gguf = str(local.parent), local.name
    return ModelSource(path, gguf, settings.revision, settings.trust_remote_code)


def _dequantized() -> dict[str, Any]:
    """Ask for dense weights where transformers would keep the blocks of a GGUF file packed."""
    return {"quantization_config": GgufConfig(dequantize=True)}


def _require_gguf(field: str) -> None:
    try:
        import gguf  # noqa: F401  # transformers reads GGUF through it
    except ImportError as error:
        raise UserError(
            "a GGUF model needs the package gguf, which is not installed; run `pip install qtarget[gguf]`",
            field=f"{field}.path",
        ) from error


def _drop_quantization(model: Any) -> None:
    """The weights are dense by now; without the note of their origin the model can be trained and saved."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _unreadable(what: str, settings: ModelSettings, error: Exception, field: str) -> UserError:
    return UserError(
        f"`path` must name a {what} that can be read, but {settings.path} failed with {type(error).__name__}: "
        f"{str(error).strip().partition(chr(10))[0]}; check the name and the network, or give a "
        "local folder with config.json, tokenizer.json and *.safetensors",
        field=f"{field}.path",
    )
