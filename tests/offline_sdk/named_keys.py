"""Named keys: fixed private keys of both algorithms, and what they sign, for the test vectors and for fuzzing."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from offline_sdk import Algorithm, Bundle, Delta, DocumentType, Root, Signer, seal, to_be_signed

DOMAIN: Final = "vectors.example"
ISSUED: Final = 1_790_000_000
DAY_S: Final = 86_400
EXPIRES: Final = ISSUED + 30 * DAY_S
ROOT_EXPIRES: Final = ISSUED + 365 * DAY_S
NOW: Final = ISSUED + 3_600
ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_DOCUMENTS_REMEMBERED: Final = 256


@dataclass(frozen=True)
class Key:
    """A private key of 32 bytes, made from a name: whoever knows the name knows the key."""

    name: str
    algorithm: Algorithm
    secret: bytes

    @property
    def signer(self) -> Signer:
        return _signer(self.algorithm, self.secret)

    @property
    def public(self) -> bytes:
        return self.signer.public

    def sign(self, message: bytes) -> bytes:
        """64 bytes, the same each time: Ed25519 (RFC 8032), or ECDSA with the nonce of RFC 6979 and s low."""
        if self.algorithm is Algorithm.ED25519:
            return crypto_sign(message, _ed25519_secret(self.secret))[:64]
        r, s = decode_dss_signature(_p256(self.secret).sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


@cache
def key(name: str) -> Key:
    """The key of this name; those named "p256 …" are of that algorithm, all others are Ed25519's."""
    algorithm = Algorithm.ESP256 if name.startswith("p256 ") else Algorithm.ED25519
    return Key(name, algorithm, hashlib.sha256(b"fanxing vectors: " + name.encode()).digest())


def keys(*names: str) -> tuple[Key, ...]:
    """The keys of these names, ascending by key number as documents list them."""
    return tuple(sorted(map(key, names), key=lambda one: one.signer.kid))


def root_of(version: int, by: Iterable[Key], threshold: int, publishers: Iterable[Key], **fields: Any) -> Root:
    """A root of the domain, valid for a year unless told otherwise."""
    return Root(
        domain=fields.get("domain", DOMAIN),
        version=version,
        issued=ISSUED,
        expires=fields.get("expires", ROOT_EXPIRES),
        keys=tuple(one.signer for one in by),
        threshold=threshold,
        publishers=tuple(one.signer for one in publishers),
    )


@lru_cache(maxsize=_DOCUMENTS_REMEMBERED)
def signed(type_: DocumentType, payload: bytes, *by: Key) -> bytes:
    """The document of a payload, right or wrong, signed by these keys."""
    return seal(type_, payload, {one.signer: one.sign(to_be_signed(type_, payload, one.signer)) for one in by})


def published(bundle: Bundle, by: Key) -> bytes:
    """The document of a bundle."""
    return signed(DocumentType.BUNDLE, bundle.payload(), by)


def delta_of(base: Bundle, target: Bundle, by: Key) -> Delta:
    """The delta from one bundle to another, which this key publishes."""
    payload = target.payload()
    return Delta.between(base, target, by.signer, by.sign(to_be_signed(DocumentType.BUNDLE, payload, by.signer)))


def high_s(signature: bytes) -> bytes:
    """The other P-256 signature that ECDSA itself takes for right: n - s in place of s."""
    return signature[:32] + (P256_ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


def unreduced_s(signature: bytes) -> bytes:
    """The Ed25519 signature with S + L in place of S."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + ED25519_ORDER).to_bytes(32, "little")


@cache
def _signer(algorithm: Algorithm, secret: bytes) -> Signer:
    if algorithm is Algorithm.ED25519:
        return Signer(algorithm, crypto_sign_seed_keypair(secret)[0])
    point = _p256(secret).public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return Signer(algorithm, point)


@cache
def _ed25519_secret(secret: bytes) -> bytes:
    return crypto_sign_seed_keypair(secret)[1]


@cache
def _p256(secret: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(secret, "big") % P256_ORDER, ec.SECP256R1())
