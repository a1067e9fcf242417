import json
import pickle
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from offline_sdk import errors
from offline_sdk.device import KEY_FILE, STATE_FILE, Device, Enrolment, EnrolmentText, checked_server
from offline_sdk.errors import (
    DeviceError,
    DeviceUnusable,
    EnrolmentInvalid,
    NotEnrolled,
    PinMismatch,
    SyncFailed,
)

PIN = "0f" * 32
TEXT = f"fanxing-enrol:1?server=https%3A%2F%2Ffanxing.example.cn%3A8443&code=ABCDEFGHJKM0&pin={PIN}"


def answer(**changes: object) -> dict[str, object]:
    right = {"device_id": str(uuid4()), "domain": "demo.example", "brand": None, "pin": PIN, "server_time_ms": 1}
    return right | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "device"


def test_error_codes_are_these_and_no_others() -> None:
    # Scanners compare these strings. Never change or remove one; a new error gets a new code.
    own = [error for error in DeviceError.__subclasses__() if error.__module__ == DeviceError.__module__]
    assert [error.code for error in (DeviceError, *own)] == [
        "DeviceError",
        "JournalBusy",
        "JournalFull",
        "JournalDamaged",
        "JournalUnknown",
        "JournalUnwritable",
        "DeviceUnusable",
        "NotEnrolled",
        "EnrolmentInvalid",
        "PinMismatch",
        "SyncFailed",
        "DeviceRevoked",
    ]
    assert all(getattr(errors, kind.code) is kind for kind in own)


def test_error_survives_a_process_border() -> None:
    copy = pickle.loads(pickle.dumps(SyncFailed("later", "TooManyEnrolments", 9.0)))  # noqa: S301
    assert (copy.message, copy.server_code, copy.retry_after_s) == ("later", "TooManyEnrolments", 9.0)


# ---- the key


def test_a_device_keeps_the_key_that_it_made(folder: Path) -> None:
    device = Device.open(folder)
    assert Device.open(folder).public_key == device.public_key
    assert len(device.public_key) == 43
    other = Device.open(folder.with_name("other"))
    assert other.public_key != device.public_key


def test_only_the_owner_reads_the_key_and_openssl_understands_it(folder: Path) -> None:
    device = Device.open(folder)
    assert ((folder / KEY_FILE).stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [file.name for file in folder.iterdir()] == [KEY_FILE]
    told = subprocess.run(
        ["openssl", "pkey", "-in", folder / KEY_FILE, "-pubout", "-outform", "DER"], capture_output=True, check=True
    )
    public = Ed25519PublicKey.from_public_bytes(told.stdout[-32:])
    public.verify(device.key.sign(b"message"), b"message")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(folder: Path, mode: int) -> None:
    Device.open(folder)
    (folder / KEY_FILE).chmod(mode)
    with pytest.raises(DeviceUnusable, match="chmod 600"):
        Device.open(folder)


# A key sealed with a passphrase, and one whose algorithm (OID 2.999) nobody knows: `cryptography` tells each otherwise.
SEALED_KEY = Ed25519PrivateKey.generate().private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
)
UNKNOWN_KEY = b"-----BEGIN PRIVATE KEY-----\nMAwCAQAwBAYCiDcEAQA=\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff" * 100, SEALED_KEY, UNKNOWN_KEY],
    ids=["none", "cut", "noise", "sealed", "unknown algorithm"],
)
def test_a_key_that_is_not_whole_is_told_and_never_replaced(folder: Path, content: bytes) -> None:
    Device.open(folder)
    (folder / KEY_FILE).write_bytes(content)
    with pytest.raises(DeviceUnusable, match=KEY_FILE):
        Device.open(folder)
    assert (folder / KEY_FILE).read_bytes() == content


def test_a_key_of_another_algorithm_is_refused(folder: Path) -> None:
    folder.mkdir()
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]
    subprocess.run([*command, folder / KEY_FILE], capture_output=True, check=True)
    (folder / KEY_FILE).chmod(0o600)
    with pytest.raises(DeviceUnusable, match="no Ed25519 key"):
        Device.open(folder)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceUnusable, match="cannot be used"):
        Device.open(tmp_path / "file" / "device")


# ---- enrolment


def test_an_enrolment_text_is_read() -> None:
    assert EnrolmentText.read(TEXT) == EnrolmentText("https://fanxing.example.cn:8443", "ABCDEFGHJKM0", PIN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT[:-1],
        TEXT + "0",
        TEXT + "\n",
        " " + TEXT,
        TEXT.replace(":1?", ":2?"),
        TEXT.replace(PIN, PIN.upper()),
        TEXT.replace("ABCD", "ABCU"),
        TEXT.replace("ABCD", "abcd"),
        TEXT.replace("%2F%2F", "%2F%2Fuser%40"),
        TEXT.replace("https", "ftp"),
        TEXT.replace("server=https", "server=" + "a" * 1_000),
        "https://id.example.cn/1/01/06901234567892/21/00001975404383",
    ],
    ids=str.__len__,
)
def test_any_other_text_is_no_enrolment_text_and_is_not_repeated(text: str) -> None:
    with pytest.raises(EnrolmentInvalid) as caught:
        EnrolmentText.read(text)
    assert "ABC" not in caught.value.message


@pytest.mark.parametrize("typed", ["ABCD-EFGH-JKM0", "abcd efgh jkm0", "ABCDEFGHJKMO", "abcdefghjkmo"])
def test_a_typed_code_is_read_as_people_write_it(typed: str) -> None:
    assert EnrolmentText.typed("https://fanxing.example.cn/", typed).code == "ABCDEFGHJKM0"
    assert EnrolmentText.typed("https://fanxing.example.cn/", "iL1o-OOOO-OOOO").code == "111000000000"


