import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_sdk.errors import DeviceError, JournalBusy, JournalDamaged, JournalFull, JournalUnknown, JournalUnwritable
from offline_sdk.journal import (
    ANSWERS_BYTES_MAX,
    ANSWERS_MAX,
    BALLAST_BYTES,
    BYTES_MAX_MIN,
    EVICTED_RECORDS,
    Answer,
    Journal,
    Moment,
    Scan,
    Seen,
    Status,
    read_clock,
)

GTIN = "06901234567892"
REPOSITORY = Path(__file__).parents[2]
MiB = 1 << 20


def scan_of(item: int, verdict: str = "genuine", error: str | None = None) -> Scan:
    return Scan(verdict, error, 1, 7, GTIN, f"{item:014d}", 42, "fresh")


def accept(journal: Journal, records: int) -> None:
    waiting = journal.waiting_records(records)
    journal.keep_answers([Answer(record.number, Status.ACCEPTED) for record in waiting])


def fill(journal: Journal) -> int:
    """Record until the journal is full; how many went in."""
    for records in count():
        try:
            journal.record(scan_of(records))
        except JournalFull:
            return records
    raise AssertionError


def first_number(journal: Journal) -> int:
    return journal.records(1, 1)[0].number


class Hands:
    """Clocks that a test turns."""

    def __init__(self) -> None:
        self.moment = Moment(1_790_000_000_000, b"b" * 16, 5_000_000_000)

    def __call__(self) -> Moment:
        return self.moment


@pytest.fixture
def path() -> Iterator[Path]:
    # In memory where the system has such a folder: a thousand scans wait for the disk a thousand times.
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "scans" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path, clock=Hands()) as opened:
        yield opened


# ---- recording


def test_a_scan_is_kept_with_every_field_of_its_verdict(journal: Journal) -> None:
    scan = Scan("ask", "BundleStale", 2, 99_999, GTIN, "00001975404383", 2**53 - 1, "stale", True)
    assert journal.record(scan).number == 1
    [record] = journal.records(1, 10)
    assert (record.scan, record.moment, record.answer) == (scan, Hands().moment, None)


def test_a_malformed_text_is_kept_as_its_length_alone(journal: Journal) -> None:
    recorded = journal.record(Scan("refused", "Malformed", bundle_state="fresh", text_chars=4096))
    assert recorded.seen is None
    assert journal.records(1, 1)[0].scan.text_chars == 4096


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verdict", "https://id.example.cn/1"),
        ("error", "https://id.example.cn/1"),
        ("gtin", "https://id.exa"),
        ("gtin", "0690123456789"),
        ("serial", "https://id.exa"),
        ("serial", "000019754043830"),
        ("serial", None),
        ("profile", -1),
        ("kid", 100_000),
        ("kid", True),
        ("bundle_seq", 2**53),
        ("bundle_state", "old"),
        ("text_chars", "text"),
        ("clock_suspect", "https://id.example.cn/1"),
    ],
)
def test_a_field_that_no_verdict_holds_is_refused_and_not_repeated(field: str, value: object) -> None:
    fields = {"verdict": "genuine", "profile": 1, "kid": 7, "gtin": GTIN, "serial": "00001975404383", field: value}
    with pytest.raises(ValueError, match=field if value is not None else "label") as caught:
        Scan(**fields)  # type: ignore[arg-type]
    assert "https" not in str(caught.value)


def test_an_item_seen_here_tells_the_first_scan_and_how_many(path: Path) -> None:
    hands = Hands()
    with Journal.open(path, clock=hands) as journal:
        assert journal.record(scan_of(1)).seen is None
        first = hands.moment
        hands.moment = Moment(first.wall_ms + 1000)
        journal.record(scan_of(2))
        assert journal.record(scan_of(1, "ask")).seen == Seen(1, first.wall_ms, 1)
    with Journal.open(path, clock=hands) as journal:
        assert journal.record(scan_of(1)).seen == Seen(1, first.wall_ms, 2)


def test_a_forgery_scanned_before_does_not_make_the_genuine_item_seen(journal: Journal) -> None:
    journal.record(scan_of(1, "refused", "BadSignature"))
    assert journal.record(scan_of(1)).seen is None
    assert journal.record(scan_of(1, "refused", "BadSignature")).seen == Seen(2, Hands().moment.wall_ms, 1)


