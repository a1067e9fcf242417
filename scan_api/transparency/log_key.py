"""The log's own key, and the beginning of the log.

The server signs checkpoints by itself, so it must be able to open this key, and no other: with keys in files it lies in
a folder of its own, `log-key`, under a passphrase of its own, `log.passphrase`.
"""

import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kit.db import Session
from kit.errors import ConfigurationError, Conflict, Invalid
from kit.files import write_secret
from kit.settings import Settings
from offline_sdk.algorithms import Algorithm
from offline_sdk.transparency.note import NAME_CHARS_MAX
from scan_api.transparency.store import LogHead, find_head
from signer import service
from signer.service import CustodyError, FileCustodyAccess, PrivateKeyMissing, SigningAccess, SigningService

KEY_NAME: Final = "transparency-log-1"
"""In custody."""
KEY_FOLDER: Final = "log-key"
PASSPHRASE_FILE: Final = "log.passphrase"  # noqa: S105 - a file's name
_PASSPHRASE_BYTES: Final = 24
_ORIGIN = re.compile(r"[A-Za-z0-9._:/-]+")


class LogExists(Conflict):
    """There is a log already, and an installation has one."""

    code = "LogExists"


class LogOriginInvalid(Invalid):
    """A log cannot have this name."""

    code = "LogOriginInvalid"


def origin_of(settings: Settings) -> str:
    """What the log is called unless somebody says otherwise: where it is served, without the scheme."""
    return f"{urlsplit(settings.base_url).netloc}/log"


def access(settings: Settings) -> SigningAccess:
    """How the server reaches the log's key. Nobody is asked: the server has no terminal.

    Raises ConfigurationError naming the file or the variable that is missing.
    """
    if settings.custody == "file":
        return FileCustodyAccess(settings.home / KEY_FOLDER, _read(settings.home / PASSPHRASE_FILE, "FANXING_HOME"))
    return service.custody_access(settings, str, lambda: _pin(settings))


def _pin(settings: Settings) -> str:
    name = "FANXING_PKCS11_PIN_FILE"
    if settings.pkcs11_pin_file is None:
        raise ConfigurationError(f"{name}: not set, and the log's key is in the token")
    return _read(settings.pkcs11_pin_file, name)


def _read(path: Path, variable: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        raise ConfigurationError(f"{variable}: cannot read {path}", hint="`fanxing log init` makes it.") from None


async def begin(session: Session, settings: Settings, now: datetime, origin: str | None = None) -> LogHead:
    """Begin the installation's log: make its key, and give it a name of 1 to 256 of A-Z a-z 0-9 . _ : / -.

    A key that a run before made, and was stopped, is used. Raises LogExists, LogOriginInvalid, ConfigurationError,
    CustodyError.
    """
    name = origin_of(settings) if origin is None else origin
    if not _ORIGIN.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        raise LogOriginInvalid(f"the name of a log is 1 to {NAME_CHARS_MAX} of A-Z a-z 0-9 . _ : / -")
    if await find_head(session) is not None:
        raise LogExists("there is a log already", hint="`fanxing log status` shows it.")
    passphrase = settings.home / PASSPHRASE_FILE
    if settings.custody == "file" and not passphrase.exists():
        write_secret(passphrase, secrets.token_urlsafe(_PASSPHRASE_BYTES).encode() + b"\n")
    head = LogHead(
        origin=name, custody_name=KEY_NAME, public=_made(access(settings).open()), created_at=now, grown_at=now
    )
    session.add(head)
    await session.flush()
    return head


def _made(signing: SigningService) -> bytes:
    try:
        signer = signing.named(KEY_NAME)
    except PrivateKeyMissing:
        signer = signing.create_named(KEY_NAME)
    if signer.algorithm is not Algorithm.ED25519:
        raise CustodyError(f"the key {KEY_NAME} is no Ed25519 key, and only these sign checkpoints")
    return signer.public
