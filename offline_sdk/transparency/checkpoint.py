"""Checkpoint: what a log says that it holds, signed by the log and cosigned by witnesses, and who must have signed.

C2SP tlog-checkpoint and tlog-cosignature.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from ..errors import CheckpointUntrusted, LogMalformed, WitnessesMissed
from .note import (
    COSIGNED_TIME_MAX,
    Note,
    NoteSignature,
    SignatureType,
    VerifierKey,
    check_text,
    decode_base64,
    decode_decimal,
    encode_base64,
)
from .tree import EMPTY_ROOT, TREE_SIZE_MAX, check_hashes, check_whole

LINE_CHARS_MAX: Final = 1_024
"""Characters of an origin or of an extension line."""
EXTENSIONS_MAX: Final = 16
WITNESSES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log's tree. A bad field raises LogMalformed.

    `origin` names the log, 1 to 1,024 characters; `size` 0 to TREE_SIZE_MAX leaves; `root` 32 bytes; `extensions` are
    lines that nobody interprets.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_whole(self.size, "a checkpoint's tree size", 0, TREE_SIZE_MAX)
        check_hashes([self.root], "a checkpoint's root")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise LogMalformed("the checkpoint of no leaves has not the root of no leaves")
        if len(self.extensions) > EXTENSIONS_MAX:
            raise LogMalformed(f"a checkpoint has at most {EXTENSIONS_MAX} extension lines")
        for line in (self.origin, *self.extensions):
            _check_line(line)

    @classmethod
    def read(cls, text: str) -> Self:
        """The checkpoint of a note's text (tlog-checkpoint, note text). Raises LogMalformed."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop():
            raise LogMalformed("a checkpoint is not an origin, a size and a root, each ended by a newline")
        origin, size, root, *extensions = lines
        return cls(
            origin,
            decode_decimal(size, "a checkpoint's tree size", TREE_SIZE_MAX),
            decode_base64(root, "a checkpoint's root"),
            tuple(extensions),
        )

    @property
    def text(self) -> str:
        """The note's text: what the log signs and witnesses cosign."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, encode_base64(self.root), *self.extensions))


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and its signatures, opened and believed in nothing."""

    checkpoint: Checkpoint
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def read(cls, content: bytes) -> Self:
        """The signed checkpoint of these bytes. Raises LogMalformed."""
        note = Note.read(content)
        return cls(Checkpoint.read(note.text), note.signatures)

    @property
    def note(self) -> Note:
        """The note of it."""
        return Note(self.checkpoint.text, self.signatures)

    def __bytes__(self) -> bytes:
        """The signed checkpoint as it is stored and served."""
        return bytes(self.note)

    def cosigned(self, signatures: Iterable[NoteSignature], witnesses: Iterable[VerifierKey]) -> "SignedCheckpoint":
        """This checkpoint with those of a witness's signatures that are right; signatures of others are left out.

        Raises CheckpointUntrusted when one is a witness's by name and id, and wrong.
        """
        keys = {(key.name, key.id): key for key in witnesses}
        mine = tuple(one for one in signatures if (one.name, one.key_id) in keys and one not in self.signatures)
        if not mine:
            return self
        Note(self.checkpoint.text, mine).verified(keys.values())
        return SignedCheckpoint(self.checkpoint, (*self.signatures, *mine))


@dataclass(frozen=True, slots=True)
class Policy:
    """Who must have signed a checkpoint: one log, and at least `threshold` of these witnesses.

    `log` has the type of a log's key and is named as the log's origin; witnesses have the type of cosigners and differ
    by name and by key. A bad field raises LogMalformed.
    """

    log: VerifierKey
    witnesses: tuple[VerifierKey, ...] = ()
    threshold: int = 0

    def __post_init__(self) -> None:
        if self.log.type is not SignatureType.ED25519:
            raise LogMalformed("the log's key is a witness's")
        if any(key.type is not SignatureType.COSIGNATURE for key in self.witnesses):
            raise LogMalformed("a witness's key is a log's")
        check_whole(len(self.witnesses), "the number of witnesses", 0, WITNESSES_MAX)
        # Two names of one key would let one witness count twice.
        for values in ({key.name for key in self.witnesses}, {key.public for key in self.witnesses}):
            if len(values) != len(self.witnesses):
                raise LogMalformed("two witnesses have one name or one key")
        check_whole(self.threshold, "the number of witnesses asked for", 0, len(self.witnesses))

    def check(self, signed: SignedCheckpoint, now: int = COSIGNED_TIME_MAX) -> "Cosigned":
        """Require the log's signature and enough cosignatures that are of no time after `now`, in unix seconds.

        Raises CheckpointUntrusted when the checkpoint is of another log, or a signature of a known key is missing or
        wrong, WitnessesMissed when witnesses are too few.
        """
        if signed.checkpoint.origin != self.log.name:
            raise CheckpointUntrusted("the checkpoint is of another log than the key")
        found = signed.note.verified((self.log, *self.witnesses))
        if self.log not in found:
            raise CheckpointUntrusted("the log's key did not sign this checkpoint; get it anew")
        by = tuple((key, at) for key in self.witnesses if (at := found.get(key)) is not None and at <= now)
        if len(by) < self.threshold:
            raise WitnessesMissed(f"{len(by)} of {self.threshold} witnesses cosigned the checkpoint; ask for more")
        return Cosigned(signed.checkpoint, by)


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint that a policy took, and its witnesses, each with the unix time of its newest cosignature."""

    checkpoint: Checkpoint
    witnesses: tuple[tuple[VerifierKey, int], ...]


def _check_line(line: object) -> None:
    if not isinstance(line, str) or not 1 <= len(line) <= LINE_CHARS_MAX or "\n" in line:
        raise LogMalformed(f"a line of a checkpoint is not 1 to {LINE_CHARS_MAX} characters")
    check_text(f"{line}\n")
