"""vLLM itself answers with the weights that it is handed, as the model's own generate() does."""

import copy
import random
from importlib.util import find_spec

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_llama import tiny_llama
from transformers import Qwen2Config, Qwen2ForCausalLM

from qtarget.evaluation.generation.backends import PlainBackend
from qtarget.evaluation.generation.completions import Request, Sampling
from qtarget.evaluation.generation.parity import Parity, backend_factory, checked, parity
from qtarget.evaluation.generation.vllm_backend import VllmBackend
from qtarget.evaluation.problems.load import Problem
from qtarget.spaces.errors import UserError
from qtarget.trainers.loop.full_run import write_model

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (docs/scores.md says how)"),
    pytest.mark.filterwarnings("default::FutureWarning:vllm", "default::DeprecationWarning"),  # vLLM's own imports
]
GREEDY = Sampling(max_new_tokens=24, end_tokens=frozenset({2}), batch_size=8)
WIDE = dict(hidden_size=64, num_attention_heads=2, num_key_value_heads=1)  # heads of 32: vLLM has none of 8 on a CPU
ALL = Parity(24, 24, 0.0)


def requests_of(count):
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(4, 53) for _ in range(rng.randrange(1, 30))) for _ in range(count)]
    return [Request(index, prompt, key=rng.getrandbits(63)) for index, prompt in enumerate(prompts)]


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_llama(0, len(tokenizer), tie_word_embeddings=True, **WIDE)


@pytest.fixture(scope="module")
def backend(model, tokenizer, tmp_path_factory):
    return VllmBackend(model, tokenizer, tmp_path_factory.mktemp("vllm"))


def test_it_answers_with_the_weights_it_was_handed_last(backend, model, tokenizer):
    other = tiny_llama(1, len(tokenizer), tie_word_embeddings=True, **WIDE)
    requests = requests_of(24)
    for network in (model, other, model):
        backend.load(network)
        assert parity(backend, network, tokenizer, requests, GREEDY) == ALL
    assert parity(backend, other, tokenizer, requests, GREEDY).identical < 3


def test_merged_adapters_answer(backend, model, tokenizer):
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapted = get_peft_model(copy.deepcopy(model), lora).eval()
    backend.load(adapted)
    assert parity(backend, adapted, tokenizer, requests_of(24), GREEDY).agrees(1e-3)
    backend.load(model)


def test_stop_strings_and_end_tokens_end_an_answer(backend, model, tokenizer):
    free = {c.index: c for c in backend.generate(requests_of(24), Sampling(24, frozenset()))}
    assert {len(c.tokens) for c in free.values()} == {24}  # the model's own end of sequence is not asked for
    stop = free[0].text[3]
    for sampling in (Sampling(24, frozenset(), stop=(stop,)), Sampling(24, frozenset({free[1].tokens[2]}))):
        assert parity(backend, model, tokenizer, requests_of(24), sampling) == ALL
    first = next(backend.generate(requests_of(1), Sampling(24, frozenset(), stop=(stop,))))
    assert first.finish == "stop" and stop not in first.text and free[0].text.startswith(first.text)


def test_samples_are_the_keys_alone(backend):
    hot = Sampling(24, frozenset({2}), temperature=1.0)
    requests = requests_of(12)
    tokens = {c.index: c.tokens for c in backend.generate(requests, hot)}
    again = {c.index: c.tokens for c in backend.generate(requests[::-1], hot)}
    assert again == tokens
    rekeyed = [Request(r.index, r.prompt, key=r.key ^ 1) for r in requests]
    assert sum(c.tokens == tokens[c.index] for c in backend.generate(rekeyed, hot)) < 3


def test_the_process_stays_as_it_was(backend):
    states = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    list(backend.generate(requests_of(4), Sampling(8, frozenset({2}), temperature=1.0)))
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    torch.set_num_threads(states[2] + 1)
    assert torch.get_num_threads() == states[2] + 1
    torch.set_num_threads(states[2])


def test_a_request_that_does_not_fit_is_refused(backend):
    with pytest.raises(UserError, match=r"must fit the 256 tokens .* but got 250 \+ 24"):
        next(backend.generate([Request(0, (5,) * 250)], GREEDY))


# From here on engines of their own: one ends what another keeps in the process.


def test_biases_and_a_head_of_its_own(tokenizer, tmp_path):
    config = Qwen2Config(
        vocab_size=len(tokenizer), intermediate_size=96, num_hidden_layers=2, tie_word_embeddings=False,
        initializer_range=0.4, max_position_embeddings=256, eos_token_id=2, **WIDE,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Qwen2ForCausalLM(config).eval()
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
    engine = VllmBackend(network, tokenizer, tmp_path)
    assert parity(engine, network, tokenizer, requests_of(24), GREEDY) == ALL


def test_a_trained_model_in_shards_is_loaded_from_its_folder(model, tokenizer, tmp_path):
    from vllm import LLM, SamplingParams

    write_model(model, tokenizer, tmp_path / "model", shard_gigabytes=1e-4)
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 1
    engine = LLM(str(tmp_path / "model"), dtype="float32", enforce_eager=True, kv_cache_memory_bytes=1 << 28)
    requests = requests_of(24)
    prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
    outputs = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=24), use_tqdm=False)
    plain = {c.index: c.tokens for c in PlainBackend(model, tokenizer).generate(requests, GREEDY)}
    assert [tuple(output.outputs[0].token_ids) for output in outputs] == [plain[r.index] for r in requests]


def test_a_study_uses_it_when_it_answers_as_the_model_does(model, tokenizer):
    problems = [
        Problem(id=str(n), task="t", question_hash=str(n), prompt=f"{n} + {n * n} =", gold="1", chat=False)
        for n in range(20)
    ]
    make = backend_factory("vllm", model, tokenizer)
    found = checked("vllm", make, model, tokenizer, problems, greedy=False)
    assert found.name == "vllm" and found.parity == Parity(4, 4, 0.0)


def test_a_model_that_vllm_cannot_serve_is_refused_with_its_reason(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"vLLM says: .*head_dim=8.*; use `evaluation.backend: transformers`"):
        VllmBackend(tiny_llama(0, len(tokenizer)), tokenizer, tmp_path)
