r"""Whether two mathematical answers say the same: their shapes first, then expression by expression.

The parts of a list or set match in any order, those of a tuple in theirs, and brackets must be the same. A relation is
compared as a relation, up to a factor and to the side on which things stand; it is a value only when a name stands on
one side of an equals sign (`x=5`, `f(2)=5`) or when both sides are constants that are equal (`40+2=42`).
Inequalities in one name are intervals. Sets written in other ways are compared by math-verify.
"""

import re
from collections.abc import Callable, Sequence

from .expressions import Tolerance, canonical, is_readable, parse, proportional, same_by_math_verify, same_value
from .numeric import read_number
from .shapes import Shape, is_name, shape
from .typography import typeset

_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_EQUALS = frozenset(("=", r"\approx"))
_MAX_LIST = 50


def same_answer(gold: str, answer: str, tolerance: Tolerance) -> bool:
    """Whether two answers, as extracted, say the same."""
    return _same(shape(typeset(gold)), shape(typeset(answer)), tolerance)


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
    if gold.kind == answer.kind:
        return _COMPARED[gold.kind](gold, answer, tolerance)
    for one, other in ((gold, answer), (answer, gold)):
        for reading in _READINGS:
            read = reading(one, other, tolerance)
            if read is not None:
                return _same(read, answer, tolerance) if one is gold else _same(gold, read, tolerance)
    has_union = "union" in (gold.kind, answer.kind)
    return _is_set(gold, has_union) and _is_set(answer, has_union) and _same_sets(gold.text, answer.text)


# --- the same kind of shape ------------------------------------------------------------------------------------------


