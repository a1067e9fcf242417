"""The outbox: nothing is given out before its transaction commits, or to two workers, or once it is done."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from kit import outbox
from kit.db import Database
from kit.outbox import FAILURES_MAX, Backlog, OutboxMessage

NOW = datetime(2026, 5, 1, tzinfo=UTC)
LEASE = timedelta(minutes=5)
A_MOMENT = timedelta(microseconds=1)
A_LETTER = uuid.UUID(int=5)


async def put(database: Database, *item_keys: int, topic: str = "post", now: datetime = NOW) -> None:
    async with database.writing() as session:
        for item_key in item_keys:
            outbox.put(session, topic, item_key, {"letter": item_key}, now)


async def lease(database: Database, now: datetime = NOW, count: int = 10, topic: str = "post") -> list[OutboxMessage]:
    async with database.writing() as session:
        return await outbox.lease(session, topic, now, count, LEASE)


async def test_work_is_given_out_once_while_its_lease_runs(database: Database) -> None:
    await put(database, 2**63 - 1)
    [message] = await lease(database)
    assert (message.item_key, message.payload, message.attempts) == (2**63 - 1, {"letter": 2**63 - 1}, 1)
    assert await lease(database, NOW + LEASE - A_MOMENT) == []
    [again] = await lease(database, NOW + LEASE)
    assert (again.message_id, again.attempts) == (message.message_id, 2)


async def test_work_is_not_given_out_before_it_is_due(database: Database) -> None:
    await put(database, 1)
    assert await lease(database, NOW - A_MOMENT) == []
    assert len(await lease(database, NOW)) == 1


async def test_work_that_is_done_is_not_given_out_again(database: Database) -> None:
    await put(database, 1, 2)
    [first, _] = await lease(database)
    async with database.writing() as session:
        await outbox.finish(session, first, NOW)
    left = await lease(database, NOW + 2 * LEASE)
    assert first.message_id not in {message.message_id for message in left}
    assert len(left) == 1


async def test_postponed_work_waits_and_says_why(database: Database) -> None:
    await put(database, 1)
    [message] = await lease(database)
    async with database.writing() as session:
        await outbox.postpone(session, message, NOW + 2 * LEASE, "x" * 300)
    assert await lease(database, NOW + 2 * LEASE - A_MOMENT) == []
    [again] = await lease(database, NOW + 2 * LEASE)
    assert again.last_error == "x" * 200


async def test_work_of_a_transaction_that_failed_never_was(database: Database) -> None:
    async def fail() -> None:
        async with database.writing() as session:
            outbox.put(session, "post", 1, {}, NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await lease(database) == []


async def test_the_longest_due_comes_first_and_no_more_than_asked_for(database: Database) -> None:
    for hours in (3, 1, 2):
        await put(database, hours, now=NOW - timedelta(hours=hours))
    assert {message.item_key for message in await lease(database, count=2)} == {3, 2}
    assert [message.item_key for message in await lease(database, count=2)] == [1]


async def test_topics_are_separate(database: Database) -> None:
    await put(database, 1, topic="post")
    assert await lease(database, topic="telegram") == []
    assert len(await lease(database)) == 1


async def test_ten_workers_at_once_share_the_work_without_overlap(database: Database) -> None:
    await put(database, *range(30))
    batches = await asyncio.gather(*(lease(database, count=5) for _ in range(10)))
    given = [message.message_id for batch in batches for message in batch]
    assert len(given) == len(set(given))
    rest = await lease(database, count=100)
    assert len(given) + len(rest) == 30


async def test_work_of_one_item_may_be_left_twice(database: Database) -> None:
    await put(database, 1, 1)
    assert len(await lease(database)) == 2
    async with database.reading() as session:
        assert len((await session.exec(select(OutboxMessage))).all()) == 2


async def test_a_message_is_found_again_under_the_id_that_it_was_given(database: Database) -> None:
    async with database.writing() as session:
        outbox.put(session, "post", 1, {}, NOW, message_id=A_LETTER)
    [message] = await lease(database)
    assert message.message_id == A_LETTER
    async with database.writing() as session:
        await outbox.close(session, 1, A_LETTER, NOW)
        assert not await outbox.wake(session, 1, A_LETTER, NOW)
    assert await lease(database, NOW + LEASE) == []


async def test_whoever_lost_his_lease_changes_nothing(database: Database) -> None:
    await put(database, 1)
    [stale] = await lease(database)
    [message] = await lease(database, NOW + LEASE)
    async with database.writing() as session:
        await outbox.postpone(session, stale, NOW, "late")
        await outbox.finish(session, stale, NOW)
        assert not await outbox.fail(session, stale, NOW, "late", NOW)
    assert await lease(database, NOW + 2 * LEASE - A_MOMENT) == []
    async with database.writing() as session:
        await outbox.finish(session, message, NOW + LEASE)
    assert await lease(database, NOW + 2 * LEASE) == []


async def test_a_message_that_breaks_its_worker_ten_times_in_a_row_is_set_aside(database: Database) -> None:
    async with database.writing() as session:
        outbox.put(session, "post", 1, {}, NOW, message_id=A_LETTER)
    for number in range(1, 2 * FAILURES_MAX):
        [message] = await lease(database)
        async with database.writing() as session:
            if number == FAILURES_MAX - 1:  # once it went well: the count begins anew
                await outbox.postpone(session, message, NOW, "not yet")
                continue
            last = await outbox.fail(session, message, NOW, "KeyError", NOW)
        assert last == (number == 2 * FAILURES_MAX - 1)
    assert await lease(database, NOW + LEASE) == []
    async with database.reading() as session:
        assert await outbox.backlogs(session, NOW) == {"post": Backlog(due=0, late_s=0.0, set_aside=1)}
    async with database.writing() as session:
        assert await outbox.wake(session, 1, A_LETTER, NOW)
    [message] = await lease(database)
    assert message.failures == 0


async def test_a_message_is_handed_to_another_topic(database: Database) -> None:
    await put(database, 1)
    [message] = await lease(database)
    async with database.writing() as session:
        await outbox.redirect(session, message, "telegram", NOW)
    assert await lease(database, NOW + LEASE) == []
    assert len(await lease(database, topic="telegram")) == 1


async def test_a_backlog_counts_what_is_due_and_how_late_it_is(database: Database) -> None:
    await put(database, 1, now=NOW - LEASE)
    await put(database, 2, now=NOW)
    await put(database, 3, now=NOW + LEASE)
    await put(database, 4, topic="telegram", now=NOW + LEASE)
    async with database.reading() as session:
        assert await outbox.backlogs(session, NOW) == {
            "post": Backlog(due=2, late_s=LEASE.total_seconds(), set_aside=0),
            "telegram": Backlog(due=0, late_s=0.0, set_aside=0),
        }


def test_keys_of_ids_are_63_bits() -> None:
    assert outbox.key_of(uuid.UUID(int=2**128 - 1)) == 2**63 - 1
    assert outbox.key_of(uuid.UUID(int=2**65 - 1)) == 0
    assert outbox.key_of(uuid.UUID(int=2**65)) == 1
