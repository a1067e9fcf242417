"""Accounts of regulators: an authority, its jurisdiction and the categories that it answers for."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from sqlalchemy import JSON, Column, ColumnElement, Text, or_
from sqlalchemy.orm import Mapped
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, ApiKeyRefused, Role
from scan_api.regulators import categories, keys, regions
from scan_api.regulators.categories import CATEGORIES_MAX
from scan_api.regulators.keys import LIFETIME_DAYS_DEFAULT, AccountKey
from scan_api.regulators.scope import Scope

NAME_CHARACTERS_MAX: Final = 100


class RegulatorInvalid(Invalid):
    code = "RegulatorInvalid"


class RegulatorUnknown(NotFound):
    code = "RegulatorUnknown"


class RegulatorEnded(Conflict):
    code = "RegulatorEnded"


class RegulatorAccount(SQLModel, table=True):
    """An authority that may look. An empty list of regions or categories means all."""

    __tablename__: ClassVar[str] = "regulator_account"

    account_id: uuid.UUID = Field(primary_key=True)
    name: str = Field(sa_type=Text)
    regions: list[str] = Field(sa_column=Column(JSON, nullable=False))
    categories: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)


@dataclass(frozen=True, slots=True)
class Regulator:
    """Who asks, and what he may see."""

    key: ApiKey
    account: RegulatorAccount | None
    """None: a key from before there were accounts, which its own brand and prefixes bound alone."""
    scope: Scope

    @property
    def holder_id(self) -> uuid.UUID:
        """Whose his recall orders and exports are: the account's, whatever the key."""
        return self.account.account_id if self.account else self.key.caller_id

    @property
    def name(self) -> str:
        return self.account.name if self.account else self.key.label

    def asked_with(self, key_id: ColumnElement[str] | Mapped[str]) -> ColumnElement[bool]:
        """Which of the account's exports and subscriptions its key reaches, by the key that they were asked with.

        Its own; those of all keys on its side of the sandbox's wall only if no brand and no GTINs bound it.
        """
        own = key_id == self.key.key_id
        if self.key.brand_id is not None or self.key.gtin_prefixes:
            return own
        return or_(own, key_id.in_(select(ApiKey.key_id).where(col(ApiKey.sandbox) == self.key.sandbox)))


async def create(
    session: Session, name: str, regions_told: Collection[str], categories_told: Collection[str], now: datetime
) -> RegulatorAccount:
    """A new account. Raises RegulatorInvalid, RegionInvalid, CategoryInvalid."""
    account = RegulatorAccount(
        account_id=new_id(),
        name=_named(name),
        regions=list(regions.parse_all(regions_told)),
        categories=list(categories.parse_all(categories_told, CATEGORIES_MAX)),
        created_at=now,
    )
    session.add(account)
    await session.flush()
    return account


async def rescope(
    session: Session, account_id: uuid.UUID, regions_told: Collection[str], categories_told: Collection[str]
) -> RegulatorAccount:
    """Give an account another jurisdiction and other categories, from now on.

    Raises RegulatorUnknown, RegulatorEnded, RegionInvalid, CategoryInvalid.
    """
    account = await account_with(session, account_id)
    if account.ended_at is not None:
        raise RegulatorEnded(f"the account of {account.name} has ended", hint="Make a new one.")
    account.regions = list(regions.parse_all(regions_told))
    account.categories = list(categories.parse_all(categories_told, CATEGORIES_MAX))
    session.add(account)
    await session.flush()
    return account


async def end(session: Session, account_id: uuid.UUID, now: datetime) -> RegulatorAccount:
    """End an account and all its keys at once; what it looked at stays recorded. Raises RegulatorUnknown."""
    account = await account_with(session, account_id)
    account.ended_at = account.ended_at or now
    session.add(account)
    await keys.revoke_all(session, account_id, now)
    await session.flush()
    return account


async def account_with(session: Session, account_id: uuid.UUID) -> RegulatorAccount:
    """Raises RegulatorUnknown."""
    account = await session.get(RegulatorAccount, account_id)
    if account is None:
        raise RegulatorUnknown(f"there is no regulator {account_id}", hint="`fanxing regulator list` shows them.")
    return account


async def everyone(session: Session) -> list[RegulatorAccount]:
    """All accounts, oldest first."""
    return list(await session.exec(select(RegulatorAccount).order_by(col(RegulatorAccount.account_id))))


async def create_key(
    session: Session,
    account_id: uuid.UUID,
    label: str,
    now: datetime,
    *,
    days: int = LIFETIME_DAYS_DEFAULT,
    brand_id: int | None = None,
    gtin_prefixes: tuple[str, ...] = (),
) -> tuple[AccountKey, str]:
    """A new key of an account, which its brand and prefixes bound further. Raises RegulatorUnknown, RegulatorEnded,

    and what `keys.create` raises.
    """
    account = await account_with(session, account_id)
    if account.ended_at is not None:
        raise RegulatorEnded(f"the account of {account.name} has ended", hint="Make a new one.")
    return await keys.create(
        session, Role.REGULATOR, account_id, label, now, days=days, brand_id=brand_id, gtin_prefixes=gtin_prefixes
    )


async def authenticate(session: Session, authorization: str | None, now: datetime) -> Regulator:
    """The regulator who calls. Raises ApiKeyRefused, and OutOfScope for a key of another role.

    Whatever regulators may ask starts here: `api_keys.authenticate` alone knows no account, and no expiry.
    """
    return await _regulator(session, await api_keys.authenticate(session, authorization, Role.REGULATOR), now)


async def with_key(session: Session, key_id: str, now: datetime) -> Regulator | None:
    """The regulator who once called with a key, and may still; None: key or account ended."""
    key = await session.get(ApiKey, key_id)
    if key is None or key.revoked_at is not None or key.role != Role.REGULATOR:
        return None
    try:
        return await _regulator(session, key, now)
    except ApiKeyRefused:
        return None


async def _regulator(session: Session, key: ApiKey, now: datetime) -> Regulator:
    account_id = await keys.account_of(session, key, now)
    account = None if account_id is None else await session.get_one(RegulatorAccount, account_id)
    if account is not None and account.ended_at is not None:
        raise ApiKeyRefused("this account has ended", hint="Ask for a new one.")
    return Regulator(key, account, scope_of(key, account))


def scope_of(key: ApiKey, account: RegulatorAccount | None) -> Scope:
    """What a key of an account may see."""
    return Scope(
        regions=tuple(account.regions) if account else (),
        categories=tuple(account.categories) if account else (),
        gtin_prefixes=tuple(key.gtin_prefixes),
        brand_id=key.brand_id,
        sandbox=key.sandbox,
    )


def _named(name: str) -> str:
    if not 1 <= len(name.strip()) <= NAME_CHARACTERS_MAX or not name.strip().isprintable():
        raise RegulatorInvalid(f"a name is 1 to {NAME_CHARACTERS_MAX} printable characters: which authority")
    return name.strip()
