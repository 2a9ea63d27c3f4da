"""One supervisor, its queue and its engines: what happens to trials when things go right, and wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from rich.console import Console
from scripted_study import Recorder, scripted
from small_study import small_config

from qtarget.search.loop import worker
from qtarget.search.loop.supervisor import CLAIM_SECONDS, join_study, run_study
from qtarget.search.store import disk
from qtarget.search.store.disk import Disk
from qtarget.search.store.history import load_history
from qtarget.search.study.failures import StudyFailedError
from qtarget.search.terminal.status import show_status
from qtarget.spaces.errors import UserError


def search(**changes: Any) -> dict[str, Any]:
    return {**small_config()["search"], **changes}


def limits(**changes: Any) -> dict[str, Any]:
    return {**small_config()["limits"], **changes}


def states(config) -> list[str]:
    return [record.state for record in load_history(config)]


class Interrupt(Recorder):
    """Ctrl-C at the first step of a trial."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        if type(event).__name__ == "StepDone" and event.number == self._number:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_a_study_finishes_exactly_its_slots_and_tells_the_story(scripted_study, recorder: Recorder) -> None:
    config = scripted_study(search=search(trials=6))
    summary = run_study(config, [recorder], launch=scripted)
    assert summary.state == "finished" and recorder.closed
    assert sum(summary.counts.values()) == 6 and summary.counts["waiting"] == summary.counts["running"] == 0
    started, ended = recorder.of("TrialStarted"), recorder.of("TrialEnded")
    assert [event.number for event in started] == [event.number for event in ended] == list(range(6))
    assert [event.title for event in started[:2]] == ["sft", "dft"]
    kinds = [type(event).__name__ for event in recorder.events]
    assert kinds[0] == "StudyStarted" and kinds[-1] == "StudyEnded"
    assert recorder.events[0].trials == 6 and recorder.events[0].finished == 0
    assert recorder.of("StudyEnded")[0].summary["winner"]["number"] == summary.winner.number


def test_the_winner_has_the_best_score_and_sft_is_found(scripted_study) -> None:
    config = scripted_study({"scores": {"0": 0.3, "1": 0.2, "2": 0.9, "3": 0.9}})
    summary = run_study(config, launch=scripted)
    assert (summary.winner.number, summary.winner.score) == (2, 0.9)
    assert (summary.sft.number, summary.sft.score, summary.sft.baseline) == (0, 0.3, "sft")
    assert summary.winner.verdicts == {"correct": 14, "wrong": 2}


@pytest.mark.slow
def test_a_finished_study_is_not_started_again_and_a_larger_one_goes_on(scripted_study, recorder: Recorder) -> None:
    config = scripted_study()
    run_study(config, launch=scripted)
    again = run_study(config, [recorder], launch=lambda folder, index: pytest.fail("no engine is needed"))
    assert again.state == "finished" and not recorder.of("TrialStarted")
    more = run_study(config, [recorder], trials=6, launch=scripted)
    assert sum(more.counts.values()) == 6
    assert [event.number for event in recorder.of("TrialStarted")] == [4, 5]
    fewer = run_study(config, trials=3, launch=scripted)
    assert sum(fewer.counts.values()) == 6, "finished trials are never taken back"


def test_equal_gradients_are_trained_once(scripted_study, recorder: Recorder) -> None:
    baselines = ["dft", {"preset": "target_sft", "knobs": {"eta": 0.0}}]
    config = scripted_study({"scores": {"0": 0.4}}, baselines=baselines, search=search(trials=2))
    run_study(config, [recorder], launch=scripted)
    first, second = load_history(config)
    assert (second.same_as, second.score, second.state) == (0, 0.4, "complete")
    assert second.standard_error == first.standard_error and second.verdicts == first.verdicts
    assert second.rungs == first.rungs and second.folder == first.folder
    assert not (first.folder.parent / "0001").exists()
    assert recorder.of("TrialEnded")[1].reason == "same as trial 0"


@pytest.mark.slow
def test_out_of_memory_halves_the_micro_batch_until_it_fits(scripted_study) -> None:
    config = scripted_study({"1": ["oom", "oom", "finish"]}, search=search(trials=2))
    run_study(config, launch=scripted)
    record = load_history(config)[1]
    assert record.state == "complete" and record.attempts == 3
    assert (record.folder / "micro_batches").read_text().split() == ["8", "4", "2"]
    assert [link["why"] for link in record.chain] == ["oom", "oom"]
    screen = Console(file=io.StringIO(), width=200)
    show_status(config.study_folder, screen)
    assert "3 attempts (oom, oom)" in screen.file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["oom", "diverged"])
