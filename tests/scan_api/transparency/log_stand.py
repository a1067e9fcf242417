"""Log stand: a log to fill, sequence and look at."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2

from codes import log_queue
from codes.log_queue import NewEntry, record_of
from kit.db import Database, Session
from offline_sdk.transparency import Policy, SignedCheckpoint
from scan_api.transparency import proofs
from scan_api.transparency.head_memory import HeadMemory
from scan_api.transparency.sequencer import Sequencer
from scan_api.transparency.store import LogHead, head_of
from scan_api.transparency.witnesses import Publisher
from signer.service import SigningService

NOW = datetime(2026, 6, 2, 8, 0, tzinfo=UTC)
ORIGIN = "log.example.cn/log"
BRAND = 7


@dataclass
class LogStand:
    """A log, its one server's sequencer and publisher, and a clock that stands still."""

    database: Database
    signing: SigningService
    home: Path
    now: datetime = NOW

    def sequencer(self, home: str = "home", batch_entries: int = 10_000) -> Sequencer:
        folder = self.home / home
        folder.mkdir(exist_ok=True)
        return Sequencer(self.database, self.signing, HeadMemory(folder), lambda: self.now, batch_entries)

    def publisher(self, client: httpx2.AsyncClient | None = None) -> Publisher:
        return Publisher(self.database, client or httpx2.AsyncClient(), lambda: self.now)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def enqueue(self, count: int = 1, word: str = "record", brand_id: int | None = BRAND) -> list[uuid.UUID]:
        async with self.database.writing() as session:
            return await log_queue.enqueue(session, new_entries(count, word, brand_id), self.now)

    async def publish(self) -> SignedCheckpoint:
        """Sequence, sign and publish all that is pending."""
        await self.sequencer().turn()
        await self.publisher().turn()
        return await self.published()

    async def published(self) -> SignedCheckpoint:
        """What is served, verified."""
        async with self.database.reading() as session:
            signed = await proofs.published(session)
            Policy((await head_of(session)).key).check(signed)
            return signed

    async def head(self) -> LogHead:
        async with self.database.reading() as session:
            return await head_of(session)


def new_entries(count: int, word: str = "record", brand_id: int | None = BRAND) -> list[NewEntry]:
    return [
        NewEntry("event", uuid.uuid4(), brand_id, record_of({"type": "event", "word": word, "number": number}))
        for number in range(count)
    ]


async def begin(database: Database, signing: SigningService, home: Path) -> LogStand:
    async with database.writing() as session:
        await _add_head(session, signing)
    return LogStand(database, signing, home)


async def _add_head(session: Session, signing: SigningService) -> None:
    public = signing.named("log").public
    session.add(LogHead(origin=ORIGIN, custody_name="log", public=public, created_at=NOW, grown_at=NOW))
    await session.flush()
