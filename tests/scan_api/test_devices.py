"""Devices over real HTTP: who is let in by a code, whose requests are believed, and who is shut out."""

import base64
import contextlib
import gzip
import hashlib
import json
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import nacl.signing
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import col, select
from starlette.datastructures import Headers

from kit.db import Session
from kit.settings import Settings
from scan_api import devices
from scan_api.app import create_app
from scan_api.auth import device_signatures
from scan_api.auth.device_signatures import (
    CLOCK_SKEW_MAX_S,
    DeviceSignatureRefused,
    Message,
    SignatureClockSkewed,
)
from scan_api.devices import (
    LIFETIME_MAX,
    LIFETIME_MIN,
    NAME_CHARACTERS_MAX,
    WRONG_TRIES_A_MINUTE_MAX,
    Device,
    DeviceInvitation,
    EnrolmentCodeInvalid,
    InvitationInvalid,
    TooManyEnrolments,
    WrongTries,
    enrolment_text,
    grouped,
    read_code,
)
from scan_api.routers.devices import ENROLMENT_BYTES_MAX
from scan_api.services import build
from tests.scan_api.shop_scanner import COVERED, ShopScanner, enrolled, invite, malformed, now_ms
from tests.stand import BRAND, TRUST_DOMAIN, Stand

DOCUMENT = Path(__file__).parents[2] / "docs" / "scanner-api.md"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# A code that no invitation has; a stand's server puts up with few of them, so tests of other things avoid it.
NO_CODE = "0000-0000-0000"


# What is refused before the database is asked is refused alike on both.
ON_SQLITE = pytest.mark.parametrize("stand_kind", ["sqlite"])


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def row(stand: Stand, scanner: ShopScanner) -> Device:
    [device] = stand.rows(select(Device).where(Device.device_id == uuid.UUID(scanner.device_id)))
    assert isinstance(device, Device)
    return device


