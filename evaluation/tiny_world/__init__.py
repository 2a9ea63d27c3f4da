"""The world of the quickstart: sums in a new answer format with wrong digits, a model trained in a minute.

Small enough for a CPU, and such that the target matters.

models.py  the models of the tiny world: a character tokenizer, a base that adds
study.py   the study file of the tiny world
sums.py    the arithmetic of the tiny world: two-digit sums with working
world.py   the world of the quickstart: small enough for minutes on a CPU
"""
