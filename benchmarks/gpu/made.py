"""Sizes, and models, data and problems made of random numbers: nothing is downloaded.

Letters: N tokens, H width, V vocabulary, K cached entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from qtarget.trainers.data.demonstrations import Demonstration, Demonstrations


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    name: str
    share: float
    """Of the time that a measurement takes at full size."""
    stretch: float
    """Of the time that a part may take."""
    slack: float
    """Seconds that any measurement may take before it counts as hung."""
    loss: tuple[int, int, int, int]
    """N, H, V, K of the loss layer."""
    gate: tuple[int, int]
    """Tokens and width where float64 holds (tokens, vocab)."""
    vocabularies: tuple[int, ...]
    presets: tuple[str, ...] | None
    """None: all."""
    repeats: int
    model: dict[str, Any]
    """Configuration of the Llama of parts c and e."""
    lengths: tuple[int, int]
    """Shortest and longest demonstration, tokens."""
    batch: tuple[int, int]
    """Effective batch and micro-batch, sequences."""
    steps: int
    prompts: int
    new_tokens: int
    batch_sizes: tuple[int, ...]
    """Sequences that are decoded together."""
    study: dict[str, Any]
    """What the world and the study of part d are cut down to."""
    trials: int
    """Of the studies of part g."""


FULL = Sizes(
    name="full",
    share=1.0,
    stretch=1.0,
    slack=30.0,
    loss=(8192, 2048, 151936, 64),
    gate=(193, 256),
    vocabularies=(151936, 49152),
    presets=None,
    repeats=7,
    model={
        "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
    },
    lengths=(256, 1024),
    batch=(32, 8),
    steps=5,
    prompts=128,
    new_tokens=64,
    batch_sizes=(64, 128),
    study={},
    trials=8,
)  # fmt: skip
TINY = Sizes(
    name="tiny",
    share=0.0,
    stretch=100.0,
    slack=300.0,
    loss=(24, 16, 160, 4),
    gate=(7, 8),
    vocabularies=(75,),
    presets=("sft", "target_sft", "label_smoothing", "talr"),
    repeats=2,
    model={
        "vocab_size": 160, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "max_position_embeddings": 256,
    },
    lengths=(8, 24),
    batch=(4, 2),
    steps=3,
    prompts=6,
    new_tokens=8,
    batch_sizes=(2, 4),
    study={"trials": 2, "steps": 4, "problems": 8, "world": {"width": 16, "layers": 1, "pretraining_steps": 4}},
    trials=2,
)  # fmt: skip


def device() -> torch.device:
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def wait() -> None:
    """Until the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def peak() -> Iterator[dict[str, int | None]]:
    """Bytes that the allocator reached inside beyond what it held before; None without a GPU."""
    found: dict[str, int | None] = {"bytes": None}
    if not torch.cuda.is_available():
        yield found
        return
    wait()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    yield found
    wait()
    found["bytes"] = torch.cuda.max_memory_allocated() - before


def llama(configuration: dict[str, Any], dtype: torch.dtype, seed: int = 0, **changes: Any) -> Any:
    """A Llama with random weights on the device."""
    config = LlamaConfig(**{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **configuration, **changes})
    with torch.random.fork_rng(), device():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def demonstrations(count: int, lengths: tuple[int, int], vocab: int, seed: int = 0) -> Demonstrations:
    """Random tokens of evenly spread lengths; the second half of each has a loss."""
    generator = torch.Generator().manual_seed(seed)
    shortest, longest = lengths
    made = []
    for number in range(count):
        length = shortest + (longest - shortest) * (number * 7 % count) // max(1, count - 1)
        ids = torch.randint(3, vocab, (length,), generator=generator, dtype=torch.int32)
        made.append(Demonstration(ids, torch.arange(length) >= length // 2))
    return Demonstrations(tuple(made), num_rows=count)


def tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """One word a token: t0, t1, ..."""
    backend = Tokenizer(models.WordLevel({f"t{number}": number for number in range(vocab)}, unk_token="t0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="t0", pad_token="t0", eos_token="t2")