class TestEnrolment:
    def test_a_code_lets_a_device_in_and_the_answer_says_to_what(self, stand: Stand) -> None:
        scanner = ShopScanner(stand)
        answer = scanner.enrol(grouped(invite(stand, name="till 3, Nanjing Road")).lower())
        assert answer.status_code == 201
        told = answer.json()
        pin = (stand.home / "root.pin").read_text().strip()
        assert (told["domain"], told["brand"], told["pin"]) == (TRUST_DOMAIN, BRAND, pin)
        assert abs(told["server_time_ms"] - now_ms()) < 60_000
        device = row(stand, scanner)
        assert str(device.device_id) == told["device_id"]
        assert (device.name, device.own_name) == ("till 3, Nanjing Road", "scanner-7")
        assert (device.public_key, device.revoked_at) == (scanner.public, None)

    def test_a_device_of_all_brands_has_none(self, stand: Stand) -> None:
        assert ShopScanner(stand).enrol(invite(stand, None)).json()["brand"] is None

    def test_lost_answer_is_given_again_to_the_same_key(self, stand: Stand) -> None:
        scanner, code = ShopScanner(stand), invite(stand)
        first, again = scanner.enrol(code), scanner.enrol(code)
        assert (first.status_code, again.status_code) == (201, 201)
        without_time = [{**answer.json(), "server_time_ms": 0} for answer in (first, again)]
        assert without_time[0] == without_time[1]

    @ON_SQLITE
    @pytest.mark.parametrize(("more", "status"), [(-1, 201), (0, 201), (1, 413), (20_000_000, 413)])
    @pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
    def test_a_strangers_body_has_a_limit(self, stand: Stand, more: int, status: int, packed: bool) -> None:
        """It is parsed before anything is known of who sent it."""
        scanner = ShopScanner(stand)
        body = scanner.enrolment(invite(stand)).content
        body += b" " * (ENROLMENT_BYTES_MAX + (more if packed else min(more, 100_000)) - len(body))
        headers = {"content-encoding": "gzip"} if packed else {}
        content = gzip.compress(body) if packed else body
        answer = scanner.send(scanner.signed("/v1/devices", content, scanner.public_key, headers=headers))
        assert answer.status_code == status, answer.text
        if status == 413:
            assert answer.json()["code"] == "BodyTooLarge"

    def test_code_works_for_one_key(self, stand: Stand) -> None:
        code = invite(stand)
        assert ShopScanner(stand).enrol(code).status_code == 201
        assert error_of(ShopScanner(stand).enrol(code)) == (409, "EnrolmentCodeUsed")

    def test_of_many_at_once_one_is_let_in(self, stand: Stand) -> None:
        code = invite(stand)
        scanners = [ShopScanner(stand) for _ in range(8)]
        sent = [scanner.enrolment(code) for scanner in scanners]
        answers = stand.at_once(
            [{"url": "/v1/devices", "content": one.content, "headers": dict(one.headers)} for one in sent]
        )
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
        public = [scanner.public for scanner in scanners]
        assert len(stand.rows(select(Device).where(col(Device.public_key).in_(public)))) == 1

    def test_the_same_device_at_once_is_one_device(self, stand: Stand) -> None:
        scanner, code = ShopScanner(stand), invite(stand)
        sent = [scanner.enrolment(code) for _ in range(6)]
        answers = stand.at_once(
            [{"url": "/v1/devices", "content": one.content, "headers": dict(one.headers)} for one in sent]
        )
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["device_id"] for answer in answers}) == 1

    def test_expired_code_is_refused_as_an_unknown_one(self, stand: Stand) -> None:
        expired = ShopScanner(stand).enrol(invite(stand, hours=-1))
        unknown = ShopScanner(stand).enrol(NO_CODE)
        assert error_of(expired) == error_of(unknown) == (400, "EnrolmentCodeInvalid")
        assert expired.json() == unknown.json()

    def test_a_key_comes_in_once(self, stand: Stand) -> None:
        scanner = enrolled(stand)
        code = invite(stand)
        assert error_of(scanner.enrol(code)) == (409, "DeviceKeyTaken")
        assert ShopScanner(stand).enrol(code).status_code == 201, "the refusal spent the code"

    @ON_SQLITE
    @pytest.mark.parametrize(
        "public",
        [
            pytest.param(bytes(32), id="small order"),
            pytest.param(bytes([1, *[0] * 31]), id="neutral element"),
            pytest.param((2**255 - 18).to_bytes(32, "little"), id="not canonical"),
            pytest.param(bytes(range(31)), id="31 bytes"),
        ],
    )
    def test_key_that_verifiers_disagree_on_is_refused(self, stand: Stand, public: bytes) -> None:
        text = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        answer = (scanner := ShopScanner(stand)).send(scanner.enrolment(invite(stand), public_key=text))
        assert error_of(answer) == (400, "DeviceKeyRefused")

    @ON_SQLITE
    @pytest.mark.parametrize("change", ["padded", "other alphabet", "loose bits"])
    def test_key_has_one_spelling(self, stand: Stand, change: str) -> None:
        scanner = ShopScanner(stand)
        while not set(scanner.public_key) & set("-_"):
            scanner = ShopScanner(stand)
        text = scanner.public_key
        other = {
            "padded": f"{text[:-1]}=",
            "other alphabet": text.replace("-", "+").replace("_", "/"),
            "loose bits": text[:-1] + chr(ord(text[-1]) + 1),
        }[change]
        assert error_of(scanner.send(scanner.enrolment(invite(stand), public_key=other))) == (400, "DeviceKeyRefused")

    def test_key_must_be_the_one_that_signs(self, stand: Stand) -> None:
        scanner, other, code = ShopScanner(stand), ShopScanner(stand), invite(stand)
        stolen = scanner.enrolment(code, public_key=other.public_key)
        assert error_of(scanner.send(stolen)) == (401, "DeviceSignatureRefused")
        body = json.dumps({"code": code, "public_key": other.public_key, "name": "x"}).encode()
        assert error_of(scanner.send(scanner.signed("/v1/devices", body, scanner.public_key)))[0] == 401

    @ON_SQLITE
    @pytest.mark.parametrize(("name", "status"), [("", 400), ("x", 201), ("x" * 100, 201), ("x" * 101, 400)])
    def test_own_name_has_1_to_100_characters(self, stand: Stand, name: str, status: int) -> None:
        scanner = ShopScanner(stand)
        assert scanner.send(scanner.enrolment(invite(stand), name=name)).status_code == status

    @ON_SQLITE
    @pytest.mark.parametrize("change", [{"name": "a\nb"}, {"code": None}, {"more": 1}, {"code": "0" * 41}], ids=str)
    def test_other_bodies_are_invalid(self, stand: Stand, change: dict[str, Any]) -> None:
        scanner = ShopScanner(stand)
        answer = scanner.send(scanner.enrolment(invite(stand), **change))
        assert error_of(answer) == (400, "RequestInvalid")

    def test_code_is_stored_as_a_keyed_hash_alone(self, stand: Stand) -> None:
        code = invite(stand)
        [hashes] = [[one.code_hash for one in stand.rows(select(DeviceInvitation))]]
        assert stand.vault.fingerprint("enrolment-code", code) in hashes
        assert not any(code.encode() in one for one in hashes)
        scanner = ShopScanner(stand)
        scanner.enrol(code)
        assert code not in stand.server.log
        assert scanner.public_key not in stand.server.log

    @pytest.mark.parametrize("stand_kind", ["sqlite"])
    async def test_after_too_many_wrong_codes_nobody_gets_in_for_a_while(self, stand: Stand) -> None:
        """At a server of this test's own, in this process, whose clock stands still."""
        now = datetime.now(UTC)
        services = build(Settings(home=stand.home, database_url=stand.database_url), lambda: now)
        scanner, right = ShopScanner(stand), invite(stand)
        transport = httpx2.ASGITransport(create_app(services))
        async with httpx2.AsyncClient(transport=transport) as client:
            for _ in range(WRONG_TRIES_A_MINUTE_MAX):
                assert error_of(await client.send(scanner.enrolment(NO_CODE))) == (400, "EnrolmentCodeInvalid")
            answer = await client.send(scanner.enrolment(right))
            assert error_of(answer) == (429, "TooManyEnrolments")
            assert (answer.headers["retry-after"], "fanxing-time" in answer.headers) == ("2", True)
            now += timedelta(seconds=2)
            assert (await client.send(scanner.enrolment(right))).status_code == 201
        await services.database.close()


