import json
import random
import secrets
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from offline_sdk.device import Device, EnrolmentText
from offline_sdk.errors import DeviceRevoked, EnrolmentInvalid, NotEnrolled, PinMismatch, SyncFailed
from offline_sdk.journal import Journal, Moment, Scan, Status
from offline_sdk.sync import (
    BATCH_BYTES_MAX,
    BATCH_RECORDS_MAX,
    RETRY_AFTER_S_MAX,
    TRUST_BYTES_MAX,
    Backoff,
    Link,
    Sync,
    enrol,
    fetch_trust,
)
from tests.faults.flaky_link import Fault, FlakyLink, link_that_fails_with
from tests.offline_sdk.device_server import Canned, DeviceServer, refusal

GTIN = "06901234567892"
CODE = "ABCDEFGHJKM0"
JSON = "application/json"
CHUNKED = {"Transfer-Encoding": "chunked"}


def scan_of(item: int) -> Scan:
    return Scan("genuine", None, 1, 7, GTIN, f"{item:014d}", 42, "fresh")


def canned(status: int, body: Any, **headers: str) -> Canned:
    media_type = JSON if status < 400 else "application/problem+json"
    return Canned(
        status, media_type, json.dumps(body).encode(), {name.replace("_", "-"): headers[name] for name in headers}
    )


@pytest.fixture
def server() -> Iterator[DeviceServer]:
    with DeviceServer(codes={CODE: None}) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, server: DeviceServer) -> Device:
    opened = Device.open(tmp_path / "device")
    enrol(Link(server.url), opened, EnrolmentText(server.url, CODE, server.pin), "Counter 3")
    return opened


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.db") as opened:
        yield opened


@pytest.fixture
def sync(device: Device, journal: Journal) -> Sync:
    return Sync(device, journal)


# ---- enrolment


def test_a_lost_answer_to_an_enrolment_is_asked_for_again(tmp_path: Path, server: DeviceServer) -> None:
    device, text = Device.open(tmp_path / "device"), EnrolmentText(server.url, CODE, server.pin)
    with link_that_fails_with(server.port, Fault.ANSWER_LOST) as flaky, pytest.raises(SyncFailed):
        enrol(Link(flaky.url), device, text, "Counter")
    assert server.codes[CODE] == device.public_key
    assert not Device.open(tmp_path / "device").is_enrolled
    again = Device.open(tmp_path / "device")
    assert enrol(Link(server.url), again, text, "Counter").device_id in server.devices


def test_a_code_that_another_device_used_is_refused(tmp_path: Path, server: DeviceServer, device: Device) -> None:
    other = Device.open(tmp_path / "other")
    for code, said in [(CODE, "EnrolmentCodeUsed"), ("0" * 12, "EnrolmentCodeInvalid")]:
        with pytest.raises(SyncFailed) as caught:
            enrol(Link(server.url), other, EnrolmentText(server.url, code, None), "Counter")
        assert caught.value.server_code == said
        assert code not in caught.value.message
    assert not other.is_enrolled


def test_a_server_of_another_root_is_refused(tmp_path: Path, server: DeviceServer) -> None:
    device = Device.open(tmp_path / "device")
    with pytest.raises(PinMismatch):
        enrol(Link(server.url), device, EnrolmentText(server.url, CODE, "cd" * 32), "Counter")
    assert not device.is_enrolled


def test_a_device_that_is_not_enrolled_has_nowhere_to_sync(tmp_path: Path, journal: Journal) -> None:
    with pytest.raises(NotEnrolled):
        Sync(Device.open(tmp_path / "device"), journal)


# ---- batches


def test_scans_are_pushed_in_batches_oldest_first(server: DeviceServer, journal: Journal, sync: Sync) -> None:
    records = BATCH_RECORDS_MAX * 2 + 1
    for item in range(records):
        journal.record(scan_of(item))
    pushed = [sync.push(bundle_seq=42, root_version=3) for _ in range(3)]
    assert [(batch.sent, batch.accepted, batch.waiting) for batch in pushed] == [
        (500, 500, 501),
        (500, 500, 1),
        (1, 1, 0),
    ]
    assert sync.push().sent == 0
    assert len(server.batches) == 3
    first = server.batches[0]
    assert (first["journal"], first["waiting"]) == (journal.journal_id, records)
    assert (first["bundle_seq"], first["root_version"]) == (42, 3)
    numbers = [record["number"] for batch in server.batches for record in batch["records"]]
    assert numbers == list(range(1, records + 1))


