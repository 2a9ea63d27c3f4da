"""The models of the tiny world: a character tokenizer, a base that adds, a teacher that half knows the new format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ...spaces import TargetSpec
from ...spaces.identity import derive_seed
from ...trainers.data.demonstrations import Demonstrations
from ...trainers.data.notes import Notes
from ...trainers.data.template import ChatTemplate
from ...trainers.data.tokenization import tokenize
from ...trainers.data.turns import Conversation
from ...trainers.loop.sft import StepReport, train
from ...trainers.settings import TrainingSettings
from .sums import DIGITS, SYMBOLS

PAD, END, UNKNOWN, USER, ASSISTANT = "<pad>", "<end>", "<unknown>", "<user>", "<assistant>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% if message.role == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

OnStep = Callable[[StepReport], bool]


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, except `####` and the marks of the chat template."""
    special = [PAD, END, UNKNOWN, USER, ASSISTANT]
    vocabulary = {token: number for number, token in enumerate([*special, *DIGITS, *SYMBOLS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"####|[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int, seed: int) -> LlamaForCausalLM:
    """A small Llama with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("tiny world weights", seed))
        return LlamaForCausalLM(config)


def solved(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]) -> Demonstrations:
    """Demonstrations of (question, solution) pairs in memory."""
    roles = ("user", "assistant")
    turns = [
        Conversation(tuple({"role": role, "content": text} for role, text in zip(roles, pair, strict=True)), (1,))
        for pair in pairs
    ]
    examples = tokenize(ChatTemplate(tokenizer, date.today()), turns, Notes())
    return Demonstrations(tuple(examples), num_rows=len(examples))


def learn(
    model: LlamaForCausalLM, data: Demonstrations, settings: TrainingSettings, seed: int, on_step: OnStep
) -> None:
    """Plain SFT in place."""
    pad = model.config.pad_token_id
    assert pad is not None, "the tiny model's own configuration names it"
    train(model, data, TargetSpec(), settings, seed=seed, folder=None, on_step=on_step, pad_token_id=pad)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights as safetensors, configuration, tokenizer and chat template."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
