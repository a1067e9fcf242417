"""The database schema: what the migrations make is what the models say, and the ledger refuses to be altered."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel, select

import migrations
import scan_api.app  # noqa: F401 - registers every table
from codes.catalogue import BrandGroup
from kit.db import Database
from tests.stand import Stand


@pytest.fixture
async def migrated(empty_database_url: str) -> Any:
    database = Database(empty_database_url)
    await migrations.upgrade(database)
    yield database
    await database.close()


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return compare_metadata(context, SQLModel.metadata)


def _constraints(connection: Connection) -> dict[str, set[str | None]]:
    """The names of each table's CHECK constraints, which alembic does not compare."""
    found = inspect(connection)
    return {
        table: {check["name"] for check in found.get_check_constraints(table)}
        for table in found.get_table_names()
        if table != "alembic_version"
    }


async def test_migrations_make_what_the_models_say(migrated: Database) -> None:
    async with migrated.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
        made = await connection.run_sync(_constraints)
    said = {
        table.name: {str(check.name) for check in table.constraints if type(check).__name__ == "CheckConstraint"}
        for table in SQLModel.metadata.sorted_tables
    }
    assert made.keys() == said.keys()
    for table, checks in said.items():
        assert {str(name).removeprefix(f"ck_{table}_") for name in made[table]} == {
            name.removeprefix(f"ck_{table}_") for name in checks
        }


async def test_upgrading_again_changes_nothing(migrated: Database) -> None:
    async with migrated.writing() as session:
        session.add(BrandGroup(name="kept"))
    await migrations.upgrade(migrated)
    async with migrated.reading() as session:
        assert (await session.exec(select(BrandGroup.name))).all() == ["kept"]
    async with migrated.engine.connect() as connection:
        assert len((await connection.execute(text("SELECT version_num FROM alembic_version"))).all()) == 1


@pytest.mark.parametrize("table", ["ledger_entry", "ledger_transfer"])
@pytest.mark.parametrize("change", ["UPDATE {} SET at = at", "DELETE FROM {}"])
def test_ledger_refuses_to_be_altered(stand: Stand, table: str, change: str) -> None:
    before = stand.counts()[table]
    assert before > 0
    with pytest.raises(DBAPIError, match="append-only"):
        stand.execute(text(change.format(table)))
    assert stand.counts()[table] == before


@pytest.mark.parametrize("stand_kind", ["postgresql"])
@pytest.mark.parametrize("table", ["ledger_entry", "ledger_transfer"])
def test_ledger_refuses_to_be_truncated(stand: Stand, table: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"):
        stand.execute(text(f"TRUNCATE {table}"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_account SET balance = -1 WHERE purpose <> 'issuance'",
        "UPDATE campaign SET prize_amount = 0",
        "UPDATE code_order SET state = 'sold'",
        "UPDATE code_order SET quantity = 0",
        "UPDATE api_key SET role = 'king'",
        "UPDATE member_benefit SET status = 'redeemed', redeemed_at = NULL",
    ],
)
def test_database_refuses_rows_that_mean_nothing(stand: Stand, statement: str) -> None:
    stand.claim(stand.member(), stand.take_item().outer, "coupon")
    with pytest.raises(DBAPIError):
        stand.execute(text(statement))
