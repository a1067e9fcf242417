"""Giving benefits: bought with points, granted for nothing, and used at once where they are of that kind."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, func, update
from sqlmodel import col, select

from kit.db import Session, insert_into, is_postgresql
from kit.errors import Conflict
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import budgets, ledger, webhooks
from loyalty.benefits import code_pools, coupon_codes, limits, stock, using
from loyalty.benefits.catalogue import (
    AT_ONCE,
    Benefit,
    BenefitKind,
    BenefitPrice,
    BenefitUnknown,
    expiry,
    get,
    require_open,
)
from loyalty.benefits.held import (
    WHY_CHARACTERS_MAX,
    BenefitState,
    BenefitStep,
    HeldBenefit,
    MemberBenefit,
    Step,
    find_row,
    record,
    shown,
)
from loyalty.benefits.stock import BenefitOutOfStock
from loyalty.budgets import Budget
from loyalty.ledger import AccountId, InsufficientBalance, Leg, Purpose, Transfer, TransferIdReused
from loyalty.members import Card, Member
from loyalty.webhooks import WebhookKind


class BenefitNotForTier(Conflict):
    """The member's tier cannot buy it, or nobody can."""

    code = "BenefitNotForTier"


class BenefitPriceChanged(Conflict):
    """It costs other than the member was shown. `points` is the price now."""

    code = "BenefitPriceChanged"

    def __init__(self, points: int) -> None:
        super().__init__(f"this benefit costs {points} points now", hint="Ask the member again.")
        self.points = points


class PointsShort(Conflict):
    """The member has fewer points than it costs."""

    code = "PointsShort"


@dataclass(frozen=True)
class _Gift:
    """One benefit on its way to a member, for `points` or for nothing."""

    held_id: uuid.UUID
    member_id: uuid.UUID
    benefit: Benefit
    points: int
    why: str
    bought: bool
    now: datetime
    paid: bool = False
    """It lies on the member's account already."""


async def obtain(
    session: Session,
    vault: Vault,
    *,
    obtain_id: uuid.UUID,
    member_id: uuid.UUID,
    benefit_id: uuid.UUID,
    now: datetime,
    points_expected: int | None = None,
) -> HeldBenefit:
    """Buy a benefit with the group's points, at the price of the tier of the member's card of the benefit's brand.

    The same `obtain_id` again changes nothing. `points_expected` is the price that the member saw. Raises
    BenefitUnknown, BenefitNotOpen, BenefitNotForTier, BenefitPriceChanged, BenefitLimitReached, BenefitOutOfStock and
    PointsShort; the caller's transaction must then be rolled back.
    """
    before = await _before(session, vault, member_id, obtain_id, benefit_id, now)
    if before is not None:
        return before
    benefit, points = await _priced(session, member_id, benefit_id)
    require_open(benefit, now)
    if points is None:
        raise BenefitNotForTier("this benefit is not for your tier", hint="See its prices by tier.")
    if points_expected not in (None, points):
        raise BenefitPriceChanged(points)
    return await _give(session, vault, _Gift(obtain_id, member_id, benefit, points, "obtained", True, now))


async def grant(
    session: Session,
    vault: Vault,
    *,
    grant_id: uuid.UUID,
    member_id: uuid.UUID,
    benefit_id: uuid.UUID,
    why: str,
    now: datetime,
) -> HeldBenefit:
    """Give a benefit for nothing: as a prize, for a birthday, for a task. `why` has at most 80 characters.

    The same `grant_id` again changes nothing. Raises BenefitUnknown, BenefitNotOpen, BenefitLimitReached and
    BenefitOutOfStock; the caller's transaction must then be rolled back.
    """
    benefit = await get(session, benefit_id)
    gift = _Gift(grant_id, member_id, benefit, 0, why[:WHY_CHARACTERS_MAX], False, now)
    return await _give(session, vault, gift)


async def write_out(
    session: Session,
    vault: Vault,
    *,
    held_id: uuid.UUID,
    member_id: uuid.UUID,
    benefit_id: uuid.UUID,
    why: str,
    now: datetime,
) -> HeldBenefit:
    """Write a benefit out that the caller has moved to the member's account, under the transfer id `held_id`.

    For a campaign that pays out of its budget, see `escrow`: its own limits hold, the benefit's do not. Again changes
    nothing.
    """
    benefit = await get(session, benefit_id)
    gift = _Gift(held_id, member_id, benefit, 0, why[:WHY_CHARACTERS_MAX], False, now, paid=True)
    return await _give(session, vault, gift)


