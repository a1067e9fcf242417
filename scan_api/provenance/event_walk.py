"""The walk over a brand's events in the order of an answer: by ids, by things, by a word, or by time, window by window.

What no index answers is sifted in windows of bounded size. `event_search` looks into what the walk meets.
"""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Executable, Select, Uuid, literal, true, tuple_, union_all
from sqlalchemy import select as sql_select
from sqlmodel import col, func, select

from kit.db import Moment, Session, is_postgresql
from scan_api.provenance.event_query import EventQuery, Place
from scan_api.provenance.locations import Found
from scan_api.provenance.repository import EpcisEvent, EventThing, key_of
from scan_api.provenance.thing_sets import ThingSet

WINDOW_EVENTS: Final = 5_000
"""So many are sifted by their columns at once."""
SIFTED_MAX: Final = 100_000
"""Events sifted by their columns for one page."""
DECODED_MAX: Final = 5_000
DECODED_BYTES_MAX: Final = 8 * 1024 * 1024
"""Events looked into for one page, in number and together."""
THINGS_EXAMINED_MAX: Final = 10_000
"""Names of things that patterns may bring up; when there are more, the events are walked by time instead."""
MET_AT_ONCE_MAX: Final = 1_000
_RANGES_AT_ONCE: Final = 100
_KEYS_AT_ONCE: Final = 500
_LAST_CHARACTER: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Met:
    """An event that was met on the walk: its place, and what is known of it without its content."""

    place: Place
    size: int
    read_point: str | None
    biz_location: str | None


@dataclass(frozen=True, slots=True)
class Window:
    """Events that fit by their columns, in order, and up to where the walk has come; None: to its end."""

    met: Sequence[Met]
    end: Place | None


@dataclass(slots=True)
class Work:
    """What a page may still cost."""

    sifted: int = SIFTED_MAX
    decoded: int = DECODED_MAX
    decoded_bytes: int = DECODED_BYTES_MAX

    @property
    def is_done(self) -> bool:
        return self.sifted <= 0 or self.decoded <= 0 or self.decoded_bytes <= 0


@dataclass(slots=True)
class Search:
    session: Session
    brand_id: int
    query: EventQuery
    places: Sequence[Found]
    things: list[ThingSet] = field(default_factory=list)
    """Those that no index has answered."""

    @property
    def order_column(self) -> Any:
        return col(EpcisEvent.record_time if self.query.by_record_time else EpcisEvent.event_time)

    @property
    def looks_inside(self) -> bool:
        return bool(self.things or self.query.tests or self.query.sift)

    def is_past(self, place: Place, after: Place | None) -> bool:
        if after is None:
            return True
        one, other = (place.at, place.event_key.bytes), (after.at, after.event_key.bytes)
        return one > other if self.query.ascending else one < other

    def sort(self, met: list[Met]) -> None:
        met.sort(key=lambda one: (one.place.at, one.place.event_key.bytes), reverse=not self.query.ascending)

    def columns(self) -> list[ColumnElement[bool]]:
        """What columns of an event must be, all of it."""
        times = [_at(col(getattr(EpcisEvent, column)), since, at) for column, since, at in self.query.times]
        words = [col(getattr(EpcisEvent, column)) == value for column, value in self.query.words]
        return [col(EpcisEvent.brand_id) == self.brand_id, *times, *words, *self.query.conditions]


def _at(column: Any, at_or_after: bool, moment: datetime) -> ColumnElement[bool]:
    holds: ColumnElement[bool] = column >= moment if at_or_after else column < moment
    return holds


async def windows(search: Search, work: Work, wanted: int) -> AsyncIterator[Window]:
    """The walk: by given ids, by things, by a word, or by time."""
    query = search.query
    if query.event_ids:
        search.things = list(query.things)
        yield Window(await _sifted(search, work, await keys_of_ids(search)), None)
        return
    exact = next((things for things in query.things if not things.prefixes), None)
    if exact is not None and not query.by_record_time:
        search.things = [things for things in query.things if things is not exact]
        async for window in _by_names(search, work, exact):
            yield window
        return
    for things in query.things:
        keys = await _keys_of_things(search, things)
        if keys is not None:
            search.things = [other for other in query.things if other is not things]
            yield Window(await _sifted(search, work, keys), None)
            return
    search.things = list(query.things)
    async for window in _by_columns(search, work, wanted):
        yield window