def test_a_record_is_sent_with_these_fields_and_no_others(server: DeviceServer, tmp_path: Path, device: Device) -> None:
    moments = [Moment(1_790_000_000_000, b"b" * 16, 5_000_000_000)]
    with Journal.open(tmp_path / "timed.db", clock=lambda: moments[-1]) as journal:
        journal.record(Scan("ask", "BundleStale", 2, 7, GTIN, "00001975404383", 42, "stale", True))
        journal.record(Scan("refused", "Malformed", text_chars=80))
        moments.append(Moment(1_790_000_100_000, b"c" * 16, 1))
        journal.record(Scan("refused", "Malformed", text_chars=80))
        moments.append(Moment(1_790_000_200_000, b"c" * 16, 7_000_001))
        server.clock_ahead_s = int(1_790_000_200 - datetime.now(UTC).timestamp())
        Sync(device, journal).push()
    [batch] = server.batches
    assert batch["device_time_ms"] == 1_790_000_200_000
    stale, malformed, later = batch["records"]
    assert stale == {
        "number": 1,
        "at_ms": 1_790_000_000_000,
        "elapsed_ms": None,  # the device has rebooted since
        "verdict": "ask",
        "error": "BundleStale",
        "profile": 2,
        "kid": 7,
        "gtin": GTIN,
        "serial": "00001975404383",
        "bundle_seq": 42,
        "bundle_state": "stale",
        "clock_suspect": True,
    }
    assert malformed == dict.fromkeys(stale) | {
        "number": 2,
        "at_ms": 1_790_000_000_000,
        "verdict": "refused",
        "error": "Malformed",
        "clock_suspect": False,
    }
    assert later["elapsed_ms"] == 7


def test_the_largest_batch_is_small_enough(server: DeviceServer, journal: Journal, sync: Sync) -> None:
    chance = random.Random(3)
    for _ in range(BATCH_RECORDS_MAX):
        error = "E" + "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", k=63))
        serial, gtin = (f"{chance.randrange(10**14):014d}" for _ in range(2))
        seq = chance.randrange(2**52, 2**53)
        journal.record(Scan("refused", error, 99, chance.randrange(10**5), gtin, serial, seq, "expired", True))
    assert sync.push().accepted == BATCH_RECORDS_MAX  # Link.post asserts that it stays below BATCH_BYTES_MAX
    [batch] = server.batches
    assert len(json.dumps(batch)) < 2 << 20
    assert BATCH_BYTES_MAX < 256 << 10


def test_refused_records_are_answered_counted_and_not_sent_again(
    server: DeviceServer, journal: Journal, sync: Sync
) -> None:
    server.never_issued = {f"{item:014d}" for item in (1, 2)}
    for item in range(4):
        journal.record(scan_of(item))
    pushed = sync.push()
    assert (pushed.accepted, pushed.refused, dict(pushed.refusals), pushed.waiting) == (2, 2, {"NeverIssued": 2}, 0)
    assert sync.push().sent == 0
    answers = [record.answer for record in journal.records(1, 9)]
    assert [answer and answer.error for answer in answers] == [None, "NeverIssued", "NeverIssued", None]


def test_a_batch_whose_answer_was_lost_is_sent_again_and_told_as_duplicate(
    server: DeviceServer, device: Device, journal: Journal, sync: Sync
) -> None:
    journal.record(scan_of(1))
    with link_that_fails_with(server.port, Fault.ANSWER_LOST) as flaky, pytest.raises(SyncFailed):
        Sync(device, journal, Link(flaky.url)).push()
    assert (len(server.records), journal.waiting) == (1, 1)
    assert sync.push().duplicate == 1
    assert journal.records(1, 1)[0].answer is not None
    assert journal.records(1, 1)[0].answer.status is Status.DUPLICATE  # type: ignore[union-attr]


# ---- time and revocation


@pytest.mark.parametrize("ahead_s", [-7_200, 301, 86_400 * 400])
def test_a_wrong_clock_is_corrected_after_one_answer(
    server: DeviceServer, journal: Journal, sync: Sync, ahead_s: int
) -> None:
    server.clock_ahead_s = ahead_s
    journal.record(scan_of(1))
    assert sync.push().accepted == 1
    assert sync.link.clock_offset_ms is not None
    assert abs(sync.link.clock_offset_ms - ahead_s * 1000) < 60_000
    assert server.requests == 2  # the enrolment, and the second try


