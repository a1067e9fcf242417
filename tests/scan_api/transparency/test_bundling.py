"""Evidence of what answers tell: attached to them, and packed into bundles that anybody can check."""

import io
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import select

from codes import log_queue
from codes.log_queue import LogEntry, NewEntry, record_of
from offline_sdk.transparency import Evidence, Opening, Policy
from offline_sdk.transparency.evidence_bundle import EvidenceBundle
from offline_sdk.transparency.evidence_check import Checked, check
from offline_sdk.transparency.note import decode_base64
from scan_api.transparency import attached, bundling
from scan_api.transparency.attached import Attached, State
from scan_api.transparency.bundling import About, Bundled, EvidenceTooLarge
from scan_api.transparency.proofs import Proved
from scan_api.transparency.store import LogDamaged, LogMissing, head_of
from tests.scan_api.transparency.log_stand import BRAND, LogStand

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

THING = "https://id.gs1.org/01/09506000134352/21/1"


async def _enqueue(log: LogStand, subjects: list[uuid.UUID]) -> None:
    entries = [NewEntry("event", one, BRAND, record_of({"type": "event", "key": str(one)})) for one in subjects]
    async with log.database.writing() as session:
        await log_queue.enqueue(session, entries, log.now)


def _subjects(count: int) -> list[uuid.UUID]:
    return [uuid.uuid4() for _ in range(count)]


async def _attach(log: LogStand, subjects: list[uuid.UUID]) -> Attached:
    async with log.database.reading() as session:
        return await attached.attach(session, subjects)


async def _written(log: LogStand, about: About) -> tuple[bytes, Bundled]:
    made = io.BytesIO()
    done = await bundling.write(log.database, about, made)
    return made.getvalue(), done


async def _checked(log: LogStand, content: bytes, folder: Path) -> Checked:
    path = folder / "evidence.zip"
    path.write_bytes(content)
    async with log.database.reading() as session:
        policy = Policy((await head_of(session)).key)
    with EvidenceBundle(path) as bundle:
        return check(bundle, policy)


async def test_answers_carry_what_proves_each_event(log: LogStand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "PROVED_AT_ONCE", 3)
    monkeypatch.setattr(attached, "ASKED_AT_ONCE", 2)
    proved, pending, never = _subjects(7), _subjects(1), _subjects(1)
    await log.enqueue(300)
    await _enqueue(log, proved)
    signed = await log.publish()
    await _enqueue(log, pending)
    asked = [*pending, *proved, *never]
    told = (await _attach(log, asked)).as_json((f"id {number}", one) for number, one in enumerate(asked))
    assert [one["state"] for one in told["events"]] == ["pending", *["proved"] * 7, "unlogged"]
    assert (told["size"], told["pending_within_s"]) == (307, 10.0)
    assert decode_base64(told["checkpoint"], "checkpoint") == bytes(signed)
    policy = Policy((await log.head()).key)
    for number, event in enumerate(told["events"][1:8]):
        opening = Opening(decode_base64(event["opening"]["salt"], "salt"), event["opening"]["record"].encode())
        assert str(proved[number]).encode() in opening.record
        Evidence.read(decode_base64(event["proof"], "proof")).verify(opening.entry, policy)
        assert event["leaf_index"] == 300 + number
    assert told["events"][0] == {"event": "id 0", "state": "pending"}


@pytest.mark.parametrize(("more", "left_out"), [(1, []), (0, []), (-1, [4])], ids=["below", "at", "above"])
async def test_what_would_make_an_answer_too_long_is_left_out_and_named(
    log: LogStand, monkeypatch: pytest.MonkeyPatch, more: int, left_out: list[int]
) -> None:
    subjects = _subjects(5)
    await log.enqueue(300)
    await _enqueue(log, subjects)
    await log.publish()
    whole = await _attach(log, subjects)
    assert whole.left_out == {}
    attached_bytes = sum(_bytes(one) for one in whole.proved.values())
    monkeypatch.setattr(attached, "ATTACHED_BYTES_MAX", attached_bytes + more)
    found = await _attach(log, subjects)
    assert list(found.left_out) == [subjects[number] for number in left_out]
    told = found.as_json((f"id {number}", one) for number, one in enumerate(subjects))["events"]
    for number, event in enumerate(told):
        if number in left_out:
            entry_id = str(whole.proved[subjects[number]].entry_id)
            expected = {"state": "left_out", "leaf_index": 300 + number, "entry_id": entry_id}
            assert event == {"event": f"id {number}", **expected}
        else:
            assert event["state"] == "proved"


def _bytes(proved: Proved) -> int:
    """How long a record and its proof are."""
    return len(bytes(proved.evidence)) + (len(proved.opening.record) if proved.opening else 0)


