"""Evidence check: whether a bundle's records are in the log that a key signs for, and the first thing that is not."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ..errors import CheckpointUntrusted, LogMalformed, ProofWrong, WitnessesMissed
from . import tree
from .checkpoint import Checkpoint, Cosigned, Policy, SignedCheckpoint
from .commitment import ERASED_LINE, Opening
from .evidence import EVIDENCE_BYTES_MAX, Evidence
from .evidence_bundle import MANIFEST_FILE, REQUIRED_FILES, EvidenceBundle, Leaf, Manifest
from .export import CHECKPOINT_FILE, EVENTS_FILE
from .note import COSIGNED_TIME_MAX, NOTE_BYTES_MAX, VerifierKey

_ANEW: Final = "get the bundle anew"


class Fault(StrEnum):
    """What is wrong with a bundle; callers compare these texts, so they never change."""

    FILE_MISSING = "file_missing"
    FILE_UNLISTED = "file_unlisted"
    """A file that the manifest does not name."""
    CHECKPOINT_UNTRUSTED = "checkpoint_untrusted"
    WITNESSES_MISSED = "witnesses_missed"
    RECORD_MISSING = "record_missing"
    RECORD_ALTERED = "record_altered"
    """A record's commitment is not the entry that the manifest names for it."""
    RECORD_UNLISTED = "record_unlisted"
    PROOF_WRONG = "proof_wrong"
    """An entry is not proved to be in the log."""
    FILE_ALTERED = "file_altered"
    """A file has another SHA-256 than the manifest says, and nothing else is wrong."""


@dataclass(frozen=True, slots=True)
class BundleFinding:
    """The first thing that is wrong: `index` is the leaf, `line` its line in `events.ndjson` from 1, where known."""

    fault: Fault
    message: str
    file: str | None = None
    index: int | None = None
    line: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The finding, ready for json.dumps."""
        told = {"file": self.file, "index": self.index, "line": self.line, "message": self.message}
        return {"fault": self.fault.value, **told}


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome: `cosigned` None when the checkpoint is not the log's; `records` that were proved before a fault.

    `erased` of them only have an entry left. `manifest` is what the bundle says of itself, signed by nobody.
    """

    manifest: Manifest
    cosigned: Cosigned | None
    records: int
    erased: int
    finding: BundleFinding | None

    @property
    def is_whole(self) -> bool:
        """Whether every record is proved, and every file is as the manifest says."""
        return self.finding is None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that the records are under, when the policy trusts it."""
        return None if self.cosigned is None else self.cosigned.checkpoint

    @property
    def witnesses(self) -> tuple[tuple[VerifierKey, int], ...]:
        """Which of the policy's witnesses cosigned it, and when, in unix seconds."""
        return () if self.cosigned is None else self.cosigned.witnesses


def check(bundle: EvidenceBundle, policy: Policy, now: int = COSIGNED_TIME_MAX) -> Checked:
    """Check a bundle: its checkpoint, then record by record its commitment and its proof, then all files' hashes.

    `now` in unix seconds as in `Policy.check`. Memory stays the same whatever the size, but for one record. Raises
    EvidenceRefused when the zip or its manifest cannot be read, OSError.
    """
    looking = _Check(bundle, policy, now, bundle.manifest())
    finding = next(looking.findings(), None)
    return Checked(looking.manifest, looking.cosigned, looking.records, looking.erased, finding)


