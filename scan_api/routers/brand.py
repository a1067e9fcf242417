"""For brands and those who move their goods: orders and events."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field

from codes import orders
from codes.catalogue import brand_named
from codes.orders import CodeOrder, OrderState
from codes.ranges import RANGES_PER_CALL_MAX, parse_ranges
from kit.paging import Position
from scan_api import scans, serial_life
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.paging import Page, Paged
from scan_api.provenance import events
from scan_api.provenance.events import ITEMS_PER_EVENT_MAX, PLACE_CHARACTERS_MAX, EventInvalid, Happening, Step
from scan_api.routers import At, BrandSlug
from scan_api.services import Serve

router = APIRouter(prefix="/v1", tags=["brand"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
Gtin = Annotated[str, Field(pattern=r"^[0-9]{14}$")]
Serial = Annotated[str, Field(pattern=r"^[0-9]{14}$")]

_ORDERS = "orders"
RANGES_CHARACTERS_MAX = 32 * RANGES_PER_CALL_MAX
"""Two serials, a hyphen, a comma and some spaces for each."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Capture(_Body):
    """Something that happened to a whole order, to parts of it, or to the items that are named."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "step": "activated",
                "gtin": "09506000134352",
                "order_number": 14,
                "ranges": "0-4999",
                "at": "2026-05-01T08:00:00Z",
                "place": "Plant Hangzhou",
            }
        }
    )

    step: Step = Field(description="activated, shipped, received or voided")
    gtin: Gtin
    order_number: int = Field(ge=1, le=99_999)
    serials: list[Serial] | None = Field(
        default=None, max_length=ITEMS_PER_EVENT_MAX, description="absent: the whole order"
    )
    ranges: str | None = Field(
        default=None,
        max_length=RANGES_CHARACTERS_MAX,
        description='parts to put on sale or to void: "0-4999,7000", issue indexes or serials in the order of printing',
    )
    at: datetime | None = Field(default=None, description="absent: now")
    place: str | None = Field(default=None, min_length=1, max_length=PLACE_CHARACTERS_MAX)


class OrderAnswer(BaseModel):
    """An order of codes."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "gtin": "09506000134352",
                "order_number": 14,
                "quantity": 1_000_000,
                "faces": ["outer", "inner"],
                "state": "active",
                "kid": 7,
                "created_at": "2026-03-02T08:00:00.000Z",
            }
        }
    )

    gtin: Gtin
    order_number: int
    quantity: int
    faces: list[str]
    state: OrderState
    kid: int = Field(description="The number of the key that signed it")
    created_at: At


class Captured(BaseModel):
    """What was recorded. Nothing changed: no event, 0 items."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"event_id": "0197f0f0-5c00-7000-8000-0000000000e5", "items": 5_000}}
    )

    event_id: uuid.UUID | None
    items: int = Field(ge=0)


@router.get("/brand/{brand}/orders", summary="List orders of codes")
async def list_orders(
    brand: BrandSlug, services: Serve, paging: Paged, authorization: Authorization = None
) -> Page[OrderAnswer]:
    """The brand's orders of codes that the key covers, newest first."""
    async with services.database.reading() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND)
        found = await brand_named(session, brand)
        key.require_brand(found.brand_id or 0)
        rows = await orders.newest_of(
            session, found.brand_id or 0, key.gtin_prefixes, paging.after(_ORDERS), paging.count
        )
    return Page[OrderAnswer](
        **paging.page(_ORDERS, rows, lambda row: Position(row.created_at, row.order_id or 0), _shown_order)
    )


def _shown_order(order: CodeOrder) -> OrderAnswer:
    return OrderAnswer(
        gtin=order.gtin,
        order_number=order.order_number,
        quantity=order.quantity,
        faces=[face.name.lower() for face in order.faces],
        state=OrderState(order.state),
        kid=order.kid,
        created_at=order.created_at,
    )


@router.post("/brand/events", status_code=201, summary="Record a movement")
async def capture(body: Capture, services: Serve, authorization: Authorization = None) -> Captured:
    """Record that items were activated (put on sale), shipped, received, or voided (withdrawn before sale, for good).

    Whole orders or ranges are activated, ranges are voided; `items` says how many were not so before.
    """
    now = services.clock()
    async with services.database.writing() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND, Role.LOGISTICS)
        key.require_gtin(body.gtin)
        found = await scans.find_order(session, body.gtin, body.order_number)
        if found is None or found[1].brand_id != key.brand_id:
            raise orders.OrderUnknown(f"there is no order {body.order_number:05d} of GTIN {body.gtin}")
        order, _product, brand = found
        happening = Happening(body.step, body.at or now, body.place, key.label)
        events.check(happening, now)
        if body.step in (Step.ACTIVATED, Step.VOIDED):
            if body.serials is not None or key.role != Role.BRAND:
                raise EventInvalid(f"a brand's key tells of {body.step}, and by ranges; leave the serials out")
            scheme = await services.scans.scheme(session, brand.issuer_id)
            parts = None if body.ranges is None else parse_ranges(body.ranges, order, scheme)
            done = await serial_life.change(session, order, parts, happening, now)
            event_id, count = done.event_id, done.items
        elif body.ranges is not None:
            raise EventInvalid("ranges are put on sale or voided; name what was shipped or received by its serials")
        elif body.serials is None:
            event_id, count = await events.record_for_order(session, order, happening, now), order.quantity
        else:
            keys = [
                item_key
                for item_key, _index in await services.scans.items(session, order, brand.issuer_id, body.serials)
            ]
            event_id, count = await events.record_for_items(session, order, keys, happening, now), len(keys)
    return Captured(event_id=event_id, items=count)
