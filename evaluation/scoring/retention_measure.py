"""Retention in a study: its problems or texts, what the base makes of them, and what each trial forgot."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ...spaces.errors import UserError
from ...spaces.identity import content_id, derive_seed
from ...trainers.data.style import Style
from ...trainers.paths import expanded
from ..generation.backends import Backend
from ..problems.load import Problem, content_of, load_problems
from ..problems.tables import read_rows, require_column
from ..settings import EvaluationSettings, RetentionSettings, TaskSettings
from ..statistics.stats import standard_error
from .evaluate import Evaluation, OnBlock, evaluate
from .retention import Logits, divergence, text_windows

Facts = dict[str, Any]


class RetentionMeasure:
    """Measures the models of one study's trials, all on the same problems or the same text."""

    def __init__(
        self,
        settings: EvaluationSettings,
        retention: RetentionSettings,
        tokenizer: Any,
        base: Path,
        seed: int,
        exclude: Collection[str] = frozenset(),
        style: Style | None = None,
    ) -> None:
        """`base`: the folder relative paths start from; `exclude`: content hashes of the training prompts; `style`: how
        the demonstrations ask.

        Raises UserError for tasks or a text that cannot be used.
        """
        self._settings, self._tokenizer = retention, tokenizer
        self._windows: list[list[int]] = []
        self._problems: tuple[Problem, ...] = ()
        self._base: Evaluation | None = None
        changes: Facts = {"tasks": retention.tasks, "problems": retention.problems, "report_problems": 0}
        if retention.max_new_tokens is not None:
            changes["max_new_tokens"] = retention.max_new_tokens
        self._evaluation = settings.model_copy(update=changes)
        if retention.text is not None:
            self._windows = _windows(tokenizer, _texts(retention, base), retention.tokens, seed)
        else:
            self._problems = load_problems(self._evaluation, base, seed, exclude, style).search

    @property
    def fingerprint(self) -> str:
        """Content of problems or text."""
        return content_id([content_of(self._problems), self._windows])

    @property
    def compares_logits(self) -> bool:
        """Whether the base must be at hand when a trial is measured; else it is asked once, by `ask_base`."""
        return bool(self._windows)

    @property
    def knows_base(self) -> bool:
        """Whether `measure` has what it needs to know of the base before."""
        return self.compares_logits or self._base is not None

    def ask_base(self, model: Any, seed: int, backend: Backend | None = None, on_block: OnBlock | None = None) -> None:
        """Let the untouched base answer the problems of other tasks."""
        asked = self._evaluate(model, seed, None, backend, on_block)
        self._base = None if asked.stopped else asked

    def measure(
        self,
        model: Any,
        base: Logits | None,
        *,
        seed: int,
        items_path: Path | None = None,
        backend: Backend | None = None,
        on_block: OnBlock | None = None,
    ) -> Facts | None:
        """What `model` kept, as plain data; None when `on_block` stopped it.

        `base`: the base's logits, where `compares_logits`. `value` has `standard_error`, `unit` and `direction`;
        `forgotten` is 0 for the base itself and grows with what is lost.
        """
        started = time.perf_counter()
        if self.compares_logits:
            assert base is not None, "the caller asks `compares_logits`"
            found: Facts | None = self._divergence(model, base)
        else:
            found = self._accuracy(model, seed, items_path, backend, on_block)
        return None if found is None else self._judged(found) | {"seconds": time.perf_counter() - started}

    def _divergence(self, model: Any, base: Logits) -> Facts:
        found = divergence(model, base, self._windows)
        return {
            "name": "KL to the base on general text",
            "value": found.kl,
            "standard_error": found.standard_error,
            "unit": "nats per token",
            "direction": "minimize",
            "base": 0.0,
            "forgotten": found.kl,
            "forgotten_standard_error": found.standard_error,
            "tokens": found.tokens,
        }

    def _accuracy(
        self, model: Any, seed: int, items_path: Path | None, backend: Backend | None, on_block: OnBlock | None
    ) -> Facts | None:
        assert self._base is not None, "the caller asks `knows_base`"
        found = self._evaluate(model, seed, items_path, backend, on_block)
        if found.stopped:
            return None
        lost = np.array(self._base.item_scores) - np.array(found.item_scores)
        return {
            "name": f"accuracy on {', '.join(dict.fromkeys(problem.task for problem in self._problems))}",
            "value": found.score,
            "standard_error": found.standard_error,
            "unit": "share of problems",
            "direction": "maximize",
            "base": self._base.score,
            "forgotten": float(lost.mean()),
            "forgotten_standard_error": standard_error(lost),
            "problems": found.num_problems,
        }

    def _evaluate(
        self, model: Any, seed: int, items_path: Path | None, backend: Backend | None, on_block: OnBlock | None
    ) -> Evaluation:
        return evaluate(
            model,
            self._tokenizer,
            self._problems,
            self._evaluation,
            seed=derive_seed("retention", seed),
            items_path=items_path,
            backend=backend,
            on_block=on_block,
        )

    def _judged(self, found: Facts) -> Facts:
        """With what the study makes of it: a limit that holds or not, or a value to search for (larger is better)."""
        role, limit = self._settings.role, self._settings.limit
        if role == "constraint" and limit is not None:
            return {**found, "role": role, "limit": limit, "feasible": found["forgotten"] <= limit}
        if role == "objective":
            return {**found, "role": role, "objective": -found["forgotten"]}
        return {**found, "role": role}


def _texts(settings: RetentionSettings, base: Path) -> list[str]:
    assert settings.text is not None
    path = (base / expanded(settings.text, "evaluation.retention.text")).resolve()
    if path.suffix == ".txt":
        try:
            return [text.strip() for text in path.read_text("utf-8").split("\n\n") if text.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"`retention.text` must be a readable file in UTF-8, but got {path}: {error}") from None
    rows = read_rows(TaskSettings(path=settings.text), base)
    for row, place in rows:
        require_column(row, settings.text_column, place)
    return [str(row.values[settings.text_column]) for row in rows if row.values[settings.text_column]]


def _windows(tokenizer: Any, texts: list[str], tokens: int, seed: int) -> list[list[int]]:
    """Windows of `tokens` tokens altogether, from texts in an order drawn by the seed."""
    drawn = sorted(texts, key=lambda text: derive_seed("retention text", seed, text))
    kept: list[list[int]] = []
    for window in text_windows(tokenizer, drawn):
        room = tokens - sum(map(len, kept))
        if room < 2:
            break
        kept.append(window[:room])
    if not kept:
        raise UserError("Retention needs general text of at least two tokens, but got none; give another `text`")
    return kept
