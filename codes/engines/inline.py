"""The engine of one worker: a thread of this process, which signs with the keys that the process holds."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from codes.pipeline import Section, Sign
from codes.rendering import Job, RenderedPart, Renderer


class InlineEngine:
    """Makes one section after the other, while the caller writes the last one."""

    workers = 1

    def __init__(self, job: Job, sign: Sign) -> None:
        self._renderer = Renderer(job, sign)
        self._thread = ThreadPoolExecutor(1)

    async def __aenter__(self) -> Self:
        return self

    async def render(self, section: Section) -> Sequence[RenderedPart]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._renderer.render, section)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
