"""Tasks: things that a brand wants done, each paid once: a profile filled in, a first scan, a purchase, a visit."""

import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Text, UniqueConstraint, exists
from sqlmodel import Field, SQLModel, col, select

from kit.db import Database, Moment, Session, insert
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import allowances, prizes, programs
from loyalty.allowances import AllowanceUsedUp
from loyalty.draws import catalogue, plays
from loyalty.members import Member
from loyalty.prizes import Given, Prize, PrizeKind
from loyalty.programs import CardNeeded, Program, ProgramKind, ProgramNotOpen, ProgramStatus, ProgramUnknown
from loyalty.referrals import acting_for

SUBJECT_CHARACTERS_MAX = 80
_PASSED_OVER = (AllowanceUsedUp, *prizes.NOT_GIVEN, CardNeeded, ProgramUnknown, ProgramNotOpen)


class TaskEvent(StrEnum):
    """What a task is done by. All but `other` are told by this server itself, or by the brand's systems."""

    PROFILE = "profile"
    FIRST_SCAN = "first_scan"
    JOIN = "join"
    BUY = "buy"
    VISIT = "visit"
    OTHER = "other"


class Period(StrEnum):
    """How often a task is paid: once in all, once a day, once a week (from Monday), by the calendar of China."""

    ONCE = "once"
    DAILY = "daily"
    WEEKLY = "weekly"


class TaskCompletion(SQLModel, table=True):
    """A task that a member has done in one period. The same subject, a purchase for example, counts once in all."""

    __tablename__: ClassVar[str] = "task_completion"
    __table_args__ = (UniqueConstraint("member_id", "program_id", "subject_id"),)

    member_id: uuid.UUID = Field(primary_key=True)
    program_id: uuid.UUID = Field(primary_key=True)
    period: str = Field(primary_key=True, sa_type=Text)
    subject_id: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class TaskRules:
    """Done by `done_by`, paid once a `period` with `prize`, and with `chances` to play the draw `chance_draw_id`."""

    kind: ClassVar[ProgramKind] = ProgramKind.TASK

    done_by: TaskEvent
    period: Period
    prize: Prize
    chances: int = 0
    chance_draw_id: uuid.UUID | None = None
    device_day: int | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "TaskRules":
        """Raises PrizeInvalid, and what a document of another form makes Python raise."""
        draw_id = document.get("chance_draw_id")
        given = {
            "done_by": TaskEvent(document["done_by"]),
            "period": Period(document["period"]),
            "prize": programs.read_prize(document["prize"]),
            "chance_draw_id": uuid.UUID(draw_id) if draw_id else None,
        }
        return cls(**{**document, **given})

    def document(self) -> dict[str, Any]:
        return {
            "done_by": self.done_by.value,
            "period": self.period.value,
            "prize": programs.prize_document(self.prize),
            "chances": self.chances,
            "chance_draw_id": str(self.chance_draw_id) if self.chance_draw_id else None,
            "device_day": self.device_day,
        }

    def check(self) -> None:
        self.prize.check()
        most = plays.CHANCES_PER_GRANT_MAX
        programs.require(
            [
                (f"chances: 0 to {most}", not 0 <= self.chances <= most),
                (
                    "chance_draw_id: with chances, and only then",
                    (self.chances > 0) != (self.chance_draw_id is not None),
                ),
                ("prize: something, or chances", self.prize.kind is PrizeKind.NOTHING and not self.chances),
                programs.limit_fault("device_day", self.device_day),
            ]
        )

    def costs(self) -> Mapping[str, int]:
        return programs.costs_of(self.prize)

    def largest(self) -> int:
        return 1

    @property
    def event(self) -> str:
        return self.done_by.value


@dataclass(frozen=True)
class Completed:
    """What a task paid. `given` is None, and `chances` 0, when it was paid before."""

    program_id: uuid.UUID
    given: Given | None
    chances: int
    is_new: bool


@dataclass(frozen=True)
class Offered:
    """A task as its member sees it: `done_at` is when he did it in the present period, None when he can."""

    program: Program
    rules: TaskRules
    done_at: datetime | None


def rules_of(program: Program) -> TaskRules:
    return TaskRules.read(program.rules)


def offered(brand_id: ColumnElement[int] | int, event: TaskEvent) -> ColumnElement[bool]:
    """SQL: whether the brand has an active task for this event.

    For those who run a statement anyway and would rather not ask `happened` in vain.
    """
    return exists().where(
        col(Program.brand_id) == brand_id,
        col(Program.kind) == ProgramKind.TASK,
        col(Program.event) == event,
        col(Program.status) == ProgramStatus.ACTIVE,
    )


async def happened(
    database: Database,
    vault: Vault,
    *,
    member_id: uuid.UUID,
    brand_id: int,
    event: TaskEvent,
    subject_id: str,
    at: datetime,
    now: datetime,
) -> list[Completed]:
    """Pay every task of the brand that this event does, each in a transaction of its own, in the order of their making.

    `subject_id` is what it happened to, a purchase's id for example, and `at` is when: it decides on period and
    program. Whoever the member was merged into is paid, and nothing that either was paid before. Never refuses: a task
    that is used up, paid or not for this member is passed over. Again pays nothing more.
    """
    # One transaction for all would hold one program's budget, and the member's account, while it waits for the next.
    async with database.reading() as session:
        due = await _due(session, member_id, brand_id, event, subject_id, at)
    done = []
    for program_id in due:
        with contextlib.suppress(*_PASSED_OVER):
            async with database.writing() as session:
                paid = await complete(
                    session,
                    vault,
                    program_id=program_id,
                    member_id=await _payee(session, member_id),
                    subject_id=subject_id,
                    at=at,
                    now=now,
                )
            done.append(paid)
    return done


