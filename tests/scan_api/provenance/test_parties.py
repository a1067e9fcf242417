"""Parties of events: the index under which they are found, kept with the events and made for those that were there."""

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlmodel import select

import migrations
from kit.db import Database, Moment
from scan_api.provenance import parties
from scan_api.provenance.parties import EventParty, party_name
from scan_api.provenance.things import name_of
from tests.scan_api.provenance.event_world import BRAND_ID, OTHER_BRAND_ID, RECORDED_AT, keep
from tests.scan_api.provenance.test_event_search import event

GLN, OTHER = "9506000134352", "9506000134369"
SGLN, PGLN = "urn:epc:id:sgln:9506000.13435", "urn:epc:id:pgln:9506000.13435"
NAMED: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"readPoint": {"id": f"{SGLN}.0"}, "bizLocation": {"id": f"https://id.gs1.org/414/{GLN}"}}, set()),
    ({"readPoint": {"id": f"{SGLN}.dock"}}, {GLN}),
    ({"bizLocation": {"id": f"https://brand.example.cn/414/{GLN}/254/hall"}}, {GLN}),
    ({"sourceList": [{"type": "owning_party", "source": PGLN}]}, {GLN}),
    (
        {
            "sourceList": [{"type": "location", "source": f"{SGLN}.0"}, {"type": "owning_party", "source": PGLN}],
            "destinationList": [
                {"type": "possessing_party", "destination": f"https://id.gs1.org/417/{OTHER}"},
                {"type": "possessing_party", "destination": "urn:x:carrier:7"},
            ],
        },
        {GLN, OTHER, "urn:x:carrier:7"},
    ),
]


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        (GLN, GLN),
        (PGLN, GLN),
        (f"{SGLN}.0", GLN),
        (f"{SGLN}.dock", GLN),
        (f"https://id.gs1.org/417/{GLN}", GLN),
        ("urn:x:carrier:7", "urn:x:carrier:7"),
        ("https://id.gs1.org/01/09506000134352", "https://id.gs1.org/01/09506000134352"),
    ],
)
def test_a_party_is_known_by_its_gln_or_its_own_name(identifier: str, name: str) -> None:
    assert party_name(identifier) == name


@pytest.mark.parametrize(("fields", "names"), NAMED)
def test_sources_destinations_and_parts_of_places_are_indexed(fields: Mapping[str, Any], names: set[str]) -> None:
    found = parties.indexed(fields)
    assert (set(found), len(found)) == (names, len(names))


def _expected(brand_id: int) -> set[tuple[str, int, str]]:
    return {(name, brand_id, f"urn:x:{n}") for n, (_fields, names) in enumerate(NAMED) for name in names}


async def _stored(database: Database) -> set[tuple[str, int, str]]:
    """The index's rows, with the ids of their events; each at its event's time."""
    rows = sa.text(
        "SELECT party, event_party.brand_id, event_id FROM event_party JOIN epcis_event "
        "ON epcis_event.event_key = event_party.event_key AND epcis_event.event_time = event_party.event_time"
    )
    async with database.reading() as session:
        found = (await (await session.connection()).execute(rows)).all()
        assert len(found) == len((await session.exec(select(EventParty))).all())
    return {(party, brand_id, event_id) for party, brand_id, event_id in found}


async def test_captured_events_are_in_the_index_of_their_brand(database: Database) -> None:
    events = [event(n, **fields) for n, (fields, _names) in enumerate(NAMED)]
    await keep(database, *events)
    await keep(database, *events, brand_id=OTHER_BRAND_ID)
    assert await _stored(database) == _expected(BRAND_ID) | _expected(OTHER_BRAND_ID)


def _until(revision: str) -> Callable[[sa.Connection], None]:
    def upgrade(connection: sa.Connection) -> None:
        settings = migrations.config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)

    return upgrade


async def test_events_that_were_there_come_into_the_index(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    writing = database.engine.execution_options(fanxing_writes=True)
    async with writing.begin() as connection:
        await connection.run_sync(_until("0020"))
        await connection.execute(_EVENT.insert(), [_row(n, fields) for n, (fields, _names) in enumerate(NAMED)])
    async with writing.begin() as connection:
        await connection.run_sync(_until("0021"))
    assert await _stored(database) == _expected(BRAND_ID)
    await database.close()


_TEXTS = ("event_id", "type", "read_point", "biz_location", "content")
_EVENT = sa.table(
    "epcis_event",
    *(sa.column(name, sa.Uuid()) for name in ("event_key", "capture_id", "context_id")),
    *(sa.column(name, Moment()) for name in ("event_time", "record_time")),
    *(sa.column(name, sa.Text()) for name in _TEXTS),
    sa.column("brand_id", sa.Integer()),
    sa.column("digest", sa.LargeBinary()),
    sa.column("is_error", sa.Boolean()),
)


def _row(number: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    sent = event(number, **fields)
    read_point, biz_location = (sent.get(name, {}).get("id") for name in ("readPoint", "bizLocation"))
    return {
        "event_key": uuid.UUID(int=number),
        "capture_id": uuid.UUID(int=0),
        "context_id": uuid.UUID(int=0),
        "event_time": RECORDED_AT,
        "record_time": RECORDED_AT,
        "event_id": f"urn:x:{number}",
        "type": "ObjectEvent",
        "read_point": None if read_point is None else name_of(read_point),
        "biz_location": None if biz_location is None else name_of(biz_location),
        "content": json.dumps(sent),
        "brand_id": BRAND_ID,
        "digest": bytes(32),
        "is_error": False,
    }
