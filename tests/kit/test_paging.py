"""Pages by keys: every row once, in one order, whatever comes meanwhile."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import col, select

from kit import paging
from kit.db import Database, Session
from kit.outbox import OutboxMessage
from kit.paging import Position

NOW = datetime(2026, 5, 1, 8, 0, 0, 123_456, tzinfo=UTC)


def message(number: int, at: datetime) -> OutboxMessage:
    return OutboxMessage(
        item_key=number, message_id=uuid.UUID(int=number * 7919 % 101), topic="t", payload={}, due_at=at
    )


async def page(session: Session, after: Position | None, count: int) -> list[Position]:
    asked = paging.newest_first(
        select(OutboxMessage.due_at, OutboxMessage.message_id),
        col(OutboxMessage.due_at),
        col(OutboxMessage.message_id),
        after,
        count,
    )
    return [Position(at, row_id) for at, row_id in (await session.exec(asked)).all()]


@pytest.mark.parametrize("count", [1, 3, 10, 11])
async def test_pages_hold_every_row_once_and_ties_fall_apart_by_id(database: Database, count: int) -> None:
    async with database.writing() as session:
        session.add_all([message(number, NOW + timedelta(microseconds=number // 4)) for number in range(10)])
    read: list[Position] = []
    async with database.reading() as session:
        everything = await page(session, None, 100)
        while found := await page(session, read[-1] if read else None, count):
            read += found
    assert read == everything == sorted(everything, reverse=True)
    assert len(set(read)) == 10


async def test_rows_that_come_meanwhile_neither_repeat_nor_hide_others(database: Database) -> None:
    async with database.writing() as session:
        session.add_all([message(number, NOW + timedelta(seconds=number)) for number in range(4)])
    async with database.reading() as session:
        first = await page(session, None, 2)
    async with database.writing() as session:
        session.add(message(9, NOW + timedelta(hours=1)))
    async with database.reading() as session:
        second = await page(session, first[-1], 10)
    assert [position.at for position in first + second] == [NOW + timedelta(seconds=number) for number in (3, 2, 1, 0)]
