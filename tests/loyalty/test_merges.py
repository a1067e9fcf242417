"""Merging members and parting them: value moves by transfers, nothing is lost, and what was spent stays spent."""

import asyncio
import itertools
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlmodel import col, select

from kit.db import Database
from kit.vault import Vault
from loyalty import erasure, fulfilment, ledger, members, merges, sign_in
from loyalty.campaigns import Limits
from loyalty.claims import ClaimCount, MemberLimitReached
from loyalty.fulfilment import NewOrder, OrderKind, Report, Teller, Word
from loyalty.ledger import Policy, Purpose
from loyalty.members import Card, Member, MemberUnknown
from loyalty.merge_moves import MemberMerge
from loyalty.merges import (
    MERGED_MAX,
    REASON_CHARACTERS_MAX,
    Approval,
    MergeInvalid,
    MergeRefused,
    MergeUnknown,
    NewMerge,
    UnmergeRefused,
)
from tests.loyalty.conftest import BRAND, GROUP, NOW, MakeCampaign, MakeClaim, MakeMember
from tests.loyalty.merge_desk import LATE, LATER, SOON, Desk

OTHER_BRAND = 11


@pytest.fixture
def desk(database: Database, vault: Vault) -> Desk:
    return Desk(database, vault)


async def test_everything_comes_over_and_points_keep_their_day(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(ann, 10)
    for amount, day in ((30, LATE), (20, SOON), (5, SOON), (7, None)):
        await desk.earn(old, amount, day)
    made = await desk.merge(ann, old)
    assert sorted((one.asset, one.amount) for one in made.moved) == [
        ("points", 7),
        ("points", 25),
        ("points", 30),
    ]
    assert await desk.lots(ann) == [(25, SOON), (30, LATE), (17, None)]
    assert (await desk.points(ann), await desk.points(old)) == (72, 0)
    assert [await desk.owner(number) for number in (1, 2)] == [ann, ann]
    await desk.require_sound_books()


async def test_what_was_delivered_stays_with_its_order_which_may_yet_be_reversed(
    desk: Desk, make_member: MakeMember
) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 15, asset=ledger.MEGABYTES, purpose=Purpose.PENDING)
    order_id, refund_to = uuid.uuid4(), ledger.issuance(BRAND, ledger.MEGABYTES, old)
    async with desk.database.writing() as session:
        await fulfilment.place(session, NewOrder(order_id, old, OrderKind.DATA, 15, refund_to, BRAND), NOW)
        await fulfilment.take(session, old, order_id, Report(Word.COMPLETED, Teller.CALLBACK, 1), NOW)
    await desk.merge(ann, old)
    assert await desk.balance(old, ledger.MEGABYTES, Purpose.DELIVERED) == 15
    async with desk.database.writing() as session:
        await fulfilment.take(session, old, order_id, Report(Word.REVERSED, Teller.CALLBACK, 2), LATER)
    assert await desk.balance(old, ledger.MEGABYTES, Purpose.DELIVERED) == 0
    await desk.require_sound_books()


async def test_points_that_ran_out_do_not_keep_two_from_parting(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 30, SOON)
    await desk.earn(old, 70, LATE)
    made = await desk.merge(ann, old)
    await desk.unmerge(made, SOON)
    assert (await desk.points(ann), await desk.points(old)) == (0, 70)
    await desk.require_sound_books()


async def test_parting_brings_back_what_is_left_and_leaves_what_was_spent(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 30, SOON)
    await desk.earn(old, 70, LATE)
    await desk.earn(ann, 50, LATE + timedelta(days=9))
    made = await desk.merge(ann, old)
    await desk.spend(ann, 40)
    parted = await desk.unmerge(made)
    assert sum(one.amount for one in parted.moved) == 60
    assert (await desk.points(ann), await desk.points(old)) == (50, 60)
    assert await desk.lots(old) == [(60, LATE)]
    assert [await desk.owner(number) for number in (1, 2)] == [ann, old]
    await desk.require_sound_books()


async def test_parting_after_everything_was_spent_brings_nothing(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 30)
    made = await desk.merge(ann, old)
    await desk.spend(ann, 30)
    assert (await desk.unmerge(made)).moved == ()
    assert (await desk.points(ann), await desk.points(old)) == (0, 0)


async def test_a_merge_and_its_undoing_happen_once(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 30)
    made = await desk.merge(ann, old)
    again = await desk.merge(ann, old, made.merge_id, LATER)
    assert (again.is_new, again.moved) == (False, made.moved)
    parted = [await desk.unmerge(made, LATER + timedelta(hours=hour)) for hour in range(2)]
    assert [one.is_new for one in parted] == [True, False]
    assert await desk.points(old) == 30
    with pytest.raises(MergeRefused):
        await desk.merge(ann, await make_member(3), made.merge_id)


