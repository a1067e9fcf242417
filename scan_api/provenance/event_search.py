"""Finding the events that a query asks for, page by page, without looking at more than a page may cost.

The events of a brand are walked in the order of the answer by one index: that of a thing, of a word, or of the time.
What no index answers is looked at in windows of bounded size, and where the work of a page is done before the page is
full, it ends there: it is short, perhaps empty, and its token leads on (EPCIS 2.0, 12.7.3). A token holds a place in
the order, so that captures meanwhile shift nothing.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from sqlmodel import col, select

from kit.db import Session
from scan_api import paging
from scan_api.provenance import locations, repository
from scan_api.provenance.event_fields import Sight
from scan_api.provenance.event_query import LIST_NAME, EventQuery, Place, QueryTooComplex, TooManyEvents
from scan_api.provenance.event_tests import holds_all
from scan_api.provenance.event_walk import Met, Search, Work, keys_of_ids, met_by_keys, windows
from scan_api.provenance.repository import EpcisEvent

PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of the events of a page, as they were sent; one event is always answered."""
COUNTED_MAX: Final = 200_000
"""Events sifted to learn whether `maxEventCount` is kept."""
_CHUNK_EVENTS, _CHUNK_BYTES = 256, 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events; `next_token` None: it was the last."""

    events: Sequence[EpcisEvent]
    next_token: str | None


async def find(session: Session, brand_id: int, query: EventQuery) -> EventPage:
    """A page of a brand's events. Raises TooManyEvents, QueryTooComplex, TooManyLocations."""
    return await find_of_brands(session, (brand_id,), query)


async def find_of_brands(session: Session, brand_ids: Sequence[int], query: EventQuery) -> EventPage:
    """The same of the events of several brands, at least one, which `query` must not ask by master data."""
    most = query.per_page
    if query.count_limit is not None:
        most = min(most, query.count_limit - query.answered)
    if most <= 0:
        return EventPage((), None)
    search = await _prepared(session, brand_ids, query)
    if query.count_max is not None and query.after is None:
        await _check_count(search, query.count_max)
    found: list[EpcisEvent] = []
    work, size, last = Work(), 0, query.after
    leads_on = False
    async for place, event in _matching(search, work, most + 1):
        if event is not None:
            if len(found) == most or (found and size + len(event.content) > PAGE_BYTES_MAX):
                leads_on = True
                break
            found.append(event)
            size += len(event.content)
        last = place
    else:
        leads_on = work.is_done
    if query.count_limit is not None and query.answered + len(found) >= query.count_limit:
        leads_on = False
    if not leads_on or last is None:
        return EventPage(found, None)
    return EventPage(found, token(last, query.answered + len(found)))


def token(place: Place, answered: int) -> str:
    """The token of the page behind a place."""
    return paging.encode(LIST_NAME, [place.at.astimezone(UTC).isoformat(), str(place.event_key), answered])


@dataclass(frozen=True, slots=True)
class Sized:
    """An event that fits, and how long it is, in bytes or characters."""

    event_key: uuid.UUID
    size: int


async def among(session: Session, brand_id: int, query: EventQuery, keys: Sequence[uuid.UUID]) -> list[Sized]:
    """Those of these events that the query asks for, by record time, without regard to its order, page and limits."""
    narrowed = EventQuery(by_record_time=True, ascending=True).also(query)
    search = await _prepared(session, (brand_id,), narrowed)
    search.things = list(query.things)
    if query.event_ids:
        asked = set(await keys_of_ids(search))
        keys = [key for key in keys if key in asked]
    met = [one for one in await met_by_keys(search, keys) if _is_there(search, one)]
    if not search.looks_inside:
        return [Sized(one.place.event_key, one.size) for one in met]
    kept: set[uuid.UUID] = set()
    for chunk in _chunks(met):
        kept |= {event.event_key for event in await _looked_into(search, chunk)}
    return [Sized(one.place.event_key, one.size) for one in met if one.place.event_key in kept]


