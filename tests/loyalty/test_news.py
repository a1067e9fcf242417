"""After a claim or a purchase: endpoints hear of it and tasks are paid, once, however often the worker dies."""

import asyncio
import uuid
from datetime import datetime, timedelta

import pytest
from sqlmodel import col, select

from kit import outbox
from kit.db import Database
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty import members, news, tasks, webhooks
from loyalty.ledger import PointsLot
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import Program
from loyalty.tasks import Period, TaskCompletion, TaskEvent, TaskRules
from loyalty.webhooks import WebhookKind
from tests.loyalty.benefits.conftest import House, new_benefit
from tests.loyalty.conftest import BRAND, NOW, MakeCampaign, MakeClaim, MakeMember
from tests.loyalty.earning import DAY, ON_SQLITE, assert_books_balance, join, make_program, points_of
from tests.loyalty.test_merges import Desk
from tests.loyalty.tier_world import World

FIRST_SCAN = TaskRules(TaskEvent.FIRST_SCAN, Period.ONCE, Prize(PrizeKind.POINTS, 50))


async def waiting(database: Database, topic: str) -> list[OutboxMessage]:
    async with database.reading() as session:
        found = select(OutboxMessage).where(col(OutboxMessage.topic).startswith(topic))
        return list(await session.exec(found.where(col(OutboxMessage.done_at).is_(None))))


async def add_endpoint(database: Database, vault: Vault, kind: WebhookKind) -> None:
    async with database.writing() as session:
        await webhooks.add(session, vault, BRAND, "star", "https://crm.example/", (kind,), NOW)


