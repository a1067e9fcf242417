"""Birthday gifts: one a year, on the day, by sweep or by sign-in."""

import asyncio
import uuid
from datetime import UTC, date, datetime

import pytest

from kit.db import Database
from kit.vault import Vault
from loyalty import birthdays, profiles
from loyalty.birthdays import BirthdayRules
from loyalty.prizes import Given, Prize, PrizeKind
from loyalty.profiles import Birthday
from loyalty.programs import Program, ProgramInvalid
from scan_api import earning as sweeping
from tests.loyalty.benefits.conftest import House, new_benefit
from tests.loyalty.conftest import NOW, MakeMember
from tests.loyalty.earning import DAY, NOTHING, ON_SQLITE, assert_books_balance, make_program, points_of

RULES = BirthdayRules(Prize(PrizeKind.POINTS, 66))


async def born(database: Database, vault: Vault, member_id: uuid.UUID, month: int, day: int) -> uuid.UUID:
    async with database.writing() as session:
        await profiles.set_birthday(session, vault, member_id, Birthday(month, day))
    return member_id


async def gift(database: Database, vault: Vault, program: Program, member_id: uuid.UUID) -> Given | None:
    async with database.writing() as session:
        return await birthdays.give(session, vault, program_id=program.program_id, member_id=member_id, now=NOW)


async def test_the_sweep_finds_those_of_today_and_gives_once_a_year(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    await make_program(database, RULES)
    today = await born(database, vault, await make_member(0), 5, 1)
    tomorrow = await born(database, vault, await make_member(1), 5, 2)
    await make_member(2)
    gifts = [(await sweeping.sweep(database, vault, NOW + DAY * days)).birthday_gifts for days in (0, 0, 1, 365)]
    assert gifts == [1, 0, 1, 1]
    assert (await points_of(database, today), await points_of(database, tomorrow)) == (132, 66)
    await assert_books_balance(database)


async def test_who_signs_in_on_the_day_need_not_wait(database: Database, vault: Vault, make_member: MakeMember) -> None:
    member = await born(database, vault, await make_member(), 5, 1)
    assert await sweeping.greet(database, vault, member, NOW) == 0
    await make_program(database, RULES)
    days = (NOW - DAY, NOW, NOW, NOW + DAY)
    assert [await sweeping.greet(database, vault, member, at) for at in days] == [0, 1, 0, 0]
    assert (await sweeping.sweep(database, vault, NOW)).birthday_gifts == 0
    assert await sweeping.greet(database, vault, await make_member(1), NOW) == 0


async def test_twenty_at_once_are_one_gift(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program, member = await make_program(database, RULES), await make_member()
    given = await asyncio.gather(*(gift(database, vault, program, member) for _ in range(20)))
    assert sum(one is not None for one in given) == 1


@ON_SQLITE
async def test_cards_only(database: Database, vault: Vault, make_member: MakeMember) -> None:
    await make_program(database, RULES, cards_only=True)
    member = await born(database, vault, await make_member(), 5, 1)
    assert (await sweeping.sweep(database, vault, NOW)).birthday_gifts == 0
    assert await sweeping.greet(database, vault, member, NOW) == 0


async def test_a_gift_that_cannot_be_given_keeps_no_other_back(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    house = House(database, vault)
    none_left, limited = await new_benefit(database, 0), await new_benefit(database, limit_total=1)
    for benefit_id in (none_left.benefit_id, limited.benefit_id, uuid.uuid4()):
        await make_program(database, BirthdayRules(Prize(PrizeKind.BENEFIT, 1, benefit_id)))
    await make_program(database, RULES)
    born_today = sorted([await born(database, vault, await make_member(number), 5, 1) for number in range(3)])
    at_his_limit, _other, comes_himself = born_today
    await house.grant(at_his_limit, limited)
    assert await sweeping.greet(database, vault, comes_himself, NOW) == 2
    swept = await sweeping.sweep(database, vault, NOW)
    assert (swept.birthday_gifts, swept.budgets_used_up) == (3, 1)
    assert [len(await house.held(member)) for member in born_today] == [1, 1, 1]
    assert [await points_of(database, member) for member in born_today] == [66, 66, 66]


@ON_SQLITE
async def test_a_used_up_budget_is_told_of(database: Database, vault: Vault, make_member: MakeMember) -> None:
    await make_program(database, RULES, budget=1)
    for number in range(2):
        await born(database, vault, await make_member(number), 5, 1)
    swept = await sweeping.sweep(database, vault, NOW)
    assert (swept.birthday_gifts, swept.budgets_used_up) == (1, 1)


@pytest.mark.parametrize(
    ("day", "found"),
    [
        (date(2026, 2, 28), [Birthday(2, 28), Birthday(2, 29)]),
        (date(2028, 2, 28), [Birthday(2, 28)]),
        (date(2028, 2, 29), [Birthday(2, 29)]),
        (date(2100, 2, 28), [Birthday(2, 28), Birthday(2, 29)]),
        (date(2000, 2, 28), [Birthday(2, 28)]),
        (date(2026, 3, 1), [Birthday(3, 1)]),
    ],
    ids=str,
)
def test_the_29_of_february_is_kept_on_the_28_when_there_is_none(day: date, found: list[Birthday]) -> None:
    assert birthdays.celebrated_on(day) == found


@ON_SQLITE
async def test_the_day_is_that_of_china(database: Database, vault: Vault, make_member: MakeMember) -> None:
    member = await born(database, vault, await make_member(), 6, 1)
    await make_program(database, RULES)
    last = datetime(2026, 5, 31, 15, 59, 59, tzinfo=UTC)
    assert [await sweeping.greet(database, vault, member, at) for at in (last, last.replace(hour=16))] == [0, 1]


def test_rules() -> None:
    RULES.check()
    assert BirthdayRules.read(RULES.document()) == RULES
    with pytest.raises(ProgramInvalid):
        BirthdayRules(NOTHING).check()