@pytest.mark.parametrize("told", ["0", "253402300799999", "253402300800000", "999999999999999"])
def test_a_time_at_the_end_of_all_times_keeps_no_request_from_going_out(
    server: DeviceServer, journal: Journal, sync: Sync, told: str
) -> None:
    journal.record(scan_of(1))
    server.canned.append(canned(503, refusal("DatabaseUnavailable"), Fanxing_Time=told))
    with pytest.raises(SyncFailed):
        sync.push()
    assert sync.push().accepted == 1


def test_a_clock_that_no_correction_helps_is_tried_twice_only(
    server: DeviceServer, journal: Journal, sync: Sync
) -> None:
    journal.record(scan_of(1))
    server.canned.extend([canned(401, refusal("SignatureClockSkewed"))] * 3)
    with pytest.raises(SyncFailed) as caught:
        sync.push()
    assert caught.value.server_code == "SignatureClockSkewed"
    assert len(server.canned) == 1


def test_a_revoked_device_stops_for_good(server: DeviceServer, device: Device, journal: Journal, sync: Sync) -> None:
    journal.record(scan_of(1))
    server.revoked.add(device.enrolment.device_id)
    with pytest.raises(DeviceRevoked):
        sync.push()
    asked = server.requests
    with pytest.raises(DeviceRevoked):
        sync.push()
    assert (server.requests, journal.waiting) == (asked, 1)


def test_another_key_than_the_enrolled_one_is_refused(
    tmp_path: Path, server: DeviceServer, device: Device, journal: Journal, sync: Sync
) -> None:
    journal.record(scan_of(1))
    device.key = Device.open(tmp_path / "other").key
    with pytest.raises(SyncFailed) as caught:
        sync.push()
    assert (caught.value.server_code, journal.waiting) == ("DeviceSignatureRefused", 1)


# ---- answers that must not be believed

RIGHT = {"server_time_ms": 1, "answers": [{"number": 1, "status": "accepted", "error": None}]}


def with_answer(**changes: object) -> dict[str, object]:
    return RIGHT | {"answers": [{"number": 1, "status": "accepted", "error": None} | changes]}


WRONG_ANSWERS = {
    "page": Canned(200, "text/html", b"<html>Welcome"),
    "page as json": Canned(200, JSON, b"<html>Welcome"),
    "json as page": Canned(200, "text/html", json.dumps(RIGHT).encode()),
    "cut json": Canned(200, JSON, json.dumps(RIGHT).encode()[:-1]),
    "not utf-8": Canned(200, JSON, b'"\xff"'),
    "deep": Canned(200, JSON, b"[" * 100_000),
    "long number": Canned(200, JSON, b"9" * 100_000),
    "too long": Canned(200, JSON, b" " * (256 << 10) + json.dumps(RIGHT).encode()),
    "list": canned(200, []),
    "null": canned(200, None),
    "no answers": canned(200, {"server_time_ms": 1}),
    "no time": canned(200, {"answers": RIGHT["answers"]}),
    "time of text": canned(200, RIGHT | {"server_time_ms": "1"}),
    "empty": canned(200, RIGHT | {"answers": []}),
    "twice": canned(200, RIGHT | {"answers": [*RIGHT["answers"]] * 2}),  # type: ignore[misc]
    "other number": canned(200, with_answer(number=2)),
    "number of bool": canned(200, with_answer(number=True)),
    "number of float": canned(200, with_answer(number=1.0)),
    "other status": canned(200, with_answer(status="kept")),
    "accepted with error": canned(200, with_answer(error="NeverIssued")),
    "refused without error": canned(200, with_answer(status="refused")),
    "refused with text": canned(200, with_answer(status="refused", error="never issued")),
    "no error": canned(200, RIGHT | {"answers": [{"number": 1, "status": "accepted"}]}),
    "created": canned(201, RIGHT),
    "no content": canned(204, None),
    "moved": canned(302, RIGHT, Location="/elsewhere"),
    "server error": canned(500, refusal("InternalError")),
    "cut": canned(200, RIGHT, Content_Length="1000"),
}


def test_a_quiet_scanner_gives_a_sign_of_life_when_asked(server: DeviceServer, journal: Journal, sync: Sync) -> None:
    assert sync.push(7, 1).sent == 0
    assert server.batches == []
    assert sync.push(7, 1, also_empty=True).sent == 0
    [batch] = server.batches
    assert (batch["records"], batch["bundle_seq"], batch["root_version"], batch["waiting"]) == ([], 7, 1, 0)


