"""The sequencer: every committed record gets one leaf, and nothing is signed that is not committed."""

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pymerkle
import pytest
from sqlalchemy import delete, update
from sqlmodel import col, select

from codes import log_queue
from codes.log_queue import LogEntry, LogPending, LogRecordInvalid, NewEntry, record_around, record_of
from kit.db import Database, table_of
from offline_sdk.transparency import Frontier, Opening, SignedCheckpoint, verify_consistency
from scan_api.transparency import proofs, store
from scan_api.transparency.head_memory import FILE, HeadMemory, LogRolledBack
from scan_api.transparency.store import LogDamaged, LogHead, LogLeaf, LogMissing, LogRaced, LogTile
from signer.custody import CustodyError
from signer.service import SigningService
from tests.scan_api.transparency.log_stand import BRAND, LogStand, new_entries

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


async def _leaves(database: Database) -> list[tuple[int, Any]]:
    async with database.reading() as session:
        wanted = select(LogLeaf.leaf_index, LogLeaf.entry_id).order_by(col(LogLeaf.leaf_index))
        return [(index, entry_id) for index, entry_id in (await session.exec(wanted)).all()]


async def test_committed_records_become_leaves_in_their_order(log: LogStand) -> None:
    first = await log.enqueue(300)
    second = await log.enqueue(2, "later")
    assert await log.sequencer().turn() == 302
    assert await _leaves(log.database) == list(enumerate([*first, *second]))
    async with log.database.reading() as session:
        assert (await log_queue.backlog(session)).count == 0
    assert (await log.head()).signed_size == 302


async def test_pymerkle_comes_to_the_same_roots(log: LogStand) -> None:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    sequencer = log.sequencer(batch_entries=97)
    for count in (1, 96, 97, 200):
        await log.enqueue(count)
        await sequencer.turn()
        async with log.database.reading() as session:
            rows = await session.exec(
                select(LogEntry.salt, LogEntry.record)
                .join(LogLeaf, col(LogLeaf.entry_id) == LogEntry.entry_id)
                .where(LogLeaf.leaf_index >= tree.get_size())
                .order_by(col(LogLeaf.leaf_index))
            )
            for salt, record in rows.all():
                assert salt is not None
                assert record is not None
                tree.append_entry(Opening(salt, record).entry)
        head = await log.head()
        assert (head.size, head.root) == (tree.get_size(), tree.get_root())


async def test_what_is_rolled_back_is_not_logged(log: LogStand) -> None:
    with pytest.raises(ZeroDivisionError):
        await _undone(log)
    assert await log.sequencer().turn() == 0


async def _undone(log: LogStand) -> None:
    async with log.database.writing() as session:
        await log_queue.enqueue(session, new_entries(30), log.now)
        raise ZeroDivisionError


@on_postgresql
async def test_record_committed_after_later_ones_is_not_passed_over(log: LogStand) -> None:
    async with log.database.writing() as slow:
        early = await log_queue.enqueue(slow, new_entries(1), log.now)
        late = await log.enqueue(30)
        await log.sequencer().turn()
        assert [entry_id for _, entry_id in await _leaves(log.database)] == late
    await log.sequencer().turn()
    assert await _leaves(log.database) == list(enumerate([*late, *early]))


async def test_sequencers_at_once_neither_fork_nor_lose(log: LogStand) -> None:
    rivals = [log.sequencer(f"home-{number}", batch_entries=40) for number in range(3)]
    committed: list[Any] = []
    seen: set[bytes] = set()

    async def fill(word: str) -> None:
        for _ in range(6):
            committed.extend(await log.enqueue(25, word))

    async def sequence(rival: Any) -> None:
        while filling or (await rival.append()):
            with_rival = await asyncio.gather(rival.turn(), return_exceptions=True)
            assert all(isinstance(one, int | LogRaced) for one in with_rival), with_rival
            seen.add((await log.head()).signed or b"")

    filling = True
    workers = [asyncio.create_task(sequence(rival)) for rival in rivals]
    await asyncio.gather(fill("a"), fill("b"))
    filling = False
    await asyncio.gather(*workers)
    await log.sequencer("home-0").turn()
    leaves = await _leaves(log.database)
    assert [index for index, _ in leaves] == list(range(300))
    assert {entry_id for _, entry_id in leaves} == set(committed)
    await _are_consistent(log, {*seen, (await log.head()).signed or b""} - {b""})


