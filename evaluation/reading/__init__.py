r"""What an answer says, whoever wrote it: one typography, words and units, shapes, numbers, expressions.

Two texts that say the same come out the same; whatever changes a value stays part of it.

arithmetic.py   sums written out before their result: "24 / 2 = 12"
expressions.py  one expression: a number, words, or what math-verify's parser makes of it
interpret.py    other readings of a shape: an equation as a value, inequalities as an interval, named values as a tuple
numeric.py      one number out of an answer, exactly, and its comparison with the gold
points.py       values of two parsed expressions at points: whether they are equal, or one a multiple of the other
rounding.py     an exact answer with its rounding beside it
shapes.py       the outer shape of an answer: relation, list, set, tuple, interval, union, ratio, or one expression
symbolic.py     whether two mathematical answers say the same: shapes first, then expression by expression
typography.py   one typography for answers: what two texts may differ in without saying anything else
words.py        words and units around a value: which leave it as it is, and which are part of it
"""
