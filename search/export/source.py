"""One design as source text that needs torch alone: the functions of `spaces`, with everything but tensors worked out.

The functions that define a target are read from their own source and specialised to one design: fields of its families
become numbers, branches it cannot take are dropped, methods become functions. What is left is the reviewed code.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ...spaces import target as spaces_target
from ...spaces.rows import LabelRows, Rows
from ...spaces.settings import Settings
from ...spaces.target import TargetSpec
from .specialise import LITERALS, Specialiser

PROVIDED = (Rows, LabelRows)
"""Classes that the frame of an exported loss brings along."""
MAX_LINE = 112


def design_source(spec: TargetSpec) -> str:
    """Functions `trust`, `weights`, `_design`, `count` and `mix_at` of one design, and all that they call."""
    program = _Program(spec)
    for function in (spaces_target.trust, spaces_target.weights, spaces_target._design, spaces_target.count):
        program.function(function, {"spec": spec}, function.__name__)
    last = program.mix()
    return "\n\n\n".join([*program.texts, last]) + "\n"


class _Program:
    """The functions and classes written so far, callees first."""

    def __init__(self, spec: TargetSpec) -> None:
        self.spec = spec
        self.names: dict[Any, str] = {}
        self.texts: list[str] = []

    def role(self, owner: Settings) -> str:
        """Which part of the design an object is."""
        parts = {"gamma": self.spec.gamma, "residual": self.spec.residual, "contrast": self.spec.contrast}
        return next((name for name, part in parts.items() if part is owner), type(owner).__name__.lower())

    def mix(self) -> str:
        """The function from the progress of the training to the share of the family in γ."""
        header = 'def mix_at(progress: float) -> float:\n    """Share of the family in γ at `progress` in [0, 1]."""\n'
        schedule = self.spec.gamma.schedule
        if schedule is None:
            return f"{header}    return {self.spec.gamma.mix!r}"
        share = self.function(type(schedule).share, {"self": schedule}, "schedule_share")
        return f"{self.texts.pop()}\n\n\n{header}    return {self.spec.gamma.mix!r} * {share}(progress)"

    def function(self, function: Callable[..., Any], known: Mapping[str, Any], name: str) -> str:
        """Write `function` with the parameters in `known` worked out, once; returns its name."""
        key = (
            function,
            *((each, value if isinstance(value, LITERALS) else id(value)) for each, value in known.items()),
        )
        if key not in self.names:
            self.names[key] = self._free(name)
            self._write(Specialiser(self, function, known), function, self.names[key])
        return self.names[key]

    def type(self, kind: type) -> str:
        """Write a class, once; returns its name."""
        if kind not in self.names and kind not in PROVIDED:
            self.names[kind] = kind.__name__
            self._write(Specialiser(self, kind, {}), kind, kind.__name__)
        return kind.__name__

    def _write(self, specialiser: Specialiser, thing: Any, name: str) -> None:
        source = _source(thing)
        before = ast.parse(source).body[0]
        after = specialiser.definition(ast.parse(source).body[0], name)
        if ast.dump(after) == ast.dump(_without_imports(before)):
            lines = [line for line in source.rstrip().splitlines() if line.strip() != "import torch"]
            text = "\n".join(lines).replace('"""\n\n    ', '"""\n    ')
        else:
            text = "\n".join(_wrapped(line) for line in ast.unparse(ast.fix_missing_locations(after)).splitlines())
        self.texts.append(text)

    def _free(self, name: str) -> str:
        taken, number = set(self.names.values()), 2
        free = name
        while free in taken:
            free, number = f"{name}_{number}", number + 1
        return free


@cache
def _source(thing: Any) -> str:
    """Looked up once: for a class, Python 3.11 parses all of its module."""
    return textwrap.dedent(inspect.getsource(thing))


def _without_imports(node: ast.stmt) -> ast.stmt:
    if isinstance(node, ast.FunctionDef):
        node.body = [each for each in node.body if not isinstance(each, ast.Import)]
    return node


def _wrapped(line: str) -> str:
    """A line broken at the commas of its outermost call, where it is too long."""
    if len(line) <= MAX_LINE or not line.endswith((")", "):")):
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    start = line.index("(") + 1
    stop = line.rindex(")")
    parts, depth, part = [], 0, ""
    for letter in line[start:stop]:
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            return line
        if letter == "," and not depth:
            parts.append(part.strip())
            part = ""
        else:
            part += letter
    parts.append(part.strip())
    inner = [_wrapped(f"{indent}    {part}") + "," for part in parts if part]
    return "\n".join([line[:start], *inner, indent + line[stop:]])
