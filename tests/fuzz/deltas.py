"""Deltas: applying one gives the very document that the publisher signed, or is refused."""

from random import Random
from typing import Final

from offline_sdk import Bundle, BundleUntrusted, Delta, DocumentType, TrustError
from tests.fuzz import documents
from tests.fuzz import published as from_vectors
from tests.fuzz.mutation import changed_bytes, changed_cbor
from tests.fuzz.target import FOREIGN, RAW, SIGNED, SIGNED_P256, Target, mode_of, must, signer_of
from tests.fuzz.trace import path_of
from tests.offline_sdk.named_keys import delta_of, published, signed

_TARGET: Final = 4
"""The input is the payload of a bundle, to which a delta leads from each bundle before it."""
_MODES: Final = 5
_PAYLOADS: Final = tuple(delta.payload() for delta in documents.DELTAS)
_BUNDLE_PAYLOADS: Final = tuple(bundle.payload() for bundle in documents.BUNDLES)
_GENUINE: Final = frozenset(documents.DELTA_DOCUMENTS)
_RESULTS: Final = frozenset(documents.BUNDLE_DOCUMENTS)


def _check(data: bytes) -> str:
    mode, content = mode_of(data, _MODES)
    if mode == _TARGET:
        return _round_trip(content)
    document = content if mode == RAW else signed(DocumentType.DELTA, content, signer_of(mode))
    try:
        delta = Delta.load(document, documents.SIGNERS)
    except TrustError as error:
        must(mode != FOREIGN or isinstance(error, BundleUntrusted), "a stranger's delta is untrusted, not looked at")
        must(document not in _GENUINE, "a genuine delta loads")
        return path_of(error)
    must(mode != FOREIGN and (mode != RAW or document in _GENUINE), "what no publisher signed never loads")
    must(mode == RAW or delta.payload() == content, "a delta that loads is what was signed, to the byte")
    outcomes = []
    for base in documents.BUNDLES:
        try:
            result = delta.apply(base)
        except TrustError as error:
            outcomes.append(path_of(error))
        else:
            must(result in _RESULTS, "what comes out of a delta was signed by the publisher")
            outcomes.append(f"applied to {base.seq}")
    return " ".join(outcomes)


def _round_trip(payload: bytes) -> str:
    try:
        target = Bundle.from_payload(payload)
    except TrustError as error:
        return "target " + path_of(error)
    document, outcomes = published(target, documents.PUBLISHER), []
    for base in documents.BUNDLES:
        try:
            delta = delta_of(base, target, documents.PUBLISHER)
        except TrustError as error:
            outcomes.append(path_of(error))
            continue
        loaded = Delta.load(signed(DocumentType.DELTA, delta.payload(), documents.PUBLISHER), documents.SIGNERS)
        must(loaded == delta, "a delta comes back as it was made")
        must(loaded.apply(base) == document, "a delta leads to its very target")
        outcomes.append("led")
    return "target " + " ".join(outcomes)


def _mutate(data: bytes, dice: Random) -> bytes:
    mode, content = mode_of(data, _MODES)
    if mode == RAW:
        return bytes([RAW]) + changed_bytes(content, documents.DELTA_DOCUMENTS, dice)
    if mode == _TARGET:
        return bytes([_TARGET]) + changed_cbor(content, _BUNDLE_PAYLOADS, dice)
    mode = dice.choices((SIGNED, SIGNED_P256, FOREIGN), (90, 5, 5))[0]
    return bytes([mode]) + changed_cbor(content, _PAYLOADS, dice)


TARGET: Final = Target(
    "delta",
    (
        *(bytes([RAW]) + document for document in documents.DELTA_DOCUMENTS[:3]),
        *(bytes([SIGNED]) + payload for payload in (*_PAYLOADS, *from_vectors.payloads("delta"))),
        *(bytes([_TARGET]) + payload for payload in _BUNDLE_PAYLOADS[1:]),
    ),
    _mutate,
    _check,
)