async def _prepared(session: Session, brand_ids: Sequence[int], query: EventQuery) -> Search:
    assert len(brand_ids) == 1 or not query.locations  # master data is a brand's own
    places = [await locations.found(session, brand_ids[0], asked) for asked in query.locations]
    return Search(session, brand_ids, query, places)


async def _check_count(search: Search, count_max: int) -> None:
    work = Work(sifted=COUNTED_MAX)
    count = 0
    async for fitting in _counting(search, work, count_max + 1):
        count += fitting
        if count > count_max:
            raise TooManyEvents(
                f"more than {count_max:,} events fit", hint="Ask more narrowly, or without maxEventCount."
            )
    if work.is_done:
        raise QueryTooComplex(
            f"{COUNTED_MAX:,} events do not show whether more than {count_max:,} fit",
            hint="Ask more narrowly, or without maxEventCount.",
        )


async def _counting(search: Search, work: Work, wanted: int) -> AsyncIterator[int]:
    if search.looks_inside or search.query.things:
        async for _place, event in _matching(search, work, wanted):
            yield event is not None
        return
    async for window in windows(search, work, wanted):
        yield sum(_is_there(search, one) for one in window.met)


async def _matching(search: Search, work: Work, wanted: int) -> AsyncIterator[tuple[Place, EpcisEvent | None]]:
    """Each event that fits, in order, with its place; None for an event: up to there nothing more fits."""
    async for window in windows(search, work, wanted):
        met = [one for one in window.met if _is_there(search, one)]
        for chunk in _chunks(met, wanted):
            if work.is_done:
                return
            if search.looks_inside:
                work.decoded -= len(chunk)
                work.decoded_bytes -= sum(one.size for one in chunk)
                events = await _looked_into(search, chunk)
            else:
                events = await _read(search, chunk)
            by_key = {event.event_key: event for event in events}
            for one in chunk:
                if one.place.event_key in by_key:
                    yield one.place, by_key[one.place.event_key]
            yield chunk[-1].place, None
        if window.end is not None:
            yield window.end, None
        if work.is_done:
            return


def _is_there(search: Search, met: Met) -> bool:
    return all(place.has(getattr(met, place.column)) for place in search.places)


def _chunks(met: Sequence[Met], wanted: int = _CHUNK_EVENTS) -> list[list[Met]]:
    chunks: list[list[Met]] = []
    size = 0
    for one in met:
        if not chunks or len(chunks[-1]) >= min(wanted, _CHUNK_EVENTS) or size + one.size > _CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(one)
        size += one.size
    return chunks


async def _read(search: Search, chunk: Sequence[Met]) -> list[EpcisEvent]:
    keys = [one.place.event_key for one in chunk]
    rows = (await search.session.exec(select(EpcisEvent).where(col(EpcisEvent.event_key).in_(keys)))).all()
    by_key = {row.event_key: row for row in rows}
    return [by_key[key] for key in keys]


async def _looked_into(search: Search, chunk: Sequence[Met]) -> list[EpcisEvent]:
    """Those of a chunk's events that pass what no index answers."""
    events = await _read(search, chunk)
    contexts = await repository.contexts_of(search.session, events)
    # In a thread: it may take a tenth of a second, and meanwhile others are answered.
    return await asyncio.to_thread(_passing, search, events, contexts)


def _passing(search: Search, events: Sequence[EpcisEvent], contexts: dict[uuid.UUID, Any]) -> list[EpcisEvent]:
    kept, sift = [], search.query.sift
    for event in events:
        content = json.loads(event.content)
        if sift is not None and not sift(event, content):
            continue
        sight = Sight.of(content, contexts[event.context_id])
        if all(things.is_named_in(content) for things in search.things) and holds_all(search.query.tests, sight):
            kept.append(event)
    return kept
