"""Locks on rows that everybody relies on and few change: many share one, one who changes waits for them.

PostgreSQL's advisory locks (manual, 13.3.5) until the end of the transaction. A row lock would do the same, but it is
written into the row, and a row that every claim writes to is one that every claim waits for. SQLite has one writer at a
time and needs none.
"""

import hashlib

from sqlalchemy import bindparam, text

from kit.db import Session, is_postgresql

SHARE_SQL = "SELECT pg_advisory_xact_lock_shared({key})"
"""The statement by which a procedure shares a lock; `{key}` is the place of the lock's number."""
_SHARE = text(SHARE_SQL.format(key=":key")).bindparams(bindparam("key"))
_CHANGE = text("SELECT pg_advisory_xact_lock(:key)").bindparams(bindparam("key"))


def key_of(kind: str, name: object) -> int:
    """The number of a lock, a signed 64-bit integer; two of 2^32 locks share one with a chance of one in two."""
    return int.from_bytes(hashlib.sha256(f"{kind}\x00{name}".encode()).digest()[:8], signed=True)


async def share(session: Session, key: int) -> None:
    """Keep what the lock stands for as it is until the transaction ends."""
    if is_postgresql(session):
        await (await session.connection()).execute(_SHARE, {"key": key})


async def change(session: Session, key: int) -> None:
    """Wait for everybody who shares the lock, and keep others from sharing it until the transaction ends."""
    if is_postgresql(session):
        await (await session.connection()).execute(_CHANGE, {"key": key})
