"""Enrol, sync, update, export, and the background thread of `run`, against a real server of the device protocol."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.offline_sdk.device_server import DeviceServer
from tests.offline_sdk.scanner.shop import DAY_S, Shop, wait_until

CODE = "ABCDEFGHJKMN"


@pytest.fixture
def server(shop: Shop) -> Iterator[DeviceServer]:
    """A server that takes one code, and has the shop's trust file."""
    with DeviceServer(pin=shop.root.fingerprint.hex(), codes={CODE: None}, trust=shop.trust_file()) as running:
        yield running


@pytest.fixture
def enrolled(shop: Shop, server: DeviceServer) -> Shop:
    """A shop whose scanner is enrolled and has the trust list."""
    status, _out, err = shop.run("enrol", "--server", server.url, "--code", CODE, "--name", "till 3")
    assert status == 0, err
    return shop


def enrolment_text(server: DeviceServer, pin: str | None = None) -> str:
    return f"fanxing-enrol:1?server={quote(server.url, safe='')}&code={CODE}&pin={pin or server.pin}"


def told(shop: Shop, *arguments: str, given: str = "") -> tuple[int, dict[str, Any]]:
    """Status and JSON of a command; of one that failed, the JSON on standard error."""
    status, out, err = shop.run(*arguments, "--json", given=given)
    return status, json.loads(out or err)


class TestEnrol:
    def test_text_of_the_qr_is_enough_and_brings_the_trust_list(self, shop: Shop, server: DeviceServer) -> None:
        status, done = told(shop, "enrol", enrolment_text(server), "--name", "till 3")
        assert (status, done["name"], done["bundle_seq"], done["problem"]) == (0, "till 3", 1, None)
        assert list(server.devices) == [done["device_id"]]
        assert shop.home.pin() == shop.root.fingerprint
        assert shop.run("--json", given=shop.text())[1].count('"genuine"') == 1

    def test_text_may_be_scanned_at_the_prompt(self, shop: Shop, server: DeviceServer) -> None:
        status, done = told(shop, "enrol", given=enrolment_text(server) + "\r\n")
        assert (status, done["server"]) == (0, server.url)
        assert done["name"]

    def test_wrong_code_is_refused_and_tells_what_the_server_said(self, shop: Shop, server: DeviceServer) -> None:
        status, said = told(shop, "enrol", "--server", server.url, "--code", "ZZZZZZZZZZZZ")
        assert status == 1
        assert "EnrolmentCodeInvalid" in said["error"]["message"]
        assert told(shop, "status")[1]["device"] is None

    def test_server_with_another_root_than_the_qr_is_refused(self, shop: Shop, server: DeviceServer) -> None:
        status, said = told(shop, "enrol", enrolment_text(server, pin="ab" * 32))
        assert (status, said["error"]["code"]) == (1, "PinMismatch")
        assert told(shop, "run")[0] == 4

    def test_scanner_that_is_enrolled_stays_so(self, enrolled: Shop, server: DeviceServer) -> None:
        status, said = told(enrolled, "enrol", enrolment_text(server))
        assert (status, said["error"]["code"]) == (2, "EnrolmentInvalid")

    @pytest.mark.parametrize(
        "arguments",
        [("--code", CODE), ("--server", "https://x.example"), ("text", "--code", CODE), ("--pin", "ab" * 32)],
        ids=["code alone", "server alone", "text and code", "pin alone"],
    )
    def test_half_of_what_it_takes_is_refused(self, shop: Shop, arguments: tuple[str, ...]) -> None:
        assert told(shop, "enrol", *arguments)[1]["error"]["code"] == "EnrolmentInvalid"

    def test_pin_is_found_again_when_a_kill_came_before_it_was_kept(self, enrolled: Shop) -> None:
        enrolled.home.pin_file.unlink()
        assert enrolled.run("--json", given=enrolled.text())[0] == 0
        assert enrolled.home.pin_file.read_text() == enrolled.root.fingerprint.hex() + "\n"


