"""After a claim: the brand's endpoints hear of it and tasks are paid, once, however often the worker dies."""

import uuid
from datetime import timedelta

import pytest
from sqlmodel import col, select

from kit import outbox
from kit.db import Database
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty import claim_news, webhooks
from loyalty.prizes import Prize, PrizeKind
from loyalty.tasks import Period, TaskEvent, TaskRules
from loyalty.webhooks import WebhookKind
from tests.loyalty.conftest import BRAND, NOW, MakeCampaign, MakeClaim, MakeMember
from tests.loyalty.earning import make_program, points_of

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
    assert await waiting(database, claim_news.TOPIC) == []


async def test_the_first_scan_pays_its_task_and_later_ones_do_not(
    database: Database, vault: Vault, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    await make_program(database, FIRST_SCAN)
    campaign, member = await make_campaign(), await make_member()
    for item in range(3):
        await make_claim(campaign, member, item)
    assert await claim_news.work_once(database, vault, lambda: NOW) == 3
    assert await points_of(database, member) == 3 * 100 + 50
    assert await claim_news.work_once(database, vault, lambda: NOW) == 0


async def test_an_endpoint_hears_who_claimed_what(
    database: Database, vault: Vault, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    await add_endpoint(database, vault, WebhookKind.CLAIM_MADE)
    campaign, member = await make_campaign(), await make_member()
    claimed = await make_claim(campaign, member)
    await claim_news.work_once(database, vault, lambda: NOW)
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
        assert len(await outbox.lease(session, claim_news.TOPIC, NOW, 10, claim_news.LEASE)) == 1
    assert await claim_news.work_once(database, vault, lambda: NOW) == 0
    assert await claim_news.work_once(database, vault, lambda: NOW + claim_news.LEASE) == 1
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
        outbox.put(session, claim_news.TOPIC, 1, {"member_id": str(uuid.uuid4())}, NOW - timedelta(seconds=1))
    member = await make_member()
    await make_claim(await make_campaign(), member)
    assert await claim_news.work_once(database, vault, lambda: NOW) == 2
    assert await points_of(database, member) == 150
    [left] = await waiting(database, claim_news.TOPIC)
    assert (left.last_error, left.due_at) == ("KeyError", NOW + claim_news.TRIED_AGAIN_AFTER)
