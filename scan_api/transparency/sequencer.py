"""Sequencer: gives pending entries their place in the tree, commits that, and only then signs it.

One at a time over all servers, by an advisory lock; and where a lock was lost, such as with a connection, the head's
compare-and-set lets one of them through. Killed anywhere, it leaves what was committed, signed or not, and the next one
goes on from there.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import text

from codes import log_queue
from codes.log_queue import Taken
from kit.clock import Clock
from kit.db import Database, Session, is_postgresql
from kit.locks import key_of
from offline_sdk.errors import LogError
from offline_sdk.transparency import (
    Checkpoint,
    Frontier,
    Grown,
    Note,
    Policy,
    SignedCheckpoint,
    TileId,
    committed_entry,
    encode_entries,
    leaf_hashes,
)
from offline_sdk.transparency.tiles import TILE_HASHES
from scan_api.transparency import store
from scan_api.transparency.head_memory import HeadMemory, LogRolledBack
from scan_api.transparency.store import LogHead
from signer.service import CustodyError, SigningService

BATCH_ENTRIES_MAX: Final = 10_000
BATCHES_UNSIGNED_MAX: Final = 10
"""One after another, before what they made is signed."""
_TURN = text("SELECT pg_try_advisory_xact_lock(:key)")
_TURN_KEY = key_of("transparency_log", "sequencer")


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch makes: the tree's new edge and complete tiles, bundles of entries, and whose leaves they are."""

    grown: Grown
    bundles: tuple[tuple[TileId, bytes], ...]
    entry_ids: tuple[uuid.UUID, ...]


def batch_of(frontier: Frontier, last_bundle: Sequence[bytes], taken: Sequence[Taken]) -> Batch:
    """Append entries that were taken to a tree with this edge, whose last bundle has these entries."""
    entries = [committed_entry(one.commitment) for one in taken]
    grown = frontier.append(leaf_hashes(entries))
    first = frontier.size // TILE_HASHES
    whole = [*last_bundle, *entries]
    bundles = []
    for at in range(0, len(whole), TILE_HASHES):
        some = whole[at : at + TILE_HASHES]
        bundles.append((TileId(None, first + at // TILE_HASHES, len(some)), encode_entries(some)))
    return Batch(grown, tuple(bundles), tuple(one.entry_id for one in taken))


@dataclass(frozen=True, slots=True)
class Sequencer:
    """One server's. `signing` holds the log's key; `memory` what this server knows to be signed."""

    database: Database
    signing: SigningService = field(repr=False)
    memory: HeadMemory
    clock: Clock
    batch_entries: int = BATCH_ENTRIES_MAX

    async def turn(self) -> int:
        """Sequence what is pending, up to ten batches, and sign it; returns how many entries got their place.

        Raises LogMissing, LogDamaged, LogRolledBack, LogRaced, CustodyError.
        """
        appended = 0
        for _ in range(BATCHES_UNSIGNED_MAX):
            count = await self.append()
            appended += count
            if count < self.batch_entries:
                break
        await self.sign()
        return appended

    async def append(self) -> int:
        """Give a batch of pending entries their place; returns how many. Raises as `turn` does."""
        async with self.database.reading() as session:
            # A look first: a writing transaction for nothing would hold up everybody's on SQLite.
            if (await log_queue.backlog(session)).count == 0:
                return 0
        async with self.database.writing() as session:
            if not await _my_turn(session):
                return 0
            head = await store.head_of(session)
            taken = await log_queue.take(session, self.batch_entries)
            if not taken:
                return 0
            known = self.memory.known()
            if known is not None and head.size < known.size:
                raise LogRolledBack(f"{known.size:,} leaves were signed, and the database has {head.size:,}")
            frontier, last_bundle = await store.edge_of(session, head)
            batch = await asyncio.to_thread(batch_of, frontier, last_bundle, taken)
            await store.grow(session, head, batch.grown, batch.bundles, batch.entry_ids, self.clock())
        return len(taken)

    async def sign(self) -> bool:
        """Sign the head that is committed, unless it is signed; says whether it was news. Raises as `turn` does.

        What is signed is read in a transaction of its own, so that nothing is signed that could still be undone.
        """
        async with self.database.reading() as session:
            head = await store.head_of(session)
            is_news = await self.memory.check(session, head)
        if is_news:
            # Before the signature exists: whatever becomes of this process, the head is known from now on.
            await asyncio.to_thread(self.memory.remember, head)
        if head.signed_size >= head.size:
            return False
        signed = bytes(await asyncio.to_thread(self._signed, head))
        async with self.database.writing() as session:
            return await store.sign(session, head.size, signed)

    def _signed(self, head: LogHead) -> SignedCheckpoint:
        checkpoint = Checkpoint(head.origin, head.size, head.root)
        signature = self.signing.sign_named(head.custody_name, head.key.to_be_signed(checkpoint.text))
        signed = SignedCheckpoint(checkpoint, Note(checkpoint.text, (head.key.signature(signature),)).signatures)
        try:
            Policy(head.key).check(signed)
        except LogError:
            raise CustodyError(
                f"the key {head.custody_name} does not sign as the log's key does",
                hint="Do custody and database belong to one installation?",
            ) from None
        return signed


async def _my_turn(session: Session) -> bool:
    """Whether no other sequencer is at it; held until the transaction ends. SQLite has one writer at a time anyway."""
    if not is_postgresql(session):
        return True
    return bool((await (await session.connection()).execute(_TURN, {"key": _TURN_KEY})).scalar_one())
