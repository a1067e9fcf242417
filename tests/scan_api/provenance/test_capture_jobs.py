"""Captures in the background: all or nothing or what is good, taken up again after a kill, XML like JSON."""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, func, select

from codes.log_queue import LogEntry
from kit.db import Database
from kit.ids import new_id
from scan_api.provenance import capture_jobs, captures, packing, spool
from scan_api.provenance.captures import Capture, ErrorBehaviour
from scan_api.provenance.repository import EpcisEvent, EventContext
from tests.scan_api.event_sender import document, seen, serial

NOW = datetime(2026, 6, 3, 8, tzinfo=UTC)
BRAND = 1
BAD: dict[str, Any] = {"action": "LOOKED"}
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Killed(Exception):
    """What a worker does not live to see."""


class Job:
    """One capture in the background, by hand."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder, self.id = database, folder, new_id()
        self.now = NOW

    async def begin(self, body: bytes, behaviour: ErrorBehaviour, *, is_xml: bool = False) -> None:
        upload = spool.Upload(self.folder)
        upload.write(body)
        upload.keep(self.id, is_xml=is_xml)
        async with self.database.writing() as session:
            capture_jobs.begin(session, BRAND, uuid.uuid4(), self.id, behaviour, None, NOW)

    async def work(self) -> bool:
        return await capture_jobs.work_once(self.database, self.folder, lambda: self.now)

    async def shown(self) -> Capture:
        async with self.database.reading() as session:
            return await captures.find(session, BRAND, self.id)

    async def kept(self) -> int:
        async with self.database.reading() as session:
            asked = select(func.count()).select_from(EpcisEvent).where(col(EpcisEvent.capture_id) == self.id)
            return (await session.exec(asked)).one()

    async def refused(self) -> Sequence[int]:
        async with self.database.reading() as session:
            return [one.position for one in await capture_jobs.refusals(session, self.id, -1, 100)]


@pytest.fixture
def job(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(capture_jobs, "PART_EVENTS", 4)
    return Job(database, tmp_path / "captures")


def body(*events: dict[str, Any]) -> bytes:
    return json.dumps(document(*events)).encode()


def sound(count: int) -> list[dict[str, Any]]:
    return [seen(serial()) for _ in range(count)]


@pytest.mark.parametrize("behaviour", list(ErrorBehaviour))
async def test_a_sound_document_is_kept(job: Job, behaviour: ErrorBehaviour) -> None:
    events = sound(10)
    await job.begin(body(*events, events[0]), behaviour)
    assert await job.work()
    told = await job.shown()
    assert (told.success, told.accepted, told.duplicates, told.position, told.events) == (True, 10, 1, 11, 11)
    assert told.finished_at == NOW
    assert await job.kept() == 10
    assert spool.waiting(job.folder) == []
    assert not await job.work()


@pytest.mark.parametrize(("behaviour", "kept"), [(ErrorBehaviour.ROLLBACK, 0), (ErrorBehaviour.PROCEED, 8)])
async def test_a_refused_event_takes_all_along_or_none(job: Job, behaviour: ErrorBehaviour, kept: int) -> None:
    events = sound(10)
    events[5] |= BAD
    events[9] |= BAD
    await job.begin(body(*events), behaviour)
    await job.work()
    told = await job.shown()
    assert (told.success, told.accepted, told.refused) == (False, kept, 2)
    assert (await job.kept(), await job.refused()) == (kept, [5, 9])
    assert told.refusals[0]["problems"][0]["pointer"] == "/epcisBody/eventList/5/action"


@pytest.mark.parametrize(("behaviour", "kept"), [(ErrorBehaviour.ROLLBACK, 0), (ErrorBehaviour.PROCEED, 9)])
async def test_an_id_with_two_contents_is_found_across_parts(job: Job, behaviour: ErrorBehaviour, kept: int) -> None:
    events = sound(10)
    events[1]["eventID"] = events[8]["eventID"] = f"urn:example:{serial()}"
    await job.begin(body(*events), behaviour)
    await job.work()
    told = await job.shown()
    assert (told.success, told.accepted, told.refused) == (False, kept, 1)
    assert (await job.kept(), await job.refused()) == (kept, [8])


@pytest.mark.parametrize(
    ("behaviour", "parts"),
    [(ErrorBehaviour.PROCEED, parts) for parts in range(3)] + [(ErrorBehaviour.ROLLBACK, parts) for parts in (0, 2, 4)],
)
async def test_another_worker_goes_on_where_one_was_killed(
    job: Job, behaviour: ErrorBehaviour, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await job.begin(body(*sound(10)), behaviour)
    judge, judged = captures.judge, 0

    def dying(*arguments: Any) -> Any:
        nonlocal judged
        judged += 1
        if judged > parts:
            raise Killed
        return judge(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(captures, "judge", dying)
        with pytest.raises(Killed):
            await job.work()
    assert not await job.work()  # its lease still runs
    job.now = NOW + capture_jobs.LEASE + timedelta(seconds=1)
    assert await job.work()
    told = await job.shown()
    assert (told.success, told.accepted, told.duplicates) == (True, 10, 0)
    assert await job.kept() == 10


async def test_who_lost_his_lease_writes_nothing_more(job: Job) -> None:
    await job.begin(body(*sound(10)), ErrorBehaviour.PROCEED)
    async with job.database.writing() as session:
        mine = await capture_jobs._lease(session, [job.id], NOW)
    assert mine is not None
    job.now = NOW + capture_jobs.LEASE
    assert await job.work()
    with pytest.raises(capture_jobs.LeaseLost):
        async with job.database.writing() as session:
            await capture_jobs._update(session, mine, position=0)
    assert (await job.shown()).accepted == 10


XML = """<e:EPCISDocument xmlns:e="urn:epcglobal:epcis:xsd:2" xmlns:ex="https://ns.example.com/" schemaVersion="2.0"
  creationDate="2026-06-02T08:00:00Z"><EPCISBody><EventList>{}</EventList></EPCISBody></e:EPCISDocument>"""
XML_EVENT = """<ObjectEvent><eventTime>2026-06-01T08:00:00Z</eventTime><eventTimeZoneOffset>+08:00</eventTimeZoneOffset>
  <epcList><epc>urn:epc:id:sgtin:9506000.013435.{}</epc></epcList><action>OBSERVE</action>
  <bizStep>urn:epcglobal:cbv:bizstep:shipping</bizStep><ex:a>沪</ex:a></ObjectEvent>"""


async def test_xml_goes_the_same_way(job: Job) -> None:
    numbers = [serial() for _ in range(6)]
    written = XML.format("".join(XML_EVENT.format(number) for number in numbers)).encode()
    await job.begin(written, ErrorBehaviour.ROLLBACK, is_xml=True)
    await job.work()
    told = await job.shown()
    assert (told.success, told.accepted, told.events) == (True, 6, 6)
    again = Job(job.database, job.folder)
    await again.begin(body(*[seen(number, **{"ex:a": "沪"}) for number in numbers]), ErrorBehaviour.PROCEED)
    await again.work()
    assert (await again.shown()).duplicates == 6


@pytest.mark.parametrize("written", [b"<a", XML.format("").replace("2.0", "3.0").encode()])
async def test_a_document_that_turns_out_to_be_none_ends_its_capture(job: Job, written: bytes) -> None:
    await job.begin(written, ErrorBehaviour.ROLLBACK, is_xml=True)
    await job.work()
    told = await job.shown()
    assert (told.success, told.finished_at, told.accepted) == (False, NOW, 0)
    assert len(told.refusals) == 1
    assert spool.waiting(job.folder) == []


@on_sqlite
@pytest.mark.parametrize(("behaviour", "kept"), [(ErrorBehaviour.ROLLBACK, 0), (ErrorBehaviour.PROCEED, 4)])
async def test_aggregations_that_tangle_end_their_capture(
    job: Job, behaviour: ErrorBehaviour, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "ROUNDS_MAX", 0)  # in which any aggregation tangles
    packed = seen("x", type="AggregationEvent", action="ADD", parentID="urn:x:box", childEPCs=["urn:x:1"])
    del packed["epcList"]
    await job.begin(body(*sound(5), packed, *sound(4)), behaviour)
    assert await job.work()
    told = await job.shown()
    assert (told.finished_at, told.success, told.accepted, await job.kept()) == (NOW, False, kept, kept)
    [refusal] = told.refusals
    assert [(one["reason"], one["pointer"]) for one in refusal["problems"]] == [("packing_tangled", "")]
    assert spool.waiting(job.folder) == []
    job.now = NOW + capture_jobs.LEASE
    assert not await job.work()


@on_sqlite
async def test_what_tangles_is_told_among_a_bounded_number_of_refusals(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "ROUNDS_MAX", 0)
    monkeypatch.setattr(capture_jobs, "REFUSED_LISTED_MAX", 2)
    packed = seen("x", type="AggregationEvent", action="ADD", parentID="urn:x:box", childEPCs=["urn:x:1"])
    del packed["epcList"]
    bad = [{**event, **BAD} for event in sound(3)]
    await job.begin(body(*bad, *sound(1), packed), ErrorBehaviour.PROCEED)
    await job.work()
    told = await job.shown()
    assert (told.refused, await job.refused()) == (3, [0, 1, 2])
    assert [one["problems"][0]["reason"] for one in told.refusals] == ["action_unknown", "packing_tangled"]


@on_sqlite
async def test_a_capture_is_found_behind_many_that_are_not_due(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_jobs, "KEYS_ASKED_AT_ONCE_MAX", 2)
    for number in range(4):  # of no capture that is known here
        upload = spool.Upload(job.folder)
        upload.write(b"{}")
        upload.keep(uuid.UUID(int=number), is_xml=False)
    await job.begin(body(*sound(1)), ErrorBehaviour.PROCEED)
    assert await job.work()
    assert (await job.shown()).accepted == 1
    old = time.time() - spool.FORGOTTEN_AFTER_S - 60
    for number in (1, 3):
        os.utime(job.folder / f"{uuid.UUID(int=number)}.json", (old, old))
    assert not await job.work()
    assert spool.waiting(job.folder) == [uuid.UUID(int=0), uuid.UUID(int=2)]


@on_sqlite
async def test_the_leaf_of_an_event_commits_to_its_context(job: Job) -> None:
    await job.begin(body(*sound(1)), ErrorBehaviour.PROCEED)
    await job.work()
    async with job.database.reading() as session:
        [event] = (await session.exec(select(EpcisEvent).where(col(EpcisEvent.capture_id) == job.id))).all()
        context = await session.get_one(EventContext, event.context_id)
        [entry] = (await session.exec(select(LogEntry).where(col(LogEntry.subject) == event.event_key))).all()
    assert "ns.example.com" in context.content
    assert json.loads(entry.record or b"")["context_sha256"] == hashlib.sha256(context.content.encode()).hexdigest()