def test_numbers_and_name_outlast_closing(path: Path) -> None:
    with Journal.open(path) as journal:
        name = journal.journal_id
        assert [journal.record(scan_of(item)).number for item in range(3)] == [1, 2, 3]
    with Journal.open(path) as journal:
        assert (journal.journal_id, journal.record(scan_of(3)).number, journal.waiting) == (name, 4, 4)
    assert len(bytes.fromhex(name)) == 8
    shutil.rmtree(path.parent)
    with Journal.open(path) as journal:
        assert journal.journal_id != name


def test_threads_share_a_journal(journal: Journal) -> None:
    numbers: list[int] = []

    def record() -> None:
        numbers.extend(journal.record(scan_of(item)).number for item in range(25))

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 101))


def test_only_the_owner_reads_a_journal(journal: Journal) -> None:
    journal.record(scan_of(1))
    files = sorted(journal.path.parent.iterdir())
    assert {file.stat().st_mode & 0o077 for file in files if file.suffix in (".db", ".db-wal", ".lock")} == {0}
    assert [file.name for file in files] == ["journal.db", "journal.db-wal", "journal.db.ballast", "journal.db.lock"]


def test_every_commit_waits_for_the_disk(journal: Journal) -> None:
    connection = journal._open
    modes = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert modes == ["wal", 2]  # 2 is FULL


# ---- time


@given(boot_ns=st.integers(0, 2**62), elapsed_ms=st.integers(0, 10**12))
def test_time_since_a_scan_needs_no_wall_clock(boot_ns: int, elapsed_ms: int) -> None:
    earlier = Moment(9, b"b" * 16, boot_ns)
    assert Moment(0, b"b" * 16, boot_ns + elapsed_ms * 1_000_000 + 999_999).ms_since(earlier) == elapsed_ms


@pytest.mark.parametrize(
    "earlier",
    [Moment(0, b"c" * 16, 1), Moment(0, None, None), Moment(0, b"b" * 16, None), Moment(0, b"b" * 16, 3)],
    ids=["rebooted", "no clock then", "no reading", "later"],
)
def test_time_since_a_scan_is_unknown_when_the_clock_cannot_tell(earlier: Moment) -> None:
    assert Moment(0, b"b" * 16, 2).ms_since(earlier) is None
    assert Moment(0).ms_since(earlier) is None


def test_the_devices_clocks_are_read() -> None:
    earlier = read_clock()
    now = read_clock()
    assert abs(now.wall_ms / 1000 - time.time()) < 3600
    assert earlier.boot_id is not None, "this machine has no /proc/sys/kernel/random/boot_id; test on Linux"
    assert now.ms_since(earlier) is not None


# ---- answers


def test_answers_are_kept_to_the_oldest_records_that_wait(path: Path) -> None:
    answers = [Answer(1, Status.ACCEPTED), Answer(2, Status.REFUSED, "NeverIssued"), Answer(3, Status.DUPLICATE)]
    with Journal.open(path) as journal:
        for item in range(5):
            journal.record(scan_of(item))
        journal.keep_answers(answers)
        assert journal.waiting == 2
    with Journal.open(path) as journal:
        assert [record.answer for record in journal.records(1, 9)] == [*answers, None, None]
        assert [record.number for record in journal.waiting_records(9)] == [4, 5]


@pytest.mark.parametrize("numbers", [[], [2], [1, 3], [2, 1], [1, 1], [1, 2, 3, 4], [0, 1]])
def test_answers_to_other_records_change_nothing(journal: Journal, numbers: list[int]) -> None:
    for item in range(3):
        journal.record(scan_of(item))
    with pytest.raises(ValueError, match="waiting_records"):
        journal.keep_answers([Answer(number, Status.ACCEPTED) for number in numbers])
    assert (journal.waiting, len(journal.waiting_records(9))) == (3, 3)


def test_as_many_answers_as_allowed_are_kept_and_no_more(journal: Journal) -> None:
    for item in range(ANSWERS_MAX * 2 + 1):
        journal.record(scan_of(item))
    accept(journal, ANSWERS_MAX - 1)
    accept(journal, ANSWERS_MAX)
    assert journal.waiting == 2
    journal.record(scan_of(0))
    for item in range(ANSWERS_MAX):
        journal.record(scan_of(item))
    with pytest.raises(ValueError, match="waiting_records"):
        accept(journal, ANSWERS_MAX + 1)


