"""Exports: what a regulator asked to have whole, and the parts of it that were written.

An export is made in parts by whichever worker holds its lease. A part counts when its bytes are on the disk and its row
is committed, together with where the next one begins; so a killed worker's successor goes on with the part after it.
It tells what the account reached when it asked, and is made and given out only while the account still reaches that.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Index,
    LargeBinary,
    Text,
    and_,
    or_,
    update,
)
from sqlmodel import Field, SQLModel, col, func, select

from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id
from kit.paging import Position, newest_first
from scan_api.regulators import regions
from scan_api.regulators.accounts import Regulator
from scan_api.regulators.scope import Scope
from scan_api.regulators.sights import OutsideScope

LEASE: Final = timedelta(minutes=2)
KEPT: Final = timedelta(days=7)
"""So long after its end an export can be fetched."""
ROWS_MAX: Final = 5_000_000
BYTES_MAX: Final = 2 * 1024**3
BYTES_OF_ALL_MAX: Final = 20 * 1024**3
"""Of all exports that are kept; who asks while there is more is asked to come later."""
OPEN_MAX: Final = 3
"""Exports of one account that are not finished."""
FILTER_VALUES_MAX: Final = 100


class ExportInvalid(Invalid):
    code = "ExportInvalid"


class ExportUnknown(NotFound):
    code = "ExportUnknown"


class ExportLost(Conflict):
    """Another worker has the export by now, or it was deleted."""

    code = "ExportLost"


class TooManyExports(Conflict):
    code = "TooManyExports"


class ExportKind(StrEnum):
    EVENTS = "events"  # captured events
    STATISTICS = "statistics"  # daily counts by product and region
    ACTS = "acts"  # what was done to orders of codes


class ExportFormat(StrEnum):
    NDJSON = "ndjson"
    PARQUET = "parquet"


class ExportState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    GONE = "gone"  # its files were deleted


UNFINISHED: Final = (ExportState.WAITING, ExportState.RUNNING)
_STATES: Final = ", ".join(f"'{state}'" for state in ExportState)


class RegulatorExport(SQLModel, table=True):
    """An export, and how far it is."""

    __tablename__: ClassVar[str] = "regulator_export"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        Index("ix_regulator_export_holder_id_created_at", "holder_id", "created_at", "export_id"),
    )

    export_id: uuid.UUID = Field(primary_key=True)
    holder_id: uuid.UUID
    key_id: str = Field(sa_type=Text)
    spec: str = Field(sa_type=Text)
    state: str = Field(default=ExportState.WAITING, sa_type=Text)
    position: str | None = Field(default=None, sa_type=Text)
    """Behind which row the next part begins, as JSON."""
    brands: dict[str, dict[str, int]] = Field(default={}, sa_column=Column(JSON, nullable=False))
    """Of whose goods its parts tell: by a part's number, how many rows are of each brand, by its id."""
    parts: int = 0
    rows: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    size_bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    worker: uuid.UUID | None = None
    lease_until: datetime | None = Field(default=None, sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    failure: str | None = Field(default=None, sa_type=Text)

    @property
    def asked(self) -> "ExportSpec":
        return ExportSpec.from_text(self.spec)

    @property
    def kept_until(self) -> datetime | None:
        return None if self.ended_at is None else self.ended_at + KEPT


class RegulatorExportPart(SQLModel, table=True):
    """A file of an export that is whole."""

    __tablename__: ClassVar[str] = "regulator_export_part"

    export_id: uuid.UUID = Field(primary_key=True, foreign_key="regulator_export.export_id")
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    rows: int
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    sha256: bytes = Field(sa_type=LargeBinary)


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """What is exported. Empty means all that the account reaches. Times are those of events, `until` not included.

    `scope` is the account's when it asked, in these regions; None: nobody has asked yet, or before that was kept.
    """

    kind: ExportKind
    format: ExportFormat
    since: datetime
    until: datetime
    brands: tuple[str, ...] = ()
    gtins: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    scope: Scope | None = None

    def as_text(self) -> str:
        return json.dumps(asdict(self) | {"since": self.since.isoformat(), "until": self.until.isoformat()})

    @classmethod
    def from_text(cls, text: str) -> "ExportSpec":
        stored: Mapping[str, Any] = json.loads(text)
        scope = stored.get("scope")
        return cls(
            ExportKind(stored["kind"]),
            ExportFormat(stored["format"]),
            datetime.fromisoformat(stored["since"]),
            datetime.fromisoformat(stored["until"]),
            tuple(stored["brands"]),
            tuple(stored["gtins"]),
            tuple(stored["regions"]),
            None if scope is None else _scope_of(scope),
        )


def _scope_of(stored: Mapping[str, Any]) -> Scope:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Scope(**values)


async def request(session: Session, regulator: Regulator, spec: ExportSpec, now: datetime) -> RegulatorExport:
    """Ask for an export. Raises ExportInvalid, and TooManyExports (3 unfinished ones, or 20 GB of all accounts)."""
    if not spec.since < spec.until:
        raise ExportInvalid("an export begins before it ends")
    if max(len(spec.brands), len(spec.gtins), len(spec.regions)) > FILTER_VALUES_MAX:
        raise ExportInvalid(f"at most {FILTER_VALUES_MAX} brands, GTINs and regions")
    if any(not Scope(regulator.scope.regions).covers_any((region,)) for region in spec.regions):
        raise ExportInvalid("the account does not reach all of these regions", hint="GET /v1/regulator/me tells which.")
    unfinished = select(func.count()).where(
        col(RegulatorExport.holder_id) == regulator.holder_id, col(RegulatorExport.state).in_(UNFINISHED)
    )
    if (await session.exec(unfinished)).one() >= OPEN_MAX:
        raise TooManyExports(
            f"an account has at most {OPEN_MAX} unfinished exports", hint="Wait for one, or delete it."
        )
    kept = select(func.sum(RegulatorExport.size_bytes)).where(col(RegulatorExport.state) != ExportState.GONE)
    if int((await session.exec(kept)).one() or 0) >= BYTES_OF_ALL_MAX:
        raise TooManyExports("the exports that are kept fill their room", hint="Delete one, or try again tomorrow.")
    scope = regulator.scope
    if spec.regions:
        scope = replace(scope, regions=regions.parse_all(spec.regions))
    made = RegulatorExport(
        export_id=new_id(),
        holder_id=regulator.holder_id,
        key_id=regulator.key.key_id,
        spec=replace(spec, scope=scope).as_text(),
        created_at=now,
    )
    session.add(made)
    await session.flush()
    return made


def _reached(regulator: Regulator) -> ColumnElement[bool]:
    return and_(
        col(RegulatorExport.holder_id) == regulator.holder_id, regulator.asked_with(col(RegulatorExport.key_id))
    )


async def of_holder(session: Session, regulator: Regulator, export_id: uuid.UUID) -> RegulatorExport:
    """An export of a regulator that his key reaches. Raises ExportUnknown."""
    asked = select(RegulatorExport).where(col(RegulatorExport.export_id) == export_id, _reached(regulator))
    found = (await session.exec(asked)).first()
    if found is None:
        raise ExportUnknown("there is no such export")
    return found


def is_within(export: RegulatorExport, scope: Scope) -> bool:
    """Whether a scope reaches all that the export may tell."""
    asked = export.asked.scope
    return asked is not None and scope.covers(asked)


def require_within(export: RegulatorExport, scope: Scope) -> None:
    """Raises OutsideScope unless the scope reaches all that the export may tell."""
    if not is_within(export, scope):
        raise OutsideScope(
            "this account reaches less than when the export was asked for", hint="Ask for another, and delete this one."
        )


async def page(session: Session, regulator: Regulator, after: Position | None, count: int) -> Sequence[RegulatorExport]:
    """A page of a regulator's exports that his key reaches, newest first."""
    asked = select(RegulatorExport).where(_reached(regulator))
    listed = newest_first(asked, col(RegulatorExport.created_at), col(RegulatorExport.export_id), after, count)
    return list(await session.exec(listed))


async def parts_of(session: Session, export_id: uuid.UUID) -> list[RegulatorExportPart]:
    """The parts that are whole, in order."""
    asked = select(RegulatorExportPart).where(col(RegulatorExportPart.export_id) == export_id)
    return list(await session.exec(asked.order_by(col(RegulatorExportPart.number))))


async def take(session: Session, now: datetime) -> RegulatorExport | None:
    """The oldest export that nobody works on, leased to the caller; None: there is none."""
    free = or_(
        col(RegulatorExport.state) == ExportState.WAITING,
        (col(RegulatorExport.state) == ExportState.RUNNING) & (col(RegulatorExport.lease_until) <= now),
    )
    asked = select(RegulatorExport).where(free).order_by(col(RegulatorExport.created_at)).limit(1)
    found = (await session.exec(asked.with_for_update(skip_locked=True))).first()
    if found is not None:
        found.state, found.worker, found.lease_until = ExportState.RUNNING, new_id(), now + LEASE
        session.add(found)
        await session.flush()
    return found


async def advance(
    session: Session,
    held: RegulatorExport,
    part: RegulatorExportPart | None,
    position: Any,
    by_brand: Mapping[int, int],
    now: datetime,
) -> None:
    """Count a part as written, and renew the lease; `by_brand`: its rows by brand. Raises ExportLost."""
    added = (part.rows, part.size_bytes) if part else (0, 0)
    told = {str(part.number): {str(brand_id): rows for brand_id, rows in sorted(by_brand.items())}} if part else {}
    await _update(
        session,
        held,
        {
            "position": json.dumps(position),
            "brands": {**held.brands, **told},
            "parts": held.parts + (part is not None),
            "rows": held.rows + added[0],
            "size_bytes": held.size_bytes + added[1],
            "lease_until": now + LEASE,
        },
    )
    if part is not None:
        session.add(part)
        await session.flush()


async def finish(session: Session, held: RegulatorExport, now: datetime) -> None:
    """Say that an export is whole. Raises ExportLost."""
    await _update(session, held, {"state": ExportState.FINISHED, "ended_at": now, "lease_until": None})


async def fail(session: Session, held: RegulatorExport, failure: str, now: datetime) -> None:
    """Say why an export never will be whole; its files are deleted. Raises ExportLost."""
    values = {"state": ExportState.FAILED, "failure": failure, "ended_at": now, "lease_until": None, "size_bytes": 0}
    await _update(session, held, values)


async def _update(session: Session, held: RegulatorExport, values: Mapping[str, Any]) -> None:
    changed = await session.exec(
        update(RegulatorExport)
        .where(
            col(RegulatorExport.export_id) == held.export_id,
            col(RegulatorExport.worker) == held.worker,
            col(RegulatorExport.state) == ExportState.RUNNING,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    if changed.rowcount == 0:
        raise ExportLost("this export is worked on elsewhere, or was deleted")
    session.add(held)
    await session.refresh(held)


async def drop(session: Session, export: RegulatorExport, now: datetime) -> None:
    """Say that an export's files are gone; its worker notices with its next part."""
    await session.exec(
        update(RegulatorExport)
        .where(col(RegulatorExport.export_id) == export.export_id)
        .values(state=ExportState.GONE, ended_at=func.coalesce(RegulatorExport.ended_at, now), worker=None)
        .execution_options(synchronize_session=False)
    )


async def over(session: Session, now: datetime) -> Sequence[RegulatorExport]:
    """Exports whose files need no longer be kept."""
    asked = select(RegulatorExport).where(
        col(RegulatorExport.state).in_((ExportState.FINISHED, ExportState.FAILED)),
        col(RegulatorExport.ended_at) <= now - KEPT,
    )
    return list(await session.exec(asked.limit(100)))


def folder_of(home: Path, export_id: uuid.UUID) -> Path:
    """Where the files of an export lie."""
    return home / "regulator-exports" / str(export_id)


def path_of(home: Path, export: RegulatorExport, number: int) -> Path:
    """The file of a part."""
    return folder_of(home, export.export_id) / f"{export.asked.kind}-{number:05d}.{export.asked.format}"
