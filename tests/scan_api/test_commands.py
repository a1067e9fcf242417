"""The `fanxing` command: what every subcommand answers to people and machines, and what it refuses.

Run inside this process, where a process of its own would add seconds of imports and nothing else.
"""

import csv
import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import Result
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from sqlmodel import Session, SQLModel, func, select

import signer.custody.file
from kit.db import driver_url
from offline_sdk.verifier import Verifier
from tests.cli import invoke
from tests.stand import GTIN, PREFIX
from tests.trusting import trusted

BASE_URL = "https://id.example.cn"
QUANTITY_MAX = 10**9
STARTS, ENDS = (f"{datetime.now(UTC) + timedelta(days):%Y-%m-%d}" for days in (-10, 100))
CAMPAIGN = (
    "campaign create --brand ice --title-zh 夏 --title-en Summer --face inner --prize points --amount 10 --budget 100 "
    f"--starts {STARTS} --ends {ENDS}"
)

# What a command says before it asks the database anything is the same on both.
ON_SQLITE = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)


@dataclass
class Terminal:
    """The command in a data folder of its own."""

    home: Path
    database_url: str
    settings: dict[str, str] = field(default_factory=dict)

    def run(self, line: str) -> Result:
        environment = {
            "FANXING_HOME": str(self.home),
            "FANXING_DATABASE_URL": self.database_url,
            "FANXING_BASE_URL": BASE_URL,
            **self.settings,
        }
        try:
            return invoke(line, environment)
        finally:
            structlog.reset_defaults()  # `serve` sets logging up, to a standard error that is closed by now

    def ask(self, line: str) -> Any:
        """What the command answers to a machine when all is well."""
        done = self.run(f"{line} --json")
        assert done.exit_code == 0, done.output + repr(done.exception)
        return json.loads(done.stdout)

    def refusal(self, line: str) -> str:
        """The stable code with which the command refuses."""
        done = self.run(f"{line} --json")
        assert done.exit_code == 1, done.output + repr(done.exception)
        refused = json.loads(done.stdout)["error"]
        assert refused["message"]
        return str(refused["code"])

    def rows(self) -> dict[str, int]:
        """The number of rows of every table."""
        url = driver_url(self.database_url).replace("+aiosqlite", "")
        engine = create_engine(url, poolclass=NullPool)
        with Session(engine) as session:
            return {
                table.name: session.exec(select(func.count()).select_from(table)).one()
                for table in SQLModel.metadata.sorted_tables
            }


