"""File custody: one file a private key, sealed under a passphrase through a memory-hard key derivation.

The file is JSON: format, algorithm (Ed25519, P-256), kdf {name, salt, passes, memory_kib, lanes}, public (hex), sealed
(hex of AES-256-GCM nonce ‖ ciphertext ‖ tag over the 32-byte private key: an Ed25519 seed, or a P-256 scalar,
big-endian; bound to the name, the algorithm and the public key). Files of format 1 have no algorithm: they are Ed25519.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl._sodium import ffi, lib
from nacl.bindings import crypto_sign_seed_keypair

from kit.files import write_secret
from kit.vault import KEY_BYTES, VaultSealBroken, seal, unseal
from offline_sdk.algorithms import SIGNATURE_BYTES, Algorithm
from signer.custody import ALGORITHMS, CustodyError, PrivateKeyMissing, check_name, p256_signature

_FORMAT: Final = "fanxing-key-2"
_FORMAT_OF_ED25519: Final = "fanxing-key-1"
# RFC 9106, 4: the second recommended option (64 MiB, 3 passes, 4 lanes).
_PASSES = 3
_MEMORY_KIB = 64 * 1024
_LANES = 4
_SALT_BYTES: Final = 16
_PRIVATE_BYTES: Final = 32
# A damaged file must not keep us deriving for hours, or ask for more memory than there is.
_PASSES_MAX: Final = 100
_MEMORY_KIB_MAX: Final = 2 * 1024 * 1024
_LANES_MAX: Final = 64

PASSPHRASE_CHARACTERS_MIN: Final = 12


@dataclass(frozen=True, slots=True)
class _Derivation:
    """How the passphrase becomes the key that seals a file (Argon2id, RFC 9106)."""

    salt: bytes
    passes: int
    memory_kib: int
    lanes: int

    @classmethod
    def read(cls, record: Mapping[str, object]) -> Self:
        if record["name"] != "argon2id":
            raise ValueError("unknown key derivation")
        return cls(
            salt=bytes.fromhex(str(record["salt"])),
            passes=_number(record["passes"], _PASSES_MAX),
            memory_kib=_number(record["memory_kib"], _MEMORY_KIB_MAX),
            lanes=_number(record["lanes"], _LANES_MAX),
        )

    def as_json(self) -> dict[str, object]:
        return {
            "name": "argon2id",
            "salt": self.salt.hex(),
            "passes": self.passes,
            "memory_kib": self.memory_kib,
            "lanes": self.lanes,
        }

    def key(self, passphrase: str) -> bytes:
        return Argon2id(
            salt=self.salt, length=KEY_BYTES, iterations=self.passes, lanes=self.lanes, memory_cost=self.memory_kib
        ).derive(passphrase.encode())


@dataclass(frozen=True, slots=True)
class _Opened:
    """A private key in memory."""

    algorithm: Algorithm
    public: bytes
    sign_many: Callable[[Sequence[bytes]], list[bytes]] = field(repr=False)


class FileCustody:
    """Keys in a folder. The passphrase is asked for when a key is first used, and the opened key kept in memory."""

    def __init__(self, folder: Path, passphrase: Callable[[], str]) -> None:
        self._folder = folder
        self._passphrase = passphrase
        self._opened: dict[str, _Opened] = {}
        # Keys made by one custody share a salt, so that a thousand cost one derivation. That gives nothing away: they
        # share the passphrase too, and whoever guesses at it tries each guess on one file alone.
        self._sealing: _Derivation | None = None
        self._derived: dict[_Derivation, bytes] = {}

    def create(self, name: str, algorithm: Algorithm) -> bytes:
        path = self._path(name)
        derivation = self._sealing or self._new_derivation()
        private, public = _generate(algorithm)
        sealed = seal(self._derived[derivation], private, _context(name, public, algorithm))
        record = {
            "format": _FORMAT,
            "algorithm": algorithm.label,
            "kdf": derivation.as_json(),
            "public": public.hex(),
            "sealed": sealed.hex(),
        }
        try:
            write_secret(path, json.dumps(record, indent=1).encode() + b"\n")
        except FileExistsError:
            raise CustodyError(f"a key named {name} exists already") from None
        except OSError as error:
            raise CustodyError(f"the key file of {name} cannot be written: {error.strerror}") from None
        return public

    def open(self, name: str) -> tuple[Algorithm, bytes]:
        key = self._key(name)
        return key.algorithm, key.public

    def sign_many(self, name: str, messages: Sequence[bytes]) -> list[bytes]:
        return self._key(name).sign_many(messages)

    def _new_derivation(self) -> _Derivation:
        passphrase = self._passphrase()
        if len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
            raise CustodyError(f"the passphrase must have at least {PASSPHRASE_CHARACTERS_MIN} characters")
        derivation = _Derivation(os.urandom(_SALT_BYTES), _PASSES, _MEMORY_KIB, _LANES)
        self._derived[derivation] = derivation.key(passphrase)
        self._sealing = derivation
        return derivation

    def _key(self, name: str) -> _Opened:
        if name not in self._opened:
            self._opened[name] = self._unsealed(name)
        return self._opened[name]

    def _unsealed(self, name: str) -> _Opened:
        try:
            content = self._path(name).read_bytes()
        except FileNotFoundError:
            raise PrivateKeyMissing(f"no private key named {name} in {self._folder}") from None
        except OSError as error:
            raise CustodyError(f"the key file of {name} cannot be read: {error.strerror}") from None
        try:
            record = json.loads(content)
            algorithm, context = _described(name, record)
            derivation = _Derivation.read(record["kdf"])
            opening = self._derived.get(derivation) or derivation.key(self._passphrase())
            private = unseal(opening, bytes.fromhex(record["sealed"]), context)
        except VaultSealBroken:
            raise CustodyError(
                f"the private key {name} does not open",
                hint="The passphrase is wrong (FANXING_SIGNER_PASSPHRASE_FILE), or the key file was altered.",
            ) from None
        except (KeyError, TypeError, ValueError, RecursionError):
            raise CustodyError(f"the key file of {name} is damaged", hint="Restore it from a backup.") from None
        self._derived[derivation] = opening
        key = _ed25519(private) if algorithm is Algorithm.ED25519 else _p256(private)
        if key.public != bytes.fromhex(record["public"]):
            raise CustodyError(f"the key file of {name} is damaged: its public key is another key's")
        return key

    def _path(self, name: str) -> Path:
        return self._folder / f"{check_name(name)}.key.json"


def _generate(algorithm: Algorithm) -> tuple[bytes, bytes]:
    """A new key: (private, public)."""
    if algorithm is Algorithm.ED25519:
        seed = Ed25519PrivateKey.generate()
        return seed.private_bytes_raw(), seed.public_key().public_bytes_raw()
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_numbers().private_value.to_bytes(_PRIVATE_BYTES, "big"), _compressed(key)


def _described(name: str, record: Mapping[str, Any]) -> tuple[Algorithm, bytes]:
    """What a file says its key is, and what its seal is bound to."""
    public = bytes.fromhex(record["public"])
    if record["format"] == _FORMAT_OF_ED25519:
        return Algorithm.ED25519, b"fanxing/custody/file\x00" + name.encode() + b"\x00" + public
    if record["format"] != _FORMAT:
        raise ValueError("unknown format")
    algorithm = ALGORITHMS[record["algorithm"]]
    return algorithm, _context(name, public, algorithm)


def _context(name: str, public: bytes, algorithm: Algorithm) -> bytes:
    return b"\x00".join((b"fanxing/custody/file/2", name.encode(), algorithm.label.encode(), public))


def _ed25519(seed: bytes) -> _Opened:
    public, key = crypto_sign_seed_keypair(seed)
    return _Opened(Algorithm.ED25519, public, lambda messages: _ed25519_signatures(key, messages))


def _ed25519_signatures(key: bytes, messages: Sequence[bytes]) -> list[bytes]:
    # What nacl.bindings.crypto_sign does, but for its checks and two buffers a message: a twentieth of the time of an
    # order's codes goes there. The call writes the signature and, behind it, a copy of the message.
    signed = ffi.new("unsigned char[]", SIGNATURE_BYTES + max(map(len, messages), default=0))
    length, signature, sign = ffi.new("unsigned long long *"), ffi.buffer(signed, SIGNATURE_BYTES), lib.crypto_sign
    signatures = []
    for message in messages:
        if sign(signed, length, message, len(message), key) != 0:
            raise CustodyError("libsodium refused to sign")
        signatures.append(signature[:])
    return signatures


def _p256(scalar: bytes) -> _Opened:
    key = ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())
    # RFC 6979: what is made again for a lost export is the same bytes, and no weak random number gives the key away.
    ecdsa = ec.ECDSA(SHA256(), deterministic_signing=True)

    def sign_many(messages: Sequence[bytes]) -> list[bytes]:
        return [p256_signature(*decode_dss_signature(key.sign(message, ecdsa))) for message in messages]

    return _Opened(Algorithm.ESP256, _compressed(key), sign_many)


def _compressed(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _number(value: object, high: int) -> int:
    if type(value) is not int or not 1 <= value <= high:
        raise ValueError("a cost of the key derivation is out of range")
    return value
