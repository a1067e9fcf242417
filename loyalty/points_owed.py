"""Points that refunds should have taken of members and could not: the points of the next purchases pay them first.

Whoever changes what a member owes holds the lock on his account of points, if he posts to it in the same transaction.
"""

import uuid
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Session, insert


class PointsOwed(SQLModel, table=True):
    """What one member owes."""

    __tablename__: ClassVar[str] = "points_owed"
    __table_args__ = (CheckConstraint("points >= 0", name="points"),)

    member_id: uuid.UUID = Field(primary_key=True)
    points: int = Field(sa_type=BigInteger)


async def owe(session: Session, member_id: uuid.UUID, points: int) -> None:
    """Let a member owe so many more."""
    owed = insert(session, PointsOwed).values(member_id=member_id, points=points)
    await session.exec(
        owed.on_conflict_do_update(
            index_elements=["member_id"], set_={"points": col(PointsOwed.points) + owed.excluded["points"]}
        )
    )


async def pay(session: Session, member_id: uuid.UUID, most: int | None) -> int:
    """Strike off what a member owes, at most so much; how much it was. What he owes stays locked till the end."""
    owing = await session.exec(
        select(PointsOwed.points).where(PointsOwed.member_id == member_id, PointsOwed.points > 0).with_for_update()
    )
    owed = owing.first() or 0
    paid = owed if most is None else min(owed, most)
    if paid:
        await session.exec(
            update(PointsOwed).where(col(PointsOwed.member_id) == member_id).values(points=PointsOwed.points - paid)
        )
    return paid
