"""Devices: shop scanners that a code lets in, that hold a key of their own, and that revocation shuts out.

Whoever runs the brand makes an invitation. Its code has 60 random bits, works once and dies within days; only a keyed
hash of it is stored. The device makes its key pair itself, so no secret of a device is ever on this server.
"""

import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final
from urllib.parse import quote

from sqlalchemy import BigInteger, CheckConstraint, Column, LargeBinary, Text, update
from sqlmodel import Field, SQLModel, col, select

from codes.catalogue import Brand
from kit.db import Moment, Session, insert
from kit.errors import Conflict, Forbidden, Invalid, NotFound, TooMany
from kit.ids import derived_id
from kit.vault import Vault
from offline_sdk.algorithms import Algorithm, public_key_is_safe
from signer.publication import TrustBundle

NAME_CHARACTERS_MAX: Final = 100
CODE_SYMBOLS: Final = 12
LIFETIME_MIN, LIFETIME_DEFAULT, LIFETIME_MAX = timedelta(minutes=1), timedelta(hours=24), timedelta(days=7)
WRONG_TRIES_A_MINUTE_MAX: Final = 30
"""Wrong codes that one server puts up with, whoever sends them: at this rate 60 bits outlive the code by far."""
_GROUP_SYMBOLS: Final = 4
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O, which are read as 1, 1, 0, and no U."""
_READ_AS: Final = str.maketrans("OIL", "011", " -")


class InvitationInvalid(Invalid):
    code = "InvitationInvalid"


class EnrolmentCodeInvalid(Invalid):
    code = "EnrolmentCodeInvalid"


class EnrolmentCodeUsed(Conflict):
    code = "EnrolmentCodeUsed"


class TooManyEnrolments(TooMany):
    """Too many wrong codes of late. `retry_after_s` says when the next may be tried."""

    code = "TooManyEnrolments"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"too many wrong enrolment codes; the next may be tried in {retry_after_s} s", hint="Wait, then try again."
        )
        self.retry_after_s = retry_after_s


class DeviceKeyRefused(Invalid):
    code = "DeviceKeyRefused"


class DeviceKeyTaken(Conflict):
    code = "DeviceKeyTaken"


class DeviceUnknown(NotFound):
    code = "DeviceUnknown"


class DeviceRevoked(Forbidden):
    code = "DeviceRevoked"


class Device(SQLModel, table=True):
    """A scanner, its public key, and what it told of itself when it last synced. No brand means every brand."""

    __tablename__: ClassVar[str] = "device"
    __table_args__ = (
        CheckConstraint("length(public_key) = 32", name="public_key"),
        CheckConstraint("waiting >= 0", name="waiting"),
    )

    device_id: uuid.UUID = Field(primary_key=True)
    brand_id: int | None = None
    name: str = Field(sa_type=Text)
    own_name: str = Field(sa_type=Text)
    public_key: bytes = Field(sa_type=LargeBinary)
    enrolled_at: datetime = Field(sa_type=Moment)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)
    last_sync_at: datetime | None = Field(default=None, sa_type=Moment)
    # The time at which the device signed what it last told: an older request that comes late changes none of this.
    told_at_s: int | None = Field(default=None, sa_column=Column(BigInteger))
    bundle_seq: int | None = Field(default=None, sa_column=Column(BigInteger))
    root_version: int | None = Field(default=None, sa_column=Column(BigInteger))
    waiting: int | None = Field(default=None, sa_column=Column(BigInteger))
    clock_offset_ms: int | None = Field(default=None, sa_column=Column(BigInteger))


class DeviceInvitation(SQLModel, table=True):
    """Leave for one device to enrol until some moment; found by the keyed hash of its code."""

    __tablename__: ClassVar[str] = "device_invitation"

    code_hash: bytes = Field(primary_key=True, sa_type=LargeBinary)
    brand_id: int | None = None
    name: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)
    device_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A device with the names and times that a list of devices shows beside it."""

    device: Device
    brand: str | None
    bundle_issued_at: datetime | None


class WrongTries:
    """How many wrong enrolment codes this server still puts up with: 30, and one more each two seconds."""

    def __init__(self) -> None:
        self._left = float(WRONG_TRIES_A_MINUTE_MAX)
        self._at: datetime | None = None

    def take(self, now: datetime) -> None:
        """Spend a try before it is known to be wrong, so that many at once exceed nothing. Raises TooManyEnrolments."""
        if self._at is not None:
            minutes = max(0.0, (now - self._at) / timedelta(minutes=1))
            self._left = min(WRONG_TRIES_A_MINUTE_MAX, self._left + minutes * WRONG_TRIES_A_MINUTE_MAX)
        self._at = now
        if self._left < 1:
            raise TooManyEnrolments(max(1, round((1 - self._left) * 60 / WRONG_TRIES_A_MINUTE_MAX)))
        self._left -= 1

    def give_back(self) -> None:
        """It was not wrong after all."""
        self._left += 1


def grouped(code: str) -> str:
    """A code as people read it: ABCD-EFGH-JKMN."""
    return "-".join(code[at : at + _GROUP_SYMBOLS] for at in range(0, CODE_SYMBOLS, _GROUP_SYMBOLS))


def enrolment_text(server: str, code: str, pin: bytes) -> str:
    """What a QR code tells a device: where to enrol, the code, and the root's pin (docs/scanner-api.md)."""
    return f"fanxing-enrol:1?server={quote(server, safe='')}&code={code}&pin={pin.hex()}"


def read_code(text: str) -> str:
    """The 12 symbols of a code as somebody typed it. Raises EnrolmentCodeInvalid."""
    code = text.upper().translate(_READ_AS)
    if len(code) != CODE_SYMBOLS or not set(code) <= set(_ALPHABET):
        raise _wrong_code()
    return code


