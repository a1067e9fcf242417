"""The events that brands and their partners captured, as they were sent, and the indexes that find them.

A repository is a brand's: the same event captured for two brands is two rows, and nobody learns what another has. An
event is kept under its id, or, without one, under its hash (CBV 2.0, 8.9); the declaration that it was an error has the
same id (EPCIS 2.0, 7.4.1.2) and is an event of its own.
"""

import hashlib
import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, Final, cast

from msgspec import Struct
from psycopg import errors
from sqlalchemy import CheckConstraint, Column, Index, LargeBinary, Text, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, copy_lines, driver_connection, insert, is_postgresql, table_of
from kit.ids import derived_id
from scan_api.provenance import arrivals
from scan_api.provenance.documents import EVENT_TYPES
from scan_api.provenance.event_rows import EventRow
from scan_api.provenance.parties import EventParty
from scan_api.provenance.things import Part

KEYS_ASKED_AT_ONCE_MAX = 500
CONTEXTS_REMEMBERED_MAX: Final = 1_000
CONTEXT_CHARACTERS_REMEMBERED_MAX: Final = 4_096
# So that a pattern's names lie side by side, whatever the language of the database.
_BY_BYTES = Text().with_variant(Text(collation="C"), "postgresql")
_NULL: Final = "\\N"
_TAB: Final = "\t"
_WORDS: Final = ("action", "biz_step", "disposition", "read_point", "biz_location")
"""As they follow each other in a row."""
_DIGESTS: Final = "SELECT event_key, digest FROM epcis_event WHERE event_key = ANY(%s::uuid[])"
_TYPES = ", ".join(repr(name) for name in sorted(EVENT_TYPES))
_PARTS = ", ".join(repr(str(part)) for part in Part)


class EventsRaced(Exception):
    """Another capture was quicker with some of the same events."""


class EventContext(SQLModel, table=True):
    """What the `@context` of documents declared, once for all their events."""

    __tablename__: ClassVar[str] = "event_context"

    context_id: uuid.UUID = Field(primary_key=True)
    content: str = Field(sa_type=Text)


class EpcisEvent(SQLModel, table=True):
    """One captured event. Words and identifiers beside its content are in their one form, for queries."""

    __tablename__: ClassVar[str] = "epcis_event"
    __table_args__ = (
        CheckConstraint(f"type IN ({_TYPES})", name="type"),
        Index("ix_epcis_event_brand_id_event_time", "brand_id", "event_time", "event_key"),
        Index("ix_epcis_event_brand_id_record_time", "brand_id", "record_time", "event_key"),
        *(
            Index(f"ix_epcis_event_brand_id_{word}", "brand_id", word, "event_time", "event_key")
            for word in ("biz_step", "disposition", "read_point", "biz_location")
        ),
        Index(
            "ix_epcis_event_error",
            "brand_id",
            "event_id",
            postgresql_where=text("is_error"),
            sqlite_where=text("is_error = 1"),
        ),
    )

    event_key: uuid.UUID = Field(primary_key=True)
    """`key_of` brand and event."""
    brand_id: int
    event_id: str = Field(sa_type=Text)
    """As it was given, else the hash id."""
    digest: bytes = Field(sa_type=LargeBinary)
    """SHA-256 of the pre-hash string."""
    type: str = Field(sa_type=Text)
    event_time: datetime = Field(sa_type=Moment)
    record_time: datetime = Field(sa_type=Moment)
    action: str | None = Field(default=None, sa_type=Text)
    biz_step: str | None = Field(default=None, sa_type=Text)
    disposition: str | None = Field(default=None, sa_type=Text)
    read_point: str | None = Field(default=None, sa_type=Text)
    biz_location: str | None = Field(default=None, sa_type=Text)
    is_error: bool
    """Whether it declares that an earlier one was an error."""
    capture_id: uuid.UUID
    context_id: uuid.UUID
    content: str = Field(sa_type=Text)
    """The event as JSON, as it was sent."""


