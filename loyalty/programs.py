"""Programs: what a brand gives for other things than scans, by rules, in a period, from a budget or without one.

Check-ins, tasks, referrals, red packets and birthdays are kinds of programs; each has its rules and its own module.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Index, Text, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import derived_id, new_id
from loyalty import budgets, ledger
from loyalty.budgets import Budget
from loyalty.members import Card, Member
from loyalty.prizes import Prize, PrizeInvalid, PrizeKind

TITLE_CHARACTERS_MAX = 80
DURATION_MAX = timedelta(days=5 * 366)
BUDGET_MAX = 10**9
"""In grants of the program, or points of a check-in."""
LIMIT_MAX = 1_000_000
PROGRAMS_LISTED_MAX = 200
_LARGEST_A_STRIPE = 10

RulesT = TypeVar("RulesT", bound="Rules")


class ProgramInvalid(Invalid):
    """A program cannot be made like this; the message names the field."""

    code = "ProgramInvalid"


class ProgramUnknown(NotFound):
    """There is no such program, or not for this member's group."""

    code = "ProgramUnknown"


class ProgramNotOpen(Conflict):
    """The program has not started, has ended, or is paused."""

    code = "ProgramNotOpen"


class CardNeeded(Conflict):
    """The program is for those who hold the brand's card."""

    code = "CardNeeded"


class ProgramKind(StrEnum):
    """What a program is given for."""

    CHECK_IN = "check_in"
    TASK = "task"
    REFERRAL = "referral"
    PACKET = "packet"
    BIRTHDAY = "birthday"


class ProgramStatus(StrEnum):
    """Whether the brand lets the program run."""

    ACTIVE = "active"
    PAUSED = "paused"


class Rules(Protocol):
    """What a kind of program needs to know."""

    kind: ClassVar[ProgramKind]

    def check(self) -> None:
        """Raises ProgramInvalid and PrizeInvalid."""

    def document(self) -> dict[str, Any]:
        """The rules as JSON."""

    def costs(self) -> Mapping[str, int]:
        """What one grant takes of each asset; the budget is counted in such grants."""

    def largest(self) -> int:
        """Most of the budget's units that one grant takes."""

    @property
    def event(self) -> str:
        """What a task is done by; empty otherwise."""


class Program(SQLModel, table=True):
    """A program of a brand. Small and read often: a reference table.

    `cards_only`: for holders of the brand's card, otherwise for every member of the group. `budget` None: without end.
    """

    __tablename__: ClassVar[str] = "earning_program"
    __table_args__ = (
        CheckConstraint("kind IN ('check_in', 'task', 'referral', 'packet', 'birthday')", name="kind"),
        CheckConstraint("status IN ('active', 'paused')", name="status"),
        CheckConstraint("ends_at IS NULL OR starts_at < ends_at", name="period"),
        CheckConstraint(f"budget IS NULL OR budget BETWEEN 1 AND {BUDGET_MAX}", name="budget"),
        CheckConstraint(f"stripes BETWEEN 1 AND {budgets.STRIPES_MAX}", name="stripes"),
        Index("ix_earning_program_brand_id_kind_event", "brand_id", "kind", "event"),
    )

    program_id: uuid.UUID = Field(primary_key=True)
    brand_id: int
    group_id: int
    kind: str = Field(sa_type=Text)
    event: str = Field(default="", sa_type=Text)
    title_zh: str = Field(sa_type=Text)
    title_en: str = Field(sa_type=Text)
    rules: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    cards_only: bool
    budget: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    stripes: int
    starts_at: datetime = Field(sa_type=Moment)
    ends_at: datetime | None = Field(default=None, sa_type=Moment)
    status: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)

    def title(self, language: str) -> str:
        return self.title_zh if language == "zh" else self.title_en


@dataclass(frozen=True)
class NewProgram:
    """A program to be made. `budget`: how many grants there are (points, for a check-in); None: without end."""

    brand_id: int
    group_id: int
    title_zh: str
    title_en: str
    rules: Rules
    starts_at: datetime
    ends_at: datetime | None = None
    cards_only: bool = False
    budget: int | None = None


