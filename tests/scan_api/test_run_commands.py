"""`fanxing order` at work: exports in every form, reprints, cancel and resume, checks of what was made."""

import csv
import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from codes.exports import ExportKind
from codes.run_files import RunFiles
from scan_api.commands import production
from tests.scan_api.test_commands import ON_SQLITE, Terminal, bare, shop
from tests.stand import GTIN

__all__ = ["bare", "shop"]

ORDER = f"--gtin {GTIN} --order 1"
ALL = " ".join(f"--export {kind.value}" for kind in ExportKind)


def create(shop: Terminal, more: str = "", quantity: int = 30) -> Any:
    """An order, made in this process: workers of their own would import everything again, each."""
    if "--workers" not in more:
        more += " --workers 1"
    return shop.ask(f"order create --gtin {GTIN} --quantity {quantity} --face outer --face inner {more}")


def serials(path: Path) -> list[str]:
    with path.open(encoding="ascii", newline="") as file:
        return [row["serial"] for row in csv.DictReader(file)]


def test_an_order_arrives_in_every_form(shop: Terminal) -> None:
    made = create(shop, f"{ALL} --out {shop.home}/all --workers 1")
    assert made["codes"] == 60
    names = {Path(path).name for path in made["files"]}
    assert names == {
        *(f"{face}.{form}" for face in ("outer", "inner") for form in ("csv", "csv.zst", "ndjson", "ndjson.zst")),
        *(f"{face}.{form}" for face in ("outer", "inner") for form in ("parquet", "zpl")),
        *("sheets", "svg", "png"),
        "manifest.json",
    }
    assert all(Path(path).exists() for path in made["files"])
    checked = shop.ask(f"order verify {shop.home}/all")
    assert (checked["codes"], checked["run"]) == (60, made["run"])


@ON_SQLITE
def test_pictures_are_unpacked_on_demand_and_the_manifest_still_holds(shop: Terminal) -> None:
    create(shop, f"--export png --export svg --unpack --out {shop.home}/all")
    for form in ("png", "svg"):
        assert len(list((shop.home / "all" / form / "outer-00001").glob(f"*.{form}"))) == 30
    assert shop.ask(f"order verify {shop.home}/all")["codes"] == 60


@ON_SQLITE
def test_one_worker_and_two_make_the_same(shop: Terminal) -> None:
    create(shop, f"--export csv --export pdf --out {shop.home}/one --workers 1")
    shop.ask(f"order export {ORDER} --export csv --export pdf --out {shop.home}/two --workers 2")
    for name in ("outer.csv", "inner.csv", "sheets/outer-00001.pdf", "sheets/inner-00001.pdf"):
        assert (shop.home / "one" / name).read_bytes() == (shop.home / "two" / name).read_bytes()


@ON_SQLITE
def test_a_reprint_holds_the_ranges_of_the_face_and_is_remembered(shop: Terminal) -> None:
    create(shop, f"--export csv --out {shop.home}/all")
    everything = serials(shop.home / "all" / "outer.csv")
    made = shop.ask(
        f"order export {ORDER} --face outer --range 3-5,{everything[9]} --out {shop.home}/again --workers 1"
    )
    assert made["codes"] == 4
    assert serials(shop.home / "again" / "outer.csv") == [*everything[3:6], everything[9]]
    assert not (shop.home / "again" / "inner.csv").exists()
    assert shop.rows()["order_act"] == 1


@ON_SQLITE
def test_what_two_ranges_share_is_printed_once(shop: Terminal) -> None:
    create(shop, f"--export csv --out {shop.home}/all")
    shop.ask(f"order export {ORDER} --face outer --range 4-6,3-5,8 --out {shop.home}/again --workers 1")
    everything = serials(shop.home / "all" / "outer.csv")
    assert serials(shop.home / "again" / "outer.csv") == [*everything[3:7], everything[8]]


@ON_SQLITE
def test_a_folder_holds_one_export(shop: Terminal) -> None:
    out = f"--out {shop.home}/all"
    create(shop, f"--export csv {out}")
    before = (shop.home / "all" / "outer.csv").read_bytes()
    create(shop)
    line = f"order export {ORDER} --workers 1"
    for other in (
        f"{line} --export csv --range 0-28 {out}",
        f"{line} --export csv --face outer {out}",
        f"{line} --export ndjson {out}",
        f"{line.replace('--order 1', '--order 2')} --export csv {out}",
        f"order create --gtin {GTIN} --quantity 30 --face outer --face inner --export csv {out}",
    ):
        assert shop.refusal(other) == "FolderTaken"
    assert (shop.home / "all" / "outer.csv").read_bytes() == before
    assert (len(shop.ask("order list")), len(shop.ask("order runs"))) == (2, 1)
    assert shop.ask(f"{line} --export csv {out}")["codes"] == 60  # the same once more
    (shop.home / "all" / "manifest.json").write_bytes(b"[")
    assert shop.refusal(f"{line} --export csv {out}") == "FolderTaken"


