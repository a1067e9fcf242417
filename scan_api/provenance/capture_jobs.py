"""Captures of large documents, in the background: leased, told how far they are, and none lost with its worker.

With `rollback` every event is judged first, and then all are kept in one transaction. With `proceed` each part of the
document is a transaction of its own, which says how far the capture has come (EPCIS 2.0, 12.6). A worker that was
killed is followed by another when its lease runs out: what was kept is kept, and comes up as no duplicate.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

import structlog
from msgspec import Raw
from sqlalchemy import JSON, Column, Text, update
from sqlmodel import Field, SQLModel, col, select

from kit import locks
from kit.clock import Clock
from kit.db import Database, Session, insert
from scan_api.provenance import captures, packing, spool
from scan_api.provenance.captures import REFUSED_LISTED_MAX, Capture, ErrorBehaviour, Judged, Outcome, Problem, Result
from scan_api.provenance.documents import Document, EpcisDocumentInvalid
from scan_api.provenance.packing import PackingTangled
from scan_api.provenance.repository import KEYS_ASKED_AT_ONCE_MAX

PART_EVENTS: Final = 1_000
PART_BYTES: Final = 8 * 1024 * 1024
LEASE: Final = timedelta(minutes=10)
IDLE_WAIT_S: Final = 1.0
_log = structlog.get_logger()


class CaptureRefusal(SQLModel, table=True):
    """An event that a capture in the background refused."""

    __tablename__: ClassVar[str] = "capture_refusal"

    capture_id: uuid.UUID = Field(primary_key=True)
    position: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    """Of the event in its document, from 0."""
    pointer: str = Field(sa_type=Text)
    event_id: str | None = Field(default=None, sa_type=Text)
    hash_id: str | None = Field(default=None, sa_type=Text)
    problems: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))


class LeaseLost(Exception):
    """Another worker has taken the capture up."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive events of a document: from `first` up to `last`, without it."""

    first: int
    last: int


class _Undone(Exception):
    def __init__(self, part: _Part, results: Sequence[Result]) -> None:
        self.part, self.results = part, results


def begin(
    session: Session,
    brand_id: int,
    caller_id: uuid.UUID,
    capture_id: uuid.UUID,
    behaviour: ErrorBehaviour,
    events: int | None,
    now: datetime,
) -> Capture:
    """A capture that is still to be done; `events` None: nobody has counted them yet."""
    begun = Capture(
        brand_id=brand_id,
        capture_id=capture_id,
        caller_id=caller_id,
        behaviour=behaviour,
        created_at=now,
        finished_at=None,
        success=True,
        accepted=0,
        duplicates=0,
        refused=0,
        refusals=[],
        events=events,
        lease_until=now,
    )
    session.add(begun)
    return begun


async def run(database: Database, folder: Path, clock: Clock, stop: asyncio.Event) -> None:
    """Work until `stop` is set. What goes wrong is logged and tried again."""
    await asyncio.to_thread(spool.sweep, folder)
    while not stop.is_set():
        try:
            busy = await work_once(database, folder, clock)
        except Exception:
            _log.exception("capture failed, will try again")
            busy = False
        if not busy:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), IDLE_WAIT_S)


async def work_once(database: Database, folder: Path, clock: Clock) -> bool:
    """Bring one capture to its end, if one waits here."""
    here = await asyncio.to_thread(spool.waiting, folder)
    if not here:
        return False
    async with database.writing() as session:
        leased = await _lease(session, here, clock())
    if leased is None:
        await _tidy(database, folder, here)
        return False
    with contextlib.suppress(LeaseLost):
        await _process(database, folder, leased, clock)
    return True


