"""Tasks: each is paid once a period, and once for each thing that was done."""

import asyncio
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select

from kit.db import Database
from kit.vault import Vault
from loyalty import programs, tasks
from loyalty.benefits import BenefitStatus
from loyalty.benefits import catalogue as benefit_catalogue
from loyalty.budgets import BudgetUsedUp
from loyalty.draws import catalogue, plays
from loyalty.draws.terms import Price
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import CardNeeded, Program, ProgramInvalid, ProgramStatus
from loyalty.tasks import SUBJECT_CHARACTERS_MAX, Completed, Period, TaskEvent, TaskRules
from tests.loyalty.benefits.conftest import House, new_benefit
from tests.loyalty.conftest import BRAND, GROUP, NOW, MakeMember
from tests.loyalty.draws.test_plays import terms
from tests.loyalty.earning import DAY, NOTHING, ON_SQLITE, POINTS_5, assert_books_balance, make_program, points_of

ONCE = TaskRules(TaskEvent.PROFILE, Period.ONCE, POINTS_5)
FIRST_SCAN = TaskRules(TaskEvent.FIRST_SCAN, Period.ONCE, Prize(PrizeKind.POINTS, 50))
DAILY = TaskRules(TaskEvent.BUY, Period.DAILY, POINTS_5)
WEEKLY = TaskRules(TaskEvent.VISIT, Period.WEEKLY, POINTS_5)


async def complete(
    database: Database, vault: Vault, program: Program, member_id: uuid.UUID, subject: str = "it", at: datetime = NOW
) -> Completed:
    async with database.writing() as session:
        return await tasks.complete(
            session, vault, program_id=program.program_id, member_id=member_id, subject_id=subject, now=at
        )


async def happened(
    database: Database, vault: Vault, member_id: uuid.UUID, event: TaskEvent, at: datetime = NOW
) -> list[Completed]:
    return await tasks.happened(
        database, vault, member_id=member_id, brand_id=BRAND, event=event, subject_id="it", at=at, now=NOW
    )


