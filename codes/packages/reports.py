"""Reports: what a print house says it made of a package, and what the brand lets follow from that.

A report changes nothing by itself: it waits until the brand accepts it, because a code that is on sale pays.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, LargeBinary, Text, update
from sqlmodel import Field, SQLModel, col, func, select

from codes import ranges
from codes.acts import record_act
from codes.orders import CodeOrder
from codes.packages import CodePackage
from codes.ranges import RANGES_PER_CALL_MAX, IndexRange, common, merged, parse_ranges, without
from codes.serials import SerialScheme
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound

REPORTS_PER_PACKAGE_MAX = 100
TEXT_CHARACTERS_MAX = 40_000  # a thousand ranges of serials


class ReportInvalid(Invalid):
    code = "ReportInvalid"


class ReportUnknown(NotFound):
    code = "ReportUnknown"


class ReportDiffers(Conflict):
    code = "ReportDiffers"


class ReportContradicts(Conflict):
    code = "ReportContradicts"


class ReportDecided(Conflict):
    code = "ReportDecided"


class ReportsUsedUp(Conflict):
    code = "ReportsUsedUp"


class ReportState(StrEnum):
    RECEIVED = "received"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class PackageReport(SQLModel, table=True):
    """A report as the brand will judge it. The ranges are of issue indexes, [[first, last], …] as JSON, ascending."""

    __tablename__: ClassVar[str] = "package_report"
    __table_args__ = (
        CheckConstraint("state IN ('received', 'accepted', 'rejected')", name="state"),
        CheckConstraint("(state = 'received') = (decided_at IS NULL)", name="decided"),
    )

    package_id: uuid.UUID = Field(primary_key=True, foreign_key="code_package.package_id")
    report_id: uuid.UUID = Field(primary_key=True)
    link_id: uuid.UUID | None = Field(default=None, foreign_key="package_link.link_id")
    """Whose fetch code it came with; none when the brand entered it."""
    on_sale: str = Field(sa_type=Text)
    """Printed, and not too often."""
    spoiled: str = Field(sa_type=Text)
    overprinted: str = Field(sa_type=Text)
    body_sha256: bytes = Field(sa_type=LargeBinary)
    state: str = Field(default=ReportState.RECEIVED, sa_type=Text)
    received_at: datetime = Field(sa_type=Moment)
    decided_at: datetime | None = Field(default=None, sa_type=Moment)
    decided_by: str | None = Field(default=None, sa_type=Text)

    @property
    def to_activate(self) -> list[IndexRange]:
        return _stored(self.on_sale)

    @property
    def to_void(self) -> list[IndexRange]:
        """Spoiled, or on more than one label: two labels with one code cannot be told apart."""
        return merged([*_stored(self.spoiled), *_stored(self.overprinted)])

    def as_json(self) -> dict[str, Any]:
        """Counts of items, and what has become of the report."""
        return {
            "report_id": str(self.report_id),
            "state": self.state,
            "on_sale": _items(self.to_activate),
            "spoiled": _items(_stored(self.spoiled)),
            "overprinted": _items(_stored(self.overprinted)),
        }


@dataclass(frozen=True, slots=True)
class Told:
    """What a print house writes: ranges such as "0-4999,7000" of issue indexes or serials; "" for none.

    `printed` counts every good label, `spoiled` those that were thrown away, `overprinted` the codes that are on more
    than one label.
    """

    report_id: uuid.UUID
    printed: str = ""
    spoiled: str = ""
    overprinted: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """What accepting a report changed: the ranges put on sale, and those voided."""

    activated: list[IndexRange]
    voided: list[IndexRange]


async def receive(
    session: Session,
    package: CodePackage,
    scheme: SerialScheme,
    told: Told,
    link_id: uuid.UUID | None,
    now: datetime,
) -> PackageReport:
    """Take a report down. The same report again gives the same row.

    Raises RangeInvalid; ReportInvalid for a report of nothing, of codes outside the package, or of one code in two
    ways (what was overprinted may be called printed too); ReportDiffers when the id was used for another report;
    ReportContradicts when an earlier report, unless it was rejected, said otherwise of a code; ReportsUsedUp.
    """
    # Reports of one package queue here, so that two of them cannot contradict each other unseen.
    await session.refresh(package, with_for_update=True)
    body = hashlib.sha256(json.dumps([told.printed, told.spoiled, told.overprinted]).encode()).digest()
    known = await session.get(PackageReport, (package.package_id, told.report_id))
    if known is not None:
        if known.body_sha256 != body:
            raise ReportDiffers("this report id was used for another report", hint="Send this one under a new id.")
        return known
    order = await session.get_one(CodeOrder, package.order_id)
    printed, spoiled, overprinted = (
        _parsed(text, order, scheme) for text in (told.printed, told.spoiled, told.overprinted)
    )
    _check(package, printed, spoiled, overprinted)
    earlier = await reports_of(session, package.package_id)
    if len(earlier) >= REPORTS_PER_PACKAGE_MAX:
        raise ReportsUsedUp(f"a package takes at most {REPORTS_PER_PACKAGE_MAX} reports", hint="Ask the brand.")
    report = PackageReport(
        package_id=package.package_id,
        report_id=told.report_id,
        link_id=link_id,
        on_sale=_text(without(printed, overprinted)),
        spoiled=_text(spoiled),
        overprinted=_text(overprinted),
        body_sha256=body,
        received_at=now,
    )
    if max(len(report.to_activate), len(report.to_void)) > RANGES_PER_CALL_MAX:
        raise ReportInvalid(
            f"a report puts on sale, or voids, at most {RANGES_PER_CALL_MAX:,} ranges", hint="Send it in several parts."
        )
    for other in earlier:
        if other.state != ReportState.REJECTED:
            _agree(report, other)
    session.add(report)
    await session.flush()
    return report


def _parsed(text: str, order: CodeOrder, scheme: SerialScheme) -> list[IndexRange]:
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ReportInvalid(f"ranges are told in at most {TEXT_CHARACTERS_MAX:,} characters, not {len(text):,}")
    return merged(parse_ranges(text, order, scheme)) if text.strip() else []


def _check(
    package: CodePackage,
    printed: Sequence[IndexRange],
    spoiled: Sequence[IndexRange],
    overprinted: Sequence[IndexRange],
) -> None:
    told = merged([*printed, *spoiled, *overprinted])
    if not told:
        raise ReportInvalid("a report names what was printed, spoiled or overprinted")
    if outside := without(told, [IndexRange(first, last) for first, last in package.spans]):
        raise ReportInvalid(f"the issue indexes {outside[0]} are not in this package")
    if twice := common(spoiled, merged([*printed, *overprinted])):
        raise ReportInvalid(
            f"the issue indexes {twice[0]} are told of as spoiled and as printed",
            hint="A code that was spoiled and then printed anew on one good label is printed.",
        )


def _agree(report: PackageReport, earlier: PackageReport) -> None:
    contradicted = common(report.to_activate, earlier.to_void) or common(report.to_void, earlier.to_activate)
    if contradicted:
        raise ReportContradicts(
            f"report {earlier.report_id} said otherwise of the issue indexes {contradicted[0]}",
            hint="Leave them out, or ask the brand to reject that report. If it was accepted, the brand voids them.",
        )


async def accept(
    session: Session, package: CodePackage, report: PackageReport, by: str | None, now: datetime
) -> Settled:
    """Put what was printed on sale and void what was spoiled or overprinted, all or nothing.

    Raises ReportDecided, and what `codes.ranges` raises: RangeVoided, RangesUsedUp, OrderStateForbids.
    """
    await _decide(session, report, ReportState.ACCEPTED, by, now)
    order = await session.get_one(CodeOrder, package.order_id)
    to_activate, to_void = report.to_activate, report.to_void
    settled = Settled(
        await ranges.activate(session, order, to_activate) if to_activate else [],
        await ranges.void(session, order, to_void) if to_void else [],
    )
    # What was asked for: what it changed may be a hundred times as many ranges.
    detail = {
        "package": str(package.package_id),
        "report": str(report.report_id),
        "on_sale": ranges.written(to_activate),
        "voided": ranges.written(to_void),
    }
    await record_act(session, package.order_id, "report_accepted", by, detail, now)
    return settled


async def printed_elsewhere(session: Session, package: CodePackage, report: PackageReport) -> list[IndexRange]:
    """What this report calls printed and an accepted one of another package does too: two labels with one code."""
    others = (
        select(PackageReport)
        .join(CodePackage, col(CodePackage.package_id) == PackageReport.package_id)
        .where(
            CodePackage.order_id == package.order_id,
            CodePackage.package_id != package.package_id,
            PackageReport.state == ReportState.ACCEPTED,
        )
    )
    theirs = merged([one for other in await session.exec(others) for one in other.to_activate])
    return common(report.to_activate, theirs)


async def reject(session: Session, package: CodePackage, report: PackageReport, by: str | None, now: datetime) -> None:
    """Refuse a report for good: nothing follows from it, and later ones may say otherwise. Raises ReportDecided."""
    await _decide(session, report, ReportState.REJECTED, by, now)
    detail = {"package": str(package.package_id), "report": str(report.report_id)}
    await record_act(session, package.order_id, "report_rejected", by, detail, now)


async def _decide(session: Session, report: PackageReport, state: ReportState, by: str | None, now: datetime) -> None:
    decided = await session.exec(
        update(PackageReport)
        .where(
            col(PackageReport.package_id) == report.package_id,
            col(PackageReport.report_id) == report.report_id,
            col(PackageReport.state) == ReportState.RECEIVED,
        )
        .values(state=state, decided_at=now, decided_by=by)
        .execution_options(synchronize_session=False)
    )
    await session.refresh(report)
    if decided.rowcount == 0:
        raise ReportDecided(f"report {report.report_id} is {report.state} already", hint="Nothing was changed.")


async def report_with(session: Session, package_id: uuid.UUID, report_id: uuid.UUID) -> PackageReport:
    """Raises ReportUnknown."""
    report = await session.get(PackageReport, (package_id, report_id))
    if report is None:
        raise ReportUnknown(
            f"package {package_id} has no report {report_id}", hint="`fanxing package reports` shows its reports."
        )
    return report


async def reports_of(session: Session, package_id: uuid.UUID) -> Sequence[PackageReport]:
    """A package's reports, oldest first."""
    query = (
        select(PackageReport)
        .where(PackageReport.package_id == package_id)
        .order_by(col(PackageReport.received_at), col(PackageReport.report_id))
    )
    return (await session.exec(query)).all()


async def waiting(session: Session) -> dict[uuid.UUID, int]:
    """How many reports of each package wait for the brand; packages without one are left out."""
    query = (
        select(PackageReport.package_id, func.count())
        .where(PackageReport.state == ReportState.RECEIVED)
        .group_by(col(PackageReport.package_id))
    )
    return dict((await session.exec(query)).all())


def _stored(text: str) -> list[IndexRange]:
    return [IndexRange(first, last) for first, last in json.loads(text)]


def _text(spans: Iterable[IndexRange]) -> str:
    return json.dumps([[span.first, span.last] for span in spans], separators=(",", ":"))


def _items(spans: Iterable[IndexRange]) -> int:
    return sum(span.items for span in spans)
