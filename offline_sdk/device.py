"""Device: the identity of a scanner: its own key pair, and the server that it is enrolled at."""

import base64
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .errors import DeviceUnusable, EnrolmentInvalid, NotEnrolled, PinMismatch, SyncFailed

KEY_FILE: Final = "device.key"
STATE_FILE: Final = "device.json"
NAME_CHARS_MAX: Final = 100
CODE_SYMBOLS: Final = 12
TEXT_CHARS_MAX: Final = 1000
_FILE_BYTES_MAX: Final = 16 << 10

_TEXT: Final = re.compile(r"fanxing-enrol:1\?server=([^&]+)&code=([0-9A-HJKMNP-TV-Z]{12})&pin=([0-9a-f]{64})")
_PIN: Final = re.compile(r"[0-9a-f]{64}")
_CODE: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{12}")
_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1")
# Crockford's base32 reads the letters that people mistake for digits as those digits.
_READ_AS: Final = str.maketrans("OIL", "011", "- ")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a device knows of its server; `pin` is the trust root's, 64 lower-case hex digits."""

    server: str
    device_id: str
    domain: str
    brand: str | None
    pin: str
    name: str


@dataclass(frozen=True, slots=True)
class EnrolmentText:
    """What an enrolment QR says. `pin` is None when a person typed server and code: then the server's word is taken."""

    server: str
    code: str
    pin: str | None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `fanxing-enrol:1?server=…&code=…&pin=…`. Raises EnrolmentInvalid."""
        matched = _TEXT.fullmatch(text) if len(text) <= TEXT_CHARS_MAX else None
        if matched is None:
            raise EnrolmentInvalid("this is not an enrolment text; scan the QR that the server shows for a new device")
        server, code, pin = matched.groups()
        return cls.typed(unquote(server), code, pin)

    @classmethod
    def typed(cls, server: str, code: str, pin: str | None = None) -> Self:
        """Take what a person typed: a code in any case, with or without hyphens. Raises EnrolmentInvalid."""
        code = code.upper().translate(_READ_AS)
        if _CODE.fullmatch(code) is None:
            raise EnrolmentInvalid(f"an enrolment code has {CODE_SYMBOLS} letters and digits; read it again")
        if pin is not None and _PIN.fullmatch(pin) is None:
            raise EnrolmentInvalid("a pin has 64 digits from 0 to 9 and a to f; read it again")
        return cls(checked_server(server, insecure=True), code, pin)


class Device:
    """A device's key pair and enrolment, kept in one folder that only its user reads."""

    def __init__(self, folder: Path, key: Ed25519PrivateKey, enrolment: Enrolment | None) -> None:
        self._folder = folder
        self.key = key
        self._enrolment = enrolment

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Load the device in `folder`, or make its key pair there. Raises DeviceUnusable."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            key = _load_key(folder / KEY_FILE) or _make_key(folder / KEY_FILE)
            return cls(folder, key, _load_enrolment(folder / STATE_FILE))
        except OSError as error:
            raise DeviceUnusable(
                f"{error.filename or folder} cannot be used ({error.strerror}); check the disk and the rights to it"
            ) from error

    @property
    def public_key(self) -> str:
        """The public key, base64url without padding."""
        return base64.urlsafe_b64encode(self.key.public_key().public_bytes_raw()).rstrip(b"=").decode("ascii")

    @property
    def is_enrolled(self) -> bool:
        """Whether a server has taken this device."""
        return self._enrolment is not None

    @property
    def enrolment(self) -> Enrolment:
        """Where the device is enrolled. Raises NotEnrolled."""
        if self._enrolment is None:
            raise NotEnrolled("this device is not enrolled; `fanxing-scanner enrol` does it, with an invitation's QR")
        return self._enrolment

    def enrolment_request(self, text: EnrolmentText, name: str) -> dict[str, str]:
        """The body of the request to enrol under this name, 1 to 100 printable characters. Raises EnrolmentInvalid."""
        if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():  # as the server's Python sees it
            raise EnrolmentInvalid(f"a device's name has 1 to {NAME_CHARS_MAX} printable characters; choose another")
        return {"code": text.code, "public_key": self.public_key, "name": name}

    def keep_enrolment(self, text: EnrolmentText, name: str, answer: object) -> Enrolment:
        """Keep the server's answer to `enrolment_request` on the disk.

        Raises SyncFailed for an answer of another form, and PinMismatch when its root is not the one in the text.
        """
        enrolment = _enrolment_of(text.server, name, answer)
        if text.pin not in (None, enrolment.pin):
            raise PinMismatch(
                "the server's root is not the pin that was given; compare the pin with the administrator's. If it was "
                "mistyped, enrol again with the same code; if it is right, do not use this server"
            )
        content = json.dumps(asdict(enrolment), ensure_ascii=False, indent=2) + "\n"
        try:
            _write_private(self._folder / STATE_FILE, content.encode(), replace=True)
        except OSError as error:
            raise DeviceUnusable(
                f"{self._folder / STATE_FILE} cannot be written ({error.strerror}); make room and enrol again "
                "with the same code"
            ) from error
        self._enrolment = enrolment
        return enrolment


def checked_server(server: str, *, insecure: bool = False) -> str:
    """The server's URL as scheme://host[:port]. Raises EnrolmentInvalid.

    https only, but http for this machine, and for any with `insecure`.
    """
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_plain = server.isascii() and server.isprintable() and " " not in server
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if not (parts.scheme in ("http", "https") and parts.hostname and is_plain and bare):
        raise EnrolmentInvalid("the server is not a URL like https://fanxing.example.cn; read it again")
    if parts.scheme == "http" and not insecure and parts.hostname not in _LOCAL_HOSTS:
        raise EnrolmentInvalid("the server's URL begins with http, so anybody could answer; use its https URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def _enrolment_of(server: str, name: str, answer: object) -> Enrolment:
    fields: dict[str, Any] = answer if isinstance(answer, dict) else {}
    device_id, domain, brand, pin = (fields.get(key) for key in ("device_id", "domain", "brand", "pin"))
    right = (
        isinstance(pin, str)
        and _PIN.fullmatch(pin) is not None
        and _is_name(domain)
        and (brand is None or _is_name(brand))
        and isinstance(device_id, str)
    )
    with suppress(ValueError):
        if right and str(UUID(device_id)) == device_id:
            return Enrolment(server, str(device_id), str(domain), brand, str(pin), name)
    raise SyncFailed("the server's answer to the enrolment has not the form that was agreed; check its URL")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable()


def _load_key(path: Path) -> Ed25519PrivateKey | None:
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read(_FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise DeviceUnusable(f"other users may read {path}; run `chmod 600 {path}`, and enrol anew if they did")
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is sealed with a passphrase
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise DeviceUnusable(f"{path} holds no Ed25519 key; put its copy back, or move it away and enrol anew")
    return key


def _make_key(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        _write_private(path, pem, replace=False)
    except FileExistsError:  # another process was quicker
        return _load_key(path) or key
    return key


def _load_enrolment(path: Path) -> Enrolment | None:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(content)
        if not _is_name(fields["name"]):
            raise ValueError
        return _enrolment_of(checked_server(fields["server"], insecure=True), fields["name"], fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SyncFailed, EnrolmentInvalid):
        raise DeviceUnusable(f"{path} holds no enrolment; move it away and enrol anew") from None


def _write_private(path: Path, content: bytes, *, replace: bool) -> None:
    """Have a whole file on the disk that its owner alone reads, or none. Raises FileExistsError unless `replace`."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            beside.replace(path)
        else:
            os.link(beside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        beside.unlink(missing_ok=True)
