"""An installation that has transfers is upgraded to chained entries and points lots."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import command
from sqlmodel import select

import migrations
from kit.db import Database, Moment
from loyalty import ledger
from loyalty.ledger import Account, Entry, PointsLot, PointsLotUse, chain
from tests.loyalty.ledger.model import ANN, BEN, SOURCE, days, post, report, transfer


def key() -> list[sa.ColumnClause[Any]]:
    return [sa.column("holder_id", sa.Uuid()), sa.column("asset"), sa.column("purpose")]


ACCOUNTS = sa.table("ledger_account", *key(), sa.column("balance"))
ENTRIES = sa.table(
    "ledger_entry",
    *key(),
    sa.column("transfer_id", sa.Uuid()),
    sa.column("amount"),
    sa.column("balance_after"),
    sa.column("at", Moment()),
)
TRANSFERS = sa.table(
    "ledger_transfer",
    sa.column("transfer_id", sa.Uuid()),
    sa.column("fingerprint", sa.LargeBinary()),
    sa.column("reason"),
    sa.column("at", Moment()),
)
# The second and the third happened at the same moment: their ids say which comes first.
HISTORY = [
    (uuid.UUID(int=9), days(0), [(SOURCE, -10), (ANN, 10)]),
    (uuid.UUID(int=5), days(1), [(SOURCE, -7), (ANN, 7)]),
    (uuid.UUID(int=7), days(1), [(ANN, -12), (BEN, 12)]),
]


async def upgrade(database: Database, revision: str) -> None:
    def run(connection: sa.Connection) -> None:
        settings = migrations.config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)

    async with database.engine.execution_options(fanxing_writes=True).begin() as connection:
        await connection.run_sync(run)


async def fill(database: Database) -> None:
    held: dict[Any, int] = {}
    async with database.writing() as session:
        connection = await session.connection()
        for transfer_id, at, legs in HISTORY:
            about = {"transfer_id": transfer_id, "at": at}
            await connection.execute(TRANSFERS.insert(), {**about, "fingerprint": bytes(32), "reason": "old"})
            for account, amount in legs:
                held[account] = held.get(account, 0) + amount
                await connection.execute(
                    ENTRIES.insert(), {**about, **named(account), "amount": amount, "balance_after": held[account]}
                )
        for account, balance in held.items():
            await connection.execute(ACCOUNTS.insert(), {**named(account), "balance": balance})


def named(account: ledger.AccountId) -> dict[str, Any]:
    return {"holder_id": account.holder_id, "asset": account.asset, "purpose": account.purpose}


async def test_entries_of_before_are_chained_in_their_order_and_points_become_lots(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    await upgrade(database, "0004")
    await fill(database)
    await upgrade(database, "0005")
    found = await report(database)
    assert (found.faults, found.accounts, found.transfers, found.entries) == ((), 3, 3, 6)
    async with database.reading() as session:
        assert await links(session, ANN) == chained(ANN, [(9, 10, 10), (5, 7, 17), (7, -12, 5)])
        assert await links(session, SOURCE) == chained(SOURCE, [(9, -10, -10), (5, -7, -17)])
        lots = (await session.exec(select(PointsLot).order_by("member_id", "earned_at"))).all()
        assert [(lot.lot_id.int, lot.amount, lot.left) for lot in lots] == [(9, 10, 0), (5, 7, 5), (7, 12, 12)]
        uses = (await session.exec(select(PointsLotUse).order_by("lot_id"))).all()
        assert [(use.transfer_id.int, use.lot_id.int, use.amount) for use in uses] == [(7, 5, 2), (7, 9, 10)]
    await post(database, transfer((ANN, -5), (BEN, 5)), days(2))
    await post(database, transfer((SOURCE, -5), (ANN, 5)), days(2))
    assert (await report(database)).faults == ()
    await database.close()


async def links(session: Any, account: ledger.AccountId) -> list[bytes]:
    entries = await session.exec(select(Entry).where(Entry.holder_id == account.holder_id).order_by("seq"))
    found = [entry.link for entry in entries]
    assert (await session.get_one(Account, (account.holder_id, account.asset, account.purpose))).head == found[-1]
    return found


def chained(account: ledger.AccountId, entries: list[tuple[int, int, int]]) -> list[bytes]:
    at: dict[int, datetime] = {transfer_id.int: moment for transfer_id, moment, _ in HISTORY}
    made = [chain.genesis(account.holder_id, account.asset, account.purpose)]
    for seq, (number, amount, after) in enumerate(entries, 1):
        made.append(chain.link(made[-1], uuid.UUID(int=number), amount, after, seq, at[number]))
    return made[1:]


async def test_an_installation_without_transfers_is_upgraded(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    await upgrade(database, "0005")
    await post(database, transfer((SOURCE, -5), (ANN, 5)))
    assert (await report(database)).faults == ()
    await database.close()
