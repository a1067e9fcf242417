"""Reconciliation: a provider's statement of a day against our orders and the ledger, order by order and in sum.

    statement total = ledger total + sum of the listed differences

Both totals are of what arrived less what was taken back. The ledger's is the sum of the entries of DELIVERED accounts
that orders made and that belong to that day by the provider's clock.
"""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar

import sqlalchemy
from sqlalchemy import JSON, BigInteger, Column, Date, Text, func, literal, or_, union_all
from sqlmodel import Field, SQLModel, and_, col, select

from kit.clock import Clock
from kit.db import Database, Moment, Session
from kit.ids import new_id
from loyalty.fulfilment import orders, statements, steps
from loyalty.fulfilment.orders import Attention, Order, OrderKind, OrderStep
from loyalty.fulfilment.providers import Consignment, Provider
from loyalty.fulfilment.statements import StatementLine
from loyalty.fulfilment.states import OrderState, Teller, Word
from loyalty.fulfilment.steps import Effect, Report
from loyalty.fulfilment.worker import report_of
from loyalty.ledger import Entry, Purpose

DIFFERENCES_KEPT_MAX = 10_000
"""Most differences that are listed one by one; the sums are of all."""


class Difference(StrEnum):
    """How an order differs between the statement and our books."""

    MISSING_AT_OURS = "missing_at_ours"
    """The statement has an order that we never placed."""
    MISSING_AT_PROVIDER = "missing_at_provider"
    """We have a movement of that day, and the statement has none."""
    STATE_DIFFERS = "state_differs"
    """The statement tells of a movement that we have not heard of."""
    AMOUNT_DIFFERS = "amount_differs"
    """The same movement, of another amount."""
    REPEATED_LINE = "repeated_line"
    """The statement has one movement twice."""
    PASSED_OVER = "passed_over"
    """Delivered and taken back before we heard of either; what differs on one day cancels out on the other."""
    OTHER_DAY = "other_day"
    """We have the movement, on another day."""


class ReconciliationRecord(SQLModel, table=True):
    """The result of a reconciliation."""

    __tablename__: ClassVar[str] = "reconciliation"

    reconciliation_id: uuid.UUID = Field(primary_key=True)
    provider: str = Field(sa_type=Text)
    day: date = Field(sa_type=Date, index=True)
    lines: int = Field(sa_type=BigInteger)
    matched: int = Field(sa_type=BigInteger)
    repaired: int = Field(sa_type=BigInteger)
    statement_total: int = Field(sa_type=BigInteger)
    ledger_total: int = Field(sa_type=BigInteger)
    differences: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    sums: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class Found:
    """One order that differs: `amount` is what the statement has more than the ledger, in megabytes or fen."""

    order_id: uuid.UUID
    difference: Difference
    amount: int
    state: str | None
    """Ours."""

    def as_json(self) -> dict[str, Any]:
        return {
            "order_id": str(self.order_id),
            "difference": self.difference.value,
            "amount": self.amount,
            "state": self.state,
        }


@dataclass(frozen=True)
class Result:
    """What a reconciliation found, repaired and left for the operator."""

    provider: str
    day: date
    lines: int
    matched: int
    statement_total: int
    ledger_total: int
    differences: Sequence[Found]
    still_open: int
    """Orders placed that day or before that have come to no end; they are on no statement yet."""
    repaired: Sequence[Found] = field(default=())

    @property
    def sums(self) -> Mapping[str, int]:
        """The sum of the differences that are left, by kind."""
        sums: dict[str, int] = {}
        for found in self.differences:
            sums[found.difference.value] = sums.get(found.difference.value, 0) + found.amount
        return sums

    @property
    def equation(self) -> str:
        """Statement and ledger with every difference between them, as one line that must be true."""
        terms = "".join(f" {'-' if amount < 0 else '+'} {abs(amount)} {kind}" for kind, amount in self.sums.items())
        return f"statement {self.statement_total} = ledger {self.ledger_total}{terms}"

    @property
    def balanced(self) -> bool:
        """Whether the equation is true; when not, this program is wrong."""
        return self.statement_total == self.ledger_total + sum(self.sums.values())

    @property
    def clean(self) -> bool:
        """Whether nothing is left to be looked at."""
        return not self.differences


