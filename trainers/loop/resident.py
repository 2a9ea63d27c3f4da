"""A base model that stays in memory between trials and is reset in place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Set
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from ...spaces.errors import UserError
from ..data.demonstrations import Demonstrations
from ..data.fit import check_fit
from ..models.load import (
    Precision,
    check_vocabulary,
    load_model,
    load_tokenizer,
    model_fingerprint,
    pad_token_id,
)
from ..models.lora import attach_lora, check_added, describe_adapters, detached
from ..models.memory import keep_freed
from ..models.ranks import gathered, local, shard
from ..models.tokens import end_tokens
from ..settings import LoraSettings, ModelSettings
from ..teachers.answers import Answers
from ..teachers.sources import FrozenModel


class ResidentModel:
    """Loads a model once; every trial starts from `fresh()`.

    Under full fine-tuning the untouched weights live in a second copy: on the device when a reference is needed (the
    copy is the reference), in host memory otherwise. Under LoRA the base itself is never changed.
    """

    def __init__(
        self,
        settings: ModelSettings,
        base: Path,
        *,
        precision: Precision = "fp32",
        device: torch.device | None = None,
        reference: bool = False,
        teacher: ModelSettings | None = None,
        sharded: bool = False,
    ) -> None:
        """`reference`: full fine-tunes will need the base's distribution. `sharded`: over all ranks (`ranks.py`).

        Raises UserError as the loaders do.
        """
        self.device = device or PartialState().device  # that of this rank
        if self.device.type == "cpu":
            keep_freed()
        self._sharded, self._added = sharded, settings.add_tokens
        self.tokenizer = load_tokenizer(settings, base)
        self._model: Any = self._load(settings, base, precision)
        self.pad_token_id = pad_token_id(self.tokenizer, self._model.get_input_embeddings().weight.shape[0])
        self.chat = bool(self.tokenizer.chat_template)
        """Whether answers end as the chat template ends them (`meet`)."""
        self.fingerprint = model_fingerprint(self._model)
        """Content of the base weights."""
        self._adapted: nn.Module | None = None
        self._changed = False
        self._frozen: FrozenModel | None = None
        self._host: dict[str, Tensor] | None = None
        self._answers: Answers | None = None
        if reference:
            self._frozen = FrozenModel(self._placed(copy.deepcopy(self._model)))
        self._placed(self._model)
        self.teacher_fingerprint: str | None = None
        self.teacher = None if teacher is None else self._load_teacher(teacher, base, precision)

    @property
    def real_vocab(self) -> int | None:
        """Tokens the tokenizer knows, where the head is padded beyond them; else None."""
        rows = self._model.get_output_embeddings().weight.shape[0]
        known = max(self.tokenizer.get_vocab().values()) + 1
        return known if known < rows else None

    def meet(self, data: Demonstrations, *, chat: bool) -> None:
        """Learn what will be trained on; from here on the model itself says where answers end.

        `chat`: whether demonstrations or problems go through the chat template. Raises UserError, with the row, for
        a demonstration that model or teacher cannot read.
        """
        check_fit(data, self._model, self.tokenizer)
        if self.teacher is not None:
            check_fit(data, self.teacher.model, self.tokenizer, field="teacher")
        self.chat = chat
        self._model.generation_config.eos_token_id = sorted(self.end_tokens) or None

    def remember(self) -> None:
        """Ask reference and teacher once about each batch of the data met, whichever training asks.

        Not those of a sharded model: its ranks answer together, or not at all.
        """
        if self._sharded:
            return
        self._answers = Answers()
        if self._frozen is not None:
            self._frozen.answers = self._answers
        if self.teacher is not None:
            self.teacher.answers = Answers()

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        return end_tokens(self._model, self.tokenizer, chat=self.chat)

    def described_adapters(self, lora: LoraSettings) -> tuple[str, list[str]]:
        """What `lora` adapts, in a line for people, and what is worth a look. Ends the life of the last model."""
        return describe_adapters(self.fresh(lora), lora)

    @property
    def trained_parameters(self) -> int:
        """How many a run trains: all, or those of the adapters that are on."""
        if self._adapted is None:
            return sum(each.numel() for each in self._model.parameters())
        return sum(each.numel() for each in self._adapted.parameters() if each.requires_grad)

    def fresh(self, lora: LoraSettings | None = None, *, seed: int = 0) -> nn.Module:
        """The base with its original weights, with new adapters when `lora` is given. Ends the life of the last one."""
        self._detach_adapters()
        if self._changed:
            self._restore()
        if lora is not None:
            self._adapted = attach_lora(self._model, lora, seed)
            check_added(self._adapted, self._added)
            return self._adapted
        self._keep_original()
        self._changed = True
        model: nn.Module = self._model
        model.requires_grad_(True)
        return model

    def reference(self) -> FrozenModel:
        """The untouched base, beside the model that `fresh` gave last."""
        if self._adapted is not None:
            return FrozenModel(self._adapted, adapters_off=True, answers=self._answers)
        if self._frozen is None:
            raise UserError("full fine-tuning needs a second copy of the base as reference; load with `reference=True`")
        return self._frozen

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, the model and its reference answer without other ranks (`ranks.gathered`)."""
        with gathered(self._model), gathered(self._frozen.model) if self._frozen else nullcontext():
            yield

    def _load(self, settings: ModelSettings, base: Path, precision: Precision, field: str = "model") -> Any:
        """On the device, or in host memory until it is sharded."""
        device = torch.device("cpu") if self._sharded else self.device
        return load_model(settings, base, precision, device=device, field=field)

    def _placed(self, model: nn.Module) -> nn.Module:
        if self._sharded:
            shard(model, self.device)
        return model

    def _load_teacher(self, settings: ModelSettings, base: Path, precision: Precision) -> FrozenModel:
        known = check_vocabulary(self.tokenizer, load_tokenizer(settings, base, field="teacher"))
        teacher: Any = self._load(settings, base, precision, field="teacher")
        self.teacher_fingerprint = model_fingerprint(teacher)
        rows, ours = (model.get_output_embeddings().weight.shape[0] for model in (teacher, self._model))
        return FrozenModel(self._placed(teacher), vocab=None if rows == ours else known)

    def _detach_adapters(self) -> None:
        if self._adapted is not None:
            self._model = detached(self._adapted)
            self._adapted = None

    def _originals(self) -> dict[str, Tensor]:
        if self._frozen is not None:
            return dict(self._frozen.model.named_parameters())
        assert self._host is not None
        return self._host

    def _keep_original(self) -> None:
        if self._frozen is None and self._host is None:
            self._host = {n: local(p.detach()).to("cpu", copy=True) for n, p in self._model.named_parameters()}

    @torch.no_grad()
    def _restore(self) -> None:
        originals = self._originals()
        for name, parameter in self._model.named_parameters():
            local(parameter).copy_(local(originals[name]))
            parameter.grad = None
        self._changed = False


def needs_frozen_copy(needs: Set[str], lora: LoraSettings | None) -> bool:
    """Whether designs with these needs require a second copy of the base."""
    return lora is None and "reference" in needs
