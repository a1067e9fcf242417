"""Ed25519: which public keys may be trusted, and whether a signature is right (RFC 8032, by libsodium)."""

from typing import Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_P: Final = 2**255 - 19
# y of the two pairs of points of order 8; they are each other's negatives modulo p.
_Y_OF_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# y of the points of order 4, 1, 2 and 8.
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _Y_OF_ORDER_8, _P - _Y_OF_ORDER_8})


def public_key_is_safe(public: bytes) -> bool:
    """Tell whether this is 32 bytes with y below p and no point of small order.

    Ed25519 libraries disagree on such keys, and a key of small order accepts one signature for many messages, so a key
    like that would have verifiers contradict each other. Source: RFC 8032, 5.1.3; "Taming the many EdDSAs" (2020), 3.
    """
    if not isinstance(public, bytes) or len(public) != PUBLIC_KEY_BYTES:
        return False
    y = int.from_bytes(public, "little") & (2**255 - 1)  # the top bit is the sign of x
    return y < _P and y not in _SMALL_ORDER_Y


def signature_is_right(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether this 64-byte signature of the message was made by this key (RFC 8032, 5.1.7; S >= L is refused)."""
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True
