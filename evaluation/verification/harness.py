"""Tasks of lm-evaluation-harness as a worker loads, asks and scores them (extra `lm-eval`): its rules, item by item.

Prompts, worked examples, filters and metrics are the library's own (`Task.build_all_requests`, `apply_filters`,
`process_results`). Only what makes and judges is here; the answers come from our generation. A worker does it because
metrics may hang, and because some set alarms, which only a main thread may.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from pydantic import Field

from ...spaces.settings import Settings
from ..facts import Fact, facts_of
from ..settings import HarnessOptions
from .harness_scores import Answers, Unusable, gold_of, judged, metric_of, options_of, probe

Reply = tuple[str, str]
_ALIASES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DEFAULT_TOKENS = 256
_KNOWN = {"until", "do_sample", "temperature", *_ALIASES}
_NEUTRAL: dict[str, Any] = {"top_p": 1.0, "num_beams": 1, "repetition_penalty": 1.0}


class HarnessSource(Settings):
    """Where a task comes from: enough to load it again."""

    name: str
    """Of a task, group or tag, or the path of a YAML file."""
    options: HarnessOptions
    base: str
    """Folder where relative paths start, in the options and in the task's own file."""


class HarnessItem(Settings):
    """What one document of a task asks of a model."""

    task: str
    doc: int
    """Its number among the documents that are evaluated."""
    question: str
    fields: tuple[str, ...]
    """Texts of the document that may be a question as demonstrations ask it."""
    gold: str
    contexts: tuple[str, ...]
    """What comes before the answer: texts, or with the chat template JSON of `messages` and `add_generation_prompt`."""
    continuations: tuple[tuple[int, str], ...] = ()
    """(number of the context, text): their log-likelihoods are the answer; none: a text is generated."""
    until: tuple[str, ...] = ()
    max_new_tokens: int = _DEFAULT_TOKENS
    temperature: float = 0.0
    facts: dict[str, Fact] = Field(default_factory=dict)


def make_items(source: dict[str, Any]) -> Reply:
    """Every document of every task that `source` names: ("correct", items as JSON), or ("wrong", the broken rule)."""
    try:
        where = HarnessSource.model_validate(source)
        made = [item.model_dump() for task in _loaded(where).values() for item in _items(task, where.options)]
    except Unusable as error:
        return "wrong", str(error)
    return "correct", json.dumps(made)


def prepare(source: dict[str, Any]) -> Reply:
    """Load the tasks, so that an answer's clock does not run meanwhile."""
    _loaded(HarnessSource.model_validate(source))
    return "correct", ""


def score(source: dict[str, Any], name: str, doc: int, answers: Answers) -> Reply:
    """Whether the task's metric gives full marks to the answers to document number `doc`, and the filtered answer.

    Raises RuntimeError when the metric gives another value than 0 or 1.
    """
    where = HarnessSource.model_validate(source)
    task = _loaded(where)[name]
    value, answer = judged(task.own, task.docs[doc], where.options, answers)
    if value not in (0, 1):
        metric = metric_of(task.own, where.options)
        raise RuntimeError(f"`{metric}` of {name} must be 0 or 1 for every item, but is {value!r:.40}")
    return ("correct" if value == 1 else "wrong"), answer


# --- loading


class _Task:
    """A task of lm-evaluation-harness with its documents, read once."""

    def __init__(self, task: Any, options: HarnessOptions) -> None:
        self.own, self.name = task, str(task.config.task)
        self.docs = list(task.eval_docs)
        if options.limit is not None:
            self.docs = self.docs[: options.limit]


def _loaded(source: HarnessSource) -> dict[str, _Task]:
    return _cached(source.model_dump_json())


@lru_cache(maxsize=4)
def _cached(source: str) -> dict[str, _Task]:
    where = HarnessSource.model_validate_json(source)
    with contextlib.chdir(where.base):
        return {name: _Task(task, where.options) for name, task in _find(where).items()}


def _find(where: HarnessSource) -> dict[str, Any]:
    """The tasks behind a name, each refused if it cannot be scored item by item."""
    options, is_file = where.options, os.path.isfile(where.name)
    if not is_file and where.name.endswith((".yaml", ".yml")):
        raise Unusable(
            f"`path` of an `lm_eval` task must be a name, or a YAML file that is there, but none is at {where.name} "
            f"in {where.base}; relative paths start there"
        )
    manager = _manager(where.name, options.include_path)
    if not is_file and where.name not in manager.all_tasks:
        raise Unusable(_unknown(where.name, manager.all_tasks, options.include_path))
    try:
        found: dict[str, Any] = manager.load(where.name)["tasks"]
    except Exception as error:  # a task's file runs code of its own, and its data may be anywhere
        raise Unusable(_unloadable(where.name, error)) from error
    for name, task in found.items():
        _check_kind(name, task)
        if options.num_fewshot is not None and task.get_config("num_fewshot") != 0:  # 0 is meant, there as here
            task.set_config(key="num_fewshot", value=options.num_fewshot)
        if options.gen_kwargs and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(options.gen_kwargs), update=True)
        task.set_fewshot_seed(seed=options.fewshot_seed)
    return found


def _manager(name: str, include_path: str | None) -> Any:
    """The library's index; its own thousands of files are read only where one of them may be meant."""
    from lm_eval.tasks import TaskManager

    own = TaskManager(include_path=include_path, include_defaults=False)
    return own if os.path.isfile(name) or name in own.all_tasks else TaskManager(include_path=include_path)


