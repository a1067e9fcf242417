"""Points lots: the earliest to expire are used first, run out in time, and come back to where they were."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest
from sqlmodel import select

from kit.db import Database
from loyalty import ledger
from loyalty.ledger import (
    AccountId,
    Expired,
    InsufficientBalance,
    PointsLot,
    PointsLotUse,
    Policy,
    PolicyInvalid,
    Purpose,
    TransferRecord,
    lot_expiry,
)
from loyalty.ledger.entries import AMOUNT_MAX
from loyalty.members import Member
from tests.loyalty.ledger.model import ANN, BEN, GONE, NOW, SOURCE, balance, days, post, report, transfer

GROUP = 3
MEMBER = ANN.holder_id
RAN_OUT = ledger.expired(GROUP, "points", MEMBER)


async def enrol(database: Database, debt_max_points: int = 0) -> None:
    """Ann is a member of a group."""
    async with database.writing() as session:
        session.add(Member(member_id=MEMBER, group_id=GROUP, phone_sealed=None, created_at=NOW))
        await ledger.set_policy(session, GROUP, Policy(debt_max_points=debt_max_points))


async def earn(database: Database, amount: int, at: float, expires: float | None) -> uuid.UUID:
    made = transfer((SOURCE, -amount), (ANN, amount), lots_expire_at=None if expires is None else days(expires))
    await post(database, made, days(at))
    return made.transfer_id


async def spend(database: Database, amount: int, at: float, **more: object) -> uuid.UUID:
    made = transfer((ANN, -amount), (GONE, amount), **more)
    await post(database, made, days(at))
    return made.transfer_id


async def left(database: Database, member_id: uuid.UUID = MEMBER) -> dict[uuid.UUID, int]:
    async with database.reading() as session:
        lots = await session.exec(select(PointsLot).where(PointsLot.member_id == member_id))
        return {lot.lot_id: lot.left for lot in lots}


async def spendable(database: Database, at: float) -> int:
    async with database.reading() as session:
        return await ledger.spendable(session, MEMBER, days(at))


async def expire_due(database: Database, at: float, count_max: int = 500) -> Expired:
    async with database.writing() as session:
        return await ledger.expire_due(session, days(at), count_max)


async def test_the_earliest_to_expire_are_used_first_and_what_never_expires_last(database: Database) -> None:
    forever = await earn(database, 10, 0, None)
    late = await earn(database, 10, 1, 30)
    soon = await earn(database, 10, 2, 20)
    debit = await spend(database, 15, 3)
    assert await left(database) == {forever: 10, late: 5, soon: 0}
    async with database.reading() as session:
        uses = await session.exec(select(PointsLotUse).where(PointsLotUse.transfer_id == debit))
        assert {use.lot_id: use.amount for use in uses} == {soon: 10, late: 5}
        lots = await ledger.lots_of(session, MEMBER, days(3))
    assert [(lot.lot_id, lot.left) for lot in lots] == [(late, 5), (forever, 10)]
    await spend(database, 15, 4)
    assert await left(database) == {forever: 0, late: 0, soon: 0}
    assert (await report(database)).faults == ()


async def test_lots_of_one_expiry_are_used_in_the_order_in_which_they_were_earned(database: Database) -> None:
    second = await earn(database, 10, 1, 9)
    first = await earn(database, 10, 0, 9)
    await spend(database, 12, 2)
    assert await left(database) == {first: 0, second: 8}


@pytest.mark.parametrize(("at", "spends"), [(19.999, True), (20, False), (20.001, False)])
async def test_points_can_be_spent_until_they_expire(database: Database, at: float, spends: bool) -> None:
    await enrol(database)
    await earn(database, 10, 0, 20)
    assert await spendable(database, at) == (10 if spends else 0)
    if spends:
        await spend(database, 10, at)
    else:
        with pytest.raises(InsufficientBalance):
            await spend(database, 10, at)


async def test_a_debit_first_expires_what_is_due(database: Database) -> None:
    await enrol(database)
    old = await earn(database, 10, 0, 20)
    new = await earn(database, 10, 1, 40)
    await spend(database, 4, 30)
    assert await left(database) == {old: 0, new: 6}
    assert (await balance(database, ANN), await balance(database, RAN_OUT)) == (6, 10)
    async with database.reading() as session:
        reasons = await session.exec(select(TransferRecord.reason).order_by(TransferRecord.reason))
        assert reasons.all() == ["points expired", "test", "test", "test"]
    assert (await report(database)).faults == ()


async def test_a_debit_that_the_rest_does_not_pay_expires_nothing(database: Database) -> None:
    await enrol(database)
    old = await earn(database, 10, 0, 20)
    with pytest.raises(InsufficientBalance):
        await spend(database, 5, 30)
    assert await left(database) == {old: 10}
    assert (await balance(database, ANN), await spendable(database, 30)) == (10, 0)


async def test_the_sweep_takes_off_what_is_due_once(database: Database) -> None:
    await enrol(database)
    old, older = await earn(database, 10, 0, 20), await earn(database, 5, 0, 10)
    new = await earn(database, 3, 1, 40)
    assert await expire_due(database, 9) == Expired(0, 0)
    assert await expire_due(database, 20) == Expired(0, 1)
    assert await expire_due(database, 20) == Expired(0, 0)
    assert await left(database) == {old: 0, older: 0, new: 3}
    assert (await balance(database, ANN), await balance(database, RAN_OUT)) == (3, 15)
    assert (await report(database)).faults == ()


async def test_points_of_nobodys_member_run_out_to_his_own_account(database: Database) -> None:
    await earn(database, 10, 0, 20)
    await expire_due(database, 20)
    assert await balance(database, AccountId(MEMBER, "points", Purpose.EXPIRED)) == 10


async def test_sweeps_and_spending_at_once_expire_points_once(database: Database) -> None:
    await enrol(database)
    await earn(database, 100, 0, 20)
    await earn(database, 50, 0, None)
    work = [expire_due(database, 30) if number % 2 else spend(database, 5, 30) for number in range(20)]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert not [result for result in results if isinstance(result, Exception)]
    assert (await balance(database, ANN), await balance(database, RAN_OUT)) == (0, 100)
    assert (await report(database)).faults == ()


async def test_gifts_both_ways_between_two_whose_points_are_due_do_not_deadlock(database: Database) -> None:
    for _ in range(5):
        await post(database, transfer((SOURCE, -20), (ANN, 10), (BEN, 10), lots_expire_at=days(1)))
    await post(database, transfer((SOURCE, -80), (ANN, 40), (BEN, 40)))
    there = (transfer((ANN, -1), (BEN, 1)) for _ in range(10))
    back = (transfer((BEN, -1), (ANN, 1)) for _ in range(10))
    given = [post(database, made, days(2)) for pair in zip(there, back, strict=True) for made in pair]
    assert not [
        result for result in await asyncio.gather(*given, return_exceptions=True) if isinstance(result, Exception)
    ]
    assert (await balance(database, ANN), await balance(database, BEN)) == (40, 40)
    assert (await report(database)).faults == ()


async def test_what_is_released_goes_back_to_its_lots(database: Database) -> None:
    soon, late = await earn(database, 10, 0, 20), await earn(database, 10, 0, 30)
    made = transfer((ANN, -15), (GONE, 15))
    async with database.writing() as session:
        await ledger.hold(session, made, days(1), days(50))
    assert await left(database) == {soon: 0, late: 5}
    async with database.writing() as session:
        await ledger.release(session, made.transfer_id, days(2), ledger.Release.VOIDED)
    assert await left(database) == {soon: 10, late: 10}
    assert (await report(database)).faults == ()


async def test_what_comes_back_after_it_expired_is_not_spendable(database: Database) -> None:
    await enrol(database)
    await earn(database, 10, 0, 20)
    debit = await spend(database, 10, 1)
    await post(database, transfer((GONE, -10), (ANN, 10), undoes=debit), days(30))
    assert (await balance(database, ANN), await spendable(database, 30)) == (10, 0)
    assert await expire_due(database, 30) == Expired(0, 1)


async def test_an_undo_takes_first_from_the_lot_that_the_undone_transfer_made(database: Database) -> None:
    await enrol(database)
    soon, undone, late = (
        await earn(database, 10, 0, 20),
        await earn(database, 10, 0, 30),
        await earn(database, 10, 0, 40),
    )
    await spend(database, 4, 1, undoes=undone)
    assert await left(database) == {soon: 10, undone: 6, late: 10}
    await spend(database, 7, 2, undoes=undone)
    assert await left(database) == {soon: 9, undone: 0, late: 10}
    # Whatever else it names, those that expire first go first.
    await spend(database, 1, 3, undoes=uuid.uuid4())
    assert await left(database) == {soon: 8, undone: 0, late: 10}
    assert (await report(database)).sound


async def test_an_undo_in_parts_gives_back_the_latest_to_expire_first_and_never_more_than_was_taken(
    database: Database,
) -> None:
    soon, late = await earn(database, 10, 0, 20), await earn(database, 10, 0, 30)
    debit = await spend(database, 16, 1)
    await post(database, transfer((GONE, -4), (ANN, 4), undoes=debit), days(2))
    assert await left(database) == {soon: 0, late: 8}
    await post(database, transfer((GONE, -5), (ANN, 5), undoes=debit), days(3))
    assert await left(database) == {soon: 3, late: 10}
    # What was not taken of a lot comes as a new one.
    await post(database, transfer((SOURCE, -3), (GONE, 3)))
    last = transfer((GONE, -10), (ANN, 10), undoes=debit, lots_expire_at=days(60))
    await post(database, last, days(4))
    assert await left(database) == {soon: 10, late: 10, last.transfer_id: 3}
    assert (await report(database)).faults == ()


@pytest.mark.parametrize(("amount", "allowed"), [(29, True), (30, True), (31, False)])
async def test_a_refund_leaves_a_debt_as_deep_as_the_policy_says(
    database: Database, amount: int, allowed: bool
) -> None:
    await enrol(database, debt_max_points=20)
    lot = await earn(database, 10, 0, None)
    if not allowed:
        with pytest.raises(InsufficientBalance):
            await spend(database, amount, 1, may_owe=True)
        return
    await spend(database, amount, 1, may_owe=True)
    assert (await balance(database, ANN), await left(database)) == (10 - amount, {lot: 0})
    with pytest.raises(InsufficientBalance):
        await spend(database, 1, 2)
    # What comes in pays the debt before anything of it can be spent.
    first, second = await earn(database, 15, 3, None), await earn(database, 15, 4, None)
    assert await left(database) == {lot: 0, first: max(25 - amount, 0), second: min(40 - amount, 15)}
    assert await balance(database, ANN) == 40 - amount
    async with database.reading() as session:
        account = await session.get_one(ledger.Account, (MEMBER, "points", "available"))
        assert account.floor == 0
    assert (await report(database)).faults == ()


async def test_without_a_policy_nobody_owes(database: Database) -> None:
    await earn(database, 10, 0, None)
    with pytest.raises(InsufficientBalance):
        await spend(database, 11, 1, may_owe=True)


async def test_a_release_pays_a_debt_first(database: Database) -> None:
    await enrol(database, debt_max_points=20)
    lot = await earn(database, 10, 0, None)
    made = transfer((ANN, -10), (GONE, 10))
    async with database.writing() as session:
        await ledger.hold(session, made, days(1), days(9))
    await spend(database, 4, 2, may_owe=True)
    async with database.writing() as session:
        await ledger.release(session, made.transfer_id, days(3), ledger.Release.VOIDED)
    assert (await balance(database, ANN), await left(database)) == (6, {lot: 6})
    assert (await report(database)).faults == ()


def china(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime.fromisoformat(f"{year}-{month:02}-{day:02}T{hour:02}:00:00+08:00")


@pytest.mark.parametrize(
    ("months", "earned", "expires"),
    [
        (12, china(2026, 5, 17, 9), china(2027, 6, 1)),
        (1, china(2026, 11, 30, 23), china(2027, 1, 1)),
        (1, china(2026, 12, 1), china(2027, 2, 1)),
        (120, china(2026, 1, 31), china(2036, 2, 1)),
        (12, datetime(2026, 4, 30, 15, 59, tzinfo=UTC), china(2027, 5, 1)),
        (12, datetime(2026, 4, 30, 16, 0, tzinfo=UTC), china(2027, 6, 1)),
    ],
)
def test_points_live_until_the_month_after_their_months(months: int, earned: datetime, expires: datetime) -> None:
    assert lot_expiry(Policy(lifetime_months=months), earned) == expires


def test_points_live_for_ever_without_a_lifetime() -> None:
    assert lot_expiry(Policy(), NOW) is None


async def test_a_policy_is_what_was_set_last(database: Database) -> None:
    for policy in (Policy(12, 500), Policy(None, 0)):
        async with database.writing() as session:
            await ledger.set_policy(session, GROUP, policy)
        async with database.reading() as session:
            assert await ledger.policy_of(session, GROUP) == policy
            assert await ledger.policy_of(session, GROUP + 1) == Policy()


@pytest.mark.parametrize(
    ("policy", "valid"),
    [
        (Policy(0), False),
        (Policy(1), True),
        (Policy(120), True),
        (Policy(121), False),
        (Policy(None, -1), False),
        (Policy(None, AMOUNT_MAX), True),
        (Policy(None, AMOUNT_MAX + 1), False),
    ],
)
async def test_a_policy_keeps_within_its_limits(database: Database, policy: Policy, valid: bool) -> None:
    async with database.writing() as session:
        if valid:
            await ledger.set_policy(session, GROUP, policy)
        else:
            with pytest.raises(PolicyInvalid):
                await ledger.set_policy(session, GROUP, policy)
