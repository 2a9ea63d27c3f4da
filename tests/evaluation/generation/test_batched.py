"""Batched generation against the model's own generate(), and invariance to everything that should not matter."""

import random
from dataclasses import replace

import pytest
import torch
from tiny_llama import tiny_llama, with_adapters
from transformers import LlamaForCausalLM, MambaConfig, MambaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from qtarget.evaluation.generation.backends import PlainBackend, set_aside
from qtarget.evaluation.generation.batched import generate
from qtarget.evaluation.generation.completions import Request, Sampling, cut_at
from qtarget.spaces.errors import UserError
from qtarget.trainers.models.transformers_versions import cache_argument

pytestmark = pytest.mark.slow

GREEDY = Sampling(max_new_tokens=40, end_tokens=frozenset({2}), batch_size=8)
DRAWN = replace(GREEDY, temperature=1.0)
SHORT = replace(GREEDY, max_new_tokens=20)
"""Some answers end just before."""


def requests_of(count, vocab=53, longest=30):
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(4, vocab) for _ in range(rng.randrange(1, longest))) for _ in range(count)]
    return [Request(index, prompt, key=rng.getrandbits(63)) for index, prompt in enumerate(prompts)]


def tokens_of(completions):
    return {completion.index: completion.tokens for completion in completions}


def run(model, tokenizer, requests, sampling):
    return tokens_of(generate(model, tokenizer, requests, sampling))


@pytest.fixture(scope="module")
def plain(model, tokenizer):
    """What the model's own generate() answers to some requests."""
    return tokens_of(PlainBackend(model, tokenizer).generate(requests_of(24), GREEDY))


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_greedy_equals_plain_generate(model, tokenizer, plain, batch_size):
    assert run(model, tokenizer, requests_of(24), replace(GREEDY, batch_size=batch_size)) == plain
    lengths = {len(tokens) for tokens in plain.values()}
    assert len(lengths) > 5 and max(lengths) == 40  # some end by themselves, some are cut


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sliding_window_layers_equal_plain_generate(tokenizer, attention):
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.4, use_sliding_window=True, sliding_window=7, max_window_layers=1,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, attn_implementation=attention,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    assert set(model.config.layer_types) == {"full_attention", "sliding_attention"}
    requests = requests_of(10)
    plain = tokens_of(PlainBackend(model, tokenizer).generate(requests, GREEDY))
    assert run(model, tokenizer, requests, GREEDY) == plain


class OldNames(LlamaForCausalLM):
    """A model that brings its own code, in the names of earlier versions of transformers."""

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, **others):
        return super().forward(input_ids, attention_mask, **{cache_argument(super()): past_key_values}, **others)


def test_code_of_a_model_may_keep_the_old_name_of_the_cache(model, tokenizer):
    requests, old = requests_of(20), OldNames(model.config).eval()
    old.load_state_dict(model.state_dict())
    assert cache_argument(old) == "past_key_values"
    assert run(old, tokenizer, requests, GREEDY) == run(model, tokenizer, requests, GREEDY)


def test_sampling_does_not_depend_on_batch_or_order(model, tokenizer):
    requests = requests_of(16)
    together = run(model, tokenizer, requests, DRAWN)
    for batch_size in (1, 3, 16):
        assert run(model, tokenizer, requests[::-1], replace(DRAWN, batch_size=batch_size)) == together
    alone = [run(model, tokenizer, [request], DRAWN)[request.index] for request in requests[:3]]
    assert alone == [together[index] for index in range(3)]


def test_samples_of_one_prompt_differ_and_equal_those_drawn_apart(model, tokenizer):
    prompt = (10, 11, 12, 13)
    requests = [Request(index, prompt, key=1000 + index) for index in range(6)]
    together = run(model, tokenizer, requests, DRAWN)
    assert len(set(together.values())) == 6
    assert together == {request.index: run(model, tokenizer, [request], DRAWN)[request.index] for request in requests}


def test_first_sampled_token_follows_the_models_softmax(model, tokenizer):
    from scipy import stats

    prompt, count = (20, 30, 40), 4000
    requests = [Request(index, prompt, key=random.Random(index).getrandbits(63)) for index in range(count)]
    drawn = run(model, tokenizer, requests, replace(DRAWN, max_new_tokens=1, batch_size=500))
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1) * count
    observed = torch.bincount(torch.tensor([tokens[0] for tokens in drawn.values()]), minlength=len(expected))
    common = expected > 5
    pairs = [(observed[common], expected[common]), (observed[~common].sum()[None], expected[~common].sum()[None])]
    chi_square = sum(float(((o - e) ** 2 / e).sum()) for o, e in pairs)
    assert stats.chi2.sf(chi_square, int(common.sum())) > 1e-3


def test_stop_strings_cut_the_text_and_end_the_sequence(model, tokenizer):
    requests = requests_of(24)
    free = {c.index: c for c in generate(model, tokenizer, requests, GREEDY)}
    text = max((c.text for c in free.values()), key=len)
    stop = (text[10:13], text[20:21])
    stopped = {c.index: c for c in generate(model, tokenizer, requests, replace(GREEDY, stop=stop))}
    assert {index: c.text for index, c in stopped.items()} == {i: cut_at(c.text, stop) for i, c in free.items()}
    ended_early = [index for index, c in stopped.items() if c.finish == "stop"]
    assert len(ended_early) > 3
    assert all(len(stopped[index].tokens) <= len(free[index].tokens) for index in ended_early)
    plain = {c.index: c for c in PlainBackend(model, tokenizer).generate(requests, replace(GREEDY, stop=stop))}
    assert {i: (c.text, c.finish) for i, c in plain.items()} == {i: (c.text, c.finish) for i, c in stopped.items()}


