"""Stock: who holds an item or container, where it is, where it may be sold, and whether it was diverted (窜货).

What is held follows from the last event that moved a thing, or a container while it was in it: shipping tells who will
have it, receiving where it is (CBV 2.0, 7.1, 7.4). Until something moved, the allotment of its range tells.
"""

import json
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
from kit.db import Moment, Session
from kit.errors import Invalid
from scan_api.provenance.packed import ABOVE_SQL
from scan_api.provenance.packing import UndoneEvent
from scan_api.provenance.repository import EpcisEvent, EventThing
from scan_api.provenance.things import Part, name_of
from scan_api.provenance.vocabulary import BUSINESS_STEPS, SOURCE_DESTINATION_TYPES, bare_word
from scan_api.regulators import regions, territory

HOLDER_CHARACTERS_MAX = 500
HOLDERS_PER_BRAND_MAX = 10_000

_OUT = frozenset({BUSINESS_STEPS["shipping"], BUSINESS_STEPS["departing"]})
_IN = frozenset(BUSINESS_STEPS[word] for word in ("receiving", "arriving", "accepting", "stocking"))
_ABOVE = (
    sa.text(f"{ABOVE_SQL} SELECT name, since, until FROM above WHERE since <= :at ORDER BY level")  # noqa: S608
    .bindparams(sa.bindparam("at", type_=Moment()))
    .columns(name=Text, since=Moment, until=Moment)
)


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
class Holding:
    """The last move of a thing, or of `moved`, a container that it was in. `place` is where it is, or goes to."""

    holder: str | None
    place: str | None
    since: datetime
    is_under_way: bool
    moved: str
    event_id: str


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
    asked = {"thing": name, "of_brand": brand_id, "at": at}
    above = (await (await session.connection()).execute(_ABOVE, asked)).all()
    last: Holding | None = None
    for moved, since, until in [(name, None, None), *above]:
        found = await _last_move(session, brand_id, moved, at, until)
        if found is None:
            continue
        holding = _holding(found, moved, since)
        if last is None or holding.since > last.since:
            last = holding
    return last


async def _last_move(
    session: Session, brand_id: int, name: str, at: datetime, before: datetime | None
) -> EpcisEvent | None:
    undone = sa.exists().where(col(UndoneEvent.event_key) == col(EpcisEvent.event_key))
    rows = (
        select(EpcisEvent)
        .join(EventThing, col(EventThing.event_key) == col(EpcisEvent.event_key))
        .where(
            EventThing.thing == name,
            EventThing.brand_id == brand_id,
            col(EventThing.event_time) <= at,
            col(EventThing.part).in_([Part.EPC.value, Part.PARENT.value]),
            col(EpcisEvent.biz_step).in_(sorted(_OUT | _IN)),
            col(EpcisEvent.is_error).is_(False),
            ~undone,
        )
        .order_by(col(EventThing.event_time).desc(), col(EventThing.event_key))
        .limit(1)
    )
    if before is not None:
        rows = rows.where(col(EventThing.event_time) < before)
    return (await session.exec(rows)).first()


def _holding(event: EpcisEvent, moved: str, packed_since: datetime | None) -> Holding:
    content: Mapping[str, Any] = json.loads(event.content)
    goes_to: dict[str, str] = {}
    for one in content.get("destinationList") or ():
        goes_to[bare_word(one["type"], SOURCE_DESTINATION_TYPES)] = name_of(one["destination"])
    is_under_way = event.biz_step in _OUT
    place = goes_to.get("location") if is_under_way else event.biz_location or event.read_point
    return Holding(
        holder=goes_to.get("possessing_party") or goes_to.get("owning_party"),
        place=place or goes_to.get("location"),
        # Whoever packs a thing into what is there already brings it there.
        since=max(event.event_time, packed_since) if packed_since is not None else event.event_time,
        is_under_way=is_under_way,
        moved=moved,
        event_id=event.event_id,
    )


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
    holders = [holding.holder] if holding is not None and holding.holder is not None else []
    if place_in_order is not None and (allotted := await allotted_to(session, *place_in_order)) is not None:
        holders.append(allotted)
    sold_in: Sequence[str] = ()
    who: str | None = None
    for holder in holders:
        who, sold_in = holder, await regions_of(session, brand_id, holder)
        if sold_in:
            break
        if holding is not None and holder == holding.holder and holding.place is not None:
            sold_in = tuple((await territory.regions_of(session, brand_id, [holding.place])).values())
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
