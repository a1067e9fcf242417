"""A member's points as he sees them: every entry once, latest first, with the brand where there is one."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from kit.db import Database, Session
from kit.ids import new_id
from loyalty import ledger, points
from loyalty.ledger import POINTS, AccountId, Leg, Purpose, Transfer

NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
MEMBER, BRANDS = uuid.UUID("0197f0f0-0000-7000-8000-0000000000aa"), (1, 2)


async def move(
    session: Session, amount: int, other: AccountId, reason: str, at: datetime, expires_at: datetime | None = None
) -> uuid.UUID:
    own = AccountId(MEMBER, POINTS, Purpose.AVAILABLE)
    transfer = Transfer(new_id(), reason, (Leg(own, amount), Leg(other, -amount)), lots_expire_at=expires_at)
    return (await ledger.post(session, transfer, at)).transfer_id


async def test_movements_tell_reason_brand_amount_and_balance(database: Database) -> None:
    async with database.writing() as session:
        await move(session, 120, ledger.issuance(1, POINTS, MEMBER), "purchase", NOW)
        await move(session, 30, AccountId(new_id(), POINTS, Purpose.ISSUANCE), "claim", NOW)
        await move(session, -50, ledger.spent(2, MEMBER), "benefit", NOW + timedelta(hours=1))
    async with database.reading() as session:
        told = await points.movements(session, MEMBER, BRANDS, None, 10)
    assert [(one.number, one.reason, one.brand_id, one.amount, one.balance_after) for one in told] == [
        (3, "benefit", 2, -50, 100),
        (2, "claim", None, 30, 150),
        (1, "purchase", 1, 120, 120),
    ]
    assert [one.at for one in told] == [NOW + timedelta(hours=1), NOW, NOW]


@pytest.mark.parametrize("brands", [BRANDS, ()], ids=["brands", "none"])
async def test_movements_are_read_in_pages(database: Database, brands: tuple[int, ...]) -> None:
    async with database.writing() as session:
        for amount in range(1, 6):
            await move(session, amount, ledger.issuance(1, POINTS, amount), "task", NOW)
    async with database.reading() as session:
        first = await points.movements(session, MEMBER, brands, None, 3)
        last = await points.movements(session, MEMBER, brands, first[-1].number, 3)
    assert [one.amount for one in first + last] == [5, 4, 3, 2, 1]


async def test_what_runs_out_first_is_summed_up(database: Database) -> None:
    soon, later = NOW + timedelta(days=30), NOW + timedelta(days=60)
    async with database.writing() as session:
        assert await points.next_expiry(session, MEMBER, NOW) is None
        for amount, expires_at in ((10, None), (20, later)):
            await move(session, amount, ledger.issuance(1, POINTS, MEMBER), "task", NOW, expires_at)
        assert await points.next_expiry(session, MEMBER, NOW) == points.Expiry(20, later)
        for amount in (3, 4):
            await move(session, amount, ledger.issuance(1, POINTS, MEMBER), "task", NOW, soon)
        assert await points.next_expiry(session, MEMBER, NOW) == points.Expiry(7, soon)
        assert await points.next_expiry(session, MEMBER, soon) == points.Expiry(20, later)