async def test_eight_merges_both_ways_at_once_make_one(desk: Desk, make_member: MakeMember) -> None:
    ann, ben = await make_member(1), await make_member(2)
    await desk.earn(ann, 10)
    await desk.earn(ben, 20)
    tries = [desk.merge(*pair) for pair in [(ann, ben), (ben, ann)] * 4]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert Counter(type(one).__name__ for one in results) == {"Merged": 1, "MergeRefused": 7}
    assert sorted([await desk.points(ann), await desk.points(ben)]) == [0, 30]
    await desk.require_sound_books()


async def test_eight_partings_at_once_bring_value_back_once(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 30)
    made = await desk.merge(ann, old)
    results = await asyncio.gather(*(desk.unmerge(made) for _ in range(8)))
    assert Counter(one.is_new for one in results) == {True: 1, False: 7}
    assert (await desk.points(ann), await desk.points(old)) == (0, 30)


async def test_spending_while_merging_and_parting_loses_and_makes_nothing(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(ann, 50)
    await desk.earn(old, 50)
    made = await desk.merge(ann, old)

    async def spend() -> int:
        try:
            await desk.spend(ann, 9)
        except ledger.InsufficientBalance:
            return 0
        return 9

    *spent, _parted = await asyncio.gather(*(spend() for _ in range(8)), desk.unmerge(made))
    assert await desk.points(ann) + await desk.points(old) == 100 - sum(spent)
    await desk.require_sound_books()


async def test_a_debt_comes_over_and_goes_back(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    async with desk.database.writing() as session:
        await ledger.set_policy(session, GROUP, Policy(lifetime_months=None, debt_max_points=100))
    await desk.earn(ann, 20)
    await desk.earn(old, 10)
    await desk.spend(old, 40, NOW, may_owe=True)
    made = await desk.merge(ann, old)
    assert (await desk.points(ann), await desk.points(old)) == (-10, 0)
    await desk.unmerge(made)
    assert (await desk.points(ann), await desk.points(old)) == (20, -30)
    await desk.require_sound_books()


async def test_what_comes_to_the_merged_member_later_is_gathered(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    made = await desk.merge(ann, old)
    await desk.earn(old, 30, SOON)
    assert [await desk.gather(), await desk.gather()] == [1, 0]
    assert await desk.lots(ann) == [(30, SOON)]
    await desk.unmerge(made, LATER)
    assert (await desk.points(ann), await desk.points(old)) == (0, 30)


async def test_what_is_on_its_way_stays_with_whom_it_was_sent_to(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 5, asset=ledger.MEGABYTES, purpose=Purpose.PENDING)
    made = await desk.merge(ann, old)
    assert made.moved == ()
    assert await desk.balance(old, ledger.MEGABYTES, Purpose.PENDING) == 5


async def test_the_survivor_has_every_card_and_the_earlier_day(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    async with desk.database.writing() as session:
        own = await members.join_brand(session, ann, BRAND, LATER)
        await members.join_brand(session, old, BRAND, NOW)
        await members.join_brand(session, old, OTHER_BRAND, NOW)
    made = await desk.merge(ann, old)
    async with desk.database.reading() as session:
        held = {card.brand_id: card for card in await members.cards_of(session, ann)}
    assert {brand: card.joined_at for brand, card in held.items()} == {BRAND: NOW, OTHER_BRAND: NOW}
    assert held[BRAND].card_number == own.card_number
    await desk.unmerge(made)
    async with desk.database.reading() as session:
        after = {card.brand_id: card.joined_at for card in await members.cards_of(session, ann)}
        untouched = await members.cards_of(session, old)
    assert after[BRAND] == LATER
    assert {card.brand_id for card in untouched} == {BRAND, OTHER_BRAND}


@pytest.mark.parametrize(("own", "others", "still"), [(0, 1, 2), (1, 1, 1), (1, 2, 0), (2, 2, 0)])
async def test_two_who_are_one_claim_no_more_than_one_may(
    desk: Desk,
    make_member: MakeMember,
    make_campaign: MakeCampaign,
    make_claim: MakeClaim,
    own: int,
    others: int,
    still: int,
) -> None:
    ann, old = await make_member(1), await make_member(2)
    campaign = await make_campaign(limits=Limits(member=3, member_day=3))
    items = itertools.count(1)
    for member_id, count in ((ann, own), (old, others)):
        for _ in range(count):
            await make_claim(campaign, member_id, next(items))
    made = await desk.merge(ann, old)
    await desk.merge(ann, old, made.merge_id)
    for _ in range(still):
        await make_claim(campaign, ann, next(items))
    with pytest.raises(MemberLimitReached):
        await make_claim(campaign, ann, next(items))
    await desk.unmerge(made)
    with pytest.raises(MemberLimitReached):
        await make_claim(campaign, ann, next(items))
    await desk.require_sound_books()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_claiming_while_merging_loses_no_claim(
    desk: Desk, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    ann, old = await make_member(1), await make_member(2)
    campaign = await make_campaign(limits=Limits(member=9))
    await make_claim(campaign, old, 1)
    await make_claim(campaign, old, 2)
    await asyncio.gather(desk.merge(ann, old), *(make_claim(campaign, ann, key) for key in range(3, 9)))
    async with desk.database.reading() as session:
        counted = await session.exec(select(ClaimCount.claims).where(ClaimCount.subject_id == ann))
        assert counted.all() == [8]
    await desk.require_sound_books()


async def test_sessions_of_the_merged_member_end(desk: Desk, make_member: MakeMember) -> None:
    ann, old = await make_member(1), await make_member(2)
    async with desk.database.writing() as session:
        tokens = [await sign_in.open_session(session, one, NOW) for one in (ann, old)]
    await desk.merge(ann, old)
    async with desk.database.writing() as session:
        # Also one that was being opened while they were merged.
        tokens.append(await sign_in.open_session(session, old, NOW))
        assert [await sign_in.member_of(session, token, NOW) for token in tokens] == [ann, None, None]


async def test_merges_stack_and_are_undone_from_the_last(desk: Desk, make_member: MakeMember) -> None:
    ann, ben, cat = [await make_member(number) for number in (1, 2, 3)]
    await desk.earn(ann, 10)
    first = await desk.merge(ben, ann)
    second = await desk.merge(cat, ben)
    assert [await desk.owner(number) for number in (1, 2, 3)] == [cat, cat, cat]
    with pytest.raises(MergeRefused):
        await desk.merge(cat, ann)
    with pytest.raises(UnmergeRefused):
        await desk.unmerge(first)
    await desk.unmerge(second)
    assert [await desk.owner(number) for number in (1, 2, 3)] == [ben, ben, cat]
    await desk.unmerge(first)
    assert [await desk.owner(number) for number in (1, 2, 3)] == [ann, ben, cat]
    assert [await desk.points(one) for one in (ann, ben, cat)] == [10, 0, 0]


async def test_who_cannot_be_merged(desk: Desk, database: Database, make_member: MakeMember) -> None:
    ann, gone = await make_member(1), await make_member(2)
    stranger = await make_member(3, group_id=GROUP + 1)
    async with database.writing() as session:
        await erasure.erase(session, gone, NOW)
    for other, refusal in (
        (ann, MergeInvalid),
        (stranger, MergeInvalid),
        (gone, MemberUnknown),
        (uuid.uuid4(), MemberUnknown),
    ):
        with pytest.raises(refusal):
            await desk.merge(ann, other)
    with pytest.raises(MergeUnknown):
        async with database.writing() as session:
            await merges.unmerge(session, ann, uuid.uuid4(), NOW)


@pytest.mark.parametrize(
    ("length", "good"),
    [(0, False), (1, True), (REASON_CHARACTERS_MAX, True), (REASON_CHARACTERS_MAX + 1, False)],
)
async def test_an_operator_says_why(database: Database, make_member: MakeMember, length: int, good: bool) -> None:
    new = NewMerge(uuid.uuid4(), await make_member(1), await make_member(2), Approval.OPERATOR, "x" * length)
    async with database.writing() as session:
        if good:
            assert (await merges.merge(session, new, NOW)).is_new
        else:
            with pytest.raises(MergeInvalid):
                await merges.merge(session, new, NOW)


async def test_twenty_members_become_one_and_a_twenty_first_does_not(
    desk: Desk, database: Database, make_member: MakeMember
) -> None:
    ann, *others = [await make_member(number) for number in range(MERGED_MAX + 1)]
    async with database.writing() as session:
        await session.exec(update(Member).where(col(Member.member_id).in_(others[:-2])).values(merged_into=ann))
    await desk.merge(ann, others[-2])
    with pytest.raises(MergeRefused):
        await desk.merge(ann, others[-1])


async def test_erasing_the_survivor_erases_both_and_the_books_balance(
    desk: Desk, database: Database, vault: Vault, make_member: MakeMember
) -> None:
    ann, old = await make_member(1), await make_member(2)
    await desk.earn(old, 30)
    made = await desk.merge(ann, old)
    async with database.writing() as session:
        await erasure.erase(session, ann, NOW)
    async with database.reading() as session:
        for one in (ann, old):
            with pytest.raises(MemberUnknown):
                await members.phone_of(session, vault, one)
        assert len((await session.exec(select(MemberMerge))).all()) == 1
        assert len((await session.exec(select(Card))).all()) == 0
    with pytest.raises(MemberUnknown):
        await desk.unmerge(made)
    await desk.require_sound_books()
    assert await make_member(2) not in {ann, old}
