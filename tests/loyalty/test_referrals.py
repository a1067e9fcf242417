"""Referrals: both are paid, once; nobody refers himself, in a ring, or somebody who was there before."""

import asyncio
import uuid
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col, select

from kit.db import Database
from kit.vault import Vault
from loyalty import programs, referrals
from loyalty.allowances import AllowanceUsedUp
from loyalty.budgets import BudgetUsedUp
from loyalty.ledger import Entry, Purpose
from loyalty.members import Member
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import Program, ProgramInvalid
from loyalty.referrals import (
    CODE_CHARACTERS,
    WINDOW_HOURS_MAX,
    Joined,
    ReferralRefused,
    ReferralRules,
    ReferralUnknown,
)
from tests.loyalty.conftest import NOW
from tests.loyalty.earning import DAY, NOTHING, ON_SQLITE, assert_books_balance, issued, join, make_program, points_of

RULES = ReferralRules(Prize(PrizeKind.POINTS, 30), Prize(PrizeKind.POINTS, 10), window_hours=24)
SOON = NOW + timedelta(minutes=5)
HOUR = timedelta(hours=1)


async def share(
    database: Database, vault: Vault, program: Program, member_id: uuid.UUID, at: datetime = NOW, device: str = "mine"
) -> str:
    async with database.writing() as session:
        shared = await referrals.link_of(
            session, vault, member_id=member_id, program_id=program.program_id, device=device, now=at
        )
    return shared.code


async def come(
    database: Database, vault: Vault, code: str, friend_id: uuid.UUID, at: datetime = SOON, device: str | None = None
) -> Joined:
    async with database.writing() as session:
        return await referrals.join(session, vault, code=code, friend_id=friend_id, device=device, now=at)


