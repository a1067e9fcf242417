import json
import os
import pty
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offline_sdk import audit as program
from offline_sdk.errors import LogMalformed
from offline_sdk.transparency import Frontier, Policy, SignedCheckpoint, decode_entries, encode_entries, leaf_hashes
from offline_sdk.transparency import export as export_module
from offline_sdk.transparency.export import Export
from offline_sdk.transparency.findings import Change, Finding, change_of
from offline_sdk.transparency.history import Audit, audit
from offline_sdk.transparency.tiles import TileId, partial_tiles
from tests.offline_sdk.transparency.log_maker import LOG, NOW, WITNESSES, Log, Signer, record, zipped

SIZE = 256 * 4 + 77
TREE = Log.of(SIZE)
KEYS = tuple(witness.key for witness in WITNESSES)
ROOT_FOLDER = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TREE.export(tmp_path_factory.mktemp("export"), WITNESSES[:2])


@pytest.fixture
def export(whole: Path, tmp_path: Path) -> Path:
    """An export that may be altered."""
    return Path(shutil.copytree(whole, tmp_path / "export"))


def look(path: Path, *since: SignedCheckpoint, policy: Policy | None = None) -> Audit:
    with Export(path) as opened:
        signed = SignedCheckpoint.read(opened.checkpoint() or b"")
        return audit(opened, signed, policy or Policy(LOG.key, KEYS, 2), since)


def only(path: Path, *since: SignedCheckpoint) -> Finding:
    found = look(path, *since).findings
    assert len(found) == 1, found
    return found[0]


def bundle(index: int, width: int = 256) -> TileId:
    return TileId(None, index, width)


LAST = bundle(4, 77)


def rewrite(export: Path, tile: TileId, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path = export / tile.path
    path.write_bytes(encode_entries(change(decode_entries(path.read_bytes()))))


def altered(at: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda entries: [*entries[:at], entries[at] + b" ", *entries[at + 1 :]]


def without(at: int, count: int = 1) -> Callable[[list[bytes]], list[bytes]]:
    return lambda entries: entries[:at] + entries[at + count :]


def put_in(at: int, count: int = 1) -> Callable[[list[bytes]], list[bytes]]:
    return lambda entries: entries[:at] + [b"new %d" % one for one in range(count)] + entries[at:]


def recompute(export: Path) -> None:
    """Make all tiles those of the entries, as somebody would who has the files but not the key."""
    entries = [
        one for tile in [*map(bundle, range(4)), LAST] for one in decode_entries((export / tile.path).read_bytes())
    ]
    grown = Frontier().append(leaf_hashes(entries))
    for tile, content in [*((one.id, one.hashes) for one in grown.tiles), *grown.frontier.partial]:
        (export / tile.path).write_bytes(content)


def test_a_whole_export_is_whole(whole: Path, tmp_path: Path) -> None:
    outcome = look(whole)
    assert (outcome.is_whole, outcome.entries, outcome.events) == (True, SIZE, SIZE)
    assert outcome.witnesses == tuple((key, NOW) for key in KEYS[:2])
    assert look(zipped(whole, tmp_path / "export.zip")).is_whole


def test_an_export_without_records_is_whole(tmp_path: Path) -> None:
    outcome = look(TREE.export(tmp_path, WITNESSES[:2], events=False))
    assert (outcome.is_whole, outcome.events) == (True, None)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512])
