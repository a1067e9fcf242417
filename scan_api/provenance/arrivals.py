"""Arrivals: which events came together, in the order in which they were there for everybody to see.

`record_time` is set before the transaction of a capture commits, so whoever goes on from the last record time that he
saw may step over an event that was on its way. So each batch of events leaves an arrival in its own transaction, with
no position; `place` gives positions to arrivals that have committed, one caller at a time. Whoever sees a position
sees all before it, on any database, whatever the clocks of the servers say, and after a restored backup as well.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, bindparam, func, text, update
from sqlmodel import Field, SQLModel, col, select

from kit import locks
from kit.db import Database, Moment, Session, table_of
from kit.ids import new_id

PLACED_AT_ONCE_MAX: Final = 1_000
_KEY_BYTES: Final = 16
_LOCK: Final = locks.key_of("event arrivals", "")


class EventArrival(SQLModel, table=True):
    """A batch of events of one brand that were kept together."""

    __tablename__: ClassVar[str] = "event_arrival"
    __table_args__ = (
        Index("ix_event_arrival_brand_id_position", "brand_id", "position"),
        Index("uq_event_arrival_position", "position", unique=True),
        Index(
            "ix_event_arrival_unplaced",
            "arrival_id",
            postgresql_where=text("position IS NULL"),
            sqlite_where=text("position IS NULL"),
        ),
    )

    arrival_id: uuid.UUID = Field(primary_key=True)
    brand_id: int
    position: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    """1.. among all arrivals, without gaps; None: nobody has placed it yet."""
    recorded_at: datetime = Field(sa_type=Moment)
    """The record time of its events."""
    event_keys: bytes = Field(sa_type=LargeBinary)
    """16 bytes each."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What arrived at a position."""

    position: int
    recorded_at: datetime
    event_keys: Sequence[uuid.UUID]


async def note(session: Session, brand_id: int, keys: Sequence[uuid.UUID], recorded_at: datetime) -> None:
    """Leave an arrival of events, in the transaction that keeps them."""
    if keys:
        row = {
            "arrival_id": new_id(),
            "brand_id": brand_id,
            "recorded_at": recorded_at,
            "event_keys": b"".join([key.bytes for key in keys]),
        }
        await (await session.connection()).execute(table_of(EventArrival).insert(), row)


async def place(database: Database) -> bool:
    """Give positions to arrivals that have committed, up to 1,000. Whether there were so many."""
    unplaced = (
        select(EventArrival.arrival_id)
        .where(col(EventArrival.position).is_(None))
        .order_by(col(EventArrival.arrival_id))
        .limit(PLACED_AT_ONCE_MAX)
    )
    async with database.reading() as session:
        if not (await session.exec(unplaced.limit(1))).all():
            return False
    async with database.writing() as session:
        await locks.change(session, _LOCK)
        ids = (await session.exec(unplaced)).all()
        first = await last_position(session) + 1
        table = table_of(EventArrival)
        placing = update(table).where(table.c.arrival_id == bindparam("id")).values(position=bindparam("at"))
        if ids:
            rows = [{"id": arrival_id, "at": at} for at, arrival_id in enumerate(ids, first)]
            await (await session.connection()).execute(placing, rows)
    return len(ids) == PLACED_AT_ONCE_MAX


async def last_position(session: Session) -> int:
    """The position of the last arrival; 0: there is none."""
    return (await session.exec(select(func.max(col(EventArrival.position))))).one() or 0


async def since(session: Session, brand_id: int, position: int, count: int) -> list[Arrival]:
    """The next arrivals of a brand behind a position, at most `count`."""
    return [found for _brand_id, found in await of_brands(session, [brand_id], position, count)]


async def of_brands(
    session: Session, brand_ids: Collection[int], position: int, count: int
) -> list[tuple[int, Arrival]]:
    """The next arrivals of these brands behind a position, at most `count`, each with its brand."""
    rows = await session.exec(
        select(EventArrival)
        .where(col(EventArrival.brand_id).in_(brand_ids), col(EventArrival.position) > position)
        .order_by(col(EventArrival.position))
        .limit(count)
    )
    return [(row.brand_id, Arrival(row.position or 0, row.recorded_at, _keys(row.event_keys))) for row in rows]


def _keys(joined: bytes) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=joined[start : start + _KEY_BYTES]) for start in range(0, len(joined), _KEY_BYTES)]
