"""Reading every entry of the ledger in primary key order, a page at a time, in little memory."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import psycopg
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db import Session, is_postgresql, table_of
from loyalty.ledger import chain
from loyalty.ledger.accounts import Account
from loyalty.ledger.chain import LINK_BYTES, MESSAGE
from loyalty.ledger.entries import Entry, TransferRecord

PAGE_ROWS = 1_024
RUN_ENTRIES_MAX = 256
RECORD_BYTES = MESSAGE.size + LINK_BYTES
"""An entry in a run: what its link covers (`chain.MESSAGE`), then the link."""

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
    """Runs in order; and the accounts after those of the page before, up to the last run's."""

    runs: list[Run]
    accounts: dict[Key, Stored]


async def pages(session: Session) -> AsyncIterator[Page]:
    """Every entry and every account. An account's runs may go on in the next page; the last page has no runs."""
    async with _opened(session) as reader:
        accounts = _Accounts(reader)
        runs = await reader.runs()
        while runs:
            page = Page(runs, await accounts.up_to(runs[-1][0]))
            # The server looks for the next page while this one is gone through.
            coming = asyncio.ensure_future(reader.runs())
            await asyncio.sleep(0)
            try:
                yield page
            finally:
                runs = await coming
        yield Page([], await accounts.up_to(None))


@contextlib.asynccontextmanager
async def _opened(session: Session) -> "AsyncIterator[_PostgresReader | _SqliteReader]":
    connection = await session.connection()
    if not is_postgresql(session):
        yield _SqliteReader(connection)
        return
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    async with (
        driver.cursor("ledger_runs", binary=True) as runs,
        driver.cursor("ledger_accounts", binary=True) as accounts,
    ):
        await runs.execute(_RUNS)
        await accounts.execute(_ACCOUNTS)
        yield _PostgresReader(runs, accounts)


# One sort of the whole table is several times as fast as looking every entry up in primary key order. The entries of an
# account come as few values, in the form that is hashed: a row each would cost this process several times what hashing
# costs.
_RUNS = f"""
    SELECT uuid_send(holder_id), asset, purpose, string_agg(
        uuid_send(transfer_id) || int8send(amount) || int8send(balance_after) || int8send(seq)
        || int8send((extract(epoch FROM at AT TIME ZONE 'UTC') * 1000000)::bigint) || link,
        ''::bytea ORDER BY seq)
    FROM ledger_entry
    GROUP BY holder_id, asset, purpose, seq / {RUN_ENTRIES_MAX}
    ORDER BY holder_id, asset, purpose, seq / {RUN_ENTRIES_MAX}
"""  # noqa: S608 - a number of ours
_ACCOUNTS = """
    SELECT uuid_send(holder_id), asset, purpose, balance, floor, seq, head
    FROM ledger_account ORDER BY holder_id, asset, purpose
"""


class _PostgresReader:
    def __init__(self, runs: psycopg.AsyncServerCursor[Any], accounts: psycopg.AsyncServerCursor[Any]) -> None:
        self._runs, self._accounts = runs, accounts

    async def runs(self) -> list[Run]:
        return [
            ((holder, asset, purpose), run) for holder, asset, purpose, run in await self._runs.fetchmany(PAGE_ROWS)
        ]

    async def accounts(self) -> list[tuple[Key, Stored]]:
        rows: list[tuple[Any, ...]] = await self._accounts.fetchmany(PAGE_ROWS)
        return [((row[0], row[1], row[2]), Stored(*row[3:])) for row in rows]


class _SqliteReader:
    _entry, _account = table_of(Entry).c, table_of(Account).c
    _ENTRY_KEY = (_entry.holder_id, _entry.asset, _entry.purpose, _entry.seq)
    _ACCOUNT_KEY = (_account.holder_id, _account.asset, _account.purpose)

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._last_entry: tuple[Any, ...] = (uuid.UUID(int=0), "", "", 0)
        self._last_account: tuple[Any, ...] = self._last_entry[:3]

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


def _record(seq: int, transfer_id: uuid.UUID, amount: int, balance_after: int, at: datetime, link: bytes) -> bytes:
    return MESSAGE.pack(transfer_id.bytes, amount, balance_after, seq, chain.microseconds(at)) + link


class _Accounts:
    """The accounts in order, taken as far as the entries have come."""

    def __init__(self, reader: _PostgresReader | _SqliteReader) -> None:
        self._reader = reader
        self._ahead: Iterator[tuple[Key, Stored]] = iter(())
        self._next: tuple[Key, Stored] | None = None
        self._at_end = False

    async def up_to(self, last: Key | None) -> dict[Key, Stored]:
        taken: dict[Key, Stored] = {}
        while True:
            if self._next is None:
                self._next = next(self._ahead, None)
            if self._next is None:
                if self._at_end:
                    return taken
                rows = await self._reader.accounts()
                self._ahead, self._at_end = iter(rows), not rows
                continue
            if last is not None and self._next[0] > last:
                return taken
            key, stored = self._next
            taken[key] = stored
            self._next = None


async def seals(session: Session, before: datetime) -> AsyncIterator[list[bytes]]:
    """The seals of the transfers made before a moment, in the order of their ids, a page at a time."""
    transfer = table_of(TransferRecord).c
    connection = await session.connection()
    after = uuid.UUID(int=0)
    while True:
        found = await connection.execute(
            select(transfer.transfer_id, transfer.seal)
            .where(transfer.transfer_id > after, transfer.at < before)
            .order_by(transfer.transfer_id)
            .limit(PAGE_ROWS)
        )
        rows = found.all()
        if not rows:
            return
        yield [row.seal for row in rows]
        after = rows[-1].transfer_id
