"""Keys of accounts: API keys that expire, several for one regulator or partner, each revocable by itself."""

import uuid
from datetime import datetime, timedelta
from typing import ClassVar, Final

from sqlalchemy import CheckConstraint, Text, update
from sqlmodel import Field, SQLModel, col, func, select

from kit.clock import iso
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, ApiKeyRefused, Role

KEYS_PER_ACCOUNT_MAX: Final = 20
"""That are neither revoked nor expired."""
LIFETIME_DAYS_DEFAULT: Final = 365
LIFETIME_DAYS_MAX: Final = 1_096


class KeyLifetimeInvalid(Invalid):
    code = "KeyLifetimeInvalid"


class TooManyKeys(Conflict):
    code = "TooManyKeys"


class AccountKey(SQLModel, table=True):
    """Whose an API key is, and till when it holds."""

    __tablename__: ClassVar[str] = "account_key"
    __table_args__ = (CheckConstraint("created_at < expires_at", name="expires"),)

    key_id: str = Field(primary_key=True, sa_type=Text, foreign_key="api_key.key_id")
    account_id: uuid.UUID = Field(index=True)
    """Of a regulator's account, or a partner."""
    created_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)


async def create(
    session: Session,
    role: Role,
    account_id: uuid.UUID,
    label: str,
    now: datetime,
    *,
    days: int = LIFETIME_DAYS_DEFAULT,
    brand_id: int | None = None,
    gtin_prefixes: tuple[str, ...] = (),
) -> tuple[AccountKey, str]:
    """A new key of an account, for 1 to 1,096 days, and its text, which is never shown again.

    Raises ApiKeyInvalid, KeyLifetimeInvalid, TooManyKeys (20 that hold).
    """
    if not 1 <= days <= LIFETIME_DAYS_MAX:
        raise KeyLifetimeInvalid(f"a key holds for 1 to {LIFETIME_DAYS_MAX:,} days, not {days:,}")
    holding = (
        select(func.count())
        .select_from(AccountKey)
        .join(ApiKey, col(ApiKey.key_id) == AccountKey.key_id)
        .where(
            col(AccountKey.account_id) == account_id,
            col(AccountKey.expires_at) > now,
            col(ApiKey.revoked_at).is_(None),
        )
    )
    if (await session.exec(holding)).one() >= KEYS_PER_ACCOUNT_MAX:
        raise TooManyKeys(f"an account has at most {KEYS_PER_ACCOUNT_MAX} keys", hint="Revoke one that nobody uses.")
    key, text = await api_keys.create(session, role, label, now, brand_id=brand_id, gtin_prefixes=gtin_prefixes)
    made = AccountKey(key_id=key.key_id, account_id=account_id, created_at=now, expires_at=now + timedelta(days=days))
    session.add(made)
    await session.flush()
    return made, text


async def account_of(session: Session, key: ApiKey, now: datetime) -> uuid.UUID | None:
    """The account of a key that was just authenticated; None: it has none. Raises ApiKeyRefused once it expired."""
    made = await session.get(AccountKey, key.key_id)
    if made is None:
        return None
    if made.expires_at <= now:
        raise ApiKeyRefused(f"this API key expired at {iso(made.expires_at)}", hint="Ask for a new one.")
    return made.account_id


async def keys_of(session: Session, account_id: uuid.UUID) -> list[tuple[ApiKey, AccountKey]]:
    """An account's keys, oldest first, the revoked and expired among them."""
    rows = await session.exec(
        select(ApiKey, AccountKey)
        .join(AccountKey, col(AccountKey.key_id) == ApiKey.key_id)
        .where(col(AccountKey.account_id) == account_id)
        .order_by(col(AccountKey.created_at), col(AccountKey.key_id))
    )
    return [(key, made) for key, made in rows]


async def revoke_all(session: Session, account_id: uuid.UUID, now: datetime) -> None:
    """End all keys of an account at once."""
    own = select(AccountKey.key_id).where(col(AccountKey.account_id) == account_id)
    await session.exec(
        update(ApiKey).where(col(ApiKey.key_id).in_(own), col(ApiKey.revoked_at).is_(None)).values(revoked_at=now)
    )