class EventThing(SQLModel, table=True):
    """A thing that an event names. All of one thing's lie together, in the order in which they happened."""

    __tablename__: ClassVar[str] = "event_thing"
    __table_args__ = (CheckConstraint(f"part IN ({_PARTS})", name="part"),)

    thing: str = Field(sa_column=Column(_BY_BYTES, primary_key=True))
    """Its one name, see `things.name_of`."""
    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    event_time: datetime = Field(primary_key=True, sa_type=Moment)
    event_key: uuid.UUID = Field(primary_key=True)
    part: str = Field(primary_key=True, sa_type=Text)


class NewEvent(Struct, frozen=True, gc=False):
    """A sound event that shall be kept: its row without what its document and capture share, and what it names."""

    values: Mapping[str, Any]
    things: Sequence[tuple[str, Part]]
    parties: Sequence[str] = ()

    @property
    def event_key(self) -> uuid.UUID:
        key: uuid.UUID = self.values["event_key"]
        return key

    @property
    def digest(self) -> bytes:
        digest: bytes = self.values["digest"]
        return digest


def key_of(brand_id: int, event_id: str, error_declared_at: str | None = None, *, is_hash: bool = False) -> uuid.UUID:
    """Under what an event of a brand is kept; the declaration of an error by the time when it was declared, too.

    `is_hash`: the id is the event's own hash id. Nobody can take that from an event by giving it to another.
    """
    identity = f"{brand_id}\x1f{event_id}\x1f{error_declared_at or ''}\x1f{'hash' if is_hash else 'given'}"
    return uuid.UUID(bytes=hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()[:16])


async def digests_of(session: Session, keys: Collection[uuid.UUID]) -> dict[uuid.UUID, bytes]:
    """The digests of those of these events that are kept."""
    found: dict[uuid.UUID, bytes] = {}
    asked = list(keys)
    if is_postgresql(session):
        listed = f"{{{','.join([key.hex for key in asked])}}}"
        cursor = await (await driver_connection(session)).execute(_DIGESTS, [listed], prepare=True)
        return dict(cast(list[tuple[uuid.UUID, bytes]], await cursor.fetchall()))
    for start in range(0, len(asked), KEYS_ASKED_AT_ONCE_MAX):
        some = asked[start : start + KEYS_ASKED_AT_ONCE_MAX]
        rows = await session.exec(
            select(EpcisEvent.event_key, EpcisEvent.digest).where(col(EpcisEvent.event_key).in_(some))
        )
        found |= dict(rows.all())
    return found