def test_exports_of_any_size_are_whole(tmp_path: Path, size: int) -> None:
    log = Log.of(size)
    olds = [log.signed(old) for old in {0, size // 2, size}]
    outcome = look(log.export(tmp_path), *olds, policy=Policy(LOG.key))
    assert (outcome.is_whole, outcome.entries) == (True, size)


def test_complete_files_stand_for_partial_ones(export: Path) -> None:
    """As the log may delete a partial tile once the complete one is there."""
    longer = Log.of(256 * 5)
    (export / LAST.path).unlink()
    (export / bundle(4).path).write_bytes(encode_entries(longer.entries[1024:]))
    for edge in partial_tiles(SIZE)[:1]:
        (export / edge.path).unlink()
        (export / TileId(edge.level, edge.index).path).write_bytes(longer.tiles[0, 4])
    assert look(export).is_whole


@pytest.mark.parametrize("index", [0, 1, 255, 256, 700, 1023, 1024, SIZE - 1])
def test_an_altered_entry_is_named(export: Path, index: int) -> None:
    tile = bundle(index // 256) if index < 1024 else LAST
    rewrite(export, tile, altered(index % 256))
    finding = look(export).findings[0]
    offset = len(encode_entries(TREE.entries[tile.start : index])) if index > tile.start else 0
    assert (finding.change, finding.index, finding.index_max, finding.count) == (Change.ENTRY_ALTERED, index, index, 1)
    assert (finding.file, finding.offset) == (tile.path, offset)


def test_of_many_altered_entries_the_first_is_named(export: Path) -> None:
    for index in (900, 300, 301, 302, 303, 304, 305):
        rewrite(export, bundle(index // 256), altered(index % 256))
    assert (only(export).change, only(export).index) == (Change.ENTRY_ALTERED, 300)


@pytest.mark.parametrize(("index", "count"), [(0, 1), (0, 9), (300, 2), (511, 1), (511, 9), (1030, 2)])
def test_a_removed_entry_is_told_from_one_put_in(export: Path, index: int, count: int) -> None:
    tile = bundle(index // 256) if index < 1024 else LAST
    if index % 256 + count <= 256:
        rewrite(export, tile, without(index % 256, count))
        finding = only(export)
        assert (finding.change, finding.index, finding.count) == (Change.ENTRY_REMOVED, index, count)
    entries = put_in(index % 256, count)(TREE.entries[tile.start : tile.start + tile.width])
    # A bundle that has too many entries for one.
    (export / tile.path).write_bytes(encode_entries(entries[:40]) + encode_entries(entries[40:]))
    finding = only(export)
    assert (finding.change, finding.index, finding.count) == (Change.ENTRY_INSERTED, index, count)


def test_a_history_that_closed_up_behind_a_removed_entry_is_told(tmp_path: Path) -> None:
    shorter = Log()
    shorter.append(TREE.records[:400] + TREE.records[402:] + [b"a", b"b"])
    shorter.export(tmp_path)
    (tmp_path / "checkpoint").write_bytes(bytes(TREE.signed(witnesses=WITNESSES[:2])))
    for (level, index), content in TREE.tiles.items():
        (tmp_path / TileId(level, index, len(content) // 32).path).write_bytes(content)
    finding = look(tmp_path).findings[0]
    assert (finding.change, finding.index, finding.count) == (Change.ENTRY_REMOVED, 400, 2)


def test_a_missing_bundle_is_named(export: Path) -> None:
    (export / bundle(1).path).unlink()
    (export / bundle(2).path).unlink()
    finding = look(export).findings[0]
    assert (finding.change, finding.index, finding.count, finding.file) == (
        Change.ENTRY_REMOVED, 256, 512, bundle(1).path,
    )  # fmt: skip


@pytest.mark.parametrize("left", [0, 1, 2, 36, 37, 38])
def test_a_bundle_that_is_cut_off_is_named(export: Path, left: int) -> None:
    path = export / bundle(2).path
    path.write_bytes(path.read_bytes()[:left])
    finding = look(export).findings[0]
    assert (finding.index, finding.file) == (512 + left // 37, bundle(2).path)
    assert finding.change in (Change.ENTRY_ALTERED, Change.ENTRY_REMOVED)


def test_an_altered_tile_alone_is_told_from_an_altered_entry(export: Path) -> None:
    for tile in (TileId(0, 2), TileId(1, 0, 4), TileId(0, 4, 77)):
        right = (export / tile.path).read_bytes()
        (export / tile.path).write_bytes(right[:64] + bytes(32) + right[96:])
        finding = only(export)
        start = tile.start + (2 << 8 * (tile.level or 0))
        assert (finding.change, finding.index, finding.file) == (Change.TILE_ALTERED, start, tile.path)
        assert finding.offset == 64
        (export / tile.path).write_bytes(right[:-1])
        assert only(export).change is Change.TILE_ALTERED
        (export / tile.path).unlink()
        assert (only(export).change, only(export).file) == (Change.TILE_MISSING, tile.path)
        (export / tile.path).write_bytes(right)


def test_an_entry_altered_with_its_tile_is_found_in_its_tile(export: Path) -> None:
    rewrite(export, bundle(2), altered(99))
    tile = export / TileId(0, 2).path
    tile.write_bytes(b"".join(leaf_hashes(decode_entries((export / bundle(2).path).read_bytes()))))
    finding, record_finding = look(export).findings
    assert (finding.change, finding.index, finding.index_max) == (Change.ENTRY_IN_RANGE, 512, 767)
    # The records are not vouched for, but they tell where to look.
    assert (record_finding.change, record_finding.index) == (Change.EVENT_ALTERED, 512 + 99)


def test_an_entry_altered_in_the_last_tile_with_it_is_found_by_the_other_tiles(export: Path) -> None:
    rewrite(export, LAST, altered(3))
    recompute(export)
    assert look(export).findings[0].change is Change.ENTRY_IN_RANGE


def test_an_entry_altered_with_all_tiles_is_seen_and_older_checkpoints_narrow_it(export: Path) -> None:
    rewrite(export, bundle(1), altered(44))
    recompute(export)
    finding = look(export).findings[0]
    assert (finding.change, finding.index, finding.index_max) == (Change.ENTRY_IN_RANGE, 0, SIZE - 1)
    olds = [TREE.signed(size) for size in (1000, 200, 290, 310)]
    finding = look(export, *olds).findings[0]
    assert (finding.change, finding.index, finding.index_max) == (Change.ENTRY_IN_RANGE, 290, 309)


def test_records_that_are_not_the_entries_are_named(export: Path) -> None:
    path = export / "events.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    cases = {
        "altered": ([*lines[:700], b"x\n", *lines[701:]], Change.EVENT_ALTERED, 700, 1),
        "removed": (lines[:254] + lines[257:], Change.EVENT_REMOVED, 254, 3),
        "put in": ([*lines[:255], b"x\n", b"y\n", *lines[255:]], Change.EVENT_INSERTED, 255, 2),
        "first removed": (lines[1:], Change.EVENT_REMOVED, 0, 1),
        "last altered": ([*lines[:-1], b"x\n"], Change.EVENT_ALTERED, SIZE - 1, 1),
        "last removed": (lines[:-1], Change.EVENT_REMOVED, SIZE - 1, None),
        "put in at the end": ([*lines, b"x\n"], Change.EVENT_INSERTED, SIZE, None),
        "half removed": (lines[:500], Change.EVENT_REMOVED, 500, None),
        "empty": ([], Change.EVENT_REMOVED, 0, None),
        "a digest": ([b"sha-256:00\n", *lines[1:]], Change.EVENT_ALTERED, 0, 1),
    }
    for content, change, index, count in cases.values():
        path.write_bytes(b"".join(content))
        outcome = look(export)
        assert outcome.events == len(content)
        (finding,) = outcome.findings
        assert (finding.change, finding.index, finding.count) == (change, index, count)
        assert finding.offset == (len(b"".join(content[:index])) if index < len(content) else None)
    path.write_bytes(b"".join(lines)[:-1])
    assert look(export).is_whole


def test_a_record_longer_than_an_entry_is_compared_by_its_digest(tmp_path: Path) -> None:
    log = Log()
    log.append([record(0), b'{"photo":"' + b"x" * 70_000 + b'"}', record(2)])
    log.export(tmp_path)
    policy = Policy(LOG.key)
    assert look(tmp_path, policy=policy).is_whole
    path = tmp_path / "events.ndjson"
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"xxxy", 1))
    (finding,) = look(tmp_path, policy=policy).findings
    assert (finding.change, finding.index) == (Change.EVENT_ALTERED, 1)


@pytest.mark.parametrize("left", [-1, 0, 1])
def test_a_record_that_is_too_long_is_read_past(tmp_path: Path, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.append([record(0), b"r" * (100 + left), record(2)])
    log.export(tmp_path)
    monkeypatch.setattr(export_module, "RECORD_BYTES_MAX", 100)
    outcome = look(tmp_path, policy=Policy(LOG.key))
    assert outcome.events == 3
    assert [(one.change, one.index) for one in outcome.findings] == [(Change.EVENT_ALTERED, 1)] * (left > 0)


def test_an_entry_and_its_record_altered_alike_are_found(export: Path) -> None:
    rewrite(export, bundle(0), altered(9))
    path = export / "events.ndjson"
    path.write_bytes(path.read_bytes().replace(record(9), record(9) + b" ", 1))
    assert [(one.change, one.index) for one in look(export).findings] == [(Change.ENTRY_ALTERED, 9)]


def test_a_checkpoint_of_somebody_else_ends_the_audit(whole: Path) -> None:
    other = Signer(LOG.name + "/2", LOG.type)
    outcome = look(whole, policy=Policy(other.key))
    assert [one.change for one in outcome.findings] == [Change.CHECKPOINT_UNTRUSTED]


def test_too_few_witnesses_are_a_finding(whole: Path) -> None:
    outcome = look(whole, policy=Policy(LOG.key, KEYS, 3))
    assert [one.change for one in outcome.findings] == [Change.WITNESSES_MISSED]
    assert len(outcome.witnesses) == 2


def test_older_checkpoints_are_continued(whole: Path) -> None:
    assert look(whole, *(TREE.signed(size) for size in (0, 1, 256, 300, SIZE))).is_whole


def test_a_history_that_the_log_itself_rewrote_is_seen(export: Path) -> None:
    other = Log.of(600)
    other.records[5] = b"x"
    old = LOG.signed(other.checkpoint(500))
    finding = only(export, old, TREE.signed(900))
    assert (finding.change, finding.index, finding.index_max) == (Change.HISTORY_REWRITTEN, 0, 499)


def test_a_log_that_rewrote_its_history_is_told_beside_an_altered_entry(export: Path) -> None:
    other = Log.of(600)
    other.records[5] = b"x"
    old = LOG.signed(other.checkpoint(500))
    rewrite(export, bundle(3), altered(0))
    found = look(export, old).findings
    assert [(one.change, one.index) for one in found] == [(Change.ENTRY_ALTERED, 768), (Change.HISTORY_REWRITTEN, 0)]
    recompute(export)
    finding = look(export, old, TREE.signed(700)).findings[0]
    assert (finding.change, finding.index, finding.index_max) == (Change.ENTRY_IN_RANGE, 0, SIZE - 1)


def test_an_older_checkpoint_within_a_bundle_that_is_cut_off_says_nothing(export: Path) -> None:
    path = export / bundle(2).path
    path.write_bytes(path.read_bytes()[:1_000])
    found = look(export, TREE.signed(520), TREE.signed(500)).findings
    assert [(one.change, one.index) for one in found] == [(Change.ENTRY_ALTERED, 512 + 1_000 // 37)]


def test_a_history_that_the_log_shortened_is_seen(tmp_path: Path) -> None:
    shorter = Log.of(300).export(tmp_path, WITNESSES[:2])
    finding = only(shorter, TREE.signed())
    assert (finding.change, finding.index, finding.count) == (Change.HISTORY_SHORTENED, 300, SIZE - 300)


def test_an_older_checkpoint_of_somebody_else_is_no_yardstick(whole: Path) -> None:
    stranger = Signer("stranger", LOG.type).signed(TREE.checkpoint(10))
    assert [one.change for one in look(whole, stranger).findings] == [Change.CHECKPOINT_UNTRUSTED]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_changed_byte_is_found(whole: Path, data: st.DataObject) -> None:
    files = sorted(path for path in whole.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    right = path.read_bytes()
    at = data.draw(st.integers(0, len(right) - 1))
    more = data.draw(st.binary(max_size=2))
    changed = right[:at] + more + right[at + data.draw(st.integers(0, 2)) :]
    path.write_bytes(changed)
    try:
        outcome = look(whole)
    except LogMalformed:
        assert path.name == "checkpoint"
        return
    finally:
        path.write_bytes(right)
    unread = path.name == "events.ndjson" and changed.removesuffix(b"\n") == right.removesuffix(b"\n")
    assert outcome.is_whole == (changed == right or unread)
    if not outcome.is_whole and "entries" in str(path):
        first = next(one for one in outcome.findings if one.change.value.startswith("entry"))
        tile = TileId.of_path(str(path.relative_to(whole)))
        assert first.index is not None
        assert tile.start <= first.index <= tile.start + tile.width


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_how_two_rows_differ_is_always_told(found: list[int], wanted: list[int]) -> None:
    kind, count = change_of([b"%d" % one for one in found], [b"%d" % one for one in wanted])
    assert kind in ("altered", "removed", "inserted")
    assert count is None or count > 0 or not found or not wanted


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "offline_sdk.audit", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT_FOLDER)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_program_says_whole_and_altered(export: Path, tmp_path: Path) -> None:
    (tmp_path / "log.key").write_text(f"{LOG.key}\n")
    (tmp_path / "old").write_bytes(bytes(TREE.signed(500)))
    keys = ["--key", "log.key", "--witness", str(KEYS[0]), "--witness", str(KEYS[1]), "--since", "old"]
    done = run(export, *keys, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    root = TREE.checkpoint().root.hex()
    assert done.stdout.splitlines() == [
        f"WHOLE: 1,101 entries of log.example.cn/fanxing, 1,101 records, root {root}",
        "cosigned by witness.example/w1 at 2026-09-21T14:13:20Z, witness.example/w2 at 2026-09-21T14:13:20Z",
    ]
    rewrite(export, bundle(0), altered(9))
    done = run(export, *keys, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith(
        "ENTRY_ALTERED: leaf 9 was altered: tile/entries/000 at byte 315 is not what was signed\n"
    )


def test_the_program_prints_json(export: Path, tmp_path: Path) -> None:
    rewrite(export, bundle(0), altered(9))
    done = run(zipped(export, tmp_path / "export.zip"), "--key", str(LOG.key), "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert list(told) == ["whole", "origin", "size", "root", "witnesses", "entries", "events", "erased", "findings"]
    assert told["findings"] == [
        {
            "change": "entry_altered",
            "index": 9,
            "index_max": 9,
            "count": 1,
            "file": "tile/entries/000",
            "offset": 315,
            "message": "leaf 9 was altered: tile/entries/000 at byte 315 is not what was signed",
        }
    ]
    assert json.loads(done.stderr.splitlines()[-1])["done"] == SIZE


def test_the_program_shows_a_bar_on_a_terminal(whole: Path, tmp_path: Path) -> None:
    outer, inner = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "offline_sdk.audit", str(whole), "--key", str(LOG.key)],
        env=os.environ | {"PYTHONPATH": str(ROOT_FOLDER)},
        stdout=subprocess.DEVNULL,
        stderr=inner,
        timeout=60,
        check=True,
    )
    os.close(inner)
    shown = os.read(outer, 65_536).decode()
    os.close(outer)
    assert "1,101/1,101 entries" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere", "--key", str(LOG.key)],
        ["junk", "--key", str(LOG.key)],
        ["empty", "--key", str(LOG.key)],
        ["no-checkpoint", "--key", str(LOG.key)],
        ["no-checkpoint", "--key", "nowhere"],
        ["no-checkpoint", "--key", "a+b"],
        ["no-checkpoint", "--key", str(KEYS[0])],
        ["no-checkpoint", "--key", str(LOG.key), "--witness", str(LOG.key)],
        ["no-checkpoint", "--key", str(LOG.key), "--threshold", "1"],
        ["no-checkpoint", "--key", str(LOG.key), "--since", "junk"],
        ["no-checkpoint"],
    ],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_what_cannot_be_audited_ends_with_2(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "no-checkpoint").mkdir()
    try:
        status: object = program.main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert capsys.readouterr().err


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_zip_is_refused_by_name_or_audited(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    path = folder / "export.zip"
    if not folder.exists():
        Log.of(20).export(folder / "export")
        zipped(folder / "export", folder / "whole.zip")
    right = (folder / "whole.zip").read_bytes()
    at = data.draw(st.integers(0, len(right) - 1))
    path.write_bytes(right[:at] + data.draw(st.binary(max_size=4)) + right[at + data.draw(st.integers(0, 4)) :])
    assert program.main([str(path), "--key", str(LOG.key), "--json"]) in (0, 1, 2)


def test_memory_stays_the_same_whatever_the_size(tmp_path: Path) -> None:
    peaks = []
    for size in (1_024, 5_120):
        path = Log.of(size).export(tmp_path / str(size))
        tracemalloc.start()
        assert look(path, policy=Policy(LOG.key)).is_whole
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
