"""Scans told of by devices, over real HTTP: each kept once, judged again, set right in time, and counted."""

import contextlib
import gzip
import json
import secrets
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from alembic import command
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import Connection, event
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

import migrations
from codes.orders import CodeOrder
from kit.db import Database, Session
from kit.vault import Vault
from scan_api import device_scans, scans
from scan_api.device_scans import (
    NUMBER_MAX,
    RECORDS_MAX,
    TIME_MS_MAX,
    Batch,
    DeviceScan,
    Record,
    Status,
    corrected,
    milliseconds,
)
from scan_api.devices import Device
from scan_api.middleware import BODY_BYTES_MAX
from scan_api.routers.devices import UNPACKED_BYTES_MAX
from scan_api.scans import Scan, Scans
from tests.scan_api.shop_scanner import ShopScanner, enrolled, genuine, kid_of, malformed, now_ms
from tests.stand import OTHER_BRAND, PLACED_AT, Item, PlacedOrder, Stand, run

NOW = datetime(2026, 5, 4, 3, 2, 1, 234_000, tzinfo=UTC)
ACCEPTED, DUPLICATE = ("accepted", None), ("duplicate", None)
NEVER_ISSUED, OUT_OF_SCOPE = ("refused", "NeverIssued"), ("refused", "OutOfScope")
NUMBER_REUSED, RECORD_INVALID = ("refused", "NumberReused"), ("refused", "RecordInvalid")
STATEMENTS_MAX = 8
"""Of one batch, BEGIN and COMMIT apart, however many records and orders it tells of."""


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def kept(stand: Stand, scanner: ShopScanner) -> list[DeviceScan]:
    query = select(DeviceScan).where(DeviceScan.device_id == uuid.UUID(scanner.device_id)).order_by(DeviceScan.number)
    return stand.rows(query)


def device_of(stand: Stand, scanner: ShopScanner) -> Device:
    [device] = stand.rows(select(Device).where(Device.device_id == uuid.UUID(scanner.device_id)))
    assert isinstance(device, Device)
    return device


def scans_of(stand: Stand, order: PlacedOrder, item: Item) -> list[Scan]:
    key = CodeOrder(order_id=order.order_id).item_key(int(item.serial[5:]))
    return stand.rows(select(Scan).where(Scan.item_key == key).order_by(Scan.scan_id))


def counted(stand: Stand, order: PlacedOrder, item: Item) -> scans.Item:
    key = CodeOrder(order_id=order.order_id).item_key(int(item.serial[5:]))
    [found] = stand.rows(select(scans.Item).where(scans.Item.item_key == key))
    assert isinstance(found, scans.Item)
    return found


@pytest.fixture
def scanner(stand: Stand) -> ShopScanner:
    return enrolled(stand)


@pytest.fixture
def order(stand: Stand) -> PlacedOrder:
    return stand.order("on sale")


@pytest.fixture
def kid(order: PlacedOrder) -> int:
    return kid_of(order)


