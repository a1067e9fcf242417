"""Trust bundle: the signed list of keys, their scopes and the revocations that an offline verifier believes.

The payload of a document of `cose`, signed by one publisher of a trust domain. docs/trust-bundle.md describes it to the
byte. Nothing here reads a file, a clock or a private key.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

import cbor2

from . import cose, strict
from .algorithms import Algorithm, public_key_is_safe
from .code_text import KID_MAX, ORDER_MAX
from .cose import DocumentType, Signer
from .errors import BundleUntrusted, TrustMalformed
from .item_set import ItemSet
from .revocation import OrderRange, Revocations, RevokedItems

FORMAT_VERSION: Final = 2
KEYS_MAX: Final = 10_000
GTIN_PREFIXES_MAX: Final = 1_000
"""GTIN prefixes of one key."""
GTIN_PREFIX_DIGITS_MAX: Final = 12
DOMAIN_CHARS_MAX: Final = 100
ISSUER_CHARS_MAX: Final = 200
SEQ_MAX: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact (RFC 8259, 6)."""
TIME_MAX: Final = 253_402_300_799
"""9999-12-31T23:59:59Z in unix seconds, the last second that the standard library can show."""
FINGERPRINT_BYTES: Final = 32

_GTIN_PREFIX: Final = re.compile(f"[0-9]{{1,{GTIN_PREFIX_DIGITS_MAX}}}")

# Map keys of the payload, of a key and of the revocations. All are below 24, so each is one byte and numeric order is
# the bytewise order that deterministic encoding asks for.
_VERSION, _DOMAIN, _SEQ, _ISSUED, _EXPIRES, _KEYS, _REVOCATIONS, _PREV = range(1, 9)
_KID, _ALG, _PUBLIC, _ISSUER, _GTIN_PREFIXES, _NOT_BEFORE, _NOT_AFTER, _ORDER_MIN, _ORDER_MAX = range(1, 10)
_REVOKED_KEYS, _REVOKED_ORDERS, _REVOKED_ITEMS = range(1, 4)


