"""SQLite without a thread of its own: the same database and statements, and every moment between two is in our hands.

A URL that begins with `sqlite+inline:///` opens it. It is several times as fast as the driver that servers use, which
asks another thread for every statement; and since nothing happens behind our back, a run can be repeated.
"""

import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, AsyncAdaptedQueuePool, Pool, create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import await_only
from sqlmodel import SQLModel

from kit.db import Database

CONNECTIONS = 20


async def _go_on(_what: str) -> None:
    """Between two statements nothing happens."""


Turn = Callable[[str], Awaitable[None]]
_turn: list[Turn] = [_go_on]


def between_statements(turn: Turn | None) -> None:
    """What to await before every statement and commit, and after every commit; it is told what comes next."""
    _turn[0] = turn or _go_on


class _Cursor(sqlite3.Cursor):
    async def _async_soft_close(self) -> None:
        """What SQLAlchemy asks of the cursors of asynchronous drivers."""


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


class InlineSqlite(SQLiteDialect_pysqlite):
    """Waits for nobody, unless it is told to."""

    driver = "inline"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return AsyncAdaptedQueuePool

    def connect(self, *arguments: Any, **options: Any) -> Any:
        return super().connect(*arguments, factory=_Connection, **options)

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        await_only(_turn[0](statement))
        cursor.execute(statement, parameters)

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        await_only(_turn[0](statement))
        cursor.executemany(statement, parameters)

    def do_commit(self, dbapi_connection: Any) -> None:
        await_only(_turn[0]("COMMIT"))
        dbapi_connection.commit()
        await_only(_turn[0]("committed"))


registry.register("sqlite.inline", __name__, InlineSqlite.__name__)


def make_template(path: Path) -> Path:
    """A file with every table that is imported."""
    engine = create_engine(f"sqlite:///{path}")
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    return path


def open_inline(path: Path, template: Path) -> Database:
    """A copy of a template at `path`, open."""
    shutil.copyfile(template, path)
    database = Database(f"sqlite+inline:///{path}", CONNECTIONS)
    event.listen(database.engine.sync_engine, "connect", _in_a_hurry)
    return database


def _in_a_hurry(connection: sqlite3.Connection, _record: object) -> None:
    # Nothing here has to survive a power cut.
    connection.execute("PRAGMA synchronous=OFF")
