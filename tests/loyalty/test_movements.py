"""Movement across brands: what is earned at one and spent at another is seen, and nobody in it."""

import uuid
from datetime import timedelta

import pytest

from kit.db import Database
from kit.vault import Vault
from loyalty import budgets, ledger, movements
from loyalty.budgets import Budget
from loyalty.ledger import POINTS, AccountId, Leg, Purpose, Transfer
from loyalty.movements import MEMBERS_MIN, Flow, Shared
from loyalty.purchases import Buyer
from tests.loyalty.conftest import BRAND, NOW
from tests.loyalty.tier_world import World

OTHER = BRAND + 1
BRANDS = (BRAND, OTHER)


@pytest.fixture
def world(database: Database, vault: Vault) -> World:
    return World(database, vault)


@pytest.mark.parametrize(
    ("buyers", "flow", "shared"),
    [(MEMBERS_MIN, (600, 10), 10), (MEMBERS_MIN - 1, (None, None), None)],
    ids=["ten members", "nine members"],
)
async def test_points_are_followed_from_where_they_were_earned_to_where_they_are_spent(
    database: Database, world: World, buyers: int, flow: tuple[int, int], shared: int
) -> None:
    await world.earning()
    elsewhere = World(database, world.vault, OTHER)
    for number in range(buyers):
        bought = await world.buy(10_000, buyer=Buyer(phone=f"1380013{8000 + number}"))
        await elsewhere.member(f"1380013{8000 + number}")
        await elsewhere.spend(bought.purchase.member_id, 60)
    async with database.reading() as session:
        assert await movements.flows(session, BRANDS, NOW, NOW + timedelta(days=1)) == [Flow(BRAND, OTHER, *flow)]
        assert await movements.flows(session, BRANDS, NOW - timedelta(days=1), NOW) == []
        assert await movements.flows(session, (BRAND,), NOW, NOW + timedelta(days=1)) == []
        assert await movements.shared(session, BRANDS) == [Shared(BRANDS, shared)]


async def test_points_of_a_budget_are_those_of_the_brand_that_funded_it(database: Database, world: World) -> None:
    budget = Budget(uuid.uuid4(), POINTS)
    async with database.writing() as session:
        await budgets.fund(session, budget, 1_000, ledger.issuance(OTHER, POINTS, 0), NOW)
    for number in range(MEMBERS_MIN):
        member_id = await world.member(f"1380013{8000 + number}")
        prize = (budgets.debit(budget, 50, number), Leg(AccountId(member_id, POINTS, Purpose.AVAILABLE), 50))
        async with database.writing() as session:
            await ledger.post(session, Transfer(uuid.uuid4(), "prize", prize), NOW)
        await world.spend(member_id, 20)
    async with database.reading() as session:
        found = await movements.flows(session, BRANDS, NOW, NOW + timedelta(days=1))
    assert found == [Flow(OTHER, BRAND, 200, MEMBERS_MIN)]
