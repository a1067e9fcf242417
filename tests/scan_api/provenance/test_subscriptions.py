"""Subscriptions: each event in one report, whoever commits when, and however often reports are begun."""

import asyncio
import json
import uuid
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from sqlmodel import col, select

from kit.db import Database
from kit.outbox import OutboxMessage
from kit.vault import Vault, new_key
from scan_api.provenance import (
    arrivals,
    captures,
    event_json,
    event_search,
    named_queries,
    reports,
    subscriptions,
)
from scan_api.provenance.arrivals import EventArrival
from scan_api.provenance.captures import ErrorBehaviour
from scan_api.provenance.reports import Reporter
from scan_api.provenance.repository import EpcisEvent
from scan_api.provenance.schedules import Schedule
from scan_api.provenance.subscriptions import Asked, Subscription
from tests.scan_api.event_sender import CONTEXT, document, seen
from tests.scan_api.provenance.event_world import BRAND_ID, OTHER_BRAND_ID, RECORDED_AT, keep

VAULT = Vault(new_key())
BEFORE = RECORDED_AT - timedelta(hours=1)


async def subscribe(database: Database, **asked: Any) -> Subscription:
    wanted: dict[str, Any] = {
        "dest": "https://erp.example/",
        "token": None,
        "schedule": None,
        "report_if_empty": False,
        "initial_record_time": None,
    }
    async with database.writing() as session:
        await named_queries.add(session, BRAND_ID, "shipped", {"EQ_bizStep": ["shipping"]}, BEFORE)
        return await subscriptions.add(session, VAULT, BRAND_ID, "shipped", Asked(**(wanted | asked)), BEFORE)


def event(number: int, **more: Any) -> dict[str, Any]:
    return seen(str(number), eventID=f"urn:x:{number}", **more)


async def told(database: Database) -> list[list[str]]:
    """The event ids of each report, as they were put into the outbox."""
    async with database.reading() as session:
        messages = (await session.exec(select(OutboxMessage).order_by(col(OutboxMessage.message_id)))).all()
        names = dict((await session.exec(select(EpcisEvent.event_key, EpcisEvent.event_id))).all())
    return [[names[uuid.UUID(hex=key)] for key in message.payload["event_keys"]] for message in messages]


async def run(database: Database, now: datetime = RECORDED_AT, times: int = 1) -> None:
    reporter = Reporter(database, lambda: now)
    for _ in range(times):
        await arrivals.place(database)
        await reporter.report()


async def test_events_are_told_as_they_come_each_once(database: Database) -> None:
    await subscribe(database)
    await keep(database, event(1), event(2, bizStep="receiving"))
    await keep(database, event(3), brand_id=OTHER_BRAND_ID)
    await run(database, times=3)
    assert await told(database) == [["urn:x:1"]]
    await keep(database, event(4))
    await run(database, times=3)
    assert sorted(chain(*await told(database))) == ["urn:x:1", "urn:x:4"]


async def test_reporters_that_meet_tell_an_event_once(database: Database) -> None:
    subscription = await subscribe(database)
    await keep(database, *(event(n) for n in range(5)))
    await arrivals.place(database)
    await asyncio.gather(*(Reporter(database, lambda: RECORDED_AT).advance(subscription) for _ in range(4)))
    assert [sorted(some) for some in await told(database)] == [[f"urn:x:{n}" for n in range(5)]]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_report_has_numbers_as_they_were_sent(database: Database) -> None:
    sent = json.dumps(document(event(1))).replace('"action"', '"ex:n":[1.10,12345678901234567890.5],"action"')
    judged = captures.judge(BRAND_ID, event_json.read(sent.encode()))
    async with database.writing() as session:
        caller_id, rollback = uuid.UUID(int=7), ErrorBehaviour.ROLLBACK
        await captures.capture(session, BRAND_ID, caller_id, CONTEXT, judged, rollback, RECORDED_AT)
    keys = [one.new.event_key for one in judged if one.new is not None]
    async with database.reading() as session:
        told = await reports.document(session, keys, RECORDED_AT, "shipped", uuid.UUID(int=1))
    assert '"ex:n":[1.10,12345678901234567890.5]' in told


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_an_event_whose_transaction_ends_late_is_told_all_the_same(database: Database) -> None:
    await subscribe(database)
    late = asyncio.Event()

    async def slowly() -> None:
        async with database.writing() as session:
            await arrivals.note(session, BRAND_ID, [uuid.UUID(int=1)], RECORDED_AT)
            await late.wait()

    slow = asyncio.create_task(slowly())
    await asyncio.sleep(0.05)
    await keep(database, event(2), at=RECORDED_AT + timedelta(seconds=5))
    await run(database, times=2)
    late.set()
    await slow
    await arrivals.place(database)
    async with database.reading() as session:
        placed = await arrivals.since(session, BRAND_ID, 0, 9)
    # The one that began first has the later position, since it was there later.
    assert [(one.position, one.recorded_at) for one in placed] == [
        (1, RECORDED_AT + timedelta(seconds=5)),
        (2, RECORDED_AT),
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_was_captured_before_is_told_from_the_time_asked_for(database: Database) -> None:
    await keep(database, event(1), at=RECORDED_AT - timedelta(days=2))
    await keep(database, event(2), at=RECORDED_AT - timedelta(days=1))
    await run(database)
    await subscribe(database, initial_record_time=RECORDED_AT - timedelta(days=1))
    await run(database)
    assert await told(database) == [["urn:x:2"]]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("report_if_empty", [True, False])
async def test_a_schedule_tells_at_its_time(database: Database, report_if_empty: bool) -> None:
    await subscribe(database, schedule=Schedule.of({"hour": "9"}), report_if_empty=report_if_empty)
    await keep(database, event(1))
    await run(database, RECORDED_AT, times=2)
    assert await told(database) == []
    await run(database, RECORDED_AT + timedelta(hours=1), times=3)
    assert await told(database) == [["urn:x:1"]]
    await run(database, RECORDED_AT + timedelta(days=1, hours=1), times=3)
    assert sorted(await told(database)) == ([[], ["urn:x:1"]] if report_if_empty else [["urn:x:1"]])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_reports_have_bounded_size(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "REPORT_EVENTS_MAX", 3)
    monkeypatch.setattr(reports, "ARRIVALS_AT_ONCE_MAX", 2)
    await subscribe(database)
    for first in range(0, 12, 4):
        await keep(database, *(event(n) for n in range(first, first + 4)))
    await run(database, times=4)
    found = await told(database)
    assert sorted(chain(*found)) == sorted(f"urn:x:{n}" for n in range(12))
    assert max(map(len, found)) == 3
    sized = [event_search.Sized(uuid.UUID(int=n), 700_000) for n in range(5)]
    monkeypatch.setattr(reports, "REPORT_EVENTS_MAX", 9)
    assert [len(parcel) for parcel in reports.parcels(sized)] == [2, 2, 1]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_query_that_is_removed_tells_nothing_more(database: Database) -> None:
    await subscribe(database)
    await keep(database, event(1))
    async with database.writing() as session:
        await named_queries.remove(session, BRAND_ID, "shipped")
    await run(database)
    assert await told(database) == []
    async with database.reading() as session:
        assert (await session.exec(select(EventArrival.position))).all() == [1]
