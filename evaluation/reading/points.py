"""Values of two parsed expressions at points: whether they are equal, or one a multiple of the other.

Two expressions are equal when they take equal values, to 20 digits, at points that hashing derives from the names of
their symbols: constants at once, others wherever both are real. An identity at several such points holds, up to chance
(Schwartz 1980), and near misses cost as little as hits, where simplification takes seconds. Decimals count within the
tolerance, relative to the gold; integers exactly. What has no value at a point (sets, unknown operators) is left to
math-verify's own comparison.
"""

from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any

_DIGITS = 30
_EXACT = 1e-20
_LARGE = 10**15
_MOST_DIGITS = 1_000
_POINTS, _INTEGER_POINTS, _NEEDED = 4, 3, 2


@dataclass(frozen=True)
class Tolerance:
    """How far decimals may differ from the gold; see `numeric.same_number`."""

    relative: float
    absolute: float = 0.0


def same_object(gold: Any, answer: Any, tolerance: Tolerance, decimal: bool) -> bool:
    """Whether two sympy objects are equal. `decimal`: one is written with a decimal point."""
    from sympy import Expr, MatrixBase

    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        pairs = zip(gold.flat(), answer.flat(), strict=False)
        return gold.shape == answer.shape and all(same_object(g, a, tolerance, decimal) for g, a in pairs)
    if isinstance(gold, Expr) and isinstance(answer, Expr):
        with _precision():
            known = _same_values(_plain(gold), _plain(answer), tolerance, decimal)
        if known is not None:
            return known
    return same_by_math_verify(gold, answer)


def same_by_math_verify(gold: Any, answer: Any) -> bool:
    """math-verify's own comparison."""
    from math_verify import verify

    return bool(verify(gold, answer, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=False))


def proportional(gold: Any, answer: Any) -> int:
    """The sign of c when answer = c gold with one c at all points; 0 when there is none."""
    gold, answer = _plain(gold), _plain(answer)
    symbols = gold.free_symbols | answer.free_symbols
    with _precision():
        pairs = [_values((gold, answer), symbols, index) for index in range(_POINTS if symbols else 0)]
        ratios = [pair[1] / pair[0] if pair and pair[0] else 0 for pair in pairs]
        first = ratios[0] if ratios else 0
        if not first or any(not ratio or abs(ratio - first) > _EXACT * abs(first) or ratio.imag for ratio in ratios):
            return 0
        return 1 if first.real > 0 else -1


def real_constant(expression: Any) -> Fraction | None:
    """The value of a parsed real constant to 20 digits; None for anything else."""
    from sympy import Expr

    plain = _plain(expression) if isinstance(expression, Expr) else None
    if plain is None or plain.free_symbols:
        return None
    with _precision():
        values = _values((plain,), (), 0)
    return None if values is None or values[0].imag else Fraction(str(values[0].real))


def _precision() -> Any:
    import mpmath

    return mpmath.workdps(_DIGITS + 5)


def _plain(expression: Any) -> Any:
    """The imaginary unit for i, symbols for unknown functions of symbols, rationals for decimals."""
    from sympy import Float, I, Rational, Symbol
    from sympy.core.function import AppliedUndef

    expression = expression.replace(lambda part: isinstance(part, AppliedUndef), lambda part: Symbol(str(part)))
    return expression.xreplace(
        {symbol: I for symbol in expression.free_symbols if symbol.name == "i"}
        | {part: Rational(str(part)) for part in expression.atoms(Float)}
    )


def _same_values(gold: Any, answer: Any, tolerance: Tolerance, decimal: bool) -> bool | None:
    """Whether both take the same values; None when that cannot be seen."""
    from sympy import Product, Sum

    if gold.is_infinite or answer.is_infinite:
        return bool(gold == answer)
    symbols = gold.free_symbols | answer.free_symbols
    if not symbols:
        return _same_constants(gold, answer, tolerance, decimal)
    first = _POINTS if gold.has(Sum, Product) or answer.has(Sum, Product) else 0  # a sum has no half terms
    pairs = [_values((gold, answer), symbols, index) for index in range(first, _POINTS + _INTEGER_POINTS)]
    agreed = 0
    for pair in pairs:
        if pair is None or bool(pair[0].imag) != bool(pair[1].imag):
            continue
        if not _close(pair[0], pair[1], tolerance, decimal):
            return False
        agreed += 1
    return True if agreed >= _NEEDED else None


def _same_constants(gold: Any, answer: Any, tolerance: Tolerance, decimal: bool) -> bool | None:
    values = _values((gold, answer), (), 0)
    if values is None:
        return None
    equal = _close(values[0], values[1], tolerance, decimal)
    if equal and not decimal and abs(values[0]) > _LARGE:
        return _same_integers(gold, answer, values[0])
    return equal


def _same_integers(gold: Any, answer: Any, size: Any) -> bool:
    """Whether two large constants are equal to the last digit before the point."""
    import mpmath

    digits = int(mpmath.log10(abs(size))) + _DIGITS
    return digits > _MOST_DIGITS or bool(abs((gold - answer).evalf(digits, maxn=2 * digits)) < 1)


def _close(gold: Any, answer: Any, tolerance: Tolerance, decimal: bool) -> bool:
    difference, size = abs(gold - answer), abs(gold)
    if difference <= _EXACT * max(size, abs(answer)):
        return True
    is_integer = abs(gold - round(float(gold.real))) <= _EXACT * size if size < 2**53 else False
    relative = tolerance.relative * size if decimal and not is_integer else 0
    return bool(difference <= relative * (1 + _EXACT) + tolerance.absolute)


def _values(expressions: tuple[Any, ...], symbols: Any, index: int) -> list[Any] | None:
    """Complex values of all expressions at one point, or None when one has none there."""
    point = {symbol: _coordinate(symbol.name, index) for symbol in symbols}
    values = [_complex(_at(expression, point)) for expression in expressions]
    return None if any(value is None for value in values) else values


def _at(expression: Any, point: dict[Any, Any]) -> Any:
    from sympy.concrete.expr_with_limits import ExprWithLimits

    binds = expression.has(ExprWithLimits)  # the index of a sum is no symbol of the point
    return expression.subs(point) if binds else expression.xreplace(point)


def _coordinate(name: str, index: int) -> Any:
    """A rational between -3 and 3, never an integer; from `_POINTS` on a positive integer."""
    from sympy import Integer, Rational

    digest = int.from_bytes(sha256(f"{name}\0{index}".encode()).digest()[:6], "big")
    if index >= _POINTS:
        return Integer(2 + digest % 9)
    size = Rational(1 + 2 * (digest % 5003), 3389)
    is_negative = index == _POINTS - 2 or (index == _POINTS - 1 and digest % 2)
    return -size if is_negative else size


def _complex(expression: Any) -> Any:
    """The value of a constant as an mpmath number, or None."""
    import mpmath

    number = expression.evalf(_DIGITS, maxn=300)
    parts = []
    for part in number.as_real_imag():
        if not part.is_Number or not part.is_finite:
            return None
        has_no_digit = getattr(part, "_prec", _DIGITS) <= 1  # what is left of an exact zero
        parts.append(mpmath.mpf(0) if has_no_digit else part._to_mpmath(4 * _DIGITS))
    return mpmath.mpc(*parts)
