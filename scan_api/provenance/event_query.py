"""The simple event query: EPCIS 2.0's parameters, what they ask of the tables, and pages of what they find (8.2.7).

Values of one parameter are alternatives, parameters must all hold. A list is a parameter that comes several times, or
values between bars. Whatever names a thing or a word is compared by its one name.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Uuid, and_, false, literal, or_, tuple_
from sqlmodel import col, func, select

from codes.epc_uri import EpcUriInvalid, epc_pattern
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid
from scan_api import paging
from scan_api.provenance import vocabulary
from scan_api.provenance.documents import EVENT_TYPES, is_moment
from scan_api.provenance.repository import EpcisEvent, EventThing
from scan_api.provenance.things import Part, name_of

PER_PAGE_DEFAULT, PER_PAGE_MAX = 30, 1_000
VALUES_MAX = 100
"""Of one parameter."""
COUNT_MAX = 1_000_000
_LIST_NAME: Final = "epcis-events"
_LAST_CHARACTER: Final = "\U0010ffff"
_ACTIONS: Final = ("ADD", "OBSERVE", "DELETE")
_LISTS: Final = (Part.EPC, Part.CHILD)
_CLASSES: Final = (Part.EPC_CLASS, Part.CHILD_CLASS)
_PARTS: Final[Mapping[str, tuple[Part, ...]]] = {
    "MATCH_epc": _LISTS,
    "MATCH_parentID": (Part.PARENT,),
    "MATCH_inputEPC": (Part.INPUT,),
    "MATCH_outputEPC": (Part.OUTPUT,),
    "MATCH_anyEPC": (*_LISTS, Part.PARENT, Part.INPUT, Part.OUTPUT),
    "MATCH_epcClass": _CLASSES,
    "MATCH_inputEPCClass": (Part.INPUT_CLASS,),
    "MATCH_outputEPCClass": (Part.OUTPUT_CLASS,),
    "MATCH_anyEPCClass": (*_CLASSES, Part.INPUT_CLASS, Part.OUTPUT_CLASS),
}


class QueryParameterInvalid(Invalid):
    """A parameter of an event query is unknown, or has a value that it cannot have (`QueryParameterException`)."""

    code = "QueryParameterInvalid"


class TooManyEvents(Conflict):
    """More events than `maxEventCount` would be answered (`QueryTooLargeException`)."""

    code = "TooManyEvents"


@dataclass(frozen=True, slots=True)
class EventQuery:
    """What is asked for. `conditions` must all hold."""

    conditions: tuple[ColumnElement[bool], ...] = ()
    by_record_time: bool = False
    ascending: bool = False
    count_limit: int | None = None
    count_max: int | None = None
    per_page: int = PER_PAGE_DEFAULT
    after: tuple[datetime, uuid.UUID, int] | None = None
    """Where the page before this one ended, and how many events it and those before it had."""


@dataclass(slots=True)
class _Asked:
    conditions: list[ColumnElement[bool]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


def parse(pairs: Sequence[tuple[str, str]]) -> EventQuery:
    """The query that the pairs of a query string ask for. Raises QueryParameterInvalid, CursorInvalid."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).extend(value.split("|"))
    asked = _Asked()
    for name, some in values.items():
        if len(some) > VALUES_MAX or "" in some or any("\0" in value for value in some):
            raise QueryParameterInvalid(f"{name[:60]}: 1 to {VALUES_MAX} values, none of them empty or with a NUL")
        if name in _PARTS:
            asked.conditions.append(_matching(name, some))
        elif name in _CONDITIONS:
            asked.conditions.append(_CONDITIONS[name](name, some))
        elif name in _OPTIONS:
            option, read = _OPTIONS[name]
            asked.options[option] = read(name, _one(name, some))
        else:
            raise QueryParameterInvalid(
                f"{name[:60]} is no parameter of the event query", hint="docs/epcis.md lists those that there are."
            )
    query = EventQuery(tuple(asked.conditions), **asked.options)
    if query.count_limit is not None and query.count_max is not None:
        raise QueryParameterInvalid("eventCountLimit and maxEventCount exclude each other")
    return query


def _one(name: str, values: Sequence[str]) -> str:
    if len(values) > 1:
        raise QueryParameterInvalid(f"{name} has one value")
    return values[0]


def _moment(name: str, text: str) -> datetime:
    if not is_moment(text):
        raise QueryParameterInvalid(
            f"{name}: a moment with its zone, such as 2026-05-01T08:00:00Z", hint="A + in an address is written %2B."
        )
    return datetime.fromisoformat(text)


def _since(column: Any) -> Callable[[str, Sequence[str]], ColumnElement[bool]]:
    def condition(name: str, values: Sequence[str]) -> ColumnElement[bool]:
        holds: ColumnElement[bool] = column >= _moment(name, _one(name, values))
        return holds

    return condition


def _before(column: Any) -> Callable[[str, Sequence[str]], ColumnElement[bool]]:
    def condition(name: str, values: Sequence[str]) -> ColumnElement[bool]:
        holds: ColumnElement[bool] = column < _moment(name, _one(name, values))
        return holds

    return condition


def _among(column: Any, allowed: Sequence[str]) -> Callable[[str, Sequence[str]], ColumnElement[bool]]:
    def condition(name: str, values: Sequence[str]) -> ColumnElement[bool]:
        if not set(values) <= set(allowed):
            raise QueryParameterInvalid(f"{name}: {', '.join(allowed)}")
        holds: ColumnElement[bool] = column.in_(values)
        return holds

    return condition


def _word(column: Any, words: Mapping[str, str]) -> Callable[[str, Sequence[str]], ColumnElement[bool]]:
    def condition(_name: str, values: Sequence[str]) -> ColumnElement[bool]:
        wanted = [vocabulary.bare_word(value, words) for value in values]
        holds: ColumnElement[bool] = column.in_([words.get(value, value) for value in wanted])
        return holds

    return condition


