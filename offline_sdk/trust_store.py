"""Trust store: what a device holds between starts, root documents and one bundle, and what it must never forget.

The cache is believed in nothing: it is verified from the pin each time it is opened, by the code that also judges a
file, a stick, the LAN or a download. The memory is what keeps older documents out; both are written so that a device
that dies at any moment opens again. docs/trust-root.md describes files and rules. The application supplies the time.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from . import cose
from .bundle import FINGERPRINT_BYTES, SEQ_MAX, TIME_MAX, Bundle
from .cose import DocumentType, Envelope, Signer
from .delta import Delta
from .errors import (
    BundleFrozen,
    BundleMismatch,
    BundleRollback,
    ForeignRoot,
    RootExpired,
    TrustError,
    TrustMalformed,
    TrustMissing,
)
from .root import ROOT_VERSION_MAX, Root, newer_roots, refuse_returned
from .verifier import Policy, Verifier, unix_seconds

CACHE_FILE: Final = "trust.cbor"
MEMORY_FILE: Final = "memory.json"
LOCK_FILE: Final = "lock"
REMEMBER_EVERY_S: Final = 60
"""How far the time must advance before it is written down again."""
MEMORY_BYTES_MAX: Final = 4096
_MEMORY_FORMAT: Final = "fanxing-memory-1"
_FINGERPRINT: Final = re.compile(f"[0-9a-f]{{{2 * FINGERPRINT_BYTES}}}")


@dataclass(frozen=True, slots=True)
class Update:
    """What an update changed: sequence numbers and root versions before and after, 0 where there is none."""

    old_seq: int
    new_seq: int
    old_root_version: int
    root_version: int

    @property
    def changed(self) -> bool:
        """Whether the store holds something else than before."""
        return (self.old_seq, self.old_root_version) != (self.new_seq, self.root_version)


@dataclass(frozen=True, slots=True)
class Trust:
    """Documents that were verified: the roots from the pinned one on, and the bundle if there is one."""

    roots: tuple[tuple[Root, Envelope], ...] = ()
    bundle: Bundle | None = None
    bundle_document: bytes = b""

    @property
    def root(self) -> Root | None:
        """The newest root."""
        return self.roots[-1][0] if self.roots else None

    @property
    def held_root(self) -> Root:
        """The newest root. Raises TrustMissing when there is none."""
        if self.root is None:
            raise TrustMissing("no root document was loaded yet; load a trust file")
        return self.root

    @property
    def held_bundle(self) -> Bundle:
        """The bundle. Raises TrustMissing when there is none, or its publisher has left the root."""
        if self.bundle is None:
            raise TrustMissing("there is no trust bundle that the root's publishers stand for; load a trust file")
        return self.bundle

    def content(self) -> bytes:
        """The documents, one after another: a trust file."""
        return b"".join(envelope.raw for _root, envelope in self.roots) + self.bundle_document


@dataclass(frozen=True, slots=True)
class Memory:
    """What a device never forgets: the greatest time seen (unix s), and the newest root and bundle held, ever.

    Fingerprints are hex digits, "" for none. `seq` is 0 before the first bundle and after all publishers changed.
    """

    seen: int = 0
    root_version: int = 0
    root: str = ""
    seq: int = 0
    bundle: str = ""

    def __post_init__(self) -> None:
        for value, high in ((self.seen, TIME_MAX), (self.root_version, ROOT_VERSION_MAX), (self.seq, SEQ_MAX)):
            if type(value) is not int or not 0 <= value <= high:
                raise TrustMalformed(_MEMORY_DAMAGED)
        for fingerprint, number in ((self.root, self.root_version), (self.bundle, self.seq)):
            if type(fingerprint) is not str or not (_FINGERPRINT.fullmatch(fingerprint) if number else not fingerprint):
                raise TrustMalformed(_MEMORY_DAMAGED)

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read the content of the memory's file, or raise TrustMalformed."""
        try:
            record = json.loads(content)
            if record.pop("format") != _MEMORY_FORMAT or set(record) != {field.name for field in fields(cls)}:
                raise ValueError("unknown format")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise TrustMalformed(_MEMORY_DAMAGED) from None
        return cls(**record)

    def written(self) -> bytes:
        """The content of the memory's file."""
        return json.dumps({"format": _MEMORY_FORMAT, **asdict(self)}, indent=1).encode() + b"\n"


_MEMORY_DAMAGED: Final = (
    "the trust store's memory is damaged or gone, so an old bundle could not be told from a new one; "
    "remove the store's folder and load the newest trust file"
)


