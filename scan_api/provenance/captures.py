"""Captures: documents of events that somebody hands in, judged event by event, and kept whole or in part.

An event is accepted, is a duplicate of one that is there, or is refused with its faults. By default one refusal refuses
the document (`GS1-Capture-Error-Behaviour: rollback`); with `proceed` the others are kept (EPCIS 2.0, 12.6).
"""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, CheckConstraint, Column, Text
from sqlmodel import Field, SQLModel

from kit.db import Moment, Session
from kit.errors import NotFound
from kit.ids import new_id
from scan_api.provenance import event_hash, event_rules, repository, vocabulary
from scan_api.provenance.documents import Document
from scan_api.provenance.event_values import SHOWN_CHARACTERS_MAX, FaultCode
from scan_api.provenance.repository import EventsRaced, NewEvent, key_of
from scan_api.provenance.things import name_of, things_of

EVENTS_AT_ONCE_MAX = 1_000
"""Of a document that is captured while its sender waits."""
THINGS_AT_ONCE_MAX = 20_000
"""Named by all events of such a document together."""
IDENTIFIER_BYTES_MAX = 2_000
"""In UTF-8: what a row of PostgreSQL's indexes has room for."""
REFUSED_LISTED_MAX = 100
"""Refused events whose faults are kept with the capture."""
_REUSED = "an event with this id and other content is there; declare that one an error, and give this one its own id"
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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
    finished_at: datetime = Field(sa_type=Moment)
    success: bool
    accepted: int
    duplicates: int
    refused: int
    refusals: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    """The first 100 refused events."""


@dataclass(frozen=True, slots=True)
class Judged:
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


def judge(brand_id: int, document: Document) -> list[Judged]:
    """Every event of a document by itself, without a look at what is there: checked, hashed, named.

    Nothing but work: a hundred microseconds an event.
    """
    return [_judged(brand_id, pointer, event, document) for pointer, event in document.located()]


def _judged(brand_id: int, pointer: str, event: Mapping[str, Any], document: Document) -> Judged:
    faults = event_rules.check(event, document.context)
    if faults:
        return Judged(
            pointer, tuple(Problem(fault.code, f"{pointer}{fault.pointer}", fault.message) for fault in faults)
        )
    digest = event_hash.digest(event, document.context)
    hash_id = event_hash.hash_id(digest)
    event_id = event.get("eventID") or hash_id
    things, error = things_of(event), event.get("errorDeclaration")
    too_long = next((name for name, _ in [(event_id, None), *things] if _is_too_long(name)), None)
    if too_long is not None:
        told = f"An identifier has at most {IDENTIFIER_BYTES_MAX} bytes: {too_long[:SHOWN_CHARACTERS_MAX]}…"
        return Judged(pointer, (Problem(FaultCode.URI_INVALID, pointer, told),))
    declared_at = None
    if error is not None:
        # What the declaration says is no part of the event's hash.
        declared_at = event_hash.in_utc(error["declarationTime"])
        digest = hashlib.sha256(digest + json.dumps(error, sort_keys=True).encode()).digest()
    values = {
        "event_key": key_of(brand_id, event_id, declared_at, is_hash=event_id == hash_id),
        "event_id": event_id,
        "digest": digest,
        "type": event["type"],
        "event_time": datetime.fromisoformat(event["eventTime"]),
        "action": event.get("action"),
        "biz_step": _word(event.get("bizStep"), vocabulary.BUSINESS_STEPS),
        "disposition": _word(event.get("disposition"), vocabulary.DISPOSITIONS),
        "read_point": _place(event.get("readPoint")),
        "biz_location": _place(event.get("bizLocation")),
        "is_error": error is not None,
        "content": _ENCODE(event),
    }
    return Judged(pointer, (), NewEvent(values, things), hash_id)


def _is_too_long(identifier: str) -> bool:
    # A character has at most four bytes.
    return 4 * len(identifier) > IDENTIFIER_BYTES_MAX and len(identifier.encode()) > IDENTIFIER_BYTES_MAX


def _word(value: str | None, words: Mapping[str, str]) -> str | None:
    return None if value is None else words.get(value, value)


def _place(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None or "id" not in value else name_of(value["id"])


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
    capture_id = new_id()
    shared = {
        "brand_id": brand_id,
        "capture_id": capture_id,
        "context_id": await repository.keep_context(session, declared),
        "record_time": now,
    }
    results = await _keep(session, judged, behaviour, shared)
    counts = {outcome: sum(result.outcome is outcome for result in results) for outcome in Outcome}
    made_capture = Capture(
        brand_id=brand_id,
        capture_id=capture_id,
        caller_id=caller_id,
        behaviour=behaviour,
        created_at=now,
        finished_at=now,
        success=not counts[Outcome.REFUSED],
        accepted=counts[Outcome.ACCEPTED],
        duplicates=counts[Outcome.DUPLICATE],
        refused=counts[Outcome.REFUSED],
        refusals=[asdict(one) for one in results if one.outcome is Outcome.REFUSED][:REFUSED_LISTED_MAX],
    )
    session.add(made_capture)
    await session.flush()
    return Captured(made_capture, results)


async def _keep(
    session: Session, judged: Sequence[Judged], behaviour: ErrorBehaviour, shared: Mapping[str, Any]
) -> list[Result]:
    keys = [one.new.event_key for one in judged if one.new is not None]
    while True:
        results, fresh = _weighed(judged, await repository.digests_of(session, keys))
        if behaviour is ErrorBehaviour.ROLLBACK and any(result.outcome is Outcome.REFUSED for result in results):
            return [_undone(result) for result in results]
        # Where another capture was quicker, its rows are there now to be weighed against.
        with contextlib.suppress(EventsRaced):
            async with session.begin_nested():
                await repository.keep(session, fresh, shared)
            return results


def _weighed(judged: Sequence[Judged], known: Mapping[uuid.UUID, bytes]) -> tuple[list[Result], list[NewEvent]]:
    """What becomes of each event beside those that are known, and which of them are new."""
    seen = dict(known)
    results, fresh = [], []
    for one in judged:
        if one.new is None:
            results.append(Result(one.pointer, Outcome.REFUSED, None, None, one.problems))
            continue
        event_id, before = one.new.values["event_id"], seen.get(one.new.event_key)
        if before is None:
            seen[one.new.event_key] = one.new.digest
            fresh.append(one.new)
            results.append(Result(one.pointer, Outcome.ACCEPTED, event_id, one.hash_id))
        elif before == one.new.digest:
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
