"""The process that computes: loads model, data and problems once, then trains and scores trial after trial.

The only room of this floor that reaches torch. It is started as a process, never imported by other rooms.

cache.py      the caches of a study: built once (`qtarget cache build`), and what they lose
channel.py    the engine's end of the pipes: commands in, events out, one JSON object a line
check.py      for `qtarget check`: loads all inputs, takes a worst-case step a kind of design
evaluate.py   for `qtarget evaluate`: a finished model on the tasks of a file
export.py     for `qtarget export`: the exported loss against the trial's own, on a real batch
helper.py     one way for a verb to compute: a process answers one request and leaves
inputs.py     what all trials of an engine share, resident: models, data, problems, sources of residuals
main.py       the process that computes: loads model, data and problems once
ranks.py      one rank of an engine of several: rank 0 decides and tells the others, which compute along
ranks_run.py  a trial on several ranks: all train; answers are shared out; rank 0 alone judges and decides
report.py     for `qtarget report`: the designs' curves, and what the winner says about real tokens
run.py        one trial inside the engine: train, score on the way at the rungs, score at the end
scoring.py    how an engine scores models: a backend that was checked against plain generate(), and what trials must
              not forget
train.py      for `qtarget train`: one winner trained in full, on one device or on all ranks of a launcher
"""