async def _lease(session: Session, here: Sequence[uuid.UUID], now: datetime) -> Capture | None:
    for some in _some_at_a_time(here):
        due = (
            select(Capture)
            .where(
                col(Capture.capture_id).in_(some),
                col(Capture.finished_at).is_(None),
                col(Capture.lease_until) <= now,
            )
            .order_by(col(Capture.capture_id))
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        found = (await session.exec(due)).first()
        if found is not None:
            found.lease_until, found.attempts = now + LEASE, found.attempts + 1
            return found
    return None


async def _tidy(database: Database, folder: Path, here: Sequence[uuid.UUID]) -> None:
    """Documents of captures that have ended, when their worker was killed before it could forget them.

    Likewise old ones of captures that never began, as their server was killed before it could say so.
    """
    for some in _some_at_a_time(here):
        async with database.reading() as session:
            asked = select(Capture.capture_id, Capture.finished_at).where(col(Capture.capture_id).in_(some))
            known = dict((await session.exec(asked)).all())
        for capture_id in some:
            if capture_id not in known:
                await asyncio.to_thread(spool.discard_forgotten, folder, capture_id)
            elif known[capture_id] is not None:
                await asyncio.to_thread(spool.discard, folder, capture_id)


def _some_at_a_time(here: Sequence[uuid.UUID]) -> Iterator[Sequence[uuid.UUID]]:
    for start in range(0, len(here), KEYS_ASKED_AT_ONCE_MAX):
        yield here[start : start + KEYS_ASKED_AT_ONCE_MAX]


async def _process(database: Database, folder: Path, capture: Capture, clock: Clock) -> None:
    try:
        document = await asyncio.to_thread(spool.opened, folder, capture.capture_id)
    except EpcisDocumentInvalid as error:
        await _fail(database, capture, Problem(error.fault, error.pointer, error.message), clock)
    else:
        async with database.writing() as session:
            await _update(session, capture, events=len(document.events))
        try:
            if capture.behaviour == ErrorBehaviour.PROCEED:
                await _proceed(database, capture, document, clock)
            else:
                await _all_or_none(database, capture, document, clock)
        except PackingTangled as error:  # as it would be each time
            await _fail(database, capture, Problem("packing_tangled", "", error.message), clock)
    await asyncio.to_thread(spool.discard, folder, capture.capture_id)


async def _fail(database: Database, capture: Capture, problem: Problem, clock: Clock) -> None:
    """End a capture for what is wrong with more than one event; what was kept of it stays."""
    told = {"pointer": problem.pointer, "outcome": Outcome.REFUSED, "problems": [asdict(problem)]}
    refusals = [*capture.refusals[: REFUSED_LISTED_MAX - 1], told]
    async with database.writing() as session:
        await _update(session, capture, finished_at=clock(), success=False, refusals=refusals)


async def _proceed(database: Database, capture: Capture, document: Document, clock: Clock) -> None:
    for part in _parts(document, capture.position):
        judged = await _judged(capture, document, part)
        async with database.writing() as session:
            now = clock()
            shared = await captures.shared(session, capture, document.declared, now)
            results = await captures.keep(session, judged, ErrorBehaviour.PROCEED, shared)
            await _advance(session, capture, part, results, now)
    async with database.writing() as session:
        await _update(session, capture, finished_at=clock())


async def _all_or_none(database: Database, capture: Capture, document: Document, clock: Clock) -> None:
    changes_packing = capture.position > 0  # or may: another worker judged the beginning
    for part in _parts(document, capture.position):
        judged = await _judged(capture, document, part)
        changes_packing = changes_packing or any(packing.may_change(one.new) for one in judged if one.new is not None)
        unsound = [Result(one.pointer, Outcome.REFUSED, None, None, one.problems) for one in judged if one.new is None]
        async with database.writing() as session:
            await _advance(session, capture, part, unsound, clock())
    if not capture.refused:
        try:
            await _keep_all(database, capture, document, clock, changes_packing=changes_packing)
            return
        except _Undone as undone:  # an id that has other content, here or earlier in the document
            async with database.writing() as session:
                refused = [one for one in undone.results if one.outcome is Outcome.REFUSED]
                await _advance(session, capture, undone.part, refused, clock())
    async with database.writing() as session:
        await _update(session, capture, finished_at=clock())


async def _keep_all(
    database: Database, capture: Capture, document: Document, clock: Clock, *, changes_packing: bool
) -> None:
    counts = dict.fromkeys(Outcome, 0)
    async with database.writing() as session:
        shared = await captures.shared(session, capture, document.declared, clock())
        if changes_packing:
            # Before the locks of any part, as a capture of one part has it.
            await locks.change(session, packing.lock_of(capture.brand_id))
        for part in _parts(document, 0):
            judged = await _judged(capture, document, part)
            results = await captures.keep(session, judged, ErrorBehaviour.ROLLBACK, shared)
            for one in results:
                counts[one.outcome] += 1
            if counts[Outcome.REFUSED]:
                raise _Undone(part, results)
        await _update(
            session,
            capture,
            finished_at=clock(),
            accepted=counts[Outcome.ACCEPTED],
            duplicates=counts[Outcome.DUPLICATE],
        )


async def _judged(capture: Capture, document: Document, part: _Part) -> list[Judged]:
    return await asyncio.to_thread(captures.judge, capture.brand_id, document, part.first, part.last)


def _parts(document: Document, position: int) -> Iterator[_Part]:
    """The document in parts that are not too large to be in memory at once, from a position on."""
    first, size = position, 0
    for index in range(position, len(document.events)):
        event = document.events[index]
        size += memoryview(event).nbytes if isinstance(event, Raw) else 0
        if index + 1 - first >= PART_EVENTS or size >= PART_BYTES:
            yield _Part(first, index + 1)
            first, size = index + 1, 0
    if first < len(document.events):
        yield _Part(first, len(document.events))


async def _advance(session: Session, capture: Capture, part: _Part, results: Sequence[Result], now: datetime) -> None:
    """Say how far the capture is, with what this part adds."""
    refused = [one for one in results if one.outcome is Outcome.REFUSED]
    if refused:
        rows = [_row(capture.capture_id, one) for one in refused]
        await session.exec(insert(session, CaptureRefusal).values(rows).on_conflict_do_nothing())
    await _update(
        session,
        capture,
        position=part.last,
        lease_until=now + LEASE,
        accepted=capture.accepted + sum(one.outcome is Outcome.ACCEPTED for one in results),
        duplicates=capture.duplicates + sum(one.outcome is Outcome.DUPLICATE for one in results),
        refused=capture.refused + len(refused),
        refusals=[*capture.refusals, *[asdict(one) for one in refused]][:REFUSED_LISTED_MAX],
        success=capture.success and not refused,
    )


def _row(capture_id: uuid.UUID, result: Result) -> dict[str, Any]:
    return {
        "capture_id": capture_id,
        "position": int(result.pointer.rpartition("/")[2]),
        "pointer": result.pointer,
        "event_id": result.event_id,
        "hash_id": result.hash_id,
        "problems": [asdict(problem) for problem in result.problems],
    }


async def _update(session: Session, capture: Capture, **values: Any) -> None:
    """Write to the capture while it is ours, and to our picture of it. Raises LeaseLost."""
    updated = await session.exec(
        update(Capture)
        .where(
            col(Capture.brand_id) == capture.brand_id,
            col(Capture.capture_id) == capture.capture_id,
            col(Capture.attempts) == capture.attempts,
            col(Capture.finished_at).is_(None),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    if updated.rowcount == 0:
        raise LeaseLost
    for name, value in values.items():
        setattr(capture, name, value)


async def refusals(session: Session, capture_id: uuid.UUID, after: int, count: int) -> Sequence[CaptureRefusal]:
    """The refused events of a capture in the background, in the order of its document."""
    asked = (
        select(CaptureRefusal)
        .where(CaptureRefusal.capture_id == capture_id, CaptureRefusal.position > after)
        .order_by(col(CaptureRefusal.position))
        .limit(count)
    )
    return (await session.exec(asked)).all()
