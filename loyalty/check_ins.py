"""Check-ins (签到): points for coming back each day, and more for coming many days in a row.

A day is one of the calendar in China. A day that was missed is missed: nothing makes up for it.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, case
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import allowances, ledger, prizes, programs
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import Program, ProgramInvalid, ProgramKind

POINTS_PER_DAY_MAX = 10_000
BONUS_POINTS_MAX = 1_000_000
BONUSES_MAX = 20
STREAK_DAYS_MAX = 366


class CheckInOutOfTurn(Conflict):
    """The member has checked in on a later day already: a clock went back."""

    code = "CheckInOutOfTurn"


class CheckIn(SQLModel, table=True):
    """One day on which a member checked in."""

    __tablename__: ClassVar[str] = "check_in"
    __table_args__ = (CheckConstraint("streak > 0 AND points > 0", name="numbers"),)

    member_id: uuid.UUID = Field(primary_key=True)
    program_id: uuid.UUID = Field(primary_key=True)
    day: date = Field(primary_key=True)
    streak: int
    points: int
    at: datetime = Field(sa_type=Moment)


class CheckInStreak(SQLModel, table=True):
    """How many days in a row a member has come, up to his last day; the longest row; days in all."""

    __tablename__: ClassVar[str] = "check_in_streak"
    __table_args__ = (CheckConstraint("streak > 0 AND longest >= streak AND days >= longest", name="numbers"),)

    member_id: uuid.UUID = Field(primary_key=True)
    program_id: uuid.UUID = Field(primary_key=True)
    last_day: date
    streak: int
    longest: int
    days: int


@dataclass(frozen=True)
class CheckInRules:
    """`points` a day; `bonuses` on top, by the day of the streak; the streak's days start anew after `cycle_days`."""

    kind: ClassVar[ProgramKind] = ProgramKind.CHECK_IN

    points: int
    bonuses: Mapping[int, int]
    cycle_days: int | None = None
    device_day: int | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "CheckInRules":
        """Raises ProgramInvalid, and what a document of another form makes Python raise."""
        given = {name: value for name, value in document.items() if name != "bonuses"}
        return cls(**given, bonuses={int(day): points for day, points in document.get("bonuses", {}).items()})

    def document(self) -> dict[str, Any]:
        return {
            "points": self.points,
            "bonuses": {str(day): points for day, points in sorted(self.bonuses.items())},
            "cycle_days": self.cycle_days,
            "device_day": self.device_day,
        }

    def check(self) -> None:
        last = self.cycle_days or STREAK_DAYS_MAX
        programs.require(
            [
                (f"points: 1 to {POINTS_PER_DAY_MAX}", not 1 <= self.points <= POINTS_PER_DAY_MAX),
                (f"bonuses: {BONUSES_MAX} at most", len(self.bonuses) > BONUSES_MAX),
                (f"cycle_days: 1 to {STREAK_DAYS_MAX}, or none", not 1 <= last <= STREAK_DAYS_MAX),
                (f"bonuses: on days 2 to {last}", not all(2 <= day <= last for day in self.bonuses)),
                (
                    f"bonuses: 1 to {BONUS_POINTS_MAX} points",
                    not all(1 <= points <= BONUS_POINTS_MAX for points in self.bonuses.values()),
                ),
                programs.limit_fault("device_day", self.device_day),
            ]
        )

    def costs(self) -> Mapping[str, int]:
        return {PrizeKind.POINTS: 1}

    def largest(self) -> int:
        return self.points + max(self.bonuses.values(), default=0)

    @property
    def event(self) -> str:
        return ""

    def place(self, streak: int) -> int:
        """Which day of its cycle a streak has come to, from 1."""
        return streak if self.cycle_days is None else (streak - 1) % self.cycle_days + 1

    def earns(self, streak: int) -> int:
        """The points of the streak's latest day."""
        return self.points + self.bonuses.get(self.place(streak), 0)


@dataclass(frozen=True)
class CheckedIn:
    """A day's check-in. `next_bonus` is in how many days and of how many points the next one is, None without one."""

    program_id: uuid.UUID
    day: date
    streak: int
    points: int
    balance: int
    next_bonus: tuple[int, int] | None
    is_new: bool


@dataclass(frozen=True)
class Standing:
    """How a member stands today. `streak` is 0 when yesterday was missed."""

    program: Program
    checked_in: bool
    streak: int
    longest: int
    days: int
    earns: int
    """The points of today, or of tomorrow when he has come today."""


