"""Chunks of a CRM's file: read, checked and sealed ahead of the database, if there are many in another process."""

import asyncio
import gc
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, cast

from kit.vault import Vault
from loyalty import crm_file, crm_sealing
from loyalty.crm_file import BadRow, Reader, Row, Rules
from loyalty.crm_sealing import Additions, Aim, Enrolled, Numbers, Staging

AHEAD_MAX = 3
"""Chunks that wait, prepared, for the database."""
ALONE_FROM_CHUNKS = 3
"""From so many chunks on another process pays: it takes a second to start, and then leaves a core to the database."""
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

    It loads this module and what that needs, and not, as `multiprocessing` would, the command once more.
    """

    def __init__(self, job: Job) -> None:
        begin = f"import sys; sys.path[:] = {sys.path!r}; from loyalty import crm_making; crm_making.serve()"
        self._process = subprocess.Popen(  # noqa: S603 - this Python
            [sys.executable, "-c", begin], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        pickle.dump(job, self._process.stdin)

    def ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((name, arguments), self._process.stdin)
        self._process.stdin.flush()
        answer, error = pickle.load(self._process.stdout)  # noqa: S301 - what our own process writes
        if error is not None:
            raise cast("Exception", error)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def serve() -> None:
    """Be the maker of another process: a job from standard input, then a question and an answer each until its end."""
    questions = sys.stdin.buffer
    # Whatever else is printed must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Rows by the hundred thousand and no circle among them: looking for circles would take a third of the time.
    gc.disable()
    maker = _Maker(pickle.load(questions))  # noqa: S301 - what our own process writes
    while True:
        try:
            name, arguments = pickle.load(questions)  # noqa: S301
        except EOFError:
            return
        answer, raised = None, None
        try:
            answer = getattr(maker, name)(*arguments)
        except Exception as error:
            raised = error
        pickle.dump((answer, raised), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


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
