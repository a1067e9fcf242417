"""Codes imported into a pool a second, beside a bare COPY of the very same rows into a table of the same form."""

import asyncio
import secrets
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import psycopg
from psycopg import sql

import migrations
from kit import vault as vaults
from kit.db import Database
from kit.vault import Vault
from loyalty.benefits import Benefit, BenefitKind, NewBenefit, catalogue, code_pools
from loyalty.benefits.code_pools import CHUNK_CODES
from loyalty.benefits.pool_files import digest, read_lines
from tests.bench.figures import Figure, figure, in_turns
from tests.bench.serving import Postgres

CODES = 400_000
ROUNDS = 3
_COLUMNS = sql.SQL("benefit_id, fingerprint, shard, sealed, member_id, held_id")


def pools(folder: Path) -> list[Figure]:
    """An import reads, checks, seals and finds duplicates of every code, and moves stock; COPY only writes rows."""
    server = Postgres(folder / "postgres")
    try:
        bench = _Bench(server.url, folder)
        imported, copied = in_turns(ROUNDS, bench.imports, bench.copies)
        return [figure("codes imported into a pool", imported, "codes/s", "bare COPY of the same rows", copied)]
    finally:
        server.stop()


class _Bench:
    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder, self._vault = url, folder, Vault(vaults.new_key())
        asyncio.run(self._prepare())

    async def _prepare(self) -> None:
        database = Database(self._url, 1)
        await migrations.upgrade(database)
        await database.close()
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("CREATE TABLE bare (LIKE pool_code INCLUDING ALL)")

    def imports(self) -> float:
        """Import a file of codes as the command does."""
        path = self._folder / "codes.txt"
        path.write_text("\n".join(secrets.token_hex(8).upper() for _ in range(CODES)))
        return asyncio.run(self._import(path))

    async def _import(self, path: Path) -> float:
        database = Database(self._url, 1)
        now = datetime.now(UTC)
        async with database.writing() as session:
            self._pool: Benefit = await catalogue.create(session, _new(now), now)
        started = time.perf_counter()
        async with database.writing() as session:
            file = await code_pools.begin(session, self._pool, path.name, digest(path), now)
        lines, done = read_lines(path), 0
        while chunk := list(islice(lines, CHUNK_CODES)):
            async with database.writing() as session:
                await code_pools.add(session, self._vault, self._pool, file, chunk, done, now)
            done += len(chunk)
        spent = time.perf_counter() - started
        await database.close()
        return CODES / spent

    def copies(self) -> float:
        """Copy the rows that were just imported, which lie ready in memory."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            chosen = sql.SQL("SELECT {} FROM pool_code WHERE benefit_id = {}").format(
                _COLUMNS, sql.Literal(self._pool.benefit_id)
            )
            with connection.cursor().copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(chosen)) as copy:
                rows = b"".join(copy)
            started = time.perf_counter()
            with connection.cursor().copy(
                sql.SQL("COPY bare ({}) FROM STDIN (FORMAT BINARY)").format(_COLUMNS)
            ) as copy:
                copy.write(rows)
            return CODES / (time.perf_counter() - started)


def _new(now: datetime) -> NewBenefit:
    return NewBenefit(
        brand_id=1,
        group_id=1,
        kind=BenefitKind.POOL,
        name_zh="测",
        name_en="Bench",
        starts_at=now,
        ends_at=now + timedelta(days=1),
        valid_days=1,
    )
