"""Note: a text with signatures of known keys below it, and the keys' own texts.

C2SP signed-note. Two types of signature are known: Ed25519 of a log (0x01), and the timestamped Ed25519 cosignature of
a witness (0x04, C2SP tlog-cosignature). Others are carried along and believed in nothing. No private key is here.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from ..algorithms import ED25519_KEY_BYTES, SIGNATURE_BYTES, Algorithm, public_key_is_safe, signature_is_right
from ..errors import CheckpointUntrusted, LogMalformed
from .tree import check_whole

NOTE_BYTES_MAX: Final = 256 * 1024
SIGNATURES_MAX: Final = 100
"""Signatures of one note; verifiers accept at least 16."""
NAME_CHARS_MAX: Final = 256
KEY_ID_BYTES: Final = 4
SIGNATURE_BLOB_BYTES_MAX: Final = 8 * 1024
"""A key id and a signature; those of ML-DSA-44 have 2,432 bytes."""
COSIGNED_TIME_MAX: Final = 253_402_300_799
"""9999-12-31T23:59:59Z in unix seconds, as elsewhere in this package; the format's own limit is 2^63 - 1."""
KEY_CHARS_MAX: Final = 512

_TIME_BYTES: Final = 8
# Unicode's White_Space, which no longer changes, controls, and the plus sign.
_NAME: Final = re.compile(
    f"[^\x00-\x20+\x7f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ud800-\udfff]{{1,{NAME_CHARS_MAX}}}"
)
_CONTROLS: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DASH: Final = "\u2014 "
_BASE64: Final = re.compile("[A-Za-z0-9+/]*={0,2}")
_KEY_ID: Final = re.compile("[0-9a-f]{8}")


class SignatureType(IntEnum):
    """What a key signs, by its identifier byte (signed-note, signature types)."""

    ED25519 = 0x01
    """The text of the note."""
    COSIGNATURE = 0x04
    """A time and the text of a checkpoint (tlog-cosignature)."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key that is known by a name: a log's, or a witness's. A bad field raises LogMalformed.

    `name` 1 to 256 characters without spaces or plus; `public` 32 bytes, an Ed25519 key that all verifiers agree about.
    """

    name: str
    type: SignatureType
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if type(self.type) is not SignatureType:
            raise LogMalformed("a verifier key's type of signature is not known; update this software")
        if type(self.public) is not bytes or not public_key_is_safe(Algorithm.ED25519, self.public):
            raise LogMalformed("a verifier key is not 32 bytes, not canonical, or of small order")

    @classmethod
    def read(cls, text: str) -> Self:
        """The key of a text, `name+01234567+AQ…` (signed-note, verifier keys). Raises LogMalformed."""
        name, _, rest = text.partition("+") if len(text) <= KEY_CHARS_MAX else ("", "", "")
        key_id, _, material = rest.partition("+")
        if not _KEY_ID.fullmatch(key_id):
            raise LogMalformed("a verifier key is not a name, 8 hex digits and base64 with plus signs between them")
        content = decode_base64(material, "a verifier key")
        if len(content) != 1 + ED25519_KEY_BYTES or content[0] not in set(SignatureType):
            raise LogMalformed("a verifier key's type of signature is not known; update this software")
        key = cls(name, SignatureType(content[0]), content[1:])
        if key.id.hex() != key_id:
            raise LogMalformed("a verifier key's name and number do not belong to it; copy it anew")
        return key

    @property
    def id(self) -> bytes:
        """The first 4 bytes of SHA-256 of name, newline, type and public key (signed-note, signatures)."""
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.type]) + self.public).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        """The key's text, as `read` takes it."""
        return f"{self.name}+{self.id.hex()}+{encode_base64(bytes([self.type]) + self.public)}"

    def to_be_signed(self, text: str, at: int | None = None) -> bytes:
        """The bytes that this key's private half signs for a note; `at`, unix seconds, for a cosignature alone."""
        self._check_time(at)
        return text.encode() if at is None else f"cosignature/v1\ntime {at}\n{text}".encode()

    def signature(self, signed: bytes, at: int | None = None) -> "NoteSignature":
        """The line that carries the 64 bytes that the private half made over `to_be_signed`; they are not verified."""
        self._check_time(at)
        if len(signed) != SIGNATURE_BYTES:
            raise LogMalformed(f"a signature is not {SIGNATURE_BYTES} bytes")
        stamp = b"" if at is None else at.to_bytes(_TIME_BYTES, "big")
        return NoteSignature(self.name, self.id, stamp + signed)

    def _check_time(self, at: int | None) -> None:
        if (at is None) != (self.type is SignatureType.ED25519):
            raise LogMalformed("a cosignature needs a time, and no other signature has one")
        if at is not None:
            check_whole(at, "a cosignature's time", 0, COSIGNED_TIME_MAX)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature of a note: the key's name, its id of 4 bytes, and what that key's type of signature says."""

    name: str
    key_id: bytes
    content: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.key_id) != KEY_ID_BYTES or not 1 <= len(self.content) <= SIGNATURE_BLOB_BYTES_MAX - KEY_ID_BYTES:
            raise LogMalformed("a signature's key id is not 4 bytes, or the signature is empty or too long")

    @classmethod
    def read(cls, line: str) -> Self:
        """The signature of a line, without its newline. Raises LogMalformed."""
        name, space, blob = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise LogMalformed("a signature line is not an em dash, a name and base64")
        content = decode_base64(blob, "a signature")
        return cls(name, content[:KEY_ID_BYTES], content[KEY_ID_BYTES:])

    @property
    def line(self) -> str:
        """The line of it, with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.content)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signatures, opened and believed in nothing. A bad field raises LogMalformed.

    `text` ends in a newline and has no other control characters.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        check_text(self.text)
        if not 1 <= len(self.signatures) <= SIGNATURES_MAX:
            raise LogMalformed(f"a note does not have 1 to {SIGNATURES_MAX} signatures")

    @classmethod
    def read(cls, content: bytes) -> Self:
        """The note of these bytes (signed-note, format). Raises LogMalformed."""
        text = decode_text(content, NOTE_BYTES_MAX, "a note")
        body, blank, below = text.rpartition("\n\n")
        if not blank or not below.endswith("\n"):
            raise LogMalformed("a note is not a text, an empty line and signature lines, each ended by a newline")
        lines = below[:-1].split("\n")
        if len(lines) > SIGNATURES_MAX:
            raise LogMalformed(f"a note does not have 1 to {SIGNATURES_MAX} signatures")
        return cls(f"{body}\n", tuple(map(NoteSignature.read, lines)))

    def __bytes__(self) -> bytes:
        """The note as it is stored and sent."""
        return f"{self.text}\n{signature_lines(self.signatures)}".encode()

    def verified(self, keys: Iterable[VerifierKey]) -> dict[VerifierKey, int | None]:
        """Those of these keys that signed the note, each with the time of its newest cosignature, None for a log's key.

        Signatures of other keys are passed over. Raises CheckpointUntrusted when a signature with the name and id of
        one of these keys is wrong: such a note was tampered with (signed-note, signatures).
        """
        known = {(key.name, key.id): key for key in keys}
        found: dict[VerifierKey, int | None] = {}
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is not None:
                at = _signed_at(self.text, key, signature.content)
                found[key] = at if at is None else max(at, found.get(key) or 0)
        return found


