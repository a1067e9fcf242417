"""Every attack of the trust bundle's threat model, built with real keys and documents, and what it leaves behind."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from offline_sdk import TrustStore, VerifyError, cose
from offline_sdk.errors import ThresholdMissed, TrustMalformed, TrustTruncated
from tests.offline_sdk.trust_domain import (
    DAY,
    ISSUED,
    delta_document,
    history,
    published,
    root,
    root_document,
    sealed,
    signer,
)

ROOT = root()
PIN = ROOT.fingerprint
FIRST = root_document(ROOT)
BUNDLES = history(6)
HELD = BUNDLES[2]
NOW = datetime.fromtimestamp(ISSUED + DAY, UTC)
LATE = datetime.fromtimestamp(ISSUED + 30 * DAY, UTC)
SECOND = root(2)
STRANGER = root(keys="x y z", domain="demo.example")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    """A device that holds root version 1 and bundle 3."""
    store = TrustStore(tmp_path / "trust", PIN).open()
    store.update(FIRST + HELD.document, NOW)
    return store


def refused(store: TrustStore, content: bytes, now: datetime = NOW) -> str:
    """The code of the refusal; whatever it is, the store is what it was, in memory and on the disk."""
    before = contents(store._folder)
    bundle = store.bundle
    with pytest.raises(VerifyError) as caught:
        store.update(content, now)
    assert contents(store._folder) == before
    assert store.bundle == bundle
    again = TrustStore(store._folder, PIN).open()
    assert (again.root, again.bundle) == (store.root, bundle)
    assert contents(store._folder) == before
    return caught.value.code


def replayed() -> bytes:
    """Root version 2 under the signatures of version 1."""
    (first,) = cose.read(FIRST)
    by_kid = {signer(name).kid: signer(name) for name in "abc"}
    return cose.seal(first.type, SECOND.payload(), {by_kid[head[-8:]]: bits for head, bits in first.signatures})


def signed_twice() -> bytes:
    """Root version 2 with one key's signature twice, in the form that an honest file of two signatures has."""
    once = root_document(SECOND, by="a")
    (envelope,) = cose.read(once)
    ((header, _bits),) = envelope.signatures
    at = once.index(header) - 2  # an array of 3 and the head of a short byte string come before it
    assert once[at - 1 : at + 1] == b"\x81\x83"
    return once[: at - 1] + b"\x82" + once[at:] * 2


ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "rollback to an older bundle": ("BundleRollback", lambda: FIRST + BUNDLES[1].document),
    "rollback by a delta of old": ("BundleMismatch", lambda: delta_document(BUNDLES[0], BUNDLES[1])),
    "rollback by an old bundle and a delta": (
        "BundleRollback", lambda: BUNDLES[0].document + delta_document(BUNDLES[0], BUNDLES[1]),
    ),
    "other content under the held seq": (
        "BundleMismatch", lambda: published(BUNDLES[1].bundle, expires=ISSUED + 29 * DAY).document,
    ),
    "next bundle of another history": (
        "BundleMismatch", lambda: published(BUNDLES[2].bundle, prev=bytes(32)).document,
    ),
    "delta of another base": ("BundleMismatch", lambda: delta_document(BUNDLES[3], BUNDLES[4])),
    "mixed: own bundle and a delta of another base": (
        "BundleMismatch", lambda: BUNDLES[3].document + delta_document(BUNDLES[4], BUNDLES[5]),
    ),
    "bundle of another domain": (
        "BundleMismatch", lambda: FIRST + published(BUNDLES[2].bundle, domain="other.example").document,
    ),
    "bundle by a stranger": ("BundleUntrusted", lambda: published(BUNDLES[2].bundle, by="x").document),
    "bundle by a root key": ("BundleUntrusted", lambda: published(BUNDLES[2].bundle, by="a").document),
    "delta by a stranger": ("BundleUntrusted", lambda: delta_document(BUNDLES[2], BUNDLES[3], by="x")),
    "publisher removed, and it publishes": (
        "BundleUntrusted",
        lambda: FIRST + root_document(root(2, publishers="q")) + published(BUNDLES[2].bundle, by="p").document,
    ),
    "foreign root": ("ForeignRoot", lambda: root_document(STRANGER, "x y") + BUNDLES[3].document),
    "foreign next root": ("ForeignRoot", lambda: FIRST + root_document(root(2, keys="x y z"), "x y")),
    "root version left out": ("ForeignRoot", lambda: FIRST + root_document(root(3))),
    "next root by too few of the keys before": (
        "ThresholdMissed", lambda: FIRST + root_document(root(2, keys="x y z"), "a x y"),
    ),
    "next root by too few of its own keys": (
        "ThresholdMissed", lambda: FIRST + root_document(root(2, keys="x y z"), "a b x"),
    ),
    "signatures of an older root replayed": ("ForeignRoot", lambda: FIRST + replayed()),
    "one root key signs twice": ("TrustMalformed", lambda: FIRST + signed_twice()),
    "root of another domain by the right keys": (
        "BundleMismatch", lambda: FIRST + root_document(root(2, domain="other.example")),
    ),
    "root with a stranger's signature": ("TrustMalformed", lambda: FIRST + root_document(SECOND, "a b x")),
    "signed root with a malformed payload": (
        "TrustMalformed", lambda: FIRST + sealed(cose.DocumentType.ROOT, b"\xa0", ["a", "b"]),
    ),
    "expired root": ("RootExpired", lambda: FIRST + root_document(root(2, expires=ISSUED + DAY)) + BUNDLES[3].document),
    "bundle before root": ("TrustMalformed", lambda: BUNDLES[3].document + FIRST),
    "two bundles": ("TrustMalformed", lambda: FIRST + BUNDLES[3].document + BUNDLES[4].document),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ATTACKS))
