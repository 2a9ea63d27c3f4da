"""The key of a cache, from what a study names: found without loading the teacher's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file, extract_commit_hash

from ...spaces.errors import UserError
from ...spaces.identity import content_id
from ..data.demonstrations import Demonstrations
from ..paths import local_path
from ..settings import CacheSettings, ModelSettings
from .format import CacheKey, file_sha256

WEIGHT_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")


def cache_key(
    model: ModelSettings,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    data: Demonstrations,
    *,
    max_length: int,
    precision: Literal["fp32", "bf16"] = "fp32",
    cache: CacheSettings | None = None,
    content: Literal["rows", "label"] = "rows",
) -> CacheKey:
    """Key of the cache of `model` over `data`; relative paths start at `base`. Labels alone know no other setting.

    Raises UserError when the model is not there.
    """
    cache = cache or CacheSettings()
    if content == "label":
        cache = CacheSettings(dtype=cache.dtype)
    vocabulary = tokenizer.get_vocab()
    return CacheKey(
        model=model_content(model, base),
        tokenizer=content_id(vocabulary),
        data=data.fingerprint,
        template=content_id({"chat_template": tokenizer.chat_template}),
        max_length=max_length,
        vocab=max(vocabulary.values()) + 1,
        k=cache.k,
        tail_mass=cache.tail_mass,
        min_prob=cache.min_prob,
        dtype=cache.dtype,
        precision=precision,
        content=content,
    )


def model_content(model: ModelSettings, base: Path, *, field: str = "teacher", hub_cache: Path | None = None) -> str:
    """Content hash of a model: the bytes of its local files, or its commit on the hub, copied in `hub_cache`."""
    local = local_path(model.path, base, suffixes=(".gguf", ".safetensors"), field=f"{field}.path")
    if local is None:
        return content_id({"hub": model.path, "commit": _commit(model, field, hub_cache), "gguf": model.gguf_file})
    if local.is_file() or model.gguf_file:
        files = [local if local.is_file() else local / str(model.gguf_file)]
    else:
        files = sorted({path for pattern in WEIGHT_FILES for path in local.glob(pattern)})
    if not any(path.suffix in (".gguf", ".safetensors") and path.is_file() for path in files):
        raise UserError(
            f"`path` must be a model folder with *.safetensors or a GGUF file, but {local} has neither; save the model "
            "with `save_pretrained`",
            field=f"{field}.path",
        )
    return content_id({"files": {path.name: file_sha256(path) for path in files}})


def _commit(model: ModelSettings, field: str, hub_cache: Path | None) -> str:
    try:
        found = cached_file(model.path, model.gguf_file or CONFIG_NAME, revision=model.revision, cache_dir=hub_cache)
    except OSError as error:
        raise UserError(
            f"`path` must be a local folder, a GGUF file or a model on the hub, but {model.path} cannot be found "
            f"({error}); check the name and the network",
            field=f"{field}.path",
        ) from error
    commit = extract_commit_hash(found, None)
    assert isinstance(commit, str), f"{found} is not in the hub's cache"
    return commit
