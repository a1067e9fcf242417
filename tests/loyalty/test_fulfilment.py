"""The worker: each order reaches its provider under one id and is settled once, whatever breaks on the way."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import event
from sqlmodel import col, update

from kit import outbox
from kit.db import Database
from kit.ids import derived_id
from kit.outbox import FAILURES_MAX, OutboxMessage
from kit.settings import Settings
from kit.vault import Vault
from loyalty import fulfilment, members, sandbox
from loyalty.fulfilment import Attention, HttpProvider, Order, OrderKind, Provider, SandboxProvider, Word
from loyalty.fulfilment.providers import BREAKER_FAILURES, BREAKER_REST, Answer, Breaker, Consignment
from loyalty.fulfilment.steps import AWAIT_USER_MAX
from loyalty.fulfilment.worker import BACKOFF_FIRST, BACKOFF_MAX, BROKEN_WAIT, EXPIRY_GRACE, LEASE, NO_END_AFTER
from loyalty.ledger import Purpose
from loyalty.members import MemberKey
from tests.loyalty.fulfilment_world import (
    FUNDS,
    NOW,
    CarrierProcess,
    MakeMember,
    MovingClock,
    StartCarrier,
    World,
    start_carrier_in,
)

A_MOMENT = timedelta(microseconds=1)
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what the database has no part in."""


@pytest.fixture
def start_carrier(tmp_path: Path) -> Iterator[StartCarrier]:
    started: list[CarrierProcess] = []

    def start(*options: str) -> CarrierProcess:
        started.append(start_carrier_in(tmp_path, *options))
        return started[-1]

    yield start
    for carrier in started:
        carrier.kill()


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as opened:
        yield opened


@pytest.fixture
async def world(database: Database, vault: Vault, make_member: MakeMember) -> World:
    """Three members with two orders of five megabytes each."""
    made = World(database, vault, MovingClock(NOW))
    await made.fund()
    for number in range(3):
        member_id = await make_member(number)
        for _ in range(2):
            await made.place(member_id)
    return made


def carrier_at(simulator: CarrierProcess, client: httpx2.AsyncClient) -> HttpProvider:
    return HttpProvider("carrier", simulator.url, "token", client)


