"""Work that must happen after a transaction commits, kept in the same transaction until it is done.

Delivery is at least once: whoever does the work makes it idempotent by the message's id.
"""

import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Column, Index, Text, text, tuple_, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.ids import new_id

_LAST_ERROR_CHARACTERS_MAX = 200


class OutboxMessage(SQLModel, table=True):
    """One piece of work left to do. Its payload names rows by id and holds no personal data."""

    __tablename__: ClassVar[str] = "outbox"
    __table_args__ = (Index("ix_outbox_due", "topic", "due_at", postgresql_where=text("done_at IS NULL")),)

    item_key: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    message_id: uuid.UUID = Field(primary_key=True)
    topic: str = Field(sa_type=Text)
    payload: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    attempts: int = 0
    due_at: datetime = Field(sa_type=Moment)
    done_at: datetime | None = Field(default=None, sa_type=Moment)
    last_error: str | None = Field(default=None, sa_type=Text)


def put(session: Session, topic: str, item_key: int, payload: dict[str, Any], now: datetime) -> None:
    """Leave work behind, to be seen when the transaction commits."""
    session.add(OutboxMessage(item_key=item_key, message_id=new_id(), topic=topic, payload=payload, due_at=now))


async def lease(session: Session, topic: str, now: datetime, count: int, lease_for: timedelta) -> list[OutboxMessage]:
    """Take up to `count` due messages for a while: no other worker gets them until the lease runs out."""
    due = (
        select(OutboxMessage.item_key, OutboxMessage.message_id)
        .where(OutboxMessage.topic == topic, col(OutboxMessage.done_at).is_(None), OutboxMessage.due_at <= now)
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
    await _settle(session, message, done_at=now, last_error=None)


async def postpone(session: Session, message: OutboxMessage, until: datetime, reason: str) -> None:
    """The work is to be tried again, not before `until`."""
    await _settle(session, message, due_at=until, last_error=reason[:_LAST_ERROR_CHARACTERS_MAX])


async def _settle(session: Session, message: OutboxMessage, **values: Any) -> None:
    await session.exec(
        update(OutboxMessage)
        .where(
            col(OutboxMessage.item_key) == message.item_key,
            col(OutboxMessage.message_id) == message.message_id,
        )
        .values(**values)
    )