class TestKeeping:
    def test_a_genuine_record_is_kept_and_counts_as_a_scan(
        self, stand: Stand, scanner: ShopScanner, order: PlacedOrder, kid: int
    ) -> None:
        item = stand.take_item()
        assert scanner.sync(genuine(1, kid, item, face=2, clock_suspect=True)) == [ACCEPTED]
        [record] = kept(stand, scanner)
        assert (record.journal, record.number, record.gtin, record.serial) == (
            scanner.journal,
            1,
            item.gtin,
            item.serial,
        )
        assert (record.verdict, record.profile, record.kid, record.clock_suspect) == ("genuine", 2, kid, True)
        [scan] = scans_of(stand, order, item)
        assert (scan.channel, scan.face, scan.at) == ("device", 2, record.scanned_at)
        assert stand.scan(item.outer).json()["scan_count"] == 2

    def test_other_verdicts_are_kept_and_count_nothing(self, stand: Stand, scanner: ShopScanner, kid: int) -> None:
        item = stand.take_item()
        ask = genuine(1, kid, item, verdict="ask", error="BundleStale", bundle_state="stale")
        revoked = genuine(2, kid, item, verdict="refused", error="Revoked")
        assert scanner.sync(ask, revoked, malformed(3)) == [ACCEPTED] * 3
        assert [one.verdict for one in kept(stand, scanner)] == ["ask", "refused", "refused"]
        assert stand.scan(item.outer).json()["scan_count"] == 1

    def test_a_batch_sent_again_changes_nothing(self, stand: Stand, scanner: ShopScanner, kid: int) -> None:
        items = stand.take_items(3)
        records = [genuine(number, kid, item) for number, item in enumerate(items, 1)]
        assert scanner.sync(*records) == [ACCEPTED] * 3
        before = stand.counts()
        assert scanner.sync(*records) == [DUPLICATE] * 3
        assert scanner.sync(records[1], malformed(4)) == [DUPLICATE, ACCEPTED]
        assert stand.counts() == {**before, "device_scan": before["device_scan"] + 1}

    def test_time_elapsed_since_is_no_other_content(self, scanner: ShopScanner) -> None:
        record = malformed(1, elapsed_ms=1_000)
        assert scanner.sync(record) == [ACCEPTED]
        assert scanner.sync({**record, "elapsed_ms": 2_000}) == [DUPLICATE]
        assert scanner.sync({**record, "elapsed_ms": None}) == [DUPLICATE]

    @pytest.mark.parametrize("change", [{"at_ms": 1}, {"error": "BadSignature"}, {"clock_suspect": True}], ids=str)
    def test_other_content_under_a_number_is_refused(
        self, stand: Stand, scanner: ShopScanner, change: dict[str, Any]
    ) -> None:
        record = malformed(7)
        assert scanner.sync(record) == [ACCEPTED]
        assert scanner.sync({**record, **change}, malformed(8)) == [NUMBER_REUSED, ACCEPTED]
        assert [one.error for one in kept(stand, scanner)] == ["Malformed"] * 2

    def test_another_journal_and_another_device_have_numbers_of_their_own(
        self, stand: Stand, scanner: ShopScanner
    ) -> None:
        record = malformed(1)
        assert scanner.sync(record) == [ACCEPTED]
        assert scanner.sync(record, journal=secrets.token_hex(8)) == [ACCEPTED]
        assert enrolled(stand).sync(record, journal=scanner.journal) == [ACCEPTED]

    def test_identical_batches_at_the_same_time_are_kept_once(
        self, stand: Stand, scanner: ShopScanner, order: PlacedOrder, kid: int
    ) -> None:
        items = stand.take_items(10)
        records = [genuine(number, kid, item) for number, item in enumerate(items, 1)]
        batch = scanner.batch(records)
        sent = [scanner.scans(batch) for _ in range(8)]
        answers = stand.at_once(
            [{"url": str(one.url), "content": one.content, "headers": dict(one.headers)} for one in sent]
        )
        assert {answer.status_code for answer in answers} == {200}
        told = [[one["status"] for one in answer.json()["answers"]] for answer in answers]
        assert sorted(told) == [["accepted"] * 10] + [["duplicate"] * 10] * 7
        for item in items:
            assert counted(stand, order, item).scan_count == len(scans_of(stand, order, item)) == 1

    def test_devices_that_scan_the_same_items_at_the_same_time_are_all_counted(
        self, stand: Stand, order: PlacedOrder, kid: int
    ) -> None:
        """In opposite orders, which would make two transactions wait for each other."""
        items = stand.take_items(20)
        scanners = [enrolled(stand) for _ in range(4)]
        sent = []
        for turn, scanner in enumerate(scanners):
            seen = items if turn % 2 else items[::-1]
            sent.append(scanner.scans(scanner.batch([genuine(at, kid, item) for at, item in enumerate(seen, 1)])))
        answers = stand.at_once(
            [{"url": str(one.url), "content": one.content, "headers": dict(one.headers)} for one in sent]
        )
        assert {answer.status_code for answer in answers} == {200}
        assert {counted(stand, order, item).scan_count for item in items} == {4}

    def test_one_item_scanned_thrice_is_counted_thrice(
        self, stand: Stand, scanner: ShopScanner, order: PlacedOrder, kid: int
    ) -> None:
        item = stand.take_item()
        assert scanner.sync(*(genuine(number, kid, item) for number in (1, 2, 3))) == [ACCEPTED] * 3
        assert counted(stand, order, item).scan_count == len(scans_of(stand, order, item)) == 3

    def test_how_a_device_stands_is_told_by_its_newest_request(self, stand: Stand, scanner: ShopScanner) -> None:
        early = scanner.scans(
            scanner.batch([malformed(1)], bundle_seq=1, waiting=9), created=datetime.now(UTC) - timedelta(seconds=60)
        )
        scanner.sync(malformed(2), bundle_seq=7, root_version=2, waiting=5, device_time_ms=now_ms() - 90_000)
        first = device_of(stand, scanner)
        assert (first.bundle_seq, first.root_version, first.waiting) == (7, 2, 4)
        assert first.clock_offset_ms == pytest.approx(90_000, abs=60_000)
        assert scanner.send(early).status_code == 200
        later = device_of(stand, scanner)
        assert (later.bundle_seq, later.waiting, later.clock_offset_ms) == (7, 4, first.clock_offset_ms)
        assert len(kept(stand, scanner)) == 2

    def test_a_device_with_nothing_to_tell_is_heard_of(self, stand: Stand, scanner: ShopScanner) -> None:
        assert device_of(stand, scanner).last_sync_at is None
        assert scanner.sync(bundle_seq=None, root_version=None) == []
        device = device_of(stand, scanner)
        assert device.last_sync_at is not None
        assert (device.bundle_seq, device.waiting) == (None, 0)


