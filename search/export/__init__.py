"""The chosen design of a study as files that train anywhere, checked against the trial's own loss before they are
written.

A design becomes source text here: the functions of `spaces`, with everything but tensors worked out.

axolotl.py     `axolotl.yaml` of an export: the design's training as axolotl's configuration, beside the plugin that it
               names
card.py        MODEL_CARD.md of an export: what the target is, what was measured, how to train with it, what is not
               known
choice.py      which design an export takes: the confirmation's winner, or on request the best of the search
files.py       the files of an export: winner.yaml, the loss, the TRL script, accelerate configurations, model card,
               provenance
hub.py         an export on a model hub: its files, and a README whose metadata the hub reads
known.py       what an expression of a design's source comes to before any tensor is known: fields, branches, plain
               arithmetic
loss.py        `target_loss.py` of an export: the frame of trainers/standalone/loss.py with one design put in
reading.py     `target_reading/` of an export: the files of trainers/data that read demonstrations, as they are
source.py      one design as source text that needs torch alone: the functions of `spaces`, with everything but
               tensors worked out
specialise.py  rewrites a function of `spaces` for one design: known fields become numbers, branches it cannot take
               are dropped
tracking.py    an export in MLflow: its files as artifacts of the study's run, and a registered model with an alias
write.py       `qtarget export`: the confirmed design of a study as files that train anywhere, checked before they are
               written
"""
