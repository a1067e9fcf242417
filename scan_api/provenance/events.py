"""Events in the life of an order's items, recorded once and never changed.

An event of a whole order is one row, however many items it has; an event of named items is a row an item, so that it
lies beside everything else that is known of the item.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    CompoundSelect,
    Table,
    Text,
    bindparam,
    false,
    select,
    true,
    union_all,
)
from sqlmodel import Field, SQLModel

from codes.orders import CodeOrder
from kit.db import Moment, Session, insert, table_of
from kit.errors import Invalid
from kit.ids import new_id

ITEMS_PER_EVENT_MAX = 1_000
PLACE_CHARACTERS_MAX = 200
CLOCK_AHEAD_MAX = timedelta(minutes=5)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


class EventInvalid(Invalid):
    code = "EventInvalid"


class Step(StrEnum):
    """The steps of an item's life, in the project's words; `scan_api.provenance.epcis` has GS1's."""

    COMMISSIONED = "commissioned"
    ACTIVATED = "activated"
    SHIPPED = "shipped"
    RECEIVED = "received"
    RECALLED = "recalled"
    SCANNED = "scanned"
    CLAIMED = "claimed"


_STORED_STEPS = "('commissioned', 'activated', 'shipped', 'received', 'recalled')"


class OrderEvent(SQLModel, table=True):
    """An event of every item of an order."""

    __tablename__: ClassVar[str] = "order_event"
    __table_args__ = (CheckConstraint(f"step IN {_STORED_STEPS}", name="step"),)

    order_id: int = Field(primary_key=True, foreign_key="code_order.order_id")
    event_id: uuid.UUID = Field(primary_key=True)
    step: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)
    recorded_at: datetime = Field(sa_type=Moment)
    place: str | None = Field(default=None, sa_type=Text)
    by: str | None = Field(default=None, sa_type=Text)


class ItemEvent(SQLModel, table=True):
    """An event of one item; items named in one capture share the event's id."""

    __tablename__: ClassVar[str] = "item_event"
    __table_args__ = (CheckConstraint(f"step IN {_STORED_STEPS}", name="step"),)

    item_key: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    event_id: uuid.UUID = Field(primary_key=True)
    step: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)
    recorded_at: datetime = Field(sa_type=Moment)
    place: str | None = Field(default=None, sa_type=Text)
    by: str | None = Field(default=None, sa_type=Text)


@dataclass(frozen=True, slots=True)
class Event:
    """One step in an item's life, recorded for the item itself or for its whole order."""

    event_id: uuid.UUID
    step: Step
    at: datetime
    recorded_at: datetime
    place: str | None = None
    by: str | None = None
    whole_order: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """What a caller says happened: the step, when (aware), where (0..200 characters) and who says so."""

    step: Step
    at: datetime
    place: str | None
    by: str | None


def check(happening: Happening, now: datetime) -> None:
    """Raises EventInvalid for a step that is not captured, a moment in the future, or an overlong place."""
    if happening.step not in (Step.ACTIVATED, Step.SHIPPED, Step.RECEIVED):
        raise EventInvalid("a captured event is activated, shipped or received")
    if happening.at.tzinfo is None or not EARLIEST <= happening.at <= now + CLOCK_AHEAD_MAX:
        raise EventInvalid(
            f"an event's time has a zone, is not in the future and not before {EARLIEST.year}",
            hint="Check the sender's clock.",
        )
    place = happening.place
    if place is not None and not (1 <= len(place) <= PLACE_CHARACTERS_MAX and min(place) >= " "):
        raise EventInvalid(f"a place is 1 to {PLACE_CHARACTERS_MAX} characters, none of them a control character")


async def record_for_order(session: Session, order: CodeOrder, happening: Happening, now: datetime) -> uuid.UUID:
    """Record an event of the whole order. Returns the event's id."""
    assert order.order_id is not None
    event_id = new_id()
    session.add(
        OrderEvent(
            order_id=order.order_id,
            event_id=event_id,
            step=happening.step,
            at=happening.at,
            recorded_at=now,
            place=happening.place,
            by=happening.by,
        )
    )
    await session.flush()
    return event_id


async def record_for_items(
    session: Session, item_keys: Sequence[int], happening: Happening, now: datetime
) -> uuid.UUID:
    """Record one event of 1 to 1,000 named items. Returns the event's id. Raises EventInvalid."""
    if not 1 <= len(set(item_keys)) == len(item_keys) <= ITEMS_PER_EVENT_MAX:
        raise EventInvalid(f"an event names 1 to {ITEMS_PER_EVENT_MAX:,} different items")
    event_id = new_id()
    shared = {
        "event_id": event_id,
        "step": happening.step,
        "at": happening.at,
        "recorded_at": now,
        "place": happening.place,
        "by": happening.by,
    }
    await session.exec(insert(session, ItemEvent).values([{"item_key": key, **shared} for key in item_keys]))
    return event_id


def _history() -> CompoundSelect[Any]:
    def columns(table: Table) -> list[ColumnElement[Any]]:
        return [table.c[name] for name in ("event_id", "step", "at", "recorded_at", "place", "by")]

    of_order, of_item = table_of(OrderEvent), table_of(ItemEvent)
    return union_all(
        select(*columns(of_order), true().label("whole_order")).where(of_order.c.order_id == bindparam("order")),
        select(*columns(of_item), false()).where(of_item.c.item_key == bindparam("key")),
    )


# Every scan asks it: one round trip, and built once.
_HISTORY = _history()


async def events_of(session: Session, order_id: int, item_key: int) -> list[Event]:
    """The recorded events of one item, its order's among them, oldest first."""
    found = await (await session.connection()).execute(_HISTORY, {"order": order_id, "key": item_key})
    events = [
        Event(event_id, Step(step), at, recorded_at, place, by, whole_order)
        for event_id, step, at, recorded_at, place, by, whole_order in found
    ]
    return sorted(events, key=lambda event: (event.at, event.recorded_at, not event.whole_order))
