"""Redemption (核销): a till looks at coupons, checks them off once, and may roll back."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import update
from sqlmodel import col

from kit.db import Session
from kit.errors import Conflict, NotFound
from kit.vault import Vault
from loyalty.benefits import baskets, tills
from loyalty.benefits.baskets import CouponsDoNotStack
from loyalty.benefits.held import BenefitState, MemberBenefit, Step, advance, move, row_of
from loyalty.benefits.tills import CouponUnknown, RedemptionOutcome, Seen, ShopRedemption, Till
from loyalty.ledger import Purpose

ROLLBACK_WITHIN = timedelta(minutes=30)


class RedemptionUnknown(NotFound):
    """This till made no such redemption."""

    code = "RedemptionUnknown"


class RollbackTooLate(Conflict):
    """A redemption is rolled back within 30 minutes, and only one that was good."""

    code = "RollbackTooLate"


@dataclass(frozen=True)
class Redemption:
    """A coupon that was redeemed. `is_new` is false on a repetition."""

    redemption_id: uuid.UUID
    held_id: uuid.UUID
    benefit_id: uuid.UUID
    brand_id: int
    text_zh: str
    text_en: str
    value_fen: int
    at: datetime
    is_new: bool


async def validate(
    session: Session, vault: Vault, till: Till, codes: Sequence[str], now: datetime
) -> list[Seen | CouponUnknown]:
    """Look at coupons without using them, in the order given. Several that do not stack are refused together."""
    found = [await tills.find(session, vault, till, code) for code in codes]
    alone = [held for held in found if held is not None and not held.stackable]
    held_ids = [held.held_id for held in found if held is not None]
    seen: list[Seen | CouponUnknown] = []
    for held in found:
        if held is None:
            seen.append(tills.unknown())
            continue
        refusal = tills.refusal_of(held, now, None)
        if refusal is None and held_ids.count(held.held_id) > 1:
            refusal = CouponsDoNotStack("the same coupon stands there twice")
        if refusal is None and alone and len(found) > 1:
            refusal = CouponsDoNotStack("these coupons cannot be used together", hint="Choose one of them.")
        seen.append(tills.seen(held, now, refusal))
    return seen


async def redeem(
    session: Session,
    vault: Vault,
    till: Till,
    code: str,
    *,
    redemption_id: uuid.UUID,
    now: datetime,
    basket_id: uuid.UUID | None = None,
) -> Redemption:
    """Check a coupon off. It works once, however many tills try; the same `redemption_id` again changes nothing.

    With a `basket_id` it may be one that the basket holds, and joins the basket's others if all of them stack. Raises
    CouponUnknown, CouponAlreadyRedeemed, CouponExpired, CouponReversed, CouponReserved, CouponsDoNotStack and
    RedemptionIdReused.
    """
    while True:
        held = await tills.find(session, vault, till, code)
        if held is None:
            raise tills.unknown()
        before = await tills.noted(session, till, redemption_id)
        if before is not None:
            return _again(held, before)
        refusal = tills.refusal_of(held, now, basket_id)
        if refusal is not None:
            raise refusal
        in_basket = held.status == BenefitState.RESERVED and held.basket_id == basket_id
        if basket_id is not None and not in_basket:
            await baskets.join(session, held, basket_id, now)
        if await tills.check_off(session, held, till, now, now, basket_id):
            await baskets.leave_lapsed(session, held, basket_id, now)
            good = RedemptionOutcome.REDEEMED
            if not await tills.note(session, till, redemption_id, held, good, at=now, now=now, offline=False):
                raise tills.reused()
            return _redemption(held, redemption_id, now, is_new=True)
        # Somebody changed it meanwhile. What this basket counted for it is counted again.
        if basket_id is not None and not in_basket:
            await baskets.leave(session, held, basket_id, now)


async def roll_back(session: Session, till: Till, redemption_id: uuid.UUID, now: datetime) -> ShopRedemption:
    """Undo a redemption of this till, at most 30 minutes after it was told. Again changes nothing.

    Raises RedemptionUnknown and RollbackTooLate.
    """
    undone = await session.exec(
        update(ShopRedemption)
        .where(
            col(ShopRedemption.shop_id) == till.shop_id,
            col(ShopRedemption.redemption_id) == redemption_id,
            col(ShopRedemption.outcome) == RedemptionOutcome.REDEEMED,
            col(ShopRedemption.recorded_at) >= now - ROLLBACK_WITHIN,
        )
        .values(outcome=RedemptionOutcome.ROLLED_BACK, rolled_back_at=now)
        .returning(ShopRedemption)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    row: ShopRedemption | None = undone.scalar_one_or_none()
    if row is None:
        before = await tills.noted(session, till, redemption_id)
        if before is None:
            raise RedemptionUnknown("this till made no such redemption")
        if before.outcome == RedemptionOutcome.ROLLED_BACK:
            return before
        raise RollbackTooLate("only a good redemption is rolled back, and within 30 minutes", hint="Ask the brand.")
    assert row.member_id is not None
    assert row.held_id is not None
    after = None
    while after is None:
        held = await row_of(session, row.member_id, row.held_id)
        after = await advance(
            session,
            held,
            BenefitState.CLAIMED,
            Step.ROLLED_BACK,
            now,
            by=till.shop_id,
            redeemed_at=None,
            redeemed_by=None,
            basket_id=None,
        )
    if held.basket_id is not None:
        await baskets.leave(session, held, held.basket_id, now)
    source, target = after.account(Purpose.REDEEMED), after.account(Purpose.AVAILABLE)
    await move(session, after, source, target, "redemption rolled back", now)
    return row


def _again(held: MemberBenefit, before: ShopRedemption) -> Redemption:
    if before.held_id != held.held_id or before.outcome != RedemptionOutcome.REDEEMED:
        raise tills.reused()
    return _redemption(held, before.redemption_id, before.at, is_new=False)


def _redemption(held: MemberBenefit, redemption_id: uuid.UUID, at: datetime, *, is_new: bool) -> Redemption:
    return Redemption(
        redemption_id=redemption_id,
        held_id=held.held_id,
        benefit_id=held.benefit_id,
        brand_id=held.brand_id,
        text_zh=held.text_zh,
        text_en=held.text_en,
        value_fen=held.value_fen,
        at=at,
        is_new=is_new,
    )
