"""The `fanxing package` command, from a finished export to what the print house reports back."""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pyrage
import pytest

from codes import manifest
from codes.manifest import Manifest
from codes.packages import sealing
from codes.packages.links import FETCHES_MAX
from codes.packages.sealing import RECIPIENTS_MAX, Sealed
from scan_api.commands.packages import REPORT_BYTES_MAX
from tests.scan_api.test_commands import ON_SQLITE, Terminal, bare, shop
from tests.stand import GTIN, Environment, Server

__all__ = ["bare", "shop"]

QUANTITY = 40


@dataclass(frozen=True)
class Works:
    """A brand with a finished export of an order, and a print house with a key."""

    terminal: Terminal
    export: Path
    recipient: str
    identity: Path

    @property
    def seal(self) -> str:
        """The command that seals the export; its name is yet to be added."""
        return f"package seal --gtin {GTIN} --order 1 --folder {self.export} --to {self.recipient}"

    def sealed(self, name: str = "spring") -> Any:
        return self.terminal.ask(f"{self.seal} --name {name}")

    @property
    def trust(self) -> str:
        """The files that the print house has from the brand, as options."""
        bundle = self.terminal.home.parent / "trust-bundle.cbor"
        if not bundle.exists():
            self.terminal.ask(f"bundle publish --out {bundle}")
        return f"--bundle {bundle} --root {self.terminal.home / 'root.pin'}"


@pytest.fixture
def works(shop: Terminal, tmp_path: Path) -> Works:
    export = tmp_path / "export"
    faces = "--face outer --face inner"
    shop.ask(f"order create --gtin {GTIN} --quantity {QUANTITY} {faces} --export csv --workers 1 --out {export}")
    identity = pyrage.x25519.Identity.generate()
    path = tmp_path / "print-house.txt"
    path.write_text(f"{identity}\n", encoding="ascii")
    return Works(shop, export, str(identity.to_public()), path)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report_file(folder: Path, **ranges: str) -> tuple[str, Path]:
    report_id = str(uuid.uuid4())
    path = folder / f"{report_id}.json"
    path.write_text(json.dumps({"report_id": report_id, **ranges}), encoding="utf-8")
    return report_id, path


def test_from_export_to_labels_on_sale(works: Works, tmp_path: Path) -> None:
    terminal = works.terminal
    sealed = works.sealed()
    path = Path(sealed["file"])
    assert (sealed["items"], sealed["ranges"], sealed["files"]) == (QUANTITY, f"0-{QUANTITY - 1}", 4)
    assert path.parent == terminal.home / "packages"
    assert (path.stat().st_mode & 0o777, path.stat().st_size) == (0o600, sealed["bytes"])
    [listed] = terminal.ask("package list")
    assert (listed["package"], listed["name"], listed["reports_waiting"]) == (sealed["package"], "spring", 0)

    opened = terminal.ask(f"package open {path} --identity {works.identity} --out {tmp_path / 'opened'} {works.trust}")
    assert (opened["codes"], opened["order"], opened["files"]) == (2 * QUANTITY, 1, 2)
    assert tree(tmp_path / "opened") == tree(works.export)

    which = f"--package {sealed['package']}"
    report_id, file = report_file(tmp_path, printed="0-29", spoiled="30-34", overprinted="5")
    assert terminal.ask(f"package report {which} --file {file}")["state"] == "received"
    assert terminal.ask("package list")[0]["reports_waiting"] == 1
    before = terminal.rows()
    assert terminal.ask(f"package accept {which} --report {report_id}")["dry_run"]
    assert terminal.rows() == before
    done = terminal.ask(f"package accept {which} --report {report_id} --yes")
    assert (done["state"], done["activated"], done["voided"]) == ("accepted", 29, 6)
    standing = terminal.ask(f"order ranges --gtin {GTIN} --order 1")
    assert [(part["first"], part["last"], part["state"]) for part in standing] == [
        (0, 4, "active"),
        (5, 5, "voided"),
        (6, 29, "active"),
        (30, 34, "voided"),
        (35, 39, "dormant"),
    ]
    assert terminal.rows()["range_event"] == before["range_event"] + 4
    assert terminal.refusal(f"package accept {which} --report {report_id} --yes") == "ReportDecided"
    [told] = terminal.ask(f"package reports {which}")
    assert (told["report_id"], told["by"], told["state"]) == (report_id, None, "accepted")


