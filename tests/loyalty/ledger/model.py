"""The ledger's rules in plain Python, without a database: what the real one is compared with."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from kit.db import Database
from kit.ids import derived_id
from loyalty import ledger
from loyalty.ledger import (
    BALANCE_MAX,
    POINTS,
    Account,
    AccountId,
    HoldExpired,
    HoldResolved,
    HoldState,
    HoldUnknown,
    InsufficientBalance,
    LedgerReport,
    Leg,
    PointsLot,
    Policy,
    Posted,
    Purpose,
    Transfer,
    TransferIdReused,
    expired,
)

NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
SOURCE = AccountId(uuid.UUID(int=1), POINTS, Purpose.ISSUANCE)
ANN = AccountId(uuid.UUID(int=2), POINTS, Purpose.AVAILABLE)
BEN = AccountId(uuid.UUID(int=3), POINTS, Purpose.AVAILABLE)
GONE = AccountId(uuid.UUID(int=4), POINTS, Purpose.SPENT)
FOREVER = datetime.max.replace(tzinfo=UTC)
_ORDER = {purpose: position for position, purpose in enumerate(Purpose)}
K = TypeVar("K")
V = TypeVar("V")


def days(count: float) -> datetime:
    """So many days after NOW."""
    return NOW + timedelta(days=count)


def transfer(*legs: tuple[AccountId, int], transfer_id: uuid.UUID | None = None, **more: object) -> Transfer:
    made = tuple(Leg(account, amount) for account, amount in legs)
    return Transfer(transfer_id or uuid.uuid4(), "test", made, **more)  # type: ignore[arg-type]


async def post(database: Database, made: Transfer, now: datetime = NOW) -> Posted:
    async with database.writing() as session:
        return await ledger.post(session, made, now)


async def report(database: Database) -> LedgerReport:
    async with database.reading() as session:
        return await ledger.verify(session)


async def balance(database: Database, account: AccountId) -> int | None:
    async with database.reading() as session:
        return (await ledger.balances_of(session, [account])).get(account)


@dataclass(frozen=True, slots=True)
class ModelLot:
    amount: int
    left: int
    earned_at: datetime
    expires_at: datetime | None


@dataclass
class Model:
    """Raises what the ledger raises, and is then unchanged, as after a rollback."""

    groups: Mapping[uuid.UUID, int] = field(default_factory=dict)
    policies: Mapping[int, Policy] = field(default_factory=dict)
    balances: Counter[AccountId] = field(default_factory=Counter)
    lots: defaultdict[uuid.UUID, dict[uuid.UUID, ModelLot]] = field(default_factory=lambda: defaultdict(dict))
    """By member and lot."""
    uses: dict[tuple[uuid.UUID, uuid.UUID], dict[uuid.UUID, int]] = field(default_factory=dict)
    """By member and transfer: what of each lot is out."""
    transfers: dict[uuid.UUID, tuple[str, frozenset[Leg]]] = field(default_factory=dict)
    holds: dict[uuid.UUID, tuple[Transfer, datetime, HoldState]] = field(default_factory=dict)
    entries: int = 0
    _undo: list[Callable[[], object]] = field(default_factory=list)
    _depth: int = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done inside is done as a whole, or, when an error comes out, not at all."""
        before, entries = len(self._undo), self.entries
        self._depth += 1
        try:
            yield
        except BaseException:
            while len(self._undo) > before:
                self._undo.pop()()
            self.entries = entries
            raise
        finally:
            self._depth -= 1
            if not self._depth:
                self._undo.clear()

    def post(self, made: Transfer, now: datetime) -> None:
        with self.transaction():
            if self._claim(made, "transfer"):
                for leg in _ordered(made):
                    self._move(made, leg, now)

    def hold(self, made: Transfer, now: datetime, expires_at: datetime) -> None:
        with self.transaction():
            if not self._claim(made, "hold"):
                return
            held: Counter[AccountId] = Counter()
            for leg in _ordered(made):
                if leg.amount < 0:
                    self._move(made, leg, now)
                    held[AccountId(leg.account.holder_id, leg.account.asset, Purpose.HELD)] -= leg.amount
            for account, amount in held.items():
                self._add(account, amount)
            self.put(self.holds, made.transfer_id, (made, expires_at, HoldState.PENDING))

    def settle(self, transfer_id: uuid.UUID, now: datetime) -> None:
        made, expires_at, state = self._known(transfer_id)
        if state is HoldState.PENDING:
            if expires_at <= now:
                raise HoldExpired("")
            self._give_up_held(made)
            for leg in _ordered(made):
                if leg.amount > 0:
                    closing = Transfer(_closing(transfer_id), "", (), made.lots_expire_at)
                    self._move(closing, leg, now)
            self.put(self.holds, transfer_id, (made, expires_at, HoldState.POSTED))
        elif state is not HoldState.POSTED:
            raise HoldResolved(state)

    def release(self, transfer_id: uuid.UUID, now: datetime, state: StrEnum) -> None:
        made, expires_at, before = self._known(transfer_id)
        if before is HoldState.POSTED:
            raise HoldResolved(before)
        if before is HoldState.PENDING:
            self._give_up_held(made)
            back = Transfer(_closing(transfer_id), "", (), undoes=transfer_id)
            for leg in _ordered(made):
                if leg.amount < 0:
                    self._move(back, Leg(leg.account, -leg.amount), now)
            self.put(self.holds, transfer_id, (made, expires_at, HoldState(state)))

    def expire_due(self, now: datetime) -> tuple[int, int]:
        members = sorted(member for member in self.lots if self._due(member, now))
        due = [(at, key) for key, (_, at, state) in self.holds.items() if state is HoldState.PENDING and at <= now]
        # In this order: what comes back first pays a debt, and its lots stay used.
        for _, transfer_id in sorted(due):
            self.release(transfer_id, now, HoldState.EXPIRED)
        for member_id in members:
            self._expire(member_id, now)
        return len(due), len(members)

    def spendable(self, member_id: uuid.UUID, now: datetime) -> int:
        return self.balances[AccountId(member_id, POINTS, Purpose.AVAILABLE)] - self._due(member_id, now)

    def put(self, kept: MutableMapping[K, V], key: K, value: V) -> None:
        """Set what a transaction that fails sets back."""
        if self._depth and key in kept:
            before = kept[key]
            self._undo.append(lambda: kept.__setitem__(key, before))
        elif self._depth:
            self._undo.append(lambda: kept.pop(key))
        kept[key] = value

    def _claim(self, made: Transfer, kind: str) -> bool:
        asked = (kind, frozenset(made.legs))
        if made.transfer_id not in self.transfers:
            self.put(self.transfers, made.transfer_id, asked)
            return True
        if self.transfers[made.transfer_id] != asked:
            raise TransferIdReused("")
        return False

    def _move(self, made: Transfer, leg: Leg, now: datetime) -> None:
        account, amount = leg.account, leg.amount
        points = account.asset == POINTS and account.purpose is Purpose.AVAILABLE
        if amount > 0:
            self._add(account, amount)
            if points:
                self._bring_in(made, account.holder_id, amount, now)
            return
        if account.purpose is not Purpose.ISSUANCE:
            if points:
                self._expire(account.holder_id, now)
            policy = self.policies.get(self.groups.get(account.holder_id, 0), Policy())
            lowest = -policy.debt_max_points if points and made.may_owe else 0
            if made.moves_debt:
                lowest = -BALANCE_MAX
                self.put(self.balances, account, self.balances[account])
            if account not in self.balances or self.balances[account] + amount < lowest:
                raise InsufficientBalance("")
        before = max(self.balances[account], 0)
        self._add(account, amount)
        if points:
            self._use(account.holder_id, made.transfer_id, min(-amount, before), made.undoes)

    def _add(self, account: AccountId, amount: int) -> None:
        self.put(self.balances, account, self.balances[account] + amount)
        self.entries += 1

    def _bring_in(self, made: Transfer, member_id: uuid.UUID, amount: int, now: datetime) -> None:
        balance = self.balances[AccountId(member_id, POINTS, Purpose.AVAILABLE)]
        left = min(max(balance, 0), amount)
        used = self.uses.get((member_id, made.undoes), {}) if made.undoes else {}
        lots = self.lots[member_id]
        for lot_id in sorted(used, key=lambda lot_id: _use_order(lot_id, lots[lot_id]), reverse=True):
            back = min(used[lot_id], amount)
            live = min(back, left)
            # What paid a debt on its way back stays used.
            self.put(lots, lot_id, replace(lots[lot_id], left=lots[lot_id].left + live))
            self.put(used, lot_id, used[lot_id] - live)
            amount, left = amount - back, left - live
        if amount:
            self.put(lots, made.transfer_id, ModelLot(amount, left, now, made.lots_expire_at))

    def _use(self, member_id: uuid.UUID, transfer_id: uuid.UUID, amount: int, first: uuid.UUID | None = None) -> None:
        lots, used = self.lots[member_id], dict[uuid.UUID, int]()
        live = [(lot_id, lot) for lot_id, lot in lots.items() if lot.left]
        for lot_id, lot in sorted(live, key=lambda pair: (pair[0] != first, _use_order(*pair))):
            share = min(amount, lot.left)
            if share:
                self.put(lots, lot_id, replace(lot, left=lot.left - share))
                amount -= share
                used[lot_id] = share
        assert amount == 0
        if used:
            self.put(self.uses, (member_id, transfer_id), used)

    def _expire(self, member_id: uuid.UUID, now: datetime) -> None:
        due = self._due(member_id, now)
        if due:
            self._add(AccountId(member_id, POINTS, Purpose.AVAILABLE), -due)
            self._use(member_id, uuid.uuid4(), due)
            group = self.groups.get(member_id)
            nobody = AccountId(member_id, POINTS, Purpose.EXPIRED)
            self._add(expired(group, POINTS, member_id) if group is not None else nobody, due)

    def _due(self, member_id: uuid.UUID, now: datetime) -> int:
        return sum(lot.left for lot in self.lots[member_id].values() if _is_due(lot, now))

    def _known(self, transfer_id: uuid.UUID) -> tuple[Transfer, datetime, HoldState]:
        if transfer_id not in self.holds:
            raise HoldUnknown("")
        return self.holds[transfer_id]

    def _give_up_held(self, made: Transfer) -> None:
        held: Counter[AccountId] = Counter()
        for leg in made.legs:
            if leg.amount < 0:
                held[AccountId(leg.account.holder_id, leg.account.asset, Purpose.HELD)] += leg.amount
        for account, amount in held.items():
            self._add(account, amount)

    def check(self, accounts: list[Account], lots: list[PointsLot]) -> None:
        """Compare with what a database holds."""
        held = {AccountId(row.holder_id, row.asset, Purpose(row.purpose)): row.balance for row in accounts}
        assert held == dict(self.balances)
        assert sum(held.values()) == 0
        assert all(row.balance >= row.floor for row in accounts)
        stored = {(lot.member_id, lot.lot_id): (lot.amount, lot.left, lot.expires_at) for lot in lots}
        assert stored == {
            (member_id, lot_id): (lot.amount, lot.left, lot.expires_at)
            for member_id, lots in self.lots.items()
            for lot_id, lot in lots.items()
        }


def _ordered(made: Transfer) -> list[Leg]:
    return sorted(made.legs, key=lambda leg: (_ORDER[leg.account.purpose], leg.account))


def _use_order(lot_id: uuid.UUID, lot: ModelLot) -> tuple[datetime, datetime, uuid.UUID]:
    return lot.expires_at or FOREVER, lot.earned_at, lot_id


def _is_due(lot: ModelLot, now: datetime) -> bool:
    return lot.left > 0 and lot.expires_at is not None and lot.expires_at <= now


def _closing(transfer_id: uuid.UUID) -> uuid.UUID:
    return derived_id("hold-closed", transfer_id)