class TestWrongTries:
    def test_thirty_at_once_and_then_one_each_two_seconds(self) -> None:
        tries = WrongTries()
        for _ in range(WRONG_TRIES_A_MINUTE_MAX):
            tries.take(NOW)
        with pytest.raises(TooManyEnrolments) as refused:
            tries.take(NOW + timedelta(seconds=1.9))
        assert refused.value.retry_after_s == 1
        tries.take(NOW + timedelta(seconds=2.1))
        with pytest.raises(TooManyEnrolments):
            tries.take(NOW + timedelta(seconds=2.1))

    def test_right_codes_cost_nothing(self) -> None:
        tries = WrongTries()
        for _ in range(10 * WRONG_TRIES_A_MINUTE_MAX):
            tries.take(NOW)
            tries.give_back()

    def test_it_holds_no_more_than_a_minutes(self) -> None:
        tries = WrongTries()
        tries.take(NOW)
        for _ in range(WRONG_TRIES_A_MINUTE_MAX):
            tries.take(NOW + timedelta(days=1))
        with pytest.raises(TooManyEnrolments):
            tries.take(NOW + timedelta(days=1))

    def test_a_clock_set_back_gives_nothing(self) -> None:
        tries = WrongTries()
        for _ in range(WRONG_TRIES_A_MINUTE_MAX):
            tries.take(NOW)
        with pytest.raises(TooManyEnrolments):
            tries.take(NOW - timedelta(hours=1))


