"""Comparison: whether events, steps and acts stand in the database as the transparency log has them.

The log proves its records (`fanxing-audit`), and what is answered are rows, which nobody signed. Whoever alters a row
by hand is found here, for its record says something else.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from msgspec import DecodeError
from sqlmodel import SQLModel, col, select

from codes import log_queue
from codes.acts import BrandAct, OrderAct
from codes.log_queue import LogEntry
from kit.db import Database, Session, table_of
from scan_api import logged_rows
from scan_api.logged_rows import Contexts
from scan_api.provenance.events import ItemEvent, OrderEvent, RangeEvent
from scan_api.provenance.repository import EpcisEvent
from scan_api.transparency.store import LogHead, LogLeaf

PAGE_ENTRIES: Final = 500
PAGE_BYTES: Final = 16 * 1024 * 1024
"""Of the records that are in memory at once; one always is."""
PAGE_ROWS: Final = 5_000
FINDINGS_TOLD_MAX: Final = 100


class Kind(StrEnum):
    """What is compared; the kinds of these entries."""

    EVENT = "event"
    STEP = "step"
    ACT = "act"


_KINDS: Final = frozenset(Kind)


class Change(StrEnum):
    """What is wrong with a row."""

    ALTERED = "altered"
    """It says something else than its record."""
    REMOVED = "removed"
    """There is a record of it, and it is not there."""
    UNLOGGED = "unlogged"
    """There is no record of it, though it is younger than the log."""


_TABLES: Final[Sequence[tuple[type[SQLModel], Kind, str, str]]] = (
    (EpcisEvent, Kind.EVENT, "event_key", "record_time"),
    (OrderEvent, Kind.STEP, "event_id", "recorded_at"),
    (RangeEvent, Kind.STEP, "event_id", "recorded_at"),
    (ItemEvent, Kind.STEP, "event_id", "recorded_at"),
    (OrderAct, Kind.ACT, "act_id", "at"),
    (BrandAct, Kind.ACT, "act_id", "at"),
)
"""With the columns that a row's record has as its subject, and that tell when it was recorded."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that is not as the log has it. `subject` is an event's key, a step's or an act's id.

    `at` is when it was logged; of what is unlogged, when it says that it was recorded. `fields` are those that differ.
    """

    change: Change
    kind: Kind
    subject: uuid.UUID
    at: datetime
    fields: Sequence[str] = ()
    entry_id: uuid.UUID | None = None
    leaf_index: int | None = None


@dataclass(slots=True)
class Compared:
    """What came of it: how many records were compared, how many could not be, for they were erased, and how many events
    there were among both. `older`: rows from before the log.

    `findings` has the first 100 of `found`: those with a record in the order of the log, then the unlogged.
    """

    began_at: datetime | None = None
    """When the first entry was made; None: there is none."""
    records: int = 0
    erased: int = 0
    events: int = 0
    older: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        self.found += 1
        if len(self.findings) < FINDINGS_TOLD_MAX:
            self.findings.append(finding)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry without its record, which has so many bytes; None: it was erased."""

    entry_id: uuid.UUID
    kind: str
    subject: uuid.UUID
    at: datetime
    size: int | None


async def entries(session: Session) -> int:
    """How many entries there are; pending ones are counted up to a million."""
    size = (await session.exec(select(LogHead.size))).first()
    return (size or 0) + (await log_queue.backlog(session)).count


async def compare(database: Database, advance: Callable[[int], None]) -> Compared:
    """Compare every record with its row, in the order of the log. `advance` hears how many more entries are done.

    Each page is of one moment, so that this can be done while the server works; what is written meanwhile may be left
    out.
    """
    done, contexts = Compared(), Contexts()
    async for page in _pages(database):
        done.began_at = done.began_at or page[0].at
        for part in _parts(page):
            async with database.reading() as session:
                await _compare(session, contexts, [entry for entry in part if entry.kind in _KINDS], done)
            advance(len(part))
    return done


