"""`import qtarget` costs nothing: what its names need comes with their first use."""

import subprocess
import sys

import pytest

import qtarget

pytestmark = pytest.mark.started_anew

HEAVY = ("torch", "optuna", "mlflow", "transformers", "numpy", "pydantic", "pandas")


def test_import_brings_nothing_heavy():
    code = f"import sys, qtarget; print([each for each in {HEAVY} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_study_is_named_and_opened_without_torch(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "study: s\nmodel: {path: m}\ndata: {path: d.jsonl}\nevaluation: {tasks: [{path: p.jsonl}]}\n"
    )
    code = "import sys; from qtarget import Study; print(Study('s.yaml').name, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["s", "False"]


def test_every_public_name_is_there():
    assert set(qtarget.__all__) <= set(dir(qtarget))
    assert qtarget.TargetLoss.__name__ == "TargetLoss" and qtarget.Study.__name__ == "Study"
    with pytest.raises(AttributeError, match="no attribute 'Stud'"):
        _ = qtarget.Stud
