"""Scan journal: every scan of a device, on the disk before its answer is shown, and kept there until it is synced.

The layout of the file and its rules: docs/scan-journal.md. It holds neither code texts nor signatures.
"""

import fcntl
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from .errors import JournalBusy, JournalDamaged, JournalFull, JournalUnknown, JournalUnwritable

BYTES_MAX_DEFAULT: Final = 128 << 20
"""About a million scans."""
BYTES_MAX_MIN: Final = 512 << 10
"""The least that `bytes_max` may be."""
ANSWERS_BYTES_MAX: Final = 256 << 10
"""The part of `bytes_max` in which no scan is recorded, so that a full journal can still keep the server's answers."""
BALLAST_BYTES: Final = 1 << 20
"""Held beside the journal and given up when the disk is full: even deleting needs room."""
LOG_BYTES_MAX: Final = 2 << 20
"""With a longer log nothing is recorded: it is that long only when the file cannot grow."""
DISK_FREE_BYTES_MIN: Final = 8 << 20
"""With less free on the disk, records that are synced go before the journal grows."""
EVICTED_RECORDS: Final = 128
"""Records that go at a time: the pages they touch must fit in the ballast."""
ANSWERS_MAX: Final = 500
"""Answers kept at a time: they must fit in ANSWERS_BYTES_MAX."""
NUMBER_MAX: Final = 2**53 - 1

APPLICATION_ID: Final = 0x46584A4C
"""Marks the file as a scan journal: "FXJL"."""
VERSION: Final = 1

_PAGE_BYTES: Final = 4096
_CHECKPOINT_PAGES: Final = 256
_SCHEMA: Final = (
    """
    CREATE TABLE journal (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        journal_id BLOB NOT NULL CHECK (length(journal_id) = 8),
        answered_through INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE scan (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        boot_id BLOB,
        boot_ns INTEGER,
        verdict TEXT NOT NULL,
        error TEXT,
        profile INTEGER,
        kid INTEGER,
        gtin TEXT,
        serial TEXT,
        bundle_seq INTEGER,
        bundle_state TEXT,
        clock_suspect INTEGER NOT NULL,
        text_chars INTEGER,
        status INTEGER NOT NULL,
        status_error TEXT
    )
    """,
    "CREATE INDEX scan_seen ON scan (gtin, serial) WHERE verdict <> 'refused'",
)

_COLUMNS: Final = (
    "at_ms, boot_id, boot_ns, verdict, error, profile, kid, gtin, serial, "
    "bundle_seq, bundle_state, clock_suspect, text_chars"
)
_VERDICTS: Final = ("genuine", "ask", "refused")
_BUNDLE_STATES: Final = ("fresh", "stale", "expired")
_DIGITS: Final = re.compile(r"[0-9]{14}")
_ERROR_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
# A write beyond a quota or a limit on file sizes reaches SQLite's caller as a plain write error.
_FULL_CODES: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}
_DAMAGE_CODES: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

