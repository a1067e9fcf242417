"""Field encryption: personal data and serial keys are stored sealed, and found by keyed hashes.

One 32-byte vault key stands above everything; the keys in use are derived from it by HKDF-SHA-256 (RFC 5869).
Sealing is AES-256-GCM (NIST SP 800-38D) with a random 12-byte nonce. The context, which must be given again to
open, binds a ciphertext to its place, so that a sealed field copied to another row does not open there.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kit.errors import ConfigurationError, Unavailable

KEY_BYTES = 32
_NONCE_BYTES = 12


class VaultSealBroken(Unavailable):
    """A sealed field does not open: wrong vault key, moved or altered data."""

    code = "VaultSealBroken"


def new_key() -> bytes:
    """A fresh random 32-byte key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """nonce ‖ ciphertext ‖ tag: 28 bytes longer than the plaintext."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """The plaintext. Raises VaultSealBroken when key, context or bytes are not the ones that sealed it."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise VaultSealBroken("a sealed field does not open with this vault key") from None


class Vault:
    """Seals and finds fields under one vault key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigurationError("FANXING_VAULT_KEY_FILE: the vault key must be 32 bytes, as 64 hex digits")
        self._sealing = self._derive(key, b"fanxing/vault/seal")
        self._finding = self._derive(key, b"fanxing/vault/find")

    @staticmethod
    def _derive(key: bytes, purpose: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(key)

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        return seal(self._sealing, plaintext, context)

    def seal_many(self, plaintexts: Sequence[bytes], contexts: Iterable[bytes]) -> list[bytes]:
        """As `seal` seals each under its own context, at a third of the cost: what the key needs is set up once."""
        encrypt, chance = AESGCM(self._sealing).encrypt, os.urandom(_NONCE_BYTES * len(plaintexts))
        nonces = [chance[at : at + _NONCE_BYTES] for at in range(0, len(chance), _NONCE_BYTES)]
        told = zip(nonces, plaintexts, contexts, strict=True)
        return [nonce + encrypt(nonce, plaintext, context) for nonce, plaintext, context in told]

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        return unseal(self._sealing, sealed, context)

    def fingerprint(self, purpose: str, value: str) -> bytes:
        """The 32-byte keyed hash under which a value is found: HMAC-SHA-256, separate for each purpose."""
        return hmac.digest(self._finding, f"{purpose}\x00{value}".encode(), hashlib.sha256)


def load(path: Path) -> Vault:
    """The vault whose key stands in a file as 64 hex digits. Raises ConfigurationError naming the variable."""
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError:
        raise ConfigurationError(
            f"FANXING_VAULT_KEY_FILE: no vault key at {path}", hint="Run `fanxing init`, or point the variable at it."
        ) from None
    except ValueError:
        raise ConfigurationError(f"FANXING_VAULT_KEY_FILE: {path} does not hold 64 hex digits") from None
    return Vault(key)
