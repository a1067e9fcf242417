"""Logged rows: in which fields the row of an event, step or act is not what its record in the transparency log says."""

import hashlib
import json
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Raw, Struct
from msgspec.json import Decoder
from sqlmodel import col, select

from codes.acts import BrandAct, OrderAct
from codes.orders import CodeOrder
from codes.serials import ITEM_NUMBERS
from kit.clock import iso
from kit.db import Session
from offline_sdk.code_text import ORDER_DIGITS
from scan_api.provenance import captures, event_hash, event_reading
from scan_api.provenance.events import ItemEvent, OrderEvent, RangeEvent
from scan_api.provenance.repository import EpcisEvent, EventContext, key_of

CONTEXTS_REMEMBERED_MAX: Final = 10_000


class EventRecord(Struct):
    """The record of an event, see `captures.log_entries`."""

    key: str
    brand: int
    capture: str
    context: str
    context_sha256: str
    at: str
    event: Raw


class StepRecord(Struct):
    """The record of a step of an order's items, see `provenance.events`: of ranges, of named items, or of all."""

    event: str
    gtin: str
    order: int
    step: str
    at: str
    recorded_at: str
    place: str | None
    by: str | None
    indexes: list[tuple[int, int]] | None = None
    serials: list[str] | None = None


class ActRecord(Struct):
    """The record of an act, see `codes.acts`; with `gtin` and `order` where it concerns an order."""

    act: str
    brand: int
    kind: str
    at: str
    by: str | None
    detail: Any
    gtin: str | None = None
    order: int | None = None


event_record = Decoder(EventRecord).decode
step_record = Decoder(StepRecord).decode
act_record = Decoder(ActRecord).decode


class Contexts:
    """The SHA-256 of what is stored of events' contexts."""

    def __init__(self) -> None:
        self._sha256: dict[uuid.UUID, str] = {}

    async def learn(self, session: Session, ids: Collection[uuid.UUID]) -> None:
        """Look up those that are not known yet."""
        if len(self._sha256) > CONTEXTS_REMEMBERED_MAX:
            self._sha256.clear()
        unknown = [one for one in ids if one not in self._sha256]
        for row in await session.exec(select(EventContext).where(col(EventContext.context_id).in_(unknown))):
            self._sha256[row.context_id] = hashlib.sha256(row.content.encode()).hexdigest()

    def sha256(self, context_id: uuid.UUID) -> str | None:
        return self._sha256.get(context_id)


def differing_in_event(told: EventRecord, row: EpcisEvent, contexts: Contexts) -> list[str]:
    """The columns of an event's row that differ; `content` is the event itself. Raises ValueError, KeyError, TypeError
    where the record is of no event.

    Of `digest` the record says nothing.
    """
    event = json.loads(bytes(told.event))
    error = event.get("errorDeclaration")
    declared_at = None if error is None else event_hash.in_utc(error["declarationTime"])
    keys = [key_of(row.brand_id, row.event_id, declared_at, is_hash=is_hash) for is_hash in (False, True)]
    same = {
        "event_key": str(row.event_key) == told.key,
        "content": captures.in_one_line(row.content).encode() == bytes(told.event),
        "brand_id": row.brand_id == told.brand,
        "capture_id": str(row.capture_id) == told.capture,
        "context_id": str(row.context_id) == told.context,
        "context": contexts.sha256(row.context_id) == told.context_sha256,
        "record_time": iso(row.record_time) == told.at,
        "event_id": row.event_key in keys and event.get("eventID") in (None, row.event_id),
        "type": row.type == event["type"],
        "event_time": row.event_time == datetime.fromisoformat(event["eventTime"]),
        "is_error": row.is_error == (error is not None),
        **{name: getattr(row, name) == value for name, value in event_reading.columns_of(event).items()},
    }
    return [name for name, is_same in same.items() if not is_same]


async def differing_in_step(session: Session, event_id: uuid.UUID, told: StepRecord) -> list[str] | None:
    """The fields of the record that the rows of a step do not have; None: there are no such rows."""
    order_id = await _order_id(session, told.gtin, told.order)
    if order_id is None:
        return ["order"]
    rows: Sequence[OrderEvent | RangeEvent | ItemEvent]
    if told.serials is not None:
        expected = sorted(order_id * ITEM_NUMBERS + int(serial[ORDER_DIGITS:]) for serial in told.serials)
        items = select(ItemEvent).where(col(ItemEvent.item_key).in_(expected), ItemEvent.event_id == event_id)
        rows = (await session.exec(items.order_by(col(ItemEvent.item_key)))).all()
        is_whole, part = [row.item_key for row in rows] == expected, "serials"
    elif told.indexes is not None:
        parts = select(RangeEvent).where(RangeEvent.order_id == order_id, RangeEvent.event_id == event_id)
        rows = (await session.exec(parts.order_by(col(RangeEvent.first_index)))).all()
        is_whole, part = [(row.first_index, row.last_index) for row in rows] == sorted(told.indexes), "indexes"
        if not told.indexes and not rows:
            return []
    else:
        whole = select(OrderEvent).where(OrderEvent.order_id == order_id, OrderEvent.event_id == event_id)
        rows = (await session.exec(whole)).all()
        is_whole, part = True, ""
    if not rows:
        return None
    found = [] if is_whole else [part]
    for name in ("step", "at", "recorded_at", "place", "by"):
        if {_plain(getattr(row, name)) for row in rows} != {getattr(told, name)}:
            found.append(name)
    return found if told.event == str(event_id) else [*found, "event"]


async def differing_in_act(session: Session, act_id: uuid.UUID, told: ActRecord) -> list[str] | None:
    """The fields of the record that the row of an act does not have; None: there is no such row."""
    row: OrderAct | BrandAct | None
    if told.gtin is not None and told.order is not None:
        order_id = await _order_id(session, told.gtin, told.order)
        row = await session.get(OrderAct, (order_id, act_id)) if order_id is not None else None
    else:
        row = await session.get(BrandAct, (told.brand, act_id))
    if row is None:
        return None
    same = {
        "act": str(row.act_id) == told.act,
        "kind": row.kind == told.kind,
        "at": iso(row.at) == told.at,
        "by": row.by == told.by,
        "detail": _parsed(row.detail) == told.detail,
    }
    return [name for name, is_same in same.items() if not is_same]


async def _order_id(session: Session, gtin: str, number: int) -> int | None:
    asked = select(CodeOrder.order_id).where(CodeOrder.gtin == gtin, CodeOrder.order_number == number)
    return (await session.exec(asked)).first()


def _plain(value: object) -> object:
    return iso(value) if isinstance(value, datetime) else value


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