@ON_SQLITE
def test_codes_that_are_made_again_go_to_a_folder_of_their_own(shop: Terminal) -> None:
    first = create(shop, "--export csv")
    again = shop.ask(f"order export {ORDER} --range 0-3 --face outer --workers 1")
    assert not set(first["files"]) & set(again["files"])
    assert shop.ask(f"order verify {Path(first['files'][0]).parent}")["codes"] == 60
    assert shop.ask(f"order verify {Path(again['files'][0]).parent}")["codes"] == 4


@ON_SQLITE
def test_a_run_does_not_go_on_with_codes_that_were_voided_or_recalled_meanwhile(
    shop: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(shop)
    with monkeypatch.context() as breaking:
        breaking.setattr(RunFiles, "append", lambda *_args: (_ for _ in ()).throw(OSError(5, "broken", "outer.csv")))
        assert shop.refusal(f"order export {ORDER} --out {shop.home}/run --workers 1") == "FileRefused"
    (run,) = shop.ask("order runs")
    shop.ask(f"order void {ORDER} --range 5 --yes")
    assert shop.refusal(f"order resume --run {run['run']}") == "RangeVoided"
    shop.ask(f"order recall {ORDER} --reason glass --yes")
    assert shop.refusal(f"order resume --run {run['run']}") == "OrderStateForbids"


@ON_SQLITE
def test_a_killed_run_is_told_from_one_that_works(shop: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    create(shop)
    seen: list[str] = []
    append = RunFiles.append

    def looking(files: RunFiles, parts: Any) -> Any:
        if not seen:
            seen.append("busy" if not files.lie_idle() else "idle")
        return append(files, parts)

    monkeypatch.setattr(RunFiles, "append", looking)
    monkeypatch.setattr("codes.production.manifest.write", lambda *_args: os._exit(9))
    if (child := os.fork()) == 0:  # the whole command is killed at its last step
        shop.run(f"order export {ORDER} --out {shop.home}/run --workers 1")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (run,) = shop.ask("order runs")
    assert run["state"] == "interrupted"
    monkeypatch.undo()
    assert shop.ask(f"order resume --run {run['run']} --workers 1")["codes"] == 60


@ON_SQLITE
def test_voided_codes_are_not_printed_again(shop: Terminal) -> None:
    create(shop)
    shop.ask(f"order void {ORDER} --range 5 --yes")
    for asked in ("--range 3-7", ""):
        assert shop.refusal(f"order export {ORDER} {asked} --out {shop.home}/again") == "RangeVoided"
    assert not (shop.home / "again").exists()
    assert shop.rows()["export_run"] == 0


@ON_SQLITE
@pytest.mark.parametrize("text", ["30", "0-30", "5-3", "x", "", "-1", "00001000000000"])
def test_a_range_that_the_order_does_not_have_is_refused(shop: Terminal, text: str) -> None:
    create(shop)
    assert shop.refusal(f"order export {ORDER} --range '{text}'") == "RangeInvalid"


def test_a_run_that_was_stopped_is_resumed_and_one_that_is_finished_is_not(
    shop: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any) -> None:
        raise OSError(5, "Input/output error", "outer.csv")

    create(shop)
    with monkeypatch.context() as breaking:
        breaking.setattr(RunFiles, "append", broken)
        assert shop.refusal(f"order export {ORDER} --out {shop.home}/run --workers 1") == "FileRefused"
    (run,) = shop.ask("order runs")
    assert (run["state"], run["codes_written"], run["codes"]) == ("stopped", 0, 60)
    assert shop.ask(f"order cancel --run {run['run']}")["state"] == "stopped"
    assert shop.ask(f"order resume --run {run['run']} --workers 1")["codes"] == 60
    (run,) = shop.ask("order runs")
    assert (run["state"], run["codes_written"]) == ("finished", 60)
    assert shop.refusal(f"order resume --run {run['run']}") == "RunFinished"
    assert shop.refusal(f"order resume --run {uuid.uuid4()}") == "RunUnknown"
    assert shop.refusal(f"order cancel --run {uuid.uuid4()}") == "RunUnknown"


@ON_SQLITE
def test_resuming_a_run_that_is_being_worked_on_leaves_it_to_whoever_is(
    shop: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, answers = RunFiles.append, []

    def resumed_elsewhere(files: RunFiles, parts: Any) -> Any:
        (run,) = shop.ask("order runs")
        answers.append(shop.refusal(f"order resume --run {run['run']} --workers 1"))
        return append(files, parts)

    monkeypatch.setattr(RunFiles, "append", resumed_elsewhere)
    assert create(shop, f"--export csv --out {shop.home}/all --workers 1")["codes"] == 60
    assert answers == ["RunBusy"] * 2


@ON_SQLITE
def test_orders_that_are_placed_at_once_have_folders_of_their_own(
    shop: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_secret, folders = production.new_secret, []

    def make() -> None:
        (folder,) = {Path(path).parent for path in create(shop, "--export csv --workers 1")["files"]}
        folders.append(folder.name)

    def another_order_first() -> bytes:
        monkeypatch.setattr(production, "new_secret", new_secret)
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(make).result()
        return new_secret()

    monkeypatch.setattr(production, "new_secret", another_order_first)
    make()
    assert folders == [f"{GTIN}-00001", f"{GTIN}-00002"]


@ON_SQLITE
def test_a_tampered_export_does_not_verify(shop: Terminal) -> None:
    create(shop, f"--export csv --out {shop.home}/all")
    shop.ask(f"bundle export --out {shop.home}/bundle.cbor")
    trust = f"--bundle {shop.home}/bundle.cbor --root {shop.home}/root.pin"
    assert shop.ask(f"order verify {shop.home}/all {trust}")["codes"] == 60
    wrong = f"--bundle {shop.home}/root.pin --root {shop.home}/root.pin"
    assert shop.refusal(f"order verify {shop.home}/all {wrong}") == "TrustBundleRefused"
    path = shop.home / "all" / "inner.csv"
    path.write_bytes(path.read_bytes().replace(b"/21/", b"/22/", 1))
    assert shop.refusal(f"order verify {shop.home}/all") == "FileAltered"
    assert shop.refusal(f"order verify {shop.home}") == "ManifestMissing"


@ON_SQLITE
def test_a_dry_run_tells_size_room_and_what_to_beware_of(shop: Terminal) -> None:
    more = "--export csv --level L --module-mm 0.25 --upper-case --dry-run"
    told = create(shop, more)
    assert (told["base_url"], told["qr_level"], told["qr_version"]) == ("HTTPS://ID.EXAMPLE.CN", "L", 6)
    assert {warning["code"] for warning in told["warnings"]} == {"SmallModules", "UpperCase", "LowCorrection"}
    assert told["bytes_free"] > told["bytes_max"] > 0
    assert shop.rows()["code_order"] == 0
    ordinary = create(shop, "--dry-run")
    assert (ordinary["qr_version"], ordinary["warnings"]) == (7, [])


@ON_SQLITE
def test_an_upper_case_order_is_written_in_upper_case(shop: Terminal) -> None:
    create(shop, f"--export csv --upper-case --out {shop.home}/all")
    text = (shop.home / "all" / "outer.csv").read_text().splitlines()[1].split(",")[1]
    assert text.startswith("HTTPS://ID.EXAMPLE.CN/1")


@ON_SQLITE
def test_a_wrong_layout_is_refused_before_an_order_number_is_spent(shop: Terminal) -> None:
    line = f"order create --gtin {GTIN} --quantity 30 --face outer --export pdf"
    assert shop.refusal(f"{line} --label-width 5") == "LayoutInvalid"
    assert shop.refusal(f"{line} --preset none") == "PresetUnknown"
    assert shop.rows()["code_order"] == 0


@ON_SQLITE
def test_an_order_that_the_disk_cannot_hold_is_refused_before_it_is_placed(
    shop: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.files.free_bytes", lambda _folder: 1_000)
    line = f"order create --gtin {GTIN} --quantity 30 --face outer"
    assert shop.refusal(f"{line} --export csv") == "DiskFull"
    assert shop.rows()["code_order"] == 0
    assert shop.ask(line)["order"] == 1  # no file, no room needed


@ON_SQLITE
def test_ray_without_an_agent_is_refused(shop: Terminal) -> None:
    create(shop)
    assert shop.refusal(f"order export {ORDER} --engine ray") == "EngineInvalid"
    assert shop.rows()["export_run"] == 0


@ON_SQLITE
def test_an_agent_that_is_not_there_is_told(shop: Terminal) -> None:
    create(shop)
    line = f"order export {ORDER} --out {shop.home}/run --agent {shop.home}/none.sock"
    assert shop.refusal(line) == "AgentMissing"
    assert shop.ask("order runs")[0]["codes_written"] == 0


@ON_SQLITE
def test_progress_for_machines_is_json_on_standard_error(shop: Terminal) -> None:
    done = shop.run(f"order create --gtin {GTIN} --quantity 30 --face outer --export csv --workers 1 --json")
    last = json.loads(done.stderr.strip().splitlines()[-1])
    assert (last["done"], last["total"], last["remaining_s"]) == (30, 30, 0)
    assert last["rate"] > 0


@ON_SQLITE
def test_the_number_of_workers_has_limits(shop: Terminal) -> None:
    line = f"order create --gtin {GTIN} --quantity 30 --face outer --workers"
    assert shop.run(f"{line} 0").exit_code == 2
    assert shop.run(f"{line} 257").exit_code == 2
    assert shop.run(f"{line} 1").exit_code == 0
    assert shop.run(f"{line} 256").exit_code == 0
