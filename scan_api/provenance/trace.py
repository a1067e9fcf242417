"""Trace: where a thing came from and went, worked out from the events that name it and what it was in.

Upstream leads through transformations to what it was made of, downstream through transformations to what was made of
it, and through aggregations to what was in it (GS1 Global Traceability Standard 2.0, 2.2: tracing and tracking).
"""

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder

from kit.procedures import Ask
from scan_api.provenance import trace_step
from scan_api.provenance.event_rows import CONTENT_BYTES_MAX, EventRow
from scan_api.provenance.things import Naming, Part, things_of
from scan_api.provenance.trace_step import Inside, Taken

STEPS_DEFAULT, STEPS_MAX = 5, 10
"""From thing to thing, in either direction."""
THINGS_MAX, EVENTS_MAX = 2_000, 2_000
"""Of one trace, whose events have `event_rows.CONTENT_BYTES_MAX` together; what is nearer comes first."""
LINKS_MAX = 20_000
"""Of one trace: an event that made thousands of things of thousands ties each to each."""

_naming = Decoder(Naming)
_MADE, _MADE_OF = (Part.OUTPUT, Part.OUTPUT_CLASS), (Part.INPUT, Part.INPUT_CLASS)


class Direction(StrEnum):
    """Which way a thing was reached."""

    SELF = "self"
    AROUND = "around"
    """It held the thing that was asked for, or one that was reached from it, for a time."""
    UP = "up"
    DOWN = "down"


class Tie(StrEnum):
    """What ties two things: `source` was packed into `target`, or `target` was made of `source`."""

    PACKED = "packed"
    MADE = "made"


@dataclass(frozen=True, slots=True)
class Reached:
    """A thing of a trace, so many steps away. Its events count from `since` to before `until`; None: without end."""

    name: str
    direction: Direction
    steps: int
    since: datetime | None = None
    until: datetime | None = None


