"""The events that brands and their partners captured, as they were sent, and the indexes that find them.

A repository is a brand's: the same event captured for two brands is two rows, and nobody learns what another has. An
event is kept under its id, or, without one, under its hash (CBV 2.0, 8.9); the declaration that it was an error has the
same id (EPCIS 2.0, 7.4.1.2) and is an event of its own.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, ClassVar

from psycopg import errors
from sqlalchemy import CheckConstraint, Column, Index, LargeBinary, Table, Text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, driver_connection, insert, is_postgresql, table_of
from kit.ids import derived_id
from scan_api.provenance.documents import EVENT_TYPES
from scan_api.provenance.things import Part

KEYS_ASKED_AT_ONCE_MAX = 500
# So that a pattern's names lie side by side, whatever the language of the database.
_BY_BYTES = Text().with_variant(Text(collation="C"), "postgresql")
_UNPLAIN = re.compile(r"[\\\t\n\r]")
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
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


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A sound event that shall be kept: its row without what its document and capture share, and what it names."""

    values: Mapping[str, Any]
    things: Sequence[tuple[str, Part]]

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
    rows = [{**event.values, **shared} for event in events]
    named = [
        {
            "thing": thing,
            "brand_id": shared["brand_id"],
            "event_time": event.values["event_time"],
            "event_key": event.event_key,
            "part": part,
        }
        for event in events
        for thing, part in event.things
    ]
    # In one order for everybody, so that captures of the same events wait for each other and not in a circle.
    rows.sort(key=itemgetter("event_key"))
    try:
        for table, some in ((table_of(EpcisEvent), rows), (table_of(EventThing), named)):
            if is_postgresql(session):
                await _copy(session, table, some)
            elif some:
                await (await session.connection()).execute(table.insert(), some)
    except (IntegrityError, errors.UniqueViolation):
        raise EventsRaced from None


async def _copy(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows by COPY, a tenth of the cost of INSERT."""
    columns = [column.name for column in table.columns]
    lines = ["\t".join([_written(row[name]) for name in columns]) for row in rows]
    into = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN"
    async with (await driver_connection(session)).cursor() as cursor, cursor.copy(into) as copy:
        await copy.write("\n".join([*lines, ""]))


def _written(value: object) -> str:
    """A field of COPY's text format (PostgreSQL manual, COPY, "Text Format")."""
    if isinstance(value, str):
        return value.translate(_ESCAPED) if _UNPLAIN.search(value) else value
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        return f"\\\\x{value.hex()}"
    return str(value)


async def find(session: Session, brand_id: int, event_id: str) -> EpcisEvent | None:
    """A brand's event by its id or hash id; of one that was declared an error, the event itself."""
    found = await session.get(EpcisEvent, key_of(brand_id, event_id, is_hash=True))
    return found or await session.get(EpcisEvent, key_of(brand_id, event_id))


async def contexts_of(session: Session, events: Sequence[EpcisEvent]) -> dict[uuid.UUID, Any]:
    """What the documents of these events declared, by id."""
    wanted = {event.context_id for event in events}
    rows = await session.exec(select(EventContext).where(col(EventContext.context_id).in_(wanted)))
    return {row.context_id: json.loads(row.content) for row in rows}
