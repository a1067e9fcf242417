"""Fanxing offline SDK: verify item codes with no network.

    from pathlib import Path
    from offline_sdk import Bundle, Verifier, read_root

    root = read_root(Path("root.txt").read_bytes())
    verifier = Verifier(Bundle.load(Path("bundle.cbor").read_bytes(), root))
    print(verifier.check("https://id.example.cn/1…/01/06901234567892/21/00001975404383").verdict)

`check` returns a Verdict and never raises; `verify` returns a Genuine or raises one VerifyError.
"""

from .bundle import Bundle, BundleKey, format_root, read_root, seal, to_be_signed
from .code_text import CodeText, Profile, check_base_url, encode_message, encode_text, parse, segments
from .errors import (
    BadSignature,
    BundleExpired,
    BundleMalformed,
    BundleUntrusted,
    CodeLabel,
    KeyOutOfScope,
    Malformed,
    Revoked,
    UnknownKey,
    VerifyError,
)
from .revocation import OrderRange, Revocations, RevokedItems
from .verifier import BundleState, Genuine, Policy, Verdict, Verifier

__all__ = [
    "BadSignature",
    "Bundle",
    "BundleExpired",
    "BundleKey",
    "BundleMalformed",
    "BundleState",
    "BundleUntrusted",
    "CodeLabel",
    "CodeText",
    "Genuine",
    "KeyOutOfScope",
    "Malformed",
    "OrderRange",
    "Policy",
    "Profile",
    "Revocations",
    "Revoked",
    "RevokedItems",
    "UnknownKey",
    "Verdict",
    "Verifier",
    "VerifyError",
    "check_base_url",
    "encode_message",
    "encode_text",
    "format_root",
    "parse",
    "read_root",
    "seal",
    "segments",
    "to_be_signed",
]
