"""Callbacks: only the provider's own, of this moment, heard once, in whatever order they come."""

import json
import random
import uuid
from datetime import datetime, timedelta
from itertools import permutations

import pytest
from sqlmodel import func, select

from kit.db import Database
from kit.settings import Settings
from kit.vault import Vault
from loyalty import fulfilment
from loyalty.fulfilment import Effect, FulfilmentOrderUnknown, Outcome, callbacks
from loyalty.fulfilment.callbacks import (
    BODY_BYTES_MAX,
    CLOCK_DIFFERENCE_MAX,
    EVENT_ID_CHARACTERS_MAX,
    REMEMBERED_FOR,
    CallbackEvent,
    CallbackInvalid,
    CallbackRefused,
    CallbackReused,
    SignedCallback,
)
from loyalty.fulfilment.providers import REVISION_MAX
from loyalty.ledger import Purpose
from tests.loyalty.fulfilment_world import FUNDS, NOW, SECRET, MakeMember, MovingClock, World

OTHER_SECRET = "another secret, which is long enough"
A_SECOND = timedelta(seconds=1)


@pytest.fixture
async def world(database: Database, vault: Vault, make_member: MakeMember) -> World:
    """One order."""
    made = World(database, vault, MovingClock(NOW))
    await made.fund()
    await made.place(await make_member())
    return made


def callback(
    order_id: uuid.UUID, state: str, revision: int, event_id: str = "", signed_at: datetime = NOW, **more: object
) -> SignedCallback:
    body = json.dumps({"order_id": str(order_id), "state": state, "revision": revision, **more}).encode()
    timestamp, event_id = str(int(signed_at.timestamp())), event_id or f"event-{revision}"
    return SignedCallback(timestamp, event_id, callbacks.sign(SECRET, timestamp, event_id, body), body)


async def hear(world: World, given: SignedCallback, provider: str = "carrier") -> Outcome | None:
    async with world.database.writing() as session:
        return await callbacks.hear(session, provider, given, world.clock())


def test_the_signature_is_pinned() -> None:
    # Providers compute it by themselves: it may never change.
    assert callbacks.sign("secret", "1777622400", "event-1", b'{"state":"completed"}') == (
        "v1=0ee75446b18e06028e5939667f5b9995253bb38363306b33cba7e505add57ad4"
    )


@pytest.mark.parametrize("offset", [-CLOCK_DIFFERENCE_MAX, CLOCK_DIFFERENCE_MAX, timedelta()])
def test_a_signature_of_these_minutes_is_good(offset: timedelta) -> None:
    given = callback(uuid.uuid4(), "completed", 1, signed_at=NOW + offset)
    callbacks.check(given, (OTHER_SECRET, SECRET), NOW)


@pytest.mark.parametrize("offset", [-CLOCK_DIFFERENCE_MAX - A_SECOND, CLOCK_DIFFERENCE_MAX + A_SECOND])
def test_a_signature_of_another_time_is_refused(offset: timedelta) -> None:
    with pytest.raises(CallbackRefused, match="another time"):
        callbacks.check(callback(uuid.uuid4(), "completed", 1, signed_at=NOW + offset), (SECRET,), NOW)


def test_a_signature_of_no_year_of_ours_is_refused() -> None:
    far, event_id, body = "9" * 12, "event-1", b"{}"
    given = SignedCallback(far, event_id, callbacks.sign(SECRET, far, event_id, body), body)
    with pytest.raises(CallbackRefused, match="another time"):
        callbacks.check(given, (SECRET,), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"{}"},
        {"event_id": "event-2"},
        {"event_id": "événement"},
        {"timestamp": str(int(NOW.timestamp()) + 1)},
        {"timestamp": ""},
        {"timestamp": "-5"},
        {"timestamp": "١٧٧٧"},
        {"timestamp": "9" * 13},
        {"signature": ""},
        {"signature": "v1="},
        {"signature": "v1=" + "0" * 64},
        {"signature": "v1=é"},
    ],
    ids=lambda changes: "-".join(f"{name}-{value!a}"[:30] for name, value in changes.items()),
)
def test_whatever_is_changed_the_signature_no_longer_fits(changes: dict[str, str]) -> None:
    given = callback(uuid.uuid4(), "completed", 1)
    parts = {name: getattr(given, name) for name in ("timestamp", "event_id", "signature", "body")}
    with pytest.raises(CallbackRefused):
        callbacks.check(SignedCallback(**(parts | changes)), (SECRET,), NOW)


def test_without_a_secret_nothing_is_signed() -> None:
    with pytest.raises(CallbackRefused):
        callbacks.check(callback(uuid.uuid4(), "completed", 1), (), NOW)


def test_the_settings_hold_one_secret_or_two_of_32_characters() -> None:
    assert callbacks.secrets_of(Settings()) == {}
    both = Settings(carrier_callback_secret=f"{SECRET.replace(' ', '-')} {OTHER_SECRET.replace(' ', '-')}")
    assert list(map(len, callbacks.secrets_of(both)["carrier"])) == [len(SECRET), len(OTHER_SECRET)]
    assert callbacks.secrets_of(Settings(cash_callback_secret="x" * 32)) == {"cash": ("x" * 32,)}
    for wrong in ("x" * 31, " ".join(["x" * 32] * 3)):
        with pytest.raises(ValueError, match="one or two secrets"):
            Settings(carrier_callback_secret=wrong)


