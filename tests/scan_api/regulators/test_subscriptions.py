"""Regulators' subscriptions: what is in scope is told once, recorded, and no more once key or account have ended."""

import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from sqlmodel import col, select

from kit.db import Database
from kit.errors import FanxingError
from kit.outbox import OutboxMessage
from kit.vault import Vault, new_key
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey
from scan_api.provenance import arrivals
from scan_api.provenance.event_query import QueryParameterInvalid
from scan_api.provenance.repository import EpcisEvent
from scan_api.provenance.subscriptions import (
    Subscription,
    SubscriptionInvalid,
    SubscriptionUnknown,
    TooManySubscriptions,
)
from scan_api.regulators import accesses, accounts, reporter, subscriptions
from scan_api.regulators.accounts import Regulator
from scan_api.regulators.reporter import Reporter
from scan_api.regulators.sights import ScopeTooWide
from scan_api.regulators.subscriptions import SUBSCRIPTIONS_PER_REGULATOR_MAX
from tests.scan_api.regulators.conftest import MILK, NOW, SHANGHAI_SHOP, TEA, TOY, XIAN_SHOP, World, link, seen

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
VAULT = Vault(new_key())


async def bureau(world: World, *regions: str, categories: tuple[str, ...] = ()) -> Regulator:
    async with world.database.writing() as session:
        account = await accounts.create(session, "Bureau", regions, categories, NOW)
        made, _text = await accounts.create_key(session, account.account_id, "desk", NOW, days=30)
        found = await accounts.with_key(session, made.key_id, NOW)
    assert found is not None
    return found


async def another_key(world: World, who: Regulator, **bounds: Any) -> Regulator:
    async with world.database.writing() as session:
        made, _text = await accounts.create_key(session, who.holder_id, "other desk", NOW, days=30, **bounds)
        found = await accounts.with_key(session, made.key_id, NOW)
    assert found is not None
    return found


async def in_sandbox(world: World, who: Regulator) -> ApiKey:
    async with world.database.writing() as session:
        key = await session.get_one(ApiKey, who.key.key_id)
        key.sandbox = True
        session.add(key)
    return key


async def subscribe(world: World, regulator: Regulator, query: dict[str, Any] | None = None) -> Subscription:
    async with world.database.writing() as session:
        dest = "https://platform.example/"
        return await subscriptions.add(session, VAULT, regulator, dest, "a token", query or {}, "Case 7", NOW)


async def run(database: Database, now: datetime = NOW, times: int = 2) -> None:
    await arrivals.place(database)
    for _ in range(times):
        await Reporter(database, lambda: now).report()


async def told(world: World) -> list[list[str]]:
    """What waits to be sent: items and their places, report by report."""
    async with world.database.reading() as session:
        messages = (await session.exec(select(OutboxMessage).order_by(col(OutboxMessage.message_id)))).all()
        rows = (await session.exec(select(EpcisEvent.event_key, EpcisEvent.content))).all()
    serials = {key: content.partition("/21/")[2][:14].lstrip("0") for key, content in rows}
    return [sorted(serials[uuid.UUID(hex=key)] for key in message.payload["event_keys"]) for message in messages]


async def again(world: World, subscription: Subscription) -> Subscription | None:
    async with world.database.reading() as session:
        return await session.get(Subscription, subscription.subscription_id)


async def test_what_arrives_in_scope_is_told_once_and_recorded(world: World) -> None:
    await world.capture(world.dairy, seen(MILK, 1))
    await run(world.database)
    here, food = await bureau(world, "6101"), await bureau(world, "6101", categories=("own:food/dairy",))
    await subscribe(world, here)
    await world.capture(world.dairy, seen(MILK, 2), seen(TOY, 3))
    await world.capture(
        world.tea_house,
        seen(TEA, 4, readPoint={"id": XIAN_SHOP}),
        seen(TEA, 5, readPoint={"id": SHANGHAI_SHOP}),
    )
    await run(world.database)
    assert sorted(await told(world)) == [["2", "3"], ["4"]]
    only = await subscribe(world, food, {"EQ_action": ["OBSERVE"]})
    await world.capture(world.dairy, seen(MILK, 6), seen(TOY, 7), seen(MILK, 8) | {"action": "ADD"})
    await run(world.database)
    assert sorted(chain(*await told(world))) == ["2", "3", "4", "6", "6", "7", "8"]
    async with world.database.reading() as session:
        looks = await accesses.of_holder(session, food.holder_id, None, 9)
        assert [(one.operation, one.subject, one.told, one.purpose) for one in looks] == [
            ("report", str(only.subscription_id), 1, "Case 7")
        ]
        brands = await accesses.brands_of(session, [looks[0].access_id])
    assert brands == {looks[0].access_id: [world.dairy]}


@ONE_DATABASE
@pytest.mark.parametrize("how", ["key revoked", "key expired", "account ended"])
async def test_nothing_is_told_once_key_or_account_ended(world: World, how: str) -> None:
    regulator, later = await bureau(world), NOW + timedelta(days=30 if how == "key expired" else 0)
    made = await subscribe(world, regulator)
    await world.capture(world.dairy, seen(MILK, 1))
    await run(world.database)
    async with world.database.writing() as session:
        if how == "key revoked":
            await api_keys.revoke(session, regulator.key.key_id, NOW)
        if how == "account ended":
            await accounts.end(session, regulator.holder_id, NOW)
    await world.capture(world.dairy, seen(MILK, 2))
    # What waits is not sent either, and before the reporter comes round.
    async with world.database.reading() as session:
        assert await subscriptions.telling(lambda: later)(session, made, []) is None
    await run(world.database, later)
    assert await told(world) == [["1"]]
    kept = await again(world, made)
    assert kept is not None
    assert (kept.ended_at, kept.ended_why) == (later, "closed")


