"""Issuers, their signing keys and what was revoked: everything about keys that is public."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, CheckConstraint, Column, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field, SQLModel, col, func, select

from kit import procedures
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id
from kit.procedures import Kind, Procedure, Refused, Step
from offline_sdk.algorithms import Algorithm
from offline_sdk.bundle import GTIN_PREFIXES_MAX
from offline_sdk.cose import Signer
from offline_sdk.gtin import is_valid as gtin_is_valid

KID_MAX = 99_999
ORDER_NUMBER_MIN = 1
ORDER_NUMBER_MAX = 99_999
SERIAL_DIGITS = 14
PREFIX_DIGITS_MIN = 4
PREFIX_DIGITS_MAX = 12
ISSUER_NAME_CHARACTERS_MAX = 100
_TURN = 0x66616E78  # any number that no other advisory lock of this database has


class IssuerInvalid(Invalid):
    code = "IssuerInvalid"


class IssuerUnknown(NotFound):
    code = "IssuerUnknown"


class IssuerExists(Conflict):
    code = "IssuerExists"


class SigningKeyInvalid(Invalid):
    code = "SigningKeyInvalid"


class SigningKeyMissing(Conflict):
    code = "SigningKeyMissing"


class SigningKeyUnknown(NotFound):
    code = "SigningKeyUnknown"


class KeyNumbersUsedUp(Conflict):
    code = "KeyNumbersUsedUp"


class RevocationInvalid(Invalid):
    code = "RevocationInvalid"


class KeyState(StrEnum):
    ACTIVE = "active"  # signs new orders
    RETIRED = "retired"  # gets no new order; its codes stay good, and it signs them again for a lost export
    REVOKED = "revoked"  # signs nothing more; its codes are refused


class Issuer(SQLModel, table=True):
    """A company that issues codes, and the GS1 company prefixes under which it may."""

    __tablename__: ClassVar[str] = "issuer"

    issuer_id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=Text, unique=True)
    gtin_prefixes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_type=Moment)


class SigningKey(SQLModel, table=True):
    """The public side of a signing key. The private side is in custody, under `custody_name`."""

    __tablename__: ClassVar[str] = "signing_key"
    __table_args__ = (
        CheckConstraint(f"kid BETWEEN 1 AND {KID_MAX}", name="kid"),
        CheckConstraint("state IN ('active', 'retired', 'revoked')", name="state"),
        CheckConstraint(f"order_min BETWEEN 0 AND order_max AND order_max <= {ORDER_NUMBER_MAX}", name="orders"),
    )

    kid: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    issuer_id: int = Field(foreign_key="issuer.issuer_id", index=True)
    algorithm: str = Field(default=Algorithm.ED25519.label, sa_type=Text)
    public: bytes = Field(sa_type=LargeBinary, unique=True)
    state: str = Field(default=KeyState.ACTIVE, sa_type=Text)
    not_before: datetime | None = Field(default=None, sa_type=Moment)
    not_after: datetime | None = Field(default=None, sa_type=Moment)
    order_min: int = ORDER_NUMBER_MIN
    order_max: int = ORDER_NUMBER_MAX
    custody_name: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)

    @property
    def signature_algorithm(self) -> Algorithm:
        """What the column names by its label."""
        return next(algorithm for algorithm in Algorithm if algorithm.label == self.algorithm)


class Revocation(SQLModel, table=True):
    """A range of a GTIN's orders, or one item, whose codes are refused from now on."""

    __tablename__: ClassVar[str] = "revocation"
    __table_args__ = (
        UniqueConstraint("gtin", "order_min", "order_max", "item_number"),
        CheckConstraint("item_number IS NULL OR order_min = order_max", name="one_order"),
    )

    revocation_id: uuid.UUID = Field(primary_key=True)
    gtin: str = Field(sa_type=Text)
    order_min: int
    order_max: int
    item_number: int | None = None
    reason: str = Field(default="", sa_type=Text)
    at: datetime = Field(sa_type=Moment)