async def _sifted(search: Search, work: Work, keys: Sequence[uuid.UUID]) -> list[Met]:
    work.sifted = max(1, work.sifted - len(keys))  # all at once, so that the end is known
    return [one for one in await met_by_keys(search, keys) if search.is_past(one.place, search.query.after)]


def _met_columns(search: Search) -> Select[Any]:
    size = func.octet_length if is_postgresql(search.session) else func.length
    return sql_select(
        search.order_column,
        col(EpcisEvent.event_key),
        size(col(EpcisEvent.content)),
        col(EpcisEvent.read_point),
        col(EpcisEvent.biz_location),
    )


async def _rows(search: Search, statement: Executable) -> Sequence[Any]:
    return (await (await search.session.connection()).execute(statement)).all()


def _met(row: Any) -> Met:
    return Met(Place(row[0], row[1]), row[2], row[3], row[4])


async def met_by_keys(search: Search, keys: Sequence[uuid.UUID]) -> list[Met]:
    met: list[Met] = []
    distinct = list(dict.fromkeys(keys))
    for start in range(0, len(distinct), _KEYS_AT_ONCE):
        some = distinct[start : start + _KEYS_AT_ONCE]
        statement = _met_columns(search).where(*search.columns(), col(EpcisEvent.event_key).in_(some))
        met += [_met(row) for row in await _rows(search, statement)]
    search.sort(met)
    return met


async def keys_of_ids(search: Search) -> list[uuid.UUID]:
    """The events of these ids, and the declarations that they were errors."""
    first, *others = search.query.event_ids
    ids = sorted(first.intersection(*others))
    keys = [key_of(search.brand_id, one, is_hash=is_hash) for one in ids for is_hash in (False, True)]
    declared = select(EpcisEvent.event_key).where(
        EpcisEvent.brand_id == search.brand_id, col(EpcisEvent.event_id).in_(ids), col(EpcisEvent.is_error) == true()
    )
    return keys + list((await search.session.exec(declared.limit(THINGS_EXAMINED_MAX))).all())


def _thing_conditions(search: Search, things: ThingSet) -> list[ColumnElement[bool]]:
    times = [
        _at(col(EventThing.event_time), since, at) for column, since, at in search.query.times if column == "event_time"
    ]
    return [col(EventThing.brand_id) == search.brand_id, col(EventThing.part).in_(sorted(things.parts)), *times]


async def _by_names(search: Search, work: Work, things: ThingSet) -> AsyncIterator[Window]:
    """Events of single things, by event time: each thing's lie together in that order."""
    after = search.query.after
    place = tuple_(col(EventThing.event_time), col(EventThing.event_key))
    names = sorted(things.names)
    while names and work.sifted > 0:
        branches = []
        for name in names:
            held = [col(EventThing.thing) == name, *_thing_conditions(search, things)]
            if after is not None:
                held.append(_behind(place, after, search.query.ascending))
            branch = sql_select(col(EventThing.event_time), col(EventThing.event_key)).where(*held)
            branches.append(branch.order_by(*_order(search, EventThing)).limit(_branch_limit(names)))
        rows = await _rows_of(search, branches)
        limit = _branch_limit(names)
        met = await met_by_keys(search, [row[1] for row in rows])
        work.sifted -= len(rows)
        # Where one thing's rows were cut off, the events behind may be among those that were not read.
        cut = [rows_of_one[-1] for rows_of_one in _runs(rows, limit)]
        if not cut:
            yield Window(met, None)
            return
        ends = sorted((Place(row[0], row[1]) for row in cut), key=lambda one: (one.at, one.event_key.bytes))
        after = ends[0] if search.query.ascending else ends[-1]
        yield Window([one for one in met if not search.is_past(one.place, after)], after)


