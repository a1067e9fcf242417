"""Benefits of members who were merged: they follow to the survivor, and what taking one back returns keeps its day."""

import asyncio

import pytest

from kit.db import Database
from kit.vault import Vault
from loyalty import benefits, ledger, merges
from loyalty.benefits import redemptions
from loyalty.ledger import Policy
from tests.loyalty.benefits.conftest import TILL, House, MakeBenefit
from tests.loyalty.conftest import GROUP, NOW, MakeMember
from tests.loyalty.merge_desk import LATER, SOON, Desk, someone_waits


@pytest.fixture
def desk(database: Database, vault: Vault) -> Desk:
    return Desk(database, vault)


async def test_points_that_a_benefit_gives_back_after_a_merge_keep_their_day(
    house: House, desk: Desk, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    benefit = await make_benefit()
    ann, old = await make_member(1), await make_member(2)
    await house.give_points(old, 100, SOON)
    held = await house.obtain(old, benefit)
    await desk.merge(ann, old)
    await house.call(benefits.reverse, ann, held.held_id, LATER)
    assert await desk.lots(ann) == [(100, SOON)]
    await house.verify()


async def test_points_that_another_paid_keep_their_day_also_after_parting(
    house: House, desk: Desk, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    benefit = await make_benefit()
    ann, old = await make_member(1), await make_member(2)
    await house.give_points(old, 100, SOON)
    held = await house.obtain(old, benefit)
    made = await desk.merge(ann, old)
    redemption = await house.redeem(held.code)
    await desk.unmerge(made)
    async with house.database.writing() as session:
        await redemptions.roll_back(session, TILL, redemption.redemption_id, NOW)
    await house.call(benefits.reverse, ann, held.held_id, LATER)
    assert await desk.lots(ann) == [(100, SOON)]


async def test_one_everlasting_point_does_not_make_the_others_so(
    house: House, desk: Desk, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    benefit = await make_benefit()
    ann, old = await make_member(1), await make_member(2)
    await house.give_points(old, 99, SOON)
    await house.give_points(old, 1)
    held = await house.obtain(old, benefit)
    await desk.merge(ann, old)
    await house.call(benefits.reverse, ann, held.held_id, LATER)
    assert await desk.lots(ann) == [(100, SOON)]


async def test_two_who_both_owe_as_much_as_may_be_become_one(desk: Desk, make_member: MakeMember) -> None:
    async with desk.database.writing() as session:
        await ledger.set_policy(session, GROUP, Policy(12, 150))
    ann, old, new = [await make_member(number) for number in (1, 2, 3)]
    for one in (ann, old):
        await desk.earn(one, 100)
        await desk.spend(one, 200, may_owe=True)
    await desk.merge(ann, old)
    assert await desk.points(ann) == -200
    # Also into one who never had a point.
    await desk.merge(new, ann)
    assert (await desk.points(new), await desk.points(ann), await desk.points(old)) == (-200, 0, 0)
    await desk.require_sound_books()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_parting_waits_for_what_is_being_brought(
    house: House, desk: Desk, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    benefit = await make_benefit()
    ann, old = await make_member(1), await make_member(2)
    held = await house.grant(old, benefit)
    redemption = await house.redeem(held.code)
    made = await desk.merge(ann, old)
    async with house.database.writing() as session:
        await redemptions.roll_back(session, TILL, redemption.redemption_id, NOW)
    async with desk.database.writing() as session:
        assert await merges.bring_stray(session, old, LATER)
        parting = asyncio.create_task(desk.unmerge(made))
        await someone_waits(desk.database)
    await parting
    assert [one.held_id for one in await house.held(old)] == [held.held_id]


async def test_points_that_paid_a_merged_debt_keep_their_day_when_parted(desk: Desk, make_member: MakeMember) -> None:
    async with desk.database.writing() as session:
        await ledger.set_policy(session, GROUP, Policy(12, 500))
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 100)
    await desk.spend(old, 200, may_owe=True)
    await desk.earn(ann, 100, SOON)
    made = await desk.merge(ann, old)
    assert (await desk.points(ann), await desk.points(old)) == (0, 0)
    await desk.unmerge(made)
    assert (await desk.points(ann), await desk.points(old)) == (100, -100)
    assert await desk.lots(ann) == [(100, SOON)]
    await desk.require_sound_books()


async def test_what_a_till_lets_go_of_after_a_merge_is_the_survivors(
    house: House, desk: Desk, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    benefit = await make_benefit()
    ann, old = await make_member(1), await make_member(2)
    held = await house.grant(old, benefit)
    redemption = await house.redeem(held.code)
    made = await desk.merge(ann, old)
    async with house.database.writing() as session:
        await redemptions.roll_back(session, TILL, redemption.redemption_id, NOW)
    assert [await desk.gather(), await desk.gather()] == [1, 0]
    assert [one.held_id for one in await house.held(ann)] == [held.held_id]
    await desk.unmerge(made)
    assert [one.held_id for one in await house.held(old)] == [held.held_id]
    await house.verify()


async def test_a_benefit_granted_to_a_merged_member_is_gathered(
    house: House, desk: Desk, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    benefit = await make_benefit()
    ann, old = await make_member(1), await make_member(2)
    await desk.merge(ann, old)
    held = await house.grant(old, benefit)
    assert [await desk.gather(), await desk.gather()] == [1, 0]
    assert [one.held_id for one in await house.held(ann)] == [held.held_id]
    await house.verify()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_merging_and_taking_back_do_not_block_each_other(
    house: House, desk: Desk, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    benefit = await make_benefit(100)
    for pair in range(6):
        ann, old = await make_member(2 * pair), await make_member(2 * pair + 1)
        await house.give_points(old, 300)
        held = [await house.obtain(old, benefit) for _ in range(3)]
        undone = await asyncio.gather(
            *(house.call(benefits.reverse, old, one.held_id, NOW) for one in held),
            desk.merge(ann, old),
            return_exceptions=True,
        )
        # Whoever comes after the merge finds nothing of his to take back.
        assert {type(one).__name__ for one in undone} <= {"HeldBenefit", "Merged", "HeldBenefitUnknown"}
        await desk.gather()
        assert await desk.points(ann) == 100 * sum(type(one).__name__ == "HeldBenefit" for one in undone)
    await house.verify()
