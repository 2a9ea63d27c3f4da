"""The plan of the house: one way down, no torch beside Optuna, every package in the wheel."""

import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter

import pytest
from imports import FLOORS, ROOT, imported, imports_by_module

TRACKERS = {"optuna", "mlflow"}
HEAVY = {"torch", "transformers", "accelerate", "datasets", "peft"}


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
    """Tracker-talking modules from which torch can be reached.

    Spaces do not count: they import torch only inside functions that trainers call.
    """
    heavy = {module for module in outside(imports, HEAVY) if floor_of(module) != 0}
    return [
        f"{module} reaches {', '.join(sorted(reached))}"
        for module in sorted(outside(imports, TRACKERS))
        if (reached := closure(module, imports) & heavy)
    ]


def test_no_import_climbs_a_floor() -> None:
    assert upward(imports_by_module()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(imports_by_module()) == []


def test_only_search_knows_optuna_and_mlflow() -> None:
    assert {module for module in outside(imports_by_module(), TRACKERS) if floor_of(module) != 3} == set()


def test_the_process_that_talks_to_optuna_and_mlflow_never_imports_torch() -> None:
    assert torch_beside_trackers(imports_by_module()) == []


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
        ("qtarget.evaluation.planted", "import importlib\nimportlib.import_module('qtarget.search.cli')", upward),
        ("qtarget.search.planted", "import optuna\ndef late():\n    import torch", torch_beside_trackers),
        ("qtarget.search.planted", "import mlflow\nfrom .engine import main", torch_beside_trackers),
        ("qtarget.trainers.loss_head", "def late():\n    from .row_form import RowForm", circle),
    ],
)
def test_a_planted_import_is_found(module: str, source: str, rule) -> None:  # type: ignore[no-untyped-def]
    imports = imports_by_module()
    imports[module] = imported(source, module)
    assert any(module in line for line in rule(imports)), f"{rule.__name__} does not see {source!r} in {module}"


def test_type_checking_imports_do_not_count() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import json"
    assert imported(source, "qtarget.spaces.x") == {"typing", "typing.TYPE_CHECKING", "json"}


def test_every_package_on_disk_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    on_disk = {"qtarget"} | {f"qtarget.{floor}" for floor in FLOORS if (ROOT / floor / "__init__.py").exists()}
    assert set(listed) == on_disk
    nested = [str(path) for floor in FLOORS for path in (ROOT / floor).glob("*/__init__.py")]
    assert nested == [], "floors are flat folders"


def test_readme_tree_names_every_file() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    files = [path for floor in FLOORS for path in (ROOT / floor).glob("*.py") if path.name != "__init__.py"]
    missing = [f"{path.parent.name}/{path.name}" for path in sorted(files) if f" {path.name} " not in readme]
    assert missing == []
