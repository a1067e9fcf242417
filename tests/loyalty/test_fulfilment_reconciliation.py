"""Reconciliation: statement and ledger, order by order and in sum, with every difference between them named."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlmodel import func, select

from kit.db import Database
from kit.vault import Vault
from loyalty import fulfilment
from loyalty.fulfilment import Attention, HttpProvider, OrderState, Report, Teller, Word, callbacks, reconciliation
from loyalty.fulfilment.providers import Answer, Consignment, Provider, StatementMissing, StatementUnavailable
from loyalty.fulfilment.reconciliation import Difference, ReconciliationRecord, Result
from loyalty.fulfilment.statements import StatementInvalid, StatementLine
from loyalty.fulfilment.steps import day_of, end_of
from loyalty.fulfilment.worker import BACKOFF_MAX
from loyalty.ledger import Purpose
from tests.loyalty.fulfilment_world import (
    DAY,
    FUNDS,
    NOW,
    CarrierProcess,
    MakeMember,
    MovingClock,
    StartCarrier,
    World,
    start_carrier_in,
)
from tests.loyalty.test_fulfilment_callbacks import callback

AT = "2026-05-01T16:00:00+08:00"
ORDERS = 18
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what the database has no part in."""


@pytest.fixture
def start_carrier(tmp_path: Path) -> Iterator[StartCarrier]:
    started: list[CarrierProcess] = []

    def start(*options: str) -> CarrierProcess:
        started.append(start_carrier_in(tmp_path, "--today", DAY.isoformat(), *options))
        return started[-1]

    yield start
    for carrier in started:
        carrier.kill()


@pytest.fixture
async def world(database: Database, vault: Vault) -> World:
    made = World(database, vault, MovingClock(NOW))
    await made.fund()
    return made


async def tell(world: World, order_id: uuid.UUID, *words: Word, at: datetime = NOW) -> None:
    async with world.database.writing() as session:
        order = await fulfilment.find(session, order_id)
        for word in words:
            report = Report(word, Teller.WORKER, (await fulfilment.find(session, order_id)).revision + 1, at)
            await fulfilment.take(session, order.member_id, order_id, report, world.clock())


def line(
    order_id: uuid.UUID, kind: str = "completed", amount: int = 5, revision: int = 1, at: str = AT
) -> dict[str, Any]:
    return {"order_id": str(order_id), "kind": kind, "amount": amount, "revision": revision, "at": at}


def statement(*lines: dict[str, Any], **changes: Any) -> list[str]:
    """A statement with right totals, unless they are changed."""
    totals = {"lines": len(lines)} | {
        kind: sum(one["amount"] for one in lines if one["kind"] == kind) for kind in ("completed", "reversed")
    }
    heading = {"statement": DAY.isoformat(), "provider": "carrier"}
    return [json.dumps(one) for one in (heading, *lines, totals | changes)]


async def read(lines: list[str]) -> AsyncIterator[str]:
    for text in lines:
        yield text


async def reconcile(
    world: World, *lines: dict[str, Any], provider: Provider | None = None, dry_run: bool = False
) -> Result:
    return await reconciliation.reconcile(
        world.database, "carrier", provider, DAY, read(statement(*lines)), world.clock, dry_run=dry_run
    )


def told(result: Result) -> list[tuple[uuid.UUID, str, int]]:
    assert result.balanced
    return [(found.order_id, found.difference.value, found.amount) for found in result.differences]


async def test_a_statement_that_agrees_is_clean_and_kept(world: World, make_member: MakeMember) -> None:
    one, other = [await world.place(await make_member(number)) for number in range(2)]
    await tell(world, one, Word.COMPLETED)
    await tell(world, other, Word.COMPLETED, Word.REVERSED)
    result = await reconcile(world, line(one), line(other), line(other, "reversed", revision=2))
    assert (result.clean, result.matched, result.lines, result.still_open) == (True, 2, 3, 0)
    assert result.equation == "statement 5 = ledger 5"
    async with world.database.reading() as session:
        kept = (await session.exec(select(ReconciliationRecord))).one()
    assert (kept.day, kept.statement_total, kept.ledger_total, kept.differences) == (DAY, 5, 5, [])


