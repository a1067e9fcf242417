"""EPCIS documents in XML, 1.0 to 1.2 and 2.0, as the JSON form of the same events (EPCIS 2.0, 9 and 10).

The parser is expat with a handler for each construct that may stand in a document; a document type declaration is
refused where it begins, so that there are no entities, defaults or external parts. Each event becomes JSON when it
ends: what is held at once is one event's elements.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from xml.parsers import expat

from scan_api.provenance import vocabulary
from scan_api.provenance.documents import (
    CONTEXT_ENTRIES_MAX,
    EVENTS_PER_DOCUMENT_MAX,
    SCHEMES,
    STANDARD,
    STANDARD_CONTEXT,
    URI_CHARACTERS_MAX,
    Context,
    Document,
    DocumentFault,
    DocumentKind,
    EpcisDocumentInvalid,
    is_moment,
)

ELEMENT_DEPTH_MAX = 64
CHUNK_BYTES = 1 << 16
EVENTS_AT = "/epcisBody/eventList"

_KINDS = {"EPCISDocument": DocumentKind.DOCUMENT, "EPCISQueryDocument": DocumentKind.QUERY_DOCUMENT}
_VERSION = re.compile(r"1(\.[0-2])?|2\.0(\.[0-9]{1,3})?")
_STANDARD_SPACES = re.compile(r"urn:epcglobal:epcis(-query|-masterdata)?:xsd:[12]|")
_SEPARATOR = "\x01"
"""Between the parts of a name, as expat tells it: no character of XML."""
_SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_WRAPPERS = frozenset({"extension", "baseExtension"})
_SKIPPED = frozenset({"StandardBusinessDocumentHeader"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")

_Json = dict[str, object]


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


class _Element:
    __slots__ = ("attributes", "children", "local", "name", "text")

    def __init__(self, name: str, local: str, attributes: dict[str, str]) -> None:
        self.name = name
        """As a property: bare for the standard's own, `prefix:local` for others."""
        self.local = local
        self.attributes = attributes
        self.children: list[_Element] = []
        self.text: list[str] = []

    def content(self) -> str:
        return "".join(self.text).strip()

    def standard(self) -> "Iterator[_Element]":
        """The children, with those of the wrappers by which EPCIS 1.x made room for later fields."""
        for child in self.children:
            if child.name in _WRAPPERS:
                yield from child.standard()
            else:
                yield child


def read(body: bytes) -> Document:
    """The document as JSON: its events have the fields, types and bare words of the JSON binding.

    Extensions keep their prefixes, which the document's context declares; attributes are properties beside a `#text`.
    Raises EpcisDocumentInvalid; the events themselves are not checked.
    """
    events: list[_Json] = []
    reader = _Reader(events.append)
    reader.feed(body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES))
    return reader.document(events)


def convert(chunks: Iterable[bytes], write: Callable[[bytes], object]) -> None:
    """Write the document in JSON, event by event, its contexts last: only there are they known.

    Raises EpcisDocumentInvalid.
    """
    write(b'{"type":"EPCISDocument","schemaVersion":"2.0","epcisBody":{"eventList":[')
    separator = b""

    def take(event: _Json) -> None:
        nonlocal separator
        write(separator + _encode(event))
        separator = b","

    reader = _Reader(take)
    reader.feed(chunks)
    document = reader.document([])
    names = {uri: prefix for prefix, uri in document.context.prefixes.items()}
    ignored = [
        f"{names[space]}:{local}"
        for name in document.context.ignored - STANDARD.ignored
        for space, _, local in [name[1:].partition("}")]
    ]
    rest = {
        "creationDate": document.created_at or "1970-01-01T00:00:00Z",
        "@context": document.declared,
        **({f"{ignored[0].partition(':')[0]}:ignoreFields": ignored} if ignored else {}),
    }
    write(b"]}," + _encode(rest)[1:])


