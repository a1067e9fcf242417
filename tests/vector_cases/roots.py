"""Roots: what a device that holds something makes of a trust file: chains of roots, and the rules of the store."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Final

import cbor2

from offline_sdk import Bundle, DocumentType, Root, TrustError, cose
from offline_sdk.trust_store import Memory, Trust, advance
from tests.offline_sdk.named_keys import (
    DAY_S,
    DOMAIN,
    EXPIRES,
    ISSUED,
    NOW,
    ROOT_EXPIRES,
    Key,
    delta_of,
    high_s,
    key,
    keys,
    published,
    root_of,
    signed,
    unreduced_s,
)
from tests.vector_cases.bundles import code_key
from tests.vector_cases.common import PUBLISHER, PUBLISHERS, ROOT_KEYS, Vectors, document_json, named

_P256_PUBLISHER: Final = key("p256 publisher 2")
_KEYS: Final = (code_key(1, "code 1", "690123456"),)
_NEW_KEYS: Final = keys("root 2", "root 3", "p256 root 6")


def _root(root: Root, *by: Key) -> bytes:
    return signed(DocumentType.ROOT, root.payload(), *by)


def _bundle(seq: int, prev: bytes | None = None, **changes: Any) -> Bundle:
    fields: dict[str, Any] = {"domain": DOMAIN, "issued": ISSUED, "expires": EXPIRES, "keys": _KEYS, **changes}
    return Bundle(seq=seq, prev=prev if seq == 1 or prev else bytes(32), **fields)


_ONE: Final = root_of(1, ROOT_KEYS, 2, PUBLISHERS)
_TWO: Final = root_of(2, ROOT_KEYS, 2, PUBLISHERS)
_THREE: Final = root_of(3, _NEW_KEYS, 2, PUBLISHERS)
_R1, _R2, _R3 = key("root 1"), key("root 2"), key("root 3")
_P6: Final = key("p256 root 6")
_ROOT_1: Final = _root(_ONE, _R1, _R2)
_ROOT_2: Final = _root(_TWO, _R1, _R3)
_ROOT_3: Final = _root(_THREE, _R1, _R2, _R3)
_B1: Final = _bundle(1)
_B2: Final = _bundle(2, _B1.fingerprint, issued=ISSUED + 60)
_B3: Final = _bundle(3, _B2.fingerprint, issued=ISSUED + 120)
_BUNDLE_1, _BUNDLE_2, _BUNDLE_3 = (published(bundle, PUBLISHER) for bundle in (_B1, _B2, _B3))

_Case = tuple[Any, ...]
"""What it is about, what is held, what is offered, the error; then maybe the time, the greatest time seen, the pin."""


def vectors() -> Vectors:
    for folder, parts in {
        "roots": (_chains, _thresholds, _signatures, _contents, _expiry, _recovery),
        "bundles": (_sequence, _freshness, _mixed, _files),
        "deltas": (_deltas,),
    }.items():
        taken: set[str] = set()
        for part in parts:
            for case in part():
                yield f"{folder}/update-{named(case[0], taken)}", _vector(*case)


def _vector(
    note: str, held: bytes, offered: bytes, error: str | None, now: int = NOW, seen: int = 0, pin: Root = _ONE
) -> dict[str, Any]:
    fingerprint = pin.fingerprint
    trust, memory = advance(Trust(), cose.read(held), fingerprint, Memory(), None) if held else (Trust(), Memory())
    memory = replace(memory, seen=seen)
    effective = max(now, seen, trust.bundle.issued if trust.bundle else 0)
    before = (trust, memory)
    came = None
    try:
        trust, memory = advance(trust, cose.read(offered), fingerprint, memory, effective)
    except TrustError as raised:
        came, trust, memory = raised.code, *before
    assert came == error, (note, came)
    return {
        "kind": "update",
        "note": note,
        "pin_hex": fingerprint.hex(),
        "held": {"trust_file_hex": held.hex(), "memory": asdict(before[1])},
        "offered_hex": offered.hex(),
        "offered": _documents(offered, error),
        "clock": {"now": now, "seen": seen, "effective": effective},
        "expected": {
            "error": error,
            "root_version": trust.root.version if trust.root else 0,
            "seq": trust.bundle.seq if trust.bundle else 0,
            "trust_file_sha256_hex": hashlib.sha256(trust.content()).hexdigest(),
            "memory": asdict(memory),
        },
    }


def _documents(offered: bytes, error: str | None) -> list[dict[str, Any]] | None:
    """The documents' parts; None where the file cannot be cut into documents."""
    try:
        envelopes = cose.read(offered)
    except TrustError:
        return None
    return [_summary(document_json(envelope.raw, readable=error != "TrustMalformed")) for envelope in envelopes]


