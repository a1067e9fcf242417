"""Verification finds whatever was tampered with, and says where."""

# ruff: noqa: S608 - the statements are the thief's own

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from kit.db import Database, Session
from loyalty import ledger
from loyalty.ledger import AccountId, LedgerReport, Purpose, Release, audit, chain, reading
from loyalty.ledger.history import History, HistoryInvalid
from tests.loyalty.ledger.model import ANN, BEN, GONE, NOW, SOURCE, days, post, report, transfer

ANN_, BEN_ = f"{ANN.holder_id} points available", f"{BEN.holder_id} points available"
IDS = [uuid.UUID(int=number) for number in range(0xA0, 0xA5)]
HELD, POSTED, VOIDED = (uuid.UUID(int=number) for number in (0xAF, 0xB0, 0xB1))
PRINTER = AccountId(SOURCE.holder_id, "benefit:x", Purpose.ISSUANCE)
COUPON = AccountId(ANN.holder_id, "benefit:x", Purpose.AVAILABLE)
USED = AccountId(ANN.holder_id, "benefit:x", Purpose.REDEEMED)


async def fill(database: Database) -> None:
    """Ann gets 10 and 5 points, spends 3, gives Ben 2, and 4 of hers are held; of two coupons she uses one."""
    await post(database, transfer((SOURCE, -10), (ANN, 10), transfer_id=IDS[0], lots_expire_at=days(40)))
    await post(database, transfer((SOURCE, -5), (ANN, 5), transfer_id=IDS[1]), days(1))
    await post(database, transfer((ANN, -3), (GONE, 3), transfer_id=IDS[2]), days(2))
    await post(database, transfer((ANN, -2), (BEN, 2), transfer_id=IDS[3]), days(3))
    async with database.writing() as session:
        await ledger.hold(session, transfer((ANN, -4), (GONE, 4), transfer_id=HELD), days(4), days(9))
        await ledger.post(session, transfer((PRINTER, -2), (COUPON, 2)), days(4))
        for hold_id in (POSTED, VOIDED):
            await ledger.hold(session, transfer((COUPON, -1), (USED, 1), transfer_id=hold_id), days(4), days(9))
        await ledger.settle(session, POSTED, days(5))
        await ledger.release(session, VOIDED, days(5), Release.VOIDED)


async def tamper(database: Database, statements: Sequence[str]) -> None:
    """Do what a thief with the database's own password could."""
    async with database.writing() as session:
        await _tamper(session, statements)


async def _tamper(session: Session, statements: Sequence[str]) -> None:
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
    else:
        for table in ("ledger_transfer", "ledger_entry"):
            for verb in ("update", "delete"):
                await connection.execute(text(f"DROP TRIGGER {table}_no_{verb}"))
    for statement in statements:
        await connection.execute(text(_for(session, statement)))


class Undone(Exception):
    """Rolls back what was tampered with."""


async def faults_after(database: Database, case: str) -> list[str]:
    """What verification finds before the thief's transaction is rolled back."""
    found: list[str] = []
    with contextlib.suppress(Undone):
        async with database.writing() as session:
            await _tamper(session, CASES[case][0])
            found += (await ledger.verify(session)).faults
            raise Undone
    return found


def _for(session: Session, statement: str) -> str:
    # {ann} and the like are ids as this database writes them; {zeros} is a link of zeros.
    on_postgresql = session.get_bind().dialect.name == "postgresql"
    ids = {"ann": ANN.holder_id, "ben": BEN.holder_id, "source": SOURCE.holder_id, "held": HELD}
    ids |= {"posted": POSTED, "voided": VOIDED}
    ids |= {f"id{number}": transfer_id for number, transfer_id in enumerate(IDS)}
    written = {name: f"'{one}'" if on_postgresql else f"'{one.hex}'" for name, one in ids.items()}
    zeros = f"'\\x{'00' * 32}'::bytea" if on_postgresql else f"x'{'00' * 32}'"
    return statement.format(**written, zeros=zeros)


