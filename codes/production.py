"""Production: carries a run through, from its first missing section to the signed manifest."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from codes import manifest, runs
from codes.engines import Engine
from codes.exports import open_export
from codes.orders import CodeOrder
from codes.pipeline import Section
from codes.rendering import RenderedPart
from codes.run_files import RunFiles
from codes.runs import ExportRun, Part, RunSpec
from kit.clock import Clock
from kit.db import Database
from kit.files import require_free

SECTIONS_AHEAD = 2
"""Sections leased for each worker: one that it makes, and one that waits, so that it never stands still."""

T = TypeVar("T")

Advance = Callable[[int], None]
"""Hears how many more codes are on the disk."""


@dataclass(frozen=True)
class Production:
    """A run that this process works on. `sign` signs the manifest with the order's key."""

    database: Database
    order: CodeOrder
    run: ExportRun
    sign: Callable[[bytes], bytes]
    clock: Clock

    async def carry_through(self, engine: Engine, advance: Advance) -> list[Part]:
        """Make what is missing, publish the files and sign for them. Returns every file but the manifest.

        Raises RunStopped, RunBusy, ExportDamaged, DiskFull, WorkerLost, FolderTaken; what was written stays, and the
        run can be taken up again.
        """
        files = RunFiles(Path(self.run.folder), self.run.run_id)
        with files.held():
            try:
                done = await self._recover(files, advance)
                await self._make(engine, files, done, advance)
                await self._publish(files, done)
            except BaseException:
                await self._let_go()
                raise
            files.clear()
        return files.summary()

    async def _recover(self, files: RunFiles, advance: Advance) -> list[list[Part]]:
        """What earlier workers on this run wrote, checked; the parts of each section."""
        async with self.database.reading() as session:
            recorded = await runs.written(session, self.run)
        spec = self._spec
        whole = len(recorded) == spec.section_count
        done = []
        for section in itertools.islice(spec.sections(), len(recorded)):
            # Sections are written in order: what is recorded is a beginning, without holes.
            parts = recorded[int(section.face), section.number]
            await _in_thread(partial(files.check, parts, whole=whole))
            done.append(parts)
            advance(section.count)
        await _in_thread(files.cut_off)
        bytes_written = sum(part.bytes for part in itertools.chain.from_iterable(done))
        require_free(Path(self.run.folder), bytes_needed(self.order, spec) - bytes_written)
        return done

    async def _make(self, engine: Engine, files: RunFiles, done: list[list[Part]], advance: Advance) -> None:
        waiting = itertools.islice(self._spec.sections(), len(done), None)
        making: deque[tuple[Section, asyncio.Task[Sequence[RenderedPart]]]] = deque()

        async def go_on(written: list[tuple[Section, list[Part]]], count: int) -> None:
            leased = list(itertools.islice(waiting, count))
            async with self.database.writing() as session:
                await runs.step(session, self.run, written, leased, self.clock())
            making.extend((section, asyncio.create_task(engine.render(section))) for section in leased)

        try:
            await go_on([], engine.workers * SECTIONS_AHEAD)
            while making:
                section, rendering = making[0]
                parts = await _in_thread(partial(files.append, await rendering))
                making.popleft()
                await go_on([(section, parts)], 1)
                done.append(parts)
                advance(section.count)
        finally:
            for _section, rendering in making:
                rendering.cancel()
            await asyncio.gather(*(rendering for _section, rendering in making), return_exceptions=True)

    async def _publish(self, files: RunFiles, done: Sequence[Sequence[Part]]) -> None:
        manifest.require_own_folder(Path(self.run.folder), self.order, self._spec)  # as it was when the run began
        await _in_thread(files.publish)
        now = self.clock()
        content = manifest.build(self.order, self.run, files.summary(), done, now)
        manifest.write(Path(self.run.folder), content, self.sign(manifest.to_be_signed(content)))
        async with self.database.writing() as session:
            await runs.finish(session, self.run, now)

    async def _let_go(self) -> None:
        # So that no agent signs for a run that nobody works on. If this fails, the lease ends by itself.
        try:
            async with self.database.writing() as session:
                await runs.let_go(session, self.run)
        except Exception:  # noqa: S110 - the error on its way is the one to tell
            pass

    @property
    def _spec(self) -> RunSpec:
        return RunSpec.from_text(self.run.spec)


async def _in_thread(work: Callable[[], T]) -> T:
    """Work on the files in a thread. Whoever is cancelled waits for it: the lock must not go while a thread writes."""
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise


def bytes_needed(order: CodeOrder, spec: RunSpec) -> int:
    """Most bytes that the files of a run may need."""
    exports = [open_export(kind, order.recipe, spec.layout) for kind in spec.kinds]
    return len(spec.faces) * sum(export.bytes_max(spec.items) for export in exports)