def _branch_limit(names: Sequence[str]) -> int:
    return max(50, MET_AT_ONCE_MAX // len(names))


def _runs(rows: Sequence[Any], limit: int) -> list[list[Any]]:
    """The rows of each branch that has as many as it may have; a row's third column is its branch."""
    by_branch: dict[int, list[Any]] = {}
    for row in rows:
        by_branch.setdefault(row[2], []).append(row)
    return [run for run in by_branch.values() if len(run) >= limit]


async def _rows_of(search: Search, branches: Sequence[Any]) -> list[Any]:
    rows: list[Any] = []
    for start in range(0, len(branches), _RANGES_AT_ONCE):
        some = [
            sql_select(*(inner := branch.subquery()).c, literal(start + index).label("branch")).select_from(inner)
            for index, branch in enumerate(branches[start : start + _RANGES_AT_ONCE])
        ]
        rows += await _rows(search, union_all(*some))
    return rows


async def _keys_of_things(search: Search, things: ThingSet) -> list[uuid.UUID] | None:
    """The events that name things of a set; None where too many names begin as its patterns do.

    Other brands' names count as well: who asks for everything shall not wait for what is not his.
    """
    ranges = [(prefix, prefix + _LAST_CHARACTER) for prefix in things.prefixes]
    columns = (col(EventThing.thing), col(EventThing.event_key), col(EventThing.brand_id), col(EventThing.part))
    room = THINGS_EXAMINED_MAX
    rows: list[Any] = []
    branches = [
        sql_select(*columns).where(col(EventThing.thing) >= low, col(EventThing.thing) < high) for low, high in ranges
    ]
    branches += [
        sql_select(*columns).where(col(EventThing.thing) == name, *_thing_conditions(search, things))
        for name in sorted(things.names)
        if not name.startswith(things.prefixes)
    ]
    for start in range(0, len(branches), _RANGES_AT_ONCE):
        some = branches[start : start + _RANGES_AT_ONCE]
        found = await _rows_of(search, [branch.limit(room + 1) for branch in some])
        room -= len(found)
        if room < 0:
            return None
        rows += found
    return [row[1] for row in rows if row[2] == search.brand_id and row[3] in things.parts and things.has(row[0])]


def _behind(place: Any, after: Place, ascending: bool) -> ColumnElement[bool]:
    then = tuple_(literal(after.at, Moment()), literal(after.event_key, Uuid()))
    holds: ColumnElement[bool] = place > then if ascending else place < then
    return holds


def _order(search: Search, model: type[EpcisEvent] | type[EventThing]) -> tuple[Any, Any]:
    at = search.order_column if model is EpcisEvent else col(EventThing.event_time)
    key = col(model.event_key)
    return (at.asc(), key.asc()) if search.query.ascending else (at.desc(), key.desc())


async def _by_columns(search: Search, work: Work, wanted: int) -> AsyncIterator[Window]:
    """Events by an index: that of a word if one is asked for, else that of the time."""
    query, after = search.query, search.query.after
    walked, rest = _divided(search)
    place = tuple_(search.order_column, col(EpcisEvent.event_key))
    sparse = bool(search.places) or search.looks_inside
    limit = MET_AT_ONCE_MAX if sparse else min(wanted, MET_AT_ONCE_MAX)
    while work.sifted > 0:
        within = [*walked, _behind(place, after, query.ascending)] if after is not None else list(walked)
        edge = await _edge(search, within) if rest else None
        if edge is not None:
            within.append(_up_to(place, edge, query.ascending))
        statement = _met_columns(search).where(*within, *rest).order_by(*_order(search, EpcisEvent)).limit(limit)
        met = [_met(row) for row in await _rows(search, statement)]
        is_cut = len(met) == limit
        work.sifted -= WINDOW_EVENTS if rest and not is_cut else len(met)
        after = met[-1].place if is_cut else edge
        yield Window(met, after)
        if after is None:
            return


def _divided(search: Search) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """What the index walked by answers, and what has to be sifted."""
    query = search.query
    walked, rest = [col(EpcisEvent.brand_id) == search.brand_id], list(query.conditions)
    for index, (column, value) in enumerate(query.words):
        (rest if index or query.by_record_time else walked).append(col(getattr(EpcisEvent, column)) == value)
    ordered_by = "record_time" if query.by_record_time else "event_time"
    for column, since, at in query.times:
        (walked if column == ordered_by else rest).append(_at(col(getattr(EpcisEvent, column)), since, at))
    return walked, rest


async def _edge(search: Search, ahead: Sequence[ColumnElement[bool]]) -> Place | None:
    """The last place of the next window; None: the walk ends before."""
    statement = (
        select(search.order_column, EpcisEvent.event_key)
        .where(*ahead)
        .order_by(*_order(search, EpcisEvent))
        .offset(WINDOW_EVENTS - 1)
        .limit(1)
    )
    row = (await search.session.exec(statement)).first()
    return None if row is None else Place(row[0], row[1])


def _up_to(place: Any, edge: Place, ascending: bool) -> ColumnElement[bool]:
    then = tuple_(literal(edge.at, Moment()), literal(edge.event_key, Uuid()))
    holds: ColumnElement[bool] = place <= then if ascending else place >= then
    return holds
