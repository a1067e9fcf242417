"""Many transfers at once, for imports: the same books as `post` writes, in few statements and PostgreSQL's COPY.

The chains are computed here, under the locks of their accounts.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import psycopg
from psycopg import errors

from kit.db import Session, is_postgresql
from kit.errors import Conflict
from loyalty.ledger import chain, copying
from loyalty.ledger.accounts import BALANCE_MAX, LOCK_ORDER, AccountId, Purpose, holds_points, lock_position
from loyalty.ledger.chain import MESSAGE
from loyalty.ledger.transfers import (
    InsufficientBalance,
    Transfer,
    TransferIdReused,
    TransferInvalid,
    check,
    fingerprint,
    post,
)

TRIES_MAX = 5
NEW_ACCOUNT_WAIT_MS = 200
"""How long somebody else's making of the same account is waited for, in milliseconds; PostgreSQL looks for deadlocks
after 1,000, so that it is the import that gives way, and never a shopper's claim."""

_TAKEN_FROM = (Purpose.ISSUANCE, Purpose.BUDGET, Purpose.STOCK)


class TransfersRaced(Conflict):
    """Somebody else made one of the transfers at the same moment; a second try finds it."""

    code = "TransfersRaced"


@dataclass(slots=True)
class _State:
    """An account on its way through the transfers."""

    balance: int
    seq: int
    head: bytes
    known: bool


async def post_many(session: Session, transfers: Sequence[Transfer], now: datetime) -> int:
    """Make many transfers, in their order, that bring value to members; how many were not made before.

    They take from ISSUANCE, BUDGET and STOCK accounts alone, name no alternatives, undo nothing, leave no debt. Raises
    TransferInvalid, TransferIdReused, InsufficientBalance and TransfersRaced; the caller's transaction must then be
    rolled back. SQLite makes them one by one.
    """
    for transfer in transfers:
        _check(transfer)
    if not is_postgresql(session):
        posted = [await post(session, transfer, now) for transfer in transfers]
        return sum(one.is_new for one in posted)
    raw = await (await session.connection()).get_raw_connection()
    connection = raw.driver_connection
    assert isinstance(connection, psycopg.AsyncConnection)
    fresh = await _fresh(connection, transfers, now)
    if fresh:
        await _Books(connection, fresh, now).write()
    return len(fresh)


def _check(transfer: Transfer) -> None:
    check(transfer)
    if transfer.undoes is not None or transfer.may_owe:
        raise TransferInvalid("a transfer among many neither undoes another nor leaves a debt")
    for leg in transfer.legs:
        if leg.amount < 0 and (leg.otherwise or leg.account.purpose not in _TAKEN_FROM):
            raise TransferInvalid("a transfer among many takes from one issuance, budget or stock account each")


async def _fresh(
    connection: psycopg.AsyncConnection[Any], transfers: Sequence[Transfer], now: datetime
) -> list[Transfer]:
    # Claims the ids of those that were not made before.
    found = await connection.execute(
        "SELECT transfer_id, fingerprint FROM ledger_transfer WHERE transfer_id = ANY(%s)",
        ([transfer.transfer_id for transfer in transfers],),
    )
    known: dict[uuid.UUID, bytes] = dict(await found.fetchall())
    at = copying.moment(now)
    fresh, rows = [], []
    for transfer in transfers:
        own, asked = transfer.transfer_id, fingerprint(transfer)
        if known.setdefault(own, asked) != asked:
            raise TransferIdReused(f"transfer {own} was already made with other legs", hint="Choose a new transfer id.")
        if known[own] is asked:
            fresh.append(transfer)
            seal = chain.seal(own, asked, transfer.reason, now)
            rows.append(copying.transfer_row(own.bytes, asked, transfer.reason.encode(), at, seal))
    try:
        await copying.copy(connection, copying.TRANSFERS, rows)
    except errors.UniqueViolation:
        raise TransfersRaced("these transfers are being made by somebody else", hint="Try again.") from None
    return fresh


