"""Root documents of this installation: who may publish its trust bundles, and who may change that."""

from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import LargeBinary, Text
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, Unavailable
from offline_sdk import cose
from offline_sdk.algorithms import Algorithm
from offline_sdk.cose import DocumentType, Signer
from offline_sdk.errors import VerifyError
from offline_sdk.root import Root, follow
from signer.custody import PrivateKeyMissing
from signer.keys import take_turn
from signer.service import SigningService

ROOT_LIFETIME_DEFAULT = timedelta(days=730)
ROOT_LIFETIME_MAX = timedelta(days=3_660)
FIRST_VERSION = 1
ROOT_NAME = "root-1"
PUBLISHER_NAME = "publisher-1"
"""In custody, of the keys that `fanxing init` makes."""


class RootMissing(Unavailable):
    code = "RootMissing"


class RootRefused(Invalid):
    code = "RootRefused"


class RootDraftInvalid(Invalid):
    code = "RootDraftInvalid"


class DocumentKeyExists(Conflict):
    code = "DocumentKeyExists"


class PublisherMissing(Unavailable):
    code = "PublisherMissing"


class RootDocument(SQLModel, table=True):
    """A root document that was installed, kept for ever: scanners follow the chain from the one that they pin."""

    __tablename__: ClassVar[str] = "root_document"

    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    fingerprint: str = Field(sa_type=Text)
    document: bytes = Field(sa_type=LargeBinary)
    expires_at: datetime = Field(sa_type=Moment)
    installed_at: datetime = Field(sa_type=Moment)


class DocumentKey(SQLModel, table=True):
    """The public side of a key in this installation's custody that signs documents: as a root, or as a publisher."""

    __tablename__: ClassVar[str] = "document_key"

    custody_name: str = Field(primary_key=True, sa_type=Text)
    algorithm: int
    public: bytes = Field(sa_type=LargeBinary, unique=True)
    created_at: datetime = Field(sa_type=Moment)

    @property
    def signer(self) -> Signer:
        return Signer(Algorithm(self.algorithm), self.public)


async def create_document_key(
    session: Session, service: SigningService, name: str, algorithm: Algorithm, now: datetime
) -> DocumentKey:
    """Make a key for root documents or bundles under this custody name. Raises DocumentKeyExists, CustodyError."""
    if await session.get(DocumentKey, name) is not None:
        raise DocumentKeyExists(f"there is a key named {name} already", hint="`fanxing root keys` shows them.")
    return await _entered(session, name, service.create_named(name, algorithm), now)


async def _entered(session: Session, name: str, signer: Signer, now: datetime) -> DocumentKey:
    key = DocumentKey(custody_name=name, algorithm=int(signer.algorithm), public=signer.public, created_at=now)
    session.add(key)
    await session.flush()
    return key


async def document_keys(session: Session) -> list[DocumentKey]:
    """The keys of this custody that sign documents, oldest first."""
    by_age = select(DocumentKey).order_by(col(DocumentKey.created_at), col(DocumentKey.custody_name))
    return list((await session.exec(by_age)).all())


async def chain(session: Session, above: int = 0) -> list[RootDocument]:
    """The installed root documents above this version, ascending."""
    newer = select(RootDocument).where(RootDocument.version > above).order_by(col(RootDocument.version))
    return list((await session.exec(newer)).all())


async def current(session: Session, pin: bytes) -> Root:
    """The newest root, followed from the pinned one. Raises RootMissing, RootRefused when the chain does not hold."""
    rows = await chain(session)
    if not rows:
        raise RootMissing("there is no root document yet", hint="`fanxing init` makes one, `fanxing root install` too.")
    return _followed([row.document for row in rows], pin)


async def install(session: Session, document: bytes, pin: bytes | None, now: datetime) -> Root:
    """Take up the next root document. Without a pin it is the first of all, and becomes the pinned one.

    Raises RootRefused when a scanner would not follow it from the pinned one: the wrong version, too few signatures, a
    foreign root; or when it has expired.
    """
    await take_turn(session)
    rows = await chain(session)
    if (pin is None) != (not rows):
        raise RootRefused(
            "root file and database do not belong together: one has a root and the other none",
            hint="`fanxing init` writes the root file that is missing.",
        )
    root = _followed([*(row.document for row in rows), document], pin or fingerprint_of(document))
    if root.version != (rows[-1].version if rows else 0) + 1:
        raise RootRefused(f"the next root document has version {len(rows) + 1}, and not {root.version}")
    if root.expires <= now.timestamp():
        raise RootRefused("the root document has expired", hint="Draft it anew.")
    session.add(
        RootDocument(
            version=root.version,
            fingerprint=root.fingerprint.hex(),
            document=document,
            expires_at=datetime.fromtimestamp(root.expires, now.tzinfo),
            installed_at=now,
        )
    )
    await session.flush()
    return root


