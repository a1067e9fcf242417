"""The `fanxing packing` and `fanxing life` commands, as docs/packing.md shows them."""

from pathlib import Path

import pytest

from tests.scan_api.test_commands import Terminal, bare, shop
from tests.scan_api.test_range_commands import WHICH, place
from tests.stand import GTIN

__all__ = ["bare", "shop"]

BOX, AT = "urn:epc:id:sscc:9506000.0000000007", "2026-05-01T08:00:00Z"
OF_BRAND = "--brand ice"


def test_a_file_is_tried_loaded_and_asked_for(shop: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "line.csv"
    rows = [f"{BOX},urn:epc:id:sgtin:9506000.013435.{number},{AT}\n" for number in range(3)]
    file.write_text("parent,child,at\n" + "".join(rows))
    told = {"rows": 3, "accepted": 1, "duplicates": 0, "dry_run": True}
    assert shop.ask(f"packing load {file} {OF_BRAND} --dry-run") == told
    assert shop.ask(f"packing contents {BOX} {OF_BRAND}") == []
    assert shop.ask(f"packing load {file} {OF_BRAND}") == {**told, "dry_run": False}
    assert shop.ask(f"packing load {file} {OF_BRAND}") == {**told, "accepted": 0, "duplicates": 1, "dry_run": False}
    assert len(shop.ask(f"packing contents {BOX} {OF_BRAND} --at {AT}")) == 3
    [inside] = shop.ask(f"packing containers urn:epc:id:sgtin:9506000.013435.2 {OF_BRAND}")
    assert (inside["level"], inside["parent"]) == (1, "https://id.gs1.org/00/095060000000000077")
    assert "3 rows" in shop.run(f"packing load {file} {OF_BRAND}").stdout
    file.write_text("parent\n")
    assert shop.refusal(f"packing load {file} {OF_BRAND}") == "PackingFileInvalid"
    assert shop.refusal(f"packing contents {BOX} {OF_BRAND} --at yesterday") == "ArgumentInvalid"


def test_goods_are_held_let_go_and_recalled(shop: Terminal) -> None:
    place(shop)
    assert shop.ask(f"life act hold {OF_BRAND} --thing {BOX} --reason investigation")["dry_run"]
    for expected in (1, 0):
        told = shop.ask(f"life act hold {OF_BRAND} --thing {BOX} --reason investigation --yes")
        assert told == {"act": "hold", "items": None, "marks": expected, "dry_run": False}
    assert shop.ask(f"life act lift {OF_BRAND} --thing {BOX} --yes")["marks"] == 1
    dates = "--produced-on 2026-05-01 --expires-on 2027-05-01"
    assert shop.ask(f"life lot L2605 {OF_BRAND} {WHICH} --range 0-9 {dates}") == {"lot": "L2605", "items": 10}
    assert shop.ask(f"life act activate {OF_BRAND} --gtin {GTIN} --lot L2605 --yes")["items"] == 10
    recall = f"life act recall {OF_BRAND} --gtin {GTIN} --lot L2605 --reason safety"
    assert shop.refusal(f"{recall} --yes") == "LifeInvalid"
    assert shop.ask(f"{recall} --message Back --yes")["marks"] == 1
    assert shop.ask(f"life act void {OF_BRAND} {WHICH} --range 10-11 --reason sample --yes")["items"] == 2
    assert "all that is in it" in shop.run(f"life act hold {OF_BRAND} --thing {BOX}").stdout


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"life act hold {OF_BRAND}", "LifeInvalid"),
        (f"life act hold {OF_BRAND} --thing {BOX} --range 0", "LifeInvalid"),
        (f"life act hold {OF_BRAND} --gtin {GTIN} --lot 'a lot'", "LotInvalid"),
        (f"life act hold {OF_BRAND} --thing 'a box'", "PackingInvalid"),
        (f"life act hold {OF_BRAND} --thing {BOX} --at now", "ArgumentInvalid"),
        (f"life lot L1 {OF_BRAND} {WHICH} --expires-on soon", "ArgumentInvalid"),
        (f"life lot L1 {OF_BRAND} {WHICH} --produced-on 2026-05-02 --expires-on 2026-05-01", "OrderUnknown"),
    ],
    ids=range(7),
)
def test_what_names_nothing_is_refused(shop: Terminal, line: str, code: str) -> None:
    assert shop.refusal(line) == code
