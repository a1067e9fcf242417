"""How fast codes are issued: signed and written as CSV by whole runs, in one process and in two."""

import asyncio
import os
import shutil
import time
from pathlib import Path

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from codes.production import Production
from tests.bench.factory import Works
from tests.bench.figures import Figure, figure

ROUNDS = 3
CODES = 300_000
MESSAGES = 40_000


def codes(folder: Path) -> list[Figure]:
    """Whole runs with their rows, hashes and flushes, beside a loop that does nothing but sign such messages."""
    return asyncio.run(_codes(folder))


async def _codes(folder: Path) -> list[Figure]:
    works = Works(folder)
    await works.open()
    order = await works.order(CODES)
    messages = works.messages(order, MESSAGES)
    _, secret = crypto_sign_seed_keypair(os.urandom(32))

    def bare() -> float:
        started = time.perf_counter()
        for message in messages:
            crypto_sign(message, secret)
        return MESSAGES / (time.perf_counter() - started)

    async def run(workers: int) -> float:
        work, engine = await works.production(order, workers)
        async with engine:  # a worker process starts within two seconds, which an order of millions does not notice
            started = time.perf_counter()
            await work.carry_through(engine, lambda _count: None)
            seconds = time.perf_counter() - started
        _check(work)
        return CODES / seconds

    one, yardstick, two = [], [], []
    for _ in range(ROUNDS):
        before = bare()  # before and after: a machine that others use changes its speed while a run lasts
        one.append(await run(1))
        yardstick.append((before + bare()) / 2)
        two.append(await run(2))
    await works.database.close()
    return [
        figure("codes to CSV, one process", one, "codes/s", "bare PyNaCl signing", yardstick),
        figure("codes to CSV, two processes", two, "codes/s", "one process", one),
    ]


def _check(work: Production) -> None:
    folder = Path(work.run.folder)
    assert (folder / "outer.csv").read_bytes().count(b"\n") == CODES + 1
    shutil.rmtree(folder)
