"""The audit of the books: everything that is kept beside the entries, computed anew from them."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sqlalchemy import AsyncAdaptedQueuePool, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import func, select

from kit.db import Session, is_postgresql
from loyalty.ledger import chain, cross_checks, reading
from loyalty.ledger.accounts import BALANCE_MAX, POINTS, Account, Purpose
from loyalty.ledger.chain import LINK_BYTES, MESSAGE, RECORD, SEAL_BEGIN
from loyalty.ledger.entries import Entry
from loyalty.ledger.history import Digest, History
from loyalty.ledger.reading import RECORD_BYTES, Key, Stored
from loyalty.ledger.replay import Replay

FAULTS_MAX = cross_checks.FAULTS_MAX
# Whole tables are joined and read to the end, though a limit on faults, or a cursor, makes it look like a few rows.
_SERVER_SETTINGS = ("statement_timeout = 0", "work_mem = '64MB'", "enable_nestloop = off", "cursor_tuple_fraction = 1")
_LOTS_BEHIND = (POINTS, Purpose.AVAILABLE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LedgerReport:
    """What `verify` counted, and every contradiction it found, in words. `histories`: of the moments asked for."""

    accounts: int
    transfers: int
    entries: int
    faults: tuple[str, ...]
    histories: tuple[History, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.faults


async def count(session: Session) -> int:
    """How many entries `verify` will read."""
    return int((await session.exec(select(func.count()).select_from(Entry))).one())


async def verify(
    session: Session,
    moments: Sequence[datetime] = (),
    progress: Callable[[int], None] = lambda _entries: None,
) -> LedgerReport:
    """Compute every link, balance, lot and seal anew, check holds, and that every transfer sums to zero.

    Reads the whole ledger in little memory; run it in a session that sees one state of the database, such as
    `Database.reading`. `moments`: also tell the history before each. `progress` hears how many more entries were read.
    """
    walk = _Walk([Digest(moment) for moment in moments])
    async with _checking(session) as checked:
        async for page in reading.pages(session):
            before = walk.entries
            walk.go_on(page)
            if walk.entries > before:
                progress(walk.entries - before)
        walk.end()
        transfers = 0
        async for records in reading.records(session, in_order=bool(moments)):
            walk.check_seals(records)
            transfers += len(records)
        faults = await checked()
    return LedgerReport(
        accounts=(await session.exec(select(func.count()).select_from(Account))).one(),
        transfers=transfers,
        entries=walk.entries,
        faults=(*walk.faults, *faults),
        histories=tuple(digest.history() for digest in walk.digests),
    )


@contextlib.asynccontextmanager
async def _checking(session: Session) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """What the database checks by itself: on PostgreSQL at the same time, on a connection that sees the same state."""
    connection = await session.connection()
    if is_postgresql(session):
        await _set_up(connection)
    if not (is_postgresql(session) and await _can_share(connection)):
        yield lambda: cross_checks.faults(session)
        return
    snapshot = (await connection.execute(text("SELECT pg_export_snapshot()"))).scalar_one()
    async with Session(session.bind) as beside:
        await (await beside.connection()).execute(text(f"SET TRANSACTION SNAPSHOT '{snapshot}'"))
        await _set_up(await beside.connection())
        checks = asyncio.ensure_future(cross_checks.faults(beside))
        try:
            yield lambda: checks
        finally:
            checks.cancel()
            await asyncio.gather(checks, return_exceptions=True)


async def _set_up(connection: AsyncConnection) -> None:
    for setting in _SERVER_SETTINGS:
        await connection.execute(text(f"SET LOCAL {setting}"))


async def _can_share(connection: AsyncConnection) -> bool:
    # What a transaction has written itself, nobody else sees.
    reads_only = (await connection.execute(text("SHOW transaction_read_only"))).scalar_one() == "on"
    pool = connection.engine.pool
    return reads_only and isinstance(pool, AsyncAdaptedQueuePool) and pool.checkedout() < pool.size()


class _Walk:
    """Goes through all accounts and their entries in primary key order."""

    def __init__(self, digests: list[Digest]) -> None:
        self.digests = digests
        self.entries = 0
        self.faults: list[str] = []
        self._before_us = [(digest, chain.microseconds(digest.before)) for digest in digests]
        self._account: _Account | None = None
        self._replay: Replay | None = None
        self._page = reading.Page([], {})

    def go_on(self, page: reading.Page) -> None:
        accounts, self._page = page.accounts, self._with_left_over(page)
        for key, records in page.runs:
            if self._account is None or self._account.key != key:
                self._end_account()
                self._account = _Account(key, accounts.pop(key, None), self._complain)
                if key[1:] == _LOTS_BEHIND:
                    self._replay = self._replay_of(key[0])
            self._account.go_through(records)
            if self._replay is not None:
                self._replay.go_through(records)
            self.entries += len(records) // RECORD_BYTES
            if self.digests:
                self._digest(records)
        for key, stored in accounts.items():
            self._complain_of_account(key, stored)

    def end(self) -> None:
        self._end_account()
        self._complain_of_lots(None)

    def _end_account(self) -> None:
        account, replay, self._account, self._replay = self._account, self._replay, None, None
        if account is not None:
            account.end()
            if replay is not None and not account.complained:
                # Entries that are not what they were make no lots worth comparing.
                self._complain_of_replay(replay)

    def _complain_of_replay(self, replay: Replay) -> None:
        for fault in replay.faults():
            self._complain(fault)

    def _with_left_over(self, page: reading.Page) -> reading.Page:
        # Of the last member of the page before, points may come only now.
        before = self._page
        if page.runs:
            self._complain_of_lots(page.runs[0][0][0])
        return reading.Page(
            [], {}, before.lots | page.lots, before.uses | page.uses, before.undoing | page.undoing
        )  # fmt: skip

    def _replay_of(self, member: bytes) -> Replay:
        page = self._page
        beside = [kept.pop(member, b"") for kept in (page.lots, page.uses, page.undoing)]
        return Replay(member, *beside)

    def _complain_of_lots(self, until: bytes | None) -> None:
        """Of lots and uses of those before a member who have no entries."""
        page = self._page
        for member in sorted(page.lots.keys() | page.uses.keys()):
            if until is None or member < until:
                self._complain_of_replay(self._replay_of(member))

    def check_seals(self, records: list[reading.Sealed]) -> None:
        """The next transfers' records."""
        for record, seal in records:
            if sha256(SEAL_BEGIN + record).digest() != seal:
                self._complain_of_seal(uuid.UUID(bytes=record[:16]))
        for digest, before_us in self._before_us:
            digest.add_seals([seal for record, seal in records if RECORD.unpack_from(record)[1] < before_us])

    def _complain_of_seal(self, transfer_id: uuid.UUID) -> None:
        self._complain(f"transfer {transfer_id}: its record was changed")

    def _digest(self, records: bytes) -> None:
        starts = range(0, len(records), RECORD_BYTES)
        for digest, before_us in self._before_us:
            digest.add_links(
                [
                    records[start + MESSAGE.size : start + RECORD_BYTES]
                    for start in starts
                    if MESSAGE.unpack_from(records, start)[4] < before_us
                ]
            )

    def _complain_of_account(self, key: Key, stored: Stored) -> None:
        if stored.seq or stored.balance:
            self._complain(f"account {_named(key)} has no entries, and says balance {stored.balance}, seq {stored.seq}")

    def _complain(self, fault: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)


