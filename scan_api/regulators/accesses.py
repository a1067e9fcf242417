"""Accesses: who among the regulators looked at what, when and what for, and how much he was told.

Nothing is answered before its access is recorded. A record is never changed, and kept for three years.
"""

import re
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final
from urllib.parse import unquote

from sqlalchemy import JSON, CheckConstraint, Column, Index, Text, delete
from sqlmodel import Field, SQLModel, col, select

from kit.clock import Clock
from kit.db import Database, Moment, Session, table_of
from kit.errors import FanxingError, Invalid
from kit.ids import new_id
from kit.paging import Position, newest_first
from scan_api.provenance.things import name_of
from scan_api.regulators import append_only
from scan_api.regulators.accounts import Regulator

KEPT: Final = timedelta(days=1_096)
PURPOSE_CHARACTERS_MAX: Final = 500
SUBJECT_CHARACTERS_MAX: Final = 32_768
FILTER_CHARACTERS_MAX: Final = 32_768
"""As much as the head of a request holds (32 KiB): nothing that was asked in it is cut away."""
FILTERS_MAX: Final = 10_000
ANSWERED: Final = "answered"
FAILED: Final = "failed"
SWEPT_AT_ONCE_MAX: Final = 10_000
_TOLD_BY_BRAND: Final = "told_by_brand"
"""Kept beside the filters of a look that told of several brands: no parameter that is answered has this name."""
_SECRET: Final = re.compile(r"[0-9]{21,}")
"""A code text's signature: longer than what any GS1 identifier has in digits (General Specifications, 3.5.2: 20)."""
_UNKEPT: Final = re.compile("[\x00\ud800-\udfff]")
"""What no database stores as text."""

assert set(append_only.TABLES) >= {"regulator_access", "regulator_access_brand"}


class PurposeInvalid(Invalid):
    code = "PurposeInvalid"


class RegulatorAccess(SQLModel, table=True):
    """One look, as it is kept."""

    __tablename__: ClassVar[str] = "regulator_access"
    __table_args__ = (
        CheckConstraint("told >= 0", name="told"),
        Index("ix_regulator_access_holder_id_at", "holder_id", "at", "access_id"),
        Index("ix_regulator_access_at", "at", "access_id"),
    )

    access_id: uuid.UUID = Field(primary_key=True)
    at: datetime = Field(sa_type=Moment)
    holder_id: uuid.UUID
    """The account, or the caller of a key that has none."""
    key_id: str = Field(sa_type=Text)
    name: str = Field(sa_type=Text)
    operation: str = Field(sa_type=Text)
    subject: str = Field(sa_type=Text)
    filters: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    purpose: str | None = Field(default=None, sa_type=Text)
    outcome: str = Field(sa_type=Text)
    """"answered", or the code of the refusal."""
    told: int
    """How many things the answer told of."""
    kept_until: datetime = Field(sa_type=Moment, index=True)

    @property
    def asked(self) -> dict[str, Any]:
        """The filters as they were asked."""
        return {name: value for name, value in self.filters.items() if name != _TOLD_BY_BRAND}

    def told_of(self, brand_ids: Collection[int], own: Collection[int]) -> int | None:
        """How many things the answer told of `own` of the brands that it told of (`brand_ids`).

        None: of several, and from before that was counted.
        """
        if set(brand_ids) <= set(own):
            return self.told
        counted = self.filters.get(_TOLD_BY_BRAND)
        return None if counted is None else sum(counted.get(str(brand_id), 0) for brand_id in own)


class RegulatorAccessBrand(SQLModel, table=True):
    """A brand of whose goods an answer told."""

    __tablename__: ClassVar[str] = "regulator_access_brand"

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    access_id: uuid.UUID = Field(primary_key=True, index=True)
    at: datetime = Field(sa_type=Moment)
    kept_until: datetime = Field(sa_type=Moment)


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to know: an operation's name, its subject and its filters."""

    operation: str
    subject: str = ""
    filters: Mapping[str, Any] = field(default_factory=dict)
    purpose: str | None = None


@dataclass(slots=True)
class Told:
    """What he is told: how many things, and how many of each brand; one thing may be of several."""

    count: int = 0
    by_brand: dict[int, int] = field(default_factory=dict)

    def of(self, brand_id: int, count: int = 1) -> None:
        """Count things of a brand."""
        self.of_all((brand_id,), count)

    def of_all(self, brand_ids: Collection[int], count: int = 1) -> None:
        """Count things each of which is of all these brands."""
        self.count += count
        for brand_id in brand_ids:
            self.by_brand[brand_id] = self.by_brand.get(brand_id, 0) + count


def purpose_of(header: str | None) -> str | None:
    """The purpose in a `Fanxing-Purpose` header: UTF-8, percent-encoded. Raises PurposeInvalid."""
    if header is None or not header.strip():
        return None
    try:
        text = unquote(header.strip(), errors="strict")
    except UnicodeDecodeError:
        text = ""
    if not 1 <= len(text) <= PURPOSE_CHARACTERS_MAX or not text.isprintable():
        raise PurposeInvalid(f"a purpose has 1 to {PURPOSE_CHARACTERS_MAX} printable characters, percent-encoded UTF-8")
    return text


