"""COSE envelopes of trust documents: who signed which bytes. The bytes themselves are not interpreted here.

A bundle and a delta are COSE_Sign1 messages, a root document is a COSE_Sign message (RFC 9052, 4), in deterministic
CBOR (RFC 8949, 4.2.1). Several documents in a row are a trust file, a CBOR sequence (RFC 8742). What no one has signed
meets no CBOR decoder: envelopes have one fixed form, so they are read by comparing bytes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import cbor2

from .algorithms import SIGNATURE_BYTES, Algorithm, public_key_is_safe, signature_is_right
from .errors import TrustMalformed, TrustTruncated

SIGNER_KID_BYTES: Final = 8
SIGNATURES_MAX: Final = 23
"""Signatures on one document: as many as a one-byte array head counts."""
TRUST_FILE_BYTES_MAX: Final = 64 * 1024 * 1024
DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
DOCUMENTS_MAX: Final = 10_000

_TAG_SIGN1: Final = b"\xd2"
_TAG_SIGN: Final = b"\xd8\x62"
_ARRAY_OF_3: Final = b"\x83"
_ARRAY_OF_4: Final = b"\x84"
_EMPTY_MAP: Final = b"\xa0"
_BSTR: Final = 0x40
_ARRAY: Final = 0x80
_HEAD_BYTES: Final = {24: 1, 25: 2, 26: 4, 27: 8}


class DocumentType(StrEnum):
    """What a document is, by its content type (RFC 9052, 3.1)."""

    ROOT = "application/vnd.fanxing.trust-root+cbor"
    BUNDLE = "application/vnd.fanxing.trust-bundle+cbor"
    DELTA = "application/vnd.fanxing.trust-delta+cbor"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs documents: a root's or a publisher's. A key that is not safe raises TrustMalformed."""

    algorithm: Algorithm
    public: bytes
    kid: bytes = field(init=False, repr=False, compare=False)
    """The first 8 bytes of SHA-256 of the public key."""

    def __post_init__(self) -> None:
        if not isinstance(self.algorithm, Algorithm) or not public_key_is_safe(self.algorithm, self.public):
            raise TrustMalformed("a signer's public key is of a wrong length, not canonical, or of small order")
        object.__setattr__(self, "kid", hashlib.sha256(self.public).digest()[:SIGNER_KID_BYTES])


@dataclass(frozen=True, slots=True)
class Envelope:
    """A document, opened and believed in nothing: `signatures` as (protected header, 64 bytes), `raw` all its bytes."""

    type: DocumentType
    payload: bytes
    signatures: tuple[tuple[bytes, bytes], ...]
    raw: bytes


def read(content: bytes) -> tuple[Envelope, ...]:
    """Cut a trust file into its documents, at least one.

    Raises TrustTruncated when the bytes end before their own lengths say, TrustMalformed when anything is not in the
    one form of an envelope. No signature has been looked at.
    """
    if not isinstance(content, bytes):
        raise TrustMalformed("a trust file is bytes")
    if len(content) > TRUST_FILE_BYTES_MAX:
        raise TrustMalformed(f"a trust file has at most {TRUST_FILE_BYTES_MAX} bytes")
    if not content:
        raise TrustTruncated("the trust file is empty; fetch it again")
    reader, documents = _Reader(content), []
    while reader.at < len(content):
        documents.append(_document(reader))
        if len(documents) > DOCUMENTS_MAX:
            raise TrustMalformed(f"a trust file has at most {DOCUMENTS_MAX} documents")
    return tuple(documents)


def to_be_signed(type_: DocumentType, payload: bytes, signer: Signer) -> bytes:
    """The bytes that this signer's private key signs: the Sig_structure of RFC 9052, 4.4, with no external data."""
    if type_ is DocumentType.ROOT:
        return _sig_structure("Signature", [_root_header(), _signer_header(signer)], payload)
    return _sig_structure("Signature1", [_header(type_, signer)], payload)


