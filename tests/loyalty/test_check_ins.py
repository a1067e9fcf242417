"""Check-ins: once a day in China, streaks that break, bonuses on their day."""

import asyncio
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.db import Database
from kit.vault import Vault
from loyalty import check_ins, programs
from loyalty.allowances import AllowanceUsedUp
from loyalty.budgets import BudgetUsedUp
from loyalty.check_ins import (
    BONUS_POINTS_MAX,
    POINTS_PER_DAY_MAX,
    STREAK_DAYS_MAX,
    CheckedIn,
    CheckInOutOfTurn,
    CheckInRules,
)
from loyalty.programs import CardNeeded, Program, ProgramInvalid, ProgramNotOpen, ProgramStatus, ProgramUnknown
from tests.loyalty.conftest import NOW, MakeMember
from tests.loyalty.earning import DAY, ON_SQLITE, assert_books_balance, issued, make_program, points_of

RULES = CheckInRules(points=5, bonuses={3: 20, 7: 100}, cycle_days=7)


async def check_in(
    database: Database,
    vault: Vault,
    program: Program,
    member_id: uuid.UUID,
    at: datetime = NOW,
    device: str | None = None,
) -> CheckedIn:
    async with database.writing() as session:
        return await check_ins.check_in(
            session, vault, member_id=member_id, program_id=program.program_id, device=device, now=at
        )


async def test_a_streak_grows_and_pays_its_bonuses(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program, member = await make_program(database, RULES), await make_member()
    came = [await check_in(database, vault, program, member, NOW + DAY * number) for number in range(10)]
    assert [done.streak for done in came] == list(range(1, 11))
    assert [done.points for done in came] == [5, 5, 25, 5, 5, 5, 105, 5, 5, 25]
    assert came[-1].balance == await points_of(database, member) == 190
    assert [done.next_bonus for done in came[:8]] == [
        (2, 20), (1, 20), (4, 100), (3, 100), (2, 100), (1, 100), (3, 20), (2, 20)
    ]  # fmt: skip
    await assert_books_balance(database)


async def test_a_day_that_was_missed_breaks_the_streak(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    program, member = await make_program(database, RULES), await make_member()
    days = [0, 1, 3, 4, 5]
    assert [(await check_in(database, vault, program, member, NOW + DAY * day)).streak for day in days] == [
        1,
        2,
        1,
        2,
        3,
    ]
    async with database.reading() as session:
        [standing] = await check_ins.standings(session, member, NOW + DAY * 6)
        [later] = await check_ins.standings(session, member, NOW + DAY * 7)
    assert (standing.streak, standing.longest, standing.days, standing.earns, standing.checked_in) == (
        3,
        3,
        5,
        5,
        False,
    )
    assert (later.streak, later.longest, later.earns) == (0, 3, 5)


async def test_the_second_time_on_a_day_changes_nothing(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    program, member = await make_program(database, RULES), await make_member()
    first = await check_in(database, vault, program, member)
    again = await check_in(database, vault, program, member, NOW + timedelta(hours=3))
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.streak, again.points, again.balance) == (1, 5, 5)


async def test_twenty_at_once_are_one(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program, member = await make_program(database, RULES), await make_member()
    came = await asyncio.gather(*(check_in(database, vault, program, member) for _ in range(20)))
    assert Counter(done.is_new for done in came) == {True: 1, False: 19}
    assert await points_of(database, member) == 5


@ON_SQLITE
async def test_a_day_is_one_of_the_calendar_in_china(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program, member = await make_program(database, RULES), await make_member()
    before_midnight = datetime(2026, 5, 2, 15, 59, 59, tzinfo=UTC)
    first = await check_in(database, vault, program, member, before_midnight)
    second = await check_in(database, vault, program, member, before_midnight + timedelta(seconds=1))
    assert (first.day, second.day, second.streak) == (date(2026, 5, 2), date(2026, 5, 3), 2)


@ON_SQLITE
async def test_a_clock_that_went_back_earns_nothing(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program, member = await make_program(database, RULES), await make_member()
    await check_in(database, vault, program, member, NOW + DAY)
    with pytest.raises(CheckInOutOfTurn):
        await check_in(database, vault, program, member, NOW)
    assert await points_of(database, member) == 5


async def test_a_budget_is_set_aside_and_ends(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program = await make_program(database, RULES, budget=12)
    assert await issued(database) == 12
    for number in range(2):
        await check_in(database, vault, program, await make_member(number))
    with pytest.raises(BudgetUsedUp):
        await check_in(database, vault, program, await make_member(2))
    async with database.reading() as session:
        assert await programs.budget_left(session, program, RULES) == {"points": 2}
        assert (await check_ins.standings(session, await make_member(2), NOW))[0].checked_in is False
    await assert_books_balance(database)


@ON_SQLITE
async def test_a_device_checks_in_so_many_members_a_day(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    program = await make_program(database, CheckInRules(5, {}, device_day=2))
    for number in range(2):
        await check_in(database, vault, program, await make_member(number), device="phone")
    with pytest.raises(AllowanceUsedUp):
        await check_in(database, vault, program, await make_member(2), device="phone")
    await check_in(database, vault, program, await make_member(2), device="another")
    await check_in(database, vault, program, await make_member(3), NOW + DAY, device="phone")


@ON_SQLITE
async def test_a_program_is_for_its_group_its_time_and_its_cards(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    program, member = await make_program(database, RULES, ends_at=NOW + DAY), await make_member()
    with pytest.raises(ProgramUnknown):
        await check_in(database, vault, program, await make_member(1, group_id=2))
    for at in (NOW - DAY * 2, NOW + DAY):
        with pytest.raises(ProgramNotOpen):
            await check_in(database, vault, program, member, at)
    async with database.writing() as session:
        await programs.set_status(session, program.program_id, ProgramStatus.PAUSED)
    with pytest.raises(ProgramNotOpen, match="paused"):
        await check_in(database, vault, program, member)
    with pytest.raises(CardNeeded):
        await check_in(database, vault, await make_program(database, RULES, cards_only=True), member)


@pytest.mark.parametrize(
    "changes",
    [
        {"points": 0},
        {"points": POINTS_PER_DAY_MAX + 1},
        {"bonuses": {1: 5}},
        {"bonuses": {8: 5}},
        {"bonuses": {3: 0}},
        {"bonuses": {3: BONUS_POINTS_MAX + 1}},
        {"bonuses": dict.fromkeys(range(2, 30), 1), "cycle_days": None},
        {"cycle_days": STREAK_DAYS_MAX + 1},
        {"device_day": 0},
    ],
    ids=str,
)
async def test_rules_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProgramInvalid):
        CheckInRules(**{**vars(RULES), **changes}).check()


def test_rules_at_their_bounds_are_allowed() -> None:
    CheckInRules(POINTS_PER_DAY_MAX, {2: BONUS_POINTS_MAX, STREAK_DAYS_MAX: 1}, None, 1).check()
    CheckInRules(1, {}, STREAK_DAYS_MAX).check()
    assert CheckInRules.read(RULES.document()) == RULES


@settings(deadline=None)
@given(streak=st.integers(1, 400), cycle=st.integers(1, 40) | st.none())
def test_a_streak_has_a_place_in_its_cycle(streak: int, cycle: int | None) -> None:
    rules = CheckInRules(1, {}, cycle)
    assert rules.place(streak) == (streak if cycle is None else (streak % cycle or cycle))
