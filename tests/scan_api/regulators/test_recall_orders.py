"""Recall orders: given, acknowledged, carried out and reported, each step once."""

import asyncio
import json
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select

from codes import acts
from codes.log_queue import LogEntry
from codes.orders import CodeOrder, OrderState
from codes.serials import SerialScheme
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty import webhooks
from loyalty.webhooks import WebhookKind
from scan_api.life_acts import Done
from scan_api.provenance import events
from scan_api.provenance.life import LifeMark
from scan_api.regulators import recall_orders, recalling
from scan_api.regulators.recall_orders import (
    DEADLINE_MAX,
    RecallOrder,
    RecallOrderForbids,
    RecallOrderInvalid,
    RecallOrderUnknown,
    RecallState,
    RecallSubjectUnknown,
    Subject,
    SubjectKind,
)
from scan_api.regulators.recalling import RecallByHand
from scan_api.regulators.scope import Scope
from tests.scan_api.regulators.conftest import MILK, NOW, TEA, World, link, regulator

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
BUREAU, OTHER = regulator(Scope()), regulator(Scope(), "00112233445566bb")
SCHEME = SerialScheme(bytes(32))
SOON = NOW + timedelta(days=2)
SUBJECTS = [
    (SubjectKind.ITEM, f"{MILK}/00001000000001"),
    (SubjectKind.LOT, f"{MILK}/L-7"),
    (SubjectKind.ORDER, f"{MILK}/00001"),
    (SubjectKind.GTIN, MILK),
    (SubjectKind.CONTAINER, "urn:epc:id:sscc:9506000.0000000001"),
]


async def _order(
    world: World, kind: SubjectKind = SubjectKind.ORDER, name: str = f"{MILK}/00001", now: datetime = NOW
) -> RecallOrder:
    async with world.database.writing() as session:
        subject = Subject.of(kind, name)
        return await recall_orders.order(
            session, world.dairy, BUREAU.holder_id, "Bureau", subject, "Glass in it.", now + timedelta(days=2), now
        )


async def _advance(world: World, recall: RecallOrder, to: RecallState, now: datetime = NOW) -> bool:
    async with world.database.writing() as session:
        own = await recall_orders.of_brand(session, world.dairy, recall.recall_id)
        return await recall_orders.advance(session, own, to, "somebody", {"items": 3}, now)


async def test_the_way_of_a_recall_order(world: World) -> None:
    recall = await _order(world)
    assert await _advance(world, recall, RecallState.ACKNOWLEDGED, NOW + timedelta(hours=1))
    assert not await _advance(world, recall, RecallState.ACKNOWLEDGED, NOW + timedelta(hours=2))
    assert await _advance(world, recall, RecallState.EXECUTED, NOW + timedelta(hours=3))
    assert not await _advance(world, recall, RecallState.ACKNOWLEDGED)
    with pytest.raises(RecallOrderForbids, match="executed"):
        await _advance(world, recall, RecallState.WITHDRAWN)
    assert await _advance(world, recall, RecallState.REPORTED, NOW + timedelta(hours=4))
    assert not await _advance(world, recall, RecallState.EXECUTED)
    async with world.database.reading() as session:
        steps = await recall_orders.steps_of(session, recall.recall_id)
    assert [step.kind for step in steps] == ["ordered", "acknowledged", "executed", "reported"]
    assert [step.at for step in steps] == [NOW + timedelta(hours=hour) for hour in (0, 1, 3, 4)]
    assert (steps[0].by, steps[1].by, steps[1].told()) == ("Bureau", "somebody", {"items": 3})


@ONE_DATABASE
async def test_what_is_withdrawn_is_not_carried_out(world: World) -> None:
    recall = await _order(world)
    with pytest.raises(RecallOrderForbids):
        await _advance(world, recall, RecallState.REPORTED)
    assert await _advance(world, recall, RecallState.WITHDRAWN)
    assert not await _advance(world, recall, RecallState.WITHDRAWN)
    for step in (RecallState.ACKNOWLEDGED, RecallState.EXECUTED, RecallState.REPORTED):
        with pytest.raises(RecallOrderForbids):
            await _advance(world, recall, step)