def _summary(document: dict[str, Any]) -> dict[str, Any]:
    """Without what stands in the trust file anyhow."""
    names = ("alg", "kid_hex", "public_hex", "right", "sig_structure_sha256_hex")
    signatures = [{name: part[name] for name in names} for part in document["signatures"]]
    return {
        **{name: document[name] for name in ("content_type", "payload_sha256_hex")},
        "signatures": signatures,
        "content": document["content"],
    }


def _chains() -> list[_Case]:
    foreign = keys("root 4", "root 5")
    other = root_of(1, foreign, 1, PUBLISHERS)
    fork = replace(_TWO, issued=ISSUED + 1)
    return [
        ("first root alone", b"", _ROOT_1, None),
        ("three roots and a bundle", b"", _ROOT_1 + _ROOT_2 + _ROOT_3 + _BUNDLE_1, None),
        ("second root to a device that holds the first", _ROOT_1, _ROOT_2, None),
        ("whole history to a device that holds the first", _ROOT_1, _ROOT_1 + _ROOT_2 + _ROOT_3, None),
        ("old roots to a device that holds the third", _ROOT_1 + _ROOT_2 + _ROOT_3, _ROOT_1 + _ROOT_2, None),
        ("pinned second root, with the first in front", b"", _ROOT_1 + _ROOT_2 + _ROOT_3, None, NOW, 0, _TWO),
        ("pinned second root alone", b"", _ROOT_2, None, NOW, 0, _TWO),
        ("bundle alone to an empty device", b"", _BUNDLE_1, "ForeignRoot"),
        ("another domain's root", b"", _root(other, *foreign), "ForeignRoot"),
        ("another domain's root, then the pinned one", b"", _root(other, *foreign) + _ROOT_1, None),
        (
            "second root signed by strangers",
            _ROOT_1,
            _root(root_of(2, foreign, 1, PUBLISHERS), *foreign),
            "ForeignRoot",
        ),
        ("second root missing", b"", _ROOT_1 + _ROOT_3, "ForeignRoot"),
        ("second root missing, another first", _ROOT_1, _ROOT_3, "ForeignRoot"),
        ("roots in the wrong order", b"", _ROOT_1 + _ROOT_3 + _ROOT_2, "ForeignRoot"),
        ("a root twice", b"", _ROOT_1 + _ROOT_1 + _ROOT_2 + _ROOT_2, None),
        ("domain changes", _ROOT_1, _root(replace(_TWO, domain="other.example"), *ROOT_KEYS), "BundleMismatch"),
        ("two second roots", _ROOT_1 + _ROOT_2, _root(fork, *ROOT_KEYS), "BundleMismatch"),
        ("two second roots, after the first", _ROOT_1 + _ROOT_2, _ROOT_1 + _root(fork, *ROOT_KEYS), "BundleMismatch"),
        ("the same second root, signed by others", _ROOT_1 + _ROOT_2, _root(_TWO, _R2, _R3), None),
    ]


def _thresholds() -> list[_Case]:
    stricter = root_of(2, ROOT_KEYS, 3, PUBLISHERS)
    other_keys = root_of(2, keys("root 4", "root 5"), 2, PUBLISHERS)
    mixed = root_of(2, _NEW_KEYS, 3, PUBLISHERS)
    r4, r5 = key("root 4"), key("root 5")
    return [
        ("first root, one below the threshold", b"", _root(_ONE, _R1), "ThresholdMissed"),
        ("first root, one above the threshold", b"", _root(_ONE, *ROOT_KEYS), None),
        ("first root without a signature", b"", _root(_ONE), "ForeignRoot"),
        ("second root, one below the first's threshold", _ROOT_1, _root(_TWO, _R2), "ThresholdMissed"),
        ("second root, at its own higher threshold", _ROOT_1, _root(stricter, *ROOT_KEYS), None),
        ("second root, one below its own threshold", _ROOT_1, _root(stricter, _R1, _R2), "ThresholdMissed"),
        ("all keys change, signed by all", _ROOT_1, _root(other_keys, _R1, _R2, r4, r5), None),
        ("all keys change, old keys alone", _ROOT_1, _root(other_keys, _R1, _R2), "ForeignRoot"),
        ("all keys change, new keys alone", _ROOT_1, _root(other_keys, r4, r5), "ForeignRoot"),
        ("all keys change, one new key too few", _ROOT_1, _root(other_keys, _R1, _R2, r4), "ThresholdMissed"),
        ("all keys change, one old key too few", _ROOT_1, _root(other_keys, _R1, r4, r5), "ThresholdMissed"),
        ("Ed25519 and P-256 keys together", _ROOT_1, _root(mixed, _R2, _R3, _P6), None),
        ("pinned second root below its own threshold", b"", _root(_TWO, _R1), "ThresholdMissed", NOW, 0, _TWO),
    ]  # fmt: skip


