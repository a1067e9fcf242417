"""The double-entry ledger: everything of value that moves, moves by a transfer whose legs sum to zero.

Entries are append-only; a correction is a new transfer. Balances are kept beside the entries and can be rebuilt from
them, see `verify`. Amounts are whole numbers: points, megabytes, coupons.
"""

import hashlib
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    exists,
    func,
    or_,
    update,
)
from sqlmodel import Field, SQLModel, and_, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid
from kit.ids import derived_id

POINTS = "points"
MEGABYTES = "mb"

AMOUNT_MAX = 10**12
"""Most that one leg moves, in units of the asset."""
BALANCE_MAX = 10**18
"""Farthest from zero that a balance gets; 64-bit integers hold nine times as much."""
LEGS_MAX = 130
"""Most legs of a transfer."""
REASON_CHARACTERS_MAX = 80
FAULTS_MAX = 100
"""Most faults of one kind that a report lists."""


class Purpose(StrEnum):
    """What an account of a holder is for, in the order in which accounts are locked."""

    ISSUANCE = "issuance"
    """Where a group's or brand's value comes from; alone in going below zero."""
    BUDGET = "budget"
    """A stripe of a campaign's budget."""
    AVAILABLE = "available"
    """A member's, to spend."""
    PENDING = "pending"
    """A member's, promised and on its way."""
    DELIVERED = "delivered"
    """A member's mobile data that arrived."""
    REDEEMED = "redeemed"
    """A member's benefits that were used."""


# One order for everybody. Budgets come before members' accounts, because a debit may have to try several stripes.
_LOCK_ORDER = {purpose: position for position, purpose in enumerate(Purpose)}


class TransferInvalid(Invalid):
    """The legs do not make a transfer; it is the caller's mistake."""

    code = "TransferInvalid"


class TransferIdReused(Conflict):
    """The transfer id belongs to a transfer with other legs."""

    code = "TransferIdReused"


class InsufficientBalance(Conflict):
    """An account holds less than the transfer takes from it."""

    code = "InsufficientBalance"


class Account(SQLModel, table=True):
    """The balance of one holder, asset and purpose."""

    __tablename__: ClassVar[str] = "ledger_account"
    __table_args__ = (
        CheckConstraint(f"purpose IN ({', '.join(repr(str(purpose)) for purpose in Purpose)})", name="purpose"),
        CheckConstraint(
            f"balance BETWEEN 0 AND {BALANCE_MAX} OR (purpose = 'issuance' AND abs(balance) <= {BALANCE_MAX})",
            name="balance",
        ),
    )

    holder_id: uuid.UUID = Field(primary_key=True)
    asset: str = Field(primary_key=True, sa_type=Text)
    purpose: str = Field(primary_key=True, sa_type=Text)
    balance: int = Field(sa_type=BigInteger)


class TransferRecord(SQLModel, table=True):
    """A transfer that was made. Its id is unique in the whole ledger, so the table is distributed by it."""

    __tablename__: ClassVar[str] = "ledger_transfer"

    transfer_id: uuid.UUID = Field(primary_key=True)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    reason: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)


class Entry(SQLModel, table=True):
    """What one transfer did to one account."""

    __tablename__: ClassVar[str] = "ledger_entry"
    __table_args__ = (CheckConstraint(f"amount <> 0 AND abs(amount) <= {AMOUNT_MAX}", name="amount"),)

    holder_id: uuid.UUID = Field(primary_key=True)
    transfer_id: uuid.UUID = Field(primary_key=True)
    asset: str = Field(primary_key=True, sa_type=Text)
    purpose: str = Field(primary_key=True, sa_type=Text)
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    balance_after: int = Field(sa_column=Column(BigInteger, nullable=False))
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True, order=True)
class AccountId:
    """Names an account: whose, of what, what for."""

    holder_id: uuid.UUID
    asset: str
    purpose: Purpose


