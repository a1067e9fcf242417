"""EPCIS documents in JSON: their kind, their contexts and their events, one by one (EPCIS 2.0, 10; JSON-LD 1.1, 4.1).

Nothing here copies or changes an event: what was sent is what is stored and answered.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from kit.clock import YEAR_END, YEAR_MIN
from kit.errors import Invalid
from scan_api.provenance.vocabulary import STANDARD_PREFIXES

EVENTS_PER_DOCUMENT_MAX = 100_000
CONTEXT_ENTRIES_MAX = 1_000
CONTEXTS_KEPT_MAX = 64
"""How many different contexts of single events a document's context keeps ready."""
NAMES_KEPT_MAX = 10_000
KEPT_CHARACTERS_MAX = 256
"""What is longer is worked out each time: it would cost more memory than it saves time."""
URI_CHARACTERS_MAX = 2_048
"""The scheme and its colon have at most 65 of them."""
NAME_CHARACTERS_SHOWN_MAX = 60
CONTEXT_LEVELS_MAX = 16
SCHEMES = frozenset({"http", "https", "ni", "urn"})
"""No prefixes: identifiers begin with them."""
SCHEMA_VERSION = "2.0"
STANDARD_CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"

_STANDARD_CONTEXTS = ("https://ref.gs1.org/standards/epcis/", "https://gs1.github.io/EPCIS/")
_COMMENT = "{http://www.w3.org/2000/01/rdf-schema#}comment"
# The characters of RFC 3986, and of RFC 3987 beyond ASCII but for spaces, marks of direction and surrogates.
_URI = re.compile(
    f"[A-Za-z][A-Za-z0-9+.-]{{0,63}}:[!#-;=?-\\[\\]_a-z~\xa1-\u1fff\u2030-\u2fff\u3001-\ud7ff\uf900-\U000effff]"
    f"{{1,{URI_CHARACTERS_MAX - 65}}}"
)
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})")
_FIELDS = frozenset(
    {"@context", "id", "type", "schemaVersion", "creationDate", "epcisHeader", "epcisBody"}
    | {"instanceIdentifier", "sender", "receiver"}
)
_VERSION = re.compile(r"2\.0(\.[0-9]{1,3})?")

is_uri = _URI.fullmatch
"""Whether a text has the form of an absolute URI or of a CURIE (RFC 3986, 4.3), with letters beyond ASCII as in an IRI.

A match or None: every event asks this for each of its identifiers, so that a frame of its own would be felt.
"""


class DocumentFault(StrEnum):
    """Why a document is refused as a whole."""

    NOT_AN_OBJECT = "not_an_object"
    KIND_UNKNOWN = "kind_unknown"
    FIELD_UNKNOWN = "field_unknown"
    VERSION_UNSUPPORTED = "version_unsupported"
    CREATION_DATE_INVALID = "creation_date_invalid"
    CONTEXT_MISSING = "context_missing"
    CONTEXT_INVALID = "context_invalid"
    EVENTS_MISSING = "events_missing"
    TOO_MANY_EVENTS = "too_many_events"
    TOO_LARGE = "too_large"
    HEADER_INVALID = "header_invalid"
    XML_MALFORMED = "xml_malformed"
    XML_FORBIDDEN = "xml_forbidden"
    XML_TOO_DEEP = "xml_too_deep"


