"""For shops' tills and online shops: coupons looked at, set aside, redeemed (核销), rolled back, uploaded later."""

import uuid
from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import brand_named
from kit.clock import When
from kit.db import Session
from kit.ids import derived_id
from kit.paging import Position
from loyalty import till_limits
from loyalty.benefits import BenefitState, baskets, offline, redemptions
from loyalty.benefits.baskets import BASKET_COUPONS_MAX, RESERVATION_DEFAULT, RESERVATION_MAX
from loyalty.benefits.offline import BATCH_LINES_MAX, OfflineLine
from loyalty.benefits.redemptions import Redemption
from loyalty.benefits.tills import (
    CODE_CHARACTERS_MAX,
    CouponUnknown,
    RedemptionIdReused,
    RedemptionOutcome,
    Seen,
    ShopRedemption,
    Till,
)
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.idempotency import OnlyOnce
from scan_api.paging import Page, Paged
from scan_api.routers import At, BrandSlug
from scan_api.services import Serve, Services
from scan_api.tills import at_till, count_misses

router = APIRouter(prefix="/v1", tags=["shop"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…, an API key with the role shop")]
BrandKey = Annotated[str | None, Header(alias="authorization", description="Bearer fx_…, with the role brand")]
CouponCode = Annotated[str, Field(max_length=CODE_CHARACTERS_MAX, description="As scanned or typed")]
_CODE, _BASKET = "7Q4M-0ZKE-9XTB-3VHN", "0197f0f0-5c00-7000-8000-00000000ba5c"
_REDEMPTION, _HELD = "0197f0f0-5c00-7000-8000-0000000000c1", "0197f0f0-5c00-7000-8000-0000000000d1"
_BENEFIT, _AT = "0197f0f0-5c00-7000-8000-0000000000b1", "2026-05-01T08:00:00.000Z"
_CONFLICTS: Final = "redemption-conflicts"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ValidationBody(_Body):
    model_config = ConfigDict(json_schema_extra={"example": {"coupon_codes": [_CODE]}})

    coupon_codes: list[CouponCode] = Field(min_length=1, max_length=BASKET_COUPONS_MAX)


class RedemptionBody(_Body):
    model_config = ConfigDict(json_schema_extra={"example": {"coupon_code": _CODE, "basket_id": _BASKET}})

    coupon_code: CouponCode
    basket_id: uuid.UUID | None = Field(default=None, description="The basket whose other coupons must stack with it")


class ReleaseBody(_Body):
    model_config = ConfigDict(json_schema_extra={"example": {"coupon_code": _CODE, "basket_id": _BASKET}})

    coupon_code: CouponCode
    basket_id: uuid.UUID


class ReservationBody(ReleaseBody):
    model_config = ConfigDict(
        json_schema_extra={"example": {"coupon_code": _CODE, "basket_id": _BASKET, "seconds": 900}}
    )

    seconds: int = Field(
        default=int(RESERVATION_DEFAULT.total_seconds()), ge=1, le=int(RESERVATION_MAX.total_seconds())
    )


class OfflineRedemption(_Body):
    redemption_id: uuid.UUID = Field(description="Chosen by the till, new for each redemption")
    coupon_code: CouponCode
    at: When


class OfflineBody(_Body):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"redemptions": [{"redemption_id": _REDEMPTION, "coupon_code": _CODE, "at": _AT}]}
        }
    )

    redemptions: list[OfflineRedemption] = Field(min_length=1, max_length=BATCH_LINES_MAX)


class Text(BaseModel):
    zh: str
    en: str


class Coupon(BaseModel):
    """A coupon as a till sees it. `refusal` says why it cannot be used now, null: it can."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "coupon_id": _HELD,
                "benefit_id": _BENEFIT,
                "text": {"zh": "满十减五", "en": "5 off 10"},
                "value_fen": 500,
                "stackable": False,
                "expires_at": "2026-06-01T08:00:00.000Z",
                "state": "claimed",
                "refusal": None,
            }
        }
    )

    coupon_id: uuid.UUID | None
    benefit_id: uuid.UUID | None = None
    text: Text | None = None
    value_fen: int | None = None
    stackable: bool | None = None
    expires_at: At | None = None
    state: BenefitState | None = None
    refusal: dict[str, str] | None = Field(description="code and message, as in a refusal")


class Coupons(BaseModel):
    coupons: list[Coupon]


class Redeemed(BaseModel):
    """A coupon that was redeemed."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "redemption_id": _REDEMPTION,
                "coupon_id": _HELD,
                "benefit_id": _BENEFIT,
                "text": {"zh": "满十减五", "en": "5 off 10"},
                "value_fen": 500,
                "redeemed_at": _AT,
            }
        }
    )

    redemption_id: uuid.UUID
    coupon_id: uuid.UUID
    benefit_id: uuid.UUID
    text: Text
    value_fen: int
    redeemed_at: At


