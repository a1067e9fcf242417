"""Bundles: what no publisher signed never loads; what one signed loads in its one form and then answers anything."""

from random import Random
from typing import Final

from offline_sdk import Bundle, BundleUntrusted, DocumentType, TrustError
from tests.fuzz import documents, published
from tests.fuzz.mutation import changed_bytes, changed_cbor
from tests.fuzz.target import FOREIGN, RAW, SIGNED, SIGNED_P256, Target, mode_of, must, signer_of
from tests.fuzz.trace import path_of
from tests.offline_sdk.named_keys import signed

_PAYLOADS: Final = tuple(bundle.payload() for bundle in documents.BUNDLES)
_GENUINE: Final = frozenset(documents.BUNDLE_DOCUMENTS)


def _check(data: bytes) -> str:
    mode, content = mode_of(data, 4)
    document = content if mode == RAW else signed(DocumentType.BUNDLE, content, signer_of(mode))
    try:
        bundle = Bundle.load(document, documents.SIGNERS)
    except TrustError as error:
        must(mode != FOREIGN or isinstance(error, BundleUntrusted), "a stranger's bundle is untrusted, not looked at")
        must(document not in _GENUINE, "a genuine bundle loads")
        return path_of(error)
    must(mode != FOREIGN and (mode != RAW or document in _GENUINE), "what no publisher signed never loads")
    documents.examine(bundle, bundle.payload() if mode == RAW else content)
    return f"loaded {len(bundle.keys)} {len(bundle.revocations.items)}"


def _mutate(data: bytes, dice: Random) -> bytes:
    mode, content = mode_of(data, 4)
    if mode == RAW:
        return bytes([RAW]) + changed_bytes(content, documents.BUNDLE_DOCUMENTS, dice)
    mode = dice.choices((SIGNED, SIGNED_P256, FOREIGN), (90, 5, 5))[0]
    return bytes([mode]) + changed_cbor(content, _PAYLOADS, dice)


TARGET: Final = Target(
    "bundle",
    (
        *(bytes([RAW]) + document for document in documents.BUNDLE_DOCUMENTS[:4]),
        *(bytes([SIGNED]) + payload for payload in (*_PAYLOADS, *published.payloads("bundle"))),
    ),
    _mutate,
    _check,
)
