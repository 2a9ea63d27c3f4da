"""How each problem of an evaluation is answered: a text under its own stop strings, or log-likelihoods of options."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from jinja2 import TemplateError

from ...spaces.errors import UserError
from ..problems.load import Problem
from ..verification.harness import HarnessItem
from .backends import Backend
from .completions import Completion, Request, Sampling
from .likelihoods import Likelihoods, Pair, Question, encode_pair, likelihoods, plain_ids
from .prompts import encode, render


@dataclass(frozen=True)
class Prompt:
    """A problem as a model meets it."""

    text: str
    ids: tuple[int, ...]
    """Token ids; of the longest option with its context where log-likelihoods are the answer."""
    sampling: Sampling
    pairs: tuple[Pair, ...] = ()
    """Options to compare; none: a text is generated."""
    options: tuple[str, ...] = ()
    """Texts of the pairs' continuations."""
    until: tuple[str, ...] | None = None
    """Where the text is cut, one string after the other, as lm-evaluation-harness does; None: at the first stop."""

    @property
    def way(self) -> tuple[bool, Sampling]:
        """What prompts that are answered together have alike."""
        return bool(self.pairs), self.sampling

    @property
    def room(self) -> int:
        """Positions of the model that prompt and answer need."""
        return len(self.ids) if self.pairs else len(self.ids) + self.sampling.max_new_tokens


def prompt_of(tokenizer: Any, problem: Problem, sampling: Sampling) -> Prompt:
    """`sampling`: of the study, for problems that have none of their own."""
    if problem.harness is None:
        text = render(tokenizer, problem)
        return Prompt(text, encode(tokenizer, text, chat=problem.chat), sampling)
    return _harness_prompt(tokenizer, problem.harness, sampling)


def _harness_prompt(tokenizer: Any, item: HarnessItem, sampling: Sampling) -> Prompt:
    contexts = [_context(tokenizer, each) for each in item.contexts]
    if item.continuations:
        options = tuple(text for _, text in item.continuations)
        pairs = tuple(encode_pair(tokenizer, contexts[number], text) for number, text in item.continuations)
        _check_options(item, pairs)
        longest = max(((*pair.context, *pair.continuation) for pair in pairs), key=len)
        return Prompt("\n".join(contexts), longest, sampling, pairs, options)
    own = replace(sampling, max_new_tokens=item.max_new_tokens, temperature=item.temperature, stop=item.until)
    end = () if tokenizer.eos_token is None or tokenizer.eos_token in item.until else (tokenizer.eos_token,)
    ids = tuple(plain_ids(tokenizer, contexts[0]))
    return Prompt(contexts[0], ids, own, until=(*item.until, *end))


def _context(tokenizer: Any, context: str) -> str:
    """The text itself, or its messages through the chat template, which may leave no room for a system message."""
    if not context.startswith('{"messages": '):
        return context
    asked = json.loads(context)
    messages, prompted = asked["messages"], asked["add_generation_prompt"]
    how = {"tokenize": False, "add_generation_prompt": prompted, "continue_final_message": not prompted}
    try:
        return str(tokenizer.apply_chat_template(messages, **how))
    except TemplateError:
        kept = [message for message in messages if message["role"] != "system"]
        return str(tokenizer.apply_chat_template(kept, **how))


def _check_options(item: HarnessItem, pairs: Sequence[Pair]) -> None:
    empty = [text for (_, text), pair in zip(item.continuations, pairs, strict=True) if not pair.continuation]
    if empty or any(not pair.context for pair in pairs):
        raise UserError(
            f"Every option must have tokens of its own behind its context, but document {item.doc} of {item.task} has "
            f"{(empty or [''])[0]!r}; mend the task's `doc_to_choice` or `target_delimiter`",
            field="evaluation.tasks",
        )


def completions(
    model: Any, tokenizer: Any, backend: Backend, asked: Sequence[tuple[Request, Prompt]]
) -> Generator[Completion]:
    """One completion for each request. Neighbours that are sampled alike are generated together."""
    for (compared, sampling), group in groupby(asked, key=lambda pair: pair[1].way):
        members = list(group)
        prompts = {request.index: prompt for request, prompt in members}
        if compared:
            questions = [Question(index, prompt.pairs) for index, prompt in prompts.items()]
            for found in likelihoods(model, questions, sampling.batch_size):
                yield _chosen(prompts[found.index], found)
            continue
        with closing(backend.generate([request for request, _ in members], sampling)) as made:
            for completion in made:
                until = prompts[completion.index].until
                yield completion if until is None else _cut(tokenizer, completion, until)


def _chosen(prompt: Prompt, found: Likelihoods) -> Completion:
    """The likeliest option as the text, for people; the task's own metric looks at the likelihoods."""
    best = max(range(len(found.values)), key=lambda number: found.values[number][0])
    return Completion(found.index, prompt.options[best], (), "end", found.seconds, found.values)


def _cut(tokenizer: Any, completion: Completion, until: Sequence[str]) -> Completion:
    """The text that lm-evaluation-harness makes of these tokens."""
    text = str(tokenizer.decode(completion.tokens, skip_special_tokens=True))
    for string in until:
        text = text.split(string)[0]
    return replace(completion, text=text)
