"""Transfers: nothing appears, nothing vanishes, nothing is paid twice."""

import asyncio
import uuid
from collections import Counter

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import SQLModel, select

from kit.db import Database
from loyalty import ledger
from loyalty.ledger import (
    AMOUNT_MAX,
    LEGS_MAX,
    Account,
    AccountId,
    Entry,
    InsufficientBalance,
    LedgerReport,
    Leg,
    Posted,
    Purpose,
    Transfer,
    TransferIdReused,
    TransferInvalid,
    TransferRecord,
    chain,
)
from tests.loyalty.ledger.model import ANN, BEN, SOURCE, balance, days, post, report, transfer


async def test_a_transfer_moves_value_and_tells_the_balances(database: Database) -> None:
    posted = await post(database, transfer((SOURCE, -30), (ANN, 20), (BEN, 10)))
    assert posted.is_new
    assert posted.balances == {SOURCE: -30, ANN: 20, BEN: 10}
    async with database.reading() as session:
        assert await ledger.balances(session, ANN.holder_id) == {("points", Purpose.AVAILABLE): 20}
        assert await ledger.balances(session, uuid.uuid4()) == {}
    assert await report(database) == LedgerReport(accounts=3, transfers=1, entries=3, faults=())


async def test_the_same_transfer_again_changes_nothing_and_answers_the_same(database: Database) -> None:
    made = transfer((SOURCE, -5), (ANN, 5))
    first = await post(database, made)
    await post(database, transfer((SOURCE, -7), (ANN, 7)))
    again = await post(database, Transfer(made.transfer_id, made.reason, tuple(reversed(made.legs))))
    assert again == Posted(made.transfer_id, False, first.balances)
    assert await balance(database, ANN) == 12


async def test_a_transfer_id_with_other_legs_is_refused(database: Database) -> None:
    made = transfer((SOURCE, -5), (ANN, 5))
    await post(database, made)
    for other in (((SOURCE, -6), (ANN, 6)), ((SOURCE, -5), (BEN, 5)), ((SOURCE, -5), (ANN, 4), (BEN, 1))):
        with pytest.raises(TransferIdReused):
            await post(database, transfer(*other, transfer_id=made.transfer_id))
    assert (await report(database)).entries == 2


async def test_one_transfer_posted_by_twenty_at_once_happens_once(database: Database) -> None:
    made = transfer((SOURCE, -5), (ANN, 5))
    posted = await asyncio.gather(*(post(database, made) for _ in range(20)))
    assert Counter(result.is_new for result in posted) == {True: 1, False: 19}
    assert await balance(database, ANN) == 5


async def test_two_transfers_racing_for_one_id_make_one_of_them(database: Database) -> None:
    transfer_id = uuid.uuid4()
    racing = [transfer((SOURCE, -n), (ANN, n), transfer_id=transfer_id) for n in range(1, 11)]
    results = await asyncio.gather(*(post(database, made) for made in racing), return_exceptions=True)
    assert Counter(type(result).__name__ for result in results) == {"Posted": 1, "TransferIdReused": 9}
    assert (await report(database)).sound


async def test_an_account_is_emptied_to_zero_and_not_below(database: Database) -> None:
    await post(database, transfer((SOURCE, -10), (ANN, 10)))
    with pytest.raises(InsufficientBalance):
        await post(database, transfer((ANN, -11), (BEN, 11)))
    assert await balance(database, BEN) is None
    await post(database, transfer((ANN, -10), (BEN, 10)))
    assert await balance(database, ANN) == 0
    with pytest.raises(InsufficientBalance):
        await post(database, transfer((ANN, -1), (BEN, 1)))


async def test_an_account_that_never_was_has_nothing_to_give(database: Database) -> None:
    with pytest.raises(InsufficientBalance):
        await post(database, transfer((BEN, -1), (ANN, 1)))
    assert await report(database) == LedgerReport(accounts=0, transfers=0, entries=0, faults=())


async def test_fifty_who_spend_at_once_do_not_overdraw(database: Database) -> None:
    await post(database, transfer((SOURCE, -100), (ANN, 100)))
    results = await asyncio.gather(
        *(post(database, transfer((ANN, -5), (BEN, 5))) for _ in range(50)), return_exceptions=True
    )
    assert Counter(type(result).__name__ for result in results) == {"Posted": 20, "InsufficientBalance": 30}
    assert (await balance(database, ANN), await balance(database, BEN)) == (0, 100)
    assert (await report(database)).sound


