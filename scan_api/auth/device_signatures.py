"""Device signatures: whether a request was signed just now by the device that it names (RFC 9421, RFC 9530)."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageVerifier,
    InvalidSignature,
    MappingKeyResolver,
    VerifyResult,
)
from http_message_signatures.algorithms import ED25519
from starlette.datastructures import Headers

from kit.errors import Unauthenticated

LABEL: Final = "sig1"
TAG: Final = "fanxing-device"
ALGORITHM: Final = "ed25519"
NONCE_BYTES: Final = 16
CLOCK_SKEW_MAX_S: Final = 300
_PARAMETERS: Final = {"created", "keyid", "alg", "tag", "nonce"}
_COVERED: Final = ("@method", "@path", "content-digest", "content-type")


class DeviceSignatureRefused(Unauthenticated):
    code = "DeviceSignatureRefused"


class SignatureClockSkewed(Unauthenticated):
    code = "SignatureClockSkewed"


@dataclass(frozen=True, slots=True)
class Message:
    """A request as its signature sees it. Scheme and host are not signed: proxies change them."""

    method: str
    path: str
    """As sent, percent-escapes and all, with the query if there is one."""
    headers: Headers

    @property
    def url(self) -> str:
        return f"https://server.invalid{self.path}"


class _Verifier(HTTPMessageVerifier):
    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
        """Left to `verify`, which asks the application's clock, and only once the signature is known to be right."""


def verify(message: Message, body: bytes, key_id: str, public: bytes, now: datetime) -> int:
    """Refuse a request that this key did not sign, or not just now; `body` is as sent, still compressed.

    Returns the signature's `created`, unix seconds. `public` is a safe Ed25519 key of 32 bytes. Raises
    DeviceSignatureRefused, and SignatureClockSkewed when `created` is more than 300 s from now.
    """
    keys = {key_id: Ed25519PublicKey.from_public_bytes(public)}
    verifier = _Verifier(
        signature_algorithm=ED25519, key_resolver=MappingKeyResolver(public_keys=keys, private_keys={})
    )
    try:
        [signed] = verifier.verify(
            message,
            max_age=None,
            expect_tag=TAG,
            expect_label=LABEL,
            require_components=_covered(message),
            body=body,
        )
        created = _created(signed)
    except HTTPMessageSignaturesException:
        raise refusal() from None  # the library's reasons may quote headers
    if abs(now.timestamp() - created) > CLOCK_SKEW_MAX_S:
        raise SignatureClockSkewed(
            f"the signature's time is more than {CLOCK_SKEW_MAX_S} s from the server's",
            hint="Sign again with the time of the answer's header Fanxing-Time.",
        )
    return created


def refusal() -> DeviceSignatureRefused:
    """The one refusal, whether the signature is wrong or there is no such device."""
    return DeviceSignatureRefused(
        "the request is not signed as docs/scanner-api.md says, or not by the key of a device that is enrolled here",
        hint="Enrol the device if that was not done yet.",
    )


def _covered(message: Message) -> Sequence[str]:
    return (*_COVERED, "content-encoding") if "content-encoding" in message.headers else _COVERED


def _created(signed: VerifyResult) -> int:
    parameters = signed.parameters
    if set(parameters) != _PARAMETERS:
        raise InvalidSignature("other parameters than the protocol's")
    try:
        nonce = base64.b64decode(str(parameters["nonce"]), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSignature("the nonce is not base64") from None
    if len(nonce) != NONCE_BYTES:
        raise InvalidSignature("the nonce is of another length")
    return int(parameters["created"])