async def create(session: Session, new: NewProgram, now: datetime) -> Program:
    """Make a program and set its budget aside. Raises ProgramInvalid and PrizeInvalid."""
    check(new, now)
    program = Program(
        program_id=new_id(),
        brand_id=new.brand_id,
        group_id=new.group_id,
        kind=new.rules.kind,
        event=new.rules.event,
        title_zh=new.title_zh,
        title_en=new.title_en,
        rules=new.rules.document(),
        cards_only=new.cards_only,
        budget=new.budget,
        stripes=_stripes(new),
        starts_at=new.starts_at,
        ends_at=new.ends_at,
        status=ProgramStatus.ACTIVE,
        created_at=now,
    )
    session.add(program)
    await session.flush()
    if new.budget is not None:
        for asset, unit in new.rules.costs().items():
            budget = budget_of(program, asset)
            assert budget is not None
            source = ledger.issuance(program.brand_id, asset, program.program_id)
            await budgets.fund(session, budget, new.budget * unit, source, now, unit=unit)
    return program


def _stripes(new: NewProgram) -> int:
    # Grants of one size empty a stripe to the last unit. Of several sizes, each stripe may be left with less than the
    # largest, so there are the fewer of them.
    largest = new.rules.largest()
    size = 1 if largest == 1 else largest * _LARGEST_A_STRIPE
    return min(budgets.STRIPES_DEFAULT, max(1, (new.budget or 1) // size))


def check(new: NewProgram, now: datetime) -> None:
    """Check a program without making it. Raises ProgramInvalid, naming the field, and PrizeInvalid."""
    ends = new.ends_at
    faults = [
        (
            f"title_zh and title_en: 1 to {TITLE_CHARACTERS_MAX} characters",
            not all(1 <= len(title) <= TITLE_CHARACTERS_MAX for title in (new.title_zh, new.title_en)),
        ),
        ("ends_at: after starts_at, and in the future", ends is not None and not (new.starts_at < ends and now < ends)),
        (
            f"ends_at: at most {DURATION_MAX.days} days after starts_at",
            ends is not None and ends - new.starts_at > DURATION_MAX,
        ),
        (f"budget: 1 to {BUDGET_MAX}", new.budget is not None and not 1 <= new.budget <= BUDGET_MAX),
    ]
    require(faults)
    new.rules.check()
    if new.budget is not None:
        costs = new.rules.costs()
        require(
            [
                ("budget: this prize has none; a benefit's stock limits it", not costs),
                (
                    f"budget: {ledger.AMOUNT_MAX} units in all at most",
                    any(new.budget * unit > ledger.AMOUNT_MAX for unit in costs.values()),
                ),
            ]
        )


def require(faults: list[tuple[str, bool]]) -> None:
    """Raises ProgramInvalid with the first text whose fault is true."""
    for field, wrong in faults:
        if wrong:
            raise ProgramInvalid(field)


def limit_fault(name: str, limit: int | None) -> tuple[str, bool]:
    """The fault of a limit that is out of range; None is no limit."""
    return f"{name}: 1 to {LIMIT_MAX}, or none", limit is not None and not 1 <= limit <= LIMIT_MAX


def budget_of(program: Program, asset: str) -> Budget | None:
    """Where the program's value of one asset lies; None when it comes from the brand's issuance, or a stock."""
    if program.budget is None or asset not in (PrizeKind.POINTS, PrizeKind.MEGABYTES, PrizeKind.CASH):
        return None
    return Budget(derived_id("program-budget", program.program_id, asset), asset, program.stripes)


async def budget_left(session: Session, program: Program, rules: Rules) -> dict[str, int] | None:
    """What is left of each asset; None without a budget."""
    if program.budget is None:
        return None
    left = {asset: budget_of(program, asset) for asset in rules.costs()}
    return {asset: await budgets.left(session, budget) for asset, budget in left.items() if budget is not None}


def costs_of(*given: Prize) -> dict[str, int]:
    """What giving these prizes once takes of each asset that can have a budget."""
    costs: dict[str, int] = {}
    for prize in given:
        if prize.kind not in (PrizeKind.BENEFIT, PrizeKind.NOTHING):
            costs[prize.asset] = costs.get(prize.asset, 0) + prize.amount
    return costs


def prize_document(prize: Prize) -> dict[str, Any]:
    """A prize as JSON."""
    benefit_id = str(prize.benefit_id) if prize.benefit_id else None
    return {"kind": prize.kind.value, "amount": prize.amount, "benefit_id": benefit_id}


def read_prize(document: Mapping[str, Any]) -> Prize:
    """The prize of a JSON document. Raises PrizeInvalid."""
    try:
        benefit = document.get("benefit_id")
        prize = Prize(PrizeKind(document["kind"]), int(document["amount"]), uuid.UUID(benefit) if benefit else None)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise PrizeInvalid("a prize has kind, amount and, for a benefit, benefit_id") from None
    prize.check()
    return prize


async def get(session: Session, program_id: uuid.UUID) -> Program:
    """Raises ProgramUnknown."""
    program = await session.get(Program, program_id)
    if program is None:
        raise ProgramUnknown("no such program")
    return program


async def of_brand(session: Session, brand_id: int) -> list[Program]:
    """A brand's programs, latest first, at most 200."""
    found = await session.exec(
        select(Program)
        .where(Program.brand_id == brand_id)
        .order_by(col(Program.program_id).desc())
        .limit(PROGRAMS_LISTED_MAX)
    )
    return list(found)


async def running_for(session: Session, member_id: uuid.UUID, kind: ProgramKind, now: datetime) -> list[Program]:
    """The programs of one kind that a member can use now: his group's, and those of brands whose card he needs."""
    found = await session.exec(
        select(Program)
        .join(Member, col(Member.group_id) == Program.group_id)
        .outerjoin(Card, (col(Card.member_id) == Member.member_id) & (col(Card.brand_id) == Program.brand_id))
        .where(
            Member.member_id == member_id,
            Program.kind == kind,
            Program.status == ProgramStatus.ACTIVE,
            col(Program.starts_at) <= now,
            col(Program.ends_at).is_(None) | (col(Program.ends_at) > now),
            col(Program.cards_only).is_(False) | col(Card.member_id).is_not(None),
        )
        .order_by(col(Program.program_id))
        .limit(PROGRAMS_LISTED_MAX)
    )
    return list(found)


async def open_for(
    session: Session, program_id: uuid.UUID, member_id: uuid.UUID, kind: ProgramKind, now: datetime
) -> Program:
    """The program, if this member may use it now. A pause waits for this transaction.

    Raises ProgramUnknown, ProgramNotOpen and CardNeeded.
    """
    found = await session.exec(
        select(Program, Card.member_id)
        .join(Member, col(Member.group_id) == Program.group_id)
        .outerjoin(Card, (col(Card.member_id) == Member.member_id) & (col(Card.brand_id) == Program.brand_id))
        .where(Program.program_id == program_id, Program.kind == kind, Member.member_id == member_id)
        .with_for_update(read=True, of=Program)
    )
    row = found.first()
    if row is None:
        raise ProgramUnknown("no such program for this member")
    program, holder = row
    require_running(program, now)
    if program.cards_only and holder is None:
        raise CardNeeded("this is for members of the brand", hint="Join the brand first.")
    return program


def require_running(program: Program, now: datetime) -> None:
    """Raises ProgramNotOpen."""
    if program.status != ProgramStatus.ACTIVE:
        raise ProgramNotOpen("this program is paused")
    if now < program.starts_at or (program.ends_at is not None and now >= program.ends_at):
        raise ProgramNotOpen("this program has not begun" if now < program.starts_at else "this program is over")


async def set_status(session: Session, program_id: uuid.UUID, status: ProgramStatus) -> None:
    """Pause a program or let it run again. Raises ProgramUnknown."""
    changed = await session.exec(
        update(Program)
        .where(col(Program.program_id) == program_id)
        .values(status=status)
        .returning(col(Program.program_id))
    )
    if changed.first() is None:
        raise ProgramUnknown("no such program")


def read_rules(read: Callable[[Mapping[str, Any]], RulesT], document: Mapping[str, Any]) -> RulesT:
    """The rules of a JSON document, checked. Raises ProgramInvalid and PrizeInvalid."""
    try:
        rules = read(document)
        rules.check()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ProgramInvalid("rules: a field is missing, unknown or of the wrong kind") from error
    return rules