async def escrow(
    session: Session, benefit_id: uuid.UUID, brand_id: int, budget: Budget, count: int, now: datetime
) -> None:
    """Set stock aside for a campaign: `count` move from the benefit's stock into the budget.

    Raises BenefitUnknown (of another brand, too), BenefitOutOfStock, and what `budgets.fund` raises.
    """
    benefit = await get(session, benefit_id)
    if benefit.brand_id != brand_id:
        raise BenefitUnknown("this brand has no such benefit")
    gathered = AccountId(derived_id("benefit-escrow", budget.budget_id), budget.asset, Purpose.BUDGET)
    await stock.gather(session, benefit, count, gathered, derived_id("benefit-escrow", budget.budget_id), now)
    await budgets.fund(session, budget, count, gathered, now)


async def _before(
    session: Session, vault: Vault, member_id: uuid.UUID, held_id: uuid.UUID, benefit_id: uuid.UUID, now: datetime
) -> HeldBenefit | None:
    held = await find_row(session, member_id, held_id)
    if held is None:
        return None
    if held.benefit_id != benefit_id:
        raise TransferIdReused(f"{held_id} was already used for another benefit", hint="Choose a new id.")
    return shown(vault, held, now)


async def _priced(session: Session, member_id: uuid.UUID, benefit_id: uuid.UUID) -> tuple[Benefit, int | None]:
    rank = func.coalesce(Card.tier_rank, 0)
    price = (
        select(BenefitPrice.points)
        .where(BenefitPrice.benefit_id == Benefit.benefit_id, col(BenefitPrice.tier_rank) <= rank)
        .order_by(col(BenefitPrice.tier_rank).desc())
        .limit(1)
        .correlate(Benefit, Card)
        .scalar_subquery()
    )
    found = await session.exec(
        select(Benefit, price)
        .join(Member, col(Member.group_id) == Benefit.group_id)
        .outerjoin(Card, and_(col(Card.member_id) == Member.member_id, col(Card.brand_id) == Benefit.brand_id))
        .where(Benefit.benefit_id == benefit_id, Member.member_id == member_id)
    )
    row = found.first()
    if row is None:
        raise BenefitUnknown("no such benefit for this member")
    return row[0], row[1]


async def _handed_on(session: Session, vault: Vault, gift: _Gift) -> HeldBenefit | None:
    """The benefit, if this member was given it before and was merged into, or parted from, somebody who has it now."""
    if await session.get(BenefitStep, (gift.member_id, gift.held_id, 0)) is None:
        return None
    found = await session.exec(
        select(MemberBenefit).where(
            MemberBenefit.benefit_id == gift.benefit.benefit_id, MemberBenefit.held_id == gift.held_id
        )
    )
    held = found.first()
    if held is None:
        raise TransferIdReused(f"{gift.held_id} was already used for another benefit", hint="Choose a new id.")
    return shown(vault, held, gift.now)


async def _give(session: Session, vault: Vault, gift: _Gift) -> HeldBenefit:
    before = None if gift.paid else await _handed_on(session, vault, gift)
    if before is not None:
        return before
    held = _written(vault, gift)
    added = await session.exec(_ADDING[is_postgresql(session)], params={name: getattr(held, name) for name in _COLUMNS})
    if added.first() is None:
        before = await _before(session, vault, gift.member_id, gift.held_id, gift.benefit.benefit_id, gift.now)
        assert before is not None
        return before
    if not gift.paid:
        require_open(gift.benefit, gift.now)
        # Everybody locks in this order: held benefit, limit, stock, the member's accounts.
        await limits.count(session, gift.member_id, gift.benefit, gift.now)
        await _pay(session, gift, held)
    if held.kind == BenefitKind.POOL:
        await _deal(session, vault, held)
    if held.kind in AT_ONCE:
        await using.use(session, held, gift.now)
        steps = [Step.ISSUED, Step.CLAIMED, Step.REDEEMED]
    else:
        steps = [Step.ISSUED, Step.CLAIMED][: held.turn + 1]
    await record(session, held, 0, steps, gift.now, gift.now)
    told = {"benefit_id": str(held.benefit_id), "member_id": str(held.member_id), "points": held.points_paid}
    await webhooks.emit(session, held.brand_id, WebhookKind.BENEFIT_ISSUED, held.held_id, told, gift.now)
    return shown(vault, held, gift.now, is_new=True)


