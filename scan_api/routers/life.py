"""For brands: the life of their goods, and the lots that they were made in."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import Brand
from codes.orders import OrderUnknown
from codes.ranges import parse_ranges
from kit.clock import When
from kit.db import Session
from scan_api import life_acts, scans
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.life_acts import LifeAct, LifeInvalid, OfLot, OfOrder, OfThing, Target, Wish
from scan_api.provenance import line, lots
from scan_api.provenance.life import MESSAGE_CHARACTERS_MAX, Reason
from scan_api.provenance.line import THING_CHARACTERS_MAX
from scan_api.provenance.lots import LOT_CHARACTERS_MAX
from scan_api.routers.brand import RANGES_CHARACTERS_MAX, Gtin
from scan_api.services import Serve, Services

router = APIRouter(prefix="/v1/brand", tags=["life"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
OrderNumber = Annotated[int, Field(ge=1, le=99_999)]
Ranges = Annotated[str, Field(min_length=1, max_length=RANGES_CHARACTERS_MAX)]
LotName = Annotated[str, Field(min_length=1, max_length=LOT_CHARACTERS_MAX)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Act(_Body):
    """What to do with which goods: a thing alone, or a GTIN with an order (and ranges of it) or with a lot."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "act": "recall",
                "gtin": "09506000134352",
                "lot": "L2605",
                "reason": "safety",
                "message": "It may hold splinters of glass. Bring it back to the shop.",
            }
        }
    )

    act: LifeAct = Field(description="lift lets go what was held; recalled and voided goods stay so")
    thing: str | None = Field(
        default=None, min_length=1, max_length=THING_CHARACTERS_MAX, description="An item or container, by any name"
    )
    gtin: Gtin | None = None
    order_number: OrderNumber | None = None
    ranges: Ranges | None = Field(default=None, description='"0-4999,7000"; absent: the whole order')
    lot: LotName | None = None
    reason: Reason = Reason.OTHER
    message: str | None = Field(
        default=None, min_length=1, max_length=MESSAGE_CHARACTERS_MAX, description="What shoppers are told"
    )
    at: When | None = Field(
        default=None, description="Since when; absent: now. What left a container before is not reached"
    )


class ActDone(BaseModel):
    """What an act did."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": None, "marks": 1}})

    items: int | None = Field(description="How many items changed; null: all that are in it, now and later")
    marks: int = Field(ge=0, description="How many marks were set or lifted; 0 items and 0 marks: nothing was to do")


class Binding(_Body):
    """Which codes of an order were put on which lot's items."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "gtin": "09506000134352",
                "order_number": 14,
                "ranges": "0-4999",
                "lot": "L2605",
                "produced_on": "2026-05-01",
                "expires_on": "2027-05-01",
            }
        }
    )

    gtin: Gtin
    order_number: OrderNumber
    ranges: Ranges | None = Field(default=None, description="absent: the whole order")
    lot: LotName
    produced_on: date | None = None
    expires_on: date | None = None


class Bound(BaseModel):
    """What was bound."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": 5_000}})

    items: int = Field(ge=0, description="How many items were not of this lot before")


@router.post("/life", status_code=201, summary="Activate, hold, let go, recall or void goods")
async def act(body: Act, services: Serve, authorization: Authorization = None) -> ActDone:
    """By item, range, lot, order or container; what is packed in it is reached on all levels. Scans tell it at once."""
    now = services.clock()
    async with services.database.writing() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND)
        target = await _target(services, session, key, body)
        brand = await session.get_one(Brand, key.brand_id)
        scheme = await services.scans.scheme(session, brand.issuer_id)
        wish = Wish(body.act, body.reason, body.message, body.at or now, key.label)
        done = await life_acts.act(session, key.brand_id or 0, scheme, target, wish, now)
    return ActDone(items=done.items, marks=done.marks)


@router.post("/lots", status_code=201, summary="Bind codes to a lot")
async def bind(body: Binding, services: Serve, authorization: Authorization = None) -> Bound:
    """Tell which lot an order's codes, or ranges of them, were put on, when it was made and until when it is good."""
    now = services.clock()
    async with services.database.writing() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND)
        target = await _of_order(services, session, key, body.gtin, body.order_number, body.ranges)
        changed = await life_acts.bind_lot(
            session, key.brand_id or 0, target, body.lot, body.produced_on, body.expires_on, key.label, now
        )
    return Bound(items=changed)


async def _target(services: Services, session: Session, key: ApiKey, body: Act) -> Target:
    named = (body.thing is not None, body.order_number is not None, body.lot is not None)
    if sum(named) != 1 or (body.thing is None) != (body.gtin is not None) or (body.ranges and not named[1]):
        raise LifeInvalid("name a thing alone, or a GTIN with either an order or a lot; ranges go with an order")
    if body.thing is not None:
        key.require_all_gtins("containers and single items are")
        return OfThing(line.name(body.thing, "the thing"))
    gtin = body.gtin or ""
    if body.order_number is not None:
        return await _of_order(services, session, key, gtin, body.order_number, body.ranges)
    key.require_gtin(gtin)
    lots.check(body.lot or "")
    await life_acts.require_product(session, key.brand_id or 0, gtin)
    return OfLot(gtin, body.lot or "")


async def _of_order(
    services: Services, session: Session, key: ApiKey, gtin: str, number: int, text: str | None
) -> OfOrder:
    key.require_gtin(gtin)
    found = await scans.find_order(session, gtin, number)
    if found is None or found[1].brand_id != key.brand_id:
        raise OrderUnknown(f"there is no order {number:05d} of GTIN {gtin}")
    order, _product, brand = found
    scheme = await services.scans.scheme(session, brand.issuer_id)
    return OfOrder(order, None if text is None else parse_ranges(text, order, scheme))