@dataclass(frozen=True)
class Leg:
    """One account's share of a transfer: `amount` is added to its balance.

    A debit may name accounts of the same asset and purpose to take the amount from when `account` does not hold it.
    """

    account: AccountId
    amount: int
    otherwise: tuple[AccountId, ...] = ()


@dataclass(frozen=True)
class Transfer:
    """Value that moves at once between accounts. The caller chooses the id; the same id moves value only once."""

    transfer_id: uuid.UUID
    reason: str
    legs: tuple[Leg, ...]


@dataclass(frozen=True)
class Posted:
    """What a transfer did: the balance after it of every account it touched. `is_new` is false on a repetition."""

    transfer_id: uuid.UUID
    is_new: bool
    balances: Mapping[AccountId, int]


@dataclass(frozen=True)
class LedgerReport:
    """What `verify` counted, and every contradiction it found, in words."""

    accounts: int
    transfers: int
    entries: int
    faults: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.faults


def group_holder(group_id: int) -> uuid.UUID:
    """The holder under which a group's own accounts stand."""
    return derived_id("group", group_id)


def brand_holder(brand_id: int) -> uuid.UUID:
    """The holder under which a brand's own accounts stand."""
    return derived_id("brand", brand_id)


async def post(session: Session, transfer: Transfer, now: datetime) -> Posted:
    """Make a transfer in the caller's transaction, or find that it was made before.

    Raises TransferInvalid, TransferIdReused (same id, other legs) and InsufficientBalance; after an error the caller's
    transaction must be rolled back. At most one transfer that takes from alternatives belongs in a transaction, before
    any other transfer: that keeps two transactions from waiting for each other.
    """
    _check(transfer)
    asked = _fingerprint(transfer)
    claimed = await session.exec(
        insert(session, TransferRecord)
        .values(transfer_id=transfer.transfer_id, fingerprint=asked, reason=transfer.reason, at=now)
        .on_conflict_do_nothing()
        .returning(col(TransferRecord.transfer_id))
    )
    if claimed.first() is None:
        return await _posted_before(session, transfer, asked)
    moved: list[tuple[AccountId, int, int]] = []
    for leg in sorted(transfer.legs, key=_lock_position):
        if leg.amount > 0 or leg.account.purpose is Purpose.ISSUANCE:
            moved.append((leg.account, leg.amount, await _add(session, leg.account, leg.amount)))
        else:
            account, balance = await _take(session, leg)
            moved.append((account, leg.amount, balance))
    rows = [
        {
            "holder_id": account.holder_id,
            "transfer_id": transfer.transfer_id,
            "asset": account.asset,
            "purpose": account.purpose,
            "amount": amount,
            "balance_after": balance,
            "at": now,
        }
        for account, amount, balance in moved
    ]
    await session.exec(insert(session, Entry).values(rows))
    return Posted(transfer.transfer_id, True, {account: balance for account, _, balance in moved})


def _lock_position(leg: Leg) -> tuple[int, AccountId]:
    return _LOCK_ORDER[leg.account.purpose], leg.account


def _check(transfer: Transfer) -> None:
    if not 2 <= len(transfer.legs) <= LEGS_MAX:
        raise TransferInvalid(f"a transfer has 2 to {LEGS_MAX} legs, not {len(transfer.legs)}")
    if not 1 <= len(transfer.reason) <= REASON_CHARACTERS_MAX:
        raise TransferInvalid(f"a transfer's reason has 1 to {REASON_CHARACTERS_MAX} characters")
    sums: dict[str, int] = {}
    touched: set[AccountId] = set()
    for leg in transfer.legs:
        if leg.amount == 0 or abs(leg.amount) > AMOUNT_MAX:
            raise TransferInvalid(f"a leg moves 1 to {AMOUNT_MAX} units, not {leg.amount}")
        if leg.otherwise and leg.amount > 0:
            raise TransferInvalid("only a debit can name other accounts to take from")
        if any((other.asset, other.purpose) != (leg.account.asset, leg.account.purpose) for other in leg.otherwise):
            raise TransferInvalid("the accounts that a debit may take from have one asset and one purpose")
        for account in {leg.account, *leg.otherwise}:
            if account in touched:
                raise TransferInvalid("a transfer touches each account once")
            touched.add(account)
        sums[leg.account.asset] = sums.get(leg.account.asset, 0) + leg.amount
    for asset, total in sums.items():
        if total:
            raise TransferInvalid(f"the legs of {asset} sum to {total} instead of 0")


