"""Reading the whole ledger in primary key order, a page at a time, in little memory."""

import asyncio
import contextlib
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Generic, TypeVar

import psycopg
from sqlalchemy import Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db import Session, is_postgresql, table_of
from loyalty.ledger import chain
from loyalty.ledger.accounts import POINTS, Account, Purpose
from loyalty.ledger.chain import LINK_BYTES, MESSAGE, NO_ID, NO_MOMENT
from loyalty.ledger.entries import Entry, TransferRecord
from loyalty.ledger.lots import PointsLot, PointsLotUse

PAGE_ROWS = 1_024
RUN_ENTRIES_MAX = 256
RECORD_BYTES = MESSAGE.size + LINK_BYTES
"""An entry in a run: what its link covers (`chain.MESSAGE`), then the link."""

LOT = struct.Struct(">16sqqqq")
"""A points lot: its id, amount, left, earned at and expires at, in microseconds since 1970."""
USE = struct.Struct(">16s16sqq")
"""What a transfer took of a lot: their ids, the amount, and what came back."""
UNDOING = struct.Struct(">16s16s")
"""A transfer, and which one it undoes."""
NEVER = 2**63 - 1
"""When a lot expires that does not."""

Key = tuple[bytes, str, str]
"""Holder, asset, purpose."""
Run = tuple[Key, bytes]
"""Some entries of one account, in order, without a gap between them and the next run's."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An account's row."""

    balance: int
    floor: int
    seq: int
    head: bytes


@dataclass(frozen=True)
class Page:
    """Runs in order; and what is kept beside entries, after that of the page before, up to the last run's.

    Lots, uses and undoing transfers: by the member's id, one `LOT`, `USE` or `UNDOING` after the other.
    """

    runs: list[Run]
    accounts: dict[Key, Stored]
    lots: dict[bytes, bytes] = field(default_factory=dict)
    uses: dict[bytes, bytes] = field(default_factory=dict)
    undoing: dict[bytes, bytes] = field(default_factory=dict)


async def pages(session: Session) -> AsyncIterator[Page]:
    """Every entry and every account. An account's runs may go on in the next page; the last page has no runs."""
    async with _opened(session) as reader:
        accounts = _Ahead(reader.accounts)
        beside = [_Ahead(reader.lots), _Ahead(reader.uses), _Ahead(reader.undoing)]
        runs = await reader.runs()
        while runs:
            last = runs[-1][0]
            page = Page(runs, await accounts.up_to(last), *[await one.up_to(last[0]) for one in beside])
            # The server looks for the next page while this one is gone through.
            coming = asyncio.ensure_future(reader.runs())
            await asyncio.sleep(0)
            try:
                yield page
            finally:
                runs = await coming
        yield Page([], await accounts.up_to(None), *[await one.up_to(None) for one in beside])


@contextlib.asynccontextmanager
async def _opened(session: Session) -> "AsyncIterator[_PostgresReader | _SqliteReader]":
    connection = await session.connection()
    if not is_postgresql(session):
        yield _SqliteReader(connection)
        return
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    async with contextlib.AsyncExitStack() as stack:
        cursors = []
        for name, statement in _STREAMS.items():
            cursor = await stack.enter_async_context(driver.cursor(name, binary=True))
            await cursor.execute(statement)
            cursors.append(cursor)
        yield _PostgresReader(*cursors)


def _us(moment: str, otherwise: int | None = None) -> str:
    number = f"(extract(epoch FROM {moment} AT TIME ZONE 'UTC') * 1000000)::bigint"
    return f"int8send({number})" if otherwise is None else f"int8send(coalesce({number}, {otherwise}))"