class EpcisDocumentInvalid(Invalid):
    """`fault` says why, `pointer` (RFC 6901) where in the document."""

    code = "EpcisDocumentInvalid"

    def __init__(self, fault: DocumentFault, pointer: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{pointer or 'The document'}: {message}", hint=hint)
        self.fault = fault
        self.pointer = pointer


class DocumentKind(StrEnum):
    """The three things that a capture takes."""

    DOCUMENT = "EPCISDocument"
    QUERY_DOCUMENT = "EPCISQueryDocument"
    EVENT = "Event"


EVENT_TYPES = frozenset(
    {"ObjectEvent", "AggregationEvent", "TransactionEvent", "TransformationEvent", "AssociationEvent"}
)


@dataclass(frozen=True, slots=True)
class Context:
    """What names mean in a document, or in one event that declares more.

    `prefixes` gives each prefix its namespace, `terms` each bare name its full one. `is_open` where the document names
    a context that is fetched from elsewhere: nothing is fetched here, so that any prefix may be declared there.
    `ignored` are the names, as `{namespace}local`, that are left out of event hashes.
    """

    prefixes: Mapping[str, str]
    terms: Mapping[str, str] = field(default_factory=dict)
    is_open: bool = False
    ignored: frozenset[str] = frozenset({_COMMENT})
    names: dict[str, str | None] = field(default_factory=dict, compare=False, repr=False)
    values: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Canonical forms already worked out, by `event_hash`."""
    events: dict[str, "Context"] = field(default_factory=dict, compare=False, repr=False)

    def expanded(self, name: str) -> str | None:
        """A property's name as `{namespace}local`; None where it has no declared prefix and is no full URI.

        In an open context a name of an unknown prefix stays as it is.
        """
        try:
            return self.names[name]
        except KeyError:
            expanded = self._expand(name)
        if len(self.names) < NAMES_KEPT_MAX and len(name) <= KEPT_CHARACTERS_MAX:
            self.names[name] = expanded
        return expanded

    def _expand(self, name: str) -> str | None:
        if name in self.terms:
            return _in_braces(self.terms[name])
        prefix, colon, local = name.partition(":")
        if not colon or not local:
            return None
        if local.startswith("//") or prefix == "urn":
            return _in_braces(name) if is_uri(name) else None
        if prefix in self.prefixes:
            return f"{{{self.prefixes[prefix]}}}{local}"
        return name if self.is_open and is_uri(name) else None

    def of_event(self, event: Mapping[str, object]) -> "Context":
        """The context of an event: this, and what the event itself declares; raises EpcisDocumentInvalid."""
        if "@context" not in event:
            return self
        declared = event["@context"]
        key = repr(declared)
        kept = self.events.get(key)
        if kept is None:
            kept = _extended(self, declared, "/@context")
            if len(self.events) < CONTEXTS_KEPT_MAX:
                self.events[key] = kept
        return kept


STANDARD = Context(prefixes=STANDARD_PREFIXES)


@dataclass(frozen=True, slots=True)
class Document:
    """A document's envelope and its events, which are the very objects that were read, or `msgspec.Raw` unread.

    `header` is `epcisHeader` as sent, master data and all. `events_at` is the pointer of the event list, empty where
    the document is one event.
    """

    kind: DocumentKind
    context: Context
    events: Sequence[object]
    events_at: str
    created_at: str | None = None
    header: Mapping[str, object] | None = None
    declared: object = None
    """Its `@context`, as it was sent."""

    def pointer(self, index: int) -> str:
        """The JSON pointer of an event, from 0."""
        return f"{self.events_at}/{index}" if self.events_at else ""

    def located(self) -> Iterator[tuple[str, object]]:
        """Each event with its pointer; what stands in the list need not be an object yet."""
        return ((self.pointer(index), event) for index, event in enumerate(self.events))


def moment_of(text: str) -> datetime | None:
    """An xsd:dateTimeStamp (with zone) of the years 1970 to 2199 that exists in the calendar; None for other texts."""
    if _MOMENT.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if YEAR_MIN <= moment.year < YEAR_END else None


def is_moment(text: str) -> bool:
    """Whether a text is such a time."""
    return moment_of(text) is not None


def read(body: object) -> Document:
    """The envelope of a document, or of a single event, given as parsed JSON.

    The events themselves are not looked at: `event_rules.check` does. Raises EpcisDocumentInvalid.
    """
    if not isinstance(body, dict):
        raise EpcisDocumentInvalid(DocumentFault.NOT_AN_OBJECT, "", "An EPCIS document is a JSON object.")
    kind = body.get("type")
    if isinstance(kind, str) and kind in EVENT_TYPES:
        return Document(DocumentKind.EVENT, _declared(body), (body,), "", declared=body.get("@context"))
    if kind == DocumentKind.DOCUMENT:
        return _document(body)
    if kind == DocumentKind.QUERY_DOCUMENT:
        return _query_document(body)
    raise EpcisDocumentInvalid(
        DocumentFault.KIND_UNKNOWN,
        "/type",
        "It is EPCISDocument, EPCISQueryDocument or one of the five event types.",
        hint="Documents of EPCIS 1.x are taken as XML.",
    )


def _document(body: Mapping[str, object]) -> Document:
    _check_fields(body)
    _check_version(body.get("schemaVersion"))
    created_at = _created_at(body.get("creationDate"))
    header = body.get("epcisHeader")
    if header is not None and not isinstance(header, dict):
        raise EpcisDocumentInvalid(DocumentFault.HEADER_INVALID, "/epcisHeader", "It is an object.")
    events, events_at = _event_list(_inner(body, "epcisBody", ""), "/epcisBody")
    return Document(DocumentKind.DOCUMENT, _declared(body), events, events_at, created_at, header, body["@context"])


def _query_document(body: Mapping[str, object]) -> Document:
    _check_fields(body)
    if "schemaVersion" in body:
        _check_version(body["schemaVersion"])
    created_at = _created_at(body["creationDate"]) if "creationDate" in body else None
    results = _inner(_inner(body, "epcisBody", ""), "queryResults", "/epcisBody")
    if not isinstance(results.get("queryName"), str):
        raise EpcisDocumentInvalid(DocumentFault.EVENTS_MISSING, "/epcisBody/queryResults/queryName", "It is a text.")
    inner = _inner(results, "resultsBody", "/epcisBody/queryResults")
    events, events_at = _event_list(inner, "/epcisBody/queryResults/resultsBody")
    context = _ignoring(_declared(body), results)
    return Document(DocumentKind.QUERY_DOCUMENT, context, events, events_at, created_at, None, body["@context"])


def _check_fields(body: Mapping[str, object]) -> None:
    for name in body.keys() - _FIELDS:
        if is_uri(name) is None:
            raise EpcisDocumentInvalid(
                DocumentFault.FIELD_UNKNOWN,
                f"/{name[:NAME_CHARACTERS_SHOWN_MAX]}",
                "A document has no such field; fields of your own have a prefix.",
            )


def _created_at(value: object) -> str:
    if isinstance(value, str) and is_moment(value):
        return value
    raise EpcisDocumentInvalid(
        DocumentFault.CREATION_DATE_INVALID, "/creationDate", "It is a time with its zone, such as …T10:00:00Z."
    )


def _check_version(version: object) -> None:
    if not isinstance(version, str) or _VERSION.fullmatch(version) is None:
        raise EpcisDocumentInvalid(
            DocumentFault.VERSION_UNSUPPORTED,
            "/schemaVersion",
            f'It is "{SCHEMA_VERSION}", a string.',
            hint="EPCIS 1.x has no JSON form; send it as XML.",
        )


def _inner(body: Mapping[str, object], name: str, pointer: str) -> Mapping[str, object]:
    inner = body.get(name)
    if not isinstance(inner, dict):
        raise EpcisDocumentInvalid(DocumentFault.EVENTS_MISSING, f"{pointer}/{name}", "There is no such object.")
    return inner


def _event_list(body: Mapping[str, object], pointer: str) -> tuple[list[object], str]:
    events = body.get("eventList")
    pointer += "/eventList"
    if not isinstance(events, list):
        raise EpcisDocumentInvalid(DocumentFault.EVENTS_MISSING, pointer, "There is no list of events.")
    if len(events) > EVENTS_PER_DOCUMENT_MAX:
        raise EpcisDocumentInvalid(
            DocumentFault.TOO_MANY_EVENTS,
            pointer,
            f"It has {len(events)} events; a document has at most {EVENTS_PER_DOCUMENT_MAX}.",
        )
    return events, pointer


def _declared(body: Mapping[str, object]) -> Context:
    if "@context" not in body:
        raise EpcisDocumentInvalid(
            DocumentFault.CONTEXT_MISSING,
            "/@context",
            "There is none.",
            hint="Declare https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld and your own prefixes.",
        )
    return _ignoring(_extended(STANDARD, body["@context"], "/@context"), body)


def _ignoring(context: Context, holder: Mapping[str, object]) -> Context:
    """The context without the extensions that a repository added and says to leave out of hashes.

    `"x:ignoreFields": ["x:hash", …]` is a practice of the hash's authors (reference generator, issue 109), no part of
    the CBV. Only extensions can be named: what the standard defines is always hashed.
    """
    ignored = {
        name
        for key, listed in holder.items()
        if key.endswith(":ignoreFields") and isinstance(listed, list)
        for item in listed
        if isinstance(item, str) and (name := context.expanded(item)) is not None
    }
    if not ignored:
        return context
    return Context(context.prefixes, context.terms, context.is_open, context.ignored | ignored)


def _extended(context: Context, declared: object, pointer: str) -> Context:
    """A context with what an `@context` adds: a text, an object, or a list of these (JSON-LD 1.1, 9.15)."""
    prefixes, terms = dict(context.prefixes), dict(context.terms)
    is_open = context.is_open
    entries = declared if isinstance(declared, list) else [declared]
    _check_levels(declared, pointer)
    if sum(len(entry) if isinstance(entry, dict) else 1 for entry in entries) > CONTEXT_ENTRIES_MAX:
        raise EpcisDocumentInvalid(
            DocumentFault.CONTEXT_INVALID, pointer, f"It declares more than {CONTEXT_ENTRIES_MAX} names."
        )
    for entry in entries:
        if isinstance(entry, str):
            is_open = is_open or not entry.startswith(_STANDARD_CONTEXTS)
        elif isinstance(entry, dict):
            _declare(entry, prefixes, terms)
        else:
            raise EpcisDocumentInvalid(DocumentFault.CONTEXT_INVALID, pointer, "It is a URI, an object or a list.")
    return Context(MappingProxyType(prefixes), MappingProxyType(terms), is_open, context.ignored)


def _check_levels(declared: object, pointer: str) -> None:
    level = [declared]
    for _ in range(CONTEXT_LEVELS_MAX):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise EpcisDocumentInvalid(
        DocumentFault.CONTEXT_INVALID, pointer, f"It nests more than {CONTEXT_LEVELS_MAX} levels deep."
    )


def _inside(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _declare(entry: Mapping[str, object], prefixes: dict[str, str], terms: dict[str, str]) -> None:
    """Add what one object declares. Its order says nothing: what a definition is made of comes first (JSON-LD 1.1
    API, 4.2).
    """
    told: dict[str, str] = {}
    for name, definition in entry.items():
        uri = definition.get("@id") if isinstance(definition, dict) else definition
        if name in SCHEMES:
            raise EpcisDocumentInvalid(
                DocumentFault.CONTEXT_INVALID, "/@context", f"{name} begins identifiers, and is no prefix."
            )
        if not name.startswith("@") and isinstance(uri, str):
            told[name] = uri
    done: set[str] = set()
    for name in told:
        for one in _made_of(name, told, done):
            _define(one, told[one], prefixes, terms)
            done.add(one)


def _made_of(name: str, told: Mapping[str, str], done: Collection[str]) -> list[str]:
    """The name and what its definition is made of, as far as that is not done, in the order in which it can be."""
    chain: dict[str, None] = {}
    while name in told and name not in done:
        if name in chain:
            raise EpcisDocumentInvalid(
                DocumentFault.CONTEXT_INVALID,
                "/@context",
                f"{name[:NAME_CHARACTERS_SHOWN_MAX]} is defined by itself.",
                hint="Give one of the prefixes in the circle its full URI.",
            )
        chain[name] = None
        name, colon, local = told[name].partition(":")
        if not colon or local.startswith("//"):
            break
    return list(reversed(chain))


def _define(name: str, uri: str, prefixes: dict[str, str], terms: dict[str, str]) -> None:
    prefix, colon, local = uri.partition(":")
    if colon and prefix in prefixes and not local.startswith("//"):
        uri = prefixes[prefix] + local
    if not is_uri(uri):
        return
    if ":" not in name:
        prefixes[name] = uri
    terms[name] = uri


def _in_braces(uri: str) -> str:
    cut = max(uri.rfind("/"), uri.rfind("#"), uri.rfind(":")) + 1
    return f"{{{uri[:cut]}}}{uri[cut:]}"