async def take_turn(session: Session) -> None:
    """Change issuers, keys, revocations or bundles alone: one transaction at a time, till it ends.

    Without it two transactions could both find a prefix, a key number or a sequence number free, or a rotation could
    take back a revocation that it had not seen. SQLite has one writer at a time anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.exec(select(func.pg_advisory_xact_lock(_TURN)))


async def create_issuer(session: Session, name: str, gtin_prefixes: list[str], now: datetime) -> Issuer:
    """Register an issuer.

    Raises IssuerInvalid: the name is 1 to 100 printable characters, a prefix 4 to 12 digits (GS1 General
    Specifications 1.4), and there are 1 to 1,000 of them.
    Raises IssuerExists when the name is taken or a prefix lies inside another issuer's.
    """
    name = name.strip()
    # Trust bundles carry names and prefixes: one that a scanner refuses would stop every later publication.
    if not 1 <= len(name) <= ISSUER_NAME_CHARACTERS_MAX or not name.isprintable():
        raise IssuerInvalid(f"an issuer's name is 1 to {ISSUER_NAME_CHARACTERS_MAX} printable characters")
    if not 1 <= len(gtin_prefixes) <= GTIN_PREFIXES_MAX or not all(_is_prefix(prefix) for prefix in gtin_prefixes):
        raise IssuerInvalid(
            f"a GTIN prefix is {PREFIX_DIGITS_MIN} to {PREFIX_DIGITS_MAX} digits; give 1 to {GTIN_PREFIXES_MAX} of them"
        )
    await take_turn(session)
    for other in (await session.exec(select(Issuer))).all():
        if other.name == name:
            raise IssuerExists(f"there is an issuer named {name} already")
        for theirs in other.gtin_prefixes:
            if any(ours.startswith(theirs) or theirs.startswith(ours) for ours in gtin_prefixes):
                raise IssuerExists(f"prefix {theirs} belongs to the issuer {other.name}")
    issuer = Issuer(name=name, gtin_prefixes=sorted(set(gtin_prefixes)), created_at=now)
    session.add(issuer)
    await session.flush()
    return issuer


def _is_prefix(prefix: str) -> bool:
    return PREFIX_DIGITS_MIN <= len(prefix) <= PREFIX_DIGITS_MAX and prefix.isascii() and prefix.isdigit()


async def issuer_named(session: Session, name: str) -> Issuer:
    """Raises IssuerUnknown."""
    issuer = (await session.exec(select(Issuer).where(Issuer.name == name))).first()
    if issuer is None:
        raise IssuerUnknown(f"there is no issuer named {name}", hint="`fanxing issuer list` shows the issuers.")
    return issuer


async def next_kid(session: Session) -> int:
    """The next free key number, unique in the trust domain. Raises KeyNumbersUsedUp after 99,999."""
    highest = (await session.exec(select(func.max(SigningKey.kid)))).one()
    if highest is not None and highest >= KID_MAX:
        raise KeyNumbersUsedUp(f"all {KID_MAX} key numbers of this trust domain are used")
    return (highest or 0) + 1


async def active_key(session: Session, issuer_id: int) -> SigningKey:
    """The key that signs the issuer's new orders. Raises SigningKeyMissing."""
    key = (
        await session.exec(
            select(SigningKey)
            .where(SigningKey.issuer_id == issuer_id, SigningKey.state == KeyState.ACTIVE)
            .order_by(col(SigningKey.kid).desc())
        )
    ).first()
    if key is None:
        raise SigningKeyMissing("the issuer has no active key", hint="`fanxing key create` makes one.")
    return key


async def key_numbered(session: Session, kid: int) -> SigningKey:
    """Raises SigningKeyUnknown."""
    key = await session.get(SigningKey, kid)
    if key is None:
        raise SigningKeyUnknown(f"there is no key number {kid}", hint="`fanxing key list` shows the keys.")
    return key


