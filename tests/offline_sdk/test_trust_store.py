import json
import os
import resource
import signal
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from offline_sdk import Action, Policy, TrustStore, VerifyError
from offline_sdk.bundle import TIME_MAX
from offline_sdk.errors import BundleFrozen, BundleMismatch, ForeignRoot, TrustMalformed, TrustMissing
from tests.offline_sdk.trust_domain import DAY, ISSUED, delta_document, history, published, root, root_document

ROOT = root()
PIN = ROOT.fingerprint
FIRST = root_document(ROOT)
BUNDLES = history(5)
NOW_S = ISSUED + DAY


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


NOW = at(NOW_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "trust"


@pytest.fixture
def store(folder: Path) -> TrustStore:
    store = TrustStore(folder, PIN).open()
    store.update(FIRST + BUNDLES[0].document, NOW)
    return store


def memory(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "memory.json").read_text())
    return content


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_empty_store_opens_and_holds_nothing(folder: Path) -> None:
    store = TrustStore(folder, PIN).open()
    for ask in (lambda: store.root, lambda: store.bundle, store.verifier):
        with pytest.raises(TrustMissing):
            ask()
    with pytest.raises(ForeignRoot):
        store.update(BUNDLES[0].document, NOW)
    assert store.floor == 0


def test_update_is_held_after_a_restart(store: TrustStore, folder: Path) -> None:
    again = TrustStore(folder, PIN).open()
    assert (again.root, again.bundle, again.floor) == (ROOT, BUNDLES[0].bundle, NOW_S)


def test_update_tells_what_changed(store: TrustStore) -> None:
    update = store.update(root_document(root(2)) + BUNDLES[1].document, NOW)
    assert (update.old_seq, update.new_seq, update.old_root_version, update.root_version) == (1, 2, 1, 2)
    assert update.changed
    assert not store.update(BUNDLES[1].document, NOW).changed


def test_chain_of_deltas_is_kept_as_a_whole_bundle(store: TrustStore, folder: Path) -> None:
    store.update(b"".join(delta_document(*pair) for pair in pairwise(BUNDLES[:4])), NOW)
    assert (folder / "trust.cbor").read_bytes() == FIRST + BUNDLES[3].document
    assert TrustStore(folder, PIN).open().bundle == BUNDLES[3].bundle


def test_delta_with_no_bundle_held(folder: Path) -> None:
    with pytest.raises(BundleMismatch, match="whole bundle"):
        TrustStore(folder, PIN).open().update(FIRST + delta_document(BUNDLES[0], BUNDLES[1]), NOW)


def test_a_seq_may_be_left_out(store: TrustStore) -> None:
    assert store.update(BUNDLES[4].document, NOW).new_seq == 5


def test_bundle_of_a_publisher_that_left_is_dropped_and_its_seq_is_not(store: TrustStore, folder: Path) -> None:
    store.update(BUNDLES[2].document, NOW)
    assert store.update(root_document(root(2, publishers="q r")), NOW).new_seq == 0
    for one in (store, TrustStore(folder, PIN).open()):
        with pytest.raises(TrustMissing):
            _ = one.bundle
    # The same content under a publisher that stayed, and what follows upon it.
    again = published(BUNDLES[1].bundle, by="q")
    assert again.bundle == BUNDLES[2].bundle
    assert store.update(again.document, NOW).new_seq == 3
    assert store.update(published(again.bundle, by="r").document, NOW).new_seq == 4


def test_files_are_the_users_own(store: TrustStore, folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_same_bundle_again_writes_nothing(store: TrustStore, folder: Path) -> None:
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    store.update(FIRST + BUNDLES[0].document, at(NOW_S + 59))
    assert {path: path.stat().st_ino for path in folder.iterdir()} == before


@pytest.mark.parametrize(("later", "kept"), [(59, 0), (60, 60), (61, 61), (-1, 0)])
def test_time_is_written_down_each_minute(later: int, kept: int, store: TrustStore, folder: Path) -> None:
    store.remember(at(NOW_S + later))
    assert memory(folder)["seen"] == NOW_S + kept
    assert store.floor == max(NOW_S, NOW_S + later)


def test_clock_that_once_stood_in_the_future_is_corrected(store: TrustStore, folder: Path) -> None:
    store.remember(at(NOW_S + 300 * DAY))
    with pytest.raises(BundleFrozen):
        store.update(BUNDLES[1].document, NOW)
    store.correct_clock(NOW)
    assert (store.floor, memory(folder)["seen"]) == (NOW_S, NOW_S)
    assert store.update(BUNDLES[1].document, NOW).new_seq == 2
    store.correct_clock(at(0))
    assert store.floor == BUNDLES[1].bundle.issued


def test_verifier_knows_the_floor_and_the_roots_expiry(folder: Path) -> None:
    short = root(expires=ISSUED + 2 * DAY)
    store = TrustStore(folder, short.fingerprint).open()
    store.update(root_document(short) + BUNDLES[0].document, NOW)
    asked = store.verifier(Policy(on_clock_suspect=Action.ASK), at(NOW_S - 301)).check("x")
    assert asked.clock_suspect
    assert store.verifier(now=at(ISSUED + 2 * DAY - 1)).bundle_state() == "fresh"
    assert store.verifier(now=at(ISSUED + 2 * DAY)).bundle_state() == "expired"


def test_last_hour_of_the_calendar_anywhere_is_a_time(store: TrustStore, folder: Path) -> None:
    store.remember(datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-12))))
    assert memory(folder)["seen"] == TIME_MAX
    store.correct_clock(NOW)
    assert TrustStore(folder, PIN).open().floor == NOW_S


