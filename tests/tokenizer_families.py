"""Six families of tokenizers, made in memory from the same few sentences, and the tiny models that go with them."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = ["what is 1 plus 2", "the sum is 3", "what is 40 plus 57", "the sum is 97", "user assistant 0 1 2 3 4 5 6 7 8 9"]
SPECIAL = ["<pad>", "<s>", "</s>", "<|turn|>", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
FAMILIES = ("bpe", "byte_level", "metaspace", "appends_end", "several_ends", "no_end")


def family(name: str) -> tuple[PreTrainedTokenizerFast, list[int] | int | None]:
    """A tokenizer, and the ends of sequence that its model declares.

    `bpe`: characters merged, with a space as one of them; `metaspace`: as SentencePiece, with a space before the first
    word; `appends_end`: `<s> $A </s>`; `several_ends`: the model stops at two tokens; `no_end`: neither model nor
    tokenizer knows one, the template's end of turn is all there is.
    """
    backend = _byte_level() if name in ("byte_level", "several_ends", "no_end") else _bpe()
    if name in ("metaspace", "appends_end"):
        backend = _metaspace()
    if name == "appends_end":
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    ends: dict[str, Any] = {} if name == "no_end" else {"eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        additional_special_tokens=["<|turn|>", "<|end|>"],
        **ends,
    )
    tokenizer.chat_template = TEMPLATE
    declared = {"several_ends": [2, 0], "no_end": None}
    return tokenizer, declared.get(name, 2)


def tiny_model(vocab: int, ends: list[int] | int | None, **changes: Any) -> LlamaForCausalLM:
    options = dict(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=ends,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**(options | changes)))


def _trained(backend: Tokenizer, alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=160, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXT * 20, trainer)
    return backend


def _bpe() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.decoder = decoders.Fuse()
    return _trained(backend, ["\n", *"abcdefghijklmnopqrstuvwxyz0123456789 "])


def _byte_level() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return _trained(backend, pre_tokenizers.ByteLevel.alphabet())


def _metaspace() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return _trained(backend, ["\n", *"abcdefghijklmnopqrstuvwxyz0123456789"])
