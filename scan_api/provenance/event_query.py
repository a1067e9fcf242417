"""The simple event query: what EPCIS 2.0's parameters ask for (8.2.7.1). `event_search` finds it.

Values of one parameter are alternatives, parameters must all hold. A list is a parameter that comes several times, or
values between bars. Whatever names a thing or a word is compared by its one name.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, true
from sqlmodel import col

from codes.epc_uri import EpcUriInvalid, epc_pattern
from kit.errors import Conflict, Invalid
from scan_api import paging
from scan_api.provenance import vocabulary
from scan_api.provenance.documents import EVENT_TYPES, STANDARD, Context, EpcisDocumentInvalid, is_moment, is_uri
from scan_api.provenance.event_fields import Test
from scan_api.provenance.event_tests import TEST_NAME, field_parameter, plain_parameter
from scan_api.provenance.locations import Below, Described
from scan_api.provenance.parties import EventParty
from scan_api.provenance.repository import EpcisEvent, EventThing
from scan_api.provenance.thing_sets import ThingSet
from scan_api.provenance.things import Part, name_of

PER_PAGE_DEFAULT, PER_PAGE_MAX = 30, 1_000
VALUES_MAX = 100
"""Of one parameter."""
VALUE_CHARACTERS_MAX = 4_096
PARAMETERS_MAX = 60
COUNT_MAX = 1_000_000
LIST_NAME: Final = "epcis-events"
NAME_CHARACTERS_SHOWN_MAX: Final = 60
_ACTIONS: Final = ("ADD", "OBSERVE", "DELETE")
_LISTS: Final = (Part.EPC, Part.CHILD)
ANY_EPC: Final = (Part.EPC, Part.CHILD, Part.PARENT, Part.INPUT, Part.OUTPUT)
"""The parts in which single things are named."""
_CLASSES: Final = (Part.EPC_CLASS, Part.CHILD_CLASS)
_PARTS: Final[Mapping[str, tuple[Part, ...]]] = {
    "MATCH_epc": _LISTS,
    "MATCH_parentID": (Part.PARENT,),
    "MATCH_inputEPC": (Part.INPUT,),
    "MATCH_outputEPC": (Part.OUTPUT,),
    "MATCH_anyEPC": ANY_EPC,
    "MATCH_epcClass": _CLASSES,
    "MATCH_inputEPCClass": (Part.INPUT_CLASS,),
    "MATCH_outputEPCClass": (Part.OUTPUT_CLASS,),
    "MATCH_anyEPCClass": (*_CLASSES, Part.INPUT_CLASS, Part.OUTPUT_CLASS),
}
_ATTRIBUTE: Final = re.compile(r"(?:EQATTR|EQ_ATTR)_(readPoint|bizLocation)_(.{1,2000})")
_EXTENSION: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9_.-]{0,60})\s*=\s*(\S{1,2000}?)\s*")


class QueryParameterInvalid(Invalid):
    """A parameter of an event query is unknown, or has a value that it cannot have (`QueryParameterException`)."""

    code = "QueryParameterInvalid"
    problem_type = "epcisException:QueryParameterException"


class TooManyEvents(Conflict):
    """More events than `maxEventCount` would be answered (`QueryTooLargeException`)."""

    code = "TooManyEvents"
    problem_type = "epcisException:QueryTooLargeException"


class QueryTooComplex(Conflict):
    """Answering would take looking at more than is looked at for one answer (`QueryTooComplexException`)."""

    code = "QueryTooComplex"
    problem_type = "epcisException:QueryTooComplexException"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the order of an answer: the moment that it is ordered by, then the event's key."""

    at: datetime
    event_key: uuid.UUID


@dataclass(frozen=True, slots=True)
class Path:
    """Rows of a table that lie together in the order of the events' times: a brand's for which all of this holds."""

    model: type[EpcisEvent] | type[EventThing] | type[EventParty]
    held: tuple[ColumnElement[bool], ...]


