"""Benefits for everybody who looks, for members who obtain and use them, and for brands that send and count them."""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import brand_named
from kit.db import Session
from kit.ids import derived_id
from kit.paging import Position
from loyalty import benefits
from loyalty.benefits import BenefitKind, BenefitState, HeldBenefit, baskets, catalogue, deliveries, stock
from loyalty.benefits.baskets import RESERVATION_DEFAULT, RESERVATION_MAX
from loyalty.benefits.catalogue import Priced
from loyalty.benefits.deliveries import ADDRESS_LINE_CHARACTERS_MAX, Address
from scan_api.auth import members
from scan_api.idempotency import OnlyOnce
from scan_api.paging import Page, Paged
from scan_api.routers import At, BrandSlug
from scan_api.services import Serve, Services

router = APIRouter(prefix="/v1", tags=["benefits"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…, an API key with the role brand")]
_CATALOGUE: Final = "benefits"
_DELIVERIES: Final = "benefit-deliveries"
_BENEFIT, _HELD = "0197f0f0-5c00-7000-8000-0000000000b1", "0197f0f0-5c00-7000-8000-0000000000d1"
_MEMBER, _BASKET = "0197f0f0-5c00-7000-8000-0000000000aa", "0197f0f0-5c00-7000-8000-00000000ba5c"
_AT, _END = "2026-05-01T08:00:00.000Z", "2026-05-31T08:00:00.000Z"
_TEXT: Final[dict[str, Any]] = {"zh": "满十减五", "en": "5 off 10"}
ADDRESS_EXAMPLE: Final[dict[str, Any]] = {
    "name": "李雷",
    "phone": "+8613800138000",
    "region": "山东省青岛市",
    "line": "香港中路 1 号 101",
    "postcode": "266000",
}
_CODED: Final = "7Q4M-0ZKE-9XTB-3VHN"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Text(BaseModel):
    zh: str
    en: str


class Price(BaseModel):
    """What the tier of this rank pays, and those above it up to the next price."""

    tier_rank: int
    points: int


class Offered(BaseModel):
    """A benefit that members can buy with points."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "benefit_id": _BENEFIT,
                "kind": "coupon",
                "name": _TEXT,
                "text": {"zh": "", "en": ""},
                "amount": 1,
                "value_fen": 500,
                "prices": [{"tier_rank": 0, "points": 100}, {"tier_rank": 2, "points": 50}],
                "in_stock": True,
                "valid_days": 30,
                "expires_at": None,
                "ends_at": "2026-12-31T16:00:00.000Z",
                "limit_total": None,
                "limit_a_day": 1,
                "stackable": False,
            }
        }
    )

    benefit_id: uuid.UUID
    kind: BenefitKind
    name: Text
    text: Text
    amount: int = Field(description="Points, megabytes or fen of those kinds; else 1")
    value_fen: int
    prices: list[Price]
    in_stock: bool
    valid_days: int = Field(description="Days from obtaining to its end; 0: it ends at expires_at, or is used at once")
    expires_at: At | None
    ends_at: At = Field(description="Till then it can be obtained")
    limit_total: int | None
    limit_a_day: int | None
    stackable: bool


class Held(BaseModel):
    """A benefit in a member's hands. `code` is there for coupons, and of a pool once it was asked for."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "held_id": _HELD,
                "benefit_id": _BENEFIT,
                "kind": "coupon",
                "text": _TEXT,
                "amount": 1,
                "value_fen": 500,
                "points_paid": 100,
                "state": "claimed",
                "issued_at": _AT,
                "expires_at": _END,
                "redeemed_at": None,
                "reserved_until": None,
                "code": _CODED,
            }
        }
    )

    held_id: uuid.UUID
    benefit_id: uuid.UUID
    kind: BenefitKind
    text: Text
    amount: int
    value_fen: int
    points_paid: int
    state: BenefitState
    issued_at: At
    expires_at: At | None
    redeemed_at: At | None
    reserved_until: At | None
    code: str | None = None


class HeldList(BaseModel):
    data: list[Held]


class ObtainBody(_Body):
    model_config = ConfigDict(json_schema_extra={"example": {"benefit_id": _BENEFIT, "points_expected": 100}})

    benefit_id: uuid.UUID
    points_expected: int | None = Field(default=None, ge=0, description="The price that the member was shown")


class AddressBody(_Body):
    model_config = ConfigDict(json_schema_extra={"example": ADDRESS_EXAMPLE})

    name: str = Field(max_length=ADDRESS_LINE_CHARACTERS_MAX)
    phone: str = Field(max_length=ADDRESS_LINE_CHARACTERS_MAX)
    region: str = Field(max_length=ADDRESS_LINE_CHARACTERS_MAX)
    line: str = Field(max_length=ADDRESS_LINE_CHARACTERS_MAX)
    postcode: str = Field(default="", max_length=ADDRESS_LINE_CHARACTERS_MAX)


class ReservationBody(_Body):
    model_config = ConfigDict(json_schema_extra={"example": {"basket_id": _BASKET, "seconds": 900}})

    basket_id: uuid.UUID
    seconds: int = Field(
        default=int(RESERVATION_DEFAULT.total_seconds()), ge=1, le=int(RESERVATION_MAX.total_seconds())
    )


