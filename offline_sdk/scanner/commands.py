"""Commands: what is done with a scanner beside scanning, without its server: update, status, clock and export."""

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TextIO

from ..cose import TRUST_FILE_BYTES_MAX
from ..errors import DeviceError, NotEnrolled
from ..journal import Journal, Record
from ..trust_store import CACHE_FILE
from .background import LinkState
from .home import Home, timestamp
from .show import Standing
from .trust import Trust, TrustState, read_wall_clock

EXPORT_RECORDS: Final = 1_000


class FileUnusable(DeviceError):
    """A file that was named cannot be read or written."""

    code = "FileUnusable"


def updated(home: Home, path: str) -> dict[str, Any]:
    """Take a trust file: from a path, a folder such as a USB stick's that holds trust.cbor, or "-", standard input.

    A scanner at work takes it over within seconds. Raises FileUnusable, NotEnrolled, and the TrustError with which the
    file is refused.
    """
    content = _read(path)
    update = Trust(home.trust, home.pin()).update(content)
    return {**asdict(update), "changed": update.changed}


def _read(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read(TRUST_FILE_BYTES_MAX + 1)
        named = Path(path)
        with (named / CACHE_FILE if named.is_dir() else named).open("rb") as file:
            return file.read(TRUST_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise FileUnusable(f"{error.filename or path} cannot be read ({error.strerror}); check the name") from None


def status(home: Home) -> dict[str, Any]:
    """How the scanner stands; of one at work, what it last said of itself."""
    is_running = home.is_held()
    device = _enrolment(home)
    knows_root = device is not None or home.pin_file.exists()
    standing = home.said() if is_running else _standing(home) if knows_root else None
    return {"home": str(home.folder), "is_running": is_running, "device": device, "standing": standing}


def _enrolment(home: Home) -> dict[str, Any] | None:
    # Opening a device makes its key pair, and asking how things stand should make nothing.
    if not home.device.exists():
        return None
    from ..device import Device  # noqa: PLC0415 - only the extra "scanner" has what it imports

    with suppress(NotEnrolled):
        return asdict(Device.open(home.device).enrolment)
    return None


def _standing(home: Home) -> dict[str, Any]:
    with home.held(), Journal.open(home.journal) as journal:
        link = LinkState.of((home.said() or {}).get("sync"))
        return Standing.now(journal, Trust(home.trust, home.pin()), link).as_json()


def clock(home: Home) -> dict[str, Any]:
    """The device's clock beside the time that it is at least."""
    trust = Trust(home.trust, home.pin())
    return _clock_json(trust.state(), trust.floor)


def correct_clock(home: Home) -> dict[str, Any]:
    """Believe the device's clock again, and note that an operator said so. Raises HomeBusy while the scanner works."""
    with home.held():
        trust = Trust(home.trust, home.pin())
        before = trust.floor
        home.note("clock corrected", floor_before=timestamp(before), clock=timestamp(time.time()))
        trust.correct_clock()
        return {**_clock_json(trust.state(), trust.floor), "floor_before": timestamp(before)}


def _clock_json(trust: TrustState, floor: float) -> dict[str, Any]:
    return {
        "clock": timestamp(read_wall_clock().timestamp()),
        "floor": timestamp(floor),
        "clock_suspect": trust.clock_suspect,
    }


def export(home: Home, path: str) -> dict[str, Any]:
    """Write every scan of the journal to a new file, one JSON object a line; "-" is standard output.

    Nothing counts as synced by that. Raises FileUnusable, also when the file exists, and HomeBusy.
    """
    with home.held(), Journal.open(home.journal) as journal:
        try:
            if path == "-":
                return {"records": _export(journal, sys.stdout), "file": None}
            with Path(path).open("x", encoding="utf-8") as file:
                return {"records": _export(journal, file), "file": path}
        except BrokenPipeError:
            raise
        except OSError as error:
            raise FileUnusable(f"{path} cannot be written ({error.strerror}); name another file") from None


def _export(journal: Journal, file: TextIO) -> int:
    written, number = 0, 1
    while records := journal.records(number, EXPORT_RECORDS):
        for record in records:
            print(json.dumps(_as_json(journal, record)), file=file)
        written += len(records)
        number = records[-1].number + 1
    return written


def _as_json(journal: Journal, record: Record) -> dict[str, Any]:
    answer = record.answer
    return {
        "journal": journal.journal_id,
        "number": record.number,
        "at_ms": record.moment.wall_ms,
        **asdict(record.scan),
        "status": None if answer is None else answer.status.value,
        "status_error": None if answer is None else answer.error,
    }