@dataclass(frozen=True, slots=True)
class BundleKey:
    """One key that may sign code texts, with the scope that it is entitled to; a bad field raises TrustMalformed.

    `kid` 0..99999; `public` a safe public key of `algorithm`; `gtin_prefixes` ascending, 1 to 12 digits each, matched
    against the 13 digits of a GTIN-14 after its indicator digit; `not_before` and `not_after` in unix seconds, both
    included, bounding when a code is checked (None: unbounded); `order_min` and `order_max` 0..99999, both included.
    """

    kid: int
    public: bytes
    issuer: str
    gtin_prefixes: tuple[str, ...]
    not_before: int | None = None
    not_after: int | None = None
    order_min: int = 0
    order_max: int = ORDER_MAX
    algorithm: Algorithm = Algorithm.ED25519

    def __post_init__(self) -> None:
        strict.check_int(self.kid, "a key number", 0, KID_MAX)
        name = f"key {self.kid:05d}:"
        if type(self.algorithm) is not Algorithm or not public_key_is_safe(self.algorithm, self.public):
            raise TrustMalformed(f"{name} the public key is of a wrong length, not canonical, or of small order")
        strict.check_name(self.issuer, f"{name} the issuer", ISSUER_CHARS_MAX)
        strict.check_tuple_of(self.gtin_prefixes, str, f"{name} GTIN prefixes", 1, GTIN_PREFIXES_MAX)
        if not all(map(_GTIN_PREFIX.fullmatch, self.gtin_prefixes)):
            raise TrustMalformed(f"{name} a GTIN prefix is not 1 to {GTIN_PREFIX_DIGITS_MAX} digits")
        strict.check_ascending(self.gtin_prefixes, f"{name} the list of GTIN prefixes")
        if self.not_before is not None:
            strict.check_int(self.not_before, f"{name} not_before", 0, TIME_MAX)
        if self.not_after is not None:
            strict.check_int(self.not_after, f"{name} not_after", self.not_before or 0, TIME_MAX)
        strict.check_int(self.order_min, f"{name} order_min", 0, ORDER_MAX)
        strict.check_int(self.order_max, f"{name} order_max", self.order_min, ORDER_MAX)


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of a trust bundle; a field out of range raises TrustMalformed.

    `domain` names the trust domain; `seq` counts up from 1 with each publication; `issued` and `expires` are unix
    seconds, `expires` after `issued`; `keys` ascend by key number; `prev` is the fingerprint of the bundle before, None
    for the first one alone.
    """

    domain: str
    seq: int
    issued: int
    expires: int
    keys: tuple[BundleKey, ...]
    revocations: Revocations = field(default_factory=Revocations)
    prev: bytes | None = None

    def __post_init__(self) -> None:
        strict.check_name(self.domain, "the domain", DOMAIN_CHARS_MAX)
        strict.check_int(self.seq, "seq", 1, SEQ_MAX)
        strict.check_int(self.issued, "issued", 0, TIME_MAX - 1)
        strict.check_int(self.expires, "expires", self.issued + 1, TIME_MAX)
        strict.check_tuple_of(self.keys, BundleKey, "keys", 0, KEYS_MAX)
        strict.check_ascending([key.kid for key in self.keys], "the list of keys")
        if type(self.revocations) is not Revocations:
            raise TrustMalformed("revocations is not a Revocations")
        if self.seq == 1:
            if self.prev is not None:
                raise TrustMalformed("the first bundle names one before it")
        else:
            strict.check_bytes(self.prev, "prev", FINGERPRINT_BYTES)

    @classmethod
    def load(cls, document: bytes, publishers: Sequence[Signer]) -> Self:
        """Read a trust bundle that one of these publishers signed.

        The signature is verified before anything of the payload is interpreted. Raises TrustTruncated or TrustMalformed
        when the document is not one bundle in its one canonical form, BundleUntrusted when none of the publishers
        signed it, and AlgorithmMissing when the signature is P-256's and this installation cannot verify it.
        """
        return cls.from_payload(signed_payload(document, DocumentType.BUNDLE, publishers))

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read a payload whose signature was verified. Raises TrustMalformed unless it is in its one form."""
        fields = strict.cbor_map(strict.cbor(payload), "the payload", range(_VERSION, _PREV + 1), optional=(_PREV,))
        strict.check_version(fields[_VERSION], FORMAT_VERSION)
        bundle = cls(
            domain=fields[_DOMAIN],
            seq=fields[_SEQ],
            issued=fields[_ISSUED],
            expires=fields[_EXPIRES],
            keys=keys_from_cbor(fields[_KEYS]),
            revocations=revocations_from_cbor(fields[_REVOCATIONS]),
            prev=fields.get(_PREV),
        )
        # One content has one encoding: duplicate map keys, long forms, nulls and trailing bytes all end here.
        if bundle.payload() != payload:
            raise TrustMalformed("the payload is not in deterministic CBOR (RFC 8949, 4.2.1)")
        return bundle

    def payload(self) -> bytes:
        """Encode the content, as deterministic CBOR: what a publisher signs and the document carries."""
        fields = {
            _VERSION: FORMAT_VERSION,
            _DOMAIN: self.domain,
            _SEQ: self.seq,
            _ISSUED: self.issued,
            _EXPIRES: self.expires,
            _KEYS: keys_to_cbor(self.keys),
            _REVOCATIONS: revocations_to_cbor(self.revocations),
        }
        return cbor2.dumps(fields if self.prev is None else {**fields, _PREV: self.prev})

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the payload, which the next bundle gives as its `prev`."""
        return hashlib.sha256(self.payload()).digest()

    def as_json(self) -> dict[str, Any]:
        """Return the content for people, ready for json.dumps: times in ISO 8601 UTC, public keys in hex."""
        return {
            "seq": self.seq,
            "issued": _iso_time(self.issued),
            "expires": _iso_time(self.expires),
            "prev_hex": None if self.prev is None else self.prev.hex(),
            "domain": self.domain,
            "keys": [
                {
                    "kid": key.kid,
                    "alg": key.algorithm.label,
                    "public_hex": key.public.hex(),
                    "issuer": key.issuer,
                    "gtin_prefixes": list(key.gtin_prefixes),
                    "not_before": _iso_time(key.not_before),
                    "not_after": _iso_time(key.not_after),
                    "order_min": key.order_min,
                    "order_max": key.order_max,
                }
                for key in self.keys
            ],
            "revocations": {
                "keys": list(self.revocations.keys),
                "orders": [
                    {"gtin": span.gtin, "order_min": span.order_min, "order_max": span.order_max}
                    for span in self.revocations.orders
                ],
                "items": [
                    {"gtin": group.gtin, "order": group.order, "items": list(group.items)}
                    for group in self.revocations.items
                ],
            },
        }


def signed_payload(document: bytes, type_: DocumentType, publishers: Sequence[Signer]) -> bytes:
    """The payload of a document of this type that one of these publishers signed; nothing of it was interpreted."""
    envelope, *others = cose.read(document)
    if others or envelope.type is not type_:
        raise TrustMalformed(f"this is not one document of the type {type_}")
    if not cose.right_signers(envelope, publishers):
        raise BundleUntrusted("the document is not signed by a publisher of this root; fetch root and bundle again")
    return envelope.payload


def keys_to_cbor(keys: Sequence[BundleKey]) -> list[dict[int, Any]]:
    """What the encoder takes for these keys."""
    return [_key_to_cbor(key) for key in keys]


def keys_from_cbor(content: object) -> tuple[BundleKey, ...]:
    """Read what the decoder made of a list of keys, or raise TrustMalformed. Their order is not looked at."""
    return tuple(map(_key_from_cbor, strict.cbor_array(content, "keys")))


def revocations_to_cbor(revocations: Revocations) -> dict[int, Any]:
    """What the encoder takes for these revocations."""
    return {
        _REVOKED_KEYS: list(revocations.keys),
        _REVOKED_ORDERS: [[span.gtin, span.order_min, span.order_max] for span in revocations.orders],
        _REVOKED_ITEMS: [
            [group.gtin, group.order, len(group.items), group.items.packed()] for group in revocations.items
        ],
    }


def revocations_from_cbor(content: object) -> Revocations:
    """Read what the decoder made of revocations, or raise TrustMalformed."""
    fields = strict.cbor_map(content, "revocations", range(_REVOKED_KEYS, _REVOKED_ITEMS + 1))
    spans = strict.cbor_array(fields[_REVOKED_ORDERS], "revoked orders")
    groups = strict.cbor_array(fields[_REVOKED_ITEMS], "revoked items")
    return Revocations(
        keys=tuple(strict.cbor_array(fields[_REVOKED_KEYS], "revoked keys")),
        orders=tuple(OrderRange(*strict.cbor_array(span, "a revoked order range", 3)) for span in spans),
        items=tuple(_items_from_cbor(*strict.cbor_array(group, "a group of revoked items", 4)) for group in groups),
    )


def _key_to_cbor(key: BundleKey) -> dict[int, Any]:
    fields = {
        _KID: key.kid,
        _ALG: int(key.algorithm),
        _PUBLIC: key.public,
        _ISSUER: key.issuer,
        _GTIN_PREFIXES: list(key.gtin_prefixes),
        _NOT_BEFORE: key.not_before,
        _NOT_AFTER: key.not_after,
        _ORDER_MIN: key.order_min,
        _ORDER_MAX: key.order_max,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _key_from_cbor(content: object) -> BundleKey:
    fields = strict.cbor_map(content, "a key", range(_KID, _ORDER_MAX + 1), optional=(_NOT_BEFORE, _NOT_AFTER))
    return BundleKey(
        kid=fields[_KID],
        public=fields[_PUBLIC],
        issuer=fields[_ISSUER],
        gtin_prefixes=tuple(strict.cbor_array(fields[_GTIN_PREFIXES], "GTIN prefixes")),
        not_before=fields.get(_NOT_BEFORE),
        not_after=fields.get(_NOT_AFTER),
        order_min=fields[_ORDER_MIN],
        order_max=fields[_ORDER_MAX],
        algorithm=strict.algorithm(fields[_ALG]),
    )


def _items_from_cbor(gtin: Any, order: Any, count: Any, packed: Any) -> RevokedItems:
    return RevokedItems(gtin, order, ItemSet.read(count, packed))


def _iso_time(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
