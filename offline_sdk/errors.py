"""Errors: one tree, each class with a stable code, each message saying what was wrong and what to do.

An error never carries a signature or a whole code text: the text of an inner code is a secret that pays a reward,
and errors end up in logs.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class CodeLabel:
    """What a code text says about itself, without its signature: safe to log and to show."""

    profile: int
    kid: int
    gtin: str
    serial: str


class VerifyError(Exception):
    """Base of everything this package raises on purpose.

    `label` is what could still be read from the code text (None where nothing could).
    `issuer` is the issuer named by the trust bundle, given only when the signature was right.
    """

    code: ClassVar[str] = "VerifyError"

    def __init__(self, message: str, label: CodeLabel | None = None, issuer: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.label = label
        self.issuer = issuer


class Malformed(VerifyError):
    """The text is not a code text in its one canonical form."""

    code: ClassVar[str] = "Malformed"


class UnknownKey(VerifyError):
    """The key number is not in the trust bundle."""

    code: ClassVar[str] = "UnknownKey"


class BadSignature(VerifyError):
    """The signature was not made by the key of that number over these fields."""

    code: ClassVar[str] = "BadSignature"


class KeyOutOfScope(VerifyError):
    """The signature is right, but the key was not entitled to sign for this GTIN, order or time."""

    code: ClassVar[str] = "KeyOutOfScope"


class Revoked(VerifyError):
    """The signature is right, but the key, the order or the item has been revoked."""

    code: ClassVar[str] = "Revoked"


class BundleExpired(VerifyError):
    """The code is right as of the trust bundle's date, but the bundle is past its expiry and the policy insists."""

    code: ClassVar[str] = "BundleExpired"


class BundleMalformed(VerifyError):
    """The document or a field of it is not a trust bundle in its one canonical form."""

    code: ClassVar[str] = "BundleMalformed"


class BundleUntrusted(VerifyError):
    """The trust bundle was not signed by the root that the caller trusts."""

    code: ClassVar[str] = "BundleUntrusted"
