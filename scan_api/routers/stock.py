"""For brands: who holds what where, where it may be sold, and whether something was diverted."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import Brand
from kit.clock import When
from scan_api import life_acts, paging
from scan_api.auth.api_keys import Role
from scan_api.life_acts import OfThing
from scan_api.paging import LIMIT_DEFAULT, LIMIT_MAX, CursorInvalid, Page
from scan_api.provenance import line, presence, stock
from scan_api.provenance.documents import is_moment
from scan_api.provenance.line import THING_CHARACTERS_MAX
from scan_api.provenance.stock import HOLDER_CHARACTERS_MAX
from scan_api.regulators.regions import REGIONS_MAX
from scan_api.regulators.territory import PLACE_CHARACTERS_MAX, place_name
from scan_api.routers import At
from scan_api.routers.epcis import key_of
from scan_api.services import Serve

router = APIRouter(prefix="/v1", tags=["stock"])

_PRESENT: Final = "stock-present"
CURSOR_CHARACTERS_MAX: Final = 8_400
"""There is the longest name of a thing in it, escaped."""

Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
Region = Annotated[str, Field(min_length=2, max_length=12, description="GB/T 2260 digits, or ISO 3166 outside China")]


class SalesRegions(BaseModel):
    """Where a holder may sell. The holder is named as in an allotment, or is a party of events: a PGLN in any form."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"example": {"holder": "North Trade", "regions": ["11", "12", "1301"]}},
    )

    holder: str = Field(min_length=1, max_length=HOLDER_CHARACTERS_MAX)
    regions: list[Region] = Field(max_length=REGIONS_MAX)


class Diversion(BaseModel):
    """Whether it may be sold where it was seen."""

    holder: str | None
    sold_in: list[str]
    seen_in: str
    is_diverted: bool | None = Field(description="null: nobody said where it may be sold")


class Holding(BaseModel):
    """The last move of a thing, or of a container that it was in, and whether it was diverted."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "thing": "https://id.gs1.org/01/09506000134352/21/00014000000007",
                "holder": "https://id.gs1.org/417/9506000000012",
                "place": "https://id.gs1.org/414/9506000000029",
                "since": "2026-05-01T08:00:00.000Z",
                "is_under_way": False,
                "moved": "https://id.gs1.org/00/095060000000000077",
                "event_id": "ni:///sha-256;…?ver=CBV2.0",
                "diversion": None,
            }
        }
    )

    thing: str
    holder: str | None
    place: str | None = Field(description="Where it is, or where it goes to")
    since: At | None
    is_under_way: bool
    moved: str | None = Field(description="The thing itself, or the container that was moved with it")
    event_id: str | None
    diversion: Diversion | None = Field(description="Where a region was given")


class Present(BaseModel):
    """A thing that is at a place, or under way to it, by its last move or that of a container that it was in."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "thing": "https://id.gs1.org/01/09506000134352/21/00014000000007",
                "holder": "https://id.gs1.org/417/9506000000012",
                "since": "2026-05-01T08:00:00.000Z",
                "is_under_way": False,
                "moved": "https://id.gs1.org/00/095060000000000077",
                "event_id": "ni:///sha-256;…?ver=CBV2.0",
            }
        }
    )

    thing: str
    holder: str | None
    since: At
    is_under_way: bool
    moved: str = Field(description="The thing itself, or the container that was moved with it")
    event_id: str


class Allotted(BaseModel):
    """What a holder was given of a product."""

    gtin: str
    holder: str
    items: int
    sold_in: list[str]


