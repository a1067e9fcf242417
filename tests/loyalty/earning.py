"""What tests of earning share: programs in a hurry, members of a given age, and a look at the books."""

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from kit.db import Database
from kit.vault import Vault
from loyalty import ledger, members, programs
from loyalty.ledger import AccountId, Purpose
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import NewProgram, Program, Rules
from tests.loyalty.conftest import BRAND, GROUP, NOW

POINTS_5 = Prize(PrizeKind.POINTS, 5)
NOTHING = Prize(PrizeKind.NOTHING, 0)
DAY = timedelta(days=1)
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what is decided before the database has a say: the same on both."""


async def make_program(database: Database, rules: Rules, **changes: Any) -> Program:
    plain: dict[str, Any] = {
        "brand_id": BRAND,
        "group_id": GROUP,
        "title_zh": "活动",
        "title_en": "Program",
        "rules": rules,
        "starts_at": NOW - DAY,
    }
    async with database.writing() as session:
        return await programs.create(session, NewProgram(**(plain | changes)), NOW)


async def join(database: Database, vault: Vault, number: int, at: datetime, group_id: int = GROUP) -> uuid.UUID:
    """A member who enrolled at a moment."""
    async with database.writing() as session:
        member, _ = await members.find_or_enrol(session, vault, group_id, f"1390013{8000 + number}", at)
    return member.member_id


async def points_of(database: Database, member_id: uuid.UUID) -> int:
    async with database.reading() as session:
        account = AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)
        return (await ledger.balances_of(session, [account])).get(account, 0)


async def issued(database: Database, asset: str = ledger.POINTS) -> int:
    """What has left the brand's issuance, budgets that are set aside among it."""
    async with database.reading() as session:
        return -await ledger.total(session, Purpose.ISSUANCE, asset, BRAND)


async def assert_books_balance(database: Database) -> None:
    async with database.reading() as session:
        assert (await ledger.verify(session)).faults == ()
