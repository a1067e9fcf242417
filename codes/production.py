"""Production: carries a run through, from its first missing section to the signed manifest."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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

    async def carry_through(self, engine: Engine, advance: Advance) -> Path:
        """Make what is missing, publish the files and sign for them. Returns the manifest's path.

        Raises RunStopped, RunBusy, ExportDamaged, DiskFull, WorkerLost; what was written stays, and the run can be
        taken up again.
        """
        folder = Path(self.run.folder)
        files = RunFiles(folder, self.run.run_id)
        with files.held():
            try:
                done = await self._recover(files, advance)
                await self._make(engine, files, done, advance)
            except BaseException:
                await self._let_go()
                raise
            await asyncio.to_thread(files.publish)
            now = self.clock()
            content = manifest.build(self.order, self.run, files.summary(), done, now)
            manifest.write(folder, content, self.sign(manifest.to_be_signed(content)))
            async with self.database.writing() as session:
                await runs.finish(session, self.run, now)
            files.clear()
        return folder / manifest.MANIFEST_NAME

    async def _recover(self, files: RunFiles, advance: Advance) -> list[list[Part]]:
        """What earlier workers on this run wrote, checked; the parts of each section."""
        async with self.database.reading() as session:
            recorded = await runs.written(session, self.run)
        spec = self._spec
        done = []
        for section in itertools.islice(spec.sections(), len(recorded)):
            # Sections are written in order: what is recorded is a beginning, without holes.
            done.append(recorded[int(section.face), section.number])
            advance(section.count)
        await asyncio.to_thread(files.recover, done)
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
                parts = await asyncio.to_thread(files.append, await rendering)
                making.popleft()
                await go_on([(section, parts)], 1)
                done.append(parts)
                advance(section.count)
        finally:
            for _section, rendering in making:
                rendering.cancel()
            await asyncio.gather(*(rendering for _section, rendering in making), return_exceptions=True)

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


def bytes_needed(order: CodeOrder, spec: RunSpec) -> int:
    """Most bytes that the files of a run may need."""
    exports = [open_export(kind, order.recipe, spec.layout) for kind in spec.kinds]
    return len(spec.faces) * sum(export.bytes_max(spec.items) for export in exports)
