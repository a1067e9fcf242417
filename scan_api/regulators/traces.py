"""Traces for regulators: what of a brand's trace of a thing a scope sees.

A thing of a product is seen as items are (`Scope.sees`): by its brand's seat, or by the places where it was, by itself
or in a container. Of a thing that is seen its own way is told whole, with the acts on it; of what it was made of, what
was made of it or was in it, only the events that the scope sees by themselves. What belongs to no product of the
brand, such as a container, is told of by such events alone, and so is a class whose brand is not seated there; the acts
on a container only by a brand that is seen whole. For what is not seen the answer is that of a thing that
nobody ever heard of.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlmodel import col, select

from codes.catalogue import Product, brand_with
from kit import procedures
from kit.db import Session
from kit.errors import Invalid
from scan_api import thing_acts
from scan_api.provenance import trace as tracing
from scan_api.provenance.repository import EpcisEvent
from scan_api.provenance.trace import Direction, Reached, Trace
from scan_api.regulators import sights, territory
from scan_api.regulators.scope import Scope
from scan_api.regulators.sights import Reach, ScopeTooWide
from scan_api.scans import Scans
from scan_api.thing_acts import Known

KEYS_ASKED_AT_ONCE_MAX: Final = 500


class BrandNeeded(Invalid):
    """A thing of no product is traced in a brand's events, and none was named."""

    code = "BrandNeeded"


@dataclass(frozen=True, slots=True)
class Seen:
    """What of a thing's trace is seen. `brand_id` None: nothing is."""

    brand_id: int | None
    trace: Trace
    known: Known


async def seen_of(session: Session, scans: Scans, scope: Scope, name: str, slug: str | None, steps: int) -> Seen:
    """The trace of the thing of this one name, by the events of the brand whose product it is, or of another (`slug`).

    A brand that there is not is one that is not reached. Raises BrandNeeded, ScopeTooWide.
    """
    gtin = thing_acts.gtin_in(name)
    if gtin is None and slug is None:
        raise BrandNeeded("whose container is it?", hint="Name the brand: ?brand=….")
    product = None if gtin is None else await session.get(Product, gtin)
    reach = await sights.reach_of(session, scope)
    if slug is not None:
        brand_id = await sights.reached_named(session, reach, slug)
    else:
        brand_id = None if product is None else product.brand_id
    if brand_id is None or brand_id not in reach.brands:
        return _nothing(name)
    known = await thing_acts.known_of(session, scans, await brand_with(session, brand_id), name)
    ask = procedures.asking(session)
    found = await tracing.trace(ask, brand_id, known.names(name), steps)
    is_own = product is not None and product.brand_id == brand_id
    if is_own and product is not None:
        # Where some of a lot was, an item of it need not have been.
        alone = found if known.lot_name is None else await tracing.trace(ask, brand_id, [name], 0)
        if not await _sees(session, scope, product, alone, known):
            return _nothing(name)
    keys = [event.event_key for event in found.events]
    if is_own:
        # Of a class, such as a GTIN, only some was there: its events are of the whole country.
        own = found.own if brand_id in reach.seated or "/21/" in name else frozenset[uuid.UUID]()
        known = known if brand_id in reach.seated else replace(known, items=None)
        try:
            seen = await _seen_events(session, reach, brand_id, keys)
        except ScopeTooWide:
            seen = set()  # what it is tied to is not told of; it is itself
        return Seen(brand_id, found.of(seen | own), known)
    seen = await _seen_events(session, reach, brand_id, keys)
    if brand_id in reach.seated - reach.mixed:
        return Seen(brand_id, found.of(seen), known)
    return Seen(brand_id, _undated(found.of(seen)), Known()) if seen else _nothing(name)


def _nothing(name: str) -> Seen:
    trace = Trace([Reached(name, Direction.SELF, 0)], [], [], frozenset(), frozenset(), False)
    return Seen(None, trace, Known())


def _undated(trace: Trace) -> Trace:
    """The same without the times of stays in containers: they are those of events that need not be seen."""
    return replace(trace, things=[replace(thing, since=None, until=None) for thing in trace.things])


async def _sees(session: Session, scope: Scope, product: Product, found: Trace, known: Known) -> bool:
    """Whether the scope sees a thing of this product that took this way."""
    own = [event for event in found.events if event.event_key in found.own]
    places = {place for event in own for place in (event.read_point, event.biz_location) if place is not None}
    places |= {act.place for act in known.acts if act.place is not None}
    regions = (await territory.regions_of(session, product.brand_id, places)).values()
    return scope.sees(await sights.product_facts(session, product, set(regions))).is_seen


async def _seen_events(session: Session, reach: Reach, brand_id: int, keys: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    condition = sights.event_condition(reach, brand_id)
    seen: set[uuid.UUID] = set()
    for start in range(0, len(keys), KEYS_ASKED_AT_ONCE_MAX):
        some = keys[start : start + KEYS_ASKED_AT_ONCE_MAX]
        asked = select(EpcisEvent.event_key).where(col(EpcisEvent.event_key).in_(some), condition)
        seen |= set(await session.exec(asked))
    return seen
