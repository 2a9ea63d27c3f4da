"""Sums written out before their result: "24 / 2 = 12", "$9 + $9 = $18"."""

import ast
import re
from collections.abc import Callable
from fractions import Fraction
from operator import add, mul, sub, truediv

_ROUNDING = Fraction(1, 100)
"""Relative: a result may be written with fewer digits than the sum has."""

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: add,
    ast.Sub: sub,
    ast.Mult: mul,
    ast.Div: truediv,
}


def comes_to(text: str, value: Fraction) -> bool:
    """Whether `text`, typeset, is arithmetic on numbers alone, units aside, that comes to `value`."""
    found = evaluated(text)
    slack = 0 if found is None or found.denominator == 1 else _ROUNDING * abs(value)
    return found is not None and abs(found - value) <= slack


def evaluated(text: str) -> Fraction | None:
    """The value of arithmetic on numbers; None for anything else."""
    plain = re.sub(
        r"\\text\s*\{[^{}]*\}|\\\$|[€£¥₹]|\^\\circ|\b[A-Za-z]{2,}\b(?<!\\cdot)(?<!\\times)(?<!\\frac)", " ", text
    )
    plain = re.sub(r"^\D{0,60}:", " ", plain)  # a label
    plain = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", plain)
    plain = plain.replace("\\times", "*").replace("\\cdot", "*").replace("\\%", "/100").replace("%", "/100")
    plain = (
        re.sub(r"(?<=\d),(?=\d{3})", "", plain).replace("{", "(").replace("}", ")").replace("[", "(").replace("]", ")")
    )
    plain = re.sub(r"(?<=\d)\s*[x×]\s*(?=\d)", "*", plain).replace("^", "**")
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)
    if len(plain) > 300 or re.search(r"[^\d\s.+*/()-]", plain):
        return None
    try:
        return _value(ast.parse(plain.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            exponent = _value(right)
            if exponent.denominator != 1 or abs(exponent) > 64:
                raise ValueError("no small integer power")
            return _value(left) ** int(exponent)
        case ast.BinOp(left=left, op=operator, right=right):
            return _OPERATORS[type(operator)](_value(left), _value(right))
    raise ValueError("no arithmetic")