def draft(
    domain: str,
    version: int,
    keys: list[Signer],
    threshold: int,
    publishers: list[Signer],
    now: datetime,
    lifetime: timedelta = ROOT_LIFETIME_DEFAULT,
) -> bytes:
    """A root document that nobody has signed yet. Raises RootDraftInvalid."""
    if not timedelta(seconds=1) <= lifetime <= ROOT_LIFETIME_MAX:
        raise RootDraftInvalid(f"a root document lives at most {ROOT_LIFETIME_MAX.days} days")
    issued = int(now.timestamp())
    try:
        root = Root(
            domain=domain,
            version=version,
            issued=issued,
            expires=issued + int(lifetime.total_seconds()),
            keys=tuple(sorted(set(keys), key=lambda signer: signer.kid)),
            threshold=threshold,
            publishers=tuple(sorted(set(publishers), key=lambda signer: signer.kid)),
        )
        return cose.seal(DocumentType.ROOT, root.payload(), {})
    except VerifyError as error:
        raise RootDraftInvalid(f"no root document can be made of this: {error.message}") from None


def read_draft(document: bytes) -> Root:
    """What a root document says, whoever signed it. Raises RootRefused. For people who are to sign it."""
    try:
        return Root.from_payload(_envelope_of(document).payload)
    except VerifyError as error:
        raise RootRefused(f"this is no root document: {error.message}") from None


def sign(service: SigningService, name: str, document: bytes) -> bytes:
    """The root document with a signature more, by the key of this custody name. Raises RootRefused, CustodyError."""
    read_draft(document)
    envelope = _envelope_of(document)
    signer = service.named(name)
    signature = service.sign_named(name, cose.to_be_signed(DocumentType.ROOT, envelope.payload, signer))
    return cose.countersign(envelope, signer, signature)


def fingerprint_of(document: bytes) -> bytes:
    """What a scanner pins of a first root document, 32 bytes. Raises RootRefused."""
    return read_draft(document).fingerprint


async def establish(
    session: Session,
    service: SigningService,
    domain: str,
    now: datetime,
    algorithm: Algorithm = Algorithm.ED25519,
) -> Root:
    """Make an installation's first root, one of one, and its publisher; a root with more holders may follow.

    Keys that a run before made, and was stopped, are used: custody knows no transaction. Raises CustodyError,
    RootDraftInvalid, RootRefused.
    """
    mine, publisher = [
        await session.get(DocumentKey, name)
        or await _entered(session, name, _kept_or_made(service, name, algorithm), now)
        for name in (ROOT_NAME, PUBLISHER_NAME)
    ]
    document = draft(domain, FIRST_VERSION, [mine.signer], 1, [publisher.signer], now)
    return await install(session, sign(service, ROOT_NAME, document), None, now)


def _kept_or_made(service: SigningService, name: str, algorithm: Algorithm) -> Signer:
    try:
        return service.named(name)
    except PrivateKeyMissing:
        return service.create_named(name, algorithm)


async def publisher_here(session: Session, service: SigningService, root: Root) -> DocumentKey:
    """The newest key of this custody with which the root lets bundles be signed. Raises PublisherMissing, CustodyError.

    The database may know keys of other machines' custodies, too.
    """
    for key in reversed(await document_keys(session)):
        if key.signer in root.publishers and service.holds(key.custody_name, key.signer):
            return key
    raise PublisherMissing(
        "no key in this custody may sign trust bundles under the current root",
        hint="`fanxing root keys` and `fanxing root show` tell which keys are here and which are named.",
    )


def _envelope_of(document: bytes) -> cose.Envelope:
    """The envelope of one root document. Raises RootRefused for anything else."""
    try:
        envelopes = cose.read(document)
    except VerifyError as error:
        raise RootRefused(f"this is no root document: {error.message}") from None
    if len(envelopes) > 1:
        raise RootRefused("this is not one root document but several")
    if envelopes[0].type is not DocumentType.ROOT:
        raise RootRefused("this is not a root document")
    return envelopes[0]


def _followed(documents: list[bytes], pin: bytes) -> Root:
    try:
        return follow(cose.read(b"".join(documents)), pin)
    except VerifyError as error:
        raise RootRefused(
            f"scanners would not follow this root: {error.message}",
            hint="Enough holders must sign: `fanxing root show FILE` tells who has.",
        ) from None


def signed_by(document: bytes, signers: list[Signer]) -> list[Signer]:
    """Those of these signers whose right signature a root document bears, in the given order. Raises RootRefused."""
    right = cose.right_signers(_envelope_of(document), signers)
    return [signer for signer in dict.fromkeys(signers) if signer in right]
