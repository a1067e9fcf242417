"""Processes that fill a transparency log and sequence it until somebody kills them, each with an account of its own.

What was committed, and what was signed, is written to files at once: a process that is killed cannot tell any more.
"""

import asyncio
import os
import signal
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from nacl.signing import SigningKey

from codes import log_queue
from codes.log_queue import NewEntry, record_of
from kit.db import Database
from offline_sdk.algorithms import Algorithm
from scan_api.transparency.head_memory import HeadMemory
from scan_api.transparency.sequencer import Sequencer
from scan_api.transparency.store import LogRaced
from signer.service import SigningService

SEED = bytes(range(32))
PUBLIC = bytes(SigningKey(SEED).verify_key)
BATCH_ENTRIES = 30
PAUSE_S = 0.01


@dataclass
class Witnessing:
    """A custody of one key that writes down what it signs; at `dies_at`, counted from 1, it dies with the signature."""

    seen: Path
    dies_at: int = 0
    signed: int = 0

    def create(self, name: str, algorithm: Algorithm) -> bytes:
        raise NotImplementedError

    def open(self, name: str) -> tuple[Algorithm, bytes]:
        return Algorithm.ED25519, PUBLIC

    def sign_many(self, name: str, messages: Sequence[bytes]) -> list[bytes]:
        for message in messages:
            _append(self.seen, message.hex())
        self.signed += 1
        if self.signed == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return [SigningKey(SEED).sign(message).signature for message in messages]


def _append(path: Path, *lines: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
    finally:
        os.close(descriptor)


def now() -> datetime:
    return datetime.now(UTC)


def fill(url: str, acknowledged: Path, seed: int) -> None:
    """Commit records for ever, and write down the ids of those that are committed."""

    async def filling() -> None:
        database, random = Database(url, 1), Random(seed)
        while True:
            entries = [
                NewEntry("event", uuid.uuid4(), 1, record_of({"number": random.getrandbits(60)}))
                for _ in range(random.randint(1, 40))
            ]
            async with database.writing() as session:
                ids = await log_queue.enqueue(session, entries, now())
            _append(acknowledged, *map(str, ids))
            # SQLite's lock goes to whoever happens to ask; who asks all the time would have it all the time.
            await asyncio.sleep(PAUSE_S)

    asyncio.run(filling())


def sequence(url: str, home: Path, seen: Path, dies_at: int = 0) -> None:
    """Sequence and sign for ever."""

    async def sequencing() -> None:
        database = Database(url, 2)
        signing = SigningService(Witnessing(seen, dies_at))
        sequencer = Sequencer(database, signing, HeadMemory(home), now, BATCH_ENTRIES)
        while True:
            with suppress(LogRaced):
                await sequencer.turn()
            await asyncio.sleep(PAUSE_S / 5)

    asyncio.run(sequencing())