def test_what_cannot_be_trained_is_infeasible_for_the_sampler(scripted_study, recorder: Recorder, kind: str) -> None:
    config = scripted_study({"1": [kind]}, search=search(trials=3))
    summary = run_study(config, [recorder], launch=scripted)
    record = load_history(config)[1]
    assert record.state == "infeasible" and record.score is None
    assert record.failure["kind"] == kind
    assert recorder.of("TrialEnded")[1].reason.startswith(kind)
    storage = f"sqlite:///{config.study_folder}/study.db"
    trial = optuna.load_study(study_name="small", storage=storage).trials[1]
    assert trial.constraints == {kind: 1.0}
    assert summary.winner.number != 1


@pytest.mark.parametrize("behaviour", ["kill", "segfault"])
@pytest.mark.slow
def test_a_crash_is_retried_up_to_the_limit(scripted_study, recorder: Recorder, behaviour: str) -> None:
    script = {"0": [behaviour, behaviour, "finish"], "1": [behaviour]}
    config = scripted_study(script, search=search(trials=3), limits=limits(retries=2))
    run_study(config, [recorder], launch=scripted)
    first, second, third = load_history(config)
    assert (first.state, first.attempts) == ("complete", 3)
    assert (second.state, second.attempts) == ("failed", 3)
    assert "SIGKILL" in second.failure["message"] or "SIGSEGV" in second.failure["message"]
    assert third.state == "complete"
    assert [event.attempt for event in recorder.of("TrialStarted")] == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.slow
def test_crashes_after_new_checkpoints_are_not_counted_together(scripted_study) -> None:
    script = {"0": ["save", "save", "save", "save", "save", "finish"]}
    config = scripted_study(script, search=search(trials=1), limits=limits(retries=1))
    run_study(config, launch=scripted)
    assert states(config) == ["complete"]


@pytest.mark.slow
def test_a_bug_stops_the_study_with_its_traceback_and_loses_nothing(scripted_study, recorder: Recorder) -> None:
    config = scripted_study({"1": ["bug", "finish"]})
    with pytest.raises(StudyFailedError, match=r"(?s)bug in trial.*line 2"):
        run_study(config, [recorder], launch=scripted)
    assert states(config) == ["complete", "waiting", "waiting", "waiting"]
    assert recorder.of("StudyEnded")[0].state == "failed" and recorder.closed
    assert run_study(config, launch=scripted).state == "finished"


def test_a_hang_is_noticed(scripted_study, monkeypatch) -> None:
    config = scripted_study({"0": ["hang", "finish"]}, search=search(trials=1), limits=limits(silence_minutes=10))
    slept = [0.0]

    class Nap(Recorder):
        """Eleven minutes pass after the last sign before the hang."""

        def on_event(self, event: Any) -> None:
            super().on_event(event)
            if len(self.of("StepDone")) == 1:
                slept[0] = 660.0

    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + slept[0]))
    run_study(config, [Nap()], launch=scripted)
    assert states(config) == ["complete"] and [link["why"] for link in load_history(config)[0].chain] == ["crash"]


def test_a_trial_past_its_time_is_infeasible(scripted_study, trials_take) -> None:
    config = scripted_study({"0": ["wait"]}, search=search(trials=2), limits=limits(trial_minutes=10))
    trials_take({0: 601.0, 1: 599.0})
    run_study(config, launch=scripted)
    first, second = load_history(config)
    assert (first.state, first.failure["kind"], second.state) == ("infeasible", "timeout", "complete")


def test_input_that_cannot_work_leaves_no_study(scripted_study, recorder: Recorder) -> None:
    config = scripted_study({"start": "user"})
    with pytest.raises(UserError, match="`path` must exist") as raised:
        run_study(config, [recorder], launch=scripted)
    assert raised.value.field == "data.path"
    assert recorder.events == [] and recorder.closed
    with pytest.raises(UserError, match="has no such study"):
        load_history(config)


def test_an_engine_that_never_gets_ready_is_a_fault(scripted_study) -> None:
    config = scripted_study({"start": "crash"})
    with pytest.raises(StudyFailedError, match="the engine died"):
        run_study(config, launch=scripted)


@pytest.mark.slow
def test_other_data_is_refused_on_resume(scripted_study) -> None:
    config = scripted_study()
    run_study(config, launch=scripted)
    (config.study_folder / "script.json").write_text(json.dumps({"fingerprints": {"data": "x"}}))
    with pytest.raises(UserError, match="data has fingerprint x, was d"):
        run_study(config, trials=5, launch=scripted)
    assert len(states(config)) == 4, "nothing is added to a study that is refused"


