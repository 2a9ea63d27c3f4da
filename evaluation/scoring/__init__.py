"""The score of a model: generate, verify, record each item, sum up; and what the fine-tune forgot.

Items are written as they come, so that an evaluation goes on after a crash.

evaluate.py           the score of a model on problems with known answers: generate, verify, record
items.py              the per-item record of an evaluation: JSON lines, one a (problem, sample)
model.py              score a model on tasks from the command line: load it, draw the problems, evaluate, write the
                      result
retention.py          what a fine-tune forgot of general text: its divergence from the base
retention_measure.py  retention in a study: its problems or texts, what the base makes of them, and what each trial
                      forgot
scores.py             the outcome of an evaluation: score, error, verdicts and tokens, over all problems and by task
"""