class TestSync:
    def test_brings_what_waits_and_tells_of_each_batch(self, enrolled: Shop, server: DeviceServer) -> None:
        server.never_issued.add("00001000000002")
        scanned_offline(enrolled, server, 1, 2, 3)
        status, out, err = enrolled.run("sync")
        assert status == 0
        assert "Synced: 2 accepted, 0 known before, 1 refused; 0 wait." in out
        assert "refused as NeverIssued: 1" in out
        assert "3 scans brought, 0 wait" in err
        assert sorted(number for _device, _journal, number in server.records) == [1, 2, 3]
        status, done = told(enrolled, "sync")
        assert (status, done.pop("bundle_seq"), done.pop("refusals"), done.pop("problem")) == (0, 1, {}, None)
        assert set(done.values()) == {0}

    def test_server_that_is_away_costs_nothing(self, enrolled: Shop, server: DeviceServer) -> None:
        scanned_offline(enrolled, server, 1)
        enrolled.move(server.url, "http://127.0.0.1:9")
        status, done = told(enrolled, "sync")
        assert (status, done["waiting"], done["problem"]["code"]) == (1, 1, "SyncFailed")

    def test_revoked_device_keeps_its_scans(self, enrolled: Shop, server: DeviceServer) -> None:
        scanned_offline(enrolled, server, 1)
        server.revoked.update(server.devices)
        status, said = told(enrolled, "sync")
        assert (status, said["error"]["code"]) == (1, "DeviceRevoked")
        assert told(enrolled, "status")[1]["standing"]["sync"]["waiting"] == 1


def scanned_offline(shop: Shop, server: DeviceServer, *items: int) -> None:
    """Scan with the server out of reach."""
    shop.move(server.url, "http://127.0.0.1:9")
    status, out, err = shop.run("--json", given="".join(f"{shop.text(item)}\n" for item in items))
    assert (status, out.count('"genuine"')) == (0, len(items)), err
    shop.move("http://127.0.0.1:9", server.url)


class TestRunningInTheBackground:
    def test_scans_are_brought_while_the_counter_works(self, enrolled: Shop, server: DeviceServer) -> None:
        program = enrolled.start("--json")
        program.scan(enrolled.text(1))
        wait_until(lambda: len(server.records) == 1, "the first scan to be brought")
        program.scan(enrolled.text(2))
        wait_until(lambda: len(server.records) == 2, "the second scan to be brought")
        assert server.batches[-1]["bundle_seq"] == 1
        status = wait_until(lambda: synced_status(enrolled), "the status to be said")
        assert status["link"] == "online"
        assert program.finish()[0] == 0

    def test_newer_trust_list_is_taken_at_the_start(self, enrolled: Shop, server: DeviceServer) -> None:
        server.trust = enrolled.trust_file(seq=3, age_s=60)
        program = enrolled.start("--json")
        wait_until(lambda: program.scan(enrolled.text())["bundle_seq"] == 3, "the newer list")
        assert program.finish()[0] == 0

    def test_trust_list_that_is_refused_is_told_and_the_counter_goes_on(
        self, enrolled: Shop, server: DeviceServer
    ) -> None:
        server.trust = Shop(enrolled.folder / "other").trust_file(seq=9)
        program = enrolled.start("--json")
        assert next(program.notices())["event"] == "ForeignRoot"
        assert program.scan(enrolled.text())["verdict"] == "genuine"
        assert program.finish()[0] == 0

    def test_revoked_device_is_told_and_the_counter_goes_on(self, enrolled: Shop, server: DeviceServer) -> None:
        server.revoked.update(server.devices)
        program = enrolled.start("--json")
        assert program.scan(enrolled.text())["verdict"] == "genuine"
        assert "DeviceRevoked" in [event["event"] for event in (next(program.notices()),)]
        assert program.scan(enrolled.text(2))["number"] == 2
        assert program.finish()[0] == 0


def synced_status(shop: Shop) -> dict[str, Any] | None:
    said = shop.home.said()
    sync: dict[str, Any] | None = said and said["sync"]
    return sync if sync and sync["waiting"] == 0 and sync["last_sync_at"] else None