def advance(
    held: Trust, envelopes: Sequence[Envelope], pin: bytes, memory: Memory, now: float | None
) -> tuple[Trust, Memory]:
    """What a device holds and remembers after these documents, which may be news or its own cache (`now` None).

    `now` is the effective time, unix seconds. Raises the TrustError of the first rule that is broken
    (docs/trust-root.md), or AlgorithmMissing.
    """
    root_documents, bundle_document, deltas = _sorted(envelopes)
    roots = (*held.roots, *newer_roots(root_documents, pin, held.root))
    if not roots:
        raise ForeignRoot("there is no root document yet; load a trust file that begins with the pinned one")
    root = roots[-1][0]
    refuse_returned([root for root, _ in roots])
    memory = _remember_roots(memory, [root for root, _ in roots])
    if now is not None and now >= root.expires:
        raise RootExpired(f"root version {root.version} has expired; get a newer trust file, or correct the clock")
    bundle, document = _still_published(held, root, memory)
    if bundle_document is not None or deltas:
        bundle, document = _led_to(bundle, document, bundle_document, deltas, root.publishers)
        memory = _remember_bundle(memory, bundle, root)
        if now is not None and now >= bundle.expires:
            raise BundleFrozen(
                f"trust bundle {bundle.seq} has expired already, so newer ones are being held back; "
                "get the newest; or correct the clock, when it stood in the future once"
            )
    return Trust(roots, bundle, document), memory


def read_trust(content: bytes, pin: bytes) -> Trust:
    """What a trust file says to who holds nothing yet and remembers nothing: raises as `advance` does."""
    return advance(Trust(), cose.read(content), pin, Memory(), None)[0]


def _sorted(envelopes: Sequence[Envelope]) -> tuple[list[Envelope], Envelope | None, list[Envelope]]:
    kinds = list(DocumentType)
    places = [kinds.index(envelope.type) for envelope in envelopes]
    if places != sorted(places) or places.count(kinds.index(DocumentType.BUNDLE)) > 1:
        raise TrustMalformed("a trust file is root documents, then at most one bundle, then deltas")
    by_type = {kind: [envelope for envelope in envelopes if envelope.type is kind] for kind in kinds}
    bundles = by_type[DocumentType.BUNDLE]
    return by_type[DocumentType.ROOT], bundles[0] if bundles else None, by_type[DocumentType.DELTA]


def _remember_roots(memory: Memory, roots: Sequence[Root]) -> Memory:
    root = roots[-1]
    if root.version < memory.root_version:
        raise BundleRollback(
            f"root version {root.version} is older than version {memory.root_version}, which was held already; "
            "get the newest trust file"
        )
    fingerprint = root.fingerprint.hex()
    if root.version == memory.root_version and fingerprint != memory.root:
        raise BundleMismatch(f"root version {root.version} has another content than the one that was held")
    # Whoever stole a publisher's key could have published the highest seq there is. Once none of the publishers of that
    # time is left, what they counted no longer matters.
    if any(
        after.version > memory.root_version > 0 and not set(before.publishers) & set(after.publishers)
        for before, after in pairwise(roots)
    ):
        memory = replace(memory, seq=0, bundle="")
    return replace(memory, root_version=root.version, root=fingerprint)


def _still_published(held: Trust, root: Root, memory: Memory) -> tuple[Bundle | None, bytes]:
    """The bundle held, unless its publisher has left the root or its seq was forgotten with all publishers."""
    if held.bundle is None or memory.seq == 0:
        return None, b""
    (envelope,) = cose.read(held.bundle_document)
    return (held.bundle, held.bundle_document) if cose.right_signers(envelope, root.publishers) else (None, b"")


def _led_to(
    held: Bundle | None, document: bytes, whole: Envelope | None, deltas: Sequence[Envelope], by: Sequence[Signer]
) -> tuple[Bundle, bytes]:
    """The bundle that a file leads to, from its own whole one or from the one held."""
    if whole is not None:
        bundle, document = Bundle.load(whole.raw, by), whole.raw
    elif held is not None:
        bundle = held
    else:
        raise BundleMismatch("a delta needs the bundle before it, and none is held; fetch the whole bundle")
    for delta in deltas:
        document = Delta.load(delta.raw, by).apply(bundle)
        bundle = Bundle.load(document, by)
    return bundle, document


def _remember_bundle(memory: Memory, bundle: Bundle, root: Root) -> Memory:
    if bundle.domain != root.domain:
        raise BundleMismatch(f"the trust bundle is of the domain {bundle.domain}, the root of {root.domain}")
    if bundle.seq < memory.seq:
        raise BundleRollback(
            f"trust bundle {bundle.seq} is older than bundle {memory.seq}, which was held already; get the newest"
        )
    fingerprint = bundle.fingerprint.hex()
    if bundle.seq == memory.seq and fingerprint != memory.bundle:
        raise BundleMismatch(f"trust bundle {bundle.seq} has another content than the one that was held")
    if memory.seq and bundle.seq == memory.seq + 1 and (bundle.prev or b"").hex() != memory.bundle:
        raise BundleMismatch(f"trust bundle {bundle.seq} does not follow upon bundle {memory.seq} that was held")
    return replace(memory, seq=bundle.seq, bundle=fingerprint)