def signature_lines(signatures: Iterable[NoteSignature]) -> str:
    """The lines of signatures, one after another, as below a note and in a witness's answer."""
    return "".join(signature.line for signature in signatures)


def read_signature_lines(content: bytes) -> tuple[NoteSignature, ...]:
    """The signatures of a witness's answer (tlog-witness, add-checkpoint), at least one. Raises LogMalformed."""
    text = decode_text(content, NOTE_BYTES_MAX, "a witness's answer")
    lines = text.removesuffix("\n").split("\n")
    if not text.endswith("\n") or len(lines) > SIGNATURES_MAX:
        raise LogMalformed(f"a witness's answer is not 1 to {SIGNATURES_MAX} signature lines")
    return tuple(map(NoteSignature.read, lines))


def check_name(name: object) -> None:
    """Require the name of a key: 1 to 256 characters, no controls, spaces or plus signs."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise LogMalformed(f"a key's name is not 1 to {NAME_CHARS_MAX} characters without spaces and plus signs")


def decode_text(content: bytes, bytes_max: int, name: str) -> str:
    """The text of bytes that are UTF-8 without control characters but newline. Raises LogMalformed."""
    if len(content) > bytes_max:
        raise LogMalformed(f"{name} has at most {bytes_max} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise LogMalformed(f"{name} is not UTF-8") from None
    if _CONTROLS.search(text):
        raise LogMalformed(f"{name} holds a control character")
    return text


def encode_base64(content: bytes) -> str:
    """Standard base64 with padding (RFC 4648, 4)."""
    return base64.b64encode(content).decode()


def decode_base64(text: str, name: str) -> bytes:
    """The bytes of standard base64 in its one form (RFC 4648, 4 and 3.5). Raises LogMalformed."""
    try:
        content = binascii.a2b_base64(text, strict_mode=True) if _BASE64.fullmatch(text) else b""
    except binascii.Error:
        content = b""
    if encode_base64(content) != text:
        raise LogMalformed(f"{name} is not base64 in its one form")
    return content


def decode_decimal(text: str, name: str, high: int) -> int:
    """A whole number from 0 to `high` in ASCII digits without leading zeros. Raises LogMalformed."""
    digits = len(str(high))
    if not (1 <= len(text) <= digits and text.isascii() and text.isdigit() and int(text) <= high) or (
        text != str(int(text))
    ):
        raise LogMalformed(f"{name} is not a whole number from 0 to {high} in its one form")
    return int(text)


def check_text(text: object) -> None:
    """Require what can be a note's text: it ends in a newline and has no other control characters."""
    if not isinstance(text, str) or not text.endswith("\n") or _CONTROLS.search(text):
        raise LogMalformed("the text of a note does not end in a newline, or holds another control character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise LogMalformed("the text of a note is not Unicode") from None
    if size > NOTE_BYTES_MAX:
        raise LogMalformed(f"a note has at most {NOTE_BYTES_MAX} bytes")


def _signed_at(text: str, key: VerifierKey, content: bytes) -> int | None:
    """Require a right signature of a known key, and return the time it is of, None for a log's."""
    at = None
    if key.type is SignatureType.COSIGNATURE:
        content, stamp = content[_TIME_BYTES:], content[:_TIME_BYTES]
        at = int.from_bytes(stamp, "big")
    late = at is not None and at > COSIGNED_TIME_MAX
    if late or not signature_is_right(Algorithm.ED25519, key.public, key.to_be_signed(text, at), content):
        raise CheckpointUntrusted(f"the signature of {key.name} is wrong; get the checkpoint anew")
    return at
