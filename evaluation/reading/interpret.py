"""Other readings of an answer's shape: an equation as a value, inequalities as an interval, named values as a tuple."""

import re
from collections.abc import Sequence
from string import ascii_lowercase

from .expressions import canonical, parse, same_value
from .numeric import read_number
from .points import Tolerance
from .shapes import SUM_OF_NAMES, Shape, is_name, shape

FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
EQUALS = frozenset(("=", r"\approx"))


def turned(found: Shape) -> Shape:
    """The relation read from right to left."""
    marks = tuple(FLIPPED.get(mark, mark) for mark in reversed(found.marks))
    return Shape("relation", found.text, found.parts[::-1], marks)


def assignment(found: Shape, tolerance: Tolerance) -> tuple[str | None, Shape] | None:
    """(name, value) of a relation that says what something is; no name for arithmetic such as 40 + 2 = 42."""
    if found.kind != "relation":
        return None
    first, last = found.parts[0], found.parts[-1]
    if set(found.marks) <= EQUALS:
        if is_name(first.text):
            return first.text, last
        if len(found.parts) == 2 and is_name(last.text):
            return last.text, first
        if _agree(found.parts, tolerance):
            return None, last
        if SUM_OF_NAMES.fullmatch(first.text) and len(found.parts) > 2 and _agree(found.parts[1:], tolerance):
            return first.text, last
    elif (members := membership(found)) is not None:
        return first.text, members
    elif found.marks == (r"\equiv",) and is_name(first.text) and "mod" in last.text:
        return first.text, last
    return None


def _agree(parts: Sequence[Shape], tolerance: Tolerance) -> bool:
    return all(_same_constant(part, parts[-1], tolerance) for part in parts[:-1])


def _same_constant(part: Shape, value: Shape, tolerance: Tolerance) -> bool:
    objects = parse(part.text), parse(value.text)
    is_constant = not any(getattr(each, "free_symbols", True) for each in objects)
    return is_constant and same_value(part.text, value.text, tolerance)


def same_name(one: str | None, other: str | None) -> bool:
    """The same symbol, y and f(x), or words for one of both; two sums without a name are two statements."""
    if one is None or other is None:
        return one is not other
    if canonical(one).casefold() == canonical(other).casefold():
        return True
    spoken = any(re.search(r"[^\W\d_]{3}", re.sub(r"\\(?!text)\w+", "", name)) for name in (one, other))
    function = any(name.strip() == "y" for name in (one, other)) and any(
        re.fullmatch(r"[a-z]\s*\(\s*x\s*\)", name.strip()) for name in (one, other)
    )
    return spoken or function


def values_of(found: Shape, tolerance: Tolerance) -> list[Shape] | None:
    """The values of a list whose parts are values, or say what something is; None when one is neither."""
    values = []
    for part in found.parts:
        assigned = assignment(part, tolerance)
        if part.kind == "relation" and assigned is None:
            return None
        values.append(assigned[1] if assigned else part)
    return values


def names_of(found: Shape) -> list[str]:
    """Names of the parts of a list, where they have any, in the parts' order."""
    assigned = [assignment(part, Tolerance(0.0)) for part in found.parts]
    return [canonical(each[0]) for each in assigned if each is not None and each[0]]


def _value_of_relation(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    assigned = assignment(found, tolerance)
    return assigned[1] if assigned is not None else None


def _interval_of_relation(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    return interval_of(found) if other.kind in ("tuple", "union", "value") else None


def _union_of_list(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    """x < 1 or x > 3 as a union of intervals."""
    if found.kind != "list" or other.kind not in ("union", "relation") or "and" in found.marks:
        return None
    intervals = [interval_of(part) for part in found.parts]
    if len({bound_name(part) for part in found.parts}) != 1 or any(each is None for each in intervals):
        return None
    return Shape("union", " \\cup ".join(each.text for each in intervals if each), tuple(filter(None, intervals)))


def _interval_of_bounds(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    """x > 1 and x < 3 as (1, 3)."""
    if found.kind != "list" or found.marks != ("and",) or other.kind not in ("tuple", "relation"):
        return None
    bounds = [interval_of(part) for part in found.parts]
    if len(bounds) != 2 or len({bound_name(part) for part in found.parts}) != 1:
        return None
    ends = [(each.parts[0].text, each.parts[1].text, each.marks) for each in bounds if each and each.kind == "tuple"]
    low = next(((start, marks[0]) for start, end, marks in ends if end == r"\infty"), None)
    high = next(((end, marks[1]) for start, end, marks in ends if start == r"-\infty"), None)
    return _bounded(low[0], high[0], low[1], high[1]) if low and high else None


def _tuple_of_named(found: Shape, other: Shape, tolerance: Tolerance) -> Shape | None:
    """x = 1, y = 2 as (1, 2), and y = 2, x = 1 too: neighbours in the alphabet are coordinates in its order."""
    names = names_of(found)
    if found.kind != "list" or other.kind != "tuple" or len(set(names)) < len(found.parts):
        return None
    values = values_of(found, tolerance)
    if values is not None and "".join(sorted(names)) in ascii_lowercase:
        values = [value for _, value in sorted(zip(names, values, strict=True), key=lambda each: each[0])]
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


READINGS = (
    _value_of_relation,
    _interval_of_bounds,
    _interval_of_relation,
    _union_of_list,
    _tuple_of_named,
    _quotient_of_ratio,
    _reals,
)
_BRACKETS = {"<": ("(", ")"), r"\le": ("[", "]")}


def interval_of(found: Shape) -> Shape | None:
    """The interval or union that inequalities in one name describe."""
    if found.kind != "relation":
        return None
    if found.marks and found.marks[0] in (">", r"\ge"):
        found = turned(found)
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


def membership(found: Shape) -> Shape | None:
    """S of x in S."""
    return found.parts[1] if found.marks == (r"\in",) and is_name(found.parts[0].text) else None


def _bounded(low: str, high: str, opening: str, closing: str) -> Shape:
    return Shape("tuple", f"{opening}{low},{high}{closing}", (shape(low), shape(high)), (opening, closing))


def bound_name(found: Shape) -> str | None:
    """The name that an inequality bounds, or that is in a set."""
    return next((canonical(part.text) for part in found.parts if is_name(part.text)), None)
