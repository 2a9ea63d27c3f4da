"""A small teacher and small data for the tests of the cache."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from qtarget.trainers.data.demonstrations import Demonstration, Demonstrations
from qtarget.trainers.teachers.format import CacheKey
from qtarget.trainers.teachers.sources import FrozenModel

VOCAB, PADDED = 90, 96
"""Entries of the tokenizer, and rows of the head."""


def teacher(seed: int = 0, vocab: int = PADDED) -> FrozenModel:
    """A two-layer Llama whose distributions are far from uniform."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        torch.nn.init.normal_(model.lm_head.weight, std=0.6)
    return FrozenModel(model.eval())


def demonstrations(number: int = 12, seed: int = 0) -> Demonstrations:
    """Random sequences of 6 to 20 tokens; the loss starts in the middle."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for _ in range(number):
        length = int(torch.randint(6, 21, (), generator=generator))
        ids = torch.randint(0, VOCAB, (length,), generator=generator, dtype=torch.int32)
        examples.append(Demonstration(ids, torch.arange(length) >= length // 2))
    return Demonstrations(tuple(examples), num_rows=number)


def key(data: Demonstrations, **changes: object) -> CacheKey:
    given = {"model": "m", "tokenizer": "t", "data": data.fingerprint, "template": "c", "max_length": 32}
    return CacheKey.model_validate({**given, "vocab": VOCAB, "k": 16, "dtype": "float32"} | changes)


def dense_logprobs(model: FrozenModel, data: Demonstrations, index: int) -> torch.Tensor:
    """Float64 log-probs over the real vocabulary at each labelled position of one demonstration, unpadded."""
    example = data[index]
    with torch.no_grad():
        logits = model.model(input_ids=example.inputs[None]).logits[0, :, :VOCAB].double()
    return logits.log_softmax(-1)[example.labels >= 0]
