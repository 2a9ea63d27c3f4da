"""Engines on a local Ray cluster of two nodes, and the loss of one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted_study import TESTS, Recorder, scripted_engines

from qtarget import __version__
from qtarget.search.launchers import ray as launcher_ray
from qtarget.search.launchers.ray import MARKER, RayCluster, engine_resources, not_as_here
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head and a second node, on this machine."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))  # nodes find the scripted engine there
        cluster = Cluster(initialize_head=True, head_node_args=size | {"include_dashboard": False})
        cluster.add_node(**size)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def cluster(nodes, monkeypatch) -> Iterator[RayCluster]:
    monkeypatch.setattr(launcher_ray, "PLACE_SECONDS", 0.5)
    joined = RayCluster(nodes.address, scripted_engines)
    yield joined
    joined.close()


class AtTwo(Recorder):
    """Does something once, when two trials run."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._acts = [act]

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        if self._acts and len(self.of("TrialStarted")) - len(self.of("TrialEnded")) == 2:
            self._acts.pop()()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def engines(study: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if {"scripted_engine", str(study)} <= set(process.info["cmdline"] or ()):
            found.append(process)
    return found


def test_a_node_of_another_version_is_refused(cluster, scripted_study, monkeypatch) -> None:
    monkeypatch.setattr(RayCluster, "_mark", lambda self, folder: "0.0.0 mark")
    with pytest.raises(UserError, match=r"all nodes must run the same version.*run by 0\.0\.0"):
        run_study(scripted_study(tracking={"uri": "none"}), launch=cluster.launch(1))


def test_trials_of_a_lost_node_go_on_elsewhere(nodes, cluster, scripted_study) -> None:
    config = scripted_study(
        {"wait_for_word": True},
        search={"trials": 5, "pruner": "none"},
        baselines=["sft", "dft"],
        tracking={"uri": "none"},
    )
    assert cluster.room(1) == 2

    def lose_a_node() -> None:
        nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
        wait_for(lambda: len(engines(config.study_folder)) == 1)  # its workers outlive a node by seconds
        (config.study_folder / "word").touch()

    heard = AtTwo(threading.Thread(target=lose_a_node).start)
    summary = run_study(config, [heard], workers=2, launch=cluster.launch(1))
    assert (summary.state, summary.counts["complete"], summary.counts["running"]) == ("finished", 5, 0)
    chains = [[link["why"] for link in record.chain] for record in load_history(config)]
    assert sorted(chains) == [[]] * 4 + [["crash", "no node has room for its engine"]]
    wait_for(lambda: not engines(config.study_folder))


def test_nothing_answers_at_the_address() -> None:
    with pytest.raises(UserError, match=r"must be the address of a running cluster, but got 'nowhere'"):
        RayCluster("nowhere")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (f"{__version__} mark", None),
        (f"{__version__} another", "must lie on a file system that all nodes share"),
        (None, "must lie on a file system that all nodes share"),
    ],
)
def test_a_node_that_sees_another_folder_says_so(tmp_path: Path, monkeypatch, there, said) -> None:
    monkeypatch.setattr(launcher_ray, "MARKER_SECONDS", 0.3)
    if there is not None:
        (tmp_path / MARKER).write_text(there)
    found = not_as_here(tmp_path, f"{__version__} mark")
    assert (found is None) if said is None else (said in found and str(tmp_path) in found)


@pytest.mark.parametrize(
    ("nodes", "ranks", "expected"),
    [
        ([{"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 3}], 1, ({"num_cpus": 1, "num_gpus": 1}, 7)),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 3}, {"CPU": 64}], 2, ({"num_cpus": 1, "num_gpus": 2}, 3)),
        ([{"CPU": 8}, {"CPU": 16}, {}], 2, ({"num_cpus": 8, "scheduling_strategy": "SPREAD"}, 2)),
    ],
)
def test_an_engine_a_gpu_or_a_node(nodes, ranks, expected) -> None:
    assert engine_resources(nodes, ranks) == expected


@pytest.mark.parametrize(("nodes", "said"), [([{"GPU": 1}], "at most the GPUs of one node"), ([{}], "GPUs or CPUs")])
def test_a_cluster_without_room_for_an_engine_is_refused(nodes, said) -> None:
    with pytest.raises(UserError, match=said):
        engine_resources(nodes, 2)
