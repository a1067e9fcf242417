"""Log queue: records that shall become leaves of the transparency log, put there by the transaction that makes them.

Whoever accepts an event or does an act calls `enqueue` in the same transaction, so that neither is without the other.
The sequencer (`scan_api.transparency`) takes what is pending and gives it its place in the tree. The tree holds
commitments alone (docs/transparency-log.md), so a record can be erased, and the tree stays.
"""

import asyncio
import itertools
import json
import re
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, Final

from sqlalchemy import CheckConstraint, LargeBinary, Table, Text, Uuid, func, text, update
from sqlmodel import Field, SQLModel, col, select

from kit.clock import iso
from kit.db import COPIED_AT_ONCE_LINES, Moment, Session, copy_lines, is_postgresql, table_of
from kit.errors import Invalid
from kit.ids import new_id
from offline_sdk.errors import LogMalformed
from offline_sdk.transparency.commitment import COMMITMENT_BYTES, SALT_BYTES, Opening

KIND_CHARACTERS_MAX: Final = 40
RECORD_BYTES_MAX: Final = 15 * 1024 * 1024
"""With its salt still a line that an audit reads."""
ENQUEUED_AT_ONCE_MAX: Final = 100_000
PREPARED_AT_ONCE: Final = 50
PENDING_COUNTED_MAX: Final = 1_000_000
ERASED_AT_ONCE_MAX: Final = 1_000
_COPIED_MIN: Final = 20
"""Rows from which COPY is quicker than INSERT."""
_KIND = re.compile(rf"[a-z][a-z_]{{0,{KIND_CHARACTERS_MAX - 1}}}")
_RETURNED = {"entry_id": Uuid, "commitment": LargeBinary}
# By the rows' places: a plan that joins could read a whole table of rows that are no more.
_TAKE_PLACES = text("""
    DELETE FROM log_pending WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM log_pending ORDER BY entry_id LIMIT :count_max FOR UPDATE
    )) RETURNING entry_id, commitment
""").columns(**_RETURNED)
_TAKE_IDS = text("""
    DELETE FROM log_pending WHERE entry_id IN (SELECT entry_id FROM log_pending ORDER BY entry_id LIMIT :count_max)
    RETURNING entry_id, commitment
""").columns(**_RETURNED)


class LogRecordInvalid(Invalid):
    """This can be no record of the transparency log."""

    code = "LogRecordInvalid"


class LogEntry(SQLModel, table=True):
    """A record that was logged, or is about to be: what its commitment in the tree commits to.

    Written once; erasing takes `record` and `salt`. Its index in the tree is in `log_leaf`, so that giving it one
    does not write the record again.
    """

    __tablename__: ClassVar[str] = "log_entry"
    __table_args__ = (
        CheckConstraint(f"length(kind) BETWEEN 1 AND {KIND_CHARACTERS_MAX}", name="kind"),
        CheckConstraint("(record IS NULL) = (salt IS NULL)", name="opening"),
        CheckConstraint(f"length(salt) = {SALT_BYTES}", name="salt"),
    )

    entry_id: uuid.UUID = Field(primary_key=True)
    kind: str = Field(sa_type=Text)
    subject: uuid.UUID = Field(index=True)
    """The id of what was recorded: an event's key, an act's id."""
    brand_id: int | None = None
    """Whose it is; None: the installation's."""
    record: bytes | None = Field(default=None, sa_type=LargeBinary)
    salt: bytes | None = Field(default=None, sa_type=LargeBinary)
    at: datetime = Field(sa_type=Moment)


