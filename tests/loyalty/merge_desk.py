"""A desk at which members of tests are merged and parted, and value moves between them."""

import asyncio
import uuid
from collections import Counter
from datetime import datetime, timedelta

from sqlalchemy import text

from kit.db import Database
from kit.vault import Vault
from loyalty import ledger, members, merges
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from loyalty.merges import Approval, Merged, NewMerge
from tests.loyalty.conftest import BRAND, GROUP, NOW

LATER = NOW + timedelta(days=1)
SOON, LATE = NOW + timedelta(days=40), NOW + timedelta(days=400)
PHONE_OF = "1380013{}"


class Desk:
    """Merges and moves value, each in a transaction of its own, as requests do."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        self.vault = vault

    async def earn(
        self,
        member_id: uuid.UUID,
        amount: int,
        expires_at: datetime | None = None,
        asset: str = ledger.POINTS,
        purpose: Purpose = Purpose.AVAILABLE,
    ) -> None:
        legs = (
            Leg(ledger.issuance(BRAND, asset, member_id), -amount),
            Leg(AccountId(member_id, asset, purpose), amount),
        )
        async with self.database.writing() as session:
            await ledger.post(session, Transfer(uuid.uuid4(), "gift", legs, lots_expire_at=expires_at), NOW)

    async def spend(self, member_id: uuid.UUID, amount: int, now: datetime = LATER, *, may_owe: bool = False) -> None:
        legs = (
            Leg(AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE), -amount),
            Leg(ledger.spent(BRAND, member_id), amount),
        )
        async with self.database.writing() as session:
            await ledger.post(session, Transfer(uuid.uuid4(), "spent", legs, may_owe=may_owe), now)

    async def merge(
        self, survivor: uuid.UUID, merged: uuid.UUID, merge_id: uuid.UUID | None = None, now: datetime = NOW
    ) -> Merged:
        new = NewMerge(merge_id or uuid.uuid4(), survivor, merged, Approval.CODES)
        async with self.database.writing() as session:
            return await merges.merge(session, new, now)

    async def unmerge(self, made: Merged, now: datetime = LATER) -> Merged:
        async with self.database.writing() as session:
            return await merges.unmerge(session, made.survivor_id, made.merge_id, now)

    async def gather(self, now: datetime = LATER) -> int:
        return await merges.gather(self.database, lambda: now)

    async def points(self, member_id: uuid.UUID) -> int:
        return await self.balance(member_id, ledger.POINTS)

    async def balance(self, member_id: uuid.UUID, asset: str, purpose: Purpose = Purpose.AVAILABLE) -> int:
        async with self.database.reading() as session:
            return (await ledger.balances(session, member_id)).get((asset, purpose), 0)

    async def lots(self, member_id: uuid.UUID, now: datetime = LATER) -> list[tuple[int, datetime | None]]:
        async with self.database.reading() as session:
            counted: Counter[datetime | None] = Counter()
            for lot in await ledger.lots_of(session, member_id, now):
                counted[lot.expires_at] += lot.left
        return sorted(((left, day) for day, left in counted.items()), key=lambda one: one[1] or LATE + timedelta(9))

    async def owner(self, number: int) -> uuid.UUID:
        async with self.database.reading() as session:
            return await members.member_with(session, self.vault, GROUP, PHONE_OF.format(8000 + number))

    async def require_sound_books(self) -> None:
        async with self.database.reading() as session:
            report = await ledger.verify(session)
        assert report.sound, report.faults


async def someone_waits(database: Database) -> None:
    """Till somebody waits for a row that another transaction holds."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while True:
        async with database.reading() as session:
            if (await (await session.connection()).execute(waiting)).scalar_one():
                return
        await asyncio.sleep(0.02)