async def _are_consistent(log: LogStand, signed: set[bytes]) -> None:
    heads = [SignedCheckpoint.read(one).checkpoint for one in signed]
    heads.sort(key=lambda one: one.size)
    await log.publisher().turn()
    async with log.database.reading() as session:
        for old, new in pairwise(heads):
            proof = await proofs.consistency(session, old.size, new.size)
            verify_consistency(old.size, new.size, old.root, new.root, proof)


async def test_head_moves_only_from_where_it_was(log: LogStand) -> None:
    await log.enqueue(3)
    head = await log.head()
    await log.sequencer().turn()
    async with log.database.writing() as session:
        with pytest.raises(LogRaced):
            await store.grow(session, head, Frontier().append([bytes(32)]), [], [], log.now)


@on_sqlite
async def test_nothing_is_signed_before_it_is_committed(log: LogStand, monkeypatch: pytest.MonkeyPatch) -> None:
    await log.enqueue(3)
    sign = log.signing.sign_named
    committed: list[int] = []

    def watched(name: str, message: bytes) -> bytes:
        # From another connection: what it sees is committed.
        committed.append(asyncio.run_coroutine_threadsafe(log.head(), loop).result().size)
        assert f"\n{committed[-1]}\n" in message.decode()
        return sign(name, message)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(log.signing, "sign_named", watched)
    await log.sequencer().turn()
    assert committed == [3]


@on_sqlite
async def test_log_grows_while_nobody_can_sign_and_is_signed_later(
    log: LogStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_name: str, _message: bytes) -> bytes:
        raise CustodyError("the token is away")

    await log.enqueue(3)
    with monkeypatch.context() as patched:
        patched.setattr(log.signing, "sign_named", away)
        with pytest.raises(CustodyError):
            await log.sequencer().turn()
    head = await log.head()
    assert (head.size, head.signed_size) == (3, -1)
    await log.sequencer().turn()
    assert (await log.head()).signed_size == 3


@on_sqlite
async def test_signature_of_another_key_is_not_kept(
    log: LogStand, log_signing: SigningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log.signing, "sign_named", lambda _name, _message: bytes(64))
    with pytest.raises(CustodyError, match="does not sign as the log's key"):
        await log.sequencer().turn()
    assert (await log.head()).signed is None


@on_sqlite
class TestDatabaseThatWasRestored:
    async def test_server_that_knows_more_stops(self, log: LogStand) -> None:
        await log.enqueue(5)
        await log.sequencer().turn()
        await _set_back(log.database)
        await log.enqueue(1)
        with pytest.raises(LogRolledBack, match="5 leaves were signed, and the database has 0"):
            await log.sequencer().turn()
        assert (await log.head()).size == 0

    async def test_other_leaves_under_as_great_a_size_are_not_signed(self, log: LogStand) -> None:
        await log.enqueue(5)
        await log.sequencer().turn()
        await _set_back(log.database)
        await log.enqueue(9)
        assert await log.sequencer("of-another-server").append() == 9
        with pytest.raises(LogRolledBack, match="the first 5 leaves are not those"):
            await log.sequencer().sign()

    async def test_memory_that_is_damaged_or_of_another_log_stops_it(self, log: LogStand) -> None:
        await log.sequencer().turn()
        path = log.home / "home" / FILE
        told = json.loads(path.read_bytes())
        for content in (b"", b"[]", b"{}", json.dumps({**told, "origin": "another"}).encode()):
            path.write_bytes(content)
            with pytest.raises(LogRolledBack):
                await log.sequencer().turn()


def test_what_was_never_written_is_not_known(tmp_path: Path) -> None:
    assert HeadMemory(tmp_path).known() is None


async def _set_back(database: Database) -> None:
    """As a backup from the log's first second would."""
    async with database.writing() as session:
        for model in (LogTile, LogLeaf, LogEntry):
            await session.exec(delete(table_of(model)))
        first = {"size": 0, "root": store.EMPTY_ROOT, "signed_size": -1, "signed": None, "published_size": -1}
        await session.exec(update(LogHead).values(first))


