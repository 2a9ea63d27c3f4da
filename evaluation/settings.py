"""What decides a score: tasks, sampling and scoring. Free of torch, so that any process may read it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ..spaces.settings import Settings

Kind = Literal["math", "numeric", "choice", "exact"]
GoldReading = Literal["key", "letter", "text", "index", "index_from_1"]


FROM_DEMONSTRATIONS = "from demonstrations"


class Shot(Settings):
    """A worked example shown before the question."""

    question: str
    answer: str


class HarnessOptions(Settings):
    """Options of a task of lm-evaluation-harness, named as there."""

    include_path: str | None = None
    """Folder with tasks of your own, beside those that the library brings."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Worked examples; default: as the task says."""
    fewshot_seed: int = 1234
    """Draws the worked examples; the default is the library's."""
    metric: str | None = None
    """One that scores each item with 0 or 1; default: the task's first that is averaged."""
    filter: str | None = None
    """One of the task's filters by name; default: its first."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Only so many documents, the first."""
    gen_kwargs: dict[str, Any] = Field(default={})
    """On top of the task's `generation_kwargs`: `until`, `max_gen_toks`, `temperature`, `do_sample`."""
    apply_chat_template: bool = False
    """Pass the prompt through the tokenizer's chat template."""
    fewshot_as_multiturn: bool = True
    """With the chat template: worked examples as earlier turns."""
    system_instruction: str | None = None
    """Before the task's own description."""


class TaskSettings(Settings):
    """One source of problems with known answers."""

    source: Literal["file", "gym", "suite", "lm_eval"] = "file"
    """`file`: whatever demonstrations may be read from (`data.path`). `gym`: a reasoning-gym task (extra `gym`).
    `suite`: a known benchmark, whose columns and prompt are filled in where they are not given. `lm_eval`: a task of
    lm-evaluation-harness (extra `lm-eval`) with its own prompts, stop strings, filters and metric."""
    path: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """File, pattern, folder or data set id, or a list of these; the task's name for `gym` and `suite`; for `lm_eval`
    the name of a task, group or tag, or a task's YAML file."""
    name: str | None = None
    """Configuration of the data set."""
    split: str = "train"
    question_column: str = "question"
    answer_column: str = "answer"
    choices_column: str | tuple[str, ...] | None = None
    """Column with the options of a multiple-choice question (a list or a mapping), or one column per option."""
    choices: tuple[str, ...] = ()
    """The options when they are the same for every question. The gold may be an option's key, letter, text or index."""
    gold_is: GoldReading | None = None
    """How a gold names its option; default: the first reading that fits every row."""
    where: dict[str, tuple[str, ...]] = Field(default={})
    """Keep rows whose column has one of these values."""
    template: str = "{question}"
    """Text of the user message. {question}, {choices}, and any column by name, nested ones as {column.field}; a literal
    brace before a word is doubled: {{name}}."""
    shots: tuple[Shot, ...] = ()
    """Worked examples, each through the template, before the question in the same message."""
    system: str | None = FROM_DEMONSTRATIONS
    """System message before the question; by default the one that all demonstrations have. `none`: no such message."""
    few_shot: tuple[Shot, ...] | Annotated[int, Field(ge=0)] = ()
    """Worked examples as earlier turns of the conversation: given (each question through the template), or so many
    demonstrations, drawn by their content."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template; default: those of the demonstrations."""
    kind: Kind = "math"
    """How an answer is compared, unless a `verifier` does it."""
    verifier: str | None = None
    """`module:function` called with (completion, gold) that returns a Verdict's name or a bool."""
    chat: bool = True
    """Pass the prompt through the tokenizer's chat template; false: plain text."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of this task among all problems, relative to the other tasks."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-6
    """Relative, for golds that are no integers. Integers are compared exactly."""
    error_column: str | None = None
    """Column with the absolute error that an answer to this row may have; empty: none. Counts for integers too."""
    config: dict[str, Any] = Field(default={})
    """Options of a reasoning-gym task; for `lm_eval` those of `HarnessOptions`."""

    @field_validator("system")
    @classmethod
    def _one_way_to_say_it(cls, system: str | None) -> str | None:
        said = (system or "").strip().casefold().replace("_", " ").replace("-", " ")
        if said in ("from demonstrations", "demonstrations", "default"):
            return FROM_DEMONSTRATIONS
        return None if said in ("", "none", "null") else system

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def title(self) -> str:
        """The first path: for people, and the name of a gym task or suite."""
        return self.paths[0]

    @property
    def harness(self) -> HarnessOptions:
        """`config`, as a task of lm-evaluation-harness reads it."""
        return HarnessOptions.model_validate(self.config)

    @model_validator(mode="before")
    @classmethod
    def _asked_as_the_harness_asks(cls, given: Any) -> Any:
        """`chat` of an `lm_eval` task is its `apply_chat_template`; whatever else shapes a prompt is the task's own."""
        if not isinstance(given, dict) or given.get("source") != "lm_eval":
            return given
        config = given.get("config") or {}
        chat = bool(config.get("apply_chat_template")) if isinstance(config, dict) else False
        fields = cls.model_fields
        other = [
            name
            for name in _HARNESS_DECIDES
            if given.get(name) not in (None, [], fields[name].get_default())  # an empty tuple is [] in JSON
        ]
        if given.get("chat") not in (None, chat):
            other.append("chat")
        if other:
            raise ValueError(
                f"`{other[0]}` must not be given with `source: lm_eval`, whose tasks ask and judge as their own files "
                "say; remove it, or use an option under `config` (`num_fewshot`, `apply_chat_template`, `metric`, ...)"
            )
        return {**given, "chat": chat}

    @model_validator(mode="after")
    def _options_belong_to_source(self) -> Self:
        if self.source == "lm_eval":
            _check_harness(self.config)
        elif self.config and self.source != "gym":
            raise ValueError("`config` must be empty unless `source` is gym or lm_eval, but got options; remove them")
        if self.choices and self.choices_column:
            raise ValueError("`choices` and `choices_column` must not both be given; keep one")
        if self.source != "file" and not isinstance(self.path, str):
            raise ValueError(f"`path` must be one name with `source: {self.source}`, but got a list; write two tasks")
        return self

    @model_validator(mode="after")
    def _turns_need_a_template(self) -> Self:
        given = {
            "system": self.system not in (None, FROM_DEMONSTRATIONS),
            "few_shot": bool(self.few_shot),
            "chat_template_kwargs": bool(self.chat_template_kwargs),
        }
        if not self.chat and (wrong := [name for name, said in given.items() if said]):
            raise ValueError(
                f"`{wrong[0]}` must go with `chat: true`, but got `chat: false`; use `template` and `shots` instead"
            )
        return self