ANNS = "holder_id = {ann} AND asset = 'points' AND purpose = 'available'"


def lot(lot_id: uuid.UUID) -> str:
    return f"points lot {lot_id} of member {ANN.holder_id}"


def entry(number: int, transfer_id: uuid.UUID, whose: str = ANN_) -> str:
    return f"entry {number} of account {whose} (transfer {transfer_id})"


CASES = {
    "a changed amount": (
        [f"UPDATE ledger_entry SET amount = 6 WHERE {ANNS} AND seq = 2"],
        [
            f"{entry(2, IDS[1])}: +10 and +6 make 16, not 15",
            f"{entry(2, IDS[1])}, made at 2026-05-02 08:00:00 UTC: its link does not follow",
            f"transfer {IDS[1]} sums to 1 points instead of 0",
        ],
    ),
    "a changed amount and balances": (
        [
            f"UPDATE ledger_entry SET amount = amount + 1 WHERE {ANNS} AND seq = 1",
            f"UPDATE ledger_entry SET balance_after = balance_after + 1 WHERE {ANNS}",
            f"UPDATE ledger_account SET balance = balance + 1 WHERE {ANNS}",
            "UPDATE points_lot SET amount = 11 WHERE lot_id = {id0}",
            'UPDATE points_lot SET "left" = "left" + 1 WHERE lot_id = {id0}',
            "UPDATE ledger_entry SET amount = -11, balance_after = -11 WHERE holder_id = {source} AND seq = 1",
        ],
        [f"{entry(1, IDS[0])}, made at 2026-05-01 08:00:00 UTC: its link does not follow", f"{entry(5, HELD)}"],
    ),
    "a removed entry": (
        [f"DELETE FROM ledger_entry WHERE {ANNS} AND seq = 3"],
        [f"entries 3 to 3 of account {ANN_} are missing", f"transfer {IDS[2]} sums to 3 points instead of 0"],
    ),
    "a removed entry, the gap closed": (
        [
            f"DELETE FROM ledger_entry WHERE {ANNS} AND seq = 3",
            f"UPDATE ledger_entry SET seq = 3 WHERE {ANNS} AND seq = 4",
        ],
        [f"{entry(3, IDS[3])}: +15 and -2 make 13, not 10", "its link does not follow"],
    ),
    "the last entry removed": (
        [f"DELETE FROM ledger_entry WHERE {ANNS} AND seq = 5"],
        [
            f"account {ANN_} says 5 entries, and the last one is 4",
            f"account {ANN_}: balance 6, entries sum to 10",
            f"transfer {HELD} sums to 4 points instead of 0",
        ],
    ),
    "the last entry removed, the account set back": (
        [
            f"DELETE FROM ledger_entry WHERE {ANNS} AND seq = 5",
            f"UPDATE ledger_account SET balance = 10, seq = 4 WHERE {ANNS}",
        ],
        [f"account {ANN_}: its head is not the link of entry 4", f"transfer {HELD} sums to 4 points instead of 0"],
    ),
    "the first entry removed": (
        [f"DELETE FROM ledger_entry WHERE {ANNS} AND seq = 1"],
        [f"entries 1 to 1 of account {ANN_} are missing", f"transfer {IDS[0]} sums to -10 points instead of 0"],
    ),
    "all entries removed": (
        ["DELETE FROM ledger_entry"],
        [f"account {ANN_} has no entries, and says balance 6, seq 5", f"transfer {IDS[0]} has no entries"],
    ),
    "a forged link": (
        [f"UPDATE ledger_entry SET link = {{zeros}} WHERE {ANNS} AND seq = 3"],
        [f"{entry(3, IDS[2])}, made at 2026-05-03 08:00:00 UTC: its link does not follow"],
    ),
    "a forged last link": (
        [f"UPDATE ledger_entry SET link = {{zeros}} WHERE {ANNS} AND seq = 5"],
        [f"{entry(5, HELD)}, made at 2026-05-05 08:00:00 UTC: its link does not follow"],
    ),
    "a forged head": (
        [f"UPDATE ledger_account SET head = {{zeros}} WHERE {ANNS}"],
        [f"account {ANN_}: its head is not the link of entry 5"],
    ),
    "a changed moment": (
        [f"UPDATE ledger_entry SET at = '2026-05-03 09:00:00.000000' WHERE {ANNS} AND seq = 3"],
        [f"{entry(3, IDS[2])}, made at", f"transfer {IDS[2]} and its entries tell different times"],
    ),
    "a wrong balance": (
        [f"UPDATE ledger_account SET balance = balance + 1 WHERE {ANNS}"],
        [f"account {ANN_}: balance 7, entries sum to 6"],
    ),
    "a removed account": (
        [f"DELETE FROM ledger_account WHERE {ANNS}"],
        [f"entries of account {ANN_}, which is missing"],
    ),
    "an account from nowhere": (
        [
            "INSERT INTO ledger_account (holder_id, asset, purpose, balance, seq, head)"
            " VALUES ({ann}, 'mb', 'available', 9, 0, {zeros})"
        ],
        [f"account {ANN.holder_id} mb available has no entries, and says balance 9, seq 0"],
    ),
    "a debt of nothing": (
        [f"UPDATE ledger_account SET floor = -9, balance = -9 WHERE {ANNS}"],
        [f"account {ANN_}: balance -9, entries sum to 6"],
    ),
    "a lowered floor": (
        [f"UPDATE ledger_account SET floor = -100000 WHERE {ANNS}"],
        [f"account {ANN_}: balance 6, floor -100000 instead of 0"],
    ),
    "an issuance's raised floor": (
        ["UPDATE ledger_account SET floor = -900000 WHERE purpose = 'issuance'"],
        ["points issuance: balance -15, floor -900000 instead of -1000000000000000000"],
    ),
    "a removed transfer record": (
        ["DELETE FROM ledger_transfer WHERE transfer_id = {id3}"],
        [f"entries of transfer {IDS[3]}, which is missing"],
    ),
    "a changed reason": (
        ["UPDATE ledger_transfer SET reason = 'gift' WHERE transfer_id = {id2}"],
        [f"transfer {IDS[2]}: its record was changed"],
    ),
    "a changed fingerprint": (
        ["UPDATE ledger_transfer SET fingerprint = {zeros} WHERE transfer_id = {id2}"],
        [f"transfer {IDS[2]}: its record was changed"],
    ),
    "a transfer from nowhere": (
        [
            "INSERT INTO ledger_transfer (transfer_id, fingerprint, reason, at, seal)"
            " VALUES ({ann}, {zeros}, 'x', '2026-05-03 09:00:00.000000', {zeros})"
        ],
        [f"transfer {ANN.holder_id} has no entries", f"transfer {ANN.holder_id}: its record was changed"],
    ),
    "a changed undoing": (
        ["UPDATE ledger_transfer SET undoes = {id0} WHERE transfer_id = {id2}"],
        [f"transfer {IDS[2]}: its record was changed"],
    ),
    "a lot that does not add up": (
        ['UPDATE points_lot SET "left" = 5 WHERE lot_id = {id0}'],
        [f"{lot(IDS[0])}: it has 5 left instead of 1"],
    ),
    "points moved from lot to lot": (
        [
            'UPDATE points_lot SET "left" = 0 WHERE lot_id = {id0}',
            'UPDATE points_lot SET amount = 6, "left" = 6 WHERE lot_id = {id1}',
        ],
        [
            f"{lot(IDS[0])}: it has 0 left instead of 1",
            f"{lot(IDS[1])} is not of the 5 points that came in, or of their moment",
        ],
    ),
    "a lot of another day": (
        ["UPDATE points_lot SET earned_at = '2026-05-03 09:00:00.000000' WHERE lot_id = {id1}"],
        [f"{lot(IDS[1])} is not of the 5 points that came in, or of their moment"],
    ),
    "a lot that lives for ever": (
        ["UPDATE points_lot SET expires_at = NULL WHERE lot_id = {id0}"],
        [f"points of member {ANN.holder_id}, lot {IDS[0]}: they expire when its transfer does not say"],
    ),
    "a lot that lives longer": (
        ["UPDATE points_lot SET expires_at = '2036-06-10 08:00:00.000000' WHERE lot_id = {id0}"],
        [f"points of member {ANN.holder_id}, lot {IDS[0]}: they expire when its transfer does not say"],
    ),
    "a transfer whose lots live longer": (
        [
            "UPDATE points_lot SET expires_at = '2036-06-10 08:00:00.000000' WHERE lot_id = {id0}",
            "UPDATE ledger_transfer SET lots_expire_at = '2036-06-10 08:00:00.000000' WHERE transfer_id = {id0}",
        ],
        [f"transfer {IDS[0]}: its record was changed"],
    ),
    "a removed lot": (
        ["DELETE FROM points_lot WHERE lot_id = {id0}"],
        [f"{lot(IDS[0])} is missing"],
    ),
    "a lot from nowhere": (
        [
            'INSERT INTO points_lot (member_id, lot_id, amount, "left", earned_at)'
            " VALUES ({ann}, {held}, 9, 0, '2026-05-03 09:00:00.000000')"
        ],
        [f"{lot(HELD)}: no entry brought it"],
    ),
    "a lot of nobody": (
        [
            'INSERT INTO points_lot (member_id, lot_id, amount, "left", earned_at)'
            " VALUES ({id4}, {id0}, 9, 9, '2026-05-03 09:00:00.000000')"
        ],
        [f"points lot {IDS[0]} of member {IDS[4]}: no entry brought it"],
    ),
    "a removed use": (
        ["DELETE FROM points_lot_use WHERE transfer_id = {id3}"],
        [f"{lot(IDS[0])}: transfer {IDS[3]} took 0 of it, less 0 that came back, instead of 2 less 0"],
    ),
    "a use of another lot": (
        [
            'UPDATE points_lot SET "left" = "left" + 2 WHERE lot_id = {id0}',
            "UPDATE points_lot_use SET lot_id = {id1} WHERE transfer_id = {id3}",
            'UPDATE points_lot SET "left" = "left" - 2 WHERE lot_id = {id1}',
        ],
        [
            f"{lot(IDS[0])}: it has 3 left instead of 1",
            f"{lot(IDS[1])}: transfer {IDS[3]} took 2 of it, less 0 that came back, instead of 0 less 0",
            f"{lot(IDS[0])}: transfer {IDS[3]} took 0 of it, less 0 that came back, instead of 2 less 0",
        ],
    ),
    "a use that came back": (
        [
            'UPDATE points_lot SET "left" = "left" + 2 WHERE lot_id = {id0}',
            "UPDATE points_lot_use SET returned = 2 WHERE transfer_id = {id3}",
        ],
        [f"{lot(IDS[0])}: transfer {IDS[3]} took 2 of it, less 2 that came back, instead of 2 less 0"],
    ),
    "a hold that was closed by hand": (
        ["UPDATE ledger_hold SET state = 'posted', resolved_at = made_at WHERE transfer_id = {held}"],
        [
            f"held account of {ANN.holder_id}, points: holds +4 more than its pending holds took",
            f"hold {HELD}: it is posted, and nothing closed it",
        ],
    ),
    "a hold that pays somebody else": (
        [f"UPDATE ledger_hold SET legs = replace(legs, '{GONE.holder_id}', '{BEN.holder_id}')"],
        [f"hold {HELD}: its legs were changed"],
    ),
    "a hold of nonsense": (["UPDATE ledger_hold SET legs = '[1]'"], [f"hold {HELD}: its legs were changed"]),
    "holds of nothing": (["UPDATE ledger_hold SET legs = '[]'"], [f"hold {POSTED}: its legs were changed"]),
    "a hold that lasts longer": (
        ["UPDATE ledger_hold SET expires_at = '2027-05-01 08:00:00.000000' WHERE transfer_id = {held}"],
        [f"hold {HELD}: its reason or one of its times was changed"],
    ),
    "a hold of points that live longer": (
        ["UPDATE ledger_hold SET lots_expire_at = '2099-01-01 00:00:00.000000' WHERE transfer_id = {held}"],
        [f"hold {HELD}: its reason or one of its times was changed"],
    ),
    "a settled hold called off": (
        ["UPDATE ledger_hold SET state = 'voided' WHERE transfer_id = {posted}"],
        [f"hold {POSTED}: it is voided, and went another way"],
    ),
    "a released hold settled": (
        ["UPDATE ledger_hold SET state = 'posted' WHERE transfer_id = {voided}"],
        [f"hold {VOIDED}: it is posted, and went another way"],
    ),
    "a released hold that expired": (
        ["UPDATE ledger_hold SET state = 'expired' WHERE transfer_id = {voided}"],
        [f"hold {VOIDED}: it is expired, and went another way"],
    ),
    "a hold settled at another time": (
        ["UPDATE ledger_hold SET resolved_at = made_at WHERE transfer_id = {posted}"],
        [f"hold {POSTED}: it is posted, and went another way"],
    ),
    "a settled hold opened again": (
        ["UPDATE ledger_hold SET state = 'pending', resolved_at = NULL WHERE transfer_id = {posted}"],
        [f"hold {POSTED}: it is pending, and was closed"],
    ),
    "removed holds": (
        ["DELETE FROM ledger_hold WHERE state <> 'pending'"],
        [f"hold {POSTED} is missing", f"hold {VOIDED} is missing"],
    ),
}


