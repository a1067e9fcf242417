"""Baskets: coupons that a till sets aside for a while, and the rule which of them may be used together."""

import uuid
from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import Boolean, CheckConstraint, delete, literal, or_, update
from sqlmodel import Field, SQLModel, col

from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid
from kit.vault import Vault
from loyalty import ledger
from loyalty.benefits import tills
from loyalty.benefits.catalogue import CODED
from loyalty.benefits.held import BenefitState, BenefitStateForbids, MemberBenefit, Step, advance, row_of
from loyalty.benefits.tills import Seen, Till
from loyalty.ledger import Leg, Purpose, Transfer

RESERVATION_DEFAULT = timedelta(minutes=15)
RESERVATION_MAX = timedelta(hours=1)
BASKET_COUPONS_MAX = 10
BASKET_LIFETIME = timedelta(days=2)
"""So long after its last coupon a basket is remembered."""


class CouponNotReserved(Conflict):
    """This basket does not hold the coupon."""

    code = "CouponNotReserved"


class CouponsDoNotStack(Conflict):
    """The basket has a coupon that allows no other beside it, or this one allows none."""

    code = "CouponsDoNotStack"


class ReservationInvalid(Invalid):
    """A reservation cannot be that long."""

    code = "ReservationInvalid"


class TillBasket(SQLModel, table=True):
    """A basket with coupons, one row of one brand: what decides whether another coupon may join."""

    __tablename__: ClassVar[str] = "till_basket"
    __table_args__ = (CheckConstraint(f"coupons BETWEEN 0 AND {BASKET_COUPONS_MAX}", name="coupons"),)

    brand_id: int = Field(primary_key=True)
    basket_id: uuid.UUID = Field(primary_key=True)
    coupons: int
    alone: bool = Field(sa_type=Boolean)
    """It has a coupon that allows no other."""
    touched_at: datetime = Field(sa_type=Moment, index=True)


async def reserve(
    session: Session,
    vault: Vault,
    till: Till,
    code: str,
    *,
    basket_id: uuid.UUID,
    now: datetime,
    lasting: timedelta = RESERVATION_DEFAULT,
) -> Seen:
    """Set a coupon aside for a basket: nobody else can use it till then. Again makes it last longer.

    Raises ReservationInvalid and what `redeem` raises.
    """
    while True:
        held = await tills.find(session, vault, till, code)
        if held is None:
            raise tills.unknown()
        after = await set_aside(session, held, basket_id, now, lasting, till.shop_id)
        if after is not None:
            return tills.seen(after, now, None)


async def reserve_own(
    session: Session,
    member_id: uuid.UUID,
    held_id: uuid.UUID,
    *,
    basket_id: uuid.UUID,
    now: datetime,
    lasting: timedelta = RESERVATION_DEFAULT,
) -> None:
    """The member sets his own coupon aside for an online basket. Raises HeldBenefitUnknown and as `reserve`."""
    after = None
    while after is None:
        held = await row_of(session, member_id, held_id)
        after = await set_aside(session, held, basket_id, now, lasting, None)


async def cancel_own(session: Session, member_id: uuid.UUID, held_id: uuid.UUID, now: datetime) -> None:
    """The member gives a reservation of his coupon up. Raises HeldBenefitUnknown and CouponNotReserved."""
    after = None
    while after is None:
        held = await row_of(session, member_id, held_id)
        after = await free(session, held, None, now, None)


