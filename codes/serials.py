"""Serials: the issue index of an item, permuted by FF1 so that serials reveal no volumes and never collide.

The item number is FF1 (NIST SP 800-38G, algorithm 7: AES-256, radix 10, 9 digits, tweak = ASCII of the 14-digit GTIN
and the 5-digit order number) of the issue index. Nothing is stored for an item: inverting the permutation tells
whether a serial was issued.
"""

from typing import ClassVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray
from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel

from kit.db import Session
from kit.errors import Unavailable
from kit.vault import Vault, new_key
from offline_sdk.code_text import ORDER_MAX
from offline_sdk.gtin import GTIN_DIGITS

ITEM_DIGITS = 9
ITEM_NUMBERS = 1_000_000_000
_ROUNDS = 10
_BLOCK_BYTES = 16
_LEFT_DIGITS = ITEM_DIGITS // 2  # u of SP 800-38G
_MODULI = (10_000, 100_000)  # 10^u, 10^v
_HALF_BYTES = 3  # b: ceil(ceil(v · log2 10) / 8)
_TWEAK_BYTES = 19
_PAD_BYTES = (-_TWEAK_BYTES - _HALF_BYTES - 1) % _BLOCK_BYTES

ItemNumbers = NDArray[np.int64]


class SerialKeyMissing(Unavailable):
    code = "SerialKeyMissing"


class SerialScheme:
    """The permutation between issue indexes and item numbers, 0..999,999,999 on both sides, under one key."""

    def __init__(self, key: bytes) -> None:
        """`key` is 32 bytes (AES-256)."""
        if len(key) != 32:
            raise ValueError("the serial key must be 32 bytes")
        # ECB of single blocks is the raw AES permutation that FF1 builds its CBC-MAC from; it encrypts no data here.
        # Each call opens its own encryptor: one shared by two threads refuses the second.
        self._cipher = Cipher(AES(key), ECB())  # noqa: S305
        self._key = key

    def __reduce__(self) -> tuple[type["SerialScheme"], tuple[bytes]]:
        return SerialScheme, (self._key,)  # a worker process of this machine gets it through a pipe

    def item_numbers(self, gtin: str, order_number: int, start: int, count: int) -> ItemNumbers:
        """The item numbers of the issue indexes start..start+count-1, in that order."""
        if not 0 <= start <= start + count <= ITEM_NUMBERS:
            raise ValueError(f"issue indexes lie in 0..{ITEM_NUMBERS - 1}")
        return self.item_numbers_of(gtin, order_number, np.arange(start, start + count, dtype=np.int64))

    def issue_index(self, gtin: str, order_number: int, item_number: int) -> int:
        """The issue index, 0..999,999,999, whose item number this is; it may lie past what was issued."""
        if not 0 <= item_number < ITEM_NUMBERS:
            raise ValueError(f"an item number lies in 0..{ITEM_NUMBERS - 1}")
        # The inverse of `item_numbers` for one number: every scan asks it, and numpy would cost ten times as much.
        aes = self._cipher.encryptor()
        base = int.from_bytes(_base(aes, gtin, order_number), "big")
        left, right = divmod(item_number, _MODULI[1])
        for turn in reversed(range(_ROUNDS)):
            mac = aes.update((base ^ turn << 24 ^ left).to_bytes(_BLOCK_BYTES, "big"))
            left, right = (right - int.from_bytes(mac[:8], "big")) % _MODULI[turn % 2], left
        return left * _MODULI[1] + right

    def item_numbers_of(self, gtin: str, order_number: int, indexes: ItemNumbers) -> ItemNumbers:
        """The item numbers of these issue indexes, 0..999,999,999, in their order."""
        aes = self._cipher.encryptor()
        words = np.empty((len(indexes), _BLOCK_BYTES // 4), dtype=">u4")
        base = np.frombuffer(_base(aes, gtin, order_number), dtype=">u4")
        words[:] = base
        left, right = np.divmod(indexes, _MODULI[1])
        for turn in range(_ROUNDS):
            words[:, 3] = int(base[3]) ^ turn << 24 ^ right
            # y of SP 800-38G, algorithm 7, step 6: the first d = 8 bytes of the CBC-MAC.
            mac = np.frombuffer(aes.update(words.tobytes()), dtype=">u8")[::2]
            mask = (mac.astype(np.uint64) % np.uint64(_MODULI[turn % 2])).astype(np.int64)
            left, right = right, (left + mask) % _MODULI[turn % 2]
        return left * _MODULI[1] + right


def _base(aes: CipherContext, gtin: str, order_number: int) -> bytes:
    """The last block that goes into the CBC-MAC, already chained, with round number and half still zero.

    All blocks before it are the same for every item of an order; in it only the last four bytes differ.
    """
    if len(gtin) != GTIN_DIGITS or not 0 <= order_number <= ORDER_MAX:
        raise ValueError("the GTIN must have 14 digits and the order number at most 5")
    tweak = f"{gtin}{order_number:05d}".encode("ascii")
    header = (
        bytes((1, 2, 1))
        + (10).to_bytes(3, "big")
        + bytes((_ROUNDS, _LEFT_DIGITS))
        + ITEM_DIGITS.to_bytes(4, "big")
        + _TWEAK_BYTES.to_bytes(4, "big")
    )
    padded = tweak + bytes(_PAD_BYTES)
    chained = aes.update(header)
    chained = aes.update(_xor(chained, padded[:_BLOCK_BYTES]))
    return _xor(chained, padded[_BLOCK_BYTES:].ljust(_BLOCK_BYTES, b"\0"))


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


class SerialKey(SQLModel, table=True):
    """An issuer's serial key, sealed by the vault."""

    __tablename__: ClassVar[str] = "serial_key"

    issuer_id: int = Field(primary_key=True, foreign_key="issuer.issuer_id", sa_column_kwargs={"autoincrement": False})
    sealed: bytes = Field(sa_type=LargeBinary)


def create_serial_key(session: Session, vault: Vault, issuer_id: int) -> None:
    """Give a new issuer its serial key. It can never change: the serials of all its orders hang on it."""
    session.add(SerialKey(issuer_id=issuer_id, sealed=vault.seal(new_key(), _context(issuer_id))))


async def scheme_of(session: Session, vault: Vault, issuer_id: int) -> SerialScheme:
    """The issuer's permutation. Raises SerialKeyMissing."""
    stored = await session.get(SerialKey, issuer_id)
    if stored is None:
        raise SerialKeyMissing(f"issuer {issuer_id} has no serial key", hint="Restore the database from a backup.")
    return SerialScheme(vault.unseal(stored.sealed, _context(issuer_id)))


def _context(issuer_id: int) -> bytes:
    return f"serial_key/{issuer_id}".encode()
