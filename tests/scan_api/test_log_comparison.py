"""`fanxing log compare`: whoever alters rows of the database, and not the log, is found, and the first row is named."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from sqlmodel import col, select

from codes import log_queue
from codes.catalogue import brand_named
from codes.log_queue import LogEntry
from codes.orders import CodeOrder
from kit.db import Database, Session, driver_url
from scan_api import log_comparison
from scan_api.provenance import captures, documents, events
from scan_api.provenance.captures import ErrorBehaviour
from scan_api.provenance.events import Happening, Step
from scan_api.provenance.repository import EpcisEvent
from scan_api.transparency.store import LogLeaf
from tests.scan_api.event_sender import CONTEXT, document, seen
from tests.scan_api.test_commands import ON_SQLITE, Terminal, bare, shop
from tests.scan_api.test_range_commands import WHICH, place

__all__ = ["bare", "shop"]

AT = datetime(2026, 6, 2, 8, tzinfo=UTC)
BOX = "urn:epc:id:sscc:9506000.0000000007"
STEPS, ACTS = 4, 3
NAMES = ("content", "time", "step", "place", "brand", "recorded", "kept", "gone", "id")
RECORDS = len(NAMES) + STEPS + ACTS


def _in_database(shop: Terminal, work: Callable[[Session], Awaitable[Any]]) -> Any:
    async def done() -> Any:
        database = Database(shop.database_url)
        async with database.writing() as session:
            found = await work(session)
        await database.close()
        return found

    return asyncio.run(done())


async def _write(session: Session) -> None:
    """Events, and a step of named items."""
    brand = await brand_named(session, "ice")
    sent = document(*(seen(name, eventID=f"urn:x:{name}") for name in NAMES), context=CONTEXT)
    judged = captures.judge(brand.brand_id or 0, documents.read(sent))
    now = datetime.now(UTC)
    await captures.capture(session, brand.brand_id or 0, uuid.uuid4(), CONTEXT, judged, ErrorBehaviour.ROLLBACK, now)
    order = (await session.exec(select(CodeOrder))).one()
    keys = [order.item_key(number) for number in (3, 4)]
    await events.record_for_items(session, order, keys, Happening(Step.SHIPPED, AT, "Dock", "crew"), now)


@pytest.fixture
def logged(shop: Terminal) -> Terminal:
    """An installation in whose log there is something of each kind."""
    place(shop)
    shop.ask(f"order activate {WHICH} --range 0-4,7")
    shop.ask(f"order activate {WHICH}")
    shop.ask(f"life act hold --brand ice --thing {BOX} --reason investigation --yes")
    _in_database(shop, _write)
    return shop


def _alter(shop: Terminal, *statements: str) -> None:
    engine = create_engine(driver_url(shop.database_url).replace("+aiosqlite", ""), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            assert connection.execute(text(statement)).rowcount >= 1, statement


def _compared(shop: Terminal) -> dict[str, Any]:
    """What the command tells a machine; its exit status says whether there are differences."""
    done = shop.run("log compare --json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == (1 if told["differences"] else 0), done.output
    return told


def _differences(shop: Terminal) -> list[tuple[str, str, list[str]]]:
    return [(one["kind"], one["change"], one["fields"]) for one in _compared(shop)["findings"]]


def test_an_untouched_database_is_as_the_log_has_it(logged: Terminal) -> None:
    told = _compared(logged)
    assert told == {
        "records": RECORDS,
        "erased": 0,
        "rows_before_the_log": 0,
        "differences": 0,
        "findings": [],
    }
    shown = logged.run("log compare")
    assert (shown.exit_code, "differences: 0" in shown.stdout) == (0, True)


def test_events_that_were_altered_or_removed_are_named_in_the_order_of_the_log(logged: Terminal) -> None:
    key = _in_database(logged, _keys)
    _alter(
        logged,
        "UPDATE epcis_event SET content = replace(content, 'shipping', 'retailing') WHERE event_id = 'urn:x:content'",
        "UPDATE epcis_event SET event_time = record_time WHERE event_id = 'urn:x:time'",
        "UPDATE epcis_event SET biz_step = 'urn:x' WHERE event_id = 'urn:x:step'",
        "UPDATE epcis_event SET read_point = 'urn:x', is_error = NOT is_error WHERE event_id = 'urn:x:place'",
        "UPDATE epcis_event SET brand_id = brand_id + 1 WHERE event_id = 'urn:x:brand'",
        "UPDATE epcis_event SET record_time = event_time WHERE event_id = 'urn:x:recorded'",
        "DELETE FROM epcis_event WHERE event_id = 'urn:x:gone'",
        "UPDATE epcis_event SET event_id = 'urn:x:ID' WHERE event_id = 'urn:x:id'",
    )
    told = _compared(logged)
    assert [(key[one["id"]], one["change"], one["fields"]) for one in told["findings"]] == [
        ("content", "altered", ["content"]),
        ("time", "altered", ["event_time"]),
        ("step", "altered", ["biz_step"]),
        ("place", "altered", ["is_error", "read_point"]),
        ("brand", "altered", ["brand_id", "event_id"]),
        ("recorded", "altered", ["record_time"]),
        ("gone", "removed", []),
        ("id", "altered", ["event_id"]),
    ]
    assert told["differences"] == 8
    shown = logged.run("log compare").stdout
    first = shown.partition("The first difference:")[2]
    assert first.splitlines()[1:4] == ["change: altered", "kind: event", f"id: {told['findings'][0]['id']}"]


async def _keys(session: Session) -> dict[str, str]:
    """The event's name by its key."""
    rows = await session.exec(select(EpcisEvent))
    return {str(row.event_key): row.event_id.removeprefix("urn:x:") for row in rows}