@pytest.mark.parametrize("case", list(WRONG_ANSWERS))
def test_a_wrong_answer_marks_nothing(server: DeviceServer, journal: Journal, sync: Sync, case: str) -> None:
    journal.record(scan_of(1))
    server.canned.append(WRONG_ANSWERS[case])
    with pytest.raises(SyncFailed) as caught:
        sync.push()
    assert "Welcome" not in caught.value.message
    assert (journal.waiting, journal.records(1, 1)[0].answer) == (1, None)
    assert sync.push().accepted == 1


def test_an_answer_with_a_field_of_a_later_version_is_taken(server: DeviceServer, journal: Journal, sync: Sync) -> None:
    journal.record(scan_of(1))
    server.canned.append(canned(200, RIGHT | {"later": 1}))
    assert sync.push().accepted == 1


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("7", 7.0),
        ("999999999", RETRY_AFTER_S_MAX),
        ("-1", None),
        ("1e3", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_the_wait_that_a_server_asks_for_is_told(
    server: DeviceServer, journal: Journal, sync: Sync, header: str, wait_s: float | None
) -> None:
    journal.record(scan_of(1))
    server.canned.append(canned(503, refusal("DatabaseUnavailable"), Retry_After=header))
    with pytest.raises(SyncFailed) as caught:
        sync.push()
    assert (caught.value.server_code, caught.value.retry_after_s) == ("DatabaseUnavailable", wait_s)


# ---- links that fail


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.REQUEST_CUT, Fault.ANSWER_LOST, Fault.ANSWER_CUT, Fault.PORTAL])
def test_a_broken_exchange_leaves_the_journal_as_it_was(
    server: DeviceServer, device: Device, journal: Journal, fault: Fault
) -> None:
    for item in range(5):
        journal.record(scan_of(item))
    with link_that_fails_with(server.port, fault) as flaky:
        for _ in range(5):
            with pytest.raises(SyncFailed):
                Sync(device, journal, Link(flaky.url)).push()
        assert flaky.done[fault] == 5
    assert [record.answer for record in journal.records(1, 9)] == [None] * 5


def test_nobody_listening_is_told(device: Device, journal: Journal) -> None:
    journal.record(scan_of(1))
    with FlakyLink(1, seed=0) as closed:
        url = closed.url
    with pytest.raises(SyncFailed, match="not reached"):
        Sync(device, journal, Link(url)).push()


def test_a_silent_server_is_given_up(server: DeviceServer, device: Device, journal: Journal) -> None:
    journal.record(scan_of(1))
    gate = threading.Event()
    server.wait = gate.wait
    with pytest.raises(SyncFailed):
        Sync(device, journal, Link(server.url, step_timeout_s=0.1)).push()
    gate.set()
    assert journal.waiting == 1


def test_a_server_that_trickles_for_ever_is_given_up(server: DeviceServer, device: Device, journal: Journal) -> None:
    journal.record(scan_of(1))
    gate = threading.Event()
    server.wait = gate.wait
    with pytest.raises(SyncFailed):
        Sync(device, journal, Link(server.url, step_timeout_s=60, exchange_timeout_s=0.1)).push()
    gate.set()
    assert journal.waiting == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_over_a_link_that_does_everything_wrong_each_scan_arrives_once(
    server: DeviceServer, device: Device, journal: Journal, seed: int
) -> None:
    chance = random.Random(seed)
    failures = pushes = 0
    with FlakyLink(server.port, seed, delay_s_max=0.005) as flaky:
        sync = Sync(device, journal, Link(flaky.url, step_timeout_s=5))
        while pushes < 60 or journal.waiting:
            if pushes < 60:
                for _ in range(chance.randrange(6)):
                    journal.record(scan_of(chance.randrange(50)))
            pushes += 1
            try:
                sync.push()
            except SyncFailed:
                failures += 1
        done = dict(flaky.done)
    assert failures > 15
    assert done.keys() >= set(Fault)
    records = journal.records(1, 10_000)
    assert {record.answer is not None for record in records} == {True}
    assert {record.answer.status for record in records if record.answer} == {Status.ACCEPTED, Status.DUPLICATE}
    key = (device.enrolment.device_id, journal.journal_id)
    assert server.records.keys() == {(*key, record.number) for record in records}
    for record in records:
        kept = server.records[*key, record.number]
        assert (kept["serial"], kept["at_ms"]) == (record.scan.serial, record.moment.wall_ms)


