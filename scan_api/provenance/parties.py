"""Parties: who gave or got what an event tells of, by an index of its own, so that a partner's events are found by it.

A party is known by its GLN, which names it and its places alike (GS1 General Specifications, 2.4), or by a URI of its
own. Sources and destinations are indexed, and places that are part of one with a GLN; all other places have an index
by their whole name.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, Final

from sqlalchemy import Column, Text
from sqlmodel import Field, SQLModel

from kit.db import Moment
from scan_api.provenance.things import NAMES_KEPT, name_of

EXTENSION: Final = "/254/"
"""What comes before the name of a part of a place (GS1 General Specifications, AI 254)."""
_BY_BYTES: Final = Text().with_variant(Text(collation="C"), "postgresql")
_GLN: Final = re.compile(r"https://id\.gs1\.org/41[47]/([0-9]{13})(?:/254/.*)?")
_LISTS: Final = (("sourceList", "source"), ("destinationList", "destination"))
_PLACES: Final = ("readPoint", "bizLocation")
FIELDS: Final = frozenset({*_PLACES, *(field for field, _key in _LISTS)})
"""Of an event, in which parties and places are named."""


class EventParty(SQLModel, table=True):
    """A party that an event names. All of one party's lie together, in the order in which they happened."""

    __tablename__: ClassVar[str] = "event_party"

    party: str = Field(sa_column=Column(_BY_BYTES, primary_key=True))
    """See `party_name`."""
    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    event_time: datetime = Field(primary_key=True, sa_type=Moment)
    event_key: uuid.UUID = Field(primary_key=True)


@lru_cache(maxsize=NAMES_KEPT)
def party_name(identifier: str) -> str:
    """The name under which parties and places are compared: a GLN's 13 digits where there is one, else the one name."""
    if re.fullmatch(r"[0-9]{13}", identifier):
        return identifier
    name = name_of(identifier)
    found = _GLN.fullmatch(name)
    return found[1] if found else name


def sides_of(event: Mapping[str, Any]) -> Iterator[str]:
    """The names of the sources and destinations of an event."""
    for field, key in _LISTS:
        for one in event.get(field) or ():
            if isinstance(one, Mapping) and isinstance(one.get(key), str):
                yield party_name(one[key])


def places_of(event: Mapping[str, Any]) -> Iterator[str]:
    """The identifiers of an event's read point and business location."""
    for field in _PLACES:
        place = event.get(field)
        if isinstance(place, Mapping) and isinstance(place.get("id"), str):
            yield place["id"]


def names_in(event: Mapping[str, Any]) -> list[str]:
    """The names of all parties and places of an event, as far as its fields are here."""
    return [*sides_of(event), *map(name_of, places_of(event))]


def indexed(event: Mapping[str, Any]) -> list[str]:
    """The names under which a sound event stands in the index, each once."""
    parts = (party_name(place) for place in places_of(event) if EXTENSION in name_of(place))
    return list(dict.fromkeys((*sides_of(event), *parts)))
