"""Proofs from what the database holds: evidence with its opening, consistency, exports, and what was tampered with."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlmodel import col, select

from codes import log_queue
from codes.log_queue import LogEntry
from kit.db import Database
from offline_sdk.errors import ProofWrong
from offline_sdk.transparency import Evidence, Opening, Policy, SignedCheckpoint, TileId, verify_consistency
from offline_sdk.transparency.export import EVENTS_FILE, Export
from offline_sdk.transparency.findings import Change
from offline_sdk.transparency.history import Audit, audit
from offline_sdk.transparency.note import decode_base64
from scan_api.transparency import exporting, proofs
from scan_api.transparency.exporting import Exported, ExportFolderTaken
from scan_api.transparency.proofs import LogEntryPending, LogSizeInvalid, Proved, TooManyProofs
from scan_api.transparency.standing import standing
from scan_api.transparency.store import LogDamaged, LogLeaf, LogMissing, LogTile
from scan_api.transparency.tile_files import TileUnknown, tile_file
from tests.scan_api.transparency.log_stand import LogStand

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def _prove(log: LogStand, entry_ids: list[uuid.UUID]) -> dict[uuid.UUID, Proved]:
    async with log.database.reading() as session:
        return await proofs.prove(session, entry_ids)


async def _policy(log: LogStand) -> Policy:
    return Policy((await log.head()).key)


async def test_every_entry_is_proved_to_who_has_only_the_key(log: LogStand) -> None:
    ids = await log.enqueue(600)
    await log.publish()
    policy = await _policy(log)
    told = {entry_id: proved.as_json() for entry_id, proved in (await _prove(log, ids)).items()}
    for number, entry_id in enumerate(ids):
        answer = told[entry_id]
        opening = Opening(decode_base64(answer["opening"]["salt"], "salt"), answer["opening"]["record"].encode())
        assert opening.record == f'{{"number":{number},"type":"event","word":"record"}}'.encode()
        assert opening.entry == answer["entry"].encode()
        Evidence.read(answer["proof"].encode()).verify(opening.entry, policy)
        assert answer["leaf_index"] == number
    with pytest.raises(ProofWrong):
        Evidence.read(told[ids[0]]["proof"].encode()).verify(told[ids[1]]["entry"].encode(), policy)


@on_sqlite
async def test_entries_do_not_tell_equal_records(log: LogStand) -> None:
    ids = await log.enqueue(1) + await log.enqueue(1)
    await log.publish()
    one, other = (await _prove(log, ids)).values()
    assert one.opening is not None
    assert other.opening is not None
    assert one.opening.record == other.opening.record
    assert one.entry != other.entry


@on_sqlite
async def test_entry_is_proved_when_it_is_published(log: LogStand) -> None:
    async with log.database.reading() as session:
        with pytest.raises(LogMissing):
            await proofs.published(session)
    await log.publish()
    [entry_id] = await log.enqueue()
    for step in (log.sequencer().append, log.sequencer().sign, log.publisher().turn):
        async with log.database.reading() as session:
            entry = await session.get_one(LogEntry, entry_id)
            with pytest.raises(LogEntryPending):
                await proofs.prove_entry(session, entry)
        await step()
    assert set(await _prove(log, [entry_id, uuid.uuid4()])) == {entry_id}


@on_sqlite
async def test_no_more_are_proved_at_once_than_allowed(log: LogStand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "PROVED_AT_ONCE_MAX", 3)
    await log.publish()
    await _prove(log, [uuid.uuid4()] * 3)
    with pytest.raises(TooManyProofs):
        await _prove(log, [uuid.uuid4()] * 4)


async def test_consistency_is_proved_between_any_two_sizes(log: LogStand) -> None:
    seen = [(await log.publish()).checkpoint]
    for count in (1, 254, 3, 300):
        await log.enqueue(count)
        seen.append((await log.publish()).checkpoint)
    async with log.database.reading() as session:
        for at, old in enumerate(seen):
            for new in seen[at:]:
                proof = await proofs.consistency(session, old.size, new.size)
                verify_consistency(old.size, new.size, old.root, new.root, proof)
        for old_size, size in ((2, 1), (0, 559), (-1, 1)):
            with pytest.raises(LogSizeInvalid):
                await proofs.consistency(session, old_size, size)


async def test_erased_record_is_gone_and_its_place_is_still_proved(log: LogStand, tmp_path: Path) -> None:
    ids = await log.enqueue(3)
    await log.publish()
    async with log.database.writing() as session:
        assert await log_queue.erase(session, [ids[1], uuid.uuid4()], "asked for", log.now) == 1
        assert await log_queue.erase(session, [ids[1]], "asked again", log.now) == 0
    await log.publish()
    found = await _prove(log, ids)
    assert found[ids[1]].as_json()["opening"] is None
    found[ids[1]].evidence.verify(found[ids[1]].entry, await _policy(log))
    done, outcome = await _exported(log, tmp_path / "export")
    assert (done.openings, done.erased, outcome.erased) == (3, 1, 1)
    assert outcome.is_whole
    lines = (tmp_path / "export" / EVENTS_FILE).read_bytes().splitlines()
    assert lines[1] == b'{"erased":true}'
    assert b'"type":"erasure"' in lines[3]
    assert str(ids[1]).encode() in lines[3]


async def _exported(log: LogStand, folder: Path) -> tuple[Exported, Audit]:
    progress: list[int] = []
    signed = await log.published()
    done = await exporting.export(log.database, folder, signed, progress.append)
    assert sum(progress) == done.openings + done.erased
    with Export(folder) as export:
        content = export.checkpoint()
        assert content is not None
        return done, audit(export, SignedCheckpoint.read(content), await _policy(log))


async def test_export_is_whole(log: LogStand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "TILES_AT_ONCE", 2)
    monkeypatch.setattr(exporting, "LEAVES_AT_ONCE", 100)
    await log.enqueue(700)
    await log.publish()
    await log.enqueue(5)
    await log.sequencer().turn()  # wider tiles than what is published
    done, outcome = await _exported(log, tmp_path / "export")
    assert outcome.is_whole
    assert (outcome.entries, outcome.events, outcome.erased) == (700, 700, 0)
    assert done.files == len([path for path in (tmp_path / "export").rglob("*") if path.is_file()])
    with pytest.raises(ExportFolderTaken):
        await _exported(log, tmp_path / "export")


@on_sqlite
async def test_export_of_no_leaves_is_whole(log: LogStand, tmp_path: Path) -> None:
    await log.publish()
    _done, outcome = await _exported(log, tmp_path / "export")
    assert outcome.is_whole


def _altered(record: bytes) -> dict[str, Any]:
    return {"record": record}


@on_sqlite
@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({"record": b'{"number":300,"type":"event","word":"another"}'}, Change.EVENT_ALTERED),
        ({"record": b"not even\nJSON"}, Change.EVENT_ALTERED),
        ({"record": b""}, Change.EVENT_ALTERED),
        ({"salt": bytes(32)}, Change.EVENT_ALTERED),
        (None, Change.EVENT_REMOVED),
    ],
    ids=["record", "no JSON", "empty", "salt", "gone"],
)
async def test_first_record_that_was_tampered_with_is_named(
    log: LogStand, tmp_path: Path, values: dict[str, Any] | None, change: Change
) -> None:
    ids = await log.enqueue(400)
    await log.publish()
    async with log.database.writing() as session:
        for entry_id in (ids[300], ids[350]):
            this = col(LogEntry.entry_id) == entry_id
            statement: Any = delete(LogEntry).where(this) if values is None else update(LogEntry).where(this)
            await session.exec(statement if values is None else statement.values(values))
    _done, outcome = await _exported(log, tmp_path / "export")
    [finding] = outcome.findings
    assert (finding.change, finding.index) == (change, 300)
    if values is not None:
        with pytest.raises(LogDamaged):
            await _prove(log, [ids[300]])
    await _prove(log, [ids[299]])


@on_sqlite
@pytest.mark.parametrize(("level", "change"), [(-1, Change.ENTRY_ALTERED), (0, Change.TILE_ALTERED)])
async def test_tampered_tile_is_named(log: LogStand, tmp_path: Path, level: int, change: Change) -> None:
    ids = await log.enqueue(300)
    await log.publish()
    async with log.database.writing() as session:
        tile = await session.get_one(LogTile, (level, 0))
        tile.content = tile.content[:50] + b"?" + tile.content[51:]
        session.add(tile)
    _done, outcome = await _exported(log, tmp_path / "export")
    assert outcome.findings[0].change is change
    assert outcome.findings[0].index in (0, 1)
    if level == 0:
        with pytest.raises(LogDamaged):
            await _prove(log, [ids[1]])


@on_sqlite
async def test_exchanged_places_are_found(log: LogStand, tmp_path: Path) -> None:
    ids = await log.enqueue(10)
    await log.publish()
    async with log.database.writing() as session:
        for index, entry_id in ((3, uuid.uuid4()), (7, ids[3]), (3, ids[7])):
            await session.exec(update(LogLeaf).where(col(LogLeaf.leaf_index) == index).values(entry_id=entry_id))
    _done, outcome = await _exported(log, tmp_path / "export")
    assert [finding.index for finding in outcome.findings] == [3]


async def test_tiles_are_cut_to_what_their_path_says(log: LogStand) -> None:
    await log.enqueue(300)
    await log.publish()
    async with log.database.reading() as session:
        for width in (1, 44):
            assert len(await tile_file(session, f"tile/0/001.p/{width}")) == 32 * width
            assert len(await tile_file(session, f"tile/entries/001.p/{width}")) == 81 * width
        assert len(await tile_file(session, "tile/0/000.p/7")) == 32 * 7
        assert len(await tile_file(session, "tile/0/000")) == 8_192
        for path in (
            "tile/0/001",
            "tile/0/001.p/45",
            "tile/entries/001.p/45",
            "tile/1/001.p/1",
            "tile/7/000",
            "tile/x",
        ):
            with pytest.raises(TileUnknown):
                await tile_file(session, path)


@on_sqlite
async def test_gap_between_commit_and_log_shows(log: LogStand) -> None:
    async def now() -> dict[str, Any]:
        async with log.database.reading() as session:
            told = (await standing(session, log.now)).as_json()
            return {name: told[name] for name in ("size", "published_size", "pending", "behind_s", "healthy")}

    assert await now() == {"size": 0, "published_size": 0, "pending": 0, "behind_s": 0.0, "healthy": True}
    await log.enqueue(2)
    log.later(10.0)
    assert await now() == {"size": 0, "published_size": 0, "pending": 2, "behind_s": 10.0, "healthy": True}
    await log.enqueue(1)
    log.later(0.1)
    assert await now() == {"size": 0, "published_size": 0, "pending": 3, "behind_s": 10.1, "healthy": False}
    await log.sequencer().turn()
    assert await now() == {"size": 3, "published_size": 0, "pending": 0, "behind_s": 10.1, "healthy": False}
    await log.publisher().turn()
    assert await now() == {"size": 3, "published_size": 3, "pending": 0, "behind_s": 0.0, "healthy": True}


@on_sqlite
async def test_without_a_log_what_waits_shows(database: Database, log: LogStand) -> None:
    async with database.writing() as session:
        await session.delete(await log.head())
    await log.enqueue(1)
    log.later(60.0)
    async with database.reading() as session:
        found = await standing(session, log.now)
    assert (found.origin, found.pending, found.is_behind) == (None, 1, True)


def test_paths_of_tiles_are_the_formats() -> None:
    assert TileId.of_path("tile/entries/x001/234.p/8").start == 1_234 * 256


async def test_nothing_of_a_record_is_in_tiles(log: LogStand) -> None:
    await log.enqueue(10, "secret")
    await log.publish()
    async with log.database.reading() as session:
        content = b"".join((await session.exec(select(LogTile.content))).all())
    assert b"secret" not in content
    assert content.count(b"salted-sha-256:") == 10