# ---- TLS


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody vouches for, and its key."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "tls.crt", folder / "tls.key"


def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, server: DeviceServer, device: Device, journal: Journal
) -> None:
    journal.record(scan_of(1))
    public, private = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
    url = f"https://127.0.0.1:{server.port}"
    with pytest.raises(SyncFailed, match=r"certificate|SSL"):
        Sync(device, journal, Link(url)).push()
    assert (journal.waiting, server.batches) == (1, [])
    trusting = ssl.create_default_context(cafile=str(public))
    assert Sync(device, journal, Link(url, tls=trusting)).push().accepted == 1


def test_http_to_another_machine_must_be_asked_for() -> None:
    with pytest.raises(EnrolmentInvalid, match="https"):
        Link("http://192.0.2.1")
    assert Link("http://192.0.2.1", insecure=True).server == "http://192.0.2.1"


# ---- trust


def test_news_of_trust_is_fetched(server: DeviceServer) -> None:
    link = Link(server.url)
    assert fetch_trust(link, 1, 42) is None
    server.trust = secrets.token_bytes(3 << 20)
    assert fetch_trust(link, None, None) == server.trust
    assert link.clock_offset_ms is not None


@pytest.mark.parametrize(
    "wrong",
    [
        Canned(200, "text/html", b"<html>Welcome"),
        Canned(200, "application/cbor-seq", b"cut", {"Content-Length": "1000"}),
        Canned(200, "application/cbor-seq", b"", {"Content-Length": str(TRUST_BYTES_MAX + 1)}),
        Canned(200, "application/cbor-seq", b"-5\r\nabcde\r\n0\r\n\r\n", CHUNKED),
        Canned(200, "application/cbor-seq", b"5\r\nabc", CHUNKED),
        canned(500, refusal("InternalError")),
        Canned(302, "application/cbor-seq", b"", {"Location": "/"}),
    ],
    ids=["page", "cut", "too long", "chunk below 0", "chunk cut", "error", "moved"],
)
def test_other_than_news_of_trust_is_refused(server: DeviceServer, wrong: Canned) -> None:
    server.canned.append(wrong)
    with pytest.raises(SyncFailed):
        fetch_trust(Link(server.url), 1, 1)


@pytest.mark.parametrize(("more", "is_taken"), [(-1, True), (0, True), (1, False)])
def test_an_answer_in_chunks_is_taken_up_to_the_most(server: DeviceServer, more: int, is_taken: bool) -> None:
    body = secrets.token_bytes((200 << 10) + more)
    chunks = [body[at : at + 70_000] for at in range(0, len(body), 70_000)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    server.canned.append(Canned(200, "application/cbor-seq", framed, CHUNKED))
    if is_taken:
        assert Link(server.url).get("/v1/trust", 200 << 10).body == body
    else:
        with pytest.raises(SyncFailed):
            Link(server.url).get("/v1/trust", 200 << 10)


def test_a_chunk_without_end_is_not_read_to_its_end() -> None:
    sent = 0

    def stream() -> None:
        nonlocal sent
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
            while sent < 256 << 20:
                sent += connection.send(bytes(1 << 20))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=stream)
        thread.start()
        with pytest.raises(SyncFailed):
            Link(f"http://127.0.0.1:{listener.getsockname()[1]}").get("/v1/trust", 1 << 20)
        thread.join()
    assert sent < 128 << 20


# ---- waiting


def test_waits_grow_twofold_to_a_most_and_begin_anew() -> None:
    backoff = Backoff(2.0, 60.0, lambda: 1.0)
    assert [backoff.failed() for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]
    backoff.succeeded()
    assert backoff.failed() == 2


@given(failures=st.integers(0, 200), share=st.floats(0, 1), asked_s=st.none() | st.floats(0, 3600))
def test_a_wait_is_never_shorter_than_asked_nor_than_half(failures: int, share: float, asked_s: float | None) -> None:
    backoff = Backoff(2.0, 600.0, lambda: share)
    for _ in range(failures):
        backoff.failed()
    wait_s = backoff.failed(asked_s)
    assert max(asked_s or 0, 1.0) <= wait_s <= max(asked_s or 0, 600.0)
