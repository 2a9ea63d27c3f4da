"""A MariaDB server of its own for a test: a free port, a temporary folder, and not as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postgres import free_port

PREPARED = (
    "CREATE DATABASE IF NOT EXISTS studies CHARACTER SET utf8mb4;\n"
    "CREATE USER IF NOT EXISTS me@'127.0.0.1' IDENTIFIED BY 'secret';\n"
    "GRANT ALL ON studies.* TO me@'127.0.0.1';\n"
)
QUICK = ("--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=32M", "--skip-log-bin", "--skip-name-resolve")
MISSING = "no MariaDB server is installed (Debian: mariadb-server)"


def server_program() -> str | None:
    """The server's program, which Debian keeps off a user's path; None when none is installed."""
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Server:
    """A MariaDB server in a folder, with one fresh database, user `me`, password `secret`."""

    def __init__(self, folder: Path) -> None:
        program = server_program()
        assert program is not None
        self._folder, self._port = folder, free_port()
        self._user = ["--user=mysql"] if os.geteuid() == 0 else []
        if self._user:
            shutil.chown(folder, "mysql")
        (folder / "prepared.sql").write_text(PREPARED)
        data = f"--datadir={folder / 'data'}"
        install = ["mariadb-install-db", "--no-defaults", *self._user, data, "--skip-test-db"]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, stdout=subprocess.DEVNULL)
        self._command = [
            program, "--no-defaults", *self._user, data, f"--socket={folder}/s", f"--port={self._port}",
            "--bind-address=127.0.0.1", f"--init-file={folder}/prepared.sql", f"--pid-file={folder}/pid", *QUICK,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"mysql://me:secret@127.0.0.1:{self._port}/studies"

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text(errors="replace")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                return bool(connection.recv(1))
        except OSError:
            return False

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def mariadb_server() -> Iterator[Server]:
    """A server that runs until the end; it may be stopped and started in between."""
    folder = Path(tempfile.mkdtemp(prefix="qtarget-mariadb-"))
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
