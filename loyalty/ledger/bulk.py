"""Many transfers at once, for imports: the same books as `post` writes, in few statements and PostgreSQL's COPY.

The chains are computed here, under the locks of their accounts. What brings points to members who have no account yet
can be written out before, by another process: only the chain of the account that it comes from waits for its lock.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import errors

from kit.db import Session, is_postgresql
from kit.errors import Conflict
from kit.ids import new_id
from loyalty.ledger import chain, copying
from loyalty.ledger.accounts import BALANCE_MAX, LOCK_ORDER, POINTS, AccountId, Purpose, holds_points, lock_position
from loyalty.ledger.chain import MESSAGE
from loyalty.ledger.entries import AMOUNT_MAX
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

OPENED_AT_ONCE_MAX = 100
"""Members who get their points by one transfer: fewer transfers are fewer entries on the brand's side."""

_TAKEN_FROM = (Purpose.ISSUANCE, Purpose.BUDGET, Purpose.STOCK)


class TransfersRaced(Conflict):
    """Somebody else made one of the transfers at the same moment; a second try finds it."""

    code = "TransfersRaced"


@dataclass(frozen=True)
class Openings:
    """Points for members without an account of points, written out but for the side that they come from.

    `transfers`: the id of each and how many points it takes from the source. The rest are rows for COPY.
    """

    source: AccountId
    at: datetime
    lots_expire_at: datetime | None
    transfers: Sequence[tuple[uuid.UUID, int]]
    records: bytes
    accounts: bytes
    entries: bytes
    lots: bytes


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
        moves: dict[AccountId, list[_Move]] = {}
        for transfer in fresh:
            for leg in transfer.legs:
                move = (transfer.transfer_id, leg.amount, transfer.lots_expire_at)
                moves.setdefault(leg.account, []).append(move)
        await _Books(connection, moves, now).write()
    return len(fresh)


def prepare_openings(
    source: AccountId,
    holders: copying.Bytes,
    points: NDArray[np.int64],
    reason: str,
    now: datetime,
    lots_expire_at: datetime | None,
) -> Openings:
    """Write out transfers that open members' accounts of points, one hundred members each: work without the database.

    `holders`: ids of members, 16 bytes each, all different; `points`: what each gets, 1 to AMOUNT_MAX / 100.
    """
    count, width = len(holders), OPENED_AT_ONCE_MAX
    if not count:
        return Openings(source, now, lots_expire_at, (), b"", b"", b"", b"")
    if not (points.min() > 0 and points.max() <= AMOUNT_MAX // width):
        raise TransferInvalid(f"an account is opened with 1 to {AMOUNT_MAX // width} points")
    ids = [new_id() for _ in range(0, count, width)]
    totals = [int(points[first : first + width].sum()) for first in range(0, count, width)]
    asset, purpose, at = POINTS.encode(), Purpose.AVAILABLE.encode(), copying.moment(now)
    by = np.repeat(np.frombuffer(b"".join(one.bytes for one in ids), np.uint8).reshape(-1, 16), width, axis=0)[:count]
    amounts, first, moment = copying.numbers(points), copying.number(1), copying.number(at)
    links = _first_links(holders, by, amounts, now)
    runs_out = None if lots_expire_at is None else copying.number(copying.moment(lots_expire_at))
    return Openings(
        source,
        now,
        lots_expire_at,
        list(zip(ids, totals, strict=True)),
        _records(source, ids, totals, holders, points, reason, now, lots_expire_at),
        copying.rows(count, [holders, asset, purpose, amounts, bytes(8), first, links]),
        copying.rows(count, [holders, asset, purpose, first, by, amounts, amounts, moment, links]),
        copying.rows(count, [holders, by, amounts, amounts, moment, runs_out]),
    )


def _first_links(holders: copying.Bytes, by: copying.Bytes, amounts: copying.Bytes, now: datetime) -> copying.Bytes:
    # The links of entries number 1, after `chain.genesis`, as `chain.MESSAGE` has them.
    count, last = len(holders), MESSAGE.pack(bytes(16), 0, 0, 1, chain.microseconds(now))[32:]
    begin, end = chain.first_message(POINTS, Purpose.AVAILABLE)
    heads = _hashes(_beside(count, begin, holders, end))
    return _hashes(_beside(count, heads, by, amounts, amounts, last))


def _beside(count: int, *parts: bytes | copying.Bytes) -> copying.Bytes:
    """So many lines of bytes; a part is the same in all, or one of each."""
    lines = [
        np.broadcast_to(np.frombuffer(part, np.uint8), (count, len(part))) if isinstance(part, bytes) else part
        for part in parts
    ]
    return np.concatenate(lines, axis=1)


def _hashes(lines: copying.Bytes) -> copying.Bytes:
    hashes = b"".join([sha256(line).digest() for line in _each(lines)])
    return np.frombuffer(hashes, np.uint8).reshape(len(lines), -1)


def _records(
    source: AccountId,
    ids: Sequence[uuid.UUID],
    totals: Sequence[int],
    holders: copying.Bytes,
    points: NDArray[np.int64],
    reason: str,
    now: datetime,
    lots_expire_at: datetime | None,
) -> bytes:
    # Fingerprints are those of `transfers.fingerprint`.
    begins = _each(_beside(len(holders), _written(holders), f" {POINTS} {Purpose.AVAILABLE} ".encode()))
    legs = [b"%s%d " % one for one in zip(begins, points.tolist(), strict=True)]
    rows = []
    for number, (transfer_id, total) in enumerate(zip(ids, totals, strict=True)):
        some = legs[number * OPENED_AT_ONCE_MAX : (number + 1) * OPENED_AT_ONCE_MAX]
        lines = sorted([f"{source.holder_id} {source.asset} {source.purpose} {-total} ".encode(), *some])
        asked = sha256(b"\n".join(lines)).digest()
        rows.append(_record(transfer_id, asked, reason, now, lots_expire_at))
    return b"".join(rows)


def _written(ids: copying.Bytes) -> copying.Bytes:
    """Ids as `str` writes them."""
    digits = np.frombuffer(ids.tobytes().hex().encode(), np.uint8).reshape(len(ids), 32)
    return _beside(
        len(ids),
        *(part for at in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)) for part in (b"-", digits[:, slice(*at)])),
    )[:, 1:]


