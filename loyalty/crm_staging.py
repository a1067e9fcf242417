"""The temporary tables through which a chunk of a CRM's numbers goes when some of them may be known."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, Table, Text, Uuid, delete, text
from sqlalchemy.schema import CreateTable

from kit.db import Moment, Session, driver_connection, is_postgresql
from kit.ids import new_id
from loyalty.crm_sealing import STAGED_COLUMNS, Staging
from loyalty.ledger import copying

STATEMENT_TIMEOUT_MS = 300_000

# Metadata of their own: these tables are no part of the schema.
_TEMPORARY = MetaData()
STAGED = Table(
    "crm_staged",
    _TEMPORARY,
    Column("fingerprint", LargeBinary, nullable=False),
    Column("member_id", Uuid, nullable=False),
    Column("origin_id", Uuid, nullable=False),
    Column("entry_id", Uuid, nullable=False),
    Column("is_new", Boolean, nullable=False),
    Column("has_name", Boolean, nullable=False),
    Column("has_birthday", Boolean, nullable=False),
    Column("has_consents", Boolean, nullable=False),
    Column("card_number", Text, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("experience", BigInteger, nullable=False),
    Column("tier_rank", Integer, nullable=False),
    Column("joined_at", Moment),
    prefixes=["TEMPORARY"],
)
STAGED_CONSENTS = Table(
    "crm_staged_consent",
    _TEMPORARY,
    Column("fingerprint", LargeBinary, nullable=False),
    Column("consent_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("version", Text, nullable=False),
    prefixes=["TEMPORARY"],
)
# Also after a large import, when what the planner knows of the tables is old, and none of them seems too large to read.
_NOT_BY_INDEX = ("enable_hashjoin", "enable_mergejoin", "enable_seqscan")
_COPIED = f"{STAGED.name} ({', '.join(STAGED_COLUMNS)})"


async def prepare(session: Session) -> None:
    """Tell PostgreSQL, in the caller's transaction, that what follows is no request."""
    # On a busy machine a chunk may take its time. The pages that it looks up are in memory; by the default the planner
    # reads whole tables instead.
    await _plan(session, f"statement_timeout = {STATEMENT_TIMEOUT_MS}", "random_page_cost = 1.1")


@contextlib.asynccontextmanager
async def looking_up(session: Session) -> AsyncIterator[None]:
    """Join by index alone."""
    await _plan(session, *(f"{way} = off" for way in _NOT_BY_INDEX))
    yield
    await _plan(session, *(f"{way} = on" for way in _NOT_BY_INDEX))


async def _plan(session: Session, *settings: str) -> None:
    if is_postgresql(session):
        connection = await session.connection()
        for setting in settings:
            await connection.execute(text(f"SET LOCAL {setting}"))


async def stage(session: Session, staging: Staging) -> None:
    """Fill the temporary tables with these numbers and nothing else."""
    connection = await session.connection()
    for table in (STAGED, STAGED_CONSENTS):
        await connection.execute(CreateTable(table, if_not_exists=True))
        await connection.execute(delete(table))
    if isinstance(staging.content, bytes):
        await copy(session, [(_COPIED, staging.content)])
    elif staging.content:
        await connection.execute(STAGED.insert(), staging.content)
    consents = [
        {"fingerprint": fingerprint, "consent_id": new_id(), "kind": kind, "version": version}
        for fingerprint, kind, version in staging.consents
    ]
    if consents:
        await connection.execute(STAGED_CONSENTS.insert(), consents)


async def copy(session: Session, copies: Sequence[tuple[str, bytes]]) -> None:
    """Write rows by PostgreSQL's COPY: tables with their columns, and rows in its binary form."""
    connection = await driver_connection(session)
    for table, rows in copies:
        await copying.copy(connection, table, [rows])
