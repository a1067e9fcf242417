"""`fanxing order inspect`: sheets of a real order, through the command."""

import csv
import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

from codes import qr
from tests.cli import invoke
from tests.scan_api.test_commands import Terminal, bare, shop
from tests.stand import GTIN

__all__ = ["bare", "shop"]

QUANTITY = 8
DPI = 300
LABEL_PX = 260


class Desk:
    """A print house's quality desk: an order, and what was printed of it."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.home = home
        self._environment = {
            "FANXING_HOME": str(home),
            "FANXING_DATABASE_URL": database_url,
            "FANXING_BASE_URL": "https://id.example.cn",
        }

    def run(self, line: str) -> Result:
        return invoke(line, self._environment)

    def ask(self, line: str) -> Any:
        done = self.run(f"{line} --json")
        assert done.exit_code == 0, done.output + repr(done.exception)
        return json.loads(done.stdout)

    def inspect(self, scans: str, more: str = "") -> Result:
        return self.run(f"order inspect {scans} --gtin {GTIN} --order 1 {more}")

    def codes(self, face: str = "outer") -> list[str]:
        with (self.home / "out" / f"{face}.csv").open(newline="") as file:
            return [row[1] for row in csv.reader(file)][1:]

    def sheet(self, name: str, of: Sequence[str]) -> Path:
        page = Image.new("L", (4 * LABEL_PX, -(-len(of) // 4) * LABEL_PX), 255)
        for place, text in enumerate(of):
            page.paste(qr.image(qr.symbol(text), 4), (place % 4 * LABEL_PX + 20, place // 4 * LABEL_PX + 20))
        page.save(self.home / name, dpi=(DPI, DPI), resolution=DPI)
        return self.home / name


@pytest.fixture
def desk(shop: Terminal) -> Desk:
    desk = Desk(shop.home, shop.database_url)
    faces = "--face outer --face inner --export csv"
    desk.ask(f"order create --gtin {GTIN} --quantity {QUANTITY} {faces} --workers 1 --out {desk.home / 'out'}")
    return desk


ON_SQLITE = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)


def test_a_whole_order_on_its_sheets_is_clean(desk: Desk) -> None:
    first = desk.sheet("first.pdf", desk.codes()[:4])
    rest = desk.sheet("rest.png", [*desk.codes()[4:], *desk.codes("inner")])
    done = desk.inspect(f"{first} {rest}")
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "pages: 2, symbols: 16" in done.stdout
    assert "Nothing is missing" in done.stdout
    report = json.loads(desk.inspect(f"{first} {rest}", "--json").stdout)
    assert report["clean"] is True
    assert report["counts"]["genuine"] == 16
    assert report["grades"]["module_mm_min"] == pytest.approx(0.339, abs=0.002)


@ON_SQLITE
def test_what_is_amiss_is_told_with_what_to_do(desk: Desk) -> None:
    codes = desk.codes()
    forged = codes[0][:60] + str((int(codes[0][60]) + 1) % 10) + codes[0][61:]
    scan = desk.sheet("scan.png", [codes[1], codes[2], codes[2], forged])
    done = desk.inspect(str(scan), "--range 0-3")
    assert done.exit_code == 1
    for words in ("Missing of the outer face: 0, 3", "Doubled, 1:", "Refused, 1:", "BadSignature", codes[2][-14:]):
        assert words in done.stdout
    assert "Destroy one" in done.stdout
    assert not [code for code in codes if code[30:90] in done.output]
    asked = desk.inspect(str(scan), "--range 0-3 --json")
    assert asked.exit_code == 1
    report = json.loads(asked.stdout)
    assert report["missing"] == [{"face": "outer", "items": 2, "ranges": ["0", "3"]}]
    assert report["counts"] == {"genuine": 2, "doubled": 1, "foreign": 0, "refused": 1, "unreadable": 0}
    assert report["doubled"][0]["first"]["x_mm"] == pytest.approx((LABEL_PX + 20 + 106) * 25.4 / DPI, abs=0.3)


@ON_SQLITE
def test_a_range_and_a_face_narrow_what_is_expected(desk: Desk) -> None:
    scan = desk.sheet("scan.png", desk.codes()[2:4])
    assert desk.inspect(str(scan), "--range 2-3").exit_code == 0
    assert desk.inspect(str(scan), f"--range {desk.codes()[2][-14:]}-{desk.codes()[3][-14:]}").exit_code == 0
    assert desk.inspect(str(scan), "--range 2-3 --face inner").exit_code == 1


def test_what_was_voided_or_recalled_since_it_was_printed_is_refused(desk: Desk) -> None:
    whole, rest = desk.sheet("whole.png", desk.codes()), desk.sheet("rest.png", desk.codes()[2:])
    desk.ask(f"order void --gtin {GTIN} --order 1 --range 0-1 --yes")
    done = desk.inspect(str(whole))
    assert done.exit_code == 1
    assert "Refused, 2:" in done.stdout
    assert "Voided" in done.stdout
    assert desk.inspect(str(rest)).exit_code == 0
    desk.ask(f"order recall --gtin {GTIN} --order 1 --reason glass --yes")
    assert "Recalled" in desk.inspect(str(rest)).stdout


@ON_SQLITE
def test_pictures_of_the_pages_are_the_owners_alone(desk: Desk) -> None:
    scan = desk.sheet("scan.png", desk.codes()[:4])
    desk.inspect(str(scan), f"--pictures {desk.home / 'boxed'}")
    (picture,) = (desk.home / "boxed").iterdir()
    assert picture.name == "scan.png-0001.png"
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600
    with Image.open(picture) as boxed, Image.open(scan) as plain:
        assert boxed.size == plain.size
        assert boxed.mode == "RGB"


@ON_SQLITE
def test_files_of_one_name_are_told_apart(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.home)
    for folder in ("a", "b"):
        (desk.home / folder).mkdir()
        desk.sheet(f"{folder}/scan.png", desk.codes()[:1])
    done = desk.inspect("a/scan.png b/scan.png", "--range 0 --pictures boxed --json")
    (doubled,) = json.loads(done.stdout)["doubled"]
    assert (doubled["scan"], doubled["first"]["scan"]) == ("b/scan.png", "a/scan.png")
    assert {path.name for path in Path("boxed").iterdir()} == {"a_scan.png-0001.png", "b_scan.png-0001.png"}


@ON_SQLITE
def test_refusals_have_their_codes(desk: Desk) -> None:
    broken, good = desk.home / "broken.png", desk.sheet("scan.png", desk.codes()[:1])
    broken.write_bytes(good.read_bytes()[:300])
    for scans, more, code in (
        (f"{good} {broken}", "", "ScanUnreadable"),
        (good, "--range 0-99", "RangeInvalid"),
        (good, "--dpi 1", "DpiOutOfRange"),
        (good, "--order 2", "OrderUnknown"),
    ):
        done = desk.inspect(str(scans), f"{more} --json")
        assert done.exit_code == 1
        assert json.loads(done.stdout)["error"]["code"] == code
