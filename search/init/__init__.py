"""From a model and a data file to a study file: looked at, chosen for, asked about, written.

Every choice of the file carries its reason as a comment. What looks at model and data needs torch, and happens in a
process of its own (`evaluation/survey`).

begin.py     one call of `qtarget init`: look, choose, show, write
choose.py    the settings of the study that fit what was found, each with its reason
costs.py     memory and time of a study, estimated from the model's size and the device's speed
paths.py     what somebody names on the command line, as the study file has to name it
question.py  questions on a terminal, for what is missing
show.py      what was found, for people: two demonstrations as learnt, problems, choices
text.py      settings and reasons as commented YAML
"""