class _DryRun(Exception):
    """Undoes the transaction that a dry run worked in."""

    def __init__(self, result: Result) -> None:
        self.result = result


async def reconcile(
    database: Database,
    provider_name: str,
    provider: Provider | None,
    day: date,
    lines: AsyncIterator[str],
    clock: Clock,
    *,
    dry_run: bool = False,
) -> Result:
    """Compare, repair what is safe to repair, compare again and keep the result. A dry run only compares.

    `provider` is asked about orders that its statement lacks; None: they are only listed. Raises StatementInvalid.
    """
    if dry_run:
        try:
            async with database.writing() as session:
                await statements.load(session, provider_name, day, lines)
                raise _DryRun(await compare(session, provider_name, day))
        except _DryRun as done:
            return done.result
    async with database.writing() as session:
        await statements.load(session, provider_name, day, lines)
    async with database.reading() as session:
        before = await compare(session, provider_name, day)
    repaired = [
        found for found in before.differences if await _repair(database, provider_name, provider, day, found, clock)
    ]
    async with database.writing() as session:
        result = replace(await compare(session, provider_name, day), repaired=repaired)
        await _flag(session, result)
        await _keep(session, result, clock())
    return result


async def compare(session: Session, provider: str, day: date) -> Result:
    """The statement that was loaded, against the books as they are now."""
    statement, ours = _statement_sums(provider, day), _ledger_sums(provider, day)
    both = union_all(
        select(statement.c.order_id, statement.c.amount.label("told"), literal(0).label("booked")),
        select(ours.c.order_id, literal(0), ours.c.amount),
    ).subquery()
    by_order = (
        select(
            both.c.order_id,
            func.sum(both.c.told).label("told"),
            func.sum(both.c.booked).label("booked"),
        )
        .group_by(both.c.order_id)
        .subquery()
    )
    heard = (
        select(StatementLine.order_id, func.max(StatementLine.revision).label("revision"))
        .where(StatementLine.provider == provider, StatementLine.day == day)
        .group_by(col(StatementLine.order_id))
        .subquery()
    )
    columns: list[Any] = [*by_order.c, heard.c.revision, Order.state, Order.revision]
    differing: Any = (
        sqlalchemy.select(*columns)
        .select_from(by_order)
        .outerjoin(heard, heard.c.order_id == by_order.c.order_id)
        .outerjoin(Order, and_(col(Order.order_id) == by_order.c.order_id, Order.provider == provider))
        .where(
            or_(
                by_order.c.told != by_order.c.booked,
                col(Order.state).is_(None),
                # Delivered and taken back on one day, and we heard of neither.
                heard.c.revision > Order.revision,
            )
        )
        .order_by(by_order.c.order_id)
    )
    found = [
        await _classify(session, provider, day, order_id, int(told) - int(booked), (revision, state, ours_revision))
        for order_id, told, booked, revision, state, ours_revision in await session.exec(differing)
    ]
    compared = (await session.exec(select(func.count()).select_from(by_order))).one()
    return Result(
        provider=provider,
        day=day,
        lines=await _count_lines(session, provider, day),
        matched=compared - len(found),
        statement_total=await _sum(session, statement.c.amount),
        ledger_total=await _sum(session, ours.c.amount),
        differences=found,
        still_open=await _still_open(session, provider, day),
    )


def _statement_sums(provider: str, day: date) -> Any:
    return (
        select(StatementLine.order_id, func.sum(StatementLine.amount).label("amount"))
        .where(StatementLine.provider == provider, StatementLine.day == day)
        .group_by(col(StatementLine.order_id))
        .subquery()
    )


def _ledger_sums(provider: str, day: date) -> Any:
    # Both tables are of the member family: the join stays on one shard.
    return (
        select(OrderStep.order_id, func.sum(Entry.amount).label("amount"))
        .join(
            Entry,
            and_(
                col(Entry.holder_id) == OrderStep.member_id,
                col(Entry.transfer_id) == OrderStep.transfer_id,
                Entry.purpose == Purpose.DELIVERED,
            ),
        )
        .where(OrderStep.provider == provider, OrderStep.day == day)
        .group_by(col(OrderStep.order_id))
        .subquery()
    )


async def _sum(session: Session, amounts: Any) -> int:
    return int((await session.exec(select(func.coalesce(func.sum(amounts), 0)))).one())


