"""Events in the life of an order's items, recorded once and never changed.

An event of a whole order is one row, however many items it has; an event of a part of it is a row a range of issue
indexes; an event of named items is a row an item, so that it lies beside everything else that is known of the item.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Text
from sqlmodel import Field, SQLModel, select

from codes import log_queue
from codes.catalogue import Product
from codes.log_queue import NewEntry
from codes.orders import CodeOrder
from codes.ranges import IndexRange
from codes.serials import ITEM_NUMBERS
from kit import procedures
from kit.clock import iso
from kit.db import Moment, Session, insert
from kit.errors import Invalid
from kit.ids import new_id
from kit.procedures import Kind, Procedure
from kit.procedures import Step as Statement

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
    VOIDED = "voided"
    HELD = "held"
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


class RangeEvent(SQLModel, table=True):
    """An event of the items with the issue indexes first..last; ranges of one capture share the event's id.

    Nothing is put on sale or voided twice, so the ranges of one step are disjoint, and the only one that can hold an
    item is the last that starts in time.
    """

    __tablename__: ClassVar[str] = "range_event"
    __table_args__ = (
        CheckConstraint("step IN ('activated', 'voided')", name="step"),
        CheckConstraint("0 <= first_index AND first_index <= last_index", name="range"),
    )

    order_id: int = Field(primary_key=True, foreign_key="code_order.order_id")
    step: str = Field(primary_key=True, sa_type=Text)
    first_index: int = Field(primary_key=True)
    last_index: int
    event_id: uuid.UUID
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
    """One step in an item's life, recorded for the item itself, for its part of the order or for the whole order."""

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
    if happening.step not in (Step.ACTIVATED, Step.SHIPPED, Step.RECEIVED, Step.VOIDED):
        raise EventInvalid("a captured event is activated, shipped, received or voided")
    if happening.at.tzinfo is None or not EARLIEST <= happening.at <= now + CLOCK_AHEAD_MAX:
        raise EventInvalid(
            f"an event's time has a zone, is not in the future and not before {EARLIEST.year}",
            hint="Check the sender's clock.",
        )
    place = happening.place
    if place is not None and not (1 <= len(place) <= PLACE_CHARACTERS_MAX and min(place) >= " "):
        raise EventInvalid(f"a place is 1 to {PLACE_CHARACTERS_MAX} characters, none of them a control character")


async def record_for_order(
    session: Session,
    order: CodeOrder,
    happening: Happening,
    now: datetime,
    ranges: Sequence[IndexRange] | None = None,
) -> uuid.UUID:
    """Record an event of the whole order, or of parts of it that were put on sale or voided. Returns the event's id.

    `ranges` are the parts that `codes.ranges.activate` or `.void` returned; None: the whole order.
    """
    assert order.order_id is not None
    event_id = new_id()
    event = {
        "order_id": order.order_id,
        "event_id": event_id,
        "step": happening.step.value,
        "at": happening.at,
        "recorded_at": now,
        "place": happening.place,
        "by": happening.by,
    }
    if ranges is None:
        await session.exec(insert(session, OrderEvent).values(event))
    elif ranges:
        rows = [{**event, "first_index": one.first, "last_index": one.last} for one in ranges]
        await (await session.connection()).execute(insert(session, RangeEvent), rows)
    parts = {} if ranges is None else {"indexes": [[one.first, one.last] for one in ranges]}
    await _log(session, order, event_id, happening, parts, now)
    return event_id


async def record_for_items(
    session: Session, order: CodeOrder, item_keys: Sequence[int], happening: Happening, now: datetime
) -> uuid.UUID:
    """Record one event of 1 to 1,000 named items of an order. Returns the event's id. Raises EventInvalid."""
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
    serials = [order.serial(key % ITEM_NUMBERS) for key in item_keys]
    await _log(session, order, event_id, happening, {"serials": serials}, now)
    return event_id


