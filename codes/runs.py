"""Export runs: the work of making an order's codes, leased in chunks that the database remembers.

A run may be killed at any point and goes on where it stood: a chunk counts as written only when its bytes are on the
disk and its row is committed, in this order, and what was made twice is the same both times.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Integer, LargeBinary, Text, Update, UpdateBase, Uuid, bindparam, update
from sqlmodel import Field, SQLModel, col, func, select

from codes.exports import ExportKind
from codes.exports.layout import Layout
from codes.orders import CodeOrder
from codes.pipeline import Section, sections
from kit.db import Moment, Session, insert_into, is_postgresql, table_of
from kit.errors import Conflict, NotFound
from kit.ids import new_id
from offline_sdk.code_text import Profile

LEASE = timedelta(minutes=10)
"""How long a worker may take for a chunk, and a signing agent may sign for a run that reports nothing."""


class RunUnknown(NotFound):
    code = "RunUnknown"


class RunFinished(Conflict):
    code = "RunFinished"


class RunStopped(Conflict):
    code = "RunStopped"


class RunState(StrEnum):
    RUNNING = "running"  # or killed: a run that nobody works on is told by its lease
    STOPPED = "stopped"
    FINISHED = "finished"


class ExportRun(SQLModel, table=True):
    """One making of an order's codes, or of some ranges of them."""

    __tablename__: ClassVar[str] = "export_run"
    __table_args__ = (
        CheckConstraint("state IN ('running', 'stopped', 'finished')", name="state"),
        CheckConstraint("(state = 'finished') = (finished_at IS NOT NULL)", name="finished"),
    )

    run_id: uuid.UUID = Field(primary_key=True)
    order_id: int = Field(foreign_key="code_order.order_id", index=True)
    spec: str = Field(sa_type=Text)
    folder: str = Field(sa_type=Text)
    state: str = Field(default=RunState.RUNNING, sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
    finished_at: datetime | None = Field(default=None, sa_type=Moment)
    holder: uuid.UUID
    """Who works on the run: a new one each time it is taken up, so that a forgotten predecessor is noticed."""
    lease_until: datetime = Field(sa_type=Moment)
    lease_hash: bytes = Field(sa_type=LargeBinary)
    """SHA-256 of the secret with which a signing agent is asked to sign for this run."""


class RunChunk(SQLModel, table=True):
    """A section of a run that was leased to a worker, and what was written of it."""

    __tablename__: ClassVar[str] = "run_chunk"
    __table_args__ = (CheckConstraint("face IN (1, 2)", name="face"),)

    run_id: uuid.UUID = Field(primary_key=True, foreign_key="export_run.run_id")
    face: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    items: int = Field(sa_type=Integer)
    holder: uuid.UUID
    lease_until: datetime = Field(sa_type=Moment)
    parts: str | None = Field(default=None, sa_type=Text)
    """What was written, as JSON; empty while the section is leased."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of one section in one file: path relative to the folder, length, SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run makes: the faces and ranges of issue indexes (both ends included), in these forms."""

    faces: tuple[Profile, ...]
    ranges: tuple[tuple[int, int], ...]
    kinds: tuple[ExportKind, ...]
    layout: Layout
    section_items: int

    @property
    def items(self) -> int:
        """Items of one face."""
        return sum(last - first + 1 for first, last in self.ranges)

    @property
    def section_count(self) -> int:
        """How many sections there are, of all faces."""
        return -(-self.items // self.section_items) * len(self.faces)

    def sections(self) -> Iterator[Section]:
        return sections(self.faces, self.ranges, self.section_items)

    def as_text(self) -> str:
        return json.dumps(
            {
                "faces": list(map(int, self.faces)),
                "ranges": self.ranges,
                "kinds": self.kinds,
                "layout": self.layout.as_json(),
                "section_items": self.section_items,
            }
        )

    @classmethod
    def from_text(cls, text: str) -> "RunSpec":
        stored = json.loads(text)
        return cls(
            faces=tuple(map(Profile, stored["faces"])),
            ranges=tuple((first, last) for first, last in stored["ranges"]),
            kinds=tuple(map(ExportKind, stored["kinds"])),
            layout=Layout.from_json(stored["layout"]),
            section_items=stored["section_items"],
        )


async def begin(
    session: Session, order: CodeOrder, spec: RunSpec, folder: str, lease_secret: bytes, now: datetime
) -> ExportRun:
    """Store a new run, held by the caller."""
    assert order.order_id is not None  # rows read from the database have their key
    run = ExportRun(
        run_id=new_id(),
        order_id=order.order_id,
        spec=spec.as_text(),
        folder=folder,
        created_at=now,
        holder=new_id(),
        lease_until=now + LEASE,
        lease_hash=lease_hash(lease_secret),
    )
    session.add(run)
    await session.flush()
    return run


async def take_up(session: Session, run: ExportRun, lease_secret: bytes, now: datetime) -> ExportRun:
    """Go on with a run that stopped or was killed. Raises RunFinished.

    Whoever held it before can neither lease nor write from now on.
    """
    taken = await session.exec(
        update(ExportRun)
        .where(col(ExportRun.run_id) == run.run_id, col(ExportRun.state) != RunState.FINISHED)
        .values(state=RunState.RUNNING, holder=new_id(), lease_until=now + LEASE, lease_hash=lease_hash(lease_secret))
    )
    if taken.rowcount == 0:
        raise RunFinished(f"run {run.run_id} is finished", hint="`fanxing order export` makes the codes once more.")
    session.add(run)
    await session.refresh(run)
    return run


async def step(
    session: Session,
    run: ExportRun,
    written: Sequence[tuple[Section, Sequence[Part]]],
    leased: Sequence[Section],
    now: datetime,
) -> None:
    """Record sections whose bytes are on the disk, and lease further ones, in one transaction.

    Raises RunStopped when the run was stopped, or taken up by someone else, in the meantime.
    """
    await _renew(session, run, now)
    connection = await session.connection()
    for section, parts in written:
        told = json.dumps([asdict(part) for part in parts])
        await connection.execute(_WRITTEN, {**_names(run, section), "told": told})
    leasing = _LEASING[is_postgresql(session)]
    for section in leased:
        lease = {"size": section.count, "by": run.holder, "until": now + LEASE}
        await connection.execute(leasing, {**_names(run, section), **lease})


# Every section costs these: built once, they cost a third of what building them anew does.
_WRITTEN = (
    update(table_of(RunChunk))
    .where(
        col(RunChunk.run_id) == bindparam("run"),
        col(RunChunk.face) == bindparam("of_face"),
        col(RunChunk.number) == bindparam("at"),
    )
    .values(parts=bindparam("told"))
)


def _leasing(*, on_postgresql: bool) -> UpdateBase:
    by, until = bindparam("by", type_=Uuid()), bindparam("until", type_=Moment())
    lease = insert_into(RunChunk, on_postgresql=on_postgresql).values(
        run_id=bindparam("run"),
        face=bindparam("of_face"),
        number=bindparam("at"),
        items=bindparam("size"),
        holder=by,
        lease_until=until,
    )
    again = {"holder": by, "lease_until": until}
    return lease.on_conflict_do_update(index_elements=["run_id", "face", "number"], set_=again)


_LEASING = {on_postgresql: _leasing(on_postgresql=on_postgresql) for on_postgresql in (False, True)}


def _names(run: ExportRun, section: Section) -> dict[str, Any]:
    return {"run": run.run_id, "of_face": int(section.face), "at": section.number}


async def _renew(session: Session, run: ExportRun, now: datetime, **values: Any) -> None:
    renewed = await session.exec(
        update(ExportRun)
        .where(
            col(ExportRun.run_id) == run.run_id,
            col(ExportRun.holder) == run.holder,
            col(ExportRun.state) == RunState.RUNNING,
        )
        .values(lease_until=now + LEASE, **values)
    )
    if renewed.rowcount == 0:
        raise RunStopped(
            f"run {run.run_id} was stopped, or is being worked on elsewhere",
            hint=f"What was written is kept: `fanxing order resume --run {run.run_id}` goes on.",
        )


async def finish(session: Session, run: ExportRun, now: datetime) -> None:
    """Mark a run as finished; nobody signs for it any more. Raises RunStopped."""
    await _renew(session, run, now, state=RunState.FINISHED, finished_at=now)
    session.add(run)
    await session.refresh(run)


async def stop(session: Session, run: ExportRun) -> bool:
    """Stop a run; its worker notices with its next chunk, and no agent signs for it. Whether that changed anything."""
    stopped = await session.exec(_stopping(run))
    session.add(run)
    await session.refresh(run)
    return stopped.rowcount > 0


async def let_go(session: Session, run: ExportRun) -> None:
    """Stop a run on behalf of its holder; one that someone else holds by now goes on."""
    await session.exec(_stopping(run).where(col(ExportRun.holder) == run.holder))


def _stopping(run: ExportRun) -> Update:
    return (
        update(ExportRun)
        .where(col(ExportRun.run_id) == run.run_id, col(ExportRun.state) == RunState.RUNNING)
        .values(state=RunState.STOPPED)
    )


async def written(session: Session, run: ExportRun) -> dict[tuple[int, int], list[Part]]:
    """What was written so far, by face and number of the section."""
    rows = await session.exec(
        select(RunChunk.face, RunChunk.number, RunChunk.parts)
        .where(RunChunk.run_id == run.run_id, col(RunChunk.parts).is_not(None))
        .order_by(col(RunChunk.face), col(RunChunk.number))
    )
    return {(face, number): [Part(**part) for part in json.loads(parts or "[]")] for face, number, parts in rows}


async def codes_written(session: Session, run_id: uuid.UUID) -> int:
    """How many codes of a run are on the disk."""
    count = select(func.sum(RunChunk.items)).where(RunChunk.run_id == run_id, col(RunChunk.parts).is_not(None))
    return (await session.exec(count)).one() or 0


async def run_with(session: Session, run_id: uuid.UUID) -> ExportRun:
    """Raises RunUnknown."""
    run = await session.get(ExportRun, run_id)
    if run is None:
        raise RunUnknown(f"there is no run {run_id}", hint="`fanxing order runs` shows the runs.")
    return run


async def run_leased_to(session: Session, lease_secret: bytes, now: datetime) -> ExportRun | None:
    """The run for which the owner of this secret may have codes signed at this moment."""
    return (
        await session.exec(
            select(ExportRun).where(
                ExportRun.lease_hash == lease_hash(lease_secret),
                ExportRun.state == RunState.RUNNING,
                ExportRun.lease_until > now,
            )
        )
    ).first()


async def runs_of(session: Session, order_id: int | None = None) -> Sequence[ExportRun]:
    """All runs, or one order's, oldest first."""
    query = select(ExportRun).order_by(col(ExportRun.run_id))
    if order_id is not None:
        query = query.where(ExportRun.order_id == order_id)
    return (await session.exec(query)).all()


def lease_hash(secret: bytes) -> bytes:
    """What is stored of a lease's secret, which is 32 random bytes."""
    return hashlib.sha256(secret).digest()