async def look_for_unlogged(database: Database, done: Compared, advance: Callable[[int], None]) -> None:
    """Find the rows without a record, after `compare`. `advance` hears how many more events were looked at."""
    for model, kind, subject, recorded in _TABLES:
        last: uuid.UUID | None = None
        async for rows in _rows(database, model, kind, subject, recorded):
            for found, at, is_logged in rows:
                if is_logged or found == last:
                    continue
                last = found
                if done.began_at is None or at < done.began_at:
                    done.older += 1
                else:
                    done.add(Finding(Change.UNLOGGED, kind, found, at))
            if kind is Kind.EVENT:
                advance(len(rows))


async def _pages(database: Database) -> AsyncIterator[Sequence[_Entry]]:
    entry, after = table_of(LogEntry).c, uuid.UUID(int=0)
    asked = sa.select(entry.entry_id, entry.kind, entry.subject, entry.at, sa.func.length(entry.record))
    while True:
        following = asked.where(entry.entry_id > after).order_by(entry.entry_id).limit(PAGE_ENTRIES)
        async with database.reading() as session:
            page = [_Entry(*row) for row in await (await session.connection()).execute(following)]
        if not page:
            return
        yield page
        after = page[-1].entry_id


def _parts(page: Sequence[_Entry]) -> Iterator[Sequence[_Entry]]:
    part: list[_Entry] = []
    size = 0
    for entry in page:
        size += entry.size or 0
        if part and size > PAGE_BYTES:
            yield part
            part, size = [], entry.size or 0
        part.append(entry)
    yield part


async def _compare(session: Session, contexts: Contexts, part: Sequence[_Entry], done: Compared) -> None:
    wanted = select(LogEntry.entry_id, LogEntry.record).where(
        col(LogEntry.entry_id).in_([one.entry_id for one in part])
    )
    records = dict((await session.exec(wanted)).all())
    keys = [one.subject for one in part if one.kind == Kind.EVENT]
    events = (await session.exec(select(EpcisEvent).where(col(EpcisEvent.event_key).in_(keys)))).all()
    await contexts.learn(session, {row.context_id for row in events})
    rows = {row.event_key: row for row in events}
    done.events += len(keys)
    for entry in part:
        record = records.get(entry.entry_id)
        if record is None:
            done.erased += 1
            continue
        done.records += 1
        try:
            fields = await _differing(session, contexts, entry, record, rows)
        except (DecodeError, ValueError, KeyError, TypeError, AttributeError):
            fields = ["record"]  # it is no record that was ever written here
        if fields is None or fields:
            change = Change.REMOVED if fields is None else Change.ALTERED
            leaf = (await session.exec(select(LogLeaf.leaf_index).where(LogLeaf.entry_id == entry.entry_id))).first()
            done.add(Finding(change, Kind(entry.kind), entry.subject, entry.at, fields or (), entry.entry_id, leaf))


async def _differing(
    session: Session, contexts: Contexts, entry: _Entry, record: bytes, events: dict[uuid.UUID, EpcisEvent]
) -> list[str] | None:
    """The fields in which a row is not as its record; None: it is not there."""
    if entry.kind == Kind.STEP:
        return await logged_rows.differing_in_step(session, entry.subject, logged_rows.step_record(record))
    if entry.kind == Kind.ACT:
        return await logged_rows.differing_in_act(session, entry.subject, logged_rows.act_record(record))
    row = events.get(entry.subject)
    return None if row is None else logged_rows.differing_in_event(logged_rows.event_record(record), row, contexts)


async def _rows(
    database: Database, model: type[SQLModel], kind: Kind, subject: str, recorded: str
) -> AsyncIterator[Sequence[tuple[uuid.UUID, datetime, bool]]]:
    """The subjects of a table's rows, when each was recorded, and whether there is a record of it."""
    table, entry = table_of(model), table_of(LogEntry)
    keys = list(table.primary_key.columns)
    is_logged = sa.exists().where(entry.c.subject == table.c[subject], entry.c.kind == kind.value)
    asked = sa.select(table.c[subject], table.c[recorded], is_logged, *keys).order_by(*keys).limit(PAGE_ROWS)
    following = asked
    while True:
        async with database.reading() as session:
            rows = (await (await session.connection()).execute(following)).all()
        yield [(row[0], row[1], row[2]) for row in rows]
        if len(rows) < PAGE_ROWS:
            return
        last = [sa.literal(value, column.type) for value, column in zip(rows[-1][3:], keys, strict=True)]
        following = asked.where(sa.tuple_(*keys) > sa.tuple_(*last))