class TrustStore:
    """A device's trust, in a folder of its own that only its user can read; several processes may share it.

    `pin` is the fingerprint of a root document, 32 bytes (`read_pin`). `open` it before anything else. Operating-system
    errors are raised as they are. Not to be shared between threads.
    """

    def __init__(self, folder: Path, pin: bytes) -> None:
        self._folder = folder
        self._pin = pin
        self._trust = Trust()
        self._memory = Memory()
        self._seen = 0.0

    def open(self) -> Self:
        """Verify what the folder holds, and make it when it does not exist; an empty one is no error.

        Raises the TrustError of the cache when that was damaged or replaced: the store then holds nothing, and an
        `update` from a whole trust file repairs it. Raises TrustMalformed when the memory is damaged or gone.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock():
            self._memory, self._trust = self._read_memory(), Trust()
            self._seen = max(self._seen, self._memory.seen)
            self._trust, memory = self._read_cache()
            # A kill after the cache was replaced leaves a memory that is behind.
            self._write_memory(memory)
        return self

    @property
    def root(self) -> Root:
        """The newest root. Raises TrustMissing when there is none."""
        return self._trust.held_root

    @property
    def bundle(self) -> Bundle:
        """The bundle held. Raises TrustMissing when there is none, or its publisher has left the root."""
        return self._trust.held_bundle

    @property
    def floor(self) -> float:
        """The time, in unix seconds, that it is at least: the greatest seen, or the bundle's issue."""
        return max(self._seen, self._trust.bundle.issued if self._trust.bundle is not None else 0)

    def update(self, content: bytes, now: datetime) -> Update:
        """Take a trust file, wherever it came from, wholly or not at all.

        Raises TrustMalformed, TrustTruncated, ForeignRoot, ThresholdMissed, RootExpired, BundleUntrusted,
        BundleRollback, BundleFrozen or BundleMismatch, or AlgorithmMissing; then the store is what it was before.
        """
        envelopes, supplied = cose.read(content), unix_seconds(now)
        with self._lock():
            memory = self._memory = self._read_memory()
            self._seen = max(self._seen, memory.seen)
            try:
                held, memory = self._read_cache()
            except TrustError:
                held = Trust()
            effective = max(supplied, self._seen, held.bundle.issued if held.bundle is not None else 0)
            trust, memory = advance(held, envelopes, self._pin, memory, effective)
            changed = trust.content() != held.content()
            if changed:
                self._write(CACHE_FILE, trust.content())
            self._trust, self._seen = trust, max(self._seen, supplied)
            self._write_memory(memory)
        return Update(
            old_seq=held.bundle.seq if held.bundle is not None else 0,
            new_seq=trust.bundle.seq if trust.bundle is not None else 0,
            old_root_version=held.root.version if held.root is not None else 0,
            root_version=trust.roots[-1][0].version,
        )

    def remember(self, now: datetime) -> None:
        """Raise the greatest time seen; it is written down when it has advanced by REMEMBER_EVERY_S."""
        self._seen = max(self._seen, unix_seconds(now))
        if self._seen >= self._memory.seen + REMEMBER_EVERY_S:
            with self._lock():
                self._memory = self._read_memory()
                self._write_memory(self._memory)

    def correct_clock(self, trusted_now: datetime) -> None:
        """Set the greatest time seen, down as well as up: a server that proved who it is told the time.

        This is what undoes a clock that once stood in the future. The floor stays at least the bundle's issue.
        """
        self._seen = max(0.0, unix_seconds(trusted_now))
        with self._lock():
            memory = replace(self._read_memory(), seen=int(self._seen))
            self._write(MEMORY_FILE, memory.written())
            self._memory = memory

    def verifier(self, policy: Policy | None = None, now: datetime | Callable[[], datetime] | None = None) -> Verifier:
        """A verifier by the bundle held, which knows the root's expiry and the greatest time seen; see `Verifier`.

        Raises TrustMissing.
        """
        return Verifier(self.bundle, policy, now, seen=self._seen, root_expires=self.root.expires)

    def _read_memory(self) -> Memory:
        try:
            with (self._folder / MEMORY_FILE).open("rb") as file:
                return Memory.read(file.read(MEMORY_BYTES_MAX))
        except FileNotFoundError:
            # The memory is written before there ever is a cache.
            if (self._folder / CACHE_FILE).exists():
                raise TrustMalformed(_MEMORY_DAMAGED) from None
            memory = Memory()
            self._write(MEMORY_FILE, memory.written())
            return memory

    def _read_cache(self) -> tuple[Trust, Memory]:
        try:
            with (self._folder / CACHE_FILE).open("rb") as file:
                content = file.read(cose.TRUST_FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return Trust(), self._memory
        return advance(Trust(), cose.read(content), self._pin, self._memory, None)

    def _write_memory(self, memory: Memory) -> None:
        if self._seen >= memory.seen + REMEMBER_EVERY_S:
            memory = replace(memory, seen=int(self._seen))
        if memory != self._memory:
            self._write(MEMORY_FILE, memory.written())
            self._memory = memory

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file so that the old or the new one is there whole, and on the disk, whenever the device dies."""
        new = self._folder / f"{name}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # A disk that is full must not stay full of half a file: the journal needs room too.
            new.unlink()
            raise
        new.replace(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        descriptor = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
