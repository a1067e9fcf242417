"""Delta: what changes between two trust bundles, so that a device that holds the first need not fetch the second whole.

The payload of a document of `cose`. Applied to the first bundle it gives the document of the second, to the byte, with
the publisher's own signature of it. docs/trust-bundle.md describes it to the byte.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Any, Self

import cbor2

from . import cose, strict
from .algorithms import SIGNATURE_BYTES
from .bundle import (
    DOMAIN_CHARS_MAX,
    FINGERPRINT_BYTES,
    FORMAT_VERSION,
    KEYS_MAX,
    SEQ_MAX,
    TIME_MAX,
    Bundle,
    BundleKey,
    keys_from_cbor,
    keys_to_cbor,
    revocations_from_cbor,
    revocations_to_cbor,
    signed_payload,
)
from .code_text import KID_MAX
from .cose import SIGNER_KID_BYTES, DocumentType, Signer
from .errors import BundleMismatch, BundleUntrusted, TrustMalformed
from .item_set import ItemSet
from .revocation import Revocations, RevokedItems

_Items = ItemSet | tuple[()]
# Map keys of the payload; below 24, as in a bundle.
(
    _VERSION, _DOMAIN, _BASE_SEQ, _BASE_FINGERPRINT, _SEQ, _ISSUED, _EXPIRES, _KEYS_PUT, _KEYS_REMOVED,
    _ADDED, _REMOVED, _PUBLISHER, _SIGNATURE, _PREV,
) = range(1, 15)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Delta:
    """The way from one bundle of a domain, the base, to a later one; a field out of range raises TrustMalformed.

    `seq`, `issued`, `expires` and `prev` are the later bundle's, as are `publisher` and `signature`: who signed it, and
    the 64 bytes. `keys_put` are new or changed. `added` and `removed` are revocations: order ranges count as a whole,
    items one by one.
    """

    domain: str
    base_seq: int
    base_fingerprint: bytes
    seq: int
    issued: int
    expires: int
    prev: bytes
    keys_put: tuple[BundleKey, ...]
    keys_removed: tuple[int, ...]
    added: Revocations
    removed: Revocations
    publisher: Signer
    signature: bytes

    def __post_init__(self) -> None:
        strict.check_name(self.domain, "the domain", DOMAIN_CHARS_MAX)
        strict.check_int(self.base_seq, "the base's seq", 1, SEQ_MAX - 1)
        strict.check_bytes(self.base_fingerprint, "the base's fingerprint", FINGERPRINT_BYTES)
        strict.check_int(self.seq, "seq", self.base_seq + 1, SEQ_MAX)
        strict.check_int(self.issued, "issued", 0, TIME_MAX - 1)
        strict.check_int(self.expires, "expires", self.issued + 1, TIME_MAX)
        strict.check_bytes(self.prev, "prev", FINGERPRINT_BYTES)
        if self.seq == self.base_seq + 1 and self.prev != self.base_fingerprint:
            raise TrustMalformed("prev is not the fingerprint of the bundle before")
        strict.check_tuple_of(self.keys_put, BundleKey, "keys put", 0, KEYS_MAX)
        strict.check_ascending([key.kid for key in self.keys_put], "the list of keys put")
        strict.check_tuple_of(self.keys_removed, int, "keys removed", 0, KEYS_MAX)
        strict.check_ascending(self.keys_removed, "the list of keys removed")
        for kid in self.keys_removed:
            strict.check_int(kid, "a key number removed", 0, KID_MAX)
        if not type(self.added) is type(self.removed) is Revocations:
            raise TrustMalformed("what is added or removed is not a Revocations")
        if type(self.publisher) is not Signer:
            raise TrustMalformed("the publisher is not a Signer")
        strict.check_bytes(self.signature, "the publisher's signature", SIGNATURE_BYTES)

    @classmethod
    def between(cls, base: Bundle, target: Bundle, publisher: Signer, signature: bytes) -> Self:
        """Tell what changes; `signature` is the one of `target`'s document, by this publisher.

        Raises BundleMismatch unless `target` is a later bundle of the same domain and, when it is the next one, names
        `base` as the one before it. Does not verify the signature.
        """
        fingerprint = base.fingerprint
        if base.domain != target.domain or target.seq <= base.seq or target.prev is None:
            raise BundleMismatch("a delta leads to a later bundle of the same domain")
        if target.seq == base.seq + 1 and target.prev != fingerprint:
            raise BundleMismatch("the later bundle follows upon another one")
        kids = {key.kid for key in target.keys}
        return cls(
            domain=target.domain,
            base_seq=base.seq,
            base_fingerprint=fingerprint,
            seq=target.seq,
            issued=target.issued,
            expires=target.expires,
            prev=target.prev,
            keys_put=_missing(target.keys, base.keys),
            keys_removed=tuple(key.kid for key in base.keys if key.kid not in kids),
            added=_revocations_missing(target.revocations, base.revocations),
            removed=_revocations_missing(base.revocations, target.revocations),
            publisher=publisher,
            signature=signature,
        )

    @classmethod
    def load(cls, document: bytes, publishers: Sequence[Signer]) -> Self:
        """Read a delta that one of these publishers signed; errors as of `Bundle.load`.

        Raises BundleUntrusted too when the later bundle is signed by none of them.
        """
        return cls.from_payload(signed_payload(document, DocumentType.DELTA, publishers), publishers)

    @classmethod
    def from_payload(cls, payload: bytes, publishers: Sequence[Signer]) -> Self:
        """Read a payload that is already known to be signed. Raises TrustMalformed, and BundleUntrusted as `load`."""
        fields = strict.cbor_map(strict.cbor(payload), "the payload", range(_VERSION, _PREV + 1), optional=(_PREV,))
        strict.check_version(fields[_VERSION], FORMAT_VERSION)
        strict.check_bytes(fields[_PUBLISHER], "the publisher's number", SIGNER_KID_BYTES)
        publisher = next((signer for signer in publishers if signer.kid == fields[_PUBLISHER]), None)
        if publisher is None:
            raise BundleUntrusted("the delta leads to a bundle of another publisher; fetch root and bundle again")
        delta = cls(
            domain=fields[_DOMAIN],
            base_seq=fields[_BASE_SEQ],
            base_fingerprint=fields[_BASE_FINGERPRINT],
            seq=fields[_SEQ],
            issued=fields[_ISSUED],
            expires=fields[_EXPIRES],
            prev=fields.get(_PREV, fields[_BASE_FINGERPRINT]),
            keys_put=keys_from_cbor(fields[_KEYS_PUT]),
            keys_removed=tuple(strict.cbor_array(fields[_KEYS_REMOVED], "keys removed")),
            added=revocations_from_cbor(fields[_ADDED]),
            removed=revocations_from_cbor(fields[_REMOVED]),
            publisher=publisher,
            signature=fields[_SIGNATURE],
        )
        if delta.payload() != payload:
            raise TrustMalformed("the payload is not in deterministic CBOR (RFC 8949, 4.2.1)")
        return delta

    def payload(self) -> bytes:
        """Encode the delta, as deterministic CBOR: what a publisher signs and the document carries."""
        fields = {
            _VERSION: FORMAT_VERSION,
            _DOMAIN: self.domain,
            _BASE_SEQ: self.base_seq,
            _BASE_FINGERPRINT: self.base_fingerprint,
            _SEQ: self.seq,
            _ISSUED: self.issued,
            _EXPIRES: self.expires,
            _KEYS_PUT: keys_to_cbor(self.keys_put),
            _KEYS_REMOVED: list(self.keys_removed),
            _ADDED: revocations_to_cbor(self.added),
            _REMOVED: revocations_to_cbor(self.removed),
            _PUBLISHER: self.publisher.kid,
            _SIGNATURE: self.signature,
        }
        # Upon the base itself follows only a bundle that names it as `prev`.
        return cbor2.dumps(fields if self.seq == self.base_seq + 1 else {**fields, _PREV: self.prev})

    def apply(self, base: Bundle) -> bytes:
        """Return the document of the later bundle: the very bytes that its publisher published.

        Raises BundleMismatch when this is no delta of `base`, or removes what is not there or adds what is;
        TrustMalformed when no bundle comes out; BundleUntrusted when it is not the one that the publisher signed; and
        AlgorithmMissing.
        """
        if base.domain != self.domain:
            raise BundleMismatch("the delta is of another trust domain; fetch the whole bundle")
        if base.seq != self.base_seq or base.fingerprint != self.base_fingerprint:
            raise BundleMismatch("the delta begins at another bundle than the one held; fetch the whole bundle")
        target = Bundle(
            domain=self.domain,
            seq=self.seq,
            issued=self.issued,
            expires=self.expires,
            keys=self._keys(base.keys),
            revocations=self._revocations(base.revocations),
            prev=self.prev,
        )
        document = cose.seal(DocumentType.BUNDLE, target.payload(), {self.publisher: self.signature})
        signed_payload(document, DocumentType.BUNDLE, [self.publisher])
        return document

    def _keys(self, held: tuple[BundleKey, ...]) -> tuple[BundleKey, ...]:
        by_kid = {key.kid: key for key in held}
        put = {key.kid: key for key in self.keys_put}
        if not set(self.keys_removed) <= by_kid.keys() - put.keys():
            raise BundleMismatch("the delta removes a key that the bundle held does not have, or that it puts as well")
        if any(by_kid.get(kid) == key for kid, key in put.items()):
            raise BundleMismatch("the delta puts a key that the bundle held has already")
        kept = {kid: key for kid, key in by_kid.items() if kid not in set(self.keys_removed)} | put
        return tuple(kept[kid] for kid in sorted(kept))

    def _revocations(self, held: Revocations) -> Revocations:
        return Revocations(
            keys=_changed(held.keys, self.added.keys, self.removed.keys),
            orders=_changed(held.orders, self.added.orders, self.removed.orders),
            items=_changed_groups(held, self.added, self.removed),
        )


def _missing(wanted: Iterable[Any], held: Iterable[Any]) -> tuple[Any, ...]:
    """Those of the wanted that are not held, in their order."""
    known = frozenset(held)
    return tuple(one for one in wanted if one not in known)


def _revocations_missing(wanted: Revocations, held: Revocations) -> Revocations:
    known = _groups(held)
    groups = []
    for group in wanted.items:
        others = known.get((group.gtin, group.order))
        if others is None:
            groups.append(group)
        elif others != group.items and (items := array("I", _without(group.items, others))):
            groups.append(RevokedItems(group.gtin, group.order, ItemSet.of(items)))
    return Revocations(_missing(wanted.keys, held.keys), _missing(wanted.orders, held.orders), tuple(groups))


def _changed(held: tuple[Any, ...], added: tuple[Any, ...], removed: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is held, with these added and those removed, ascending."""
    known, gone = frozenset(held), frozenset(removed)
    if not gone <= known or not known.isdisjoint(added):
        raise BundleMismatch("the delta removes a revocation that the bundle held does not have, or adds one it has")
    return tuple(sorted((known - gone).union(added)))


