"""What decides a score: tasks, sampling and scoring. Free of torch, so that any process may read it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ..spaces.settings import Settings

Kind = Literal["math", "numeric", "choice", "exact"]


class Shot(Settings):
    """A worked example shown before the question."""

    question: str
    answer: str


class TaskSettings(Settings):
    """One source of problems with known answers."""

    source: Literal["file", "gym", "suite"] = "file"
    """`file`: JSONL, Parquet or anything `datasets.load_dataset` takes. `gym`: a reasoning-gym task (extra `gym`).
    `suite`: a known benchmark, whose columns and prompt are filled in where they are not given."""
    path: str
    """File or data set id; the task's name for `gym` and `suite`."""
    name: str | None = None
    """Configuration of the data set."""
    split: str = "train"
    question_column: str = "question"
    answer_column: str = "answer"
    choices_column: str | tuple[str, ...] | None = None
    """Column with the options of a multiple-choice question (a list or a mapping), or one column per option."""
    choices: tuple[str, ...] = ()
    """The options when they are the same for every question. The gold may be an option's letter, index or text."""
    where: dict[str, tuple[str, ...]] = Field(default={})
    """Keep rows whose column has one of these values."""
    template: str = "{question}"
    """Text of the user message. {question}, {choices}, and any column by name, nested ones as {column.field}; a literal
    brace before a word is doubled: {{name}}."""
    shots: tuple[Shot, ...] = ()
    """Worked examples, each through the template, before the question in the same message."""
    kind: Kind = "math"
    """How an answer is compared, unless a `verifier` does it."""
    verifier: str | None = None
    """`module:function` called with (completion, gold) that returns a Verdict's name or a bool."""
    chat: bool = True
    """Pass the prompt through the tokenizer's chat template; false: plain text."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of this task among all problems, relative to the other tasks."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-6
    """Relative, for numeric golds that are no integers. Integers are compared exactly."""
    config: dict[str, Any] = Field(default={})
    """Options of a reasoning-gym task."""

    @model_validator(mode="after")
    def _options_belong_to_source(self) -> Self:
        if self.config and self.source != "gym":
            raise ValueError("`config` must be empty unless `source` is gym, but got options; remove them")
        if self.choices and self.choices_column:
            raise ValueError("`choices` and `choices_column` must not both be given; keep one")
        return self


class RacingSettings(Settings):
    """When an evaluation of a hopeless trial ends early."""

    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Most probable share of trials stopped although they are no worse than the incumbent, over all looks together."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Score points a trial must be ahead to matter; one that is shown to lack them is stopped."""
    block: Annotated[int, Field(ge=1)] = 16
    """Problems between two looks."""


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
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a completion."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sequences decoded together."""
    racing: RacingSettings | None = None
    """None: every trial sees all problems."""
