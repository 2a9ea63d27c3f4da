"""The searched part of the target space: families in play, the range or value of each knob, and who draws them.

A point of it is a `TargetSpec` and the training knobs that are searched with it.

choosers.py    who draws the knobs of a point: an Optuna trial, a random generator
describe.py    a search space in words and numbers
everything.py  the space that knows the field: every family, and where each starts
knobs.py       the rules of a search space's knobs: fixed, a range, or options
rates.py       learning rates that are usual, and searched where nobody says otherwise
space.py       the searched part of the target space: families in play, the range or value of each knob
"""

from .space import Point, SearchSpace

__all__ = [
    "Point",
    "SearchSpace",
]
