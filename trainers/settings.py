"""What decides a training run: model, data and optimisation. Free of torch, so that any process may read it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..spaces.settings import GrownSettings, Settings


class ModelSettings(GrownSettings):
    """Where a causal language model comes from."""

    LATER: ClassVar[frozenset[str]] = frozenset({"add_tokens", "unused_tensors"})

    path: str
    """Hub id, local folder, or a GGUF file (then the tokenizer comes from the same file)."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    gguf_file: str | None = None
    """Name of the GGUF file inside `path`, when `path` is a folder or hub id that holds several."""
    chat_template: str | None = None
    """File with a Jinja chat template that replaces the tokenizer's own."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository carries. Only for models you have read."""
    add_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts to make one token each. What the model has no row for gets one, at the mean of the rows it has."""
    unused_tensors: tuple[str, ...] = ()
    """Regular expressions for names of tensors that the files hold and the model leaves unread, such as
    `vision_tower\\..*`. Any other such tensor is refused."""

    @field_validator("unused_tensors")
    @classmethod
    def _patterns(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            _pattern("unused_tensors", each)
        return given


class LoraSettings(GrownSettings):
    """Low-rank adapters (needs the `lora` extra); the reference is then the same model with adapters off."""

    LATER: ClassVar[frozenset[str]] = frozenset({"modules_to_save"})

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: tuple[str, ...] | str = "all-linear"
    """What is adapted: `all-linear` (all linear layers but the head), a list of names (`q_proj`, or longer ends of
    full names), or a regular expression that whole names must match (`.*layers\\.[0-7]\\..*q_proj`)."""
    modules_to_save: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Modules trained in full beside the adapters: names as above. `[embed_tokens, lm_head]` for added tokens."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _names_or_a_pattern(cls, given: Any) -> Any:
        names = list(given) if isinstance(given, list | tuple) else [given]
        if not names or not all(isinstance(name, str) and name for name in names):
            rule = "`target_modules` must be `all-linear`, a list of names or a regular expression"
            raise ValueError(f"{rule}, but got {given!r}")
        if not isinstance(given, str) or given == "all-linear":
            return given
        _pattern("target_modules", given)
        return (given,) if re.fullmatch(r"\w+", given) else given


def _pattern(key: str, given: str) -> None:
    try:
        re.compile(given)
    except re.error as error:
        raise ValueError(f"`{key}` must be a regular expression, but {given!r} is none ({error})") from None


class SourceSettings(Settings):
    """One source of several; what it leaves out is as in `DataSettings`."""

    path: str
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of its demonstrations among all, relative to the other sources; none is repeated. None: all of them."""
    name: str | None = None
    split: str | None = None
    messages_column: str | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    text_column: str | None = None


