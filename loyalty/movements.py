"""Movements across brands: where a group's points are earned and where they are spent, as counts and sums alone."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import CTE, Integer, Subquery, Uuid, column, func, select, union_all, values

from kit.db import Session, table_of
from loyalty import ledger
from loyalty.ledger import POINTS, STRIPES, AccountId, Entry, PointsLotUse, Purpose
from loyalty.members import Card

MEMBERS_MIN = 10
"""A figure that stands for fewer members is not shown."""


@dataclass(frozen=True)
class Flow:
    """Points earned at one brand and spent at another; `earned_at` None: by a merge, a correction or an unknown budget.

    None for both figures: fewer than 10 members stand behind them.
    """

    earned_at: int | None
    spent_at: int
    points: int | None
    members: int | None


@dataclass(frozen=True)
class Shared:
    """How many members have cards of both brands; None: fewer than 10."""

    brands: tuple[int, int]
    members: int | None


async def flows(session: Session, brand_ids: Collection[int], begin: datetime, end: datetime) -> list[Flow]:
    """What was spent at the brands from `begin` till before `end`, by the brand where it had been earned.

    No sums over rows or columns are given: with them, what is not shown could be told.
    """
    if not brand_ids:
        return []
    uses, spending = table_of(PointsLotUse), table_of(Entry).alias("spending")
    spent_at = _brands_of("spent_at", brand_ids, Purpose.SPENT)
    came_from = _sources(brand_ids)
    found = await (await session.connection()).execute(
        select(
            came_from.c.brand_id,
            spent_at.c.brand_id,
            func.sum(uses.c.amount - uses.c.returned),
            func.count(uses.c.member_id.distinct()),
        )
        .select_from(spending)
        .join(spent_at, spent_at.c.holder_id == spending.c.holder_id)
        .join(uses, uses.c.transfer_id == spending.c.transfer_id)
        .outerjoin(came_from, came_from.c.transfer_id == uses.c.lot_id)
        .where(
            spending.c.asset == POINTS,
            spending.c.purpose == str(Purpose.SPENT),
            spending.c.at >= begin,
            spending.c.at < end,
        )
        .group_by(came_from.c.brand_id, spent_at.c.brand_id)
    )
    shown = [
        Flow(earned, spent, int(points), members) if members >= MEMBERS_MIN else Flow(earned, spent, None, None)
        for earned, spent, points, members in found
    ]
    return sorted(shown, key=lambda flow: (flow.earned_at is None, flow.earned_at or 0, flow.spent_at))


async def shared(session: Session, brand_ids: Collection[int]) -> list[Shared]:
    """For each two of the brands, how many members have cards of both."""
    one, other = table_of(Card).alias("one"), table_of(Card).alias("other")
    found = await (await session.connection()).execute(
        select(one.c.brand_id, other.c.brand_id, func.count())
        .join(other, (other.c.member_id == one.c.member_id) & (other.c.brand_id > one.c.brand_id))
        .where(one.c.brand_id.in_(brand_ids), other.c.brand_id.in_(brand_ids))
        .group_by(one.c.brand_id, other.c.brand_id)
        .order_by(one.c.brand_id, other.c.brand_id)
    )
    return [Shared((first, second), count if count >= MEMBERS_MIN else None) for first, second, count in found]


def _sources(brand_ids: Collection[int]) -> Subquery:
    """Of every transfer that gave points away: the brand from whose issuance they came, at once or through a budget."""
    source, stripe, funding = (table_of(Entry).alias(name) for name in ("source", "stripe", "funding"))
    issuers = _brands_of("issuers", brand_ids, Purpose.ISSUANCE)
    funded = (
        select(stripe.c.holder_id, issuers.c.brand_id)
        .join(funding, funding.c.transfer_id == stripe.c.transfer_id)
        .join(issuers, issuers.c.holder_id == funding.c.holder_id)
        .where(
            stripe.c.asset == POINTS,
            stripe.c.purpose == str(Purpose.BUDGET),
            stripe.c.amount > 0,
            funding.c.asset == POINTS,
            funding.c.purpose == str(Purpose.ISSUANCE),
        )
        .distinct()
    )
    owners = union_all(select(issuers.c.holder_id, issuers.c.brand_id), funded).subquery()
    return (
        select(source.c.transfer_id, owners.c.brand_id)
        .join(owners, owners.c.holder_id == source.c.holder_id)
        .where(
            source.c.asset == POINTS,
            source.c.purpose.in_([str(Purpose.ISSUANCE), str(Purpose.BUDGET)]),
            source.c.amount < 0,
        )
        .subquery()
    )


def _brands_of(name: str, brand_ids: Collection[int], purpose: Purpose) -> CTE:
    """The holders of the brands' striped accounts, and whose they are."""
    holders = [
        (_account(brand_id, stripe, purpose).holder_id, brand_id) for brand_id in brand_ids for stripe in range(STRIPES)
    ]
    return values(column("holder_id", Uuid()), column("brand_id", Integer()), name=name).data(holders).cte(name)


def _account(brand_id: int, stripe: int, purpose: Purpose) -> AccountId:
    return ledger.spent(brand_id, stripe) if purpose is Purpose.SPENT else ledger.issuance(brand_id, POINTS, stripe)
