"""The ready study files: each passes the configuration's validation, and says what it means to say."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from qtarget.evaluation.problems.suites import resolve
from qtarget.search.loop.plan import first_slots
from qtarget.search.study.campaign_config import load_campaign, shares

STUDIES = Path(__file__).parents[3] / "studies"
FILES = sorted(path.name for path in STUDIES.glob("*.yaml"))
PUBLISHED = {
    "qwen2.5-math-1.5b-numina.yaml": ("Qwen/Qwen2.5-Math-1.5B", "AI-MO/NuminaMath-CoT", 256, 2048, 5e-5),
    "qwen3-1.7b-openr1.yaml": ("Qwen/Qwen3-1.7B-Base", "open-r1/OpenR1-Math-220k", 256, 4096, 5e-5),
    "llama-3.2-3b-medical.yaml": ("meta-llama/Llama-3.2-3B", "UCSC-VLAA/m23k-tokenized", 256, 800, 5e-5),
}


@pytest.mark.parametrize("name", FILES)
def test_a_ready_file_is_a_valid_study(name: str) -> None:
    campaign = load_campaign([STUDIES / name])
    for study in campaign.studies:
        baselines = [name for slot in first_slots(study) if (name := slot.attributes.get("baseline"))]
        assert len(baselines) < shares(campaign)[study.study], "room for the sampler"
        assert "sft" in baselines, "something to compare with"
        assert all(resolve(task).path for task in study.evaluation.tasks), "suites are known"
        assert study.needs <= study.inputs


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_pair_has_its_published_numbers(name: str) -> None:
    (study,) = load_campaign([STUDIES / name]).studies
    training = study.training
    found = (study.model.path, study.data.path, training.effective_batch, study.data.max_length, training.learning_rate)
    assert found == PUBLISHED[name]
    assert (training.adam_betas, training.decay, training.warmup_fraction) == ((0.9, 0.95), "cosine", 0.1)
    assert (training.clip_norm, training.precision) == (1.0, "bf16")
    assert study.teacher is not None and study.evaluation.report_problems >= 256
    assert "Not run here" in (STUDIES / name).read_text()
    inside = [slot.parameters for slot in first_slots(study)]
    assert sum(bool(parameters) for parameters in inside) >= 5, "published baselines teach the sampler"


def test_the_template_of_the_medical_study_asks_as_published() -> None:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers renders chat templates
    template = environment.from_string((STUDIES / "llama3-boxed.jinja").read_text())
    asked = template.render(
        messages=[{"role": "user", "content": "Which?"}], bos_token="<|begin_of_text|>", add_generation_prompt=True
    )
    assert asked == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhich?\nPlease reason step by step, and put your "
        "final answer within \\boxed{}.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    answered = template.render(
        messages=[{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "B"}],
        bos_token="<|begin_of_text|>", add_generation_prompt=False,
    )  # fmt: skip
    assert answered == asked + "B<|eot_id|>", "a prompt is the beginning of its conversation"