class TestCodes:
    @given(code=st.text(SYMBOLS, min_size=12, max_size=12), data=st.data())
    def test_are_read_as_people_type_them(self, code: str, data: st.DataObject) -> None:
        looks = {"0": "0oO", "1": "1iIlL"}
        typed = "".join(data.draw(st.sampled_from(looks.get(one, one + one.lower()))) for one in grouped(code))
        assert read_code(typed) == code
        assert read_code(f" {typed} ") == code

    @pytest.mark.parametrize("text", ["", "0" * 11, "0" * 13, "U" + "0" * 11, "é" + "0" * 11, "0" * 11 + "\n"])
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(EnrolmentCodeInvalid):
            read_code(text)

    def test_enrolment_text_is_the_protocols(self) -> None:
        text = enrolment_text("https://id.example.cn:8443", "ABCDEFGHJKMN", bytes(range(32)))
        assert text == (
            "fanxing-enrol:1?server=https%3A%2F%2Fid.example.cn%3A8443&code=ABCDEFGHJKMN&pin="
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        )
        assert unquote(text.split("server=")[1].split("&")[0]) == "https://id.example.cn:8443"

    @pytest.mark.parametrize("stand_kind", ["sqlite"])
    @pytest.mark.parametrize(
        ("name", "lifetime", "allowed"),
        [
            ("x", LIFETIME_MIN, True),
            ("x", LIFETIME_MIN - timedelta(seconds=1), False),
            ("x", LIFETIME_MAX, True),
            ("x", LIFETIME_MAX + timedelta(seconds=1), False),
            ("x" * NAME_CHARACTERS_MAX, LIFETIME_MIN, True),
            ("x" * (NAME_CHARACTERS_MAX + 1), LIFETIME_MIN, False),
            (" ", LIFETIME_MIN, False),
            ("a\tb", LIFETIME_MIN, False),
        ],
    )
    def test_invitations_have_limits(self, stand: Stand, name: str, lifetime: timedelta, allowed: bool) -> None:
        async def make(session: Session) -> str:
            return (await devices.invite(session, stand.vault, None, name, lifetime, NOW))[1]

        if allowed:
            code = stand.run(make)
            assert len(code) == 12
            assert set(code) <= set(SYMBOLS)
        else:
            with pytest.raises(InvitationInvalid):
                stand.run(make)


