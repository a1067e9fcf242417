"""The local engine: worker processes on this machine, each of which signs by itself."""

import asyncio
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from codes.engines import SignerAccess, WorkerLost
from codes.pipeline import Section
from codes.rendering import Job, RenderedPart
from codes.worker import LENGTH, frame
from kit.errors import FanxingError

_PIPE_BYTES = 16 << 20
_STOP_S_MAX = 10


class LocalEngine:
    """Hands each section to whichever worker is free."""

    def __init__(self, job: Job, access: SignerAccess, workers: int) -> None:
        self._job = job
        self._access = access
        self._workers = workers
        self._processes: list[Process] = []
        self._idle: asyncio.Queue[Process] = asyncio.Queue()

    @property
    def workers(self) -> int:
        return self._workers

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._workers):
                # -P: a folder that the command happens to run in must not lend its modules to a process with keys.
                command = (sys.executable, "-P", "-m", "codes.worker")
                self._processes.append(
                    await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=_PIPE_BYTES)
                )
            for process in self._processes:  # in turn: opening a key takes 64 MiB each time
                await self._introduce(process)
        except BaseException:
            await self._end()
            raise
        return self

    async def _introduce(self, process: Process) -> None:
        await self._ask(process, (self._job, self._access))
        self._idle.put_nowait(process)

    async def render(self, section: Section) -> Sequence[RenderedPart]:
        process = await self._idle.get()
        parts: Sequence[RenderedPart] = await self._ask(process, section)
        self._idle.put_nowait(process)
        return parts

    async def _ask(self, process: Process, message: object) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(frame(message))
            await process.stdin.drain()
            (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            answer = pickle.loads(await process.stdout.readexactly(length))  # noqa: S301 - our own worker wrote it
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WorkerLost(
                f"worker {process.pid} ended before its work did",
                hint="Was it killed for want of memory? `fanxing order runs` shows the run, and `fanxing order resume` "
                "goes on with it, perhaps with fewer --workers.",
            ) from None
        if isinstance(answer, FanxingError | OSError):
            raise answer
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes:
            try:
                await asyncio.wait_for(process.wait(), _STOP_S_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._processes.clear()