def test_attack_is_refused_and_changes_nothing(name: str, store: TrustStore) -> None:
    code, attack = ATTACKS[name]
    assert refused(store, attack()) == code


def test_a_key_that_signs_twice_is_seen_in_the_envelope() -> None:
    with pytest.raises(TrustMalformed, match="not ascending"):
        cose.read(signed_twice())


def test_honest_forms_of_the_attacked_files_are_taken(store: TrustStore) -> None:
    # Else a refusal above might be for a reason of its own.
    store.update(delta_document(BUNDLES[2], BUNDLES[3]), NOW)
    store.update(FIRST + root_document(SECOND), NOW)
    third = root_document(root(3, keys="x y z"), "a b x y")
    update = store.update(BUNDLES[3].document + delta_document(BUNDLES[3], BUNDLES[4]), NOW)
    assert (update.old_seq, update.new_seq, store.root.version) == (4, 5, 2)
    store.update(FIRST + root_document(SECOND) + third + BUNDLES[5].document, NOW)
    assert (store.root.version, store.bundle.seq) == (3, 6)


def test_freeze_an_expired_bundle_is_refused_as_news(store: TrustStore) -> None:
    assert refused(store, BUNDLES[3].document, LATE) == "BundleFrozen"
    assert refused(store, HELD.document, LATE) == "BundleFrozen"
    just_before = datetime.fromtimestamp(ISSUED + 30 * DAY - 1, UTC)
    assert store.update(BUNDLES[3].document, just_before).new_seq == 4


def test_freeze_a_clock_set_back_does_not_help(store: TrustStore) -> None:
    store.remember(LATE)
    assert refused(store, BUNDLES[3].document, NOW) == "BundleFrozen"


def test_expired_root_at_its_second_and_the_one_before(store: TrustStore) -> None:
    lasting = published(HELD.bundle, expires=ISSUED + 500 * DAY).document
    assert refused(store, lasting, datetime.fromtimestamp(ISSUED + 365 * DAY, UTC)) == "RootExpired"
    assert store.update(lasting, datetime.fromtimestamp(ISSUED + 365 * DAY - 1, UTC)).new_seq == 4


def test_truncated_at_every_byte(store: TrustStore) -> None:
    content = FIRST + root_document(SECOND) + BUNDLES[3].document
    whole = {0, len(FIRST), len(FIRST + root_document(SECOND))}
    for length in set(range(len(content))) - (whole - {0}):
        with pytest.raises(TrustTruncated):
            cose.read(content[:length])
    # What ends between two documents is a whole file with less news; it takes nothing back.
    for length in (1, len(FIRST) - 1, len(FIRST) + 1, len(content) - 65, len(content) - 1, 0):
        assert refused(store, content[:length]) == "TrustTruncated"
    for length in sorted(whole - {0}):
        store.update(content[:length], NOW)
        assert store.bundle == HELD.bundle


def test_cache_truncated_at_every_byte_never_opens_as_something_else(store: TrustStore) -> None:
    cache = store._folder / "trust.cbor"
    content = cache.read_bytes()
    for length in range(len(content)):
        cache.write_bytes(content[:length])
        if length == len(FIRST):
            assert TrustStore(store._folder, PIN).open()._trust.bundle is None
        else:
            with pytest.raises(TrustTruncated):
                TrustStore(store._folder, PIN).open()


