"""Deltas: a base, a delta, and the very document that comes out, or why none does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import cbor2

from offline_sdk import Bundle, Delta, DocumentType, Revocations
from tests.offline_sdk.named_keys import DOMAIN, EXPIRES, ISSUED, Key, delta_of, key, published, signed
from tests.vector_cases.bundles import SIGNERS, code_key
from tests.vector_cases.common import (
    GTIN_A,
    GTIN_B,
    PUBLISHER,
    PUBLISHERS,
    Vectors,
    document_json,
    error_of,
    named,
    signers_json,
)

_ITEMS: Final = [(GTIN_A, 30, item) for item in (0, 5, 999_999_999)]
_RUN: Final = [(GTIN_A, 31, item) for item in range(1_000, 1_100)]
_BASE: Final = Bundle(
    DOMAIN, 1, ISSUED, EXPIRES, (code_key(1, "code 1", "690123456"), code_key(2, "code 3", "9506000")),
    Revocations.collect([9], [(GTIN_A, 3, 5), (GTIN_B, 0, 0)], [*_ITEMS, *_RUN]),
)  # fmt: skip


def _after(base: Bundle, **changes: Any) -> Bundle:
    return replace(base, **{"seq": base.seq + 1, "prev": base.fingerprint, "issued": base.issued + 60, **changes})


_NEXT: Final = _after(
    _BASE,
    keys=(code_key(1, "code 1", "690"), code_key(3, "p256 code 2", "69")),
    revocations=Revocations.collect([10], [(GTIN_A, 3, 6)], [*_ITEMS[1:], (GTIN_A, 30, 4), *_RUN[50:], (GTIN_B, 1, 1)]),
)


def vectors() -> Vectors:
    taken: set[str] = set()
    for note, target in _targets().items():
        delta = delta_of(_BASE, target, PUBLISHER)
        yield f"deltas/{named(f'right {note}', taken)}", _vector(note, _BASE, _signed(delta.payload()), None)
    p256 = delta_of(_BASE, _NEXT, key("p256 publisher 2"))
    document = signed(DocumentType.DELTA, p256.payload(), PUBLISHER)
    yield (
        f"deltas/{named('right bundle signed with P-256', taken)}",
        _vector("the bundle is signed with P-256", _BASE, document, None),
    )
    for note, (base, wrong, error) in _wrong().items():
        yield f"deltas/{named(note, taken)}", _vector(note, base, wrong, error)


def _targets() -> dict[str, Bundle]:
    far = replace(_NEXT, seq=9, prev=bytes(32))
    return {
        "everything changes": _NEXT,
        "nothing but the times": _after(_BASE),
        "one item more": _after(
            _BASE,
            revocations=Revocations.collect([9], [(GTIN_A, 3, 5), (GTIN_B, 0, 0)], [*_ITEMS, *_RUN, (GTIN_A, 30, 6)]),
        ),
        "a group of items goes": _after(
            _BASE, revocations=Revocations.collect([9], [(GTIN_A, 3, 5), (GTIN_B, 0, 0)], _RUN)
        ),
        "all revocations go": _after(_BASE, revocations=Revocations()),
        "all keys go": _after(_BASE, keys=()),
        "several bundles at once": far,
    }


def _signed(payload: bytes, by: Key = PUBLISHER) -> bytes:
    return signed(DocumentType.DELTA, payload, by)


def _wrong() -> dict[str, tuple[Bundle, bytes, str]]:
    delta = delta_of(_BASE, _NEXT, PUBLISHER)
    document = _signed(delta.payload())
    other = replace(_BASE, issued=ISSUED + 1)
    mismatch, untrusted, malformed = "BundleMismatch", "BundleUntrusted", "TrustMalformed"

    def edited(edit: Callable[[dict[int, Any]], object]) -> bytes:
        fields = cbor2.loads(delta.payload())
        edit(fields)
        return _signed(cbor2.dumps(fields))

    added, removed = (cbor2.loads(delta.payload())[field] for field in (10, 11))
    return {
        "base of another content": (other, document, mismatch),
        "base of another seq": (_NEXT, document, mismatch),
        "base of another domain": (replace(_BASE, domain="other.example"), document, mismatch),
        "signed by a stranger": (_BASE, _signed(delta.payload(), key("stranger")), untrusted),
        "bundle signed by a stranger": (
            _BASE,
            edited(lambda fields: fields.update({12: key("stranger").signer.kid})),
            untrusted,
        ),
        "bundle's signature wrong": (_BASE, edited(lambda fields: fields.update({13: bytes(64)})), untrusted),
        "bundle's signature of the base": (
            _BASE,
            edited(lambda fields: fields.update({13: published(_BASE, PUBLISHER)[-64:]})),
            untrusted,
        ),
        "bundle signed by another publisher than named": (
            _BASE,
            edited(
                lambda fields: fields.update(
                    {12: PUBLISHERS[0].signer.kid if PUBLISHERS[0] != PUBLISHER else PUBLISHERS[1].signer.kid}
                )
            ),
            untrusted,
        ),
        "another time than the bundle's": (_BASE, edited(lambda fields: fields.update({6: ISSUED + 61})), untrusted),
        "a key less than the bundle has": (_BASE, edited(lambda fields: fields[8].pop()), untrusted),
        "a revoked key less than the bundle has": (_BASE, edited(lambda fields: fields[10].update({1: []})), untrusted),
        "removes a key that is not there": (_BASE, edited(lambda fields: fields.update({9: [2, 8]})), mismatch),
        "removes a key that it puts": (_BASE, edited(lambda fields: fields.update({9: [1, 2]})), mismatch),
        "puts a key that is there": (
            _BASE,
            edited(lambda fields: fields[8].__setitem__(0, cbor2.loads(_BASE.payload())[6][0])),
            mismatch,
        ),
        "removes a revoked key that is not there": (
            _BASE,
            edited(lambda fields: fields.update({11: {**removed, 1: [8, 9]}})),
            mismatch,
        ),
        "adds a revoked key that is there": (
            _BASE,
            edited(lambda fields: fields.update({10: {**added, 1: [9, 10]}})),
            mismatch,
        ),
        "removes an order range that is not there": (
            _BASE,
            edited(lambda fields: fields.update({11: {**removed, 2: [[GTIN_A, 3, 4]]}})),
            mismatch,
        ),
        "adds items that are there": (
            _BASE,
            edited(lambda fields: fields.update({10: {**added, 3: cbor2.loads(_BASE.payload())[7][3][:1]}})),
            mismatch,
        ),
        "removes items that are not there": (
            _BASE,
            edited(lambda fields: fields.update({11: {**removed, 3: added[3][:1]}})),
            mismatch,
        ),
        "seq at the base's": (_BASE, edited(lambda fields: fields.update({5: 1})), malformed),
        "seq far ahead without prev": (_BASE, edited(lambda fields: fields.update({5: 9})), malformed),
        "prev written though it follows the base": (
            _BASE,
            edited(lambda fields: fields.update({14: fields[4]})),
            malformed,
        ),
        "base's fingerprint of 31 bytes": (_BASE, edited(lambda fields: fields.update({4: bytes(31)})), malformed),
        "keys removed that fall": (_BASE, edited(lambda fields: fields.update({9: [2, 1]})), malformed),
        "expires at issued": (_BASE, edited(lambda fields: fields.update({7: fields[6]})), malformed),
        "version 1": (_BASE, edited(lambda fields: fields.update({1: 1})), malformed),
        "a field missing": (_BASE, edited(lambda fields: fields.pop(11)), malformed),
        "order ranges of added and base overlap": (
            _BASE,
            edited(lambda fields: fields.update({10: {**added, 2: [[GTIN_A, 4, 4]]}, 11: {**removed, 2: []}})),
            malformed,
        ),
        "one byte after it": (_BASE, _signed(delta.payload() + b"\0"), malformed),
        "cut": (_BASE, document[:-1], "TrustTruncated"),
        "a bundle in its place": (_BASE, published(_NEXT, PUBLISHER), malformed),
    }


def _vector(note: str, base: Bundle, document: bytes, error: str | None) -> dict[str, Any]:
    came = error_of(lambda: Delta.load(document, SIGNERS).apply(base))
    assert came == error, (note, came)
    result = None if error else Delta.load(document, SIGNERS).apply(base)
    try:
        stages = document_json(document, readable=error is None)
    # What is cut off has no stages.
    except Exception:
        stages = {"document_hex": document.hex()}
    return {
        "kind": "delta",
        "note": note,
        "publishers": signers_json(PUBLISHERS),
        "base_hex": published(base, PUBLISHER).hex(),
        "delta": stages,
        "result_hex": None if result is None else result.hex(),
        "expected": {"error": error},
    }
