"""A model, a tokenizer and data that are small enough to check by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from qtarget.trainers.data.demonstrations import Demonstrations
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.settings import DataSettings

CHARACTERS = "0123456789+-=. abcdefghijklmnopqrstuvwxyz\n"
TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, with special tokens for the turns of a conversation."""
    special = ["<pad>", "<e>", "<u>", "<a>", "<s>"]
    vocabulary = {token: number for number, token in enumerate([*special, *CHARACTERS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<e>", extra_special_tokens=special[2:]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer()


@pytest.fixture(scope="session")
def make_model(tokenizer):
    """Builds a two-layer Llama; equal seeds give equal weights."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float32, vocab: int | None = None) -> LlamaForCausalLM:
        config = LlamaConfig(
            vocab_size=vocab or len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LlamaForCausalLM(config).to(dtype)

    return make


@pytest.fixture(scope="session")
def sums_lines() -> str:
    """Forty sums with answers of different lengths, as JSON lines."""
    pairs = [(a, b) for a in range(8) for b in range(5)]
    rows = [{"prompt": f"{a}+{b}", "completion": f"{a}+{b} is {a + b}." + " ok" * (a % 4)} for a, b in pairs]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def sums_file(tmp_path: Path, sums_lines: str) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text(sums_lines)
    return path


@pytest.fixture
def sums(sums_file: Path, tokenizer) -> Demonstrations:
    return load_demonstrations(DataSettings(path=sums_file.name, max_length=64), tokenizer, sums_file.parent)


@pytest.fixture(autouse=True)
def private_dataset_cache(tmp_path_factory, monkeypatch):
    """Prepared data sets of a test go with the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


@pytest.fixture
def asked_alike(tmp_path: Path, tokenizer, sums_lines: str) -> Demonstrations:
    """The sums, each with the same words before it."""
    rows = [json.loads(line) for line in sums_lines.splitlines()]
    path = tmp_path / "alike.jsonl"
    path.write_text("".join(json.dumps({**row, "prompt": "please add " + row["prompt"]}) + "\n" for row in rows))
    return load_demonstrations(DataSettings(path=path.name, max_length=64), tokenizer, tmp_path)