class TestJudging:
    @pytest.mark.parametrize("why", ["serial", "order", "face", "kid", "GTIN"])
    def test_genuine_item_that_never_was_is_refused_and_kept_as_evidence(
        self, stand: Stand, scanner: ShopScanner, kid: int, why: str
    ) -> None:
        order = stand.order("outer only")
        item = order.items[0]
        record = genuine(1, kid, item)
        changed = {
            "serial": {"serial": item.serial[:-1] + str((int(item.serial[-1]) + 1) % 10)},
            "order": {"serial": "98765000000000"},
            "face": {"profile": 2},
            "kid": {"kid": kid + 1},
            "GTIN": {"gtin": "09506000199991"},
        }[why]
        before = stand.counts()
        assert scanner.sync({**record, **changed}) == [NEVER_ISSUED]
        assert [one.refusal for one in kept(stand, scanner)] == ["NeverIssued"]
        assert scanner.sync({**record, **changed}) == [NEVER_ISSUED], "the same answer again"
        assert stand.counts() == {**before, "device_scan": before["device_scan"] + 1}

    def test_another_brands_product_is_out_of_scope_and_kept_as_evidence(
        self, stand: Stand, scanner: ShopScanner
    ) -> None:
        order = stand.order("other brand")
        item = order.items[1]
        before = stand.counts(without=("device_scan",))
        good = genuine(1, kid_of(order), item)
        bad = genuine(2, kid_of(order), item, verdict="refused", error="BadSignature")
        assert scanner.sync(good, bad) == [OUT_OF_SCOPE] * 2
        assert scanner.sync(good, bad) == [OUT_OF_SCOPE] * 2, "the same answer again"
        assert {one.refusal for one in kept(stand, scanner)} == {"OutOfScope"}
        assert stand.counts(without=("device_scan",)) == before

    def test_device_of_that_brand_or_of_all_may_tell_of_it(self, stand: Stand) -> None:
        order = stand.order("other brand")
        for number, brand in ((2, OTHER_BRAND), (3, None)):
            assert enrolled(stand, brand).sync(genuine(1, kid_of(order), order.items[number])) == [ACCEPTED]

    def test_made_up_gtin_is_nobodys_and_kept(self, scanner: ShopScanner) -> None:
        assert scanner.sync(malformed(1, gtin="12345678901231", error="UnknownKey")) == [ACCEPTED]

    def test_recalled_item_was_genuine_to_the_device(self, stand: Stand, scanner: ShopScanner) -> None:
        order = stand.order("recalled")
        assert scanner.sync(genuine(1, kid_of(order), order.items[2])) == [ACCEPTED]

    def test_each_record_is_answered_in_its_place(self, stand: Stand, scanner: ShopScanner, kid: int) -> None:
        one, other = stand.take_items(2)
        foreign = stand.order("other brand")
        scanner.sync(malformed(3))
        assert scanner.sync(
            genuine(1, kid, one),
            genuine(2, kid, other, serial="98765000000000"),
            malformed(3, at_ms=5),
            genuine(4, kid_of(foreign), foreign.items[4]),
            malformed(5, verdict="genuine"),
            genuine(NUMBER_MAX, kid, other),
        ) == [ACCEPTED, NEVER_ISSUED, NUMBER_REUSED, OUT_OF_SCOPE, RECORD_INVALID, ACCEPTED]
        assert [one.number for one in kept(stand, scanner)] == [1, 2, 3, 4, NUMBER_MAX]


