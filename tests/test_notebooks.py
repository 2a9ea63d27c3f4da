"""The notebooks of the documentation run from top to bottom, in a kernel of their own, and end in what they promise."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
CELL_SECONDS = 1200
"""A limit for hangs."""


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """Runs a notebook in an empty folder; its code cells with their outputs."""
    client = pytest.importorskip("nbclient", reason="nbclient and ipykernel are not installed")
    pytest.importorskip("ipykernel", reason="nbclient and ipykernel are not installed")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))

    def run(name: str) -> list[Any]:
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        resources = {"metadata": {"path": str(tmp_path)}}
        client.NotebookClient(notebook, timeout=CELL_SECONDS, resources=resources).execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return run


def result(cell: Any) -> dict[str, Any]:
    """What stands last in a cell, by its form."""
    return dict(next(each.data for each in cell.outputs if each.output_type == "execute_result"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client|nbclient|zmq|tornado")
def test_find_a_target_for_my_data(executed):
    *_, run, trials, best, verdict, report = executed("find-a-target.ipynb")
    assert "5 of 5 trials" in result(run)["text/plain"]
    assert result(trials)["text/html"].count("complete") == 5
    title, score = ast.literal_eval(result(best)["text/plain"])
    assert title != "sft" and score > 0.5 and not verdict.outputs
    assert result(report)["text/html"].startswith("<iframe srcdoc=")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client|nbclient|zmq|tornado")
def test_one_loss_in_my_own_trainer(executed):
    _, loop, trainer = executed("one-loss.ipynb")
    said = "".join(each.text for each in loop.outputs if each.output_type == "stream")
    assert "largest difference of the gradients" in said
    assert "train_loss" in str(trainer.outputs)


def test_notebooks_are_kept_without_outputs():
    for path in NOTEBOOKS.glob("*.ipynb"):
        assert '"outputs": []' in path.read_text("utf-8") and '"output_type"' not in path.read_text("utf-8")