async def test_untouched_books_are_sound(database: Database) -> None:
    await fill(database)
    assert await report(database) == LedgerReport(accounts=9, transfers=10, entries=20, faults=())


async def test_verification_finds_whatever_was_tampered_with(database: Database, subtests: pytest.Subtests) -> None:
    await fill(database)
    for case, (_, complaints) in CASES.items():
        found = await faults_after(database, case)
        for complaint in complaints:
            with subtests.test(case, complaint=complaint):
                assert [fault for fault in found if complaint in fault], found


async def test_one_change_is_one_fault(database: Database, subtests: pytest.Subtests) -> None:
    await fill(database)
    for case in (
        "a forged link",
        "a forged last link",
        "a forged head",
        "a removed transfer record",
        "a changed reason",
    ):
        with subtests.test(case):
            assert await faults_after(database, case) == CASES[case][1]


@pytest.mark.parametrize("case", ["a changed amount", "a lot that does not add up"])
async def test_what_was_tampered_with_before_is_found_too(database: Database, case: str) -> None:
    await fill(database)
    await tamper(database, CASES[case][0])
    found = await report(database)
    for complaint in CASES[case][1]:
        assert [fault for fault in found.faults if complaint in fault]


async def test_one_connection_is_enough(database_url: str) -> None:
    database = Database(database_url, 1)
    await fill(database)
    assert (await report(database)).faults == ()
    await database.close()