class TestUpdate:
    def test_takes_a_file_a_folder_and_standard_input(self, shop: Shop) -> None:
        shop.pin()
        stick = shop.folder / "stick"
        stick.mkdir()
        (stick / "trust.cbor").write_bytes(shop.trust_file())
        assert told(shop, "update", str(stick))[1]["new_seq"] == 1
        (stick / "newer").write_bytes(shop.trust_file(seq=3, age_s=60))
        assert told(shop, "update", str(stick / "newer"))[1] == {
            "old_seq": 1,
            "new_seq": 3,
            "old_root_version": 1,
            "root_version": 1,
            "changed": True,
        }
        status, out, _err = shop.run("update", "-", "--json", given=shop.trust_file(seq=5, age_s=30))
        assert (status, json.loads(out)["new_seq"]) == (0, 5)

    def test_file_that_is_refused_changes_nothing(self, shop: Shop) -> None:
        shop.equip(shop.trust_file(seq=5))
        for name, content, code in (
            ("older", shop.trust_file(seq=4), "BundleRollback"),
            ("expired", shop.trust_file(seq=7, age_s=40 * DAY_S), "BundleFrozen"),
            ("mixed", shop.trust_file(seq=6), "BundleMismatch"),
            ("cut", shop.trust_file(seq=7)[:-1], "TrustTruncated"),
            ("foreign", Shop(shop.folder / "other").trust_file(seq=8), "ForeignRoot"),
        ):
            (shop.folder / name).write_bytes(content)
            status, said = told(shop, "update", str(shop.folder / name))
            assert (status, said["error"]["code"]) == (1, code)
        assert told(shop, "status")[1]["standing"]["trust"]["seq"] == 5

    def test_file_that_is_not_there_exits_2(self, shop: Shop) -> None:
        shop.pin()
        status, said = told(shop, "update", str(shop.folder / "absent"))
        assert (status, said["error"]["code"]) == (2, "FileUnusable")


class TestExport:
    def test_every_scan_is_one_line_with_the_servers_answer(self, enrolled: Shop, server: DeviceServer) -> None:
        scanned_offline(enrolled, server, 1)
        enrolled.run("sync")
        scanned_offline(enrolled, server, 2)
        path = enrolled.folder / "journal.ndjson"
        assert told(enrolled, "export", str(path)) == (0, {"records": 2, "file": str(path)})
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(one["number"], one["serial"][-1], one["status"]) for one in records] == [
            (1, "1", "accepted"),
            (2, "2", None),
        ]
        assert enrolled.run("export", "-")[1] == path.read_text()

    def test_file_that_exists_is_left_alone(self, shop: Shop) -> None:
        shop.equip()
        path = shop.folder / "precious"
        path.write_text("mine")
        status, said = told(shop, "export", str(path))
        assert (status, said["error"]["code"], path.read_text()) == (2, "FileUnusable", "mine")


class TestHome:
    def test_is_the_option_then_the_variable_then_the_xdg_folder(self, tmp_path: Path) -> None:
        from offline_sdk.scanner.home import Home

        data = {"XDG_DATA_HOME": str(tmp_path)}
        assert Home.default(data | {"FANXING_SCANNER_HOME": "/srv/till"}).folder == Path("/srv/till")
        assert Home.default(data).folder == tmp_path / "fanxing-scanner"
        for ignored in ({}, {"XDG_DATA_HOME": "relative"}):
            assert Home.default(ignored).folder == Path.home() / ".local/share/fanxing-scanner"

    def test_option_wins_over_the_variable(self, shop: Shop) -> None:
        other = shop.folder / "other"
        assert told(shop, "status", "--home", str(other))[1]["home"] == str(other)
        assert told(shop, "--home", str(other), "status")[1]["home"] == str(other)
        assert not other.exists()

    def test_folder_that_cannot_be_made_exits_2(self, shop: Shop) -> None:
        blocked = shop.folder / "file"
        blocked.write_text("")
        status, said = told(shop, "run", "--home", os.fspath(blocked / "home"))
        assert (status, said["error"]["code"]) == (2, "HomeUnusable")
