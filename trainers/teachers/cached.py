"""The cached distribution of a model that a study names: opened when it is there, built first when it is not."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..data.batches import collate
from ..data.demonstrations import Demonstrations
from ..data.fit import check_fit
from ..models.head import output_head
from ..models.load import Precision, check_vocabulary, load_model, load_tokenizer, pad_token_id
from ..settings import CacheSettings, DataSettings, ModelSettings
from .bias import CacheBias, cache_bias
from .build import Progress, Ranks, build
from .cache import TeacherCache
from .format import CacheError, CacheKey
from .key import cache_key
from .sources import CachedModel, FrozenModel
from .store import cache_folder, default_root

BIAS_BATCH = 4
"""Demonstrations of a forward pass when a cache's bias is measured."""


class CachedModels:
    """Teachers and references over the demonstrations of a study; each is loaded only when its cache must be built."""

    def __init__(
        self,
        data: Demonstrations,
        data_settings: DataSettings,
        tokenizer: PreTrainedTokenizerBase,
        base: Path,
        *,
        settings: CacheSettings | None = None,
        precision: Precision = "fp32",
        root: Path | None = None,
    ) -> None:
        """`tokenizer` is the student's; relative paths start at `base`; `root` defaults to `default_root()`."""
        self.data, self.tokenizer, self.base, self.precision = data, tokenizer, base, precision
        self.max_length = data_settings.max_length
        self.settings = settings or CacheSettings()
        self.root = root or default_root()

    def open(self, model: ModelSettings, *, rows: bool = True) -> CachedModel:
        """The cache of `model`; without `rows` that of its labels alone, or one of its rows where that is all there is.

        Raises CacheError with the command that builds it: missing, unfinished, stale, torn.
        """
        if rows:
            return self._opened(self._key(model, rows=True))
        try:
            return self._opened(self._key(model, rows=False))
        except CacheError as missing:
            try:
                return self._opened(self._key(model, rows=True))
            except CacheError:
                raise missing from None

    def open_or_build(
        self,
        model: ModelSettings,
        *,
        rows: bool = True,
        device: torch.device | None = None,
        on_progress: Progress | None = None,
    ) -> CachedModel:
        """The cache of `model`, after building, continuing or repairing it if need be. Every rank calls this.

        `rows`: whether more than the label is looked at. Raises CacheError and UserError as `build` and the loaders do.
        """
        try:
            found = self.open(model, rows=rows)
        except CacheError:
            found = None
        if not _everywhere(found is not None):
            self._build(model, rows, device, on_progress)
            found = self.open(model, rows=rows)
        assert found is not None
        return found

    def bias(
        self, model: ModelSettings, student: nn.Module, *, examples: int = 16, device: torch.device | None = None
    ) -> CacheBias:
        """What the cache of `model` loses for this student, on some demonstrations spread over the data.

        Loads the model. For the student's own base the gradients and their cosines are rounding noise, the divergence
        is not.
        """
        cache, teacher = self.open(model).cache, self._load(model, device)
        rows = [len(head.weight) for head in (teacher.head, output_head(student))]
        if rows[0] != rows[1]:
            teacher.vocab = cache.manifest.key.vocab
        chosen = sorted({len(self.data) * number // examples for number in range(examples)})
        pad = pad_token_id(self.tokenizer, min(rows))
        batches = [
            collate([self.data[i] for i in part], part, pad).to(teacher.head.weight.device)
            for part in (chosen[start : start + BIAS_BATCH] for start in range(0, len(chosen), BIAS_BATCH))
        ]
        return cache_bias(student, teacher, {"": cache}, batches)[""]

    def _opened(self, key: CacheKey) -> CachedModel:
        return CachedModel(TeacherCache.open(cache_folder(self.root, key), key))

    def _build(
        self, model: ModelSettings, rows: bool, device: torch.device | None, on_progress: Progress | None
    ) -> None:
        teacher = self._load(model, device)
        pad = pad_token_id(self.tokenizer, len(teacher.head.weight))
        build(teacher, self.data, self._key(model, rows), self.root, pad_token_id=pad, on_progress=on_progress)

    def _load(self, model: ModelSettings, device: torch.device | None) -> FrozenModel:
        check_vocabulary(self.tokenizer, load_tokenizer(model, self.base, field="teacher"))
        teacher = load_model(model, self.base, self.precision, device=device, field="teacher")
        check_fit(self.data, teacher, self.tokenizer, field="teacher")
        return FrozenModel(teacher)

    def _key(self, model: ModelSettings, rows: bool) -> CacheKey:
        return cache_key(
            model,
            self.base,
            self.tokenizer,
            self.data,
            max_length=self.max_length,
            precision=self.precision,
            cache=self.settings,
            content="rows" if rows else "label",
        )


def _everywhere(found: bool) -> bool:
    """Whether all ranks found it: they must build together or not at all."""
    if Ranks.current().world == 1:
        return found
    everyone = [False] * Ranks.current().world
    torch.distributed.all_gather_object(everyone, found)
    return all(everyone)
