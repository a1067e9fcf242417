"""`fanxing ledger verify` over five million entries on PostgreSQL: how fast, in how much memory. Minutes, when named.

Beside it, what cannot be saved: SHA-256 of as many messages, and the table's own rows through COPY.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from kit.clock import system_clock
from kit.ids import new_id
from loadtest.installation import Installation
from loyalty.ledger import STRIPES, AccountId, Leg, Purpose, Transfer, chain, copying, issuance, spent
from loyalty.ledger.accounts import BALANCE_MAX, POINTS
from loyalty.ledger.chain import MESSAGE
from loyalty.ledger.transfers import fingerprint
from tests.bench.figures import Figure, figure, in_turns, rate_of
from tests.bench.serving import Postgres

ENTRIES = 5_000_000
ROUNDS = 1
SECONDS_MAX, MEMORY_MIB_MAX = 60, 300
_CREDITS = 4  # a member's, and one debit
_EARNED, _SPENT = 100, 30
_BATCH_MEMBERS = 5_000
_BRAND = 1
_BARE_COPY = "COPY ledger_entry TO STDOUT (FORMAT BINARY)"


def books(folder: Path) -> list[Figure]:
    """Entries verified a second, the time and the memory that takes."""
    postgres = Postgres(folder / "postgres")
    installation = Installation(folder / "home", database_url=postgres.url)
    installation.fanxing("init", "--make-passphrase")
    asyncio.run(fill(postgres.url, ENTRIES))
    postgres.run("VACUUM ANALYZE")
    peaks: list[float] = []
    rates = in_turns(
        ROUNDS,
        lambda: rate_of(ENTRIES, lambda: peaks.append(_verified(installation))),
        lambda: rate_of(ENTRIES, lambda: _bare(postgres.url)),
    )
    measured = figure("verify, 5,000,000 entries", rates[0], "entries/s", "bare SHA-256 and COPY", rates[1])
    seconds = ENTRIES / measured.value
    return [
        measured,
        Figure("  its time", seconds, "s", "bar", SECONDS_MAX, seconds / SECONDS_MAX),
        Figure("  its peak memory", max(peaks), "MiB", "bar", MEMORY_MIB_MAX, max(peaks) / MEMORY_MIB_MAX),
    ]


def _verified(installation: Installation) -> float:
    """The peak memory of the command in MiB."""
    command = [Path(sys.executable).with_name("fanxing"), "ledger", "verify", "--json"]
    with (installation.folder / "said").open("w+") as said:
        process = subprocess.Popen(command, env=installation.environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        assert process.returncode == 0, said.read()
    return used.ru_maxrss / 1024


def _bare(url: str) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor, cursor.copy(_BARE_COPY) as rows:
        for _row in rows:
            pass
    head, message = bytes(32), bytes(MESSAGE.size)
    for _entry in range(ENTRIES):
        head = hashlib.sha256(head + message).digest()


class _Account:
    """An account that grows while its entries are made."""

    def __init__(self, account: AccountId) -> None:
        self.account, self.balance, self.seq = account, 0, 0
        self.head = chain.genesis(account.holder_id, account.asset, account.purpose)
        self._begin = copying.entry_begin(account)

    def entry(self, transfer_id: bytes, amount: int, at_us: int, at: int) -> bytes:
        self.balance, self.seq = self.balance + amount, self.seq + 1
        message = MESSAGE.pack(transfer_id, amount, self.balance, self.seq, at_us)
        self.head = hashlib.sha256(self.head + message).digest()
        return self._begin + copying.entry_rest(self.seq, transfer_id, amount, self.balance, at, self.head)

    def row(self) -> bytes:
        floor = -BALANCE_MAX if self.account.purpose is Purpose.ISSUANCE else 0
        return copying.account_row(self.account, self.balance, floor, self.seq, self.head)


class _Filler:
    """Members who each earn four times and spend once, at a brand with 16 stripes."""

    def __init__(self) -> None:
        self._now = system_clock() - timedelta(hours=1)
        self._at_us, self._at = chain.microseconds(self._now), copying.moment(self._now)
        self._issued = [_Account(issuance(_BRAND, POINTS, stripe)) for stripe in range(STRIPES)]
        self._spent = [_Account(spent(_BRAND, stripe)) for stripe in range(STRIPES)]
        self._rows: dict[str, list[bytes]] = {}
        self._uses: list[tuple[uuid.UUID, uuid.UUID, uuid.UUID, int]] = []

    async def write(self, connection: psycopg.AsyncConnection[Any], members: int) -> None:
        """So many more members."""
        for _member in range(members):
            self._member()
        for table, rows in self._rows.items():
            await copying.copy(connection, table, rows)
        async with (
            connection.cursor() as cursor,
            cursor.copy("COPY points_lot_use (member_id, transfer_id, lot_id, amount) FROM STDIN") as into,
        ):
            for use in self._uses:
                await into.write_row(use)
        self._rows.clear()
        self._uses.clear()

    async def finish(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """The brand's accounts."""
        await copying.copy(connection, copying.ACCOUNTS, [one.row() for one in (*self._issued, *self._spent)])

    def _member(self) -> None:
        member_id = new_id()
        own, stripe = _Account(AccountId(member_id, POINTS, Purpose.AVAILABLE)), member_id.int % STRIPES
        lots = [self._transfer(self._issued[stripe], own, _EARNED) for _credit in range(_CREDITS)]
        debit = self._transfer(own, self._spent[stripe], _SPENT)
        self._uses.append((member_id, debit, lots[0], _SPENT))
        for lot in lots:
            left = _EARNED - _SPENT if lot is lots[0] else _EARNED
            row = copying.lot_row(member_id.bytes, lot.bytes, _EARNED, left, self._at, None)
            self._rows.setdefault(copying.LOTS, []).append(row)
        self._rows.setdefault(copying.ACCOUNTS, []).append(own.row())

    def _transfer(self, giver: _Account, taker: _Account, amount: int) -> uuid.UUID:
        own = new_id()
        asked = fingerprint(Transfer(own, "bench", (Leg(giver.account, -amount), Leg(taker.account, amount))))
        seal = chain.seal(own, asked, "bench", self._now)
        self._rows.setdefault(copying.TRANSFERS, []).append(
            copying.transfer_row(own.bytes, asked, b"bench", self._at, seal)
        )
        self._rows.setdefault(copying.ENTRIES, []).extend(
            (
                giver.entry(own.bytes, -amount, self._at_us, self._at),
                taker.entry(own.bytes, amount, self._at_us, self._at),
            )
        )
        return own


async def fill(url: str, entries: int) -> None:
    """So many entries, ten a member; an account's chain is made here, so that COPY can write it."""
    filler, members = _Filler(), entries // (2 * (_CREDITS + 1))
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for start in range(0, members, _BATCH_MEMBERS):
            await filler.write(connection, min(_BATCH_MEMBERS, members - start))
            await connection.commit()
        await filler.finish(connection)
