"""Many transfers at once write the books that they would have written one by one."""

import asyncio
import shutil
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg.errors import UniqueViolation
from sqlmodel import select

from kit.db import Database, Session, is_postgresql, table_of
from loyalty import ledger
from loyalty.ledger import (
    AMOUNT_MAX,
    Account,
    AccountId,
    Entry,
    InsufficientBalance,
    Leg,
    PointsLot,
    Policy,
    Purpose,
    Transfer,
    TransferIdReused,
    TransferInvalid,
    TransferRecord,
    bulk,
    chain,
)
from loyalty.ledger.bulk import (
    NEW_ACCOUNT_WAIT_MS,
    OPENED_AT_ONCE_MAX,
    Openings,
    post_openings,
    prepare_openings,
)
from loyalty.ledger.reading import RUN_ENTRIES_MAX
from loyalty.members import Member
from tests.loyalty.ledger.model import ANN, BEN, NOW, SOURCE, balance, days, post, report, transfer
from tests.loyalty.ledger.test_audit import tamper

PEOPLE = [AccountId(uuid.UUID(int=200 + number), "points", Purpose.AVAILABLE) for number in range(5)]


async def post_many(database: Database, made: list[Transfer]) -> int:
    async with database.writing() as session:
        return await ledger.post_many(session, made, NOW)


async def books(database: Database) -> list[dict[str, Any]]:
    """Everything that transfers write, in order."""
    async with database.reading() as session:
        found = [
            (await session.exec(select(model).order_by(*table_of(model).primary_key))).all()
            for model in (Account, Entry, TransferRecord, PointsLot)
        ]
    return [row.model_dump() for rows in found for row in rows]


def imported() -> list[Transfer]:
    stock = AccountId(uuid.UUID(int=300), "benefit:1", Purpose.STOCK)
    whole = AccountId(uuid.UUID(int=301), "benefit:1", Purpose.ISSUANCE)
    gift = AccountId(ANN.holder_id, "benefit:1", Purpose.AVAILABLE)
    made = [
        transfer((SOURCE, -15), *((account, 3) for account in PEOPLE), lots_expire_at=days(40)),
        transfer((SOURCE, -7), (ANN, 7)),
        transfer((SOURCE, -1), (PEOPLE[0], 1)),
        transfer((whole, -2), (stock, 2)),
        transfer((stock, -2), (gift, 2)),
    ]
    return [Transfer(uuid.UUID(int=900 - n), one.reason, one.legs, one.lots_expire_at) for n, one in enumerate(made)]


async def test_the_books_are_those_of_one_by_one(database: Database, sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "other.db")
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    first = transfer((SOURCE, -2), (ANN, 1), (PEOPLE[3], 1), transfer_id=uuid.UUID(int=1))
    for one in (first, *imported()):
        await post(other, one)
    await post(database, first)
    assert await post_many(database, imported()) == 5
    assert await books(database) == await books(other)
    assert (await report(database)).faults == ()
    await other.close()


ONLY_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def opened(points: list[int], lots_expire_at: datetime | None = None) -> Openings:
    holders = b"".join(uuid.UUID(int=1000 + number).bytes for number in range(len(points)))
    lines = np.frombuffer(holders, np.uint8).reshape(len(points), 16)
    return prepare_openings(SOURCE, lines, np.array(points), "opened", NOW, lots_expire_at)


@ONLY_POSTGRESQL
@pytest.mark.parametrize("lots_expire_at", [None, days(40)], ids=["never", "expiry"])
async def test_accounts_written_out_ahead_have_the_books_of_one_by_one(
    database: Database,
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lots_expire_at: datetime | None,
) -> None:
    monkeypatch.setattr(bulk, "OPENED_AT_ONCE_MAX", 3)
    shutil.copyfile(sqlite_template, tmp_path / "other.db")
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    first = transfer((SOURCE, -2), (ANN, 2), transfer_id=uuid.UUID(int=1))
    points = [5, 1, 40, 7, 10**8, 3, 2]
    openings = opened(points, lots_expire_at)
    for database_ in (database, other):
        await post(database_, first)
    async with database.writing() as session:
        assert await post_openings(session, openings) == sum(points)
    for number, (transfer_id, total) in enumerate(openings.transfers):
        legs = [
            Leg(AccountId(uuid.UUID(int=1000 + place), "points", Purpose.AVAILABLE), points[place])
            for place in range(3 * number, min(3 * number + 3, len(points)))
        ]
        await post(other, Transfer(transfer_id, "opened", (Leg(SOURCE, -total), *legs), lots_expire_at))
    assert await books(database) == await books(other)
    assert (await report(database)).faults == ()
    await other.close()


@ONLY_POSTGRESQL
async def test_an_account_that_is_open_is_not_opened(database: Database) -> None:
    await post(database, transfer((SOURCE, -1), (AccountId(uuid.UUID(int=1001), "points", Purpose.AVAILABLE), 1)))
    before = await books(database)
    with pytest.raises(UniqueViolation):
        async with database.writing() as session:
            await post_openings(session, opened([5, 6]))
    assert await books(database) == before


def test_an_account_is_opened_with_what_one_leg_may_bring() -> None:
    most = AMOUNT_MAX // OPENED_AT_ONCE_MAX
    assert opened([1, most]).transfers[0][1] == 1 + most
    assert opened([]).transfers == ()
    for wrong in (0, most + 1):
        with pytest.raises(TransferInvalid):
            opened([wrong])


