"""Work that must happen after a transaction commits, kept in the same transaction until it is done.

Delivery is at least once: whoever does the work makes it idempotent by the message's id. Any number of workers share a
topic: a lease keeps two from doing the same at once, and who lost his lease cannot undo what the next one wrote.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Column, Index, Text, case, func, text, tuple_, type_coerce, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.ids import new_id

FAILURES_MAX = 10
"""So often in a row a message may break its worker; then it is set aside for the operator."""
_LAST_ERROR_CHARACTERS_MAX = 200
_KEY_BITS = 63


class OutboxMessage(SQLModel, table=True):
    """One piece of work left to do. Its payload names rows by id and holds no personal data."""

    __tablename__: ClassVar[str] = "outbox"
    __table_args__ = (
        Index("ix_outbox_due", "topic", "due_at", postgresql_where=text("done_at IS NULL AND set_aside_at IS NULL")),
    )

    item_key: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    """The distribution key: the item that the work is about, or `key_of` some other id."""
    message_id: uuid.UUID = Field(primary_key=True)
    topic: str = Field(sa_type=Text)
    payload: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    attempts: int = 0
    """How often it was given out. Also the lease's number: what a worker writes counts only while it is the last."""
    failures: int = 0
    """How often in a row the worker broke on it."""
    due_at: datetime = Field(sa_type=Moment)
    done_at: datetime | None = Field(default=None, sa_type=Moment)
    set_aside_at: datetime | None = Field(default=None, sa_type=Moment)
    last_error: str | None = Field(default=None, sa_type=Text)


@dataclass(frozen=True)
class Backlog:
    """What waits in one topic: messages whose time has come, how late the latest is, and what was set aside."""

    due: int
    late_s: float
    set_aside: int


def key_of(identifier: uuid.UUID) -> int:
    """The distribution key of work that is about no item: the id's first 63 bits, 0..2**63 - 1."""
    return identifier.int >> (128 - _KEY_BITS)


def put(
    session: Session,
    topic: str,
    item_key: int,
    payload: dict[str, Any],
    now: datetime,
    message_id: uuid.UUID | None = None,
) -> None:
    """Leave work behind, to be seen when the transaction commits. `message_id` where somebody must find it again."""
    session.add(
        OutboxMessage(item_key=item_key, message_id=message_id or new_id(), topic=topic, payload=payload, due_at=now)
    )


async def lease(session: Session, topic: str, now: datetime, count: int, lease_for: timedelta) -> list[OutboxMessage]:
    """Take up to `count` due messages for a while: no other worker gets them until the lease runs out."""
    due = (
        select(OutboxMessage.item_key, OutboxMessage.message_id)
        .where(
            OutboxMessage.topic == topic,
            col(OutboxMessage.done_at).is_(None),
            col(OutboxMessage.set_aside_at).is_(None),
            OutboxMessage.due_at <= now,
        )
        .order_by(col(OutboxMessage.due_at))
        .limit(count)
        .with_for_update(skip_locked=True)
    )
    rows = (await session.exec(due)).all()
    if not rows:
        return []
    taken = (
        update(OutboxMessage)
        .where(tuple_(col(OutboxMessage.item_key), col(OutboxMessage.message_id)).in_([tuple(row) for row in rows]))
        .values(due_at=now + lease_for, attempts=OutboxMessage.attempts + 1)
        .returning(OutboxMessage)
    )
    return list((await session.exec(taken)).scalars())


async def finish(session: Session, message: OutboxMessage, now: datetime) -> None:
    """The work is done and will not be given out again."""
    await _settle(session, message, done_at=now, last_error=None, failures=0)


async def postpone(session: Session, message: OutboxMessage, until: datetime, reason: str) -> None:
    """The work goes on, not before `until`."""
    await _settle(session, message, due_at=until, last_error=reason[:_LAST_ERROR_CHARACTERS_MAX], failures=0)


async def redirect(session: Session, message: OutboxMessage, topic: str, now: datetime) -> None:
    """The work is another worker's: it comes up in this topic, at once."""
    await _settle(session, message, topic=topic, due_at=now)


async def fail(session: Session, message: OutboxMessage, until: datetime, reason: str, now: datetime) -> bool:
    """The worker broke on this message. It is tried again at `until`, or set aside after 10 times in a row.

    Whether it was set aside: then nobody works on it till `wake`, and the operator must be told.
    """
    last = message.failures + 1 >= FAILURES_MAX
    await _settle(
        session,
        message,
        due_at=until,
        last_error=reason[:_LAST_ERROR_CHARACTERS_MAX],
        failures=message.failures + 1,
        set_aside_at=now if last else None,
    )
    return last


async def _settle(session: Session, message: OutboxMessage, **values: Any) -> None:
    await session.exec(
        update(OutboxMessage)
        .where(
            col(OutboxMessage.item_key) == message.item_key,
            col(OutboxMessage.message_id) == message.message_id,
            # Whose lease ran out speaks of the past: another has the message now, or somebody closed it.
            col(OutboxMessage.attempts) == message.attempts,
            col(OutboxMessage.done_at).is_(None),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )


async def close(session: Session, item_key: int, message_id: uuid.UUID, now: datetime) -> None:
    """Somebody else saw to the work: nobody is given the message any more."""
    await session.exec(
        update(OutboxMessage)
        .where(
            col(OutboxMessage.item_key) == item_key,
            col(OutboxMessage.message_id) == message_id,
            col(OutboxMessage.done_at).is_(None),
        )
        .values(done_at=now, last_error=None)
        .execution_options(synchronize_session=False)
    )


async def wake(session: Session, item_key: int, message_id: uuid.UUID, now: datetime) -> bool:
    """Make an undone message due now, also one that was set aside. Whether there is one."""
    woken = await session.exec(
        update(OutboxMessage)
        .where(
            col(OutboxMessage.item_key) == item_key,
            col(OutboxMessage.message_id) == message_id,
            col(OutboxMessage.done_at).is_(None),
        )
        .values(due_at=now, set_aside_at=None, failures=0)
        .returning(col(OutboxMessage.message_id))
        .execution_options(synchronize_session=False)
    )
    return woken.first() is not None


async def backlogs(session: Session, now: datetime) -> Mapping[str, Backlog]:
    """What is left to do, by topic; a topic with nothing left is missing."""
    undone = col(OutboxMessage.done_at).is_(None)
    waiting = col(OutboxMessage.set_aside_at).is_(None)
    is_due = waiting & (col(OutboxMessage.due_at) <= now)
    rows = await session.exec(
        select(
            OutboxMessage.topic,
            func.sum(case((is_due, 1), else_=0)),
            type_coerce(func.min(case((is_due, col(OutboxMessage.due_at)))), Moment),
            func.sum(case((waiting, 0), else_=1)),
        )
        .where(undone)
        .group_by(col(OutboxMessage.topic))
    )
    return {
        topic: Backlog(int(due), 0.0 if first is None else (now - first).total_seconds(), int(aside))
        for topic, due, first, aside in rows
    }
