"""The database schema's history, applied by `fanxing init` (alembic)."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

from kit.db import Database


def config() -> Config:
    """Alembic's configuration; there is no alembic.ini, since the database comes from FANXING_DATABASE_URL."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("path_separator", "os")
    return made


async def upgrade(database: Database) -> None:
    """Bring the schema to the newest version; a database that is there already is left as it is."""

    def run(connection: Connection) -> None:
        settings = config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head")

    async with database.engine.execution_options(fanxing_writes=True).begin() as connection:
        await connection.run_sync(run)


if __name__ == "__main__":
    from kit.settings import load

    asyncio.run(upgrade(Database(load().database)))