def test_file_that_the_disk_has_no_room_for_leaves_nothing_behind(store: TrustStore, folder: Path) -> None:
    before, file_bytes_max = files(folder), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(FIRST), file_bytes_max[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            store.update(BUNDLES[1].document, NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, file_bytes_max)
    assert files(folder) == before
    assert store.bundle == BUNDLES[0].bundle
    assert store.update(BUNDLES[1].document, NOW).new_seq == 2


def test_naive_time_is_a_mistake_of_the_caller(store: TrustStore) -> None:
    naive = NOW.replace(tzinfo=None)
    for use in (store.remember, store.correct_clock, lambda now: store.update(FIRST, now)):
        with pytest.raises(ValueError, match="naive"):
            use(naive)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"7", b"null", b'{"format": "fanxing-memory-1"}', b"\xff", b'"x"', b"{" * 5000],
    ids=range(8),
)
def test_damaged_memory_does_not_open(content: bytes, store: TrustStore, folder: Path) -> None:
    (folder / "memory.json").write_bytes(content)
    with pytest.raises(TrustMalformed, match="memory"):
        TrustStore(folder, PIN).open()


@pytest.mark.parametrize(
    "change", [{"seen": -1}, {"seen": True}, {"seq": "1"}, {"root": "x"}, {"bundle": ""}, {"more": 1}], ids=str
)
def test_memory_with_a_bad_field_does_not_open(change: dict[str, Any], store: TrustStore, folder: Path) -> None:
    (folder / "memory.json").write_text(json.dumps(memory(folder) | change))
    with pytest.raises(TrustMalformed, match="memory"):
        TrustStore(folder, PIN).open()


def test_cache_without_memory_does_not_open(store: TrustStore, folder: Path) -> None:
    (folder / "memory.json").unlink()
    with pytest.raises(TrustMalformed, match="gone"):
        TrustStore(folder, PIN).open()


class Killed(BaseException):
    """Stands for the end of the process at this call."""


def killing(patch: pytest.MonkeyPatch, call: int, *, before: bool) -> None:
    """Let the process end at the n-th of the calls that put something on the disk, before or after its effect."""
    calls = iter(range(1_000))

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            mine = next(calls) == call
            if mine and before:
                raise Killed
            result = real(*arguments, **named)
            if mine:
                raise Killed
            return result

        return step

    patch.setattr(os, "fsync", wrapped(os.fsync))
    patch.setattr(Path, "replace", wrapped(Path.replace))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("call", range(6))
def test_kill_at_every_step_of_an_update_leaves_the_old_or_the_new(
    call: int, before: bool, store: TrustStore, folder: Path
) -> None:
    second = root(2, publishers="r")  # the hardest one: all publishers change, and the seq starts again
    news = root_document(second) + published(by="r").document
    store.update(BUNDLES[3].document, NOW)
    with pytest.MonkeyPatch.context() as patch:
        killing(patch, call, before=before)
        with pytest.raises(Killed):
            store.update(news, at(NOW_S + 100))
    again = TrustStore(folder, PIN).open()
    assert (again.root.version, again.bundle.seq) in {(1, 4), (2, 1)}
    held = (folder / "trust.cbor").read_bytes()
    assert memory(folder)["seq"] == again.bundle.seq
    # Neither locked out…
    again.update(FIRST + news, NOW)
    # …nor open to what was held before.
    (folder / "trust.cbor").write_bytes(FIRST + BUNDLES[3].document)
    with pytest.raises(VerifyError):
        TrustStore(folder, PIN).open()
    assert held


def test_kill_at_every_step_of_the_first_start(folder: Path) -> None:
    for call in range(3):
        for before in (True, False):
            here = folder / f"{call} {before}"
            with pytest.MonkeyPatch.context() as patch:
                killing(patch, call, before=before)
                with pytest.raises(Killed):
                    TrustStore(here, PIN).open()
            assert TrustStore(here, PIN).open().update(FIRST + BUNDLES[0].document, NOW).new_seq == 1


def test_killed_process_never_loses_what_it_told(folder: Path) -> None:
    bundles = history(400)
    TrustStore(folder, PIN).open().update(FIRST + bundles[0].document, NOW)
    told = 1
    for round_ in range(12):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                store = TrustStore(folder, PIN).open()
                for one in bundles[store.bundle.seq :]:
                    os.write(writer, b"%d\n" % store.update(one.document, NOW).new_seq)
            finally:
                os._exit(0)
        os.close(writer)
        time.sleep(0.01 + 0.007 * round_)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            lines = pipe.read().splitlines()
        told = max([told, *map(int, lines)])
        held = TrustStore(folder, PIN).open().bundle.seq
        assert told <= held <= told + 1  # the last one may be kept and not told
        told = held
    assert told > 1


def test_processes_share_a_store_by_its_lock(store: TrustStore, folder: Path) -> None:
    def take(number: int) -> str:
        try:
            TrustStore(folder, PIN).open().update(BUNDLES[number].document, NOW)
        except VerifyError as error:
            return error.code
        return "taken"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(take, [1, 2, 3, 4] * 3))
    assert set(outcomes) <= {"taken", "BundleRollback"}
    assert TrustStore(folder, PIN).open().bundle.seq == 5


def test_another_process_update_is_the_base_of_the_next(store: TrustStore, folder: Path) -> None:
    other = TrustStore(folder, PIN).open()
    other.update(BUNDLES[1].document, NOW)
    update = store.update(delta_document(BUNDLES[1], BUNDLES[2]), NOW)
    assert (update.old_seq, update.new_seq) == (2, 3)