def seal(type_: DocumentType, payload: bytes, signatures: Mapping[Signer, bytes]) -> bytes:
    """The document of this payload: with one 64-byte signature for a bundle or delta, with any number for a root.

    Signatures are not verified here. Raises TrustMalformed when their number or lengths are wrong or the document grows
    past DOCUMENT_BYTES_MAX.
    """
    if type_ is DocumentType.ROOT:
        return _root_document(payload, {_signer_header(signer): signature for signer, signature in signatures.items()})
    if len(signatures) != 1:
        raise TrustMalformed("a bundle and a delta have one signature")
    ((signer, signature),) = signatures.items()
    _check_length(signature)
    return _within_limit(
        _TAG_SIGN1 + _ARRAY_OF_4 + _bstr(_header(type_, signer)) + _EMPTY_MAP + _bstr(payload) + _bstr(signature)
    )


def countersign(envelope: Envelope, signer: Signer, signature: bytes) -> bytes:
    """A root document with this signer's 64-byte signature besides those that it bears, or in place of his last one.

    Signatures are not verified here. Raises TrustMalformed as `seal` does.
    """
    return _root_document(envelope.payload, {**dict(envelope.signatures), _signer_header(signer): signature})


def right_signers(envelope: Envelope, signers: Iterable[Signer]) -> frozenset[Signer]:
    """Those of these signers whose right signature the document bears. Raises AlgorithmMissing."""
    by_header = {
        _signer_header(signer) if envelope.type is DocumentType.ROOT else _header(envelope.type, signer): signer
        for signer in signers
    }
    return frozenset(
        signer
        for header, signature in envelope.signatures
        if (signer := by_header.get(header)) is not None
        and signature_is_right(
            signer.algorithm, signer.public, to_be_signed(envelope.type, envelope.payload, signer), signature
        )
    )


def _root_document(payload: bytes, signatures: Mapping[bytes, bytes]) -> bytes:
    if len(signatures) > SIGNATURES_MAX:
        raise TrustMalformed(f"a document has at most {SIGNATURES_MAX} signatures")
    for signature in signatures.values():
        _check_length(signature)
    ascending = sorted(signatures.items(), key=lambda item: item[0][-SIGNER_KID_BYTES:])
    head = _TAG_SIGN + _ARRAY_OF_4 + _bstr(_root_header()) + _EMPTY_MAP + _bstr(payload)
    return _within_limit(
        head
        + bytes([_ARRAY | len(ascending)])
        + b"".join(_ARRAY_OF_3 + _bstr(header) + _EMPTY_MAP + _bstr(signature) for header, signature in ascending)
    )


def _check_length(signature: bytes) -> None:
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise TrustMalformed(f"a signature of a document is not {SIGNATURE_BYTES} bytes")


def _within_limit(document: bytes) -> bytes:
    if len(document) > DOCUMENT_BYTES_MAX:
        raise TrustMalformed(f"a document has at most {DOCUMENT_BYTES_MAX} bytes; revoke whole orders")
    return document


