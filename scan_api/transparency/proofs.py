"""Proofs of what the log holds: evidence of single entries with their openings, and consistency of two sizes.

All of it is made from stored tiles, in two or three queries, whatever the size of the tree.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy
from sqlalchemy import Row, bindparam
from sqlmodel import col

from codes.log_queue import LogEntry
from kit.db import Session, table_of
from kit.errors import Conflict, Invalid, NotFound
from offline_sdk.errors import LogError
from offline_sdk.transparency import (
    Evidence,
    Opening,
    SignedCheckpoint,
    Subtree,
    TileId,
    Tiles,
    consistency_path,
    decode_entries,
    inclusion_path,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    subtrees_of,
    tiles_holding,
)
from offline_sdk.transparency.note import encode_base64
from offline_sdk.transparency.tiles import TILE_HASHES
from scan_api.transparency import store
from scan_api.transparency.store import ENTRIES_LEVEL, LogDamaged, LogHead, LogLeaf, LogMissing

PROVED_AT_ONCE_MAX: Final = 1_000


class LogEntryUnknown(NotFound):
    """The log has no such entry, or it is not the caller's."""

    code = "LogEntryUnknown"


class LogEntryPending(Conflict):
    """The entry is not under a published checkpoint yet; it will be within seconds."""

    code = "LogEntryPending"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="Ask again in a second.")
        self.retry_after_s = 1


class LogSizeInvalid(Invalid):
    """The log was never published with this size, or the sizes are in the wrong order."""

    code = "LogSizeInvalid"


class TooManyProofs(Invalid):
    """More entries than are proved at once."""

    code = "TooManyProofs"


_LEAVES = (
    sqlalchemy.select(*table_of(LogEntry).c, table_of(LogLeaf).c.leaf_index)
    .join(table_of(LogLeaf), col(LogLeaf.entry_id) == LogEntry.entry_id)
    .where(col(LogEntry.entry_id).in_(bindparam("entry_ids", expanding=True)))
    .subquery()
)
_ENTRIES: Final = sqlalchemy.select(*[table_of(LogHead).c.published, *_LEAVES.c]).outerjoin(_LEAVES, sqlalchemy.true())


@dataclass(frozen=True, slots=True)
class Proved:
    """An entry under the published checkpoint, and what proves it.

    `evidence` is a C2SP tlog-proof of `entry`; `opening` shows what the entry commits to, None once it is erased.
    """

    entry_id: uuid.UUID
    kind: str
    subject: uuid.UUID
    brand_id: int | None
    leaf_index: int
    entry: bytes
    evidence: Evidence = field(repr=False)
    opening: Opening | None

    def as_json(self) -> dict[str, Any]:
        """As answers carry it. `record` is the record's very bytes as text: to be hashed, it must not be rewritten."""
        opened = (
            {"salt": encode_base64(self.opening.salt), "record": self.opening.record.decode()} if self.opening else None
        )
        return {
            "entry_id": str(self.entry_id),
            "kind": self.kind,
            "subject": str(self.subject),
            "leaf_index": self.leaf_index,
            "entry": self.entry.decode(),
            "opening": opened,
            "proof": bytes(self.evidence).decode(),
        }


async def published(session: Session) -> SignedCheckpoint:
    """The checkpoint that is served. Raises LogMissing."""
    return _published((await store.head_of(session)).published)


def _published(content: bytes | None) -> SignedCheckpoint:
    if content is None:
        raise LogMissing("no checkpoint was published yet", hint="`fanxing log init` begins a log; a server publishes.")
    return SignedCheckpoint.read(content)


async def prove(
    session: Session, entry_ids: Sequence[uuid.UUID], under: SignedCheckpoint | None = None
) -> dict[uuid.UUID, Proved]:
    """Evidence of up to 1,000 entries under the published checkpoint; entries that it does not hold are left out.

    `under`: a checkpoint that was published, for evidence of more entries under one. Who may see an entry's record is
    the caller's to decide. Raises LogMissing, TooManyProofs, and LogDamaged when the database holds another record
    than was logged.
    """
    if len(entry_ids) > PROVED_AT_ONCE_MAX:
        raise TooManyProofs(f"at most {PROVED_AT_ONCE_MAX:,} entries are proved at once")
    # The head in any case, and beside it the entries that have a leaf.
    rows = (await (await session.connection()).execute(_ENTRIES, {"entry_ids": list(entry_ids)})).all()
    signed = under or _published(rows[0].published if rows else None)
    size = signed.checkpoint.size
    held = [row for row in rows if row.leaf_index is not None and row.leaf_index < size]
    subtrees = [one for row in held for one in _needed(row.leaf_index, size)]
    bundles = [TileId(None, row.leaf_index // TILE_HASHES) for row in held if row.salt is None]
    found = await store.tiles_at(session, [*tiles_holding(subtrees, size), *bundles])
    return {row.entry_id: _proved(row, signed, found) for row in held}


def _needed(index: int, size: int) -> tuple[Subtree, ...]:
    return (Subtree(0, index), *subtrees_of(inclusion_path(index, size)))


def _proved(entry: Row[Any], signed: SignedCheckpoint, found: dict[tuple[int, int], bytes]) -> Proved:
    tiles, opening, index = Tiles(found), None, entry.leaf_index
    try:
        if entry.salt is None or entry.record is None:
            committed = decode_entries(found[ENTRIES_LEVEL, index // TILE_HASHES])[index % TILE_HASHES]
        else:
            opening = Opening(entry.salt, entry.record)
            committed = opening.entry
        if tiles.read(Subtree(0, index)) != leaf_hash(committed):
            raise LogDamaged(f"the record of leaf {index} is not the one that was logged", hint=_AUDIT)
        evidence = Evidence(index, prove_inclusion(index, signed.checkpoint.size, tiles), signed)
    except (LogError, LookupError):
        raise LogDamaged(f"leaf {index} cannot be proved from what the database holds", hint=_AUDIT) from None
    return Proved(entry.entry_id, entry.kind, entry.subject, entry.brand_id, index, committed, evidence, opening)


_AUDIT: Final = "`fanxing log export` and `fanxing-audit` tell what was altered."


async def prove_entry(session: Session, entry: LogEntry) -> Proved:
    """The same for one. Raises LogEntryPending too."""
    found = (await prove(session, [entry.entry_id])).get(entry.entry_id)
    if found is None:
        raise LogEntryPending("the entry is not under a published checkpoint yet")
    return found


async def consistency(session: Session, old_size: int, size: int) -> tuple[bytes, ...]:
    """The proof that the tree of `old_size` leaves begins that of `size`. Raises LogMissing, LogSizeInvalid."""
    newest = (await published(session)).checkpoint.size
    if not 0 <= old_size <= size <= newest:
        raise LogSizeInvalid(f"sizes are 0 to {newest}, the published checkpoint's, and the old one is not the greater")
    reader = await store.reader_for(session, subtrees_of(consistency_path(old_size, size)), size)
    try:
        return prove_consistency(old_size, size, reader)
    except LogError:
        raise LogDamaged("this cannot be proved from what the database holds", hint=_AUDIT) from None
