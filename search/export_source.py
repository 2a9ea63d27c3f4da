"""One design as source text that needs torch alone: the functions of `spaces`, with everything but tensors worked out.

The functions that define a target are read from their own source and specialised to one design: fields of its families
become numbers, branches it cannot take are dropped, methods become functions. What is left is the reviewed code.
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
import textwrap
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any

from ..spaces import target as spaces_target
from ..spaces.gamma import Gamma
from ..spaces.rows import LabelRows, Rows
from ..spaces.settings import Settings
from ..spaces.target import TargetSpec

PACKAGE = TargetSpec.__module__.rpartition(".")[0]
LITERALS = (type(None), bool, int, float, str)
FOLDED = (min, max, abs, len, float, int, bool, *(each for each in vars(math).values() if callable(each)))
"""Functions without effects, worked out where all arguments are known."""
PROVIDED = (Rows, LabelRows)
"""Classes that the frame of an exported loss brings along."""
MAX_LINE = 112
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Not: operator.not_, ast.USub: operator.neg,
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.BitOr: operator.or_,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda item, items: item in items, ast.NotIn: lambda item, items: item not in items,
}  # fmt: skip


class _NotStatic(Exception):
    """The value of an expression is not known before the tensors are."""


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

    def scheduled(self, owner: object) -> bool:
        """Whether an object's `mix` moves over the training."""
        return isinstance(owner, Gamma) and owner.schedule is not None

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
            self._write(_Specialiser(self, function, known), function, self.names[key])
        return self.names[key]

    def type(self, kind: type) -> str:
        """Write a class, once; returns its name."""
        if kind not in self.names and kind not in PROVIDED:
            self.names[kind] = kind.__name__
            self._write(_Specialiser(self, kind, {}), kind, kind.__name__)
        return kind.__name__

    def _write(self, specialiser: _Specialiser, thing: Any, name: str) -> None:
        source = textwrap.dedent(inspect.getsource(thing))
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