class _Reader:
    """Takes bytes from the front of a trust file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.content):
            raise TrustTruncated("the trust file ends before its own lengths say; fetch it again")
        self.at += count
        return self.content[self.at - count : self.at]

    def expect(self, wanted: bytes) -> None:
        if self.take(len(wanted)) != wanted:
            raise TrustMalformed("this is not a trust file: an envelope is not in its one form")

    def bstr(self) -> bytes:
        """The next byte string (RFC 8949, 3.1, major type 2), whose length has the shortest form."""
        initial = self.take(1)[0]
        if initial & 0xE0 != _BSTR:
            raise TrustMalformed("this is not a trust file: where a byte string belongs there is none")
        count = initial & 0x1F
        if count >= 24:
            width = _HEAD_BYTES.get(count)
            if width is None:
                raise TrustMalformed("a byte string of a document has no definite length")
            count = int.from_bytes(self.take(width), "big")
            if count < (24 if width == 1 else 1 << (4 * width)):
                raise TrustMalformed("a length of a document is not in its shortest form")
        if count > DOCUMENT_BYTES_MAX:
            raise TrustMalformed(f"a document has at most {DOCUMENT_BYTES_MAX} bytes")
        return self.take(count)


def _document(reader: _Reader) -> Envelope:
    start = reader.at
    tag = reader.take(1)
    if tag == _TAG_SIGN1:
        reader.expect(_ARRAY_OF_4)
        header = reader.bstr()
        reader.expect(_EMPTY_MAP)
        payload, signature = reader.bstr(), reader.bstr()
        type_ = _type_of(header)
        signatures: tuple[tuple[bytes, bytes], ...] = ((header, signature),)
    elif tag == _TAG_SIGN[:1]:
        reader.expect(_TAG_SIGN[1:] + _ARRAY_OF_4)
        if reader.bstr() != _root_header():
            raise TrustMalformed("a document with several signatures is not a root document")
        reader.expect(_EMPTY_MAP)
        payload = reader.bstr()
        type_, signatures = DocumentType.ROOT, _signatures(reader)
    else:
        raise TrustMalformed("this is not a trust file: it does not begin as a COSE message does")
    for _, signature in signatures:
        _check_length(signature)
    raw = reader.content[start : reader.at]
    return Envelope(type_, payload, signatures, _within_limit(raw))


def _signatures(reader: _Reader) -> tuple[tuple[bytes, bytes], ...]:
    count = reader.take(1)[0] ^ _ARRAY
    if count > SIGNATURES_MAX:
        raise TrustMalformed(f"a root document does not have 0 to {SIGNATURES_MAX} signatures")
    signatures = []
    for _ in range(count):
        reader.expect(_ARRAY_OF_3)
        header = reader.bstr()
        reader.expect(_EMPTY_MAP)
        signatures.append((header, reader.bstr()))
    kids = [_kid_at_end(header, _SIGNER_HEADS) for header, _signature in signatures]
    if sorted(set(kids)) != kids:
        raise TrustMalformed("the signatures of a root document are not ascending by their signers")
    return tuple(signatures)


def _type_of(header: bytes) -> DocumentType:
    for type_, heads in _HEADS.items():
        if header[:-SIGNER_KID_BYTES] in heads:
            return type_
    raise TrustMalformed("a document is no bundle and no delta, or of an unknown algorithm; update this software")


def _kid_at_end(header: bytes, heads: frozenset[bytes]) -> bytes:
    if header[:-SIGNER_KID_BYTES] not in heads:
        raise TrustMalformed("a signature of a root document is of an unknown algorithm; update this software")
    return header[-SIGNER_KID_BYTES:]


# Protected headers are deterministic CBOR maps whose last value is the signer's kid: 1 algorithm, 3 content type, 4 kid
# (RFC 9052, 3.1). So a header is one of a few known heads, and 8 bytes.
def _head(fields: dict[int, object]) -> bytes:
    return cbor2.dumps({**fields, 4: bytes(SIGNER_KID_BYTES)})[:-SIGNER_KID_BYTES]


_HEADS: Final = {
    type_: frozenset(_head({1: int(algorithm), 3: str(type_)}) for algorithm in Algorithm)
    for type_ in (DocumentType.BUNDLE, DocumentType.DELTA)
}
_SIGNER_HEADS: Final = frozenset(_head({1: int(algorithm)}) for algorithm in Algorithm)


def _header(type_: DocumentType, signer: Signer) -> bytes:
    return _head({1: int(signer.algorithm), 3: str(type_)}) + signer.kid


def _signer_header(signer: Signer) -> bytes:
    return _head({1: int(signer.algorithm)}) + signer.kid


def _root_header() -> bytes:
    return cbor2.dumps({3: str(DocumentType.ROOT)})


def _sig_structure(context: str, headers: list[bytes], payload: bytes) -> bytes:
    return cbor2.dumps([context, *headers, b"", payload])


def _bstr(data: bytes) -> bytes:
    return cbor2.dumps(data)
