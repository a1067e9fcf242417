"""Entries: what a transfer did to an account. Written once, in one order an account, and never changed."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Insert,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Update,
    Uuid,
    and_,
    bindparam,
    case,
    event,
    exists,
    func,
    or_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from kit.db import Moment, insert_into, table_of
from loyalty.ledger import chain
from loyalty.ledger.accounts import BALANCE_MAX, Account, AccountId, Name, Purpose
from loyalty.ledger.chain import LINK_BYTES
from loyalty.ledger.lots import PointsLot

AMOUNT_MAX = 10**12
"""Most that one leg moves, in units of the asset."""


class TransferRecord(SQLModel, table=True):
    """A transfer that was made. Its id is unique in the whole ledger, so the table is distributed by it."""

    __tablename__: ClassVar[str] = "ledger_transfer"

    transfer_id: uuid.UUID = Field(primary_key=True)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    reason: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)
    lots_expire_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the points that it brings members run out."""
    undoes: uuid.UUID | None = None
    held_until: datetime | None = Field(default=None, sa_type=Moment)
    """When it is a hold: its `expires_at`."""
    seal: bytes = Field(sa_type=LargeBinary)
    """`chain.seal` of the rest of the row."""


class Entry(SQLModel, table=True):
    """What one transfer did to one account. `seq` counts an account's entries from 1."""

    __tablename__: ClassVar[str] = "ledger_entry"
    __table_args__ = (
        CheckConstraint(f"amount <> 0 AND abs(amount) <= {AMOUNT_MAX}", name="amount"),
        CheckConstraint(f"seq > 0 AND length(link) = {LINK_BYTES}", name="link"),
        UniqueConstraint("holder_id", "transfer_id", "asset", "purpose"),
    )

    holder_id: uuid.UUID = Field(primary_key=True)
    asset: str = Field(primary_key=True, sa_type=Name)
    purpose: str = Field(primary_key=True, sa_type=Name)
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    transfer_id: uuid.UUID
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    balance_after: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = Field(sa_type=Moment)
    link: bytes = Field(sa_type=LargeBinary)
    """`chain.link` of the entry after the one before it."""


@dataclass(frozen=True, slots=True)
class Move:
    """An account after a transfer has changed its balance; the entry that says so is still to be written."""

    account: AccountId
    transfer_id: uuid.UUID
    amount: int
    balance_after: int
    seq: int
    link: bytes


async def claim(
    connection: AsyncConnection,
    transfer_id: uuid.UUID,
    fingerprint: bytes,
    reason: str,
    at: datetime,
    lots_expire_at: datetime | None = None,
    undoes: uuid.UUID | None = None,
    held_until: datetime | None = None,
) -> bool:
    """Take a transfer id; false when a transfer has it already."""
    claimed = await connection.execute(
        _claiming(connection.dialect.name == "postgresql"),
        {
            "transfer_id": transfer_id,
            "fingerprint": fingerprint,
            "reason": reason,
            "at": at,
            "lots_expire_at": lots_expire_at,
            "undoes": undoes,
            "held_until": held_until,
            "seal": chain.seal(transfer_id, fingerprint, reason, at, lots_expire_at, undoes, held_until),
        },
    )
    return claimed.first() is not None


async def add(
    connection: AsyncConnection, account: AccountId, amount: int, transfer_id: uuid.UUID, at: datetime
) -> Move:
    """Change a balance that need not be asked: a credit, or a debit of an issuance. The first use makes the account."""
    added = await connection.execute(
        _adding(connection.dialect.name == "postgresql"),
        {
            **_about(account, amount, transfer_id, at),
            "genesis": chain.genesis(account.holder_id, account.asset, account.purpose),
            "lowest": -BALANCE_MAX if account.purpose is Purpose.ISSUANCE else 0,
        },
    )
    balance, seq, head = added.one()
    return Move(account, transfer_id, amount, balance, seq, head)


async def open_account(connection: AsyncConnection, account: AccountId) -> None:
    """Make an account that holds nothing, unless it is there."""
    await connection.execute(
        _opening(connection.dialect.name == "postgresql"),
        {
            "holder_id": account.holder_id,
            "asset": account.asset,
            "purpose": account.purpose,
            "balance": 0,
            "floor": 0,
            "seq": 0,
            "head": chain.genesis(account.holder_id, account.asset, account.purpose),
        },
    )


async def take(
    connection: AsyncConnection,
    account: AccountId,
    amount: int,
    transfer_id: uuid.UUID,
    at: datetime,
    *,
    lowest: int = 0,
    unless_due: bool = False,
) -> Move | None:
    """Debit an account, unless its balance would go below `lowest`, or it has points that are due (`unless_due`)."""
    taken = await connection.execute(
        _taking(unless_due), {**_about(account, amount, transfer_id, at), "lowest": lowest}
    )
    found = taken.first()
    return Move(account, transfer_id, amount, *found) if found is not None else None


