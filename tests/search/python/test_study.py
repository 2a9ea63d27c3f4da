"""A study from Python: the same study as on the command line, its trials, its report, an interruption."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest
from rich.console import Console
from small_study import small_config, write_small_study

from qtarget import Study
from qtarget.search.python import frame, page
from qtarget.spaces.errors import UserError


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """One that has run: three trials of seconds."""
    folder = tmp_path_factory.mktemp("python")
    write_small_study(folder, search={"trials": 3, "startup_trials": 2, "pruner": "none"}, tracking={"uri": "none"})
    made = Study(folder / "study.yaml")
    made.console = Console(file=io.StringIO())
    assert made.trials().empty and made.best is None and made.verdict is None
    assert made.run() is made
    return made


@pytest.mark.slow
def test_trials_are_a_frame(study):
    found = study.trials()
    assert list(found.index) == [0, 1, 2] and set(found["state"]) == {"complete"}
    assert found["baseline"].tolist()[:2] == ["sft", "dft"]
    assert found["training.learning_rate"].between(0.003, 0.03).all()
    answers = [column for column in found if column.startswith("answers.")]
    assert (found[answers].sum(axis=1) == 16).all()
    assert study.best is not None and study.best.score == found["score"].max()
    assert repr(study).startswith("<Study small: 3 of 3 trials, best ")


@pytest.mark.slow
def test_trials_are_rows_without_pandas(study, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    found = frame.table(study.records())
    assert [row["number"] for row in found] == [0, 1, 2]


@pytest.mark.slow
def test_a_report_is_shown_inline_in_a_frame_of_its_own(study):
    shown = study.report(models=False)
    text = shown._repr_html_()
    assert shown.path.is_file() and text.startswith('<iframe srcdoc="&lt;!doctype html'[:16])
    assert text.count("<") == 2 and "&lt;" in text and 'sandbox="allow-scripts"' in text


@pytest.mark.slow
def test_the_folder_is_the_study_too(study):
    assert Study(study.folder).trials().equals(study.trials())


@pytest.mark.slow
def test_sections_are_the_file(study, monkeypatch):
    """Without a file: same settings, same folder; what the file began is there."""
    monkeypatch.chdir(study.folder.parents[1])
    sections = small_config(search={"trials": 3, "startup_trials": 2, "pruner": "none"}, tracking={"uri": "none"})
    sections |= {"model": "model", "teacher": "teacher"}
    again = Study(**sections)
    assert again.folder == study.folder and len(again.trials()) == 3


def test_a_name_comes_from_model_and_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Study(model="some/Model-1B", data="train.jsonl", evaluation={"tasks": [{"path": "problems.jsonl"}]})
    assert made.name == "Model-1B-train" and made.folder == tmp_path / "runs" / "Model-1B-train"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "got neither"),
        ({"path": "s.yaml", "model": "m"}, "got both"),
        ({"path": "gone.yaml"}, "there is none at"),
        ({"model": "m", "data": "d.jsonl", "evaluation": {"taks": []}}, "evaluation.taks"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        Study(**arguments)


class Interrupts(Console):
    """A console that interrupts this process, as a notebook's stop button does, when the first trial has ended."""

    done = False

    def print(self, *objects, **options):
        if not self.done and "complete" in str(objects):
            self.done = True
            os.kill(os.getpid(), signal.SIGINT)
        super().print(*objects, **options)


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path):
    assert threading.current_thread() is threading.main_thread()
    write_small_study(tmp_path, search={"trials": 3, "startup_trials": 2, "pruner": "none"}, tracking={"uri": "none"})
    study = Study(tmp_path / "study.yaml")
    study.console = Interrupts(file=io.StringIO())
    study.run()
    first = study.trials()
    assert 0 < (first["state"] == "complete").sum() < 3
    study.run()
    assert (study.trials()["state"] == "complete").all()
    kept = first[first["state"] == "complete"]
    assert study.trials().loc[kept.index, "score"].equals(kept["score"])


def test_a_notebook_without_widgets_gets_lines(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    assert not page.console().is_jupyter
