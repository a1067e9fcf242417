"""Witness: who cosigns a log's checkpoints, each only when it continues the one before; and how logs ask for it.

C2SP tlog-witness, add-checkpoint. Nothing here reads a clock, a file or a socket: who runs a witness keeps its heads on
the disk before an answer leaves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final, Self

from ..errors import CheckpointUntrusted, LogMalformed, ProofWrong
from . import tree
from .checkpoint import Checkpoint, SignedCheckpoint
from .evidence import hash_lines, read_hashes
from .note import (
    COSIGNED_TIME_MAX,
    NOTE_BYTES_MAX,
    SignatureType,
    VerifierKey,
    decode_decimal,
    decode_text,
    signature_lines,
)
from .tree import EMPTY_ROOT, TREE_SIZE_MAX

REQUEST_BYTES_MAX: Final = NOTE_BYTES_MAX + 8 * 1024
ANSWER_TEXT: Final = "text/plain; charset=utf-8"
ANSWER_SIZE: Final = "text/x.tlog.size"

_OLD: Final = "old "


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A log's request to cosign a checkpoint (tlog-witness, add-checkpoint), believed in nothing.

    `old_size` is that of the checkpoint which the log thinks the witness cosigned last, 0 for none; `proof` the
    consistency proof from there, up to 63 hashes.
    """

    old_size: int
    proof: tuple[bytes, ...]
    signed: SignedCheckpoint

    @classmethod
    def read(cls, body: bytes) -> Self:
        """The request of this body. Raises LogMalformed."""
        text = decode_text(body, REQUEST_BYTES_MAX, "a request")
        head, blank, checkpoint = text.partition("\n\n")
        first, *lines = head.split("\n")
        if not blank or not first.startswith(_OLD):
            raise LogMalformed("a request is not an old size, a proof, an empty line and a checkpoint")
        old_size = decode_decimal(first.removeprefix(_OLD), "the old tree size", TREE_SIZE_MAX)
        return cls(old_size, read_hashes(lines, "a consistency proof"), SignedCheckpoint.read(checkpoint.encode()))

    def __bytes__(self) -> bytes:
        """The request's body."""
        return f"{_OLD}{self.old_size}\n{hash_lines(self.proof)}\n".encode() + bytes(self.signed)


@dataclass(frozen=True, slots=True)
class Head:
    """The greatest tree of a log that a witness cosigned."""

    size: int = 0
    root: bytes = EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness answers, and the heads that it must have on the disk before the answer leaves.

    `heads` is the mapping that the witness had when nothing changed.
    """

    status: HTTPStatus
    content_type: str
    body: bytes
    heads: Mapping[str, Head]


@dataclass(frozen=True, slots=True)
class Witness:
    """One witness: its key, the function that signs with the private half, the logs it follows, and their heads.

    `logs` are the keys of logs, each named as its log's origin; a log may have several. `heads` are by origin; one
    without a head was never cosigned. A key of a wrong type raises LogMalformed.
    """

    key: VerifierKey
    sign: Callable[[bytes], bytes] = field(repr=False)
    logs: tuple[VerifierKey, ...]
    heads: Mapping[str, Head] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.key.type is not SignatureType.COSIGNATURE:
            raise LogMalformed("a witness's key is a log's")
        if any(log.type is not SignatureType.ED25519 for log in self.logs):
            raise LogMalformed("a log's key is a witness's")

    def add_checkpoint(self, body: bytes, now: int) -> Answer:
        """Answer a request at `now`, in unix seconds; whatever the body is, this is an answer.

        200 with a cosignature; 400 not a request; 404 an unknown log; 403 not signed by it; 409 another size or root
        than was cosigned last, with that size; 422 a consistency proof that is wrong.
        """
        tree.check_whole(now, "the time", 0, COSIGNED_TIME_MAX)
        try:
            request = AddCheckpoint.read(body)
        except LogMalformed as error:
            return self._refused(HTTPStatus.BAD_REQUEST, error.message)
        checkpoint = request.signed.checkpoint
        keys = [log for log in self.logs if log.name == checkpoint.origin]
        if not keys:
            return self._refused(HTTPStatus.NOT_FOUND, "the checkpoint's origin is not a log that is followed here")
        try:
            trusted = bool(request.signed.note.verified(keys))
        except CheckpointUntrusted:
            trusted = False
        if not trusted:
            return self._refused(HTTPStatus.FORBIDDEN, "no known key of the log signed the checkpoint")
        return self._continued(request, checkpoint, now)

    def following(self, heads: Mapping[str, Head]) -> "Witness":
        """This witness after the heads were kept."""
        return replace(self, heads=heads)

    def _continued(self, request: AddCheckpoint, checkpoint: Checkpoint, now: int) -> Answer:
        if request.old_size > checkpoint.size:
            return self._refused(HTTPStatus.BAD_REQUEST, "the old size is above the checkpoint's")
        head = self.heads.get(checkpoint.origin, Head())
        if request.old_size != head.size or (checkpoint.size == head.size and checkpoint.root != head.root):
            return Answer(HTTPStatus.CONFLICT, ANSWER_SIZE, f"{head.size}\n".encode(), self.heads)
        try:
            tree.verify_consistency(head.size, checkpoint.size, head.root, checkpoint.root, request.proof)
        except ProofWrong as error:
            return self._refused(HTTPStatus.UNPROCESSABLE_ENTITY, error.message)
        cosignature = self.key.signature(self.sign(self.key.to_be_signed(checkpoint.text, now)), now)
        grown = {checkpoint.origin: Head(checkpoint.size, checkpoint.root)}
        heads = {**self.heads, **grown} if checkpoint.size != head.size else self.heads
        return Answer(HTTPStatus.OK, ANSWER_TEXT, signature_lines([cosignature]).encode(), heads)

    def _refused(self, status: HTTPStatus, why: str) -> Answer:
        return Answer(status, ANSWER_TEXT, f"{why}\n".encode(), self.heads)
