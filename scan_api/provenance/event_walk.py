"""The walk over a brand's events in the order of an answer, by ids, things, paths, a word or time, window by window.

What no index answers is sifted in windows of bounded size. `event_search` looks into what the walk meets. The events of
several brands are walked as one: a step takes as many statements as for a single brand.
"""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Executable,
    Select,
    Uuid,
    asc,
    desc,
    literal,
    true,
    tuple_,
    union_all,
)
from sqlalchemy import select as sql_select
from sqlmodel import col, func, select

from kit.db import Moment, Session, is_postgresql
from scan_api.provenance.event_query import EventQuery, Path, Place
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
_PATHS_AT_ONCE: Final = 500
"""As many as SQLite puts together in one statement (SQLITE_MAX_COMPOUND_SELECT)."""
_KEYS_AT_ONCE: Final = 500
_LAST_CHARACTER: Final = "\U0010ffff"
_AT, _KEY = "walked_at", "walked_key"


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
    brand_ids: Sequence[int]
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
        return [self.of_brands(EpcisEvent), *times, *words, *self.query.conditions]

    def of_brands(self, model: type[EpcisEvent] | type[EventThing]) -> ColumnElement[bool]:
        """That a row is of the brands that are asked."""
        column = col(model.brand_id)
        return column == self.brand_ids[0] if len(self.brand_ids) == 1 else column.in_(self.brand_ids)


def _at(column: Any, at_or_after: bool, moment: datetime) -> ColumnElement[bool]:
    holds: ColumnElement[bool] = column >= moment if at_or_after else column < moment
    return holds


async def windows(search: Search, work: Work, wanted: int) -> AsyncIterator[Window]:
    """The walk: by given ids, by things, by given paths, by a word, or by time."""
    query = search.query
    if query.event_ids:
        search.things = list(query.things)
        yield Window(await _sifted(search, work, await keys_of_ids(search)), None)
        return
    exact = next((things for things in query.things if not things.prefixes), None)
    if exact is not None and not query.by_record_time:
        search.things = [things for things in query.things if things is not exact]
        in_part = col(EventThing.part).in_(sorted(exact.parts))
        paths = [Path(EventThing, (col(EventThing.thing) == name, in_part)) for name in sorted(exact.names)]
        async for window in _by_paths(search, work, paths):
            yield window
        return
    if query.paths and not query.by_record_time:
        search.things = list(query.things)
        async for window in _by_paths(search, work, query.paths):
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
    kinds = product(search.brand_ids, ids, (False, True))
    keys = [key_of(brand_id, one, is_hash=is_hash) for brand_id, one, is_hash in kinds]
    declared = select(EpcisEvent.event_key).where(
        search.of_brands(EpcisEvent), col(EpcisEvent.event_id).in_(ids), col(EpcisEvent.is_error) == true()
    )
    return keys + list((await search.session.exec(declared.limit(THINGS_EXAMINED_MAX))).all())


def _within(search: Search, path: Path) -> list[ColumnElement[bool]]:
    """What holds for the rows of a path, the time among it."""
    at = col(path.model.event_time)
    times = [_at(at, since, moment) for column, since, moment in search.query.times if column == "event_time"]
    return [*path.held, *times]


async def _by_paths(search: Search, work: Work, paths: Sequence[Path]) -> AsyncIterator[Window]:
    """Events along several paths, by event time: each path's lie together in that order."""
    after, ascending = search.query.after, search.query.ascending
    while paths and work.sifted > 0:
        branches: list[Select[Any]] = []
        for path, brand_id in product(paths, search.brand_ids):
            at: Any = col(path.model.event_time)
            key: Any = col(path.model.event_key)
            held = [col(path.model.brand_id) == brand_id, *_within(search, path)]
            if after is not None:
                held.append(_behind(tuple_(at, key), after, ascending))
            branches.append(sql_select(at.label(_AT), key.label(_KEY)).where(*held))
        rows: list[Any] = []
        cut: list[Place] = []
        for start in range(0, len(branches), _PATHS_AT_ONCE):
            some = branches[start : start + _PATHS_AT_ONCE]
            found = await _rows(search, _first(some, MET_AT_ONCE_MAX, ascending))
            rows += found
            # Where rows were cut off, the events behind may be among those that were not read.
            cut += [Place(*found[-1])] if len(found) == MET_AT_ONCE_MAX else []
        met = await met_by_keys(search, [row[1] for row in rows])
        if not cut:
            work.sifted = max(1, work.sifted - len(rows))  # so that the end is known
            yield Window(met, None)
            return
        work.sifted -= len(rows)
        ends = sorted(cut, key=lambda one: (one.at, one.event_key.bytes))
        after = ends[0] if ascending else ends[-1]
        yield Window([one for one in met if not search.is_past(one.place, after)], after)