class _Reader:
    def __init__(self, take: Callable[[_Json], object]) -> None:
        self.take = take
        self.parser = parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartNamespaceDeclHandler = self._namespace
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        self.kind: DocumentKind | None = None
        self.created_at: str | None = None
        self.prefixes: dict[str, str] = {}
        self.spaces: dict[str, str] = {}
        self.events = 0
        self.ignored: set[str] = set()
        self.header: _Json | None = None
        self.depth = 0
        self.list_depth = 0
        self.skipped_depth = 0
        self.has_list = False
        self.open: list[_Element] = []

    def feed(self, chunks: Iterable[bytes]) -> None:
        try:
            for chunk in chunks:
                self.parser.Parse(chunk, False)
            self.parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise EpcisDocumentInvalid(DocumentFault.XML_MALFORMED, "", f"It is no XML: {error}.") from None
        except (ValueError, LookupError):  # an encoding that expat leaves to Python, and that is none of one byte
            raise EpcisDocumentInvalid(
                DocumentFault.XML_MALFORMED, "", "Its encoding is not read.", hint="Send UTF-8."
            ) from None

    def document(self, events: Sequence[object]) -> Document:
        if self.kind is None or not self.has_list:
            raise EpcisDocumentInvalid(DocumentFault.EVENTS_MISSING, EVENTS_AT, "There is no list of events.")
        context = Context(
            MappingProxyType({**STANDARD.prefixes, **self.prefixes}), ignored=STANDARD.ignored | self.ignored
        )
        added = {name: uri for name, uri in self.prefixes.items() if STANDARD.prefixes.get(name) != uri}
        declared = [STANDARD_CONTEXT, *([added] if added else [])]
        return Document(self.kind, context, events, EVENTS_AT, self.created_at, self.header, declared)

    def _doctype(self, *_: object) -> None:
        raise EpcisDocumentInvalid(DocumentFault.XML_FORBIDDEN, "", "It has a document type declaration.")

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        if uri and len(uri) > URI_CHARACTERS_MAX:
            # Before anything else: the parser hands it out anew with every element.
            raise EpcisDocumentInvalid(
                DocumentFault.CONTEXT_INVALID, "", f"A namespace has at most {URI_CHARACTERS_MAX} characters."
            )
        if not uri or uri in self.spaces or uri == _SCHEMA_INSTANCE or _STANDARD_SPACES.fullmatch(uri):
            return
        if len(self.spaces) >= CONTEXT_ENTRIES_MAX:
            raise EpcisDocumentInvalid(
                DocumentFault.CONTEXT_INVALID, "", f"It declares more than {CONTEXT_ENTRIES_MAX} namespaces."
            )
        # A prefix may mean one thing here and another there; in JSON it has one meaning.
        name, number = prefix or "ns", 1
        while name in SCHEMES or self.prefixes.get(name, uri) != uri:
            number += 1
            name = f"{prefix or 'ns'}{number}"
        self.prefixes[name] = uri
        self.spaces[uri] = name

    def _named(self, name: str) -> tuple[str, str]:
        """The property that a name is, empty for one that says nothing (xsi:type), and the name's local part."""
        uri, local, prefix = (*name.split(_SEPARATOR), "", "")[:3] if _SEPARATOR in name else ("", name, "")
        if _STANDARD_SPACES.fullmatch(uri):
            return local, local
        if uri not in self.spaces:  # `xml` alone is bound without being declared
            self._namespace(prefix, uri)
        return f"{self.spaces[uri]}:{local}" if uri in self.spaces else "", local

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > ELEMENT_DEPTH_MAX:
            raise EpcisDocumentInvalid(
                DocumentFault.XML_TOO_DEEP, "", f"Its elements nest more than {ELEMENT_DEPTH_MAX} levels deep."
            )
        if self.skipped_depth:
            return
        full, local = self._named(name)
        if self.depth == 1:
            self._root(full, {self._named(key)[0]: value for key, value in attributes.items()})
        elif self.open or self._begins(full, local):
            named = {self._named(key)[0]: value for key, value in attributes.items()}
            named.pop("", None)
            element = _Element(full, local, named)
            if self.open:
                self.open[-1].children.append(element)
            self.open.append(element)

    def _begins(self, full: str, local: str) -> bool:
        """Whether this element is one to be kept whole: an event, master data, or what hashes leave out."""
        if self.list_depth:
            return full not in _WRAPPERS
        if full == "EventList":
            self.list_depth = self.depth
            self.has_list = True
        elif local in _SKIPPED:
            self.skipped_depth = self.depth
        return full == "EPCISMasterData" or (local == "ignoreFields" and full != local)

    def _root(self, full: str, attributes: Mapping[str, str]) -> None:
        self.kind = _KINDS.get(full)
        if self.kind is None:
            raise EpcisDocumentInvalid(
                DocumentFault.KIND_UNKNOWN,
                "",
                "Its root is EPCISDocument or EPCISQueryDocument of GS1's namespaces.",
            )
        if _VERSION.fullmatch(attributes.get("schemaVersion", "")) is None:
            raise EpcisDocumentInvalid(
                DocumentFault.VERSION_UNSUPPORTED, "/schemaVersion", "It is 1.0, 1.1, 1.2 or 2.0."
            )
        self.created_at = attributes.get("creationDate")
        if self.created_at is not None and not is_moment(self.created_at):
            raise EpcisDocumentInvalid(
                DocumentFault.CREATION_DATE_INVALID, "/creationDate", "It is a time with its zone."
            )

    def _characters(self, data: str) -> None:
        if self.open:
            self.open[-1].text.append(data)

    def _end(self, _: str) -> None:
        if self.open:
            element = self.open.pop()
            if not self.open:
                self._kept(element)
        elif self.depth == self.list_depth:
            self.list_depth = 0
        elif self.depth == self.skipped_depth:
            self.skipped_depth = 0
        self.depth -= 1

    def _kept(self, element: _Element) -> None:
        if self.list_depth:
            self.events += 1
            if self.events > EVENTS_PER_DOCUMENT_MAX:
                raise EpcisDocumentInvalid(
                    DocumentFault.TOO_MANY_EVENTS, EVENTS_AT, f"It has more than {EVENTS_PER_DOCUMENT_MAX} events."
                )
            self.take(_event(element))
        elif element.name == "EPCISMasterData":
            self.header = {"epcisMasterData": _master_data(element)}
        else:
            for child in element.children:
                prefix, colon, local = child.name.partition(":")
                if colon:
                    self.ignored.add(f"{{{self.prefixes[prefix]}}}{local}")