@pytest.fixture
def bare(tmp_path: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Nothing is set up yet."""
    # The same Argon2id at a cost that tests of something else can pay many times.
    monkeypatch.setattr(signer.custody.file, "_PASSES", 1)
    monkeypatch.setattr(signer.custody.file, "_MEMORY_KIB", 64)
    return Terminal(tmp_path / "home", empty_database_url)


_SHOPS = pytest.StashKey[dict[str, Terminal]]()
"""By dialect: set up once, since migrations and key files cost more than most tests that begin with them."""


@pytest.fixture
def shop(bare: Terminal, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """An issuer, a brand and a product, as a brand sets itself up."""
    made = request.config.stash.setdefault(_SHOPS, {})
    dialect = make_url(bare.database_url).drivername
    if dialect == "sqlite":
        if dialect not in made:
            folder = tmp_path_factory.mktemp("shop")
            made[dialect] = set_up(Terminal(folder / "home", f"sqlite:///{folder / 'shop.db'}"))
        shutil.copyfile(_database_of(made[dialect]), _database_of(bare))
    else:
        server = request.getfixturevalue("postgres_server")
        if dialect not in made:
            made[dialect] = set_up(Terminal(tmp_path_factory.mktemp("shop") / "home", server.url(server.create())))
        server.replace(_database_of(bare), _database_of(made[dialect]))
    shutil.copytree(made[dialect].home, bare.home)
    return bare


def _database_of(terminal: Terminal) -> str:
    name = make_url(terminal.database_url).database
    assert name is not None
    return name


def set_up(terminal: Terminal) -> Terminal:
    """Give an empty installation an issuer, a brand and a product."""
    terminal.ask("init --make-passphrase")
    terminal.ask(f"issuer create --gtin-prefix {PREFIX} --name 'Example Ice'")
    terminal.ask("brand create --slug ice --group group --name-zh 例冰 --name-en Ice --issuer 'Example Ice'")
    terminal.ask(f"product create --brand ice --gtin {GTIN} --name-zh 绿豆冰 --name-en 'Mung Bean Ice'")
    return terminal


def _order(terminal: Terminal, quantity: int = 20, more: str = "") -> Any:
    return terminal.ask(f"order create --gtin {GTIN} --quantity {quantity} --face outer --face inner {more}")


def test_setting_up_makes_what_is_missing_and_nothing_twice(bare: Terminal) -> None:
    first, again = bare.ask("init --make-passphrase"), bare.ask("init --make-passphrase")
    assert len(first["made"]) == 4
    assert again["made"] == []
    assert bare.rows()["trust_bundle"] == 0
    for secret in ("vault.key", "signer.passphrase"):
        assert (bare.home / secret).stat().st_mode & 0o777 == 0o600


@ON_SQLITE
def test_a_lost_pin_is_made_again_from_the_first_root(bare: Terminal) -> None:
    bare.ask("init --make-passphrase")
    before = (bare.home / "root.pin").read_bytes()
    (bare.home / "root.pin").unlink()
    assert bare.ask("init")["made"] == [str(bare.home / "root.pin")]
    assert (bare.home / "root.pin").read_bytes() == before


@ON_SQLITE
def test_every_list_shows_what_was_registered(shop: Terminal) -> None:
    assert [row["issuer"] for row in shop.ask("issuer list")] == ["Example Ice"]
    assert [(row["kid"], row["state"]) for row in shop.ask("key list")] == [(1, "active")]
    assert [row["brand"] for row in shop.ask("brand list")] == ["ice"]
    assert [row["gtin"] for row in shop.ask("product list")] == [GTIN]
    assert shop.ask("order list") == shop.ask("api-key list") == shop.ask("campaign list --brand ice") == []
    assert shop.ask("ledger verify") == {"accounts": 0, "transfers": 0, "entries": 0}
    for line in ("issuer list", "key list", "brand list", "product list", "order list", "ledger verify"):
        assert shop.run(line).exit_code == 0


def test_order_from_a_dry_run_to_codes_that_scanners_take(shop: Terminal, tmp_path: Path) -> None:
    before = shop.rows()
    plan = _order(shop, more="--export csv --dry-run")
    assert (plan["dry_run"], plan["order"], plan["quantity"]) == (True, 1, 20)
    assert shop.rows() == before
    assert not (shop.home / "orders").exists()

    placed = _order(shop, more=f"--export csv --out {tmp_path / 'first'}")
    assert (placed["order"], placed["state"]) == (1, "dormant")
    rows = list(csv.DictReader((tmp_path / "first" / "inner.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 20
    again = shop.ask(f"order export --gtin {GTIN} --order 1 --export csv --workers 1 --out {tmp_path / 'again'}")
    assert len(again["files"]) == 3  # two faces and the manifest
    for face in ("outer.csv", "inner.csv"):
        assert (tmp_path / "first" / face).read_bytes() == (tmp_path / "again" / face).read_bytes()

    bundle = tmp_path / "bundle.cbor"
    shop.ask(f"bundle export --out {bundle}")
    verifier = Verifier(trusted(bundle.read_bytes(), shop.home / "root.pin"))
    assert all(verifier.check(row["code_text"]).is_genuine for row in rows)
    serial = rows[0]["serial"]
    assert shop.ask(f"revoke --gtin {GTIN} --serial {serial}")["dry_run"] is True
    assert shop.ask(f"revoke --gtin {GTIN} --order 1")["items_refused"] == 20
    would = shop.ask("key revoke 1")
    assert (would["dry_run"], would["orders_refused"], would["codes_refused"]) == (True, 1, 40)
    assert shop.ask("bundle show")["seq"] == 1
    revoked = shop.ask(f"revoke --gtin {GTIN} --serial {serial} --reason stolen --yes")
    assert revoked["bundle_seq"] == 2
    assert shop.ask("bundle show")["seq"] == 2
    assert shop.ask("bundle publish --days 7")["bundle_seq"] == 3
    shop.ask(f"bundle export --out {bundle}")
    verifier = Verifier(trusted(bundle.read_bytes(), shop.home / "root.pin"))
    assert [verifier.check(row["code_text"]).error for row in rows[:2]] == ["Revoked", None]


def test_order_on_sale_and_recalled(shop: Terminal) -> None:
    _order(shop)
    which = f"--gtin {GTIN} --order 1"
    assert shop.ask(f"order activate {which}")["state"] == "active"
    assert shop.ask(f"order activate {which}")["state"] == "active"
    before = shop.rows()
    told = shop.ask(f"order recall {which} --reason glass")
    assert (told["dry_run"], told["state"]) == (True, "active")
    assert shop.rows() == before
    assert shop.ask(f"order recall {which} --reason glass --yes")["state"] == "recalled"
    assert shop.refusal(f"order activate {which}") == "OrderStateForbids"
    assert [row["state"] for row in shop.ask("order list --brand ice")] == ["recalled"]


def test_keys_are_created_rotated_and_revoked(shop: Terminal) -> None:
    made = shop.ask("key create --order-min 1 --order-max 50 --issuer 'Example Ice'")
    assert made["kid"] == 2
    rotated = shop.ask("key rotate --issuer 'Example Ice'")
    assert (rotated["retired"], rotated["kid"]) == (2, 3)
    before = shop.rows()
    assert shop.ask("key revoke 1")["dry_run"] is True
    assert [row["state"] for row in shop.ask("key list")] == ["active", "retired", "active"]
    assert shop.rows() == before
    assert shop.ask("key revoke 1 --yes")["state"] == "revoked"
    assert [row["state"] for row in shop.ask("key list")] == ["revoked", "retired", "active"]


def test_campaign_is_tried_made_paused_and_resumed(shop: Terminal) -> None:
    before = shop.rows()
    assert shop.ask(f"{CAMPAIGN} --dry-run")["prizes"][0]["grants_at_most"] == 10
    assert shop.rows() == before
    made = shop.ask(CAMPAIGN)
    [listed] = shop.ask("campaign list --brand ice")
    assert (listed["campaign_id"], listed["budget_left"]) == (made["campaign_id"], [100])
    assert shop.ask(f"campaign pause {made['campaign_id']}")["status"] == "paused"
    assert shop.ask(f"campaign resume {made['campaign_id']}")["status"] == "active"
    assert shop.ask("ledger verify")["transfers"] == 1


@ON_SQLITE
def test_api_key_is_shown_once_and_can_be_ended(shop: Terminal) -> None:
    made = shop.ask("api-key create --role shop --brand ice --label 'Till 1'")
    [listed] = shop.ask("api-key list")
    assert listed["key_id"] == made["key_id"]
    assert made["api_key"] not in json.dumps(listed)
    assert shop.ask(f"api-key revoke {made['key_id']}")["revoked_at"]
    assert shop.ask("api-key list")[0]["revoked_at"]


REFUSED = {
    f"order create --gtin {GTIN} --quantity 0 --face outer": "QuantityOutOfRange",
    f"order create --gtin {GTIN} --quantity -1 --face outer": "QuantityOutOfRange",
    f"order create --gtin {GTIN} --quantity {QUANTITY_MAX + 1} --face outer": "QuantityOutOfRange",
    f"order create --gtin {GTIN} --quantity {QUANTITY_MAX + 1} --face outer --dry-run": "QuantityOutOfRange",
    f"order create --gtin {GTIN} --quantity 5 --face outer --face outer": "FacesInvalid",
    f"order create --gtin {GTIN} --quantity 5 --face outer --base-url Http://x": "BaseUrlInvalid",
    "order create --gtin 9506000134353 --quantity 5 --face outer": "GtinInvalid",
    "order create --gtin 9506000134352 --quantity 5 --face outer": "ProductUnknown",
    f"order activate --gtin {GTIN} --order 7": "OrderUnknown",
    f"order recall --gtin {GTIN} --order 7 --reason x --yes": "OrderUnknown",
    f"order export --gtin {GTIN} --order 7": "OrderUnknown",
    "order list --brand nobody": "BrandUnknown",
    "issuer create --name B --gtin-prefix 95060001": "IssuerExists",
    "issuer create --name B --gtin-prefix 12": "IssuerInvalid",
    "brand create --slug ICE --issuer A --group g --name-zh x --name-en x": "IssuerUnknown",
    "product create --brand ice --gtin 6901234567892 --name-zh x --name-en x": "GtinOutsidePrefixes",
    f"product create --brand ice --gtin {GTIN} --name-zh x --name-en x": "ProductExists",
    "product create --brand nobody --gtin 9506000134352 --name-zh x --name-en x": "BrandUnknown",
    "key rotate --issuer nobody": "IssuerUnknown",
    "key revoke 99 --yes": "SigningKeyUnknown",
    f"revoke --gtin {GTIN}": "RevokeWhat",
    f"revoke --gtin {GTIN} --serial 1 --reason x --yes": "RevocationInvalid",
    "api-key create --role shop --label x": "ApiKeyInvalid",
    "api-key revoke 0000": "ApiKeyUnknown",
    CAMPAIGN.replace("--budget 100", "--budget 95"): "CampaignInvalid",
    CAMPAIGN.replace("--amount 10", "--amount 0"): "CampaignInvalid",
    CAMPAIGN.replace(ENDS, "2025-01-01"): "CampaignInvalid",
    f"{CAMPAIGN} --dry-run".replace(ENDS, "2025-01-01"): "CampaignInvalid",
    "campaign list --brand nobody": "BrandUnknown",
    "campaign pause 00000000-0000-0000-0000-000000000000": "CampaignUnknown",
}


def test_refusals_have_their_codes_and_change_nothing(shop: Terminal) -> None:
    before = shop.rows()
    assert {line: shop.refusal(line) for line in REFUSED} == REFUSED
    assert shop.rows() == before


@ON_SQLITE
def test_greatest_order_is_one_row(shop: Terminal) -> None:
    assert _order(shop, QUANTITY_MAX)["quantity"] == QUANTITY_MAX
    assert shop.rows()["code_order"] == 1


@ON_SQLITE
def test_refusal_is_told_to_people_with_what_to_do(shop: Terminal) -> None:
    done = shop.run("order list --brand nobody")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "BrandUnknown" in done.stderr
    assert "fanxing brand list" in done.stderr


def test_database_that_was_not_set_up_is_refused_with_a_code(bare: Terminal) -> None:
    bare.home.mkdir()
    assert bare.refusal("brand list") == "DatabaseRefused"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FANXING_PORT", "0"),
        ("FANXING_DATABASE_URL", "mysql://secret@host/db"),
        ("FANXING_BASE_URL", "https://EXAMPLE.cn/"),
        ("FANXING_LOG_LEVEL", "LOUD"),
        ("FANXING_CODE_SENDER", "pigeon"),
    ],
)
def test_wrong_configuration_names_its_variable(tmp_path: Path, variable: str, value: str) -> None:
    terminal = Terminal(tmp_path, f"sqlite:///{tmp_path / 'x.db'}", {variable: value})
    done = terminal.run("brand list --json")
    assert done.exit_code == 1
    refused = json.loads(done.stdout)["error"]
    assert refused["code"] == "ConfigurationError"
    assert variable in refused["message"]
    assert "secret" not in done.output


@pytest.mark.parametrize(
    ("lost", "line", "variable"),
    [
        ("vault.key", f"order create --gtin {GTIN} --quantity 5 --face outer", "FANXING_VAULT_KEY_FILE"),
        ("signer.passphrase", "bundle publish", "FANXING_SIGNER_PASSPHRASE_FILE"),
        ("root.pin", "bundle publish", "FANXING_HOME"),
        ("vault.key", "serve", "FANXING_VAULT_KEY_FILE"),
        ("root.pin", "serve", "FANXING_HOME"),
    ],
)
@ON_SQLITE
def test_lost_file_is_named_by_its_variable(shop: Terminal, lost: str, line: str, variable: str) -> None:
    (shop.home / lost).unlink()
    before = shop.rows()
    done = shop.run(line)
    assert done.exit_code == 1
    assert variable in done.stderr
    assert shop.rows() == before


@ON_SQLITE
def test_wrong_passphrase_costs_no_order_number(shop: Terminal) -> None:
    (shop.home / "signer.passphrase").write_text("another passphrase\n", encoding="utf-8")
    before = shop.rows()
    line = f"order create --gtin {GTIN} --quantity 5 --face outer --export csv"
    assert shop.refusal(line) == "CustodyError"
    assert shop.rows() == before
    assert not (shop.home / "orders").exists()


def test_help_names_every_command() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    for name in ("init", "serve", "demo", "order", "campaign", "revoke", "ledger"):
        assert name in done.stdout


@ON_SQLITE
@pytest.mark.parametrize("text", ["[/]", "[bold]x", "[/red]"])
def test_text_of_callers_is_shown_as_it_is(shop: Terminal, text: str) -> None:
    done = shop.run(f"key rotate --issuer '{text}'")
    assert done.exit_code == 1
    assert text in done.stderr
