"""For brands: things sent to members, benefits taken back, and what became of each benefit."""

import uuid
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import brand_named
from kit.db import Session
from kit.paging import Position
from loyalty import benefits
from loyalty.benefits import BenefitState, catalogue, deliveries, reports
from loyalty.benefits.deliveries import DeliveryState, Parcel
from loyalty.benefits.reports import DEAL_WITHIN_DAYS_DEFAULT, DEAL_WITHIN_DAYS_MAX, BenefitReport
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.idempotency import OnlyOnce
from scan_api.paging import Page, Paged
from scan_api.routers import At, BrandSlug, example_of
from scan_api.routers.benefits import ADDRESS_EXAMPLE, Text
from scan_api.services import Serve, Services

router = APIRouter(prefix="/v1/brand/{brand}", tags=["benefits"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…, an API key with the role brand")]
_DELIVERIES: Final = "benefit-deliveries"
_BENEFIT, _HELD = "0197f0f0-5c00-7000-8000-0000000000b1", "0197f0f0-5c00-7000-8000-0000000000d1"
_MEMBER, _AT = "0197f0f0-5c00-7000-8000-0000000000aa", "2026-05-01T08:00:00.000Z"
_TEXT: Final[dict[str, Any]] = {"zh": "雪糕礼盒", "en": "Ice cream box"}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class DeliveryBody(_Body):
    model_config = ConfigDict(
        json_schema_extra={"example": {"state": "shipped", "carrier": "SF Express", "tracking": "SF1234567890123"}}
    )

    state: DeliveryState = Field(description="shipped (with carrier and tracking), delivered or returned")
    carrier: str | None = None
    tracking: str | None = None


class Delivery(BaseModel):
    """A thing on its way. `address` is null when the member was erased."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "held_id": _HELD,
                "benefit_id": _BENEFIT,
                "text": _TEXT,
                "state": "shipped",
                "address": ADDRESS_EXAMPLE,
                "carrier": "SF Express",
                "tracking": "SF1234567890123",
                "ordered_at": _AT,
            }
        }
    )

    held_id: uuid.UUID
    benefit_id: uuid.UUID
    text: Text
    state: DeliveryState
    address: dict[str, str] | None
    carrier: str | None
    tracking: str | None
    ordered_at: At


class DeliveryMoved(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"held_id": _HELD, "state": "shipped"}})

    held_id: uuid.UUID
    state: DeliveryState


class ReversalBody(_Body):
    model_config = ConfigDict(json_schema_extra={"example": {"member_id": _MEMBER, "held_id": _HELD}})

    member_id: uuid.UUID
    held_id: uuid.UUID


class Reversal(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"example": {"held_id": _HELD, "state": "reversed", "points_returned": 100}}
    )

    held_id: uuid.UUID
    state: BenefitState
    points_returned: int


_REPORT = {
    "benefit_id": _BENEFIT,
    "procured": 1000,
    "stock": 720,
    "issued": 280,
    "claimed": 240,
    "reserved": 12,
    "redeemed": 151,
    "rolled_back": 2,
    "expired": 40,
    "reversed": 1,
    "conflicts": 3,
    "visits": 149,
    "deals": 120,
    "deal_fen": 1_180_000,
    "return_visits": 35,
    "points_spent": 27_900,
    "cost_fen": 45_300,
    "days": 7,
}


@router.get("/benefits/{benefit_id}/report", summary="Report on a benefit", responses=example_of(200, _REPORT))
async def report(
    brand: BrandSlug,
    benefit_id: uuid.UUID,
    services: Serve,
    days: Annotated[int, Query(ge=1, le=DEAL_WITHIN_DAYS_MAX)] = DEAL_WITHIN_DAYS_DEFAULT,
    authorization: Authorization = None,
) -> BenefitReport:
    """Every step counted, from procurement to return visits; deals and returns within so many days."""
    async with services.database.reading() as session:
        _key, brand_id = await _brand(session, authorization, brand)
        benefit = await catalogue.of_brand_named(session, brand_id, benefit_id)
        return await reports.of_benefit(session, benefit, days)


@router.get("/deliveries", summary="List deliveries")
async def list_deliveries(
    brand: BrandSlug,
    services: Serve,
    paging: Paged,
    state: DeliveryState | None = None,
    authorization: Authorization = None,
) -> Page[Delivery]:
    """Things that members ordered, with their addresses, newest first."""
    async with services.database.reading() as session:
        _key, brand_id = await _brand(session, authorization, brand)
        after = paging.after(_DELIVERIES)
        found = await deliveries.of_brand(session, services.vault, brand_id, state, after, paging.count)
    return Page[Delivery](
        **paging.page(_DELIVERIES, found, lambda parcel: Position(parcel.ordered_at, parcel.held_id), _delivery)
    )


@router.post("/deliveries/{held_id}", summary="Move a delivery on", response_model=DeliveryMoved)
async def move_delivery(
    brand: BrandSlug,
    held_id: uuid.UUID,
    body: DeliveryBody,
    services: Serve,
    once: OnlyOnce,
    authorization: Authorization = None,
) -> dict[str, Any]:
    """Tell that a thing was shipped, arrived, or came back: then it returns to stock, and its points to the member."""
    now = services.clock()
    async with services.database.writing() as session:
        key, brand_id = await _brand(session, authorization, brand)
        asked = {"held_id": str(held_id), **body.model_dump(mode="json")}
        work = partial(_move, session, key, brand_id, held_id, body, now)
        return await once.run(session, key.caller_id, "delivery", asked, now, work)


async def _move(
    session: Session, key: ApiKey, brand_id: int, held_id: uuid.UUID, body: DeliveryBody, now: datetime
) -> DeliveryMoved:
    moved = await deliveries.change(
        session, brand_id, held_id, body.state, now, carrier=body.carrier, tracking=body.tracking, by=key.caller_id
    )
    return DeliveryMoved(held_id=held_id, state=DeliveryState(moved.state))


@router.post("/reversals", status_code=201, summary="Take a benefit back", response_model=Reversal)
async def reverse(
    brand: BrandSlug, body: ReversalBody, services: Serve, once: OnlyOnce, authorization: Authorization = None
) -> dict[str, Any]:
    """Take an unused benefit back from a member and give back the points that it cost, to the lots they came from."""
    now = services.clock()
    async with services.database.writing() as session:
        key, brand_id = await _brand(session, authorization, brand)
        work = partial(_reverse, services, session, key, brand_id, body, now)
        return await once.run(session, key.caller_id, "reverse benefit", body, now, work)


async def _reverse(
    services: Services, session: Session, key: ApiKey, brand_id: int, body: ReversalBody, now: datetime
) -> Reversal:
    done = await benefits.reverse(
        session, services.vault, body.member_id, body.held_id, now, by=key.caller_id, brand_id=brand_id
    )
    return Reversal(held_id=done.held_id, state=done.state, points_returned=done.points_paid)


async def _brand(session: Session, authorization: str | None, slug: str) -> tuple[ApiKey, int]:
    key = await api_keys.authenticate(session, authorization, Role.BRAND)
    brand_id = (await brand_named(session, slug)).brand_id
    assert brand_id is not None  # rows read from the database have their key
    key.require_brand(brand_id)
    return key, brand_id


def _delivery(parcel: Parcel) -> Delivery:
    return Delivery(
        held_id=parcel.held_id,
        benefit_id=parcel.benefit_id,
        text=Text(zh=parcel.text_zh, en=parcel.text_en),
        state=parcel.state,
        address=asdict(parcel.address) if parcel.address else None,
        carrier=parcel.carrier,
        tracking=parcel.tracking,
        ordered_at=parcel.ordered_at,
    )
