"""Mobile data: each order reaches the carrier under one id and is settled once, whatever breaks on the way."""

import asyncio
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import event
from sqlmodel import col, select

from kit.db import Database
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty import campaigns, fulfilment, ledger, members
from loyalty.campaigns import Campaign
from loyalty.fulfilment import BACKOFF_FIRST, BACKOFF_MAX, LEASE, Carrier, CarrierAnswer, DataOrder, HttpCarrier
from loyalty.ledger import Purpose
from loyalty.members import MemberKey
from tests.loyalty.conftest import DATA_FIELDS, NOW, MakeCampaign, MakeClaim, MakeMember

ROOT = Path(__file__).parents[2]


class MovingClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def move(self, by: timedelta) -> None:
        self.now += by


@dataclass
class CarrierProcess:
    """The simulator, running."""

    process: subprocess.Popen[str]
    url: str

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx2.get(f"{self.url}/statistics", trust_env=False).json()
        return found

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


StartCarrier = Callable[..., CarrierProcess]


@pytest.fixture
def start_carrier(tmp_path: Path) -> Iterator[StartCarrier]:
    started: list[CarrierProcess] = []

    def start(*options: str) -> CarrierProcess:
        command = [sys.executable, "-m", "loadtest.carrier", "--port", "0", "--state", str(tmp_path / "carrier.sqlite")]
        process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("carrier on ").strip()
        started.append(CarrierProcess(process, url))
        return started[-1]

    yield start
    for carrier in started:
        carrier.kill()


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False) as opened:
        yield opened


