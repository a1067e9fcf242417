"""A trace as it is told: the way of a thing from place to place, and its things, ties, documents and events."""

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder

from kit.clock import iso
from scan_api.provenance import answers
from scan_api.provenance.event_rows import EventRow
from scan_api.provenance.things import Naming, name_of, named_in
from scan_api.provenance.trace import Reached, Trace

_GEO = re.compile(r"geo:(-?\d{1,2}(?:\.\d{1,12})?),(-?\d{1,3}(?:\.\d{1,12})?)(?:[,;].*)?")


class _Told(Naming, total=False):
    """What a way is made of: what else an event says goes out unread."""

    bizStep: str
    disposition: str
    bizTransactionList: list[dict[str, Any]]
    certificationInfo: Any


_told = Decoder(_Told)


class Waypoint(Struct, frozen=True, gc=False):
    """One event of the way, oldest first. `through` is the traced thing that it names.

    `position` is latitude and longitude in degrees, where a place is given as a geo URI (RFC 5870).
    """

    at: datetime
    kind: str
    action: str | None
    step: str | None
    disposition: str | None
    place: str | None
    position: tuple[float, float] | None
    through: str
    event_id: str
    is_undone: bool


@dataclass(frozen=True, slots=True)
class Paper:
    """A document or certificate that an event names, as the event does. `kind` None: it does not say."""

    kind: str | None
    identifier: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Way:
    """What people look for in a trace."""

    waypoints: tuple[Waypoint, ...]
    documents: tuple[Paper, ...]
    certificates: tuple[Paper, ...]


def way_of(trace: Trace) -> Way:
    """The way that a trace tells of. Declarations of errors are no part of it; what they undo is marked."""
    things = {thing.name: thing for thing in trace.things}
    waypoints: list[Waypoint] = []
    documents: dict[tuple[str | None, str], Paper] = {}
    certificates: dict[str, Paper] = {}
    for event in trace.events:
        if event.is_error:
            continue
        content = _told.decode(event.content)
        through = _nearest(content, things)
        if through is not None:  # what it names may be beyond what one trace has room for
            waypoints.append(_waypoint(event, content, through, event.event_key in trace.undone))
        for kind, identifier in _documents(content):
            documents.setdefault((kind, identifier), Paper(kind, identifier, event.event_id))
        for identifier in _certificates(content):
            certificates.setdefault(identifier, Paper(None, identifier, event.event_id))
    return Way(tuple(waypoints), tuple(documents.values()), tuple(certificates.values()))


def _waypoint(event: EventRow, content: _Told, through: Reached, is_undone: bool) -> Waypoint:
    place = event.biz_location or event.read_point
    return Waypoint(
        event.event_time,
        event.type,
        event.action,
        content.get("bizStep"),
        content.get("disposition"),
        place,
        _position(event.read_point) or _position(event.biz_location),
        through.name,
        event.event_id,
        is_undone,
    )


def _nearest(content: _Told, things: Mapping[str, Reached]) -> Reached | None:
    """Of the traced things that an event names the one that is the fewest steps away."""
    nearest: Reached | None = None
    for name, _part in named_in(content):
        thing = things.get(name)
        if thing is not None and (nearest is None or thing.steps < nearest.steps):
            nearest = thing
            if nearest.steps == 0:
                break
    return nearest


def _position(place: str | None) -> tuple[float, float] | None:
    found = _GEO.fullmatch(place or "")
    if found is None:
        return None
    latitude, longitude = float(found[1]), float(found[2])
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def _documents(content: _Told) -> Iterator[tuple[str | None, str]]:
    for transaction in content.get("bizTransactionList") or ():
        yield transaction.get("type"), transaction["bizTransaction"]


def _certificates(content: _Told) -> Iterator[str]:
    told = content.get("certificationInfo")
    for one in told if isinstance(told, list) else [told]:
        if isinstance(one, str):
            yield one


def as_json(
    trace: Trace, way: Way, asked: str, contexts: Mapping[uuid.UUID, object], created_at: datetime
) -> dict[str, Any]:
    """The answer of `/v1/trace`, for `answers.encoded`: each event once in a query document, and what follows."""
    ids = {event.event_key: event.event_id for event in trace.events}
    return {
        "thing": name_of(asked),
        "is_cut": trace.is_cut,
        "things": [
            {
                "id": thing.name,
                "direction": thing.direction.value,
                "steps": thing.steps,
                "since": iso(thing.since) if thing.since else None,
                "until": iso(thing.until) if thing.until else None,
            }
            for thing in trace.things
        ],
        "links": [
            {"tie": link.tie.value, "source": link.source, "target": link.target, "event": ids.get(link.event_key)}
            for link in trace.links
        ],
        "way": [
            {
                "at": iso(one.at),
                "event": one.event_id,
                "type": one.kind,
                "action": one.action,
                "bizStep": one.step,
                "disposition": one.disposition,
                "place": one.place,
                "through": one.through,
                "is_undone": one.is_undone,
            }
            for one in way.waypoints
        ],
        "documents": [_paper(one) for one in way.documents],
        "certificates": [_paper(one) for one in way.certificates],
        "epcis": answers.query_document(trace.events, contexts, created_at),
    }


def _paper(paper: Paper) -> dict[str, Any]:
    return {"type": paper.kind, "id": paper.identifier, "event": paper.event_id}