async def test_transfers_in_opposite_directions_do_not_deadlock(database: Database) -> None:
    await post(database, transfer((SOURCE, -200), (ANN, 100), (BEN, 100)))
    there = (transfer((ANN, -1), (BEN, 1)) for _ in range(40))
    back = (transfer((BEN, -1), (ANN, 1)) for _ in range(40))
    await asyncio.gather(*(post(database, made) for pair in zip(there, back, strict=True) for made in pair))
    assert (await balance(database, ANN), await balance(database, BEN)) == (100, 100)
    assert (await report(database)).sound


async def test_a_debit_is_taken_from_another_account_when_the_first_is_empty(database: Database) -> None:
    stripes = [AccountId(uuid.UUID(int=100 + n), "points", Purpose.BUDGET) for n in range(3)]
    await post(database, transfer((SOURCE, -2), (stripes[2], 2)))
    legs = (Leg(stripes[0], -2, otherwise=(stripes[1], stripes[2])), Leg(ANN, 2))
    made = Transfer(uuid.uuid4(), "test", legs)
    posted = await post(database, made)
    assert posted.balances == {stripes[2]: 0, ANN: 2}
    assert (await post(database, made)).balances == posted.balances
    with pytest.raises(InsufficientBalance):
        await post(database, Transfer(uuid.uuid4(), "test", legs))
    assert (await report(database)).sound


@pytest.mark.parametrize("empty", [0, 1, 2, 3])
async def test_debits_that_wander_over_the_same_accounts_do_not_deadlock(database: Database, empty: int) -> None:
    stripes = [AccountId(uuid.UUID(int=100 + n), "points", Purpose.BUDGET) for n in range(4)]
    funded = [stripe for n, stripe in enumerate(stripes) if n != empty]
    await post(database, transfer((SOURCE, -15), *((stripe, 5) for stripe in funded)))

    async def take(first: int) -> Posted:
        stripe, *others = stripes[first:] + stripes[:first]
        legs = (Leg(stripe, -1, otherwise=tuple(others)), Leg(ANN, 1))
        return await post(database, Transfer(uuid.uuid4(), "test", legs))

    results = await asyncio.gather(*(take(number % 4) for number in range(30)), return_exceptions=True)
    assert Counter(type(result).__name__ for result in results) == {"Posted": 15, "InsufficientBalance": 15}
    assert await balance(database, ANN) == 15


@pytest.mark.parametrize(
    "legs",
    [
        [],
        [(SOURCE, -1)],
        [(SOURCE, -1), (ANN, 2)],
        [(SOURCE, 0), (ANN, 0)],
        [(SOURCE, -1), (SOURCE, 1)],
        [(SOURCE, -AMOUNT_MAX - 1), (ANN, AMOUNT_MAX + 1)],
        [(SOURCE, -1), (AccountId(ANN.holder_id, "mb", Purpose.AVAILABLE), 1)],
        [(SOURCE, -LEGS_MAX), *((AccountId(uuid.UUID(int=9 + n), "points", Purpose.AVAILABLE), 1) for n in range(130))],
    ],
    ids=["none", "one", "unbalanced", "zero", "twice", "too much", "across assets", "too many"],
)
async def test_legs_that_make_no_transfer_are_refused(database: Database, legs: list[tuple[AccountId, int]]) -> None:
    with pytest.raises(TransferInvalid):
        await post(database, transfer(*legs))


async def test_alternatives_are_for_debits_of_one_asset_and_purpose(database: Database) -> None:
    other = AccountId(BEN.holder_id, "mb", Purpose.AVAILABLE)
    for legs in (
        (Leg(ANN, 1, otherwise=(BEN,)), Leg(SOURCE, -1)),
        (Leg(ANN, -1, otherwise=(other,)), Leg(SOURCE, 1)),
        (Leg(ANN, -1, otherwise=(BEN,)), Leg(BEN, 1)),
    ):
        with pytest.raises(TransferInvalid):
            await post(database, Transfer(uuid.uuid4(), "test", legs))


