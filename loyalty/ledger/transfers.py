"""Transfers: value moves between accounts by legs that sum to zero, once for every id that the caller chose."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select

from kit.db import Session, is_postgresql
from kit.errors import Conflict, Invalid
from kit.ids import derived_id
from loyalty.ledger import entries, lots, policies
from loyalty.ledger.accounts import (
    BALANCE_MAX,
    POINTS,
    Account,
    AccountId,
    Purpose,
    balances_of,
    expired,
    holds_points,
    lock_position,
)
from loyalty.ledger.entries import AMOUNT_MAX, Entry, Move, TransferRecord

LEGS_MAX = 130
"""Most legs of a transfer."""
REASON_CHARACTERS_MAX = 80


class TransferInvalid(Invalid):
    """The legs do not make a transfer; it is the caller's mistake."""

    code = "TransferInvalid"


class TransferIdReused(Conflict):
    """The transfer id belongs to a transfer with other legs."""

    code = "TransferIdReused"


class InsufficientBalance(Conflict):
    """An account holds less than the transfer takes from it."""

    code = "InsufficientBalance"


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
    """Value that moves at once between accounts. The caller chooses the id; the same id moves value only once.

    Points that it brings members run out at `lots_expire_at`, None: never. With `undoes`, an earlier transfer's id,
    they go back first to the lots which that one took from, and are taken first from the lot which it made. With
    `may_owe` a debit of a member's points may leave a debt, as deep as his group's policy says: for refunds alone. With
    `moves_debt` one that is there goes to another member, however deep it is.
    """

    transfer_id: uuid.UUID
    reason: str
    legs: tuple[Leg, ...]
    lots_expire_at: datetime | None = None
    undoes: uuid.UUID | None = None
    may_owe: bool = False
    moves_debt: bool = False


@dataclass(frozen=True)
class Posted:
    """What a transfer did: the balance after it of every account it touched. `is_new` is false on a repetition."""

    transfer_id: uuid.UUID
    is_new: bool
    balances: Mapping[AccountId, int]


async def post(session: Session, transfer: Transfer, now: datetime) -> Posted:
    """Make a transfer in the caller's transaction, or find that it was made before.

    A debit of a member's points first expires those of his that are due, by a transfer of its own. Raises
    TransferInvalid, TransferIdReused (same id, other legs) and InsufficientBalance; after an error the caller's
    transaction must be rolled back. At most one transfer that takes from alternatives belongs in a transaction, before
    any other transfer: that keeps two transactions from waiting for each other.
    """
    check(transfer)
    connection = await session.connection()
    asked = fingerprint(transfer)
    terms = (transfer.lots_expire_at, transfer.undoes)
    if not await entries.claim(connection, transfer.transfer_id, asked, transfer.reason, now, *terms):
        return await posted_before(session, transfer, asked)
    posting = Posting(session, connection, now)
    for leg in sorted(transfer.legs, key=leg_position):
        await posting.move(transfer, leg)
    return Posted(transfer.transfer_id, True, await posting.finish())


def leg_position(leg: Leg) -> tuple[int, AccountId]:
    """Where a leg stands in the order in which everybody locks accounts."""
    return lock_position(leg.account)


def check(transfer: Transfer) -> None:
    """Raises TransferInvalid."""
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
        if leg.otherwise and holds_points(leg.account):
            raise TransferInvalid("a member's points are not taken from somebody else instead")
        for account in {leg.account, *leg.otherwise}:
            if account in touched:
                raise TransferInvalid("a transfer touches each account once")
            touched.add(account)
        sums[leg.account.asset] = sums.get(leg.account.asset, 0) + leg.amount
    for asset, total in sums.items():
        if total:
            raise TransferInvalid(f"the legs of {asset} sum to {total} instead of 0")


def fingerprint(transfer: Transfer, kind: str = "") -> bytes:
    """What tells a repetition from another transfer under the same id: SHA-256 of the legs, and of the kind if any."""
    # Stored: changing what goes in makes every repetition of an old transfer look like a reused id. The expiry of
    # points stays out of it: a later try may come to another one.
    lines = sorted(
        f"{leg.account.holder_id} {leg.account.asset} {leg.account.purpose} {leg.amount} "
        + ",".join(str(other.holder_id) for other in leg.otherwise)
        for leg in transfer.legs
    )
    return hashlib.sha256("\n".join([kind, *lines] if kind else lines).encode()).digest()


async def posted_before(session: Session, transfer: Transfer, asked: bytes) -> Posted:
    """What the transfer did when it was made. Raises TransferIdReused."""
    stored = await session.exec(
        select(TransferRecord.fingerprint).where(TransferRecord.transfer_id == transfer.transfer_id)
    )
    if stored.one() != asked:
        raise TransferIdReused(
            f"transfer {transfer.transfer_id} was already made with other legs", hint="Choose a new transfer id."
        )
    after = {account: balance for account, (_, balance) in (await moved_by(session, transfer)).items()}
    return Posted(transfer.transfer_id, False, after)


async def moved_by(session: Session, transfer: Transfer) -> dict[AccountId, tuple[int, int]]:
    """Amount and balance after it of every account that a transfer touched, found among the holders it names."""
    holders = {account.holder_id for leg in transfer.legs for account in (leg.account, *leg.otherwise)}
    found = await session.exec(
        select(Entry).where(col(Entry.holder_id).in_(holders), Entry.transfer_id == transfer.transfer_id)
    )
    return {
        AccountId(entry.holder_id, entry.asset, Purpose(entry.purpose)): (entry.amount, entry.balance_after)
        for entry in found
    }