def test_finish_tells_an_end_token_from_the_limit(model, tokenizer):
    completions = list(generate(model, tokenizer, requests_of(40), GREEDY))
    for completion in completions:
        assert completion.finish == ("end" if completion.tokens[-1] == 2 else "length")
        assert (len(completion.tokens) == 40) or completion.finish == "end"
        assert "<eos>" not in completion.text
    assert {completion.finish for completion in completions} == {"end", "length"}


def test_prompt_that_ends_at_once_has_an_empty_text(model, tokenizer):
    first = run(model, tokenizer, [Request(0, (9, 9))], GREEDY)[0][0]
    [completion] = generate(model, tokenizer, [Request(0, (9, 9))], replace(GREEDY, end_tokens=frozenset({first})))
    assert (completion.text, completion.finish, len(completion.tokens)) == ("", "end", 1)


class Limited:
    """A model that runs out of memory above so many rows in one forward pass, as an accelerator would."""

    def __init__(self, model, rows, error):
        self._model, self._rows, self._error, self.refused = model, rows, error, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, input_ids, **inputs):
        if len(input_ids) > self._rows:
            self.refused += 1
            raise self._error
        return self._model(input_ids=input_ids, **inputs)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no"), RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_out_of_memory_halves_the_batch_and_changes_nothing(model, tokenizer, error, caplog):
    requests = requests_of(30)
    expected = run(model, tokenizer, requests, DRAWN)
    limited = Limited(model, 5, error)
    assert run(limited, tokenizer, requests, replace(DRAWN, batch_size=30)) == expected
    assert 1 <= limited.refused <= 3
    assert "at most 3 sequences" in caplog.text


def test_out_of_memory_with_one_sequence_and_other_errors_are_raised(model, tokenizer):
    with pytest.raises(torch.OutOfMemoryError):
        run(Limited(model, 0, torch.OutOfMemoryError("no")), tokenizer, requests_of(4), GREEDY)
    with pytest.raises(RuntimeError, match="illegal"):
        run(Limited(model, 0, RuntimeError("illegal access")), tokenizer, requests_of(4), GREEDY)


def test_generation_leaves_modes_and_random_state_alone(tokenizer):
    model = tiny_llama(5, len(tokenizer)).train()
    model.model.layers[1].eval()
    before = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    completions = generate(model, tokenizer, requests_of(5), DRAWN)
    next(completions)
    assert torch.is_grad_enabled()
    completions.close()
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    loss = model(torch.tensor([[4, 5, 6]]), labels=torch.tensor([[4, 5, 6]])).loss
    loss.backward()
    assert torch.isfinite(model.lm_head.weight.grad).all()


def test_lora_adapters_equal_plain_generate(tokenizer):
    model = with_adapters(tiny_llama(6, len(tokenizer)))
    requests = requests_of(10)
    found = run(model, tokenizer, requests, GREEDY)
    assert found == tokens_of(PlainBackend(model, tokenizer).generate(requests, GREEDY))
    with model.disable_adapter():
        assert run(model, tokenizer, requests, GREEDY) != found


@pytest.fixture(scope="module", params=[False, True], ids=["model", "lora"])
def answered(request, tokenizer):
    """A model, plain or adapted, and its answers while nothing stands in its generation config."""
    model = tiny_llama(0, len(tokenizer))
    if request.param:
        with torch.random.fork_rng():
            torch.manual_seed(3)  # some answers end early, so that `min_new_tokens` says something
            model = with_adapters(model)
    return model, tokens_of(PlainBackend(model, tokenizer).generate(requests_of(4), SHORT))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 2.0),
        ("num_beams", 4),
        ("no_repeat_ngram_size", 2),
        ("suppress_tokens", list(range(20))),
        ("begin_suppress_tokens", [token for token in range(53) if token != 7]),
        ("forced_eos_token_id", 5),
        ("bad_words_ids", [[n] for n in range(20)]),
        ("sequence_bias", [[[n], -10.0] for n in range(1, 20)]),
        ("guidance_scale", 3.0),
        ("exponential_decay_length_penalty", (1, 4.0)),
        ("min_new_tokens", 20),
        ("max_time", 1e-9),
    ],
)
def test_a_generation_config_does_not_change_scores(tokenizer, answered, name, value, monkeypatch):
    (model, plain), requests = answered, requests_of(4)
    monkeypatch.setattr(model.generation_config, name, value)
    assert tokens_of(PlainBackend(model, tokenizer).generate(requests, SHORT)) == plain
    assert run(model, tokenizer, requests, SHORT) == plain
    assert getattr(model.generation_config, name) == value, "the model keeps its own"
    assert set_aside(model) == [f"{name}={value!r:.60}"]
    asked = {}
    for request in requests:
        ids = torch.tensor([request.prompt])
        made = model.generate(input_ids=ids, max_new_tokens=SHORT.max_new_tokens, eos_token_id=2, pad_token_id=2)
        asked[request.index] = tuple(made[0, ids.shape[1] :].tolist())
    assert asked != plain, "the setting says something"


def test_state_space_model_is_refused_with_a_remedy(tokenizer):
    model = MambaForCausalLM(MambaConfig(vocab_size=53, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(UserError, match="backend: plain"):
        list(generate(model, tokenizer, requests_of(2), GREEDY))


def test_plain_backend_refuses_a_temperature(model, tokenizer):
    with pytest.raises(UserError, match="temperature"):
        list(PlainBackend(model, tokenizer).generate(requests_of(1), DRAWN))