def test_other_data_is_refused_when_an_engine_is_replaced(scripted_study) -> None:
    config = scripted_study({"0": ["kill", "finish"]})

    class Change(Recorder):
        def on_event(self, event: object) -> None:
            script = config.study_folder / "script.json"
            script.write_text(json.dumps({"fingerprints": {"data": "other"}, "0": ["kill", "finish"]}))

    with pytest.raises(UserError, match="data has fingerprint other, was d"):
        run_study(config, [Change()], launch=scripted)


def test_a_changed_configuration_is_refused_before_any_engine_starts(scripted_study) -> None:
    run_study(scripted_study(), launch=scripted)
    changed = scripted_study(training={**small_config()["training"], "steps": 9})
    with pytest.raises(UserError, match=r"`training\.steps` is 9, was 8"):
        run_study(changed, launch=lambda folder, index: pytest.fail("no engine is needed"))


@pytest.mark.slow
def test_ctrl_c_puts_the_trial_back_and_the_next_start_goes_on(scripted_study, recorder: Recorder) -> None:
    config = scripted_study({"1": ["wait", "finish"]})
    interrupted = Interrupt(1)
    summary = run_study(config, [interrupted], launch=scripted)
    assert summary.state == "stopped"
    assert states(config) == ["complete", "waiting", "waiting", "waiting"]
    assert interrupted.of("TrialEnded")[-1].state == "interrupted"
    assert run_study(config, [recorder], launch=scripted).state == "finished"
    first = recorder.of("TrialStarted")[0]
    assert (first.number, first.attempt, first.title) == (1, 2, "dft")


@pytest.mark.slow
def test_a_deadline_stops_running_trials_and_keeps_them(scripted_study, clock) -> None:
    config = scripted_study({"2": ["wait", "finish"]})
    until = clock.shown + timedelta(hours=8)

    class Morning(Recorder):
        def on_event(self, event: Any) -> None:
            if type(event).__name__ == "StepDone" and event.number == 2:
                clock.shown = until

    summary = run_study(config, [Morning()], until=until, launch=scripted)
    assert (summary.state, summary.ended) == ("stopped", "deadline")
    assert states(config) == ["complete", "complete", "waiting", "waiting"]
    assert load_history(config)[2].attempts == 1


def test_a_full_disk_makes_the_study_wait_not_fail(scripted_study, monkeypatch) -> None:
    monkeypatch.setattr(disk, "FULL_SECONDS", 1.0)
    config = scripted_study({"1": ["disk", "finish"]}, search=search(trials=2))
    assert run_study(config, launch=scripted).state == "finished"
    record = load_history(config)[1]
    assert record.state == "complete" and [link["why"] for link in record.chain] == ["disk full"]


@pytest.mark.parametrize(
    ("script", "changes"),
    [({}, {"limits": limits(disk_gigabytes=1e9)}), ({"checkpoint_bytes": 2**60}, {})],
    ids=["asked for", "the model's checkpoints"],
)
def test_no_trial_starts_without_room(script, changes, scripted_study, recorder: Recorder, clock, monkeypatch) -> None:
    config = scripted_study(script, **changes)
    until = clock.shown + timedelta(hours=8)
    found, times = [], []

    def asked(self: Disk, last_full: float) -> bool:
        times.append(time.monotonic())
        found.append(has_room(self, last_full))
        if len(found) == 2:
            clock.shown = until
        return found[-1]

    has_room = Disk.has_room
    monkeypatch.setattr(Disk, "has_room", asked)
    summary = run_study(config, [recorder], until=until, launch=scripted)
    assert summary.state == "stopped" and summary.counts["waiting"] == 4 and found == [False, False]
    assert times[1] - times[0] > CLAIM_SECONDS, "a full disk is not asked at every tick"
    assert not recorder.of("TrialStarted")


@pytest.mark.slow
def test_engine_hours_are_counted_over_all_trials(scripted_study, trials_take) -> None:
    config = scripted_study({"2": ["wait"]}, search=search(trials=12, pruner="none"))
    trials_take(3600.0)
    first = run_study(config, hours=2.5, launch=scripted)
    assert first.state == "stopped" and (first.counts["complete"], first.counts["waiting"]) == (2, 10)
    again = run_study(config, hours=2.5, launch=scripted)
    assert again.counts == first.counts
    assert sum(record.seconds or 0.0 for record in load_history(config)) == 3 * 3600.0