async def set_aside(
    session: Session,
    held: MemberBenefit,
    basket_id: uuid.UUID,
    now: datetime,
    lasting: timedelta,
    by: uuid.UUID | None,
) -> MemberBenefit | None:
    """Reserve a held coupon; None: it changed meanwhile, read it again. Raises ReservationInvalid and a refusal."""
    if not timedelta(0) < lasting <= RESERVATION_MAX:
        raise ReservationInvalid(f"a reservation lasts 1 to {RESERVATION_MAX.total_seconds():.0f} s")
    if held.kind not in CODED:
        raise BenefitStateForbids(f"of the kind {held.kind}, which no till takes")
    refusal = tills.refusal_of(held, now, basket_id)
    if refusal is not None:
        raise refusal
    until = now + lasting
    anew = held.status != BenefitState.RESERVED or held.basket_id != basket_id
    if anew:
        await join(session, held, basket_id, now)
    after = await advance(
        session,
        held,
        BenefitState.RESERVED,
        Step.RESERVED,
        now,
        by=by,
        reserved_until=until,
        basket_id=basket_id,
    )
    if after is None:
        if anew:
            await leave(session, held, basket_id, now)
        return None
    if held.status == BenefitState.RESERVED:
        await tills.release_hold(session, held, now)
        await leave_lapsed(session, held, basket_id, now)
    legs = (Leg(after.account(Purpose.AVAILABLE), -1), Leg(after.account(Purpose.REDEEMED), 1))
    transfer = Transfer(after.transfer_id(after.turn), "coupon reserved", legs)
    await ledger.hold(session, transfer, now, until + tills.HOLD_MARGIN)
    return after


async def release(
    session: Session, vault: Vault, till: Till, code: str, *, basket_id: uuid.UUID, now: datetime
) -> Seen:
    """Give a coupon up that the basket holds. Raises CouponUnknown and CouponNotReserved."""
    while True:
        held = await tills.find(session, vault, till, code)
        if held is None:
            raise tills.unknown()
        after = await free(session, held, basket_id, now, till.shop_id)
        if after is not None:
            return tills.seen(after, now, None)


async def free(
    session: Session, held: MemberBenefit, basket_id: uuid.UUID | None, now: datetime, by: uuid.UUID | None
) -> MemberBenefit | None:
    """End a reservation; `basket_id` None: whosever it is. None: it changed meanwhile, read it again."""
    if held.status != BenefitState.RESERVED or held.kind not in CODED or basket_id not in (None, held.basket_id):
        raise CouponNotReserved("this basket does not hold the coupon")
    after = await advance(
        session, held, BenefitState.CLAIMED, Step.RELEASED, now, by=by, reserved_until=None, basket_id=None
    )
    if after is not None:
        await tills.release_hold(session, held, now)
        if held.basket_id is not None:
            await leave(session, held, held.basket_id, now)
    return after


async def join(session: Session, held: MemberBenefit, basket_id: uuid.UUID, now: datetime) -> None:
    """Count a coupon in a basket, which decides whether they may be used together. Raises CouponsDoNotStack."""
    alone = not held.stackable
    joined = await session.exec(
        insert(session, TillBasket)
        .values(brand_id=held.brand_id, basket_id=basket_id, coupons=1, alone=alone, touched_at=now)
        .on_conflict_do_update(
            index_elements=["brand_id", "basket_id"],
            set_={"coupons": col(TillBasket.coupons) + 1, "alone": alone, "touched_at": now},
            where=or_(
                col(TillBasket.coupons) == 0,
                ~col(TillBasket.alone) & literal(held.stackable) & (col(TillBasket.coupons) < BASKET_COUPONS_MAX),
            ),
        )
        .returning(col(TillBasket.coupons))
    )
    if joined.first() is None:
        raise CouponsDoNotStack(
            "this coupon cannot be used beside those in the basket",
            hint=f"A basket takes one coupon, or up to {BASKET_COUPONS_MAX} of those that stack.",
        )


async def leave_lapsed(session: Session, held: MemberBenefit, basket_id: uuid.UUID | None, now: datetime) -> None:
    """Uncount a coupon in the basket that it was read in, when that is not the one it is used in."""
    if held.status == BenefitState.RESERVED and held.basket_id not in (None, basket_id):
        await leave(session, held, held.basket_id, now)


async def leave(session: Session, held: MemberBenefit, basket_id: uuid.UUID, now: datetime) -> None:
    """Uncount a coupon in a basket."""
    await session.exec(
        update(TillBasket)
        .where(
            col(TillBasket.brand_id) == held.brand_id,
            col(TillBasket.basket_id) == basket_id,
            col(TillBasket.coupons) > 0,
        )
        # One that allows no other was the only one.
        .values(coupons=TillBasket.coupons - 1, alone=False, touched_at=now)
    )


async def sweep(session: Session, now: datetime) -> None:
    """Forget baskets that nobody touched for two days."""
    await session.exec(delete(TillBasket).where(col(TillBasket.touched_at) < now - BASKET_LIFETIME))