async def test_a_second_import_changes_nothing(database: Database) -> None:
    await post_many(database, imported())
    before = await books(database)
    assert await post_many(database, imported()) == 0
    assert await post_many(database, [*imported(), transfer((SOURCE, -1), (BEN, 1))]) == 1
    assert await post_many(database, [imported()[0], imported()[0]]) == 0
    assert await balance(database, PEOPLE[0]) == 4
    assert len(await books(database)) == len(before) + 5


async def test_one_transfer_named_twice_is_made_once(database: Database) -> None:
    one = transfer((SOURCE, -5), (ANN, 5))
    assert await post_many(database, [one, one]) == 1
    assert await balance(database, ANN) == 5


async def test_an_id_with_other_legs_is_refused(database: Database) -> None:
    one = transfer((SOURCE, -5), (ANN, 5))
    other = transfer((SOURCE, -6), (ANN, 6), transfer_id=one.transfer_id)
    with pytest.raises(TransferIdReused):
        await post_many(database, [one, other])
    await post_many(database, [one])
    with pytest.raises(TransferIdReused):
        await post_many(database, [other])
    assert await balance(database, ANN) == 5


async def test_a_stock_is_not_overdrawn(database: Database) -> None:
    with pytest.raises(InsufficientBalance):
        await post_many(database, [*imported(), imported_again()])
    assert (await report(database)).entries == 0


def imported_again() -> Transfer:
    last = imported()[-1]
    return Transfer(uuid.uuid4(), last.reason, last.legs)


async def test_a_debt_is_paid_first(database: Database) -> None:
    async with database.writing() as session:
        session.add(Member(member_id=ANN.holder_id, group_id=3, phone_sealed=None, created_at=NOW))
        await ledger.set_policy(session, 3, Policy(debt_max_points=20))
    await post(database, transfer((SOURCE, -5), (ANN, 5)))
    await post(database, transfer((ANN, -12), (BEN, 12), may_owe=True))
    made = [transfer((SOURCE, -4), (ANN, 4)), transfer((SOURCE, -10), (ANN, 10))]
    await post_many(database, made)
    async with database.reading() as session:
        lots = await session.exec(select(PointsLot).where(PointsLot.member_id == ANN.holder_id))
        left = {lot.lot_id: lot.left for lot in lots}
        account = await session.get_one(Account, (ANN.holder_id, "points", "available"))
    assert (left[made[0].transfer_id], left[made[1].transfer_id], account.balance, account.floor) == (0, 7, 7, 0)
    assert (await report(database)).faults == ()


@pytest.mark.parametrize(
    "made",
    [
        transfer((ANN, -1), (BEN, 1)),
        transfer((SOURCE, -1), (BEN, 1), may_owe=True),
        transfer((SOURCE, -1), (BEN, 1), undoes=uuid.UUID(int=1)),
        transfer((SOURCE, -1), (BEN, 2)),
    ],
    ids=["from a member", "debt", "undo", "unbalanced"],
)
async def test_what_is_not_for_imports_is_refused(database: Database, made: Transfer) -> None:
    with pytest.raises(TransferInvalid):
        await post_many(database, [made])


async def test_imports_and_claims_at_once_leave_the_books_balanced(database: Database) -> None:
    async def claim(account: AccountId) -> None:
        await post(database, transfer((SOURCE, -1), (account, 1)))

    lists = [[transfer((SOURCE, -2), (account, 2)) for account in PEOPLE] for _ in range(6)]
    work = [post_many(database, made) for made in lists] + [claim(account) for account in PEOPLE]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert not [result for result in results if isinstance(result, Exception)]
    assert [await balance(database, account) for account in PEOPLE] == [13] * 5
    assert (await report(database)).faults == ()


async def test_an_import_gives_way_to_a_claim_that_makes_the_same_account(database: Database) -> None:
    async def claim(session: Session) -> None:
        await ledger.post(session, transfer((SOURCE, -1), (BEN, 1)), NOW)
        await asyncio.sleep(NEW_ACCOUNT_WAIT_MS / 2_000)  # the import now holds Ann's account and waits for the source
        await ledger.post(session, transfer((SOURCE, -1), (ANN, 1)), NOW)

    async with database.writing() as session:
        session.add(Account(**vars(ANN), balance=0, seq=0, head=chain.genesis(*vars(ANN).values())))
    importing = None
    async with database.writing() as session:
        if is_postgresql(session):
            importing = asyncio.create_task(post_many(database, [transfer((SOURCE, -2), (ANN, 2))]))
        await claim(session)
    if importing is not None:
        assert await importing == 1
        assert await balance(database, ANN) == 3
    assert (await report(database)).faults == ()


async def test_an_account_of_many_entries_is_verified_in_runs(database: Database) -> None:
    made = [transfer((SOURCE, -2), (ANN, 2)) for _ in range(RUN_ENTRIES_MAX + 1)]
    assert await post_many(database, made) == len(made)
    found = await report(database)
    assert (found.faults, found.entries) == ((), 2 * len(made))
    middle = f"{{ann}} AND seq = {RUN_ENTRIES_MAX}"
    await tamper(database, [f"UPDATE ledger_entry SET amount = 3 WHERE holder_id = {middle}"])  # noqa: S608
    found = await report(database)
    assert [fault for fault in found.faults if f"entry {RUN_ENTRIES_MAX} of" in fault and "+3 make" in fault]
    assert len(found.faults) == 3
