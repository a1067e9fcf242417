"""File custody: one file a private key, sealed under a passphrase through a memory-hard key derivation.

The file is JSON: format, kdf {name, salt, passes, memory_kib, lanes}, public (hex), sealed (hex of AES-256-GCM
nonce ‖ ciphertext ‖ tag over the 32-byte seed, bound to the name and the public key).
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from nacl._sodium import ffi, lib
from nacl.bindings import crypto_sign_seed_keypair

from kit.files import write_secret
from kit.vault import KEY_BYTES, VaultSealBroken, seal, unseal
from signer.custody import CustodyError, PrivateKeyMissing

_FORMAT = "fanxing-key-1"
# RFC 9106, 4: the second recommended option (64 MiB, 3 passes, 4 lanes).
_PASSES = 3
_MEMORY_KIB = 64 * 1024
_LANES = 4
_SALT_BYTES = 16
_SIGNATURE_BYTES = 64
_SEED_BYTES = 32
# A damaged file must not keep us deriving for hours, or ask for more memory than there is.
_PASSES_MAX = 100
_MEMORY_KIB_MAX = 2 * 1024 * 1024
_LANES_MAX = 64
_NAME = re.compile(r"[a-z0-9-]{1,64}")

PASSPHRASE_CHARACTERS_MIN = 12


class FileCustody:
    """Keys in a folder. The passphrase is asked for when a key is first used, and the opened key kept in memory."""

    def __init__(self, folder: Path, passphrase: Callable[[], str]) -> None:
        self._folder = folder
        self._passphrase = passphrase
        self._opened: dict[str, bytes] = {}

    def create(self, name: str) -> bytes:
        passphrase = self._passphrase()
        if len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
            raise CustodyError(f"the passphrase must have at least {PASSPHRASE_CHARACTERS_MIN} characters")
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        kdf = {
            "name": "argon2id",
            "salt": os.urandom(_SALT_BYTES).hex(),
            "passes": _PASSES,
            "memory_kib": _MEMORY_KIB,
            "lanes": _LANES,
        }
        sealed = seal(_derive(passphrase, kdf), private.private_bytes_raw(), _context(name, public))
        record = {"format": _FORMAT, "kdf": kdf, "public": public.hex(), "sealed": sealed.hex()}
        try:
            write_secret(self._path(name), json.dumps(record, indent=1).encode() + b"\n")
        except FileExistsError:
            raise CustodyError(f"a key named {name} exists already") from None
        except OSError as error:
            raise CustodyError(f"the key file of {name} cannot be written: {error.strerror}") from None
        return public

    def sign_many(self, name: str, messages: Sequence[bytes]) -> list[bytes]:
        self.open(name)
        key = self._opened[name]
        return _signatures(key, messages)

    def open(self, name: str) -> bytes:
        if name not in self._opened:
            self._opened[name] = self._unsealed(name)
        return self._opened[name][_SEED_BYTES:]  # libsodium keeps seed and public key together

    def _unsealed(self, name: str) -> bytes:
        try:
            content = self._path(name).read_bytes()
        except FileNotFoundError:
            raise PrivateKeyMissing(f"no private key named {name} in {self._folder}") from None
        except OSError as error:
            raise CustodyError(f"the key file of {name} cannot be read: {error.strerror}") from None
        passphrase = self._passphrase()
        try:
            record = json.loads(content)
            if record["format"] != _FORMAT:
                raise ValueError("unknown format")
            public = bytes.fromhex(record["public"])
            seed = unseal(_derive(passphrase, record["kdf"]), bytes.fromhex(record["sealed"]), _context(name, public))
        except VaultSealBroken:
            raise CustodyError(
                f"the private key {name} does not open",
                hint="The passphrase is wrong (FANXING_SIGNER_PASSPHRASE_FILE), or the key file was altered.",
            ) from None
        except (KeyError, TypeError, ValueError, RecursionError):
            raise CustodyError(f"the key file of {name} is damaged", hint="Restore it from a backup.") from None
        derived_public, key = crypto_sign_seed_keypair(seed)
        if derived_public != public:
            raise CustodyError(f"the key file of {name} is damaged: its public key is another key's")
        return key

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise CustodyError("a key name is 1 to 64 of a-z, 0-9 and the hyphen")
        return self._folder / f"{name}.key.json"


def _signatures(key: bytes, messages: Sequence[bytes]) -> list[bytes]:
    # What nacl.bindings.crypto_sign does, but for its checks and two buffers a message: a twentieth of the time of an
    # order's codes goes there. The call writes the signature and, behind it, a copy of the message.
    signed = ffi.new("unsigned char[]", _SIGNATURE_BYTES + max(map(len, messages), default=0))
    length, signature, sign = ffi.new("unsigned long long *"), ffi.buffer(signed, _SIGNATURE_BYTES), lib.crypto_sign
    signatures = []
    for message in messages:
        if sign(signed, length, message, len(message), key) != 0:
            raise CustodyError("libsodium refused to sign")
        signatures.append(signature[:])
    return signatures


def _derive(passphrase: str, kdf: dict[str, object]) -> bytes:
    if kdf["name"] != "argon2id":
        raise ValueError("unknown key derivation")
    return Argon2id(
        salt=bytes.fromhex(str(kdf["salt"])),
        length=KEY_BYTES,
        iterations=_number(kdf["passes"], _PASSES_MAX),
        lanes=_number(kdf["lanes"], _LANES_MAX),
        memory_cost=_number(kdf["memory_kib"], _MEMORY_KIB_MAX),
    ).derive(passphrase.encode())


def _number(value: object, high: int) -> int:
    if type(value) is not int or not 1 <= value <= high:
        raise ValueError("a cost of the key derivation is out of range")
    return value


def _context(name: str, public: bytes) -> bytes:
    return b"fanxing/custody/file\x00" + name.encode() + b"\x00" + public