class _Books:
    """What fresh transfers write."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], transfers: Sequence[Transfer], now: datetime) -> None:
        self._connection, self._now = connection, now
        self._at, self._at_us = copying.moment(now), chain.microseconds(now)
        self._moves: dict[AccountId, list[tuple[Transfer, int]]] = {}
        for transfer in transfers:
            for leg in transfer.legs:
                self._moves.setdefault(leg.account, []).append((transfer, leg.amount))

    async def write(self) -> None:
        for _try in range(TRIES_MAX):
            try:
                # Somebody may have made one of the new accounts since the look: all of it again, from what he left. The
                # savepoint also lets go of the locks, some of which come after the new accounts in everybody's order.
                async with self._connection.transaction():
                    states = await self._locked()
                    self._go_through_all(states)
                    await self._write_new_accounts(states)
                break
            except (errors.UniqueViolation, errors.LockNotAvailable):
                continue
        else:
            raise TransfersRaced("these accounts are being made by others", hint="Try again.")
        await self._update_accounts(states)
        await copying.copy(self._connection, copying.ENTRIES, self._entries)
        await copying.copy(self._connection, copying.LOTS, self._lots)

    async def _locked(self) -> dict[AccountId, _State]:
        # In the order in which everybody locks: by purpose, then by holder and asset.
        holders: dict[Purpose, set[uuid.UUID]] = {}
        for account in self._moves:
            holders.setdefault(account.purpose, set()).add(account.holder_id)
        assets = list({account.asset for account in self._moves})
        states = {}
        for purpose in sorted(holders, key=LOCK_ORDER.__getitem__):
            found = await self._connection.execute(
                "SELECT holder_id, asset, balance, seq, head FROM ledger_account"
                " WHERE holder_id = ANY(%s) AND asset = ANY(%s) AND purpose = %s ORDER BY holder_id, asset FOR UPDATE",
                (list(holders[purpose]), assets, purpose.value),
            )
            for holder_id, asset, balance, seq, head in await found.fetchall():
                states[AccountId(holder_id, asset, purpose)] = _State(balance, seq, head, known=True)
        return states

    def _go_through_all(self, states: dict[AccountId, _State]) -> None:
        self._entries: list[bytes] = []
        self._lots: list[bytes] = []
        for account, moves in self._moves.items():
            self._go_through(account, moves, states)

    def _go_through(
        self, account: AccountId, moves: Iterable[tuple[Transfer, int]], states: dict[AccountId, _State]
    ) -> None:
        state = states.get(account)
        if state is None:
            head = chain.genesis(account.holder_id, account.asset, account.purpose)
            state = states[account] = _State(0, 0, head, known=False)
        lowest = -BALANCE_MAX if account.purpose is Purpose.ISSUANCE else 0
        begin, has_lots = copying.entry_begin(account), holds_points(account)
        balance, seq, head = state.balance, state.seq, state.head
        for transfer, amount in moves:
            balance, seq, own = balance + amount, seq + 1, transfer.transfer_id.bytes
            if amount < 0 and balance < lowest:
                raise InsufficientBalance(f"not enough {account.asset} in the {account.purpose} account")
            head = sha256(head + MESSAGE.pack(own, amount, balance, seq, self._at_us)).digest()
            self._entries.append(begin + copying.entry_rest(seq, own, amount, balance, self._at, head))
            if has_lots:
                left = min(max(balance, 0), amount)
                expires_at = transfer.lots_expire_at
                runs_out = copying.moment(expires_at) if expires_at is not None else None
                self._lots.append(copying.lot_row(account.holder_id.bytes, own, amount, left, self._at, runs_out))
        state.balance, state.seq, state.head = balance, seq, head

    async def _write_new_accounts(self, states: Mapping[AccountId, _State]) -> None:
        new = sorted((account for account, state in states.items() if not state.known), key=lock_position)
        rows = []
        for account in new:
            state = states[account]
            floor = -BALANCE_MAX if account.purpose is Purpose.ISSUANCE else 0
            rows.append(copying.account_row(account, state.balance, floor, state.seq, state.head))
        if rows:
            await self._connection.execute(f"SET LOCAL lock_timeout = {NEW_ACCOUNT_WAIT_MS}")
            await copying.copy(self._connection, copying.ACCOUNTS, rows)
            await self._connection.execute("SET LOCAL lock_timeout = DEFAULT")

    async def _update_accounts(self, states: Mapping[AccountId, _State]) -> None:
        changed = [(account, states[account]) for account in self._moves if states[account].known]
        if changed:
            await self._connection.execute(
                "UPDATE ledger_account SET balance = new.balance, seq = new.seq, head = new.head,"
                " floor = CASE WHEN ledger_account.purpose = 'issuance' THEN floor ELSE least(0, new.balance) END"
                " FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bytea[])"
                " AS new (holder_id, asset, purpose, balance, seq, head)"
                " WHERE ledger_account.holder_id = new.holder_id AND ledger_account.asset = new.asset"
                " AND ledger_account.purpose = new.purpose",
                (
                    [account.holder_id for account, _ in changed],
                    [account.asset for account, _ in changed],
                    [account.purpose.value for account, _ in changed],
                    [state.balance for _, state in changed],
                    [state.seq for _, state in changed],
                    [state.head for _, state in changed],
                ),
            )
