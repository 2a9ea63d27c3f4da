"""The study file of the tiny world."""

STUDY = """\
# Which target teaches the new answer format without the errors of the demonstrations?
study: quickstart
model: {path: base}
teacher: {path: teacher}
data: {path: demonstrations.jsonl, max_length: 64}
cache: {k: 64}        # what teacher and base say of each demonstration, asked once: all 27 characters of the vocabulary

training:
  steps: 100
  effective_batch: 32
  micro_batch: 32
  learning_rate: 1.0e-3
  checkpoint_every: 50

space:
  gamma:
    power: {exponent: [0.0, 1.5], ceiling: [0.0, 1.0]}
  residual:
    geometric: {teacher: [0.0, 1.0], reference: 0.0, temperature: [0.5, 1.5, log]}
  training:
    learning_rate: [5.0e-4, 3.0e-3, log]

baselines:
  - sft
  - {preset: sft, training: {learning_rate: 5.0e-4}}
  - dft
  - label_smoothing
  - sft_kl
  - asft
  - kd
  - hybrid_kd
  - {preset: target_sft, knobs: {eta: 0.5}}

search: {trials: 20, seed: SEED}
confirmation: {seeds: 8}      # at most, of each candidate: a lead that is not settled by then cannot be told

evaluation:
  tasks:
    - {path: problems.jsonl, kind: exact}
  problems: 256
  report_problems: 256
  max_new_tokens: 32
  batch_size: 256
"""


def study_text(seed: int) -> str:
    """The study as YAML, with paths relative to the world's folder."""
    return STUDY.replace("SEED", str(seed))
