"""Links: who may fetch a package, how often and until when, and who did.

A link's address holds no secret. The fetch code `fxp_…` travels on another channel, is shown once, and is stored as a
plain SHA-256: it has 256 random bits, so neither slow hashing nor a limit on guesses would add anything.
"""

import hashlib
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import CheckConstraint, LargeBinary, Text, UniqueConstraint, update
from sqlmodel import Field, SQLModel, col, select

from codes.acts import record_act
from codes.packages import CodePackage, PackageUnknown
from kit.db import Moment, Session
from kit.errors import Conflict, FanxingError, Invalid, NotFound
from kit.ids import new_id

LABEL_CHARACTERS_MAX = 100
FETCHES_MAX = 100
LIFETIME_MIN, LIFETIME_MAX = timedelta(minutes=1), timedelta(days=365)
REMOTE_CHARACTERS_MAX = 64
_CODE = re.compile(r"fxp_[A-Za-z0-9_-]{43}")


class PackageLinkInvalid(Invalid):
    code = "PackageLinkInvalid"


class PackageLinkUnknown(NotFound):
    code = "PackageLinkUnknown"


class PackageLinkSpent(Conflict):
    code = "PackageLinkSpent"


class PackageLinkExpired(Conflict):
    code = "PackageLinkExpired"


class PackageLinkRevoked(Conflict):
    code = "PackageLinkRevoked"


class Outcome(StrEnum):
    """How a try to fetch ended."""

    FETCHED = "fetched"
    SPENT = "spent"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNKNOWN_CODE = "unknown-secret"


class PackageLink(SQLModel, table=True):
    """Leave to fetch one package some times until some moment."""

    __tablename__: ClassVar[str] = "package_link"
    __table_args__ = (
        UniqueConstraint("package_id", "secret_sha256"),
        CheckConstraint(f"fetches_max BETWEEN 1 AND {FETCHES_MAX}", name="fetches_max"),
        CheckConstraint("fetches BETWEEN 0 AND fetches_max", name="fetches"),
    )

    link_id: uuid.UUID = Field(primary_key=True)
    package_id: uuid.UUID = Field(foreign_key="code_package.package_id")
    label: str = Field(sa_type=Text)
    secret_sha256: bytes = Field(sa_type=LargeBinary)
    expires_at: datetime = Field(sa_type=Moment)
    fetches_max: int
    fetches: int = 0
    created_at: datetime = Field(sa_type=Moment)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)


class PackageFetch(SQLModel, table=True):
    """One try to fetch a package that exists: whose link (none for an unknown code), from where, and how it ended."""

    __tablename__: ClassVar[str] = "package_fetch"
    __table_args__ = (
        CheckConstraint(f"outcome IN ({', '.join(repr(outcome.value) for outcome in Outcome)})", name="outcome"),
        CheckConstraint("(link_id IS NULL) = (outcome = 'unknown-secret')", name="link"),
    )

    package_id: uuid.UUID = Field(primary_key=True, foreign_key="code_package.package_id")
    fetch_id: uuid.UUID = Field(primary_key=True)
    link_id: uuid.UUID | None = Field(default=None, foreign_key="package_link.link_id")
    at: datetime = Field(sa_type=Moment)
    outcome: str = Field(sa_type=Text)
    remote: str | None = Field(default=None, sa_type=Text)


@dataclass(frozen=True, slots=True)
class Fetch:
    """A try to fetch: the package when it may be sent, else the refusal that the caller is told of."""

    outcome: Outcome
    package: CodePackage | None
    refusal: FanxingError | None


async def create(
    session: Session, package: CodePackage, label: str, lifetime: timedelta, fetches_max: int, now: datetime
) -> tuple[PackageLink, str]:
    """A new link, and its fetch code, which is never shown again.

    `label` (1 to 100 printable characters) says whom it is for. Raises PackageLinkInvalid: a link lives for a minute
    to 365 days and allows 1 to 100 fetches.
    """
    if not 1 <= len(label.strip()) <= LABEL_CHARACTERS_MAX or not label.isprintable():
        raise PackageLinkInvalid(f"a label is 1 to {LABEL_CHARACTERS_MAX} printable characters: whom the link is for")
    if not LIFETIME_MIN <= lifetime <= LIFETIME_MAX:
        raise PackageLinkInvalid(f"a link lives for 1 minute to {LIFETIME_MAX.days} days")
    if not 1 <= fetches_max <= FETCHES_MAX:
        raise PackageLinkInvalid(f"a link allows 1 to {FETCHES_MAX} fetches, not {fetches_max:,}")
    code = f"fxp_{secrets.token_urlsafe(32)}"
    link = PackageLink(
        link_id=new_id(),
        package_id=package.package_id,
        label=label.strip(),
        secret_sha256=_hash(code),
        expires_at=now + lifetime,
        fetches_max=fetches_max,
        created_at=now,
    )
    session.add(link)
    await session.flush()
    return link, code


