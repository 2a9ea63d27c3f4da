"""What an expression of a design's source comes to before any tensor is known: fields, branches, plain arithmetic."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from ...spaces.gamma.base import Gamma
from ...spaces.settings import Settings

FOLDED = (min, max, abs, len, float, int, bool, *(each for each in vars(math).values() if callable(each)))
"""Functions without effects, worked out where all arguments are known."""
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Not: operator.not_, ast.USub: operator.neg, ast.Invert: operator.invert,
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow, ast.BitOr: operator.or_,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda item, items: item in items, ast.NotIn: lambda item, items: item not in items,
}  # fmt: skip


class NotStatic(Exception):
    """The value of an expression is not known before the tensors are."""


def scheduled(owner: object) -> bool:
    """Whether an object is a trust family whose `mix` moves over the training."""
    return isinstance(owner, Gamma) and owner.schedule is not None


class Known:
    """The names of one function whose values a design decides."""

    def __init__(self, known: Mapping[str, Any], module: Mapping[str, Any]) -> None:
        """`module`: the globals of the function."""
        self.known, self.globals = dict(known), module
        self.locals: set[str] = set()
        """Names of the function that hide globals and are not known."""

    def static(self, node: ast.AST) -> Any:
        """The value of an expression that depends on the design alone; raises NotStatic for any other."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._static_name(node.id)
        if isinstance(node, ast.Attribute):
            return self._static_field(self.static(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._static_call(node)
        if isinstance(node, ast.UnaryOp | ast.BinOp | ast.Compare | ast.BoolOp | ast.IfExp | ast.Tuple):
            return self._static_operation(node)
        raise NotStatic

    def _static_field(self, owner: Any, name: str) -> Any:
        """A field, but for what a schedule moves."""
        if name == "schedule" and isinstance(owner, Gamma):
            return None
        if name in ("mix", "modified") and scheduled(owner):
            still = owner.model_copy(update={"schedule": None, "mix": 1.0})
            if name == "mix" or not still.modified:
                raise NotStatic
        return getattr(owner, name)

    def _static_name(self, name: str) -> Any:
        if name in self.known:
            return self.known[name]
        builtin = {each.__name__: each for each in FOLDED} | {"isinstance": isinstance}
        if name in self.locals or (name not in self.globals and name not in builtin):
            raise NotStatic
        return self.globals.get(name, builtin.get(name))

    def _static_call(self, node: ast.Call) -> Any:
        function = self.static(node.func)
        arguments = [self.static(each) for each in node.args]
        if node.keywords:
            raise NotStatic
        if function is isinstance or function in FOLDED or isinstance(_owner(function), Settings | dict):
            return function(*arguments)
        raise NotStatic

    def _static_operation(self, node: ast.expr) -> Any:
        if isinstance(node, ast.IfExp):
            return self.static(node.body if self.static(node.test) else node.orelse)
        if isinstance(node, ast.BoolOp):
            return self._static_and_or(node)
        if isinstance(node, ast.Tuple):
            return tuple(self.static(each) for each in node.elts)
        if isinstance(node, ast.UnaryOp):
            return OPERATORS[type(node.op)](self.static(node.operand))
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](self.static(node.left), self.static(node.right))
        assert isinstance(node, ast.Compare)
        if len(node.ops) > 1:
            raise NotStatic
        return OPERATORS[type(node.ops[0])](self.static(node.left), self.static(node.comparators[0]))

    def _static_and_or(self, node: ast.BoolOp) -> Any:
        value = None
        for each in node.values:
            value = self.static(each)
            if bool(value) is isinstance(node.op, ast.Or):
                break
        return value


def _owner(function: Any) -> Any:
    return getattr(function, "__self__", None)