async def _due(
    session: Session, member_id: uuid.UUID, brand_id: int, event: TaskEvent, subject_id: str, at: datetime
) -> list[uuid.UUID]:
    """The tasks to pay, less those that were paid to the member or to whom he was merged into since."""
    people = {member_id, await acting_for(session, member_id)}
    paid = exists().where(
        col(TaskCompletion.member_id).in_(people),
        col(TaskCompletion.program_id) == col(Program.program_id),
        col(TaskCompletion.period).in_([_period(period, at) for period in Period])
        | (col(TaskCompletion.subject_id) == subject_id),
    )
    found = await session.exec(
        select(Program.program_id)
        .where(
            Program.brand_id == brand_id,
            Program.kind == ProgramKind.TASK,
            Program.event == event,
            Program.status == ProgramStatus.ACTIVE,
            col(Program.starts_at) <= at,
            col(Program.ends_at).is_(None) | (col(Program.ends_at) > at),
            ~paid,
        )
        .order_by(col(Program.program_id))
    )
    return list(found)


async def _payee(session: Session, member_id: uuid.UUID) -> uuid.UUID:
    """Who acts for the member; nobody merges him with another before this transaction ends."""
    while True:
        acting = await acting_for(session, member_id)
        held = select(Member.merged_into).where(Member.member_id == acting)
        if (await session.exec(held.with_for_update(read=True))).first() is None:
            return acting


async def complete(
    session: Session,
    vault: Vault,
    *,
    program_id: uuid.UUID,
    member_id: uuid.UUID,
    subject_id: str,
    now: datetime,
    at: datetime | None = None,
    device: str | None = None,
) -> Completed:
    """Pay one task, once a period and once for its subject; a second time changes nothing.

    `at` is when it was done, None: now. It has to lie within the program's time, and decides on the period.
    Raises ProgramUnknown, ProgramNotOpen, CardNeeded, ProgramInvalid (subject), AllowanceUsedUp (device), BudgetUsedUp
    and what `prizes.give` raises; the caller's transaction must then be rolled back.
    """
    programs.require(
        [(f"subject: 1 to {SUBJECT_CHARACTERS_MAX} characters", not 1 <= len(subject_id) <= SUBJECT_CHARACTERS_MAX)]
    )
    at = at or now
    program = await programs.open_for(session, program_id, member_id, ProgramKind.TASK, at)
    rules = rules_of(program)
    period = _period(rules.period, at)
    row = {"member_id": member_id, "program_id": program_id, "period": period, "subject_id": subject_id, "at": at}
    taken = await session.exec(
        insert(session, TaskCompletion).values(row).on_conflict_do_nothing().returning(col(TaskCompletion.period))
    )
    if taken.first() is None:
        return Completed(program_id, None, 0, is_new=False)
    await allowances.take_for_device(session, device, program_id, rules.device_day, now)
    grant_id = derived_id("task", member_id, program_id, period)
    given = await prizes.give(
        session,
        vault,
        grant_id=grant_id,
        member_id=member_id,
        group_id=program.group_id,
        brand_id=program.brand_id,
        prize=rules.prize,
        budget=programs.budget_of(program, rules.prize.asset),
        reason="task",
        now=now,
    )
    if rules.chance_draw_id is not None:
        draw = await catalogue.get(session, rules.chance_draw_id)
        chance_id = derived_id("task-chances", grant_id)
        await plays.grant_chances(
            session,
            grant_id=chance_id,
            member_id=member_id,
            draw=draw,
            count=rules.chances,
            reason="task",
            now=now,
        )
    return Completed(program_id, given, rules.chances, is_new=True)


def _period(period: Period, at: datetime) -> str:
    today = allowances.day_of(at)
    if period is Period.DAILY:
        return today.isoformat()
    if period is Period.WEEKLY:
        year, week, _day = today.isocalendar()
        return f"{year}-W{week:02}"
    return allowances.IN_ALL


async def of_member(session: Session, member_id: uuid.UUID, now: datetime) -> list[Offered]:
    """The tasks that a member can do now, and those that he has done in their present period."""
    running = await programs.running_for(session, member_id, ProgramKind.TASK, now)
    rules = {program.program_id: rules_of(program) for program in running}
    done = await _done(session, member_id, rules, now)
    return [Offered(program, rules[program.program_id], done.get(program.program_id)) for program in running]


async def _done(
    session: Session, member_id: uuid.UUID, rules: Mapping[uuid.UUID, TaskRules], now: datetime
) -> dict[uuid.UUID, datetime]:
    periods = [_period(period, now) for period in Period]
    found = await session.exec(
        select(TaskCompletion.program_id, TaskCompletion.period, TaskCompletion.at).where(
            TaskCompletion.member_id == member_id, col(TaskCompletion.period).in_(periods)
        )
    )
    return {
        program_id: at
        for program_id, period, at in found
        if program_id in rules and period == _period(rules[program_id].period, now)
    }
