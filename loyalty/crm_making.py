"""Chunks of a CRM's file: read, checked and sealed ahead of the database, if there are many in another process."""

import asyncio
import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any, Protocol, cast

from kit.vault import Vault
from loyalty import crm_file, crm_sealing
from loyalty.crm_file import BadRow, Reader, Row, Rules
from loyalty.crm_sealing import Additions, Aim, Enrolled, Numbers, Staging

AHEAD_MAX = 3
"""Chunks that wait, prepared, for the database."""
ALONE_FROM_CHUNKS = 3
"""From so many chunks on another process pays: it leaves a core to the database."""
_KEPT = 2 * AHEAD_MAX + 4
"""Chunks whose rows are remembered after they were made: more than can be on their way."""


@dataclass(frozen=True)
class Prepared:
    """A chunk's numbers, as all new ones if that is what was expected, or else as ones that may be known."""

    numbers: int
    duplicates: int
    additions: Additions | None
    staging: Staging | None


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
    aim: Aim
    rules: Rules
    chunk_rows: int
    on_postgresql: bool


class _Maker:
    """Goes through the file once, chunk after chunk."""

    def __init__(self, job: Job) -> None:
        self._job, file = job, job.aim.order.file
        self._open = ExitStack()
        text = self._open.enter_context(crm_file.open_text(file))
        self._chunks = enumerate(Reader(file, text).chunks(job.chunk_rows))
        self._kept: deque[Numbers] = deque(maxlen=_KEPT)

    def make(self, done: Collection[int], now: datetime, all_new: bool) -> Made | None:
        found = next(self._chunks, None)
        if found is None:
            self._open.close()
            return None
        number, rows = found
        job = self._job
        good, bad = crm_file.check_rows(rows, job.rules)
        if number in done:
            return Made(number, len(rows), bad, None)
        numbers = crm_sealing.gather(job.vault, job.aim.order.group_id, number, good, now)
        self._kept.append(numbers)
        eager = all_new and job.on_postgresql
        prepared = Prepared(
            len(numbers.rows),
            numbers.duplicates,
            crm_sealing.add(job.vault, job.aim, numbers, now) if eager else None,
            None if eager else self.staging(number),
        )
        return Made(number, len(rows), bad, prepared)

    def staging(self, number: int) -> Staging:
        return crm_sealing.stage(self._numbers(number), on_postgresql=self._job.on_postgresql)

    def enrolled(self, number: int, wanted: Collection[bytes], now: datetime) -> Enrolled:
        job = self._job
        return crm_sealing.enrol(
            job.vault, job.aim, self._numbers(number), wanted, now, on_postgresql=job.on_postgresql
        )

    def said(self, number: int) -> Mapping[bytes, Row]:
        return self._numbers(number).said()

    def _numbers(self, number: int) -> Numbers:
        [numbers] = [one for one in self._kept if one.chunk == number]
        return numbers


class _Workplace(Protocol):
    """Where a maker works."""

    def ask(self, name: str, *arguments: Any) -> Any: ...

    def close(self) -> None: ...


class _Here:
    """In this process, for a small file."""

    def __init__(self, job: Job) -> None:
        self._maker = _Maker(job)

    def ask(self, name: str, *arguments: Any) -> Any:
        return getattr(self._maker, name)(*arguments)

    def close(self) -> None:
        pass


class _Elsewhere:
    """In a process that has nothing else to do, and ends when this one does.

    It is forked: what this process has loaded takes a second and a half to load again. The child touches none of the
    connections, threads and streams that it finds.
    """

    def __init__(self, job: Job) -> None:
        fork = multiprocessing.get_context("fork")
        self._pipe, theirs = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(job, theirs, self._pipe), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, arguments))
        answer, error = self._pipe.recv()
        if error is not None:
            raise cast("Exception", error)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(job: Job, pipe: Connection, end_of_parent: Connection) -> None:
    """Be the maker of another process: a question and an answer each until that process hangs up."""
    end_of_parent.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Rows by the hundred thousand and no circle among them: looking for circles would take a third of the time.
    gc.disable()
    maker = _Maker(job)
    try:
        while True:
            name, arguments = pipe.recv()
            answer, raised = None, None
            try:
                answer = getattr(maker, name)(*arguments)
            except Exception as error:
                raised = error
            pipe.send((answer, raised))
    except (EOFError, OSError):
        # Not by way of what this process inherited: streams to be flushed twice, handlers of the other's exit.
        os._exit(0)


class Making:
    """The maker, wherever it works; leave its context when the file is done with."""

    def __init__(self, job: Job, clock: Callable[[], datetime]) -> None:
        alone = job.aim.order.file.lines >= ALONE_FROM_CHUNKS * job.chunk_rows
        self._place: _Workplace = _Elsewhere(job) if alone else _Here(job)
        self._thread, self._clock = ThreadPoolExecutor(1), clock
        self._ahead: deque[asyncio.Future[Made | None]] = deque()
        self.all_new = True
        """Whether the chunks to come are taken to be of new numbers alone, as the last ones were."""

    async def __aenter__(self) -> "Making":
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._place.close()
        await asyncio.gather(*self._ahead, return_exceptions=True)
        self._thread.shutdown()

    async def chunks(self, done: Collection[int]) -> AsyncIterator[Made]:
        """The chunks in order, some of them made ahead while the database works."""
        for _ in range(AHEAD_MAX):
            self._ask_ahead(done)
        while (made := await self._ahead[0]) is not None:
            self._ahead.popleft()
            self._ask_ahead(done)
            yield made

    def _ask_ahead(self, done: Collection[int]) -> None:
        self._ahead.append(self._ask("make", done, self._clock(), self.all_new))

    def _ask(self, name: str, *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._place.ask, name, *arguments)

    # Of a chunk that was made of late:

    async def staging(self, number: int) -> Staging:
        """Its numbers for the temporary table."""
        return cast("Staging", await self._ask("staging", number))

    async def enrolled(self, number: int, wanted: Collection[bytes], now: datetime) -> Enrolled:
        """New members for these of its numbers, by keyed hash."""
        return cast("Enrolled", await self._ask("enrolled", number, wanted, now))

    async def said(self, number: int) -> Mapping[bytes, Row]:
        """What its rows say, by the keyed hash of the number."""
        return cast("Mapping[bytes, Row]", await self._ask("said", number))