def paid_out(
    vault: Vault, benefit: Benefit, member_id: uuid.UUID, held_id: uuid.UUID, why: str, now: datetime
) -> MemberBenefit:
    """The row of a benefit that `write_out` would write, for `benefits.paid`."""
    return _written(vault, _Gift(held_id, member_id, benefit, 0, why, False, now, paid=True))


def _written(vault: Vault, gift: _Gift) -> MemberBenefit:
    benefit, at_once = gift.benefit, gift.benefit.kind in AT_ONCE
    code = coupon_codes.new_code() if benefit.kind == BenefitKind.COUPON else None
    state = BenefitState.CLAIMED if gift.bought else BenefitState.ISSUED
    return MemberBenefit(
        member_id=gift.member_id,
        held_id=gift.held_id,
        benefit_id=benefit.benefit_id,
        brand_id=benefit.brand_id,
        group_id=benefit.group_id,
        kind=benefit.kind,
        text_zh=benefit.text_zh or benefit.name_zh,
        text_en=benefit.text_en or benefit.name_en,
        amount=benefit.amount,
        value_fen=benefit.value_fen,
        points_paid=gift.points,
        paid_by=gift.member_id if gift.points else None,
        stackable=benefit.stackable,
        why=gift.why,
        code_fingerprint=coupon_codes.fingerprint(vault, code) if code else None,
        code_sealed=coupon_codes.seal(vault, code, gift.held_id) if code else None,
        status=BenefitState.REDEEMED if at_once else state,
        turn=2 if at_once else int(gift.bought),
        issued_at=gift.now,
        expires_at=expiry(benefit, gift.now),
        redeemed_at=gift.now if at_once else None,
    )


_COLUMNS = tuple(MemberBenefit.__table__.columns.keys())  # type: ignore[attr-defined]  # SQLModel adds it at run time


def _adding(*, on_postgresql: bool) -> Any:
    return (
        insert_into(MemberBenefit, on_postgresql=on_postgresql)
        .values({name: bindparam(name) for name in _COLUMNS})
        .on_conflict_do_nothing()
        .returning(col(MemberBenefit.held_id))
    )


_ADDING = {on_postgresql: _adding(on_postgresql=on_postgresql) for on_postgresql in (False, True)}


async def _pay(session: Session, gift: _Gift, held: MemberBenefit) -> None:
    legs = [stock.take(gift.benefit, gift.held_id), Leg(held.account(Purpose.AVAILABLE), 1)]
    if gift.points:
        spent = ledger.spent(gift.benefit.brand_id, gift.held_id)
        legs += [Leg(using.points_of(gift.member_id), -gift.points), Leg(spent, gift.points)]
    transfer = Transfer(gift.held_id, f"benefit {'obtained' if gift.bought else 'granted'}", tuple(legs))
    try:
        await ledger.post(session, transfer, gift.now)
    except InsufficientBalance:
        if gift.points and await ledger.spendable(session, gift.member_id, gift.now) < gift.points:
            raise PointsShort(f"this benefit costs {gift.points} points, which is more than you have") from None
        raise BenefitOutOfStock("there is none left of this benefit") from None


async def _deal(session: Session, vault: Vault, held: MemberBenefit) -> None:
    dealt = await code_pools.deal(session, vault, held.benefit_id, held.member_id, held.held_id)
    if dealt is None:
        raise BenefitOutOfStock("there is no code left of this benefit")
    held.code_fingerprint, code = dealt
    held.code_sealed = coupon_codes.seal(vault, code, held.held_id)
    await session.exec(
        update(MemberBenefit)
        .where(col(MemberBenefit.member_id) == held.member_id, col(MemberBenefit.held_id) == held.held_id)
        .values(code_fingerprint=held.code_fingerprint, code_sealed=held.code_sealed)
    )