async def test_orders_are_submitted_queried_and_completed(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier()
    carrier = carrier_at(simulator, client)
    assert await world.work(carrier) == 6
    assert await world.states() == {"accepted"}
    assert (await world.totals())[Purpose.PENDING] == 30
    assert await world.work(carrier) == 0
    world.clock.move(BACKOFF_FIRST)
    assert await world.work(carrier) == 6
    assert {(order.state, order.closed_at, order.attempts) for order in await world.orders()} == {
        ("completed", world.clock.now, 2)
    }
    assert await world.path(world.order_ids[0]) == ["submitted by worker", "accepted by worker", "completed by worker"]
    await world.assert_same_story(simulator.statistics())
    assert (await world.totals())[Purpose.DELIVERED] == 30


@ON_SQLITE
async def test_a_refused_order_goes_back_to_the_account_that_paid(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--refuse", "+8613800138001")
    await world.work_until_done(carrier_at(simulator, client))
    await world.assert_same_story(simulator.statistics())
    states = [order.state for order in await world.orders()]
    assert (states.count("completed"), states.count("failed")) == (4, 2)
    assert (await world.totals())[Purpose.BUDGET] == FUNDS - 20


@pytest.mark.parametrize("seed", [1])
async def test_a_provider_at_its_worst_still_delivers_each_order_once(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient, seed: int
) -> None:
    options = ("--drop", "0.4", "--lose", "0.2", "--duplicate", "0.4", "--fail", "0.3", "--queries-until-settled", "2")
    simulator = start_carrier(*options, "--seed", str(seed))
    await world.work_until_done(carrier_at(simulator, client))
    await world.assert_same_story(simulator.statistics())
    assert simulator.statistics()["orders"] == 6


async def test_workers_side_by_side_send_each_order_once(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = carrier_at(simulator, client)
    taken = await asyncio.gather(*(world.work(carrier) for _ in range(5)))
    assert sum(taken) == 6
    await world.assert_same_story(simulator.statistics())
    assert {order["submissions"] for order in simulator.statistics()["by_order"].values()} == {1}


_MOMENTS = ("before_cursor_execute", "commit")


class Axe:
    """Stops a worker at the n-th thing that it does to the database: a statement or a commit."""

    def __init__(self, database: Database) -> None:
        self._left = 0
        self._victim: asyncio.Task[int] | None = None
        self._engine = database.engine.sync_engine
        for moment in _MOMENTS:
            event.listen(self._engine, moment, self._strike)

    def lay_down(self) -> None:
        for moment in _MOMENTS:
            event.remove(self._engine, moment, self._strike)

    def raise_over(self, victim: asyncio.Task[int], blows: int) -> None:
        self._victim, self._left = victim, blows

    def _strike(self, *_anything: object) -> None:
        self._left -= 1
        if self._left == 0 and self._victim is not None:
            self._victim.cancel()


async def test_a_worker_stopped_anywhere_leaves_nothing_undone_or_done_twice(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient, make_member: MakeMember
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = carrier_at(simulator, client)
    await world.work_until_done(carrier)
    axe, member_id, blows, stopped = Axe(world.database), await make_member(), 0, True
    # PostgreSQL shows every moment; a rollback of SQLite differs in none of them.
    stride = 1 if "postgresql" in str(world.database.engine.url) else 4
    while stopped:
        blows += stride
        await world.place(member_id)
        worker = asyncio.create_task(world.work(carrier))
        axe.raise_over(worker, blows)
        await asyncio.wait([worker])
        stopped = worker.cancelled()
        axe.raise_over(worker, 0)
        world.clock.move(LEASE)
        await world.work_until_done(carrier)
    axe.lay_down()
    # Lease, begin, settle: fifteen statements and three commits at the least.
    assert blows > 18
    await world.assert_same_story(simulator.statistics())


class Between(Provider):
    """A real provider, with something else happening around every call."""

    def __init__(self, provider: Provider, before: Callable[[], Any] | None = None, after: Any = None) -> None:
        self.name = provider.name
        self._provider, self._before, self._after = provider, before, after

    async def submit(self, asked: Consignment) -> Answer:
        return await self._between(self._provider.submit, asked)

    async def query(self, asked: Consignment) -> Answer:
        return await self._between(self._provider.query, asked)

    async def _between(self, call: Callable[[Consignment], Any], asked: Consignment) -> Answer:
        if self._before is not None:
            await self._before()
        answer: Answer = await call(asked)
        if self._after is not None:
            await self._after()
        return answer


async def test_a_worker_that_dies_with_the_answer_in_hand_asks_again_instead_of_ordering_again(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = carrier_at(simulator, client)

    async def die() -> None:
        raise asyncio.CancelledError

    await asyncio.gather(world.work(Between(carrier, after=die)), return_exceptions=True)
    assert simulator.statistics()["completed"] >= 1
    assert (await world.totals())[Purpose.DELIVERED] == 0
    world.clock.move(LEASE)
    await world.work_until_done(carrier)
    await world.assert_same_story(simulator.statistics())
    assert {order["submissions"] for order in simulator.statistics()["by_order"].values()} == {1}


async def test_a_worker_whose_lease_ran_out_does_not_settle_what_another_settled(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = carrier_at(simulator, client)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        arrived.set()
        await go_on.wait()

    slow = asyncio.create_task(world.work(Between(carrier, after=hang)))
    await arrived.wait()
    world.clock.move(LEASE)
    await world.work_until_done(carrier)
    closed = {order.order_id: order.closed_at for order in await world.orders()}
    go_on.set()
    await slow
    await world.assert_same_story(simulator.statistics())
    assert {order.order_id: order.closed_at for order in await world.orders()} == closed


async def test_no_transaction_is_open_while_the_provider_is_asked(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    written = 0

    async def write() -> None:
        nonlocal written
        async with world.database.writing() as session:
            # Every row that the worker knows of: a lock on any of them would make this wait for ever.
            await session.exec(update(Order).values(provider_ref="seen"))
            await session.exec(update(OutboxMessage).values(last_error="seen"))
        written += 1

    await world.work(Between(carrier_at(simulator, client), before=write))
    assert written == 6
    await world.assert_same_story(simulator.statistics())


@ON_SQLITE
async def test_a_provider_that_is_down_is_asked_later_under_the_same_ids(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier()
    simulator.kill()
    for _ in range(3):
        assert await world.work(carrier_at(simulator, client)) == 6
        world.clock.move(BACKOFF_MAX)
    assert {(order.state, order.attempts) for order in await world.orders()} == {("unknown", 3)}
    simulator = start_carrier()
    await world.work_until_done(carrier_at(simulator, client))
    await world.assert_same_story(simulator.statistics())
    assert simulator.statistics()["completed"] == 6


@ON_SQLITE
async def test_a_provider_that_is_down_is_left_in_peace_and_then_tried_with_one_order(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    simulator.kill()
    worker = world.worker(carrier_at(simulator, client))
    assert await worker.work_once() == 6
    world.clock.move(BREAKER_REST - A_MOMENT)
    assert await worker.work_once() == 0
    world.clock.move(A_MOMENT)
    assert await worker.work_once() == 1
    worker.provider = carrier_at(start_carrier("--queries-until-settled", "0"), client)
    world.clock.move(BREAKER_REST)
    assert await worker.work_once() == 1
    assert await worker.work_once() == 5


def test_the_breaker_opens_after_five_failures_in_a_row_and_closes_at_the_first_answer() -> None:
    breaker, silence = Breaker(), Answer(Word.NO_ANSWER)
    for _ in range(BREAKER_FAILURES - 1):
        breaker.heard(silence, NOW)
    breaker.heard(Answer(Word.PENDING, 1), NOW)
    for _ in range(BREAKER_FAILURES - 1):
        breaker.heard(silence, NOW)
    assert breaker.count_max(NOW, 32) == 32
    breaker.heard(silence, NOW)
    assert breaker.count_max(NOW, 32) == 0
    assert breaker.count_max(NOW + BREAKER_REST, 32) == 1
    breaker.heard(Answer(Word.NEVER_RECEIVED), NOW)
    assert breaker.count_max(NOW, 32) == 32


@ON_SQLITE
async def test_the_provider_remembers_its_orders_when_it_is_killed(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "2")
    await world.work(carrier_at(simulator, client))
    simulator.kill()
    world.clock.move(BACKOFF_MAX)
    simulator = start_carrier()
    await world.work_until_done(carrier_at(simulator, client))
    await world.assert_same_story(simulator.statistics())
    assert {order["submissions"] for order in simulator.statistics()["by_order"].values()} == {1}


@ON_SQLITE
async def test_an_order_of_a_member_erased_before_it_was_sent_goes_back(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    erased = (await world.orders())[0].member_id
    async with world.database.writing() as session:
        await members.erase(session, erased)
    simulator = start_carrier()
    await world.work_until_done(carrier_at(simulator, client))
    await world.assert_same_story(simulator.statistics())
    assert {order.state for order in await world.orders() if order.member_id == erased} == {"failed"}
    assert simulator.statistics()["orders"] == 4


@ON_SQLITE
async def test_an_order_of_a_member_erased_after_it_was_sent_is_settled(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier()
    carrier = carrier_at(simulator, client)
    await world.work(carrier)
    async with world.database.writing() as session:
        await members.erase(session, (await world.orders())[0].member_id)
    world.clock.move(BACKOFF_MAX)
    await world.work_until_done(carrier)
    await world.assert_same_story(simulator.statistics())
    assert simulator.statistics()["completed"] == 6


@ON_SQLITE
async def test_a_poisoned_order_holds_up_nobody_and_ends_with_the_operator(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    broken = (await world.orders())[0].member_id
    async with world.database.writing() as session:
        key = (await session.get_one(MemberKey, broken)).key_sealed
        (await session.get_one(MemberKey, broken)).key_sealed = b"not a sealed key"
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = carrier_at(simulator, client)
    assert await world.work(carrier) == 6
    states = {(order.member_id == broken, order.state) for order in await world.orders()}
    assert states == {(True, "created"), (False, "completed")}
    assert await world.work(carrier) == 0
    async with world.database.writing() as session:
        await session.exec(
            update(OutboxMessage).where(col(OutboxMessage.failures) == 1).values(failures=FAILURES_MAX - 1)
        )
    world.clock.move(BROKEN_WAIT)
    assert await world.work(carrier) == 2
    world.clock.move(10 * BACKOFF_MAX)
    assert await world.work(carrier) == 0
    async with world.database.reading() as session:
        flagged = await fulfilment.listed(session, needing_attention=True)
        assert {(order.member_id, order.attention) for order in flagged} == {(broken, Attention.SET_ASIDE)}
        health = await fulfilment.health(session, world.clock())
    assert (health.attention, health.backlogs["order.carrier"].set_aside) == ({"set_aside": 2}, 2)
    # The operator repairs what was wrong, and has them tried again.
    async with world.database.writing() as session:
        (await session.get_one(MemberKey, broken)).key_sealed = key
        for order in flagged:
            assert await outbox.wake(session, order.outbox_key, order.order_id, world.clock())
    assert await world.work(carrier) == 2
    await world.assert_same_story(simulator.statistics())


@ON_SQLITE
async def test_an_order_without_an_end_goes_to_the_operator_and_is_still_asked_for(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "1000")
    carrier = carrier_at(simulator, client)
    await world.work(carrier)
    world.clock.now = NOW + NO_END_AFTER - A_MOMENT
    await world.work(carrier)
    assert {order.attention for order in await world.orders()} == {None}
    world.clock.move(BACKOFF_MAX)
    await world.work(carrier)
    assert {(order.attention, order.state) for order in await world.orders()} == {("no_end", "pending")}
    world.clock.move(BACKOFF_MAX)
    assert await world.work(carrier) == 6


@ON_SQLITE
async def test_an_order_that_awaits_the_member_lapses_by_the_providers_word_alone(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    world = World(database, vault, MovingClock(NOW))
    await world.fund(kind=OrderKind.CASH)
    order_id = await world.place(await make_member(1003), 100, OrderKind.CASH, sandbox=True)
    sandbox = SandboxProvider(world.clock)
    await world.work(sandbox)
    order = await world.order(order_id)
    assert (order.state, order.provider, order.expires_at) == ("await_user", "sandbox", NOW + AWAIT_USER_MAX)
    while world.clock.now < NOW + AWAIT_USER_MAX - timedelta(hours=6):
        world.clock.move(timedelta(hours=6))
        await world.work(sandbox)
    assert (await world.order(order_id)).state == "await_user"
    world.clock.now = NOW + AWAIT_USER_MAX
    await world.work(sandbox)
    assert (await world.order(order_id)).state == "reversed"
    assert (await world.totals("fen"))[Purpose.BUDGET] == FUNDS


@ON_SQLITE
async def test_a_provider_that_never_lets_a_red_packet_lapse_is_told_to_the_operator(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--await-user", "1.0", "--queries-until-settled", "1")
    carrier = carrier_at(simulator, client)
    await world.work(carrier)
    world.clock.move(BACKOFF_FIRST)
    await world.work(carrier)
    assert await world.states() == {"await_user"}
    expiry = NOW + BACKOFF_FIRST + AWAIT_USER_MAX
    world.clock.now = expiry + EXPIRY_GRACE - A_MOMENT
    await world.work(carrier)
    assert {order.attention for order in await world.orders()} == {None}
    world.clock.move(timedelta(hours=6))
    await world.work(carrier)
    assert {(order.attention, order.state) for order in await world.orders()} == {("no_end", "await_user")}
    assert (await world.totals())[Purpose.PENDING] == 30


@ON_SQLITE
async def test_the_sandbox_answers_by_the_end_of_the_phone_number(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    world = World(database, vault, MovingClock(NOW))
    await world.fund()
    ends = {
        0: ["submitted", "completed"],
        1001: ["submitted", "failed"],
        1002: ["submitted", "pending", "reversed"],
        1003: ["submitted", "await_user"],
        1004: ["submitted", "unknown", "completed"],
    }
    placed = {number: await world.place(await make_member(number), sandbox=True) for number in ends}
    for _ in range(2):
        await world.work(SandboxProvider(world.clock))
        world.clock.move(BACKOFF_MAX)
    paths = {number: await world.path(order_id) for number, order_id in placed.items()}
    assert {number: [step.split()[0] for step in path] for number, path in paths.items()} == ends


@ON_SQLITE
async def test_a_sandbox_order_never_leaves_the_house(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient, make_member: MakeMember
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    order_id = await world.place(await make_member(0), sandbox=True)
    assert await world.work(carrier_at(simulator, client)) == 6
    assert str(order_id) not in simulator.statistics()["by_order"]


async def test_an_order_of_a_sandboxs_member_stays_in_the_house_even_if_nobody_said_so(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient, make_member: MakeMember
) -> None:
    async with world.database.writing() as session:
        await sandbox.make(session, 99, "play", world.clock())
    order_id = await world.place(await make_member(0, group_id=99))
    simulator = start_carrier("--queries-until-settled", "0")
    assert await world.work(carrier_at(simulator, client)) == 7
    assert str(order_id) not in simulator.statistics()["by_order"]
    assert await world.work(SandboxProvider(world.clock)) == 1
    order = await world.order(order_id)
    assert (order.provider, order.state) == ("sandbox", "completed")


def test_settings_name_the_providers() -> None:
    clock = MovingClock(NOW)
    client: Any = None
    assert [one.name for one in fulfilment.providers_of(Settings(), client, clock)] == ["sandbox"]
    both = Settings(carrier_url="http://carrier.example", cash_url="http://cash.example")
    assert [one.name for one in fulfilment.providers_of(both, client, clock)] == ["sandbox", "carrier", "cash"]


class Counts:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.moved: list[tuple[str, str, str]] = []
        self.health: list[fulfilment.Health] = []

    def order_moved(self, provider: str, state: str, by: str) -> None:
        self.moved.append((provider, state, by))

    def fulfilment_health(self, health: fulfilment.Health) -> None:
        self.health.append(health)


async def test_the_worker_runs_until_it_is_told_to_stop_and_is_counted(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    stop, counts = asyncio.Event(), Counts()
    calls = 0

    async def count() -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            stop.set()

    carrier = Between(carrier_at(simulator, client), after=count)
    await fulfilment.run(world.database, world.vault, [carrier], world.clock, stop, counts)
    await world.assert_same_story(simulator.statistics())
    assert sorted(set(counts.moved)) == [("carrier", "completed", "worker"), ("carrier", "submitted", "worker")]
    assert len(counts.moved) == 12
    assert len(counts.health) == 1


async def test_health_tells_what_is_open_and_for_how_long(world: World) -> None:
    world.clock.move(timedelta(hours=2))
    async with world.database.reading() as session:
        health = await fulfilment.health(session, world.clock())
    assert health.open_orders == {("carrier", "created"): 6}
    assert health.oldest_open_s == {"carrier": 7_200}
    assert (health.backlogs["order.carrier"].due, health.backlogs["order.carrier"].late_s) == (6, 7_200)


async def test_a_members_orders_are_listed(world: World) -> None:
    member_id = (await world.orders())[0].member_id
    async with world.database.reading() as session:
        found = await fulfilment.orders_of(session, member_id)
    assert sorted(order.order_id for order in found) == sorted(
        order.order_id for order in await world.orders() if order.member_id == member_id
    )


@pytest.mark.parametrize(
    ("attempts", "chance", "wait"),
    [
        (0, 0.0, BACKOFF_FIRST),
        (1, 0.0, BACKOFF_FIRST),
        (2, 0.0, 2 * BACKOFF_FIRST),
        (2, 1.0, BACKOFF_FIRST),
        (11, 0.0, 1024 * BACKOFF_FIRST),
        (12, 0.0, BACKOFF_MAX),
        (10_000, 0.0, BACKOFF_MAX),
        (10_000, 1.0, BACKOFF_MAX / 2),
    ],
)
def test_the_wait_doubles_up_to_an_hour_less_chance(attempts: int, chance: float, wait: timedelta) -> None:
    assert fulfilment.backoff(attempts, chance) == wait


ORDER_ID = derived_id("an order of this test")
SAID = f'{{"order_id": "{ORDER_ID}", "state": "%s", "revision": %s}}'


@pytest.mark.parametrize(
    ("method", "status", "body", "word"),
    [
        ("PUT", 201, SAID % ("accepted", 1), Word.ACCEPTED),
        ("PUT", 200, SAID.replace("}", ', "eta": 5}') % ("pending", 2), Word.PENDING),
        ("GET", 200, SAID % ("completed", 3), Word.COMPLETED),
        ("PUT", 200, SAID % ("failed", 1), Word.FAILED),
        ("GET", 404, '{"state": "unknown"}', Word.NEVER_RECEIVED),
        ("PUT", 404, '{"state": "unknown"}', Word.NO_ANSWER),
        ("GET", 200, SAID % ("new in version 2", 1), Word.NO_ANSWER),
        ("GET", 200, SAID % ("completed", 0), Word.NO_ANSWER),
        ("GET", 200, SAID % ("completed", '"3"'), Word.NO_ANSWER),
        ("GET", 200, '{"state": "completed"}', Word.NO_ANSWER),
        ("GET", 200, SAID.replace(str(ORDER_ID), str(uuid.UUID(int=1))) % ("completed", 3), Word.NO_ANSWER),
        ("GET", 200, "<html>maintenance</html>", Word.NO_ANSWER),
        ("GET", 200, "[]", Word.NO_ANSWER),
        ("PUT", 401, SAID % ("failed", 1), Word.NO_ANSWER),
        ("PUT", 409, '{"state": "conflict"}', Word.NO_ANSWER),
        ("PUT", 302, "", Word.NO_ANSWER),
        ("PUT", 503, SAID % ("completed", 1), Word.NO_ANSWER),
    ],
)
async def test_only_the_providers_own_plain_word_moves_an_order(
    method: str, status: int, body: str, word: Word
) -> None:
    def respond(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        assert request.method == method
        return httpx2.Response(status, text=body)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(respond)) as client:
        carrier = HttpProvider("carrier", "http://carrier.example/", "secret", client)
        asked = Consignment(ORDER_ID, OrderKind.DATA, 5, "+8613800138000")
        answer = await (carrier.query(asked) if method == "GET" else carrier.submit(asked))
        assert answer.word is word
