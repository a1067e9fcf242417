"""Published: the test vectors as seeds."""

import json
from pathlib import Path
from typing import Any, Final

from offline_sdk import TrustError, cose
from offline_sdk.cose import Envelope

_FOLDER: Final = Path(__file__).parents[2] / "offline_sdk" / "vectors"
_PAYLOAD_BYTES_MAX: Final = 1_500


def malformed_texts() -> tuple[str, ...]:
    """The texts that are refused whatever the keys."""
    return tuple(one["text"] for one in _of_kind("text") if one["expected"]["error"] == "Malformed")


def packed_items() -> tuple[tuple[int, bytes], ...]:
    """Packed item sets, right and wrong, as number and bytes."""
    return tuple((one["n"], bytes.fromhex(one["packed_hex"])) for one in _of_kind("item-set") if one["n"] < 2**32)


def payloads(kind: str) -> tuple[bytes, ...]:
    """The payloads of the documents of kind "bundle" or "delta", right and wrong."""
    documents = (bytes.fromhex(one[kind]["document_hex"]) for one in _of_kind(kind))
    found = (envelope.payload for document in documents for envelope in _envelopes(document))
    return tuple(payload for payload in found if len(payload) <= _PAYLOAD_BYTES_MAX)


def trust_files() -> tuple[tuple[Envelope, ...], ...]:
    """The documents of the trust files that devices are offered."""
    return tuple(filter(None, (_envelopes(bytes.fromhex(one["offered_hex"])) for one in _of_kind("update"))))


def _of_kind(kind: str) -> list[dict[str, Any]]:
    contents = (json.loads(path.read_bytes()) for path in sorted(_FOLDER.glob("*/*.json")))
    return [content for content in contents if content["kind"] == kind]


def _envelopes(content: bytes) -> tuple[Envelope, ...]:
    try:
        return cose.read(content)
    except TrustError:
        return ()