async def invite(
    session: Session, vault: Vault, brand_id: int | None, name: str, lifetime: timedelta, now: datetime
) -> tuple[DeviceInvitation, str]:
    """An invitation, and its code of 12 symbols, which is never shown again.

    `name` (1 to 100 printable characters) says which device it is for; the list of devices shows it. Raises
    InvitationInvalid, also for a lifetime that is not 1 minute to 7 days.
    """
    if not 1 <= len(name.strip()) <= NAME_CHARACTERS_MAX or not name.isprintable():
        raise InvitationInvalid(f"a device's name is 1 to {NAME_CHARACTERS_MAX} printable characters: which, and where")
    if not LIFETIME_MIN <= lifetime <= LIFETIME_MAX:
        raise InvitationInvalid(f"an invitation lives for 1 minute to {LIFETIME_MAX.days} days")
    code = "".join(secrets.choice(_ALPHABET) for _ in range(CODE_SYMBOLS))
    invitation = DeviceInvitation(
        code_hash=_code_hash(vault, code),
        brand_id=brand_id,
        name=name.strip(),
        created_at=now,
        expires_at=now + lifetime,
    )
    session.add(invitation)
    await session.flush()
    return invitation, code


def admit_key(public: bytes) -> None:
    """Raises DeviceKeyRefused unless this is an Ed25519 public key about which all verifiers agree."""
    if not public_key_is_safe(Algorithm.ED25519, public):
        raise DeviceKeyRefused(
            "this is no public key of Ed25519 of 32 bytes, or one of small order", hint="Make a new key pair."
        )


async def enrol(
    session: Session, vault: Vault, domain: str, code: str, public: bytes, own_name: str, now: datetime
) -> Device:
    """Let a device in that holds a code, and spend the code; the device has proved that it holds the key.

    Asked again with the same code and key, because the answer was lost, it gives the same device while the code lives.
    Raises EnrolmentCodeInvalid (unknown or expired), EnrolmentCodeUsed (by another key), DeviceKeyRefused,
    DeviceKeyTaken (this key came in with another code), DeviceRevoked.
    """
    admit_key(public)
    code_hash = _code_hash(vault, read_code(code))
    # The same key has the same id, so that the primary key keeps it from coming in twice. The domain stands in it, so
    # that a request which one installation was sent is good for no other.
    device_id = derived_id("device", domain, public.hex())
    spent = await session.exec(
        update(DeviceInvitation)
        .where(
            col(DeviceInvitation.code_hash) == code_hash,
            col(DeviceInvitation.device_id).is_(None),
            col(DeviceInvitation.expires_at) > now,
        )
        .values(device_id=device_id)
        .returning(col(DeviceInvitation.brand_id), col(DeviceInvitation.name))
        .execution_options(synchronize_session=False)
    )
    invited = spent.first()
    if invited is None:
        return await _enrolled_before(session, code_hash, device_id, now)
    brand_id, name = invited
    device = {
        "device_id": device_id,
        "brand_id": brand_id,
        "name": name,
        "own_name": own_name,
        "public_key": public,
        "enrolled_at": now,
    }
    made = await session.exec(
        insert(session, Device).values(device).on_conflict_do_nothing().returning(col(Device.device_id))
    )
    if made.first() is None:
        raise DeviceKeyTaken("this key was enrolled before, with another code", hint="Make a new key pair.")
    return await session.get_one(Device, device_id)


async def _enrolled_before(session: Session, code_hash: bytes, device_id: uuid.UUID, now: datetime) -> Device:
    invitation = await session.get(DeviceInvitation, code_hash)
    if invitation is None or invitation.expires_at <= now:
        raise _wrong_code()
    if invitation.device_id != device_id:
        raise EnrolmentCodeUsed("another device enrolled with this code", hint="Ask for a new one.")
    device = await session.get_one(Device, device_id)
    refuse_if_revoked(device)
    return device


def refuse_if_revoked(device: Device) -> None:
    """Raises DeviceRevoked."""
    if device.revoked_at is not None:
        raise DeviceRevoked("this device was revoked", hint="Enrol it again, with a new key, if that was a mistake.")


async def device_with(session: Session, device_id: uuid.UUID) -> Device:
    """Raises DeviceUnknown."""
    device = await session.get(Device, device_id)
    if device is None:
        raise DeviceUnknown(f"there is no device {device_id}", hint="`fanxing device list` shows the devices.")
    return device


async def revoke(session: Session, device_id: uuid.UUID, now: datetime) -> Device:
    """Shut a device out at once and for good; one that is out already stays so since then. Raises DeviceUnknown."""
    await session.exec(
        update(Device)
        .where(col(Device.device_id) == device_id, col(Device.revoked_at).is_(None))
        .values(revoked_at=now)
        .execution_options(synchronize_session=False)
    )
    device = await device_with(session, device_id)
    await session.refresh(device)
    return device


async def everyone(session: Session) -> list[Standing]:
    """All devices, oldest first."""
    rows = await session.exec(
        select(Device, Brand.slug, TrustBundle.issued_at)
        .outerjoin(Brand, col(Brand.brand_id) == col(Device.brand_id))
        .outerjoin(TrustBundle, col(TrustBundle.seq) == col(Device.bundle_seq))
        .order_by(col(Device.enrolled_at), col(Device.device_id))
    )
    return [Standing(*row) for row in rows]


def _wrong_code() -> EnrolmentCodeInvalid:
    # One refusal for a code that never was and for one that is over: a stranger learns nothing from it.
    return EnrolmentCodeInvalid("this enrolment code is not valid, or no longer", hint="Ask for a new one.")


def _code_hash(vault: Vault, code: str) -> bytes:
    return vault.fingerprint("enrolment-code", code)