def _unknown(name: str, known: Sequence[str], include_path: str | None) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    like = f"; the closest are {', '.join(near)}" if near else ""
    looked = "" if include_path is None else f" or of {include_path}"
    return (
        f"`path` must be a task, group or tag of lm-evaluation-harness{looked}, or a task's YAML file, but got "
        f"{name!r}{like}; `config.include_path` names a folder with tasks of your own"
    )


def _unloadable(name: str, error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return (
        f"The task {name!r} of lm-evaluation-harness must load, but it raises {text}; if its data set cannot be "
        "reached, load it once where there is a network, or name local files under `dataset_kwargs` in a task of yours"
    )


def _check_kind(name: str, task: Any) -> None:
    kinds = ("generate_until", "multiple_choice", "loglikelihood")
    if task.OUTPUT_TYPE not in kinds:
        raise Unusable(
            f"A task must have one of the output types {', '.join(kinds)}, but {name} has {task.OUTPUT_TYPE}, which "
            "has no score of its own for each item; for forgetting on texts, use `retention.text`"
        )
    for trait, what in (("MULTIMODAL", "shows images or sounds"), ("UNSAFE_CODE", "runs the code that models write")):
        if getattr(task, trait, False):
            raise Unusable(f"A task must be of texts that are compared, but {name} {what}; use another task")
    if int(getattr(task.config, "repeats", 1) or 1) != 1:
        raise Unusable(
            f"`repeats` of a task must be 1, but {name} has {task.config.repeats}; write a task of your own that "
            "includes it with `repeats: 1`, and ask for more completions with `samples`"
        )


# --- asking


def _items(task: _Task, options: HarnessOptions) -> Iterator[HarnessItem]:
    """In the library's order: it draws worked examples one document after the other."""
    if not task.docs:
        raise Unusable(f"A task must have documents to evaluate, but {task.name} has none; mend its splits")
    generation = _generation(task)
    grouped: dict[int, list[Any]] = {}
    for request in _requests(task, options):
        grouped.setdefault(request.doc_id, []).append(request)
    probe(task.own, task.docs, options)
    shared = Counter(text for doc in task.docs for text in set(_texts(doc)))
    for number, doc in enumerate(task.docs):
        contexts = list(dict.fromkeys(request.args[0] for request in grouped[number]))
        generated = task.own.OUTPUT_TYPE == "generate_until"
        yield HarnessItem(
            task=task.name,
            doc=number,
            question=_question(task.own, doc),
            fields=tuple(_texts(doc)),
            gold=gold_of(task.own, doc),
            contexts=tuple(contexts),
            continuations=()
            if generated
            else tuple((contexts.index(request.args[0]), request.args[1]) for request in grouped[number]),
            facts=_facts(task.own, doc, shared),
            **generation,
        )


def _requests(task: _Task, options: HarnessOptions) -> list[Any]:
    as_messages = options.apply_chat_template
    try:
        task.own.build_all_requests(
            limit=options.limit,
            system_instruction=options.system_instruction,
            apply_chat_template=as_messages,
            fewshot_as_multiturn=as_messages and options.fewshot_as_multiturn,
            chat_template=_messages if as_messages else None,
        )
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise Unusable(
            f"The prompts of {task.name} must be made as its file says, but lm-evaluation-harness raises {text}; mend "
            "the task, or ask for fewer `num_fewshot`"
        ) from error
    return list(task.own.instances)


def _messages(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """In place of a chat template, which only the process with the tokenizer has: what it is to be given."""
    return json.dumps({"messages": messages, "add_generation_prompt": add_generation_prompt})


def _generation(task: _Task) -> dict[str, Any]:
    """How a task's texts are generated, as lm-evaluation-harness reads `generation_kwargs`."""
    if task.own.OUTPUT_TYPE != "generate_until":
        return {}
    given = {key: value for key, value in (task.own.config.generation_kwargs or {}).items() if value is not None}
    strange = [key for key in given if key not in _KNOWN and not (key in _NEUTRAL and given[key] == _NEUTRAL[key])]
    if strange:
        raise Unusable(
            f"`generation_kwargs` must be of {', '.join(sorted(_KNOWN))}, but {task.name} has {strange[0]}: "
            f"{given[strange[0]]!r}; set it to null under `config.gen_kwargs`"
        )
    until, sampled = given.get("until", []), given.get("do_sample")
    return {
        "until": tuple(each for each in ([until] if isinstance(until, str) else until) if each),
        "max_new_tokens": int(next((given[key] for key in _ALIASES if key in given), _DEFAULT_TOKENS)),
        "temperature": 0.0 if sampled is False else float(given.get("temperature", 1.0 if sampled else 0.0)),
    }


def _question(task: Any, doc: Any) -> str:
    """What makes the document this one: its text without worked examples, and its options."""
    text = task.doc_to_text(doc)
    return "\n".join([*([text] if isinstance(text, str) else []), *options_of(task, doc)])


def _facts(task: Any, doc: Any, shared: Mapping[str, int]) -> dict[str, Fact]:
    """What the document says besides question and target."""
    if not isinstance(doc, dict):
        return {}
    target = str(task.config.doc_to_target)
    return facts_of(doc, [name for name, value in doc.items() if name in target or shared.get(str(value)) == 1])


def _texts(doc: Any) -> list[str]:
    return [each for each in doc.values() if isinstance(each, str)] if isinstance(doc, dict) else []