@dataclass(frozen=True, slots=True)
class EventQuery:
    """What is asked for. All of it must hold."""

    conditions: tuple[ColumnElement[bool], ...] = ()
    """What columns must be."""
    words: tuple[tuple[str, str], ...] = ()
    """Columns with an index that have just one value: by one of them the events are walked."""
    times: tuple[tuple[str, bool, datetime], ...] = ()
    """`event_time` or `record_time`, whether it is at or after, or else before, which moment."""
    event_ids: tuple[frozenset[str], ...] = ()
    things: tuple[ThingSet, ...] = ()
    locations: tuple[Below | Described, ...] = ()
    tests: tuple[Test, ...] = ()
    paths: tuple[Path, ...] = ()
    """Along which all that is sought is found, and more; none: anywhere."""
    sift: Callable[[EpcisEvent, Mapping[str, Any]], bool] | None = None
    """What decides last, with the event's row and its content as it was sent: not asked for, but whether it is seen."""
    by_record_time: bool = False
    ascending: bool = False
    count_limit: int | None = None
    count_max: int | None = None
    per_page: int = PER_PAGE_DEFAULT
    after: Place | None = None
    """Where the page before this one ended."""
    answered: int = 0
    """How many events the pages before this one had."""

    def on_page_of(self, other: "EventQuery") -> "EventQuery":
        """This query on the page that the other asks for."""
        return replace(self, per_page=other.per_page, after=other.after, answered=other.answered)

    def narrowed(self, condition: ColumnElement[bool]) -> "EventQuery":
        """This query, of which columns must be this as well."""
        return replace(self, conditions=(*self.conditions, condition))

    def also(self, other: "EventQuery") -> "EventQuery":
        """This query, narrowed by all that the other asks for; order, limits and page stay those of this one."""
        return replace(
            self,
            conditions=self.conditions + other.conditions,
            words=self.words + other.words,
            times=self.times + other.times,
            event_ids=self.event_ids + other.event_ids,
            things=self.things + other.things,
            locations=self.locations + other.locations,
            tests=self.tests + other.tests,
            paths=self.paths or other.paths,
            sift=self.sift or other.sift,
        )


@dataclass(slots=True)
class _Asked:
    conditions: list[ColumnElement[bool]] = field(default_factory=list)
    words: list[tuple[str, str]] = field(default_factory=list)
    times: list[tuple[str, bool, datetime]] = field(default_factory=list)
    event_ids: list[frozenset[str]] = field(default_factory=list)
    things: list[ThingSet] = field(default_factory=list)
    locations: list[Below | Described] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


def parse(pairs: Sequence[tuple[str, str]], context: Context = STANDARD) -> EventQuery:
    """The query that the pairs of a query string ask for. Raises QueryParameterInvalid, CursorInvalid."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).extend(value.split("|"))
    return parse_values(values, context)


def parse_values(values: Mapping[str, Sequence[str]], context: Context = STANDARD) -> EventQuery:
    """The same for parameters and their values; `context` declares the prefixes that they may use."""
    if len(values) > PARAMETERS_MAX:
        raise QueryParameterInvalid(f"a query has at most {PARAMETERS_MAX} parameters")
    asked = _Asked()
    for name, some in values.items():
        _check(name, some)
        _read(asked, name, some, context)
    query = EventQuery(
        conditions=tuple(asked.conditions),
        words=tuple(asked.words),
        times=tuple(asked.times),
        event_ids=tuple(asked.event_ids),
        things=tuple(asked.things),
        locations=tuple(asked.locations),
        tests=tuple(asked.tests),
        **asked.options,
    )
    if query.count_limit is not None and query.count_max is not None:
        raise QueryParameterInvalid("eventCountLimit and maxEventCount exclude each other")
    return query


@dataclass(frozen=True, slots=True)
class PageAsked:
    """Which page of a list of names is asked for."""

    per_page: int
    token: str | None


def page_parameters(pairs: Sequence[tuple[str, str]]) -> PageAsked:
    """`perPage` and `nextPageToken` alone. Raises QueryParameterInvalid."""
    given = dict(pairs)
    if len(given) < len(pairs) or not given.keys() <= {"perPage", "nextPageToken"}:
        raise QueryParameterInvalid("a list has the parameters perPage and nextPageToken, each once")
    per_page = _count(PER_PAGE_MAX)("perPage", given["perPage"]) if "perPage" in given else PER_PAGE_DEFAULT
    return PageAsked(per_page, given.get("nextPageToken"))


def context_of(header: str | None) -> Context:
    """The prefixes that a header `GS1-Extensions: ex=https://ns.example.com/, …` declares. Raises
    QueryParameterInvalid.
    """
    if not header:
        return STANDARD
    declared = {}
    for part in header.split(","):
        match = _EXTENSION.fullmatch(part)
        if match is None or is_uri(match[2]) is None:
            raise QueryParameterInvalid("GS1-Extensions reads prefix=URI, with commas between several")
        declared[match[1]] = match[2]
    return declared_context(declared)


def declared_context(declared: object) -> Context:
    """The prefixes that a query's `@context` declares. Raises QueryParameterInvalid."""
    try:
        return STANDARD.of_event({"@context": declared})
    except EpcisDocumentInvalid as error:
        raise QueryParameterInvalid(f"@context: {error.message}") from None


