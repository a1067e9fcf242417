"""What moves when members are merged, and back when they are parted: balances by transfers, and benefits with them."""

import uuid
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Index, Text, update
from sqlmodel import Field, SQLModel, col, or_, select

from kit.db import Moment, Session
from kit.ids import derived_id
from loyalty import ledger, members, points_owed
from loyalty.benefits.held import BenefitState, MemberBenefit
from loyalty.benefits.stock import asset_of
from loyalty.ledger import Account, AccountId, Leg, PointsLot, Purpose, Transfer
from loyalty.ledger.accounts import holds_points

MOVED = (Purpose.AVAILABLE, Purpose.REDEEMED)
"""What moves: what a member holds and what he has used. What is set aside, on its way or delivered (HELD, PENDING,
DELIVERED) stays, for holds and orders name whose it is, and what was delivered may yet be reversed; what comes of it to
the member is brought by `merges.gather`."""
BENEFITS = "benefit:%"
"""Assets that move with the rows that say whose they are."""


class MemberMerge(SQLModel, table=True):
    """Two members who became one, and since when they are two again, if they are."""

    __tablename__: ClassVar[str] = "member_merge"
    __table_args__ = (
        CheckConstraint("approval IN ('codes', 'operator')", name="approval"),
        CheckConstraint("survivor_id <> merged_id", name="two"),
        Index("ix_member_merge_merged_id", "merged_id"),
    )

    survivor_id: uuid.UUID = Field(primary_key=True)
    merge_id: uuid.UUID = Field(primary_key=True)
    merged_id: uuid.UUID
    approval: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    cards: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """By brand: the survivor's day of joining before, null where he had no card."""
    benefits: list[str] = Field(sa_column=Column(JSON, nullable=False))
    """Which held benefits moved, by id."""
    points_owed: int = Field(default=0, sa_type=BigInteger)
    """What the merged member owed after refunds, and the survivor owes since."""
    at: datetime = Field(sa_type=Moment)
    undone_at: datetime | None = Field(default=None, sa_type=Moment)


class MergeMove(SQLModel, table=True):
    """What one transfer of a merge moved to the survivor: points of one expiry, or units of another asset."""

    __tablename__: ClassVar[str] = "member_merge_move"
    __table_args__ = (CheckConstraint("amount <> 0", name="amount"),)

    survivor_id: uuid.UUID = Field(primary_key=True)
    merge_id: uuid.UUID = Field(primary_key=True)
    transfer_id: uuid.UUID = Field(primary_key=True)
    asset: str = Field(sa_type=Text)
    purpose: str = Field(sa_type=Text)
    amount: int = Field(sa_type=BigInteger)
    """Below zero: a debt."""
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class Moved:
    """Units of one asset and purpose, with the day they run out."""

    asset: str
    purpose: Purpose
    amount: int
    expires_at: datetime | None


async def bring(session: Session, made: MemberMerge, now: datetime) -> int:
    """Move what the merged member holds, and what he owes, to the survivor; how many transfers it took."""
    # Benefits before accounts, as whoever takes a benefit back locks them.
    usable = await _hand_over(session, made.merged_id, made.survivor_id)
    moves: list[Moved] = []
    for asset, purpose, balance in await _held(session, made.merged_id):
        if holds_points(AccountId(made.merged_id, asset, purpose)):
            moves += await _points_by_expiry(session, made.merged_id, balance, now)
        else:
            moves.append(Moved(asset, purpose, balance, None))
    if usable:
        made.benefits = [*made.benefits, *map(str, usable)]
        session.add(made)
        moves += _benefits(usable)
    for number, move in enumerate(moves, len(await moves_of(session, made)) if moves else 0):
        transfer_id = derived_id("merge", made.merge_id, number)
        await _post(session, transfer_id, "members merged", made.merged_id, made.survivor_id, move, now)
        session.add(
            MergeMove(
                survivor_id=made.survivor_id,
                merge_id=made.merge_id,
                transfer_id=transfer_id,
                asset=move.asset,
                purpose=move.purpose,
                amount=move.amount,
                expires_at=move.expires_at,
                at=now,
            )
        )
    owed = await _hand_over_debt(session, made.merged_id, made.survivor_id)
    if owed:
        made.points_owed += owed
        session.add(made)
    await session.flush()
    return len(moves) + bool(owed)


async def _hand_over_debt(session: Session, from_id: uuid.UUID, to_id: uuid.UUID, most: int | None = None) -> int:
    """Let somebody else owe what refunds left a member owing, at most so much; how much it was."""
    owed = await points_owed.pay(session, from_id, most)
    if owed:
        await points_owed.owe(session, to_id, owed)
    return owed


async def _post(
    session: Session,
    transfer_id: uuid.UUID,
    reason: str,
    from_id: uuid.UUID,
    to_id: uuid.UUID,
    move: Moved,
    now: datetime,
    undoes: uuid.UUID | None = None,
) -> None:
    legs = (
        Leg(AccountId(from_id, move.asset, move.purpose), -move.amount),
        Leg(AccountId(to_id, move.asset, move.purpose), move.amount),
    )
    # A debt moves as the credit that pays it off, and the other one owes.
    transfer = Transfer(
        transfer_id, reason, legs, lots_expire_at=move.expires_at, undoes=undoes, moves_debt=move.amount < 0
    )
    await ledger.post(session, transfer, now)


