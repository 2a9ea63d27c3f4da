"""What a look at somebody's model, demonstrations and problems found, as data. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ...spaces.settings import Settings
from ..settings import Kind

GYM, HARNESS = "gym:", "lm_eval:"
"""What stands before the name of a task of reasoning-gym, and of lm-evaluation-harness."""


class Wish(Settings):
    """What to look at; relative paths start at `base`."""

    base: str
    model: dict[str, Any]
    """Settings of a study's `model`."""
    data: dict[str, Any]
    """Settings of a study's `data`: its path, and columns where they are named."""
    teacher: str | None = None
    tasks: tuple[str, ...] = ()
    """Files, suites, `gym:NAME` or `lm_eval:NAME`; none: problems are held out of the demonstrations."""
    kind: Kind | None = None
    """How answers are compared; None: by what they look like."""
    scratch: str
    """An empty folder for files that are written."""


class ModelFacts(Settings):
    architecture: str
    parameters: int
    layers: int
    width: int
    vocabulary: int
    positions: int | None
    has_template: bool
    """Whether its tokenizer brings a chat template."""


class SiblingFacts(Settings):
    """Another model with the same vocabulary."""

    path: str
    parameters: int


class MachineFacts(Settings):
    device: str
    is_gpu: bool
    memory_bytes: int
    """Of the device, free for a study."""
    multiply_flops: float
    """Floating-point operations per second of a matrix product in the study's precision, measured."""


Segment = tuple[str, bool]
"""Text, and whether it is learnt."""


class DataFacts(Settings):
    """Demonstrations as they will be learnt."""

    shape: str
    """For people: `messages`, `question and answer`."""
    rows: int
    unread_columns: tuple[str, ...]
    settings: dict[str, Any]
    """Settings of a study's `data` beside path and length."""
    template: str | None = None
    """A chat template to write down, where the tokenizer has none and the demonstrations need one."""
    chat: bool
    """Whether they go through a chat template."""
    lengths: dict[int, int]
    """Tokens of a demonstration, and how many have so many."""
    answer_lengths: dict[int, int]
    """Learnt tokens of a demonstration, and how many have so many."""
    notes: tuple[str, ...]
    shown: tuple[tuple[Segment, ...], ...]
    """Two demonstrations, as they are learnt."""


class HeldOut(Settings):
    """Problems that were split off the demonstrations."""

    problems: int
    demonstrations: int
    """Rows that are left to learn from."""
    removed: int
    """Rows that ask what a problem asks."""


class ProblemFacts(Settings):
    tasks: tuple[dict[str, Any], ...]
    """Entries of `evaluation.tasks`."""
    kinds: tuple[str, ...]
    """How the answers of each task are compared, and why, for people."""
    search: Annotated[int, Field(ge=0)]
    """Problems that the search may look at."""
    report: Annotated[int, Field(ge=0)]
    """Problems that are left for the report."""
    longest_prompt: int
    """Tokens."""
    examples: tuple[tuple[str, str], ...]
    """Questions with their golds."""
    held_out: HeldOut | None = None


class Survey(Settings):
    """Everything that was found."""

    model: ModelFacts
    teacher: SiblingFacts | None
    siblings: tuple[SiblingFacts, ...]
    """Larger models that could teach this one, largest first."""
    machine: MachineFacts
    data: DataFacts
    problems: ProblemFacts
    has_lora: bool
    """Whether the extra `lora` is installed."""
