"""EPCIS documents in JSON, read event by event: the bytes of each stay as they were sent (EPCIS 2.0, 10; RFC 8259).

A document is walked, not parsed: of its events only their places are known till each is asked for, so that memory stays
flat whatever its size. JSON-LD 1.1 (9) wants the keys of an object unique, and so does this: what says two things about
one name would mean one here and the other to its next reader.
"""

import mmap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from msgspec import DecodeError, Raw, Struct, ValidationError
from msgspec.json import Decoder, Encoder

from scan_api.provenance import documents
from scan_api.provenance.documents import (
    EVENT_TYPES,
    EVENTS_PER_DOCUMENT_MAX,
    Document,
    DocumentFault,
    DocumentKind,
    EpcisDocumentInvalid,
)
from scan_api.provenance.event_values import Fault, FaultCode

Body = bytes | mmap.mmap

ENVELOPE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of a document without its list of events: contexts, header, master data."""
EVENT_BYTES_MAX: Final = 8 * 1024 * 1024
_LIST_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    DocumentKind.DOCUMENT: ("epcisBody", "eventList"),
    DocumentKind.QUERY_DOCUMENT: ("epcisBody", "queryResults", "resultsBody", "eventList"),
}


class _Counted(Struct, gc=False):
    """An event of which nothing is kept."""


class _ResultsBody(Struct, frozen=True):
    eventList: Raw = Raw()  # the standard's name


class _QueryResults(Struct, frozen=True):
    resultsBody: _ResultsBody = _ResultsBody()


class _EpcisBody(Struct, frozen=True):
    eventList: Raw = Raw()
    queryResults: _QueryResults = _QueryResults()


class _Outline(Struct, frozen=True):
    epcisBody: _EpcisBody = _EpcisBody()


_outline = Decoder(_Outline)
_fields = Decoder(dict[str, Raw])
_elements = Decoder(list[Raw])
_value = Decoder()
_encode = Encoder().encode


def read(body: Body) -> Document:
    """The envelope of a document, or of a single event; its events are `Raw`, for `parsed`.

    Raises EpcisDocumentInvalid: of the events' syntax, too, but for numbers without end and texts that are no UTF-8.
    """
    try:
        if len(body) > ENVELOPE_BYTES_MAX:
            _check_envelope(body)
        document = documents.read(_opened(body))
        return replace(document, events=(Raw(bytes(body)),)) if document.kind is DocumentKind.EVENT else document
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise EpcisDocumentInvalid(
            DocumentFault.NOT_AN_OBJECT, "", "The body is not JSON in UTF-8.", hint="XML has a content type of its own."
        ) from None


def _check_envelope(body: Body) -> None:
    """That what is beside the list of a large document is small, before anything is made of it."""
    try:
        inner = _outline.decode(body).epcisBody
        listed = max(_size(inner.eventList), _size(inner.queryResults.resultsBody.eventList))
    except ValidationError:
        listed = 0
    if len(body) - listed > ENVELOPE_BYTES_MAX:
        raise EpcisDocumentInvalid(
            DocumentFault.TOO_LARGE,
            "",
            f"Without its list of events it has more than {ENVELOPE_BYTES_MAX // 1024**2} MiB.",
            hint="Send master data by itself.",
        )


def _opened(body: Body) -> Any:
    try:
        fields = _fields.decode(body)
    except ValidationError:
        return _value.decode(body)
    kind = _value.decode(fields["type"]) if "type" in fields else None
    if isinstance(kind, str) and kind in EVENT_TYPES:
        return _value.decode(body)
    path = _LIST_PATHS.get(kind, ()) if isinstance(kind, str) else ()
    return _along(fields, path)


def _along(fields: Mapping[str, Raw], path: tuple[str, ...]) -> dict[str, object]:
    """The fields as values, but for the list at the end of the path, whose elements stay as they are."""
    opened: dict[str, object] = {}
    for name, raw in fields.items():
        try:
            if not path or name != path[0]:
                opened[name] = _value.decode(raw)
            elif len(path) > 1:
                opened[name] = _along(_fields.decode(raw), path[1:])
            else:
                opened[name] = _listed(raw)
        except ValidationError:
            # Not of the form that is wanted here, so that nothing of it is; numbers without end stand nowhere else.
            opened[name] = None
    return opened


def _listed(raw: Raw) -> list[Raw]:
    """The elements of the list; too many are refused before memory is taken for them."""
    if _size(raw) > ENVELOPE_BYTES_MAX or bytes(raw).count(b",") > EVENTS_PER_DOCUMENT_MAX:
        _count(raw)
    return _elements.decode(raw)


def _count(raw: Raw) -> None:
    count = 0

    class Counted(_Counted, gc=False):
        def __post_init__(self) -> None:
            nonlocal count
            count += 1
            if count > EVENTS_PER_DOCUMENT_MAX:
                raise ValueError("too many")

    try:
        Decoder(list[Counted]).decode(raw)
    except ValidationError:
        if count > EVENTS_PER_DOCUMENT_MAX:
            message = f"It has more than {EVENTS_PER_DOCUMENT_MAX:,} events."
            raise EpcisDocumentInvalid(DocumentFault.TOO_MANY_EVENTS, "/epcisBody", message) from None
        message = "It has elements that are no objects."
        raise EpcisDocumentInvalid(DocumentFault.EVENTS_MISSING, "/epcisBody", message) from None


def _size(raw: Raw) -> int:
    return memoryview(raw).nbytes


def parsed(raw: Raw) -> tuple[object, str] | Fault:
    """An event of a list, and the very text as which it was sent; a Fault where it cannot be read."""
    sent = bytes(raw)
    if len(sent) > EVENT_BYTES_MAX:
        return Fault(FaultCode.TOO_LARGE, "", f"An event has at most {EVENT_BYTES_MAX // 1024**2} MiB.")
    try:
        event, text = _value.decode(sent), sent.decode()
        if says_twice(sent, event):
            return Fault(FaultCode.DUPLICATE, "", "An object in it has the same name twice.")
    except RecursionError:
        return Fault(FaultCode.TOO_DEEP, "", "It nests too deep.")
    except UnicodeDecodeError:
        return Fault(FaultCode.TEXT_INVALID, "", "Its text is not UTF-8.")
    except DecodeError:
        return Fault(FaultCode.NUMBER_INVALID, "", "A number of it is finite and not so large.")
    return event, text


def says_twice(sent: bytes, event: object) -> bool:
    """Whether an object in what was sent has a name twice: then what was understood of it has fewer texts."""
    return _quotes(sent) != _quotes(_encode(event))


def _quotes(written: bytes) -> int:
    """The quotes around texts, without those in them."""
    if b"\\" not in written:
        return written.count(b'"')
    unescaped = written.replace(b"\\\\", b"")
    return unescaped.count(b'"') - unescaped.count(b'\\"')
