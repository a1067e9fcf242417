"""`kill -9` of who fills the transparency log and of who sequences it: no leaf is lost, none comes twice, no fork."""

import time
import uuid
from itertools import count, pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlmodel import col, select

from codes import log_queue
from codes.log_queue import LogEntry
from kit.db import Database
from offline_sdk.transparency import (
    Checkpoint,
    Frontier,
    Opening,
    consistency_path,
    leaf_hash,
    prove_consistency,
    subtrees_of,
    verify_consistency,
)
from scan_api.transparency import store
from scan_api.transparency.head_memory import HeadMemory
from scan_api.transparency.sequencer import Sequencer
from scan_api.transparency.store import LogHead, LogLeaf
from signer.service import SigningService
from tests.faults import log_workers
from tests.faults.log_workers import PUBLIC, Witnessing, now
from tests.nursery import PROCESSES

SEQUENCERS = 2
WORK_S_MAX = 0.03
PROGRESS_DEADLINE_S = 200.0
DRAIN_DEADLINE_S = 60.0


class Workers:
    """Two sequencers and one who fills the log, each replaced when it is killed."""

    def __init__(self, url: str, folder: Path, random: Random) -> None:
        self.url, self.folder, self.random = url, folder, random
        self.acknowledged, self.seen = folder / "acknowledged", folder / "seen"
        self._seeds = count()
        self._running = [self._started(number) for number in range(SEQUENCERS + 1)]

    def _started(self, number: int) -> BaseProcess:
        if number == SEQUENCERS:
            arguments: tuple[Any, ...] = (self.url, self.acknowledged, next(self._seeds))
            process = PROCESSES.Process(target=log_workers.fill, args=arguments)
        else:
            home = self.folder / f"home-{number}"
            home.mkdir(exist_ok=True)
            # Every third dies by itself, at a moment that nobody else would hit: signed, and not yet kept.
            dies_at = self.random.choice([0, 0, self.random.randint(1, 6)])
            process = PROCESSES.Process(target=log_workers.sequence, args=(self.url, home, self.seen, dies_at))
        process.start()
        return process

    def kill_one(self) -> None:
        self._wait_for_progress()
        time.sleep(self.random.uniform(0, WORK_S_MAX))
        number = self.random.choice([0, 0, 1, 1, 2])
        self._end(self._running[number])
        self._running[number] = self._started(number)

    def _wait_for_progress(self) -> None:
        """Wait till another checkpoint is signed, however slow this machine is today."""
        before, deadline = self._signed_bytes(), time.monotonic() + PROGRESS_DEADLINE_S
        while self._signed_bytes() == before:
            assert time.monotonic() < deadline, "nothing is sequenced any more"
            self._replace_dead()
            time.sleep(0.002)

    def _replace_dead(self) -> None:
        for number, process in enumerate(self._running):
            if not process.is_alive():
                self._end(process)
                self._running[number] = self._started(number)

    def _signed_bytes(self) -> int:
        return self.seen.stat().st_size if self.seen.exists() else 0

    def kill_all(self) -> None:
        for process in self._running:
            self._end(process)

    def _end(self, process: BaseProcess) -> None:
        process.kill()
        process.join()
        assert process.exitcode == -9, "a worker died of something else"
        process.close()


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
async def test_kills_lose_no_leaf_and_never_fork(
    database: Database, database_url: str, tmp_path: Path, kills: int
) -> None:
    async with database.writing() as session:
        session.add(LogHead(origin="log", custody_name="log", public=PUBLIC, created_at=now(), grown_at=now()))
    workers = Workers(database_url, tmp_path, Random(kills))
    try:
        for _ in range(kills):
            workers.kill_one()
    finally:
        workers.kill_all()
    await _drain(database, tmp_path, workers.seen)
    await _every_record_has_one_leaf(database, set(map(uuid.UUID, workers.acknowledged.read_text().split())))
    signed = {Checkpoint.read(bytes.fromhex(line).decode()) for line in workers.seen.read_text().split()}
    assert len(signed) >= kills // 2  # the same head may be signed by several
    await _is_one_history(database, sorted(signed, key=lambda one: one.size))


async def _drain(database: Database, folder: Path, seen: Path) -> None:
    deadline = time.monotonic() + DRAIN_DEADLINE_S
    sequencer = Sequencer(database, SigningService(Witnessing(seen)), HeadMemory(folder / "home-0"), now)
    while time.monotonic() < deadline:
        await sequencer.turn()
        async with database.reading() as session:
            if (await log_queue.backlog(session)).count == 0:
                return
    raise AssertionError("records are still pending")


async def _every_record_has_one_leaf(database: Database, acknowledged: set[uuid.UUID]) -> None:
    async with database.reading() as session:
        everything = select(LogEntry, LogLeaf.leaf_index).join(
            LogLeaf, col(LogLeaf.entry_id) == LogEntry.entry_id, isouter=True
        )
        rows = sorted((await session.exec(everything)).all(), key=lambda row: row[1])
        head = await store.head_of(session)
    assert [index for _, index in rows] == list(range(head.size))
    assert acknowledged <= {entry.entry_id for entry, _ in rows}
    hashes = []
    for entry, _ in rows:
        assert entry.salt is not None
        assert entry.record is not None
        hashes.append(leaf_hash(Opening(entry.salt, entry.record).entry))
    assert Frontier().append(hashes).frontier.root == head.root


async def _is_one_history(database: Database, signed: list[Checkpoint]) -> None:
    """Everything that was ever signed, kept or not, leads by proofs to the newest."""
    async with database.reading() as session:
        for old, new in pairwise(signed):
            reader = await store.reader_for(session, subtrees_of(consistency_path(old.size, new.size)), new.size)
            proof = prove_consistency(old.size, new.size, reader)
            verify_consistency(old.size, new.size, old.root, new.root, proof)