async def _hand_over(
    session: Session, from_id: uuid.UUID, to_id: uuid.UUID, only: Collection[uuid.UUID] | None = None
) -> dict[uuid.UUID, uuid.UUID]:
    """Give the benefits that can be used to somebody else: the kind of each, by id.

    What is reserved, sent or used stays: tills and carriers know it by whose it was.
    """
    statement = (
        update(MemberBenefit)
        .where(
            col(MemberBenefit.member_id) == from_id,
            col(MemberBenefit.status).in_([BenefitState.ISSUED, BenefitState.CLAIMED]),
        )
        .values(member_id=to_id)
        .returning(col(MemberBenefit.held_id), col(MemberBenefit.benefit_id))
        .execution_options(synchronize_session=False)
    )
    if only is not None:
        statement = statement.where(col(MemberBenefit.held_id).in_(only))
    handed: dict[uuid.UUID, uuid.UUID] = {}
    for held_id, benefit_id in (await session.exec(statement)).all():
        handed[held_id] = benefit_id
    return handed


def _benefits(usable: Mapping[uuid.UUID, uuid.UUID]) -> list[Moved]:
    kinds = Counter(usable.values())
    return [Moved(asset_of(kind), Purpose.AVAILABLE, kinds[kind], None) for kind in sorted(kinds)]


async def _held(session: Session, member_id: uuid.UUID) -> list[tuple[str, Purpose, int]]:
    """Every balance that moves whole, its account locked till the end, in the ledger's order."""
    accounts = await session.exec(
        select(Account)
        .where(
            Account.holder_id == member_id,
            col(Account.purpose).in_([str(purpose) for purpose in MOVED]),
            col(Account.asset).not_like(BENEFITS),
            Account.balance != 0,
        )
        .order_by(col(Account.purpose), col(Account.asset))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return [(account.asset, Purpose(account.purpose), account.balance) for account in accounts]


async def _points_by_expiry(session: Session, member_id: uuid.UUID, balance: int, now: datetime) -> list[Moved]:
    """Points as they are used, the first to run out first: each transfer takes the lots of one day, and keeps it."""
    if balance < 0:
        return [Moved(ledger.POINTS, Purpose.AVAILABLE, balance, None)]
    lots = await ledger.lots_of(session, member_id, now)
    parts = [(sum(lot.left for lot in some), day) for day, some in groupby(lots, key=lambda lot: lot.expires_at)]
    return [Moved(ledger.POINTS, Purpose.AVAILABLE, left, day) for left, day in parts if left]


async def give_back(session: Session, made: MemberMerge, now: datetime) -> list[Moved]:
    """Move back what the merge brought and is still there, each transfer by one of its own."""
    moves = await session.exec(
        select(MergeMove)
        .where(
            MergeMove.survivor_id == made.survivor_id,
            MergeMove.merge_id == made.merge_id,
            col(MergeMove.asset).not_like(BENEFITS),
        )
        .order_by(col(MergeMove.at), col(MergeMove.transfer_id))
    )
    usable = await _hand_over(session, made.survivor_id, made.merged_id, [uuid.UUID(held) for held in made.benefits])
    left = {(asset, purpose): balance for asset, purpose, balance in await _held(session, made.survivor_id)}
    group_id = (await members.get(session, made.survivor_id)).group_id
    anew = ledger.lot_expiry(await ledger.policy_of(session, group_id), now)
    returned = []
    for move in moves.all():
        purpose = Purpose(move.purpose)
        account = AccountId(made.survivor_id, move.asset, purpose)
        balance = left.get((move.asset, purpose), 0)
        amount = await _still_there(session, move, account, max(balance, 0), now)
        if amount == 0:
            continue
        left[move.asset, purpose] = balance - amount
        # What paid a debt out of points that are known no more begins anew when the debt goes back.
        expires_at = move.expires_at if amount > 0 else anew
        back = Moved(move.asset, purpose, amount, expires_at)
        # Points go back into the lots that they came from, or that a debt was paid from, with their day.
        undoes = move.transfer_id if holds_points(account) else None
        transfer_id = derived_id("unmerge", move.transfer_id)
        await _post(session, transfer_id, "members parted", made.survivor_id, made.merged_id, back, now, undoes)
        returned.append(back)
    for back in _benefits(usable):
        transfer_id = derived_id("unmerge", made.merge_id, back.asset)
        await _post(session, transfer_id, "members parted", made.survivor_id, made.merged_id, back, now)
        returned.append(back)
    await _hand_over_debt(session, made.survivor_id, made.merged_id, made.points_owed)
    return returned


async def _still_there(session: Session, move: MergeMove, account: AccountId, balance: int, now: datetime) -> int:
    """How much of what a transfer brought is still the survivor's. A debt goes back whole, points that ran out stay."""
    if move.amount < 0:
        return move.amount
    if not holds_points(account):
        return min(move.amount, balance)
    lot = await session.exec(
        select(PointsLot.left).where(
            PointsLot.member_id == account.holder_id,
            PointsLot.lot_id == move.transfer_id,
            or_(col(PointsLot.expires_at).is_(None), col(PointsLot.expires_at) > now),
        )
    )
    return min(lot.first() or 0, balance)


async def were_one(session: Session, one: uuid.UUID, other: uuid.UUID) -> bool:
    """Whether one of the two was ever merged into the other, parted since or not."""
    both = [one, other]
    found = await session.exec(
        select(MemberMerge.merge_id).where(col(MemberMerge.survivor_id).in_(both), col(MemberMerge.merged_id).in_(both))
    )
    return found.first() is not None


async def moves_of(session: Session, made: MemberMerge) -> list[Moved]:
    """What a merge has moved."""
    moves = await session.exec(
        select(MergeMove)
        .where(MergeMove.survivor_id == made.survivor_id, MergeMove.merge_id == made.merge_id)
        .order_by(col(MergeMove.at), col(MergeMove.transfer_id))
    )
    return [Moved(move.asset, Purpose(move.purpose), move.amount, move.expires_at) for move in moves]