async def keep_context(session: Session, declared: object) -> uuid.UUID:
    """Keep what an `@context` declares, once; its id."""
    content = json.dumps(declared, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    context_id = derived_id("event-context", content)
    await session.exec(
        insert(session, EventContext).values(context_id=context_id, content=content).on_conflict_do_nothing()
    )
    return context_id


async def keep(session: Session, events: Sequence[NewEvent], shared: Mapping[str, Any]) -> None:
    """Keep events that are not there, and say what they name; inside a savepoint. `shared`: columns the same in all.

    Raises EventsRaced when one of them is there by now; the savepoint must be rolled back then.
    """
    # In one order for everybody, so that captures of the same events wait for each other and not in a circle.
    ordered = sorted(events, key=attrgetter("event_key.int"))
    await arrivals.note(session, shared["brand_id"], [event.event_key for event in ordered], shared["record_time"])
    try:
        if is_postgresql(session):
            await copy_lines(session, table_of(EpcisEvent), _event_lines(ordered, shared))
            await copy_lines(session, table_of(EventThing), _thing_lines(ordered, shared["brand_id"]))
            if any(event.parties for event in ordered):
                await copy_lines(session, table_of(EventParty), _party_lines(ordered, shared["brand_id"]))
            return
        for table, rows in (
            (table_of(EpcisEvent), [{**event.values, **shared} for event in ordered]),
            (table_of(EventThing), _thing_rows(ordered, shared["brand_id"])),
            (table_of(EventParty), _party_rows(ordered, shared["brand_id"])),
        ):
            if rows:
                await (await session.connection()).execute(table.insert(), rows)
    except (IntegrityError, errors.UniqueViolation):
        raise EventsRaced from None


def _thing_rows(events: Sequence[NewEvent], brand_id: int) -> list[dict[str, Any]]:
    return [
        {
            "thing": thing,
            "brand_id": brand_id,
            "event_time": event.values["event_time"],
            "event_key": event.event_key,
            "part": part,
        }
        for event in events
        for thing, part in event.things
    ]


def _party_rows(events: Sequence[NewEvent], brand_id: int) -> list[dict[str, Any]]:
    return [
        {
            "party": party,
            "brand_id": brand_id,
            "event_time": event.values["event_time"],
            "event_key": event.event_key,
        }
        for event in events
        for party in event.parties
    ]


# COPY's text format (PostgreSQL manual, COPY, "Text Format"): a tenth of the cost of INSERT. Identifiers and words of
# sound events are URIs and have none of its special characters; what was sent may have.


def _event_lines(events: Sequence[NewEvent], shared: Mapping[str, Any]) -> Iterator[str]:
    before, recorded_at = f"\t{shared['brand_id']}\t", shared["record_time"].isoformat()
    capture = f"{shared['capture_id'].hex}\t{shared['context_id'].hex}"
    for event in events:
        values = event.values
        words = _TAB.join([values[name] or _NULL for name in _WORDS])
        is_error = "t" if values["is_error"] else "f"
        yield (
            f"{values['event_key'].hex}{before}{values['event_id']}\t\\\\x{values['digest'].hex()}\t{values['type']}\t"
            f"{values['event_time'].isoformat()}\t{recorded_at}\t{words}\t{is_error}\t"
            f"{capture}\t{_escaped(values['content'])}"
        )


def _thing_lines(events: Sequence[NewEvent], brand_id: int) -> Iterator[str]:
    for event in events:
        middle = f"\t{brand_id}\t{event.values['event_time'].isoformat()}\t{event.event_key.hex}\t"
        for thing, part in event.things:
            yield thing + middle + part


def _party_lines(events: Sequence[NewEvent], brand_id: int) -> Iterator[str]:
    for event in events:
        end = f"\t{brand_id}\t{event.values['event_time'].isoformat()}\t{event.event_key.hex}"
        for party in event.parties:
            yield party + end


def _escaped(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\n" in text or "\t" in text or "\r" in text:
        text = text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return text


async def find(session: Session, brand_id: int, event_id: str) -> EpcisEvent | None:
    """A brand's event by its id or hash id; of one that was declared an error, the event itself."""
    found = await session.get(EpcisEvent, key_of(brand_id, event_id, is_hash=True))
    return found or await session.get(EpcisEvent, key_of(brand_id, event_id))


_contexts: Final[dict[uuid.UUID, Any]] = {}


def contexts_kept(events: Sequence[EpcisEvent | EventRow]) -> dict[uuid.UUID, Any] | None:
    """What the documents of these events declared, by id, as far as it is remembered; None: not all of it is."""
    kept = {event.context_id: _contexts.get(event.context_id) for event in events}
    return None if None in kept.values() else kept


async def contexts_of(session: Session, events: Sequence[EpcisEvent | EventRow]) -> dict[uuid.UUID, Any]:
    """What the documents of these events declared, by id."""
    kept = contexts_kept(events)
    if kept is not None:
        return kept
    wanted = {event.context_id for event in events}
    rows = (await session.exec(select(EventContext).where(col(EventContext.context_id).in_(wanted)))).all()
    found = {row.context_id: json.loads(row.content) for row in rows}
    if len(_contexts) > CONTEXTS_REMEMBERED_MAX:
        _contexts.clear()
    # An id stands for its content for ever.
    _contexts.update(
        (row.context_id, found[row.context_id]) for row in rows if len(row.content) <= CONTEXT_CHARACTERS_REMEMBERED_MAX
    )
    return found
