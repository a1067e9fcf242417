"""The ledger's rows in the binary form of PostgreSQL's COPY, for who writes many at once.

PostgreSQL documentation, COPY, "Binary Format": a row is its number of fields in 16 bits, then each field's length in
32 bits and its bytes; a length of -1 is NULL. Moments are microseconds since 2000.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from loyalty.ledger.accounts import AccountId
from loyalty.ledger.chain import microseconds

ACCOUNTS = "ledger_account (holder_id, asset, purpose, balance, floor, seq, head)"
ENTRIES = "ledger_entry (holder_id, asset, purpose, seq, transfer_id, amount, balance_after, at, link)"
TRANSFERS = "ledger_transfer (transfer_id, fingerprint, reason, at, seal)"
LOTS = 'points_lot (member_id, lot_id, amount, "left", earned_at, expires_at)'

_BEGIN, _END = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
_EPOCH_US = microseconds(datetime(2000, 1, 1, tzinfo=UTC))
_NAMED = struct.Struct(">hi16si")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_NUMBER = struct.Struct(">iq")
_ACCOUNT = struct.Struct(">iqiqiqi32s")
_ENTRY = struct.Struct(">iqi16siqiqiqi32s")
_LOT = struct.Struct(">hi16si16siqiqiq")
_TRANSFER = struct.Struct(">hi16si32si")
_SEALED = struct.Struct(">iqi32s")


def moment(at: datetime) -> int:
    """A moment as COPY has it."""
    return microseconds(at) - _EPOCH_US


def entry_begin(account: AccountId) -> bytes:
    """What every entry of an account begins with."""
    return _begin(9, account)


def entry_rest(seq: int, transfer_id: bytes, amount: int, balance_after: int, at: int, link: bytes) -> bytes:
    """An entry after its beginning; `at` by `moment`."""
    return _ENTRY.pack(8, seq, 16, transfer_id, 8, amount, 8, balance_after, 8, at, 32, link)


def account_row(account: AccountId, balance: int, floor: int, seq: int, head: bytes) -> bytes:
    """An account."""
    return _begin(7, account) + _ACCOUNT.pack(8, balance, 8, floor, 8, seq, 32, head)


def lot_row(member_id: bytes, lot_id: bytes, amount: int, left: int, earned_at: int, expires_at: int | None) -> bytes:
    """A points lot; moments by `moment`."""
    row = _LOT.pack(6, 16, member_id, 16, lot_id, 8, amount, 8, left, 8, earned_at)
    return row + (_NULL if expires_at is None else _NUMBER.pack(8, expires_at))


def transfer_row(transfer_id: bytes, fingerprint: bytes, reason: bytes, at: int, seal: bytes) -> bytes:
    """A transfer's record; `at` by `moment`."""
    row = _TRANSFER.pack(5, 16, transfer_id, 32, fingerprint, len(reason))
    return row + reason + _SEALED.pack(8, at, 32, seal)


def _begin(fields: int, account: AccountId) -> bytes:
    asset, purpose = account.asset.encode(), account.purpose.encode()
    named = _NAMED.pack(fields, 16, account.holder_id.bytes, len(asset))
    return named + asset + _LENGTH.pack(len(purpose)) + purpose


async def copy(connection: psycopg.AsyncConnection[Any], table: str, rows: Sequence[bytes]) -> None:
    """Write rows; `table` is one of the above."""
    if not rows:
        return
    async with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as into:
        await into.write(b"".join((_BEGIN, *rows, _END)))
