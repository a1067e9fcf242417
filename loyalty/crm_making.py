"""Chunks of a CRM's file: read, checked and sealed ahead of the database, if there are many in another process."""

import asyncio
import multiprocessing
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from kit.vault import Vault
from loyalty import crm_file, crm_staging
from loyalty.crm_file import BadRow, NumberedRow, Reader, Row, Rules
from loyalty.crm_records import Order
from loyalty.crm_staging import Aim, Prepared

AHEAD_MAX = 3
"""Chunks that wait, prepared, for the database."""
ALONE_FROM_CHUNKS = 3
"""From so many chunks on another process pays: it takes a second to start, and then leaves a core to the database."""
_KEPT = 2 * AHEAD_MAX + 4
"""Chunks whose rows are remembered after they were made: more than can be on their way."""


@dataclass(frozen=True)
class Made:
    """A chunk of so many rows, ready to land. `prepared` None: it landed before, and only its bad rows are told."""

    number: int
    rows: int
    bad: list[BadRow]
    prepared: Prepared | None


@dataclass(frozen=True)
class Job:
    """What a maker needs to know."""

    vault: Vault
    order: Order
    rules: Rules
    rules_version: int
    chunk_rows: int
    on_postgresql: bool


class _Maker:
    """Goes through the file once, chunk after chunk."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._open = ExitStack()
        text = self._open.enter_context(crm_file.open_text(job.order.file))
        self._chunks = enumerate(Reader(job.order.file, text).chunks(job.chunk_rows))
        self._kept: deque[tuple[int, list[NumberedRow]]] = deque(maxlen=_KEPT)

    def make(self, done: Collection[int]) -> Made | None:
        found = next(self._chunks, None)
        if found is None:
            self._open.close()
            return None
        number, rows = found
        self._kept.append(found)
        job, order = self._job, self._job.order
        good, bad = crm_file.check_rows(rows, job.rules)
        prepared = None
        if number not in done:
            aim = Aim(order.group_id, order.brand_id, order.import_id, number, job.rules_version)
            prepared = crm_staging.prepare(job.vault, aim, good, job.rules.now, on_postgresql=job.on_postgresql)
        return Made(number, len(rows), bad, prepared)

    def said(self, number: int) -> Mapping[bytes, Row]:
        [rows] = [rows for kept, rows in self._kept if kept == number]
        good, _bad = crm_file.check_rows(rows, self._job.rules)
        return crm_staging.by_number(self._job.vault, self._job.order.group_id, good)


class _OfProcess:
    """The maker of a process that has nothing else to do."""

    maker: _Maker

    @classmethod
    def begin(cls, job: Job) -> None:
        cls.maker = _Maker(job)

    @classmethod
    def make(cls, done: Collection[int]) -> Made | None:
        return cls.maker.make(done)

    @classmethod
    def said(cls, number: int) -> Mapping[bytes, Row]:
        return cls.maker.said(number)


class Making:
    """The maker, wherever it works; leave its context when the file is done with."""

    def __init__(self, job: Job) -> None:
        self._pool: Executor
        if job.order.file.lines < ALONE_FROM_CHUNKS * job.chunk_rows:
            maker = _Maker(job)
            self._pool, self._make, self._said = ThreadPoolExecutor(1), maker.make, maker.said
        else:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, spawn, initializer=_OfProcess.begin, initargs=(job,))
            self._make, self._said = _OfProcess.make, _OfProcess.said

    async def __aenter__(self) -> "Making":
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    async def chunks(self, done: Collection[int]) -> AsyncIterator[Made]:
        """The chunks in order, some of them made ahead while the database works."""
        loop = asyncio.get_running_loop()
        ahead = deque(loop.run_in_executor(self._pool, self._make, done) for _ in range(AHEAD_MAX))
        while (made := await ahead.popleft()) is not None:
            ahead.append(loop.run_in_executor(self._pool, self._make, done))
            yield made
        await asyncio.gather(*ahead)

    async def said(self, number: int) -> Mapping[bytes, Row]:
        """What the rows of a chunk that was made of late say, by the keyed hash of the number."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._said, number)
