"""Trust bundles: what scanners know about keys and revocations, signed by a publisher, with a rising sequence."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from sqlalchemy import LargeBinary, Text
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.errors import Invalid, Unavailable
from offline_sdk import cose
from offline_sdk.bundle import Bundle, BundleKey
from offline_sdk.cose import DocumentType
from offline_sdk.delta import Delta
from offline_sdk.errors import VerifyError
from offline_sdk.revocation import Revocations
from signer import roots
from signer.keys import Issuer, KeyState, Revocation, SigningKey, take_turn
from signer.service import SigningService

LIFETIME_MIN = timedelta(seconds=1)  # bundles count whole seconds
LIFETIME_DEFAULT = timedelta(days=30)
LIFETIME_MAX = timedelta(days=366)
DELTAS_MAX = 100
"""Deltas that lead from an older bundle to the newest; who is further behind fetches the whole bundle."""


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
    delta: bytes | None = Field(default=None, sa_type=LargeBinary)
    """What leads here from the bundle before, when that is shorter than the bundle itself."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What besides the revocations scanners must refuse: (gtin, first order, last order) and (gtin, order, item).

    `left_out` are the orders, (gtin, order), of whose voided items scanners are not told: there are too many.
    """

    orders: tuple[tuple[str, int, int], ...] = ()
    items: tuple[tuple[str, int, int], ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()


async def publish(
    session: Session,
    service: SigningService,
    pin: bytes,
    now: datetime,
    lifetime: timedelta = LIFETIME_DEFAULT,
    withdrawn: Withdrawn | None = None,
) -> TrustBundle:
    """Sign the present state of keys and revocations as the next bundle. Publications at once go one after another.

    `pin` is the fingerprint of the root document that scanners trust. Raises BundleLifetimeInvalid unless the lifetime
    is 1 second to 366 days, RootMissing, RootRefused, PublisherMissing, and TrustBundleRefused when scanners would not
    take the bundle: the root has expired, or there is more in it than a bundle holds.
    """
    if not LIFETIME_MIN <= lifetime <= LIFETIME_MAX:
        raise BundleLifetimeInvalid(f"a bundle lives 1 second to {LIFETIME_MAX.days} days")
    await take_turn(session)
    root = await roots.current(session, pin)
    publisher = await roots.publisher_here(session, service, root)
    before = await newer_than(session, 0)
    issued = int(now.timestamp())
    try:
        if issued >= root.expires:
            raise TrustBundleRefused("the root has expired", hint="`fanxing root draft` begins its renewal.")
        base = None if before is None else Bundle.from_payload(_payload_of(before.document))
        bundle = Bundle(
            domain=root.domain,
            seq=1 if base is None else base.seq + 1,
            issued=issued,
            expires=issued + int(lifetime.total_seconds()),
            keys=await _keys(session),
            revocations=await _revocations(session, withdrawn or Withdrawn()),
            prev=None if base is None else base.fingerprint,
        )
        document, signature = _signed(service, publisher, DocumentType.BUNDLE, bundle.payload())
        Bundle.load(document, root.publishers)  # never publish what a scanner would refuse
        delta = None if base is None else _delta(service, publisher, base, bundle, signature)
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
        delta=delta if delta is not None and len(delta) < len(document) else None,
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


async def deltas_to(session: Session, seq: int) -> dict[int, bytes]:
    """By the number of the bundle that they make: the last deltas up to this bundle, without a gap, at most 100."""
    rows = await session.exec(
        select(TrustBundle.seq, TrustBundle.delta)
        .where(TrustBundle.seq <= seq, TrustBundle.seq > seq - DELTAS_MAX)
        .order_by(col(TrustBundle.seq).desc())
    )
    found: dict[int, bytes] = {}
    for number, delta in rows:
        if delta is None:
            break
        found[number] = delta
    return found


async def trust_file(session: Session) -> bytes:
    """All root documents and the newest bundle, for a scanner wherever it stands. Raises TrustBundleMissing."""
    newest = await latest(session)
    return b"".join([*(row.document for row in await roots.chain(session)), newest.document])


def _payload_of(document: bytes) -> bytes:
    (envelope,) = cose.read(document)
    return envelope.payload


def _signed(
    service: SigningService, publisher: roots.DocumentKey, type_: DocumentType, payload: bytes
) -> tuple[bytes, bytes]:
    """The document of this payload, and the signature on it."""
    signer = publisher.signer
    signature = service.sign_named(publisher.custody_name, cose.to_be_signed(type_, payload, signer))
    return cose.seal(type_, payload, {signer: signature}), signature


def _delta(
    service: SigningService, publisher: roots.DocumentKey, base: Bundle, bundle: Bundle, signature: bytes
) -> bytes:
    delta = Delta.between(base, bundle, publisher.signer, signature)
    return _signed(service, publisher, DocumentType.DELTA, delta.payload())[0]


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
            algorithm=key.signature_algorithm,
        )
        for key, issuer in rows
    )


async def _revocations(session: Session, withdrawn: Withdrawn) -> Revocations:
    revoked_keys = await session.exec(select(SigningKey.kid).where(SigningKey.state == KeyState.REVOKED))
    rows = (await session.exec(select(Revocation))).all()
    return Revocations.collect(
        keys=revoked_keys,
        orders=[
            *((row.gtin, row.order_min, row.order_max) for row in rows if row.item_number is None),
            *withdrawn.orders,
        ],
        items=[
            *((row.gtin, row.order_min, row.item_number) for row in rows if row.item_number is not None),
            *withdrawn.items,
        ],
    )
