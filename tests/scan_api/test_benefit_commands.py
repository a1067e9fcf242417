"""The `fanxing benefit` commands: catalogue, stock, prices, pools of codes, reports."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.scan_api.test_commands import ON_SQLITE, Terminal, bare, shop

__all__ = ["bare", "shop"]

STARTS, ENDS = (f"{datetime.now(UTC) + timedelta(days):%Y-%m-%d}" for days in (-10, 100))
COUPON = (
    "benefit create --brand ice --kind coupon --name-zh 券 --name-en Coupon --value-fen 500 --cost-fen 300 "
    f"--valid-days 30 --starts {STARTS} --ends {ENDS}"
)
POOL = (
    "benefit create --brand ice --kind pool --name-zh 券 --name-en Voucher --value-fen 1000 --cost-fen 900 "
    f"--valid-days 30 --starts {STARTS} --ends {ENDS}"
)


def test_a_benefit_from_catalogue_to_report(shop: Terminal) -> None:
    made = shop.ask(f"{COUPON} --price 0:100 --price 2:50 --stock 20")
    assert (made["prices"], made["left"], made["status"]) == (["0:100", "2:50"], 20, "active")
    benefit = made["benefit_id"]
    assert shop.ask(f"benefit stock {benefit} --add 5")["left"] == 25
    assert shop.ask(f"benefit stock {benefit} --remove 15")["left"] == 10
    assert shop.refusal(f"benefit stock {benefit} --remove 11") == "BenefitOutOfStock"
    assert shop.ask(f"benefit price {benefit} --price 1:80")["prices"] == ["1:80"]
    assert shop.ask(f"benefit pause {benefit}")["status"] == "paused"
    [listed] = shop.ask("benefit list --brand ice")
    assert (listed["status"], listed["prices"], listed["left"]) == ("paused", ["1:80"], 10)
    assert shop.ask(f"benefit resume {benefit}")["status"] == "active"
    counted = shop.ask(f"benefit report {benefit}")
    assert (counted["procured"], counted["stock"], counted["issued"]) == (10, 10, 0)
    assert shop.ask("ledger verify")


@ON_SQLITE
def test_a_dry_run_tells_the_worst_cost_and_changes_nothing(shop: Terminal) -> None:
    before = shop.rows()
    told = shop.ask(f"{COUPON} --price 0:100 --stock 1000 --dry-run")
    assert told == {"dry_run": True, "stock": 1000, "cost_fen_at_most": 300_000, "value_fen_at_most": 500_000}
    assert shop.rows() == before


@ON_SQLITE
@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ("--price 0:0", "BenefitSuspicious"),
        ("--price 0:10 --price 1:20", "BenefitSuspicious"),
        ("--stock 400000", "BenefitSuspicious"),
        ("--price 21:1", "BenefitInvalid"),
    ],
)
def test_a_slip_is_refused_in_a_dry_run_too(shop: Terminal, options: str, refusal: str) -> None:
    before = shop.rows()
    for dry in ("", "--dry-run"):
        assert shop.refusal(f"{COUPON} {options} {dry}") == refusal
    assert shop.rows() == before


@ON_SQLITE
@pytest.mark.parametrize("price", ["100", "0:x", "0:1:2", "-1:5", "0:100 --price 0:50"])
def test_a_price_is_rank_and_points(shop: Terminal, price: str) -> None:
    assert shop.run(f"{COUPON} --price {price}").exit_code == 2


def test_a_file_of_codes_is_imported_once(shop: Terminal, tmp_path: Path) -> None:
    benefit = shop.ask(POOL)["benefit_id"]
    codes = tmp_path / "codes.csv"
    codes.write_text("name,code\n" + "".join(f"x,CODE{number}\n" for number in range(50)) + "x,CODE7\nx,a b\n")
    told = {
        "lines_done_before": 0,
        "added": 50,
        "duplicates": 1,
        "duplicate_lines": [52],
        "refused": 1,
        "refused_lines": [53],
    }
    before = shop.rows()
    assert shop.ask(f"benefit pool import {codes} --benefit {benefit} --dry-run") == {"dry_run": True, **told}
    assert shop.rows() == before
    assert shop.ask(f"benefit pool import {codes} --benefit {benefit}") == told
    again = shop.ask(f"benefit pool import {codes} --benefit {benefit}")
    assert (again["lines_done_before"], again["added"], again["duplicates"]) == (52, 0, 0)
    more = tmp_path / "more.txt"
    more.write_text("CODE1\nNEW1\n")
    other = shop.ask(f"benefit pool import {more} --benefit {benefit}")
    assert (other["added"], other["duplicate_lines"]) == (1, [1])
    assert shop.ask(f"benefit pool verify {benefit}") == {"codes": 51, "dealt": 0, "stock": 51}
    assert shop.refusal(f"benefit stock {benefit} --add 5") == "BenefitInvalid"


@ON_SQLITE
def test_an_import_tells_how_far_it_is(shop: Terminal, tmp_path: Path) -> None:
    benefit = shop.ask(POOL)["benefit_id"]
    codes = tmp_path / "codes.txt"
    codes.write_text("".join(f"CODE{number}\n" for number in range(50)))
    done = shop.run(f"benefit pool import {codes} --benefit {benefit} --json")
    told: Any = json.loads(done.stderr.splitlines()[-1])
    assert (told["done"], told["total"]) == (50, 50)


@ON_SQLITE
@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("benefit pause {unknown}", "BenefitUnknown"),
        ("benefit report {unknown}", "BenefitUnknown"),
        ("benefit price {unknown} --price 0:1", "BenefitUnknown"),
        ("benefit pool verify {unknown}", "BenefitUnknown"),
        ("benefit reverse {unknown} {unknown}", "HeldBenefitUnknown"),
        ("benefit deliver {unknown} --brand ice --state delivered", "DeliveryUnknown"),
        ("benefit pool import /nowhere/codes.txt --benefit {unknown}", "FileRefused"),
    ],
)
def test_what_is_not_there_is_refused(shop: Terminal, line: str, refusal: str) -> None:
    assert shop.refusal(line.format(unknown="0197f0f0-5c00-7000-8000-000000000001")) == refusal