@pytest.mark.parametrize(
    ("statement", "kind", "change", "fields"),
    [
        ("UPDATE event_context SET content = '[]'", "event", "altered", ["context"]),
        ("UPDATE order_event SET place = 'elsewhere' WHERE step = 'activated'", "step", "altered", ["place"]),
        ("DELETE FROM order_event WHERE step = 'activated'", "step", "removed", []),
        ("UPDATE range_event SET last_index = 5 WHERE first_index = 0", "step", "altered", ["indexes"]),
        ("DELETE FROM range_event", "step", "removed", []),
        ("DELETE FROM item_event WHERE item_key % 10 = 3", "step", "altered", ["serials"]),
        ("UPDATE item_event SET step = 'received', by = 'nobody'", "step", "altered", ["step", "by"]),
        ("DELETE FROM item_event", "step", "removed", []),
        ("UPDATE order_act SET detail = '{}' WHERE detail LIKE '%0-4,7%'", "act", "altered", ["detail"]),
        ("UPDATE brand_act SET kind = 'lifted', by = 'nobody'", "act", "altered", ["kind", "by"]),
        ("DELETE FROM brand_act", "act", "removed", []),
        ("UPDATE log_entry SET record = 'x' WHERE brand_id = 1 AND kind = 'step'", "step", "altered", ["record"]),
    ],
    ids=range(12),
)
@ON_SQLITE
def test_each_kind_of_row_is_compared(
    logged: Terminal, statement: str, kind: str, change: str, fields: list[str]
) -> None:
    _alter(logged, statement.replace(" by =", ' "by" ='))
    found = _differences(logged)
    times = {"event_context": len(NAMES), "log_entry": STEPS}.get(statement.split()[1], 1)
    assert found == [(kind, change, fields)] * times


async def _copied(session: Session, recorded_at: datetime) -> None:
    """An event row that nobody captured."""
    row = (await session.exec(select(EpcisEvent).where(EpcisEvent.event_id == "urn:x:kept"))).first()
    assert row is not None
    told = {name: getattr(row, name) for name in EpcisEvent.model_fields}
    session.add(EpcisEvent(**{**told, "event_key": uuid.uuid4(), "record_time": recorded_at}))


def test_rows_that_nobody_logged_are_told_apart_from_those_before_the_log(logged: Terminal) -> None:
    now = datetime.now(UTC)
    _in_database(logged, lambda session: _copied(session, now))
    _in_database(logged, lambda session: _copied(session, now - timedelta(days=1)))
    _alter(logged, "UPDATE log_entry SET kind = 'other' WHERE kind = 'act'")
    told = _compared(logged)
    found = [(one["kind"], one["change"], one["leaf"]) for one in told["findings"]]
    assert found == [("event", "unlogged", None), *[("act", "unlogged", None)] * ACTS]
    assert told["findings"][0]["recorded_at"][:19] == now.isoformat()[:19]
    assert told["rows_before_the_log"] == 1


@ON_SQLITE
def test_what_was_erased_is_counted_and_not_compared(logged: Terminal) -> None:
    async def erase(session: Session) -> None:
        ids = (await session.exec(select(LogEntry.entry_id).where(LogEntry.kind == "event"))).all()
        await log_queue.erase(session, ids[:2], "asked for", datetime.now(UTC))

    _in_database(logged, erase)
    told = _compared(logged)
    assert (told["records"], told["erased"], told["differences"]) == (RECORDS - 2, 2, 0)


@pytest.mark.parametrize(
    ("name", "most"), [("PAGE_ENTRIES", 1), ("PAGE_ENTRIES", 7), ("PAGE_BYTES", 1), ("PAGE_ROWS", 1)]
)
def test_it_goes_page_by_page_and_misses_nothing(
    logged: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(log_comparison, name, most)
    _alter(logged, "UPDATE epcis_event SET biz_step = 'urn:x'", "DELETE FROM item_event WHERE item_key % 10 = 3")
    _in_database(logged, lambda session: _copied(session, datetime.now(UTC)))
    told = _compared(logged)
    assert (told["records"], told["differences"]) == (RECORDS, len(NAMES) + 2)
    assert told["findings"][-1]["change"] == "unlogged"


@ON_SQLITE
@pytest.mark.parametrize("most", [len(NAMES) - 1, len(NAMES), len(NAMES) + 1])
def test_so_many_findings_are_told_and_all_are_counted(
    logged: Terminal, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(log_comparison, "FINDINGS_TOLD_MAX", most)
    _alter(logged, "UPDATE epcis_event SET type = 'TransactionEvent'")
    told = _compared(logged)
    assert (told["differences"], len(told["findings"])) == (len(NAMES), min(most, len(NAMES)))


@ON_SQLITE
def test_the_leaf_of_an_altered_event_is_named(logged: Terminal) -> None:
    async def sequence(session: Session) -> list[uuid.UUID]:
        ids = list((await session.exec(select(LogEntry.entry_id).order_by(col(LogEntry.entry_id)))).all())
        session.add_all(LogLeaf(leaf_index=index, entry_id=one) for index, one in enumerate(ids))
        return ids

    ids = _in_database(logged, sequence)
    _alter(logged, "UPDATE epcis_event SET disposition = 'urn:x' WHERE event_id = 'urn:x:kept'")
    [told] = _compared(logged)["findings"]
    assert (told["leaf"], told["fields"]) == (ids.index(uuid.UUID(told["entry"])), ["disposition"])
