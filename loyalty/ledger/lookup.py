"""An auditor's look at the books: one account's entries, one transfer's legs."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import col, select

from kit.db import Session
from kit.errors import NotFound
from loyalty.ledger.accounts import Account, AccountId
from loyalty.ledger.entries import Entry, TransferRecord

ENTRIES_LISTED_MAX = 1_000
LEGS_LISTED_MAX = 1_000


class TransferUnknown(NotFound):
    """There is no such transfer."""

    code = "TransferUnknown"


@dataclass(frozen=True)
class Made:
    """A transfer and what it did, account by account."""

    transfer_id: uuid.UUID
    reason: str
    at: datetime
    entries: tuple[Entry, ...]


async def accounts_of(session: Session, holder_id: uuid.UUID) -> Sequence[Account]:
    """Every account of a holder."""
    found = await session.exec(
        select(Account).where(Account.holder_id == holder_id).order_by(col(Account.asset), col(Account.purpose))
    )
    return found.all()


async def entries_of(session: Session, account: AccountId, after: int, limit: int) -> Sequence[Entry]:
    """The entries of an account that follow number `after`, in their order; at most 1,000."""
    found = await session.exec(
        select(Entry)
        .where(
            Entry.holder_id == account.holder_id,
            Entry.asset == account.asset,
            Entry.purpose == account.purpose,
            Entry.seq > after,
        )
        .order_by(col(Entry.seq))
        .limit(min(limit, ENTRIES_LISTED_MAX))
    )
    return found.all()


async def transfer_of(session: Session, transfer_id: uuid.UUID) -> Made:
    """A transfer and its entries. Looks through all entries: for an auditor, not for a page. Raises TransferUnknown."""
    record = await session.get(TransferRecord, transfer_id)
    if record is None:
        raise TransferUnknown("no such transfer")
    found = await session.exec(
        select(Entry)
        .where(Entry.transfer_id == transfer_id)
        .order_by(col(Entry.holder_id), col(Entry.asset), col(Entry.purpose))
        .limit(LEGS_LISTED_MAX)
    )
    return Made(transfer_id, record.reason, record.at, tuple(found))