# Elements as the JSON binding has them (EPCIS 2.0, 10.2).


def _event(element: _Element) -> _Json:
    event: _Json = {"type": element.name}
    for child in element.standard():
        convert = _FIELDS.get(child.name, _extension)
        _put(event, child.name, convert(child))
    return event


def _put(holder: _Json, name: str, value: object) -> None:
    """Set a property; what comes again makes a list of it."""
    if name not in holder:
        holder[name] = value
        return
    present = holder[name]
    if isinstance(present, list):
        present.append(value)
    else:
        holder[name] = [present, value]


def _extension(element: _Element) -> object:
    content = element.content()
    if not element.children and not element.attributes:
        return content
    value: _Json = dict(element.attributes)
    for child in element.children:
        _put(value, child.name, _extension(child))
    if content:
        value["#text"] = content
    return value


def _text(element: _Element) -> object:
    # An element where a text belongs stays one, for the rules to refuse.
    return _extension(element) if element.children else element.content()


def _word(words: Mapping[str, str]) -> Callable[[_Element], object]:
    return lambda element: vocabulary.bare_word(element.content(), words)


def _number(text: str) -> object:
    text = text.strip()
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        return float(text) if "_" not in text else text
    except ValueError:
        return text


def _boolean(text: str) -> object:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.strip(), text)


def _texts(element: _Element) -> list[object]:
    return [_text(child) for child in element.standard()]


def _fields(table: Mapping[str, Callable[[_Element], object]]) -> Callable[[_Element], _Json]:
    def convert(element: _Element) -> _Json:
        value: _Json = dict(element.attributes)
        for child in element.standard():
            _put(value, child.name, table.get(child.name, _extension)(child))
        return value

    return convert


_extensions_of = _fields({})


def _each(convert: Callable[[_Element], object]) -> Callable[[_Element], list[object]]:
    return lambda element: [convert(child) for child in element.standard()]


def _typed(name: str, words: Mapping[str, str]) -> Callable[[_Element], _Json]:
    """`<source type="…">…</source>` as `{"type": …, "source": …}`."""

    def convert(element: _Element) -> _Json:
        value: _Json = dict(element.attributes)
        if "type" in value:
            value["type"] = vocabulary.bare_word(element.attributes["type"].strip(), words)
        value[name] = element.content()
        return value

    return convert


