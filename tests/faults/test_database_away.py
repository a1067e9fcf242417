"""A database that was away for a while: who asks after it has come back is answered."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from kit import procedures
from kit.db import Database
from kit.procedures import Caller, Kind, Procedure, Step
from tests.faults.mortal_postgres import mortal_postgres

AWAY_S = 34.0
"""A pool that waits twice as long each time has just tried in vain, and would wait 32 s now."""
DOUBLING = Procedure(
    "double", {"number": Kind.BIGINT}, [Step("SELECT 2 * :number", gives={"twice": Kind.BIGINT})], ("twice",)
)


@pytest.mark.slow
def test_calls_go_through_as_soon_as_the_database_is_back(postgres_server: Any) -> None:
    with mortal_postgres() as server:

        async def ask(caller: Caller) -> dict[str, Any]:
            return await caller.call(DOUBLING, {"number": 21})

        async def go_through_it() -> dict[str, Any]:
            database = Database(server.url(server.create()))
            await procedures.install(database, [DOUBLING])
            caller = Caller(database)
            try:
                await ask(caller)
                server.kill()
                end = asyncio.get_running_loop().time() + AWAY_S
                while asyncio.get_running_loop().time() < end:
                    with pytest.raises((psycopg.OperationalError, PoolTimeout, TimeoutError)):
                        async with asyncio.timeout_at(end):
                            await ask(caller)
                server.start()
                return await ask(caller)
            finally:
                await caller.close()
                await database.close()

        assert asyncio.run(go_through_it()) == {"twice": 42}
