"""`fanxing-scanner run` as a process: what it shows of scans, and what it shows when something is amiss."""

import json
import os
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from offline_sdk.scanner.trust import Trust
from tests.offline_sdk.scanner.shop import COMMAND, DAY_S, GTIN, ISSUER, KID, Program, Shop, plug_in, wait_until


def shown(shop: Shop, *texts: str, options: tuple[str, ...] = (), **variables: str) -> list[dict[str, Any]]:
    """What a whole run shows of these texts, as JSON."""
    status, out, err = shop.run("run", "--json", *options, given="".join(f"{text}\n" for text in texts), **variables)
    assert status == 0, err
    return [json.loads(line) for line in out.splitlines()]


def plain(shop: Shop, *texts: str, options: tuple[str, ...] = (), **variables: str) -> str:
    status, out, err = shop.run(*options, given="".join(f"{text}\n" for text in texts), **variables)
    assert status == 0, err
    return out


class TestVerdicts:
    def test_each_scan_has_a_number_a_time_and_its_verdict(self, shop: Shop) -> None:
        shop.equip()
        started = datetime.now(UTC) - timedelta(seconds=1)
        genuine, forged, other = shown(shop, shop.text(), shop.forged(2), "4006381333931")
        at = datetime.fromisoformat(genuine.pop("at"))
        assert started <= at <= datetime.now(UTC)
        assert genuine == {
            "number": 1,
            "verdict": "genuine",
            "error": None,
            "message": "issued by this issuer and not revoked",
            "gtin": GTIN,
            "serial": "00001000000001",
            "profile": 1,
            "kid": KID,
            "issuer": ISSUER,
            "bundle_seq": 1,
            "bundle_state": "fresh",
            "clock_suspect": False,
            "seen": None,
        }
        assert (forged["number"], forged["verdict"], forged["error"]) == (2, "refused", "BadSignature")
        assert (other["number"], other["verdict"], other["error"]) == (3, "refused", "Malformed")

    def test_item_that_comes_again_was_seen_here(self, shop: Shop) -> None:
        shop.equip()
        first, other, second, third = shown(shop, shop.text(), shop.text(2), shop.text(), shop.text())
        assert first["seen"] is other["seen"] is None
        assert second["seen"] == {"number": 1, "at": first["at"], "times": 1}
        assert third["seen"] == {"number": 1, "at": first["at"], "times": 2}
        assert "Seen here before" in plain(shop, shop.text())

    def test_numbers_go_on_after_a_restart(self, shop: Shop) -> None:
        shop.equip()
        assert [one["number"] for one in shown(shop, shop.text(), shop.text(2))] == [1, 2]
        assert [one["number"] for one in shown(shop, shop.text(3))] == [3]

    def test_last_line_needs_no_end(self, shop: Shop) -> None:
        shop.equip()
        status, out, _err = shop.run("--json", given=shop.text())
        assert (status, json.loads(out)["verdict"]) == (0, "genuine")

    @pytest.mark.parametrize(
        ("language", "word", "advice"), [("en", "GENUINE", "Sell it."), ("zh", "正品", "可以销售")]
    )
    def test_plain_line_is_in_the_language_that_was_asked_for(
        self, shop: Shop, language: str, word: str, advice: str
    ) -> None:
        shop.equip()
        line = plain(shop, shop.text(), options=("run", "--lang", language))
        assert line.startswith(f"#1 {word} | GTIN {GTIN}")
        assert ISSUER in line
        assert advice in line

    def test_language_is_that_of_the_environment(self, shop: Shop) -> None:
        shop.equip()
        assert "拒绝" in plain(shop, "x", LANG="zh_CN.UTF-8")
        assert "REFUSED" in plain(shop, "x", LANG="de_DE.UTF-8")

    def test_neither_signature_nor_text_is_shown_or_kept(self, shop: Shop) -> None:
        shop.equip()
        signature = re.search("/1[0-9]{160}", shop.text())
        assert signature is not None
        secret = signature[0][40:80]
        assert secret not in plain(shop, shop.text(), "SECRET WORDS")
        assert secret not in json.dumps(shown(shop, shop.text()))
        for path in shop.home.folder.rglob("*"):  # the scanner's own, not what this test types
            if path.is_file():
                content = path.read_bytes()
                assert secret.encode() not in content
                assert b"SECRET WORDS" not in content