class Posting:
    """Transfers under way. Their legs come in the order of `leg_position`, then `finish`."""

    def __init__(self, session: Session, connection: AsyncConnection, now: datetime) -> None:
        self._session, self._connection, self._now = session, connection, now
        self._moves: list[Move] = []
        self._ran_out: list[tuple[AccountId, int, uuid.UUID]] = []

    async def move(self, transfer: Transfer, leg: Leg) -> Move:
        """Change one account's balance. Raises InsufficientBalance."""
        if leg.amount > 0 or leg.account.purpose is Purpose.ISSUANCE:
            moved = await entries.add(self._connection, leg.account, leg.amount, transfer.transfer_id, self._now)
            if holds_points(leg.account):
                await self._bring_in(transfer, moved)
        elif holds_points(leg.account):
            moved = await self._take_points(transfer, leg)
        else:
            moved = await self._take(transfer.transfer_id, leg)
        self._moves.append(moved)
        return moved

    async def finish(self) -> Mapping[AccountId, int]:
        """Write the entries; what ran out on the way goes to its accounts now, which are the last in order.

        The balances of the accounts that transfers other than those expiries touched.
        """
        for account, amount, expiry_id in sorted(self._ran_out):
            self._moves.append(await entries.add(self._connection, account, amount, expiry_id, self._now))
        if self._moves:
            await entries.record(self._connection, self._moves, self._now)
        expiries = {expiry_id for _, _, expiry_id in self._ran_out}
        return {move.account: move.balance_after for move in self._moves if move.transfer_id not in expiries}

    async def expire(self, member_id: uuid.UUID) -> int:
        """Take the member's points that are due off his account; how many they were."""
        account = AccountId(member_id, POINTS, Purpose.AVAILABLE)
        seq = await _lock(self._session, account)
        amount = await lots.due(self._connection, member_id, self._now) if seq is not None else 0
        if seq is None or not amount:
            return 0
        group_id = await policies.group_of(self._session, member_id)
        # The next entry's number makes the id: one account has it once.
        transfer_id = derived_id("points-expired", member_id, seq + 1)
        # Points of nobody's member stay his own when they run out.
        goes_to = (
            expired(group_id, POINTS, member_id)
            if group_id is not None
            else AccountId(member_id, POINTS, Purpose.EXPIRED)
        )
        made = Transfer(transfer_id, "points expired", (Leg(account, -amount), Leg(goes_to, amount)))
        await entries.claim(self._connection, transfer_id, fingerprint(made), made.reason, self._now)
        moved = await entries.take(self._connection, account, -amount, transfer_id, self._now)
        assert moved is not None, "lots hold more than the account"
        await lots.use(self._connection, member_id, transfer_id, amount)
        self._moves.append(moved)
        self._ran_out.append((goes_to, amount, transfer_id))
        return amount

    async def _bring_in(self, transfer: Transfer, moved: Move) -> None:
        # A debt is paid first; only what is above it can be used.
        left = min(max(moved.balance_after, 0), moved.amount)
        amount, member_id, undone = moved.amount, moved.account.holder_id, transfer.undoes
        if undone is not None:
            returned = min(await lots.outstanding(self._connection, member_id, undone), amount)
            await lots.give_back(self._connection, member_id, undone, min(returned, left))
            amount, left = amount - returned, left - min(returned, left)
        if amount:
            await lots.make(
                self._connection,
                member_id,
                moved.transfer_id,
                amount,
                left,
                self._now,
                transfer.lots_expire_at,
            )

    async def _take_points(self, transfer: Transfer, leg: Leg) -> Move:
        member_id, transfer_id = leg.account.holder_id, transfer.transfer_id
        lowest = -await policies.debt_max(self._session, member_id) if transfer.may_owe else 0
        if transfer.moves_debt:
            lowest = -BALANCE_MAX
            await entries.open_account(self._connection, leg.account)
        asked = (self._connection, leg.account, leg.amount, transfer_id, self._now)
        moved = await entries.take(*asked, lowest=lowest, unless_due=True)
        if moved is None:
            # Whether or not anything is due by now: somebody else may have expired it meanwhile.
            await self.expire(member_id)
            moved = await entries.take(*asked, lowest=lowest)
        if moved is None:
            raise InsufficientBalance("not enough points on the member's account")
        used = min(-leg.amount, max(moved.balance_after - leg.amount, 0))
        if used:
            await lots.use(self._connection, member_id, transfer_id, used, transfer.undoes)
        return moved

    async def _take(self, transfer_id: uuid.UUID, leg: Leg) -> Move:
        candidates: Sequence[AccountId] = (leg.account,)
        while candidates:
            for account in candidates:
                # A statement of its own for each account: one that finds the account emptied meanwhile keeps it locked,
                # and only because a later statement sees that it is empty, and does not wait for it, is there no
                # deadlock.
                moved = await entries.take(self._connection, account, leg.amount, transfer_id, self._now)
                if moved is not None:
                    return moved
            held = await balances_of(self._session, leg.otherwise)
            candidates = [other for other in leg.otherwise if held.get(other, 0) + leg.amount >= 0]
        raise InsufficientBalance(f"not enough {leg.account.asset} in the {leg.account.purpose} account")


async def _lock(session: Session, account: AccountId) -> int | None:
    statement = select(Account.seq).where(
        Account.holder_id == account.holder_id, Account.asset == account.asset, Account.purpose == account.purpose
    )
    # SQLite has one writer at a time.
    found = await session.exec(statement.with_for_update() if is_postgresql(session) else statement)
    return found.first()
