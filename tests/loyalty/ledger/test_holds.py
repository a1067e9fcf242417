"""Holds: what one takes is gone at once, and goes on or back exactly once."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable
from datetime import datetime
from typing import Any

import pytest
from sqlmodel import func, select

from kit.db import Database
from loyalty import ledger
from loyalty.ledger import (
    AccountId,
    Expired,
    Hold,
    HoldExpired,
    HoldResolved,
    HoldState,
    HoldUnknown,
    InsufficientBalance,
    Leg,
    Posted,
    Purpose,
    Release,
    Transfer,
    TransferIdReused,
    TransferInvalid,
)
from tests.loyalty.ledger.model import ANN, BEN, GONE, NOW, SOURCE, balance, days, post, report, transfer

TOMORROW = days(1)
ANNS_HELD = AccountId(ANN.holder_id, "points", Purpose.HELD)


async def hold(database: Database, made: Transfer, expires_at: datetime = TOMORROW) -> Posted:
    async with database.writing() as session:
        return await ledger.hold(session, made, NOW, expires_at)


async def settle(database: Database, made: Transfer, now: datetime = NOW) -> Posted:
    async with database.writing() as session:
        return await ledger.settle(session, made.transfer_id, now)


async def release(database: Database, made: Transfer, why: Release = Release.VOIDED, now: datetime = NOW) -> Posted:
    async with database.writing() as session:
        return await ledger.release(session, made.transfer_id, now, why)


async def expire_due(database: Database, now: datetime, count_max: int = 500) -> Expired:
    async with database.writing() as session:
        return await ledger.expire_due(session, now, count_max)


async def state(database: Database, made: Transfer) -> HoldState:
    async with database.reading() as session:
        return HoldState((await session.get_one(Hold, made.transfer_id)).state)


async def test_what_is_held_is_gone_from_its_account_and_not_yet_anywhere_else(database: Database) -> None:
    await post(database, transfer((SOURCE, -100), (ANN, 100)))
    made = transfer((ANN, -60), (BEN, 60))
    assert (await hold(database, made)).balances == {ANN: 40, ANNS_HELD: 60}
    assert await balance(database, BEN) is None
    with pytest.raises(InsufficientBalance):
        await post(database, transfer((ANN, -41), (BEN, 41)))
    settled = await settle(database, made)
    assert (settled.is_new, settled.balances) == (True, {BEN: 60, ANNS_HELD: 0})
    assert await state(database, made) is HoldState.POSTED
    assert (await report(database)).faults == ()


async def test_what_is_released_goes_back(database: Database) -> None:
    await post(database, transfer((SOURCE, -100), (ANN, 100)))
    made = transfer((ANN, -60), (BEN, 60))
    await hold(database, made)
    released = await release(database, made)
    assert (released.is_new, released.balances) == (True, {ANN: 100, ANNS_HELD: 0})
    assert await state(database, made) is HoldState.VOIDED
    assert (await report(database)).faults == ()


async def test_a_hold_of_many_legs_keeps_every_holders_share_apart(database: Database) -> None:
    stock = AccountId(uuid.uuid4(), "benefit:1", Purpose.STOCK)
    whole = AccountId(stock.holder_id, "benefit:1", Purpose.ISSUANCE)
    gift = AccountId(BEN.holder_id, "benefit:1", Purpose.AVAILABLE)
    await post(database, transfer((SOURCE, -30), (ANN, 10), (BEN, 20)))
    await post(database, transfer((whole, -2), (stock, 2)))
    made = transfer((ANN, -10), (BEN, -5), (GONE, 15), (stock, -1), (gift, 1))
    await hold(database, made)
    async with database.reading() as session:
        for held, amount in ((ANN, 10), (BEN, 5)):
            assert (await ledger.balances(session, held.holder_id))["points", Purpose.HELD] == amount
        assert (await ledger.balances(session, stock.holder_id))["benefit:1", Purpose.HELD] == 1
    assert (await report(database)).faults == ()
    await settle(database, made)
    assert (await balance(database, gift), await balance(database, GONE)) == (1, 15)
    assert (await report(database)).faults == ()


async def test_a_hold_takes_from_another_account_when_the_first_is_empty_and_gives_back_to_it(
    database: Database,
) -> None:
    stripes = [AccountId(uuid.UUID(int=100 + n), "points", Purpose.BUDGET) for n in range(2)]
    await post(database, transfer((SOURCE, -5), (stripes[1], 5)))
    made = Transfer(uuid.uuid4(), "test", (Leg(stripes[0], -5, otherwise=(stripes[1],)), Leg(ANN, 5)))
    await hold(database, made)
    assert await balance(database, stripes[1]) == 0
    await release(database, made)
    assert await balance(database, stripes[1]) == 5
    assert (await report(database)).faults == ()


async def test_repetition_changes_nothing(database: Database) -> None:
    await post(database, transfer((SOURCE, -100), (ANN, 100)))
    made, other = transfer((ANN, -60), (BEN, 60)), transfer((ANN, -10), (BEN, 10))
    for one, end in ((made, settle), (other, release)):
        first = await hold(database, one)
        assert await hold(database, one) == Posted(one.transfer_id, False, first.balances)
        done = await end(database, one)
        again = await end(database, one)
        assert again == Posted(done.transfer_id, False, done.balances)
    assert await hold(database, made) == Posted(made.transfer_id, False, {ANN: 40, ANNS_HELD: 60})
    assert (await balance(database, ANN), await balance(database, BEN)) == (40, 60)


async def test_a_hold_goes_one_way_for_ever(database: Database) -> None:
    await post(database, transfer((SOURCE, -100), (ANN, 100)))
    made, other = transfer((ANN, -60), (BEN, 60)), transfer((ANN, -10), (BEN, 10))
    await hold(database, made)
    await hold(database, other)
    await settle(database, made)
    await release(database, other)
    with pytest.raises(HoldResolved) as posted:
        await release(database, made)
    with pytest.raises(HoldResolved) as voided:
        await settle(database, other)
    assert (posted.value.state, voided.value.state) == (HoldState.POSTED, HoldState.VOIDED)
    # Both are ways back: the second changes nothing.
    assert not (await release(database, other, Release.EXPIRED)).is_new
    assert await state(database, other) is HoldState.VOIDED


async def test_a_hold_and_a_transfer_do_not_pass_for_each_other(database: Database) -> None:
    await post(database, transfer((SOURCE, -100), (ANN, 100)))
    held, posted = transfer((ANN, -1), (BEN, 1)), transfer((ANN, -2), (BEN, 2))
    await hold(database, held)
    await post(database, posted)
    with pytest.raises(TransferIdReused):
        await post(database, held)
    with pytest.raises(TransferIdReused):
        await hold(database, posted)
    for end in (settle, release):
        with pytest.raises(HoldUnknown):
            await end(database, posted)


@pytest.mark.parametrize(("hours", "settles"), [(23.999, True), (24, False), (24.001, False)])
async def test_a_hold_can_be_settled_until_it_expires(database: Database, hours: float, settles: bool) -> None:
    await post(database, transfer((SOURCE, -100), (ANN, 100)))
    made = transfer((ANN, -60), (BEN, 60))
    await hold(database, made, days(1))
    if settles:
        await settle(database, made, days(hours / 24))
        assert await expire_due(database, days(2)) == Expired(0, 0)
    else:
        with pytest.raises(HoldExpired):
            await settle(database, made, days(hours / 24))
        assert await expire_due(database, days(hours / 24)) == Expired(1, 0)
        assert await state(database, made) is HoldState.EXPIRED
        assert await balance(database, ANN) == 100


async def test_a_sweep_releases_what_is_due_a_portion_at_a_time(database: Database) -> None:
    await post(database, transfer((SOURCE, -100), (ANN, 100)))
    for number in range(5):
        await hold(database, transfer((ANN, -10), (BEN, 10)), days(1 + number))
    assert await expire_due(database, days(0.9)) == Expired(0, 0)
    assert [(await expire_due(database, days(4), 3)).holds for _ in range(3)] == [3, 1, 0]
    assert await balance(database, ANN) == 90
    assert (await report(database)).faults == ()


@pytest.mark.parametrize(
    "made",
    [
        transfer(
            (AccountId(ANN.holder_id, "mb", Purpose.PENDING), -1),
            (AccountId(ANN.holder_id, "mb", Purpose.DELIVERED), 1),
        ),
        transfer((ANNS_HELD, -1), (ANN, 1)),
        transfer((ANN, -1), (ANNS_HELD, 1)),
        transfer((ANN, -1), (BEN, 1), may_owe=True),
        transfer((ANN, -1), (BEN, 1), undoes=uuid.UUID(int=1)),
        transfer((ANN, -1), (BEN, 2)),
    ],
    ids=["from pending", "from held", "to held", "debt", "undo", "unbalanced"],
)
async def test_what_makes_no_hold_is_refused(database: Database, made: Transfer) -> None:
    with pytest.raises(TransferInvalid):
        await hold(database, made)


async def test_a_hold_that_is_over_before_it_begins_is_refused(database: Database) -> None:
    with pytest.raises(TransferInvalid):
        await hold(database, transfer((ANN, -1), (BEN, 1)), NOW)


def counted(results: list[Any]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results)


async def test_twenty_gifts_at_once_are_as_many_as_the_balance_pays(database: Database) -> None:
    await post(database, transfer((SOURCE, -730), (ANN, 730)))
    gifts = [transfer((ANN, -100), (AccountId(uuid.uuid4(), "points", Purpose.AVAILABLE), 100)) for _ in range(20)]
    given = [post(database, made) if number % 2 else hold(database, made) for number, made in enumerate(gifts)]
    assert counted(await asyncio.gather(*given, return_exceptions=True)) == {"Posted": 7, "InsufficientBalance": 13}
    assert await balance(database, ANN) == 30
    assert (await report(database)).faults == ()


async def test_settling_and_releasing_race_for_one_end(database: Database) -> None:
    await post(database, transfer((SOURCE, -200), (ANN, 200)))
    for _ in range(5):
        made = transfer((ANN, -20), (BEN, 20))
        await hold(database, made)
        before = (await balance(database, ANN), await balance(database, BEN) or 0)
        tries = [settle(database, made) if number % 2 else release(database, made) for number in range(8)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert counted(results) == {"Posted": 4, "HoldResolved": 4}
        assert sum(isinstance(result, Posted) and result.is_new for result in results) == 1
        after = (await balance(database, ANN), await balance(database, BEN) or 0)
        posted = await state(database, made) is HoldState.POSTED
        assert after == ((before[0], before[1] + 20) if posted else (before[0] + 20, before[1]))
    assert (await report(database)).faults == ()


async def test_sweeps_settlements_and_gifts_at_once_leave_the_books_balanced(database: Database) -> None:
    people = [AccountId(uuid.UUID(int=50 + number), "points", Purpose.AVAILABLE) for number in range(6)]
    await post(database, transfer((SOURCE, -600), *((account, 100) for account in people)), NOW)
    holds = []
    for number in range(24):
        made = transfer((people[number % 6], -10), (people[(number + 1) % 6], 10), lots_expire_at=days(1.5))
        await hold(database, made, days(1) if number % 2 else days(9))
        holds.append(made)
    work: list[Awaitable[object]] = [expire_due(database, days(2), 20) for _ in range(4)]
    work += [settle(database, made, days(2)) for made in holds]
    work += [post(database, transfer((people[n % 6], -3), (people[(n + 5) % 6], 3)), days(2)) for n in range(12)]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert counted(results).keys() <= {"Posted", "Expired", "HoldExpired", "HoldResolved"}
    await expire_due(database, days(2))
    async with database.reading() as session:
        states = await session.exec(select(Hold.state, func.count()).group_by(Hold.state))
        assert dict(states.all()) == {"posted": 12, "expired": 12}
    assert (await report(database)).faults == ()