# One sort of the whole table is several times as fast as looking every entry up in primary key order. The entries of an
# account come as few values, in the form that is hashed: a row each would cost this process several times what hashing
# costs.
_RUNS = f"""
    SELECT uuid_send(holder_id), asset, purpose, string_agg(
        uuid_send(transfer_id) || int8send(amount) || int8send(balance_after) || int8send(seq)
        || {_us("at")} || link,
        ''::bytea ORDER BY seq)
    FROM ledger_entry
    GROUP BY holder_id, asset, purpose, seq / {RUN_ENTRIES_MAX}
    ORDER BY holder_id, asset, purpose, seq / {RUN_ENTRIES_MAX}
"""  # noqa: S608 - a number of ours
_ACCOUNTS = """
    SELECT uuid_send(holder_id), asset, purpose, balance, floor, seq, head
    FROM ledger_account ORDER BY holder_id, asset, purpose
"""
_LOTS = f"""
    SELECT uuid_send(member_id), string_agg(
        uuid_send(lot_id) || int8send(amount) || int8send("left") || {_us("earned_at")} || {_us("expires_at", NEVER)},
        ''::bytea)
    FROM points_lot GROUP BY member_id ORDER BY member_id
"""  # noqa: S608 - words of ours
_USES = """
    SELECT uuid_send(member_id), string_agg(
        uuid_send(transfer_id) || uuid_send(lot_id) || int8send(amount) || int8send(returned), ''::bytea)
    FROM points_lot_use GROUP BY member_id ORDER BY member_id
"""
_UNDOING = f"""
    SELECT uuid_send(holder_id), string_agg(uuid_send(transfer_id) || uuid_send(undoes), ''::bytea)
    FROM ledger_transfer JOIN ledger_entry USING (transfer_id)
    WHERE undoes IS NOT NULL AND asset = '{POINTS}' AND purpose = '{Purpose.AVAILABLE}'
    GROUP BY holder_id ORDER BY holder_id
"""  # noqa: S608 - words of ours
_STREAMS = {
    "ledger_runs": _RUNS,
    "ledger_accounts": _ACCOUNTS,
    "ledger_lots": _LOTS,
    "ledger_uses": _USES,
    "ledger_undoing": _UNDOING,
}
_RECORDS = f"""
    SELECT uuid_send(transfer_id) || {_us("at")} || fingerprint || {_us("lots_expire_at", NO_MOMENT)}
        || coalesce(uuid_send(undoes), '\\x{NO_ID.hex()}') || {_us("held_until", NO_MOMENT)}
        || convert_to(reason, 'UTF8'), seal
    FROM ledger_transfer
"""  # noqa: S608 - words of ours


class _PostgresReader:
    def __init__(self, *cursors: psycopg.AsyncServerCursor[Any]) -> None:
        self._runs, self._accounts, self._lots, self._uses, self._undoing = cursors

    async def runs(self) -> list[Run]:
        return [
            ((holder, asset, purpose), run) for holder, asset, purpose, run in await self._runs.fetchmany(PAGE_ROWS)
        ]

    async def accounts(self) -> list[tuple[Key, Stored]]:
        rows: list[tuple[Any, ...]] = await self._accounts.fetchmany(PAGE_ROWS)
        return [((row[0], row[1], row[2]), Stored(*row[3:])) for row in rows]

    async def lots(self) -> list[tuple[bytes, bytes]]:
        return await self._lots.fetchmany(PAGE_ROWS)

    async def uses(self) -> list[tuple[bytes, bytes]]:
        return await self._uses.fetchmany(PAGE_ROWS)

    async def undoing(self) -> list[tuple[bytes, bytes]]:
        return await self._undoing.fetchmany(PAGE_ROWS)


class _SqliteReader:
    _entry, _account = table_of(Entry).c, table_of(Account).c
    _lot, _use, _transfer = table_of(PointsLot).c, table_of(PointsLotUse).c, table_of(TransferRecord).c
    _ENTRY_KEY = (_entry.holder_id, _entry.asset, _entry.purpose, _entry.seq)
    _ACCOUNT_KEY = (_account.holder_id, _account.asset, _account.purpose)

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._last_entry: tuple[Any, ...] = (uuid.UUID(int=0), "", "", 0)
        self._last_account: tuple[Any, ...] = self._last_entry[:3]
        self._last_members = dict.fromkeys(("lots", "uses", "undoing"), uuid.UUID(int=0))

    async def runs(self) -> list[Run]:
        entry = self._entry
        wanted = select(
            *self._ENTRY_KEY, entry.transfer_id, entry.amount, entry.balance_after, entry.at, entry.link
        ).where(tuple_(*self._ENTRY_KEY) > self._last_entry)
        found = await self._connection.execute(wanted.order_by(*self._ENTRY_KEY).limit(PAGE_ROWS))
        rows = [tuple(row) for row in found]
        if rows:
            self._last_entry = rows[-1][:4]
        return [
            ((holder.bytes, asset, purpose), b"".join(_record(*row[3:]) for row in run))
            for (holder, asset, purpose), run in groupby(rows, lambda row: row[:3])
        ]

    async def accounts(self) -> list[tuple[Key, Stored]]:
        account = self._account
        wanted = select(*self._ACCOUNT_KEY, account.balance, account.floor, account.seq, account.head).where(
            tuple_(*self._ACCOUNT_KEY) > self._last_account
        )
        found = await self._connection.execute(wanted.order_by(*self._ACCOUNT_KEY).limit(PAGE_ROWS))
        rows = [tuple(row) for row in found]
        if rows:
            self._last_account = rows[-1][:3]
        return [((row[0].bytes, row[1], row[2]), Stored(*row[3:])) for row in rows]

    async def lots(self) -> list[tuple[bytes, bytes]]:
        lot = self._lot
        wanted = select(lot.member_id, lot.lot_id, lot.amount, lot.left, lot.earned_at, lot.expires_at)
        return [
            (member, b"".join(_lot(*row[1:]) for row in rows))
            for member, rows in await self._of_members("lots", wanted, lot.member_id)
        ]

    async def uses(self) -> list[tuple[bytes, bytes]]:
        use = self._use
        wanted = select(use.member_id, use.transfer_id, use.lot_id, use.amount, use.returned)
        return [
            (member, b"".join(USE.pack(row[1].bytes, row[2].bytes, *row[3:]) for row in rows))
            for member, rows in await self._of_members("uses", wanted, use.member_id)
        ]

    async def undoing(self) -> list[tuple[bytes, bytes]]:
        entry, transfer = self._entry, self._transfer
        wanted = (
            select(entry.holder_id, transfer.transfer_id, transfer.undoes)
            .join(table_of(Entry), entry.transfer_id == transfer.transfer_id)
            .where(transfer.undoes.is_not(None), entry.asset == POINTS, entry.purpose == Purpose.AVAILABLE)
        )
        return [
            (member, b"".join(UNDOING.pack(row[1].bytes, row[2].bytes) for row in rows))
            for member, rows in await self._of_members("undoing", wanted, entry.holder_id)
        ]

    async def _of_members(self, kind: str, wanted: Select[Any], member: Any) -> list[tuple[bytes, list[Any]]]:
        # All rows of so many members.
        after = member > self._last_members[kind]
        ids = wanted.with_only_columns(member).where(after).distinct().order_by(member).limit(PAGE_ROWS).subquery()
        found = await self._connection.execute(
            wanted.where(after, member.in_(select(ids.c[0]))).order_by(member)
        )  # fmt: skip
        pages = [(holder, list(rows)) for holder, rows in groupby(found.all(), lambda row: row[0])]
        if pages:
            self._last_members[kind] = pages[-1][0]
        return [(holder.bytes, rows) for holder, rows in pages]


