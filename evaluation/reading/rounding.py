r"""An exact answer with its rounding beside it: `\frac{5}{6} \approx 0.833` says 5/6."""

import re
from collections.abc import Callable
from fractions import Fraction

from .arithmetic import evaluated
from .numeric import read_number
from .shapes import relation

_DIGITS = re.compile(r"\d\.(\d+)")


def exact_and_rounded(text: str, value: Callable[[str], Fraction | None] = evaluated) -> tuple[str, str] | None:
    r"""What stands before the last \approx of a typeset answer and what follows; None unless that rounds or cuts it.

    `value`: a side's, None for one that is no constant.
    """
    sides = relation(text)
    if not sides.operators or sides.operators[-1] != "\\approx":
        return None
    exact, shown = value(sides.parts[-2]), read_number(sides.parts[-1])
    if exact is None or shown is None:
        return None
    digits = _DIGITS.search(sides.parts[-1])
    unit = Fraction(1, 10 ** (len(digits[1]) if digits else 0))
    apart = abs(exact - shown.value)
    is_cut = abs(shown.value) <= abs(exact) and apart < unit and digits is not None
    before = text[: text.rindex("\\approx")].strip()
    return (before, sides.parts[-1]) if apart <= unit / 2 or is_cut else None