def _record(transfer_id: uuid.UUID, asked: bytes, reason: str, now: datetime, lots_expire_at: datetime | None) -> bytes:
    seal = chain.seal(transfer_id, asked, reason, now, lots_expire_at)
    runs_out = None if lots_expire_at is None else copying.moment(lots_expire_at)
    return copying.transfer_row(transfer_id.bytes, asked, reason.encode(), copying.moment(now), seal, runs_out)


def _each(lines: copying.Bytes) -> list[bytes]:
    width, content = lines.shape[1], lines.tobytes()
    return [content[at : at + width] for at in range(0, len(content), width)]


async def post_openings(session: Session, openings: Openings) -> int:
    """Make the transfers that were written out, on PostgreSQL alone; how many points they bring.

    The members must be the caller's own: made in this transaction, so that nobody else can open their accounts. Raises
    TransfersRaced, and whatever PostgreSQL says of an account that is open; the transaction, or the savepoint around
    this, must then be rolled back.
    """
    if not openings.transfers:
        return 0
    raw = await (await session.connection()).get_raw_connection()
    connection = raw.driver_connection
    assert isinstance(connection, psycopg.AsyncConnection)
    await copying.copy(connection, copying.TRANSFERS, [openings.records])
    moves: list[_Move] = [(transfer_id, -total, None) for transfer_id, total in openings.transfers]
    await _Books(connection, {openings.source: moves}, openings.at, openings).write()
    return sum(total for _id, total in openings.transfers)


def _check(transfer: Transfer) -> None:
    check(transfer)
    if transfer.undoes is not None or transfer.may_owe or transfer.moves_debt:
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
    fresh, rows = [], []
    for transfer in transfers:
        own, asked = transfer.transfer_id, fingerprint(transfer)
        if known.setdefault(own, asked) != asked:
            raise TransferIdReused(f"transfer {own} was already made with other legs", hint="Choose a new transfer id.")
        if known[own] is asked:
            fresh.append(transfer)
            rows.append(_record(own, asked, transfer.reason, now, transfer.lots_expire_at))
    try:
        await copying.copy(connection, copying.TRANSFERS, rows)
    except errors.UniqueViolation:
        raise TransfersRaced("these transfers are being made by somebody else", hint="Try again.") from None
    return fresh


_Move = tuple[uuid.UUID, int, datetime | None]
"""What a transfer does to an account: its id, the amount, and when points that it brings run out."""


class _Books:
    """What fresh transfers write: moves by account, beside what was written out before."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        moves: Mapping[AccountId, Sequence[_Move]],
        now: datetime,
        openings: Openings | None = None,
    ) -> None:
        self._connection, self._moves = connection, moves
        self._at, self._at_us = copying.moment(now), chain.microseconds(now)
        self._openings = openings

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
        if self._openings is not None:
            # Accounts of the caller's own members, for which nobody waits: after those that others want, as always.
            await copying.copy(self._connection, copying.ACCOUNTS, [self._openings.accounts])
            self._entries.append(self._openings.entries)
            self._lots.append(self._openings.lots)
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

    def _go_through(self, account: AccountId, moves: Iterable[_Move], states: dict[AccountId, _State]) -> None:
        state = states.get(account)
        if state is None:
            head = chain.genesis(account.holder_id, account.asset, account.purpose)
            state = states[account] = _State(0, 0, head, known=False)
        lowest = -BALANCE_MAX if account.purpose is Purpose.ISSUANCE else 0
        begin, has_lots = copying.entry_begin(account), holds_points(account)
        balance, seq, head = state.balance, state.seq, state.head
        for transfer_id, amount, expires_at in moves:
            balance, seq, own = balance + amount, seq + 1, transfer_id.bytes
            if amount < 0 and balance < lowest:
                raise InsufficientBalance(f"not enough {account.asset} in the {account.purpose} account")
            head = sha256(head + MESSAGE.pack(own, amount, balance, seq, self._at_us)).digest()
            self._entries.append(begin + copying.entry_rest(seq, own, amount, balance, self._at, head))
            if has_lots:
                left = min(max(balance, 0), amount)
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
