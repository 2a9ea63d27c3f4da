"""Loads, adapts and saves the model of an exported design, as the search did: `target_model.py` of an export.

Settings are plain dictionaries, as `winner.yaml` holds them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from target_data import here
from target_reading.merging import lora_options, merged
from target_reading.tokens import add_tokens, end_tokens, give_rows, settle
from transformers import AutoModelForCausalLM, AutoTokenizer


def source(settings: dict[str, Any], base: Path) -> tuple[str, dict[str, Any]]:
    """Name and arguments for `from_pretrained`: a local folder, a GGUF file or a hub id."""
    place = base / here(settings["path"])
    options = {"gguf_file": settings.get("gguf_file"), "revision": settings.get("revision")}
    if place.is_file():
        place, options["gguf_file"] = place.parent, place.name
    given = {key: value for key, value in options.items() if value is not None}
    return str(place) if place.exists() else settings["path"], given | {
        "trust_remote_code": bool(settings.get("trust_remote_code"))
    }


def load_model(settings: dict[str, Any], base: Path) -> Any:
    """Weights in float32; `bf16: true` below computes in bfloat16 and keeps them.

    Raises ValueError for files that do not hold all weights, or hold what the model has no place for.
    """
    name, options = source(settings, base)
    loaded: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **options)
    model, info = loaded
    unused = settings.get("unused_tensors") or ()
    left = {each for each in info["unexpected_keys"] if not any(re.fullmatch(pattern, each) for pattern in unused)}
    if info["missing_keys"] or left:
        raise ValueError(f"{name} lacks {sorted(info['missing_keys'])} and has no place for {sorted(left)}")
    if settings.get("add_tokens"):
        known = AutoTokenizer.from_pretrained(name, **options).get_vocab().values()
        give_rows(model, set(known), set(load_tokenizer(settings, base).get_vocab().values()))
    return model


def load_tokenizer(settings: dict[str, Any], base: Path) -> Any:
    name, options = source(settings, base)
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    add_tokens(tokenizer, settings.get("add_tokens") or ())
    if settings.get("chat_template"):
        tokenizer.chat_template = (base / here(settings["chat_template"])).read_text("utf-8")
    return tokenizer


def pad_token(model: Any, tokenizer: Any) -> int:
    """A token to pad with, of those that the model has a row for."""
    rows = model.get_input_embeddings().weight.shape[0]
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((each for each in known if each is not None and each < rows), 0)


def adapters(model: Any, lora: dict[str, Any]) -> Any:
    """Low-rank adapters as the search trained them."""
    from peft import LoraConfig

    return LoraConfig(**lora_options(model, lora))


def base_of(model: Any) -> Any:
    """The transformers model, its adapters still active when it carries any."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def save(trainer: Any, winner: dict[str, Any], base: Path, out: Path) -> None:
    """The trained model in `out`, ending its answers where the training ended them.

    Adapters lie in `out/adapter`, and merged into their base in `out`: a model that stands alone.
    """
    adapted, model = hasattr(trainer.model, "peft_config"), base_of(trainer.model)
    tokenizer = settled(model, trainer.processing_class, winner)
    trainer.save_model(str(out / "adapter" if adapted else out))
    if not trainer.accelerator.is_main_process:
        return
    if adapted:
        from peft import PeftModel

        whole = merged(PeftModel.from_pretrained(load_model(winner["model"], base), str(out / "adapter")))
        tokenizer = settled(whole, load_tokenizer(winner["model"], base), winner)
        whole.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))


def settled(model: Any, tokenizer: Any, winner: dict[str, Any]) -> Any:
    """Let `model` end its answers where the training ended them; the tokenizer to save with it."""
    tasks = (winner.get("evaluation") or {}).get("tasks") or ()
    chat = bool(tokenizer.chat_template) and (winner["data"]["chat"] or any(task.get("chat", True) for task in tasks))
    return settle(model, tokenizer, end_tokens(model, tokenizer, chat=chat), chat=chat)