async def _still_open(session: Session, provider: str, day: date) -> int:
    counted = select(func.count()).where(
        Order.provider == provider, col(Order.closed_at).is_(None), Order.created_at < steps.end_of(day)
    )
    return (await session.exec(counted)).one()


async def _count_lines(session: Session, provider: str, day: date) -> int:
    counted = select(func.count()).where(StatementLine.provider == provider, StatementLine.day == day)
    return (await session.exec(counted)).one()


async def _classify(
    session: Session, provider: str, day: date, order_id: uuid.UUID, amount: int, known: tuple[Any, str | None, Any]
) -> Found:
    heard, state, revision = known
    if state is None:
        return Found(order_id, Difference.MISSING_AT_OURS, amount, None)
    if heard is None:
        return Found(order_id, Difference.MISSING_AT_PROVIDER, amount, state)
    lines = await _lines_of(session, provider, day, order_id)
    order = await orders.find(session, order_id)
    moved_on = {step.day for step in await orders.steps_of(session, order) if _delivers(step)}
    kinds = (
        (Difference.AMOUNT_DIFFERS, any(abs(line.amount) != order.amount for line in lines)),
        (Difference.STATE_DIFFERS, heard > revision),
        (Difference.REPEATED_LINE, len({line.revision for line in lines}) < len(lines)),
        (Difference.PASSED_OVER, not moved_on and state != OrderState.COMPLETED),
        (Difference.OTHER_DAY, bool(moved_on - {day})),
    )
    return Found(order_id, next((kind for kind, true in kinds if true), Difference.STATE_DIFFERS), amount, state)


def _delivers(step: OrderStep) -> bool:
    """Whether a step moved value into or out of the member's DELIVERED account."""
    return OrderState.COMPLETED in (step.from_state, step.to_state)


async def _lines_of(session: Session, provider: str, day: date, order_id: uuid.UUID) -> list[StatementLine]:
    lines = await session.exec(
        select(StatementLine)
        .where(StatementLine.provider == provider, StatementLine.day == day, StatementLine.order_id == order_id)
        .order_by(col(StatementLine.revision), col(StatementLine.line))
    )
    return list(lines)


async def _repair(
    database: Database, provider_name: str, provider: Provider | None, day: date, found: Found, clock: Clock
) -> bool:
    """Whether the order moved. Only what the provider says under its own number moves one."""
    if found.difference is Difference.STATE_DIFFERS:
        async with database.reading() as session:
            lines = await _lines_of(session, provider_name, day, found.order_id)
        reports = [Report(Word(line.kind), Teller.STATEMENT, line.revision, line.at, line.reference) for line in lines]
    elif found.difference is Difference.MISSING_AT_PROVIDER and provider is not None:
        async with database.reading() as session:
            order = await orders.find(session, found.order_id)
        asked = Consignment(order.order_id, OrderKind(order.kind), order.amount, None, order.expires_at)
        reports = [report_of(await provider.query(asked), Teller.STATEMENT)]
    else:
        return False
    moved = False
    async with database.writing() as session:
        order = await orders.find(session, found.order_id)
        for report in reports:
            outcome = await steps.take(session, order.member_id, order.order_id, report, clock())
            moved |= outcome.effect is Effect.MOVED
    return moved


_ATTENTION = {
    Difference.AMOUNT_DIFFERS: Attention.AMOUNT_DIFFERS,
    Difference.STATE_DIFFERS: Attention.STATE_DIFFERS,
    Difference.MISSING_AT_PROVIDER: Attention.NOT_ON_STATEMENT,
}


async def _flag(session: Session, result: Result) -> None:
    for found in result.differences:
        attention = _ATTENTION.get(found.difference)
        if attention is not None:
            await steps.flag(session, await orders.find(session, found.order_id), attention)


async def _keep(session: Session, result: Result, now: datetime) -> None:
    session.add(
        ReconciliationRecord(
            reconciliation_id=new_id(),
            provider=result.provider,
            day=result.day,
            lines=result.lines,
            matched=result.matched,
            repaired=len(result.repaired),
            statement_total=result.statement_total,
            ledger_total=result.ledger_total,
            differences=[found.as_json() for found in result.differences[:DIFFERENCES_KEPT_MAX]],
            sums=dict(result.sums),
            at=now,
        )
    )
    await session.flush()
