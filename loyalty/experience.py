"""Experience: what a member's purchases at a brand amount to, in entries that are only ever added.

Tiers follow from these entries, never from a balance of points. An entry counts in a window of calendar months of China
from the moment when it happened; with each whole month that passes it may keep only a part of its weight.
"""

import calendar
import heapq
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Connection,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    event,
    or_,
    select,
    tuple_,
)
from sqlmodel import Field, SQLModel

from kit.clock import CHINA
from kit.db import Moment, Session, table_of
from loyalty.members import Card

FIGURE_MAX = 10**12
"""Farthest from zero that one entry's figures go."""
KEEP_PERMILLE_MAX = 1_000
_WEIGHT_ONE = 10**6
_MONTHS_A_YEAR = 12


class EntryKind(StrEnum):
    """What made an entry."""

    PURCHASE = "purchase"
    REFUND = "refund"
    IMPORTED = "imported"
    GRANTED = "granted"
    ADJUSTED = "adjusted"
    MERGED = "merged"


class ExperienceEntry(SQLModel, table=True):
    """One thing that counts, or no longer counts, towards a member's tier at a brand.

    `seq` numbers the entries of one card in the order in which they were decided on. `of_entry` names the entry that
    this one takes back, wholly or in part; such an entry has the same `at`, so that both weigh the same for ever.
    `origin_id` names the entry of a merged member that this one is a copy of, or the merge that this one takes back.
    """

    __tablename__: ClassVar[str] = "experience_entry"
    __table_args__ = (
        UniqueConstraint("member_id", "brand_id", "seq"),
        CheckConstraint(f"kind IN ({', '.join(repr(str(kind)) for kind in EntryKind)})", name="kind"),
        CheckConstraint("seq > 0", name="seq"),
        CheckConstraint(
            f"abs(purchases) <= {FIGURE_MAX} AND abs(fen) <= {FIGURE_MAX} AND abs(experience) <= {FIGURE_MAX}",
            name="figures",
        ),
        CheckConstraint("grant_rank > 0 AND granted_until IS NOT NULL OR grant_rank = 0", name="grant_rank"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    entry_id: uuid.UUID = Field(primary_key=True)
    kind: str = Field(primary_key=True, sa_type=Text)
    brand_id: int
    seq: int
    purchases: int = Field(sa_type=BigInteger)
    fen: int = Field(sa_type=BigInteger)
    experience: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=Moment)
    recorded_at: datetime = Field(sa_type=Moment)
    rules_version: int
    of_entry: uuid.UUID | None = None
    origin_id: uuid.UUID | None = None
    grant_rank: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    granted_until: datetime | None = Field(default=None, sa_type=Moment)


@dataclass(frozen=True)
class Figures:
    """What a tier asks for: the number of purchases, fen paid, and experience."""

    purchases: int = 0
    fen: int = 0
    experience: int = 0

    def less(self, other: "Figures") -> "Figures":
        """What is missing here to reach `other`; never below zero."""
        return Figures(
            max(0, other.purchases - self.purchases),
            max(0, other.fen - self.fen),
            max(0, other.experience - self.experience),
        )


@dataclass(frozen=True)
class Counted:
    """An entry as the deciding of tiers sees it."""

    entry_id: uuid.UUID
    seq: int
    figures: Figures
    at: datetime
    recorded_at: datetime
    rules_version: int
    of_entry: uuid.UUID | None = None
    origin_id: uuid.UUID | None = None
    grant_rank: int = 0
    granted_until: datetime | None = None


def add_months(moment: datetime, months: int) -> datetime:
    """The same day and time so many months later by the calendar of China, or that month's last day."""
    local = moment.astimezone(CHINA)
    year, month = divmod(local.year * _MONTHS_A_YEAR + local.month - 1 + months, _MONTHS_A_YEAR)
    day = min(local.day, calendar.monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day).astimezone(moment.tzinfo)


def months_since(start: datetime, end: datetime) -> int:
    """Whole months from `start` to `end`, which is not earlier."""
    first, last = start.astimezone(CHINA), end.astimezone(CHINA)
    months = (last.year - first.year) * _MONTHS_A_YEAR + last.month - first.month
    day = min(first.day, calendar.monthrange(last.year, last.month)[1])
    return months if (day, first.time()) <= (last.day, last.time()) else months - 1


def period_end_after(moment: datetime, period_months: int) -> datetime:
    """The first end of a period after `moment`: midnight in China before the first of a month; periods part years."""
    local = moment.astimezone(CHINA)
    start = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    into = (start.month - 1) % period_months
    return add_months(start, period_months - into).astimezone(moment.tzinfo)


def figures_at(entries: Iterable[Counted], at: datetime, window_months: int, keep_permille: int) -> Figures:
    """What the entries amount to at a moment.

    An entry counts for `window_months` months from when it happened. With each whole month it keeps `keep_permille`
    thousandths of its weight; 1000: all of it. Weights are whole millionths, sums are rounded down once, at the end.
    """
    purchases = fen = experience = 0
    for entry in entries:
        if entry.at > at:
            continue
        months = months_since(entry.at, at)
        if months >= window_months:
            continue
        weight = _WEIGHT_ONE * keep_permille**months // KEEP_PERMILLE_MAX**months
        purchases += entry.figures.purchases * weight
        fen += entry.figures.fen * weight
        experience += entry.figures.experience * weight
    return Figures(*(max(0, total) // _WEIGHT_ONE for total in (purchases, fen, experience)))


class Window:
    """What entries amount to as time goes on: the same as `figures_at`, without weighing every entry at every moment.

    Moments that are asked for never lie before earlier ones.
    """

    def __init__(self, window_months: int, keep_permille: int) -> None:
        weights = [_WEIGHT_ONE * keep_permille**months // KEEP_PERMILLE_MAX**months for months in range(window_months)]
        self._weights = [*weights, 0]
        # All of it is kept, or a part with each month: an entry's weight next changes after so many.
        self._step = window_months if keep_permille == KEEP_PERMILLE_MAX else 1
        self._changes: list[tuple[datetime, int, int, Counted]] = []
        self._purchases = self._fen = self._experience = 0

    def add(self, entry: Counted) -> None:
        """Count an entry, from when it happened on."""
        heapq.heappush(self._changes, (entry.at, entry.seq, 0, entry))

    def figures(self, at: datetime) -> Figures:
        """What the entries so far amount to at a moment."""
        changes, last = self._changes, len(self._weights) - 1
        while changes and changes[0][0] <= at:
            _moment, seq, months, entry = changes[0]
            weight = self._weights[months] - (self._weights[months - self._step] if months else 0)
            self._purchases += entry.figures.purchases * weight
            self._fen += entry.figures.fen * weight
            self._experience += entry.figures.experience * weight
            if months < last:
                months += self._step
                heapq.heapreplace(changes, (add_months(entry.at, months), seq, months, entry))
            else:
                heapq.heappop(changes)
        return Figures(*(max(0, total) // _WEIGHT_ONE for total in (self._purchases, self._fen, self._experience)))


def netted(entries: Sequence[Counted]) -> list[Counted]:
    """The entries as if what was taken back had never been: each less what later ones took back of it.

    A grant carries no figures: it is there, or it is taken back as a whole.
    """
    taken: dict[uuid.UUID, list[Figures]] = {}
    for entry in entries:
        if entry.of_entry is not None:
            taken.setdefault(entry.of_entry, []).append(entry.figures)
    return [
        replace(entry, figures=total([entry.figures, *taken[entry.entry_id]])) if entry.entry_id in taken else entry
        for entry in entries
        if entry.of_entry is None and not (entry.grant_rank and entry.entry_id in taken)
    ]


def total(parts: Sequence[Figures]) -> Figures:
    """The sum of figures."""
    return Figures(
        sum(part.purchases for part in parts), sum(part.fen for part in parts), sum(part.experience for part in parts)
    )


def counted(entry: ExperienceEntry | Row[Any]) -> Counted:
    """A stored entry for the deciding of tiers."""
    return Counted(
        entry.entry_id,
        entry.seq,
        Figures(entry.purchases, entry.fen, entry.experience),
        entry.at,
        entry.recorded_at,
        entry.rules_version,
        entry.of_entry,
        entry.origin_id,
        entry.grant_rank,
        entry.granted_until,
    )


async def entries_of(
    session: Session, cards: Sequence[tuple[uuid.UUID, int]], since: datetime | None = None
) -> dict[tuple[uuid.UUID, int], list[Counted]]:
    """Entries of the cards (member and brand), in the order of their decisions.

    With `since`, only those that happened later, that nothing was decided on yet, or that carry no figures: grants.
    """
    found: dict[tuple[uuid.UUID, int], list[Counted]] = {card: [] for card in cards}
    if cards:
        entries, holders = table_of(ExperienceEntry), table_of(Card)
        asked = entries.select().where(tuple_(entries.c.member_id, entries.c.brand_id).in_(cards))
        if since is not None:
            card = (holders.c.member_id == entries.c.member_id) & (holders.c.brand_id == entries.c.brand_id)
            decided = select(holders.c.tier_seq).where(card).scalar_subquery()
            bare = (entries.c.purchases == 0) & (entries.c.fen == 0) & (entries.c.experience == 0)
            asked = asked.where(or_(entries.c.at > since, bare, entries.c.seq > decided))
        for row in await (await session.connection()).execute(asked.order_by(entries.c.seq)):
            found[row.member_id, row.brand_id].append(counted(row))
    return found


async def entries_since(session: Session, card: Card, since: datetime | None) -> list[Counted]:
    """The same for one card as it was read last."""
    about = {"member": card.member_id, "brand": card.brand_id, "since": since or _LONG_AGO, "decided": card.tier_seq}
    return [counted(row) for row in await (await session.connection()).execute(_SINCE, about)]


_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
_ENTRY = table_of(ExperienceEntry).c
_SINCE = (
    table_of(ExperienceEntry)
    .select()
    .where(
        _ENTRY.member_id == bindparam("member"),
        _ENTRY.brand_id == bindparam("brand"),
        or_(
            _ENTRY.at > bindparam("since"),
            _ENTRY.seq > bindparam("decided"),
            (_ENTRY.purchases == 0) & (_ENTRY.fen == 0) & (_ENTRY.experience == 0),
        ),
    )
    .order_by(_ENTRY.seq)
)


async def copy_of(session: Session, member_id: uuid.UUID, brand_id: int, origin_id: uuid.UUID) -> Counted | None:
    """The latest copy that merges have made for a card of somebody else's entry; None: there is none."""
    entries = table_of(ExperienceEntry)
    found = await (await session.connection()).execute(
        entries.select()
        .where(entries.c.member_id == member_id, entries.c.brand_id == brand_id, entries.c.origin_id == origin_id)
        .order_by(entries.c.seq.desc())
        .limit(1)
    )
    row = found.first()
    return None if row is None else counted(row)


def append_only_ddl(dialect: str, tables: Sequence[str]) -> list[str]:
    """Statements that make the database itself refuse to change or delete rows of the tables.

    `SQLModel.metadata.create_all` runs them; a migration has to, after it made the tables. `dialect` is "sqlite" or
    "postgresql".
    """
    if dialect == "postgresql":
        return [_REFUSE_FUNCTION] + [
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION experience_refuse_change()"
            for table in tables
        ]
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the history of tiers is append-only'); END"
        for table in tables
        for verb in ("UPDATE", "DELETE")
    ]


_REFUSE_FUNCTION = (
    "CREATE OR REPLACE FUNCTION experience_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the history of tiers is append-only'; END $$"
)
APPEND_ONLY_TABLES = ("experience_entry", "tier_change")


@event.listens_for(SQLModel.metadata, "after_create")
def _make_append_only(_metadata: MetaData, connection: Connection, tables: Sequence[Table], **_options: object) -> None:
    made = {table.name for table in tables}
    if made.issuperset(APPEND_ONLY_TABLES):
        for statement in append_only_ddl(connection.dialect.name, APPEND_ONLY_TABLES):
            connection.exec_driver_sql(statement)
