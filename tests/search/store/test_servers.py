"""Studies on a real PostgreSQL and a real MariaDB: claims are kept apart, outages waited out, long texts kept whole."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import mariadb
import optuna
import postgres
import pytest
import sqlalchemy
from optuna.trial import TrialState
from scripted_study import TESTS, Recorder, scripted
from small_study import small_config

from qtarget.search.loop.supervisor import run_study
from qtarget.search.store import patience
from qtarget.search.store.history import load_history
from qtarget.search.store.queue import Queue, Verdict
from qtarget.search.store.server import with_driver
from qtarget.search.store.storage import open_storage
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study, write_folder
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow

Server = mariadb.Server | postgres.Server
HOLD = (
    "import sys, time; from qtarget.search.store.storage import open_storage\n"
    "storage = open_storage(sys.argv[1], 'small'); print('open', flush=True)\n"
    "with storage.lock(): print('held', flush=True); time.sleep(600)"
)
MAIN = (
    "import sys; from pathlib import Path; from scripted_study import scripted\n"
    "from qtarget.search.study.config_file import read_folder; from qtarget.search.loop.supervisor import run_study\n"
    "run_study(read_folder(Path(sys.argv[1])), launch=scripted)"
)
JOIN = (
    "import sys; from pathlib import Path; from scripted_study import scripted\n"
    "from qtarget.search.loop.supervisor import join_study\n"
    "join_study(sys.argv[1], 'small', base=Path(sys.argv[2]), launch=scripted)"
)


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "postgresql":
        if postgres.server_binaries() is None:
            pytest.skip("no PostgreSQL server is installed (Debian: postgresql)")
        with postgres.postgres_server() as found:
            yield found
    else:
        if mariadb.server_program() is None:
            pytest.skip(mariadb.MISSING)
        with mariadb.mariadb_server() as found:
            yield found


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """The server's database, without studies."""
    yield server.url
    with closing(open_storage(server.url)) as storage:
        for study in storage.backend.get_all_studies():
            storage.backend.delete_study(study._study_id)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.1)


@pytest.fixture
def queue(url: str) -> Iterator[Queue]:
    """Three slots."""
    with closing(open_storage(url, "small")) as storage:
        optuna.create_study(study_name="small", storage=storage.backend, direction="maximize")
        found = Queue(parse_study(small_config()), storage)
        found.fill([], 3)
        yield found


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts interpreters that do not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-c", code, *arguments]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_lock_excludes_others_and_dies_with_its_holder(url: str, python) -> None:
    holder = python(HOLD, url)
    assert [holder.stdout.readline() for _ in range(2)] == ["open\n", "held\n"]
    other = python(HOLD, url)
    assert other.stdout.readline() == "open\n"
    assert select.select([other.stdout], [], [], 0.5)[0] == [], "two processes hold the lock"
    holder.kill()
    assert other.stdout.readline() == "held\n"


def test_joiners_share_the_work_and_the_death_of_one_loses_nothing(url, python, scripted_study, tmp_path) -> None:
    search = {**small_config()["search"], "trials": 14, "pruner": "none"}
    config: StudyConfig = scripted_study({"seconds": 0.3}, storage=url, search=search)
    write_folder(config)
    main = python(MAIN, str(config.study_folder))
    wait_for_trials(config, 1)
    joiners = [python(JOIN, url, str(copy_of(config, tmp_path / name))) for name in ("a", "b")]
    wait_for_trials(config, 5)
    joiners[0].send_signal(signal.SIGKILL)
    assert main.wait(200) == 0 and joiners[1].wait(200) == 0
    records = load_history(config)
    assert [record.state for record in records] == ["complete"] * 14
    assert all(record.attempts == 1 or record.chain[0]["why"] == "supervisor lost" for record in records)


def copy_of(config: StudyConfig, base: Path) -> Path:
    """Another host's place for the study's files."""
    folder = base / "runs" / config.study
    folder.mkdir(parents=True)
    (folder / "script.json").write_bytes((config.study_folder / "script.json").read_bytes())
    return base


