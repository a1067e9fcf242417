"""What became of a benefit: every step counted, from procurement to the visit after the visit."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Interval, Text, cast, distinct, exists, func, literal, or_
from sqlmodel import col, select

from kit.db import Session, is_postgresql
from loyalty import ledger
from loyalty.benefits import stock
from loyalty.benefits.catalogue import Benefit
from loyalty.benefits.held import BenefitStep, MemberBenefit, Step
from loyalty.benefits.tills import RedemptionOutcome, ShopRedemption
from loyalty.ledger import Purpose
from loyalty.purchases import Purchase

DEAL_WITHIN_DAYS_DEFAULT = 7
DEAL_WITHIN_DAYS_MAX = 90
_BEFORE = timedelta(hours=1)
"""A purchase is often rung up before its coupon."""


@dataclass(frozen=True)
class BenefitReport:
    """The life of a benefit in numbers. Money in fen, `days` is the time within which a deal or a return counts.

    `redeemed` is net of what was rolled back. A visit is a member's day with a redemption; a deal a redemption with a
    purchase of the brand from an hour before it to `days` after it; a return visit a redemption whose member bought or
    redeemed again at the brand on a later day within `days`.
    """

    benefit_id: uuid.UUID
    procured: int
    stock: int
    issued: int
    claimed: int
    reserved: int
    redeemed: int
    rolled_back: int
    expired: int
    reversed: int
    conflicts: int
    visits: int
    deals: int
    deal_fen: int
    return_visits: int
    points_spent: int
    cost_fen: int
    days: int


async def of_benefit(session: Session, benefit: Benefit, days: int = DEAL_WITHIN_DAYS_DEFAULT) -> BenefitReport:
    """Count everything from the steps, which cannot disagree with themselves; a counter beside them would be a hot row.

    `days` 1..90. Run it in a session that sees one state of the database, such as `Database.reading`.
    """
    benefit_id = benefit.benefit_id
    steps = await _steps(session, benefit_id)
    spent = await session.exec(
        select(func.coalesce(func.sum(MemberBenefit.points_paid), 0)).where(
            MemberBenefit.benefit_id == benefit_id, MemberBenefit.status != "reversed"
        )
    )
    redeemed = steps.get(Step.REDEEMED, 0) - steps.get(Step.ROLLED_BACK, 0)
    deals, deal_fen = await _deals(session, benefit, days)
    asset = stock.asset_of(benefit_id)
    return BenefitReport(
        benefit_id=benefit_id,
        procured=-await ledger.total(session, Purpose.ISSUANCE, asset, benefit.brand_id),
        stock=(await stock.left(session, [benefit]))[benefit_id],
        issued=steps.get(Step.ISSUED, 0),
        claimed=await _claimed(session, benefit_id),
        reserved=steps.get(Step.RESERVED, 0),
        redeemed=redeemed,
        rolled_back=steps.get(Step.ROLLED_BACK, 0),
        expired=steps.get(Step.EXPIRED, 0),
        reversed=steps.get(Step.REVERSED, 0),
        conflicts=await _conflicts(session, benefit_id),
        visits=await _visits(session, benefit_id),
        deals=deals,
        deal_fen=deal_fen,
        return_visits=await _returns(session, benefit, days),
        points_spent=int(spent.one()),
        cost_fen=redeemed * benefit.cost_fen,
        days=days,
    )


async def _steps(session: Session, benefit_id: uuid.UUID) -> Mapping[str, int]:
    rows = await session.exec(
        select(BenefitStep.step, func.count()).where(BenefitStep.benefit_id == benefit_id).group_by(BenefitStep.step)
    )
    return dict(rows.all())


async def _claimed(session: Session, benefit_id: uuid.UUID) -> int:
    # A till may take a coupon that its member never looked at: taken is taken.
    rows = await session.exec(
        select(func.count(distinct(col(BenefitStep.held_id)))).where(
            BenefitStep.benefit_id == benefit_id,
            col(BenefitStep.step).in_([Step.CLAIMED, Step.RESERVED, Step.REDEEMED]),
        )
    )
    return rows.one()


async def _conflicts(session: Session, benefit_id: uuid.UUID) -> int:
    good = (RedemptionOutcome.REDEEMED, RedemptionOutcome.ROLLED_BACK)
    rows = await session.exec(
        select(func.count()).where(ShopRedemption.benefit_id == benefit_id, col(ShopRedemption.outcome).not_in(good))
    )
    return rows.one()


def _day(session: Session, at: Any) -> ColumnElement[str]:
    """The day of a moment in China."""
    if is_postgresql(session):
        return func.to_char(func.timezone("Asia/Shanghai", at), "YYYY-MM-DD", type_=Text)
    return func.date(at, "+8 hours", type_=Text)


async def _visits(session: Session, benefit_id: uuid.UUID) -> int:
    days = (
        select(ShopRedemption.member_id, _day(session, ShopRedemption.at).label("day"))
        .where(ShopRedemption.benefit_id == benefit_id, ShopRedemption.outcome == RedemptionOutcome.REDEEMED)
        .distinct()
        .subquery()
    )
    return (await session.exec(select(func.count()).select_from(days))).one()


def _redeemed(benefit_id: uuid.UUID) -> Any:
    return (
        select(MemberBenefit.member_id, MemberBenefit.held_id, MemberBenefit.redeemed_at)
        .where(MemberBenefit.benefit_id == benefit_id, MemberBenefit.status == "redeemed")
        .subquery()
    )


def _later(session: Session, at: Any, shift: timedelta) -> ColumnElement[Any]:
    """The moment so much later, in the form in which moments are stored."""
    if is_postgresql(session):
        later: ColumnElement[Any] = at + literal(shift, Interval())
        return later
    return func.strftime("%Y-%m-%d %H:%M:%f", at, f"{shift.total_seconds():+.0f} seconds", type_=Text)


def _of_time(session: Session, moment: Any) -> Any:
    """A stored moment as `_later` gives it."""
    return moment if is_postgresql(session) else cast(moment, Text)


async def _deals(session: Session, benefit: Benefit, days: int) -> tuple[int, int]:
    redeemed = _redeemed(benefit.benefit_id)
    bought = _of_time(session, Purchase.at)
    deals = (
        select(redeemed.c.held_id, Purchase.purchase_id, Purchase.paid_fen - Purchase.refunded_fen)
        .join(Purchase, col(Purchase.member_id) == redeemed.c.member_id)
        .where(
            Purchase.brand_id == benefit.brand_id,
            bought >= _later(session, redeemed.c.redeemed_at, -_BEFORE),
            bought < _later(session, redeemed.c.redeemed_at, timedelta(days=days)),
        )
    )
    found = deals.subquery()
    # Two coupons of one purchase are two deals, and its money counts once.
    purchases = (
        deals.with_only_columns(
            col(Purchase.purchase_id),
            (col(Purchase.paid_fen) - col(Purchase.refunded_fen)).label("fen"),
            maintain_column_froms=True,
        )
        .distinct()
        .subquery()
    )
    count = (await session.exec(select(func.count(distinct(found.c.held_id))))).one()
    fen = (await session.exec(select(func.coalesce(func.sum(purchases.c.fen), 0)))).one()
    return count, int(fen)


async def _returns(session: Session, benefit: Benefit, days: int) -> int:
    redeemed = _redeemed(benefit.benefit_id)
    back = [
        (col(Purchase.member_id), col(Purchase.at), col(Purchase.brand_id)),
        (col(MemberBenefit.member_id), col(MemberBenefit.redeemed_at), col(MemberBenefit.brand_id)),
    ]
    again = [
        exists().where(
            member_id == redeemed.c.member_id,
            brand_id == benefit.brand_id,
            _of_time(session, at) < _later(session, redeemed.c.redeemed_at, timedelta(days=days)),
            _day(session, at) > _day(session, redeemed.c.redeemed_at),
        )
        for member_id, at, brand_id in back
    ]
    return (await session.exec(select(func.count()).select_from(redeemed).where(or_(*again)))).one()