def _changed_groups(held: Revocations, added: Revocations, removed: Revocations) -> tuple[RevokedItems, ...]:
    """The same for single items; only the groups that change are unpacked."""
    groups, more, less = _groups(held), _groups(added), _groups(removed)
    for at in more.keys() | less.keys():
        items = _changed_items(groups.get(at, ()), more.get(at, ()), less.get(at, ()))
        if items:
            groups[at] = ItemSet.of(items)
        else:
            groups.pop(at, None)
    return tuple(RevokedItems(*at, groups[at]) for at in sorted(groups))


def _changed_items(held: _Items, added: _Items, removed: _Items) -> "array[int]":
    if not all(item in held for item in removed) or any(item in held for item in added):
        raise BundleMismatch("the delta removes an item that the bundle held does not have, or adds one it has")
    return array("I", merge(_without(held, removed), added))


def _groups(revocations: Revocations) -> dict[tuple[str, int], ItemSet]:
    return {(group.gtin, group.order): group.items for group in revocations.items}


def _without(items: Iterable[int], others: Iterable[int]) -> Iterator[int]:
    """Those of the ascending items that are not among the others, which ascend too."""
    rest = iter(others)
    other = next(rest, None)
    for item in items:
        while other is not None and other < item:
            other = next(rest, None)
        if item != other:
            yield item