async def test_a_callback_moves_the_order_and_its_work_is_done(world: World) -> None:
    [order_id] = world.order_ids
    outcome = await hear(world, callback(order_id, "completed", 2, reference="R-7", at="2026-05-01T08:00:00Z"))
    assert outcome is not None
    assert (outcome.effect, outcome.order.provider_ref) == (Effect.MOVED, "R-7")
    assert await world.path(order_id) == ["completed by callback"]
    assert (await world.totals())[Purpose.DELIVERED] == 5
    assert await world.waiting() == 0


async def test_an_event_is_heard_once_and_may_not_say_something_else_later(world: World) -> None:
    [order_id] = world.order_ids
    given = callback(order_id, "pending", 1)
    assert await hear(world, given) is not None
    assert await hear(world, given) is None
    with pytest.raises(CallbackReused):
        await hear(world, callback(order_id, "completed", 2, event_id="event-1"))
    assert (await world.order(order_id)).state == "pending"


async def test_callbacks_in_any_order_and_repeated_end_where_the_provider_is(
    world: World, make_member: MakeMember
) -> None:
    chance = random.Random(1)
    member_id = await make_member()
    for words in permutations(enumerate(("completed", "reversed", "completed"), 1)):
        order_id = await world.place(member_id)
        for revision, state in (*words, *words):
            await hear(world, callback(order_id, state, revision, event_id=f"{order_id}-{chance.random()}"))
        assert (await world.order(order_id)).state == "completed"
    assert (await world.totals())[Purpose.DELIVERED] == 30


async def test_a_reversal_gives_back_what_had_arrived(world: World) -> None:
    [order_id] = world.order_ids
    await hear(world, callback(order_id, "completed", 1))
    await hear(world, callback(order_id, "reversed", 2))
    totals = await world.totals()
    assert (totals[Purpose.DELIVERED], totals[Purpose.BUDGET]) == (0, FUNDS)


async def test_nobody_speaks_of_orders_that_are_not_his(world: World) -> None:
    for order_id, provider in ((world.order_ids[0], "cash"), (uuid.uuid4(), "carrier")):
        with pytest.raises(FulfilmentOrderUnknown):
            await hear(world, callback(order_id, "failed", 1), provider)
    async with world.database.reading() as session:
        assert (await session.exec(select(func.count()).select_from(CallbackEvent))).one() == 0


async def test_what_is_no_order_or_no_state_is_refused(world: World) -> None:
    [order_id] = world.order_ids
    bodies = [b"", b"nonsense", b"[]", b"{}", b'{"order_id": 5}', b" " * (BODY_BYTES_MAX + 1)]
    words = [("unknown", 1), ("settled", 1), ("completed", 0), ("completed", REVISION_MAX + 1)]
    bodies += [callback(order_id, state, revision).body for state, revision in words]
    for body in bodies:
        with pytest.raises(CallbackInvalid):
            await hear(world, SignedCallback("0", "event-1", "", body))
    await hear(world, callback(order_id, "completed", REVISION_MAX))


async def test_a_moment_is_of_a_year_that_can_be_reckoned_with(world: World) -> None:
    [order_id] = world.order_ids
    beyond = ("0001-01-01T00:00:00+08:00", "1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "9999-12-31T23:59:59-08:00")
    for at in beyond:
        with pytest.raises(CallbackInvalid):
            await hear(world, callback(order_id, "completed", 1, at=at))
    for revision, at in enumerate(("1970-01-01T00:00:00Z", "2199-12-31T23:59:59Z"), 1):
        assert await hear(world, callback(order_id, "pending", revision, at=at)) is not None


async def test_an_event_id_has_1_to_80_characters(world: World) -> None:
    [order_id] = world.order_ids
    for event_id in ("x", "x" * EVENT_ID_CHARACTERS_MAX):
        await hear(world, callback(order_id, "pending", 1, event_id=event_id))
    for event_id in ("", "x" * (EVENT_ID_CHARACTERS_MAX + 1)):
        with pytest.raises(CallbackInvalid):
            await hear(world, SignedCallback("0", event_id, "", callback(order_id, "pending", 2).body))


async def test_events_are_forgotten_after_35_days(world: World) -> None:
    await hear(world, callback(world.order_ids[0], "pending", 1))
    for now, left in ((NOW + REMEMBERED_FOR, 1), (NOW + REMEMBERED_FOR + A_SECOND, 0)):
        async with world.database.writing() as session:
            await callbacks.forget(session, now)
            assert (await session.exec(select(func.count()).select_from(CallbackEvent))).one() == left


async def test_an_order_that_awaits_the_member_completes_by_callback(world: World) -> None:
    [order_id] = world.order_ids
    await hear(world, callback(order_id, "await_user", 1))
    await hear(world, callback(order_id, "completed", 2))
    assert await world.path(order_id) == ["await_user by callback", "completed by callback"]
    async with world.database.reading() as session:
        assert (await fulfilment.health(session, world.clock())).open_orders == {}