@router.get("/brands/{brand}/benefits", summary="List benefits on offer")
async def on_offer(brand: BrandSlug, services: Serve, paging: Paged) -> Page[Offered]:
    """What members can buy with points at this brand now, newest first, with the price of every tier."""
    async with services.database.reading() as session:
        brand_id = (await brand_named(session, brand)).brand_id
        assert brand_id is not None
        found = await catalogue.on_offer(session, brand_id, services.clock(), paging.after(_CATALOGUE), paging.count)
        left = await stock.left(session, [one.benefit for one in found])
    return Page[Offered](**paging.page(_CATALOGUE, found, _place, partial(_offered, left)))


@router.get("/me/benefits", summary="List my benefits")
async def mine(request: Request, services: Serve) -> HeldList:
    """The member's benefits, at most 200: those that can still be used first, the latest in front."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        held = await benefits.held_by(session, services.vault, member_id, now)
    return HeldList(data=[_held(one) for one in held])


@router.post("/me/benefits", status_code=201, summary="Obtain a benefit", response_model=Held)
async def obtain(body: ObtainBody, request: Request, services: Serve, once: OnlyOnce) -> dict[str, Any]:
    """Buy a benefit with points, at the price of the tier of the member's card of that brand."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        work = partial(_obtain, services, session, member_id, body, derived_id("obtain", member_id, once.key), now)
        answer = await once.run(session, member_id, "obtain", body, now, work)
        # A code is money, so it is stored sealed, and not with the remembered answer.
        held = await benefits.held_of(session, services.vault, member_id, uuid.UUID(answer["held_id"]), now)
    return {**answer, "code": held.code}


async def _obtain(
    services: Services, session: Session, member_id: uuid.UUID, body: ObtainBody, obtain_id: uuid.UUID, now: datetime
) -> Held:
    held = await benefits.obtain(
        session,
        services.vault,
        obtain_id=obtain_id,
        member_id=member_id,
        benefit_id=body.benefit_id,
        now=now,
        points_expected=body.points_expected,
    )
    return _held(held).model_copy(update={"code": None})


@router.post("/me/benefits/{held_id}/code", summary="Show a benefit's code")
async def show(held_id: uuid.UUID, request: Request, services: Serve) -> Held:
    """The benefit with its code, which counts as claimed from then on."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        return _held(await benefits.show(session, services.vault, member_id, held_id, now))


@router.post("/me/benefits/{held_id}/open", summary="Open a red packet", response_model=Held)
async def open_packet(held_id: uuid.UUID, request: Request, services: Serve, once: OnlyOnce) -> dict[str, Any]:
    """Take a cash red packet: the money is on its way from then on."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        work = partial(_open, services, session, member_id, held_id, now)
        return await once.run(session, member_id, "open packet", {"held_id": str(held_id)}, now, work)


async def _open(services: Services, session: Session, member_id: uuid.UUID, held_id: uuid.UUID, now: datetime) -> Held:
    return _held(await benefits.open_packet(session, services.vault, member_id, held_id, now))


@router.put("/me/benefits/{held_id}/address", summary="Say where a thing goes")
async def send_to(held_id: uuid.UUID, body: AddressBody, request: Request, services: Serve) -> Held:
    """Order the thing to this address; till it is shipped the address may be changed. It is kept sealed."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        address = Address(**body.model_dump())
        return _held(await deliveries.order(session, services.vault, member_id, held_id, address, now))


@router.post("/me/benefits/{held_id}/reservation", summary="Reserve my coupon")
async def reserve(held_id: uuid.UUID, body: ReservationBody, request: Request, services: Serve) -> Held:
    """Set a coupon aside for an online basket, by default for 15 minutes; the shop redeems it with the same basket."""
    now, lasting = services.clock(), timedelta(seconds=body.seconds)
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        await baskets.reserve_own(session, member_id, held_id, basket_id=body.basket_id, now=now, lasting=lasting)
        return _held(await benefits.held_of(session, services.vault, member_id, held_id, now))


@router.delete("/me/benefits/{held_id}/reservation", summary="Cancel my reservation")
async def cancel(held_id: uuid.UUID, request: Request, services: Serve) -> Held:
    """Give the reservation up, whosever basket it is for."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        await baskets.cancel_own(session, member_id, held_id, now)
        return _held(await benefits.held_of(session, services.vault, member_id, held_id, now))


def _place(one: Priced) -> Position:
    return Position(one.benefit.created_at, one.benefit.benefit_id)


def _offered(left: Mapping[uuid.UUID, int], one: Priced) -> Offered:
    benefit = one.benefit
    return Offered(
        benefit_id=benefit.benefit_id,
        kind=BenefitKind(benefit.kind),
        name=Text(zh=benefit.name_zh, en=benefit.name_en),
        text=Text(zh=benefit.text_zh, en=benefit.text_en),
        amount=benefit.amount,
        value_fen=benefit.value_fen,
        prices=[Price(tier_rank=rank, points=points) for rank, points in sorted(one.prices.items())],
        in_stock=left[benefit.benefit_id] > 0,
        valid_days=benefit.valid_days,
        expires_at=benefit.expires_at,
        ends_at=benefit.ends_at,
        limit_total=benefit.limit_total,
        limit_a_day=benefit.limit_a_day,
        stackable=benefit.stackable,
    )


def _held(held: HeldBenefit) -> Held:
    return Held(
        held_id=held.held_id,
        benefit_id=held.benefit_id,
        kind=held.kind,
        text=Text(zh=held.text_zh, en=held.text_en),
        amount=held.amount,
        value_fen=held.value_fen,
        points_paid=held.points_paid,
        state=held.state,
        issued_at=held.issued_at,
        expires_at=held.expires_at,
        redeemed_at=held.redeemed_at,
        reserved_until=held.reserved_until,
        code=held.code,
    )
