"""A saved model answers as our evaluator saw it answer, and stops where its training ended: six kinds of tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizer_families import FAMILIES, family, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from qtarget.evaluation.generation.backends import TransformersBackend
from qtarget.evaluation.generation.completions import Request, Sampling
from qtarget.evaluation.generation.prompts import encode, end_tokens, render
from qtarget.evaluation.problems.load import Problem
from qtarget.spaces import presets
from qtarget.trainers.data.fit import check_ends
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.full_run import FullRun
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.run_settings import RunSettings
from qtarget.trainers.settings import DataSettings, LoraSettings, ModelSettings, TrainingSettings

CPU = torch.device("cpu")
PROMPTS = ("what is 1 plus 2", "what is 4 plus 5", "what is 7")
LORA = LoraSettings(rank=8, alpha=16, modules_to_save=("embed_tokens", "lm_head"))
TRAINING = TrainingSettings(steps=40, effective_batch=4, micro_batch=4, learning_rate=0.02, checkpoint_every=100)
SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.3}


def trained(folder: Path, name: str, chat: bool, lora: LoraSettings | None = None) -> FullRun:
    """A model of the family that has learnt four answers, saved in `folder/out/model`."""
    tokenizer, ends = family(name)
    model = tiny_model(len(tokenizer), ends)
    model.generation_config = GenerationConfig(eos_token_id=ends, **SAMPLED)  # as instruction-tuned models have them
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    rows = [
        {"prompt": f"what is {a} plus {b}", "completion": f"the sum is {a + b}"}
        for a, b in ((1, 2), (4, 5), (0, 3), (7, 1))
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings, source = DataSettings(path="train.jsonl", chat=chat), ModelSettings(path="base")
    resident = ResidentModel(source, folder, device=CPU)
    data = load_demonstrations(settings, resident.tokenizer, folder)
    resident.meet(data, chat=chat)
    assert (
        " in 4 of 4 demonstrations"
        in check_ends(data, resident.end_tokens, resident.tokenizer, chat=chat, stop=()).line
    )
    training = TRAINING.model_copy(update={"lora": lora})
    run = FullRun(resident, data, presets.get("sft"), training, RunSettings(), model=source, base=folder,
                  folder=folder / "out", seed=0)  # fmt: skip
    run.finish(source=lambda role: None)
    return run


def evaluated(run: FullRun, chat: bool) -> list[tuple[int, ...]]:
    """What our evaluator hears from the model in memory, ids with the one that ended them."""
    model, tokenizer = run.trained, run.resident.tokenizer
    problems = [Problem(id=each, task="t", question_hash=each, prompt=each, gold="", chat=chat) for each in PROMPTS]
    prompts = [encode(tokenizer, render(tokenizer, problem), chat=chat) for problem in problems]
    sampling = Sampling(24, end_tokens(model, tokenizer, chat=chat))
    requests = [Request(index, prompt) for index, prompt in enumerate(prompts)]
    found = {each.index: each for each in TransformersBackend(model, tokenizer).generate(requests, sampling)}
    for index in (0, 1):
        assert found[index].finish == "end" and found[index].text.strip().startswith("the sum is"), "it has learnt"
    return [found[index].tokens for index in range(len(PROMPTS))]


def generated(folder: Path, chat: bool) -> list[tuple[int, ...]]:
    """What anyone hears from the saved folder with transformers alone."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return [answer(model, tokenizer, prompt, chat) for prompt in PROMPTS]


def answer(model: Any, tokenizer: Any, prompt: str, chat: bool) -> tuple[int, ...]:
    if chat:
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    else:
        given = tokenizer(prompt, return_tensors="pt")
    ids, mask = given["input_ids"], given["attention_mask"]
    return tuple(model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=24)[0, ids.shape[1] :].tolist())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chat"), [*((name, True) for name in FAMILIES), *((name, False) for name in FAMILIES if name != "no_end")]
)
def test_a_saved_model_answers_and_stops_as_in_its_training(tmp_path: Path, name: str, chat: bool) -> None:
    run = trained(tmp_path, name, chat)
    saved = tmp_path / "out" / "model"
    assert generated(saved, chat) == evaluated(run, chat)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert tokenizer.eos_token == ("<|end|>" if chat else "</s>")
    written = json.loads((saved / "generation_config.json").read_text())
    assert not written.keys() & SAMPLED.keys(), "how the base was to be sampled is not what was trained"


def test_adapters_merged_and_beside_it_answer_alike(tmp_path: Path) -> None:
    run = trained(tmp_path, "byte_level", True, LORA)
    assert generated(tmp_path / "out" / "model", True) == evaluated(run, True)


def test_a_prompt_never_ends_in_the_end_that_a_tokenizer_appends(tmp_path: Path) -> None:
    tokenizer = family("appends_end")[0]
    assert tokenizer("what is 1")["input_ids"][-1] == 2
    assert encode(tokenizer, "what is 1", chat=False)[-1] != 2
    trained(tmp_path, "appends_end", False)
    again = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    ids = again("what is 1")["input_ids"]
    assert ids[0] == 1 and tuple(ids) == encode(tokenizer, "what is 1", chat=False)