async def test_what_we_had_not_heard_is_made_good(world: World, make_member: MakeMember) -> None:
    lost, reversed_, both, lied = [await world.place(await make_member(number)) for number in range(4)]
    await tell(world, reversed_, Word.COMPLETED, at=NOW - timedelta(days=1))
    await tell(world, lied, Word.FAILED)
    lines = [
        line(lost, revision=2),
        line(reversed_, "reversed", revision=2),
        line(both, revision=2),
        line(both, "reversed", revision=3),
        line(lied, revision=2),
    ]
    result = await reconcile(world, *lines)
    assert result.clean
    assert {found.difference for found in result.repaired} == {Difference.STATE_DIFFERS}
    assert len(result.repaired) == 4
    assert result.equation == "statement 5 = ledger 5"
    assert await world.path(both) == ["completed by statement", "reversed by statement"]
    states = [(await world.order(order_id)).state for order_id in (lost, reversed_, both, lied)]
    assert states == ["completed", "reversed", "reversed", "completed"]
    assert (await world.order(lied)).attention == Attention.LATE_COMPLETION
    assert (await world.totals())[Purpose.BUDGET] == FUNDS - 10


async def test_a_second_reconciliation_has_nothing_left_to_do(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    assert len((await reconcile(world, line(order_id))).repaired) == 1
    again = await reconcile(world, line(order_id))
    assert (again.clean, again.repaired, again.matched) == (True, [], 1)
    async with world.database.reading() as session:
        assert (await session.exec(select(func.count()).select_from(StatementLine))).one() == 1


async def test_a_dry_run_tells_the_same_and_changes_nothing(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    result = await reconcile(world, line(order_id), dry_run=True)
    assert told(result) == [(order_id, "state_differs", 5)]
    assert result.equation == "statement 5 = ledger 0 + 5 state_differs"
    assert (await world.order(order_id)).state == "created"
    async with world.database.reading() as session:
        for table in (StatementLine, ReconciliationRecord):
            assert (await session.exec(select(func.count()).select_from(table))).one() == 0


async def test_each_other_difference_is_named_and_left_to_the_operator(world: World, make_member: MakeMember) -> None:
    member_id, stranger = await make_member(), uuid.uuid4()
    wrong, twice, absent, elsewhere, skipped, open_one = [await world.place(member_id) for _ in range(6)]
    for order_id in (wrong, twice, absent):
        await tell(world, order_id, Word.COMPLETED)
    await tell(world, elsewhere, Word.COMPLETED, at=NOW - timedelta(days=1))
    await tell(world, skipped, Word.PENDING, Word.REVERSED)
    before = await world.states()
    lines = [line(wrong, amount=50), line(twice), line(twice), line(elsewhere), line(skipped), line(stranger, amount=7)]
    result = await reconcile(world, *lines)
    expected = {
        (wrong, "amount_differs", 45),
        (twice, "repeated_line", 5),
        (absent, "missing_at_provider", -5),
        (elsewhere, "other_day", 5),
        (skipped, "passed_over", 5),
        (stranger, "missing_at_ours", 7),
    }
    assert set(told(result)) == expected
    assert (result.statement_total, result.ledger_total, result.still_open, result.repaired) == (77, 15, 1, [])
    assert await world.states() == before
    flagged = {order_id: (await world.order(order_id)).attention for order_id in (wrong, twice, absent, open_one)}
    assert flagged == {
        wrong: Attention.AMOUNT_DIFFERS,
        twice: None,
        absent: Attention.NOT_ON_STATEMENT,
        open_one: None,
    }


@ON_SQLITE
async def test_a_wrong_amount_does_not_complete_an_order(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    result = await reconcile(world, line(order_id, amount=6))
    assert told(result) == [(order_id, "amount_differs", 6)]
    order = await world.order(order_id)
    assert (order.state, order.attention) == ("created", "amount_differs")


@ON_SQLITE
async def test_a_contradiction_under_the_same_number_is_for_the_operator(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    await tell(world, order_id, Word.COMPLETED)
    result = await reconcile(world, line(order_id, "reversed"))
    assert told(result) == [(order_id, "state_differs", -10)]
    assert (await world.order(order_id)).attention == Attention.STATE_DIFFERS


class Says(Provider):
    """Answers every question alike."""

    name = "carrier"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def submit(self, asked: Consignment) -> Answer:
        raise AssertionError("a reconciliation orders nothing")

    async def query(self, asked: Consignment) -> Answer:
        return self._answer


@ON_SQLITE
async def test_an_order_that_the_statement_lacks_is_asked_for(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    await tell(world, order_id, Word.COMPLETED)
    result = await reconcile(world, provider=Says(Answer(Word.REVERSED, 2, NOW)))
    assert (result.clean, len(result.repaired)) == (True, 1)
    assert await world.path(order_id) == ["completed by worker", "reversed by statement"]


@ON_SQLITE
@pytest.mark.parametrize("word", [Word.NEVER_RECEIVED, Word.NO_ANSWER])
async def test_an_order_that_the_provider_forgot_stays_delivered(
    world: World, make_member: MakeMember, word: Word
) -> None:
    order_id = await world.place(await make_member())
    await tell(world, order_id, Word.COMPLETED)
    result = await reconcile(world, provider=Says(Answer(word)))
    assert told(result) == [(order_id, "missing_at_provider", -5)]
    assert (await world.order(order_id)).state == "completed"


GOOD = [line(uuid.UUID(int=1)), line(uuid.UUID(int=1), "reversed", revision=2)]


WRONG = [
    (statement(*GOOD)[1:], "no heading"),
    (statement(*GOOD)[:-1], "breaks off"),
    ([], "breaks off"),
    (statement(*GOOD, lines=1), "totals"),
    (statement(*GOOD, completed=6), "totals"),
    (statement(*GOOD, reversed=0), "totals"),
    ([*statement(*GOOD), json.dumps(GOOD[0])], "after the totals"),
    ([statement()[0], *statement(*GOOD)], "another statement"),
    ([statement()[0].replace("05-01", "05-02"), *statement(*GOOD)[1:]], "another statement"),
    ([statement()[0].replace("carrier", "cash"), *statement(*GOOD)[1:]], "another statement"),
    (statement(line(uuid.UUID(int=1), amount=0)), "line 2"),
    (statement(line(uuid.UUID(int=1), revision=0)), "line 2"),
    (statement(line(uuid.UUID(int=1), kind="failed")), "line 2"),
    (statement(line(uuid.UUID(int=1), at="2026-05-01T08:00:00")), "line 2"),
    (statement(line(uuid.UUID(int=1), at="0001-01-01T00:00:00+08:00")), "line 2"),
    (statement(GOOD[0] | {"reference": "x" * 81}), "line 2"),
    ([statement()[0], "x" * 1_001], "too long"),
]


async def test_a_statement_that_is_not_whole_changes_nothing(world: World) -> None:
    for lines, about in WRONG:
        with pytest.raises(StatementInvalid, match=about):
            await reconciliation.reconcile(world.database, "carrier", None, DAY, read(lines), world.clock)
    async with world.database.reading() as session:
        assert (await session.exec(select(func.count()).select_from(StatementLine))).one() == 0


def test_a_day_is_chinas() -> None:
    assert end_of(DAY) == datetime.fromisoformat("2026-05-01T16:00:00+00:00")
    assert day_of(end_of(DAY) - timedelta(microseconds=1)) == DAY
    assert day_of(end_of(DAY)) == date(2026, 5, 2)


async def test_a_provider_without_a_statement_is_told_apart_from_one_that_is_down(start_carrier: StartCarrier) -> None:
    simulator = start_carrier()
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        for url, refusal in ((f"{simulator.url}/no", StatementMissing), (simulator.url, StatementUnavailable)):
            if refusal is StatementUnavailable:
                simulator.kill()
            with pytest.raises(refusal):
                await HttpProvider("carrier", url, "", client).statement(DAY).__aenter__()


LIES = ("--reverse", "0.3", "--lie", "0.2", "--fail", "0.1", "--await-user", "0.2", "--drop", "0.2", "--lose", "0.1")
WRONG_STATEMENT = ("--wrong-amount", "0.3", "--omit-line", "0.3", "--repeat-line", "0.3")


@pytest.mark.parametrize("seed", [1])
async def test_the_books_equal_the_truth_of_a_lying_provider_once_its_statement_is_in(
    world: World, make_member: MakeMember, start_carrier: StartCarrier, seed: int
) -> None:
    members = [await make_member(number) for number in range(6)]
    for number in range(ORDERS):
        await world.place(members[number % 6], amount=number + 1)
    simulator = start_carrier(*LIES, "--seed", str(seed))
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        carrier = HttpProvider("carrier", simulator.url, "", client)
        await _work_a_day(world, carrier, simulator)
        assert simulator.statistics()["over"]
        result = await world.reconcile(carrier)
        assert result.repaired
        assert (result.balanced, result.clean) == (True, True)
        await world.assert_same_story(simulator.statistics())


@pytest.mark.parametrize("seed", [3])
@ON_SQLITE
async def test_a_wrong_statement_is_explained_to_the_unit(
    world: World, make_member: MakeMember, start_carrier: StartCarrier, seed: int
) -> None:
    member_id = await make_member()
    for number in range(ORDERS):
        await world.place(member_id, amount=number + 1)
    simulator = start_carrier(*LIES, *WRONG_STATEMENT, "--seed", str(seed))
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        carrier = HttpProvider("carrier", simulator.url, "", client)
        await _work_a_day(world, carrier, simulator)
        result = await world.reconcile(carrier)
        assert result.balanced
        kinds = {found.difference for found in result.differences}
        assert kinds >= {Difference.AMOUNT_DIFFERS, Difference.MISSING_AT_PROVIDER, Difference.REPEATED_LINE}
        assert Difference.MISSING_AT_OURS not in kinds
        delivered = (await world.totals())[Purpose.DELIVERED]
        assert result.ledger_total == delivered


async def _work_a_day(world: World, carrier: HttpProvider, simulator: CarrierProcess) -> None:
    """Work till every order has come to an end at the provider, and to one that we know of or not."""
    for _ in range(5):
        await world.work(carrier)
        world.clock.move(BACKOFF_MAX)
    while not simulator.statistics()["over"] or await world.waiting():
        simulator.advance()
        world.clock.move(8 * BACKOFF_MAX)
        await world.work(carrier)


async def test_worker_callbacks_and_reconciliation_at_once_settle_an_order_once(
    world: World, make_member: MakeMember, start_carrier: StartCarrier
) -> None:
    simulator = start_carrier("--queries-until-settled", "0")
    order_id = await world.place(await make_member())
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        carrier = HttpProvider("carrier", simulator.url, "", client)

        async def hear(revision: int) -> None:
            async with world.database.writing() as session:
                given = callback(order_id, "completed", revision, event_id=f"{revision}-{uuid.uuid4()}")
                await callbacks.hear(session, "carrier", given, world.clock())

        everybody = [
            world.work(carrier),
            *(hear(1) for _ in range(6)),
            *(reconcile(world, line(order_id)) for _ in range(2)),
        ]
        await asyncio.gather(*everybody)
    assert (await world.order(order_id)).state == OrderState.COMPLETED
    assert (await world.path(order_id))[-1].startswith("completed by")
    assert (await world.totals())[Purpose.DELIVERED] == 5