@pytest.mark.parametrize("typed", ["", "ABCDEFGHJKM", "ABCDEFGHJKM00", "ABCDEFGHJKMU", "ABCDEFGHJKM٠"])
def test_a_wrong_code_is_told(typed: str) -> None:
    with pytest.raises(EnrolmentInvalid, match="code"):
        EnrolmentText.typed("https://fanxing.example.cn", typed)


@given(text=st.text(max_size=200))
def test_no_text_breaks_the_reading(text: str) -> None:
    with pytest.raises(EnrolmentInvalid):
        EnrolmentText.read(text)


@pytest.mark.parametrize(
    ("server", "checked"),
    [
        ("https://fanxing.example.cn", "https://fanxing.example.cn"),
        ("https://Fanxing.Example.cn:443/", "https://fanxing.example.cn:443"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_a_server_is_an_https_url_or_this_machine(server: str, checked: str) -> None:
    assert checked_server(server) == checked


@pytest.mark.parametrize(
    "server",
    [
        "",
        "fanxing.example.cn",
        "ftp://fanxing.example.cn",
        "https://",
        "https://user@fanxing.example.cn",
        "https://fanxing.example.cn/api",
        "https://fanxing.example.cn?a=1",
        "https://fanxing.example.cn#a",
        "https://fanxing.example.cn:port",
        "https://fanxing.example.cn:70000",
        "https://fanxing example.cn",
        "https://fanxing.example.cn\r\nHost: other",
        "https://星.example.cn",
        "https://[::1",
        "http://fanxing.example.cn",
        "http://localhost.example.cn",
        "http://192.168.1.10",
    ],
)
def test_other_servers_are_refused(server: str) -> None:
    with pytest.raises(EnrolmentInvalid):
        checked_server(server)


def test_http_to_another_machine_must_be_asked_for() -> None:
    assert checked_server("http://192.168.1.10:8000", insecure=True) == "http://192.168.1.10:8000"


def test_an_enrolment_is_kept(folder: Path) -> None:
    device, text = Device.open(folder), EnrolmentText.read(TEXT)
    assert not device.is_enrolled
    with pytest.raises(NotEnrolled):
        _ = device.enrolment
    request = device.enrolment_request(text, "Counter 3 星")
    assert request == {"code": "ABCDEFGHJKM0", "public_key": device.public_key, "name": "Counter 3 星"}
    said: dict[str, Any] = answer(brand="Demo Dairy 奶")
    kept = device.keep_enrolment(text, "Counter 3 星", said)
    assert kept == Enrolment(text.server, said["device_id"], "demo.example", "Demo Dairy 奶", PIN, "Counter 3 星")
    assert Device.open(folder).enrolment == device.enrolment == kept
    assert (folder / STATE_FILE).stat().st_mode & 0o777 == 0o600
    assert "ABCDEFGHJKM0" not in (folder / STATE_FILE).read_text("utf-8")


@pytest.mark.parametrize(("name", "is_right"), [("", False), ("a", True), ("a" * 100, True), ("a" * 101, False)])
def test_a_device_has_a_name_of_some_characters(folder: Path, name: str, is_right: bool) -> None:
    device, text = Device.open(folder), EnrolmentText.read(TEXT)
    if is_right:
        assert device.enrolment_request(text, name)["name"] == name
    else:
        with pytest.raises(EnrolmentInvalid, match="name"):
            device.enrolment_request(text, name)


def test_another_root_than_the_qr_named_is_refused_and_nothing_kept(folder: Path) -> None:
    device = Device.open(folder)
    with pytest.raises(PinMismatch):
        device.keep_enrolment(EnrolmentText.read(TEXT), "Counter", answer(pin="aa" * 32))
    assert not device.is_enrolled
    assert not (folder / STATE_FILE).exists()
    typed = EnrolmentText.typed("https://fanxing.example.cn", "ABCDEFGHJKM0")
    assert device.keep_enrolment(typed, "Counter", answer(pin="aa" * 32)).pin == "aa" * 32


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "text",
        {},
        answer(device_id="1"),
        answer(device_id=str(uuid4()).upper() + "A"),
        answer(device_id=7),
        answer(domain=""),
        answer(domain="a\x1b[31m"),
        answer(brand=""),
        answer(brand=7),
        answer(pin=PIN[:-1]),
        answer(pin=PIN.replace("f", "F")),
        answer(pin=None),
    ],
    ids=range(14),
)
def test_an_answer_of_another_form_is_not_kept(folder: Path, wrong: object) -> None:
    device = Device.open(folder)
    with pytest.raises(SyncFailed, match="form"):
        device.keep_enrolment(EnrolmentText.read(TEXT), "Counter", wrong)
    assert not Device.open(folder).is_enrolled


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"[" * 9_000, b'{"server": 7, "name": "a"}'], ids=len)
def test_an_enrolment_that_is_not_whole_is_told(folder: Path, content: bytes) -> None:
    Device.open(folder).keep_enrolment(EnrolmentText.read(TEXT), "Counter", answer())
    (folder / STATE_FILE).write_bytes(content)
    with pytest.raises(DeviceUnusable, match="enrol anew"):
        Device.open(folder)


def test_a_changed_server_in_the_file_is_checked_again(folder: Path) -> None:
    Device.open(folder).keep_enrolment(EnrolmentText.read(TEXT), "Counter", answer())
    state = json.loads((folder / STATE_FILE).read_text("utf-8"))
    (folder / STATE_FILE).write_text(json.dumps(state | {"server": "https://a@b"}), "utf-8")
    with pytest.raises(DeviceUnusable):
        Device.open(folder)