class TestAuthentication:
    """Of a batch with no records, which changes nothing but when the device was heard of."""

    def sent(self, scanner: ShopScanner, **options: Any) -> httpx2.Response:
        return scanner.send(scanner.scans(scanner.batch([]), **options))

    def test_signed_request_is_believed_and_each_answer_tells_the_time(self, stand: Stand) -> None:
        scanner = enrolled(stand)
        answer = self.sent(scanner)
        assert (answer.status_code, answer.json()["answers"]) == (200, [])
        assert abs(int(answer.headers["fanxing-time"]) - now_ms()) < 60_000

    def test_unsigned_request_is_refused_and_told_the_time(self, stand: Stand) -> None:
        scanner = enrolled(stand)
        answer = stand.http.post(f"/v1/devices/{scanner.device_id}/scans", json=scanner.batch([]))
        assert error_of(answer) == (401, "DeviceSignatureRefused")
        assert abs(int(answer.headers["fanxing-time"]) - now_ms()) < 60_000
        assert answer.headers["www-authenticate"] == "Signature"

    def test_another_devices_signature_is_refused(self, stand: Stand) -> None:
        scanner, other = enrolled(stand), enrolled(stand)
        forged = replace(scanner, key=other.key)
        assert error_of(self.sent(forged)) == (401, "DeviceSignatureRefused")
        path = f"/v1/devices/{scanner.device_id}/scans"
        body = json.dumps(other.batch([])).encode()
        assert error_of(other.send(other.signed(path, body, other.device_id))) == (401, "DeviceSignatureRefused")

    def test_device_that_was_never_enrolled_is_refused_alike(self, stand: Stand) -> None:
        stranger = ShopScanner(stand, device_id=str(uuid.uuid4()))
        assert error_of(self.sent(stranger)) == (401, "DeviceSignatureRefused")

    @ON_SQLITE
    @pytest.mark.parametrize("left_out", COVERED)
    def test_each_component_must_be_covered(self, stand: Stand, left_out: str) -> None:
        scanner = enrolled(stand)
        covered = tuple(one for one in COVERED if one != left_out)
        assert error_of(self.sent(scanner, covered=covered)) == (401, "DeviceSignatureRefused")

    def test_encoding_must_be_covered_when_it_is_sent(self, stand: Stand) -> None:
        scanner = enrolled(stand)
        request = scanner.scans(scanner.batch([]))
        request.headers["content-encoding"] = "gzip"
        assert error_of(scanner.send(request)) == (401, "DeviceSignatureRefused")

    @ON_SQLITE
    @pytest.mark.parametrize(
        "parameters",
        [
            {"tag": "another"},
            {"tag": None},
            {"nonce": None},
            {"nonce": "AAAA"},
            {"nonce": "!" * 24},
            {"include_alg": False},
            {"label": "sig2"},
            {"expires": datetime(2100, 1, 1, tzinfo=UTC)},
        ],
        ids=lambda parameters: str(*parameters),
    )
    def test_parameters_are_the_protocols(self, stand: Stand, parameters: dict[str, Any]) -> None:
        assert error_of(self.sent(enrolled(stand), **parameters)) == (401, "DeviceSignatureRefused")

    @ON_SQLITE
    @pytest.mark.parametrize("change", ["body", "digest", "path", "content-type"])
    def test_what_is_signed_cannot_be_changed(self, stand: Stand, change: str) -> None:
        scanner, other = enrolled(stand), enrolled(stand)
        request = scanner.scans(scanner.batch([]))
        content, headers, url = request.content, dict(request.headers), str(request.url)
        if change == "body":
            content = content.replace(b'"waiting": 0', b'"waiting": 1')
        elif change == "digest":
            headers["content-digest"] = other.scans(other.batch([malformed(1)])).headers["content-digest"]
        elif change == "path":
            url = url.replace(scanner.device_id, other.device_id)
        else:
            headers["content-type"] = "text/plain"
        answer = stand.http.post(url, content=content, headers=headers)
        assert error_of(answer) == (401, "DeviceSignatureRefused")

    @pytest.mark.parametrize("seconds", [-CLOCK_SKEW_MAX_S - 60, CLOCK_SKEW_MAX_S + 60])
    def test_wrong_clock_is_told_apart_from_a_wrong_signature(self, stand: Stand, seconds: int) -> None:
        scanner, created = enrolled(stand), datetime.now(UTC) + timedelta(seconds=seconds)
        answer = self.sent(scanner, created=created)
        assert error_of(answer) == (401, "SignatureClockSkewed")
        offset = timedelta(milliseconds=int(answer.headers["fanxing-time"]) - created.timestamp() * 1000)
        assert self.sent(scanner, created=created + offset).status_code == 200
        forged = replace(scanner, key=Ed25519PrivateKey.generate())
        assert error_of(self.sent(forged, created=created)) == (401, "DeviceSignatureRefused")

    def test_revoked_device_is_told_so_and_a_stranger_is_not(self, stand: Stand) -> None:
        scanner = enrolled(stand)
        stand.run(lambda session: devices.revoke(session, uuid.UUID(scanner.device_id), datetime.now(UTC)))
        assert error_of(self.sent(scanner)) == (403, "DeviceRevoked")
        assert error_of(self.sent(replace(scanner, key=Ed25519PrivateKey.generate())))[0] == 401

    def test_revoked_device_does_not_come_back_by_its_code(self, stand: Stand) -> None:
        scanner, code = ShopScanner(stand), invite(stand)
        scanner.enrol(code)
        stand.run(lambda session: devices.revoke(session, uuid.UUID(scanner.device_id), datetime.now(UTC)))
        assert error_of(scanner.enrol(code)) == (403, "DeviceRevoked")
        assert error_of(scanner.enrol(invite(stand))) == (409, "DeviceKeyTaken")

    def test_device_is_no_member_and_no_api_key(self, stand: Stand) -> None:
        scanner = enrolled(stand)
        request = scanner.scans(scanner.batch([]))
        headers = {name: request.headers[name] for name in ("signature", "signature-input", "content-digest")}
        assert stand.http.get("/v1/me", headers=headers).status_code == 401
        assert stand.http.get(f"/v1/brand/{BRAND}/orders", headers=headers).status_code == 401

    def test_signatures_and_bodies_stay_out_of_the_log(self, stand: Stand) -> None:
        scanner = enrolled(stand)
        request = scanner.scans(scanner.batch([]))
        scanner.send(request)
        request.headers["content-type"] = "text/plain"
        scanner.send(request)
        for secret in (request.headers["signature"][6:40], scanner.journal, scanner.device_id):
            assert secret not in stand.server.log