async def test_the_brand_hears_what_was_ordered_and_every_step_is_logged(world: World) -> None:
    kinds = (WebhookKind.RECALL_ORDERED, WebhookKind.RECALL_WITHDRAWN)
    async with world.database.writing() as session:
        url = "https://dairy.example/"
        await webhooks.add(session, Vault(bytes(32)), world.dairy, "dairy", url, kinds, NOW)
    recall = await _order(world)
    await _advance(world, recall, RecallState.ACKNOWLEDGED)
    await _advance(world, recall, RecallState.WITHDRAWN)
    await _advance(world, recall, RecallState.WITHDRAWN)
    async with world.database.reading() as session:
        messages = (await session.exec(select(OutboxMessage).order_by(col(OutboxMessage.message_id)))).all()
        records = (await session.exec(select(LogEntry.record).order_by(col(LogEntry.entry_id)))).all()
    told = [json.loads(message.payload["body"]) for message in messages]
    assert [one["type"] for one in told] == ["recall.ordered", "recall.withdrawn"]
    assert {one["data"]["recall_id"] for one in told} == {str(recall.recall_id)}
    assert told[0]["data"]["reason"] == "Glass in it."
    steps = [json.loads(record) for record in records if record is not None]
    assert [(one["type"], one["step"]) for one in steps] == [
        ("recall_step", "ordered"),
        ("recall_step", "acknowledged"),
        ("recall_step", "withdrawn"),
    ]


async def test_of_two_at_once_one_makes_the_step(world: World) -> None:
    recall = await _order(world)
    done = await asyncio.gather(*(_advance(world, recall, RecallState.EXECUTED) for _ in range(2)))
    assert sorted(done) == [False, True]


async def test_late_is_what_is_open_at_its_deadline(world: World) -> None:
    late, done = await _order(world), await _order(world)
    await _advance(world, done, RecallState.EXECUTED)
    await _order(world, now=NOW + timedelta(days=1))
    async with world.database.reading() as session:
        for at, expected in ((SOON - timedelta(microseconds=1), []), (SOON, [late.recall_id])):
            for whose in ({"brand_id": world.dairy}, {"given_by": BUREAU}):
                found = await recall_orders.page(session, None, 10, overdue_at=at, **whose)
                assert [one.recall_id for one in found] == expected
        assert len(await recall_orders.page(session, None, 10, brand_id=world.dairy)) == 3
        assert await recall_orders.page(session, None, 10, brand_id=world.tea_house) == []
        assert late.is_overdue(SOON)
        assert not (await recall_orders.of_brand(session, world.dairy, done.recall_id)).is_overdue(SOON)
        for ask, who in ((recall_orders.of_brand, world.tea_house), (recall_orders.of_holder, OTHER)):
            with pytest.raises(RecallOrderUnknown):
                await ask(session, who, late.recall_id)  # type: ignore[operator]
        assert (await recall_orders.of_holder(session, BUREAU, late.recall_id)).recall_id == late.recall_id


@pytest.mark.parametrize("statement", ["UPDATE recall_step SET kind = kind", "DELETE FROM recall_step"])
async def test_the_database_keeps_steps_as_they_are(world: World, statement: str) -> None:
    await _order(world)
    with pytest.raises(DBAPIError, match="append-only"):
        async with world.database.writing() as session:
            await (await session.connection()).execute(text(statement))


@ONE_DATABASE
async def test_limits_of_a_recall_order(world: World) -> None:
    subject = Subject.of(SubjectKind.GTIN, MILK)

    async def order(reason: str, deadline: datetime) -> None:
        async with world.database.writing() as session:
            await recall_orders.order(session, world.dairy, BUREAU.holder_id, "Bureau", subject, reason, deadline, NOW)

    tick = timedelta(microseconds=1)
    for deadline in (NOW + tick, NOW + DEADLINE_MAX - tick, NOW + DEADLINE_MAX):
        await order("x" * 500, deadline)
    for reason, deadline in (
        ("", SOON), ("x" * 501, SOON), ("a\0", SOON), ("x", NOW), ("x", NOW - tick), ("x", NOW + DEADLINE_MAX + tick),
    ):  # fmt: skip
        with pytest.raises(RecallOrderInvalid):
            await order(reason, deadline)
    await order("x" * 499, SOON)


@pytest.mark.parametrize(("kind", "name"), SUBJECTS)
def test_subjects(kind: SubjectKind, name: str) -> None:
    subject = Subject.of(kind, name)
    assert Subject.of(kind, subject.name) == subject


@given(st.sampled_from(SubjectKind), st.text(max_size=40) | st.sampled_from([name for _kind, name in SUBJECTS]))
def test_any_text_is_a_subject_or_refused(kind: SubjectKind, name: str) -> None:
    try:
        subject = Subject.of(kind, name)
    except RecallOrderInvalid:
        return
    assert (subject.gtin is None) == (kind is SubjectKind.CONTAINER)


