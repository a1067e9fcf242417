"""Evidence: the proof, in one text, that one entry is in a log, which anybody can verify with no network.

C2SP tlog-proof. The entry itself is beside it: an evidence is to an entry what a detached signature is to a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from ..errors import LogMalformed
from . import tree
from .checkpoint import Cosigned, Policy, SignedCheckpoint
from .note import COSIGNED_TIME_MAX, NOTE_BYTES_MAX, decode_base64, decode_decimal, decode_text, encode_base64
from .tree import TREE_SIZE_MAX

FILE_SUFFIX: Final = ".tlog-proof"
EXTRA_BYTES_MAX: Final = 16 * 1024
PROOF_HASHES_MAX: Final = 63
EVIDENCE_BYTES_MAX: Final = NOTE_BYTES_MAX + 32 * 1024

_HEADER: Final = "c2sp.org/tlog-proof@v1\n"
_EXTRA: Final = "extra "
_INDEX: Final = "index "


@dataclass(frozen=True, slots=True)
class Evidence:
    """That a log holds an entry, opened and believed in nothing. A bad field raises LogMalformed.

    `index` counts leaves from 0; `proof` is the inclusion proof of up to 63 hashes; `extra` is signed by nobody.
    """

    index: int
    proof: tuple[bytes, ...]
    signed: SignedCheckpoint
    extra: bytes | None = None

    def __post_init__(self) -> None:
        tree.check_whole(self.index, "the leaf's index", 0, TREE_SIZE_MAX - 1)
        tree.check_whole(len(self.proof), "the number of the proof's hashes", 0, PROOF_HASHES_MAX)
        tree.check_hashes(self.proof, "the inclusion proof")
        if self.extra is not None and len(self.extra) > EXTRA_BYTES_MAX:
            raise LogMalformed(f"the extra data has at most {EXTRA_BYTES_MAX} bytes")

    @classmethod
    def read(cls, content: bytes) -> Self:
        """The evidence of these bytes (tlog-proof, format). Raises LogMalformed."""
        text = decode_text(content, EVIDENCE_BYTES_MAX, "an evidence")
        head, blank, checkpoint = text.partition("\n\n")
        if not blank or not head.startswith(_HEADER):
            raise LogMalformed("this is no c2sp.org/tlog-proof@v1")
        lines = head.removeprefix(_HEADER).split("\n")
        extra = None
        if lines[0].startswith(_EXTRA):
            extra = decode_base64(lines.pop(0).removeprefix(_EXTRA), "the extra data")
        if not lines or not lines[0].startswith(_INDEX):
            raise LogMalformed("an evidence does not say the index of its leaf")
        index = decode_decimal(lines[0].removeprefix(_INDEX), "the leaf's index", TREE_SIZE_MAX - 1)
        proof = read_hashes(lines[1:], "an inclusion proof")
        return cls(index, proof, SignedCheckpoint.read(checkpoint.encode()), extra)

    def __bytes__(self) -> bytes:
        """The evidence as it is stored and sent, in a file that ends in `.tlog-proof`."""
        extra = "" if self.extra is None else f"{_EXTRA}{encode_base64(self.extra)}\n"
        head = f"{_HEADER}{extra}{_INDEX}{self.index}\n{hash_lines(self.proof)}\n"
        return head.encode() + bytes(self.signed)

    def verify(self, entry: bytes, policy: Policy, now: int = COSIGNED_TIME_MAX) -> Cosigned:
        """Require that the log holds this entry at `index`; return the checkpoint and who saw it.

        `now` in unix seconds as in `Policy.check`. Raises CheckpointUntrusted, WitnessesMissed, ProofWrong, and
        LogMalformed when the index is not below the checkpoint's size.
        """
        found = policy.check(self.signed, now)
        checkpoint = found.checkpoint
        tree.verify_inclusion(tree.leaf_hash(entry), self.index, checkpoint.size, checkpoint.root, self.proof)
        return found


def hash_lines(hashes: Sequence[bytes]) -> str:
    """The lines of hashes in base64, as in an evidence and in a witness's request."""
    return "".join(f"{encode_base64(one)}\n" for one in hashes)


def read_hashes(lines: Sequence[str], name: str) -> tuple[bytes, ...]:
    """The hashes of up to 63 lines of base64. Raises LogMalformed."""
    if len(lines) > PROOF_HASHES_MAX:
        raise LogMalformed(f"{name} has at most {PROOF_HASHES_MAX} hashes")
    hashes = tuple(decode_base64(line, name) for line in lines)
    tree.check_hashes(hashes, name)
    return hashes