def _same_value(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    return same_value(gold.text, answer.text, tolerance)


def _same_list(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    if len(gold.parts) != len(answer.parts) or len(gold.parts) > _MAX_LIST:
        return False
    gold_values, answer_values = _values(gold, tolerance), _values(answer, tolerance)
    if gold_values is not None and answer_values is not None:
        names = _names(gold), _names(answer)
        if names[0] and names[1]:
            return _matches(gold.parts, answer.parts, tolerance)
        is_ordered = any(len(set(each)) > 1 for each in names)
        return (_in_order if is_ordered else _matches)(gold_values, answer_values, tolerance)
    return _matches(gold.parts, answer.parts, tolerance)


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
    if _same_sides(gold, answer, tolerance) or _same_sides(gold, _turned(answer), tolerance):
        return True
    if len(gold.marks) == len(answer.marks) == 1 and _same_up_to_factor(gold, answer):
        return True
    assigned = _assignment(gold, tolerance), _assignment(answer, tolerance)
    if assigned[0] is not None and assigned[1] is not None:
        return _same_name(assigned[0][0], assigned[1][0]) and _same(assigned[0][1], assigned[1][1], tolerance)
    sets = _interval(gold) or _membership(gold), _interval(answer) or _membership(answer)
    if sets[0] is not None and sets[1] is not None:
        return _bound_name(gold) == _bound_name(answer) and _same(sets[0], sets[1], tolerance)
    return False


def _same_sides(gold: Shape, answer: Shape, tolerance: Tolerance) -> bool:
    if [_sign(mark) for mark in gold.marks] != [_sign(mark) for mark in answer.marks]:
        return False
    return _in_order(gold.parts, answer.parts, tolerance)


def _sign(mark: str) -> str:
    return "=" if mark in _EQUALS else mark


def _turned(found: Shape) -> Shape:
    marks = tuple(_FLIPPED.get(mark, mark) for mark in reversed(found.marks))
    return Shape("relation", found.text, found.parts[::-1], marks)


def _same_up_to_factor(gold: Shape, answer: Shape) -> bool:
    """a = b and c = d when c - d = k (a - b); the same for an inequality when k > 0, or k < 0 and the sign turns."""
    from sympy import Expr

    sides = [parse(part.text) for found in (gold, answer) for part in found.parts]
    if not all(isinstance(side, Expr) for side in sides):
        return False
    factor = proportional(sides[0] - sides[1], sides[2] - sides[3])
    marks = _sign(gold.marks[0]), _sign(answer.marks[0])
    if marks[0] in _FLIPPED:
        return (factor > 0 and marks[0] == marks[1]) or (factor < 0 and _FLIPPED[marks[0]] == marks[1])
    return factor != 0 and marks[0] == marks[1]


_COMPARED: dict[str, Callable[[Shape, Shape, Tolerance], bool]] = {
    "value": _same_value,
    "list": _same_list,
    "tuple": _same_tuple,
    "union": _same_union,
    "ratio": _same_ratio,
    "relation": _same_relation,
}


# --- other readings of a shape ---------------------------------------------------------------------------------------


def _assignment(found: Shape, tolerance: Tolerance) -> tuple[str | None, Shape] | None:
    """(name, value) of a relation that says what something is; no name for arithmetic such as 40 + 2 = 42."""
    if found.kind != "relation":
        return None
    first, last = found.parts[0], found.parts[-1]
    if set(found.marks) <= _EQUALS:
        if is_name(first.text):
            return first.text, last
        if len(found.parts) == 2 and is_name(last.text):
            return last.text, first
        if all(_same_constant(part, last, tolerance) for part in found.parts[:-1]):
            return None, last
    elif (members := _membership(found)) is not None:
        return first.text, members
    return None


def _same_constant(part: Shape, value: Shape, tolerance: Tolerance) -> bool:
    objects = parse(part.text), parse(value.text)
    return not any(getattr(each, "free_symbols", True) for each in objects) and _same(part, value, tolerance)


def _same_name(one: str | None, other: str | None) -> bool:
    """The same symbol, y and f(x), or words for one of both."""
    if one is None or other is None or canonical(one).casefold() == canonical(other).casefold():
        return True
    spoken = any(re.search(r"[^\W\d_]{3}", re.sub(r"\\(?!text)\w+", "", name)) for name in (one, other))
    function = any(name.strip() == "y" for name in (one, other)) and any(
        re.fullmatch(r"[a-z]\s*\(\s*x\s*\)", name.strip()) for name in (one, other)
    )
    return spoken or function


def _values(found: Shape, tolerance: Tolerance) -> list[Shape] | None:
    """The values of a list whose parts are values, or say what something is; None when one is neither."""
    values = []
    for part in found.parts:
        assigned = _assignment(part, tolerance)
        if part.kind == "relation" and assigned is None:
            return None
        values.append(assigned[1] if assigned else part)
    return values


def _names(found: Shape) -> list[str]:
    """Names of the parts of a list, where they have any, in alphabetical order of the parts' names."""
    assigned = [_assignment(part, Tolerance(0.0)) for part in found.parts]
    return [canonical(each[0]) for each in assigned if each is not None and each[0]]


def _value_of_relation(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    assigned = _assignment(found, tolerance)
    return assigned[1] if assigned is not None else None


def _interval_of_relation(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    return _interval(found) if other.kind in ("tuple", "union", "value") else None


def _union_of_list(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    """x < 1 or x > 3 as a union of intervals."""
    if found.kind != "list" or other.kind not in ("union", "relation") or "and" in found.marks:
        return None
    intervals = [_interval(part) for part in found.parts]
    if len({_bound_name(part) for part in found.parts}) != 1 or any(each is None for each in intervals):
        return None
    return Shape("union", " \\cup ".join(each.text for each in intervals if each), tuple(filter(None, intervals)))


def _tuple_of_named(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    """x = 1, y = 2 as (1, 2)."""
    if found.kind != "list" or other.kind != "tuple" or len(set(_names(found))) < len(found.parts):
        return None
    values = _values(found, tolerance)
    return None if values is None else Shape("tuple", found.text, tuple(values), ("(", ")"))


def _quotient_of_ratio(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    """2 : 3 as 2/3; not as an integer, which a ratio is not."""
    number = read_number(other.text) if found.kind == "ratio" and other.kind == "value" else None
    if number is None or number.value.denominator == 1 or len(found.parts) != 2:
        return None
    return Shape("value", f"\\frac{{{found.parts[0].text}}}{{{found.parts[1].text}}}")


def _reals(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    is_line = found.text == r"\mathbb{R}" and other.kind == "tuple"
    return shape(r"(-\infty,\infty)") if is_line else None


_READINGS = (_value_of_relation, _interval_of_relation, _union_of_list, _tuple_of_named, _quotient_of_ratio, _reals)
_BRACKETS = {"<": ("(", ")"), r"\le": ("[", "]")}


def _interval(found: Shape) -> Shape | None:
    """The interval or union that inequalities in one name describe."""
    if found.kind != "relation":
        return None
    if found.marks and found.marks[0] in (">", r"\ge"):
        found = _turned(found)
    texts = [part.text for part in found.parts]
    if sum(map(is_name, texts)) != 1:
        return None  # b > a > c is an order
    match found.marks:
        case (("<" | r"\le") as low, ("<" | r"\le") as high) if is_name(texts[1]):
            return _bounded(texts[0], texts[2], _BRACKETS[low][0], _BRACKETS[high][1])
        case (("<" | r"\le") as sign,) if is_name(texts[0]):
            return _bounded(r"-\infty", texts[1], "(", _BRACKETS[sign][1])
        case (("<" | r"\le") as sign,) if is_name(texts[1]):
            return _bounded(texts[0], r"\infty", _BRACKETS[sign][0], ")")
        case (r"\ne",) if is_name(texts[0]):
            both = _bounded(r"-\infty", texts[1], "(", ")"), _bounded(texts[1], r"\infty", "(", ")")
            return Shape("union", " \\cup ".join(part.text for part in both), both)
    return None


def _membership(found: Shape) -> Shape | None:
    """S of x in S."""
    return found.parts[1] if found.marks == (r"\in",) and is_name(found.parts[0].text) else None


def _bounded(low: str, high: str, opening: str, closing: str) -> Shape:
    return Shape("tuple", f"{opening}{low},{high}{closing}", (shape(low), shape(high)), (opening, closing))


def _bound_name(found: Shape) -> str | None:
    return next((canonical(part.text) for part in found.parts if is_name(part.text)), None)


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