def _lot(lot_id: uuid.UUID, amount: int, left: int, earned_at: datetime, expires_at: datetime | None) -> bytes:
    expires = NEVER if expires_at is None else chain.microseconds(expires_at)
    return LOT.pack(lot_id.bytes, amount, left, chain.microseconds(earned_at), expires)


def _record(seq: int, transfer_id: uuid.UUID, amount: int, balance_after: int, at: datetime, link: bytes) -> bytes:
    return MESSAGE.pack(transfer_id.bytes, amount, balance_after, seq, chain.microseconds(at)) + link


K = TypeVar("K", Key, bytes)
V = TypeVar("V")


class _Ahead(Generic[K, V]):
    """What comes in order beside the entries, taken as far as those have come."""

    def __init__(self, more: Callable[[], Awaitable[list[tuple[K, V]]]]) -> None:
        self._more: Callable[[], Awaitable[list[tuple[K, V]]]] = more
        self._ahead: Iterator[tuple[K, V]] = iter(())
        self._next: tuple[K, V] | None = None
        self._at_end = False

    async def up_to(self, last: K | None) -> dict[K, V]:
        taken: dict[K, V] = {}
        while True:
            if self._next is None:
                self._next = next(self._ahead, None)
            if self._next is None:
                if self._at_end:
                    return taken
                rows = await self._more()
                self._ahead, self._at_end = iter(rows), not rows
                continue
            if last is not None and self._next[0] > last:
                return taken
            key, value = self._next
            taken[key] = value
            self._next = None


Sealed = tuple[bytes, bytes]
"""A transfer's record: what its seal covers after `chain.SEAL_BEGIN`, and the seal."""


async def records(session: Session, *, in_order: bool) -> AsyncIterator[list[Sealed]]:
    """The record of every transfer, a page at a time; by id, when the order matters."""
    connection = await session.connection()
    if not is_postgresql(session):
        async for page in _sqlite_records(connection):
            yield page
        return
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    async with driver.cursor("ledger_records", binary=True) as cursor:
        await cursor.execute(_RECORDS + ("ORDER BY transfer_id" if in_order else ""))
        rows = await cursor.fetchmany(PAGE_ROWS)
        while rows:
            # The server looks for the next page while this one is gone through.
            coming = asyncio.ensure_future(cursor.fetchmany(PAGE_ROWS))
            await asyncio.sleep(0)
            try:
                yield rows
            finally:
                rows = await coming


_SEALED = ("transfer_id", "fingerprint", "reason", "at", "lots_expire_at", "undoes", "held_until")


async def _sqlite_records(connection: AsyncConnection) -> AsyncIterator[list[Sealed]]:
    transfer = table_of(TransferRecord)
    after = uuid.UUID(int=0)
    while True:
        found = await connection.execute(
            select(transfer).where(transfer.c.transfer_id > after).order_by(transfer.c.transfer_id).limit(PAGE_ROWS)
        )
        rows = found.all()
        if not rows:
            return
        yield [(chain.record(*[getattr(row, name) for name in _SEALED]), row.seal) for row in rows]
        after = rows[-1].transfer_id
