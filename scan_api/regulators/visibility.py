"""Visibility: whether a partner of a brand may see an event, decided in one place.

A partner sees what it captured itself, what names it as source or destination, what happened at a place of its own, and
what the brand shares with it. It is known by its GLNs, which name a party and its places alike (GS1 General
Specifications, 2.4), or by URIs of its own.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from scan_api.provenance.parties import party_name, places_of, sides_of
from scan_api.provenance.things import things_of

_GTIN: Final = re.compile(r"https://id\.gs1\.org/01/([0-9]{14})(?:/.*)?")


class Visibility(StrEnum):
    """Whether an event is seen, and why."""

    CAPTURED = "captured"  # by the partner itself
    PARTY = "party"  # it is source or destination
    PLACE = "place"  # it happened at a place of the partner's
    SHARED = "shared"  # the brand shares it
    HIDDEN = "hidden"

    @property
    def is_visible(self) -> bool:
        return self is not Visibility.HIDDEN


@dataclass(frozen=True, slots=True)
class Share:
    """What a brand shares. Empty means all: GTINs, types of events. `until`, not included; None: without end."""

    brand_id: int
    gtins: frozenset[str]
    types: frozenset[str]
    since: datetime
    until: datetime | None = None

    def holds(self, facts: "EventFacts") -> bool:
        """Whether the event is shared: of products that are named, all that it names must be."""
        return (
            self.brand_id == facts.brand_id
            and self.since <= facts.at
            and (self.until is None or facts.at < self.until)
            and (not self.types or facts.type in self.types)
            and (not self.gtins or (bool(facts.gtins) and facts.gtins <= self.gtins))
        )


@dataclass(frozen=True, slots=True)
class Viewer:
    """A partner, as far as it decides what it sees."""

    names: frozenset[str]
    """GLNs of 13 digits, and canonical names of other identifiers."""
    callers: frozenset[uuid.UUID]
    """The callers under which its keys capture."""
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What of an event decides who sees it."""

    brand_id: int
    type: str
    at: datetime
    captured_by: uuid.UUID | None
    places: frozenset[str]
    parties: frozenset[str]
    gtins: frozenset[str]


def facts_of(event: Mapping[str, Any], brand_id: int, at: datetime, captured_by: uuid.UUID | None) -> EventFacts:
    """The facts of a sound event of a brand's repository, as it was sent; `at` is its time."""
    things = (found[1] for name, _part in things_of(event) if (found := _GTIN.fullmatch(name)))
    return EventFacts(
        brand_id,
        str(event["type"]),
        at,
        captured_by,
        frozenset(map(party_name, places_of(event))),
        frozenset(sides_of(event)),
        frozenset(things),
    )


def decide(facts: EventFacts, viewer: Viewer) -> Visibility:
    """Whether the partner sees the event, and why."""
    if facts.captured_by is not None and facts.captured_by in viewer.callers:
        return Visibility.CAPTURED
    if facts.parties & viewer.names:
        return Visibility.PARTY
    if facts.places & viewer.names:
        return Visibility.PLACE
    return Visibility.SHARED if any(share.holds(facts) for share in viewer.shares) else Visibility.HIDDEN