# ---- room


def test_a_full_journal_loses_synced_records_oldest_first_and_no_other(path: Path) -> None:
    with Journal.open(path, BYTES_MAX_MIN) as journal:
        records = fill(journal)
        accept(journal, 300)
        more = fill(journal)
        assert more > 200
        assert journal.waiting == records + more - 300
        assert [record.number for record in journal.records(1, 10_000)] == list(range(301, records + more + 1))
        number = journal.last_number
        accept(journal, 100)
        assert journal.record(scan_of(1)).number == number + 1
        assert first_number(journal) == 401
    assert path.stat().st_size <= BYTES_MAX_MIN


def test_the_newest_synced_records_outlast_the_oldest(path: Path) -> None:
    with Journal.open(path, BYTES_MAX_MIN) as journal:
        fill(journal)
        accept(journal, 400)
        journal.record(scan_of(1))
        assert first_number(journal) == EVICTED_RECORDS + 1


def test_a_journal_full_of_unsynced_records_says_so_and_can_still_be_synced(path: Path) -> None:
    with Journal.open(path, BYTES_MAX_MIN) as journal:
        records = fill(journal)
        with pytest.raises(JournalFull, match="sync"):
            journal.record(scan_of(1))
        assert (journal.waiting, journal.last_number) == (records, records)
        while journal.waiting:
            waiting = journal.waiting_records(ANSWERS_MAX)
            journal.keep_answers([Answer(record.number, Status.REFUSED, "E" * 64) for record in waiting])
        assert journal.record(scan_of(1)).number == records + 1
    assert path.stat().st_size <= BYTES_MAX_MIN


def test_bytes_max_has_a_least(path: Path) -> None:
    with pytest.raises(ValueError, match="bytes_max"):
        Journal.open(path, BYTES_MAX_MIN - 1)
    with Journal.open(path, BYTES_MAX_MIN) as journal:
        assert fill(journal) > 1_000


def test_sqlite_itself_enforces_the_limit(path: Path) -> None:
    with Journal.open(path, BYTES_MAX_MIN) as journal:
        journal.record(scan_of(1))
        [limit] = journal._open.execute("PRAGMA max_page_count").fetchone()
    assert limit * 4096 == BYTES_MAX_MIN - ANSWERS_BYTES_MAX


def test_on_a_nearly_full_disk_synced_records_go_before_the_journal_grows(path: Path) -> None:
    with Journal.open(path, 4 * MiB) as journal:
        for item in range(1_000):
            journal.record(scan_of(item))
        accept(journal, 500)
        accept(journal, 250)
    size = path.stat().st_size
    with Journal.open(path, 4 * MiB, disk_free_bytes_min=1 << 62) as journal:
        for item in range(300):
            journal.record(scan_of(item))
        assert 100 < first_number(journal) <= 751
    assert path.stat().st_size <= size + 8 * 4096
    with Journal.open(path, 4 * MiB, disk_free_bytes_min=1 << 62) as journal:
        # With nothing synced left it goes on growing: the disk has room yet.
        numbers = [journal.record(scan_of(item)).number for item in range(2_000)]
        assert numbers == list(range(1_301, 3_301))
        assert journal.records(751, 1)[0].number == 751


ON_A_SMALL_DISK = """
    import sys, json
    from pathlib import Path
    from offline_sdk.errors import JournalFull
    from offline_sdk.journal import Answer, Journal, Scan, Status

    def record(journal, records_max):
        done = 0
        try:
            while done < records_max:  # until the disk is full
                journal.record(Scan("genuine", None, 1, 7, "06901234567892", f"{done * 7919 % 10**9:014d}"))
                done += 1
        except JournalFull:
            pass
        return done

    def accept(journal):
        records = journal.waiting_records(500)
        journal.keep_answers([Answer(record.number, Status.ACCEPTED) for record in records])

    path = Path(sys.argv[1])
    with Journal.open(path) as journal:
        rounds = [record(journal, 10**6)]
        for _ in range(4):
            accept(journal)
            rounds.append(record(journal, 250))
        while journal.waiting:
            accept(journal)
        rounds.append(record(journal, 1_000))
        total = journal.last_number
    with Journal.open(path) as journal:
        numbers = [record.number for record in journal.records(1, 10**6)]
        print(json.dumps({"rounds": rounds, "total": total, "waiting": journal.waiting, "numbers": numbers}))
"""