class TestTime:
    def test_late_scan_becomes_the_first(
        self, stand: Stand, scanner: ShopScanner, order: PlacedOrder, kid: int
    ) -> None:
        item = stand.take_item()
        stand.scan(item.outer)
        day_ms = 86_400_000
        assert scanner.sync(genuine(1, kid, item, at_ms=now_ms() - 2 * day_ms)) == [ACCEPTED]
        assert scanner.sync(genuine(2, kid, item, elapsed_ms=3 * day_ms)) == [ACCEPTED]
        found = counted(stand, order, item)
        assert datetime.now(UTC) - found.first_scan_at == pytest.approx(timedelta(days=3), abs=timedelta(minutes=5))
        assert datetime.now(UTC) - found.last_scan_at < timedelta(minutes=5)
        assert [scan.channel for scan in scans_of(stand, order, item)] == ["device", "device", "api"], "oldest first"
        assert found.first_scan_at == scans_of(stand, order, item)[0].at

    def test_clock_that_lost_its_time_says_nothing_before_the_order(
        self, stand: Stand, scanner: ShopScanner, order: PlacedOrder, kid: int
    ) -> None:
        item = stand.take_item()
        assert scanner.sync(genuine(1, kid, item, at_ms=0)) == [ACCEPTED]
        assert counted(stand, order, item).first_scan_at == PLACED_AT
        [record] = kept(stand, scanner)
        assert (record.scanned_at, record.at_ms) == (PLACED_AT, 0)

    @pytest.mark.parametrize(
        ("at_ms", "elapsed_ms", "device_ms", "seconds_ago"),
        [
            pytest.param(-60_000, None, 0, 60, id="right clock"),
            pytest.param(-60_000 - 10**9, None, -(10**9), 60, id="slow clock"),
            pytest.param(-60_000 + 10**9, None, 10**9, 60, id="fast clock"),
            pytest.param(10**9, 5_000, 0, 5, id="elapsed time outweighs the clock"),
            pytest.param(60_000, None, 0, 0, id="never later than now"),
            pytest.param(0, 0, 10**9, 0, id="just now"),
        ],
    )
    def test_is_corrected(self, at_ms: int, elapsed_ms: int | None, device_ms: int, seconds_ago: int) -> None:
        now = milliseconds(NOW)
        record = Record.model_validate(malformed(1, at_ms=now + at_ms, elapsed_ms=elapsed_ms))
        assert corrected(record, now + device_ms, NOW) == NOW - timedelta(seconds=seconds_ago)

    @given(
        at_ms=st.integers(0, TIME_MS_MAX),
        elapsed_ms=st.none() | st.integers(0, TIME_MS_MAX),
        device_ms=st.integers(0, TIME_MS_MAX),
    )
    def test_is_a_moment_whatever_the_clocks_say(self, at_ms: int, elapsed_ms: int | None, device_ms: int) -> None:
        record = Record.model_validate(malformed(1, at_ms=at_ms, elapsed_ms=elapsed_ms))
        assert datetime(1970, 1, 1, tzinfo=UTC) <= corrected(record, device_ms, NOW) <= NOW