async def test_a_task_is_paid_once(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program, member = await make_program(database, ONCE), await make_member()
    done = [await complete(database, vault, program, member, subject) for subject in ("a", "a", "b")]
    assert [one.is_new for one in done] == [True, False, False]
    assert await points_of(database, member) == 5


async def test_twenty_at_once_are_paid_once(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program, member = await make_program(database, ONCE), await make_member()
    done = await asyncio.gather(*(complete(database, vault, program, member, f"s{number}") for number in range(20)))
    assert Counter(one.is_new for one in done) == {True: 1, False: 19}
    assert await points_of(database, member) == 5
    await assert_books_balance(database)


async def test_a_daily_task_is_paid_each_day_and_each_purchase_once(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    program, member = await make_program(database, DAILY), await make_member()
    told = [("a", NOW), ("b", NOW), ("a", NOW + DAY), ("b", NOW + DAY), ("c", NOW + DAY)]
    assert [(await complete(database, vault, program, member, *one)).is_new for one in told] == [
        True, False, False, True, False
    ]  # fmt: skip


@ON_SQLITE
async def test_a_week_begins_on_monday_in_china(database: Database, vault: Vault, make_member: MakeMember) -> None:
    program, member = await make_program(database, WEEKLY), await make_member()
    monday = datetime(2026, 5, 3, 16, 0, tzinfo=UTC)  # midnight of 4 May in China
    told = [("a", monday - timedelta(seconds=1)), ("b", monday), ("c", monday + timedelta(days=7, seconds=-1))]
    assert [(await complete(database, vault, program, member, *one)).is_new for one in told] == [True, True, False]


async def test_an_event_pays_every_task_of_its_kind_and_brand(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    member = await make_member()
    for changes in ({}, {}, {"brand_id": BRAND + 1}, {"starts_at": NOW + DAY}):
        await make_program(database, FIRST_SCAN, **changes)
    await make_program(database, ONCE)
    assert [one.is_new for one in await happened(database, vault, member, TaskEvent.FIRST_SCAN)] == [True, True]
    assert await happened(database, vault, member, TaskEvent.FIRST_SCAN) == []
    assert await points_of(database, member) == 100
    assert await happened(database, vault, member, TaskEvent.VISIT) == []


async def test_an_event_goes_on_where_a_task_cannot_be_paid(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    first, second = await make_member(0), await make_member(1)
    await make_program(database, FIRST_SCAN, budget=1)
    await make_program(database, FIRST_SCAN)
    await make_program(database, FIRST_SCAN, cards_only=True)
    assert len(await happened(database, vault, first, TaskEvent.FIRST_SCAN)) == 2
    assert len(await happened(database, vault, second, TaskEvent.FIRST_SCAN)) == 1
    assert (await points_of(database, first), await points_of(database, second)) == (100, 50)
    await assert_books_balance(database)


async def test_an_event_goes_on_where_a_benefit_cannot_be_given(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    house, member = House(database, vault), await make_member()
    none_left, paused = await new_benefit(database, 0), await new_benefit(database)
    limited = await new_benefit(database, limit_total=1)
    await house.grant(member, limited)
    async with database.writing() as session:
        await benefit_catalogue.set_status(session, paused.benefit_id, BenefitStatus.PAUSED)
    for benefit_id in (none_left.benefit_id, paused.benefit_id, limited.benefit_id, uuid.uuid4()):
        rules = TaskRules(TaskEvent.FIRST_SCAN, Period.ONCE, Prize(PrizeKind.BENEFIT, 1, benefit_id))
        await make_program(database, rules)
    await make_program(database, FIRST_SCAN)
    assert len(await happened(database, vault, member, TaskEvent.FIRST_SCAN)) == 1
    assert (await points_of(database, member), len(await house.held(member))) == (50, 1)


@ON_SQLITE
async def test_the_moment_of_an_event_decides_whether_its_program_ran(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    await make_program(database, FIRST_SCAN, starts_at=NOW - 2 * DAY, ends_at=NOW + DAY)
    for number, (at, paid) in enumerate([(NOW - 3 * DAY, 0), (NOW - DAY, 1), (NOW + DAY, 0)]):
        assert len(await happened(database, vault, await make_member(number), TaskEvent.FIRST_SCAN, at)) == paid


async def test_whether_a_brand_has_a_task_can_be_asked_in_another_statement(database: Database) -> None:
    async def asked(event: TaskEvent, brand_id: int = BRAND) -> bool:
        async with database.reading() as session:
            return bool((await session.exec(select(tasks.offered(brand_id, event)))).one())

    program = await make_program(database, FIRST_SCAN)
    assert await asked(TaskEvent.FIRST_SCAN)
    assert not await asked(TaskEvent.BUY)
    assert not await asked(TaskEvent.FIRST_SCAN, BRAND + 1)
    async with database.writing() as session:
        await programs.set_status(session, program.program_id, ProgramStatus.PAUSED)
    assert not await asked(TaskEvent.FIRST_SCAN)


async def test_a_task_gives_chances_to_play_a_draw(database: Database, vault: Vault, make_member: MakeMember) -> None:
    async with database.writing() as session:
        make = terms(price=Price.CHANCES, price_amount=1)
        draw = await catalogue.publish(session, vault, brand_id=BRAND, group_id=GROUP, make_terms=make, now=NOW)
    rules = TaskRules(TaskEvent.OTHER, Period.DAILY, NOTHING, chances=2, chance_draw_id=draw.draw_id)
    program, member = await make_program(database, rules), await make_member()
    for at in (NOW, NOW, NOW + DAY):
        await complete(database, vault, program, member, at.isoformat(), at)
    async with database.reading() as session:
        assert await plays.chances_of(session, member, draw.draw_id) == 4


@ON_SQLITE
async def test_a_members_tasks_say_what_is_done(database: Database, vault: Vault, make_member: MakeMember) -> None:
    daily, _ = await make_program(database, DAILY), await make_program(database, ONCE)
    await make_program(database, ONCE, cards_only=True)
    member = await make_member()
    await complete(database, vault, daily, member)
    async with database.reading() as session:
        today = await tasks.of_member(session, member, NOW)
        tomorrow = await tasks.of_member(session, member, NOW + DAY)
    assert [(one.rules, one.done_at) for one in today] == [(DAILY, NOW), (ONCE, None)]
    assert [one.done_at for one in tomorrow] == [None, None]


@ON_SQLITE
async def test_refusals(database: Database, vault: Vault, make_member: MakeMember) -> None:
    member = await make_member()
    program = await make_program(database, DAILY, budget=1)
    await complete(database, vault, program, member)
    with pytest.raises(BudgetUsedUp):
        await complete(database, vault, program, member, "b", NOW + DAY)
    with pytest.raises(CardNeeded):
        await complete(database, vault, await make_program(database, ONCE, cards_only=True), member)
    for subject in ("", "x" * (SUBJECT_CHARACTERS_MAX + 1)):
        with pytest.raises(ProgramInvalid, match="subject"):
            await complete(database, vault, await make_program(database, ONCE), member, subject)


@pytest.mark.parametrize(
    "changes",
    [
        {"prize": NOTHING},
        {"chances": 1},
        {"chance_draw_id": uuid.UUID(int=1)},
        {"chances": plays.CHANCES_PER_GRANT_MAX + 1, "chance_draw_id": uuid.UUID(int=1)},
        {"device_day": 0},
    ],
    ids=str,
)
def test_rules_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProgramInvalid):
        TaskRules(**{**vars(ONCE), **changes}).check()


@pytest.mark.parametrize("rules", [ONCE, DAILY, WEEKLY], ids=["once", "daily", "weekly"])
def test_rules_survive_their_json(rules: TaskRules) -> None:
    rules.check()
    assert TaskRules.read(rules.document()) == rules
