"""Rows in the binary form of PostgreSQL's COPY, the ledger's above all, for who writes many at once.

PostgreSQL documentation, COPY, "Binary Format": a row is its number of fields in 16 bits, then each field's length in
32 bits and its bytes; a length of -1 is NULL. Moments are microseconds since 2000.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import compress
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from loyalty.ledger.accounts import AccountId
from loyalty.ledger.chain import microseconds

ACCOUNTS = "ledger_account (holder_id, asset, purpose, balance, floor, seq, head)"
ENTRIES = "ledger_entry (holder_id, asset, purpose, seq, transfer_id, amount, balance_after, at, link)"
TRANSFERS = "ledger_transfer (transfer_id, fingerprint, reason, at, lots_expire_at, seal)"
LOTS = 'points_lot (member_id, lot_id, amount, "left", earned_at, expires_at)'

Bytes = NDArray[np.uint8]
"""A field of many rows, all of one length: a line of bytes each."""
Column = bytes | None | Bytes | Sequence[bytes | None]
"""A field of many rows: the same in all, or one length in all, or whatever."""

_BEGIN, _END = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
_EPOCH_US = microseconds(datetime(2000, 1, 1, tzinfo=UTC))
_NAMED = struct.Struct(">hi16si")
_FIELDS = struct.Struct(">h")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_NUMBER = struct.Struct(">iq")
_ACCOUNT = struct.Struct(">iqiqiqi32s")
_ENTRY = struct.Struct(">iqi16siqiqiqi32s")
_LOT = struct.Struct(">hi16si16siqiqiq")
_TRANSFER = struct.Struct(">hi16si32si")
_SEALED = struct.Struct(">i32s")


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


def transfer_row(
    transfer_id: bytes, fingerprint: bytes, reason: bytes, at: int, seal: bytes, lots_expire_at: int | None = None
) -> bytes:
    """A transfer's record; moments by `moment`."""
    row = _TRANSFER.pack(6, 16, transfer_id, 32, fingerprint, len(reason)) + reason + _NUMBER.pack(8, at)
    return row + (_NULL if lots_expire_at is None else _NUMBER.pack(8, lots_expire_at)) + _SEALED.pack(32, seal)


def _begin(fields: int, account: AccountId) -> bytes:
    asset, purpose = account.asset.encode(), account.purpose.encode()
    named = _NAMED.pack(fields, 16, account.holder_id.bytes, len(asset))
    return named + asset + _LENGTH.pack(len(purpose)) + purpose


def rows(count: int, columns: Sequence[Column]) -> bytes:
    """So many rows of any table at once; those whose fields are of the same lengths stand together."""
    lists = [column for column in columns if isinstance(column, Sequence) and not isinstance(column, bytes)]
    uneven = [column for column in lists if not _is_even(column)]
    if not count or not uneven:
        return _alike(count, columns) if count else b""
    lengths = np.array([[-1 if value is None else len(value) for value in column] for column in uneven])
    kinds, kind_of = np.unique(lengths, axis=1, return_inverse=True)
    return b"".join(
        _alike(int(chosen.sum()), [_chosen(column, chosen) for column in columns])
        for chosen in (kind_of == kind for kind in range(kinds.shape[1]))
    )


def _is_even(column: Column) -> bool:
    if column is None or isinstance(column, bytes | np.ndarray):
        return True
    if None in column:
        return column.count(None) == len(column)
    return len({len(value) for value in column if value is not None}) <= 1


def _chosen(column: Column, chosen: NDArray[np.bool_]) -> Column:
    if column is None or isinstance(column, bytes):
        return column
    return column[chosen] if isinstance(column, np.ndarray) else list(compress(column, chosen.tolist()))


def _alike(count: int, columns: Sequence[Column]) -> bytes:
    parts: list[bytes | Bytes] = [_FIELDS.pack(len(columns))]
    for column in columns:
        field = column
        if isinstance(field, Sequence) and not isinstance(field, bytes):
            # All of one length, or all NULL.
            values = [value for value in field if value is not None]
            joined = np.frombuffer(b"".join(values), np.uint8)
            field = joined.reshape(count, len(values[0])) if values else None
        if field is None:
            parts.append(_NULL)
        elif isinstance(field, np.ndarray):
            parts += [_LENGTH.pack(field.shape[1]), field]
        else:
            parts += [_LENGTH.pack(len(field)), field]
    table = np.empty((count, sum(part.shape[1] if isinstance(part, np.ndarray) else len(part) for part in parts)), "u1")
    at = 0
    for part in parts:
        if isinstance(part, np.ndarray):
            table[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        else:
            table[:, at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
    return table.tobytes()


def numbers(values: Sequence[int] | NDArray[np.int64], bits: int = 64) -> Bytes:
    """Whole numbers of 64 or 32 bits as a column."""
    return np.asarray(values, f">i{bits // 8}").view(np.uint8).reshape(len(values), bits // 8)


def number(value: int, bits: int = 64) -> bytes:
    """One number that all rows have."""
    return value.to_bytes(bits // 8, "big", signed=True)


def whole(content: Sequence[bytes]) -> bytes:
    """Rows as what `COPY … FROM STDIN (FORMAT BINARY)` reads."""
    return b"".join((_BEGIN, *content, _END))


async def copy(connection: psycopg.AsyncConnection[Any], table: str, content: Sequence[bytes]) -> None:
    """Write rows; `table` is one of the above, or another with its columns."""
    if not any(content):
        return
    async with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as into:
        await into.write(whole(content))