@pytest.mark.parametrize("rows_a_page", [1, 2, 3])
async def test_pages_end_anywhere(database: Database, monkeypatch: pytest.MonkeyPatch, rows_a_page: int) -> None:
    await fill(database)
    monkeypatch.setattr(reading, "PAGE_ROWS", rows_a_page)
    heard: list[int] = []
    async with database.reading() as session:
        found = await ledger.verify(session, [days(2)], heard.append)
        assert await audit.count(session) == sum(heard) == 20
    assert found.faults == ()
    assert (found.histories[0].entries, found.histories[0].transfers) == (4, 2)
    await tamper(database, CASES["a forged link"][0])
    assert list((await report(database)).faults) == CASES["a forged link"][1]


async def history(database: Database, before: float) -> History:
    async with database.reading() as session:
        return (await ledger.verify(session, [days(before)])).histories[0]


async def test_a_history_stays_the_same_while_the_ledger_grows(database: Database) -> None:
    await fill(database)
    kept = await history(database, 3.5)
    assert (kept.entries, kept.transfers) == (8, 4)
    await post(database, transfer((SOURCE, -1), (ANN, 1)), days(5))
    assert kept.differences(await history(database, 3.5)) == []


async def test_a_slow_clock_is_named_as_what_may_have_added_to_a_history(database: Database) -> None:
    await fill(database)
    kept = await history(database, 3.5)
    await post(database, transfer((SOURCE, -1), (ANN, 1)), days(3.4))
    entries, transfers = kept.differences(await history(database, 3.5))
    assert "10 instead of 8, or altered; or made since, by a server whose clock" in entries
    assert "5 instead of 4, or altered" in transfers


