"""Trust bundle: the signed list of keys, their scopes and the revocations that an offline verifier believes.

A COSE_Sign1 document (RFC 9052, 4.2) in deterministic CBOR (RFC 8949, 4.2.1), signed by the root of one trust domain.
docs/trust-bundle.md describes it to the byte. Nothing here reads a file, a clock or a private key.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

import cbor2

from . import strict
from .code_text import KID_MAX, ORDER_MAX
from .ed25519 import SIGNATURE_BYTES, public_key_is_safe, signature_is_right
from .errors import BundleMalformed, BundleUntrusted
from .revocation import OrderRange, Revocations, RevokedItems

BUNDLE_VERSION: Final = 1
CONTENT_TYPE: Final = "application/vnd.fanxing.trust-bundle+cbor"
ALGORITHM_EDDSA: Final = -8  # RFC 9053, 2.2
ROOT_KID_BYTES: Final = 8
DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
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

_COSE_SIGN1_OF_FOUR: Final = b"\xd2\x84"  # tag 18, array of 4
_EMPTY_MAP: Final = b"\xa0"
_GTIN_PREFIX: Final = re.compile(f"[0-9]{{1,{GTIN_PREFIX_DIGITS_MAX}}}")
_ROOT_FILE: Final = re.compile(rb"([0-9a-f]{64})\n")

# Map keys of the payload, of a key and of the revocations. All are below 24, so each is one byte and numeric order is
# the bytewise order that deterministic encoding asks for.
_VERSION, _DOMAIN, _SEQ, _ISSUED, _EXPIRES, _KEYS, _REVOCATIONS = range(1, 8)
_KID, _ALG, _PUBLIC, _ISSUER, _GTIN_PREFIXES, _NOT_BEFORE, _NOT_AFTER, _ORDER_MIN, _ORDER_MAX = range(1, 10)
_REVOKED_KEYS, _REVOKED_ORDERS, _REVOKED_ITEMS = range(1, 4)


@dataclass(frozen=True, slots=True)
class BundleKey:
    """One key that may sign code texts, with the scope that it is entitled to; a bad field raises BundleMalformed.

    `kid` 0..99999; `public` 32 bytes, Ed25519; `gtin_prefixes` ascending, 1 to 12 digits each, matched against the 13
    digits of a GTIN-14 after its indicator digit; `not_before` and `not_after` in unix seconds, both included, bounding
    when a code is checked (None: unbounded); `order_min` and `order_max` 0..99999, both included.
    """

    kid: int
    public: bytes
    issuer: str
    gtin_prefixes: tuple[str, ...]
    not_before: int | None = None
    not_after: int | None = None
    order_min: int = 0
    order_max: int = ORDER_MAX

    def __post_init__(self) -> None:
        strict.check_int(self.kid, "a key number", 0, KID_MAX)
        name = f"key {self.kid:05d}:"
        if not public_key_is_safe(self.public):
            raise BundleMalformed(f"{name} the public key is not 32 bytes, not canonical or of small order")
        strict.check_name(self.issuer, f"{name} the issuer", ISSUER_CHARS_MAX)
        strict.check_tuple_of(self.gtin_prefixes, str, f"{name} GTIN prefixes", 1, GTIN_PREFIXES_MAX)
        if not all(map(_GTIN_PREFIX.fullmatch, self.gtin_prefixes)):
            raise BundleMalformed(f"{name} a GTIN prefix is not 1 to {GTIN_PREFIX_DIGITS_MAX} digits")
        strict.check_ascending(self.gtin_prefixes, f"{name} the list of GTIN prefixes")
        if self.not_before is not None:
            strict.check_int(self.not_before, f"{name} not_before", 0, TIME_MAX)
        if self.not_after is not None:
            strict.check_int(self.not_after, f"{name} not_after", self.not_before or 0, TIME_MAX)
        strict.check_int(self.order_min, f"{name} order_min", 0, ORDER_MAX)
        strict.check_int(self.order_max, f"{name} order_max", self.order_min, ORDER_MAX)


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of a trust bundle; a field out of range raises BundleMalformed.

    `domain` names the trust domain; `seq` counts up from 1 with each publication; `issued` and `expires` are unix
    seconds, `expires` after `issued`; `keys` ascend by key number.
    """

    domain: str
    seq: int
    issued: int
    expires: int
    keys: tuple[BundleKey, ...]
    revocations: Revocations = field(default_factory=Revocations)

    def __post_init__(self) -> None:
        strict.check_name(self.domain, "the domain", DOMAIN_CHARS_MAX)
        strict.check_int(self.seq, "seq", 1, SEQ_MAX)
        strict.check_int(self.issued, "issued", 0, TIME_MAX - 1)
        strict.check_int(self.expires, "expires", self.issued + 1, TIME_MAX)
        strict.check_tuple_of(self.keys, BundleKey, "keys", 0, KEYS_MAX)
        strict.check_ascending([key.kid for key in self.keys], "the list of keys")
        if type(self.revocations) is not Revocations:
            raise BundleMalformed("revocations is not a Revocations")

    @classmethod
    def load(cls, document: bytes, root_public: bytes) -> Self:
        """Read a trust bundle that this root signed.

        The signature is verified before anything of the payload is interpreted. Raises BundleUntrusted when it is not
        this root's, BundleMalformed when the document is not in its one canonical form, and nothing else.
        """
        payload, signature = _open_envelope(document, root_public)
        if not signature_is_right(root_public, to_be_signed(payload, root_public), signature):
            raise BundleUntrusted("the root's signature does not match; fetch the trust bundle again")
        bundle = cls._from_payload(payload)
        # One content has one encoding: duplicate map keys, long forms and trailing bytes all end here.
        if bundle.payload() != payload:
            raise BundleMalformed("the payload is not in deterministic CBOR (RFC 8949, 4.2.1)")
        return bundle

    @classmethod
    def _from_payload(cls, payload: bytes) -> Self:
        try:
            content = cbor2.loads(payload)
        # The decoder raises whatever its tag handlers raise (ValueError, TypeError, RecursionError, …), and callers
        # of load() only expect this package's errors.
        except Exception as error:
            raise BundleMalformed(f"the payload is not CBOR: {type(error).__name__}") from None
        fields = _map(content, "the payload", range(_VERSION, _REVOCATIONS + 1))
        if fields[_VERSION] != BUNDLE_VERSION:
            raise BundleMalformed("the bundle's version is not 1; update this software")
        return cls(
            domain=fields[_DOMAIN],
            seq=fields[_SEQ],
            issued=fields[_ISSUED],
            expires=fields[_EXPIRES],
            keys=tuple(map(_key_from_cbor, _array(fields[_KEYS], "keys"))),
            revocations=_revocations_from_cbor(fields[_REVOCATIONS]),
        )

    def payload(self) -> bytes:
        """Encode the content, as deterministic CBOR: what the root signs and the document carries."""
        return cbor2.dumps(
            {
                _VERSION: BUNDLE_VERSION,
                _DOMAIN: self.domain,
                _SEQ: self.seq,
                _ISSUED: self.issued,
                _EXPIRES: self.expires,
                _KEYS: [_key_to_cbor(key) for key in self.keys],
                _REVOCATIONS: {
                    _REVOKED_KEYS: list(self.revocations.keys),
                    _REVOKED_ORDERS: [[span.gtin, span.order_min, span.order_max] for span in self.revocations.orders],
                    _REVOKED_ITEMS: [[group.gtin, group.order, list(group.items)] for group in self.revocations.items],
                },
            }
        )

    def as_json(self) -> dict[str, Any]:
        """Return the content for people, ready for json.dumps: times in ISO 8601 UTC, public keys in hex."""
        return {
            "seq": self.seq,
            "issued": _iso_time(self.issued),
            "expires": _iso_time(self.expires),
            "domain": self.domain,
            "keys": [
                {
                    "kid": key.kid,
                    "alg": "Ed25519",
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


def to_be_signed(payload: bytes, root_public: bytes) -> bytes:
    """Return the bytes that the root's private key signs: the Sig_structure of RFC 9052, 4.4."""
    return cbor2.dumps(["Signature1", _protected(root_public), b"", payload])


def seal(payload: bytes, root_public: bytes, signature: bytes) -> bytes:
    """Return the document that carries this payload and the root's 64-byte signature of `to_be_signed`.

    The signature is not verified here: `Bundle.load` the document before publishing it.
    Raises BundleMalformed when the signature has another length or the document grows past DOCUMENT_BYTES_MAX.
    """
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise BundleMalformed(f"the root's signature is not {SIGNATURE_BYTES} bytes")
    document = _COSE_SIGN1_OF_FOUR + _bstr(_protected(root_public)) + _EMPTY_MAP + _bstr(payload) + _bstr(signature)
    if len(document) > DOCUMENT_BYTES_MAX:
        raise BundleMalformed(f"the document is longer than {DOCUMENT_BYTES_MAX} bytes; revoke whole orders")
    return document


def root_kid(root_public: bytes) -> bytes:
    """Return the first 8 bytes of SHA-256 of the root's public key; raises BundleUntrusted for a bad key."""
    if not public_key_is_safe(root_public):
        raise BundleUntrusted("the root is not a safe 32-byte Ed25519 public key; fetch it again from its publisher")
    return hashlib.sha256(root_public).digest()[:ROOT_KID_BYTES]


def read_root(content: bytes) -> bytes:
    """Read the content of a root file, 64 lower-case hex digits and LF, or raise BundleUntrusted."""
    found = _ROOT_FILE.fullmatch(content) if isinstance(content, bytes) else None
    if found is None:
        raise BundleUntrusted("the root file is not one line of 64 lower-case hex digits; fetch it again")
    public = bytes.fromhex(found[1].decode("ascii"))
    root_kid(public)
    return public


def format_root(root_public: bytes) -> bytes:
    """Return the content of the root file of this public key; raises BundleUntrusted for a bad key."""
    root_kid(root_public)
    return root_public.hex().encode("ascii") + b"\n"


def _protected(root_public: bytes) -> bytes:
    return cbor2.dumps({1: ALGORITHM_EDDSA, 3: CONTENT_TYPE, 4: root_kid(root_public)})


def _open_envelope(document: bytes, root_public: bytes) -> tuple[bytes, bytes]:
    """Take payload and signature out of a document, comparing bytes: no decoder meets what no one has signed."""
    if not isinstance(document, bytes):
        raise BundleMalformed("the document is not bytes")
    if len(document) > DOCUMENT_BYTES_MAX:
        raise BundleMalformed(f"the document is longer than {DOCUMENT_BYTES_MAX} bytes")
    head = _COSE_SIGN1_OF_FOUR + _bstr(_protected(root_public)) + _EMPTY_MAP
    if document[: len(head)] != head:
        before_kid = len(head) - ROOT_KID_BYTES - len(_EMPTY_MAP)
        if document[:before_kid] == head[:before_kid] and document[len(head) - 1 : len(head)] == _EMPTY_MAP:
            raise BundleUntrusted("the trust bundle is of another root; use the root file of its own publisher")
        raise BundleMalformed("the document does not begin as a trust bundle does (COSE_Sign1, EdDSA, content type)")
    signature = document[-SIGNATURE_BYTES:]
    tail = _bstr(signature)
    field_ = document[len(head) : -len(tail)]
    for payload in (field_[head_bytes:] for head_bytes in (1, 2, 3, 5)):
        if head + _bstr(payload) + tail == document:
            return payload, signature
    raise BundleMalformed("the document is not a payload and a 64-byte signature in deterministic CBOR")


def _bstr(data: bytes) -> bytes:
    """Encode a byte string as CBOR (RFC 8949, 3.1, major type 2)."""
    return cbor2.dumps(data)


def _key_to_cbor(key: BundleKey) -> dict[int, Any]:
    fields = {
        _KID: key.kid,
        _ALG: ALGORITHM_EDDSA,
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
    fields = _map(content, "a key", range(_KID, _ORDER_MAX + 1), optional=(_NOT_BEFORE, _NOT_AFTER))
    if fields[_ALG] != ALGORITHM_EDDSA:
        raise BundleMalformed("a key's algorithm is not EdDSA; update this software")
    for optional in (_NOT_BEFORE, _NOT_AFTER):
        if optional in fields and fields[optional] is None:
            raise BundleMalformed("a key's time bound is null; an unbounded side is left out")
    return BundleKey(
        kid=fields[_KID],
        public=fields[_PUBLIC],
        issuer=fields[_ISSUER],
        gtin_prefixes=tuple(_array(fields[_GTIN_PREFIXES], "GTIN prefixes")),
        not_before=fields.get(_NOT_BEFORE),
        not_after=fields.get(_NOT_AFTER),
        order_min=fields[_ORDER_MIN],
        order_max=fields[_ORDER_MAX],
    )


def _revocations_from_cbor(content: object) -> Revocations:
    fields = _map(content, "revocations", range(_REVOKED_KEYS, _REVOKED_ITEMS + 1))
    orders = [_triple(span, "a revoked order range") for span in _array(fields[_REVOKED_ORDERS], "revoked orders")]
    groups = [_triple(group, "a group of revoked items") for group in _array(fields[_REVOKED_ITEMS], "revoked items")]
    return Revocations(
        keys=tuple(_array(fields[_REVOKED_KEYS], "revoked keys")),
        orders=tuple(OrderRange(*span) for span in orders),
        items=tuple(
            RevokedItems(gtin, order, tuple(_array(items, "revoked item numbers"))) for gtin, order, items in groups
        ),
    )


def _map(content: object, name: str, known: range, optional: tuple[int, ...] = ()) -> dict[int, Any]:
    if type(content) is not dict or not set(content) <= set(known) <= set(content) | set(optional):
        raise BundleMalformed(f"{name} is not a map of exactly the fields of version {BUNDLE_VERSION}")
    return content


def _array(content: object, name: str) -> list[Any]:
    if type(content) is not list:
        raise BundleMalformed(f"{name} is not an array")
    return content


def _triple(content: object, name: str) -> list[Any]:
    triple = _array(content, name)
    if len(triple) != 3:
        raise BundleMalformed(f"{name} is not an array of three")
    return triple


def _iso_time(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
