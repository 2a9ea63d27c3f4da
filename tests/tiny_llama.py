"""A tiny Llama with character tokens, built in memory."""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from qtarget.trainers.models.transformers_versions import old_names_of_peft

CHARACTERS = "0123456789+-*/=.,:?! \nabcdefghijklmnopqrstuvwxyz#"
SPECIAL = ["<pad>", "<bos>", "<eos>", "<turn>"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}<turn>\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def character_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=["<turn>"],
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_llama(seed: int, vocab: int, **changes: object) -> LlamaForCausalLM:
    """Random weights wide enough that greedy continuations differ between prompts."""
    options = dict(
        vocab_size=vocab,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**(options | changes))).eval()


def with_adapters(model: LlamaForCausalLM) -> Any:
    """Random low-rank adapters on all linear layers, in evaluation mode."""
    from peft import LoraConfig, get_peft_model

    with old_names_of_peft(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
