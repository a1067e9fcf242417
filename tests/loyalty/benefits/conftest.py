"""A brand with benefits, members with points, and tills: each call in a transaction of its own, as requests do."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from kit.db import Database
from kit.ids import new_id
from kit.vault import Vault
from loyalty import benefits, ledger, members
from loyalty.benefits import (
    Benefit,
    BenefitKind,
    HeldBenefit,
    NewBenefit,
    catalogue,
    code_pools,
    redemptions,
    stock,
)
from loyalty.benefits.pool_files import Line
from loyalty.benefits.redemptions import Redemption
from loyalty.benefits.tills import Till
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from tests.loyalty.conftest import BRAND, GROUP, NOW, MakeMember

COUPON = NewBenefit(
    brand_id=BRAND,
    group_id=GROUP,
    kind=BenefitKind.COUPON,
    name_zh="满十减五",
    name_en="5 off 10",
    starts_at=NOW - timedelta(days=1),
    ends_at=NOW + timedelta(days=365),
    value_fen=500,
    cost_fen=300,
    valid_days=30,
    prices={0: 100},
)
TILL = Till(uuid.UUID(int=77), {BRAND})
OTHER_TILL = Till(uuid.UUID(int=78), {BRAND})

MakeBenefit = Callable[..., Awaitable[Benefit]]


async def new_benefit(database: Database, stocked: int = 50, *, sure: bool = False, **changes: Any) -> Benefit:
    """A coupon for 100 points, with what is to be different, and stock."""
    async with database.writing() as session:
        benefit = await catalogue.create(session, replace(COUPON, **changes), NOW, sure=sure)
        if stocked and benefit.kind != BenefitKind.POOL:
            await stock.procure(session, benefit, stocked, procurement_id=new_id(), now=NOW)
        return benefit


@dataclass(frozen=True)
class House:
    """What tests do with benefits."""

    database: Database
    vault: Vault

    async def obtain(
        self, member_id: uuid.UUID, benefit: Benefit, obtain_id: uuid.UUID | None = None, **options: Any
    ) -> HeldBenefit:
        async with self.database.writing() as session:
            return await benefits.obtain(
                session,
                self.vault,
                obtain_id=obtain_id or new_id(),
                member_id=member_id,
                benefit_id=benefit.benefit_id,
                **({"now": NOW} | options),
            )

    async def grant(
        self, member_id: uuid.UUID, benefit: Benefit, grant_id: uuid.UUID | None = None, now: datetime = NOW
    ) -> HeldBenefit:
        async with self.database.writing() as session:
            return await benefits.grant(
                session,
                self.vault,
                grant_id=grant_id or new_id(),
                member_id=member_id,
                benefit_id=benefit.benefit_id,
                why="birthday",
                now=now,
            )

    async def redeem(self, code: str | None, till: Till = TILL, now: datetime = NOW, **options: Any) -> Redemption:
        async with self.database.writing() as session:
            return await redemptions.redeem(
                session, self.vault, till, code or "", now=now, **({"redemption_id": new_id()} | options)
            )

    async def call(self, function: Callable[..., Awaitable[Any]], *given: Any, **options: Any) -> Any:
        """A function that takes a session and the vault, in a transaction."""
        async with self.database.writing() as session:
            return await function(session, self.vault, *given, **options)

    async def held(self, member_id: uuid.UUID, now: datetime = NOW) -> list[HeldBenefit]:
        async with self.database.reading() as session:
            return await benefits.held_by(session, self.vault, member_id, now)

    async def left(self, benefit: Benefit) -> int:
        async with self.database.reading() as session:
            return (await stock.left(session, [benefit]))[benefit.benefit_id]

    async def balances(self, member_id: uuid.UUID) -> dict[tuple[str, Purpose], int]:
        """What the member holds, without empty accounts."""
        async with self.database.reading() as session:
            return {key: held for key, held in (await ledger.balances(session, member_id)).items() if held}

    async def points(self, member_id: uuid.UUID) -> int:
        return (await self.balances(member_id)).get((ledger.POINTS, Purpose.AVAILABLE), 0)

    async def give_points(self, member_id: uuid.UUID, amount: int, expires_at: datetime | None = None) -> None:
        account = AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)
        legs = (Leg(ledger.issuance(BRAND, ledger.POINTS, member_id), -amount), Leg(account, amount))
        async with self.database.writing() as session:
            await ledger.post(session, Transfer(new_id(), "test", legs, lots_expire_at=expires_at), NOW)

    async def fill_pool(self, benefit: Benefit, codes: list[str], name: str = "codes.txt") -> code_pools.Chunk:
        """Import codes as the lines of a file."""
        lines = [Line(number, code) for number, code in enumerate(codes, 1)]
        async with self.database.writing() as session:
            sha256 = repr(codes).encode().ljust(32)[:32]
            file = await code_pools.begin(session, benefit, name, sha256, NOW)
            chunk = await code_pools.add(session, self.vault, benefit, file, lines, 0, NOW)
            await code_pools.finish(session, file, NOW)
            return chunk

    async def verify(self) -> None:
        async with self.database.reading() as session:
            assert (await ledger.verify(session)).faults == ()


@pytest.fixture
def house(database: Database, vault: Vault) -> House:
    return House(database, vault)


@pytest.fixture
def make_benefit(database: Database) -> MakeBenefit:
    """Makes a coupon for 100 points, with what is to be different, and stock."""
    return partial(new_benefit, database)


@pytest.fixture
async def member_id(make_member: MakeMember, house: House) -> uuid.UUID:
    """A member with 100 points and no card."""
    made = await make_member()
    await house.give_points(made, 100)
    return made


@pytest.fixture
async def coupon(house: House, member_id: uuid.UUID, make_benefit: MakeBenefit) -> HeldBenefit:
    """A coupon that the member was granted."""
    return await house.grant(member_id, await make_benefit())


@pytest.fixture
def set_tier(database: Database) -> Callable[[uuid.UUID, int], Awaitable[None]]:
    """Give a member's card of the brand a tier."""

    async def set_rank(member_id: uuid.UUID, rank: int) -> None:
        async with database.writing() as session:
            card = await members.join_brand(session, member_id, BRAND, NOW)
            card.tier_rank = rank
            session.add(card)

    return set_rank
