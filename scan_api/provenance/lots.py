"""Lots: which lot an item was made in, when, and until when it is good, bound by events or by the brand.

Events bind single items: the instance data of their commissioning (ILMD; CBV 2.0, 9.1: cbvmda:lotNumber,
productionDate, itemExpirationDate). A brand binds ranges of an order. What is bound to the item itself counts first.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Column, Index, Text
from sqlmodel import Field, SQLModel

from codes import ranges
from codes.digital_link import CANONICAL_STEM
from codes.orders import CodeOrder
from codes.ranges import IndexRange
from kit import locks
from kit.db import Moment, Session, insert, table_of
from kit.errors import Invalid
from kit.procedures import Ask, Kind, Procedure, Step
from scan_api.provenance import packing
from scan_api.provenance.life import lot_subject
from scan_api.provenance.repository import NewEvent, key_of
from scan_api.provenance.things import Part

LOT_CHARACTERS_MAX = 20
"""GS1 General Specifications, 3.4.1, AI (10): up to 20 of the 82 invariant characters."""
ROWS_AT_ONCE_MAX = 1_000
ITEMS_COUNTED_MAX, ITEMS_TOLD_MAX = 100_000, 1_000
"""Of one lot."""
_LOT = re.compile(rf"[!\"%&'()*+,\-./0-9:;<=>?A-Z_a-z]{{1,{LOT_CHARACTERS_MAX}}}")
_FIELDS: Mapping[str, Sequence[str]] = {
    "lot": ("lotNumber",),
    "produced_on": ("productionDate", "packagingDate"),
    "expires_on": ("itemExpirationDate", "expirationDate", "bestBeforeDate", "sellByDate"),
}
_DAY_CHARACTERS = 10


class LotInvalid(Invalid):
    """A lot's name or its dates cannot be."""

    code = "LotInvalid"


class ItemLot(SQLModel, table=True):
    """What an event told of an item's lot; of several the last one counts, by the time when it happened."""

    __tablename__: ClassVar[str] = "item_lot"
    __table_args__ = (Index("ix_item_lot_lot_thing", "brand_id", "lot", "thing"),)

    thing: str = Field(sa_column=Column(packing.BY_BYTES, primary_key=True))
    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    lot: str | None = Field(default=None, sa_type=Text)
    produced_on: str | None = Field(default=None, sa_type=Text)
    expires_on: str | None = Field(default=None, sa_type=Text)
    event_time: datetime = Field(sa_type=Moment)
    event_key: uuid.UUID


class LotDates(SQLModel, table=True):
    """The dates of a lot that a brand bound; `subject` is `life.lot_subject`."""

    __tablename__: ClassVar[str] = "lot_dates"
    __table_args__ = (CheckConstraint("produced_on <= expires_on", name="order"),)

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    subject: str = Field(primary_key=True, sa_type=Text)
    produced_on: str | None = Field(default=None, sa_type=Text)
    expires_on: str | None = Field(default=None, sa_type=Text)


@dataclass(frozen=True, slots=True)
class LotItems:
    """The items that events bound to a lot one by one: how many, counted up to 100,000, and the first 1,000 by name."""

    count: int
    names: Sequence[str]
    is_cut: bool
    """There are more than the names."""


_TABLE = table_of(ItemLot)
_SOME = """
    SELECT thing FROM item_lot
    WHERE brand_id = :brand_id AND lot = :lot AND thing >= :stem AND thing < :stem_end ORDER BY thing LIMIT :counted_max
"""
ITEMS: Final = Procedure(
    "lot_items",
    {
        "brand_id": Kind.INTEGER,
        "lot": Kind.TEXT,
        "stem": Kind.TEXT,
        "stem_end": Kind.TEXT,
        "counted_max": Kind.INTEGER,
        "told_max": Kind.INTEGER,
    },
    (
        Step(f"SELECT count(*) FROM ({_SOME}) AS some_items", gives={"item_count": Kind.BIGINT}),  # noqa: S608
        Step(
            f"SELECT thing FROM ({_SOME}) AS some_items ORDER BY thing LIMIT :told_max",  # noqa: S608
            gives={"thing": Kind.TEXT},
            collects="items",
        ),
    ),
    ("item_count", "items"),
    writes=False,
)


def check(lot: str, produced_on: date | None = None, expires_on: date | None = None) -> None:
    """Raises LotInvalid."""
    if _LOT.fullmatch(lot) is None:
        raise LotInvalid(f"a lot is 1 to {LOT_CHARACTERS_MAX} letters, digits and signs of GS1's set 82")
    if produced_on is not None and expires_on is not None and produced_on > expires_on:
        raise LotInvalid("a lot expires before it is made")