def _signatures() -> list[_Case]:
    third = _root(_ONE, *ROOT_KEYS)
    mixed = root_of(2, _NEW_KEYS, 2, PUBLISHERS)
    good = _root(mixed, _R2, _R3, _P6)
    p256 = _signature(good, _P6)
    return [
        ("first root with a wrong signature besides enough", b"", _replaced(third, _R3, bytes(64)), "TrustMalformed"),
        (
            "first root with a wrong signature, too few others",
            b"",
            _replaced(_ROOT_1, _R1, bytes(64)),
            "ThresholdMissed",
        ),
        ("first root with a stranger's signature", b"", _root(_ONE, _R1, _R2, key("stranger")), "TrustMalformed"),
        ("second root with a stranger's signature", _ROOT_1, _root(_TWO, _R1, _R2, key("stranger")), "TrustMalformed"),
        (
            "root signature with S plus L",
            b"",
            _replaced(third, _R3, unreduced_s(_signature(third, _R3))),
            "TrustMalformed",
        ),
        ("root signature with a high s", _ROOT_1, good.replace(p256, high_s(p256)), "TrustMalformed"),
        ("signatures in another order", b"", _reordered(third), "TrustMalformed"),
        ("a signature twice counts as none", b"", _doubled(_root(_ONE, _R1)), "TrustMalformed"),
        (
            "signature of a publisher in place of a root key",
            _ROOT_1,
            _root(_TWO, PUBLISHER, _P256_PUBLISHER),
            "ForeignRoot",
        ),
    ]


def _contents() -> list[_Case]:
    ed, p256 = _R1.public, _P6.public
    small, doubled = [-19, b"\x01" + bytes(31)], [[-19, ed], [-19, ed]]
    many = sorted((key(f"publisher {number}").signer for number in range(17)), key=lambda one: one.kid)

    def edited(edit: Callable[[dict[int, Any]], object]) -> bytes:
        fields = cbor2.loads(_TWO.payload())
        edit(fields)
        return signed(DocumentType.ROOT, cbor2.dumps(fields), *ROOT_KEYS)

    def with_field(field: int, value: object) -> bytes:
        return edited(lambda fields: fields.update({field: value}))

    wrong = {
        "threshold 0": with_field(7, 0),
        "threshold above the number of keys": with_field(7, 4),
        "no keys": with_field(6, []),
        "no publishers": with_field(8, []),
        "a key twice": with_field(6, doubled),
        "keys that fall": edited(lambda fields: fields[6].reverse()),
        "17 publishers": with_field(8, [[int(one.algorithm), one.public] for one in many]),
        "key of small order": with_field(8, [small]),
        "Ed25519 number with a P-256 key": with_field(8, [[-19, p256]]),
        "P-256 number with an Ed25519 key": with_field(8, [[-9, ed]]),
        "P-256 key not compressed": with_field(8, [[-9, b"\x04" + bytes(64)]]),
        "algorithm -8": with_field(8, [[-8, ed]]),
        "algorithm true": with_field(8, [[True, ed]]),
        "signer of three parts": with_field(8, [[-19, ed, 0]]),
        "format 1": with_field(1, 1),
        "format as a float": with_field(1, 2.0),
        "version 0": with_field(3, 0),
        "version of 2 to the 53rd": with_field(3, 2**53),
        "expires at issued": with_field(5, ISSUED),
        "domain with a line end": with_field(2, "d\n"),
        "a field more": with_field(9, 0),
        "a field less": edited(lambda fields: fields.pop(7)),
        "fields in another order": signed(
            DocumentType.ROOT, cbor2.dumps(dict(reversed(cbor2.loads(_TWO.payload()).items()))), *ROOT_KEYS
        ),
        "one byte after it": signed(DocumentType.ROOT, _TWO.payload() + b"\0", *ROOT_KEYS),
        "no CBOR": signed(DocumentType.ROOT, b"\xff", *ROOT_KEYS),
    }
    return [(f"content {note}", _ROOT_1, document, "TrustMalformed") for note, document in wrong.items()]