def test_a_rejected_report_makes_way_for_the_right_one(works: Works, tmp_path: Path) -> None:
    which = f"--package {works.sealed()['package']}"
    mistaken, file = report_file(tmp_path, printed="0-39")
    works.terminal.ask(f"package report {which} --file {file}")
    _right, other = report_file(tmp_path, printed="0-38", spoiled="39")
    assert works.terminal.refusal(f"package report {which} --file {other}") == "ReportContradicts"
    assert works.terminal.ask(f"package reject {which} --report {mistaken}")["state"] == "rejected"
    assert works.terminal.ask(f"package report {which} --file {other}")["state"] == "received"


@ON_SQLITE
def test_sealing_says_first_what_it_would_do(works: Works) -> None:
    before = works.terminal.rows()
    planned = works.terminal.ask(f"{works.seal} --name spring --dry-run")
    assert (planned["dry_run"], planned["items"], planned["recipients"]) == (True, QUANTITY, [works.recipient])
    assert works.terminal.rows() == before
    assert not (works.terminal.home / "packages").exists()
    assert works.sealed()["bytes"] <= planned["bytes_max"]


@ON_SQLITE
def test_codes_that_are_in_two_packages_are_pointed_out(works: Works) -> None:
    assert works.sealed()["also_in"] == []
    assert works.sealed("summer")["also_in"] == ["spring"]
    assert "doubles" in works.terminal.run(f"{works.seal} --name autumn").stdout


def refused_cases(works: Works, tmp_path: Path) -> dict[str, str]:
    """Commands that must be refused, by the code of their refusal."""
    altered, unsigned = tmp_path / "altered", tmp_path / "unsigned"
    for folder in (altered, unsigned):
        shutil.copytree(works.export, folder)
    table = altered / "outer.csv"
    table.write_bytes(table.read_bytes()[:-1] + b"X")
    manifest = unsigned / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    seal = works.seal
    return {
        "RecipientInvalid": f"{seal} --name a --to age1junk",
        "PackageNameInvalid": f"{seal} --name ''",
        "PackageNameTaken": f"{seal} --name spring",
        "OrderUnknown": f"{seal.replace('--order 1', '--order 9')} --name a",
        "ManifestMissing": f"{seal.replace(str(works.export), str(tmp_path))} --name a",
        "ManifestInvalid": f"{seal.replace(str(works.export), str(unsigned))} --name a",
        "FileAltered": f"{seal.replace(str(works.export), str(altered))} --name a",
    }


@ON_SQLITE
def test_what_cannot_be_sealed_leaves_nothing(works: Works, tmp_path: Path) -> None:
    works.sealed()
    before, shelf = works.terminal.rows(), set((works.terminal.home / "packages").iterdir())
    for code, command in refused_cases(works, tmp_path).items():
        assert works.terminal.refusal(command) == code
    many = " ".join(f"--to {pyrage.x25519.Identity.generate().to_public()}" for _ in range(RECIPIENTS_MAX))
    assert works.terminal.refusal(f"{works.seal} --name a {many}") == "RecipientInvalid"
    assert works.terminal.rows() == before
    assert set((works.terminal.home / "packages").iterdir()) == shelf


@ON_SQLITE
def test_an_export_of_another_order_is_refused(works: Works) -> None:
    works.terminal.ask(f"order create --gtin {GTIN} --quantity 5 --face outer")
    command = f"{works.seal.replace('--order 1', '--order 2')} --name a"
    assert works.terminal.refusal(command) == "ExportOfAnotherOrder"


@ON_SQLITE
def test_voided_codes_are_not_sealed(works: Works) -> None:
    works.terminal.ask(f"order void --gtin {GTIN} --order 1 --range 7 --yes")
    assert works.terminal.refusal(f"{works.seal} --name a") == "RangeVoided"


