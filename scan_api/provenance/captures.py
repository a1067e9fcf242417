"""Captures: documents of events that somebody hands in, judged event by event, and kept whole or in part.

An event is accepted, is a duplicate of one that is there, or is refused with its faults. By default one refusal refuses
the document (`GS1-Capture-Error-Behaviour: rollback`); with `proceed` the others are kept (EPCIS 2.0, 12.6).
"""

import asyncio
import contextlib
import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from msgspec import Struct
from sqlalchemy import JSON, CheckConstraint, Column, Text
from sqlmodel import Field, SQLModel, col, select

from codes import log_queue
from codes.log_queue import NewEntry
from kit.clock import iso
from kit.db import Moment, Session
from kit.errors import NotFound
from kit.ids import new_id
from scan_api.provenance import event_reading, lots, packing, repository
from scan_api.provenance.documents import Document
from scan_api.provenance.event_reading import Reader, Reading
from scan_api.provenance.event_values import Fault
from scan_api.provenance.repository import EventContext, EventsRaced, NewEvent, key_of

EVENTS_AT_ONCE_MAX = 1_000
"""Of a document that is captured while its sender waits."""
BYTES_AT_ONCE_MAX = 8 * 1024 * 1024
THINGS_AT_ONCE_MAX = 20_000
"""Named by all events of such a document together."""
IDENTIFIER_BYTES_MAX = event_reading.IDENTIFIER_BYTES_MAX
REFUSED_LISTED_MAX = 100
"""Refused events whose faults are kept with the capture."""
_REUSED = "an event with this id and other content is there; declare that one an error, and give this one its own id"


class CaptureUnknown(NotFound):
    """The brand has made no such capture."""

    code = "CaptureUnknown"


class ErrorBehaviour(StrEnum):
    """What becomes of the other events when one is refused."""

    ROLLBACK = "rollback"
    PROCEED = "proceed"


class Outcome(StrEnum):
    """What became of one event of a document."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """The very same event is there already, or stood earlier in the document."""
    REFUSED = "refused"
    UNDONE = "undone"
    """Nothing was wrong with it, but with another one of its document."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an event: a fault code of `event_rules`, or `event_id_reused`; where; and words."""

    reason: str
    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one event: `pointer` is its place in the document (RFC 6901), `hash_id` None if it has none."""

    pointer: str
    outcome: Outcome
    event_id: str | None
    hash_id: str | None
    problems: tuple[Problem, ...] = ()


class Capture(SQLModel, table=True):
    """One document that was handed in, and what came of it."""

    __tablename__: ClassVar[str] = "epcis_capture"
    __table_args__ = (CheckConstraint("behaviour IN ('rollback', 'proceed')", name="behaviour"),)

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    capture_id: uuid.UUID = Field(primary_key=True)
    caller_id: uuid.UUID
    behaviour: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
    finished_at: datetime | None = Field(default=None, sa_type=Moment)
    """None while it is worked on in the background."""
    success: bool
    accepted: int
    duplicates: int
    refused: int
    refusals: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    """The first 100 refused events."""
    events: int | None = None
    """Of its document; None while nobody has counted them."""
    position: int = 0
    """How many of them have been judged, or, with `proceed`, dealt with."""
    attempts: int = 0
    """How often a worker took it up. Also the lease's number: what a worker writes counts only while it is the last."""
    lease_until: datetime | None = Field(default=None, sa_type=Moment)


class Judged(Struct, frozen=True, gc=False):
    """An event of a document: what is wrong with it, or how it is kept."""

    pointer: str
    problems: tuple[Problem, ...]
    new: NewEvent | None = None
    hash_id: str | None = None


@dataclass(frozen=True, slots=True)
class Captured:
    """A capture, and what became of every event of its document, in its order."""

    capture: Capture
    results: Sequence[Result]


def judge(brand_id: int, document: Document, first: int = 0, last: int | None = None) -> list[Judged]:
    """The events of a document from `first` up to `last`, each by itself, without a look at what is there.

    Checked, hashed and named: nothing but work, some tens of microseconds an event.
    """
    some, reader = document.events[first:last], Reader(document.context)
    return [_judged(brand_id, document.pointer(index), reader.read(event)) for index, event in enumerate(some, first)]


def _judged(brand_id: int, pointer: str, read: Reading | Sequence[Fault]) -> Judged:
    if not isinstance(read, Reading):
        return _refused(pointer, read)
    event_id = read.event_id or read.hash_id
    values = {
        "event_key": key_of(brand_id, event_id, read.declared_at, is_hash=event_id == read.hash_id),
        "event_id": event_id,
        "digest": read.digest,
        "type": read.type,
        "event_time": read.event_time,
        **read.columns,
        "is_error": read.declared_at is not None,
        "content": read.content,
    }
    return Judged(pointer, (), NewEvent(values, read.things, read.parties), read.hash_id)


def _refused(pointer: str, faults: Sequence[Fault]) -> Judged:
    return Judged(pointer, tuple(Problem(fault.code, f"{pointer}{fault.pointer}", fault.message) for fault in faults))


async def capture(
    session: Session,
    brand_id: int,
    caller_id: uuid.UUID,
    declared: object,
    judged: Sequence[Judged],
    behaviour: ErrorBehaviour,
    now: datetime,
) -> Captured:
    """Keep what can be kept of a judged document, in the caller's transaction. `declared` is its `@context`."""
    made = Capture(
        brand_id=brand_id,
        capture_id=new_id(),
        caller_id=caller_id,
        behaviour=behaviour,
        created_at=now,
        finished_at=now,
        success=True,
        accepted=0,
        duplicates=0,
        refused=0,
        refusals=[],
        events=len(judged),
        position=len(judged),
    )
    results = await keep(session, judged, behaviour, await shared(session, made, declared, now))
    counts = Counter(result.outcome for result in results)
    made.accepted, made.duplicates, made.refused = (
        counts[outcome] for outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.REFUSED)
    )
    made.success = not made.refused
    made.refusals = [asdict(one) for one in results if one.outcome is Outcome.REFUSED][:REFUSED_LISTED_MAX]
    session.add(made)
    await session.flush()
    return Captured(made, results)