def _expiry() -> list[_Case]:
    short = replace(_TWO, expires=ISSUED + 10)
    document, middle = _root(short, *ROOT_KEYS), _root(root_of(3, ROOT_KEYS, 2, PUBLISHERS), *ROOT_KEYS)
    return [
        ("root one second before its expiry", b"", _ROOT_1, None, ROOT_EXPIRES - 1),
        ("root at its expiry", b"", _ROOT_1, "RootExpired", ROOT_EXPIRES),
        ("root past its expiry", b"", _ROOT_1, "RootExpired", ROOT_EXPIRES + 1),
        ("root expired by the time seen before", b"", _ROOT_1, "RootExpired", NOW, ROOT_EXPIRES),
        ("last of two roots expired", b"", _ROOT_1 + document, "RootExpired"),
        ("root on the way expired", b"", _ROOT_1 + document + middle, None),
        ("bundle under a held root that has expired", _ROOT_1, _BUNDLE_1, "RootExpired", ROOT_EXPIRES),
    ]


def _recovery() -> list[_Case]:
    """A publisher's key is stolen: what a new root does to what was published with it."""
    theft = published(_bundle(2**53 - 1), PUBLISHER)
    third = key("publisher 3")
    one_left = _root(root_of(2, ROOT_KEYS, 2, (_P256_PUBLISHER,)), *ROOT_KEYS)
    all_new = _root(root_of(2, ROOT_KEYS, 2, (third,)), *ROOT_KEYS)
    returned = _root(root_of(3, ROOT_KEYS, 2, (third, PUBLISHER)), *ROOT_KEYS)
    low, lowest = published(_B2, third), published(_B2, _P256_PUBLISHER)
    held = _ROOT_1 + theft
    return [
        ("fast-forward: all publishers change, the stolen bundle goes", held, all_new, None),
        ("fast-forward: all publishers change, seq starts anew", held, all_new + low, None),
        ("fast-forward: one publisher stays, the stolen bundle goes", held, one_left, None),
        ("fast-forward: one publisher stays, seq does not start anew", held, one_left + lowest, "BundleRollback"),
        ("removed publisher's new bundle", _ROOT_1 + _BUNDLE_1 , one_left + _BUNDLE_2, "BundleUntrusted"),
        ("removed publisher's bundle goes, the other's next one comes", _ROOT_1 + _BUNDLE_1, one_left + lowest, None),
        ("new publisher's bundle before its root", _ROOT_1 + _BUNDLE_1, low, "BundleUntrusted"),
        ("publisher that had left is named again", _ROOT_1, all_new + returned + low, "TrustMalformed"),
        ("publisher that had left is named again, later", _ROOT_1 + all_new + low, returned, "TrustMalformed"),
    ]  # fmt: skip


def _sequence() -> list[_Case]:
    other, unlinked = published(replace(_B2, issued=ISSUED + 61), PUBLISHER), published(_bundle(3), PUBLISHER)
    jump = published(_bundle(7), PUBLISHER)
    held = _ROOT_1 + _BUNDLE_2
    return [
        ("next bundle", _ROOT_1 + _BUNDLE_1, _BUNDLE_2, None),
        ("bundles are left out", _ROOT_1 + _BUNDLE_1, jump, None),
        ("rollback by one", held, _BUNDLE_1, "BundleRollback"),
        ("rollback with the whole file", held, _ROOT_1 + _BUNDLE_1, "BundleRollback"),
        ("the same bundle again", held, _BUNDLE_2, None),
        ("the same bundle signed by the other publisher", held, published(_B2, _P256_PUBLISHER), None),
        ("another bundle of the same seq", held, other, "BundleMismatch"),
        ("next bundle that follows upon another", held, unlinked, "BundleMismatch"),
        ("next but one with any prev", _ROOT_1 + _BUNDLE_1, unlinked, None),
    ]


def _freshness() -> list[_Case]:
    return [
        ("bundle one second before its expiry", _ROOT_1, _BUNDLE_1, None, EXPIRES - 1),
        ("freeze: bundle at its expiry", _ROOT_1, _BUNDLE_1, "BundleFrozen", EXPIRES),
        ("freeze: bundle past its expiry", _ROOT_1, _BUNDLE_1, "BundleFrozen", EXPIRES + 1),
        ("freeze: clock set back, the time seen counts", _ROOT_1, _BUNDLE_1, "BundleFrozen", NOW, EXPIRES),
        ("freeze: the very bundle held", _ROOT_1 + _BUNDLE_1, _BUNDLE_1, "BundleFrozen", EXPIRES),
        ("bundle that is stale", _ROOT_1, _BUNDLE_1, None, ISSUED + 29 * DAY_S),
        ("roots alone while the bundle held has expired", _ROOT_1 + _BUNDLE_1, _ROOT_2, None, EXPIRES),
    ]