class _Account:
    """One account's entries as they come."""

    def __init__(self, key: Key, stored: Stored | None, complain: Callable[[str], None]) -> None:
        self.key, self._stored, self._tell, self.complained = key, stored, complain, False
        self._head, self._said_head = chain.first_head(*key), b""
        self._balance = self._seq = 0

    def go_through(self, records: bytes) -> None:
        head, balance, seq = self._head, self._balance, self._seq
        unpack, size = MESSAGE.unpack_from, MESSAGE.size
        for start in range(0, len(records), RECORD_BYTES):
            linked = start + size
            head = sha256(head + records[start:linked]).digest()
            _, amount, after, number, _ = unpack(records, start)
            balance += amount
            seq += 1
            if head != records[linked : linked + LINK_BYTES] or after != balance or number != seq:
                record = records[start : start + RECORD_BYTES]
                head, balance, seq = self._examine(record, head, balance, seq)
        self._head, self._balance, self._seq = head, balance, seq

    def _examine(self, record: bytes, head: bytes, balance: int, seq: int) -> tuple[bytes, int, int]:
        """Say what is wrong with an entry; head, balance and seq from which to go on."""
        transfer_id, amount, after, number, at_us = MESSAGE.unpack_from(record)
        stored = record[MESSAGE.size :]
        name = f"entry {number} of account {_named(self.key)} (transfer {uuid.UUID(bytes=transfer_id)})"
        if number != seq:
            self._complain(f"entries {seq} to {number - 1} of account {_named(self.key)} are missing")
            return stored, after, number
        if self._said_head and sha256(self._said_head + record[: MESSAGE.size]).digest() == stored and after == balance:
            # The entry before carries another link than its own; this one follows that link.
            self._said_head = b""
            return stored, balance, seq
        if after != balance:
            self._complain(f"{name}: {balance - amount:+d} and {amount:+d} make {balance}, not {after}")
        if head != stored:
            moment = _EPOCH + timedelta(microseconds=at_us)
            self._complain(f"{name}, made at {moment:%Y-%m-%d %H:%M:%S} UTC: its link does not follow")
        self._said_head = stored
        return head, after, seq

    def _complain(self, fault: str) -> None:
        self.complained = True
        self._tell(fault)

    def end(self) -> None:
        stored = self._stored
        if stored is None:
            self._complain(f"entries of account {_named(self.key)}, which is missing")
            return
        floor = _floor_of(self.key, stored.balance)
        made = (stored.seq, stored.balance, stored.floor) == (self._seq, self._balance, floor)
        if made and stored.head in (self._head, self._said_head):
            return
        name = f"account {_named(self.key)}"
        if stored.seq != self._seq:
            self._complain(f"{name} says {stored.seq} entries, and the last one is {self._seq}")
        elif stored.head not in (self._head, self._said_head):
            self._complain(f"{name}: its head is not the link of entry {self._seq}")
        if stored.balance != self._balance:
            self._complain(f"{name}: balance {stored.balance}, entries sum to {self._balance}")
        if stored.floor != floor:
            self._complain(f"{name}: balance {stored.balance}, floor {stored.floor} instead of {floor}")


def _floor_of(key: Key, balance: int) -> int:
    _, asset, purpose = key
    if purpose == Purpose.ISSUANCE:
        return -BALANCE_MAX
    # A member's debt is as deep as a refund left it, and no deeper.
    return min(balance, 0) if (asset, purpose) == _LOTS_BEHIND else 0


def _named(key: Key) -> str:
    holder, asset, purpose = key
    return f"{uuid.UUID(bytes=holder)} {asset} {purpose}"