def example() -> dict[str, str]:
    """The fenced blocks of the worked example in docs/scanner-api.md, by the word after the fence."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return {name: block.rstrip("\n") for name, block in re.findall(r"^```example-(\S+)\n(.*?)^```$", text, re.M | re.S)}


class TestWorkedExample:
    """Without the library, as somebody would write it from the document; then the server's own check takes it."""

    @pytest.fixture
    def told(self) -> dict[str, str]:
        return example()

    def request(self, told: dict[str, str]) -> tuple[Message, bytes]:
        head, _, body = told["request"].partition("\n\n")
        line, *fields = head.split("\n")
        method, path, _version = line.split(" ")
        headers = Headers(raw=[tuple(part.encode() for part in one.split(": ", 1)) for one in fields])  # type: ignore
        return Message(method, path, headers), body.encode()

    def test_signature_base_and_signature_are_what_the_document_says(self, told: dict[str, str]) -> None:
        message, body = self.request(told)
        key = nacl.signing.SigningKey(bytes.fromhex(told["key"].split()[1]))
        public = bytes(key.verify_key)
        assert told["key"].split()[3] == base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        label, parameters = message.headers["signature-input"].split("=", 1)
        covered = re.findall(r'"([^"]+)"', parameters[: parameters.index(")")])
        values = {"@method": message.method, "@path": message.path, **message.headers}
        base = [f'"{name}": {values[name]}' for name in covered] + [f'"@signature-params": {parameters}']
        assert "\n".join(base) == told["base"]
        signature = base64.b64encode(key.sign(told["base"].encode()).signature).decode()
        assert message.headers["signature"] == f"{label}=:{signature}:"
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        assert message.headers["content-digest"] == f"sha-256=:{digest}:"

    def test_the_server_takes_it_within_300_seconds(self, told: dict[str, str]) -> None:
        message, body = self.request(told)
        public = bytes(nacl.signing.SigningKey(bytes.fromhex(told["key"].split()[1])).verify_key)
        device_id, created = message.path.split("/")[3], datetime.fromtimestamp(int(told["created"]), UTC)

        def check(seconds: float, content: bytes = body) -> int:
            now = created + timedelta(seconds=seconds)
            return device_signatures.verify(message, content, device_id, public, now)

        for seconds in (-CLOCK_SKEW_MAX_S, 0, CLOCK_SKEW_MAX_S):
            assert check(seconds) == int(told["created"])
        for seconds in (-CLOCK_SKEW_MAX_S - 0.001, CLOCK_SKEW_MAX_S + 0.001):
            with pytest.raises(SignatureClockSkewed):
                check(seconds)
        with pytest.raises(DeviceSignatureRefused):
            check(0, body + b" ")

    @given(
        name=st.sampled_from(["signature", "signature-input", "content-digest", "content-type"]),
        value=st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=80),
        at=st.integers(0, 80),
    )
    def test_any_header_is_refused_or_taken_and_nothing_falls_over(self, name: str, value: str, at: int) -> None:
        message, body = self.request(example())
        right = message.headers[name]
        headers = [(key.encode(), field.encode()) for key, field in message.headers.items() if key != name]
        headers.append((name.encode(), (right[:at] + value + right[at + len(value) :]).encode("latin-1")))
        changed = replace(message, headers=Headers(raw=headers))
        public = bytes(nacl.signing.SigningKey(bytes.fromhex(example()["key"].split()[1])).verify_key)
        created = int(example()["created"])
        with contextlib.suppress(DeviceSignatureRefused):
            now = datetime.fromtimestamp(created, UTC)
            assert device_signatures.verify(changed, body, message.path.split("/")[3], public, now) == created


def test_one_key_is_two_devices_at_two_installations(stand: Stand) -> None:
    """What was signed for one server must be good for no other."""
    scanner, code = enrolled(stand), invite(stand)
    enrol = partial(devices.enrol, domain="another", code=code, public=scanner.public, own_name="x", now=NOW)
    device = stand.run(lambda session: enrol(session, stand.vault))
    assert str(device.device_id) != scanner.device_id
