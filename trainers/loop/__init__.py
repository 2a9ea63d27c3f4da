"""The one training loop: objective, optimiser, checkpoints, and the full run of a winner.

A killed run goes on from its checkpoint with the same data order and the same numbers.

batch_trust.py  trust that looks at a whole batch, over the whole effective batch: a first pass without gradients
checkpoint.py   checkpoints a killed run resumes from, complete or absent: one safetensors file, or a folder of ranks'
                shares
full_run.py     the full run of a winner: one training from start to saved model, resumable, with models kept on the
                way by rule
look.py         a look at a training on its way: its weights as if it ended there
objective.py    the loss of one micro-batch under a target: decoder, sources and the target loss put together
old_policy.py   the previous policy: what the weights at the start of a window of steps say, on labels or in full
optimizer.py    AdamW over full-precision masters of the trainable weights, with warm-up, decay and clipping
packing.py      sequences of one forward pass in one row without padding: none sees another, and no gradient changes
preflight.py    one worst-case step before a night begins: the longest demonstrations, full micro-batches
reports.py      what a training says of itself: of each step, of its end, and why it could not go on
resident.py     a base model that stays in memory between trials and is reset in place
sft.py          supervised fine-tuning towards a target: the one training loop
shards.py       checkpoints of a model that is spread over ranks: each writes its own shares, a manifest last makes
                them one
token_view.py   what a design says about real tokens: trust, target and alternatives at each token of some
                demonstrations
"""