def _named(column: Any) -> Callable[[str, Sequence[str]], ColumnElement[bool]]:
    def condition(_name: str, values: Sequence[str]) -> ColumnElement[bool]:
        holds: ColumnElement[bool] = column.in_([name_of(value) for value in values])
        return holds

    return condition


def _equal(column: Any) -> Callable[[str, Sequence[str]], ColumnElement[bool]]:
    def condition(_name: str, values: Sequence[str]) -> ColumnElement[bool]:
        holds: ColumnElement[bool] = column.in_(values)
        return holds

    return condition


def _matching(name: str, values: Sequence[str]) -> ColumnElement[bool]:
    """That the event names a thing of one of these patterns in one of the parts that the parameter looks at."""
    thing = col(EventThing.thing)
    fitting: list[ColumnElement[bool]] = []
    for value in values:
        try:
            pattern = epc_pattern(value)
        except EpcUriInvalid as error:
            raise QueryParameterInvalid(f"{name}: {error}") from None
        if not pattern.prefixes_decide:
            raise QueryParameterInvalid(f"{name}: a range within a pattern is not understood", hint="Ask for all.")
        fitting.append(thing.in_(pattern.names) if pattern.names else false())
        fitting += [and_(thing >= prefix, thing < prefix + _LAST_CHARACTER) for prefix in pattern.prefixes]
    parts = [str(part) for part in _PARTS[name]]
    return col(EpcisEvent.event_key).in_(
        select(EventThing.event_key).where(
            col(EventThing.brand_id) == col(EpcisEvent.brand_id), col(EventThing.part).in_(parts), or_(*fitting)
        )
    )


_CONDITIONS: Final[Mapping[str, Callable[[str, Sequence[str]], ColumnElement[bool]]]] = {
    "eventType": _among(col(EpcisEvent.type), sorted(EVENT_TYPES)),
    "GE_eventTime": _since(col(EpcisEvent.event_time)),
    "LT_eventTime": _before(col(EpcisEvent.event_time)),
    "GE_recordTime": _since(col(EpcisEvent.record_time)),
    "LT_recordTime": _before(col(EpcisEvent.record_time)),
    "EQ_action": _among(col(EpcisEvent.action), _ACTIONS),
    "EQ_bizStep": _word(col(EpcisEvent.biz_step), vocabulary.BUSINESS_STEPS),
    "EQ_disposition": _word(col(EpcisEvent.disposition), vocabulary.DISPOSITIONS),
    "EQ_readPoint": _named(col(EpcisEvent.read_point)),
    "EQ_bizLocation": _named(col(EpcisEvent.biz_location)),
    "EQ_eventID": _equal(col(EpcisEvent.event_id)),
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


def _after(_name: str, token: str) -> tuple[datetime, uuid.UUID, int]:
    at, key, count = paging.decode(_LIST_NAME, token, 3)
    try:
        moment = datetime.fromisoformat(str(at))
        if not is_moment(str(at)) or not isinstance(count, int) or not 0 <= count <= COUNT_MAX:
            raise ValueError("no moment")
        return moment, uuid.UUID(str(key)), count
    except ValueError:
        raise QueryParameterInvalid("nextPageToken does not belong to this list") from None


_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str, str], Any]]]] = {
    "orderBy": ("by_record_time", _choice({"eventTime": False, "recordTime": True})),
    "orderDirection": ("ascending", _choice({"ASC": True, "DESC": False})),
    "eventCountLimit": ("count_limit", _count(COUNT_MAX)),
    "maxEventCount": ("count_max", _count(COUNT_MAX)),
    "perPage": ("per_page", _count(PER_PAGE_MAX)),
    "nextPageToken": ("after", _after),
}


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events; `next_token` None: it was the last."""

    events: Sequence[EpcisEvent]
    next_token: str | None


async def find(session: Session, brand_id: int, query: EventQuery) -> EventPage:
    """A page of a brand's events. Raises TooManyEvents."""
    at = col(EpcisEvent.record_time if query.by_record_time else EpcisEvent.event_time)
    place = tuple_(at, col(EpcisEvent.event_key))
    seen = query.after[2] if query.after else 0
    most = query.per_page if query.count_limit is None else min(query.per_page, query.count_limit - seen)
    if most <= 0:
        return EventPage((), None)
    holds = and_(col(EpcisEvent.brand_id) == brand_id, *query.conditions)
    asked = select(EpcisEvent).where(holds)
    if query.count_max is not None:
        some = select(EpcisEvent.event_key).where(holds).limit(query.count_max + 1).subquery()
        if (await session.exec(select(func.count()).select_from(some))).one() > query.count_max:
            raise TooManyEvents(
                f"more than {query.count_max:,} events fit", hint="Ask more narrowly, or without maxEventCount."
            )
    if query.after is not None:
        then = tuple_(literal(query.after[0], Moment()), literal(query.after[1], Uuid()))
        asked = asked.where(place > then if query.ascending else place < then)
    order = (
        (at.asc(), col(EpcisEvent.event_key).asc())
        if query.ascending
        else (at.desc(), col(EpcisEvent.event_key).desc())
    )
    rows = (await session.exec(asked.order_by(*order).limit(most + 1))).all()
    shown = rows[:most]
    ends = len(rows) <= most or (query.count_limit is not None and seen + most >= query.count_limit)
    if ends or not shown:
        return EventPage(shown, None)
    last = shown[-1]
    moment = (last.record_time if query.by_record_time else last.event_time).astimezone(UTC).isoformat()
    return EventPage(shown, paging.encode(_LIST_NAME, [moment, str(last.event_key), seen + len(shown)]))
