"""Alembic's entry: runs on the connection it is given, or for `revision --autogenerate` on a new one."""

import asyncio

from alembic import context
from sqlalchemy.engine import Connection
from sqlmodel import SQLModel

import scan_api.app  # noqa: F401 - registers every table
from kit.db import Database
from kit.settings import load


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_on_new_connection() -> None:
    database = Database(load().database)
    async with database.engine.execution_options(fanxing_writes=True).begin() as connection:
        await connection.run_sync(run)
    await database.close()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_on_new_connection())