class Stock(BaseModel):
    """What was allotted to whom."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "allotted": [{"gtin": "09506000134352", "holder": "North Trade", "items": 5_000, "sold_in": ["11"]}]
            }
        }
    )

    allotted: list[Allotted]


@router.put("/brand/sales-regions", summary="Say where a holder may sell")
async def set_regions(body: SalesRegions, services: Serve, authorization: Authorization = None) -> SalesRegions:
    """What was said of this holder before is forgotten; no region: nothing is said any more."""
    async with services.database.writing() as session:
        key = await key_of(session, authorization, Role.BRAND)
        found = await stock.set_regions(session, key.brand_id or 0, body.holder, body.regions)
    return SalesRegions(holder=body.holder, regions=list(found))


@router.get("/packing/holding", summary="Who holds a thing, and whether it was diverted")
async def holding(
    thing: Annotated[str, Query(max_length=THING_CHARACTERS_MAX, description="A code text, EPC URN or Digital Link")],
    services: Serve,
    at: Annotated[When | None, Query(description="absent: now")] = None,
    region: Annotated[Region | None, Query(description="Where it was seen")] = None,
    authorization: Authorization = None,
) -> Holding:
    """By the last event that shipped or received it, or a container while it was in it."""
    moment, name = at or services.clock(), line.name(thing, "the thing")
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND)
        brand_id = key.brand_id or 0
        found = await stock.holding_of(session, brand_id, name, moment)
        diverted = None
        if region is not None:
            brand = await session.get_one(Brand, brand_id)
            scheme = await services.scans.scheme(session, brand.issuer_id)
            place = await life_acts.own_item(session, brand_id, scheme, OfThing(name))
            in_order = None if place is None else (place.order.order_id or 0, place.spans[0].first)
            told = await stock.diversion(session, brand_id, name, region, moment, in_order)
            diverted = Diversion(
                holder=told.holder, sold_in=list(told.sold_in), seen_in=told.seen_in, is_diverted=told.is_diverted
            )
    if found is None:
        return Holding(
            thing=name, holder=None, place=None, since=None, is_under_way=False, moved=None, event_id=None,
            diversion=diverted,
        )  # fmt: skip
    return Holding(
        thing=name,
        holder=found.move.holder,
        place=found.move.place,
        since=found.since,
        is_under_way=found.move.is_under_way,
        moved=found.moved,
        event_id=found.move.event_id,
        diversion=diverted,
    )


@router.get("/packing/present", summary="What is at a place now")
async def present(
    place: Annotated[str, Query(max_length=PLACE_CHARACTERS_MAX, description="What events call it, by any name")],
    services: Serve,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most entries of a page")] = LIMIT_DEFAULT,
    cursor: Annotated[
        str | None, Query(max_length=CURSOR_CHARACTERS_MAX, description="next_cursor of the page before")
    ] = None,
    authorization: Authorization = None,
) -> Page[Present]:
    """Items and containers that are at this place or under way to it, what was brought last first.

    A thing is where its last move brought it, or that of a container while it was in it. A page looks at 200 moves and
    1,000 things at most: follow `next_cursor` also from a short or empty one.
    """
    name, after = place_name(place), None if cursor is None else _position(cursor)
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND)
        found = await presence.page(session, key.brand_id or 0, name, services.clock(), after, limit)
    end = found.end
    return Page[Present](
        data=[
            Present(
                thing=one.thing,
                holder=one.holding.move.holder,
                since=one.holding.since,
                is_under_way=one.holding.move.is_under_way,
                moved=one.holding.moved,
                event_id=one.holding.move.event_id,
            )
            for one in found.things
        ],
        next_cursor=None if end is None else _cursor(end),
    )


def _cursor(end: presence.Position) -> str:
    return paging.encode(_PRESENT, [end.at.astimezone(UTC).isoformat(), str(end.event_key), end.thing])


def _position(cursor: str) -> presence.Position:
    """Raises CursorInvalid."""
    at, key, thing = paging.decode(_PRESENT, cursor, 3)
    try:
        if not is_moment(str(at)) or b"\0" in str(thing).encode():
            raise ValueError
        return presence.Position(datetime.fromisoformat(str(at)), uuid.UUID(str(key)), str(thing))
    except ValueError:
        raise CursorInvalid("this cursor does not belong to this list", hint="Start without a cursor.") from None


@router.get("/brand/stock", summary="What was allotted to whom")
async def allotted(services: Serve, authorization: Authorization = None) -> Stock:
    """How many codes of each product each holder was given, and where he may sell."""
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND)
        found = await stock.allotted(session, key.brand_id or 0)
    return Stock(
        allotted=[
            Allotted(gtin=one.gtin, holder=one.holder, items=one.items, sold_in=list(one.sold_in)) for one in found
        ]
    )
