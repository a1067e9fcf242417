"""Expiry: the sweep that releases holds whose time is over and takes off points that ran out, and what is spendable."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, tuple_
from sqlmodel import col, func, select

from kit.clock import Clock
from kit.db import Database, Session, is_postgresql
from loyalty.ledger.accounts import LOCK_ORDER, POINTS, Account, AccountId, Purpose
from loyalty.ledger.holds import Hold, HoldState, Release, release
from loyalty.ledger.lots import PointsLot
from loyalty.ledger.transfers import Posting, moved_by

COUNT_MAX_DEFAULT = 500


@dataclass(frozen=True)
class Expired:
    """How many holds a sweep released, and of how many members it took off points. Zero twice: nothing is due."""

    holds: int
    lots: int


async def spendable(session: Session, member_id: uuid.UUID, now: datetime) -> int:
    """The points that a member can spend: those on his account less those that are due to expire; negative in debt."""
    balance = (
        select(Account.balance)
        .where(Account.holder_id == member_id, Account.asset == POINTS, Account.purpose == Purpose.AVAILABLE)
        .scalar_subquery()
    )
    due = (
        select(func.coalesce(func.sum(PointsLot.left), 0))
        .where(PointsLot.member_id == member_id, PointsLot.left > 0, col(PointsLot.expires_at) <= now)
        .scalar_subquery()
    )
    found = await session.exec(select(func.coalesce(balance, 0) - due))
    return int(found.one())


async def count_due(session: Session, now: datetime) -> Expired:
    """What sweeps would find now."""
    holds = select(func.count()).where(Hold.state == HoldState.PENDING, Hold.expires_at <= now)
    members = select(func.count(func.distinct(PointsLot.member_id))).where(
        PointsLot.left > 0, col(PointsLot.expires_at) <= now
    )
    return Expired((await session.exec(holds)).one(), (await session.exec(members)).one())


async def expire_due(session: Session, now: datetime, count_max: int = COUNT_MAX_DEFAULT) -> Expired:
    """Release at most `count_max` holds whose time is over, and take off what ran out of as many members' points.

    Several sweeps may run at once, each takes what the others leave. Call it until it finds nothing.
    """
    holds = await _due_holds(session, now, count_max)
    members = await _members_with_due_lots(session, now, count_max)
    touched = {AccountId(member_id, POINTS, Purpose.AVAILABLE) for member_id in members}
    for due in holds:
        touched |= (await moved_by(session, due.transfer())).keys()
    await lock(session, touched)
    for due in holds:
        await release(session, due.transfer_id, now, Release.EXPIRED)
    return Expired(len(holds), await _expire_lots(session, members, now))


async def sweep(database: Database, clock: Clock) -> Expired:
    """Do all that is due, in transactions of a portion each. Several processes may at once."""
    holds = members = 0
    while True:
        async with database.writing() as session:
            done = await expire_due(session, clock())
        holds, members = holds + done.holds, members + done.lots
        if not (done.holds or done.lots):
            return Expired(holds, members)


async def _due_holds(session: Session, now: datetime, count_max: int) -> list[Hold]:
    due = (
        select(Hold)
        .where(Hold.state == HoldState.PENDING, Hold.expires_at <= now)
        .order_by(col(Hold.expires_at), col(Hold.transfer_id))
        .limit(count_max)
    )
    return list(await session.exec(due.with_for_update(skip_locked=True)))


async def _members_with_due_lots(session: Session, now: datetime, count_max: int) -> list[uuid.UUID]:
    due = (
        select(Account.holder_id)
        .where(
            Account.asset == POINTS,
            Account.purpose == Purpose.AVAILABLE,
            col(Account.holder_id).in_(
                select(PointsLot.member_id)
                .where(PointsLot.left > 0, col(PointsLot.expires_at) <= now)
                .order_by(col(PointsLot.expires_at))
                .limit(count_max)
            ),
        )
        .order_by(col(Account.holder_id))
    )
    # A member who is busy just now expires his own points, or is met by the next sweep.
    return list(await session.exec(due.with_for_update(skip_locked=True)))


async def lock(session: Session, accounts: Collection[AccountId]) -> None:
    """Lock accounts that are there, in the order in which everybody does, for work on many of them."""
    if not accounts or not is_postgresql(session):
        return  # SQLite has one writer at a time
    position = case(LOCK_ORDER, value=col(Account.purpose))
    key = tuple_(col(Account.holder_id), col(Account.asset), col(Account.purpose))
    await session.exec(
        select(Account.seq)
        .where(key.in_([(account.holder_id, account.asset, account.purpose) for account in accounts]))
        .order_by(position, col(Account.holder_id), col(Account.asset))
        .with_for_update()
    )


async def _expire_lots(session: Session, members: list[uuid.UUID], now: datetime) -> int:
    if not members:
        return 0
    # One posting for all: what they lost comes to its accounts last, as everywhere.
    posting = Posting(session, await session.connection(), now)
    lost = [member_id for member_id in members if await posting.expire(member_id)]
    await posting.finish()
    return len(lost)
