"""Common: the keys and the clock behind the test vectors, and the parts that several kinds of them have."""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from offline_sdk import Policy, TrustError
from offline_sdk.algorithms import signature_is_right
from tests.offline_sdk import plain_json
from tests.offline_sdk.named_keys import Key, key, keys

GTIN_A: Final = "06901234567892"
GTIN_A_CASE: Final = "16901234567899"
GTIN_B: Final = "09506000134352"
PUBLISHER: Final = key("publisher 1")
PUBLISHERS: Final = keys("publisher 1", "p256 publisher 2")
ROOT_KEYS: Final = keys("root 1", "root 2", "root 3")
KNOWN: Final = (
    *(key(f"root {number}") for number in range(1, 6)),
    *(key(f"publisher {number}") for number in range(1, 5)),
    key("p256 publisher 2"), key("p256 root 6"), key("stranger"),
)  # fmt: skip
"""Every key that signs a document of the vectors."""

Vector = tuple[str, dict[str, Any]]
"""A name and what the file says."""
Vectors = Iterator[Vector]


def named(note: str, taken: set[str]) -> str:
    """A file name from what a case is about, unlike those that are taken."""
    name = re.sub("[^a-z0-9]+", "-", note.lower()).strip("-")[:70]
    number = 2
    while (unique := name if number == 2 and name not in taken else f"{name}-{number}") in taken:
        number += 1
    taken.add(unique)
    return unique


def signers_json(signers: tuple[Key, ...]) -> list[dict[str, Any]]:
    return [plain_json.signer(int(one.algorithm), one.public) for one in signers]


def document_json(document: bytes, *, readable: bool = True) -> dict[str, Any]:
    """A document cut into its parts, whether each signature is right, and what a readable payload says.

    Of one that is not, payload and Sig_structures are given by their SHA-256: they are long, and in the document.
    """
    stages = plain_json.envelope(document, [(int(one.algorithm), one.public) for one in KNOWN])
    by_public = {one.public.hex(): one for one in KNOWN}
    for part in stages["signatures"]:
        by = by_public.get(part["public_hex"] or "")
        message, signature = bytes.fromhex(part["sig_structure_hex"]), bytes.fromhex(part["signature_hex"])
        part["right"] = by is not None and signature_is_right(by.algorithm, by.public, message, signature)
        part["sig_structure_sha256_hex"] = hashlib.sha256(message).hexdigest()
        if not readable:
            del part["sig_structure_hex"]
    if not readable:
        del stages["payload_hex"]
        return {**stages, "content": None}
    return {**stages, "content": plain_json.content(stages["content_type"], bytes.fromhex(stages["payload_hex"]))}


def policy_json(policy: Policy) -> dict[str, Any]:
    return {
        "stale_after_s": int(policy.stale_after / timedelta(seconds=1)),
        "clock_tolerance_s": 300,
        "on_stale": policy.on_stale.value,
        "on_expired": policy.on_expired.value,
        "on_clock_suspect": policy.on_clock_suspect.value,
    }


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def error_of(action: Any) -> str | None:
    """The code of the TrustError that this raises, or None."""
    try:
        action()
    except TrustError as error:
        return error.code
    return None