async def test_both_are_given_their_prizes_once(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    code, ben = await share(database, vault, program, ann), await join(database, vault, 1, SOON)
    assert [(await come(database, vault, code, ben)).is_new for _ in range(3)] == [True, False, False]
    assert (await points_of(database, ann), await points_of(database, ben)) == (30, 10)
    async with database.writing() as session:
        shared = await referrals.link_of(
            session, vault, member_id=ann, program_id=program.program_id, device=None, now=SOON
        )
    assert (shared.code, shared.friends) == (code, 1)
    async with database.reading() as session:
        paid_from = select(Entry.holder_id).where(Entry.purpose == Purpose.ISSUANCE)
        # One account for both prizes: who held one and waited for another would be waited for.
        assert len(set(await session.exec(paid_from))) == 1
    await assert_books_balance(database)


async def test_twenty_at_once_are_one(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    code, ben = await share(database, vault, program, ann), await join(database, vault, 1, SOON)
    results = await asyncio.gather(*(come(database, vault, code, ben) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Joined) and result.is_new for result in results) == 1
    assert {type(result).__name__ for result in results} <= {"Joined", "ReferralRefused"}
    assert (await points_of(database, ann), await points_of(database, ben)) == (30, 10)


@ON_SQLITE
async def test_a_code_tells_nothing_of_its_member(database: Database, vault: Vault) -> None:
    one, other = await make_program(database, RULES), await make_program(database, RULES)
    ann = await join(database, vault, 0, NOW - DAY)
    codes = [await share(database, vault, program, ann) for program in (one, other)]
    assert codes[0] != codes[1]
    assert all(len(code) == CODE_CHARACTERS and ann.hex not in code for code in codes)


@ON_SQLITE
async def test_nobody_refers_himself(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    with pytest.raises(ReferralRefused, match="own link"):
        await come(database, vault, await share(database, vault, program, ann), ann)


@pytest.mark.parametrize("into_friend", [False, True])
@ON_SQLITE
async def test_a_merged_member_is_the_same_person(database: Database, vault: Vault, into_friend: bool) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    code, ben = await share(database, vault, program, ann), await join(database, vault, 1, SOON)
    merged, survivor = (ann, ben) if into_friend else (ben, ann)
    async with database.writing() as session:
        await session.exec(update(Member).where(col(Member.member_id) == merged).values(merged_into=survivor))
    with pytest.raises(ReferralRefused, match="own link"):
        await come(database, vault, code, ben)


@ON_SQLITE
async def test_who_was_there_before_the_link_is_no_new_friend(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    code = await share(database, vault, program, ann)
    for number, at in enumerate((NOW - HOUR, NOW)):
        with pytest.raises(ReferralRefused, match="before"):
            await come(database, vault, code, await join(database, vault, 1 + number, at))


@ON_SQLITE
async def test_a_ring_cannot_be_closed(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    ben = await join(database, vault, 1, SOON)
    await come(database, vault, await share(database, vault, program, ann), ben)
    with pytest.raises(ReferralRefused):
        await come(database, vault, await share(database, vault, program, ben, SOON), ann, SOON + HOUR)


async def test_two_who_refer_each_other_at_once_are_one_referral_at_most(database: Database, vault: Vault) -> None:
    program = await make_program(database, RULES)
    ann, ben = await join(database, vault, 0, NOW), await join(database, vault, 1, NOW + HOUR)
    code_of_ann = await share(database, vault, program, ann, NOW + timedelta(minutes=1))
    code_of_ben = await share(database, vault, program, ben, NOW + HOUR * 2)
    later = NOW + HOUR * 3
    results = await asyncio.gather(
        come(database, vault, code_of_ann, ben, later),
        come(database, vault, code_of_ben, ann, later),
        return_exceptions=True,
    )
    assert Counter(type(result).__name__ for result in results) == {"Joined": 1, "ReferralRefused": 1}


@pytest.mark.parametrize(("hours", "fits"), [(23, True), (24, True), (25, False)])
@ON_SQLITE
async def test_a_friend_is_new_for_a_while(database: Database, vault: Vault, hours: int, fits: bool) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    code, ben = await share(database, vault, program, ann), await join(database, vault, 1, SOON)
    if fits:
        assert (await come(database, vault, code, ben, SOON + HOUR * hours)).is_new
    else:
        with pytest.raises(ReferralRefused, match="new"):
            await come(database, vault, code, ben, SOON + HOUR * hours)


@ON_SQLITE
async def test_a_friend_comes_by_one_link(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    cid, ben = await join(database, vault, 2, NOW - DAY), await join(database, vault, 1, SOON)
    await come(database, vault, await share(database, vault, program, ann), ben)
    with pytest.raises(ReferralRefused, match="another friend"):
        await come(database, vault, await share(database, vault, program, cid), ben)


@ON_SQLITE
async def test_the_device_that_made_the_link_brings_nobody(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    code, ben = await share(database, vault, program, ann, device="id x"), await join(database, vault, 1, SOON)
    with pytest.raises(ReferralRefused, match="device"):
        await come(database, vault, code, ben, device="id x")
    assert (await come(database, vault, code, ben, device="id y")).is_new


@pytest.mark.parametrize("limit", ["member_day", "member_all", "device_day"])
async def test_limit(database: Database, vault: Vault, limit: str) -> None:
    rules = ReferralRules(RULES.referrer, RULES.friend, 48, **{limit: 2})
    program, ann = await make_program(database, rules), await join(database, vault, 0, NOW - DAY)
    code = await share(database, vault, program, ann)
    friends = [await join(database, vault, 1 + number, SOON) for number in range(3)]
    for friend in friends[:2]:
        await come(database, vault, code, friend, device="id shop")
    with pytest.raises(AllowanceUsedUp):
        await come(database, vault, code, friends[2], device="id shop")
    if limit != "member_all":
        assert (await come(database, vault, code, friends[2], SOON + DAY, device="id shop")).is_new


@ON_SQLITE
async def test_an_unknown_code_and_one_of_another_group(database: Database, vault: Vault) -> None:
    program, ann = await make_program(database, RULES), await join(database, vault, 0, NOW - DAY)
    code = await share(database, vault, program, ann)
    with pytest.raises(ReferralUnknown):
        await come(database, vault, "0" * CODE_CHARACTERS, ann)
    with pytest.raises(programs.ProgramUnknown):
        await come(database, vault, code, await join(database, vault, 1, SOON, group_id=2))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_budget_of_pairs_gives_pairs_to_the_end(database: Database, vault: Vault) -> None:
    program = await make_program(database, RULES, budget=10)
    assert await issued(database) == 400
    sharers = [await join(database, vault, number, NOW - DAY) for number in range(3)]
    codes = [await share(database, vault, program, sharer) for sharer in sharers]
    friends = [await join(database, vault, 10 + number, SOON) for number in range(16)]
    results = await asyncio.gather(
        *(come(database, vault, codes[number % 3], friend) for number, friend in enumerate(friends)),
        return_exceptions=True,
    )
    assert Counter(type(result).__name__ for result in results) == {"Joined": 10, "BudgetUsedUp": 6}
    assert all(isinstance(result, Joined | BudgetUsedUp) for result in results)
    assert sum([await points_of(database, member) for member in sharers]) == 300
    await assert_books_balance(database)


@pytest.mark.parametrize(
    "changes",
    [
        {"referrer": NOTHING, "friend": NOTHING},
        {"window_hours": 0},
        {"window_hours": WINDOW_HOURS_MAX + 1},
        {"member_day": 0},
    ],
    ids=["nothing", "no window", "long window", "limit"],
)
def test_rules_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProgramInvalid):
        ReferralRules(**{**vars(RULES), **changes}).check()


def test_rules_survive_their_json() -> None:
    RULES.check()
    assert ReferralRules.read(RULES.document()) == RULES