class DataSettings(GrownSettings):
    """Demonstrations: JSONL, JSON, CSV or Parquet, or a data set of the hub."""

    path: str | Annotated[tuple[str | SourceSettings, ...], Field(min_length=1)]
    """File (also .gz, .bz2, .xz), pattern (`parts/*.jsonl`), folder, or hub id; or a list of these, each with a
    `weight` where they are to be mixed."""
    name: str | None = None
    """Configuration of the data set (`load_dataset(path, name)`)."""
    split: str = "train"
    """Also a part of one, as `train[:1000]`, or several, as `train+test`."""
    messages_column: str | None = None
    """Column with a list of {role, content}, or of ShareGPT's {from, value}."""
    prompt_column: str | None = None
    completion_column: str | None = None
    text_column: str | None = None
    """Column with texts that are learnt whole, as they are. Where no column is named, these are looked for in this
    order: `messages`; `conversations`; `prompt` and `completion`; `instruction`, `input` and `output`; `text`."""
    tools_column: str | None = None
    """Column with a conversation's tools, which the chat template gets; default: `tools`, where a row has it."""
    chat: bool = True
    """Render through the chat template; false: prompt and completion are plain text, joined as they are."""
    chat_template_kwargs: dict[str, Any] = Field(default={})
    """Variables of the chat template, e.g. `enable_thinking: false`; tasks take them over. A row's column of this name
    comes on top."""
    learn: Literal["last", "all"] = "last"
    """Assistant messages of `messages` that are learnt: the last, or all without `weight: 0` or `train: false`."""
    critical_column: str | None = None
    """Column with, per completion, the character spans [[start, end], ...] that are critical (CFT's mask)."""
    weight_column: str | None = None
    """Column with, per row, how often it counts: a number for the whole answer, one number a token of it, or character
    spans [[start, end, weight], ...] of the completion (1 elsewhere). 0 is no loss at all. A learnt message's key
    `weight` comes on top."""
    reference_logprob_column: str | None = None
    """Column with, per row, the log-probability of each token of the answer under a reference, nats: then designs that
    look at no more of it (`asft_k3`, `flow`, ...) ask no model."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Tokens, prompt and completion together; longer demonstrations are counted and left out."""
    max_examples: Annotated[int, Field(ge=1)] | None = None
    """Keep this many demonstrations, drawn by a seeded hash of their content."""

    LATER: ClassVar[frozenset[str]] = frozenset({"weight_column", "reference_logprob_column"})

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all sources."""
        entries = (self.path,) if isinstance(self.path, str) else self.path
        return tuple(entry if isinstance(entry, str) else entry.path for entry in entries)

    @property
    def title(self) -> str:
        """The name of the data for people: that of the first source, without its suffixes."""
        return Path(Path(self.paths[0]).name.removesuffix(".gz")).stem

    @model_validator(mode="after")
    def _kinds_fit(self) -> Self:
        if self.chat_template_kwargs and not self.chat:
            raise ValueError("`chat_template_kwargs` must be empty with `chat: false`, but is not; remove one of them")
        if self.learn == "all" and self.critical_column is not None:
            raise ValueError("`learn: all` must go without `critical_column`, which marks one completion; keep one")
        return self


class CacheSettings(Settings):
    """What is kept on disk of a teacher's or reference's distribution at each labelled token."""

    k: Annotated[int, Field(ge=1, le=2**16 - 1)] = 64
    """Most entries kept for a token; the vocabulary's size keeps everything."""
    tail_mass: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Keep only as many entries as leave this much probability in the tail; 0: no such limit."""
    min_prob: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Keep only entries at least this probable, and always the first; 0: no such limit. With k = 512, 1e-4 spends the
    bytes of k = 64 where the mass is, for a smaller divergence."""
    dtype: Literal["float16", "float32"] = "float16"
    """Storage of log-probs."""


class TrainingSettings(Settings):
    """One fine-tune."""

    steps: Annotated[int, Field(ge=1)] = 100
    """Optimiser steps."""
    effective_batch: Annotated[int, Field(ge=1)] = 32
    """Sequences per optimiser step, over all micro-batches and ranks."""
    micro_batch: Annotated[int, Field(ge=1)] = 8
    """Sequences per forward pass on one rank; must divide `effective_batch`."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps with a linearly rising learning rate."""
    decay: Literal["cosine", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    adam_betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest global gradient norm; None switches clipping off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    lora: LoraSettings | None = None
    """None: full fine-tuning."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 50
    """Steps between checkpoints that a killed trial resumes from."""
    loss: Literal["fused", "dense"] = "fused"
    """`dense` materialises (tokens, vocab); for checks only."""
    old_policy_every: Annotated[int, Field(ge=1)] = 8
    """Steps between refreshes of the previous policy (Proximal SFT)."""

    def knob(self, name: str) -> Any:
        """A setting by its name; those of adapters are named like `lora.rank`, and are None without adapters."""
        section, _, leaf = name.rpartition(".")
        return getattr(getattr(self, section) if section else self, leaf, None)

    def with_knobs(self, knobs: Mapping[str, Any]) -> Self:
        """The same settings but for some, by their names. Raises ValueError for values that they must not have."""
        content = self.model_dump()
        for name, value in knobs.items():
            section, _, leaf = name.rpartition(".")
            content |= {section: {**(content[section] or {}), leaf: value}} if section else {leaf: value}
        return type(self).model_validate(content)

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        if self.effective_batch % self.micro_batch:
            raise ValueError(
                f"`effective_batch` must be a multiple of `micro_batch`, but got {self.effective_batch} and "
                f"{self.micro_batch}; choose a `micro_batch` that divides it"
            )
        return self
