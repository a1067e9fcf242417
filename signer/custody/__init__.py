"""Where private keys live. One protocol; a key never leaves its custody, only signatures do."""

from collections.abc import Sequence
from typing import Protocol

from kit.errors import Unavailable


class CustodyError(Unavailable):
    """The private key cannot be used: missing, damaged, or the passphrase is wrong."""

    code = "CustodyError"


class PrivateKeyMissing(CustodyError):
    """There is no private key of that name."""

    code = "PrivateKeyMissing"


class Custody(Protocol):
    """Keeps Ed25519 private keys (RFC 8032) under names that it is given."""

    def create(self, name: str) -> bytes:
        """Make a key pair and keep it. Returns the 32-byte public key. Raises CustodyError when the name is taken."""
        ...

    def open(self, name: str) -> bytes:
        """Make the key ready, so that signing will not fail for want of a passphrase. Returns the 32-byte public key.

        Raises PrivateKeyMissing when there is none of that name, and CustodyError when it cannot be used.
        """
        ...

    def sign_many(self, name: str, messages: Sequence[bytes]) -> list[bytes]:
        """A 64-byte signature for each message, in order. Raises CustodyError when the key cannot be used."""
        ...
