"""Purchases and refunds of members who were merged: the survivor has all of it, and no till notices."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from sqlalchemy import text

from kit.db import Database
from kit.vault import Vault
from loyalty import refunds, tiers
from loyalty.purchases import Buyer, Receipt, ReceiptReused
from loyalty.refunds import NewRefund
from tests.loyalty.conftest import BRAND, NOW, MakeMember
from tests.loyalty.merge_desk import LATER, Desk
from tests.loyalty.tier_world import World


class _Undone(Exception):
    """Ends a transaction that shall not happen."""


async def someone_waits(database: Database) -> None:
    """Till somebody waits for a row that another transaction holds."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while True:
        async with database.reading() as session:
            if (await (await session.connection()).execute(waiting)).scalar_one():
                return
        await asyncio.sleep(0.02)


@pytest.fixture
def desk(database: Database, vault: Vault) -> Desk:
    return Desk(database, vault)


@pytest.fixture
async def world(database: Database, vault: Vault) -> World:
    made = World(database, vault)
    await made.rules()
    await made.earning(1_000)
    return made


async def test_what_refunds_left_owing_comes_along_and_goes_back(
    desk: Desk, world: World, make_member: MakeMember
) -> None:
    ann = await make_member(1)
    bought = await world.buy(10_000)
    old = bought.purchase.member_id
    await desk.spend(old, 100, NOW)
    refunded = await world.refund(bought.purchase.purchase_id, "r")
    assert refunded.refund.points_short == 100
    made = await desk.merge(ann, old)
    again = await world.buy(3_000)
    assert (again.purchase.member_id, again.points_repaid) == (ann, 30)
    await desk.unmerge(made)
    after = await world.buy(10_000)
    assert (after.purchase.member_id, after.points_repaid) == (old, 70)
    await desk.require_sound_books()


async def test_a_receipt_told_again_after_a_merge_answers_as_before(
    desk: Desk, world: World, make_member: MakeMember
) -> None:
    ann, ben = await make_member(1), await make_member(2)
    new = world.purchase(10_000)
    first = await world.record(new)
    await desk.merge(ann, first.purchase.member_id)
    again = await world.record(new)
    assert (again.is_new, again.purchase.purchase_id, again.balance) == (False, new.purchase_id, 100)
    with pytest.raises(ReceiptReused):
        await world.record(replace(new, buyer=Buyer(member_id=ben)))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_purchase_under_way_at_a_merge_counts_for_the_survivor_once(
    desk: Desk, world: World, make_member: MakeMember
) -> None:
    ann = await make_member(1)
    old = (await world.buy(10_000)).purchase.member_id
    late = world.purchase(10_000)
    other_till = Receipt(purchase_id=late.purchase_id, brand_id=BRAND, member_id=old, fingerprint=b"")
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(pytest.raises(_Undone))
        session = await stack.enter_async_context(desk.database.writing())
        session.add(other_till)
        await session.flush()
        recording = asyncio.create_task(world.record(late))
        await someone_waits(desk.database)
        await desk.merge(ann, old)
        raise _Undone
    assert (await recording).purchase.member_id == old
    assert (await desk.points(ann), await desk.points(old)) == (100, 100)
    assert [await desk.gather(), await desk.gather()] == [1, 0]
    assert (await desk.points(ann), await desk.points(old)) == (200, 0)
    async with desk.database.writing() as session:
        turn = await tiers.take(session, ann, BRAND, LATER)
        assert sum(entry.figures.purchases for entry in turn.entries) == 2
    await desk.require_sound_books()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_refunds_of_a_merged_buyer_and_purchases_do_not_block_each_other(
    desk: Desk, world: World, make_member: MakeMember
) -> None:
    ann = await make_member(1)
    bought = [await world.buy(10_000) for _ in range(15)]
    await desk.merge(ann, bought[0].purchase.member_id)

    async def refund(number: int) -> None:
        new = NewRefund(bought[number].purchase.purchase_id, BRAND, f"r{number}")
        async with desk.database.writing() as session:
            await refunds.refund(session, new, NOW)

    await asyncio.gather(*(work for number in range(15) for work in (refund(number), world.buy(5_000))))
    assert await desk.points(ann) == 15 * 50
    await desk.require_sound_books()
