r"""Whether two mathematical answers say the same: their shapes first, then expression by expression.

The parts of a list or set match in any order, those of a tuple in theirs, and brackets must be the same. A relation is
compared as a relation, up to a factor and to the side on which things stand; it is a value only when a name stands on
one side of an equals sign (`x=5`, `f(2)=5`) or when both sides are constants that are equal (`40+2=42`).
Inequalities in one name are intervals. Sets written in other ways are compared by math-verify.
"""

import re
from collections.abc import Callable, Sequence

from .expressions import canonical, is_readable, parse, same_value, with_case
from .interpret import (
    EQUALS,
    FLIPPED,
    READINGS,
    assignment,
    bound_name,
    interval_of,
    membership,
    names_of,
    same_name,
    turned,
    values_of,
)
from .points import Tolerance, proportional, real_constant, same_by_math_verify
from .rounding import exact_and_rounded
from .shapes import Shape, is_name, shape
from .typography import typeset

_MAX_LIST = 50


def same_answer(gold: str, answer: str, tolerance: Tolerance) -> bool:
    """Whether two answers, as extracted, say the same."""
    gold, answer = with_case(typeset(gold), typeset(answer))
    return _same(shape(gold), shape(answer), tolerance)


def is_read(gold: str) -> bool:
    """Whether every expression of a gold is a number, a name, words, or read by the parser."""
    found = shape(typeset(gold))
    parts = list(found.parts) or [found]
    while any(part.parts for part in parts):
        parts = [inner for part in parts for inner in (part.parts or (part,))]
    return all(is_name(part.text) or is_readable(part.text) for part in parts)


