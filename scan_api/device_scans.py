"""Device scans: what scanners saw while nobody watched, taken in by batches, each record once.

A record is known by (device, journal, number). The primary key decides whether it is new, so a batch may come twice,
even at the same time, and in pieces. A genuine record that is kept counts as a scan of its item, in one transaction.
"""

import hashlib
import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import BigInteger, CheckConstraint, Column, LargeBinary, Text, UpdateBase, and_, bindparam, tuple_
from sqlmodel import Field as Stored
from sqlmodel import SQLModel, col, select

from codes.catalogue import Brand, Product
from codes.orders import CodeOrder
from codes.serials import SerialScheme
from kit.db import Moment, Session, insert_into, is_postgresql
from offline_sdk.code_text import ORDER_DIGITS, Profile
from offline_sdk.errors import TrustMissing
from offline_sdk.verifier import GENUINE
from scan_api import scans
from scan_api.devices import Device, DeviceUnknown, refuse_if_revoked
from scan_api.scans import Scans, Seen

RECORDS_MAX: Final = 500
NUMBER_MAX: Final = 2**53 - 1
"""The largest integer that JSON carries everywhere (RFC 8259, 6)."""
TIME_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CHANNEL: Final = "device"


class Status(StrEnum):
    """What the server says of a record, for good: the device may forget it after any of these."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


class Refusal(StrEnum):
    """Why a record is refused."""

    NUMBER_REUSED = "NumberReused"  # another record is kept under its number
    RECORD_INVALID = "RecordInvalid"  # its fields are out of range, or contradict each other
    OUT_OF_SCOPE = "OutOfScope"  # a product of another brand than the device's; kept as evidence
    NEVER_ISSUED = "NeverIssued"  # genuine to the device, but its order never had such an item; kept as evidence


class DeviceScan(SQLModel, table=True):
    """A record of a device's journal as it was sent, with the corrected time. No code text, nothing about a person."""

    __tablename__: ClassVar[str] = "device_scan"
    __table_args__ = (
        CheckConstraint("verdict IN ('genuine', 'ask', 'refused')", name="verdict"),
        CheckConstraint("refusal IN ('OutOfScope', 'NeverIssued')", name="refusal"),
        CheckConstraint("bundle_state IN ('fresh', 'stale', 'expired')", name="bundle_state"),
        CheckConstraint("length(journal) = 16", name="journal"),
    )

    device_id: uuid.UUID = Stored(primary_key=True)
    journal: str = Stored(primary_key=True, sa_type=Text)
    number: int = Stored(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    received_at: datetime = Stored(sa_type=Moment)
    scanned_at: datetime = Stored(sa_type=Moment)
    at_ms: int = Stored(sa_column=Column(BigInteger, nullable=False))
    elapsed_ms: int | None = Stored(default=None, sa_column=Column(BigInteger))
    verdict: str = Stored(sa_type=Text)
    error: str | None = Stored(default=None, sa_type=Text)
    profile: int | None = None
    kid: int | None = None
    gtin: str | None = Stored(default=None, sa_type=Text)
    serial: str | None = Stored(default=None, sa_type=Text)
    bundle_seq: int | None = Stored(default=None, sa_column=Column(BigInteger))
    bundle_state: str | None = Stored(default=None, sa_type=Text)
    clock_suspect: bool
    refusal: str | None = Stored(default=None, sa_type=Text)
    content_sha256: bytes = Stored(sa_type=LargeBinary)


_Number = Annotated[int, Field(ge=1, le=NUMBER_MAX)]
_Milliseconds = Annotated[int, Field(ge=0, le=TIME_MS_MAX)]


class Record(BaseModel):
    """One line of a device's journal (docs/scanner-api.md)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    number: _Number
    at_ms: _Milliseconds = Field(description="the device's wall clock at the scan")
    elapsed_ms: _Milliseconds | None = Field(description="time since the scan, by a clock that nobody sets")
    verdict: Literal["genuine", "ask", "refused"]
    error: Annotated[str, Field(pattern=r"^[A-Za-z]{1,40}$")] | None
    profile: Annotated[int, Field(ge=1, le=2)] | None
    kid: Annotated[int, Field(ge=0, le=99_999)] | None
    gtin: Annotated[str, Field(pattern=r"^[0-9]{14}$")] | None
    serial: Annotated[str, Field(pattern=r"^[0-9]{14}$")] | None
    bundle_seq: _Number | None
    bundle_state: Literal["fresh", "stale", "expired"] | None
    clock_suspect: bool

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        named = None not in (self.profile, self.kid, self.gtin, self.serial)
        judged = named and None not in (self.bundle_seq, self.bundle_state)
        if self.verdict == GENUINE and not (judged and self.error is None):
            raise ValueError("what is genuine has an item, a bundle that says so, and no error")
        if self.verdict == "ask" and not (judged or (named and self.error == TrustMissing.code)):
            raise ValueError("what is asked about has an item, and a bundle unless the device has none")
        if self.verdict == "refused" and self.error is None:
            raise ValueError("what is refused has an error")
        return self

    @property
    def content_sha256(self) -> bytes:
        """What tells two records under one number apart. `elapsed_ms` grows from one sending to the next."""
        content = self.model_dump(exclude={"elapsed_ms"})
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()


def _in_sequence(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = 0
    for record in records:
        number = record.get("number")
        if record.keys() != Record.model_fields.keys() or type(number) is not int or not last < number <= NUMBER_MAX:
            raise ValueError("each record has exactly the protocol's fields, and a number above the one before")
        last = number
    return records


class Batch(BaseModel):
    """What a device sends: a piece of its journal, and how it stands with itself.

    A batch in another form is refused whole, and nothing of it is lost: the device keeps it. A record with wrong values
    is refused alone, since the device would send it for ever.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    journal: str = Field(pattern=r"^[0-9a-f]{16}$", description="the journal file's random id")
    device_time_ms: _Milliseconds = Field(description="the device's wall clock now")
    bundle_seq: _Number | None
    root_version: _Number | None
    waiting: Annotated[int, Field(ge=0, le=NUMBER_MAX)] = Field(description="records not synced, these included")
    records: Annotated[list[dict[str, Any]], Field(max_length=RECORDS_MAX), AfterValidator(_in_sequence)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the record with this number."""

    number: int
    status: Status
    error: Refusal | None = None

    def as_json(self) -> dict[str, Any]:
        return {"number": self.number, "status": self.status.value, "error": self.error and self.error.value}


@dataclass(frozen=True, slots=True)
class _Judged:
    """A record with what the server makes of it; `seen` is there when it counts as a scan."""

    record: Record
    scanned_at: datetime
    refusal: Refusal | None = None
    seen: Seen | None = None


async def take_in(
    session: Session, issued: Scans, device_id: uuid.UUID, batch: Batch, created_s: int, now: datetime
) -> list[Answer]:
    """Keep what is new of a batch, and answer every record in its order.

    `created_s` is when the device signed the request, unix seconds. Raises DeviceUnknown, DeviceRevoked.
    """
    device = await _hear(session, device_id, batch, created_s, now)
    records = {fields["number"]: _read(fields) for fields in batch.records}
    judged = await _judge(session, issued, device.brand_id, batch, [one for one in records.values() if one], now)
    new = await _keep(session, device_id, batch.journal, judged, now)
    await scans.record_many(session, _CHANNEL, [seen for number in sorted(new) if (seen := judged[number].seen)])
    kept = await _kept(session, device_id, batch.journal, judged.keys() - new)
    return [_answer(number, judged.get(number), kept.get(number)) for number in records]


async def _hear(session: Session, device_id: uuid.UUID, batch: Batch, created_s: int, now: datetime) -> Device:
    """Write down how the device stands. Batches of one device pass one after the other, and none after a revocation."""
    device = (await session.exec(select(Device).where(Device.device_id == device_id).with_for_update())).first()
    if device is None:
        raise DeviceUnknown(f"there is no device {device_id}")
    refuse_if_revoked(device)
    device.last_sync_at = now
    if device.told_at_s is None or device.told_at_s <= created_s:
        device.told_at_s = created_s
        device.bundle_seq, device.root_version = batch.bundle_seq, batch.root_version
        device.waiting = max(0, batch.waiting - len(batch.records))
        device.clock_offset_ms = milliseconds(now) - batch.device_time_ms
    session.add(device)
    await session.flush()
    return device


def _read(fields: dict[str, Any]) -> Record | None:
    try:
        return Record.model_validate(fields)
    except ValidationError:
        return None


# One statement for all items of a batch: their products, and those of their orders that there are.
_ORDERS = (
    select(Product.gtin, Product.brand_id, Brand.issuer_id, CodeOrder)
    .join(Brand, col(Product.brand_id) == Brand.brand_id)
    .outerjoin(
        CodeOrder,
        and_(
            col(CodeOrder.gtin) == col(Product.gtin),
            tuple_(col(CodeOrder.gtin), col(CodeOrder.order_number)).in_(bindparam("orders", expanding=True)),
        ),
    )
    .where(col(Product.gtin).in_(bindparam("gtins", expanding=True)))
)


async def _judge(
    session: Session, issued: Scans, brand_id: int | None, batch: Batch, records: Collection[Record], now: datetime
) -> dict[int, _Judged]:
    """What the server makes of each record, by number."""
    gtins = sorted({record.gtin for record in records if record.gtin})
    orders = sorted({_order_of(record) for record in records if record.gtin and record.serial})
    brands: dict[str, int] = {}
    found: dict[tuple[str, int], tuple[CodeOrder, SerialScheme]] = {}
    if gtins:
        # A list with nothing in it has no form of its own for pairs; no product has this one.
        rows = await session.exec(_ORDERS, params={"gtins": gtins, "orders": orders or [("", 0)]})
        for gtin, owner, issuer_id, order in rows.all():
            brands[gtin] = owner
            if order is not None:
                found[gtin, order.order_number] = order, await issued.scheme(session, issuer_id)
    judged = {}
    for record in records:
        scanned_at = corrected(record, batch.device_time_ms, now)
        owned_by = brands.get(record.gtin or "")
        if brand_id is not None and owned_by not in (None, brand_id):
            judged[record.number] = _Judged(record, scanned_at, Refusal.OUT_OF_SCOPE)
        elif record.verdict == GENUINE:
            judged[record.number] = _judge_genuine(record, scanned_at, found.get(_order_of(record)))
        else:
            judged[record.number] = _Judged(record, scanned_at)
    return judged


def _judge_genuine(record: Record, scanned_at: datetime, found: tuple[CodeOrder, SerialScheme] | None) -> _Judged:
    never = _Judged(record, scanned_at, Refusal.NEVER_ISSUED)
    if found is None:
        return never
    assert record.serial is not None  # the record's own check
    assert record.profile is not None
    assert record.kid is not None
    order, scheme = found
    item_number = int(record.serial[ORDER_DIGITS:])
    if scans.issue_index(scheme, order, record.profile, record.kid, item_number) is None:
        return never
    # A device that had lost its clock may tell of a time before there was such an item.
    scanned_at = max(scanned_at, order.created_at)
    return _Judged(record, scanned_at, None, Seen(order.item_key(item_number), Profile(record.profile), scanned_at))


def _order_of(record: Record) -> tuple[str, int]:
    return record.gtin or "", int((record.serial or "0")[:ORDER_DIGITS])


def corrected(record: Record, device_time_ms: int, now: datetime) -> datetime:
    """When the scan happened by the server's clock, as well as can be told, and never later than now.

    A clock that nobody sets is believed; else the device's wall clock is taken to have been as wrong then as it is now.
    """
    ago_ms = device_time_ms - record.at_ms if record.elapsed_ms is None else record.elapsed_ms
    now_ms = milliseconds(now)
    return _EPOCH + timedelta(milliseconds=min(now_ms, max(0, now_ms - ago_ms)))


def milliseconds(moment: datetime) -> int:
    """A moment as unix milliseconds, rounded down."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _keeping(*, on_postgresql: bool) -> UpdateBase:
    return (
        insert_into(DeviceScan, on_postgresql=on_postgresql).on_conflict_do_nothing().returning(col(DeviceScan.number))
    )


_KEEPING = {on_postgresql: _keeping(on_postgresql=on_postgresql) for on_postgresql in (False, True)}


async def _keep(
    session: Session, device_id: uuid.UUID, journal: str, judged: Mapping[int, _Judged], now: datetime
) -> set[int]:
    """Store the records, and tell the numbers of those that were new: the primary key decides."""
    if not judged:
        return set()
    rows = [
        {
            **one.record.model_dump(),
            "device_id": device_id,
            "journal": journal,
            "received_at": now,
            "scanned_at": one.scanned_at,
            "refusal": one.refusal and one.refusal.value,
            "content_sha256": one.record.content_sha256,
        }
        for one in judged.values()
    ]
    return set((await session.exec(_KEEPING[is_postgresql(session)], params=rows)).scalars())


async def _kept(
    session: Session, device_id: uuid.UUID, journal: str, numbers: Collection[int]
) -> dict[int, tuple[bytes, str | None]]:
    """Content and refusal of records that were kept before."""
    if not numbers:
        return {}
    rows = await session.exec(
        select(DeviceScan.number, DeviceScan.content_sha256, DeviceScan.refusal).where(
            DeviceScan.device_id == device_id, DeviceScan.journal == journal, col(DeviceScan.number).in_(numbers)
        )
    )
    return {number: (content, refusal) for number, content, refusal in rows}


def _answer(number: int, judged: _Judged | None, kept: tuple[bytes, str | None] | None) -> Answer:
    if judged is None:
        return Answer(number, Status.REFUSED, Refusal.RECORD_INVALID)
    if kept is None:
        return Answer(number, Status.REFUSED if judged.refusal else Status.ACCEPTED, judged.refusal)
    content, refusal = kept
    if content != judged.record.content_sha256:
        return Answer(number, Status.REFUSED, Refusal.NUMBER_REUSED)
    return Answer(number, Status.REFUSED, Refusal(refusal)) if refusal else Answer(number, Status.DUPLICATE)
