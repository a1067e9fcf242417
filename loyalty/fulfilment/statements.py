"""A provider's statement of a day: what it says it delivered and took back, read in full or refused."""

import uuid
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from sqlalchemy import BigInteger, CheckConstraint, Date, Text, delete
from sqlmodel import Field as Column
from sqlmodel import SQLModel, col

from kit import locks
from kit.clock import When
from kit.db import Moment, Session, insert
from kit.errors import Invalid
from loyalty.fulfilment.providers import Reference, Revision
from loyalty.ledger import AMOUNT_MAX

LINE_CHARACTERS_MAX = 1_000
LINES_MAX = 20_000_000
_BATCH_LINES = 1_000


class StatementInvalid(Invalid):
    """The statement is not what it should be, or not all of it; nothing was changed."""

    code = "StatementInvalid"


class StatementLine(SQLModel, table=True):
    """One line of a provider's statement, kept as evidence."""

    __tablename__: ClassVar[str] = "fulfilment_statement_line"
    __table_args__ = (CheckConstraint("kind IN ('completed', 'reversed')", name="kind"),)

    provider: str = Column(primary_key=True, sa_type=Text)
    day: date = Column(primary_key=True, sa_type=Date)
    line: int = Column(primary_key=True, sa_type=BigInteger)
    order_id: uuid.UUID = Column(index=True)
    kind: str = Column(sa_type=Text)
    amount: int = Column(sa_type=BigInteger)
    """With its sign: what came back is negative."""
    revision: int = Column(sa_type=BigInteger)
    reference: str = Column(sa_type=Text)
    at: datetime = Column(sa_type=Moment)


class _Heading(BaseModel):
    statement: date
    provider: str


class _Movement(BaseModel):
    order_id: uuid.UUID
    kind: Literal["completed", "reversed"]
    amount: Annotated[int, Field(ge=1, le=AMOUNT_MAX, strict=True)]
    revision: Revision
    reference: Reference = ""
    at: When


class _Totals(BaseModel):
    lines: Annotated[int, Field(ge=0, strict=True)]
    completed: Annotated[int, Field(ge=0, strict=True)]
    reversed: Annotated[int, Field(ge=0, strict=True)]


_LINE: TypeAdapter[_Heading | _Movement | _Totals] = TypeAdapter(_Heading | _Movement | _Totals)


class _Reader:
    """Takes the lines one after the other, and knows whether they are all."""

    def __init__(self, provider: str, day: date) -> None:
        self._provider = provider
        self._day = day
        self._totals: _Totals | None = None
        self._headed = False
        self._sums = {"completed": 0, "reversed": 0}
        self.lines = 0

    def read(self, text: str) -> dict[str, Any] | None:
        """The row of a movement; None for heading and totals. Raises StatementInvalid."""
        number = self.lines + 1 + self._headed
        if len(text) > LINE_CHARACTERS_MAX or self._totals is not None:
            raise StatementInvalid(f"line {number}: too long, or after the totals")
        try:
            said = _LINE.validate_json(text)
        except ValidationError:
            raise StatementInvalid(f"line {number}: no heading, movement or totals") from None
        if isinstance(said, _Heading):
            if self._headed or (said.statement, said.provider) != (self._day, self._provider):
                raise StatementInvalid(f"line {number}: the heading of another statement")
            self._headed = True
            return None
        if not self._headed:
            raise StatementInvalid("the statement has no heading")
        if isinstance(said, _Totals):
            self._totals = said
            return None
        self.lines += 1
        if self.lines > LINES_MAX:
            raise StatementInvalid(f"a statement has at most {LINES_MAX} lines")
        self._sums[said.kind] += said.amount
        return {
            "provider": self._provider,
            "day": self._day,
            "line": self.lines,
            "order_id": said.order_id,
            "kind": said.kind,
            "amount": said.amount if said.kind == "completed" else -said.amount,
            "revision": said.revision,
            "reference": said.reference,
            "at": said.at,
        }

    def end(self) -> None:
        """All lines came. Raises StatementInvalid unless the totals are those of the lines."""
        if self._totals is None:
            raise StatementInvalid("the statement breaks off before its totals", hint="Fetch it again.")
        if self._totals != _Totals(lines=self.lines, **self._sums):
            raise StatementInvalid("the totals are not those of the lines", hint="Ask the provider for a right one.")


async def load(session: Session, provider: str, day: date, lines: AsyncIterator[str]) -> int:
    """Keep a statement in place of an earlier one of that day; the number of its lines. Raises StatementInvalid."""
    await locks.change(session, locks.key_of("statement", f"{provider} {day}"))
    await session.exec(
        delete(StatementLine).where(col(StatementLine.provider) == provider, col(StatementLine.day) == day)
    )
    reader = _Reader(provider, day)
    rows: list[dict[str, Any]] = []
    async for text in lines:
        if not text.strip():
            continue
        row = reader.read(text)
        if row is not None:
            rows.append(row)
        if len(rows) >= _BATCH_LINES:
            await session.exec(insert(session, StatementLine), params=rows)
            rows = []
    if rows:
        await session.exec(insert(session, StatementLine), params=rows)
    reader.end()
    return reader.lines
