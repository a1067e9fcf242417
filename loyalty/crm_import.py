"""Bringing an offline CRM's customers in: a number that is known binds at once, one that is not waits for its owner.

What a CRM says of a customer are balances, so a row opens an account and never adds to one: for each number and brand
stands what was brought (`CrmRecord`), and a row brings at most what it says beyond that. So rows may come again, in
any order, in any file, and after any crash. See docs/adr/0014-a-crm-opens-balances.md.
"""

import asyncio
import contextlib
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import BinaryIO, ClassVar

from psycopg import errors
from sqlalchemy import JSON, CheckConstraint, Column, LargeBinary, Text, update
from sqlalchemy.exc import OperationalError
from sqlmodel import Field, SQLModel, col, select

from kit.db import Database, Moment, insert
from kit.vault import Vault
from loyalty import consents, crm_file, crm_landing, ledger, tier_rules
from loyalty.crm_file import Columns, Reader, Rules
from loyalty.crm_making import Job, Made, Making
from loyalty.crm_records import Counts, Order
from loyalty.crm_sealing import Aim
from loyalty.ledger import TransfersRaced

CHUNK_ROWS = 10_000
"""Rows of one transaction. Fixed for ever: the numbers of chunks that were done count in it."""
LANES = 2
"""Chunks on their way into the database at the same time."""
RACES_MAX = 5
"""How often a chunk is tried whose customers another one, or a claim, was bringing in at the same moment."""


class CrmImport(SQLModel, table=True):
    """The import of one file for one brand, in one mode."""

    __tablename__: ClassVar[str] = "crm_import"
    __table_args__ = (CheckConstraint("mode IN ('open', 'raise')", name="mode"),)

    import_id: uuid.UUID = Field(primary_key=True)
    brand_id: int
    file_sha256: bytes = Field(sa_type=LargeBinary)
    mode: str = Field(sa_type=Text)
    started_at: datetime = Field(sa_type=Moment)
    finished_at: datetime | None = Field(default=None, sa_type=Moment)


class CrmImportChunk(SQLModel, table=True):
    """Rows of a file that are in; this one came with them, in one transaction."""

    __tablename__: ClassVar[str] = "crm_import_chunk"

    import_id: uuid.UUID = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    counts: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class Outcome:
    """What an import did in all. `resumed_rows` of the rows were in before."""

    import_id: uuid.UUID
    counts: Counts
    resumed_rows: int
    was_finished: bool
    reasons: Mapping[str, int]
    ignored_columns: tuple[str, ...]


class _Undone(Exception):
    """Thrown to leave nothing behind of a rehearsal."""


async def run(
    database: Database,
    vault: Vault,
    order: Order,
    report: BinaryIO,
    clock: Callable[[], datetime],
    tell: Callable[[int], None],
    *,
    rehearse: bool = False,
) -> Outcome:
    """Import a file, or what is missing of it since an earlier run; bad rows are written to `report`, all of them.

    Every chunk of 10,000 rows is a transaction. `tell` hears how many more rows are done. A rehearsal looks at the
    same things in the same way and leaves nothing behind. Raises CrmFileInvalid.
    """
    with crm_file.open_text(order.file) as text:
        columns = Reader(order.file, text).columns
    done = {} if rehearse else await _begin(database, order, clock())
    job = await _job(database, vault, order, columns, clock())
    report.write(crm_file.REPORT_HEADER.encode())
    total, resumed, reasons = Counts(), 0, Counter[str]()
    async with Making(job, clock) as making:
        landings = _Landings(database, vault, order, making, clock, rehearse=rehearse)
        try:
            async for made in making.chunks(frozenset(done)):
                for bad in made.bad:
                    report.write(crm_file.report_line(bad).encode())
                    reasons[bad.reason] += 1
                if made.prepared is None:
                    total += done[made.number]
                    resumed += made.rows
                    tell(made.rows)
                else:
                    total += await landings.start(made, tell)
            total += await landings.finish()
        finally:
            await landings.stop()
    if not rehearse:
        await _finish(database, order, clock())
    was_finished = not rehearse and resumed == total.rows
    return Outcome(order.import_id, total, resumed, was_finished, dict(reasons), columns.ignored)


