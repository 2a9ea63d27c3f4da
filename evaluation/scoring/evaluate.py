"""The score of a model on problems with known answers: generate, verify, record, in blocks that may end early."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...spaces.identity import content_id
from ..extraction.answers import opens_reasoning
from ..generation.answering import Prompt, completions, prompt_of
from ..generation.backends import Backend, TransformersBackend
from ..generation.completions import Completion, Request, Sampling
from ..generation.prompts import end_tokens
from ..generation.sampling import sequence_key
from ..problems.load import Problem
from ..settings import EvaluationSettings
from ..statistics.racing import looks
from ..verification.verify import fingerprint, judge
from .items import Item, ItemLog
from .scores import Evaluation, item_scores, summarise

__all__ = ["Evaluation", "OnBlock", "Race", "evaluate", "longest_prompt"]

_JUDGES = 4
"""Threads that wait for verification workers."""

OnBlock = Callable[[int, int], bool | None]
Race = Callable[[tuple[float, ...]], bool]


def evaluate(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    settings: EvaluationSettings,
    *,
    seed: int,
    items_path: Path | None = None,
    on_block: OnBlock | None = None,
    race: Race | None = None,
    samples: int | None = None,
    block: int = 32,
    growth: float = 1.0,
    backend: Backend | None = None,
) -> Evaluation:
    """Score `model` on `problems`, k = `samples` (default `settings.samples`) completions each.

    The problems are taken in the given order in blocks: the first ends at `block` problems, each later one where
    `racing.looks` says. After each, `on_block(done, total)` is called, and `race` with the item scores so far, (done,);
    either ends the evaluation by returning True. The result then covers the whole blocks done, never a part of one:
    what ends first in a batch is short, and short is no fair sample. Sequences of the next block fill the places that
    the current one leaves free, so that no block waits for its longest; not under a `race`, where the next block may
    never be wanted: its tokens are those of the blocks done and no others.

    With `items_path` every decided item is written there, and one found there is not made again.

    Raises UserError for fewer than two problems, two problems of one id, a prompt that leaves no room for
    `max_new_tokens`, a missing chat template, and an items file of other sampling settings.
    """
    started = time.perf_counter()
    ends = looks(len(problems), block, growth)
    run = _Run(model, tokenizer, problems, settings, seed, samples or settings.samples, ends)
    with ItemLog(items_path, run.identity()) as log:
        done, stopped = run.fill(log, backend or TransformersBackend(model, tokenizer), on_block, race)
        items = [log.items[key] for key in run.keys(done)]
    return summarise(items, run.samples, stopped=stopped, seconds=time.perf_counter() - started)


class _Run:
    """One evaluation's inputs, checked and rendered."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        problems: Sequence[Problem],
        settings: EvaluationSettings,
        seed: int,
        samples: int,
        ends: Sequence[int],
    ) -> None:
        _check_problems(problems, ends[0])
        self.problems, self.samples, self._seed, self._ends = problems, samples, seed, ends
        self._model, self._tokenizer = model, tokenizer
        self._sampling = Sampling(
            max_new_tokens=settings.max_new_tokens,
            end_tokens=end_tokens(model, tokenizer, chat=any(problem.chat for problem in problems)),
            temperature=settings.temperature,
            stop=settings.stop,
            batch_size=settings.batch_size,
        )
        self._prompts = [prompt_of(tokenizer, problem, self._sampling) for problem in problems]
        _check_fit(model, tokenizer, self._prompts)

    def identity(self) -> str:
        """What items must share to be of one evaluation: all that decides a completion besides model and problem."""
        sampling = self._sampling
        parts = [sampling.max_new_tokens, sampling.temperature, list(sampling.stop), sorted(sampling.end_tokens)]
        return content_id({"seed": self._seed, "sampling": parts})[:16]

    def keys(self, problems: int) -> list[tuple[str, int]]:
        """(problem id, sample) of the first `problems` problems, in order."""
        return [(problem.id, sample) for problem in self.problems[:problems] for sample in range(self.samples)]

    def fill(self, log: ItemLog, backend: Backend, on_block: OnBlock | None, race: Race | None) -> tuple[int, bool]:
        """Add the missing items to `log`, block by block. Returns problems done and whether a callback stopped it."""
        first = 0
        for last in self._ends if race is not None else self._ends[-1:]:
            ends = [end for end in self._ends if first < end <= last]
            with closing(self._arrivals(backend, self._missing(log, first, last))) as arrivals:
                for end in ends:
                    self._await(log, arrivals, first, end)
                    if _stops(on_block, race, partial(self._scores, log, end), end, len(self.problems)):
                        return end, end < len(self.problems)
            first = last
        return len(self.problems), False

    def _missing(self, log: ItemLog, first: int, last: int) -> list[int]:
        """Numbers (problem · k + sample) of the completions of problems first..last-1 that are not there yet."""
        keys = self.keys(last)[first * self.samples :]
        return [index for index, key in enumerate(keys, first * self.samples) if key not in log.items]

    def _await(self, log: ItemLog, arrivals: Iterator[list[Item]], first: int, end: int) -> None:
        """Take arrivals until problems first..end-1 are decided, and make them survive a power cut."""
        keys = self.keys(end)[first * self.samples :]
        while any(key not in log.items for key in keys):
            for item in next(arrivals):
                log.add(item)
        log.sync()

    def _scores(self, log: ItemLog, problems: int) -> tuple[float, ...]:
        return item_scores([log.items[key] for key in self.keys(problems)], self.samples)

    def _arrivals(self, backend: Backend, indices: Sequence[int]) -> Generator[list[Item]]:
        """Judged items as they come. Judging runs beside generation, in threads that wait for worker processes."""
        waiting: deque[Future[Item]] = deque()
        with (
            closing(completions(self._model, self._tokenizer, backend, self._asked(indices))) as made,
            ThreadPoolExecutor(_JUDGES) as judges,
        ):
            try:
                for completion in made:
                    waiting.append(judges.submit(self._item, completion))
                    yield _decided(waiting)
                yield [future.result() for future in waiting]
            finally:
                judges.shutdown(cancel_futures=True)

    def _asked(self, indices: Sequence[int]) -> list[tuple[Request, Prompt]]:
        """Block after block, within a block those sampled alike, and the longest prompt first.

        A request's `index` is problem · k + sample.
        """
        ways = {prompt.way: number for number, prompt in enumerate(self._prompts)}

        def place(index: int) -> tuple[int, int, int, int]:
            problem = index // self.samples
            prompt = self._prompts[problem]
            return bisect_right(self._ends, problem), ways[prompt.way], -len(prompt.ids), index

        order = sorted(indices, key=place)
        return [(self._request(*divmod(index, self.samples)), self._prompts[index // self.samples]) for index in order]

    def _request(self, problem: int, sample: int) -> Request:
        key = sequence_key(self._seed, self.problems[problem].id, sample)
        return Request(problem * self.samples + sample, self._prompts[problem].ids, key)

    def _item(self, completion: Completion) -> Item:
        index, sample = divmod(completion.index, self.samples)
        problem = self.problems[index]
        prompt = self._prompts[index].text
        claim = problem.claim(
            completion.text,
            truncated=completion.finish == "length",
            reasoning=opens_reasoning(prompt),
            likelihoods=completion.likelihoods,
        )
        judgement = judge(claim)
        return Item(
            problem=problem.id,
            task=problem.task,
            sample=sample,
            prompt=prompt,
            completion=completion.text,
            gold=problem.gold,
            answer=judgement.answer,
            verdict=judgement.verdict,
            detail=judgement.detail,
            finish=completion.finish,
            tokens=len(completion.tokens),
            seconds=round(completion.seconds, 4),
            kind=claim.kind,
            tolerance=claim.tolerance,
            absolute=claim.absolute,
            verifier=claim.verifier,
            entry=claim.entry,
            judged_by=fingerprint(),
            sampling=self.identity(),
        )


def _decided(waiting: deque[Future[Item]]) -> list[Item]:
    """Take the items at the head of the queue that are judged already."""
    items = []
    while waiting and waiting[0].done():
        items.append(waiting.popleft().result())
    return items


def _stops(
    on_block: OnBlock | None, race: Race | None, scores: Callable[[], tuple[float, ...]], done: int, total: int
) -> bool:
    """Ask both callbacks, so that neither misses a block."""
    asked = bool(on_block and on_block(done, total))
    return bool(race and race(scores())) or asked


def _check_problems(problems: Sequence[Problem], block: int) -> None:
    if len(problems) < 2 or block < 2:
        raise UserError(
            f"An evaluation needs at least 2 problems and blocks of at least 2, but got {len(problems)} and {block}; "
            "one score has no standard error"
        )
    twice = [name for name, count in Counter(problem.id for problem in problems).items() if count > 1]
    if twice:
        raise UserError(
            f"Problems must have different ids, but {len(twice)} occur more than once (first: {twice[0]}); "
            "remove the duplicates"
        )


def longest_prompt(model: Any, tokenizer: Any, problems: Sequence[Problem], new_tokens: int) -> int:
    """Tokens of the longest prompt. Raises UserError when it leaves no room for `new_tokens`, or the model lacks one of
    its tokens."""
    sampling = Sampling(new_tokens, frozenset())
    prompts = [prompt_of(tokenizer, problem, sampling) for problem in problems]
    _check_fit(model, tokenizer, prompts)
    return max(len(prompt.ids) for prompt in prompts)


def _check_fit(model: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    largest, prompt = max(((max(prompt.ids), prompt) for prompt in prompts), key=lambda pair: pair[0])
    if largest >= rows:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise UserError(
            f"Every token of a prompt must have a row in the model, but {prompt.text[-80:]!r} uses {token!r}, id "
            f"{largest}, of {rows} rows; add it to the model (`model.add_tokens: [{token!r}]`), or take a tokenizer "
            "that belongs to it",
            field="model.add_tokens",
        )
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    worst = max(prompts, key=lambda prompt: prompt.room)
    if limit is not None and worst.room > limit:
        longer = sum(prompt.room > limit for prompt in prompts)
        less = "lower `max_new_tokens`"
        if worst.pairs or worst.until is not None:
            less = "set `num_fewshot`, or `gen_kwargs: {max_gen_toks: ...}`, under `config` of the task"
        raise UserError(
            f"Prompt and `max_new_tokens` must fit the model's {limit} positions, but got {len(worst.ids)} + "
            f"{worst.room - len(worst.ids)} at worst, too long for {longer} of {len(prompts)} problems; {less} or "
            "leave these problems out"
        )
