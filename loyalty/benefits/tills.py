"""Tills: how a coupon's code is found at a shop's counter, why it is refused there, and the one way to check it off."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import Boolean, CheckConstraint, Index, LargeBinary, Text, text
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, FanxingError, NotFound
from kit.vault import Vault
from loyalty import ledger, webhooks
from loyalty.benefits import coupon_codes
from loyalty.benefits.held import LIVE, BenefitState, MemberBenefit, Step, advance, apart, move
from loyalty.ledger import Purpose, Release
from loyalty.webhooks import WebhookKind

CODE_CHARACTERS_MAX = 80
HOLD_MARGIN = timedelta(minutes=1)
"""The ledger's hold outlives the reservation a little, so that a sweep never ends one that a till still may use."""


class CouponUnknown(NotFound):
    """There is no such coupon, or it is of a brand that this shop does not serve."""

    code = "CouponUnknown"


class CouponAlreadyRedeemed(Conflict):
    """The coupon was used before. `redeemed_at` says when."""

    code = "CouponAlreadyRedeemed"

    def __init__(self, redeemed_at: datetime) -> None:
        super().__init__("this coupon was already redeemed")
        self.redeemed_at = redeemed_at


class CouponExpired(Conflict):
    """The coupon's time is over."""

    code = "CouponExpired"


class CouponReversed(Conflict):
    """The brand took the coupon back."""

    code = "CouponReversed"


class CouponReserved(Conflict):
    """Another basket holds the coupon. `until` says how long at most."""

    code = "CouponReserved"

    def __init__(self, until: datetime) -> None:
        super().__init__("another basket holds this coupon", hint="It becomes free when that basket is given up.")
        self.until = until


class RedemptionIdReused(Conflict):
    """The till used the redemption id for another coupon."""

    code = "RedemptionIdReused"


class RedemptionOutcome(StrEnum):
    """What became of a till's redemption. All but the first two are conflicts, which only an upload leaves behind."""

    REDEEMED = "redeemed"
    ROLLED_BACK = "rolled_back"
    ALREADY_REDEEMED = "already_redeemed"
    EXPIRED = "expired"
    """It was over when the till took it."""
    NOT_YET_ISSUED = "not_yet_issued"
    REVERSED = "reversed"
    UNKNOWN = "unknown"
    TOO_LATE = "too_late"
    """It was good then, and was told later than 72 hours after its end."""
    TIME_REFUSED = "time_refused"
    """The till's time lies ahead, or more than seven days back."""


_GOOD = (RedemptionOutcome.REDEEMED, RedemptionOutcome.ROLLED_BACK)


class ShopRedemption(SQLModel, table=True):
    """A redemption that a till told of, under the id that it chose. Distributed by the till."""

    __tablename__: ClassVar[str] = "shop_redemption"
    __table_args__ = (
        CheckConstraint(
            f"outcome IN ({', '.join(repr(str(outcome)) for outcome in RedemptionOutcome)})", name="outcome"
        ),
        CheckConstraint("(outcome = 'rolled_back') = (rolled_back_at IS NOT NULL)", name="rolled_back"),
        Index("ix_shop_redemption_benefit_id", "benefit_id"),
        Index(
            "ix_shop_redemption_conflict",
            "brand_id",
            "recorded_at",
            "redemption_id",
            postgresql_where=text("outcome NOT IN ('redeemed', 'rolled_back')"),
            sqlite_where=text("outcome NOT IN ('redeemed', 'rolled_back')"),
        ),
    )

    shop_id: uuid.UUID = Field(primary_key=True)
    redemption_id: uuid.UUID = Field(primary_key=True)
    code_fingerprint: bytes = Field(sa_type=LargeBinary)
    member_id: uuid.UUID | None = None
    held_id: uuid.UUID | None = None
    benefit_id: uuid.UUID | None = None
    brand_id: int | None = None
    outcome: str = Field(sa_type=Text)
    offline: bool = Field(sa_type=Boolean)
    at: datetime = Field(sa_type=Moment)
    recorded_at: datetime = Field(sa_type=Moment)
    rolled_back_at: datetime | None = Field(default=None, sa_type=Moment)


@dataclass(frozen=True)
class Till:
    """Who redeems: the caller's id, and the brands that it serves, None: all."""

    shop_id: uuid.UUID
    brand_ids: Collection[int] | None


@dataclass(frozen=True)
class Seen:
    """A coupon as a till sees it. `refusal` says why it cannot be used now."""

    held_id: uuid.UUID
    benefit_id: uuid.UUID
    brand_id: int
    text_zh: str
    text_en: str
    value_fen: int
    stackable: bool
    expires_at: datetime | None
    state: BenefitState
    refusal: FanxingError | None


