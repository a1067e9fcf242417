"""`fanxing ledger`: the audit, the report that is kept elsewhere, a look into the books, the policy of a group."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import Result

from codes.catalogue import BrandGroup
from kit.clock import system_clock
from kit.db import Database
from loyalty import ledger
from loyalty.ledger import History
from scan_api.commands import ledger as commands
from tests.cli import invoke
from tests.loyalty.ledger.model import ANN, BEN, SOURCE, transfer
from tests.loyalty.ledger.test_audit import tamper

AN_HOUR_AGO = system_clock() - timedelta(hours=1)


@dataclass
class Office:
    """The command on a ledger with two transfers of an hour ago."""

    home: Path
    url: str
    ids: tuple[str, str]

    def run(self, line: str) -> Result:
        environment = {"FANXING_HOME": str(self.home), "FANXING_DATABASE_URL": self.url}
        try:
            return invoke(f"ledger {line}", environment)
        finally:
            structlog.reset_defaults()

    def ask(self, line: str) -> Any:
        done = self.run(f"{line} --json")
        assert done.exit_code == 0, done.output + repr(done.exception)
        return json.loads(done.stdout)

    def refusal(self, line: str) -> dict[str, str]:
        done = self.run(f"{line} --json")
        assert done.exit_code == 1, done.output + repr(done.exception)
        refused: dict[str, str] = json.loads(done.stdout)["error"]
        return refused

    def within(self, work: Callable[[Database], Awaitable[None]]) -> None:
        async def do() -> None:
            database = Database(self.url)
            await work(database)
            await database.close()

        asyncio.run(do())


@pytest.fixture
def office(database_url: str, tmp_path: Path) -> Office:
    made = [transfer((SOURCE, -10), (ANN, 10)), transfer((ANN, -3), (BEN, 3))]

    async def fill(database: Database) -> None:
        async with database.writing() as session:
            session.add(BrandGroup(name="ice"))
            for one in made:
                await ledger.post(session, one, AN_HOUR_AGO)

    opened = Office(tmp_path, database_url, (str(made[0].transfer_id), str(made[1].transfer_id)))
    opened.within(fill)
    return opened


def test_sound_books_are_counted(office: Office) -> None:
    assert office.ask("verify") == {"accounts": 3, "transfers": 2, "entries": 4}
    assert "The books balance: 3 accounts, 2 transfers, 4 entries." in office.run("verify").output


def test_broken_books_are_refused_with_every_fault(office: Office) -> None:
    office.within(lambda database: tamper(database, ["UPDATE ledger_account SET balance = 8 WHERE holder_id = {ann}"]))
    refused = office.refusal("verify")
    assert refused["code"] == "LedgerBroken"
    assert "balance 8, entries sum to 7" in refused["message"]


@pytest.mark.parametrize("entries", [1, 4, 5])
def test_long_work_shows_how_far_it_is(office: Office, monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(commands, "PROGRESS_FROM_ENTRIES", entries)
    done = office.run("verify --json")
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["done"] for line in told] == ([4] if entries <= 4 else [])
    assert ("Verifying" in office.run("verify").stderr) == (entries <= 4)


def test_a_report_is_saved_and_the_ledger_agrees_with_it_later(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "history.json"
    answer = office.ask(f"verify --save {file}")
    kept = History.read(file.read_text())
    assert (kept.entries, kept.transfers) == (4, 2)
    assert timedelta(minutes=4) < system_clock() - kept.before < timedelta(minutes=6)
    assert (answer["saved"], answer["entries"]) == (str(file), 4)

    async def go_on(database: Database) -> None:
        async with database.writing() as session:
            await ledger.post(session, transfer((ANN, -1), (BEN, 1)), system_clock())

    office.within(go_on)
    assert office.ask(f"verify --against {file}")["entries"] == 6
    both = office.run(f"verify --against {file} --save {file}")
    assert "is that of" in both.output
    assert "keep it elsewhere" in both.output


def test_a_history_without_one_of_its_transfers_does_not_pass(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "history.json"
    office.ask(f"verify --save {file}")
    tables = ("ledger_entry", "ledger_account", "ledger_transfer", "points_lot", "points_lot_use")
    office.within(lambda database: tamper(database, [f"DELETE FROM {table}" for table in tables]))  # noqa: S608
    assert office.ask("verify")["entries"] == 0
    assert "0 instead of 4" in office.refusal(f"verify --against {file}")["message"]
    # A ledger that does not agree is not made the new standard.
    before = file.read_text()
    assert office.refusal(f"verify --against {file} --save {file}")["code"] == "LedgerBroken"
    assert file.read_text() == before


@pytest.mark.parametrize("content", [b"{}", b"\xff", b" " * 5_000])
def test_what_is_no_report_is_refused(office: Office, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "history.json"
    file.write_bytes(content)
    assert office.refusal(f"verify --against {file}")["code"] in ("HistoryInvalid", "ArgumentInvalid")
    assert office.refusal(f"verify --against {tmp_path / 'none'}")["code"] == "FileRefused"


def test_a_holders_accounts_and_their_entries_are_shown_page_by_page(office: Office) -> None:
    accounts = office.ask(f"show --holder {ANN.holder_id}")
    assert accounts["accounts"] == [{"asset": "points", "purpose": "available", "balance": 7, "entries": 2}]
    line = f"show --holder {ANN.holder_id} --asset points"
    first = office.ask(f"{line} --limit 1")
    assert [(one["seq"], one["amount"], one["balance"]) for one in first["entries"]] == [(1, 10, 10)]
    assert first["after"] == 1
    rest = office.ask(f"{line} --limit 2 --after 1")
    assert [(one["seq"], one["amount"], one["transfer"]) for one in rest["entries"]] == [(2, -3, office.ids[1])]
    assert rest["after"] is None
    assert office.ids[1] in office.run(line).output
    assert "Nothing." in office.run(f"{line} --purpose held").output


def test_a_transfer_is_shown_with_its_legs(office: Office) -> None:
    shown = office.ask(f"show --transfer {office.ids[0]}")
    assert (shown["reason"], [one["amount"] for one in shown["entries"]]) == ("test", [-10, 10])
    assert office.refusal(f"show --transfer {ANN.holder_id}")["code"] == "TransferUnknown"


@pytest.mark.parametrize("line", ["show", "show --holder x", "show --transfer x", "show --holder x --transfer x"])
def test_a_look_needs_one_id(office: Office, line: str) -> None:
    assert office.run(line).exit_code == 2


def test_a_groups_policy_is_shown_and_changed(office: Office) -> None:
    assert office.ask("policy --group ice") == {"group": "ice", "lifetime_months": None, "debt_max_points": 0}
    assert office.ask("policy --group ice --months 12")["lifetime_months"] == 12
    assert office.ask("policy --group ice --debt 500") == {
        "group": "ice",
        "lifetime_months": 12,
        "debt_max_points": 500,
    }
    assert "live 12 months" in office.run("policy --group ice").output
    assert office.ask("policy --group ice --months 0")["lifetime_months"] is None
    assert office.refusal("policy --group ice --months 121")["code"] == "PolicyInvalid"
    assert office.refusal("policy --group none")["code"] == "GroupUnknown"


def test_what_is_due_expires(office: Office) -> None:
    async def make_due(database: Database) -> None:
        made = transfer((SOURCE, -5), (BEN, 5), lots_expire_at=AN_HOUR_AGO + timedelta(minutes=1))
        async with database.writing() as session:
            await ledger.post(session, made, AN_HOUR_AGO)
            await ledger.hold(session, transfer((ANN, -1), (BEN, 1)), AN_HOUR_AGO, AN_HOUR_AGO + timedelta(minutes=1))

    office.within(make_due)
    assert office.ask("expire --dry-run") == {"dry_run": True, "holds": 1, "members": 1}
    assert office.ask("expire") == {"holds": 1, "members": 1}
    assert office.ask("expire") == {"holds": 0, "members": 0}
    assert office.ask("verify")["transfers"] == 6