async def public_keys(session: Session) -> dict[int, Signer]:
    """The public keys by their numbers, without those that were revoked."""
    keys = await session.exec(select(SigningKey).where(SigningKey.state != KeyState.REVOKED))
    return {key.kid: Signer(key.signature_algorithm, key.public) for key in keys}


async def end_key(session: Session, kid: int, state: KeyState, now: datetime) -> SigningKey:
    """Retire or revoke a key. A revoked key stays revoked; ending a key the same way twice changes nothing."""
    assert state is not KeyState.ACTIVE  # an ended key does not come back
    await take_turn(session)
    key = await key_numbered(session, kid)
    await session.refresh(key)  # it may have been read before our turn came
    if key.state in (KeyState.REVOKED, state):
        return key
    key.state, key.ended_at = state, now
    session.add(key)
    return key


async def revoke_orders(
    session: Session, gtin: str, order_min: int, order_max: int, reason: str, now: datetime
) -> Revocation:
    """Refuse every code of a range of a GTIN's orders. Raises RevocationInvalid."""
    if not ORDER_NUMBER_MIN <= order_min <= order_max <= ORDER_NUMBER_MAX:
        raise RevocationInvalid(f"an order range lies in {ORDER_NUMBER_MIN} to {ORDER_NUMBER_MAX}")
    return await _revoke(session, gtin, order_min, order_max, None, reason, now)


async def revoke_item(session: Session, gtin: str, serial: str, reason: str, now: datetime) -> Revocation:
    """Refuse both codes of one item. Raises RevocationInvalid when gtin or serial are not of the project's form."""
    if len(serial) != SERIAL_DIGITS or not (serial.isascii() and serial.isdigit()):
        raise RevocationInvalid(f"a serial is {SERIAL_DIGITS} digits")
    order = int(serial[:5])
    return await _revoke(session, gtin, order, order, int(serial[5:]), reason, now)


async def _revoke(
    session: Session, gtin: str, order_min: int, order_max: int, item: int | None, reason: str, now: datetime
) -> Revocation:
    if not gtin_is_valid(gtin):
        raise RevocationInvalid("a GTIN is 14 digits with a right check digit")
    await take_turn(session)
    same: Any = (
        select(Revocation)
        .where(Revocation.gtin == gtin, Revocation.order_min == order_min, Revocation.order_max == order_max)
        .where(col(Revocation.item_number).is_not_distinct_from(item))
    )
    existing: Revocation | None = (await session.exec(same)).first()
    if existing is not None:
        return existing
    revocation = Revocation(
        revocation_id=new_id(),
        gtin=gtin,
        order_min=order_min,
        order_max=order_max,
        item_number=item,
        reason=reason,
        at=now,
    )
    session.add(revocation)
    return revocation


NOT_REVOKED_PARAMETERS: Mapping[str, Kind] = {
    "kid": Kind.INTEGER,
    "gtin": Kind.TEXT,
    "order_number": Kind.INTEGER,
    "item_number": Kind.INTEGER,
}
NOT_REVOKED: Sequence[Step] = (
    Step(
        """
        SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM signing_key WHERE kid = :kid AND state = 'revoked')
        AND NOT EXISTS (
            SELECT 1 FROM revocation
            WHERE gtin = :gtin AND order_min <= :order_number AND order_max >= :order_number
                AND (item_number IS NULL OR item_number = :item_number)
        )
        """,
        refusal="ItemRevoked",
    ),
)
"""Steps that go on only with an item whose codes are not refused: by its key, its order or by itself."""
_ASKING = Procedure("not_revoked", NOT_REVOKED_PARAMETERS, NOT_REVOKED, ("kid",))


async def is_revoked(session: Session, kid: int, gtin: str, order_number: int, item_number: int) -> bool:
    """Whether an item's codes are refused: by its key, its order or by itself."""
    asked = {"kid": kid, "gtin": gtin, "order_number": order_number, "item_number": item_number}
    try:
        await procedures.call(session, _ASKING, asked)
    except Refused:
        return True
    return False