async def test_orders_are_recalled_with_event_and_act_and_once(world: World) -> None:
    placed, other = await world.order(MILK, 1, 100), await world.order(MILK, 2, 50)
    of_one, of_all = await _order(world), await _order(world, SubjectKind.GTIN, MILK)
    assert placed.order_id is not None
    for recall, items in ((of_one, 100), (of_one, 0), (of_all, 50), (of_all, 0)):
        async with world.database.writing() as session:
            assert await recalling.recall(session, recall, SCHEME, "Dairy", NOW) == Done(items, 0)
    async with world.database.reading() as session:
        for one in (placed, other):
            assert (await session.get_one(CodeOrder, one.order_id)).state == OrderState.RECALLED
        [act] = await acts.acts_of(session, placed.order_id)
        assert (act.kind, act.by, act.detail["reason"]) == ("recalled", "Dairy", "Glass in it.")
        history = await events.events_of(session, placed, placed.item_key(1), 1)
        assert [event.step for event in history] == [events.Step.RECALLED]


@ONE_DATABASE
async def test_items_lots_and_containers_are_marked(world: World) -> None:
    for kind, name in (SUBJECTS[0], SUBJECTS[1], SUBJECTS[4]):
        recall = await _order(world, kind, name)
        for marks in (1, 0):
            async with world.database.writing() as session:
                assert await recalling.recall(session, recall, SCHEME, "Dairy", NOW) == Done(0, marks)
    async with world.database.reading() as session:
        found = {mark.subject: (mark.kind, mark.message) for mark in await session.exec(select(LifeMark))}
    assert set(found.values()) == {("recalled", "Glass in it.")}
    assert {"https://id.gs1.org/00/095060000000000015", link(MILK, 1_000_000_001)} < set(found)


@ONE_DATABASE
async def test_too_many_orders_at_once_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalling, "ORDERS_AT_ONCE_MAX", 2)
    recall = await _order(world, SubjectKind.GTIN, MILK)
    for number in (1, 2, 3):
        await world.order(MILK, number)
    async with world.database.writing() as session:
        with pytest.raises(RecallByHand):
            await recalling.recall(session, recall, SCHEME, "Dairy", NOW)
    one = await _order(world)
    async with world.database.writing() as session:
        assert await recalling.recall(session, one, SCHEME, "Dairy", NOW) == Done(100, 0)
        assert await recalling.recall(session, recall, SCHEME, "Dairy", NOW) == Done(200, 0)


@ONE_DATABASE
async def test_what_is_recalled_must_be_there(world: World) -> None:
    await world.order(MILK, 1)
    async with world.database.reading() as session:
        for kind, name in SUBJECTS[:4]:
            assert (await recall_orders.product_of(session, Subject.of(kind, name))).gtin == MILK
        for kind, name in (
            (SubjectKind.GTIN, "09506000999999"),
            (SubjectKind.ORDER, f"{MILK}/00002"),
            (SubjectKind.ITEM, f"{TEA}/00001000000001"),
            SUBJECTS[4],
        ):
            with pytest.raises(RecallSubjectUnknown):
                await recall_orders.product_of(session, Subject.of(kind, name))


@ONE_DATABASE
async def test_a_key_reaches_the_recall_orders_of_its_goods_alone(world: World) -> None:
    given = {kind: (await _order(world, kind, name)).recall_id for kind, name in SUBJECTS}
    goods = set(given) - {SubjectKind.CONTAINER}
    for scope, expected in (
        (Scope(), set(given)),
        (Scope(brand_id=world.dairy), set(given)),
        (Scope(brand_id=world.tea_house), set()),
        (Scope(sandbox=True), set()),
        (Scope(gtin_prefixes=(TEA[1:], MILK[1:])), goods),
        (Scope(gtin_prefixes=(MILK[1:4],)), goods),
        (Scope(gtin_prefixes=(TEA[1:],)), set()),
    ):
        who = regulator(scope)
        async with world.database.reading() as session:
            listed = await recall_orders.page(session, None, 10, given_by=who)
            assert {one.recall_id for one in listed} == {given[kind] for kind in expected}
            for kind in set(given) - expected:
                with pytest.raises(RecallOrderUnknown):
                    await recall_orders.of_holder(session, who, given[kind])