@on_sqlite
@pytest.mark.parametrize("level", [-1, 0, 1])
async def test_altered_edge_is_not_built_upon(log: LogStand, level: int) -> None:
    await log.enqueue(300)
    await log.sequencer().turn()
    async with log.database.writing() as session:
        found = select(LogTile).where(LogTile.level == level).order_by(col(LogTile.tile_index).desc())
        tile = (await session.exec(found)).first()
        assert tile is not None
        tile.content = tile.content[:-1] + bytes([tile.content[-1] ^ 1])
        session.add(tile)
    await log.enqueue(1)
    with pytest.raises(LogDamaged):
        await log.sequencer().turn()
    async with log.database.reading() as session:
        assert (await log_queue.backlog(session)).count == 1


@on_sqlite
async def test_without_a_log_records_wait(database: Database, log_signing: SigningService, tmp_path: Path) -> None:
    stand = LogStand(database, log_signing, tmp_path)
    await stand.enqueue(2)
    with pytest.raises(LogMissing):
        await stand.sequencer().turn()
    async with database.reading() as session:
        assert len((await session.exec(select(LogPending))).all()) == 2


@on_sqlite
class TestRecords:
    async def _refused(self, log: LogStand, *entries: NewEntry) -> None:
        with pytest.raises(LogRecordInvalid):
            async with log.database.writing() as session:
                await log_queue.enqueue(session, entries, log.now)

    @pytest.mark.parametrize("record", [b"", b"[]", b"1", b'{"a":1}\n', b'{"a":\n1}', b'{"a":"\xff"}', b"sha-256:00"])
    async def test_what_is_no_object_in_one_line_is_refused(self, log: LogStand, record: bytes) -> None:
        await self._refused(log, NewEntry("event", new_entries(1)[0].subject, BRAND, record))

    @pytest.mark.parametrize("kind", ["", "Event", "a" * 41, "a-b", "événement"])
    async def test_kind_is_a_word(self, log: LogStand, kind: str) -> None:
        await self._refused(log, NewEntry(kind, new_entries(1)[0].subject, BRAND, b"{}"))

    async def test_as_long_as_allowed(self, log: LogStand, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(log_queue, "RECORD_BYTES_MAX", 100)
        monkeypatch.setattr(log_queue, "ENQUEUED_AT_ONCE_MAX", 2)
        [entry] = new_entries(1)
        longest = record_of({"a": "x" * 92})
        assert len(longest) == 100
        async with log.database.writing() as session:
            await log_queue.enqueue(session, [NewEntry("a" * 40, entry.subject, None, longest)] * 2, log.now)
        await self._refused(log, NewEntry("event", entry.subject, None, record_of({"a": "x" * 93})))
        await self._refused(log, *[entry] * 3)

    async def test_entries_are_found_by_what_they_are_about(self, log: LogStand) -> None:
        one, other = new_entries(2)
        async with log.database.writing() as session:
            ids = await log_queue.enqueue(session, [one, other, one], log.now)
        async with log.database.reading() as session:
            found = await log_queue.entries_about(session, [one.subject, other.subject, ids[0]])
        assert found == {one.subject: [ids[0], ids[2]], other.subject: [ids[1]]}


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object(), {1, 2}], ids=["nan", "surrogate", "object", "set"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(LogRecordInvalid):
        record_of({"a": value})


def test_bytes_of_a_record_never_change() -> None:
    assert record_of({"b": "包", "a": [1, None, True]}) == '{"a":[1,null,true],"b":"包"}'.encode()


def test_record_around_an_event_has_its_text() -> None:
    record = record_around({"type": "event"}, "event", '{"b": 1,\n "a": "包\\n"}')
    assert record == '{"type":"event","event":{"b": 1,  "a": "包\\n"}}'.encode()
    assert json.loads(record)["event"] == {"a": "包\n", "b": 1}
    with pytest.raises(LogRecordInvalid):
        record_around({"type": "event"}, "event", '"\ud800"')
