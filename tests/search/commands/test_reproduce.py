"""One trial again: no gap on the same machine, a gap where something differs, refusal where inputs do."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from report_study import SCORES, searched
from rich.console import Console
from scripted_study import scripted
from small_study import small_config, write_small_study

from qtarget.search.commands.reproduce import reproduce
from qtarget.search.launchers.process import RunningEngine
from qtarget.search.loop.supervisor import run_study
from qtarget.search.report.write import write_report
from qtarget.search.store.history import load_history
from qtarget.search.study.config_file import load_study
from qtarget.search.study.failures import StudyFailedError
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A study of two trials with a real model."""
    search = {**small_config()["search"], "trials": 2, "pruner": "none"}
    path = write_small_study(tmp_path_factory.mktemp("trained"), search=search, tracking={"uri": "none"})
    run_study(load_study(path))
    return path


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_the_same_machine_gives_the_same_bits(trained: Path) -> None:
    out = console()
    gap = reproduce(trained, 1, out)
    assert gap is not None
    assert (gap["items"], gap["verdicts_differ"], gap["completions_differ"]) == (16, 0, 0)
    assert gap["then"] == gap["now"] == load_history(load_study(trained))[1].score
    assert "Reproduced" in out.file.getvalue()  # type: ignore[attr-defined]
    folder = load_study(trained).study_folder
    assert Path(gap["folder"]) == folder / "reproduced" / "0001-1" / "trial"
    first, again = (
        json.loads((place / "result.json").read_text()) for place in (folder / "trials" / "0001", Path(gap["folder"]))
    )
    assert first["item_scores"] == again["item_scores"] and first["id"] == again["id"]


def test_the_report_shows_the_winner_on_real_tokens(trained: Path, tmp_path: Path) -> None:
    files = write_report(trained, console(), out=tmp_path / "page.html")
    html = Path(files["html"]).read_text("utf-8")
    kept = json.loads(next(load_study(trained).study_folder.glob("pictures-*.json")).read_text())
    assert "missing" not in kept and len(kept["demonstrations"]) == 4
    assert set(kept["demonstrations"][0]["stages"]) == {"before", "after"}, "the best trial keeps its weights"
    assert html.count('class="token"') >= 8 and 'data-s="after"' in html
    assert {"winner", "sft", "dft", "target_sft"} == set(kept["curves"])
    shutil.move(load_study(trained).base_folder / "model", tmp_path / "gone")
    again = Path(write_report(trained, console(), out=tmp_path / "again.html")["html"]).read_text("utf-8")
    shutil.move(tmp_path / "gone", load_study(trained).base_folder / "model")
    assert 'data-s="after"' in again, "computed once, kept in the folder"


def test_a_difference_is_counted_and_has_an_interval(tmp_path: Path) -> None:
    config = searched(tmp_path)

    def launch(folder: Path, index: int) -> RunningEngine:
        (folder / "script.json").write_text(json.dumps({"scores": {"0": 0.25}}))
        items = [
            json.loads(line) for line in (config.study_folder / "trials/0002/items.jsonl").read_text().splitlines()
        ]
        changed = [{**item, "verdict": "wrong", "completion": "other"} for item in items[:3]]
        lines = "".join(json.dumps(item) + "\n" for item in changed + items[3:])
        (folder / "trial" / "items.jsonl").write_text(lines)
        return scripted(folder, index)

    gap = reproduce(config.study_folder, 2, console(), launch=launch)
    assert gap is not None
    assert (gap["then"], gap["now"], gap["items"]) == (SCORES["2"], pytest.approx(9 / 16), 16)
    assert (gap["verdicts_differ"], gap["completions_differ"]) == (3, 3)
    low, high = gap["interval"]
    assert low < gap["now"] - gap["then"] < high


def scripted_with(script: dict) -> object:
    def launch(folder: Path, index: int) -> RunningEngine:
        (folder / "script.json").write_text(json.dumps(script))
        return scripted(folder, index)

    return launch


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    config = searched(tmp_path)
    with pytest.raises(UserError, match="from the inputs it had, but data changed since"):
        reproduce(config.study_folder, 0, console(), launch=scripted_with({"fingerprints": {"data": "other"}}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("behaviour", "said"), [("bug", "bug in trial"), ("kill", "SIGKILL")])
def test_a_failure_ends_it_with_its_reason(tmp_path: Path, behaviour: str, said: str) -> None:
    config = searched(tmp_path)
    with pytest.raises(StudyFailedError, match=said):
        reproduce(config.study_folder, 0, console(), launch=scripted_with({"0": [behaviour]}))  # type: ignore[arg-type]


def test_only_a_finished_trial_can_be_reproduced(tmp_path: Path) -> None:
    config = searched(tmp_path)
    with pytest.raises(UserError, match="it has no trial 9"):
        reproduce(config.study_folder, 9, console())
    (config.study_folder / "trials" / "0001" / "result.json").unlink()
    with pytest.raises(UserError, match="trial 1 must be finished"):
        reproduce(config.study_folder, 1, console())
    (config.study_folder / "trials" / "0002" / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"trial 2 must have spec\.json and result\.json"):
        reproduce(config.study_folder, 2, console())
