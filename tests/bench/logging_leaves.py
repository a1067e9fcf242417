"""The transparency log on PostgreSQL: leaves appended a second, in batches, and the time that a proof takes."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import migrations
from codes import log_queue
from codes.log_queue import NewEntry
from kit.clock import system_clock
from kit.db import Database
from kit.settings import Settings
from scan_api.transparency import log_key, proofs
from scan_api.transparency.head_memory import HeadMemory
from scan_api.transparency.sequencer import Sequencer
from scan_api.transparency.store import head_of, publish
from tests.bench.figures import Figure
from tests.bench.serving import Postgres

LEAVES, ENQUEUED_AT_ONCE = 100_000, 1_000
RECORD_BYTES = 600
PROOFS, WARM_PROOFS = 300, 30
RATE_BAR, PROOF_BAR_MS = 10_000, 5


def logging(folder: Path) -> list[Figure]:
    """A hundred thousand records of 600 bytes, as captured events have, then proofs of some of them one by one."""
    server = Postgres(folder / "postgres")
    try:
        return asyncio.run(_measured(server.url, Settings(home=folder / "home")))
    finally:
        server.stop()


async def _measured(url: str, settings: Settings) -> list[Figure]:
    settings.home.mkdir()
    database = Database(url, 2)
    try:
        await migrations.upgrade(database)
        async with database.writing() as session:
            await log_key.begin(session, settings, system_clock())
        signing = log_key.access(settings).open()
        sequencer = Sequencer(database, signing, HeadMemory(settings.home), system_clock)
        await sequencer.turn()  # opens the key
        ids, enqueuing, enqueuing_cpu = await _enqueued(database)
        began, began_cpu = time.perf_counter(), time.process_time()
        assert await sequencer.turn() == LEAVES
        appending, appending_cpu = time.perf_counter() - began, time.process_time() - began_cpu
        took, took_cpu = await _proved(database, ids)
    finally:
        await database.close()
    return [
        _rate("log: records put in the queue", enqueuing, enqueuing_cpu),
        _rate("log: leaves appended and signed", appending, appending_cpu),
        Figure("  bar", LEAVES / appending, "leaves/s", "bar", RATE_BAR, LEAVES / appending / RATE_BAR),
        Figure(f"log: a proof of {LEAVES:,} leaves, p50", took, "ms", "bar", PROOF_BAR_MS, took / PROOF_BAR_MS),
        Figure("  its CPU time here", took_cpu, "ms", "wall", took, took_cpu / took),
    ]


def _rate(name: str, seconds: float, cpu_s: float) -> Figure:
    return Figure(name, LEAVES / seconds, "/s", "a second of this process's CPU", LEAVES / cpu_s, cpu_s / seconds)


async def _enqueued(database: Database) -> tuple[list[uuid.UUID], float, float]:
    filler = secrets.token_hex((RECORD_BYTES - 30) // 2)
    ids: list[uuid.UUID] = []
    entries = [
        NewEntry("event", uuid.uuid4(), 1, f'{{"number":{number:020},"x":"{filler}"}}'.encode())
        for number in range(LEAVES)
    ]
    began, began_cpu = time.perf_counter(), time.process_time()
    for start in range(0, LEAVES, ENQUEUED_AT_ONCE):
        async with database.writing() as session:
            some = entries[start : start + ENQUEUED_AT_ONCE]
            ids += await log_queue.enqueue(session, some, system_clock())
    return ids, time.perf_counter() - began, time.process_time() - began_cpu


async def _proved(database: Database, ids: Sequence[uuid.UUID]) -> tuple[float, float]:
    """The median time of one proof, with its query, and its CPU time; both in milliseconds."""
    async with database.writing() as session:
        head = await head_of(session)
        assert head.signed is not None
        await publish(session, head.signed_size, head.signed, system_clock())
    took: list[float] = []
    began_cpu = 0.0
    for number in range(-WARM_PROOFS, PROOFS):
        if number == 0:
            took, began_cpu = [], time.process_time()
        began = time.perf_counter()
        async with database.reading() as session:
            assert len(await proofs.prove(session, [ids[number * 7_919 % LEAVES]])) == 1
        took.append((time.perf_counter() - began) * 1_000)
    return sorted(took)[PROOFS // 2], (time.process_time() - began_cpu) * 1_000 / PROOFS
