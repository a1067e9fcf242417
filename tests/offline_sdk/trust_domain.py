"""A trust domain for tests: private keys from fixed seeds, and every document that they can sign, right or wrong."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nacl.signing import SigningKey

from offline_sdk import Algorithm, Bundle, BundleKey, Delta, DocumentType, Root, Signer, seal, to_be_signed

ISSUED = 1_790_000_000
DAY = 86_400


def key(name: str) -> SigningKey:
    """The private key of this name."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


def signer(name: str) -> Signer:
    return Signer(Algorithm.ED25519, bytes(key(name).verify_key))


def signers(names: Sequence[str]) -> tuple[Signer, ...]:
    return tuple(sorted(map(signer, names), key=lambda one: one.kid))


def sealed(type_: DocumentType, payload: bytes, names: Sequence[str]) -> bytes:
    """The document of this payload, signed by the keys of these names."""
    return seal(
        type_, payload, {signer(n): key(n).sign(to_be_signed(type_, payload, signer(n))).signature for n in names}
    )


def root(version: int = 1, keys: str = "a b c", threshold: int = 2, publishers: str = "p q", **fields: Any) -> Root:
    """A root whose keys and publishers are the keys of these names."""
    settled = {"domain": "demo.example", "issued": ISSUED, "expires": ISSUED + 365 * DAY} | fields
    return Root(
        version=version,
        keys=signers(keys.split()),
        threshold=threshold,
        publishers=signers(publishers.split()),
        **settled,
    )


def root_document(content: Root, by: str = "a b") -> bytes:
    return sealed(DocumentType.ROOT, content.payload(), by.split())


@dataclass(frozen=True)
class Published:
    """A bundle and its document."""

    bundle: Bundle
    document: bytes


def published(after: Bundle | None = None, by: str = "p", **fields: Any) -> Published:
    """The bundle that follows upon another one, unless the fields say otherwise."""
    seq = 1 if after is None else after.seq + 1
    settled = {
        "domain": "demo.example",
        "seq": seq,
        "issued": ISSUED + seq,
        "expires": ISSUED + 30 * DAY,
        "keys": (BundleKey(1, bytes(key("items").verify_key), "Fanxing Demo Dairy", ("690123456",)),),
        "prev": None if after is None else after.fingerprint,
    } | fields
    bundle = Bundle(**settled)
    return Published(bundle, sealed(DocumentType.BUNDLE, bundle.payload(), [by]))


def history(count: int) -> list[Published]:
    """So many bundles, each following upon the one before."""
    bundles = [published()]
    while len(bundles) < count:
        bundles.append(published(bundles[-1].bundle))
    return bundles


def delta_document(base: Published, target: Published, by: str = "p") -> bytes:
    delta = Delta.between(base.bundle, target.bundle, signer("p"), target.document[-64:])
    return sealed(DocumentType.DELTA, delta.payload(), [by])