async def test_a_claim_leaves_no_message_where_nobody_cares(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    await make_claim(await make_campaign(), await make_member())
    assert await waiting(database, news.CLAIMED) == []


async def test_the_first_scan_pays_its_task_and_later_ones_do_not(
    database: Database, vault: Vault, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    await make_program(database, FIRST_SCAN)
    campaign, member = await make_campaign(), await make_member()
    for item in range(3):
        await make_claim(campaign, member, item)
    assert await news.work_once(database, vault, lambda: NOW) == 3
    assert await points_of(database, member) == 3 * 100 + 50
    assert await news.work_once(database, vault, lambda: NOW) == 0


async def test_an_endpoint_hears_who_claimed_what(
    database: Database, vault: Vault, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    await add_endpoint(database, vault, WebhookKind.CLAIM_MADE)
    campaign, member = await make_campaign(), await make_member()
    claimed = await make_claim(campaign, member)
    await news.work_once(database, vault, lambda: NOW)
    [message] = await waiting(database, "webhook/")
    assert f'"subject_id":"{claimed["claim_id"]}"' in message.payload["body"]
    assert f'"member_id":"{member}"' in message.payload["body"]
    assert '"prize":{"kind":"points","amount":100,"benefit_id":null}' in message.payload["body"]


async def test_a_worker_that_died_with_the_message_does_no_harm(
    database: Database, vault: Vault, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    await make_program(database, FIRST_SCAN)
    member = await make_member()
    await make_claim(await make_campaign(), member)
    async with database.writing() as session:
        assert len(await outbox.lease(session, news.CLAIMED, NOW, 10, news.LEASE)) == 1
    assert await news.work_once(database, vault, lambda: NOW) == 0
    assert await news.work_once(database, vault, lambda: NOW + news.LEASE) == 1
    assert await points_of(database, member) == 150


async def test_a_message_that_cannot_be_told_waits_and_holds_up_no_other(
    database: Database,
    vault: Vault,
    make_member: MakeMember,
    make_campaign: MakeCampaign,
    make_claim: MakeClaim,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await make_program(database, FIRST_SCAN)
    async with database.writing() as session:
        outbox.put(session, news.CLAIMED, 1, {"member_id": str(uuid.uuid4())}, NOW - timedelta(seconds=1))
    member = await make_member()
    await make_claim(await make_campaign(), member)
    assert await news.work_once(database, vault, lambda: NOW) == 2
    assert await points_of(database, member) == 150
    [left] = await waiting(database, news.CLAIMED)
    assert (left.last_error, left.due_at) == ("KeyError", NOW + news.TRIED_AGAIN_AFTER)


async def leave(database: Database, member: uuid.UUID, at: datetime) -> None:
    """A purchase of the member at a moment, for those who pay tasks."""
    async with database.writing() as session:
        await news.leave(
            session, member_id=member, brand_id=BRAND, event=TaskEvent.BUY, subject_id=at.isoformat(), now=at
        )


async def paid_for(database: Database, member: uuid.UUID, event: TaskEvent) -> int:
    """How many tasks of this event were paid to a member."""
    async with database.reading() as session:
        done = (await session.exec(select(TaskCompletion).where(TaskCompletion.member_id == member))).all()
        made = [await session.get_one(Program, one.program_id) for one in done]
    return sum(program.event == event for program in made)


async def test_a_new_card_of_a_claim_is_a_joining_and_an_old_one_is_not(
    database: Database, vault: Vault, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    await make_program(database, TaskRules(TaskEvent.JOIN, Period.ONCE, Prize(PrizeKind.POINTS, 30)))
    await add_endpoint(database, vault, WebhookKind.MEMBER_JOINED)
    campaign, newcomer, known = await make_campaign(), await make_member(), await make_member(1)
    async with database.writing() as session:
        await members.join_brand(session, known, BRAND, NOW - timedelta(days=1))
    for item, member in enumerate((newcomer, known)):
        await make_claim(campaign, member, item)
    assert await news.work_once(database, vault, lambda: NOW) == 2
    assert (await points_of(database, newcomer), await points_of(database, known)) == (130, 100)
    told = [message.payload["body"] for message in await waiting(database, "webhook/")]
    assert [str(newcomer) in body and "member.joined" in body for body in told].count(True) == 1


async def test_a_purchase_pays_for_buying_each_time_and_for_joining_once(database: Database, vault: Vault) -> None:
    await make_program(database, TaskRules(TaskEvent.BUY, Period.DAILY, Prize(PrizeKind.POINTS, 7)))
    await make_program(database, TaskRules(TaskEvent.JOIN, Period.ONCE, Prize(PrizeKind.POINTS, 30)))
    world = World(database, vault)
    first = await world.buy(10_000)
    member = first.purchase.member_id
    assert first.balance == 0  # what tasks bring comes a moment later
    tomorrow = NOW + timedelta(days=1)
    await world.buy(10_000)
    await world.buy(10_000, tomorrow)
    again = world.purchase(10_000)
    await world.record(again, tomorrow)
    await world.record(again, tomorrow)
    await news.work_once(database, vault, lambda: NOW)
    assert (await paid_for(database, member, TaskEvent.BUY), await points_of(database, member)) == (1, 37)
    await news.work_once(database, vault, lambda: tomorrow)
    assert (await paid_for(database, member, TaskEvent.BUY), await points_of(database, member)) == (2, 44)
    assert await waiting(database, news.DONE) == []
    await assert_books_balance(database)


@ON_SQLITE
async def test_a_task_is_done_on_the_day_of_its_event_and_paid_when_the_worker_comes(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    await make_program(database, TaskRules(TaskEvent.BUY, Period.DAILY, Prize(PrizeKind.POINTS, 50)))
    member, midnight = await make_member(), NOW.replace(hour=16)  # in China
    for at in (midnight - timedelta(seconds=1), midnight):
        await leave(database, member, at)
    later = midnight + timedelta(hours=2)
    assert await news.work_once(database, vault, lambda: later) == 2
    assert await points_of(database, member) == 100
    async with database.reading() as session:
        assert set(await session.exec(select(PointsLot.earned_at))) == {later}


async def test_a_merged_member_is_paid_as_whom_he_was_merged_into_and_once(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    benefit = await new_benefit(database)
    daily = TaskRules(TaskEvent.BUY, Period.DAILY, Prize(PrizeKind.BENEFIT, 1, benefit.benefit_id))
    await make_program(database, daily)
    ann, old = await make_member(0), await make_member(1)
    await leave(database, old, NOW)
    done = await tasks.happened(  # by a worker that dies before it can say so
        database, vault, member_id=old, brand_id=BRAND, event=TaskEvent.BUY, subject_id=NOW.isoformat(), at=NOW, now=NOW
    )
    assert len(done) == 1
    await Desk(database, vault).merge(ann, old)
    await leave(database, old, NOW + DAY)
    assert await news.work_once(database, vault, lambda: NOW + DAY) == 2
    assert len(await House(database, vault).held(ann)) == 2
    assert await paid_for(database, ann, TaskEvent.BUY) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_workers_who_pay_several_tasks_do_not_wait_for_each_other(
    database: Database, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "BATCH_MESSAGES", 4)
    for budget in (100, None, None):
        await make_program(database, TaskRules(TaskEvent.BUY, Period.ONCE, Prize(PrizeKind.POINTS, 5)), budget=budget)
    buyers = [await join(database, vault, number, NOW - DAY) for number in range(12)]
    for member in buyers:
        await leave(database, member, NOW)
    await asyncio.gather(*(news.work_once(database, vault, lambda: NOW) for _ in range(3)))
    assert await waiting(database, news.DONE) == []
    assert {await points_of(database, member) for member in buyers} == {15}


async def test_a_purchase_leaves_no_message_where_no_task_waits(database: Database, vault: Vault) -> None:
    await World(database, vault).buy(10_000)
    assert await waiting(database, news.DONE) == []


async def test_a_task_told_of_twice_is_paid_once(database: Database, vault: Vault, make_member: MakeMember) -> None:
    await make_program(database, TaskRules(TaskEvent.PROFILE, Period.ONCE, Prize(PrizeKind.POINTS, 9)))
    member = await make_member()
    for _ in range(2):
        async with database.writing() as session:
            await members.join_brand(session, member, BRAND, NOW)
            await news.leave(
                session, member_id=member, brand_id=BRAND, event=TaskEvent.PROFILE, subject_id=str(member), now=NOW
            )
    assert await news.work_once(database, vault, lambda: NOW) == 2
    assert await points_of(database, member) == 9