# From 2 on, because SQLite keeps 0 and 1 in no byte at all: an answer must not make a row of a full journal longer.
_WAITING: Final = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of a device's clocks.

    `wall_ms` is unix milliseconds by the clock that people set. `boot_ns` counts nanoseconds by a clock that nobody
    sets and that goes on in sleep; it means something only beside readings of the same `boot_id` (16 bytes). Both are
    None where the system has no such clock.
    """

    wall_ms: int
    boot_id: bytes | None = None
    boot_ns: int | None = None

    def ms_since(self, earlier: "Moment") -> int | None:
        """Milliseconds from `earlier` to this by the clock that nobody sets; None when it cannot tell."""
        if self.boot_id is None or self.boot_id != earlier.boot_id or self.boot_ns is None or earlier.boot_ns is None:
            return None
        elapsed_ns = self.boot_ns - earlier.boot_ns
        return elapsed_ns // 1_000_000 if elapsed_ns >= 0 else None


Clock = Callable[[], Moment]


def read_clock() -> Moment:
    """The device's clocks now: Linux has all of them, other systems the wall clock only."""
    boot_id = _boot_id()
    boot_ns = None if boot_id is None else time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Moment(time.time_ns() // 1_000_000, boot_id, boot_ns)


@cache
def _boot_id() -> bytes | None:
    try:
        return UUID(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()).bytes
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Scan:
    """What is recorded of one scan: the fields of its verdict, and of a malformed text only its length.

    `verdict` is "genuine", "ask" or "refused", `error` the code of the error behind it. `profile`, `kid`, `gtin` (14
    digits) and `serial` (14 digits) are all there or, when the text was malformed, all None. Raises ValueError for
    anything else, so that no code text gets in by mistake.
    """

    verdict: str
    error: str | None = None
    profile: int | None = None
    kid: int | None = None
    gtin: str | None = None
    serial: str | None = None
    bundle_seq: int | None = None
    bundle_state: str | None = None
    clock_suspect: bool = False
    text_chars: int | None = None

    def __post_init__(self) -> None:
        label = (self.profile, self.kid, self.gtin, self.serial)
        wrong = {
            "verdict": self.verdict not in _VERDICTS,
            "error": self.error is not None and _ERROR_CODE.fullmatch(self.error) is None,
            "profile": not _is_count(self.profile, 99),
            "kid": not _is_count(self.kid, 99_999),
            "gtin": self.gtin is not None and _DIGITS.fullmatch(self.gtin) is None,
            "serial": self.serial is not None and _DIGITS.fullmatch(self.serial) is None,
            "bundle_seq": not _is_count(self.bundle_seq, NUMBER_MAX),
            "bundle_state": self.bundle_state is not None and self.bundle_state not in _BUNDLE_STATES,
            "clock_suspect": not isinstance(self.clock_suspect, bool),
            "text_chars": not _is_count(self.text_chars, NUMBER_MAX),
            "label": None in label and label != (None, None, None, None),
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"the scan's {name} is not what a verdict holds; give the fields of a Verdict")


def _is_count(value: int | None, most: int) -> bool:
    return value is None or (type(value) is int and 0 <= value <= most)


class Status(StrEnum):
    """What the server said to a record."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


_STATUS_NUMBERS: Final = {Status.ACCEPTED: 3, Status.DUPLICATE: 4, Status.REFUSED: 5}
_STATUSES: Final = {number: status for status, number in _STATUS_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer to one record; `error` is a code, given when it refused."""

    number: int
    status: Status
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A scan as the journal keeps it; `answer` is None until it is synced."""

    number: int
    moment: Moment
    scan: Scan
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class Seen:
    """Earlier scans here of the same GTIN and serial, those refused left out: the first of them, and how many."""

    number: int
    at_ms: int
    times: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A scan that is on the disk."""

    number: int
    at_ms: int
    seen: Seen | None


class Journal:
    """The scan journal of one device. One process has it open; its threads may share it.

    Methods raise JournalFull, JournalDamaged or JournalUnwritable. After the last two it is closed or useless: open
    it again.
    """

    def __init__(self, path: Path, bytes_max: int, clock: Clock, disk_free_bytes_min: int, lock: int) -> None:
        self._path = path
        self._clock = clock
        self._pages_max = bytes_max // _PAGE_BYTES
        self._disk_free_bytes_min = disk_free_bytes_min
        self._file_lock = lock
        self._ballast = _Ballast(_beside(path, ".ballast"))
        self._thread_lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self.journal_id = ""
        """16 hex digits: the random name that the file got when it was made."""
        self._answered_through = 0
        self._last_number = 0

    @classmethod
    def open(
        cls,
        path: Path,
        bytes_max: int = BYTES_MAX_DEFAULT,
        clock: Clock = read_clock,
        disk_free_bytes_min: int = DISK_FREE_BYTES_MIN,
    ) -> Self:
        """Open the journal at `path`, or make it.

        `bytes_max`, at least BYTES_MAX_MIN, is the most its file may take; SQLite's log and the ballast take up to
        3 MiB beside it. Raises JournalBusy, JournalUnknown, JournalUnwritable, and JournalDamaged: the damaged file
        then has another name and the next call makes a new journal.
        """
        if bytes_max < BYTES_MAX_MIN:
            raise ValueError(f"bytes_max is below {BYTES_MAX_MIN}; a smaller journal could not keep its answers")
        journal = cls(path, bytes_max, clock, disk_free_bytes_min, _lock(path))
        try:
            with journal._translated():
                journal._connect()
        except BaseException:
            journal.close()
            raise
        return journal

    def close(self) -> None:
        """Close the file and let another process have it; nothing happens the second time."""
        with self._thread_lock:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None
            if self._file_lock >= 0:
                os.close(self._file_lock)
                self._file_lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """Where the journal is."""
        return self._path

    @property
    def waiting(self) -> int:
        """Records that have no answer of the server yet."""
        return self._last_number - self._answered_through

    @property
    def last_number(self) -> int:
        """The number of the newest record, 0 before the first."""
        return self._last_number

    def now(self) -> Moment:
        """Read the journal's clock."""
        return self._clock()

    def record(self, scan: Scan) -> Recorded:
        """Put a scan on the disk; when this returns, no crash and no power cut takes it away.

        Raises JournalFull when there is no room and every record is still unsynced: do not answer the scan then.
        """
        moment = self._clock()
        with self._translated():
            self._spare_the_disk()
            recorded = self._durably(
                lambda: self._insert(scan, moment),
                self._pages_max - ANSWERS_BYTES_MAX // _PAGE_BYTES,
                on_ballast=False,
            )
            self._last_number = recorded.number
            return recorded

    def waiting_records(self, records_max: int) -> tuple[Record, ...]:
        """The oldest records that have no answer yet, ascending."""
        return self.records(self._answered_through + 1, records_max)

    def records(self, first: int, records_max: int) -> tuple[Record, ...]:
        """Records from number `first` on, ascending; those that were evicted are not among them."""
        with self._translated():
            rows = self._run(
                f"SELECT number, {_COLUMNS}, status, status_error FROM scan "  # noqa: S608
                "WHERE number >= ? ORDER BY number LIMIT ?",
                (first, records_max),
            )
            try:
                return tuple(map(_record, rows))
            except (ValueError, KeyError) as error:
                raise self._damaged() from error

    def keep_answers(self, answers: Sequence[Answer]) -> None:
        """Keep the server's answers, all or none, to the oldest records that wait: 1 to ANSWERS_MAX of them, in order.

        Raises ValueError when they are the answers to any other records.
        """
        with self._translated():
            first = self._answered_through + 1
            expected = range(first, min(first + len(answers), self._last_number + 1))
            if not 1 <= len(answers) <= ANSWERS_MAX or [answer.number for answer in answers] != list(expected):
                raise ValueError("these are not answers to the oldest records that wait; read waiting_records again")
            self._durably(lambda: self._update(answers), self._pages_max, on_ballast=True)
            self._answered_through = answers[-1].number

    # ---- the file

    def _connect(self) -> None:
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            _flush_folder(self._path.parent)
        self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        # Exclusive, so that SQLite needs no shared-memory file; the lock file says it to other processes first.
        self._run("PRAGMA locking_mode = EXCLUSIVE")
        self._run("PRAGMA cell_size_check = ON")
        [[application_id]], [[version]] = self._run("PRAGMA application_id"), self._run("PRAGMA user_version")
        [[tables]] = self._run("SELECT count(*) FROM sqlite_master")
        is_new = (application_id, version, tables) == (0, 0, 0)
        if not is_new and application_id != APPLICATION_ID:
            raise JournalUnknown(f"{self._path} is a database, but no scan journal; name another file")
        if not is_new and version != VERSION:
            raise JournalUnknown(f"{self._path} is a scan journal of version {version}; install a newer program")
        if is_new:
            self._run("PRAGMA auto_vacuum = INCREMENTAL")
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = FULL")
        self._run("PRAGMA fullfsync = ON")
        self._run(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        if is_new:
            self._durably(self._create, self._pages_max, on_ballast=False)
        self._read_state()
        self._ballast.make()

    def _create(self) -> None:
        for statement in _SCHEMA:
            self._run(statement)
        self._run("INSERT INTO journal VALUES (1, ?, 0)", (secrets.token_bytes(8),))
        self._run(f"PRAGMA application_id = {APPLICATION_ID}")
        self._run(f"PRAGMA user_version = {VERSION}")

    def _read_state(self) -> None:
        if self._run("PRAGMA quick_check(1)") != [("ok",)]:
            raise self._damaged()
        rows = self._run(
            "SELECT journal_id, answered_through, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'scan'), 0), "
            "(SELECT count(*) FROM scan WHERE number > answered_through) FROM journal"
        )
        if len(rows) != 1 or list(map(type, rows[0])) != [bytes, int, int, int]:
            raise self._damaged()
        journal_id, self._answered_through, self._last_number, waiting = rows[0]
        # Unsynced records never go, and numbers have no holes.
        if not 0 <= self._answered_through <= self._last_number or waiting != self.waiting:
            raise self._damaged()
        self.journal_id = journal_id.hex()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Hold the journal for this thread, and tell its errors by this package's names."""
        with self._thread_lock:
            try:
                yield
            except (sqlite3.Error, UnicodeDecodeError) as error:
                # Without a code it is a text that is no UTF-8, in a row or in SQLite's own complaint about the schema.
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
                # At opening, a table or column that is missing is damage too: the version said that it is there.
                if code & 0xFF in _DAMAGE_CODES or (code == sqlite3.SQLITE_ERROR and not self.journal_id):
                    raise self._damaged() from error
                if code & 0xFF == sqlite3.SQLITE_BUSY:
                    raise _busy(self._path) from error
                raise JournalUnwritable(
                    f"{self._path} cannot be used ({error}); check the disk and the rights to it, then open it again"
                ) from error
            except OSError as error:
                raise _unwritable(self._path, error) from error

    def _damaged(self) -> JournalDamaged:
        """Give the damaged file another name, and close it."""
        aside = _beside(self._path, f".damaged-{time.time_ns()}")
        # The log first: were the power cut in between, it would be taken for the log of the next journal.
        for suffix in ("-wal", ""):
            with suppress(FileNotFoundError):
                os.rename(f"{self._path}{suffix}", f"{aside}{suffix}")
        _flush_folder(self._path.parent)
        self.close()
        return JournalDamaged(
            f"{self._path} is damaged and is now {aside}: keep it, unsynced scans may be read from it; "
            "open the journal again to begin a new one, and check the disk"
        )

    # ---- writing

    def _insert(self, scan: Scan, moment: Moment) -> Recorded:
        seen = self._seen(scan)
        values = (
            moment.wall_ms, moment.boot_id, moment.boot_ns,
            scan.verdict, scan.error, scan.profile, scan.kid, scan.gtin, scan.serial,
            scan.bundle_seq, scan.bundle_state, scan.clock_suspect, scan.text_chars, _WAITING,
        )  # fmt: skip
        marks = ", ".join("?" * len(values))
        statement = f"INSERT INTO scan ({_COLUMNS}, status) VALUES ({marks})"  # noqa: S608
        number = self._open.execute(statement, values).lastrowid
        assert number is not None
        return Recorded(number, moment.wall_ms, seen)

    def _seen(self, scan: Scan) -> Seen | None:
        # A forgery carries numbers of its choice: refused scans must not make the genuine item look seen.
        rows = self._run(
            "SELECT min(number), count(*) FROM scan WHERE gtin = ? AND serial = ? AND verdict <> 'refused'",
            (scan.gtin, scan.serial),
        )
        [(number, times)] = rows
        if not times:
            return None
        [(at_ms,)] = self._run("SELECT at_ms FROM scan WHERE number = ?", (number,))
        return Seen(number, at_ms, times)

    def _update(self, answers: Sequence[Answer]) -> None:
        changed = self._open.executemany(
            "UPDATE scan SET status = ?, status_error = ? WHERE number = ?",
            [(_STATUS_NUMBERS[answer.status], answer.error, answer.number) for answer in answers],
        ).rowcount
        assert changed == len(answers)
        self._run("UPDATE journal SET answered_through = ?", (answers[-1].number,))

    def _durably(self, change: Callable[[], T], pages_max: int, *, on_ballast: bool) -> T:
        """Run `change` in one transaction that is on the disk when this returns, and make room for it if need be.

        Without `on_ballast` the ballast is there before and after, and a log that cannot be brought into the file ends
        in time: a record must not take the room in which a full journal keeps answers and lets synced records go.
        """
        try:
            for _ in chain((None,), self._room_made(pages_max, on_ballast=on_ballast)):
                if on_ballast or (self._ballast.make() and self._log_bytes() <= LOG_BYTES_MAX):
                    with _unless_full():
                        return self._in_transaction(change, pages_max)
        finally:
            self._ballast.make()
        raise JournalFull(
            f"{self._path} has no room, and none of its {self.waiting} unsynced scans may go; sync, or free the disk"
        )

    def _in_transaction(self, change: Callable[[], T], pages_max: int) -> T:
        self._run(f"PRAGMA max_page_count = {pages_max}")
        self._run("BEGIN IMMEDIATE")
        try:
            result = change()
            self._run("COMMIT")
        except BaseException:
            if self._open.in_transaction:  # a full disk may have rolled it back already
                self._run("ROLLBACK")
            raise
        return result

    # ---- room

    def _spare_the_disk(self) -> None:
        """On a disk that is nearly full, let synced records go instead of growing."""
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < self._disk_free_bytes_min and self._run("PRAGMA freelist_count") == [(0,)]:
            self._evict(shrink=False)

    def _room_made(self, pages_max: int, *, on_ballast: bool) -> Iterator[None]:
        """Make room, more each time one asks, till there is no more to make."""
        self._checkpoint()
        yield
        while self._evict(shrink=True):
            yield
        [(pages,)] = self._run("PRAGMA page_count")
        # At its most pages it is the journal that is full, not the disk.
        if on_ballast and pages < pages_max and self._ballast.release():
            self._checkpoint()
            yield

    def _evict(self, *, shrink: bool) -> bool:
        """Delete the oldest synced records, EVICTED_RECORDS of them, and tell whether any went.

        With `shrink` their pages go back to the disk, else they wait for new records.
        """
        [(last,)] = self._run(
            "SELECT max(number) FROM (SELECT number FROM scan WHERE number <= ? ORDER BY number LIMIT ?)",
            (self._answered_through, EVICTED_RECORDS),
        )
        if last is None:
            return False

        def delete() -> None:
            self._run("DELETE FROM scan WHERE number <= ?", (last,))
            if shrink:
                self._run("PRAGMA incremental_vacuum")

        for _ in range(2):
            with _unless_full():
                self._in_transaction(delete, self._pages_max)
                self._checkpoint()
                return True
            self._ballast.release()
            self._checkpoint()
        return False

    def _checkpoint(self) -> None:
        """Bring the log's pages into the file and the log to nothing, as far as the disk lets us."""
        with _unless_full():
            self._run("PRAGMA wal_checkpoint(TRUNCATE)")

    def _log_bytes(self) -> int:
        with suppress(FileNotFoundError):
            return _beside(self._path, "-wal").stat().st_size
        return 0

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalUnwritable(f"{self._path} is closed; open it again")
        return self._connection

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return self._open.execute(statement, values).fetchall()


@contextmanager
def _unless_full() -> Iterator[None]:
    """Go on behind this block when it needed more room than there is."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) not in _FULL_CODES:
            raise


class _Ballast:
    """A file that only takes room, so that it can be given up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_whole = path.exists() and path.stat().st_size == BALLAST_BYTES

    def make(self) -> bool:
        """Have it, and tell whether that was possible."""
        if self._is_whole:
            return True
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < BALLAST_BYTES:
            return False
        try:
            # Random, because a file system may make little of zeros.
            with open(self._path, "wb") as file:
                file.write(secrets.token_bytes(BALLAST_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        self._is_whole = True
        return True

    def release(self) -> bool:
        """Give it up; whether there was one."""
        was_there = self._path.exists()
        self._path.unlink(missing_ok=True)
        self._is_whole = False
        return was_there


def _lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(_beside(path, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise _busy(path) from None
    return lock


def _record(row: tuple[Any, ...]) -> Record:
    (
        number, at_ms, boot_id, boot_ns, verdict, error, profile, kid, gtin, serial,
        bundle_seq, bundle_state, suspect, text_chars, status, status_error,
    ) = row  # fmt: skip
    scan = Scan(verdict, error, profile, kid, gtin, serial, bundle_seq, bundle_state, bool(suspect), text_chars)
    answer = None if status == _WAITING else Answer(number, _STATUSES[status], status_error)
    return Record(number, Moment(at_ms, boot_id, boot_ns), scan, answer)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _flush_folder(folder: Path) -> None:
    # Without it a power cut can lose the name of a file whose content is safe.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _busy(path: Path) -> JournalBusy:
    return JournalBusy(f"another process has {path} open; end it, or give this one a journal of its own")


def _unwritable(path: Path, error: OSError) -> JournalUnwritable:
    return JournalUnwritable(f"{path} cannot be used ({error.strerror}); check the disk and the rights to it")