async def _log(
    session: Session,
    order: CodeOrder,
    event_id: uuid.UUID,
    happening: Happening,
    concerned: Mapping[str, Any],
    now: datetime,
) -> None:
    """Make the event a leaf of the transparency log."""
    brand_id = (await session.exec(select(Product.brand_id).where(Product.gtin == order.gtin))).one()
    told = {
        "type": "step",
        "event": str(event_id),
        "brand": brand_id,
        "gtin": order.gtin,
        "order": order.order_number,
        **concerned,
        "step": happening.step.value,
        "at": iso(happening.at),
        "recorded_at": iso(now),
        "place": happening.place,
        "by": happening.by,
    }
    await log_queue.enqueue(session, [NewEntry("step", event_id, brand_id, log_queue.record_of(told))], now)


_EVENT_SQL = 'event_id, step, at, recorded_at, place, "by"'
_EVENT: Mapping[str, Kind] = {
    "event_id": Kind.UUID,
    "step": Kind.TEXT,
    "at": Kind.MOMENT,
    "recorded_at": Kind.MOMENT,
    "place": Kind.TEXT,
    "by": Kind.TEXT,
    "whole_order": Kind.BOOLEAN,
}


def of_part(step: Step) -> str:
    """A SELECT of this step, as it was recorded for the part of `:order` in which `:issue_index` lies."""
    nearest = (
        f"SELECT * FROM range_event WHERE order_id = :order AND step = '{step}' AND first_index <= :issue_index "  # noqa: S608 - words of ours
        "ORDER BY first_index DESC LIMIT 1"
    )
    return f"SELECT {_EVENT_SQL}, false FROM ({nearest}) AS nearest_{step} WHERE last_index >= :issue_index"  # noqa: S608


HISTORY_PARAMETERS: Mapping[str, Kind] = {"order": Kind.INTEGER, "item": Kind.BIGINT, "issue_index": Kind.INTEGER}
"""Besides `has_ranges`, which `codes.ranges.STANDING` gives."""
HISTORY: Sequence[Statement] = (
    Statement(
        f"""
        SELECT {_EVENT_SQL}, true FROM order_event WHERE order_id = :order
        UNION ALL SELECT {_EVENT_SQL}, false FROM item_event WHERE item_key = :item
        """,  # noqa: S608
        gives=_EVENT,
        collects="events",
    ),
    Statement(
        f"{of_part(Step.ACTIVATED)} UNION ALL {of_part(Step.VOIDED)}",
        gives=_EVENT,
        collects="part_events",
        when="has_ranges",
    ),
)
"""Steps that collect what was recorded for an item, its part of the order and the whole of it, for `history_of`."""
_HISTORY = Procedure(
    "history", {**HISTORY_PARAMETERS, "has_ranges": Kind.BOOLEAN}, HISTORY, ("events", "part_events"), writes=False
)


async def events_of(session: Session, order: CodeOrder, item_key: int, issue_index: int) -> list[Event]:
    """The recorded events of one item, those of its order and of its part of it among them, oldest first."""
    asked = {"order": order.order_id, "item": item_key, "issue_index": issue_index, "has_ranges": order.has_ranges}
    return history_of(await procedures.call(session, _HISTORY, asked))


def history_of(found: Mapping[str, Any]) -> list[Event]:
    """The events that `HISTORY` collected, oldest first."""
    events = [
        Event(event_id, Step(step), at, recorded_at, place, by, whole_order)
        for event_id, step, at, recorded_at, place, by, whole_order in (*found["events"], *(found["part_events"] or ()))
    ]
    return sorted(
        (event for event in events if not _passed_by(event, events)),
        key=lambda event: (event.at, event.recorded_at, not event.whole_order),
    )


def _passed_by(event: Event, events: Sequence[Event]) -> bool:
    """Whether the order was put on sale without this item, which was voided or on sale by itself before."""
    return (
        event.whole_order
        and event.step is Step.ACTIVATED
        and any(
            other.step in (Step.ACTIVATED, Step.VOIDED)
            and not other.whole_order
            and other.recorded_at <= event.recorded_at
            for other in events
        )
    )