async def fetch(session: Session, package_id: uuid.UUID, code: str, remote: str | None, now: datetime) -> Fetch:
    """Count a fetch before its first byte, or write down why it is refused; the caller commits either, then answers.

    Of all who try at once no more than the link's `fetches_max` get the package: the database decides, at one stroke.
    A wrong package and a wrong code are refused alike.
    """
    link = await _link(session, package_id, code)
    if link is None:
        if await session.get(CodePackage, package_id) is not None:
            _write_down(session, package_id, None, Outcome.UNKNOWN_CODE, remote, now)
        return Fetch(Outcome.UNKNOWN_CODE, None, _unknown())
    counted = await session.exec(
        update(PackageLink)
        .where(
            col(PackageLink.link_id) == link.link_id,
            col(PackageLink.fetches) < PackageLink.fetches_max,
            col(PackageLink.expires_at) > now,
            col(PackageLink.revoked_at).is_(None),
        )
        .values(fetches=PackageLink.fetches + 1)
        .execution_options(synchronize_session=False)
    )
    if counted.rowcount:
        _write_down(session, package_id, link, Outcome.FETCHED, remote, now)
        package = await session.get_one(CodePackage, package_id)
        detail = {"package": str(package_id), "link": str(link.link_id)}
        await record_act(session, package.order_id, "package_fetched", link.label, detail, now)
        return Fetch(Outcome.FETCHED, package, None)
    await session.refresh(link)
    outcome, refusal = _why_refused(link, now)
    _write_down(session, package_id, link, outcome, remote, now)
    return Fetch(outcome, None, refusal)


def _why_refused(link: PackageLink, now: datetime) -> tuple[Outcome, FanxingError]:
    hint = "Ask the brand for a new link."
    if link.revoked_at is not None:
        return Outcome.REVOKED, PackageLinkRevoked("this link was revoked", hint=hint)
    if link.expires_at <= now:
        return Outcome.EXPIRED, PackageLinkExpired("this link has expired", hint=hint)
    return Outcome.SPENT, PackageLinkSpent(f"this link's fetches are used up: {link.fetches_max}", hint=hint)


def _write_down(
    session: Session,
    package_id: uuid.UUID,
    link: PackageLink | None,
    outcome: Outcome,
    remote: str | None,
    now: datetime,
) -> None:
    session.add(
        PackageFetch(
            package_id=package_id,
            fetch_id=new_id(),
            link_id=link.link_id if link else None,
            at=now,
            outcome=outcome,
            remote=remote[:REMOTE_CHARACTERS_MAX] if remote else None,
        )
    )


async def authenticate(session: Session, package_id: uuid.UUID, code: str) -> tuple[CodePackage, PackageLink]:
    """The package and the link that a fetch code belongs to, for what costs no fetch.

    A link that is spent or has expired is still good for it, since labels are printed after they were fetched.
    Raises PackageUnknown, PackageLinkRevoked.
    """
    link = await _link(session, package_id, code)
    if link is None:
        raise _unknown()
    if link.revoked_at is not None:
        raise PackageLinkRevoked("this link was revoked", hint="Ask the brand for a new link.")
    return await session.get_one(CodePackage, package_id), link


async def revoke(session: Session, link_id: uuid.UUID, now: datetime) -> PackageLink:
    """End a link at once. Raises PackageLinkUnknown."""
    await session.exec(
        update(PackageLink)
        .where(col(PackageLink.link_id) == link_id, col(PackageLink.revoked_at).is_(None))
        .values(revoked_at=now)
    )
    link = await session.get(PackageLink, link_id)
    if link is None:
        raise PackageLinkUnknown(f"there is no link {link_id}", hint="`fanxing package links` shows a package's links.")
    return link


async def links_of(session: Session, package_id: uuid.UUID) -> Sequence[PackageLink]:
    """A package's links, oldest first."""
    query = select(PackageLink).where(PackageLink.package_id == package_id).order_by(col(PackageLink.link_id))
    return (await session.exec(query)).all()


async def fetches_of(session: Session, package_id: uuid.UUID) -> Sequence[tuple[PackageFetch, PackageLink | None]]:
    """Every try to fetch a package, oldest first, with the link that was used."""
    query = (
        select(PackageFetch, PackageLink)
        .join(PackageLink, col(PackageLink.link_id) == PackageFetch.link_id, isouter=True)
        .where(PackageFetch.package_id == package_id)
        .order_by(col(PackageFetch.fetch_id))
    )
    return [(tried, link) for tried, link in await session.exec(query)]


async def _link(session: Session, package_id: uuid.UUID, code: str) -> PackageLink | None:
    if not _CODE.fullmatch(code):
        return None
    query = select(PackageLink).where(PackageLink.package_id == package_id, PackageLink.secret_sha256 == _hash(code))
    return (await session.exec(query)).first()


def _unknown() -> PackageUnknown:
    return PackageUnknown(
        "there is no package with this address and this fetch code",
        hint="Check both. The code begins with fxp_ and was told apart from the address.",
    )


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()