@asynccontextmanager
async def recorded(database: Database, clock: Clock, regulator: Regulator, asked: Asked) -> AsyncIterator[Told]:
    """Record a look when its answer is known, or its refusal; what is not recorded is not answered.

    Within it no transaction of `database` may be open.
    """
    told = Told()
    try:
        yield told
    except BaseException as error:
        outcome = error.code if isinstance(error, FanxingError) else FAILED
        async with database.writing() as session:
            await record(session, regulator, asked, Told(), outcome, clock())
        raise
    async with database.writing() as session:
        await record(session, regulator, asked, told, ANSWERED, clock())


async def record(
    session: Session, regulator: Regulator, asked: Asked, told: Told, outcome: str, now: datetime
) -> uuid.UUID:
    """Record a look in the transaction that answers it. Returns its id."""
    access_id, until = new_id(), now + KEPT
    session.add(
        RegulatorAccess(
            access_id=access_id,
            at=now,
            holder_id=regulator.holder_id,
            key_id=regulator.key.key_id,
            name=regulator.name,
            operation=asked.operation,
            subject=_kept(asked.subject, SUBJECT_CHARACTERS_MAX),
            filters=_short(asked.filters) | _by_brand(told),
            purpose=asked.purpose,
            outcome=outcome,
            told=told.count,
            kept_until=until,
        )
    )
    for brand_id in sorted(told.by_brand):
        session.add(RegulatorAccessBrand(brand_id=brand_id, access_id=access_id, at=now, kept_until=until))
    await session.flush()
    return access_id


def _by_brand(told: Told) -> dict[str, Any]:
    """What was told of each brand, where that is not what was told at all."""
    if len(told.by_brand) < 2:
        return {}
    return {_TOLD_BY_BRAND: {str(brand_id): count for brand_id, count in sorted(told.by_brand.items())}}


def _short(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Filters as they are kept: long texts are cut, so that nobody fills the record."""
    return {
        _kept(str(name), FILTER_CHARACTERS_MAX): (
            value if isinstance(value, int) else _kept(str(value), FILTER_CHARACTERS_MAX)
        )
        for name, value in list(filters.items())[:FILTERS_MAX]
        if value is not None
    }


def _kept(text: str, characters_max: int) -> str:
    """A text as it is kept: with no signature of a code, for it is as secret as the code, and what can be stored."""
    return _UNKEPT.sub("\ufffd", _SECRET.sub("…", text))[:characters_max]


def named(name: str, value: str) -> str:
    """A parameter of a query for the record: things of MATCH_… by their one names, which hold no signatures."""
    if not name.startswith("MATCH_"):
        return value
    return "|".join(name_of(thing) for thing in value.split("|"))


async def of_holder(
    session: Session, holder_id: uuid.UUID | None, after: Position | None, count: int
) -> list[RegulatorAccess]:
    """A page of the looks of one regulator, or of all (None), newest first."""
    asked = select(RegulatorAccess)
    if holder_id is not None:
        asked = asked.where(col(RegulatorAccess.holder_id) == holder_id)
    page = newest_first(asked, col(RegulatorAccess.at), col(RegulatorAccess.access_id), after, count)
    return list(await session.exec(page))


async def of_brands(
    session: Session, brand_ids: Collection[int], after: Position | None, count: int
) -> list[RegulatorAccess]:
    """A page of the looks whose answers told of goods of these brands, newest first."""
    seen = select(RegulatorAccessBrand.access_id).where(col(RegulatorAccessBrand.brand_id).in_(brand_ids))
    asked = select(RegulatorAccess).where(col(RegulatorAccess.access_id).in_(seen))
    page = newest_first(asked, col(RegulatorAccess.at), col(RegulatorAccess.access_id), after, count)
    return list(await session.exec(page))


async def brands_of(session: Session, access_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, list[int]]:
    """The brands of which these answers told."""
    found: dict[uuid.UUID, list[int]] = {}
    rows = await session.exec(
        select(RegulatorAccessBrand.access_id, RegulatorAccessBrand.brand_id)
        .where(col(RegulatorAccessBrand.access_id).in_(access_ids))
        .order_by(col(RegulatorAccessBrand.brand_id))
    )
    for access_id, brand_id in rows:
        found.setdefault(access_id, []).append(brand_id)
    return found


async def sweep(session: Session, now: datetime) -> int:
    """Forget up to 10,000 looks that need no longer be kept. How many."""
    over = select(RegulatorAccess.access_id).where(col(RegulatorAccess.kept_until) <= now).limit(SWEPT_AT_ONCE_MAX)
    gone = (await session.exec(over)).all()
    for start in range(0, len(gone), 500):
        some = gone[start : start + 500]
        for table in (table_of(RegulatorAccessBrand), table_of(RegulatorAccess)):
            await session.exec(delete(table).where(table.c.access_id.in_(some)))
    return len(gone)