class TestOldTrust:
    def test_stale_list_is_accepted_with_a_flag(self, shop: Shop) -> None:
        shop.equip(shop.trust_file(age_s=4 * DAY_S))
        [one] = shown(shop, shop.text())
        assert (one["verdict"], one["bundle_state"]) == ("genuine", "stale")
        assert "GENUINE [OLD LIST" in plain(shop, shop.text())

    def test_expired_list_makes_one_ask(self, shop: Shop) -> None:
        shop.pin()
        then = Trust(shop.home.trust, shop.root.fingerprint, clock=lambda: ago(39))
        then.update(shop.trust_file(age_s=40 * DAY_S))
        [one] = shown(shop, shop.text())
        assert (one["verdict"], one["error"], one["bundle_state"]) == ("ask", "BundleExpired", "expired")
        line = plain(shop, shop.text())
        assert "ASK [EXPIRED LIST" in line

    @pytest.mark.parametrize(("action", "verdict"), [("accept", "genuine"), ("ask", "ask"), ("refuse", "refused")])
    def test_policy_is_asked_for_by_options(self, shop: Shop, action: str, verdict: str) -> None:
        shop.equip(shop.trust_file(age_s=4 * DAY_S))
        [one] = shown(shop, shop.text(), options=("--on-stale", action))
        assert one["verdict"] == verdict

    def test_without_a_list_nothing_is_green_and_the_start_says_what_to_do(self, shop: Shop) -> None:
        shop.pin()
        status, out, err = shop.run("--json", given=f"{shop.text()}\n{shop.forged()}\nx\n")
        assert status == 0
        found = [(one["verdict"], one["error"], one["bundle_seq"]) for one in map(json.loads, out.splitlines())]
        assert found == [("ask", "TrustMissing", None), ("ask", "TrustMissing", None), ("refused", "Malformed", None)]
        assert "fanxing-scanner update" in err

    def test_update_by_another_process_is_taken_over(self, shop: Shop) -> None:
        shop.pin()
        program = shop.start("--json")
        assert program.scan(shop.text())["error"] == "TrustMissing"
        (shop.folder / "trust.cbor").write_bytes(shop.trust_file())
        assert shop.run("update", str(shop.folder))[0] == 0
        wait_until(lambda: program.scan(shop.text())["verdict"] == "genuine", "the list to be taken over")


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


class TestClock:
    @pytest.fixture
    def future(self, shop: Shop) -> Shop:
        """A shop whose scanner's clock once stood a day ahead."""
        shop.equip()
        Trust(shop.home.trust, shop.root.fingerprint, clock=lambda: ago(-1)).remember()
        return shop

    def test_clock_behind_what_was_seen_makes_one_ask(self, future: Shop) -> None:
        [one] = shown(future, future.text())
        assert (one["verdict"], one["error"], one["clock_suspect"]) == ("ask", "ClockSuspect", True)
        [one] = shown(future, future.text(), options=("--on-clock", "accept"))
        assert (one["verdict"], one["clock_suspect"]) == ("genuine", True)
        assert "GENUINE [CLOCK SUSPECT" in plain(future, future.text(), options=("--on-clock", "accept"))

    def test_operator_corrects_it_and_that_is_noted(self, future: Shop) -> None:
        assert "clock_suspect: True" in future.run("clock")[1]
        status, out, _err = future.run("clock", "correct", "--json")
        assert (status, json.loads(out)["dry_run"]) == (0, True)
        assert "clock_suspect: True" in future.run("clock")[1]
        assert not (future.home.folder / "notes.ndjson").exists()
        status, out, _err = future.run("clock", "correct", "--yes", "--json")
        assert (status, json.loads(out)["clock_suspect"]) == (0, False)
        [note] = map(json.loads, (future.home.folder / "notes.ndjson").read_text().splitlines())
        assert note["note"] == "clock corrected"
        [one] = shown(future, future.text())
        assert (one["verdict"], one["clock_suspect"]) == ("genuine", False)