@pytest.fixture
def small_disk(path: Path) -> Iterator[tuple[Path, str]]:
    """A folder on a file system of 3 MiB, or where nobody may mount one, a limit of 3 MiB on the size of files."""
    folder = path.parent
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield folder, ""
        subprocess.run(["umount", folder], check=True)
    else:
        yield folder, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))\n"


def test_on_a_disk_that_is_really_full_no_unsynced_scan_is_lost_and_sync_goes_on(small_disk: tuple[Path, str]) -> None:
    folder, limit = small_disk
    script = limit + textwrap.dedent(ON_A_SMALL_DISK)
    outcome = subprocess.run(
        [sys.executable, "-c", script, folder / "journal.db"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    report = json.loads(outcome.stdout)
    full, *after_sync, freed = report["rounds"]
    assert full > 1_000
    assert after_sync == [250] * 4
    assert freed == 1_000
    assert report["total"] == full + 2_000
    assert report["waiting"] == 1_000
    first = report["numbers"][0]
    assert report["numbers"] == list(range(first, report["total"] + 1))
    assert 1 < first <= full + 1_001


def test_the_ballast_is_there_again_after_it_was_needed(path: Path) -> None:
    with Journal.open(path, BYTES_MAX_MIN) as journal:
        journal._ballast.release()
        journal.record(scan_of(1))
    assert path.with_name("journal.db.ballast").stat().st_size == BALLAST_BYTES


# ---- what may go wrong with the file


def test_a_second_process_is_told_that_the_journal_is_busy(path: Path) -> None:
    opening = f"from pathlib import Path; from offline_sdk.journal import Journal; Journal.open(Path({str(path)!r}))"
    with Journal.open(path):
        outcome = subprocess.run(
            [sys.executable, "-c", opening], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert "offline_sdk.errors.JournalBusy" in outcome.stderr
        with pytest.raises(JournalBusy):
            Journal.open(path)
    subprocess.run([sys.executable, "-c", opening], cwd=REPOSITORY, check=True)


def test_a_database_tool_that_holds_the_file_makes_it_busy(path: Path) -> None:
    Journal.open(path).close()
    tool = sqlite3.connect(path, isolation_level=None)
    tool.execute("BEGIN")
    tool.execute("SELECT * FROM scan").fetchall()
    with pytest.raises(JournalBusy):
        Journal.open(path)
    tool.close()
    Journal.open(path).close()


def make_journal(path: Path, records: int = 300) -> None:
    with Journal.open(path) as journal:
        for item in range(records):
            journal.record(scan_of(item))
        accept(journal, records // 2)


def overwrite(content: bytes, place: int, with_what: bytes) -> bytes:
    return content[:place] + with_what + content[place + len(with_what) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"\0" * len(content),
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: overwrite(content, 4096 * 3, os.urandom(4096 * 4)),
        lambda content: overwrite(content, 0, b"not a database"),
        lambda content: content.replace(b"CREATE TABLE scan", b"CREATE\xa8TABLE scan"),
    ],
    ids=["zeros", "half", "header", "pages", "magic", "schema"],
)
def test_a_damaged_journal_is_set_aside_and_a_new_one_begun(path: Path, damage: Callable[[bytes], bytes]) -> None:
    make_journal(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(JournalDamaged, match="keep it") as caught:
        Journal.open(path)
    [aside] = path.parent.glob("journal.db.damaged-*[0-9]")
    assert str(aside) in caught.value.message
    assert aside.read_bytes() == damaged
    with Journal.open(path) as journal:
        assert journal.record(scan_of(1)).number == 1


def test_any_flipped_byte_opens_or_is_told_and_nothing_is_deleted(path: Path) -> None:
    make_journal(path)
    content = path.read_bytes()
    chance = random.Random(5)
    told: set[type[DeviceError]] = set()
    for place in [*range(0, 100, 3), *(chance.randrange(len(content)) for _ in range(150))]:
        path.write_bytes(overwrite(content, place, bytes([content[place] ^ 1 << chance.randrange(8)])))
        try:
            with Journal.open(path) as journal:
                journal.records(1, 1_000)
                journal.record(scan_of(1))
        except DeviceError as error:
            told.add(type(error))
            kept = [path] if path.exists() else list(path.parent.glob("*.damaged-*[0-9]"))
            assert kept[0].stat().st_size >= len(content) - 4096 * 2
        for aside in path.parent.glob("*.damaged-*"):
            aside.unlink()
    assert {JournalDamaged, JournalUnknown} <= told <= {JournalDamaged, JournalUnknown, JournalUnwritable}


def test_damage_found_while_recording_is_told(path: Path) -> None:
    make_journal(path, 1_000)
    with Journal.open(path) as journal:
        content = path.read_bytes()
        path.write_bytes(overwrite(content, 4096, os.urandom(len(content) - 4096)))
        journal._open.execute("PRAGMA shrink_memory")
        with pytest.raises(JournalDamaged):
            fill(journal)
        with pytest.raises(JournalUnwritable, match="closed"):
            journal.record(scan_of(1))
    assert list(path.parent.glob("*.damaged-*"))
    Journal.open(path).close()


def test_other_databases_and_newer_journals_are_left_as_they_are(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE customer (name)")
    other.close()
    content = path.read_bytes()
    with pytest.raises(JournalUnknown, match="no scan journal"):
        Journal.open(path)
    assert path.read_bytes() == content
    path.unlink()
    Journal.open(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 2")
    newer.close()
    with pytest.raises(JournalUnknown, match="version 2"):
        Journal.open(path)
    assert path.exists()


def test_a_journal_that_the_system_does_not_give_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file" / "journal.db", Path("/proc/none/journal.db")):
        with pytest.raises(JournalUnwritable):
            Journal.open(place)
    (tmp_path / "folder").mkdir()
    with pytest.raises(JournalUnwritable):
        Journal.open(tmp_path / "folder")


def test_making_a_journal_that_was_interrupted_is_taken_up_again(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    with Journal.open(path) as journal:
        assert journal.record(scan_of(1)).number == 1


# ---- kill -9

RECORDING = """
    import random, sys
    from pathlib import Path
    from offline_sdk.journal import Answer, Journal, Scan, Status

    chance = random.Random(int(sys.argv[2]))
    answered = sys.argv[3] == "answered"
    with Journal.open(Path(sys.argv[1]), 512 << 10 if answered else 1 << 27) as journal:
        while True:
            serial = f"{chance.randrange(10**14):014d}"
            number = journal.record(Scan("genuine", None, 1, 7, "06901234567892", serial)).number
            sys.stdout.write(f"{number} {serial}\\n")
            sys.stdout.flush()
            if answered and journal.waiting >= 100:
                waiting = journal.waiting_records(100)
                journal.keep_answers([Answer(record.number, Status.ACCEPTED) for record in waiting])
"""


def record_until_killed(path: Path, seed: int, lines: int, how: str) -> dict[int, str]:
    """Run a recording process, kill it at a random moment after so many lines, and return what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RECORDING), path, str(seed), how],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in range(lines)]
    time.sleep(random.Random(seed).uniform(0, 0.004))
    process.send_signal(signal.SIGKILL)
    printed += process.stdout.read().splitlines(keepends=True)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    whole = [line.split() for line in printed if line.endswith("\n")]
    return {int(number): serial for number, serial in whole}


@pytest.mark.parametrize(("how", "kills", "lines_max"), [("waiting", 15, 60), ("answered", 6, 900)])
def test_no_kill_loses_or_doubles_a_scan_that_was_shown(path: Path, how: str, kills: int, lines_max: int) -> None:
    chance = random.Random(kills)
    printed: dict[int, str] = {}
    for seed in range(kills):
        shown = record_until_killed(path, seed, chance.randrange(lines_max // 2, lines_max), how)
        assert not printed.keys() & shown.keys()  # no number twice
        printed |= shown
    with Journal.open(path) as journal:
        records = journal.records(1, 1_000_000)
        waiting = journal.waiting
    numbers = [record.number for record in records]
    evicted = numbers[0] - 1
    assert numbers == list(range(evicted + 1, numbers[-1] + 1))
    assert (evicted > 0) == (how == "answered")
    # What a process recorded and was killed before printing is in the journal too: one a kill at most.
    assert numbers[-1] - len(printed) <= kills
    kept = {record.number: record.scan.serial for record in records}
    assert {number: kept[number] for number in printed if number > evicted} == {
        number: serial for number, serial in printed.items() if number > evicted
    }
    assert [record.answer is None for record in records].count(True) == waiting
