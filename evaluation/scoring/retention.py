"""What a fine-tune forgot of general text: its divergence from the base.

Letters: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...spaces.errors import UserError
from ...spaces.settings import Settings
from ...trainers.teachers.answers import Answers
from ..generation.batched import evaluation_mode

Logits = Callable[[Tensor, Tensor], Tensor]
"""From token ids (B, L) and attention mask (B, L) to logits (B, L, V)."""

_ROWS = 512
"""Token rows compared at a time: bounds the float32 copies (rows, V)."""


class Divergence(Settings):
    """KL(base ‖ model) on some text."""

    kl: float
    """Mean over predicted tokens, nats."""
    standard_error: float | None
    """Of `kl`, clustered by window; None for a single one."""
    nll: float
    """Mean negative log-likelihood of the text under the model, nats per token."""
    base_nll: float
    """The same under the base."""
    tokens: int
    """Predicted tokens: all but the first of each sequence."""


def text_windows(tokenizer: Any, texts: Sequence[str], *, length: int = 512) -> list[list[int]]:
    """Token ids of `texts`, cut into windows of at most `length` tokens; windows of a single token are left out."""
    windows = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        windows += [ids[start : start + length] for start in range(0, len(ids), length)]
    return [window for window in windows if len(window) > 1]


def divergence(model: Any, base: Logits, windows: Sequence[Sequence[int]], *, batch_size: int = 4) -> Divergence:
    """Mean over tokens of KL(base ‖ model) = Σ_v b_v (log b_v − log π_v) on `windows` of token ids, teacher-forced.

    `base` gives the base's logits: `lambda ids, mask: base(input_ids=ids, attention_mask=mask).logits`, or the trained
    model with its adapters off. The direction charges the model for what the base would have said and it no longer
    does.

    Raises UserError for no windows, and for tokens that the model has no row for.
    """
    if not windows:
        raise UserError("Retention needs general text of at least two tokens, but got none; give texts to measure on")
    windows = _fitting(model, windows)
    found = []
    with evaluation_mode(model), torch.no_grad():
        for ids, mask in _batches(windows, batch_size, model.get_input_embeddings().weight.device):
            valid = mask[:, 1:].bool()
            ours = model(input_ids=ids, attention_mask=mask).logits[:, :-1][valid]
            theirs = base(ids, mask)[:, :-1][valid]
            rows = _per_token(ours, theirs, ids[:, 1:][valid])
            window = valid.nonzero()[:, 0].cpu()  # of each token
            found.append(torch.zeros(len(ids), 3, dtype=torch.float64).index_add_(0, window, rows))
    counts = np.array([len(window) - 1 for window in sorted(windows, key=len, reverse=True)])
    sums = torch.cat(found).numpy()  # (windows, 3)
    kl, nll, base_nll = (sums.sum(axis=0) / counts.sum()).tolist()
    error = _ratio_error(sums[:, 0], counts)
    return Divergence(kl=kl, standard_error=error, nll=nll, base_nll=base_nll, tokens=int(counts.sum()))


def remembered(base: Logits, answers: Answers) -> Logits:
    """`base`, which answers what it was asked before from memory: every trial asks it the same."""

    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        asked = (ids.shape, ids.cpu().numpy().tobytes(), mask.cpu().numpy().tobytes())
        return answers.of(asked, lambda: base(ids, mask))

    return logits


def _fitting(model: Any, windows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The windows, cut where they are longer than the model has positions."""
    rows, largest = model.get_input_embeddings().weight.shape[0], max(map(max, windows))
    if largest >= rows:
        raise UserError(
            f"Every token of the retention text must have a row in the model, but it uses id {largest} of {rows} rows; "
            "add the token (`model.add_tokens`), or give another text",
            field="evaluation.retention.text",
        )
    room = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or max(
        map(len, windows)
    )
    cut = [window[start : start + room] for window in windows for start in range(0, len(window), room)]
    return [window for window in cut if len(window) > 1]


def _ratio_error(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> float | None:
    """Standard error of Σ sums / Σ counts over windows (n,), which are drawn whole (linearised ratio)."""
    windows = len(sums)
    if windows < 2:
        return None
    residuals = sums - counts * sums.sum() / counts.sum()
    return float(np.sqrt(windows / (windows - 1) * np.sum(residuals**2)) / counts.sum())


def _batches(windows: Sequence[Sequence[int]], size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Right-padded ids and masks (B, L), windows of similar length together."""
    order = sorted(windows, key=len, reverse=True)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        width = len(rows[0])
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        yield ids, (torch.arange(width, device=device) < lengths[:, None]).long()


def _per_token(logits: Tensor, base_logits: Tensor, labels: Tensor) -> Tensor:
    """KL, NLL and base NLL of each token, (T, 3) float64 on the host, from logits (T, V) and labels (T,)."""
    found = []
    for start in range(0, len(labels), _ROWS):
        rows = slice(start, start + _ROWS)
        ours, theirs = (z[rows].float().log_softmax(dim=-1) for z in (logits, base_logits))
        kl = _divergence(ours, theirs)
        label = labels[rows, None]
        parts = (kl, -ours.gather(1, label)[:, 0], -theirs.gather(1, label)[:, 0])
        found.append(torch.stack(parts, dim=1).double().cpu())
    return torch.cat(found)


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """KL(theirs ‖ ours) of each row (T,) from log-probabilities (T, V), exact also where it is tiny.

    With r = log π − log b it is Σ b (e^r − 1 − r), as Σ (π − b) = 0: no term is negative, and what float32 rounds off
    r counts with the weight r, not 1.
    """
    ratio, base = ours - theirs, theirs.exp()
    gained = torch.where(ratio < 10, base * torch.expm1(ratio.clamp(max=10)), ours.exp() - base)
    return (gained - base * ratio).sum(dim=-1)
