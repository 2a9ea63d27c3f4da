"""What a design says about real tokens, against the distributions worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qtarget.spaces import TargetSpec, presets
from qtarget.spaces.rows import LabelRows
from qtarget.spaces.target import trust
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.token_view import TOKENS, TokenView
from qtarget.trainers.settings import DataSettings
from qtarget.trainers.teachers.sources import FrozenModel


@pytest.fixture
def data(tokenizer, tmp_path: Path):
    rows = [{"prompt": f"{a}+{b}", "completion": f"{a + b}."} for a in range(3) for b in range(4)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_demonstrations(DataSettings(path=str(path), max_length=64), tokenizer, tmp_path)


def view(make_model, tokenizer, data, target: TargetSpec) -> TokenView:
    sources = {"teacher": FrozenModel(make_model(2)), "reference": FrozenModel(make_model(3))}
    return TokenView(make_model(1), tokenizer, data, target, sources)


def probabilities(model, example) -> torch.Tensor:
    """(tokens with a loss, vocab), straight from the model."""
    with torch.no_grad():
        logits = model.eval()(input_ids=example.inputs[None]).logits[0]
    return logits[example.labels >= 0].softmax(-1)


def test_trust_target_and_alternatives_are_those_of_the_design(make_model, tokenizer, data) -> None:
    eta = 0.25
    target = presets.get("target_sft", eta=eta)
    shown = view(make_model, tokenizer, data, target).show([5], 0.0)[0]
    example = data[5]
    labels = example.labels[example.labels >= 0]
    student, teacher = probabilities(make_model(1), example), probabilities(make_model(2), example)
    residual = student ** (1 - eta) * teacher**eta
    residual = residual / residual.sum(-1, keepdim=True)
    assert len(shown) == len(labels)
    for token, label, p, rest, taught in zip(shown, labels.tolist(), student, residual, teacher, strict=True):
        gamma = float(p[label])
        q = (1 - gamma) * rest
        q[label] += gamma
        assert token["text"] == tokenizer.decode([label])
        assert token["p"] == pytest.approx(gamma, rel=1e-3) == token["gamma"]
        assert token["q"] == pytest.approx(float(q[label]), rel=1e-3)
        for name, expected in (("student", p), ("target", q), ("teacher", taught)):
            best = expected.topk(4)
            assert [text for text, _ in token[name]] == [tokenizer.decode([int(each)]) for each in best.indices]
            assert [share for _, share in token[name]] == pytest.approx(best.values.tolist(), rel=1e-3)


def test_demonstrations_are_chosen_from_the_least_to_the_most_trusted(make_model, tokenizer, data) -> None:
    found = view(make_model, tokenizer, data, presets.get("dft"))
    numbers = found.choose(0.0, examples=3)
    means = [float(probabilities(make_model(1), e).gather(1, e.labels[e.labels >= 0][:, None]).mean()) for e in data]
    assert means[numbers[0]] == min(means) and means[numbers[-1]] == max(means)
    assert len(set(numbers)) == 3
    assert found.prompt(numbers[0]).endswith("<a>")


def test_a_design_of_whole_batches_sees_them_whole(make_model, tokenizer, data) -> None:
    target = TargetSpec.model_validate({"gamma": {"kind": "rank"}})
    shown = view(make_model, tokenizer, data, target).show(range(len(data)), 0.0)
    tokens = [token for example in shown for token in example]
    labels = torch.cat([example.labels[example.labels >= 0] for example in data])
    probs = torch.cat([probabilities(make_model(1), example) for example in data])
    everything = LabelRows(label_logprobs=probs.gather(1, labels[:, None]).squeeze(1).log())
    assert [token["gamma"] for token in tokens] == trust(target, everything).tolist()
    alone = [trust(target, LabelRows(label_logprobs=part)) for part in everything.label_logprobs.split(3)]
    assert torch.cat(alone).tolist() != trust(target, everything).tolist(), "one by one it would be another trust"


def test_long_demonstrations_are_cut_and_prompts_kept(make_model, tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "1+1", "completion": "2" * (TOKENS + 40)}) + "\n")
    data = load_demonstrations(DataSettings(path=str(path), max_length=512), tokenizer, tmp_path)
    model = make_model(1)
    model.config.max_position_embeddings = 512
    shown = TokenView(model, tokenizer, data, presets.get("sft"), {}).show([0], 1.0)[0]
    assert len(shown) == TOKENS
    assert all(token["gamma"] == 1 and token["q"] == 1 for token in shown)
    assert "teacher" not in shown[0]