async def check_in(
    session: Session,
    vault: Vault,
    *,
    member_id: uuid.UUID,
    program_id: uuid.UUID,
    device: str | None,
    now: datetime,
) -> CheckedIn:
    """Check a member in for today; again on the same day changes nothing and answers as before.

    Raises ProgramUnknown, ProgramNotOpen, CardNeeded, AllowanceUsedUp (device), BudgetUsedUp and CheckInOutOfTurn; the
    caller's transaction must then be rolled back.
    """
    program = await programs.open_for(session, program_id, member_id, ProgramKind.CHECK_IN, now)
    rules, today = rules_of(program), allowances.day_of(now)
    streak = await _add_day(session, member_id, program_id, today)
    if streak is None:
        return await _checked_in_before(session, program, rules, member_id, today)
    await allowances.take_for_device(session, device, program_id, rules.device_day, now)
    points = rules.earns(streak)
    row = {"member_id": member_id, "program_id": program_id, "day": today, "streak": streak}
    await session.exec(insert(session, CheckIn).values(**row, points=points, at=now))
    given = await prizes.give(
        session,
        vault,
        grant_id=derived_id("check-in", member_id, program_id, today),
        member_id=member_id,
        group_id=program.group_id,
        brand_id=program.brand_id,
        prize=Prize(PrizeKind.POINTS, points),
        budget=programs.budget_of(program, PrizeKind.POINTS),
        reason="check-in",
        now=now,
    )
    return CheckedIn(program_id, today, streak, points, given.balance or 0, _next_bonus(rules, streak), is_new=True)


async def _add_day(session: Session, member_id: uuid.UUID, program_id: uuid.UUID, today: date) -> int | None:
    """The streak with today; None when today, or a later day, is in it already."""
    came_yesterday = col(CheckInStreak.last_day) == today - timedelta(days=1)
    streak = case((came_yesterday, col(CheckInStreak.streak) + 1), else_=1)
    longest = case((streak > col(CheckInStreak.longest), streak), else_=col(CheckInStreak.longest))
    added = await session.exec(
        insert(session, CheckInStreak)
        .values(member_id=member_id, program_id=program_id, last_day=today, streak=1, longest=1, days=1)
        .on_conflict_do_update(
            index_elements=["member_id", "program_id"],
            set_={"last_day": today, "streak": streak, "longest": longest, "days": col(CheckInStreak.days) + 1},
            where=col(CheckInStreak.last_day) < today,
        )
        .returning(col(CheckInStreak.streak))
    )
    came: int | None = added.scalar_one_or_none()
    return came


async def _checked_in_before(
    session: Session, program: Program, rules: CheckInRules, member_id: uuid.UUID, today: date
) -> CheckedIn:
    earlier = await session.get(CheckIn, (member_id, program.program_id, today))
    if earlier is None:
        raise CheckInOutOfTurn("you have checked in on a later day", hint="Try again tomorrow.")
    bonus = _next_bonus(rules, earlier.streak)
    account = ledger.AccountId(member_id, ledger.POINTS, ledger.Purpose.AVAILABLE)
    balance = (await ledger.balances_of(session, [account])).get(account, 0)
    return CheckedIn(program.program_id, today, earlier.streak, earlier.points, balance, bonus, is_new=False)


def _next_bonus(rules: CheckInRules, streak: int) -> tuple[int, int] | None:
    place = rules.place(streak)
    ahead = {day - place if day > place else day - place + (rules.cycle_days or 0): day for day in rules.bonuses}
    coming = [days for days in ahead if days > 0]
    return (min(coming), rules.bonuses[ahead[min(coming)]]) if coming else None


def rules_of(program: Program) -> CheckInRules:
    """The rules of a check-in program. Raises ProgramInvalid."""
    if program.kind != ProgramKind.CHECK_IN:
        raise ProgramInvalid("this program is of another kind")
    return CheckInRules.read(program.rules)


async def standings(session: Session, member_id: uuid.UUID, now: datetime) -> list[Standing]:
    """How a member stands in every check-in program that he can use now."""
    running = await programs.running_for(session, member_id, ProgramKind.CHECK_IN, now)
    found = await session.exec(select(CheckInStreak).where(CheckInStreak.member_id == member_id))
    streaks = {streak.program_id: streak for streak in found}
    return [_standing(program, streaks.get(program.program_id), allowances.day_of(now)) for program in running]


def _standing(program: Program, kept: CheckInStreak | None, today: date) -> Standing:
    rules = rules_of(program)
    if kept is None:
        return Standing(program, False, 0, 0, 0, rules.earns(1))
    unbroken = kept.last_day >= today - timedelta(days=1)
    streak = kept.streak if unbroken else 0
    return Standing(program, kept.last_day >= today, streak, kept.longest, kept.days, rules.earns(streak + 1))
