"""API keys of brands, carriers of goods, shops, CRM systems and regulators: scoped, stored as hashes, shown once.

The text is `fx_ID_SECRET`. The secret has 256 random bits, so a plain SHA-256 protects it at rest.
"""

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final

from sqlalchemy import JSON, CheckConstraint, Column, LargeBinary, Text
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.errors import Forbidden, Invalid, NotFound, Unauthenticated
from kit.ids import derived_id
from kit.procedures import Kind, Step
from scan_api import sandbox

LABEL_CHARACTERS_MAX = 100
_TEXT = re.compile(r"fx_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class ApiKeyInvalid(Invalid):
    code = "ApiKeyInvalid"


class ApiKeyRefused(Unauthenticated):
    code = "ApiKeyRefused"


class ApiKeyUnknown(NotFound):
    code = "ApiKeyUnknown"


class OutOfScope(Forbidden):
    code = "OutOfScope"


class Role(StrEnum):
    BRAND = "brand"  # sees its orders, puts them on sale, records movements
    LOGISTICS = "logistics"  # records movements
    SHOP = "shop"  # speaks for a till or an online shop: purchases, redemptions
    CRM = "crm"  # reads and brings members, cards and consents for the brand's own systems
    REGULATOR = "regulator"  # reads the history of items; what its account reaches, `scan_api.regulators` decides
    AUDITOR = "auditor"  # reads for the brand's group what regulators looked at
    PARTNER = "partner"  # sees what passed through it, and what brands share with it


class ApiKey(SQLModel, table=True):
    """A key's hash, its role and its scope. An empty list of prefixes means every GTIN; no brand means every brand."""

    __tablename__: ClassVar[str] = "api_key"
    __table_args__ = (
        CheckConstraint(
            "role IN ('brand', 'logistics', 'shop', 'crm', 'regulator', 'auditor', 'partner')", name="role"
        ),
    )

    key_id: str = Field(primary_key=True, sa_type=Text)
    role: str = Field(sa_type=Text)
    label: str = Field(sa_type=Text)
    brand_id: int | None = None
    gtin_prefixes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    sandbox: bool = False
    """Whether its brand is one of make-believe; a key never changes sides."""
    secret_sha256: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(sa_type=Moment)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)

    @property
    def caller_id(self) -> uuid.UUID:
        """The id under which this caller's idempotency keys are kept."""
        return derived_id("api_key", self.key_id)

    def require_brand(self, brand_id: int) -> None:
        """Raises OutOfScope unless the key covers the brand."""
        if self.brand_id not in (None, brand_id):
            raise OutOfScope("this API key does not cover that brand")

    def covers_gtin(self, gtin: str) -> bool:
        """Whether the 14-digit GTIN lies under the key's prefixes."""
        return not self.gtin_prefixes or gtin.startswith(tuple(self.gtin_prefixes), 1)

    def require_all_gtins(self, what: str) -> None:
        """Raises OutOfScope for a key that is bound to prefixes; `what` says what it may not, as in "shares are"."""
        if self.gtin_prefixes:
            raise OutOfScope(f"{what} for keys that cover all of a brand's GTINs")

    def require_gtin(self, gtin: str) -> None:
        """Raises OutOfScope unless the key covers the 14-digit GTIN."""
        if not self.covers_gtin(gtin):
            raise OutOfScope("this API key does not cover that GTIN")