@on_sqlite
async def test_a_record_that_is_left_out_leaves_room_for_those_behind_it(
    log: LogStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, long, last = _subjects(3)
    await _enqueue(log, [first])
    record = record_of({"type": "event", "word": "x" * 5_000})
    async with log.database.writing() as session:
        await log_queue.enqueue(session, [NewEntry("event", long, BRAND, record)], log.now)
    await _enqueue(log, [last])
    await log.publish()
    whole = await _attach(log, [last, long, first])
    monkeypatch.setattr(attached, "ATTACHED_BYTES_MAX", _bytes(whole.proved[long]))
    assert set((await _attach(log, [last, long, first])).left_out) == {long}
    assert set((await _attach(log, [long, last, first])).proved) == {long}


@on_sqlite
async def test_nothing_is_proved_that_no_signed_checkpoint_holds(log: LogStand) -> None:
    [subject] = _subjects(1)
    await _enqueue(log, [subject])
    with pytest.raises(LogMissing):
        await _attach(log, [subject])
    await log.publish()
    [later] = _subjects(1)
    await _enqueue(log, [later])
    for step in (log.sequencer().append, log.sequencer().sign, log.publisher().turn):
        found = await _attach(log, [subject, later])
        assert (found.state_of(subject), found.state_of(later)) == (State.PROVED, State.PENDING)
        await step()
    assert (await _attach(log, [later])).state_of(later) is State.PROVED


async def test_a_bundle_is_checked_with_the_key_alone(
    log: LogStand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "PROVED_AT_ONCE", 2)
    proved, pending, never = _subjects(5), _subjects(1), _subjects(1)
    await log.enqueue(260)
    await _enqueue(log, proved)
    await log.publish()
    await _enqueue(log, pending)
    about = About(THING, [*never, *reversed(proved), *pending, *proved], is_cut=True, code={"verdict": "genuine"})
    content, done = await _written(log, about)
    assert done == Bundled("log.example.cn/log", 265, 5, 1, 1)
    outcome = await _checked(log, content, tmp_path)
    assert (outcome.finding, outcome.records, outcome.erased) == (None, 5, 0)
    manifest = outcome.manifest
    assert [leaf.subject for leaf in manifest.leaves] == list(map(str, proved))
    assert (manifest.pending, manifest.unlogged) == ((str(pending[0]),), (str(never[0]),))
    assert (manifest.thing, manifest.is_cut) == (THING, True)
    assert {"code.json", "key", "README.txt", "checkpoint", "events.ndjson"} < set(manifest.files)
    # While the log does not grow, the bytes are the same, however they are asked for.
    parts = [part async for part in bundling.blocks(log.database, about)]
    assert b"".join(parts) == content == (await _written(log, replace(about, subjects=about.subjects)))[0]


@on_sqlite
async def test_an_erased_record_leaves_a_bundle_whole(log: LogStand, tmp_path: Path) -> None:
    subjects = _subjects(3)
    await _enqueue(log, subjects)
    await log.publish()
    async with log.database.writing() as session:
        asked = select(LogEntry.entry_id).where(LogEntry.subject == subjects[1])
        await log_queue.erase(session, list(await session.exec(asked)), "asked for", log.now)
    content, _done = await _written(log, About(THING, subjects))
    outcome = await _checked(log, content, tmp_path)
    assert (outcome.finding, outcome.records, outcome.erased) == (None, 3, 1)
    assert str(subjects[1]).encode() not in content.partition(b"manifest.json")[0]


@on_sqlite
async def test_an_altered_record_is_never_given_out(log: LogStand) -> None:
    subjects = _subjects(2)
    await _enqueue(log, subjects)
    await log.publish()
    async with log.database.writing() as session:
        row = (await session.exec(select(LogEntry).where(LogEntry.subject == subjects[0]))).one()
        row.record = b'{"altered":1}'
        session.add(row)
    with pytest.raises(LogDamaged):
        await _written(log, About(THING, subjects))
    with pytest.raises(LogDamaged):
        await _attach(log, subjects)


@on_sqlite
async def test_a_bundle_of_nothing_is_whole(log: LogStand, tmp_path: Path) -> None:
    await log.publish()
    content, done = await _written(log, About("x", []))
    assert (done.size, done.records) == (0, 0)
    assert (await _checked(log, content, tmp_path)).is_whole


@on_sqlite
async def test_a_bundle_holds_no_more_than_allowed(log: LogStand, monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = _subjects(3)
    await _enqueue(log, subjects)
    await log.publish()
    size = 3 * len(record_of({"type": "event", "key": str(subjects[0])}))
    for name, enough in (("RECORDS_MAX", 3), ("RECORDS_BYTES_MAX", size)):
        monkeypatch.setattr(bundling, name, enough)
        assert (await _written(log, About(THING, subjects)))[1].records == 3
        monkeypatch.setattr(bundling, name, enough - 1)
        with pytest.raises(EvidenceTooLarge):
            await _written(log, About(THING, subjects))
        monkeypatch.setattr(bundling, name, enough)
    with pytest.raises(EvidenceTooLarge):
        await _written(log, About(THING, [*subjects, uuid.uuid4()]))
