"""Limits: how many of a benefit one member may have, in all and a day."""

import uuid
from datetime import date, datetime
from typing import ClassVar

from sqlalchemy import CheckConstraint, Date, and_, case, update
from sqlmodel import Field, SQLModel, col

from kit.clock import china_day
from kit.db import Session, insert
from kit.errors import Conflict
from loyalty.benefits.catalogue import Benefit


class BenefitLimitReached(Conflict):
    """The member has as many as one member may have, in all or today."""

    code = "BenefitLimitReached"


class BenefitTaken(SQLModel, table=True):
    """How many of a limited benefit a member has had, in all and on the last day."""

    __tablename__: ClassVar[str] = "benefit_taken"
    __table_args__ = (CheckConstraint("total >= 0 AND on_day >= 0", name="counts"),)

    member_id: uuid.UUID = Field(primary_key=True)
    benefit_id: uuid.UUID = Field(primary_key=True)
    total: int
    day: date = Field(sa_type=Date)
    on_day: int


async def count(session: Session, member_id: uuid.UUID, benefit: Benefit, now: datetime) -> None:
    """Count one more of a limited benefit. Raises BenefitLimitReached."""
    in_all, a_day = benefit.limit_total, benefit.limit_a_day
    if in_all is None and a_day is None:
        return
    today = china_day(now)
    same_day = col(BenefitTaken.day) == today
    within = []
    if in_all is not None:
        within.append(col(BenefitTaken.total) < in_all)
    if a_day is not None:
        within.append(case((same_day, col(BenefitTaken.on_day)), else_=0) < a_day)
    counted = await session.exec(
        insert(session, BenefitTaken)
        .values(member_id=member_id, benefit_id=benefit.benefit_id, total=1, day=today, on_day=1)
        .on_conflict_do_update(
            index_elements=["member_id", "benefit_id"],
            set_={
                "total": col(BenefitTaken.total) + 1,
                "day": today,
                "on_day": case((same_day, col(BenefitTaken.on_day)), else_=0) + 1,
            },
            where=and_(*within),
        )
        .returning(col(BenefitTaken.total))
    )
    if counted.first() is None:
        told = " and ".join(
            words for words, limit in ((f"{in_all} in all", in_all), (f"{a_day} a day", a_day)) if limit is not None
        )
        raise BenefitLimitReached(f"one member may have {told} of this benefit")


async def uncount(session: Session, member_id: uuid.UUID, benefit_id: uuid.UUID) -> None:
    """One that was taken back does not count; that day's limit stays used."""
    await session.exec(
        update(BenefitTaken)
        .where(
            col(BenefitTaken.member_id) == member_id,
            col(BenefitTaken.benefit_id) == benefit_id,
            col(BenefitTaken.total) > 0,
        )
        .values(total=BenefitTaken.total - 1)
    )
