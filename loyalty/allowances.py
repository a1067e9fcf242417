"""Allowances: how often a member, or a device, may earn by one thing, in all or in a day of the calendar."""

import uuid
from datetime import date, datetime, timedelta
from typing import ClassVar

from sqlalchemy import CheckConstraint, Text, delete
from sqlmodel import Field, SQLModel, col

from kit.clock import china_day
from kit.db import Session, insert
from kit.errors import Conflict
from kit.ids import derived_id

"""China has had one time, without summer time, since 1991."""
IN_ALL = ""
"""The period of an allowance that never starts anew."""
DAYS_KEPT = 40


class AllowanceUsedUp(Conflict):
    """The member or device has done this as often as the rules allow; the message says which limit it is."""

    code = "AllowanceUsedUp"


class Allowance(SQLModel, table=True):
    """How often one holder did one thing in one period: a day, or all the time."""

    __tablename__: ClassVar[str] = "earning_allowance"
    __table_args__ = (CheckConstraint("used > 0", name="used"),)

    holder_id: uuid.UUID = Field(primary_key=True)
    subject_id: uuid.UUID = Field(primary_key=True)
    period: str = Field(primary_key=True, sa_type=Text)
    used: int


def day_of(now: datetime) -> date:
    """The day that it is in China."""
    return china_day(now)


def device_holder(device: str) -> uuid.UUID:
    """The holder under which a device's allowances stand. `device`: what tells devices apart, never stored itself."""
    return derived_id("device", device)


async def take(session: Session, holder_id: uuid.UUID, subject_id: uuid.UUID, period: str, limit: int | None) -> int:
    """Count once more, unless the limit is reached; how often it is now. None is no limit.

    Who takes the same allowance at the same time waits for this transaction. Raises AllowanceUsedUp.
    """
    counted = await session.exec(
        insert(session, Allowance)
        .values(holder_id=holder_id, subject_id=subject_id, period=period, used=1)
        .on_conflict_do_update(
            index_elements=["holder_id", "subject_id", "period"],
            set_={"used": col(Allowance.used) + 1},
            where=None if limit is None else col(Allowance.used) < limit,
        )
        .returning(col(Allowance.used))
    )
    used: int | None = counted.scalar_one_or_none()
    if used is None:
        raise AllowanceUsedUp(
            f"at most {limit} {'times in all' if period == IN_ALL else 'times a day'} are allowed",
            hint="" if period == IN_ALL else "Try again tomorrow.",
        )
    return used


async def take_for_device(
    session: Session, device: str | None, subject_id: uuid.UUID, limit: int | None, now: datetime
) -> None:
    """Count a device's share of today, where there is a limit and the device is known. Raises AllowanceUsedUp."""
    if device is not None and limit is not None:
        await take(session, device_holder(device), subject_id, day_of(now).isoformat(), limit)


async def sweep(session: Session, now: datetime) -> int:
    """Forget the counts of days long gone; how many they were."""
    before = (day_of(now) - timedelta(days=DAYS_KEPT)).isoformat()
    gone = await session.exec(delete(Allowance).where(col(Allowance.period) > IN_ALL, col(Allowance.period) < before))
    return int(gone.rowcount)