@dataclass(slots=True)
class _Check:
    """One look at a bundle."""

    bundle: EvidenceBundle
    policy: Policy
    now: int
    manifest: Manifest
    cosigned: Cosigned | None = None
    records: int = 0
    erased: int = 0
    _signed: bytes = field(default=b"", repr=False)

    def findings(self) -> Iterator[BundleFinding]:
        """What is wrong, in the order in which it is looked for; the first is believed, those behind may follow it."""
        yield from self._listing()
        yield from self._checkpoint()
        yield from self._records()
        yield from self._files()

    def _listing(self) -> Iterator[BundleFinding]:
        names, listed = self.bundle.names, set(self.manifest.files)
        wanted = {*REQUIRED_FILES, *listed, *(leaf.proof_file for leaf in self.manifest.leaves)}
        for name in sorted(wanted - names):
            yield BundleFinding(Fault.FILE_MISSING, f"{name} is missing; {_ANEW}", name)
        for name in sorted(names - listed - {MANIFEST_FILE}):
            yield BundleFinding(Fault.FILE_UNLISTED, f"{MANIFEST_FILE} does not name {name}: it was put in", name)

    def _checkpoint(self) -> Iterator[BundleFinding]:
        self._signed = self.bundle.read(CHECKPOINT_FILE, NOTE_BYTES_MAX)
        try:
            signed = SignedCheckpoint.read(self._signed)
            # Who signed is told, whether or not they are enough.
            self.cosigned = Policy(self.policy.log, self.policy.witnesses).check(signed, self.now)
            self.policy.check(signed, self.now)
        except WitnessesMissed as error:
            yield BundleFinding(Fault.WITNESSES_MISSED, error.message, CHECKPOINT_FILE)
        except (CheckpointUntrusted, LogMalformed) as error:
            yield BundleFinding(Fault.CHECKPOINT_UNTRUSTED, error.message, CHECKPOINT_FILE)

    def _records(self) -> Iterator[BundleFinding]:
        lines = self.bundle.lines(EVENTS_FILE)
        for number, leaf in enumerate(self.manifest.leaves, 1):
            line = next(lines, None)
            if line is None:
                told = f"{EVENTS_FILE} ends before line {number}, the record of leaf {leaf.index}"
                yield BundleFinding(Fault.RECORD_MISSING, told, EVENTS_FILE, leaf.index, number)
                return
            if line.content == ERASED_LINE:
                self.erased += 1
            elif _entry_of(line.content) != leaf.entry.encode():
                told = f"{EVENTS_FILE}, line {number}, is not the record that leaf {leaf.index} commits to"
                yield BundleFinding(Fault.RECORD_ALTERED, told, EVENTS_FILE, leaf.index, number)
            why = self._unproved(leaf)
            if why is not None:
                told = f"{leaf.proof_file} does not prove the entry of leaf {leaf.index}: {why}"
                yield BundleFinding(Fault.PROOF_WRONG, told, leaf.proof_file, leaf.index, number)
            self.records += 1
        if next(lines, None) is not None:
            number = len(self.manifest.leaves) + 1
            told = f"{EVENTS_FILE}, line {number}, is no record of a leaf: it was put in"
            yield BundleFinding(Fault.RECORD_UNLISTED, told, EVENTS_FILE, None, number)

    def _unproved(self, leaf: Leaf) -> str | None:
        """Why a leaf's proof does not prove its entry under the checkpoint, whose signatures were checked once."""
        if self.cosigned is None:
            return "the checkpoint is not trusted"
        checkpoint = self.cosigned.checkpoint
        try:
            evidence = Evidence.read(self.bundle.read(leaf.proof_file, EVIDENCE_BYTES_MAX))
            if evidence.index != leaf.index or bytes(evidence.signed) != self._signed:
                return "it is of another leaf, or of another checkpoint"
            hashed = tree.leaf_hash(leaf.entry.encode())
            tree.verify_inclusion(hashed, leaf.index, checkpoint.size, checkpoint.root, evidence.proof)
        except (LogMalformed, ProofWrong) as error:
            return error.message
        return None

    def _files(self) -> Iterator[BundleFinding]:
        for name, digest in sorted(self.manifest.files.items()):
            if self.bundle.sha256(name) != digest:
                told = f"{name} is not the file that {MANIFEST_FILE} names; {_ANEW}"
                yield BundleFinding(Fault.FILE_ALTERED, told, name)


def _entry_of(line: bytes | None) -> bytes:
    """The entry of an opening's line; what is none is like no entry."""
    try:
        return b"" if line is None else Opening.read(line).entry
    except LogMalformed:
        return b""
