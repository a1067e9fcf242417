"""Home: the folder of one scanner, with its key, its trust, its journal and what it last said of itself."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import DeviceError
from ..root import PIN_FILE_BYTES, format_pin, read_pin

HOME_VARIABLE: Final = "FANXING_SCANNER_HOME"
NOTES_BYTES_MAX: Final = 1 << 20
"""Of the notes of what operators did; a file that is full is renamed once, over the one before."""
_STATUS_BYTES_MAX: Final = 64 << 10
_LOCK_TRIES: Final = 5
_LOCK_WAIT_S: Final = 0.1


class HomeBusy(DeviceError):
    """Another fanxing-scanner works in this folder."""

    code = "HomeBusy"


class HomeUnusable(DeviceError):
    """The folder or a file of it cannot be used."""

    code = "HomeUnusable"


@dataclass(frozen=True, slots=True)
class Home:
    """Where things of one scanner are; made readable for its user alone."""

    folder: Path

    @classmethod
    def default(cls, environment: Mapping[str, str]) -> "Home":
        """The folder that FANXING_SCANNER_HOME names, else fanxing-scanner in the XDG data folder."""
        named = environment.get(HOME_VARIABLE)
        if named:
            return cls(Path(named))
        data = environment.get("XDG_DATA_HOME")  # XDG Base Directory Specification 0.8: a relative one is ignored
        base = Path(data) if data and os.path.isabs(data) else Path.home() / ".local" / "share"
        return cls(base / "fanxing-scanner")

    @property
    def device(self) -> Path:
        """Folder of the key pair and the enrolment."""
        return self.folder / "device"

    @property
    def trust(self) -> Path:
        """Folder of the trust store."""
        return self.folder / "trust"

    @property
    def journal(self) -> Path:
        """File of the scan journal."""
        return self.folder / "journal.db"

    @property
    def pin_file(self) -> Path:
        """File of the trust root's pin."""
        return self.folder / "root.txt"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only fanxing-scanner in this folder, which is made if need be. Raises HomeBusy, HomeUnusable."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.folder, error) from None
        try:
            if not _locked_soon(lock):
                raise HomeBusy(
                    f"another fanxing-scanner works in {self.folder}; end it first, "
                    "or give this one a folder of its own with --home"
                )
            yield
        finally:
            os.close(lock)

    def is_held(self) -> bool:
        """Whether a fanxing-scanner works in this folder now."""
        try:
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def pin(self) -> bytes:
        """The trust root's pin, 32 bytes. Raises NotEnrolled, HomeUnusable, DeviceUnusable, ForeignRoot."""
        try:
            with self.pin_file.open("rb") as file:
                return read_pin(file.read(PIN_FILE_BYTES + 1))
        except FileNotFoundError:
            from ..device import Device  # noqa: PLC0415 - slow to import, and after the first start not needed

            pin = bytes.fromhex(Device.open(self.device).enrolment.pin)
            self.keep_pin(pin)
            return pin
        except OSError as error:
            raise _unusable(self.pin_file, error) from None

    def keep_pin(self, pin: bytes) -> None:
        """Keep the trust root's pin on the disk. Raises HomeUnusable."""
        self._write(self.pin_file, format_pin(pin), durable=True)

    def say(self, status: Mapping[str, Any]) -> None:
        """Leave word, for `fanxing-scanner status`, of how the running scanner stands. A full disk loses it only."""
        with suppress(HomeUnusable):
            self._write(self.folder / "status.json", json.dumps(status).encode(), durable=False)

    def said(self) -> dict[str, Any] | None:
        """What the running scanner last said of itself; None when nothing can be read."""
        try:
            with (self.folder / "status.json").open("rb") as file:
                status = json.loads(file.read(_STATUS_BYTES_MAX))
        except (OSError, ValueError):
            return None
        return status if isinstance(status, dict) else None

    def note(self, what: str, **fields: Any) -> None:
        """Write down what an operator did, one JSON object a line in notes.ndjson. Raises HomeUnusable."""
        line = json.dumps({"at": timestamp(time.time()), "note": what, **fields}, ensure_ascii=False)
        path = self.folder / "notes.ndjson"
        try:
            if path.exists() and path.stat().st_size > NOTES_BYTES_MAX:
                path.replace(path.with_suffix(".old.ndjson"))
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unusable(path, error) from None

    def _write(self, path: Path, content: bytes, *, durable: bool) -> None:
        beside = path.with_name(f"{path.name}.part")
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            beside.replace(path)
            if durable:
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            raise _unusable(path, error) from None


def _locked_soon(lock: int) -> bool:
    for _ in range(_LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOCK_WAIT_S)  # `status` has it for a moment while it looks
    return False


def timestamp(seconds: float) -> str:
    """A moment as RFC 3339 says it, in UTC and to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _unusable(path: Path, error: OSError) -> HomeUnusable:
    return HomeUnusable(f"{path} cannot be used ({error.strerror}); check the disk and the rights to it")
