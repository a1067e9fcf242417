"""Partners: carriers, distributors and retailers, and what brands share with them, each share revocable."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from sqlalchemy import JSON, CheckConstraint, Column, Text
from sqlmodel import Field, SQLModel, col, func, select

from codes.catalogue import Product
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, ApiKeyRefused, Role
from scan_api.provenance.documents import EVENT_TYPES
from scan_api.provenance.parties import party_name
from scan_api.regulators import keys
from scan_api.regulators.keys import LIFETIME_DAYS_DEFAULT, AccountKey
from scan_api.regulators.visibility import Share, Viewer

NAME_CHARACTERS_MAX: Final = 100
IDENTIFIERS_MAX: Final = 100
IDENTIFIER_CHARACTERS_MAX: Final = 500
GTINS_PER_SHARE_MAX: Final = 1_000
SHARES_MAX: Final = 100
"""Of one brand with one partner, that are not revoked."""


class PartnerInvalid(Invalid):
    code = "PartnerInvalid"


class PartnerUnknown(NotFound):
    code = "PartnerUnknown"


class PartnerEnded(Conflict):
    code = "PartnerEnded"


class ShareInvalid(Invalid):
    code = "ShareInvalid"


class ShareUnknown(NotFound):
    code = "ShareUnknown"


class TooManyShares(Conflict):
    code = "TooManyShares"


class PartnerAccount(SQLModel, table=True):
    """A partner, and the identifiers under which events name it and its places."""

    __tablename__: ClassVar[str] = "partner"

    partner_id: uuid.UUID = Field(primary_key=True)
    name: str = Field(sa_type=Text)
    identifiers: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)


class PartnerShare(SQLModel, table=True):
    """What a brand shares with a partner. An empty list of GTINs or types means all."""

    __tablename__: ClassVar[str] = "partner_share"
    __table_args__ = (CheckConstraint("until_time IS NULL OR since_time < until_time", name="times"),)

    brand_id: int = Field(primary_key=True, foreign_key="brand.brand_id")
    partner_id: uuid.UUID = Field(primary_key=True, foreign_key="partner.partner_id")
    share_id: uuid.UUID = Field(primary_key=True)
    gtins: list[str] = Field(sa_column=Column(JSON, nullable=False))
    types: list[str] = Field(sa_column=Column(JSON, nullable=False))
    since_time: datetime = Field(sa_type=Moment)
    until_time: datetime | None = Field(default=None, sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)
    created_by: str = Field(sa_type=Text)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)
    revoked_by: str | None = Field(default=None, sa_type=Text)


@dataclass(frozen=True, slots=True)
class Partner:
    """Who asks, and what he may see."""

    key: ApiKey
    account: PartnerAccount
    viewer: Viewer


async def create(session: Session, name: str, identifiers: Collection[str], now: datetime) -> PartnerAccount:
    """A new partner, known by 1 to 100 GLNs or URIs. Raises PartnerInvalid."""
    if not 1 <= len(name.strip()) <= NAME_CHARACTERS_MAX or not name.strip().isprintable():
        raise PartnerInvalid(f"a name is 1 to {NAME_CHARACTERS_MAX} printable characters")
    if not 1 <= len(identifiers) <= IDENTIFIERS_MAX:
        raise PartnerInvalid(f"a partner has 1 to {IDENTIFIERS_MAX} identifiers")
    for one in identifiers:
        if not 1 <= len(one) <= IDENTIFIER_CHARACTERS_MAX or not one.isprintable():
            raise PartnerInvalid(f"an identifier has 1 to {IDENTIFIER_CHARACTERS_MAX} printable characters")
    partner = PartnerAccount(
        partner_id=new_id(),
        name=name.strip(),
        identifiers=sorted({party_name(one) for one in identifiers}),
        created_at=now,
    )
    session.add(partner)
    await session.flush()
    return partner


async def end(session: Session, partner_id: uuid.UUID, now: datetime) -> PartnerAccount:
    """End a partner and all its keys at once. Raises PartnerUnknown."""
    partner = await partner_with(session, partner_id)
    partner.ended_at = partner.ended_at or now
    session.add(partner)
    await keys.revoke_all(session, partner_id, now)
    await session.flush()
    return partner


async def partner_with(session: Session, partner_id: uuid.UUID) -> PartnerAccount:
    """Raises PartnerUnknown."""
    partner = await session.get(PartnerAccount, partner_id)
    if partner is None:
        raise PartnerUnknown(f"there is no partner {partner_id}", hint="`fanxing partner list` shows them.")
    return partner


async def everyone(session: Session) -> list[PartnerAccount]:
    """All partners, oldest first."""
    return list(await session.exec(select(PartnerAccount).order_by(col(PartnerAccount.partner_id))))


async def create_key(
    session: Session, partner_id: uuid.UUID, label: str, now: datetime, *, days: int = LIFETIME_DAYS_DEFAULT
) -> tuple[AccountKey, str]:
    """A new key of a partner. Raises PartnerUnknown, PartnerEnded, and what `keys.create` raises."""
    partner = await partner_with(session, partner_id)
    if partner.ended_at is not None:
        raise PartnerEnded(f"{partner.name} is no partner any more", hint="Make a new one.")
    return await keys.create(session, Role.PARTNER, partner_id, label, now, days=days)


async def authenticate(session: Session, authorization: str | None, now: datetime) -> Partner:
    """The partner who calls. Raises ApiKeyRefused, and OutOfScope for a key of another role."""
    key = await api_keys.authenticate(session, authorization, Role.PARTNER)
    partner_id = await keys.account_of(session, key, now)
    account = None if partner_id is None else await session.get(PartnerAccount, partner_id)
    if account is None or account.ended_at is not None:
        raise ApiKeyRefused("this key is of no partner", hint="`fanxing partner key` makes one.")
    return Partner(key, account, await viewer_of(session, account))


async def viewer_of(session: Session, partner: PartnerAccount) -> Viewer:
    """What decides what a partner sees: its identifiers, its keys, and the shares that hold."""
    shares = await session.exec(
        select(PartnerShare).where(
            col(PartnerShare.partner_id) == partner.partner_id, col(PartnerShare.revoked_at).is_(None)
        )
    )
    return Viewer(
        frozenset(partner.identifiers),
        frozenset(key.caller_id for key, _made in await keys.keys_of(session, partner.partner_id)),
        tuple(
            Share(one.brand_id, frozenset(one.gtins), frozenset(one.types), one.since_time, one.until_time)
            for one in shares
        ),
    )


async def share(
    session: Session,
    brand_id: int,
    partner_id: uuid.UUID,
    gtins: Collection[str],
    types: Collection[str],
    since: datetime,
    until: datetime | None,
    by: str,
    now: datetime,
) -> PartnerShare:
    """Share a brand's events with a partner, from now on, also those of the past that it covers.

    Raises PartnerUnknown, PartnerEnded, ShareInvalid, TooManyShares (100 that hold).
    """
    if (await partner_with(session, partner_id)).ended_at is not None:
        raise PartnerEnded("this is no partner any more")
    if not set(types) <= set(EVENT_TYPES):
        raise ShareInvalid("types of events are " + ", ".join(sorted(EVENT_TYPES)))
    if until is not None and until <= since:
        raise ShareInvalid("a share ends after it begins")
    if len(set(gtins)) > GTINS_PER_SHARE_MAX:
        raise ShareInvalid(f"a share names at most {GTINS_PER_SHARE_MAX:,} GTINs")
    owned = select(func.count()).where(col(Product.brand_id) == brand_id, col(Product.gtin).in_(set(gtins)))
    if gtins and (await session.exec(owned)).one() != len(set(gtins)):
        raise ShareInvalid("a brand shares what is of its own products")
    if len([one for one in await shares_of(session, brand_id, partner_id) if one.revoked_at is None]) >= SHARES_MAX:
        raise TooManyShares(f"a brand has at most {SHARES_MAX} shares with one partner", hint="Revoke one.")
    made = PartnerShare(
        brand_id=brand_id,
        partner_id=partner_id,
        share_id=new_id(),
        gtins=sorted(set(gtins)),
        types=sorted(set(types)),
        since_time=since,
        until_time=until,
        created_at=now,
        created_by=by,
    )
    session.add(made)
    await session.flush()
    return made


async def revoke(session: Session, brand_id: int, share_id: uuid.UUID, by: str, now: datetime) -> PartnerShare:
    """End a share at once; again, it stays so. Raises ShareUnknown."""
    asked = select(PartnerShare).where(col(PartnerShare.brand_id) == brand_id, col(PartnerShare.share_id) == share_id)
    found = (await session.exec(asked)).first()
    if found is None:
        raise ShareUnknown("there is no such share")
    if found.revoked_at is None:
        found.revoked_at, found.revoked_by = now, by
        session.add(found)
        await session.flush()
    return found


async def shares_of(session: Session, brand_id: int, partner_id: uuid.UUID | None = None) -> list[PartnerShare]:
    """A brand's shares, or those with one partner, oldest first, the revoked among them."""
    asked = select(PartnerShare).where(col(PartnerShare.brand_id) == brand_id)
    if partner_id is not None:
        asked = asked.where(col(PartnerShare.partner_id) == partner_id)
    return list(await session.exec(asked.order_by(col(PartnerShare.share_id))))
