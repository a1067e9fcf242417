"""Algorithms: the registered signature algorithms, which public keys may be trusted, and whether a signature is right.

A key's algorithm is bound to it in the trust bundle or the root document. Nothing in a code text chooses one.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from .errors import AlgorithmMissing

SIGNATURE_BYTES: Final = 64
ED25519_KEY_BYTES: Final = 32
P256_KEY_BYTES: Final = 33

_P25519: Final = 2**255 - 19
# y of the two pairs of points of order 8; they are each other's negatives modulo p.
_Y_OF_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# y of the points of order 4, 1, 2 and 8.
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P25519 - 1, _Y_OF_ORDER_8, _P25519 - _Y_OF_ORDER_8})

# P-256: field and curve constant b (NIST SP 800-186, 3.2.1.3).
_P256: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B256: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


class Algorithm(IntEnum):
    """A signature algorithm, by its number in COSE (RFC 9864, 2.2: fully specified algorithms)."""

    ED25519 = -19
    """RFC 8032; a public key is 32 bytes, a signature R then S."""
    ESP256 = -9
    """ECDSA over P-256 with SHA-256 (FIPS 186-5, 6); a public key is a compressed point of 33 bytes (SEC 1, 2.3.3), a
    signature r then s, 32 bytes each, big-endian, with s at most half the group's order."""

    @property
    def label(self) -> str:
        """The name that people, key files and databases know it by."""
        return "Ed25519" if self is Algorithm.ED25519 else "P-256"

    @classmethod
    def labelled(cls, label: str) -> "Algorithm":
        """The algorithm of this name, also as "p256" or "ed25519". Raises ValueError."""
        for algorithm in cls:
            if algorithm.label.replace("-", "").lower() == label.replace("-", "").lower():
                return algorithm
        raise ValueError(f"there is no algorithm {label}")


def public_key_is_safe(algorithm: Algorithm, public: bytes) -> bool:
    """Tell whether all verifiers would agree on what this public key signs.

    Ed25519: 32 bytes with y below p and no point of small order; libraries disagree on others, and a key of small order
    accepts one signature for many messages ("Taming the many EdDSAs", 2020, 3). P-256: a compressed point of the curve.
    """
    if not isinstance(public, bytes):
        return False
    if algorithm is Algorithm.ED25519:
        if len(public) != ED25519_KEY_BYTES:
            return False
        y = int.from_bytes(public, "little") & (2**255 - 1)  # the top bit is the sign of x
        return y < _P25519 and y not in _SMALL_ORDER_Y
    if len(public) != P256_KEY_BYTES or public[0] not in (2, 3):
        return False
    x = int.from_bytes(public[1:], "big")
    # The point is on the curve when y^2 has a root. P-256 has a prime order, so no small subgroups.
    return x < _P256 and _jacobi((x**3 - 3 * x + _B256) % _P256, _P256) == 1


def signature_is_right(algorithm: Algorithm, public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether this is a 64-byte signature of the message by this key, which is safe.

    Ed25519 refuses S >= L (RFC 8032, 5.1.7), P-256 refuses s > n/2: one message has no second form of a signature.
    Raises AlgorithmMissing as `opener` does.
    """
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        opener(algorithm, public)(signature, message)
    except BadSignatureError:
        return False
    return True


def opener(algorithm: Algorithm, public: bytes) -> Callable[[bytes, bytes], Any]:
    """A function of (signature, message) that raises nacl's BadSignatureError unless the signature is right.

    The public key is safe, the signature 64 bytes. Raises AlgorithmMissing where P-256 is asked for and the package
    `cryptography` is not installed.
    """
    if algorithm is Algorithm.ED25519:

        def open_ed25519(signature: bytes, message: bytes) -> None:
            crypto_sign_open(signature + message, public)

        return open_ed25519
    try:
        from .p256 import p256_opener  # noqa: PLC0415 - an extra: most scanners never meet such a key
    except ImportError:
        raise AlgorithmMissing(
            "this key needs P-256; install the package with it: pip install 'fanxing-offline-sdk[p256]'"
        ) from None
    return p256_opener(public)


def _jacobi(a: int, n: int) -> int:
    """The Jacobi symbol of `a` and an odd `n` above it: 1 when `n` is prime and `a` has a square root modulo `n`.

    By quadratic reciprocity, in a quarter of the time of Euler's criterion: a bundle may hold thousands of keys.
    """
    symbol = 1
    while a:
        twos = (a & -a).bit_length() - 1
        a >>= twos
        if twos & 1 and n & 7 in (3, 5):
            symbol = -symbol
        if a & n & 2:
            symbol = -symbol
        a, n = n % a, a
    return symbol if n == 1 else 0