ITEM = Item("09506000134352", "00001000000001")
RIGHT = genuine(1, 7, ITEM)


class TestForm:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("at_ms", -1),
            ("at_ms", TIME_MS_MAX + 1),
            ("at_ms", 1.5),
            ("at_ms", None),
            ("elapsed_ms", -1),
            ("elapsed_ms", "1"),
            ("verdict", "fine"),
            ("error", "Malformed"),
            ("profile", 3),
            ("profile", True),
            ("kid", 100_000),
            ("kid", None),
            ("gtin", "123"),
            ("gtin", None),
            ("serial", "0000100000000a"),
            ("serial", "\uff10" * 14),
            ("serial", None),
            ("bundle_seq", None),
            ("bundle_seq", 0),
            ("bundle_seq", NUMBER_MAX + 1),
            ("bundle_state", None),
            ("bundle_state", "old"),
            ("clock_suspect", None),
            ("clock_suspect", 0),
        ],
    )
    def test_records_with_wrong_values_are_invalid(self, field: str, value: object) -> None:
        with pytest.raises(ValidationError):
            Record.model_validate({**RIGHT, field: value})

    @pytest.mark.parametrize(
        "change",
        [
            {"at_ms": 0},
            {"at_ms": TIME_MS_MAX, "elapsed_ms": TIME_MS_MAX},
            {"kid": 0},
            {"kid": 99_999},
            {"bundle_seq": NUMBER_MAX},
            {"verdict": "ask"},
            {"verdict": "ask", "error": "ClockSuspect"},
            {"verdict": "ask", "error": "TrustMissing", "bundle_seq": None, "bundle_state": None},
            {"verdict": "refused", "error": "x" * 40},
        ],
        ids=str,
    )
    def test_records_at_their_limits_are_valid(self, change: dict[str, Any]) -> None:
        assert Record.model_validate({**RIGHT, **change}).model_dump() == {**RIGHT, **change}

    @pytest.mark.parametrize("error", ["", "x" * 41, "no words", "N0", "a\x00"])
    def test_errors_are_codes(self, error: str) -> None:
        with pytest.raises(ValidationError):
            Record.model_validate(malformed(1, error=error))

    def test_refused_record_without_an_error_is_invalid(self) -> None:
        with pytest.raises(ValidationError):
            Record.model_validate(malformed(1, error=None))

    @pytest.mark.parametrize("verdict", ["genuine", "ask"])
    def test_item_that_is_not_named_cannot_be_believed(self, verdict: str) -> None:
        with pytest.raises(ValidationError):
            Record.model_validate(malformed(1, verdict=verdict, error=None))

    @pytest.mark.parametrize("error", [None, "BundleExpired"])
    def test_device_that_has_a_bundle_names_it_when_it_asks(self, error: str | None) -> None:
        with pytest.raises(ValidationError):
            Record.model_validate({**RIGHT, "verdict": "ask", "error": error, "bundle_seq": None, "bundle_state": None})

    @pytest.mark.parametrize("stand_kind", ["sqlite"])
    @pytest.mark.parametrize(
        "change",
        [
            {"journal": "0" * 15},
            {"journal": "G" * 16},
            {"device_time_ms": -1},
            {"bundle_seq": 0},
            {"root_version": "1"},
            {"waiting": -1},
            {"more": 1},
            {"records": None},
            {"records": [malformed(2), malformed(1)]},
            {"records": [malformed(1), malformed(1)]},
            {"records": [malformed(0)]},
            {"records": [malformed(NUMBER_MAX + 1)]},
            {"records": [{**malformed(1), "number": True}]},
            {"records": [{**malformed(1), "more": 1}]},
            {"records": [{"number": 1}]},
            {"records": [1]},
        ],
        ids=[f"case {number}" for number in range(16)],
    )
    def test_batch_of_another_form_is_refused_whole(self, stand: Stand, change: dict[str, Any]) -> None:
        scanner = shared_scanner(stand)
        answer = scanner.send(scanner.scans({**scanner.batch([malformed(1)]), **change}))
        assert error_of(answer) == (400, "RequestInvalid")
        assert kept(stand, scanner) == []

    def test_number_of_records_has_a_limit(self) -> None:
        scanner = ShopScanner(stand=None)  # type: ignore[arg-type]  # only its form is asked for
        for count, allowed in ((RECORDS_MAX, True), (RECORDS_MAX + 1, False)):
            text = json.dumps(scanner.batch([malformed(number) for number in range(1, count + 1)]))
            if allowed:
                assert len(Batch.model_validate_json(text).records) == count
            else:
                with pytest.raises(ValidationError):
                    Batch.model_validate_json(text)


