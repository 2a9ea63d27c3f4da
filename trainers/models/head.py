"""The two halves of a causal language model: decoder to hidden states, output head to logits.

T tokens, H hidden width, V rows of the head. logits = cap(scale · (h Wᵀ + b)), cap(x) = c·tanh(x / c) where the model
has a soft cap c.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError

LOGPROB_CHUNK_BYTES = 64 * 2**20
BY_SEQUENCE = "sdpa_by_sequence"
"""Name of the attention of `attention.py` among those of transformers."""


@dataclass(frozen=True, eq=False)
class OutputHead:
    """What turns hidden states into logits."""

    weight: Tensor  # (V, H)
    bias: Tensor | None  # (V,)
    softcap: float | None
    logit_scale: float

    def logits(self, hidden: Tensor) -> Tensor:
        """(T, H) → (T, V)."""
        logits = nn.functional.linear(hidden, self.weight, self.bias) * self.logit_scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    @torch.no_grad()
    def label_logprobs(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """log π(y) in nats, float32 (float64 for float64 models), shape (T,); never holds more than a chunk of rows."""
        rows = max(1, LOGPROB_CHUNK_BYTES // (4 * self.weight.shape[0]))
        pieces = []
        for part, wanted in zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True):
            logits = self.logits(part)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            pieces.append(logits.gather(1, wanted.unsqueeze(1)).squeeze(1) - logits.logsumexp(1))
        return torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)


def base_model(model: nn.Module) -> Any:
    """The transformers model inside `model`, with its adapters still active when it carries any."""
    get_base_model = getattr(model, "get_base_model", None)  # peft's
    return model if get_base_model is None else get_base_model()


def decoder_of(model: nn.Module) -> Any:
    """The part of a causal language model that ends in hidden states."""
    causal = base_model(model)
    decoder = getattr(causal, causal.base_model_prefix, None)
    return causal.get_decoder() if decoder is None else decoder


def hidden_states(
    model: nn.Module,
    inputs: Tensor,
    position_ids: Tensor | None = None,
    lengths: tuple[int, ...] | None = None,
    prefix: int = 0,
) -> Tensor:
    """Hidden states before the output head, (sequences, positions) → (sequences, positions, H).

    With `position_ids`, sequences may lie one after the other in a row; their `lengths` spare the mask where the model
    attends by sequence (`attention.py`), and only there they may share the first `prefix` positions of the row.
    """
    decoder = decoder_of(model)
    packed: dict[str, Any] = {} if position_ids is None else {"position_ids": position_ids}
    if lengths is not None and decoder.config._attn_implementation == BY_SEQUENCE:
        # A mask of four dimensions is taken as it is: none is made of the positions.
        packed |= {"sequence_lengths": lengths, "attention_mask": inputs.new_ones((1, 1, 1, 1), dtype=torch.bool)}
        packed |= {"shared_prefix": prefix} if prefix else {}
    elif prefix:
        raise ValueError("sequences may share a prefix only in a model that attends by sequence; pack them without one")
    hidden = decoder(input_ids=inputs, use_cache=False, **packed).last_hidden_state
    assert isinstance(hidden, Tensor)
    return hidden


def output_head(model: nn.Module) -> OutputHead:
    """The head of a causal language model, checked against the model's own logits on a few tokens.

    Raises UserError for a model whose logits are not of the form above: its loss would be silently wrong.
    """
    causal = base_model(model)
    layer = _active(causal.get_output_embeddings())
    if not isinstance(layer, nn.Linear):
        raise UserError(
            f"the output head must be one linear layer, but {type(causal).__name__} has {type(layer).__name__}; "
            "leave the head out of `lora.target_modules` (`modules_to_save` trains it in full), or use another model",
            field="training.lora.target_modules",
        )
    head = OutputHead(layer.weight, layer.bias, _softcap(causal.config), _scale(causal))
    _check(model, causal, head)
    return head


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inference mode of the layers without gradients; the former mode comes back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _active(layer: Any) -> Any:
    """The layer itself, or the copy of it that peft trains (`modules_to_save`) unless adapters are off."""
    copies = getattr(layer, "modules_to_save", None)
    if copies is None:
        return layer
    return layer.original_module if layer.disable_adapters else copies[layer.active_adapters[0]]


def _softcap(config: Any) -> float | None:
    value = getattr(config, "final_logit_softcapping", None)
    return None if value is None else float(value)


def _scale(causal: Any) -> float:
    config = causal.config
    if getattr(config, "logits_scaling", None):
        return 1.0 / float(config.logits_scaling)
    for name in ("logit_scale", "lm_head_multiplier"):
        if getattr(config, name, None):
            return float(getattr(config, name))
    return 1.0


def _check(model: nn.Module, causal: Any, head: OutputHead) -> None:
    inputs = torch.arange(4, device=head.weight.device).unsqueeze(0) % head.weight.shape[0]
    with evaluating(model):
        expected = causal(input_ids=inputs, use_cache=False).logits.float()
        found = head.logits(hidden_states(model, inputs)).float()
    tolerance = 0.05 if head.weight.dtype in (torch.bfloat16, torch.float16) else 1e-4
    if expected.shape != found.shape or (expected - found).abs().max() > tolerance * (1 + expected.abs().max()):
        raise UserError(
            f"the logits of a model must be a linear head over its last hidden state (with a scale and a soft cap "
            f"at most), but those of {type(causal).__name__} are not; use another model",
            field="model.path",
        )
