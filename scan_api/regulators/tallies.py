"""Tallies: how much happened on a day, by product and region; kept up as it happens, never counted anew for a question.

A source is followed by time, window by window. What a window adds and how far the source is followed commit together,
so that a worker may be killed at any point, and two count nothing twice.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import ClassVar, Final

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Text, update
from sqlmodel import Field, SQLModel, col, func, select

from codes.catalogue import Product
from codes.orders import CodeOrder
from kit.clock import CHINA, china_day
from kit.db import Database, Moment, Session, insert, table_of
from scan_api.device_scans import DeviceScan
from scan_api.scans import Scan

LAG: Final = timedelta(minutes=2)
"""So long after its moment a row may still commit: longer than any statement or lock may take."""
WINDOW_MIN, WINDOW_MAX = timedelta(seconds=10), timedelta(days=1)
ROWS_WANTED: Final = 50_000
"""Of one window, about: the next is made shorter or longer."""
NOWHERE: Final = ""
"""The region of what happened nobody knows where."""
_ASKED_AT_ONCE_MAX: Final = 500

# On PostgreSQL a few bytes a thousand rows: both tables grow at one end, in the order of these columns.
Index("ix_scan_at", table_of(Scan).c.at, postgresql_using="brin")
Index("ix_device_scan_received_at", table_of(DeviceScan).c.received_at, postgresql_using="brin")


class Kind(StrEnum):
    """What is counted."""

    ISSUED = "issued"  # items of orders that were placed
    ACTIVATED = "activated"
    VOIDED = "voided"
    RECALLED = "recalled"
    SCANS = "scans"  # of items that were truly issued
    REFUSED = "refused"  # scans at counters of what is revoked, recalled or of another brand
    SUSPECTED_FAKES = "suspected_fakes"  # scans at counters of codes that nobody issued
    REFUSED_ONLINE = "refused_online"  # scans by page and API of what is revoked, recalled, void or held
    SUSPECTED_FAKES_ONLINE = "suspected_fakes_online"  # scans by page and API of codes that nobody issued
    SUSPECTED_COPIES = "suspected_copies"  # items on the day on which they were scanned too often
    RECALL_ORDERS = "recall_orders"  # given by regulators


_KINDS: Final = ", ".join(f"'{kind}'" for kind in Kind)


class Tally(SQLModel, table=True):
    """A count of a day in China."""

    __tablename__: ClassVar[str] = "tally"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
        CheckConstraint("length(day) = 10", name="day"),
    )

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    day: str = Field(primary_key=True, sa_type=Text)
    """Such as 2026-05-01."""
    gtin: str = Field(primary_key=True, sa_type=Text)
    region: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(primary_key=True, sa_type=Text)
    count: int = Field(sa_column=Column(BigInteger, nullable=False))


class TallySource(SQLModel, table=True):
    """How far a source was followed: everything before this moment is counted."""

    __tablename__: ClassVar[str] = "tally_source"

    source: str = Field(primary_key=True, sa_type=Text)
    upto: datetime = Field(sa_type=Moment)


@dataclass(frozen=True, slots=True)
class Key:
    """What a count is of."""

    day: str
    gtin: str
    kind: Kind
    region: str = NOWHERE


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one day in China, the end not included."""

    start: datetime
    end: datetime

    @property
    def day(self) -> str:
        return day_of(self.start)


Counts = Counter[Key]
Count = Callable[[Session, Window], Awaitable[tuple[Counts, int]]]
"""Counts a window of a source; and tells how many rows it looked at."""


def day_of(moment: datetime) -> str:
    """The day in China on which a moment lies, such as 2026-05-01."""
    return china_day(moment).isoformat()


async def add(session: Session, counts: Mapping[Key, int]) -> None:
    """Add counts of products that there are; counts of others are left out, since they are nobody's."""
    owners = await owners_of(session, {key.gtin for key in counts})
    rows = [
        {
            "brand_id": owners[key.gtin],
            "day": key.day,
            "gtin": key.gtin,
            "region": key.region,
            "kind": key.kind,
            "count": n,
        }
        for key, n in counts.items()
        if key.gtin in owners and n
    ]
    # In one order for everybody, so that nobody waits in a circle.
    rows.sort(key=lambda row: (row["brand_id"], row["day"], row["gtin"], row["region"], row["kind"]))
    adding = insert(session, Tally)
    adding = adding.on_conflict_do_update(
        index_elements=["brand_id", "day", "gtin", "region", "kind"],
        set_={"count": table_of(Tally).c.count + adding.excluded.count},
    )
    if rows:
        await (await session.connection()).execute(adding, rows)


async def owners_of(session: Session, gtins: Collection[str]) -> dict[str, int]:
    """The brands of those of these products that there are."""
    wanted, found = sorted(gtins), {}
    for start in range(0, len(wanted), _ASKED_AT_ONCE_MAX):
        some = wanted[start : start + _ASKED_AT_ONCE_MAX]
        rows = await session.exec(select(Product.gtin, Product.brand_id).where(col(Product.gtin).in_(some)))
        found.update(dict(rows.all()))
    return found


async def follow(
    database: Database, source: str, count: Count, now: datetime, *, windows_max: int | None = None
) -> int:
    """Count what a source has had since it was last followed, till two minutes ago. Returns how many windows.

    `windows_max`: no more than so many.
    """
    until, step, done = now - LAG, WINDOW_MIN * 60, 0
    upto = await _begun(database, source)
    while upto < until and (windows_max is None or done < windows_max):
        window = Window(upto, min(upto + step, until, _midnight_after(upto)))
        async with database.writing() as session:
            moved = await session.exec(
                update(TallySource)
                .where(col(TallySource.source) == source, col(TallySource.upto) == upto)
                .values(upto=window.end)
            )
            if moved.rowcount == 0:
                return done  # another worker is here
            counts, rows = await count(session, window)
            await add(session, counts)
        upto, done = window.end, done + 1
        if rows > ROWS_WANTED:
            step = max(step / 2, WINDOW_MIN)
        elif rows < ROWS_WANTED / 4:
            step = min(step * 2, WINDOW_MAX)
    return done


async def _begun(database: Database, source: str) -> datetime:
    """Till when a source was followed; one that never was begins with the day of the first order."""
    async with database.writing() as session:
        found = await session.get(TallySource, source)
        if found is None:
            first = (await session.exec(select(func.min(CodeOrder.created_at)))).one()
            if first is None:
                return datetime.max.replace(tzinfo=CHINA)  # nothing can have happened
            begins = datetime.combine(china_day(first), time.min, CHINA)
            rows = insert(session, TallySource).values(source=source, upto=begins).on_conflict_do_nothing()
            await session.exec(rows)
            found = await session.get_one(TallySource, source)
        return found.upto


def _midnight_after(moment: datetime) -> datetime:
    return datetime.combine(china_day(moment) + timedelta(days=1), time.min, CHINA)
