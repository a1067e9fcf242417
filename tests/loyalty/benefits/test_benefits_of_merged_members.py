"""Benefits of members who become one: those that can be used come over, and go back unless they were used."""

import uuid

from loyalty import benefits, ledger, merges
from loyalty.benefits import BenefitState
from loyalty.ledger import Purpose
from loyalty.merges import Approval, NewMerge
from tests.loyalty.benefits.conftest import House, MakeBenefit
from tests.loyalty.conftest import NOW, MakeMember


async def _held(house: House, member_id: uuid.UUID) -> dict[uuid.UUID, BenefitState]:
    async with house.database.reading() as session:
        held = await benefits.held_by(session, house.vault, member_id, NOW)
    return {one.held_id: one.state for one in held}


async def _count(house: House, member_id: uuid.UUID, benefit_id: uuid.UUID, purpose: Purpose) -> int:
    async with house.database.reading() as session:
        return (await ledger.balances(session, member_id)).get((benefits.asset_of(benefit_id), purpose), 0)


async def test_usable_benefits_come_over_and_go_back_and_used_ones_stay(
    house: House, make_benefit: MakeBenefit, make_member: MakeMember
) -> None:
    benefit = await make_benefit()
    ann, old = await make_member(1), await make_member(2)
    used, spent_later, kept = [await house.grant(old, benefit) for _ in range(3)]
    await house.redeem(used.code)
    async with house.database.writing() as session:
        made = await merges.merge(session, NewMerge(uuid.uuid4(), ann, old, Approval.CODES), NOW)
    assert [(one.asset, one.amount) for one in made.moved] == [(benefits.asset_of(benefit.benefit_id), 2)]
    assert set(await _held(house, ann)) == {spent_later.held_id, kept.held_id}
    assert set(await _held(house, old)) == {used.held_id}
    await house.redeem(spent_later.code)
    async with house.database.writing() as session:
        parted = await merges.unmerge(session, ann, made.merge_id, NOW)
    assert [one.amount for one in parted.moved] == [1]
    assert set(await _held(house, ann)) == {spent_later.held_id}
    assert (await _held(house, old))[kept.held_id] is BenefitState.ISSUED
    await house.redeem(kept.code)
    assert await _count(house, ann, benefit.benefit_id, Purpose.REDEEMED) == 1
    assert await _count(house, old, benefit.benefit_id, Purpose.REDEEMED) == 2
    async with house.database.reading() as session:
        assert (await ledger.verify(session)).sound
