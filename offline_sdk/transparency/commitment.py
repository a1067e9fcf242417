"""Commitment: the entry of a record that must not be public, and the opening that shows what it commits to.

The entry is salted, so that nobody can guess at records; who erases salt and record leaves an entry that says nothing.
docs/transparency-log.md, "Commitments".
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final, Self

from ..errors import LogMalformed
from .note import decode_base64, encode_base64

SALT_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32
COMMITTED_ENTRY: Final = b"salted-sha-256:"
"""What the entry of a commitment begins with, and no record."""
OPENING_LINE: Final = b'{"salt":"'
"""What an opening's line in `events.ndjson` begins with, and no record."""
ERASED_LINE: Final = b'{"erased":true}'
"""The line of a record that was erased, with its salt."""

_DOMAIN: Final = b"fanxing/log/commitment/v1\x00"
_BETWEEN: Final = b'","record":'
_SALT_CHARS: Final = 44


def commitment_of(salt: bytes, record: bytes) -> bytes:
    """The commitment to a record, 32 bytes, under a salt of 32 random bytes that no other record has."""
    return hashlib.sha256(_DOMAIN + salt + record).digest()


def committed_entry(commitment: bytes) -> bytes:
    """The entry of a commitment of 32 bytes: `salted-sha-256:` and 64 digits of lower-case hex."""
    return COMMITTED_ENTRY + commitment.hex().encode()


@dataclass(frozen=True, slots=True)
class Opening:
    """A salt and a record: what shows that an entry is this record's. A bad field raises LogMalformed.

    `salt` has 32 bytes; `record` is a JSON object in one line.
    """

    salt: bytes = field(repr=False)
    record: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.salt) != SALT_BYTES:
            raise LogMalformed(f"a salt has {SALT_BYTES} bytes")
        if not (self.record.startswith(b"{") and self.record.endswith(b"}")) or b"\n" in self.record:
            raise LogMalformed("a record is not a JSON object in one line")

    @classmethod
    def read(cls, line: bytes) -> Self:
        """The opening of a line of `events.ndjson`, without its LF. Raises LogMalformed."""
        start = len(OPENING_LINE)
        end = start + _SALT_CHARS
        after = end + len(_BETWEEN)
        if not line.startswith(OPENING_LINE) or line[end:after] != _BETWEEN or not line.endswith(b"}"):
            raise LogMalformed("this is not the line of an opening")
        return cls(decode_base64(line[start:end].decode("latin-1"), "a salt"), line[after:-1])

    @property
    def line(self) -> bytes:
        """The line of it in `events.ndjson`, without its LF: {"salt":"…","record":{…}}."""
        return OPENING_LINE + encode_base64(self.salt).encode() + _BETWEEN + self.record + b"}"

    @property
    def commitment(self) -> bytes:
        """The commitment that this opens, 32 bytes."""
        return commitment_of(self.salt, self.record)

    @property
    def entry(self) -> bytes:
        """The entry that this opens."""
        return committed_entry(self.commitment)
