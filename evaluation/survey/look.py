"""One request answered: model, device, demonstrations, problems and possible teachers, one after the other."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ...spaces.errors import UserError
from ...trainers.data.files import read_path
from ...trainers.data.load import style_of
from ...trainers.data.turns import Conversation
from ...trainers.models.load import load_tokenizer
from ...trainers.models.size import size_of
from ...trainers.settings import DataSettings, ModelSettings
from ..problems.splits import training_hashes
from .columns import Values, demonstration_columns, shape_of
from .facts import DataFacts, ModelFacts, ProblemFacts, Survey, Wish
from .held_out import Read, hold_out, read_rows, reading_of
from .learnt import data_facts, settings_without_template
from .machine import machine_facts
from .problems import problem_facts, task_of
from .siblings import siblings_of, teacher_facts

PHASES = ("model", "demonstrations", "problems", "machine", "teachers")
SAMPLE = 50
TEMPLATE_FILE = "chat-template.jinja"
DEMONSTRATIONS, PROBLEMS = "demonstrations.jsonl", "problems.jsonl"


class Says(Protocol):
    """Where progress goes."""

    def send(self, kind: str, **fields: Any) -> None: ...


def answer(request: dict[str, Any], channel: Says) -> dict[str, Any]:
    """What a `Wish` finds. Raises UserError, with the setting that would mend it as `field`."""
    return look(Wish.model_validate(request), channel).model_dump(mode="json")


def look(wish: Wish, channel: Says) -> Survey:
    """Everything at once; says on `channel` how far it is."""

    def say(phase: str) -> None:
        channel.send("progress", phase="looking", done=PHASES.index(phase), total=len(PHASES), note=phase)

    base, model = Path(wish.base), ModelSettings(**wish.model)
    say("model")
    size = size_of(model, base)
    has_template = bool(load_tokenizer(model, base).chat_template)
    say("demonstrations")
    data, read, tokenizer = _demonstrations(wish, model, base)
    say("problems")
    problems = _problems(wish, read, data, base, tokenizer)
    say("machine")
    machine = machine_facts()
    say("teachers")
    teacher = None if wish.teacher is None else teacher_facts(model, wish.teacher, base)
    return Survey(
        model=ModelFacts(**vars(size), has_template=has_template),
        teacher=teacher,
        siblings=() if teacher is not None else siblings_of(model, size.parameters, base),
        machine=machine,
        data=data,
        problems=problems,
        has_lora=find_spec("peft") is not None,
    )


def _demonstrations(wish: Wish, model: ModelSettings, base: Path) -> tuple[DataFacts, Read, Any]:
    """What the rows are, the rows, and the tokenizer with the template that they need."""
    wished = DataSettings(**wish.data)
    first, title = _first_rows(wished, base), wished.paths[0]
    said = {key: value for key, value in wish.data.items() if key != "path"}
    columns = demonstration_columns(first, wish.data, title)
    used, unread = shape_of(first[0], columns)
    settings = DataSettings(path=wished.path, **(said | columns))
    read, tokenizer = read_rows(settings, base), load_tokenizer(model, base)
    plain: dict[str, Any] = {}
    template: str | None = None
    if not tokenizer.chat_template:
        plain, template = settings_without_template(read, used)
    if template is not None:
        file = Path(wish.scratch) / TEMPLATE_FILE
        file.write_text(template, "utf-8")
        tokenizer.chat_template = template
    every = any(isinstance(turn, Conversation) and _answers(turn) > 1 for turn in read.turns)
    settings = settings.model_copy(update={**plain, **({"learn": "all"} if every else {})})
    read = read_rows(settings, base) if plain or every else read
    found = data_facts(read, settings, tokenizer, base)
    shape = " and ".join(used)
    kept = settings.model_dump(exclude_defaults=True, exclude={"path"})
    return DataFacts(shape=shape, unread_columns=unread, settings=kept, template=template, **found), read, tokenizer


def _first_rows(settings: DataSettings, base: Path) -> list[Values]:
    path = settings.paths[0]
    rows = read_path(path, base, name=settings.name, split=settings.split, field="data.path")
    found = [row.values for row in islice(rows, SAMPLE)]
    if not found:
        raise UserError(f"`--data` must hold demonstrations, but {path} is empty", field="data.path")
    return found


def _answers(turn: Conversation) -> int:
    return sum(message["role"] == "assistant" for message in turn.messages)


def _problems(wish: Wish, read: Read, data: DataFacts, base: Path, tokenizer: Any) -> ProblemFacts:
    """Problems that are named, or that are held out of the demonstrations."""
    settings = DataSettings(path=wish.data["path"], **data.settings)
    if wish.tasks:
        named = [task_of(name, base, data.chat, wish.kind) for name in wish.tasks]
        tasks, kinds = [task for task, _ in named], [kind for _, kind in named]
        return problem_facts(tasks, kinds, base, _asked(read), style_of(settings, base), tokenizer)
    scratch, reading = Path(wish.scratch), reading_of(read, wish.kind)
    held, examples = hold_out(read, scratch, reading)
    settings = settings.model_copy(update={"path": DEMONSTRATIONS, "name": None, "split": "train"})
    style, asked = style_of(settings, scratch), _asked(read_rows(settings, scratch))
    task: dict[str, Any] = {"path": PROBLEMS, "kind": reading.kind, **({} if data.chat else {"chat": False})}
    found = problem_facts([task], [f"{reading.kind}: {reading.why}"], scratch, asked, style, tokenizer)
    return found.model_copy(update={"held_out": held, "examples": tuple(examples)})


def _asked(read: Read) -> frozenset[str]:
    return training_hashes(text for turn in read.turns for text in turn.asked)
