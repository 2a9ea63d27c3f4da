"""What decides a score: tasks, sampling and scoring. Free of torch, so that any process may read it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ..spaces.settings import Settings

Kind = Literal["math", "numeric", "choice", "exact"]


class TaskSettings(Settings):
    """One source of problems with known answers."""

    source: Literal["file", "gym"] = "file"
    """`file`: JSONL, Parquet or anything `datasets.load_dataset` takes. `gym`: a reasoning-gym task (extra `gym`)."""
    path: str
    """File or data set id; the task's name for `gym`."""
    name: str | None = None
    """Configuration of the data set."""
    split: str = "train"
    question_column: str = "question"
    answer_column: str = "answer"
    choices_column: str | None = None
    """Column with the options of a multiple-choice question."""
    template: str = "{question}"
    """Text of the user message; {column} names a column of the row."""
    kind: Kind = "math"
    """How an answer is compared, or `module:function` in `verifier`."""
    verifier: str | None = None
    """`module:function` called with (completion, gold) that returns a Verdict's name or a bool."""
    chat: bool = True
    """Pass the prompt through the tokenizer's chat template; false: plain text."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    config: dict[str, Any] = {}
    """Options of a reasoning-gym task."""


class EvaluationSettings(Settings):
    """How a model is scored."""

    tasks: tuple[TaskSettings, ...] = Field(min_length=1)
    problems: Annotated[int, Field(ge=2)] = 128
    """Problems of the search split, over all tasks."""
    report_problems: Annotated[int, Field(ge=0)] = 0
    """Problems of the report split, untouched until confirmation."""
    samples: Annotated[int, Field(ge=1)] = 1
    """k of Average@k: completions per problem."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0: greedy decoding."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sequences decoded together."""
