"""Database sessions: one schema on SQLite and PostgreSQL, transactions that the request scope ends.

Domain code receives an open session and never commits; whoever opened the session does, once, at its end.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import DateTime, Dialect, Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.types import TypeDecorator
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

Session = AsyncSession

SQLITE_BUSY_TIMEOUT_MS = 10_000
POSTGRES_STATEMENT_TIMEOUT_MS = 15_000
POSTGRES_LOCK_TIMEOUT_MS = 10_000
COPIED_AT_ONCE_LINES = 100
POSTGRES_OPTIONS = (
    f"-c statement_timeout={POSTGRES_STATEMENT_TIMEOUT_MS} -c lock_timeout={POSTGRES_LOCK_TIMEOUT_MS} -c timezone=UTC"
)
"""Of every connection."""

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime on every database; SQLite would otherwise give it back without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored moment must be aware")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def driver_url(url: str) -> str:
    """The database URL with the asynchronous driver that this project uses."""
    return url.replace("sqlite:///", "sqlite+aiosqlite:///", 1).replace("postgresql://", "postgresql+psycopg://", 1)


class Database:
    """The engine, and the two ways to open a session on it."""

    def __init__(self, url: str, connections: int = 10) -> None:
        self.engine = _engine(url, connections)
        # SQLite has one writer at a time. Queueing for it here is fair; its own busy handler sleeps and polls.
        self._one_writer = asyncio.Lock() if self.engine.dialect.name == "sqlite" else contextlib.nullcontext()
        self._writing = self.engine.execution_options(fanxing_writes=True)
        self._snapshots = self.engine.dialect.name == "postgresql"
        # SQLite shows a transaction one state anyway; PostgreSQL must be asked.
        snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True} if self._snapshots else {}
        self._reading = self.engine.execution_options(**snapshot)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[Session]:
        """A transaction that commits at the end, or leaves nothing behind when an error passes through."""
        async with (
            self._one_writer,
            AsyncSession(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Session]:
        """A session that sees one state of the database and changes nothing."""
        async with AsyncSession(self._reading, expire_on_commit=False) as session:
            yield session
            if self._snapshots:
                # Nothing was written, yet a ROLLBACK would make psycopg forget every statement that it has prepared.
                await session.commit()

    async def ping(self) -> None:
        """Ask the database for an answer. Raises what SQLAlchemy raises when there is none."""
        async with self.reading() as session:
            await (await session.connection()).execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def _engine(url: str, connections: int) -> AsyncEngine:
    if url.startswith("sqlite"):
        engine = create_async_engine(driver_url(url), pool_size=connections, max_overflow=0, hide_parameters=True)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        event.listen(engine.sync_engine, "invalidate", _release_sqlite)
        return engine
    engine = create_async_engine(
        driver_url(url),
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,  # statements are logged with errors; what they carry is personal
        connect_args={"options": POSTGRES_OPTIONS, "connect_timeout": 10},
    )
    event.listen(engine.sync_engine, "checkout", _refuse_broken)
    return engine


def look_at(connection: psycopg.pq.abc.PGconn) -> None:
    """Raises psycopg.OperationalError when the server has closed the connection.

    A look at the socket costs no round trip, as SQLAlchemy's own ping does. The first may find the server's farewell,
    the second finds the end.
    """
    for _look in range(2):
        connection.consume_input()


def _refuse_broken(connection: Any, _record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    try:
        look_at(connection.driver_connection.pgconn)
    except psycopg.OperationalError as error:
        raise InvalidatePoolError from error


def _prepare_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    # The driver's own BEGIN is deferred and comes too late; with isolation_level None it leaves transactions to us.
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: an acknowledged claim survives a power cut, not only a crash of this process.
    for pragma in (
        f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",  # what was erased is overwritten, whatever the library was built with
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    for name, (arguments, function) in _sqlite_functions.items():
        connection.create_function(name, arguments, function, deterministic=True)


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns to writing later fails at once when another wrote meanwhile, so writers say so
    # at the start.
    immediate = connection.get_execution_options().get("fanxing_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


_sqlite_functions: dict[str, tuple[int, Callable[..., Any]]] = {}


def register_sqlite_function(name: str, arguments: int, function: Callable[..., Any]) -> None:
    """Give every SQLite connection opened from now on a deterministic SQL function.

    PostgreSQL keeps its functions in the database, where migrations make them.
    """
    _sqlite_functions[name] = (arguments, function)


def _release_sqlite(connection: Any, _record: ConnectionPoolEntry, _error: BaseException | None) -> None:
    # A cancelled task's connection is closed, but SQLite keeps a closed connection and its lock on the whole file alive
    # while anything, such as a traceback, still refers to an unfinished SELECT on it.
    connection.rollback()


def table_of(model: type[SQLModel]) -> Table:
    """The table behind a model, for statements on the hot path, where whole objects would cost too much."""
    table: Table = model.__table__  # type: ignore[attr-defined]  # SQLModel adds it to table models at run time
    return table


def is_postgresql(session: Session) -> bool:
    """Whether the session works on PostgreSQL, and not on SQLite."""
    return session.get_bind().dialect.name == "postgresql"


async def driver_connection(session: Session) -> psycopg.AsyncConnection[object]:
    """The driver's connection under a session on PostgreSQL, for what SQLAlchemy has no words for."""
    connection = (await (await session.connection()).get_raw_connection()).driver_connection
    assert isinstance(connection, psycopg.AsyncConnection)
    return connection


async def copy_lines(session: Session, table: Table, lines: Iterable[str]) -> None:
    """Write rows with all columns of a table by PostgreSQL's COPY, a tenth of the cost of INSERT.

    A line is a row in COPY's text format (PostgreSQL manual, COPY, "Text Format"), without its end. They are asked for
    while the database takes in those before.
    """
    into = f"COPY {table.name} ({', '.join(column.name for column in table.columns)}) FROM STDIN"
    async with (await driver_connection(session)).cursor() as cursor, cursor.copy(into) as copy:
        rest = iter(lines)
        while some := list(itertools.islice(rest, COPIED_AT_ONCE_LINES)):
            await copy.write("\n".join([*some, ""]))


def insert(session: Session, model: type[SQLModel]) -> postgresql.Insert | sqlite.Insert:
    """INSERT with ON CONFLICT, which both databases have and SQLAlchemy keeps in their dialects."""
    return insert_into(model, on_postgresql=is_postgresql(session))


def insert_into(model: type[SQLModel], *, on_postgresql: bool) -> postgresql.Insert | sqlite.Insert:
    """The same for a statement that is built once and kept."""
    return postgresql.insert(table_of(model)) if on_postgresql else sqlite.insert(table_of(model))
