"""Parsers alone: what reads an envelope or a payload, without making a signature for each input, so very many of them.

An input is a document as a stranger would send it, or a payload handed straight to what reads it once it is signed.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from offline_sdk import Bundle, Delta, Root, TrustError, cose
from offline_sdk.root import newer_roots
from tests.fuzz import documents
from tests.fuzz.mutation import changed_bytes, changed_cbor
from tests.fuzz.target import RAW, Target, mode_of, must
from tests.fuzz.trace import path_of

_PAYLOAD: Final = 1
_PIN: Final = documents.ROOTS[0][0].fingerprint
_CBOR_SHARE: Final = 0.05
"""Of the changes, those that know CBOR: they cost ten times as much, and the slower targets are made of them."""


def _target(
    name: str,
    genuine: tuple[bytes, ...],
    payloads: tuple[bytes, ...],
    load: Callable[[bytes], Any],
    from_payload: Callable[[bytes], Any],
) -> Target:
    right = frozenset(genuine)

    def check(data: bytes) -> str:
        mode, content = mode_of(data, 2)
        try:
            read = load(content) if mode == RAW else from_payload(content)
        except TrustError as error:
            must(mode != RAW or content not in right, "a genuine document loads")
            return path_of(error)
        must(mode != RAW or content in right, "what nobody signed never loads")
        must(mode == RAW or read.payload() == content, "what is read is what was written, to the byte")
        return f"read {mode}"

    def mutate(data: bytes, dice: Random) -> bytes:
        mode, content = mode_of(data, 2)
        change = changed_cbor if mode == _PAYLOAD and dice.random() < _CBOR_SHARE else changed_bytes
        return bytes([mode]) + change(content, payloads if mode == _PAYLOAD else genuine, dice)

    seeds = (
        *(bytes([RAW]) + document for document in genuine),
        *(bytes([_PAYLOAD]) + payload for payload in payloads),
    )
    return Target(name, seeds, mutate, check)


def _root_of(content: bytes) -> Root:
    """The pinned root, of a document that is alone in its file."""
    (envelope,) = _one(cose.read(content))
    ((root, _envelope),) = newer_roots([envelope], _PIN, None)
    return root


def _one(envelopes: tuple[cose.Envelope, ...]) -> tuple[cose.Envelope, ...]:
    if len(envelopes) != 1 or envelopes[0].type is not cose.DocumentType.ROOT:
        raise TrustError("not one root document")
    return envelopes


BUNDLES: Final = _target(
    "bundle_parser",
    documents.BUNDLE_DOCUMENTS,
    tuple(bundle.payload() for bundle in documents.BUNDLES),
    lambda content: Bundle.load(content, documents.SIGNERS),
    Bundle.from_payload,
)
DELTAS: Final = _target(
    "delta_parser",
    documents.DELTA_DOCUMENTS,
    tuple(delta.payload() for delta in documents.DELTAS),
    lambda content: Delta.load(content, documents.SIGNERS),
    lambda content: Delta.from_payload(content, documents.SIGNERS),
)
ROOTS: Final = _target(
    "root_parser",
    documents.ROOT_DOCUMENTS[:1],
    tuple(root.payload() for root, _by in documents.ROOTS),
    _root_of,
    Root.from_payload,
)
