"""Birthday gifts: one a year, found by the daily sweep, or when the member signs in on the day."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar

from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import allowances, prizes, profiles, programs
from loyalty.prizes import Given, Prize, PrizeKind
from loyalty.profiles import Birthday
from loyalty.programs import Program, ProgramKind, ProgramStatus

MEMBERS_PER_STEP_MAX = 500


class BirthdayGift(SQLModel, table=True):
    """A member's gift of one program in one year."""

    __tablename__: ClassVar[str] = "birthday_gift"

    member_id: uuid.UUID = Field(primary_key=True)
    program_id: uuid.UUID = Field(primary_key=True)
    year: int = Field(primary_key=True)
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class BirthdayRules:
    """The gift."""

    kind: ClassVar[ProgramKind] = ProgramKind.BIRTHDAY

    prize: Prize

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "BirthdayRules":
        """Raises PrizeInvalid, and what a document of another form makes Python raise."""
        return cls(**{**document, "prize": programs.read_prize(document["prize"])})

    def document(self) -> dict[str, Any]:
        return {"prize": programs.prize_document(self.prize)}

    def check(self) -> None:
        self.prize.check()
        programs.require([("prize: something", self.prize.kind is PrizeKind.NOTHING)])

    def costs(self) -> Mapping[str, int]:
        return programs.costs_of(self.prize)

    def largest(self) -> int:
        return 1

    @property
    def event(self) -> str:
        return ""


def celebrated_on(day: date) -> list[Birthday]:
    """The birthdays that fall on a day; 29 February has its feast on the 28th when there is none."""
    found = [Birthday(day.month, day.day)]
    leap = day.year % 4 == 0 and (day.year % 100 != 0 or day.year % 400 == 0)
    if (day.month, day.day) == (2, 28) and not leap:
        found.append(Birthday(2, 29))
    return found


async def running(session: Session, now: datetime) -> list[Program]:
    """Every birthday program that runs now."""
    found = await session.exec(
        select(Program)
        .where(
            Program.kind == ProgramKind.BIRTHDAY,
            Program.status == ProgramStatus.ACTIVE,
            col(Program.starts_at) <= now,
            col(Program.ends_at).is_(None) | (col(Program.ends_at) > now),
        )
        .order_by(col(Program.program_id))
    )
    return list(found)


async def born_today(
    session: Session, vault: Vault, program: Program, now: datetime, after: uuid.UUID | None = None
) -> list[uuid.UUID]:
    """The next members of the program's group, 500 at most, whose birthday is today, those with a gift among them.

    Give each his gift in a transaction of its own: many takers of one budget in one transaction would wait for others
    crosswise.
    """
    today = celebrated_on(allowances.day_of(now))
    return await profiles.born_on(session, vault, program.group_id, today, MEMBERS_PER_STEP_MAX, after)


async def due(session: Session, vault: Vault, member_id: uuid.UUID, now: datetime) -> list[Program]:
    """The programs that owe a member this year's gift, his birthday being today: for who comes before the sweep does.

    Give each in a transaction of its own, so that one that cannot be given keeps no other back.
    """
    programs_now = await programs.running_for(session, member_id, ProgramKind.BIRTHDAY, now)
    if not programs_now:
        return []
    birthday = (await profiles.profile_of(session, vault, member_id)).birthday
    today = allowances.day_of(now)
    if birthday is None or birthday not in celebrated_on(today):
        return []
    given = select(BirthdayGift.program_id).where(BirthdayGift.member_id == member_id, BirthdayGift.year == today.year)
    had = set(await session.exec(given))
    return [program for program in programs_now if program.program_id not in had]


async def give(
    session: Session, vault: Vault, *, program_id: uuid.UUID, member_id: uuid.UUID, now: datetime
) -> Given | None:
    """Give this year's gift to a member, whose birthday the caller knows to be today; None when he has it already.

    Raises ProgramUnknown, ProgramNotOpen, CardNeeded and what `prizes.give` raises; the caller's transaction must then
    be rolled back.
    """
    program = await programs.open_for(session, program_id, member_id, ProgramKind.BIRTHDAY, now)
    year = allowances.day_of(now).year
    row = {"member_id": member_id, "program_id": program.program_id, "year": year, "at": now}
    taken = await session.exec(
        insert(session, BirthdayGift).values(row).on_conflict_do_nothing().returning(col(BirthdayGift.year))
    )
    if taken.first() is None:
        return None
    rules = BirthdayRules.read(program.rules)
    return await prizes.give(
        session,
        vault,
        grant_id=derived_id("birthday", member_id, program.program_id, year),
        member_id=member_id,
        group_id=program.group_id,
        brand_id=program.brand_id,
        prize=rules.prize,
        budget=programs.budget_of(program, rules.prize.asset),
        reason="birthday",
        now=now,
    )