class _Specialiser(ast.NodeTransformer):
    """Rewrites one function or class under what is known of its names."""

    def __init__(self, program: _Program, thing: Any, known: Mapping[str, Any]) -> None:
        self.program, self.thing = program, thing
        self.known: dict[str, Any] = dict(known)
        self.globals = vars(inspect.getmodule(thing))
        self.locals: set[str] = set()
        self.parameters: set[str] = set()
        self.stores: dict[str, int] = {}

    def definition(self, node: ast.stmt, name: str) -> ast.stmt:
        """The whole function or class, under another name."""
        if isinstance(node, ast.ClassDef):
            node.body = [self.visit_FunctionDef(each) if isinstance(each, ast.FunctionDef) else each
                         for each in node.body]  # fmt: skip
            return node
        assert isinstance(node, ast.FunctionDef)
        node.name = name
        return self.visit_FunctionDef(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        stored = [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
        self.stores = {each: stored.count(each) for each in stored}
        self.locals = ({each.arg for each in arguments} | set(stored)) - set(self.known)
        self.parameters = {each.arg for each in arguments}
        node.args.args = [each for each in node.args.args if each.arg not in self.known]
        for each in node.args.args:
            if isinstance(each.annotation, ast.Name) and each.annotation.id == "LabelRows":
                each.annotation.id = "Rows"
        node.body = self.block(node.body)
        return node

    # statements

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Statements that can be reached, without imports, branches and names that are known."""
        kept: list[ast.stmt] = []
        for statement in statements:
            if kept and isinstance(kept[-1], ast.Return | ast.Raise):
                break
            kept += self._statement(statement)
        return kept

    def _statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            return []
        if isinstance(node, ast.If):
            return self._if(node)
        if isinstance(node, ast.With):
            node.body = self.block(node.body)
            return [node]
        if isinstance(node, ast.Assign) and self._remember(node):
            return []
        visited = self.visit(node)
        assert isinstance(visited, ast.stmt)
        return [visited]

    def _if(self, node: ast.If) -> list[ast.stmt]:
        test = self.visit(node.test)
        try:
            return self.block(node.body if self.static(test) else node.orelse)
        except _NotStatic:
            return [ast.If(test, self.block(node.body), self.block(node.orelse))]

    def _remember(self, node: ast.Assign) -> bool:
        """Take note of a name that is set once, to something known."""
        target = node.targets[0]
        if not isinstance(target, ast.Name) or self.stores[target.id] != 1 or target.id in self.parameters:
            return False
        try:
            self.known[target.id] = self.static(node.value)
        except _NotStatic:
            return False
        self.locals.discard(target.id)
        return True

    # expressions

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant | ast.JoinedStr):
            try:
                value = self.static(node)
            except _NotStatic:
                pass
            else:
                if isinstance(value, LITERALS):
                    return ast.Constant(value)
        return super().visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if node.attr in ("mix", "modified") and self._is_scheduled(node.value):
            moving = ast.parse("rows.mix", mode="eval").body
            if node.attr == "mix":
                return moving
            return ast.Compare(moving, [ast.NotEq()], [ast.Constant(1)])
        visited = self.generic_visit(node)
        assert isinstance(visited, ast.expr)
        return visited

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        decided = isinstance(node.op, ast.Or)
        values: list[ast.expr] = []
        for value in (self.visit(each) for each in node.values):
            try:
                if bool(self.static(value)) is decided:
                    return ast.Constant(decided)
            except _NotStatic:
                values.append(value)
        return values[0] if len(values) == 1 else ast.BoolOp(node.op, values)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        test = self.visit(node.test)
        try:
            return self.visit(node.body if self.static(test) else node.orelse)
        except _NotStatic:
            return ast.IfExp(test, self.visit(node.body), self.visit(node.orelse))

    def visit_ListComp(self, node: ast.ListComp) -> ast.expr:
        generator = node.generators[0]
        try:
            items = list(self.static(generator.iter))
        except _NotStatic:
            visited = self.generic_visit(node)
            assert isinstance(visited, ast.expr)
            return visited
        found = []
        for item in items:
            inner = _Specialiser(self.program, self.thing, self.known | _unpacked(generator.target, item))
            inner.locals = self.locals - set(inner.known)
            if all(inner.static(test) for test in generator.ifs):
                found.append(inner.visit(ast.parse(ast.unparse(node.elt), mode="eval").body))
        return ast.List(found, ast.Load())

    def visit_Call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            if isinstance(node.func.value, ast.Call) and getattr(node.func.value.func, "id", "") == "super":
                return self._method(self.known["self"], node.func.attr, node, above=True)
            field = self._field_asked_for(node.func.attr, node.args)
            if field is not None:
                return ast.Attribute(self.visit(node.func.value), field, ast.Load())
        try:
            function = self.static(node.func)
        except _NotStatic:
            return self.generic_visit(node)
        return self._known_call(function, node)

    def _known_call(self, function: Any, node: ast.Call) -> Any:
        if isinstance(function, MethodType) and isinstance(function.__self__, Settings):
            return self._method(function.__self__, function.__name__, node)
        if getattr(function, "__name__", "") == "cast":
            return self.visit(node.args[1])
        if isinstance(function, FunctionType) and function.__module__.startswith(PACKAGE):
            return self._call(function, {}, function.__name__, node)
        if isinstance(function, type) and function.__module__.startswith(PACKAGE):
            self.program.type(function)
        return self.generic_visit(node)

    def _method(self, owner: Settings, name: str, node: ast.Call, above: bool = False) -> ast.expr:
        """A call of a method whose object is known, as a call of a function."""
        kinds = list(type(owner).__mro__)
        if above:
            here = next(kind for kind in kinds if self.thing in vars(kind).values())
            kinds = kinds[kinds.index(here) + 1 :]
        function = next(vars(kind)[name] for kind in kinds if name in vars(kind))
        role = f"{self.program.role(owner)}_{name}"
        return self._call(function, {"self": owner}, f"plain_{role}" if above else role, node)

    def _call(self, function: FunctionType, known: dict[str, Any], name: str, node: ast.Call) -> ast.expr:
        """A call of one of our own functions; arguments that steer it are worked into it, numbers stay arguments."""
        names = [each for each in inspect.signature(function).parameters if each not in known]
        given = dict(zip(names, node.args, strict=False)) | {each.arg: each.value for each in node.keywords if each.arg}
        passed = []
        for parameter, argument in given.items():
            try:
                value = self.static(argument)
            except _NotStatic:
                value = 0
            if value is None or isinstance(value, bool | str | Settings):
                known[parameter] = value
            else:
                passed.append(self.visit(argument))
        return ast.Call(ast.Name(self.program.function(function, known, name), ast.Load()), passed, [])

    def _field_asked_for(self, method: str, arguments: list[ast.expr]) -> str | None:
        """The field of `Rows` that a lookup by a known name comes to."""
        try:
            name = str(self.static(arguments[0])) if arguments else ""
        except _NotStatic:
            return None
        if method == "given":
            return name
        plain = {"label_logprobs_of": "label_logprobs", "logprobs_of": "logprobs"}.get(method)
        return plain if plain is None or name == "student" else f"{name}_{plain}"

    # what is known

    def static(self, node: ast.AST) -> Any:
        """The value of an expression that depends on the design alone; raises _NotStatic for any other."""
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
        raise _NotStatic

    def _static_field(self, owner: Any, name: str) -> Any:
        """A field, but for what a schedule moves."""
        if name == "schedule" and isinstance(owner, Gamma):
            return None
        if name in ("mix", "modified") and self.program.scheduled(owner):
            still = owner.model_copy(update={"schedule": None, "mix": 1.0})
            if name == "mix" or not still.modified:
                raise _NotStatic
        return getattr(owner, name)

    def _static_name(self, name: str) -> Any:
        if name in self.known:
            return self.known[name]
        builtin = {each.__name__: each for each in FOLDED} | {"isinstance": isinstance}
        if name in self.locals or (name not in self.globals and name not in builtin):
            raise _NotStatic
        return self.globals.get(name, builtin.get(name))

    def _static_call(self, node: ast.Call) -> Any:
        function = self.static(node.func)
        arguments = [self.static(each) for each in node.args]
        if node.keywords:
            raise _NotStatic
        if function is isinstance or function in FOLDED or isinstance(_owner(function), Settings | dict):
            return function(*arguments)
        raise _NotStatic

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
            raise _NotStatic
        return OPERATORS[type(node.ops[0])](self.static(node.left), self.static(node.comparators[0]))

    def _static_and_or(self, node: ast.BoolOp) -> Any:
        value = None
        for each in node.values:
            value = self.static(each)
            if bool(value) is isinstance(node.op, ast.Or):
                break
        return value

    def _is_scheduled(self, node: ast.expr) -> bool:
        try:
            return self.program.scheduled(self.static(node))
        except _NotStatic:
            return False


def _owner(function: Any) -> Any:
    return getattr(function, "__self__", None)


def _unpacked(target: ast.expr, item: Any) -> dict[str, Any]:
    """Names of a loop's target with their values for one item."""
    if isinstance(target, ast.Tuple):
        return {ast.unparse(name): value for name, value in zip(target.elts, item, strict=True)}
    return {ast.unparse(target): item}


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
