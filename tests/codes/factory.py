"""A small factory for tests: an order in a database, its keys in file custody, runs of it carried through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from codes import orders, runs
from codes.engines import Engine
from codes.engines.inline import InlineEngine
from codes.exports import ExportKind, open_export
from codes.exports.layout import Layout
from codes.orders import CodeOrder
from codes.pipeline import Section, make
from codes.production import Production
from codes.rendering import Job, RenderedPart
from codes.runs import ExportRun, Part, RunSpec
from codes.serials import SerialScheme, scheme_of
from codes.signing import CustodyAccess
from kit.db import Database
from offline_sdk import Profile
from signer.service import FileCustodyAccess
from tests.codes.conftest import BASE_URL, GTIN, NOW, PASSPHRASE, Market

SECRET = bytes(range(32))


@dataclass
class SmallFactory:
    database: Database
    market: Market
    order: CodeOrder
    scheme: SerialScheme
    folder: Path

    @property
    def access(self) -> CustodyAccess:
        return CustodyAccess(FileCustodyAccess(self.market.keys_folder, PASSPHRASE), self.market.key, self.scheme)

    def spec(self, kinds: Sequence[ExportKind] = (ExportKind.CSV,), section_items: int = 10) -> RunSpec:
        ranges = ((0, self.order.quantity - 1),)
        return RunSpec(self.order.faces, ranges, tuple(kinds), Layout(), section_items)

    async def begin(self, spec: RunSpec, folder: Path | None = None) -> ExportRun:
        async with self.database.writing() as session:
            return await runs.begin(session, self.order, spec, str(folder or self.folder), SECRET, NOW)

    async def take_up(self, run: ExportRun) -> ExportRun:
        async with self.database.writing() as session:
            stored = await runs.run_with(session, run.run_id)
            return await runs.take_up(session, stored, SECRET, NOW)

    def job(self, run: ExportRun) -> Job:
        spec = RunSpec.from_text(run.spec)
        return Job(self.order.recipe, spec.kinds, spec.layout)

    def production(self, run: ExportRun) -> Production:
        def sign(message: bytes) -> bytes:
            return self.market.service.sign_many(self.market.key, [message])[0]

        return Production(self.database, self.order, run, sign, lambda: NOW)

    async def carry_through(
        self, run: ExportRun, engine: Engine | None = None, advance: Callable[[int], None] = lambda _count: None
    ) -> list[Part]:
        job = self.job(run)
        async with engine or InlineEngine(job, self.access.signer(job.recipe)) as opened:
            return await self.production(run).carry_through(opened, advance)

    def expected(self, spec: RunSpec) -> dict[str, bytes]:
        """What every file must hold, made section after section without a run."""
        signer, recipe = self.access.signer(self.order.recipe), self.order.recipe
        opened = [open_export(kind, recipe, spec.layout) for kind in spec.kinds]
        files: dict[str, bytes] = {}
        for section in spec.sections():
            chunk = make(recipe, signer, section)
            for export in opened:
                path = export.path(section)
                files[path] = files.get(path, b"") + export.render(chunk)
        return files


class FailingEngine(InlineEngine):
    """Fails at the section after `good` good ones, as a worker that breaks."""

    def __init__(self, job: Job, factory: SmallFactory, good: int, error: BaseException) -> None:
        super().__init__(job, factory.access.signer(job.recipe))
        self._good = good
        self._error = error

    async def render(self, section: Section) -> Sequence[RenderedPart]:
        self._good -= 1
        if self._good < 0:
            raise self._error
        return await super().render(section)


async def open_factory(database: Database, market: Market, folder: Path, quantity: int = 45) -> SmallFactory:
    async with database.writing() as session:
        plan = await orders.plan(session, GTIN, quantity, (Profile.OUTER, Profile.INNER), BASE_URL)
        order = await orders.place(session, plan, NOW)
        assert market.issuer.issuer_id is not None
        scheme = await scheme_of(session, market.vault, market.issuer.issuer_id)
    return SmallFactory(database, market, order, scheme, folder)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the manifest, by its path."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("manifest.")}