async def test_the_largest_transfer_is_possible(database: Database) -> None:
    accounts = [AccountId(uuid.UUID(int=9 + n), "points", Purpose.AVAILABLE) for n in range(LEGS_MAX - 2)]
    legs = [(SOURCE, -AMOUNT_MAX), (ANN, AMOUNT_MAX - len(accounts)), *((account, 1) for account in accounts)]
    await post(database, transfer(*legs))
    assert (await report(database)).entries == LEGS_MAX


async def test_a_reason_has_at_least_one_and_at_most_eighty_characters(database: Database) -> None:
    legs = (Leg(SOURCE, -1), Leg(ANN, 1))
    await post(database, Transfer(uuid.uuid4(), "r" * 80, legs))
    for reason in ("", "r" * 81):
        with pytest.raises(TransferInvalid):
            await post(database, Transfer(uuid.uuid4(), reason, legs))


async def test_the_database_refuses_a_negative_balance_and_an_unknown_purpose(database: Database) -> None:
    for purpose, amount in ((Purpose.AVAILABLE, -1), ("gift", 1)):
        with pytest.raises(IntegrityError):
            async with database.writing() as session:
                session.add(
                    Account(
                        holder_id=ANN.holder_id, asset="points", purpose=purpose, balance=amount, seq=1, head=bytes(32)
                    )
                )


@pytest.mark.parametrize("statement", ["UPDATE {} SET at = at", "DELETE FROM {}"])
@pytest.mark.parametrize("model", [TransferRecord, Entry])
async def test_the_database_refuses_to_change_what_was_posted(
    database: Database, model: type[SQLModel], statement: str
) -> None:
    await post(database, transfer((SOURCE, -5), (ANN, 5)))
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.writing() as session:
            await (await session.connection()).execute(text(statement.format(model.__tablename__)))


async def test_entries_of_an_account_are_numbered_and_linked(database: Database) -> None:
    made = [transfer((SOURCE, -5), (ANN, 5)), transfer((ANN, -2), (BEN, 2)), transfer((SOURCE, -1), (ANN, 1))]
    async with database.writing() as session:
        for number, one in enumerate(made):
            await ledger.post(session, one, days(number))
    head, balance_after = chain.genesis(ANN.holder_id, ANN.asset, ANN.purpose), 0
    async with database.reading() as session:
        account = await session.get_one(Account, (ANN.holder_id, ANN.asset, ANN.purpose))
        entries = await session.exec(select(Entry).where(Entry.holder_id == ANN.holder_id).order_by("seq"))
        for number, (entry, amount) in enumerate(zip(entries, (5, -2, 1), strict=True)):
            balance_after += amount
            head = chain.link(head, made[number].transfer_id, amount, balance_after, number + 1, days(number))
            assert (entry.seq, entry.balance_after, entry.link) == (number + 1, balance_after, head)
    assert (account.seq, account.head, account.balance) == (3, head, 4)


async def test_an_issuance_alone_may_go_below_zero(database: Database) -> None:
    await post(database, transfer((SOURCE, -5), (ANN, 5)))
    async with database.reading() as session:
        floors = dict((await session.exec(select(Account.holder_id, Account.floor))).all())
    assert floors == {SOURCE.holder_id: -ledger.BALANCE_MAX, ANN.holder_id: 0}


async def test_stripes_of_a_brand_and_a_group_are_summed(database: Database) -> None:
    for number in range(40):
        member = AccountId(uuid.uuid4(), "points", Purpose.AVAILABLE)
        await post(database, transfer((ledger.issuance(7, "points", member.holder_id), -3), (member, 3)))
        await post(database, transfer((member, -1), (ledger.spent(7, number), 1)))
    brand = AccountId(ledger.brand_holder(7), "points", Purpose.ISSUANCE)
    await post(database, transfer((brand, -1), (ledger.expired(2, "points", 5), 1)))
    async with database.reading() as session:
        assert await ledger.total(session, Purpose.ISSUANCE, "points", 7) == -121
        assert await ledger.total(session, Purpose.SPENT, "points", 7) == 40
        assert await ledger.total(session, Purpose.EXPIRED, "points", 2) == 1
        assert await ledger.total(session, Purpose.EXPIRED, "points", 7) == 0
        held = await session.exec(select(Account.holder_id).where(Account.purpose == Purpose.SPENT))
        assert len(held.all()) == ledger.STRIPES