class World:
    """Claims that wait for mobile data, a worker to run, and what became of it all."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        self.vault = vault
        self.clock = MovingClock()
        self.campaign: Campaign
        self.order_ids: list[uuid.UUID] = []

    async def work(self, carrier: Carrier) -> int:
        return await fulfilment.work_once(self.database, self.vault, carrier, self.clock)

    async def work_until_done(self, carrier: Carrier, rounds_max: int = 40) -> None:
        for _ in range(rounds_max):
            await self.work(carrier)
            # Past every postponement and lease.
            self.clock.move(BACKOFF_MAX)
            if not await self.open_orders():
                return
        raise AssertionError(f"orders still open after {rounds_max} rounds")

    async def orders(self) -> list[DataOrder]:
        async with self.database.reading() as session:
            return list(await session.exec(select(DataOrder).order_by(col(DataOrder.order_id))))

    async def open_orders(self) -> int:
        async with self.database.reading() as session:
            waiting = await session.exec(select(OutboxMessage).where(col(OutboxMessage.done_at).is_(None)))
            return len(waiting.all())

    async def totals(self) -> dict[Purpose, int]:
        """Megabytes by what they are for; also checks the ledger."""
        async with self.database.reading() as session:
            assert (await ledger.verify(session)).faults == ()
            totals = dict.fromkeys(Purpose, 0)
            for account in await session.exec(select(ledger.Account).where(ledger.Account.asset == "mb")):
                totals[Purpose(account.purpose)] += account.balance
        return totals

    async def assert_exactly_once(self, statistics: dict[str, Any]) -> None:
        """Carrier and ledger tell the same story: one order a claim, delivered once or given back."""
        orders = await self.orders()
        assert sorted(order.order_id for order in orders) == sorted(self.order_ids)
        assert {order.state for order in orders} <= {"settled", "failed"}
        by_order = statistics["by_order"]
        assert set(by_order) <= {str(order_id) for order_id in self.order_ids}
        for order in orders:
            told = by_order.get(str(order.order_id), {"deliveries": 0})
            assert told["deliveries"] == (1 if order.state == "settled" else 0)
        totals = await self.totals()
        delivered = sum(order.megabytes for order in orders if order.state == "settled")
        assert totals[Purpose.DELIVERED] == statistics["megabytes_delivered"] == delivered
        assert totals[Purpose.PENDING] == 0
        assert totals[Purpose.BUDGET] == self.campaign.budget - delivered


@pytest.fixture
async def world(
    database: Database, vault: Vault, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> World:
    """Three members with two orders of five megabytes each."""
    made = World(database, vault)
    made.campaign = await make_campaign(**DATA_FIELDS)
    for number in range(3):
        member_id = await make_member(number)
        for item in range(2):
            grant = await make_claim(made.campaign, member_id, 10 * number + item)
            assert grant.order_id is not None
            made.order_ids.append(grant.order_id)
    return made


async def test_orders_are_submitted_queried_and_settled(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier()
    carrier = HttpCarrier(simulator.url, "token", client)
    assert await world.work(carrier) == 6
    assert {order.state for order in await world.orders()} == {"submitted"}
    assert (await world.totals())[Purpose.PENDING] == 30
    assert await world.work(carrier) == 0
    world.clock.move(BACKOFF_FIRST)
    assert await world.work(carrier) == 6
    assert {(order.state, order.settled_at) for order in await world.orders()} == {("settled", world.clock.now)}
    await world.assert_exactly_once(simulator.statistics())
    assert (await world.totals())[Purpose.DELIVERED] == 30


async def test_a_refused_order_goes_back_to_the_budget_it_came_from(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient, database: Database
) -> None:
    before = {order.budget_holder_id for order in await world.orders()}
    simulator = start_carrier("--refuse", "+8613800138001")
    await world.work_until_done(HttpCarrier(simulator.url, "", client))
    await world.assert_exactly_once(simulator.statistics())
    states = [order.state for order in await world.orders()]
    assert (states.count("settled"), states.count("failed")) == (4, 2)
    assert len(before) == 6
    async with database.reading() as session:
        assert await campaigns.budget_left(session, world.campaign) == world.campaign.budget - 20


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_carrier_at_its_worst_still_delivers_each_order_once(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient, seed: int
) -> None:
    options = ("--drop", "0.5", "--duplicate", "0.4", "--fail", "0.3", "--queries-until-settled", "2")
    simulator = start_carrier(*options, "--seed", str(seed))
    await world.work_until_done(HttpCarrier(simulator.url, "", client))
    await world.assert_exactly_once(simulator.statistics())
    assert simulator.statistics()["orders"] == 6


async def test_workers_side_by_side_settle_each_order_once(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = HttpCarrier(simulator.url, "", client)
    taken = await asyncio.gather(*(world.work(carrier) for _ in range(5)))
    assert sum(taken) == 6
    await world.assert_exactly_once(simulator.statistics())
    assert {order["submissions"] for order in simulator.statistics()["by_order"].values()} == {1}


class Axe:
    """Stops a worker at the n-th thing that it does to the database: a statement or a commit."""

    def __init__(self, database: Database) -> None:
        self._left = 0
        self._victim: asyncio.Task[int] | None = None
        for moment in ("before_cursor_execute", "commit"):
            event.listen(database.engine.sync_engine, moment, self._strike)

    def raise_over(self, victim: asyncio.Task[int], blows: int) -> None:
        self._victim, self._left = victim, blows

    def _strike(self, *_anything: object) -> None:
        self._left -= 1
        if self._left == 0 and self._victim is not None:
            self._victim.cancel()


async def test_a_worker_stopped_anywhere_leaves_nothing_undone_or_done_twice(
    world: World,
    start_carrier: StartCarrier,
    client: httpx2.AsyncClient,
    make_member: MakeMember,
    make_claim: MakeClaim,
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = HttpCarrier(simulator.url, "", client)
    await world.work_until_done(carrier)
    axe, member_id, blows, stopped = Axe(world.database), await make_member(), 0, True
    while stopped:
        blows += 1
        grant = await make_claim(world.campaign, member_id, 100 + blows)
        assert grant.order_id is not None
        world.order_ids.append(grant.order_id)
        worker = asyncio.create_task(world.work(carrier))
        axe.raise_over(worker, blows)
        await asyncio.wait([worker])
        stopped = worker.cancelled()
        axe.raise_over(worker, 0)
        world.clock.move(LEASE)
        await world.work_until_done(carrier)
    # Lease, start, settle: eleven statements and three commits at the least.
    assert blows > 14
    await world.assert_exactly_once(simulator.statistics())


class Between(Carrier):
    """A real carrier, with something else happening around every call."""

    def __init__(self, carrier: Carrier, before: Callable[[], Any] | None = None, after: Any = None) -> None:
        self._carrier, self._before, self._after = carrier, before, after

    async def submit(self, order_id: uuid.UUID, phone_e164: str, megabytes: int) -> CarrierAnswer:
        await self._happen(self._before)
        answer = await self._carrier.submit(order_id, phone_e164, megabytes)
        await self._happen(self._after)
        return answer

    async def query(self, order_id: uuid.UUID) -> CarrierAnswer:
        await self._happen(self._before)
        answer = await self._carrier.query(order_id)
        await self._happen(self._after)
        return answer

    @staticmethod
    async def _happen(what: Callable[[], Any] | None) -> None:
        if what is not None:
            await what()


async def test_a_worker_that_dies_with_the_answer_in_hand_asks_again_instead_of_ordering_again(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = HttpCarrier(simulator.url, "", client)

    async def die() -> None:
        raise asyncio.CancelledError

    await asyncio.gather(world.work(Between(carrier, after=die)), return_exceptions=True)
    assert simulator.statistics()["settled"] >= 1
    assert (await world.totals())[Purpose.DELIVERED] == 0
    world.clock.move(LEASE)
    await world.work_until_done(carrier)
    await world.assert_exactly_once(simulator.statistics())
    assert {order["submissions"] for order in simulator.statistics()["by_order"].values()} == {1}


async def test_a_worker_whose_lease_ran_out_does_not_settle_what_another_settled(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = HttpCarrier(simulator.url, "", client)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        arrived.set()
        await go_on.wait()

    slow = asyncio.create_task(world.work(Between(carrier, after=hang)))
    await arrived.wait()
    world.clock.move(LEASE)
    await world.work_until_done(carrier)
    settled = {order.order_id: order.settled_at for order in await world.orders()}
    go_on.set()
    await slow
    await world.assert_exactly_once(simulator.statistics())
    assert {order.order_id: order.settled_at for order in await world.orders()} == settled


async def test_no_transaction_is_open_while_the_carrier_is_asked(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    written = 0

    async def write() -> None:
        nonlocal written
        async with world.database.writing() as session:
            # Every row that the worker knows of: a lock on any of them would make this wait for ever.
            for order in await session.exec(select(DataOrder)):
                order.attempts += 100
            for message in await session.exec(select(OutboxMessage)):
                message.last_error = "seen"
        written += 1

    await world.work(Between(HttpCarrier(simulator.url, "", client), before=write))
    assert written == 6
    await world.assert_exactly_once(simulator.statistics())


async def test_a_carrier_that_is_down_is_asked_later_under_the_same_ids(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier()
    simulator.kill()
    for _ in range(3):
        assert await world.work(HttpCarrier(simulator.url, "", client)) == 6
        world.clock.move(BACKOFF_MAX)
    assert {(order.state, order.attempts) for order in await world.orders()} == {("submitted", 3)}
    simulator = start_carrier()
    await world.work_until_done(HttpCarrier(simulator.url, "", client))
    await world.assert_exactly_once(simulator.statistics())
    assert simulator.statistics()["settled"] == 6


async def test_the_carrier_remembers_its_orders_when_it_is_killed(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "2")
    await world.work(HttpCarrier(simulator.url, "", client))
    simulator.kill()
    world.clock.move(BACKOFF_MAX)
    simulator = start_carrier()
    await world.work_until_done(HttpCarrier(simulator.url, "", client))
    await world.assert_exactly_once(simulator.statistics())
    assert {order["submissions"] for order in simulator.statistics()["by_order"].values()} == {1}


async def test_an_order_of_a_member_erased_before_it_was_sent_goes_back_to_the_budget(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    erased = (await world.orders())[0].member_id
    async with world.database.writing() as session:
        await members.erase(session, erased)
    simulator = start_carrier()
    await world.work_until_done(HttpCarrier(simulator.url, "", client))
    await world.assert_exactly_once(simulator.statistics())
    assert {order.state for order in await world.orders() if order.member_id == erased} == {"failed"}
    assert simulator.statistics()["orders"] == 4


async def test_an_order_of_a_member_erased_after_it_was_sent_is_settled(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier()
    carrier = HttpCarrier(simulator.url, "", client)
    await world.work(carrier)
    async with world.database.writing() as session:
        await members.erase(session, (await world.orders())[0].member_id)
    world.clock.move(BACKOFF_MAX)
    await world.work_until_done(carrier)
    await world.assert_exactly_once(simulator.statistics())
    assert simulator.statistics()["settled"] == 6


async def test_an_order_that_cannot_be_worked_on_does_not_hold_up_the_others(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    broken = (await world.orders())[0].member_id
    async with world.database.writing() as session:
        (await session.get_one(MemberKey, broken)).key_sealed = b"not a sealed key"
    simulator = start_carrier("--queries-until-settled", "0")
    carrier = HttpCarrier(simulator.url, "", client)
    assert await world.work(carrier) == 6
    states = {(order.member_id == broken, order.state) for order in await world.orders()}
    assert states == {(True, "pending"), (False, "settled")}
    world.clock.move(LEASE)
    assert await world.work(carrier) == 2


async def test_the_worker_runs_until_it_is_told_to_stop(
    world: World, start_carrier: StartCarrier, client: httpx2.AsyncClient
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    stop = asyncio.Event()
    calls = 0

    async def count() -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            stop.set()

    carrier = Between(HttpCarrier(simulator.url, "", client), after=count)
    await fulfilment.run(world.database, world.vault, carrier, world.clock, stop)
    await world.assert_exactly_once(simulator.statistics())


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


@pytest.mark.parametrize(
    ("method", "status", "body", "answer"),
    [
        ("PUT", 201, '{"state": "accepted"}', CarrierAnswer.UNDER_WAY),
        ("PUT", 200, '{"state": "pending", "eta": 5}', CarrierAnswer.UNDER_WAY),
        ("GET", 200, '{"state": "settled"}', CarrierAnswer.SETTLED),
        ("PUT", 200, '{"state": "failed"}', CarrierAnswer.FAILED),
        ("GET", 404, '{"state": "unknown"}', CarrierAnswer.NEVER_RECEIVED),
        ("PUT", 404, '{"state": "unknown"}', CarrierAnswer.NO_ANSWER),
        ("GET", 200, '{"state": "new in version 2"}', CarrierAnswer.NO_ANSWER),
        ("GET", 200, "<html>maintenance</html>", CarrierAnswer.NO_ANSWER),
        ("GET", 200, "[]", CarrierAnswer.NO_ANSWER),
        ("PUT", 401, '{"state": "failed"}', CarrierAnswer.NO_ANSWER),
        ("PUT", 409, '{"state": "conflict"}', CarrierAnswer.NO_ANSWER),
        ("PUT", 302, "", CarrierAnswer.NO_ANSWER),
        ("PUT", 503, '{"state": "settled"}', CarrierAnswer.NO_ANSWER),
    ],
)
async def test_only_the_carriers_own_plain_word_ends_an_order(
    method: str, status: int, body: str, answer: CarrierAnswer
) -> None:
    def respond(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        assert request.method == method
        return httpx2.Response(status, text=body)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(respond)) as client:
        carrier = HttpCarrier("http://carrier.example/", "secret", client)
        order_id = uuid.uuid4()
        asked = carrier.query(order_id) if method == "GET" else carrier.submit(order_id, "+8613800138000", 5)
        assert await asked is answer


async def test_the_simulator_keeps_one_body_an_order(start_carrier: StartCarrier, client: httpx2.AsyncClient) -> None:
    simulator = start_carrier()
    order = f"{simulator.url}/orders/{uuid.uuid4()}"
    body = {"phone": "+8613800138000", "megabytes": 5}
    statuses = [(await client.put(order, json=body)).status_code for _ in range(2)]
    statuses.append((await client.put(order, json=body | {"megabytes": 6})).status_code)
    statuses.append((await client.put(order, content=b"nonsense")).status_code)
    assert statuses == [201, 200, 409, 400]
    assert simulator.statistics()["orders"] == 1