def _fingerprint(transfer: Transfer) -> bytes:
    # Stored: changing what goes in makes every repetition of an old transfer look like a reused id.
    lines = sorted(
        f"{leg.account.holder_id} {leg.account.asset} {leg.account.purpose} {leg.amount} "
        + ",".join(str(other.holder_id) for other in leg.otherwise)
        for leg in transfer.legs
    )
    return hashlib.sha256("\n".join(lines).encode()).digest()


async def _posted_before(session: Session, transfer: Transfer, asked: bytes) -> Posted:
    stored = await session.exec(
        select(TransferRecord.fingerprint).where(TransferRecord.transfer_id == transfer.transfer_id)
    )
    if stored.one() != asked:
        raise TransferIdReused(
            f"transfer {transfer.transfer_id} was already made with other legs", hint="Choose a new transfer id."
        )
    holders = {account.holder_id for leg in transfer.legs for account in (leg.account, *leg.otherwise)}
    entries = await session.exec(
        select(Entry).where(col(Entry.holder_id).in_(holders), Entry.transfer_id == transfer.transfer_id)
    )
    after = {AccountId(entry.holder_id, entry.asset, Purpose(entry.purpose)): entry.balance_after for entry in entries}
    return Posted(transfer.transfer_id, False, after)


async def _add(session: Session, account: AccountId, amount: int) -> int:
    statement = insert(session, Account).values(
        holder_id=account.holder_id, asset=account.asset, purpose=account.purpose, balance=amount
    )
    added = await session.exec(
        statement.on_conflict_do_update(
            index_elements=["holder_id", "asset", "purpose"],
            set_={"balance": col(Account.balance) + statement.excluded["balance"]},
        ).returning(col(Account.balance))
    )
    return int(added.scalar_one())


async def _take(session: Session, leg: Leg) -> tuple[AccountId, int]:
    candidates: Sequence[AccountId] = (leg.account,)
    while candidates:
        for account in candidates:
            # A statement of its own for each account: one that finds the account emptied meanwhile keeps it locked, and
            # only because a later statement sees that it is empty, and does not wait for it, is there no deadlock.
            balance = await _take_from(session, account, leg.amount)
            if balance is not None:
                return account, balance
        held = await balances_of(session, leg.otherwise)
        candidates = [other for other in leg.otherwise if held.get(other, 0) + leg.amount >= 0]
    raise InsufficientBalance(f"not enough {leg.account.asset} in the {leg.account.purpose} account")


async def _take_from(session: Session, account: AccountId, amount: int) -> int | None:
    taken = await session.exec(
        update(Account)
        .where(
            col(Account.holder_id) == account.holder_id,
            col(Account.asset) == account.asset,
            col(Account.purpose) == account.purpose,
            col(Account.balance) + amount >= 0,
        )
        .values(balance=col(Account.balance) + amount)
        .returning(col(Account.balance))
        .execution_options(synchronize_session=False)
    )
    balance: int | None = taken.scalar_one_or_none()
    return balance


async def balances_of(session: Session, accounts: Collection[AccountId]) -> dict[AccountId, int]:
    """The balances of the accounts named; one that was never used is missing."""
    if not accounts:
        return {}
    found = await session.exec(
        select(Account.holder_id, Account.asset, Account.purpose, Account.balance).where(
            col(Account.holder_id).in_({account.holder_id for account in accounts})
        )
    )
    held = {AccountId(holder, asset, Purpose(purpose)): balance for holder, asset, purpose, balance in found}
    return {account: held[account] for account in accounts if account in held}


