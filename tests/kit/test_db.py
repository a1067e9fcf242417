"""Sessions: all or nothing, one state for a reader, and no lock left behind by a task that was cancelled."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar

import pytest
from sqlalchemy import MetaData, event
from sqlalchemy.exc import DBAPIError, StatementError
from sqlmodel import Field, SQLModel, func, select

from kit.db import Database, Moment, driver_url, insert


class KitNote(SQLModel, table=True):
    """A table of these tests alone: in its own metadata, so that nobody takes it for one of the product's."""

    metadata: ClassVar[MetaData] = MetaData()
    __tablename__: ClassVar[str] = "test_kit_note"

    note_id: uuid.UUID = Field(primary_key=True)
    at: datetime = Field(sa_type=Moment)


@pytest.fixture
async def database(database: Database) -> AsyncIterator[Database]:
    async with database.engine.execution_options(fanxing_writes=True).begin() as connection:
        await connection.run_sync(KitNote.metadata.create_all)
    yield database
    async with database.engine.execution_options(fanxing_writes=True).begin() as connection:
        await connection.run_sync(KitNote.metadata.drop_all)


NOON = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


def note(at: datetime = NOON) -> KitNote:
    return KitNote(note_id=uuid.uuid4(), at=at)


async def count(database: Database) -> int:
    async with database.reading() as session:
        return (await session.exec(select(func.count()).select_from(KitNote))).one()


async def test_a_transaction_commits_at_its_end(database: Database) -> None:
    async with database.writing() as session:
        session.add(note())
    assert await count(database) == 1


async def test_an_error_leaves_nothing_behind(database: Database) -> None:
    async def fail() -> None:
        async with database.writing() as session:
            session.add(note())
            await session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await count(database) == 0


async def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    async with database.reading() as session:
        before = (await session.exec(select(func.count()).select_from(KitNote))).one()
        async with database.writing() as other:
            other.add(note())
        after = (await session.exec(select(func.count()).select_from(KitNote))).one()
    assert (before, after) == (0, 0)
    assert await count(database) == 1


async def test_many_writers_at_once_all_succeed(database: Database) -> None:
    async def write() -> None:
        async with database.writing() as session:
            await session.exec(select(KitNote))
            session.add(note())

    await asyncio.gather(*(write() for _ in range(50)))
    assert await count(database) == 50


async def test_a_moment_comes_back_aware_and_in_utc(database: Database) -> None:
    beijing = timezone(timedelta(hours=8))
    written = note(NOON.astimezone(beijing))
    async with database.writing() as session:
        session.add(written)
    async with database.reading() as session:
        found = (await session.exec(select(KitNote.at))).one()
    assert found == NOON
    assert found.tzinfo is UTC


async def test_a_naive_moment_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="aware"):
        async with database.writing() as session:
            session.add(note(NOON.replace(tzinfo=None)))


async def test_moments_compare_in_the_database_as_in_time(database: Database) -> None:
    moments = [NOON, NOON.replace(microsecond=0), NOON + timedelta(microseconds=1), NOON - timedelta(days=200)]
    async with database.writing() as session:
        session.add_all([note(at) for at in moments])
    async with database.reading() as session:
        found = list(await session.exec(select(KitNote.at).order_by(KitNote.at)))  # type: ignore[arg-type]
    assert found == sorted(moments)


async def test_an_insert_may_find_its_row_taken(database: Database) -> None:
    values = {"note_id": uuid.uuid4(), "at": NOON}
    async with database.writing() as session:
        await session.exec(insert(session, KitNote).values(values))
        again = await session.exec(
            insert(session, KitNote).values(values).on_conflict_do_nothing().returning(KitNote.note_id)  # type: ignore[call-overload]
        )
        assert again.first() is None


@pytest.mark.parametrize("statement", range(1, 5))
async def test_a_task_cancelled_at_any_statement_leaves_no_lock(database: Database, statement: int) -> None:
    async with database.writing() as session:
        session.add_all([note() for _ in range(3)])

    async def work() -> None:
        async with database.writing() as session:
            (await session.exec(select(KitNote))).all()
            session.add(note())
            await session.flush()
            (await session.exec(select(KitNote))).all()

    left, victim = 0, None

    def strike(*_anything: object) -> None:
        nonlocal left
        left -= 1
        if left == 0 and victim is not None:
            victim.cancel()

    event.listen(database.engine.sync_engine, "before_cursor_execute", strike)
    victim, left = asyncio.create_task(work()), statement
    await asyncio.wait([victim])
    event.remove(database.engine.sync_engine, "before_cursor_execute", strike)
    # The cancelled task is still referred to here, and with it everything on its stack.
    async with database.writing() as session:
        session.add(note())
    assert await count(database) == (5 if not victim.cancelled() else 4)


async def test_postgresql_gives_up_on_a_statement_that_takes_too_long(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has no statement time-out")
    database = Database(database_url, 1)
    async with database.reading() as session:
        shown = await (await session.connection()).exec_driver_sql("SHOW statement_timeout")
        assert shown.scalar_one() == "15s"
        shown = await (await session.connection()).exec_driver_sql("SHOW lock_timeout")
        assert shown.scalar_one() == "10s"
    await database.close()


async def test_sqlite_is_durable_and_checks_foreign_keys(database_url: str) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("about SQLite's own settings")
    database = Database(database_url, 1)
    async with database.reading() as session:
        connection = await session.connection()
        settings = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    await database.close()


async def test_a_database_that_is_not_there_is_an_error() -> None:
    database = Database("postgresql://127.0.0.1:1/nothing")
    with pytest.raises(DBAPIError):
        async with database.reading() as session:
            await session.exec(select(KitNote))
    await database.close()


@pytest.mark.parametrize(
    ("url", "driven"),
    [
        ("sqlite:////tmp/a.db", "sqlite+aiosqlite:////tmp/a.db"),
        ("postgresql://u:p@h/d?x=postgresql://y", "postgresql+psycopg://u:p@h/d?x=postgresql://y"),
    ],
)
def test_a_url_gets_the_asynchronous_driver(url: str, driven: str) -> None:
    assert driver_url(url) == driven
