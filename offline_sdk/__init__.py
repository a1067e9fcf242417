"""Fanxing offline SDK: verify item codes with no network.

    from datetime import UTC, datetime
    from pathlib import Path
    from offline_sdk import TrustStore, read_pin

    store = TrustStore(Path("trust"), read_pin(Path("root.txt").read_bytes())).open()
    store.update(Path("trust.cbor").read_bytes(), datetime.now(UTC))
    verifier = store.verifier()
    print(verifier.check("https://id.example.cn/1…/01/06901234567892/21/00001975404383").verdict)

`check` returns a Verdict and never raises; `verify` returns a Genuine or raises one VerifyError.
"""

from typing import TYPE_CHECKING, Any

from .algorithms import Algorithm
from .bundle import Bundle, BundleKey
from .code_text import CodeText, Profile, check_base_url, encode_message, encode_text, parse, segments
from .cose import DocumentType, Signer, seal, to_be_signed
from .delta import Delta
from .errors import (
    AlgorithmMissing,
    BadSignature,
    BundleExpired,
    BundleFrozen,
    BundleMismatch,
    BundleRollback,
    BundleStale,
    BundleUntrusted,
    ClockSuspect,
    CodeLabel,
    ForeignRoot,
    KeyOutOfScope,
    Malformed,
    Revoked,
    RootExpired,
    ThresholdMissed,
    TrustError,
    TrustMalformed,
    TrustMissing,
    TrustTruncated,
    UnknownKey,
    VerifyError,
)
from .item_set import ItemSet
from .revocation import OrderRange, Revocations, RevokedItems
from .root import Root, follow, format_pin, read_pin
from .verifier import Action, BundleState, Genuine, Policy, Verdict, Verifier

if TYPE_CHECKING:
    from .trust_store import TrustStore, Update

__all__ = [
    "Action",
    "Algorithm",
    "AlgorithmMissing",
    "BadSignature",
    "Bundle",
    "BundleExpired",
    "BundleFrozen",
    "BundleKey",
    "BundleMismatch",
    "BundleRollback",
    "BundleStale",
    "BundleState",
    "BundleUntrusted",
    "ClockSuspect",
    "CodeLabel",
    "CodeText",
    "Delta",
    "DocumentType",
    "ForeignRoot",
    "Genuine",
    "ItemSet",
    "KeyOutOfScope",
    "Malformed",
    "OrderRange",
    "Policy",
    "Profile",
    "Revocations",
    "Revoked",
    "RevokedItems",
    "Root",
    "RootExpired",
    "Signer",
    "ThresholdMissed",
    "TrustError",
    "TrustMalformed",
    "TrustMissing",
    "TrustStore",
    "TrustTruncated",
    "UnknownKey",
    "Update",
    "Verdict",
    "Verifier",
    "VerifyError",
    "check_base_url",
    "encode_message",
    "encode_text",
    "follow",
    "format_pin",
    "parse",
    "read_pin",
    "seal",
    "segments",
    "to_be_signed",
]


def __getattr__(name: str) -> Any:
    # File locks are POSIX's; a verifier alone also works where there are none, and starts sooner.
    if name in ("TrustStore", "Update"):
        from . import trust_store  # noqa: PLC0415

        return getattr(trust_store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