class RolledBack(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"redemption_id": _REDEMPTION, "rolled_back_at": _AT}})

    redemption_id: uuid.UUID
    rolled_back_at: At


class Line(BaseModel):
    redemption_id: uuid.UUID
    outcome: RedemptionOutcome | str = Field(description="redeemed, or why it does not stand")
    coupon_id: uuid.UUID | None
    value_fen: int | None


class Upload(BaseModel):
    """What became of each line, in the order in which they were sent, and how many had which outcome."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "counts": {"redeemed": 1},
                "lines": [{"redemption_id": _REDEMPTION, "outcome": "redeemed", "coupon_id": _HELD, "value_fen": 500}],
            }
        }
    )

    counts: dict[str, int]
    lines: list[Line]


class ConflictLine(BaseModel):
    """A redemption that a till made without network and that does not stand."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "shop_id": "0197f0f0-5c00-7000-8000-0000000000e1",
                "redemption_id": _REDEMPTION,
                "coupon_id": _HELD,
                "benefit_id": _BENEFIT,
                "outcome": "already_redeemed",
                "at": _AT,
                "recorded_at": "2026-05-01T20:00:00.000Z",
            }
        }
    )

    shop_id: uuid.UUID
    redemption_id: uuid.UUID
    coupon_id: uuid.UUID | None
    benefit_id: uuid.UUID | None
    outcome: RedemptionOutcome
    at: At
    recorded_at: At


def _till(key: ApiKey) -> Till:
    return Till(key.caller_id, None if key.brand_id is None else [key.brand_id])


@router.post("/shop/redemptions/validate", summary="Validate coupons")
async def validate(body: ValidationBody, services: Serve, authorization: Authorization = None) -> Coupons:
    """Look at up to ten coupons without using them, and whether they may be used together."""
    now = services.clock()
    async with services.database.reading() as session:
        key = await api_keys.authenticate(session, authorization, Role.SHOP)
        await till_limits.require_room(session, services.vault, key.caller_id, now)
        seen = await redemptions.validate(session, services.vault, _till(key), body.coupon_codes, now)
    misses = sum(isinstance(one, CouponUnknown) for one in seen)
    if misses:
        await count_misses(services, key.caller_id, misses, now)
    return Coupons(coupons=[_shown(one) for one in seen])


@router.post("/shop/redemptions", status_code=201, summary="Redeem a coupon", response_model=Redeemed)
async def redeem(
    body: RedemptionBody, services: Serve, once: OnlyOnce, authorization: Authorization = None
) -> dict[str, Any]:
    """Check a shopper's coupon off (核销). It works once; the same key and body get the same answer again."""
    now = services.clock()
    async with at_till(services, authorization, now) as (session, key):
        redemption_id = derived_id("redemption", key.caller_id, once.key)
        work = partial(_redeem, services, session, _till(key), body, redemption_id, now)
        return await once.run(session, key.caller_id, "redeem", body, now, work)


async def _redeem(
    services: Services, session: Session, till: Till, body: RedemptionBody, redemption_id: uuid.UUID, now: datetime
) -> Redeemed:
    done = await redemptions.redeem(
        session,
        services.vault,
        till,
        body.coupon_code,
        redemption_id=redemption_id,
        now=now,
        basket_id=body.basket_id,
    )
    return _redeemed(done)


@router.post("/shop/redemptions/offline", summary="Upload redemptions")
async def upload(body: OfflineBody, services: Serve, authorization: Authorization = None) -> Upload:
    """Tell of redemptions that the till made without network, each under an id that it chose; again, they count once.

    A line stands when the coupon was good at that time, was not used elsewhere, and ended at most 72 hours ago. Each
    line is a transaction of its own; one that does not stand is kept for the brand to see. After 429 send it again.
    """
    now = services.clock()
    done: dict[int, Line] = {}
    async with services.database.reading() as session:
        till = _till(await api_keys.authenticate(session, authorization, Role.SHOP))
        await till_limits.require_room(session, services.vault, till.shop_id, now)
    # The earliest first: of two lines about one coupon the first redemption stands.
    for line in sorted(body.redemptions, key=lambda line: line.at):
        made = OfflineLine(line.redemption_id, line.coupon_code, line.at)
        done[id(line)] = await _upload(services, till, made, now)
    lines = [done[id(line)] for line in body.redemptions]
    return Upload(counts=Counter(str(line.outcome) for line in lines), lines=lines)