async def record(connection: AsyncConnection, moves: Sequence[Move], at: datetime) -> None:
    """Write the entries of moves."""
    rows = [
        {
            "holder_id": move.account.holder_id,
            "asset": move.account.asset,
            "purpose": move.account.purpose,
            "seq": move.seq,
            "transfer_id": move.transfer_id,
            "amount": move.amount,
            "balance_after": move.balance_after,
            "at": at,
            "link": move.link,
        }
        for move in moves
    ]
    await connection.execute(_RECORDING, rows)


_ACCOUNTS, _ENTRIES, _LOTS = table_of(Account), table_of(Entry), table_of(PointsLot)
_RECORDING = _ENTRIES.insert()
_HOLDER = bindparam("holder", type_=Uuid())
_ASSET = bindparam("of", type_=Name)
_PURPOSE = bindparam("for_", type_=Name)
_AMOUNT = bindparam("moved", type_=BigInteger())
_TRANSFER = bindparam("moved_by", type_=Uuid())
_AT = bindparam("moved_at", type_=Moment())
_LOWEST = bindparam("lowest", type_=BigInteger())


def _about(account: AccountId, amount: int, transfer_id: uuid.UUID, at: datetime) -> dict[str, Any]:
    return {
        "holder": account.holder_id,
        "of": account.asset,
        "for_": account.purpose,
        "moved": amount,
        "moved_by": transfer_id,
        "moved_at": at,
    }


@lru_cache
def _claiming(on_postgresql: bool) -> Insert:
    return insert_into(TransferRecord, on_postgresql=on_postgresql).on_conflict_do_nothing().returning(
        table_of(TransferRecord).c.transfer_id
    )  # fmt: skip


@lru_cache
def _adding(on_postgresql: bool) -> Insert:
    account = _ACCOUNTS.c
    genesis = bindparam("genesis", type_=LargeBinary())
    after, seq = account.balance + _AMOUNT, account.seq + 1
    # A debt that a refund left shrinks with what comes in, and its floor with it.
    floor = case(
        (or_(account.floor == 0, account.purpose == Purpose.ISSUANCE), account.floor), (after >= 0, 0), else_=after
    )
    return (
        insert_into(Account, on_postgresql=on_postgresql)
        .values(
            holder_id=_HOLDER,
            asset=_ASSET,
            purpose=_PURPOSE,
            balance=_AMOUNT,
            floor=_LOWEST,
            seq=1,
            head=func.ledger_link(genesis, _TRANSFER, _AMOUNT, _AMOUNT, 1, _AT, type_=LargeBinary),
        )
        .on_conflict_do_update(
            index_elements=["holder_id", "asset", "purpose"],
            set_={
                "balance": after,
                "floor": floor,
                "seq": seq,
                "head": func.ledger_link(account.head, _TRANSFER, _AMOUNT, after, seq, _AT, type_=LargeBinary),
            },
        )
        .returning(account.balance, account.seq, account.head)
    )


@lru_cache
def _opening(on_postgresql: bool) -> Insert:
    return insert_into(Account, on_postgresql=on_postgresql).on_conflict_do_nothing()


@lru_cache
def _taking(unless_due: bool) -> Update:
    account, lot = _ACCOUNTS.c, _LOTS.c
    after, seq = account.balance + _AMOUNT, account.seq + 1
    statement = update(_ACCOUNTS).where(
        account.holder_id == _HOLDER, account.asset == _ASSET, account.purpose == _PURPOSE, after >= _LOWEST
    )
    if unless_due:
        due = and_(lot.member_id == _HOLDER, lot.left > 0, lot.expires_at <= _AT)
        statement = statement.where(~exists().where(due))
    return statement.values(
        balance=after,
        floor=case((after < account.floor, after), else_=account.floor),
        seq=seq,
        head=func.ledger_link(account.head, _TRANSFER, _AMOUNT, after, seq, _AT, type_=LargeBinary),
    ).returning(account.balance, account.seq, account.head)


def append_only_ddl(dialect: str) -> list[str]:
    """Statements that make the database itself refuse to change or delete transfers and entries.

    `SQLModel.metadata.create_all` runs them; a migration has to, after it made the tables. `dialect` is "sqlite" or
    "postgresql".
    """
    tables = [str(TransferRecord.__tablename__), str(Entry.__tablename__)]
    if dialect == "postgresql":
        return [_REFUSE_FUNCTION] + [
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()"
            for table in tables
        ]
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        for table in tables
        for verb in ("UPDATE", "DELETE")
    ]


_REFUSE_FUNCTION = (
    "CREATE OR REPLACE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
)


@event.listens_for(SQLModel.metadata, "after_create")
def _make_append_only(_metadata: MetaData, connection: Connection, tables: Sequence[Table], **_options: object) -> None:
    if any(table.name == Entry.__tablename__ for table in tables):
        for statement in append_only_ddl(connection.dialect.name):
            connection.exec_driver_sql(statement)