def _same(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    if canonical(gold.text) == canonical(answer.text):
        return True
    if any(_same(gold, shape(side), tolerance) for side in _sides(gold, answer)):
        return True
    if gold.kind == answer.kind:
        return _COMPARED[gold.kind](gold, answer, tolerance)
    for one, other in ((gold, answer), (answer, gold)):
        for reading in READINGS:
            read = reading(one, other, tolerance)
            if read is not None:
                return _same(read, answer, tolerance) if one is gold else _same(gold, read, tolerance)
    has_union = "union" in (gold.kind, answer.kind)
    return _is_set(gold, has_union) and _is_set(answer, has_union) and _same_sets(gold.text, answer.text)


def _sides(gold: Shape, answer: Shape) -> tuple[str, ...]:
    """What an answer with its rounding says: the exact side, and the rounding where the gold is a decimal."""
    sides = exact_and_rounded(answer.text, lambda side: real_constant(parse(side))) or ()
    return sides if re.search(r"\.\d", gold.text) else sides[:1]


# --- the same kind of shape ------------------------------------------------------------------------------------------


def _same_value(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    return same_value(gold.text, answer.text, tolerance)


def _same_list(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    if len(gold.parts) != len(answer.parts) or len(gold.parts) > _MAX_LIST:
        return False
    gold_values, answer_values = values_of(gold, tolerance), values_of(answer, tolerance)
    if gold_values is not None and answer_values is not None:
        names = names_of(gold), names_of(answer)
        if names[0] and names[1] and not _one_letter(names):
            return _matches(gold.parts, answer.parts, tolerance)
        is_ordered = not _one_letter(names) and any(len(set(each)) > 1 for each in names)
        return (_in_order if is_ordered else _matches)(gold_values, answer_values, tolerance)
    return _matches(gold.parts, answer.parts, tolerance)


def _one_letter(names: tuple[list[str], list[str]]) -> bool:
    """Values of one unknown, with or without an index: x = 2, x = 3 and x_1 = 3, x_2 = 2."""
    letters = {name.partition("_")[0] for each in names for name in each}
    return len(letters) == 1 and any(len(set(each)) == 1 for each in names)


def _matches(gold: Sequence[Shape], answer: Sequence[Shape], tolerance: Tolerance) -> bool:
    """Every part has a partner, whatever the order."""
    left = list(answer)
    for part in gold:
        partner = next((index for index, other in enumerate(left) if _same(part, other, tolerance)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _in_order(gold: Sequence[Shape], answer: Sequence[Shape], tolerance: Tolerance) -> bool:
    return len(gold) == len(answer) and all(_same(g, a, tolerance) for g, a in zip(gold, answer, strict=True))


def _same_tuple(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    return gold.marks == answer.marks and _in_order(gold.parts, answer.parts, tolerance)


def _same_union(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    return _same_list(gold, answer, tolerance) or _same_sets(gold.text, answer.text)


def _same_ratio(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    if len(gold.parts) != len(answer.parts):
        return False
    products = [
        (f"({g.text})\\cdot({answer.parts[0].text})", f"({a.text})\\cdot({gold.parts[0].text})")
        for g, a in zip(gold.parts, answer.parts, strict=True)
    ]
    return all(same_value(one, other, tolerance) for one, other in products)


def _same_relation(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    if _same_sides(gold, answer, tolerance) or _same_sides(gold, turned(answer), tolerance):
        return True
    is_numeric = _sign(gold.marks[0]) in ("=", "<", ">", r"\le", r"\ge", r"\ne")
    if is_numeric and len(gold.marks) == len(answer.marks) == 1 and _same_up_to_factor(gold, answer):
        return True
    assigned = assignment(gold, tolerance), assignment(answer, tolerance)
    if assigned[0] is not None and assigned[1] is not None:
        return same_name(assigned[0][0], assigned[1][0]) and _same(assigned[0][1], assigned[1][1], tolerance)
    sets = interval_of(gold) or membership(gold), interval_of(answer) or membership(answer)
    if sets[0] is not None and sets[1] is not None:
        return bound_name(gold) == bound_name(answer) and _same(sets[0], sets[1], tolerance)
    return False


def _same_sides(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    if [_sign(mark) for mark in gold.marks] != [_sign(mark) for mark in answer.marks]:
        return False
    return _in_order(gold.parts, answer.parts, tolerance)


def _sign(mark: str) -> str:
    return "=" if mark in EQUALS else mark


def _same_up_to_factor(gold: Shape, answer: Shape) -> bool:
    """a = b and c = d when c - d = k (a - b); the same for an inequality when k > 0, or k < 0 and the sign turns."""
    from sympy import Expr

    sides = [parse(part.text) for found in (gold, answer) for part in found.parts]
    if not all(isinstance(side, Expr) for side in sides):
        return False
    factor = proportional(sides[0] - sides[1], sides[2] - sides[3])
    marks = _sign(gold.marks[0]), _sign(answer.marks[0])
    if marks[0] in FLIPPED:
        return (factor > 0 and marks[0] == marks[1]) or (factor < 0 and FLIPPED[marks[0]] == marks[1])
    return factor != 0 and marks[0] == marks[1]


_COMPARED: dict[str, Callable[[Shape, Shape, Tolerance], bool]] = {
    "value": _same_value,
    "list": _same_list,
    "tuple": _same_tuple,
    "union": _same_union,
    "ratio": _same_ratio,
    "relation": _same_relation,
}


_SETS = re.compile(r"\\(?:infty|mathbb|setminus|cap|cup|emptyset)(?![A-Za-z])")


def _is_set(found: Shape, has_union: bool) -> bool:
    if found.kind == "list":
        return has_union and found.text.startswith(r"\{")
    if found.kind == "tuple":
        return len(found.parts) == 2 and (found.marks != ("(", ")") or "\\infty" in found.text)
    return found.kind in ("union", "relation") or (found.kind == "value" and bool(_SETS.search(found.text)))


def _same_sets(gold: str, answer: str) -> bool:
    objects = parse(gold), parse(answer)
    return objects[0] is not None and objects[1] is not None and same_by_math_verify(*objects)