class LogPending(SQLModel, table=True):
    """An entry that has no place in the tree yet, and all that giving it one takes."""

    __tablename__: ClassVar[str] = "log_pending"
    __table_args__ = (CheckConstraint(f"length(commitment) = {COMMITMENT_BYTES}", name="commitment"),)

    entry_id: uuid.UUID = Field(primary_key=True)
    commitment: bytes = Field(sa_type=LargeBinary)
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What shall be logged: `record` is JSON of an object in one line, up to 15 MiB, see `record_of`.

    `kind` is 1 to 40 of a-z and _, such as event or order_act; `subject` is the id of what is recorded.
    """

    kind: str
    subject: uuid.UUID
    brand_id: int | None
    record: bytes = field(repr=False)


_Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows of `log_entry` and `log_pending`."""

    entries: Sequence[_Row] = field(repr=False)
    pending: Sequence[_Row] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """An entry that was pending: its id and its commitment of 32 bytes."""

    entry_id: uuid.UUID
    commitment: bytes


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is pending: how many entries (counted up to 1,000,000), and when the oldest was made."""

    count: int
    oldest_at: datetime | None


def record_of(content: Mapping[str, Any]) -> bytes:
    """The bytes of a record: JSON in UTF-8, sorted by key, without spaces. Raises LogRecordInvalid."""
    try:
        encoded = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return encoded.encode()
    except (TypeError, ValueError, RecursionError):  # a lone surrogate is a ValueError too
        raise LogRecordInvalid("a record is what JSON can say in UTF-8") from None


def record_around(content: Mapping[str, Any], name: str, json_text: str) -> bytes:
    """The same with one more member behind those of `content`, whose value is JSON already, and not written anew.

    Between tokens JSON may have line ends, which are made spaces; within them it cannot. Raises LogRecordInvalid.
    """
    try:
        value = json_text.replace("\n", " ").encode()
    except UnicodeEncodeError:
        raise LogRecordInvalid("a record is UTF-8") from None
    return b"%s,%s:%s}" % (record_of(content)[:-1], json.dumps(name).encode(), value)


async def enqueue(session: Session, entries: Iterable[NewEntry], now: datetime) -> list[uuid.UUID]:
    """Log these, in the caller's transaction and in this order; returns their ids, version 7, ascending.

    At most 100,000 at once. Raises LogRecordInvalid.
    """
    return await put(session, await prepare(entries, now))


async def prepare(entries: Iterable[NewEntry], now: datetime) -> Prepared:
    """What `enqueue` writes, made a few at a time, so that somebody else's database can work meanwhile."""
    made: list[_Row] = []
    pending: list[_Row] = []
    rest = iter(entries)
    while some := list(itertools.islice(rest, PREPARED_AT_ONCE)):
        if len(made) + len(some) > ENQUEUED_AT_ONCE_MAX:
            raise LogRecordInvalid(f"at most {ENQUEUED_AT_ONCE_MAX:,} records are logged at once")
        salts = secrets.token_bytes(SALT_BYTES * len(some))
        for number, entry in enumerate(some):
            _check(entry)
            opening = _opening(salts[SALT_BYTES * number :][:SALT_BYTES], entry.record)
            entry_id = new_id()
            # In the order of the table's columns.
            made.append((entry_id, entry.kind, entry.subject, entry.brand_id, entry.record, opening.salt, now))
            pending.append((entry_id, opening.commitment, now))
        await asyncio.sleep(0)
    return Prepared(made, pending)


async def put(session: Session, prepared: Prepared) -> list[uuid.UUID]:
    """The rest of `enqueue`."""
    await write_rows(session, table_of(LogEntry), prepared.entries)
    await write_rows(session, table_of(LogPending), prepared.pending)
    return [row[0] for row in prepared.pending]


def _check(entry: NewEntry) -> None:
    if not _KIND.fullmatch(entry.kind):
        raise LogRecordInvalid(f"the kind of a record is 1 to {KIND_CHARACTERS_MAX} of a-z and _")
    if len(entry.record) > RECORD_BYTES_MAX:
        raise LogRecordInvalid(f"a record has at most {RECORD_BYTES_MAX:,} bytes")


def _opening(salt: bytes, record: bytes) -> Opening:
    try:
        record.decode()
        return Opening(salt, record)
    except (LogMalformed, UnicodeDecodeError):
        raise LogRecordInvalid(
            "a record is a JSON object in one line of UTF-8", hint="`log_queue.record_of` makes one."
        ) from None