def _mixed() -> list[_Case]:
    foreign = keys("root 4", "root 5")
    other_root = root_of(1, foreign, 1, keys("publisher 4"))
    same_publisher = published(_bundle(2, domain="other.example"), PUBLISHER)
    return [
        (
            "mix: another domain's bundle by its own publisher",
            _ROOT_1,
            published(_B1, key("publisher 4")),
            "BundleUntrusted",
        ),
        ("mix: another domain's bundle by a publisher of both", _ROOT_1, same_publisher, "BundleMismatch"),
        (
            "mix: another domain's root and this one's bundle",
            b"",
            _root(other_root, *foreign) + _BUNDLE_1,
            "ForeignRoot",
        ),
        ("mix: bundle signed by a root key", _ROOT_1, published(_B1, _R1), "BundleUntrusted"),
        (
            "mix: bundle by a publisher of the older root",
            _ROOT_1,
            _root(root_of(2, ROOT_KEYS, 2, keys("publisher 3")), *ROOT_KEYS) + _BUNDLE_1,
            "BundleUntrusted",
        ),
    ]


def _files() -> list[_Case]:
    whole = _ROOT_1 + _BUNDLE_1
    return [
        ("file cut in the root", b"", whole[: len(_ROOT_1) - 1], "TrustTruncated"),
        ("file cut in the bundle", b"", whole[:-1], "TrustTruncated"),
        ("file cut between root and bundle", b"", _ROOT_1, None),
        ("file empty", b"", b"", "TrustTruncated"),
        ("file with a byte more", b"", whole + b"\0", "TrustMalformed"),
        ("file with the bundle first", b"", _BUNDLE_1 + _ROOT_1, "TrustMalformed"),
        ("file with two bundles", b"", _ROOT_1 + _BUNDLE_1 + _BUNDLE_2, "TrustMalformed"),
    ]


def _deltas() -> list[_Case]:
    first, second = (
        signed(DocumentType.DELTA, delta_of(base, target, PUBLISHER).payload(), PUBLISHER)
        for base, target in ((_B1, _B2), (_B2, _B3))
    )
    both = signed(DocumentType.DELTA, delta_of(_B1, _B3, PUBLISHER).payload(), PUBLISHER)
    held = _ROOT_1 + _BUNDLE_1
    return [
        ("one delta", held, first, None),
        ("two deltas in a row", held, first + second, None),
        ("a delta over two bundles", held, both, None),
        ("bundle and delta in one file", _ROOT_1, _BUNDLE_1 + first, None),
        ("deltas in the wrong order", held, second + first, "BundleMismatch"),
        ("delta of a bundle that is not held", held, second, "BundleMismatch"),
        ("delta without a bundle", _ROOT_1, first, "BundleMismatch"),
        ("delta that was applied already", _ROOT_1 + _BUNDLE_2, first, "BundleMismatch"),
        ("older bundle with a delta to the one held", _ROOT_1 + _BUNDLE_2, _BUNDLE_1 + first, None),
        ("delta to a bundle that has expired", held, first, "BundleFrozen", EXPIRES),
        ("delta in front of the bundle", _ROOT_1, first + _BUNDLE_1, "TrustMalformed"),
        ("delta by a removed publisher", held,
         _root(root_of(2, ROOT_KEYS, 2, (_P256_PUBLISHER,)), *ROOT_KEYS) + first, "BundleMismatch"),
    ]  # fmt: skip


def _parts(document: bytes) -> list[list[Any]]:
    return [list(part) for part in cbor2.loads(document).value[3]]


def _with_parts(document: bytes, parts: list[list[Any]]) -> bytes:
    message = cbor2.loads(document)
    return cbor2.dumps(cbor2.CBORTag(98, [*list(message.value)[:3], parts]))


def _signature(document: bytes, by: Key) -> bytes:
    found: bytes = next(part[2] for part in _parts(document) if part[0].endswith(by.signer.kid))
    return found


def _replaced(document: bytes, by: Key, signature: bytes) -> bytes:
    return document.replace(_signature(document, by), signature)


def _reordered(document: bytes) -> bytes:
    return _with_parts(document, _parts(document)[::-1])


def _doubled(document: bytes) -> bytes:
    return _with_parts(document, _parts(document) * 2)
