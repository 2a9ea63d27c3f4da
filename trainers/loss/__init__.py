"""The target loss: its value and gradient on dense logits, and over a large vocabulary without ever holding it whole.

`dense_target_loss` is the reference that every faster path is checked against; `fused_target_loss` is what trains.

call.py             one call of the fused loss: check, select, run the chunks
chunks.py           the chunks of one call: logits, target, gradient, and what is reported of each token
dense.py            the target loss on dense logits: the reference that every other implementation is checked against
fused.py            the target loss over a large vocabulary, never holding (tokens, vocab)
gradients.py        the gradients of one call, gathered chunk by chunk while its logits are at hand
head.py             the head that turns hidden states into logits, chunk by chunk
hook.py             a design as `compute_loss_func` of transformers' Trainer and TRL's SFTTrainer
inputs.py           what one call of the fused loss works on: checked inputs, of which only the valid tokens are left
module.py           the target loss as a module of somebody else's training loop
residual_source.py  where a teacher or reference distribution comes from: cached rows, a model, or labels alone
row_form.py         every target whose tail keeps the student's shape, at the price of cross-entropy
row_kernel.py       the pass of `tail_softmax` as one Triton kernel: a program a row, two sweeps over it, in place
tail_softmax.py     one pass over a chunk of logits that serves every target: the softmax of the tail
"""

from .fused import (
    CachedSlice,
    HiddenHead,
    LabelOnly,
    LossSum,
    dense_target_loss,
    fused_target_loss,
    fused_target_losses,
)

__all__ = [
    "CachedSlice",
    "HiddenHead",
    "LabelOnly",
    "LossSum",
    "dense_target_loss",
    "fused_target_loss",
    "fused_target_losses",
]