def test_older_cache_put_back_is_a_rollback(store: TrustStore, tmp_path: Path) -> None:
    shutil.copytree(store._folder, tmp_path / "old")
    store.update(FIRST + root_document(SECOND) + BUNDLES[3].document, NOW)
    for content in (FIRST + HELD.document, FIRST + root_document(SECOND) + HELD.document, FIRST):
        (store._folder / "trust.cbor").write_bytes(content)
        with pytest.raises(VerifyError) as caught:
            TrustStore(store._folder, PIN).open()
        assert caught.value.code == "BundleRollback"


def test_cache_of_a_stranger_is_refused_and_repaired_by_a_whole_file(store: TrustStore) -> None:
    (store._folder / "trust.cbor").write_bytes(root_document(STRANGER, "x y") + BUNDLES[3].document)
    damaged = TrustStore(store._folder, PIN)
    with pytest.raises(VerifyError) as caught:
        damaged.open()
    assert caught.value.code == "ForeignRoot"
    with pytest.raises(VerifyError) as caught:
        damaged.update(FIRST + BUNDLES[1].document, NOW)
    assert caught.value.code == "BundleRollback"
    assert damaged.update(FIRST + BUNDLES[3].document, NOW).new_seq == 4
    assert TrustStore(store._folder, PIN).open().bundle == BUNDLES[3].bundle


def test_fast_forward_attack_is_recovered_from_by_new_publishers(store: TrustStore) -> None:
    # A stolen publisher's key publishes the highest seq there is: nothing honest is newer ever again…
    far = published(HELD.bundle, seq=2**53 - 1, prev=bytes(32))
    store.update(far.document, NOW)
    assert refused(store, BUNDLES[3].document) == "BundleRollback"
    # …even when the key is taken out of the root while another publisher stays…
    second = root(2, publishers="q")
    store.update(root_document(second), NOW)
    with pytest.raises(VerifyError) as caught:
        store.update(published(BUNDLES[2].bundle, by="q").document, NOW)
    assert caught.value.code == "BundleRollback"
    # …until a root has no publisher of before.
    third = root(3, publishers="r")
    honest = published(by="r")
    store.update(root_document(third) + honest.document, NOW)
    assert store.bundle == honest.bundle
    assert TrustStore(store._folder, PIN).open().bundle == honest.bundle
    with pytest.raises(VerifyError):
        store.update(far.document, NOW)


def test_fast_forward_recovery_is_found_across_several_root_versions(store: TrustStore) -> None:
    store.update(published(HELD.bundle, seq=1_000, prev=bytes(32)).document, NOW)
    chain = FIRST + root_document(root(2, publishers="r")) + root_document(root(3, publishers="s"))
    update = store.update(chain + published(by="s").document, NOW)
    assert (update.old_seq, update.new_seq, update.root_version) == (1_000, 1, 3)


@pytest.mark.parametrize("later", ["p", "p s", "q r"])
def test_publisher_that_had_left_is_not_let_in_again(store: TrustStore, later: str) -> None:
    # Old bundles of p and q would be news once more.
    second, third = root_document(root(2, publishers="r")), root_document(root(3, publishers=later))
    assert refused(store, FIRST + second + third + BUNDLES[3].document) == "TrustMalformed"
    store.update(second + published(by="r").document, NOW)
    assert refused(store, third + BUNDLES[3].document) == "TrustMalformed"
    assert refused(store, third) == "TrustMalformed"


def test_root_forked_at_the_held_version_is_a_mismatch(store: TrustStore) -> None:
    store.update(root_document(SECOND), NOW)
    fork = root_document(root(2, publishers="x"))
    assert refused(store, FIRST + fork) == "BundleMismatch"
    assert refused(store, fork) == "BundleMismatch"
    (store._folder / "trust.cbor").unlink()
    with pytest.raises(VerifyError) as caught:
        TrustStore(store._folder, PIN).open().update(FIRST + fork + BUNDLES[3].document, NOW)
    assert caught.value.code == "BundleMismatch"


def test_pinned_root_by_too_few_of_its_keys(tmp_path: Path) -> None:
    store = TrustStore(tmp_path / "new", PIN).open()
    with pytest.raises(ThresholdMissed):
        store.update(root_document(ROOT, "a") + HELD.document, NOW)
    with pytest.raises(TrustMalformed):
        store.update(root_document(ROOT, "a b x") + HELD.document, NOW)
    assert contents(tmp_path / "new").keys() == {"memory.json"}
