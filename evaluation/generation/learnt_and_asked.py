"""What is learnt and what is asked, token by token, so that people see by eye what a model is taught.

The tokens are those of training and of generation themselves: nothing is rendered for the picture alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from ...trainers.data.demonstrations import Demonstration, Demonstrations
from ...trainers.data.turns import Conversation, Turn
from ...trainers.models.tokens import special_ids
from ..problems.load import Problem
from ..problems.mismatches import Difference
from .answering import prompt_of
from .completions import Sampling

LOOKED_AT = 1000
"""Demonstrations among which a second one is looked for that is built otherwise than the first."""
HEAD, TAIL = 160, 80
"""Tokens of a stretch that are shown at its beginning and at its end."""
LONGEST = 4000
"""Characters of a text that are shown as they were given."""
WINDOW = 12
"""Tokens that are decoded together, so that each has the text that it has among its neighbours."""
TORN = "\ufffd"


def learnt_and_asked(
    data: Demonstrations,
    turns: Iterable[Turn],
    problems: Sequence[Problem],
    tokenizer: Any,
    ends: Collection[int],
    differences: Iterable[Difference],
) -> dict[str, Any]:
    """Two demonstrations and one problem, as given and as tokens, and what differs between them: JSON data.

    `turns`: the demonstrations as they are written, read only as far as those two. `ends`: ids that end a completion.
    """
    chosen = _two(data, special_ids(tokenizer))
    places = {each.place for each in chosen}
    given = {} if places == {""} else _given(turns, places)
    return {
        "demonstrations": [_demonstration(each, given.get(each.place, []), tokenizer, ends) for each in chosen],
        "problem": _problem(problems[0], tokenizer, ends) if problems else None,
        "differences": [asdict(each) for each in differences],
    }


def _two(data: Demonstrations, special: Collection[int]) -> list[Demonstration]:
    """The first demonstration, and the first that comes from another file or has other special tokens before it."""
    first, *rest = data[:LOOKED_AT]
    other = next((each for each in rest if _build(each, special) != _build(first, special)), None)
    return [each for each in (first, other or next(iter(rest), None)) if each is not None]


def _build(example: Demonstration, special: Collection[int]) -> tuple[str, list[int]]:
    """The file that a demonstration comes from, and the special tokens in it."""
    return example.place.partition(" of ")[2], [each for each in example.token_ids.tolist() if each in special]


def _given(turns: Iterable[Turn], places: set[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for turn in turns:
        if turn.place in places:
            found[turn.place] = list(_parts(turn))
        if len(found) == len(places):
            break
    return found


def _parts(turn: Turn) -> Iterator[dict[str, Any]]:
    """What a row gives, in its own words."""
    if not isinstance(turn, Conversation):
        yield from (_clipped(role, text) for role, text in _plain(turn.prompt, turn.completion, turn.whole))
        return
    for name, value in (("tools", turn.tools), ("variables", turn.template_kwargs)):
        if value:
            yield _clipped(name, _text(value))
    for message in turn.messages:
        yield _clipped(message["role"], message["content"])
        for key in message.keys() - {"role", "content"}:
            yield _clipped(f"{message['role']}.{key}", _text(message[key]))


def _plain(prompt: str, completion: str, whole: bool) -> list[tuple[str, str]]:
    return [("text", completion)] if whole else [("prompt", prompt), ("completion", completion)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=dict)


def _clipped(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "text": text[:LONGEST], "left_out": max(0, len(text) - LONGEST)}


def _demonstration(
    example: Demonstration, given: list[dict[str, Any]], tokenizer: Any, ends: Collection[int]
) -> dict[str, Any]:
    ids, learnt = example.token_ids.tolist(), example.learnt.tolist()
    learnt[0] = False  # nothing comes before it that could predict it
    weights = [1.0] * len(ids) if example.weights is None else example.weights.tolist()
    critical = [False] * len(ids) if example.critical is None else example.critical.tolist()
    marks = [
        (loss, round(weight, 6) if loss else 0.0, crucial and loss)
        for loss, weight, crucial in zip(learnt, weights, critical, strict=True)
    ]
    losses = [number for number, loss in enumerate(learnt) if loss]
    last = next((number for number in reversed(losses) if ids[number] in ends), losses[-1] if losses else None)
    return {
        "place": example.place,
        "given": given,
        "tokens": len(ids),
        "labels": example.num_labels,
        "segments": _segments(ids, marks, tokenizer),
        "end": None if last is None else _end(ids, last, losses, tokenizer, ends),
    }


def _end(ids: list[int], last: int, losses: Sequence[int], tokenizer: Any, ends: Collection[int]) -> dict[str, Any]:
    """The token that ends an answer, whether generation stops at it, and how many are learnt behind it."""
    return {
        "id": ids[last],
        "text": token_texts(tokenizer, ids, [last])[0],
        "stops": ids[last] in ends,
        "behind": sum(number > last for number in losses),
    }


def _problem(problem: Problem, tokenizer: Any, ends: Collection[int]) -> dict[str, Any]:
    prompt = prompt_of(tokenizer, problem, Sampling(1, frozenset(ends)))
    ids = list(prompt.pairs[0].context if prompt.pairs else prompt.ids)
    turns = [(turn["role"], turn["content"]) for turn in problem.asking.turns] if problem.chat else []
    asked = [*turns, ("user" if problem.chat else "prompt", problem.prompt)]
    known = problem.asking.variables if problem.chat else {}
    variables = [_clipped("variables", _text(known))] if known else []
    return {
        "task": problem.task,
        "given": [*variables, *(_clipped(role, text) for role, text in asked)],
        "gold": problem.gold[:LONGEST],
        "tokens": len(ids),
        "segments": _segments(ids, [(False, 0.0, False)] * len(ids), tokenizer),
        "options": [option[:LONGEST] for option in prompt.options],
        "ends": [str(tokenizer.convert_ids_to_tokens(each)) for each in sorted(ends)],
    }


def _segments(ids: list[int], marks: Sequence[tuple[bool, float, bool]], tokenizer: Any) -> list[dict[str, Any]]:
    """Stretches of tokens that count alike: with or without a loss, how often, whether critical."""
    found, special = [], special_ids(tokenizer)
    for (learnt, weight, critical), group in groupby(range(len(ids)), key=lambda number: marks[number]):
        numbers = list(group)
        cut = len(numbers) > HEAD + TAIL
        shown = [*numbers[:HEAD], *numbers[-TAIL:]] if cut else numbers
        texts = token_texts(tokenizer, ids, shown)
        tokens: list[Mapping[str, Any]] = [
            {"id": ids[number], "text": text, "special": ids[number] in special}
            for number, text in zip(shown, texts, strict=True)
        ]
        found.append(
            {
                "learnt": learnt,
                "weight": weight,
                "critical": critical,
                "tokens": tokens[:HEAD] if cut else tokens,
                "left_out": len(numbers) - len(shown),
                "then": tokens[HEAD:] if cut else [],
            }
        )
    return found


def token_texts(tokenizer: Any, ids: Sequence[int], numbers: Iterable[int]) -> list[str]:
    """The text that each of these tokens adds to those before it.

    A character that several tokens make together stands at the last of them, the others are empty.
    """

    def decoded(start: int, stop: int) -> str:
        text = tokenizer.decode(ids[start:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    found = []
    for number in numbers:
        start = max(0, number - WINDOW)
        before, upto = decoded(start, number), decoded(start, number + 1)
        whole = upto.rstrip(TORN) if number + 1 < len(ids) else upto
        shared = before.rstrip(TORN)
        if whole.startswith(shared):
            found.append(whole[len(shared) :])
        else:  # a decoder that writes earlier tokens otherwise once more follow
            found.append(str(tokenizer.convert_ids_to_tokens(ids[number])))
    return found
