"""The hash chain of an account: each entry's link covers the entry and, through the link before it, all earlier ones.

One chain an account (docs/adr/0013). The forms below are stored and kept by auditors: they never change.
"""

import hashlib
import struct
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, MetaData, Table, event
from sqlmodel import SQLModel

from kit.db import register_sqlite_function

LINK_BYTES = 32

_GENESIS = b"fanxing/ledger/v1\x00"
SEAL_BEGIN = b"fanxing/transfer/v1\x00"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

MESSAGE = struct.Struct(">16sqqqq")
"""What a link covers besides the link before it: transfer id, amount, balance after, seq, microseconds since 1970."""

RECORD = struct.Struct(">16sq32sq16sq")
"""What a seal covers besides the reason: transfer id, `at`, fingerprint, when its lots expire, the id of the transfer
that it undoes, and until when it is held; moments as in a link."""
NO_MOMENT, NO_ID = -(2**63), bytes(16)
"""What a seal has for a moment or an id that the record does not have."""


def genesis(holder_id: uuid.UUID, asset: str, purpose: str) -> bytes:
    """The head of an account without entries: SHA-256("fanxing/ledger/v1" 0 holder(16) asset 0 purpose)."""
    return first_head(holder_id.bytes, asset, purpose)


def first_head(holder: bytes, asset: str, purpose: str) -> bytes:
    """The same for a holder in 16 bytes."""
    begin, end = first_message(asset, purpose)
    return hashlib.sha256(begin + holder + end).digest()


def first_message(asset: str, purpose: str) -> tuple[bytes, bytes]:
    """What is hashed before and after a holder's 16 bytes."""
    return _GENESIS, asset.encode() + b"\x00" + purpose.encode()


def link(head: bytes, transfer_id: uuid.UUID, amount: int, balance_after: int, seq: int, at: datetime) -> bytes:
    """The link of an entry after `head`: SHA-256(head, transfer id, amount, balance after, seq, at); 32 bytes.

    Numbers are signed, 64 bits, big-endian; `at` is in microseconds since 1970. The databases have the same function as
    `ledger_link`.
    """
    message = MESSAGE.pack(transfer_id.bytes, amount, balance_after, seq, microseconds(at))
    return hashlib.sha256(head + message).digest()


def seal(
    transfer_id: uuid.UUID,
    fingerprint: bytes,
    reason: str,
    at: datetime,
    lots_expire_at: datetime | None = None,
    undoes: uuid.UUID | None = None,
    held_until: datetime | None = None,
) -> bytes:
    """Covers a transfer's record: SHA-256("fanxing/transfer/v1" 0 `record`)."""
    covered = record(transfer_id, fingerprint, reason, at, lots_expire_at, undoes, held_until)
    return hashlib.sha256(SEAL_BEGIN + covered).digest()


def record(
    transfer_id: uuid.UUID,
    fingerprint: bytes,
    reason: str,
    at: datetime,
    lots_expire_at: datetime | None,
    undoes: uuid.UUID | None,
    held_until: datetime | None,
) -> bytes:
    """What a seal covers: `RECORD`, then the reason."""
    fixed = RECORD.pack(
        transfer_id.bytes,
        microseconds(at),
        fingerprint,
        NO_MOMENT if lots_expire_at is None else microseconds(lots_expire_at),
        NO_ID if undoes is None else undoes.bytes,
        NO_MOMENT if held_until is None else microseconds(held_until),
    )
    return fixed + reason.encode()


def microseconds(at: datetime) -> int:
    """Microseconds since 1970 of an aware moment."""
    return (at - _EPOCH) // _MICROSECOND


# STABLE: one of the functions inside counts as no better, and what is not would be called instead of inlined.
_POSTGRES_FUNCTIONS = (
    """
    CREATE OR REPLACE FUNCTION ledger_link(
        head bytea, transfer_id uuid, amount bigint, balance_after bigint, seq bigint, at timestamptz
    ) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
        SELECT sha256(head || uuid_send(transfer_id) || int8send(amount) || int8send(balance_after) || int8send(seq)
            || int8send((extract(epoch FROM at AT TIME ZONE 'UTC') * 1000000)::bigint))
    $$
    """,
)


def functions_ddl(dialect: str) -> tuple[str, ...]:
    """Statements that make `ledger_link`. `dialect` is "sqlite", which needs none, or "postgresql".

    `SQLModel.metadata.create_all` runs them; a migration has to.
    """
    return _POSTGRES_FUNCTIONS if dialect == "postgresql" else ()


@event.listens_for(SQLModel.metadata, "after_create")
def _make_functions(_metadata: MetaData, connection: Connection, tables: Sequence[Table], **_options: object) -> None:
    for statement in functions_ddl(connection.dialect.name):
        connection.exec_driver_sql(statement)


# SQLite keeps ids as hexadecimal digits and moments as text without a zone.
def _sqlite_link(head: bytes, transfer_id: str, amount: int, balance_after: int, seq: int, at: str) -> bytes:
    return link(
        head, uuid.UUID(transfer_id), amount, balance_after, seq, datetime.fromisoformat(at).replace(tzinfo=UTC)
    )


register_sqlite_function("ledger_link", 6, _sqlite_link)