def wait_for_trials(config: StudyConfig, finished: int) -> None:
    """Until the study exists and so many of its trials are finished."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        try:
            if sum(record.finished for record in load_history(config)) >= finished:
                return
        except ValueError:
            pass  # not created yet
        time.sleep(0.1)
    raise AssertionError("the study does not get on")


def test_a_server_that_restarts_loses_nothing(server: Server, queue: Queue, quick: None) -> None:
    first = queue.claim()
    server.stop()
    threading.Timer(0.5, server.start).start()
    assert first is not None
    queue.finish(first, Verdict(TrialState.COMPLETE, 0.5))  # waits for the server
    with queue._storage.lock():  # held by a connection that will be gone
        server.stop()
        server.start()
    for _ in range(2):
        claim = queue.claim()
        assert claim is not None
        queue.finish(claim, Verdict(TrialState.COMPLETE, 0.5))
    assert queue.counts()["complete"] == 3 and queue.claim() is None


def test_an_engine_stops_while_its_lease_cannot_be_renewed(
    server: Server, url: str, quick: None, scripted_study
) -> None:
    """Another host, which may still reach the database, takes its trial over soon: two would write one folder."""
    search = {**small_config()["search"], "trials": 1, "pruner": "none"}
    limits = {**small_config()["limits"], "lease_seconds": 1.0}
    config = scripted_study({"0": ["wait", "finish"]}, storage=url, search=search, limits=limits)

    class Outage(Recorder):
        def on_event(self, event: object) -> None:
            super().on_event(event)
            if type(event).__name__ == "StepDone" and len(self.of("StepDone")) == 1:
                server.stop()
                threading.Timer(2.0, server.start).start()

    heard = Outage()
    assert run_study(config, [heard], launch=scripted).counts["complete"] == 1
    assert [event.state for event in heard.of("TrialEnded")] == ["interrupted", "complete"]


def test_what_a_server_refuses_for_good_is_told_and_not_waited_for(url: str, queue: Queue) -> None:
    claim = queue.claim()
    assert claim is not None
    execute(url, "ALTER TABLE trial_user_attributes RENAME TO elsewhere")
    try:
        with pytest.raises(UserError, match="`storage` must take what a study writes, but the database refuses it"):
            queue.note(claim, seconds=1.0)
    finally:
        execute(url, "ALTER TABLE elsewhere RENAME TO trial_user_attributes")


def execute(url: str, statement: str) -> None:
    engine = sqlalchemy.create_engine(with_driver(url))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement))
    engine.dispose()


@pytest.mark.parametrize(
    "change",
    [
        ("me:secret@", "me:p@ss/w#rd %?@"),
        ("me:secret@", "other:secret@"),
        ("/studies", "/none"),
        ("/postgres", "/none"),
    ],
)
def test_what_cannot_be_opened_is_told_at_once_without_the_password(url: str, change: tuple[str, str]) -> None:
    if change[0] not in url or ("postgres" in url and "secret" in change[0]):
        pytest.skip("PostgreSQL trusts everybody here")
    with pytest.raises(UserError, match="`storage` must be a database URL that can be opened") as raised:
        open_storage(url.replace(*change))
    assert not any(part in str(raised.value) for part in ("secret", "p@ss", "w#rd", "p%40ss", "ss/w"))


def test_texts_of_any_length_and_names_that_differ_by_case(url: str) -> None:
    with closing(open_storage(url)) as storage:
        studies = [
            optuna.create_study(study_name=name, storage=storage.backend) for name in ("night", "Night", "nïght")
        ]
        for number, study in enumerate(studies):
            study.set_user_attr("prior", {"trials": [number] * 100_000})
            study.enqueue_trial({}, user_attrs={"failure": "γ" * 100_000})
    with closing(open_storage(url)) as storage:  # a second time: nothing is left to change
        for number, name in enumerate(("night", "Night", "nïght")):
            study = optuna.load_study(study_name=name, storage=storage.backend)
            assert study.user_attrs["prior"]["trials"] == [number] * 100_000
            assert study.trials[0].user_attrs["failure"] == "γ" * 100_000
