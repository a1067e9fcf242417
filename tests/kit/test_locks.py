"""Locks that many share and one who changes waits for."""

import asyncio

import pytest

from kit import locks
from kit.db import Database

KEY = locks.key_of("campaign", "7")


async def test_who_changes_waits_for_all_who_share_and_they_do_not_wait_for_each_other(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        return  # one writer at a time: see the tests of kit.db

    async def change() -> None:
        async with database.writing() as session:
            await locks.change(session, KEY)

    async with database.writing() as one, database.writing() as other:
        await locks.share(one, KEY)
        await asyncio.wait_for(locks.share(other, KEY), 5)
        changing = asyncio.create_task(change())
        done, _ = await asyncio.wait([changing], timeout=0.2)
        assert not done
    await changing


@pytest.mark.parametrize("other", [("campaign", "8"), ("order", "7")])
def test_keys_differ_by_kind_and_name_and_fit_the_database(other: tuple[str, str]) -> None:
    assert locks.key_of(*other) != KEY
    assert -(2**63) <= locks.key_of(*other) < 2**63
