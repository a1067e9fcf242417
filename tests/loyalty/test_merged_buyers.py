"""Purchases and refunds of members who were merged: the survivor has all of it, and no till notices."""

import asyncio
import contextlib
import uuid
from dataclasses import replace

import pytest

from kit.db import Database
from kit.vault import Vault
from loyalty import ledger, merges, refunds, tiers
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from loyalty.merges import Approval, NewMerge
from loyalty.purchases import Buyer, Receipt, ReceiptReused
from loyalty.refunds import NewRefund
from tests.loyalty.conftest import BRAND, NOW, MakeMember
from tests.loyalty.merge_desk import LATER, Desk, someone_waits
from tests.loyalty.tier_world import World


class _Undone(Exception):
    """Ends a transaction that shall not happen."""


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


async def test_a_receipt_told_again_after_two_were_parted_answers_as_before(
    desk: Desk, world: World, make_member: MakeMember
) -> None:
    ann = await make_member(1)
    old = (await world.buy(10_000)).purchase.member_id
    made = await desk.merge(ann, old)
    new = world.purchase(10_000)
    assert (await world.record(new)).purchase.member_id == ann
    await desk.unmerge(made)
    again = await world.record(new)
    assert (again.is_new, again.purchase.member_id, again.balance) == (False, ann, 100)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("points", [100, 0])
async def test_a_purchase_under_way_at_a_merge_is_the_survivors(
    desk: Desk, database: Database, vault: Vault, make_member: MakeMember, points: int
) -> None:
    world = World(database, vault)
    await world.rules()
    if points:
        await world.earning(1_000)
    ann, old = await make_member(1), await make_member(2)
    late = world.purchase(10_000, buyer=Buyer(member_id=old))
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
    assert (await recording).purchase.member_id == ann
    assert (await desk.points(ann), await desk.points(old)) == (points, 0)
    assert not (await world.record(late)).is_new
    await world.refund(late.purchase_id, "r")
    async with desk.database.writing() as session:
        turn = await tiers.take(session, ann, BRAND, LATER)
        assert sum(entry.figures.purchases for entry in turn.entries) == 0
    await desk.require_sound_books()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_refund_finds_a_holder_who_was_merged_on_meanwhile(
    desk: Desk, world: World, make_member: MakeMember
) -> None:
    ann, cat = await make_member(1), await make_member(3)
    bought = await world.buy(10_000)
    await world.buy(100, buyer=Buyer(member_id=ann))
    await desk.merge(ann, bought.purchase.member_id)
    async with desk.database.writing() as session:
        await merges.merge(session, NewMerge(uuid.uuid4(), cat, ann, Approval.CODES), NOW)
        refunding = asyncio.create_task(world.refund(bought.purchase.purchase_id, "r"))
        await someone_waits(desk.database)
    assert (await refunding).refund.points_taken == 100
    assert await desk.points(cat) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("which", [0, 1])
async def test_bringing_what_came_later_blocks_nobody(
    desk: Desk, world: World, make_member: MakeMember, which: int
) -> None:
    ann, *olds = [await make_member(number) for number in range(1, 4)]
    await world.buy(10_000, buyer=Buyer(member_id=ann))
    for old in olds:
        await world.buy(10_000, buyer=Buyer(member_id=old))
        await desk.merge(ann, old)
        await desk.earn(old, 5)
    async with desk.database.writing() as session:
        # As a refund holds first the buyer's card and then the survivor's, and a purchase then his points.
        await tiers.take(session, olds[which], BRAND, NOW, takes_back=True)
        gathering = asyncio.create_task(desk.gather())
        await someone_waits(desk.database)
        await tiers.take(session, ann, BRAND, NOW, takes_back=True)
        legs = (
            Leg(ledger.issuance(BRAND, ledger.POINTS, ann), -7),
            Leg(AccountId(ann, ledger.POINTS, Purpose.AVAILABLE), 7),
        )
        await ledger.post(session, Transfer(uuid.uuid4(), "purchase", legs), NOW)
    assert await gathering == 2
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
