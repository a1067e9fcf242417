"""Stock: who holds an item or container, where it is, where it may be sold, and whether it was diverted (窜货).

What is held follows from the last event that moved a thing, or a container while it was in it: shipping tells who will
have it, receiving where it is (CBV 2.0, 7.1, 7.4). Until something moved, the allotment of its range tells.
"""

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import Text
from sqlmodel import Field, SQLModel, col, func, select

from codes.catalogue import Product
from codes.orders import CodeOrder
from codes.ranges import Layer, OrderRange
from kit.db import Moment, Session, is_postgresql
from kit.errors import Invalid
from scan_api.provenance import packed
from scan_api.provenance.packed import ABOVE_ALL_SQL
from scan_api.provenance.repository import EpcisEvent
from scan_api.provenance.things import Part, name_of, things_of
from scan_api.provenance.vocabulary import BUSINESS_STEPS, SOURCE_DESTINATION_TYPES, bare_word
from scan_api.regulators import regions, territory

HOLDER_CHARACTERS_MAX = 500
HOLDERS_PER_BRAND_MAX = 10_000
EVENTS_AT_ONCE = 20
"""So many are in memory, with all that they say."""

_OUT = frozenset({BUSINESS_STEPS["shipping"], BUSINESS_STEPS["departing"]})
_IN = frozenset(BUSINESS_STEPS[word] for word in ("receiving", "arriving", "accepting", "stocking"))
MOVING_STEPS = _OUT | _IN
_MOVED_PARTS = (Part.EPC, Part.PARENT)
_GIVEN = {
    True: 'SELECT given COLLATE "C" AS given FROM unnest(CAST(:things AS text[])) AS given',
    False: "SELECT value AS given FROM json_each(:things)",
}
_LAST_MOVES = {
    on_postgresql: sa.text(f"""
        {above} SELECT thing, name, since, (
            SELECT event_thing.event_key FROM event_thing
            JOIN epcis_event ON epcis_event.event_key = event_thing.event_key
            WHERE event_thing.thing = name AND event_thing.brand_id = :of_brand AND event_thing.event_time <= :at
                AND (until IS NULL OR event_thing.event_time < until)
                AND event_thing.part IN ({", ".join(f"'{part}'" for part in _MOVED_PARTS)})
                AND epcis_event.biz_step IN ({", ".join(f"'{step}'" for step in sorted(MOVING_STEPS))})
                AND NOT epcis_event.is_error
                AND NOT EXISTS (SELECT 1 FROM undone_event WHERE undone_event.event_key = event_thing.event_key)
            ORDER BY event_thing.event_time DESC, event_thing.event_key LIMIT 1
        ) AS event_key
        FROM (
            SELECT given AS thing, given AS name, NULL AS since, NULL AS until, 0 AS level
            FROM ({_GIVEN[on_postgresql]}) AS given
            UNION ALL SELECT thing, name, since, until, level FROM above WHERE since <= :at
        ) AS moved ORDER BY level
    """)  # noqa: S608 - words of ours
    .bindparams(sa.bindparam("at", type_=Moment()))
    .columns(thing=Text, name=Text, since=Moment, event_key=sa.Uuid)
    for on_postgresql, above in ABOVE_ALL_SQL.items()
}
"""The last move of each of `:things` and of each container that it was in, until it left that."""


class StockHolderInvalid(Invalid):
    """A holder's name cannot be, or there are too many."""

    code = "StockHolderInvalid"


class SalesRegion(SQLModel, table=True):
    """A region in which a holder may sell; the holder is named as in an allotment, or is a party of events."""

    __tablename__: ClassVar[str] = "sales_region"

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    holder: str = Field(primary_key=True, sa_type=Text)
    region: str = Field(primary_key=True, sa_type=Text)


@dataclass(frozen=True, slots=True)
class Move:
    """What an event says of the things that it names themselves, and so of all in them: where they are, or go to."""

    event_key: uuid.UUID
    event_id: str
    at: datetime
    holder: str | None
    place: str | None
    is_under_way: bool