@ON_SQLITE
def test_codes_that_are_voided_while_they_are_sealed_leave_no_package(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = sealing.seal

    def void_meanwhile(*arguments: Any) -> Sealed:
        with ThreadPoolExecutor(1) as elsewhere:  # this thread has the command's event loop
            elsewhere.submit(works.terminal.ask, f"order void --gtin {GTIN} --order 1 --range 7 --yes").result()
        return seal(*arguments)

    monkeypatch.setattr(sealing, "seal", void_meanwhile)
    assert works.terminal.refusal(f"{works.seal} --name a") == "RangeVoided"
    assert works.terminal.ask("package list") == []
    assert list((works.terminal.home / "packages").iterdir()) == []


@ON_SQLITE
def test_an_export_that_another_issuers_key_signed_is_refused(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = json.loads((works.export / "manifest.json").read_bytes())
    monkeypatch.setattr(manifest, "read", lambda folder, keys: Manifest({**signed, "kid": 2}))
    assert works.terminal.refusal(f"{works.seal} --name a") == "ManifestInvalid"


@ON_SQLITE
def test_a_recalled_order_is_neither_exported_nor_sealed(works: Works, tmp_path: Path) -> None:
    works.terminal.ask(f"order recall --gtin {GTIN} --order 1 --reason glass --yes")
    assert works.terminal.refusal(f"{works.seal} --name a") == "OrderStateForbids"
    again = f"order export --gtin {GTIN} --order 1 --export csv --out {tmp_path / 'again'}"
    assert works.terminal.refusal(again) == "OrderStateForbids"


@ON_SQLITE
def test_what_a_crash_left_on_the_shelf_is_cleared_away(works: Works) -> None:
    shelf = works.terminal.home / "packages"
    shelf.mkdir()
    (shelf / "0199.tar.age.part").write_bytes(b"half a package")
    (shelf / "0198.tar.age").write_bytes(b"another package")
    sealed = works.sealed()
    assert {path.name for path in shelf.iterdir()} == {"0198.tar.age", Path(sealed["file"]).name}


@ON_SQLITE
def test_two_are_not_sealed_at_once(works: Works) -> None:
    shelf = works.terminal.home / "packages"
    shelf.mkdir()
    other = os.open(shelf, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert works.terminal.refusal(f"{works.seal} --name a") == "SealingBusy"
    finally:
        os.close(other)
    works.sealed()


def test_a_link_shows_its_code_once_and_can_be_ended(works: Works) -> None:
    terminal, which = works.terminal, f"--package {works.sealed()['package']}"
    made = terminal.ask(f"package link {which} --for 'Sun Press' --expires 12h --fetches 2")
    assert made["url"] == f"https://id.example.cn/packages/{made['package']}"
    assert made["fetch_code"] not in made["url"]
    [listed] = terminal.ask(f"package links {which}")
    assert listed == {key: made[key] for key in listed}
    assert "fetch_code" not in listed
    assert terminal.ask(f"package audit {which}") == []
    assert terminal.ask(f"package revoke-link --link {made['link']}")["revoked_at"]
    assert terminal.ask(f"package links {which}")[0]["revoked_at"]
    told = terminal.run(f"package link {which} --for 'Sun Press'").stdout
    assert "fxp_" in told
    assert "another channel" in told


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--for ''", "PackageLinkInvalid"),
        ("--for a --fetches 0", "PackageLinkInvalid"),
        (f"--for a --fetches {FETCHES_MAX + 1}", "PackageLinkInvalid"),
        ("--for a --expires 366d", "PackageLinkInvalid"),
        ("--for a --expires 7", "LifetimeInvalid"),
        ("--for a --expires 0d", "LifetimeInvalid"),
        ("--for a --expires soon", "LifetimeInvalid"),
        ("--for a --expires 1000000d", "LifetimeInvalid"),
    ],
)
@ON_SQLITE
def test_a_links_limits(works: Works, options: str, code: str) -> None:
    which = f"--package {works.sealed()['package']}"
    assert works.terminal.refusal(f"package link {which} {options}") == code
    works.terminal.ask(f"package link {which} --for a --fetches {FETCHES_MAX} --expires 365d")
    works.terminal.ask(f"package link {which} --for a --expires 1m")


@pytest.mark.parametrize("command", ["links", "audit", "reports", "link --for a", "reject --report {0}"])
@ON_SQLITE
def test_an_unknown_package_is_said_to_be_unknown(works: Works, command: str) -> None:
    verb, _, rest = command.format(uuid.uuid4()).partition(" ")
    assert works.terminal.refusal(f"package {verb} --package {uuid.uuid4()} {rest}") == "PackageUnknown"


@ON_SQLITE
def test_unknown_links_and_reports_are_said_to_be_unknown(works: Works) -> None:
    which = f"--package {works.sealed()['package']}"
    assert works.terminal.refusal(f"package revoke-link --link {uuid.uuid4()}") == "PackageLinkUnknown"
    assert works.terminal.refusal(f"package accept {which} --report {uuid.uuid4()} --yes") == "ReportUnknown"


@ON_SQLITE
def test_a_package_opens_for_its_print_house_alone(works: Works, tmp_path: Path) -> None:
    path = Path(works.sealed()["file"])
    other = tmp_path / "other.txt"
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n", encoding="ascii")
    opened = tmp_path / "opened"
    command = f"package open {{}} --identity {works.identity} --out {opened} {works.trust}"
    refused = f"package open {path} --identity {other} --out {opened} {works.trust}"
    assert works.terminal.refusal(refused) == "IdentityRefused"
    damaged = tmp_path / "damaged.tar.age"
    damaged.write_bytes(path.read_bytes()[:-1])
    assert works.terminal.refusal(command.format(damaged)) == "PackageDamaged"
    assert works.terminal.refusal(command.format(tmp_path / "nothing")) == "FileRefused"
    bundle = tmp_path / "trust-bundle.cbor"
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert works.terminal.refusal(command.format(path)) == "TrustBundleRefused"
    assert not opened.exists()


@ON_SQLITE
def test_codes_that_two_print_houses_printed_are_pointed_out(works: Works, tmp_path: Path) -> None:
    for name, printed, twice in (("spring", "0-9", ""), ("summer", "8-19", "8-9")):
        package = works.sealed(name)["package"]
        report_id, path = report_file(tmp_path, printed=printed)
        works.terminal.ask(f"package report --package {package} --file {path}")
        accept = f"package accept --package {package} --report {report_id}"
        assert works.terminal.ask(accept)["printed_elsewhere"] == twice
        assert ("Two labels have one code" in works.terminal.run(accept).stdout) is bool(twice)
        assert works.terminal.ask(f"{accept} --yes")["printed_elsewhere"] == twice


@ON_SQLITE
def test_a_revoked_keys_package_does_not_open(works: Works, tmp_path: Path) -> None:
    path = works.sealed()["file"]
    works.terminal.ask("key revoke 1 --yes")
    command = f"package open {path} --identity {works.identity} --out {tmp_path / 'opened'} {works.trust}"
    assert works.terminal.refusal(command) == "ManifestInvalid"
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"printed": "0-9"}',
        b'{"report_id": "0199a5c4-0000-7000-8000-000000000000", "printed": 5}',
        b'{"report_id": "0199a5c4-0000-7000-8000-000000000000", "burnt": "5"}',
        b" " * (REPORT_BYTES_MAX + 1),
    ],
    ids=["empty", "list", "no id", "number", "unknown kind", "endless"],
)
@ON_SQLITE
def test_a_file_that_is_no_report_is_refused(works: Works, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    command = f"package report --package {works.sealed()['package']} --file {path}"
    assert works.terminal.refusal(command) == "ReportInvalid"


@ON_SQLITE
def test_a_print_house_fetches_from_a_running_server(works: Works, tmp_path: Path) -> None:
    terminal = works.terminal
    server = Server(Environment(tmp_path / "bytecode"), terminal.home, {"DATABASE_URL": terminal.database_url})
    which = f"--package {works.sealed()['package']}"
    terminal.settings["FANXING_BASE_URL"] = server.url
    made = terminal.ask(f"package link {which} --for 'Sun Press'")
    terminal.ask(f"bundle publish --out {tmp_path / 'bundle.cbor'}")
    server.start()
    try:
        curl = subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--fail", "--noproxy", "*"),
                *("--remote-header-name", "--remote-name", "--request", "POST", "--header", "@-", made["url"]),
            ],
            input=f"Authorization: Bearer {made['fetch_code']}",
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
        )
        assert curl.returncode == 0, curl.stderr
        again = httpx2.post(made["url"], data={"fetch_code": made["fetch_code"]}, trust_env=False)
        assert again.json()["code"] == "PackageLinkSpent"
    finally:
        server.stop()
    fetched = tmp_path / f"{made['package']}.tar.age"
    terminal.ask(f"package open {fetched} --identity {works.identity} --out {tmp_path / 'opened'} {works.trust}")
    assert tree(tmp_path / "opened") == tree(works.export)
    tried = terminal.ask(f"package audit {which}")
    assert [(one["outcome"], one["for"], one["from"]) for one in tried] == [
        ("fetched", "Sun Press", "127.0.0.1"),
        ("spent", "Sun Press", "127.0.0.1"),
    ]


_SLOW_SEAL = """
import sys, time
from codes.packages import sealing
from scan_api.commands import main

seal = sealing.seal

def slowly(folder, contents, recipients, out, progress):
    return seal(folder, contents, recipients, out, lambda done: (progress(done), time.sleep(5)))

sealing.seal = slowly
main.build()(sys.argv[1:])
"""


@ON_SQLITE
def test_killed_while_sealing_leaves_no_package(works: Works) -> None:
    terminal, shelf = works.terminal, works.terminal.home / "packages"
    environment = {"FANXING_HOME": str(terminal.home), "FANXING_DATABASE_URL": terminal.database_url}
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_SEAL, *shlex.split(f"{works.seal} --name spring --json")],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )
    deadline = time.monotonic() + 60
    while not (shelf.exists() and any(shelf.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert terminal.ask("package list") == []
    sealed = works.sealed()
    assert [path.name for path in shelf.iterdir()] == [Path(sealed["file"]).name]
