"""For brands, those who move their goods, and shops: orders, events, redemption of coupons."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field

from codes import orders
from codes.catalogue import brand_named
from codes.ranges import RANGES_PER_CALL_MAX, parse_ranges
from kit import idempotency
from kit.clock import iso
from loyalty import benefits
from scan_api import scans, serial_life
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.provenance import events
from scan_api.provenance.events import ITEMS_PER_EVENT_MAX, PLACE_CHARACTERS_MAX, EventInvalid, Happening, Step
from scan_api.routers import BrandSlug
from scan_api.services import Serve

router = APIRouter(prefix="/v1", tags=["brand"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
Gtin = Annotated[str, Field(pattern=r"^[0-9]{14}$")]
Serial = Annotated[str, Field(pattern=r"^[0-9]{14}$")]

RANGES_CHARACTERS_MAX = 32 * RANGES_PER_CALL_MAX
"""Two serials, a hyphen, a comma and some spaces for each."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Capture(_Body):
    """Something that happened to a whole order, to parts of it, or to the items that are named."""

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


class RedemptionBody(_Body):
    coupon_code: str = Field(max_length=40)


@router.get("/brand/{brand}/orders")
async def list_orders(brand: BrandSlug, services: Serve, authorization: Authorization = None) -> dict[str, Any]:
    """The brand's orders of codes, oldest first."""
    async with services.database.reading() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND)
        found = await brand_named(session, brand)
        key.require_brand(found.brand_id or 0)
        placed = await orders.orders_of(session, found.brand_id)
    return {
        "orders": [
            {
                "gtin": order.gtin,
                "order_number": order.order_number,
                "quantity": order.quantity,
                "faces": [face.name.lower() for face in order.faces],
                "state": order.state,
                "kid": order.kid,
                "created_at": iso(order.created_at),
            }
            for order in placed
            if key.covers_gtin(order.gtin)
        ]
    }


@router.post("/brand/events", status_code=201)
async def capture(body: Capture, services: Serve, authorization: Authorization = None) -> dict[str, Any]:
    """Record that items were activated (put on sale), shipped, received, or voided (withdrawn before sale, for good).

    Whole orders or ranges are activated, ranges are voided; `items` says how many were not so before.
    """
    now = services.clock()
    async with services.database.writing() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND, Role.LOGISTICS)
        found = await scans.find_order(session, body.gtin, body.order_number)
        if found is None:
            raise orders.OrderUnknown(f"there is no order {body.order_number:05d} of GTIN {body.gtin}")
        order, product, brand = found
        key.require_brand(product.brand_id)
        key.require_gtin(body.gtin)
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
            event_id, count = await events.record_for_items(session, keys, happening, now), len(keys)
    return {"event_id": str(event_id) if event_id else None, "items": count}


@router.post("/shop/redemptions", status_code=201)
async def redeem(
    body: RedemptionBody,
    services: Serve,
    idempotency_key: Annotated[str, Header(description="Chosen by the caller, new for each new request")],
    authorization: Authorization = None,
) -> dict[str, Any]:
    """Check a shopper's coupon off (核销). It works once; the same key and body get the same answer again."""
    now = services.clock()
    async with services.database.writing() as session:
        key = await api_keys.authenticate(session, authorization, Role.SHOP)
        asked = idempotency.fingerprint("redeem", body.model_dump())
        answer = await idempotency.begin(session, key.caller_id, idempotency_key, asked, now)
        if answer is not None:
            return answer
        brands = None if key.brand_id is None else [key.brand_id]
        done = await benefits.redeem(
            session, services.vault, body.coupon_code, shop_caller_id=key.caller_id, brand_ids=brands, now=now
        )
        answer = {
            "coupon_id": str(done.coupon_id),
            "text": {"zh": done.text_zh, "en": done.text_en},
            "value_fen": done.value_fen,
            "redeemed_at": iso(done.at),
        }
        await idempotency.remember(session, key.caller_id, idempotency_key, answer)
    return answer