async def bind(
    session: Session,
    brand_id: int,
    order: CodeOrder,
    parts: Sequence[IndexRange],
    lot: str,
    produced_on: date | None = None,
    expires_on: date | None = None,
) -> list[IndexRange]:
    """Bind parts of an order to a lot, whatever they were bound to, with the lot's dates. Returns what was not.

    Raises LotInvalid, RangeInvalid, RangesUsedUp, OrderStateForbids.
    """
    check(lot, produced_on, expires_on)
    changed = await ranges.bind_lot(session, order, parts, lot)
    dates = {
        "produced_on": produced_on.isoformat() if produced_on else None,
        "expires_on": expires_on.isoformat() if expires_on else None,
    }
    row = {"brand_id": brand_id, "subject": lot_subject(order.gtin, lot), **dates}
    write = insert(session, LotDates).values(row)
    await session.exec(write.on_conflict_do_update(index_elements=["brand_id", "subject"], set_=dates))
    return changed


async def items_of(ask: Ask, brand_id: int, gtin: str, lot: str) -> LotItems:
    """The items of a lot of a product, as far as events tell of items."""
    serials = f"{CANONICAL_STEM}/01/{gtin}/21"
    # In the order of bytes 0 comes right after the slash.
    asked = {"brand_id": brand_id, "lot": lot, "stem": f"{serials}/", "stem_end": f"{serials}0"}
    found = await ask(ITEMS, {**asked, "counted_max": ITEMS_COUNTED_MAX + 1, "told_max": ITEMS_TOLD_MAX})
    count, names = found["item_count"], [name for (name,) in found["items"]]
    return LotItems(min(count, ITEMS_COUNTED_MAX), names, count > len(names))


async def apply(session: Session, brand_id: int, events: Sequence[NewEvent]) -> None:
    """Take what commissioning events tell of lots into account, in the transaction that keeps them.

    `packing.apply` goes before it: it notes which events were errors. What an error had overwritten is not told again.
    """
    declared = [event for event in events if event.values["is_error"] and event.values["type"] == "ObjectEvent"]
    told = [event for event in events if _may_tell(event)]
    # Those who tell write in one order; who takes back cannot, and must not miss what is being told just now.
    if declared:
        await locks.change(session, _lock_of(brand_id))
        await _undo(session, brand_id, declared)
    elif told:
        await locks.share(session, _lock_of(brand_id))
    if not told:
        return
    undone = await packing.undone_among(session, {event.event_key for event in told})
    rows: dict[str, dict[str, Any]] = {}
    for event in sorted(told, key=lambda one: (one.values["event_time"], one.event_key)):
        if event.event_key not in undone:
            rows |= {row["thing"]: row for row in _rows(brand_id, event)}
    ordered = [rows[name] for name in sorted(rows)]
    for start in range(0, len(ordered), ROWS_AT_ONCE_MAX):
        write = insert(session, ItemLot).values(ordered[start : start + ROWS_AT_ONCE_MAX])
        given, held = write.excluded, _TABLE.c
        await session.exec(
            write.on_conflict_do_update(
                index_elements=["thing", "brand_id"],
                set_={name: given[name] for name in (*_FIELDS, "event_time", "event_key")},
                where=given.event_time >= held.event_time,
            )
        )


def _lock_of(brand_id: int) -> int:
    """The lock of a brand's lots as events tell them; whoever changes packing too takes that lock first."""
    return locks.key_of("item lots", brand_id)


async def _undo(session: Session, brand_id: int, declared: Sequence[NewEvent]) -> None:
    for event in declared:
        keys = [key_of(brand_id, event.values["event_id"], is_hash=is_hash) for is_hash in (False, True)]
        things = [thing for thing, part in event.things if part is Part.EPC]
        await (await session.connection()).execute(
            sa.delete(_TABLE).where(
                packing.among(session, _TABLE.c.thing, things),
                _TABLE.c.brand_id == brand_id,
                _TABLE.c.event_key.in_(keys),
            )
        )


def _may_tell(event: NewEvent) -> bool:
    values = event.values
    return (
        values["type"] == "ObjectEvent"
        and values["action"] == "ADD"
        and not values["is_error"]
        and '"ilmd"' in values["content"]
    )


def _rows(brand_id: int, event: NewEvent) -> Iterable[dict[str, Any]]:
    ilmd = json.loads(event.values["content"]).get("ilmd")
    told = {name: _told(ilmd, fields) for name, fields in _FIELDS.items()}
    if told["lot"] is not None and _LOT.fullmatch(told["lot"]) is None:
        told["lot"] = None
    for name in ("produced_on", "expires_on"):
        told[name] = _day(told[name])
    if not any(told.values()):
        return
    when = {"event_time": event.values["event_time"].astimezone(UTC), "event_key": event.event_key}
    for thing in dict.fromkeys(thing for thing, part in event.things if part is Part.EPC):
        yield {"thing": thing, "brand_id": brand_id, **told, **when}


def _told(ilmd: object, names: Sequence[str]) -> str | None:
    """The first of these attributes, under whatever prefix the document has for master data."""
    if not isinstance(ilmd, dict):
        return None
    by_local = {str(name).rpartition(":")[2].rpartition("/")[2]: value for name, value in ilmd.items()}
    return next((value for name in names if isinstance(value := by_local.get(name), str)), None)


def _day(text: str | None) -> str | None:
    """The day of a date or of a moment, None for anything else."""
    try:
        return date.fromisoformat((text or "")[:_DAY_CHARACTERS]).isoformat()
    except ValueError:
        return None