@pytest.mark.slow
def test_several_workers_do_each_slot_once(scripted_study, recorder: Recorder) -> None:
    config = scripted_study(search=search(trials=24, pruner="none"))
    summary = run_study(config, [recorder], workers=3, launch=scripted)
    assert summary.counts["complete"] == 24
    assert sorted(event.number for event in recorder.of("TrialEnded")) == list(range(24))
    assert all((record.folder / "attempts").read_text() == "x" for record in load_history(config) if not record.same_as)
    logs = [log for log in config.study_folder.glob("engine-*.log") if "words from a library" in log.read_text()]
    assert len(logs) == 3


@pytest.mark.slow
def test_another_process_joins_by_url_and_name(scripted_study, recorder: Recorder) -> None:
    config = scripted_study({"0": ["wait", "finish"]}, search=search(trials=3, pruner="none"))
    with pytest.raises(UserError, match="none named 'small'"):
        join_study(f"sqlite:///{config.study_folder}/study.db", "small", launch=scripted)
    assert run_study(config, [Interrupt(0)], launch=scripted).state == "stopped"
    joined = join_study(f"sqlite:///{config.study_folder}/study.db", "small", [recorder], launch=scripted)
    assert joined.state == "finished" and joined.counts["complete"] == 3
    assert Path(joined.folder) == config.study_folder
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{config.study_folder}/study.db")
    study.set_user_attr("code", {**study.user_attrs["code"], "trainers/loop/sft.py": "of another day"})
    with pytest.raises(UserError, match=r"the same code, but here trainers/loop/sft\.py differ"):
        join_study(f"sqlite:///{config.study_folder}/study.db", "small", launch=scripted)


@pytest.mark.slow
def test_same_seed_same_study(scripted_study, tmp_path: Path) -> None:
    def parameters(base: Path, seed: int) -> list[Any]:
        config = scripted_study(search=search(trials=6, seed=seed, pruner="none"))
        config = config.model_copy(update={"base": str(base)})
        run_study(config, launch=scripted)
        return [(record.parameters, record.score) for record in load_history(config)]

    first = parameters(tmp_path / "a", 1)
    assert first == parameters(tmp_path / "b", 1)
    assert first[2:] != parameters(tmp_path / "c", 2)[2:]


def test_a_trial_that_was_taken_over_is_let_go(scripted_study, recorder: Recorder) -> None:
    """A supervisor that slept past its lease must not tell what another one has told."""
    config = scripted_study({"0": ["wait", "finish"]}, search=search(trials=2), limits=limits(lease_seconds=0.3))

    class TakeOver(Recorder):
        def on_event(self, event: Any) -> None:
            super().on_event(event)
            if type(event).__name__ == "StepDone" and len(self.of("StepDone")) == 1:
                study = optuna.load_study(study_name="small", storage=f"sqlite:///{config.study_folder}/study.db")
                study.tell(0, 0.123)

    heard = TakeOver()
    assert run_study(config, [heard], launch=scripted).state == "finished"
    assert heard.of("TrialEnded")[0].state == "interrupted" and "taken over" in heard.of("TrialEnded")[0].reason
    first, second = load_history(config)
    assert (first.score, second.state) == (0.123, "complete")


def test_equal_gradients_on_two_workers_are_trained_once(scripted_study, recorder: Recorder) -> None:
    baselines = ["dft", {"preset": "target_sft", "knobs": {"eta": 0.0}}, "sft"]
    script = {"scores": {"0": 0.4, "1": 0.9}, "seconds": 1.0}
    config = scripted_study(script, baselines=baselines, search=search(trials=3, pruner="none"))
    run_study(config, [recorder], workers=2, launch=scripted)
    first, second, third = load_history(config)
    assert (second.same_as, second.score, second.attempts) == (0, 0.4, 1)
    assert (first.state, third.state) == ("complete", "complete")
    assert not (first.folder.parent / "0001").exists(), "nothing was trained for the second"


@pytest.mark.slow
def test_the_winners_checkpoint_survives_a_trial_that_is_credited_with_it(scripted_study) -> None:
    baselines = ["dft", {"preset": "target_sft", "knobs": {"eta": 0.0}}, "sft"]
    script = {"scores": {"0": 0.9}, "0": ["save", "finish"], "2": ["save", "finish"]}
    config = scripted_study(script, baselines=baselines, search=search(trials=3))
    run_study(config, launch=scripted)
    winner, credited, other = load_history(config)
    assert credited.same_as == 0 and (winner.folder / "checkpoint" / "state.safetensors").exists()
    assert not (other.folder / "checkpoint").exists()
