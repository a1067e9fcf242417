"""ECDSA over P-256 with SHA-256, by the package `cryptography`, which is an extra of this one."""

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from nacl.exceptions import BadSignatureError

P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of the group (NIST SP 800-186, 3.2.1.3)."""
S_MAX: Final = P256_ORDER // 2
"""The largest s that is accepted: with s, n - s would be right too, and a text must have one form."""
_SCALAR_BYTES: Final = 32


def p256_opener(public: bytes) -> Callable[[bytes, bytes], None]:
    """A function of (64-byte signature r then s, message) that raises BadSignatureError unless it is right.

    `public` is a compressed point of the curve, 33 bytes.
    """
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    ecdsa = ec.ECDSA(SHA256())

    def open_p256(signature: bytes, message: bytes) -> None:
        r, s = int.from_bytes(signature[:_SCALAR_BYTES], "big"), int.from_bytes(signature[_SCALAR_BYTES:], "big")
        if s > S_MAX:
            raise BadSignatureError("not a signature in its one form")
        try:
            key.verify(encode_dss_signature(r, s), message, ecdsa)
        except InvalidSignature:
            raise BadSignatureError("forged") from None

    return open_p256
