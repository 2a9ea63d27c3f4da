"""The plan of the house: one way down, rooms in order, no torch beside Optuna, every package in the wheel."""

import ast
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from imports import FLOORS, ROOT, imported, imports_by_module

TRACKERS = {"optuna", "mlflow"}
HEAVY = {"torch", "transformers", "accelerate", "datasets", "peft"}
ROOMS = {
    "spaces": "errors settings numerics ranges rows temperature gamma residual contrast spec target curves presets "
    "figure identity search_space",
    "trainers": "paths settings run_settings models data loss teachers loop standalone",
    "evaluation": "settings facts reading extraction verification problems generation statistics scoring tiny_world "
    "survey",
    "search": "study store confirmation launchers engine tracking loop terminal compare report export campaign init "
    "python commands cli",
}
"""Rooms, and the files that lie on a floor itself, from the bottom up: each may import those before it."""
SMALLEST, LARGEST = 3, 14
"""Files of a room, its `__init__` aside."""


def floor_of(module: str) -> int | None:
    parts = module.split(".")
    return FLOORS.index(parts[1]) if parts[0] == "qtarget" and len(parts) > 1 and parts[1] in FLOORS else None


def upward(imports: dict[str, set[str]]) -> list[str]:
    """`module -> import` for every import that climbs a floor."""
    return [
        f"{module} -> {name}"
        for module, names in imports.items()
        for name in sorted(names)
        if (here := floor_of(module)) is not None and (there := floor_of(name)) is not None and there > here
    ]


def room_of(module: str) -> tuple[str, str] | None:
    """(floor, room or file on the floor) of a module; None for a floor's own `__init__`."""
    parts = module.split(".")
    return (parts[1], parts[2]) if floor_of(module) is not None and len(parts) > 2 else None


def against_the_order(imports: dict[str, set[str]]) -> list[str]:
    """`module -> import` for every import, lazy ones too, of a room that comes later on the same floor."""
    return [
        f"{module} -> {name}"
        for module, names in imports.items()
        for name in sorted(names & imports.keys())
        if (here := room_of(module)) is not None
        and (there := room_of(name)) is not None
        and here[0] == there[0]
        and (order := ROOMS[here[0]].split()).index(there[1]) > order.index(here[1])
    ]


def folders() -> list[Path]:
    return [path for floor in FLOORS for path in sorted((ROOT / floor).iterdir()) if (path / "__init__.py").exists()]


def outside(imports: dict[str, set[str]], packages: set[str]) -> dict[str, set[str]]:
    found = {module: {name.split(".")[0] for name in names} & packages for module, names in imports.items()}
    return {module: names for module, names in found.items() if names}


def closure(start: str, imports: dict[str, set[str]]) -> set[str]:
    """Product modules that importing `start` brings in, itself included, lazy imports too."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        module = todo.pop()
        if module in seen or module not in imports:
            continue
        seen.add(module)
        parents = [module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)]
        todo += [*imports[module], *parents]
    return seen


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules of one circle of imports, lazy ones included, in order; empty where there is none."""
    graph = {module: {name for name in names & imports.keys() if name != module} for module, names in imports.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def torch_beside_trackers(imports: dict[str, set[str]]) -> list[str]:
    """Modules of the top floor, its engine's room aside, from which torch can be reached.

    Spaces do not count: they import torch only inside functions that trainers call.
    """
    heavy = {module for module in outside(imports, HEAVY) if floor_of(module) != 0}
    return [
        f"{module} reaches {', '.join(sorted(reached))}"
        for module in sorted(imports)
        if floor_of(module) == 3
        and room_of(module) != ("search", "engine")
        and (reached := closure(module, imports) & heavy)
    ]


@pytest.mark.slow
def test_no_import_climbs_a_floor() -> None:
    assert upward(imports_by_module()) == []


def test_rooms_of_a_floor_import_one_way() -> None:
    assert against_the_order(imports_by_module()) == []


def test_the_order_names_every_room_and_every_file_of_a_floor() -> None:
    found = {room for module in imports_by_module() if (room := room_of(module)) is not None}
    assert found == {(floor, room) for floor, order in ROOMS.items() for room in order.split()}


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_a_room_says_what_happens_in_it_and_names_its_files(folder: Path) -> None:
    files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert SMALLEST <= len(files) <= LARGEST
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    purpose = said[: min(said.find(f"\n{name} ") for name in files)]
    assert len(purpose.strip().splitlines()) >= 2, "purpose first, then the files, each by its name"
    assert [name for name in files if f"\n{name} " not in said] == []
    assert [name for name in files if name.startswith(f"{folder.name}_")] == [], "the folder says it already"


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(imports_by_module()) == []


def test_only_search_knows_optuna_and_mlflow() -> None:
    assert {module for module in outside(imports_by_module(), TRACKERS) if floor_of(module) != 3} == set()


def test_the_process_that_talks_to_optuna_and_mlflow_never_imports_torch() -> None:
    assert torch_beside_trackers(imports_by_module()) == []


@pytest.mark.started_anew
def test_spaces_imports_torch_only_inside_functions() -> None:
    names = "qtarget.spaces, qtarget.evaluation.settings, qtarget.trainers.settings"
    code = f"import sys, {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("qtarget.spaces.planted", "from ..trainers.loss import dense_target_loss", upward),
        ("qtarget.trainers.planted", "def late():\n    from qtarget.evaluation import verify", upward),
        ("qtarget.evaluation.planted", "import importlib\nimportlib.import_module('qtarget.search.cli.main')", upward),
        ("qtarget.search.planted", "import optuna\ndef late():\n    import torch", torch_beside_trackers),
        ("qtarget.search.planted", "import mlflow\nfrom .engine import main", torch_beside_trackers),
        ("qtarget.trainers.loss.head", "def late():\n    from .row_form import RowForm", circle),
    ],
)
def test_a_planted_import_is_found(module: str, source: str, rule) -> None:  # type: ignore[no-untyped-def]
    imports = imports_by_module() | {module: imported(source, module)}
    assert any(module in line for line in rule(imports)), f"{rule.__name__} does not see {source!r} in {module}"