def _first(branches: Sequence[Select[Any]], most: int, ascending: bool) -> Select[Any] | CompoundSelect[Any]:
    """The first places that branches find together, in the order of the answer.

    Each branch is limited by itself, too: else PostgreSQL sorts what it finds, and does not walk its index.
    """
    towards = asc if ascending else desc
    order: tuple[Any, Any] = (towards(_AT), towards(_KEY))
    limited = [branch.order_by(*order).limit(most) for branch in branches]
    if len(limited) == 1:
        return limited[0]
    inner = [sql_select(*branch.subquery().c) for branch in limited]
    return union_all(*inner).order_by(*order).limit(most)


async def _rows_of(search: Search, branches: Sequence[Any]) -> list[Any]:
    rows: list[Any] = []
    for start in range(0, len(branches), _RANGES_AT_ONCE):
        some = [
            sql_select(*(inner := branch.subquery()).c).select_from(inner)
            for branch in branches[start : start + _RANGES_AT_ONCE]
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
    in_part = col(EventThing.part).in_(sorted(things.parts))
    branches += [
        sql_select(*columns).where(
            search.of_brands(EventThing), *_within(search, Path(EventThing, (col(EventThing.thing) == name, in_part)))
        )
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
    brands = set(search.brand_ids)
    return [row[1] for row in rows if row[2] in brands and row[3] in things.parts and things.has(row[0])]


def _behind(place: Any, after: Place, ascending: bool) -> ColumnElement[bool]:
    then = tuple_(literal(after.at, Moment()), literal(after.event_key, Uuid()))
    holds: ColumnElement[bool] = place > then if ascending else place < then
    return holds


def _order(search: Search) -> tuple[Any, Any]:
    at, key = search.order_column, col(EpcisEvent.event_key)
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
        within += [search.of_brands(EpcisEvent), *_between(search, after, edge)]
        statement = _met_columns(search).where(*within, *rest).order_by(*_order(search)).limit(limit)
        met = [_met(row) for row in await _rows(search, statement)]
        is_cut = len(met) == limit
        work.sifted -= WINDOW_EVENTS if rest and not is_cut else len(met)
        after = met[-1].place if is_cut else edge
        yield Window(met, after)
        if after is None:
            return


def _divided(search: Search) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """What the index walked by answers, besides the brand, and what has to be sifted."""
    query = search.query
    walked: list[ColumnElement[bool]] = []
    rest = list(query.conditions)
    for index, (column, value) in enumerate(query.words):
        (rest if index or query.by_record_time else walked).append(col(getattr(EpcisEvent, column)) == value)
    ordered_by = "record_time" if query.by_record_time else "event_time"
    for column, since, at in query.times:
        (walked if column == ordered_by else rest).append(_at(col(getattr(EpcisEvent, column)), since, at))
    return walked, rest


async def _edge(search: Search, ahead: Sequence[ColumnElement[bool]]) -> Place | None:
    """The last place of the next window; None: the walk ends before."""
    columns: tuple[Any, ...] = (search.order_column.label(_AT), col(EpcisEvent.event_key).label(_KEY))
    branches = [
        sql_select(*columns).where(col(EpcisEvent.brand_id) == brand_id, *ahead) for brand_id in search.brand_ids
    ]
    window = _first(branches, WINDOW_EVENTS, search.query.ascending)
    found = await _rows(search, window.offset(WINDOW_EVENTS - 1).limit(1))
    return Place(*found[0]) if found else None


def _between(search: Search, after: Place | None, edge: Place | None) -> list[ColumnElement[bool]]:
    """The moments of a window of several brands again: by places alone a planner does not see how short it is."""
    if len(search.brand_ids) == 1:
        return []
    since, until = (after, edge) if search.query.ascending else (edge, after)
    held = [] if since is None else [search.order_column >= since.at]
    return held if until is None else [*held, search.order_column <= until.at]


def _up_to(place: Any, edge: Place, ascending: bool) -> ColumnElement[bool]:
    then = tuple_(literal(edge.at, Moment()), literal(edge.event_key, Uuid()))
    holds: ColumnElement[bool] = place <= then if ascending else place >= then
    return holds