_HARNESS_DECIDES = (
    "name", "split", "question_column", "answer_column", "choices_column", "choices", "gold_is", "where", "template",
    "shots", "system", "few_shot", "chat_template_kwargs", "kind", "verifier", "tolerance", "error_column",
)  # fmt: skip
"""Fields that say what a task of lm-evaluation-harness says itself."""


def _check_harness(config: dict[str, Any]) -> None:
    """Raise ValueError with what is wrong with an option."""
    try:
        HarnessOptions.model_validate(config)
    except ValidationError as error:
        first, known = error.errors()[0], ", ".join(HarnessOptions.model_fields)
        raise ValueError(
            f"`config.{'.'.join(map(str, first['loc']))}` of an `lm_eval` task: {first['msg']}; its options are {known}"
        ) from None


class RacingSettings(Settings):
    """When an evaluation of a hopeless trial ends early."""

    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Most probable share of trials stopped although they would end ahead by `margin`, over all looks together."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """How far ahead of the incumbent a trial must end to be worth its tokens; 0.01 is one point."""
    block: Annotated[int, Field(ge=2)] = 16
    """Problems before the first look, and at least as many between two looks. They are generated together, and what a
    look may throw away is not begun before it: a block below `batch_size` leaves places of the batch empty."""
    growth: Annotated[float, Field(ge=1)] = 1.5
    """Each look comes when so many times the problems of the one before are done."""


class RetentionSettings(Settings):
    """What a fine-tune should not forget, measured at the end of every trial: `tasks` or `text`."""

    tasks: tuple[TaskSettings, ...] = ()
    """Other tasks, scored as the study's own are; measured is the accuracy on them."""
    problems: Annotated[int, Field(ge=2)] = 64
    """Problems over all `tasks`."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """For `tasks`; default: as in the evaluation."""
    text: str | None = None
    """General text: a local .txt file (an empty line ends a text), or JSONL or Parquet with `text_column`; measured is
    KL(base ‖ model) on it, in nats per token."""
    text_column: str = "text"
    tokens: Annotated[int, Field(ge=2)] = 4096
    """Tokens of `text` to compare, at most."""
    role: Literal["report", "constraint", "objective"] = "report"
    """`report`: measured and shown. `constraint`: a trial that forgets more than `limit` is infeasible. `objective`:
    searched for beside the score; the result is a front of trials, and needs `pruner: none` and no racing."""
    limit: Annotated[float, Field(ge=0)] | None = None
    """Most a trial may forget: nats per token for `text`, accuracy lost against the base for `tasks`."""

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if bool(self.tasks) == (self.text is not None):
            raise ValueError("`tasks` or `text` must be given, and not both; keep one")
        if (self.limit is not None) != (self.role == "constraint"):
            raise ValueError(
                f"`limit` must go with `role: constraint`, but got {self.limit} with {self.role}; mend one"
            )
        return self


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
    backend: Literal["transformers", "plain", "vllm"] = "transformers"
    """Who generates: qtarget's batched loop, the model's own generate() one problem at a time, or vLLM (extra)."""
    retention: RetentionSettings | None = None
    """What else a trial's model is measured on."""

    @model_validator(mode="after")
    def _an_objective_needs_whole_evaluations(self) -> Self:
        if self.retention is not None and self.retention.role == "objective" and self.racing is not None:
            raise ValueError("`racing` must be off when retention is an objective: a raced trial has no second value")
        return self
