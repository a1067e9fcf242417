"""Trust bundles: what scanners know about keys and revocations, signed by the root, with a sequence that only rises."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from sqlalchemy import LargeBinary, Text
from sqlmodel import Field, SQLModel, col, func, select

from kit.db import Moment, Session
from kit.errors import Invalid, Unavailable
from offline_sdk.bundle import Bundle, BundleKey, seal, to_be_signed
from offline_sdk.errors import VerifyError
from offline_sdk.revocation import Revocations
from signer.keys import Issuer, KeyState, Revocation, SigningKey, take_turn
from signer.service import SigningService

LIFETIME_MIN = timedelta(seconds=1)  # bundles count whole seconds
LIFETIME_DEFAULT = timedelta(days=30)
LIFETIME_MAX = timedelta(days=366)


class BundleLifetimeInvalid(Invalid):
    code = "BundleLifetimeInvalid"


class TrustBundleRefused(Unavailable):
    code = "TrustBundleRefused"


class TrustBundleMissing(Unavailable):
    code = "TrustBundleMissing"


class TrustBundle(SQLModel, table=True):
    """A published bundle, kept for ever: it is evidence of what scanners were told, and when."""

    __tablename__: ClassVar[str] = "trust_bundle"

    seq: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    issued_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)
    sha256: str = Field(sa_type=Text)
    document: bytes = Field(sa_type=LargeBinary)


async def publish(
    session: Session,
    service: SigningService,
    domain: str,
    root_public: bytes,
    now: datetime,
    lifetime: timedelta = LIFETIME_DEFAULT,
) -> TrustBundle:
    """Sign the present state of keys and revocations as the next bundle. Publications at once go one after another.

    Raises BundleLifetimeInvalid unless the lifetime is 1 second to 366 days, and TrustBundleRefused when scanners would
    not take the bundle: the root key is not the one of `root_public`, or there is more in it than a bundle holds.
    """
    if not LIFETIME_MIN <= lifetime <= LIFETIME_MAX:
        raise BundleLifetimeInvalid(f"a bundle lives 1 second to {LIFETIME_MAX.days} days")
    await take_turn(session)
    highest = (await session.exec(select(func.max(TrustBundle.seq)))).one()
    issued = int(now.timestamp())
    try:
        bundle = Bundle(
            domain=domain,
            seq=(highest or 0) + 1,
            issued=issued,
            expires=issued + int(lifetime.total_seconds()),
            keys=await _keys(session),
            revocations=await _revocations(session),
        )
        payload = bundle.payload()
        document = seal(payload, root_public, service.sign_as_root(to_be_signed(payload, root_public)))
        Bundle.load(document, root_public)  # never publish what a scanner would refuse
    except VerifyError as error:
        raise TrustBundleRefused(
            f"scanners would refuse the next trust bundle: {error.message}", hint="Nothing was published."
        ) from None
    published = TrustBundle(
        seq=bundle.seq,
        # The document's own moments, in whole seconds: the row says what scanners were told.
        issued_at=datetime.fromtimestamp(bundle.issued, UTC),
        expires_at=datetime.fromtimestamp(bundle.expires, UTC),
        sha256=hashlib.sha256(document).hexdigest(),
        document=document,
    )
    session.add(published)
    await session.flush()
    return published


async def latest(session: Session) -> TrustBundle:
    """The bundle with the highest sequence number. Raises TrustBundleMissing when none was published."""
    bundle = await newer_than(session, 0)
    if bundle is None:
        raise TrustBundleMissing("no trust bundle was published yet", hint="`fanxing bundle publish` makes one.")
    return bundle


async def newer_than(session: Session, seq: int) -> TrustBundle | None:
    """The latest bundle, if its sequence number is above this one."""
    newer = select(TrustBundle).where(TrustBundle.seq > seq).order_by(col(TrustBundle.seq).desc()).limit(1)
    return (await session.exec(newer)).first()


async def _keys(session: Session) -> tuple[BundleKey, ...]:
    rows = await session.exec(
        select(SigningKey, Issuer)
        .join(Issuer, col(SigningKey.issuer_id) == Issuer.issuer_id)
        .order_by(col(SigningKey.kid))
    )
    return tuple(
        BundleKey(
            kid=key.kid,
            public=key.public,
            issuer=issuer.name,
            gtin_prefixes=tuple(issuer.gtin_prefixes),
            not_before=int(key.not_before.timestamp()) if key.not_before else None,
            not_after=int(key.not_after.timestamp()) if key.not_after else None,
            order_min=key.order_min,
            order_max=key.order_max,
        )
        for key, issuer in rows
    )


async def _revocations(session: Session) -> Revocations:
    revoked_keys = await session.exec(select(SigningKey.kid).where(SigningKey.state == KeyState.REVOKED))
    rows = (await session.exec(select(Revocation))).all()
    return Revocations.collect(
        keys=revoked_keys,
        orders=((row.gtin, row.order_min, row.order_max) for row in rows if row.item_number is None),
        items=((row.gtin, row.order_min, row.item_number) for row in rows if row.item_number is not None),
    )
