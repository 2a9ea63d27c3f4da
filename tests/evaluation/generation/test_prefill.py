"""Rows behind what is known of their beginnings, against the same rows read whole; and how many tokens that spares."""

import random
from dataclasses import replace

import pytest
import torch
from tiny_llama import tiny_llama, with_adapters
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    Llama4TextConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
)

from qtarget.evaluation.generation import likelihoods as likelihoods_module
from qtarget.evaluation.generation.backends import PlainBackend
from qtarget.evaluation.generation.batched import generate
from qtarget.evaluation.generation.completions import Request, Sampling
from qtarget.evaluation.generation.likelihoods import Pair, Question, likelihoods
from qtarget.evaluation.generation.prefill import WORTHWHILE, common_prefix, prefill
from qtarget.trainers.models.memory import out_of_memory

pytestmark = pytest.mark.slow

GREEDY = Sampling(max_new_tokens=12, end_tokens=frozenset({2}), batch_size=8)
SYSTEM = tuple(random.Random(7).randrange(4, 53) for _ in range(40))


def sliding(vocab):
    config = Qwen2Config(
        vocab_size=vocab, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.4, use_sliding_window=True, sliding_window=7, max_window_layers=1,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(3)
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture(scope="module", params=["llama", "window", "lora"])
def reader(request, tokenizer):
    if request.param == "window":
        return sliding(len(tokenizer))
    model = tiny_llama(0, len(tokenizer))
    return with_adapters(model) if request.param == "lora" else model


def tokens(generator, length):
    return tuple(generator.randrange(4, 53) for _ in range(length))


def requests_of(count, seed=0, longest=30):
    generator = random.Random(seed)
    return [
        Request(index, SYSTEM + tokens(generator, generator.randrange(1, longest)), key=generator.getrandbits(63))
        for index in range(count)
    ]


def by_index(completions):
    return {each.index: each.tokens for each in completions}


class Counting:
    """A model that counts the positions it reads, padding included."""

    def __init__(self, model, most=10**9):
        self._model, self._most, self.read = model, most, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, input_ids, **inputs):
        if len(input_ids) > self._most:
            raise torch.OutOfMemoryError("no")
        self.read += input_ids.numel()
        return self._model(input_ids=input_ids, **inputs)


@pytest.mark.parametrize("sizes", [(9, 9, 9), (1, 5, 30), (1, 60)], ids=["alike", "unlike", "longer than known"])
def test_rows_behind_a_prefix_are_those_read_whole(reader, sizes):
    rows = [SYSTEM + tokens(random.Random(size), size) for size in sizes]
    known = prefill(reader, [SYSTEM])
    mine, whole = (
        prefill(
            reader,
            rows,
            last=3,
            known=known,
            parents=[0] * len(rows),
        ),
        prefill(reader, rows, last=3),
    )
    torch.testing.assert_close(mine.logits, whole.logits, atol=1e-4, rtol=1e-4)
    assert mine.cache.get_seq_length() == whole.cache.get_seq_length() == max(map(len, rows))
    for ours, theirs in zip(mine.cache.layers, whole.cache.layers, strict=True):
        for row, tokens_of_row in enumerate(rows):
            for name in ("keys", "values"):
                pair = [getattr(layer, name)[row, :, -len(tokens_of_row) :] for layer in (ours, theirs)]
                torch.testing.assert_close(*pair, atol=1e-4, rtol=1e-4)


SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
ROTARY = {
    **SMALL,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA = {**ROTARY, "sliding_window": 5, "query_pre_attn_scalar": 8}
POSITIONS = {"bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 128}
KINDS = {
    "alibi": BloomConfig(**SMALL, bos_token_id=1, eos_token_id=2),
    "learnt positions": GPT2Config(**SMALL, bos_token_id=1, eos_token_id=2),
    "positions of the mask": OPTConfig(**SMALL, **POSITIONS, ffn_dim=48, word_embed_proj_dim=32),
    "experts": Qwen3MoeConfig(**ROTARY, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "windows": Gemma3TextConfig(**GEMMA),
    "chunks": Llama4TextConfig(**ROTARY, intermediate_size_mlp=48, num_local_experts=2, attention_chunk_size=6),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_decoders(kind):
    """Those whose layers place tokens otherwise: rows behind a prefix, and options behind contexts behind it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(KINDS[kind]).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    contexts = [(*SYSTEM, 5), (*SYSTEM, 7, 8, 9)]
    rows = [(*contexts[0], 3, 4, 5), (*contexts[1], 6), contexts[1]]
    read = prefill(model, contexts, known=prefill(model, [SYSTEM]), parents=[0, 0])
    alone = torch.cat([prefill(model, [row], last=2).logits for row in rows])
    found = prefill(model, rows, last=2, known=read, parents=[0, 1, 1]).logits
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
    assert (alone[1] - alone[2]).abs().max() > 0.1, "the model looks at its tokens"


def test_rows_behind_rows_behind_a_prefix(reader):
    """Contexts of different lengths, and continuations of each; one is its context itself."""
    generator = random.Random(1)
    contexts = [SYSTEM + tokens(generator, size) for size in (3, 11, 6)]
    parents = [2, 0, 0, 1, 2]
    rows = [contexts[parent] + tokens(generator, size) for parent, size in zip(parents, (4, 0, 9, 2, 1), strict=True)]
    read = prefill(reader, contexts, known=prefill(reader, [SYSTEM]), parents=[0, 0, 0])
    mine = prefill(reader, rows, last=4, known=read, parents=parents)
    torch.testing.assert_close(mine.logits, prefill(reader, rows, last=4).logits, atol=1e-4, rtol=1e-4)


def test_what_prompts_begin_with_is_read_once_and_changes_no_answer(reader, tokenizer):
    requests = requests_of(20)
    plain = by_index(PlainBackend(reader, tokenizer).generate(requests, GREEDY))
    for size in (4, 20):
        counting = Counting(reader)
        assert by_index(generate(counting, tokenizer, requests, replace(GREEDY, batch_size=size))) == plain
        decoded = GREEDY.max_new_tokens * len(requests)
        own = len(requests) * (max(len(each.prompt) for each in requests) - len(SYSTEM))
        assert counting.read <= len(SYSTEM) + own + decoded
    assert counting.read < sum(len(each.prompt) for each in requests), "less than every prompt once"


def test_little_in_common_is_not_worth_a_pass(reader, tokenizer):
    few = requests_of(WORTHWHILE // len(SYSTEM))
    counting = Counting(reader)
    list(generate(counting, tokenizer, few, replace(GREEDY, max_new_tokens=1, batch_size=64)))
    assert counting.read >= sum(len(each.prompt) for each in few)
    same = [Request(index, SYSTEM, key=index) for index in range(50)]
    counting = Counting(reader)
    list(generate(counting, tokenizer, same, replace(GREEDY, max_new_tokens=1, temperature=1.0, batch_size=64)))
    assert counting.read == len(SYSTEM), "samples of one prompt share all of it"


def test_out_of_memory_reads_the_prefix_again(tokenizer, model):
    requests, sampling = requests_of(30), replace(GREEDY, temperature=1.0, batch_size=30)
    expected = by_index(generate(model, tokenizer, requests, sampling))
    limited = Counting(model, most=5)
    assert out_of_memory(torch.OutOfMemoryError("no"))
    assert by_index(generate(limited, tokenizer, requests, sampling)) == expected


def questions(generator, count=16, options=4, longest=9):
    found = []
    for index in range(count):
        context = SYSTEM + tokens(generator, generator.randrange(20, 50))
        pairs = [Pair(context, tokens(generator, generator.randrange(1, longest))) for _ in range(options)]
        found.append(Question(index, tuple(pairs)))
    return found


def direct(model, pair):
    """The log-likelihood by one forward pass over the pair alone, in float64 logarithms."""
    with torch.no_grad():
        logits = model(torch.tensor([[*pair.context, *pair.continuation]])).logits[0].double().log_softmax(-1)
    wanted = range(len(pair.context) - 1, len(pair.context) + len(pair.continuation) - 1)
    values = [logits[place, token] for place, token in zip(wanted, pair.continuation, strict=True)]
    likeliest = all(
        int(logits[place].argmax()) == token for place, token in zip(wanted, pair.continuation, strict=True)
    )
    return float(sum(values)), likeliest


@pytest.mark.parametrize("rows", [3, 64])
def test_options_behind_one_context_score_as_each_alone(reader, rows):
    asked = questions(random.Random(2))
    counting = Counting(reader)
    for question, found in zip(asked, likelihoods(counting, asked, rows), strict=True):
        assert found.index == question.index
        for pair, (value, likeliest) in zip(question.pairs, found.values, strict=True):
            expected, greedy = direct(reader, pair)
            assert value == pytest.approx(expected, abs=1e-3) and likeliest == greedy
    if rows == 64:
        whole = sum(len(pair.read) for question in asked for pair in question.pairs)
        assert counting.read < whole / 4, "contexts are read once, and what they begin with once in all"


def test_options_with_contexts_of_their_own(reader):
    """As in winogrande: the options stand in the context, and one continuation follows."""
    generator = random.Random(3)
    asked = [
        Question(index, tuple(Pair(SYSTEM + tokens(generator, 12), ending) for _ in range(2)))
        for index, ending in enumerate(tokens(generator, 5) for _ in range(12))
    ]
    counting = Counting(reader)
    for question, found in zip(asked, likelihoods(counting, asked, 64), strict=True):
        for pair, (value, _) in zip(question.pairs, found.values, strict=True):
            assert value == pytest.approx(direct(reader, pair)[0], abs=1e-3)
    assert counting.read < len(SYSTEM) + 24 * 18


def test_memory_that_suffices_for_few_rows_changes_no_likelihood(reader, monkeypatch):
    asked = questions(random.Random(4), count=6)
    expected = [each.values for each in likelihoods(reader, asked, 24)]
    released = []
    monkeypatch.setattr(likelihoods_module, "release", lambda: released.append(1))
    for found, values in zip(likelihoods(Counting(reader, most=2), asked, 24), expected, strict=True):
        assert [value for value, _ in found.values] == pytest.approx([value for value, _ in values], abs=1e-4)
    assert released


def test_a_common_prefix_leaves_every_row_something_of_its_own():
    rows = [(*SYSTEM, 5), (*SYSTEM, 5, 6), (*SYSTEM, 5, 7)] * 9
    assert common_prefix(rows) == (), "three different rows spare too little, however often they are asked"
    many = [(*SYSTEM, 5, *divmod(number, 50)) for number in range(30)]
    assert common_prefix(many) == (*SYSTEM, 5, 0), "all 30 go on with 0"
    assert common_prefix([*many, SYSTEM]) == SYSTEM[:-1]
    assert common_prefix([*many, (1,)]) == common_prefix([]) == common_prefix(many[:1]) == ()
    assert common_prefix(many, last=3) == SYSTEM
