"""What a task of lm-evaluation-harness makes of answers: its filters and its metric, one document at a time."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from ..settings import HarnessOptions

Answers = Sequence[Any]
"""Of one document, in the order of its requests: a text, or (log-likelihood, whether it is the greedy choice)."""


class Unusable(Exception):
    """A task or an option that cannot be used; the text says the rule, the value and the remedy."""


def metric_of(task: Any, options: HarnessOptions) -> str:
    """The metric that is asked for, or the first that is a mean over items and grows with quality.

    Raises Unusable for one that only exists over all items, or where less is better.
    """
    averaged, names = _averaged(task), list(task.aggregation())
    if options.metric in averaged or (options.metric is None and averaged):
        return options.metric or averaged[0]
    usable = f"use {' or '.join(averaged)}" if averaged else "use another task"
    has = f"got {options.metric!r}" if options.metric is not None else f"{task.config.task} has {', '.join(names)}"
    raise Unusable(
        f"`config.metric` must be a metric of {task.config.task} that scores each item and is averaged, where more is "
        f"better, but {has}; {usable}"
    )


def _averaged(task: Any) -> list[str]:
    from lm_eval.api.metrics import mean

    better = task.higher_is_better()
    return [name for name, how in task.aggregation().items() if how is mean and better.get(name, True)]


def filter_of(task: Any, options: HarnessOptions) -> str:
    """The filter that is asked for, or the task's first. Raises Unusable for another."""
    names = [str(each.name) for each in task._filters]
    if options.filter not in (None, *names):
        raise Unusable(
            f"`config.filter` must be one of {', '.join(names)} for {task.config.task}, but got {options.filter!r}"
        )
    return options.filter or names[0]


def judged(task: Any, doc: Any, options: HarnessOptions, answers: Answers) -> tuple[Any, str]:
    """(value of the metric, the answer behind the filters) of one document."""
    from lm_eval.api.instance import Instance

    metric, kept = metric_of(task, options), filter_of(task, options)
    kind = "generate_until" if isinstance(answers[0], str) else "loglikelihood"
    name, alone = task.config.task, copy.copy(task)
    alone._instances = [Instance(kind, doc, (), idx, (name, 0, 1), [_plain(each)]) for idx, each in enumerate(answers)]
    alone.apply_filters()
    filtered = [request.filtered_resps[kept] for request in alone._instances]
    values = task.process_results(doc, filtered)
    if metric not in values:
        raise RuntimeError(f"`{metric}` is not among what {name} gives an item: {', '.join(map(str, values))}")
    return values[metric], _shown(task, doc, filtered)


def _plain(answer: Any) -> Any:
    return answer if isinstance(answer, str) else (float(answer[0]), bool(answer[1]))


def _shown(task: Any, doc: Any, filtered: Sequence[Any]) -> str:
    """The answer for people: the filtered text, or the likeliest option."""
    if isinstance(filtered[0], tuple):
        options = options_of(task, doc)
        best = max(range(len(options) or 1), key=lambda number: filtered[number][0])
        return options[best].strip() if options else ""
    return filtered[0] if isinstance(filtered[0], str) else json.dumps(filtered[0], default=str)


def options_of(task: Any, doc: Any) -> list[str]:
    """The texts to choose from; none where a text is generated freely."""
    return [str(each) for each in task.doc_to_choice(doc)] if getattr(task.config, "doc_to_choice", None) else []


def gold_of(task: Any, doc: Any) -> str:
    """The target as a text, for people: an option by its words."""
    target, options = task.doc_to_target(doc), options_of(task, doc)
    if getattr(task, "multiple_input", 0):
        target = task.doc_to_text(doc)
    several = target if isinstance(target, list) else [target]
    named = [options[each] if isinstance(each, int) and 0 <= each < len(options) else str(each) for each in several]
    return " | ".join(each.strip() for each in named)


def probe(task: Any, docs: Sequence[Any], options: HarnessOptions) -> None:
    """Raise Unusable for a metric that gives an item a part of the marks, before a model has answered."""
    metric_of(task, options), filter_of(task, options)
    if task.OUTPUT_TYPE != "generate_until":
        return
    for doc in docs[:3]:
        words = gold_of(task, doc).split()
        for text in (" ".join(words), " ".join(words[: len(words) // 2]), ""):
            _check_value(task, metric_of(task, options), _value(task, doc, options, text))


def _value(task: Any, doc: Any, options: HarnessOptions, text: str) -> Any:
    try:
        return judged(task, doc, options, [text])[0]
    except Exception:  # an answer that nobody gave: what a real one raises is told beside it
        return None


def _check_value(task: Any, metric: str, value: Any) -> None:
    if value is None or value in (0, 1):
        return
    others = [each for each in _averaged(task) if each != metric]
    raise Unusable(
        f"`config.metric` must be 0 or 1 for every item, but {metric} of {task.config.task} gave {value!r:.40}; "
        + (f"try {' or '.join(others)}" if others else "use another task")
    )