class _Landings:
    """Chunks on their way into the database, some at the same time."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        order: Order,
        making: Making,
        clock: Callable[[], datetime],
        *,
        rehearse: bool,
    ) -> None:
        self._database, self._vault, self._order = database, vault, order
        self._making, self._clock, self._rehearse = making, clock, rehearse
        self._under_way: deque[asyncio.Task[Counts]] = deque()

    async def start(self, made: Made, tell: Callable[[int], None]) -> Counts:
        """Begin with a chunk; what another came to, if one had to end first."""
        ended = Counts()
        if len(self._under_way) == LANES:
            ended = await self._under_way.popleft()
        self._under_way.append(asyncio.create_task(self._land(made, tell)))
        return ended

    async def finish(self) -> Counts:
        """What the last ones came to."""
        total = Counts()
        while self._under_way:
            total += await self._under_way.popleft()
        return total

    async def stop(self) -> None:
        """Leave nothing running."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _land(self, made: Made, tell: Callable[[int], None]) -> Counts:
        for number in range(1, RACES_MAX + 1):
            try:
                counts = await self._try(made)
                break
            except (OperationalError, errors.DeadlockDetected, TransfersRaced) as error:
                # Two chunks with the same customers: one was sent away, and finds the other's work the next time.
                raced = isinstance(getattr(error, "orig", error), errors.DeadlockDetected | TransfersRaced)
                if not raced or number == RACES_MAX:
                    raise
        tell(made.rows)
        return counts

    async def _try(self, made: Made) -> Counts:
        assert made.prepared is not None
        now = self._clock()
        counts = Counts(rows=made.rows, bad=len(made.bad), duplicates=made.prepared.duplicates)
        with contextlib.suppress(_Undone):
            async with self._database.writing() as session:
                counts += await crm_landing.land(
                    session, self._vault, self._order, made.number, made.prepared, self._making, now
                )
                if self._rehearse:
                    raise _Undone
                session.add(
                    CrmImportChunk(import_id=self._order.import_id, number=made.number, counts=asdict(counts), at=now)
                )
        return counts


async def _begin(database: Database, order: Order, now: datetime) -> dict[int, Counts]:
    """What is in already, by chunk."""
    async with database.writing() as session:
        await session.exec(
            insert(session, CrmImport)
            .values(
                import_id=order.import_id,
                brand_id=order.brand_id,
                file_sha256=order.file.sha256,
                mode=order.mode,
                started_at=now,
            )
            .on_conflict_do_nothing()
        )
        chunks = await session.exec(select(CrmImportChunk).where(CrmImportChunk.import_id == order.import_id))
        return {chunk.number: Counts(**chunk.counts) for chunk in chunks}


async def _finish(database: Database, order: Order, now: datetime) -> None:
    async with database.writing() as session:
        await session.exec(
            update(CrmImport)
            .where(col(CrmImport.import_id) == order.import_id, col(CrmImport.finished_at).is_(None))
            .values(finished_at=now)
        )


async def _job(database: Database, vault: Vault, order: Order, columns: Columns, now: datetime) -> Job:
    async with database.reading() as session:
        tier_book = (await tier_rules.book_of(session, order.brand_id)).in_force(now)
        published = await consents.published(session, order.group_id)
        policy = await ledger.policy_of(session, order.group_id)
    # A short name goes before another tier's name.
    ranks = {
        name.lower(): tier.rank
        for tier_names in (("name_zh", "name_en"), ("slug",))
        for tier in reversed(tier_book.ladder)
        for name in (getattr(tier, one) for one in tier_names)
    }
    on_postgresql = database.engine.dialect.name == "postgresql"
    aim = Aim(order, tier_book.version, policy)
    return Job(vault, aim, Rules(columns, ranks, published, now), CHUNK_ROWS, on_postgresql)