class Link(Struct, frozen=True, gc=False):
    """A tie between two things, by the event that made it."""

    tie: Tie
    source: str
    target: str
    event_key: uuid.UUID


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is known of a thing's way: events by time, each once. `is_cut`: there was more than is shown.

    `own` are the keys of the events of the thing itself and of what it was in, `undone` those of events that were
    declared errors later.
    """

    things: Sequence[Reached]
    links: Sequence[Link]
    events: Sequence[EventRow]
    own: frozenset[uuid.UUID]
    undone: frozenset[uuid.UUID]
    is_cut: bool

    def of(self, seen: Collection[uuid.UUID]) -> "Trace":
        """The same with these events alone, what they name and what they tie."""
        events = [event for event in self.events if event.event_key in seen]
        links = [link for link in self.links if link.event_key in seen]
        named = {name for event in events for name, _part in things_of(_naming.decode(event.content))}
        named |= {end for link in links for end in (link.source, link.target)}
        things = [thing for thing in self.things if thing.direction is Direction.SELF or thing.name in named]
        return replace(self, things=things, links=links, events=events)


@dataclass(slots=True)
class _Found:
    """What was gathered so far."""

    things: dict[str, Reached]
    links: dict[Link, None] = field(default_factory=dict)
    events: dict[uuid.UUID, EventRow] = field(default_factory=dict)
    is_cut: bool = False
    content_bytes: int = 0
    made: dict[uuid.UUID, Sequence[tuple[str, Part]]] = field(default_factory=dict)
    """The things of those events that are transformations."""

    def reach(self, names: Iterable[str], direction: Direction, steps: int) -> list[str]:
        """Take things in that are new; which."""
        new = [name for name in dict.fromkeys(names) if name not in self.things]
        room = max(0, THINGS_MAX - len(self.things))
        self.is_cut |= len(new) > room
        self.things |= {name: Reached(name, direction, steps) for name in new[:room]}
        return new[:room]

    def put_in(self, inside: Sequence[Inside]) -> list[str]:
        """Note what was ever in containers; which things."""
        for child, parent, key in inside[:THINGS_MAX]:
            self.tie(Link(Tie.PACKED, child, parent, key))
        self.is_cut |= len(inside) > THINGS_MAX
        return [child for child, _parent, _key in inside[:THINGS_MAX]]

    def tie(self, link: Link) -> bool:
        """Note a link; whether there was room for it."""
        if len(self.links) >= LINKS_MAX and link not in self.links:
            self.is_cut = True
            return False
        self.links[link] = None
        return True

    def take(self, taken: Taken, steps: int) -> None:
        """Note the containers and the events that a step met, whose things are so many steps away."""
        self.is_cut |= len(taken.around) > THINGS_MAX
        for name, child, key, since, until, level in taken.around[:THINGS_MAX]:
            self.things.setdefault(name, Reached(name, Direction.AROUND, steps + level, since, until))
            self.tie(Link(Tie.PACKED, child, name, key))
        for event in taken.events[:EVENTS_MAX]:
            if event.event_key in self.events:
                continue
            size = self.content_bytes + len(event.content.encode())
            if len(self.events) == EVENTS_MAX or size > CONTENT_BYTES_MAX:
                self.is_cut = True
                return
            self.content_bytes = size
            self.events[event.event_key] = event
            if event.type == "TransformationEvent":
                self.made[event.event_key] = things_of(_naming.decode(event.content))
        self.is_cut |= taken.is_cut or len(taken.events) > EVENTS_MAX


def first_values(steps: int) -> dict[str, Any]:
    """The parameters of `trace_step` for the first step of a trace."""
    return _limits(looks_inside=steps > 0)


def _limits(*, looks_inside: bool) -> dict[str, Any]:
    return dict(zip(trace_step.PARAMETERS, (looks_inside, EVENTS_MAX + 1, THINGS_MAX + 1), strict=True))


async def trace(
    ask: Ask, brand_id: int, names: Sequence[str], steps: int = STEPS_DEFAULT, first: Taken | None = None
) -> Trace:
    """The trace of a thing by the brand's events; `steps` is 0 to 10 and does not count what the thing was in.

    `names` are its one name (`things.name_of`) and those of the classes it belongs to, such as its lot. `first` is the
    step from these by `first_values`, if somebody took it.
    """
    found = _Found({name: Reached(name, Direction.SELF, 0) for name in names})
    first = first or await trace_step.take(ask, brand_id, names, **first_values(steps))
    found.take(first, 0)
    for direction in (Direction.UP, Direction.DOWN):
        frontier, inside = list(names), first.inside
        for step in range(1, steps + 1):
            next_names = list(_tied(found, frontier, direction))
            if direction is Direction.DOWN:
                next_names += found.put_in(inside)
            frontier = found.reach(next_names, direction, step)
            if not frontier or found.is_cut:
                break
            limits = _limits(looks_inside=direction is Direction.DOWN and step < steps)
            taken = await trace_step.take(ask, brand_id, frontier, **limits)
            found.take(taken, step)
            inside = taken.inside
    events = sorted(found.events.values(), key=lambda event: (event.event_time, event.event_key))
    own = frozenset(event.event_key for event in first.events)
    undone = frozenset(event.event_key for event in events if event.is_undone and not event.is_error)
    return Trace(list(found.things.values()), list(found.links), events, own, undone, found.is_cut)


def _tied(found: _Found, names: Sequence[str], direction: Direction) -> Iterator[str]:
    """Of what these things were made, or what was made of them; the links are noted."""
    asked = set(names)
    ours, others = (_MADE, _MADE_OF) if direction is Direction.UP else (_MADE_OF, _MADE)
    for key, things in found.made.items():
        mine = [name for name, part in things if part in ours and name in asked]
        for name, part in things if mine else ():
            if part in others:
                for one in mine:
                    source, target = (name, one) if direction is Direction.UP else (one, name)
                    if not found.tie(Link(Tie.MADE, source, target, key)):
                        return
                yield name
