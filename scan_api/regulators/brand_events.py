"""Events of many brands: the simple event query asked of all brands that somebody reaches, in one order."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from kit.db import Session
from scan_api import paging
from scan_api.provenance import event_search
from scan_api.provenance.event_query import LIST_NAME, EventQuery, Place, QueryParameterInvalid
from scan_api.provenance.repository import EpcisEvent
from scan_api.regulators import sights
from scan_api.regulators.sights import Reach, ScopeTooWide

BRANDS_ASKED_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class BrandsPage:
    """A page of events of many brands; `next_token` None: it was the last."""

    events: Sequence[EpcisEvent]
    next_token: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What brands, at least one, are asked together: the query, narrowed to what is seen of them."""

    brand_ids: Sequence[int]
    query: EventQuery


def narrowed(reach: Reach, brand_ids: Collection[int]) -> Reach:
    """The same reach, of these brands alone."""
    wanted = frozenset(brand_ids)
    return replace(reach, seated=reach.seated & wanted, elsewhere=reach.elsewhere & wanted)


async def search(session: Session, reach: Reach, query: EventQuery) -> BrandsPage:
    """A page of the events that the scope sees. Raises what `event_search.find` raises.

    Besides, ScopeTooWide above 100 brands, and QueryParameterInvalid for `maxEventCount` unless just one is asked.
    """
    brands = reach.brands
    if query.count_max is not None and len(brands) > 1:
        raise QueryParameterInvalid("maxEventCount is for a question about one brand", hint="Name it with ?brand=.")
    require_few(brands)
    asked = [Asked((brand_id,), query.narrowed(sights.event_condition(reach, brand_id))) for brand_id in brands]
    return await merged(session, query, asked)


def require_few(brands: Collection[int]) -> None:
    """Raises ScopeTooWide above 100 brands."""
    if len(brands) > BRANDS_ASKED_MAX:
        raise ScopeTooWide(f"at most {BRANDS_ASKED_MAX} brands are asked at once", hint="Name brands with ?brand=.")


async def merged(session: Session, query: EventQuery, asked: Sequence[Asked]) -> BrandsPage:
    """A page of the events of all that is asked, in one order. Raises what `event_search.find` raises."""
    most = query.per_page
    if query.count_limit is not None:
        most = min(most, query.count_limit - query.answered)
    found: list[EpcisEvent] = []
    ends: list[Place] = []
    for one in asked if most > 0 else ():
        page = await event_search.find_of_brands(session, one.brand_ids, one.query)
        found += page.events
        if page.next_token is not None:
            ends.append(_place(page.next_token))
    return _page(query, found, ends, most)


def _page(query: EventQuery, found: list[EpcisEvent], ends: list[Place], most: int) -> BrandsPage:
    """What is known of all brands up to the place to which the shortest walk has come."""

    def rank(place: Place) -> tuple[datetime, bytes]:
        return place.at, place.event_key.bytes

    def place_of(event: EpcisEvent) -> Place:
        return Place(event.record_time if query.by_record_time else event.event_time, event.event_key)

    nearest = min if query.ascending else max
    end = nearest(ends, key=rank) if ends else None
    if end is not None:
        found = [event for event in found if nearest(place_of(event), end, key=rank) == place_of(event)]
    found.sort(key=lambda event: rank(place_of(event)), reverse=not query.ascending)
    shown = found[:most]
    answered = query.answered + len(shown)
    if query.count_limit is not None and answered >= query.count_limit:
        return BrandsPage(shown, None)
    last = place_of(shown[-1]) if len(found) > most > 0 else end
    return BrandsPage(shown, None if last is None else event_search.token(last, answered))


def _place(token: str) -> Place:
    at, key, _answered = paging.decode(LIST_NAME, token, 3)
    return Place(datetime.fromisoformat(str(at)), uuid.UUID(str(key)))