@pytest.mark.parametrize("moment", [3, 3 + 1e-9])
async def test_what_happens_at_the_moment_itself_is_not_yet_history(database: Database, moment: float) -> None:
    await fill(database)
    assert (await history(database, moment)).entries == (6 if moment == 3 else 8)


async def test_a_consistently_rewritten_history_is_found_by_a_report_kept_elsewhere(database: Database) -> None:
    await post(database, transfer((SOURCE, -10), (ANN, 10), transfer_id=IDS[0]))
    kept = await history(database, 1)
    # The thief makes it 9 points, and everything else to match.
    links = {}
    for account, amount in ((SOURCE, -9), (ANN, 9)):
        start = chain.genesis(account.holder_id, account.asset, account.purpose)
        links[account] = chain.link(start, IDS[0], amount, amount, 1, NOW).hex()
    on_postgresql = database.engine.dialect.name == "postgresql"

    def changes(account: ledger.AccountId, amount: int) -> list[str]:
        link = f"'\\x{links[account]}'::bytea" if on_postgresql else f"x'{links[account]}'"
        where = f"WHERE holder_id = {'{source}' if account == SOURCE else '{ann}'}"
        return [
            f"UPDATE ledger_entry SET amount = {amount}, balance_after = {amount}, link = {link} {where}",
            f"UPDATE ledger_account SET balance = {amount}, head = {link} {where}",
        ]

    await tamper(database, [*changes(SOURCE, -9), *changes(ANN, 9), 'UPDATE points_lot SET amount = 9, "left" = 9'])
    assert (await report(database)).faults == ()
    faults = kept.differences(await history(database, 1))
    assert faults == [
        "the entries before 2026-05-02 08:00:00 UTC are not those of the report: 2 instead of 2, or altered"
    ]


async def test_a_transfer_removed_without_a_trace_is_found_by_a_report_kept_elsewhere(database: Database) -> None:
    await post(database, transfer((SOURCE, -10), (ANN, 10), transfer_id=IDS[0]))
    kept = await history(database, 1)
    tables = ("ledger_entry", "ledger_account", "ledger_transfer", "points_lot")
    await tamper(database, [f"DELETE FROM {table}" for table in tables])
    assert await report(database) == LedgerReport(0, 0, 0, ())
    assert len(kept.differences(await history(database, 1))) == 2


def test_a_report_is_read_as_it_was_written() -> None:
    kept = History(NOW + timedelta(microseconds=1), 5, bytes(range(32)), 3, bytes(32))
    assert History.read(kept.write()) == kept
    assert kept.differences(replace(kept)) == []
    assert len(kept.differences(replace(kept, entries=4, seals_sha256=bytes(31) + b"\1"))) == 2


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": "fanxing/ledger-history/v1"}', "[" * 100_000])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(HistoryInvalid):
        History.read(text)
