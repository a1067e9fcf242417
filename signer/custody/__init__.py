"""Where private keys live. One protocol; a key never leaves its custody, only signatures do."""

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from kit.errors import Unavailable
from offline_sdk.algorithms import SIGNATURE_BYTES, Algorithm, public_key_is_safe, signature_is_right
from offline_sdk.p256 import P256_ORDER

ALGORITHMS: Final = {algorithm.label: algorithm for algorithm in Algorithm}
"""By the names that key files and databases know them by."""
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_SCALAR_BYTES: Final = 32
_PROBE: Final = b"fanxing/custody/probe\x00"  # begins as no code and no document does


class CustodyError(Unavailable):
    """The private key cannot be used: missing, damaged, or the passphrase or PIN is wrong."""

    code = "CustodyError"


class PrivateKeyMissing(CustodyError):
    """There is no private key of that name."""

    code = "PrivateKeyMissing"


class Custody(Protocol):
    """Keeps private keys under names that it is given: 1 to 64 of a-z, 0-9 and the hyphen."""

    def create(self, name: str, algorithm: Algorithm) -> bytes:
        """Make a key pair and keep it. Returns the public key, as `Algorithm` says. Raises CustodyError.

        A name that is taken is refused.
        """
        ...

    def open(self, name: str) -> tuple[Algorithm, bytes]:
        """Make the key ready, so that signing will not fail for want of a passphrase. Returns its public side.

        Raises PrivateKeyMissing when there is none of that name, and CustodyError when it cannot be used.
        """
        ...

    def sign_many(self, name: str, messages: Sequence[bytes]) -> list[bytes]:
        """A 64-byte signature for each message, in order. Raises CustodyError when the key cannot be used.

        Ed25519 signatures are the same each time. P-256 ones are so from files alone: tokens draw a random number.
        """
        ...


def check_name(name: str) -> str:
    """Raises CustodyError unless this may name a key; the name otherwise. It becomes a file name, a label, an alias."""
    if not _NAME.fullmatch(name):
        raise CustodyError("a key name is 1 to 64 of a-z, 0-9 and the hyphen")
    return name


def p256_signature(r: int, s: int) -> bytes:
    """The one form of an ECDSA signature: r then s, 32 bytes each, big-endian, s the lower of the two right ones."""
    return r.to_bytes(_SCALAR_BYTES, "big") + min(s, P256_ORDER - s).to_bytes(_SCALAR_BYTES, "big")


def require_pair(name: str, algorithm: Algorithm, public: bytes, sign: Callable[[bytes], bytes]) -> None:
    """Raises CustodyError unless the public key is safe and verifies what this signs.

    Public key and signature come from a machine of others: one that speaks another dialect would spoil a whole order.
    """
    message = _PROBE + name.encode()
    if not public_key_is_safe(algorithm, public) or len(signature := sign(message)) != SIGNATURE_BYTES:
        right = False
    else:
        right = signature_is_right(algorithm, public, message, signature)
    if not right:
        raise CustodyError(
            f"the key {name} does not sign as its public key says",
            hint="Was its public half exchanged, or does this module encode keys otherwise?",
        )
