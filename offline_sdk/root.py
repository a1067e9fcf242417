"""Root: the signed document that names a domain's root keys and publishers, its pin, and the chain of its versions.

What a device pins is a fingerprint; which versions follow is decided by signatures alone, M of the keys before and M
of the keys after (TUF specification 1.0.34, 5.3). docs/trust-root.md describes it to the byte. Nothing here reads a
file or a clock.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import cbor2

from . import strict
from .bundle import DOMAIN_CHARS_MAX, SEQ_MAX, TIME_MAX
from .cose import DocumentType, Envelope, Signer, right_signers
from .errors import BundleMismatch, ForeignRoot, ThresholdMissed, TrustMalformed

ROOT_FORMAT: Final = 2
ROOT_VERSION_MAX: Final = SEQ_MAX
ROOT_KEYS_MAX: Final = 11
"""So that all of one version and all of the next can sign one document (cose.SIGNATURES_MAX)."""
PUBLISHERS_MAX: Final = 16
PIN_BYTES: Final = 32
PIN_FILE_BYTES: Final = 2 * PIN_BYTES + 1

_PIN_FILE: Final = re.compile(rb"([0-9a-f]{64})\n")
# Map keys of the payload, in the order of their bytes.
_FORMAT, _DOMAIN, _VERSION, _ISSUED, _EXPIRES, _KEYS, _THRESHOLD, _PUBLISHERS = range(1, 9)


@dataclass(frozen=True, slots=True)
class Root:
    """The content of a root document; a field out of range raises TrustMalformed.

    `version` counts up from 1; `issued` and `expires` are unix seconds, `expires` after `issued`; `keys` are 1 to 11
    signers and `publishers` 1 to 16, each ascending by kid; `threshold`, 1 to the number of keys, is how many of the
    keys must sign this version and the next one.
    """

    domain: str
    version: int
    issued: int
    expires: int
    keys: tuple[Signer, ...]
    threshold: int
    publishers: tuple[Signer, ...]

    def __post_init__(self) -> None:
        strict.check_name(self.domain, "the root's domain", DOMAIN_CHARS_MAX)
        strict.check_int(self.version, "the root's version", 1, ROOT_VERSION_MAX)
        strict.check_int(self.issued, "the root's issued", 0, TIME_MAX - 1)
        strict.check_int(self.expires, "the root's expires", self.issued + 1, TIME_MAX)
        strict.check_tuple_of(self.keys, Signer, "root keys", 1, ROOT_KEYS_MAX)
        strict.check_ascending([key.kid for key in self.keys], "the list of root keys")
        strict.check_int(self.threshold, "the root's threshold", 1, len(self.keys))
        strict.check_tuple_of(self.publishers, Signer, "publishers", 1, PUBLISHERS_MAX)
        strict.check_ascending([key.kid for key in self.publishers], "the list of publishers")

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read a payload that is already known to be signed; raises TrustMalformed when it has not its one form."""
        content = strict.cbor_map(strict.cbor(payload), "the root document", range(_FORMAT, _PUBLISHERS + 1))
        strict.check_version(content[_FORMAT], ROOT_FORMAT)
        root = cls(
            domain=content[_DOMAIN],
            version=content[_VERSION],
            issued=content[_ISSUED],
            expires=content[_EXPIRES],
            keys=_signers(content[_KEYS], "root keys"),
            threshold=content[_THRESHOLD],
            publishers=_signers(content[_PUBLISHERS], "publishers"),
        )
        # One content has one encoding: duplicate map keys, long forms and trailing bytes all end here.
        if root.payload() != payload:
            raise TrustMalformed("the root document is not in deterministic CBOR (RFC 8949, 4.2.1)")
        return root

    def payload(self) -> bytes:
        """Encode the content as deterministic CBOR: what the root keys sign."""
        return cbor2.dumps(
            {
                _FORMAT: ROOT_FORMAT,
                _DOMAIN: self.domain,
                _VERSION: self.version,
                _ISSUED: self.issued,
                _EXPIRES: self.expires,
                _KEYS: [[int(key.algorithm), key.public] for key in self.keys],
                _THRESHOLD: self.threshold,
                _PUBLISHERS: [[int(key.algorithm), key.public] for key in self.publishers],
            }
        )

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the payload, 32 bytes: what a device pins."""
        return hashlib.sha256(self.payload()).digest()


def read_pin(content: bytes) -> bytes:
    """Read the content of a root file, 64 lower-case hex digits and LF, or raise ForeignRoot."""
    found = _PIN_FILE.fullmatch(content) if isinstance(content, bytes) else None
    if found is None:
        raise ForeignRoot("the root file is not one line of 64 lower-case hex digits; fetch it again")
    return bytes.fromhex(found[1].decode("ascii"))


def format_pin(fingerprint: bytes) -> bytes:
    """The content of the root file of this 32-byte fingerprint; raises ForeignRoot for another length."""
    if not isinstance(fingerprint, bytes) or len(fingerprint) != PIN_BYTES:
        raise ForeignRoot(f"a pin is the {PIN_BYTES} bytes of a root document's fingerprint")
    return fingerprint.hex().encode("ascii") + b"\n"


def follow(envelopes: Sequence[Envelope], pin: bytes, held: Root | None = None) -> Root:
    """The last root that the root documents among these lead to; raises as `newer_roots` and `refuse_returned` do."""
    newer = newer_roots(envelopes, pin, held)
    refuse_returned([root for root, _ in newer])
    if newer:
        return newer[-1][0]
    if held is None:
        raise ForeignRoot("there is no root document here; get a trust file with the pinned one")
    return held


def refuse_returned(roots: Sequence[Root]) -> None:
    """Raise TrustMalformed when one of these roots, each following upon the last, names a publisher that had left.

    Its old bundles would be rightly signed once more, and where the sequence number was forgotten meanwhile nothing
    would tell them from news.
    """
    left: set[Signer] = set()
    for before, after in pairwise(roots):
        left.update(set(before.publishers) - set(after.publishers))
        if left.intersection(after.publishers):
            raise TrustMalformed(f"root version {after.version} names a publisher that had left; make a new key for it")


def newer_roots(envelopes: Sequence[Envelope], pin: bytes, held: Root | None) -> list[tuple[Root, Envelope]]:
    """The roots after the one held, in order, each vouched for: the first by the pin or the held root, then in turn.

    A payload is interpreted only after that. Without a held root the first is the pinned one. Documents before the
    first that is known are passed over unread, so that a file may tell the whole history.

    Raises ForeignRoot when the pinned document is missing, nobody known signed a document, or a version is left out;
    ThresholdMissed when too few did; BundleMismatch when a document is of another domain or contradicts the held one;
    TrustMalformed when a payload is malformed or a signature is not right; AlgorithmMissing.
    """
    documents = [envelope for envelope in envelopes if envelope.type is DocumentType.ROOT]
    fingerprints = [hashlib.sha256(envelope.payload).digest() for envelope in documents]
    if held is not None and (known := held.fingerprint) in fingerprints:
        documents, root = documents[fingerprints.index(known) + 1 :], held
    elif pin in fingerprints:
        at = fingerprints.index(pin)
        root = _pinned(documents[at])
        newer = [] if held is not None else [(root, documents[at])]
        return newer + _successors(root, documents[at + 1 :], held)
    elif held is not None:
        root = held
    elif documents:
        raise ForeignRoot("the pinned root document is not among these; use the trust file of the pin's own domain")
    else:
        return []
    return _successors(root, documents, held)


def _successors(root: Root, documents: Sequence[Envelope], held: Root | None) -> list[tuple[Root, Envelope]]:
    newer, taken = [], {root.payload()}
    for document in documents:
        if document.payload in taken:
            continue  # a file that repeats one document ten thousand times must not cost as many verifications
        after = _successor(root, document)
        taken.add(document.payload)
        if after.version <= root.version:
            continue
        root = after
        if held is None or root.version > held.version:
            newer.append((root, document))
        elif root.version == held.version and root != held:
            raise BundleMismatch(
                f"root version {root.version} has another content than the one held: its keys signed two histories"
            )
    return newer


def _pinned(document: Envelope) -> Root:
    root = Root.from_payload(document.payload)
    signed = right_signers(document, root.keys)
    _check_threshold(len(signed), root.threshold, "its own keys")
    # A later version was also signed by keys of the one before it, which nobody here knows; version 1 has none before.
    if root.version == 1 and len(signed) != len(document.signatures):
        raise TrustMalformed("root version 1 has a signature that is not right, or is a stranger's")
    return root


def _successor(before: Root, document: Envelope) -> Root:
    """The root of a document that `before` vouches for: the next one, or `before` or an older one once more."""
    signed = right_signers(document, before.keys)
    _check_threshold(len(signed), before.threshold, f"the keys of root version {before.version}")
    root = Root.from_payload(document.payload)
    if root.domain != before.domain:
        raise BundleMismatch(f"a root document is of the domain {root.domain}, not of {before.domain}")
    if root.version < before.version or root == before:
        return root
    if root.version == before.version:
        raise BundleMismatch(
            f"root version {root.version} has another content than the one held: its keys signed two histories"
        )
    if root.version > before.version + 1:
        raise ForeignRoot(
            f"root version {before.version + 1} is missing before version {root.version}; get the whole trust file"
        )
    own = right_signers(document, root.keys)
    _check_threshold(len(own), root.threshold, "its own keys")
    if len(signed | own) != len(document.signatures):
        raise TrustMalformed(f"root version {root.version} has a signature that is not right, or is a stranger's")
    return root


def _check_threshold(right: int, threshold: int, whose: str) -> None:
    if right == 0:
        raise ForeignRoot(f"a root document bears no right signature by {whose}")
    if right < threshold:
        raise ThresholdMissed(f"a root document bears {right} right signatures of {threshold} needed by {whose}")


def _signers(content: object, name: str) -> tuple[Signer, ...]:
    pairs = [strict.cbor_array(pair, f"a member of {name}", 2) for pair in strict.cbor_array(content, name)]
    return tuple(Signer(strict.algorithm(algorithm), public) for algorithm, public in pairs)
