"""Points lots: which earning the points of a member stem from, so that the earliest to expire are used first.

Whoever changes a member's lots holds the lock on his account of points (`entries.add`, `entries.take`), so that reading
them and writing them is one step.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Insert,
    Select,
    Subquery,
    Update,
    Uuid,
    bindparam,
    case,
    cast,
    func,
    literal,
    text,
    update,
)
from sqlalchemy import select as core_select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel, col, or_, select

from kit.db import Moment, Session, table_of

LOTS_LISTED_MAX = 1_000


class PointsLot(SQLModel, table=True):
    """Points that one transfer brought a member. `left` is what he has not used; no `expires_at`: it never expires."""

    __tablename__: ClassVar[str] = "points_lot"
    __table_args__ = (
        CheckConstraint('amount > 0 AND "left" BETWEEN 0 AND amount', name="left"),
        Index(
            "ix_points_lot_due",
            "expires_at",
            postgresql_where=text('"left" > 0 AND expires_at IS NOT NULL'),
            sqlite_where=text('"left" > 0 AND expires_at IS NOT NULL'),
        ),
        Index(
            "ix_points_lot_live",
            "member_id",
            "expires_at",
            postgresql_where=text('"left" > 0'),
            sqlite_where=text('"left" > 0'),
        ),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    lot_id: uuid.UUID = Field(primary_key=True)
    """The transfer's id."""
    amount: int = Field(sa_type=BigInteger)
    left: int = Field(sa_type=BigInteger)
    earned_at: datetime = Field(sa_type=Moment)
    expires_at: datetime | None = Field(default=None, sa_type=Moment)


class PointsLotUse(SQLModel, table=True):
    """What one transfer took of one lot; `returned` of it came back."""

    __tablename__: ClassVar[str] = "points_lot_use"
    __table_args__ = (CheckConstraint("amount > 0 AND returned BETWEEN 0 AND amount", name="amount"),)

    member_id: uuid.UUID = Field(primary_key=True)
    transfer_id: uuid.UUID = Field(primary_key=True)
    lot_id: uuid.UUID = Field(primary_key=True)
    amount: int = Field(sa_type=BigInteger)
    returned: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))


@dataclass(frozen=True)
class Lot:
    """Points of a member that have not been used."""

    lot_id: uuid.UUID
    left: int
    earned_at: datetime
    expires_at: datetime | None


async def lots_of(session: Session, member_id: uuid.UUID, now: datetime) -> list[Lot]:
    """The member's points that can be used, at most 1,000 lots, in the order in which they will be."""
    found = await session.exec(
        select(PointsLot)
        .where(
            PointsLot.member_id == member_id,
            PointsLot.left > 0,
            or_(col(PointsLot.expires_at).is_(None), col(PointsLot.expires_at) > now),
        )
        .order_by(*_FIRST_TO_EXPIRE)
        .limit(LOTS_LISTED_MAX)
    )
    return [Lot(lot.lot_id, lot.left, lot.earned_at, lot.expires_at) for lot in found]


async def make(
    connection: AsyncConnection,
    member_id: uuid.UUID,
    lot_id: uuid.UUID,
    amount: int,
    left: int,
    at: datetime,
    expires_at: datetime | None,
) -> None:
    """Note points that came in. What is not left of them has paid a debt at once."""
    lot = {"member_id": member_id, "lot_id": lot_id, "amount": amount, "left": left, "earned_at": at}
    await connection.execute(_LOTS.insert(), {**lot, "expires_at": expires_at})


async def use(
    connection: AsyncConnection,
    member_id: uuid.UUID,
    transfer_id: uuid.UUID,
    amount: int,
    first: uuid.UUID | None = None,
) -> None:
    """Take so many points from the member's lots, which hold as many, those that expire first before the others.

    With `first`, that lot goes before them all, if it is his and has anything left.
    """
    about = {"member": member_id, "transfer": transfer_id, "wanted": amount}
    if first is None:
        await connection.execute(_taking_shares(), about)
    else:
        await connection.execute(_taking_shares(one_first=True), {**about, "first": first})
    await connection.execute(_taken_from_lots(), about)


async def give_back(connection: AsyncConnection, member_id: uuid.UUID, transfer_id: uuid.UUID, most: int) -> None:
    """Return up to `most` of the points that a transfer took, to the same lots, latest expiry first."""
    about = {"member": member_id, "transfer": transfer_id, "wanted": most}
    for statement in _giving_shares():
        await connection.execute(statement, about)


async def outstanding(connection: AsyncConnection, member_id: uuid.UUID, transfer_id: uuid.UUID) -> int:
    """What a transfer took of the member's lots and has not come back."""
    about = {"member": member_id, "transfer": transfer_id}
    return int((await connection.execute(_OUTSTANDING, about)).scalar_one())