async def write_rows(session: Session, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows with all columns of a table: many by COPY, a tenth of the cost of INSERT.

    Fields are numbers, ids, moments, bytes, None, and texts without a tab, a backslash or a line's end.
    """
    if not rows:
        return
    names = [column.name for column in table.columns]
    if not is_postgresql(session) or len(rows) < _COPIED_MIN:
        values = [dict(zip(names, row, strict=True)) for row in rows]
        await (await session.connection()).execute(table.insert(), values)
        return
    # As many as `copy_lines` asks for, while the database takes in those before.
    parts = (rows[start : start + COPIED_AT_ONCE_LINES] for start in range(0, len(rows), COPIED_AT_ONCE_LINES))
    await copy_lines(session, table, itertools.chain.from_iterable(map(_lines, parts)))


def _lines(rows: Sequence[Sequence[Any]]) -> Iterable[str]:
    columns = map(_column_written, zip(*rows, strict=True))
    return map("\t".join, zip(*columns, strict=True))


def _column_written(values: Sequence[object]) -> Sequence[str]:
    first = values[0]
    if all(value is first for value in values):  # as the moment is, and whose it is
        return [_written(first)] * len(values)
    return list(map(_written, values))


def _written(value: object) -> str:
    """A field of COPY's text format (PostgreSQL manual, COPY, "Text Format")."""
    if isinstance(value, bytes):
        return f"\\\\x{value.hex()}"
    if isinstance(value, uuid.UUID):
        return value.hex  # quicker than with dashes
    return "\\N" if value is None else str(value)


async def take(session: Session, count_max: int) -> list[Taken]:
    """Take the oldest pending entries off the queue, in the order of their ids; they come back if nobody commits.

    Ids grow with the time when they were made, not with the time when they were committed; whatever is committed
    later than its neighbours is simply taken later.
    """
    statement = _TAKE_PLACES if is_postgresql(session) else _TAKE_IDS
    rows = (await (await session.connection()).execute(statement, {"count_max": count_max})).all()
    return sorted((Taken(row.entry_id, row.commitment) for row in rows), key=attrgetter("entry_id"))


async def backlog(session: Session) -> Backlog:
    """What is pending now."""
    table = table_of(LogPending)
    some = select(table.c.entry_id).limit(PENDING_COUNTED_MAX).subquery()
    count = (await session.exec(select(func.count()).select_from(some))).one()
    oldest = select(table.c.at).order_by(table.c.entry_id).limit(1)
    return Backlog(count, (await session.exec(oldest)).first() if count else None)


async def erase(session: Session, entry_ids: Sequence[uuid.UUID], reason: str, now: datetime) -> int:
    """Erase salt and record of up to 1,000 entries, for ever, and return of how many; the tree stays as it is.

    What is left commits to nothing that anybody could find, even by trying all records (docs/transparency-log.md).
    That it was done, and why, is a record of its own, so that erasing cannot hide that something was altered.
    """
    if len(entry_ids) > ERASED_AT_ONCE_MAX:
        raise LogRecordInvalid(f"at most {ERASED_AT_ONCE_MAX:,} records are erased at once")
    table = table_of(LogEntry)
    gone = update(table).where(table.c.entry_id.in_(entry_ids), table.c.salt.is_not(None))
    erased = gone.values(salt=None, record=None).returning(table.c.entry_id)
    found = sorted((await (await session.connection()).execute(erased)).scalars())
    if found:
        told = {"type": "erasure", "at": iso(now), "entries": [str(one) for one in found], "reason": reason}
        await enqueue(session, [NewEntry("erasure", found[0], None, record_of(told))], now)
    return len(found)


async def entries_about(session: Session, subjects: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[uuid.UUID]]:
    """The ids of the entries about each of these subjects, oldest first; none: not there."""
    wanted = select(LogEntry.subject, LogEntry.entry_id).where(col(LogEntry.subject).in_(subjects))
    found: dict[uuid.UUID, list[uuid.UUID]] = {}
    for subject, entry_id in (await session.exec(wanted.order_by(col(LogEntry.entry_id)))).all():
        found.setdefault(subject, []).append(entry_id)
    return found
