"""Programs: what cannot be one is refused, budgets are set aside in whole grants, counts are forgotten in time."""

import uuid
from datetime import timedelta
from typing import Any

import pytest

from kit.db import Database
from kit.errors import FanxingError
from kit.vault import Vault
from loyalty import allowances, programs
from loyalty.allowances import IN_ALL, AllowanceUsedUp
from loyalty.check_ins import CheckInRules
from loyalty.prizes import Prize, PrizeInvalid, PrizeKind
from loyalty.programs import BUDGET_MAX, DURATION_MAX, NewProgram, ProgramInvalid, ProgramKind, ProgramUnknown
from loyalty.tasks import Period, TaskEvent, TaskRules
from scan_api import earning as sweeping
from tests.loyalty.conftest import NOW, MakeMember
from tests.loyalty.earning import DAY, ON_SQLITE, make_program

RULES = CheckInRules(5, {})
BENEFIT = TaskRules(TaskEvent.JOIN, Period.ONCE, Prize(PrizeKind.BENEFIT, 1, uuid.UUID(int=9)))


@pytest.mark.parametrize(
    "changes",
    [
        {"title_zh": ""},
        {"title_en": "x" * 81},
        {"ends_at": NOW - DAY * 2},
        {"ends_at": NOW},
        {"ends_at": NOW - DAY + DURATION_MAX + timedelta(seconds=1)},
        {"budget": 0},
        {"budget": BUDGET_MAX + 1},
        {"rules": BENEFIT, "budget": 5},
        {"rules": TaskRules(TaskEvent.JOIN, Period.ONCE, Prize(PrizeKind.POINTS, 1_000_000)), "budget": 1_000_001},
    ],
    ids=["no title", "long title", "ends first", "over", "too long", "no budget", "budget", "benefit", "sum"],
)
def test_what_is_no_program_is_refused(changes: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"title_zh": "活动", "title_en": "Program", "rules": RULES, "starts_at": NOW - DAY}
    with pytest.raises(ProgramInvalid):
        programs.check(NewProgram(brand_id=1, group_id=1, **(plain | changes)), NOW)


@ON_SQLITE
async def test_limits_themselves_are_allowed(database: Database) -> None:
    await make_program(database, RULES, title_en="x" * 80, ends_at=NOW - DAY + DURATION_MAX, budget=BUDGET_MAX)
    await make_program(database, RULES, budget=1, title_zh="一")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "points"},
        {"kind": "gold", "amount": 1},
        {"kind": "points", "amount": 0},
        {"kind": "benefit", "amount": 1},
    ],
    ids=str,
)
def test_what_is_no_prize_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(PrizeInvalid):
        programs.read_prize(document)


@pytest.mark.parametrize(
    "document", [{}, {"points": "5", "bonuses": {}}, {"points": 5, "bonuses": []}, {"points": 5, "else": 1}], ids=str
)
def test_what_are_no_rules_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(FanxingError):
        programs.read_rules(CheckInRules.read, document)


async def test_an_unknown_program(database: Database, make_member: MakeMember) -> None:
    made, member = await make_program(database, RULES), await make_member()
    async with database.writing() as session:
        with pytest.raises(ProgramUnknown):
            await programs.get(session, member)
        with pytest.raises(ProgramUnknown):
            await programs.open_for(session, made.program_id, member, ProgramKind.TASK, NOW)
        with pytest.raises(ProgramUnknown):
            await programs.set_status(session, member, programs.ProgramStatus.PAUSED)


async def test_allowances(database: Database, vault: Vault, make_member: MakeMember) -> None:
    member, subject = await make_member(), await make_member(1)
    today = allowances.day_of(NOW).isoformat()

    async def take(period: str, limit: int | None) -> int:
        async with database.writing() as session:
            return await allowances.take(session, member, subject, period, limit)

    assert [await take(today, 3) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(AllowanceUsedUp, match="a day"):
        await take(today, 3)
    assert [await take(IN_ALL, None) for _ in range(2)] == [1, 2]
    with pytest.raises(AllowanceUsedUp, match="in all"):
        await take(IN_ALL, 2)
    kept = timedelta(days=allowances.DAYS_KEPT)
    assert [(await sweeping.sweep(database, vault, NOW + age)).counts_forgotten for age in (kept, kept + DAY)] == [0, 1]
    assert await take(IN_ALL, 3) == 3
