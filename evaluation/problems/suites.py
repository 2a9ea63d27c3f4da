"""The usual benchmarks by name: hub ids, columns and prompts as their authors publish them.

Test splits only. A suite's field that is given in the YAML wins over the one here.
"""

from typing import Any

from ...spaces.errors import UserError
from ..settings import TaskSettings

_BOXED = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
_OPTION = (
    "{question}\n\n{choices}\n\n"
    'Think step by step, then finish with "The answer is (X)", where X is the letter of the right option.'
)

SUITES: dict[str, TaskSettings] = {
    "gsm8k": TaskSettings(path="openai/gsm8k", name="main", split="test", template=_BOXED, kind="numeric"),
    "math500": TaskSettings(
        path="HuggingFaceH4/MATH-500", split="test", question_column="problem", template=_BOXED, kind="math"
    ),
    "amc23": TaskSettings(path="math-ai/amc23", split="test", template=_BOXED, kind="numeric"),
    "aime24": TaskSettings(
        path="HuggingFaceH4/aime_2024", split="train", question_column="problem", template=_BOXED, kind="numeric"
    ),
    "aime25": TaskSettings(
        path="math-ai/aime25", split="test", question_column="problem", template=_BOXED, kind="numeric"
    ),
    "olympiadbench": TaskSettings(
        path="Hothan/OlympiadBench",
        name="OE_TO_maths_en_COMP",
        split="train",
        answer_column="final_answer",
        error_column="error",
        template=_BOXED,
        kind="math",
    ),
    "minerva": TaskSettings(path="math-ai/minervamath", split="test", template=_BOXED, kind="math"),
    "medqa": TaskSettings(
        path="GBaker/MedQA-USMLE-4-options",
        split="test",
        answer_column="answer_idx",
        choices_column="options",
        template=_OPTION,
        kind="choice",
    ),
    "medmcqa": TaskSettings(
        path="openlifescienceai/medmcqa",
        split="validation",  # the test split has no answers
        answer_column="cop",
        choices_column=("opa", "opb", "opc", "opd"),
        template=_OPTION,
        kind="choice",
    ),
    "pubmedqa": TaskSettings(
        path="qiaojin/PubMedQA",
        name="pqa_labeled",
        split="train",  # the only split
        answer_column="final_decision",
        choices=("yes", "no", "maybe"),
        template="{context.contexts}\n\n" + _OPTION,
        kind="choice",
    ),
    "mmlu_pro_medical": TaskSettings(
        path="TIGER-Lab/MMLU-Pro",
        split="test",
        choices_column="options",
        where={"category": ("health",)},
        template=_OPTION,
        kind="choice",
    ),
}


def resolve(task: TaskSettings) -> TaskSettings:
    """The task itself, or the suite it names with the given fields on top. Raises UserError for an unknown suite."""
    if task.source != "suite":
        return task
    if task.title not in SUITES:
        raise UserError(f"`path` of a suite must be one of {', '.join(SUITES)}, but got {task.title!r}")
    given: dict[str, Any] = {name: getattr(task, name) for name in task.model_fields_set - {"source", "path"}}
    return TaskSettings.model_validate({**SUITES[task.title].model_dump(), **given})