async def balances(session: Session, holder_id: uuid.UUID) -> dict[tuple[str, Purpose], int]:
    """Every balance of a holder by asset and purpose; an account that was never used is missing."""
    accounts = await session.exec(select(Account).where(Account.holder_id == holder_id))
    return {(account.asset, Purpose(account.purpose)): account.balance for account in accounts}


async def verify(session: Session) -> LedgerReport:
    """Rebuild every balance from the entries and check that every transfer sums to zero in each asset.

    Reads the whole ledger; run it in a session that sees one state of the database, such as `Database.reading`.
    """
    faults = [
        *await _wrong_balances(session),
        *await _entries_without_account(session),
        *await _unbalanced_transfers(session),
        *await _transfers_without_entries(session),
        *await _entries_without_transfer(session),
    ]
    return LedgerReport(
        accounts=(await session.exec(select(func.count()).select_from(Account))).one(),
        transfers=(await session.exec(select(func.count()).select_from(TransferRecord))).one(),
        entries=(await session.exec(select(func.count()).select_from(Entry))).one(),
        faults=tuple(faults),
    )


async def _wrong_balances(session: Session) -> list[str]:
    rebuilt = (
        select(Entry.holder_id, Entry.asset, Entry.purpose, func.sum(Entry.amount).label("total"))
        .group_by(col(Entry.holder_id), col(Entry.asset), col(Entry.purpose))
        .subquery()
    )
    total = func.coalesce(rebuilt.c.total, 0)
    wrong = await session.exec(
        select(Account, total)
        .outerjoin(
            rebuilt,
            and_(
                rebuilt.c.holder_id == Account.holder_id,
                rebuilt.c.asset == Account.asset,
                rebuilt.c.purpose == Account.purpose,
            ),
        )
        .where(or_(col(Account.balance) != total, and_(Account.balance < 0, Account.purpose != Purpose.ISSUANCE)))
        .limit(FAULTS_MAX)
    )
    return [
        f"account {row.holder_id} {row.asset} {row.purpose}: balance {row.balance}, entries sum to {given}"
        for row, given in wrong
    ]


async def _entries_without_account(session: Session) -> list[str]:
    orphans = await session.exec(
        select(Entry.holder_id, Entry.asset, Entry.purpose)
        .outerjoin(
            Account,
            and_(
                Account.holder_id == Entry.holder_id,
                Account.asset == Entry.asset,
                Account.purpose == Entry.purpose,
            ),
        )
        .where(col(Account.holder_id).is_(None))
        .distinct()
        .limit(FAULTS_MAX)
    )
    return [f"entries of account {holder} {asset} {purpose}, which is missing" for holder, asset, purpose in orphans]


async def _unbalanced_transfers(session: Session) -> list[str]:
    unbalanced = await session.exec(
        select(Entry.transfer_id, Entry.asset, func.sum(Entry.amount))
        .group_by(col(Entry.transfer_id), col(Entry.asset))
        .having(func.sum(Entry.amount) != 0)
        .limit(FAULTS_MAX)
    )
    return [f"transfer {transfer} sums to {total} {asset} instead of 0" for transfer, asset, total in unbalanced]


async def _transfers_without_entries(session: Session) -> list[str]:
    empty = await session.exec(
        select(TransferRecord.transfer_id)
        .where(~exists().where(col(Entry.transfer_id) == TransferRecord.transfer_id))
        .limit(FAULTS_MAX)
    )
    return [f"transfer {transfer} has no entries" for transfer in empty]


async def _entries_without_transfer(session: Session) -> list[str]:
    orphans = await session.exec(
        select(Entry.transfer_id)
        .where(~exists().where(col(TransferRecord.transfer_id) == Entry.transfer_id))
        .distinct()
        .limit(FAULTS_MAX)
    )
    return [f"entries of transfer {transfer}, which is missing" for transfer in orphans]


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