@dataclass(frozen=True, slots=True)
class Holding:
    """The last move of a thing, or of `moved`, a container that it was in; and since when it holds for the thing."""

    move: Move
    since: datetime
    moved: str


@dataclass(frozen=True, slots=True)
class Diversion:
    """Whether a thing that was seen in a region may be sold there. `is_diverted` None: nobody said where."""

    holder: str | None
    sold_in: Sequence[str]
    seen_in: str
    is_diverted: bool | None


@dataclass(frozen=True, slots=True)
class Allotted:
    """How many codes of a product a holder was given, voided ones included, and where he may sell."""

    gtin: str
    holder: str
    items: int
    sold_in: Sequence[str]


async def set_regions(session: Session, brand_id: int, holder: str, codes: Collection[str]) -> tuple[str, ...]:
    """Say anew where a holder may sell; none: nowhere is said. Raises StockHolderInvalid, RegionInvalid."""
    if not 1 <= len(holder) <= HOLDER_CHARACTERS_MAX or not holder.isprintable() or holder != holder.strip():
        raise StockHolderInvalid(
            f"a holder's name is 1 to {HOLDER_CHARACTERS_MAX} printable characters, no space around"
        )
    name, found = name_of(holder), regions.parse_all(codes)
    await session.exec(
        sa.delete(SalesRegion).where(col(SalesRegion.brand_id) == brand_id, col(SalesRegion.holder) == name)
    )
    known = select(func.count(sa.distinct(col(SalesRegion.holder)))).where(SalesRegion.brand_id == brand_id)
    if (await session.exec(known)).one() >= HOLDERS_PER_BRAND_MAX:
        raise StockHolderInvalid(f"a brand has regions for at most {HOLDERS_PER_BRAND_MAX:,} holders")
    session.add_all([SalesRegion(brand_id=brand_id, holder=name, region=region) for region in found])
    await session.flush()
    return found


async def regions_of(session: Session, brand_id: int, holder: str) -> tuple[str, ...]:
    """Where a holder may sell."""
    rows = select(SalesRegion.region).where(SalesRegion.brand_id == brand_id, SalesRegion.holder == name_of(holder))
    return tuple((await session.exec(rows.order_by(col(SalesRegion.region)))).all())


async def holding_of(session: Session, brand_id: int, name: str, at: datetime) -> Holding | None:
    """Who had the thing of this one name at a moment, and where; None where nothing moved it."""
    return (await holdings_of(session, brand_id, [name], at)).get(name)


async def holdings_of(session: Session, brand_id: int, names: Sequence[str], at: datetime) -> dict[str, Holding]:
    """The same for many things, in one statement and one for every 20 events; what nothing moved is missing."""
    asked = {"things": packed.names_given(session, names), "of_brand": brand_id, "at": at}
    rows = (await (await session.connection()).execute(_LAST_MOVES[is_postgresql(session)], asked)).all()
    moves = await _moves_with(session, {row.event_key for row in rows if row.event_key is not None})
    last: dict[str, Holding] = {}
    for thing, moved, since, event_key in rows:
        if event_key is None:
            continue
        move = moves[event_key]
        # Whoever packs a thing into what is there already brings it there.
        holding = Holding(move, max(move.at, since) if since is not None else move.at, moved)
        if thing not in last or holding.since > last[thing].since:
            last[thing] = holding
    return last


async def _moves_with(session: Session, keys: Collection[uuid.UUID]) -> dict[uuid.UUID, Move]:
    """What the events with these keys say of where things went."""
    found: dict[uuid.UUID, Move] = {}
    wanted = sorted(keys)
    for start in range(0, len(wanted), EVENTS_AT_ONCE):
        some = wanted[start : start + EVENTS_AT_ONCE]
        for event in await session.exec(select(EpcisEvent).where(col(EpcisEvent.event_key).in_(some))):
            found[event.event_key] = move_of(event)
    return found