_SHARED: dict[str, ShopScanner] = {}


def shared_scanner(stand: Stand) -> ShopScanner:
    """A scanner for tests in which nothing is ever kept."""
    return _SHARED.setdefault(stand.database_url, enrolled(stand))


@pytest.mark.parametrize("stand_kind", ["sqlite"])
class TestBodies:
    def post(self, scanner: ShopScanner, body: bytes, **headers: str) -> httpx2.Response:
        path = f"/v1/devices/{scanner.device_id}/scans"
        return scanner.send(scanner.signed(path, body, scanner.device_id, headers=headers))

    def padded(self, scanner: ShopScanner, size: int) -> bytes:
        body = json.dumps(scanner.batch([])).encode()
        return body + b" " * (size - len(body))

    def test_may_be_packed(self, stand: Stand) -> None:
        scanner = enrolled(stand)
        answer = scanner.send(scanner.scans(scanner.batch([malformed(1)]), packed=True))
        assert answer.json()["answers"] == [{"number": 1, "status": "accepted", "error": None}]

    @pytest.mark.parametrize(("more", "status"), [(-1, 200), (0, 200), (1, 413)])
    def test_sent_size_has_a_limit(self, stand: Stand, more: int, status: int) -> None:
        scanner = shared_scanner(stand)
        answer = self.post(scanner, self.padded(scanner, BODY_BYTES_MAX + more))
        assert answer.status_code == status
        assert "fanxing-time" in answer.headers

    @pytest.mark.parametrize(("more", "status"), [(-1, 200), (0, 200), (1, 413), (20_000_000, 413)])
    def test_unpacked_size_has_a_limit(self, stand: Stand, more: int, status: int) -> None:
        scanner = shared_scanner(stand)
        packing = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
        body = packing.compress(self.padded(scanner, UNPACKED_BYTES_MAX))
        body += packing.compress(b" " * more) if more > 0 else b""
        if more < 0:
            packing = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
            body = packing.compress(self.padded(scanner, UNPACKED_BYTES_MAX + more))
        body += packing.flush()
        assert len(body) < BODY_BYTES_MAX
        answer = self.post(scanner, body, **{"content-encoding": "gzip"})
        assert answer.status_code == status, answer.text
        if status == 413:
            assert answer.json()["code"] == "BodyTooLarge"

    @pytest.mark.parametrize("damage", ["cut", "more behind", "no gzip", "other coding", "empty"])
    def test_damaged_packing_is_refused(self, stand: Stand, damage: str) -> None:
        scanner = shared_scanner(stand)
        right = gzip.compress(json.dumps(scanner.batch([])).encode())
        body = {"cut": right[:-1], "more behind": right + right, "no gzip": b"{}", "empty": b""}.get(damage, right)
        coding = "deflate" if damage == "other coding" else "gzip"
        assert error_of(self.post(scanner, body, **{"content-encoding": coding})) == (400, "RequestInvalid")

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a":1}', b"[" * 100_000])
    def test_what_is_no_batch_is_refused(self, stand: Stand, body: bytes) -> None:
        assert error_of(self.post(shared_scanner(stand), body)) == (400, "RequestInvalid")

    def test_other_media_types_are_refused(self, stand: Stand) -> None:
        answer = self.post(shared_scanner(stand), b"{}", **{"content-type": "text/plain"})
        assert error_of(answer) == (400, "RequestInvalid")


def test_a_full_batch_takes_few_statements(stand: Stand) -> None:
    """All 500 records genuine, of many orders, half of them kept before: nothing is asked for one by one."""
    scanner = enrolled(stand, None)
    items = [
        (kid_of(order), item)
        for name in ("on sale", "other brand", "dormant", "to be activated", "recalled", "outer only")
        for order in [stand.order(name)]
        for item in order.items[-300:]
    ][-RECORDS_MAX:]
    records = [genuine(number, kid, item) for number, (kid, item) in enumerate(items, 1)]

    async def count() -> tuple[list[str], int, int]:
        database = Database(stand.database_url, 1)
        try:
            with statements(database) as seen:
                for sent in (records[::2], records):
                    seen.clear()
                    async with database.writing() as session:
                        answers = await take_in(session, stand.vault, scanner, sent)
            told = [answer.status for answer in answers]
            return list(seen), told.count(Status.ACCEPTED), told.count(Status.DUPLICATE)
        finally:
            await database.close()

    seen, accepted, duplicate = run(count())
    assert (accepted, duplicate) == (RECORDS_MAX // 2, RECORDS_MAX // 2)
    assert len(seen) <= STATEMENTS_MAX, seen


async def take_in(
    session: Session, vault: Vault, scanner: ShopScanner, records: list[dict[str, Any]]
) -> list[device_scans.Answer]:
    batch = Batch.model_validate(scanner.batch(records))
    now = datetime.now(UTC)
    return await device_scans.take_in(session, Scans(vault), uuid.UUID(scanner.device_id), batch, 1, now)


async def test_scans_from_before_there_were_devices_are_still_there(empty_database_url: str) -> None:
    """SQLite makes the table of scans anew, to let it hold those of devices."""
    database = Database(empty_database_url)

    def to(version: str) -> Callable[[Connection], None]:
        def upgrade(connection: Connection) -> None:
            settings = migrations.config()
            settings.attributes["connection"] = connection
            command.upgrade(settings, version)

        return upgrade

    writing = database.engine.execution_options(fanxing_writes=True)
    async with writing.begin() as connection:
        await connection.run_sync(to("0002"))
    scan = {"item_key": 5, "scan_id": uuid.uuid4(), "face": 1, "channel": "page", "at": NOW}
    async with database.writing() as session:
        session.add(Scan(**scan))
    async with writing.begin() as connection:
        await connection.run_sync(to("0003"))
    async with database.reading() as session:
        assert [one.model_dump() for one in (await session.exec(select(Scan))).all()] == [scan]
    for channel, allowed in (("device", True), ("pigeon", False)):
        with contextlib.nullcontext() if allowed else pytest.raises(IntegrityError):
            async with database.writing() as session:
                session.add(Scan(**{**scan, "scan_id": uuid.uuid4(), "channel": channel}))
    await database.close()


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            seen.append(statement.partition("\n")[0][:80])

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)