def _check(name: str, values: Sequence[str]) -> None:
    shown = name[:NAME_CHARACTERS_SHOWN_MAX]
    if not 1 <= len(values) <= VALUES_MAX:
        raise QueryParameterInvalid(f"{shown}: 1 to {VALUES_MAX} values")
    if any("\0" in text or len(text) > VALUE_CHARACTERS_MAX for text in (name, *values)):
        raise QueryParameterInvalid(f"{shown}: a value has at most {VALUE_CHARACTERS_MAX:,} characters, and no NUL")
    if any(not value.isascii() and value.encode("utf-8", "ignore").decode() != value for value in (name, *values)):
        raise QueryParameterInvalid(f"{shown}: a value is text in UTF-8")
    if "" in values and not name.startswith("EXISTS_"):
        raise QueryParameterInvalid(f"{shown}: a value is not empty")


def _read(asked: _Asked, name: str, values: Sequence[str], context: Context) -> None:
    if name in _PARTS:
        asked.things.append(_things(name, values, context))
    elif name in _TIMES:
        column, at_or_after = _TIMES[name]
        asked.times.append((column, at_or_after, moment(name, one_of(name, values))))
    elif name in _COLUMNS:
        _COLUMNS[name](asked, name, values, context)
    elif (attribute := _ATTRIBUTE.fullmatch(name)) is not None:
        column = {"readPoint": "read_point", "bizLocation": "biz_location"}[attribute[1]]
        names = frozenset({attribute[2], expanded(attribute[2], context)})
        asked.locations.append(Described(column, names, frozenset(values)))
    elif name in _OPTIONS:
        option, read = _OPTIONS[name]
        asked.options[option] = read(name, one_of(name, values))
    elif name == "nextPageToken":
        asked.options |= _page_after(values)
    else:
        test = plain_parameter(name, values, context)
        if test is None and TEST_NAME.fullmatch(name):
            test = field_parameter(name, values, context)
        if test is None:
            raise QueryParameterInvalid(
                f"{name[:NAME_CHARACTERS_SHOWN_MAX]} is no parameter of the event query, or cannot have this value",
                hint="docs/epcis.md lists those that there are.",
            )
        asked.tests.append(test)


def one_of(name: str, values: Sequence[str]) -> str:
    """The one value of a parameter that has no more. Raises QueryParameterInvalid."""
    if len(values) > 1:
        raise QueryParameterInvalid(f"{name[:NAME_CHARACTERS_SHOWN_MAX]} has one value")
    return values[0]


def moment(name: str, text: str) -> datetime:
    """A moment that a parameter tells. Raises QueryParameterInvalid."""
    if not is_moment(text):
        raise QueryParameterInvalid(
            f"{name}: a moment with its zone, such as 2026-05-01T08:00:00Z", hint="A + in an address is written %2B."
        )
    return datetime.fromisoformat(text)


_Reader = Callable[[_Asked, str, Sequence[str], Context], None]


def _column(asked: _Asked, column: str, names: Sequence[str]) -> None:
    """That a column has one of these values, and is what the events are walked by where it is only one."""
    if len(names) == 1:
        asked.words.append((column, names[0]))
    else:
        asked.conditions.append(col(getattr(EpcisEvent, column)).in_(names))


def _among(column: str, allowed: Sequence[str]) -> _Reader:
    def read(asked: _Asked, name: str, values: Sequence[str], _context: Context) -> None:
        if not set(values) <= set(allowed):
            raise QueryParameterInvalid(f"{name}: {', '.join(allowed)}")
        asked.conditions.append(col(getattr(EpcisEvent, column)).in_(sorted(set(values))))

    return read


def _word(column: str, words: Mapping[str, str]) -> _Reader:
    def read(asked: _Asked, _name: str, values: Sequence[str], context: Context) -> None:
        _column(asked, column, sorted({name for value in values for name in word_names(value, words, context)}))

    return read


def word_names(value: str, words: Mapping[str, str], context: Context) -> set[str]:
    """How a word may stand in an event's column: the URI of a standard word; one's own as it stands or expanded."""
    bare = vocabulary.bare_word(value, words)
    if bare in words:
        return {words[bare]}
    return {value, expanded(value, context)}


