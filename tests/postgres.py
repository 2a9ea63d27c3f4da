"""A PostgreSQL server of its own for a test: a free port, a temporary folder, and not as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def server_binaries() -> Path | None:
    """Folder of `initdb` and `pg_ctl`, which Debian keeps off the path; None when no server is installed."""
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return candidates[-1] if candidates else None


class Server:
    """A PostgreSQL server in a folder, with one fresh database, user `me`, password `secret`."""

    def __init__(self, folder: Path, connections: int = 100) -> None:
        binaries = server_binaries()
        assert binaries is not None
        self._folder, self._binaries, port = folder, binaries, free_port()
        self._user = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(folder, "postgres")
        settings = f"-c listen_addresses=127.0.0.1 -c fsync=off -c max_connections={connections}"
        self._options = f"-p {port} -k {folder} {settings}"
        self.url = f"postgresql://me:secret@127.0.0.1:{port}/postgres"
        self._call("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "me")

    def start(self) -> None:
        self._control("-o", self._options, "-l", str(self._folder / "log"), "start")

    def stop(self) -> None:
        """At once, as a crash would."""
        self._control("-m", "immediate", "stop")

    def _control(self, *command: str) -> None:
        self._call("pg_ctl", "-D", str(self._folder / "data"), "-w", *command)

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._user)  # type: ignore[call-overload]


@contextmanager
def postgres_server(connections: int = 100) -> Iterator[Server]:
    """A server that runs until the end; it may be stopped and started in between."""
    folder = Path(tempfile.mkdtemp(prefix="qtarget-postgres-"))
    server = Server(folder, connections)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a fresh database."""
    with postgres_server() as server:
        yield server.url


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
