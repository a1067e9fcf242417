"""Accounts: whose value it is, of what, what for, and how much of it there is."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, LargeBinary, Text, func
from sqlalchemy.dialects import postgresql
from sqlmodel import Field, SQLModel, col, select

from kit.db import Session
from kit.ids import derived_id
from loyalty.ledger.chain import LINK_BYTES

POINTS = "points"
MEGABYTES = "mb"
FEN = "fen"
"""Cash; a hundred are one yuan."""

BALANCE_MAX = 10**18
"""Farthest from zero that a balance gets; 64-bit integers hold nine times as much."""
STRIPES = 16
"""Accounts over which one brand's or group's issuance, spending and expiry are spread, so that no row is hot."""
_STRIPED_REMEMBERED = 65_536


class Purpose(StrEnum):
    """What an account of a holder is for, in the order in which accounts are locked."""

    ISSUANCE = "issuance"
    """Where a group's or brand's value comes from; goes below zero."""
    BUDGET = "budget"
    """A stripe of a budget."""
    STOCK = "stock"
    """What there is of a benefit."""
    AVAILABLE = "available"
    """A member's, to spend."""
    HELD = "held"
    """Set aside by a hold, until it is settled or released."""
    PENDING = "pending"
    """A member's, promised and on its way: mobile data, cash."""
    DELIVERED = "delivered"
    """What arrived."""
    REDEEMED = "redeemed"
    """A member's benefits that were used."""
    SPENT = "spent"
    """Points that were spent, at a brand."""
    EXPIRED = "expired"
    """What ran out."""


# One order for everybody. Budgets come before members' accounts, because a debit may have to try several stripes.
LOCK_ORDER = {purpose: position for position, purpose in enumerate(Purpose)}

# One order of bytes on every server, whatever its locale: histories are compared in primary key order.
Name = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


class Account(SQLModel, table=True):
    """The balance of one holder, asset and purpose, and the last link of its chain of entries."""

    __tablename__: ClassVar[str] = "ledger_account"
    __table_args__ = (
        CheckConstraint(f"purpose IN ({', '.join(repr(str(purpose)) for purpose in Purpose)})", name="purpose"),
        CheckConstraint(f"balance BETWEEN floor AND {BALANCE_MAX}", name="balance"),
        CheckConstraint(
            f"floor = 0 OR (floor BETWEEN -{BALANCE_MAX} AND -1"
            " AND (purpose = 'issuance' OR (purpose = 'available' AND asset = 'points')))",
            name="floor",
        ),
        CheckConstraint(f"seq >= 0 AND length(head) = {LINK_BYTES}", name="head"),
    )

    holder_id: uuid.UUID = Field(primary_key=True)
    asset: str = Field(primary_key=True, sa_type=Name)
    purpose: str = Field(primary_key=True, sa_type=Name)
    balance: int = Field(sa_type=BigInteger)
    floor: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    """How far below zero it may be: only an issuance, and points after a refund of what was spent."""
    seq: int = Field(sa_type=BigInteger)
    """Number of its entries."""
    head: bytes = Field(sa_type=LargeBinary)


@dataclass(frozen=True, order=True)
class AccountId:
    """Names an account: whose, of what, what for."""

    holder_id: uuid.UUID
    asset: str
    purpose: Purpose

    def __hash__(self) -> int:
        # Accounts of one holder are few; hashing all three fields would take imports ten times as long.
        return hash(self.holder_id.int)


def lock_position(account: AccountId) -> tuple[int, AccountId]:
    """Where the account stands in the order in which everybody locks."""
    return LOCK_ORDER[account.purpose], account


def holds_points(account: AccountId) -> bool:
    """Whether points lots lie behind the account: it is of points that a member can spend."""
    return account.purpose is Purpose.AVAILABLE and account.asset == POINTS


def group_holder(group_id: int) -> uuid.UUID:
    """The holder under which a group's own accounts stand."""
    return derived_id("group", group_id)


def brand_holder(brand_id: int) -> uuid.UUID:
    """The holder under which a brand's own accounts stand."""
    return derived_id("brand", brand_id)


def issuance(brand_id: int, asset: str, spread: uuid.UUID | int) -> AccountId:
    """Where a brand's value comes from: one of 16 accounts, chosen by what a transfer is about, such as a member."""
    return AccountId(_stripe("brand", brand_id, _stripe_of(spread)), asset, Purpose.ISSUANCE)


def spent(brand_id: int, spread: uuid.UUID | int) -> AccountId:
    """Where points go that are spent at a brand: one of 16 accounts, see `issuance`."""
    return AccountId(_stripe("brand", brand_id, _stripe_of(spread)), POINTS, Purpose.SPENT)


def expired(group_id: int, asset: str, spread: uuid.UUID | int) -> AccountId:
    """Where a group's value goes that ran out: one of 16 accounts, see `issuance`."""
    return AccountId(_stripe("group", group_id, _stripe_of(spread)), asset, Purpose.EXPIRED)


def _stripe_of(spread: uuid.UUID | int) -> int:
    # The last bits of a UUID are random in versions 4, 5 and 7.
    return int(spread) % STRIPES


@lru_cache(_STRIPED_REMEMBERED)
def _stripe(kind: str, owner_id: int, stripe: int) -> uuid.UUID:
    return derived_id(kind, owner_id, stripe)


async def total(session: Session, purpose: Purpose, asset: str, owner_id: int) -> int:
    """The sum of a brand's issuance or spending, or of what expired in a group, over its stripes.

    `owner_id` is a group's for EXPIRED and a brand's otherwise. An issuance is zero or less: minus what is out.
    """
    kind = "group" if purpose is Purpose.EXPIRED else "brand"
    holders = [derived_id(kind, owner_id), *(_stripe(kind, owner_id, stripe) for stripe in range(STRIPES))]
    found = await session.exec(
        select(func.coalesce(func.sum(Account.balance), 0)).where(
            col(Account.holder_id).in_(holders), Account.asset == asset, Account.purpose == purpose
        )
    )
    return int(found.one())


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
    found = await session.exec(
        select(Account.asset, Account.purpose, Account.balance).where(Account.holder_id == holder_id)
    )
    return {(asset, Purpose(purpose)): balance for asset, purpose, balance in found}