def _sensor_report(element: _Element) -> _Json:
    value = _extensions_of(element)
    for name, text in element.attributes.items():
        if name in _SENSOR_WORDS:
            value[name] = vocabulary.bare_word(text.strip(), _SENSOR_WORDS[name])
        elif name in _SENSOR_NUMBERS:
            value[name] = _number(text)
        elif name == "booleanValue":
            value[name] = _boolean(text)
    return value


def _sensor_element(element: _Element) -> _Json:
    value: _Json = dict(element.attributes)
    reports: list[_Json] = []
    for child in element.standard():
        if child.name == "sensorReport":
            reports.append(_sensor_report(child))
        elif child.name == "sensorMetadata":
            value[child.name] = _extensions_of(child)
        else:
            _put(value, child.name, _extension(child))
    value["sensorReport"] = reports
    return value


def _master_data(element: _Element) -> _Json:
    """EPCISMasterData (EPCIS 2.0, 9.4) as its JSON form."""
    lists = [child for child in element.standard() if child.name == "VocabularyList"]
    vocabularies = [item for child in lists for item in child.standard() if item.name == "Vocabulary"]
    return {"vocabularyList": [_vocabulary(item) for item in vocabularies]}


def _vocabulary(element: _Element) -> _Json:
    lists = [child for child in element.standard() if child.name == "VocabularyElementList"]
    return {
        **element.attributes,
        "vocabularyElementList": [_member(item) for inner in lists for item in inner.children],
    }


def _member(element: _Element) -> _Json:
    value: _Json = dict(element.attributes)
    attributes = [
        {"id": child.attributes.get("id", ""), "attribute": child.content() or _extension(child)}
        for child in element.children
        if child.name == "attribute"
    ]
    if attributes:
        value["attributes"] = attributes
    children = [item.content() for child in element.children if child.name == "children" for item in child.children]
    if children:
        value["children"] = children
    return value


_SENSOR_WORDS = {
    "type": vocabulary.MEASUREMENTS,
    "exception": vocabulary.SENSOR_ALERTS,
    "component": vocabulary.COMPONENTS,
}
_SENSOR_NUMBERS = frozenset({"value", "minValue", "maxValue", "meanValue", "sDev", "percRank", "percValue"})
_DISPOSITION = _word(vocabulary.DISPOSITIONS)
_QUANTITIES = _each(_fields({"epcClass": _text, "quantity": lambda element: _number(element.content()), "uom": _text}))
_PLACE = _fields({"id": _text})


def _persistent_disposition(element: _Element) -> _Json:
    value: _Json = {}
    for child in element.standard():
        words = value.setdefault(child.name, [])
        if isinstance(words, list):
            words.append(_DISPOSITION(child))
    return value


_FIELDS: Mapping[str, Callable[[_Element], object]] = {
    **dict.fromkeys(
        (
            "eventTime",
            "recordTime",
            "eventTimeZoneOffset",
            "eventID",
            "certificationInfo",
            "action",
            "parentID",
            "transformationID",
        ),
        _text,
    ),
    **dict.fromkeys(("epcList", "childEPCs", "inputEPCList", "outputEPCList"), _texts),
    **dict.fromkeys(("quantityList", "childQuantityList", "inputQuantityList", "outputQuantityList"), _QUANTITIES),
    "bizStep": _word(vocabulary.BUSINESS_STEPS),
    "disposition": _DISPOSITION,
    "persistentDisposition": _persistent_disposition,
    "readPoint": _PLACE,
    "bizLocation": _PLACE,
    "bizTransactionList": _each(_typed("bizTransaction", vocabulary.TRANSACTION_TYPES)),
    "sourceList": _each(_typed("source", vocabulary.SOURCE_DESTINATION_TYPES)),
    "destinationList": _each(_typed("destination", vocabulary.SOURCE_DESTINATION_TYPES)),
    "sensorElementList": _each(_sensor_element),
    "ilmd": _extensions_of,
    "errorDeclaration": _fields(
        {"declarationTime": _text, "reason": _word(vocabulary.ERROR_REASONS), "correctiveEventIDs": _texts}
    ),
}
