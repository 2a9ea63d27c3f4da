"""Rewrites a function of `spaces` for one design: known fields become numbers, branches it cannot take are dropped."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any, Protocol

from ...spaces.settings import Settings
from ...spaces.target import TargetSpec
from .known import Known, NotStatic, scheduled

PACKAGE = TargetSpec.__module__.rpartition(".")[0]
LITERALS = (type(None), bool, int, float, str)


class Program(Protocol):
    """Where the functions and classes go that a rewritten function calls."""

    def role(self, owner: Settings) -> str:
        """Which part of the design an object is."""
        ...

    def function(self, function: Callable[..., Any], known: Mapping[str, Any], name: str) -> str:
        """Write a function with some parameters worked out; returns its name."""
        ...

    def type(self, kind: type) -> str:
        """Write a class; returns its name."""
        ...


class Specialiser(Known, ast.NodeTransformer):
    """Rewrites one function or class under what is known of its names."""

    def __init__(self, program: Program, thing: Any, known: Mapping[str, Any]) -> None:
        super().__init__(known, vars(sys.modules[thing.__module__]))
        self.program, self.thing = program, thing
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
        except NotStatic:
            return [ast.If(test, self.block(node.body), self.block(node.orelse))]

    def _remember(self, node: ast.Assign) -> bool:
        """Take note of a name that is set once, to something known."""
        target = node.targets[0]
        if not isinstance(target, ast.Name) or self.stores[target.id] != 1 or target.id in self.parameters:
            return False
        try:
            self.known[target.id] = self.static(node.value)
        except NotStatic:
            return False
        self.locals.discard(target.id)
        return True

    # expressions

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant | ast.JoinedStr):
            try:
                value = self.static(node)
            except NotStatic:
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
            except NotStatic:
                values.append(value)
        return values[0] if len(values) == 1 else ast.BoolOp(node.op, values)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        test = self.visit(node.test)
        try:
            return self.visit(node.body if self.static(test) else node.orelse)
        except NotStatic:
            return ast.IfExp(test, self.visit(node.body), self.visit(node.orelse))

    def visit_ListComp(self, node: ast.ListComp) -> ast.expr:
        generator = node.generators[0]
        try:
            items = list(self.static(generator.iter))
        except NotStatic:
            visited = self.generic_visit(node)
            assert isinstance(visited, ast.expr)
            return visited
        found = []
        for item in items:
            inner = Specialiser(self.program, self.thing, self.known | _unpacked(generator.target, item))
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
        except NotStatic:
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
            except NotStatic:
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
        except NotStatic:
            return None
        if method == "given":
            return name
        plain = {"label_logprobs_of": "label_logprobs", "logprobs_of": "logprobs"}.get(method)
        return plain if plain is None or name == "student" else f"{name}_{plain}"

    def _is_scheduled(self, node: ast.expr) -> bool:
        try:
            return scheduled(self.static(node))
        except NotStatic:
            return False


def _unpacked(target: ast.expr, item: Any) -> dict[str, Any]:
    """Names of a loop's target with their values for one item."""
    if isinstance(target, ast.Tuple):
        return {ast.unparse(name): value for name, value in zip(target.elts, item, strict=True)}
    return {ast.unparse(target): item}