class TestJournal:
    def test_scan_that_cannot_be_recorded_is_not_shown_green(self, shop: Shop) -> None:
        shop.equip()
        shown(shop, shop.text(0))
        # A limit on the size of files is a full disk to the journal.
        limited = ("bash", "-c", 'ulimit -f 48; exec "$@"', "bash", *COMMAND)
        program = Program(shop.home.folder, "--json", command=limited)
        shop.programs.append(program)
        for item in range(1, 2_000):
            one = program.scan(shop.text(item))
            if one["number"] is None:
                break
            assert one["verdict"] == "genuine"
        assert (one["verdict"], one["error"], one["issuer"], one["seen"]) == ("refused", "JournalFull", None, None)
        assert program.finish()[0] == 0
        # With room again it goes on where it was.
        [after] = shown(shop, shop.text(item))
        assert (after["number"], after["verdict"]) == (item + 1, "genuine")

    def test_damaged_journal_is_put_aside_and_the_counter_goes_on(self, shop: Shop) -> None:
        shop.equip()
        shown(shop, shop.text())
        content = bytearray(shop.home.journal.read_bytes())
        content[100:4_096] = b"\xaa" * 3_996
        shop.home.journal.write_bytes(content)
        status, out, err = shop.run("--json", given=f"{shop.text()}\n")
        assert (status, json.loads(out)["number"]) == (0, 1)
        assert [one for one in map(json.loads, err.splitlines()) if one["event"] == "JournalDamaged"]
        assert list(shop.home.folder.glob("journal.db.damaged-*"))


class TestTheProcess:
    def test_one_home_has_one_scanner(self, shop: Shop) -> None:
        shop.equip()
        first = shop.start("--json")
        first.scan(shop.text())
        status, out, err = shop.run("run")
        assert (status, out) == (3, "")
        assert "HomeBusy" in err
        assert first.scan(shop.text(2))["number"] == 2

    def test_status_tells_of_a_scanner_at_work_and_of_one_at_rest(self, shop: Shop) -> None:
        shop.equip()
        program = shop.start("--json")
        program.scan(shop.text())
        program.scan(shop.text())
        program.scan(shop.forged())

        def told() -> dict[str, Any]:
            status: dict[str, Any] = json.loads(shop.run("status", "--json")[1])
            return status

        wait_until(lambda: ((told()["standing"] or {}).get("sync") or {}).get("waiting") == 3, "the status to be said")
        working = told()
        assert working["is_running"]
        assert program.finish()[0] == 0
        resting = told()
        assert not resting["is_running"]
        for one in (working, resting):
            day = one["standing"]["today"]
            assert (day["genuine"], day["ask"], day["refused"], day["seen_before"]) == (2, 0, 1, 1)
            assert (one["standing"]["trust"]["seq"], one["standing"]["trust"]["state"]) == (1, "fresh")

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
    def test_signal_ends_it_after_what_was_scanned(self, shop: Shop, name: str) -> None:
        shop.equip()
        program = shop.start("--json")
        assert program.scan(shop.text())["number"] == 1
        program.process.send_signal(signal.Signals[name])
        assert program.process.wait(60) == 0
        [one] = shown(shop, shop.text(2))
        assert one["number"] == 2

    def test_serial_port_is_read_and_its_unplugging_is_told(self, shop: Shop) -> None:
        shop.equip()
        port = shop.folder / "ttyUSB0"
        program = shop.start("--json", "--serial", str(port))
        notices = program.notices()
        assert any(notice["event"] == "ScannerUnplugged" for notice in notices)
        hand = plug_in(shop.folder)
        assert any(notice["event"] == "ScannerConnected" for notice in notices)
        os.write(hand, shop.text().encode() + b"\r")
        assert json.loads(program.line())["verdict"] == "genuine"
        os.close(hand)
        assert any(notice["event"] == "ScannerUnplugged" for notice in notices)
        program.process.terminate()
        assert program.finish()[0] == 0

    def test_scanner_without_a_root_says_what_to_do(self, shop: Shop) -> None:
        status, out, err = shop.run("run", "--json")
        assert (status, out) == (4, "")
        assert json.loads(err)["error"]["code"] == "NotEnrolled"

    @pytest.mark.parametrize("option", ["--baud=299", "--baud=4000001", "--baud=x", "--lang=fr", "--on-stale=maybe"])
    def test_bad_usage_exits_2(self, shop: Shop, option: str) -> None:
        assert shop.run("run", option)[0] == 2

    def test_home_is_for_its_user_alone(self, shop: Shop) -> None:
        shop.equip()
        program = shop.start("--json")
        program.scan(shop.text())
        assert program.finish()[0] == 0
        assert Path(shop.home.folder).stat().st_mode & 0o077 == 0
        for path in shop.home.folder.rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path