async def create(
    session: Session,
    role: Role,
    label: str,
    now: datetime,
    *,
    brand_id: int | None = None,
    gtin_prefixes: tuple[str, ...] = (),
) -> tuple[ApiKey, str]:
    """A new key and its text, which is never shown again. A sandbox brand's key is of the sandbox.

    Raises ApiKeyInvalid.
    """
    if not 1 <= len(label.strip()) <= LABEL_CHARACTERS_MAX or not label.isprintable():
        raise ApiKeyInvalid(
            f"a label is 1 to {LABEL_CHARACTERS_MAX} printable characters: who holds the key, and where"
        )
    if role not in (Role.REGULATOR, Role.PARTNER) and brand_id is None:
        raise ApiKeyInvalid(f"a key for the role {role} needs a brand")
    if not all(prefix.isascii() and prefix.isdigit() and len(prefix) <= 13 for prefix in gtin_prefixes):
        raise ApiKeyInvalid("a GTIN prefix is 1 to 13 digits")
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    key = ApiKey(
        key_id=key_id,
        role=role,
        label=label.strip(),
        brand_id=brand_id,
        gtin_prefixes=sorted(gtin_prefixes),
        sandbox=await sandbox.is_sandbox_brand(session, brand_id),
        secret_sha256=_hash(secret),
        created_at=now,
    )
    session.add(key)
    await session.flush()
    return key, f"fx_{key_id}_{secret}"


async def authenticate(session: Session, authorization: str | None, *roles: Role) -> ApiKey:
    """The key in an `Authorization: Bearer` header. Raises ApiKeyRefused, and OutOfScope for another role."""
    found = _read(authorization)
    key = await session.get(ApiKey, found[1]) if found else None
    if found is None or key is None or not hmac.compare_digest(key.secret_sha256, _hash(found[2])):
        key = None
    return _admitted(key, roles)


KEY: Final = Step(
    "SELECT role, label, brand_id, gtin_prefixes, sandbox, created_at, revoked_at FROM api_key "
    "WHERE key_id = :key_id AND secret_sha256 = :secret_hash",
    gives={
        "role": Kind.TEXT,
        "label": Kind.TEXT,
        "brand_id": Kind.INTEGER,
        "gtin_prefixes": Kind.JSON,
        "sandbox": Kind.BOOLEAN,
        "created_at": Kind.MOMENT,
        "revoked_at": Kind.MOMENT,
    },
)
"""For procedures: the key that `values` name, whose answer `admitted` judges. Steps after it know its `:brand_id`."""
PARAMETERS: Final = {"key_id": Kind.TEXT, "secret_hash": Kind.BYTES}


def values(authorization: str | None) -> dict[str, Any]:
    """The parameters of `KEY` for an `Authorization: Bearer` header."""
    found = _read(authorization)
    return dict(zip(PARAMETERS, (found[1], _hash(found[2])) if found else ("", b""), strict=True))


def admitted(authorization: str | None, found: Mapping[str, Any], *roles: Role) -> ApiKey:
    """The key that `KEY` found for the `values` of this header. Raises as `authenticate`."""
    if found["role"] is None:
        return _admitted(None, roles)
    key_id, secret_sha256 = values(authorization).values()
    key = ApiKey(key_id=key_id, secret_sha256=secret_sha256, **{name: found[name] for name in KEY.gives})
    return _admitted(key, roles)


def _read(authorization: str | None) -> re.Match[str] | None:
    scheme, _, text = (authorization or "").partition(" ")
    return _TEXT.fullmatch(text) if scheme.lower() == "bearer" else None


def _admitted(key: ApiKey | None, roles: Sequence[Role]) -> ApiKey:
    if key is None:
        raise ApiKeyRefused("a valid API key is needed", hint="Send it as `Authorization: Bearer fx_…`.")
    if key.sandbox:
        sandbox.mark_answer()
    if key.revoked_at is not None:
        raise ApiKeyRefused("this API key was revoked", hint="Ask for a new one.")
    if key.role not in roles:
        raise OutOfScope(f"an API key with the role {key.role} may not do this")
    return key


async def revoke(session: Session, key_id: str, now: datetime) -> ApiKey:
    """End a key at once. Raises ApiKeyUnknown."""
    key = await session.get(ApiKey, key_id)
    if key is None:
        raise ApiKeyUnknown(f"there is no API key {key_id}", hint="`fanxing api-key list` shows the keys.")
    key.revoked_at = key.revoked_at or now
    session.add(key)
    return key


async def everyone(session: Session) -> list[ApiKey]:
    """All keys, oldest first."""
    return list((await session.exec(select(ApiKey).order_by(col(ApiKey.created_at)))).all())


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