async def shared(session: Session, capture: Capture, declared: object, now: datetime) -> dict[str, Any]:
    """What the rows of all events of a capture have in common, and `context_sha256`, which only their leaves tell."""
    context_id = await repository.keep_context(session, declared)
    # As it is stored: its id, a UUID of version 5, commits to nothing, for two texts with one SHA-1 can be made.
    stored = select(EventContext.content).where(EventContext.context_id == context_id)
    return {
        "brand_id": capture.brand_id,
        "capture_id": capture.capture_id,
        "context_id": context_id,
        "record_time": now,
        "context_sha256": hashlib.sha256((await session.exec(stored)).one().encode()).hexdigest(),
    }


async def keep(
    session: Session, judged: Sequence[Judged], behaviour: ErrorBehaviour, shared: Mapping[str, Any]
) -> list[Result]:
    """Keep judged events as `behaviour` says, in the caller's transaction; what became of each, in their order."""
    keys = [one.new.event_key for one in judged if one.new is not None]
    while True:
        results, fresh = _weighed(judged, await repository.digests_of(session, keys))
        if behaviour is ErrorBehaviour.ROLLBACK and any(result.outcome is Outcome.REFUSED for result in results):
            return [_undone(result) for result in results]
        # Where another capture was quicker, its rows are there now to be weighed against.
        with contextlib.suppress(EventsRaced):
            async with session.begin_nested():
                await _keep_new(session, fresh, shared)
            return results


async def _keep_new(session: Session, events: Sequence[NewEvent], shared: Mapping[str, Any]) -> None:
    """The one place where events become a part of the repository, whatever brought them; inside a savepoint."""
    columns = {name: value for name, value in shared.items() if name != "context_sha256"}
    # The leaves are made while the database takes the events in.
    leaves = asyncio.create_task(log_queue.prepare(log_entries(events, shared), shared["record_time"]))
    try:
        await repository.keep(session, events, columns)
        await packing.apply(session, shared["brand_id"], events)
        await lots.apply(session, shared["brand_id"], events)
        await log_queue.put(session, await leaves)
    finally:
        leaves.cancel()


def log_entries(events: Sequence[NewEvent], shared: Mapping[str, Any]) -> Iterator[NewEntry]:
    """The events' leaves: each tells all that its event's row says, the text as it was captured, and the SHA-256 of the
    context that it is read by.
    """
    brand_id = shared["brand_id"]
    told = {
        "brand": brand_id,
        "capture": str(shared["capture_id"]),
        "context": str(shared["context_id"]),
        "context_sha256": shared["context_sha256"],
        "at": iso(shared["record_time"]),
    }
    # As `log_queue.record_around` writes it with `key` and `type`, but for what is the same in all.
    begin = log_queue.record_of(told)[:-1].decode()
    for event in events:
        record = f'{begin},"key":"{event.event_key}","type":"event","event":{in_one_line(event.values["content"])}}}'
        yield NewEntry("event", event.event_key, brand_id, record.encode())


def in_one_line(content: str) -> str:
    """An event's text as its leaf has it: between tokens JSON may have line ends, and within them it cannot."""
    return content.replace("\n", " ")


def _weighed(judged: Sequence[Judged], known: Mapping[uuid.UUID, bytes]) -> tuple[list[Result], list[NewEvent]]:
    """What becomes of each event beside those that are known, and which of them are new."""
    seen = dict(known)
    results, fresh = [], []
    for one in judged:
        new = one.new
        if new is None:
            results.append(Result(one.pointer, Outcome.REFUSED, None, None, one.problems))
            continue
        event_id, digest = new.values["event_id"], new.values["digest"]
        before = seen.get(new.values["event_key"])
        if before is None:
            seen[new.values["event_key"]] = digest
            fresh.append(new)
            results.append(Result(one.pointer, Outcome.ACCEPTED, event_id, one.hash_id))
        elif before == digest:
            results.append(Result(one.pointer, Outcome.DUPLICATE, event_id, one.hash_id))
        else:
            reused = Problem("event_id_reused", f"{one.pointer}/eventID", _REUSED)
            results.append(Result(one.pointer, Outcome.REFUSED, event_id, one.hash_id, (reused,)))
    return results, fresh


def _undone(result: Result) -> Result:
    if result.outcome is not Outcome.ACCEPTED:
        return result
    return Result(result.pointer, Outcome.UNDONE, result.event_id, result.hash_id)


async def find(session: Session, brand_id: int, capture_id: uuid.UUID) -> Capture:
    """A capture of the brand's. Raises CaptureUnknown."""
    found = await session.get(Capture, (brand_id, capture_id))
    if found is None:
        raise CaptureUnknown("there is no such capture")
    return found


async def newest(
    session: Session, brand_id: int, caller_id: uuid.UUID | None, before: uuid.UUID | None, count: int
) -> Sequence[Capture]:
    """Captures of a brand, or of one caller for it, newest first, from the one after `before` on."""
    asked = select(Capture).where(Capture.brand_id == brand_id).order_by(col(Capture.capture_id).desc()).limit(count)
    if caller_id is not None:
        asked = asked.where(Capture.caller_id == caller_id)
    if before is not None:
        asked = asked.where(col(Capture.capture_id) < before)
    return (await session.exec(asked)).all()