async def find(session: Session, vault: Vault, till: Till, code: str) -> MemberBenefit | None:
    """The coupon with this code as it is now, if the till serves its brand; None: there is none."""
    wanted = (
        select(MemberBenefit)
        .where(col(MemberBenefit.code_fingerprint).in_(fingerprints(vault, code)))
        # Two brands may have been sold one code; what can be used comes first.
        .order_by(col(MemberBenefit.status).in_(LIVE).desc(), col(MemberBenefit.held_id))
        .limit(1)
    )
    if till.brand_ids is not None:
        wanted = wanted.where(col(MemberBenefit.brand_id).in_(till.brand_ids))
    held = (await session.exec(wanted)).first()
    return apart(session, held) if held is not None else None


def fingerprints(vault: Vault, code: str) -> tuple[bytes, bytes]:
    """What a typed text may be: a code of our own, or one of a pool."""
    return coupon_codes.fingerprint(vault, code), coupon_codes.pool_fingerprint(vault, code)


def refusal_of(held: MemberBenefit, now: datetime, basket_id: uuid.UUID | None) -> FanxingError | None:
    """Why the coupon cannot be used now, in this basket or, None, in none; None: it can."""
    state = held.state_at(now)
    if state is BenefitState.REDEEMED and held.redeemed_at is not None:
        return CouponAlreadyRedeemed(held.redeemed_at)
    if state is BenefitState.REVERSED:
        return CouponReversed("this coupon was taken back")
    if state is BenefitState.EXPIRED:
        return CouponExpired("this coupon's time is over")
    if state is BenefitState.RESERVED and (held.basket_id is None or held.basket_id != basket_id):
        assert held.reserved_until is not None
        return CouponReserved(held.reserved_until)
    return None


async def check_off(
    session: Session, held: MemberBenefit, till: Till, at: datetime, now: datetime, basket_id: uuid.UUID | None = None
) -> bool:
    """Make a coupon redeemed, from whatever state it was read in; false: it changed meanwhile."""
    after = await advance(
        session,
        held,
        BenefitState.REDEEMED,
        Step.REDEEMED,
        now,
        at=at,
        by=till.shop_id,
        redeemed_at=at,
        redeemed_by=till.shop_id,
        reserved_until=None,
        basket_id=basket_id,
    )
    if after is None:
        return False
    if held.status == BenefitState.RESERVED and held.reserved_until is not None and held.reserved_until > now:
        await ledger.settle(session, held.transfer_id(held.turn), now)
    else:
        if held.status == BenefitState.RESERVED:
            await release_hold(session, held, now)
        source, target = after.account(Purpose.AVAILABLE), after.account(Purpose.REDEEMED)
        await move(session, after, source, target, "coupon redeemed", now)
    told = {"benefit_id": str(held.benefit_id), "member_id": str(held.member_id), "value_fen": held.value_fen}
    await webhooks.emit(session, held.brand_id, WebhookKind.BENEFIT_REDEEMED, held.held_id, told, now)
    return True


async def release_hold(session: Session, held: MemberBenefit, now: datetime) -> None:
    """End the ledger's hold of a coupon that was read as reserved."""
    over = held.reserved_until is not None and held.reserved_until + HOLD_MARGIN <= now
    why = Release.EXPIRED if over else Release.VOIDED
    await ledger.release(session, held.transfer_id(held.turn), now, why)


async def noted(session: Session, till: Till, redemption_id: uuid.UUID) -> ShopRedemption | None:
    """What the till told of under this id before."""
    return await session.get(ShopRedemption, (till.shop_id, redemption_id), populate_existing=True)


async def note(
    session: Session,
    till: Till,
    redemption_id: uuid.UUID,
    held: MemberBenefit | None,
    outcome: RedemptionOutcome,
    *,
    at: datetime,
    now: datetime,
    offline: bool,
    fingerprint: bytes | None = None,
) -> bool:
    """Write a redemption down under the till's id; false: the id was taken meanwhile."""
    [only_brand] = till.brand_ids if till.brand_ids is not None and len(till.brand_ids) == 1 else [None]
    added = await session.exec(
        insert(session, ShopRedemption)
        .values(
            shop_id=till.shop_id,
            redemption_id=redemption_id,
            code_fingerprint=(held.code_fingerprint if held else None) or fingerprint,
            member_id=held.member_id if held else None,
            held_id=held.held_id if held else None,
            benefit_id=held.benefit_id if held else None,
            brand_id=held.brand_id if held else only_brand,
            outcome=outcome,
            offline=offline,
            at=at,
            recorded_at=now,
        )
        .on_conflict_do_nothing()
        .returning(col(ShopRedemption.redemption_id))
    )
    return added.first() is not None


def seen(held: MemberBenefit, now: datetime, refusal: FanxingError | None) -> Seen:
    """The coupon as a till sees it."""
    return Seen(
        held_id=held.held_id,
        benefit_id=held.benefit_id,
        brand_id=held.brand_id,
        text_zh=held.text_zh,
        text_en=held.text_en,
        value_fen=held.value_fen,
        stackable=held.stackable,
        expires_at=held.expires_at,
        state=held.state_at(now),
        refusal=refusal,
    )


def unknown() -> CouponUnknown:
    return CouponUnknown("no such coupon", hint="Check the code for typing errors.")


def reused() -> RedemptionIdReused:
    return RedemptionIdReused("this redemption id was already used", hint="Choose a new one for each redemption.")