async def _upload(services: Services, till: Till, line: OfflineLine, now: datetime) -> Line:
    try:
        async with services.database.writing() as session:
            one = await offline.upload(session, services.vault, till, line, now)
            if one.outcome is RedemptionOutcome.UNKNOWN and one.is_new:
                await till_limits.count_misses(session, services.vault, till.shop_id, now, 1)
    except RedemptionIdReused as refusal:
        return Line(redemption_id=line.redemption_id, outcome=refusal.code, coupon_id=None, value_fen=None)
    return Line(redemption_id=one.redemption_id, outcome=one.outcome, coupon_id=one.held_id, value_fen=one.value_fen)


@router.post("/shop/redemptions/{redemption_id}/rollback", summary="Roll a redemption back", response_model=RolledBack)
async def roll_back(
    redemption_id: uuid.UUID, services: Serve, once: OnlyOnce, authorization: Authorization = None
) -> dict[str, Any]:
    """Undo a redemption that this key made at most 30 minutes ago: the coupon is good again."""
    now = services.clock()
    async with services.database.writing() as session:
        key = await api_keys.authenticate(session, authorization, Role.SHOP)
        work = partial(_roll_back, session, _till(key), redemption_id, now)
        asked = {"redemption_id": str(redemption_id)}
        return await once.run(session, key.caller_id, "roll back", asked, now, work)


async def _roll_back(session: Session, till: Till, redemption_id: uuid.UUID, now: datetime) -> RolledBack:
    done = await redemptions.roll_back(session, till, redemption_id, now)
    assert done.rolled_back_at is not None
    return RolledBack(redemption_id=redemption_id, rolled_back_at=done.rolled_back_at)


@router.post("/shop/reservations", summary="Reserve a coupon")
async def reserve(body: ReservationBody, services: Serve, authorization: Authorization = None) -> Coupon:
    """Set a coupon aside for a basket, by default for 15 minutes: nobody else can use it till then.

    Asked again for the same basket it lasts longer; it ends by itself.
    """
    now, lasting = services.clock(), timedelta(seconds=body.seconds)
    async with at_till(services, authorization, now) as (session, key):
        seen = await baskets.reserve(
            session, services.vault, _till(key), body.coupon_code, basket_id=body.basket_id, now=now, lasting=lasting
        )
    return _shown(seen)


@router.post("/shop/reservations/release", summary="Release a coupon")
async def release(body: ReleaseBody, services: Serve, authorization: Authorization = None) -> Coupon:
    """Give up a coupon that the basket holds."""
    now = services.clock()
    async with at_till(services, authorization, now) as (session, key):
        seen = await baskets.release(
            session, services.vault, _till(key), body.coupon_code, basket_id=body.basket_id, now=now
        )
    return _shown(seen)


@router.get("/brand/{brand}/redemption-conflicts", summary="List redemptions that do not stand")
async def conflicts(
    brand: BrandSlug, services: Serve, paging: Paged, authorization: BrandKey = None
) -> Page[ConflictLine]:
    """What tills redeemed without network and should not have: used elsewhere, over, or unknown. Newest first."""
    async with services.database.reading() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND)
        brand_id = (await brand_named(session, brand)).brand_id
        assert brand_id is not None
        key.require_brand(brand_id)
        rows = await offline.conflicts_of(session, brand_id, paging.after(_CONFLICTS), paging.count)
    return Page[ConflictLine](
        **paging.page(_CONFLICTS, rows, lambda row: Position(row.recorded_at, row.redemption_id), _conflict)
    )


def _shown(seen: Seen | CouponUnknown) -> Coupon:
    refusal = seen if isinstance(seen, CouponUnknown) else seen.refusal
    told = {"code": refusal.code, "message": refusal.message} if refusal is not None else None
    if isinstance(seen, CouponUnknown):
        return Coupon(coupon_id=None, refusal=told)
    return Coupon(
        coupon_id=seen.held_id,
        benefit_id=seen.benefit_id,
        text=Text(zh=seen.text_zh, en=seen.text_en),
        value_fen=seen.value_fen,
        stackable=seen.stackable,
        expires_at=seen.expires_at,
        state=seen.state,
        refusal=told,
    )


def _redeemed(done: Redemption) -> Redeemed:
    return Redeemed(
        redemption_id=done.redemption_id,
        coupon_id=done.held_id,
        benefit_id=done.benefit_id,
        text=Text(zh=done.text_zh, en=done.text_en),
        value_fen=done.value_fen,
        redeemed_at=done.at,
    )


def _conflict(row: ShopRedemption) -> ConflictLine:
    return ConflictLine(
        shop_id=row.shop_id,
        redemption_id=row.redemption_id,
        coupon_id=row.held_id,
        benefit_id=row.benefit_id,
        outcome=RedemptionOutcome(row.outcome),
        at=row.at,
        recorded_at=row.recorded_at,
    )
