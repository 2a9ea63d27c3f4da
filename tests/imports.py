"""Which modules a source file imports, lazily or not; imports under TYPE_CHECKING do not count."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = ("spaces", "trainers", "evaluation", "search")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("qtarget", *(part for part in parts if part != "__init__")))


def imported(source: str, module: str, is_package: bool = False) -> set[str]:
    """Absolute names of everything `source` imports, `from x import y` as `x` and `x.y`."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    names: set[str] = set()
    for node in _walk_at_runtime(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return names


def _walk_at_runtime(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
        children: list[ast.AST] = list(node.orelse)
    else:
        yield node
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _walk_at_runtime(child)


@cache
def imports_by_module() -> dict[str, set[str]]:
    """Module name to what it imports, for every product file."""
    files = [*ROOT.glob("__*__.py"), *(path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py")))]
    return {
        module_name(path): imported(path.read_text("utf-8"), module_name(path), path.name == "__init__.py")
        for path in files
    }
