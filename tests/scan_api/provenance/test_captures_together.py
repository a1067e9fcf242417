"""Captures at the same time on PostgreSQL: whatever they tell of the same things, they never wait in a circle."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.db import Database, table_of
from scan_api.provenance import capture_jobs, packing
from scan_api.provenance.captures import ErrorBehaviour
from scan_api.provenance.packing import Packing
from tests.scan_api.provenance.test_capture_jobs import Job, body
from tests.scan_api.provenance.test_lots import commissioned, lot_of
from tests.scan_api.provenance.test_packing import BRAND, box, capture, declared, event, item

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
WAIT_S = 10
_WAITING = sa.text("""
    SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
""")
_HELD = sa.text("SELECT * FROM item_lot WHERE thing = :thing FOR UPDATE")


async def _until_waiting(database: Database, count: int) -> None:
    """Till so many sessions wait for a lock."""
    async with asyncio.timeout(WAIT_S), database.engine.connect() as connection:
        while (await connection.execute(_WAITING)).scalar_one() < count:
            await connection.rollback()
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _held(database: Database, number: int) -> AsyncIterator[None]:
    """Somebody else is busy with what is told of an item's lot."""
    async with database.writing() as session:
        await (await session.connection()).execute(_HELD, {"thing": item(number)})
        yield


async def test_lots_that_are_told_and_taken_back_at_the_same_time(database: Database) -> None:
    first, second = (commissioned(10, number, lotNumber="OLD") for number in (1, 2))
    await capture(database, first, second)
    async with _held(database, 1):
        telling = asyncio.create_task(capture(database, commissioned(20, 1, 2, lotNumber="NEW")))
        await _until_waiting(database, 1)
        taking_back = asyncio.create_task(capture(database, declared(second, 30), declared(first, 30)))
        await _until_waiting(database, 2)
    assert [*await asyncio.gather(telling, taking_back)] == [["accepted"], ["accepted"] * 2]
    for number in (1, 2):
        lot = await lot_of(database, number)
        assert lot is not None
        assert lot.lot == "NEW"


async def test_a_lot_that_is_taken_back_while_it_is_told(database: Database) -> None:
    await capture(database, commissioned(10, 1, lotNumber="OLD"))
    wrong = commissioned(20, 1, lotNumber="WRONG")
    async with _held(database, 1):
        telling = asyncio.create_task(capture(database, wrong))
        await _until_waiting(database, 1)
        taking_back = asyncio.create_task(capture(database, declared(wrong, 30)))
        await _until_waiting(database, 2)
    await asyncio.gather(telling, taking_back)
    assert await lot_of(database, 1) is None


async def test_a_document_that_is_kept_as_one_and_a_small_one(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first tells of lots before it packs; the second packs before it takes back what was told."""
    monkeypatch.setattr(capture_jobs, "PART_EVENTS", 1)
    told = commissioned(10, 1, lotNumber="OLD")
    await capture(database, told)
    job = Job(database, tmp_path)
    events = [commissioned(20, 1, lotNumber="NEW"), event("ADD", box(1), [item(1)], 30)]
    await job.begin(body(*events), ErrorBehaviour.ROLLBACK)
    async with _held(database, 1):
        working = asyncio.create_task(job.work())
        await _until_waiting(database, 1)
        small = asyncio.create_task(capture(database, event("ADD", box(1), [item(2)], 30), declared(told, 40)))
        await _until_waiting(database, 2)
    assert (await working, await small) == (True, ["accepted"] * 2)
    assert (await job.shown()).accepted == 2


_FILL = sa.text("""
    INSERT INTO packing (child, brand_id, since, event_key, kind, parent)
    SELECT 'urn:x:' || number, :brand, now(), gen_random_uuid(), 'add', 'urn:x:box:' || number % 1000
    FROM generate_series(1, 200000) AS number
""")


async def test_many_things_are_looked_for_at_once_in_a_table_that_is_read_whole(database: Database) -> None:
    """PostgreSQL reads a table of this size for 20,000 names. To compare each row with each name takes it longer than a
    statement may.
    """
    async with database.writing() as session:
        await (await session.connection()).execute(_FILL, {"brand": BRAND})
        await (await session.connection()).execute(sa.text("ANALYZE packing"))
    names = {f"urn:y:{number}" for number in range(20_000)}
    async with database.reading() as session:
        asked = sa.select(sa.func.count()).where(packing.among(session, table_of(Packing).c.parent, names))
        assert (await (await session.connection()).execute(asked)).scalar_one() == 0


@pytest.mark.parametrize("seed", range(3))
async def test_many_mixed_captures_of_the_same_things_all_come_in(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    told = [commissioned(number, *chance.sample(range(20), 5), lotNumber=f"L{number}") for number in range(12)]
    some = [[item(number) for number in chance.sample(range(20), 4)] for _ in range(12)]
    packed = [event("ADD", box(minute % 3), things, minute) for minute, things in enumerate(some)]
    errors = [declared(one, 60) for one in chance.sample(told + packed, 8)]
    sent = told + packed + errors
    documents = [chance.sample(sent, 6) for _ in range(24)]
    outcomes = await asyncio.gather(*(capture(database, *some) for some in documents))
    assert {outcome for some in outcomes for outcome in some} <= {"accepted", "duplicate"}