def expanded(value: str, context: Context) -> str:
    """A CURIE whose prefix is declared as the URI that it stands for; any other text as it is."""
    full = context.expanded(value) if ":" in value else None
    return full.replace("{", "", 1).replace("}", "", 1) if full is not None and full.startswith("{") else value


def _named(column: str) -> _Reader:
    def read(asked: _Asked, _name: str, values: Sequence[str], context: Context) -> None:
        _column(asked, column, sorted({name for value in values for name in _place_names(value, context)}))

    return read


def _place_names(value: str, context: Context) -> set[str]:
    return {name_of(value), name_of(expanded(value, context))}


def _event_ids(asked: _Asked, _name: str, values: Sequence[str], context: Context) -> None:
    asked.event_ids.append(frozenset(values) | {expanded(value, context) for value in values})


def _error(asked: _Asked, name: str, values: Sequence[str], _context: Context) -> None:
    if one_of(name, values) not in ("", "1", "true"):
        raise QueryParameterInvalid(f"{name} has no value")
    asked.conditions.append(col(EpcisEvent.is_error) == true())


def _below(column: str) -> _Reader:
    def read(asked: _Asked, _name: str, values: Sequence[str], context: Context) -> None:
        asked.locations.append(Below(column, frozenset(n for value in values for n in _place_names(value, context))))

    return read


def _having(column: str) -> _Reader:
    def read(asked: _Asked, _name: str, values: Sequence[str], context: Context) -> None:
        attributes = frozenset(values) | {expanded(value, context) for value in values}
        asked.locations.append(Described(column, attributes, None))

    return read


def _things(name: str, values: Sequence[str], context: Context) -> ThingSet:
    try:
        return ThingSet.of(
            frozenset(str(part) for part in _PARTS[name]),
            [epc_pattern(one) for value in values for one in dict.fromkeys((value, expanded(value, context)))],
        )
    except EpcUriInvalid as error:
        raise QueryParameterInvalid(f"{name}: {error}") from None


_TIMES: Final[Mapping[str, tuple[str, bool]]] = {
    "GE_eventTime": ("event_time", True),
    "LT_eventTime": ("event_time", False),
    "GE_recordTime": ("record_time", True),
    "LT_recordTime": ("record_time", False),
}
_COLUMNS: Final[Mapping[str, _Reader]] = {
    "eventType": _among("type", sorted(EVENT_TYPES)),
    "EQ_action": _among("action", _ACTIONS),
    "EQ_bizStep": _word("biz_step", vocabulary.BUSINESS_STEPS),
    "EQ_disposition": _word("disposition", vocabulary.DISPOSITIONS),
    "EQ_readPoint": _named("read_point"),
    "EQ_bizLocation": _named("biz_location"),
    "EQ_eventID": _event_ids,
    "EXISTS_errorDeclaration": _error,
    "WD_readPoint": _below("read_point"),
    "WD_bizLocation": _below("biz_location"),
    "HASATTR_readPoint": _having("read_point"),
    "HASATTR_bizLocation": _having("biz_location"),
}


def _count(most: int) -> Callable[[str, str], int]:
    def read(name: str, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise QueryParameterInvalid(f"{name}: a whole number, 1 to {most:,}")
        return int(text)

    return read


def _choice(choices: Mapping[str, bool]) -> Callable[[str, str], bool]:
    def read(name: str, text: str) -> bool:
        if text not in choices:
            raise QueryParameterInvalid(f"{name}: {' or '.join(choices)}")
        return choices[text]

    return read


def _page_after(values: Sequence[str]) -> dict[str, Any]:
    at, key, count = paging.decode(LIST_NAME, one_of("nextPageToken", values), 3)
    try:
        if not is_moment(str(at)) or not isinstance(count, int) or not 0 <= count <= COUNT_MAX:
            raise ValueError("no moment")
        return {"after": Place(datetime.fromisoformat(str(at)), uuid.UUID(str(key))), "answered": count}
    except ValueError:
        raise QueryParameterInvalid("nextPageToken does not belong to this list") from None


_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str, str], Any]]]] = {
    "orderBy": ("by_record_time", _choice({"eventTime": False, "recordTime": True})),
    "orderDirection": ("ascending", _choice({"ASC": True, "DESC": False})),
    "eventCountLimit": ("count_limit", _count(COUNT_MAX)),
    "maxEventCount": ("count_max", _count(COUNT_MAX)),
    "perPage": ("per_page", _count(PER_PAGE_MAX)),
}