@ONE_DATABASE
async def test_a_report_that_waits_tells_no_more_than_the_scope_by_then(world: World) -> None:
    regulator = await bureau(world)
    made = await subscribe(world, regulator)
    await world.capture(world.dairy, seen(MILK, 1), seen(TOY, 2))
    async with world.database.reading() as session:
        keys = list(await session.exec(select(EpcisEvent.event_key)))
        assert await subscriptions.telling(lambda: NOW)(session, made, keys) == keys
    async with world.database.writing() as session:
        await accounts.rescope(session, regulator.holder_id, [], ["own:toys"])
    async with world.database.reading() as session:
        assert len(await subscriptions.telling(lambda: NOW)(session, made, keys) or []) == 1


@ONE_DATABASE
async def test_subscriptions_are_listed_and_deleted_by_their_account_alone(world: World) -> None:
    mine, other = await bureau(world), await bureau(world)
    made = await subscribe(world, mine)
    async with world.database.writing() as session:
        assert [one.subscription_id for one in await subscriptions.of_holder(session, mine)] == [made.subscription_id]
        assert list(await subscriptions.of_holder(session, other)) == []
        for holder, subscription_id in ((other, made.subscription_id), (mine, uuid.UUID(int=7))):
            with pytest.raises(SubscriptionUnknown):
                await subscriptions.remove(session, holder, subscription_id)
        await subscriptions.remove(session, mine, made.subscription_id)
    assert await again(world, made) is None


@ONE_DATABASE
async def test_limits_of_subscriptions(world: World) -> None:
    regulator = await bureau(world)
    wrong: list[tuple[dict[str, Any], type[FanxingError]]] = [
        ({"EQ_colour": ["red"]}, QueryParameterInvalid),
        ({"perPage": 5}, QueryParameterInvalid),
        ({"EQ_bizStep": ["x" * 4_000] * 20}, SubscriptionInvalid),
    ]
    for query, error in wrong:
        with pytest.raises(error):
            await subscribe(world, regulator, query)
    for _ in range(SUBSCRIPTIONS_PER_REGULATOR_MAX):
        await subscribe(world, regulator)
    with pytest.raises(TooManySubscriptions):
        await subscribe(world, regulator)
    await subscribe(world, await bureau(world))


@ONE_DATABASE
async def test_a_bounded_key_reaches_its_own_subscriptions_alone(world: World) -> None:
    wide = await bureau(world)
    narrow = await another_key(world, wide, brand_id=world.dairy)
    prefixed = await another_key(world, wide, gtin_prefixes=(MILK[1:],))
    beside = await another_key(world, wide)
    sandboxed = replace(wide, key=await in_sandbox(world, beside))
    rows = [await subscribe(world, who) for who in (wide, narrow, prefixed)]
    ids = [row.subscription_id for row in rows]
    async with world.database.writing() as session:
        for who, expected in ((wide, ids), (narrow, ids[1:2]), (prefixed, ids[2:]), (sandboxed, [])):
            assert [row.subscription_id for row in await subscriptions.of_holder(session, who)] == expected
        for who in (narrow, prefixed, sandboxed):
            with pytest.raises(SubscriptionUnknown):
                await subscriptions.remove(session, who, ids[0])
        await subscriptions.remove(session, wide, ids[1])


@ONE_DATABASE
async def test_what_is_asked_for_by_its_code_text_is_kept_by_its_name(world: World) -> None:
    text = f"https://id.example.cn/{'1' * 161}/01/{MILK}/21/{1:014d}"
    for value in (f"{text}|{text}", [text, text]):
        made = await subscribe(world, await bureau(world), {"MATCH_anyEPC": value})
        kept = (made.query or {})["MATCH_anyEPC"]
        assert (kept if isinstance(kept, list) else kept.split("|")) == [link(MILK, 1)] * 2


@ONE_DATABASE
@pytest.mark.parametrize("error", [ScopeTooWide("wide"), RuntimeError("broken")], ids=["refused", "broken"])
async def test_a_subscription_that_fails_is_put_off_behind_others(
    world: World, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, good = await subscribe(world, await bureau(world)), await subscribe(world, await bureau(world))
    await world.capture(world.dairy, seen(MILK, 1))
    step = reporter._next_step

    async def fails(session: Any, subscription: Subscription, regulator: Regulator) -> reporter.Step:
        if subscription.subscription_id == failing.subscription_id:
            raise error
        return await step(session, subscription, regulator)

    monkeypatch.setattr(reporter, "_next_step", fails)
    await run(world.database, times=1)
    assert await told(world) == [["1"]]
    kept, other = await again(world, failing), await again(world, good)
    assert kept is not None
    assert other is not None
    assert (kept.reported_at, kept.position, other.reported_at) == (NOW, failing.position, NOW)