def move_of(event: EpcisEvent) -> Move:
    """What an event says of where things went."""
    content: Mapping[str, Any] = json.loads(event.content)
    goes_to: dict[str, str] = {}
    for one in content.get("destinationList") or ():
        goes_to[bare_word(one["type"], SOURCE_DESTINATION_TYPES)] = name_of(one["destination"])
    is_under_way = event.biz_step in _OUT
    place = goes_to.get("location") if is_under_way else event.biz_location or event.read_point
    return Move(
        event_key=event.event_key,
        event_id=event.event_id,
        at=event.event_time,
        holder=goes_to.get("possessing_party") or goes_to.get("owning_party"),
        place=place or goes_to.get("location"),
        is_under_way=is_under_way,
    )


def moved_by(event: EpcisEvent) -> Sequence[str]:
    """The things that a moving event names itself."""
    return tuple(name for name, part in things_of(json.loads(event.content)) if part in _MOVED_PARTS)


async def allotted_to(session: Session, order_id: int, issue_index: int) -> str | None:
    """To whom the range of an item was allotted."""
    rows = (
        select(OrderRange.value, OrderRange.last_index)
        .where(
            OrderRange.order_id == order_id,
            OrderRange.layer == Layer.ALLOTMENT.value,
            col(OrderRange.first_index) <= issue_index,
        )
        .order_by(col(OrderRange.first_index).desc())
        .limit(1)
    )
    found = (await session.exec(rows)).first()
    return found[0] if found is not None and found[1] >= issue_index else None


async def diversion(
    session: Session,
    brand_id: int,
    name: str,
    seen_in: str,
    at: datetime,
    place_in_order: tuple[int, int] | None = None,
) -> Diversion:
    """Whether a thing that was seen in a region was diverted there.

    It may be sold where its present holder may sell, else where the place it was brought to lies, else where the
    holder of its range may sell; `place_in_order` is the order's id and the issue index. Raises RegionInvalid.
    """
    region = regions.parse(seen_in)
    holding = await holding_of(session, brand_id, name, at)
    holders = [holding.move.holder] if holding is not None and holding.move.holder is not None else []
    if place_in_order is not None and (allotted := await allotted_to(session, *place_in_order)) is not None:
        holders.append(allotted)
    sold_in: Sequence[str] = ()
    who: str | None = None
    for holder in holders:
        who, sold_in = holder, await regions_of(session, brand_id, holder)
        if sold_in:
            break
        if holding is not None and holder == holding.move.holder and holding.move.place is not None:
            sold_in = tuple((await territory.regions_of(session, brand_id, [holding.move.place])).values())
            if sold_in:
                break
    if not sold_in:
        return Diversion(holders[0] if holders else None, (), region, None)
    return Diversion(who, sold_in, region, not any(regions.covers(wide, region) for wide in sold_in))


async def allotted(session: Session, brand_id: int) -> list[Allotted]:
    """What each holder was given of each product, by GTIN and holder."""
    items = func.sum(OrderRange.last_index - OrderRange.first_index + 1)
    rows = (
        select(CodeOrder.gtin, OrderRange.value, items)
        .join(CodeOrder, col(CodeOrder.order_id) == col(OrderRange.order_id))
        .join(Product, col(Product.gtin) == col(CodeOrder.gtin))
        .where(Product.brand_id == brand_id, OrderRange.layer == Layer.ALLOTMENT.value)
        .group_by(col(CodeOrder.gtin), col(OrderRange.value))
        .order_by(col(CodeOrder.gtin), col(OrderRange.value))
    )
    sold_in: dict[str, list[str]] = {}
    told = select(SalesRegion.holder, SalesRegion.region).where(SalesRegion.brand_id == brand_id)
    for holder, region in await session.exec(told.order_by(col(SalesRegion.region))):
        sold_in.setdefault(holder, []).append(region)
    return [
        Allotted(gtin, holder, int(count), tuple(sold_in.get(name_of(holder), ())))
        for gtin, holder, count in await session.exec(rows)
    ]