async def days_of(session: Session, member_id: uuid.UUID, transfer_id: uuid.UUID) -> list[datetime | None]:
    """When the lots run out that a transfer took from; None: never. An empty list: it took from none."""
    found = await session.exec(
        select(PointsLot.expires_at)
        .join(
            PointsLotUse,
            (col(PointsLotUse.member_id) == PointsLot.member_id) & (col(PointsLotUse.lot_id) == PointsLot.lot_id),
        )
        .where(PointsLotUse.member_id == member_id, PointsLotUse.transfer_id == transfer_id)
    )
    return list(found)


async def due(connection: AsyncConnection, member_id: uuid.UUID, now: datetime) -> int:
    """How many of the member's points have run out and are still on his account."""
    return int((await connection.execute(_DUE, {"member": member_id, "now": now})).scalar_one())


_LOTS, _USES = table_of(PointsLot), table_of(PointsLotUse)
_FIRST_TO_EXPIRE: tuple[Any, ...] = (_LOTS.c.expires_at.asc().nulls_last(), _LOTS.c.earned_at, _LOTS.c.lot_id)
_LAST_TO_EXPIRE: tuple[Any, ...] = (
    _LOTS.c.expires_at.desc().nulls_first(),
    _LOTS.c.earned_at.desc(),
    _LOTS.c.lot_id.desc(),
)
_MEMBER = bindparam("member", type_=Uuid())
_TRANSFER = bindparam("transfer", type_=Uuid())
_WANTED = bindparam("wanted", type_=BigInteger())
_DUE = select(func.coalesce(func.sum(_LOTS.c.left), 0)).where(
    _LOTS.c.member_id == _MEMBER, _LOTS.c.left > 0, _LOTS.c.expires_at <= bindparam("now", type_=Moment())
)
_OPEN = _USES.c.amount - _USES.c.returned
_OPEN_USES = (_USES.c.member_id == _MEMBER, _USES.c.transfer_id == _TRANSFER, _OPEN > 0)
_OUTSTANDING = select(func.coalesce(func.sum(_OPEN), 0)).where(*_OPEN_USES)


def _shares(amount: Any, order: tuple[Any, ...], listed: Select[Any]) -> Subquery:
    # How much of each lot: all of it while the lots before it do not suffice, then the rest.
    before = cast(func.sum(amount).over(order_by=order), BigInteger) - amount
    each = listed.add_columns(amount.label("amount"), before.label("before")).subquery()
    share = case((each.c.before + each.c.amount <= _WANTED, each.c.amount), else_=_WANTED - each.c.before)
    return select(each.c.lot_id, share.label("share")).where(each.c.before < _WANTED).subquery("shares")


@lru_cache
def _taking_shares(*, one_first: bool = False) -> Insert:
    live = select(_LOTS.c.lot_id).where(_LOTS.c.member_id == _MEMBER, _LOTS.c.left > 0)
    before = (case((_LOTS.c.lot_id == bindparam("first", type_=Uuid()), 0), else_=1),) if one_first else ()
    shares = _shares(_LOTS.c.left, (*before, *_FIRST_TO_EXPIRE), live)
    return _USES.insert().from_select(
        ["member_id", "transfer_id", "lot_id", "amount", "returned"],
        core_select(_MEMBER, _TRANSFER, shares.c.lot_id, shares.c.share, literal(0)),
        include_defaults=False,
    )


@lru_cache
def _taken_from_lots() -> Update:
    return (
        update(_LOTS)
        .where(
            _LOTS.c.member_id == _MEMBER,
            _LOTS.c.lot_id == _USES.c.lot_id,
            _USES.c.member_id == _MEMBER,
            _USES.c.transfer_id == _TRANSFER,
        )
        .values(left=_LOTS.c.left - _USES.c.amount)
    )


@lru_cache
def _giving_shares() -> tuple[Update, Update]:
    used = select(_USES.c.lot_id).join(
        _LOTS, (_LOTS.c.member_id == _USES.c.member_id) & (_LOTS.c.lot_id == _USES.c.lot_id)
    )
    shares = _shares(_OPEN, _LAST_TO_EXPIRE, used.where(*_OPEN_USES))
    return (
        update(_LOTS)
        .where(_LOTS.c.member_id == _MEMBER, _LOTS.c.lot_id == shares.c.lot_id)
        .values(left=_LOTS.c.left + shares.c.share),
        update(_USES)
        .where(
            _USES.c.member_id == _MEMBER, _USES.c.transfer_id == _TRANSFER, _USES.c.lot_id == shares.c.lot_id
        )
        .values(returned=_USES.c.returned + shares.c.share),
    )  # fmt: skip