def test_type_checking_imports_do_not_count() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import json"
    assert imported(source, "qtarget.spaces.x") == {"typing", "typing.TYPE_CHECKING", "json"}


def is_slow(node: ast.Module | ast.FunctionDef) -> bool:
    """Whether `pytest.mark.slow` stands at the module's head, or over the test."""
    marks = node.decorator_list if isinstance(node, ast.FunctionDef) else [
        each.value for each in node.body if isinstance(each, ast.Assign) and "pytestmark" in ast.dump(each.targets[0])
    ]  # fmt: skip
    return any(getattr(each, "attr", "") == "slow" for mark in marks for each in ast.walk(mark))


def quick_tests(source: str) -> list[ast.FunctionDef]:
    """The tests of a file that `make test-quick` runs."""
    tree = ast.parse(source)
    tests = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")]
    return [] if is_slow(tree) else [test for test in tests if not is_slow(test)]


QUICK_FILES = {
    path: source
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    if quick_tests(source := path.read_text("utf-8"))
}


def test_quick_tests_touch_every_room() -> None:
    names = {name for path, source in QUICK_FILES.items() for name in imported(source, f"tests.{path.stem}")}
    touched = {room_of(name) for name in names}
    assert [(folder.parent.name, folder.name) for folder in folders()
            if (folder.parent.name, folder.name) not in touched] == []  # fmt: skip


def test_quick_tests_need_no_service() -> None:
    services = {"mariadb", "postgres", "ray", "selenium"}
    assert {
        f"{path.name}: {name}"
        for path, source in QUICK_FILES.items()
        for name in services & {each.split(".")[0] for each in imported(source, f"tests.{path.stem}")}
    } == set()


@pytest.mark.parametrize(
    ("source", "quick"),
    [
        ("import pytest\npytestmark = pytest.mark.slow\ndef test_a(): ...", []),
        ("import pytest\npytestmark = [pytest.mark.timeout(9), pytest.mark.slow]\ndef test_a(): ...", []),
        ("import pytest\n@pytest.mark.slow\ndef test_a(): ...\ndef test_b(): ...", ["test_b"]),
        ("class TestC:\n    @pytest.mark.slow\n    def test_a(self): ...\n    def test_b(self): ...", ["test_b"]),
        ("def helper(): ...", []),
    ],
)
def test_a_slow_test_is_not_taken_for_a_quick_one(source: str, quick: list[str]) -> None:
    assert [test.name for test in quick_tests(source)] == quick


def test_every_package_on_disk_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    found = [path.parent for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py")]
    assert sorted(listed) == sorted(
        ["qtarget", *(".".join(("qtarget", *path.relative_to(ROOT).parts)) for path in found)]
    )


def test_readme_names_every_floor_and_room() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [floor for floor in FLOORS if f"\n{floor}/ " not in readme] == []
    assert [f"{path.parent.name}/{path.name}" for path in folders() if f"\n  {path.name}/ " not in readme] == []
