"""Aggregation: what single events say of a thing's containers, put together to where it was from when until when.

Pure: the steps of things come in, in whatever order they were heard of, and the times come out (EPCIS 2.0, 7.4.3).
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from scan_api.provenance.repository import NewEvent
from scan_api.provenance.things import Part

LEVELS_MAX = 8
"""Of packing: an item in seven containers, one in the other, has eight levels."""
_ENDLESS = datetime.max.replace(tzinfo=UTC)


class Kind(StrEnum):
    """What a step does."""

    ADD = "add"
    REMOVE = "remove"
    EMPTY = "empty"
    """All that is in the container is taken out; `child` is the container itself."""
    CIRCLE = "circle"
    """An addition without effect: it would put a thing into itself."""
    TOO_DEEP = "too_deep"
    """An addition without effect: there would be more than 8 levels."""


class Step(Struct, frozen=True, gc=False):
    """One thing's part in one event. Of an addition with effect, `until` is when it ended, None while it lasts.

    Every other step has `until` equal to `since`.
    """

    child: str
    parent: str
    since: datetime
    event_key: uuid.UUID
    kind: Kind
    until: datetime | None

    @property
    def order(self) -> tuple[datetime, bool, uuid.UUID]:
        """At one moment things leave before others come, so that one event can replace what another removed."""
        return self.since, self.kind is not Kind.REMOVE, self.event_key

    @property
    def end(self) -> datetime:
        return self.until or _ENDLESS

    @property
    def lasts(self) -> bool:
        """Whether the thing was in the container for any time at all."""
        return self.end > self.since


def steps_of(event: NewEvent) -> list[Step]:
    """The steps that an event takes; none unless it adds to a container, takes from it or empties it.

    An observation neither adds nor removes (EPCIS 2.0, 7.4.3); quantities of a class are no things of their own.
    """
    values, key = event.values, event.event_key
    if values["type"] != "AggregationEvent" or values["is_error"] or values["action"] == "OBSERVE":
        return []
    parent = next((thing for thing, part in event.things if part is Part.PARENT), None)
    if parent is None:
        return []
    children = [thing for thing, part in event.things if part is Part.CHILD]
    kind = Kind.ADD if values["action"] == "ADD" else Kind.REMOVE
    if not children:
        if kind is Kind.ADD or any(part is Part.CHILD_CLASS for _, part in event.things):
            return []
        children, kind = [parent], Kind.EMPTY
    since = values["event_time"].astimezone(UTC)
    until = None if kind is Kind.ADD else since
    return [Step(child, parent, since, key, kind, until) for child in children]


def settled(steps: Sequence[Step], emptied: Mapping[str, Sequence[datetime]]) -> list[Step]:
    """All additions and removals of one thing, in their order, each with its right `until`.

    `emptied` tells, ascending, when each of the containers was emptied. A removal from another container than the
    one it is in takes nothing out; an addition to the same one changes nothing, and one to another ends the first.
    """
    if len(steps) == 1 and steps[0].kind is Kind.ADD and steps[0].until is None and steps[0].parent not in emptied:
        return list(steps)  # as with most things
    done: list[Step] = []
    current: int | None = None
    for step in sorted(steps, key=lambda one: one.order):
        if current is not None and done[current].end <= step.since:
            current = None  # emptied meanwhile
        until: datetime | None = step.since
        if step.kind is Kind.REMOVE and current is not None and done[current].parent == step.parent:
            done[current] = replace(done[current], until=step.since)
            current = None
        elif step.kind is Kind.ADD and (current is None or done[current].parent != step.parent):
            if current is not None:
                done[current] = replace(done[current], until=step.since)
            until = next((moment for moment in emptied.get(step.parent, ()) if moment > step.since), None)
            current = len(done)
        done.append(step if until == step.until else replace(step, until=until))
    return done


@dataclass(frozen=True, slots=True)
class _Place:
    """A container above a thing, during a part of the time."""

    name: str
    since: datetime
    end: datetime
    level: int


def faulty(
    new: Sequence[Step], above: Mapping[str, Sequence[Step]], below: Mapping[str, Sequence[Step]]
) -> Iterator[tuple[Step, Kind]]:
    """Those of the new additions that must have no effect: they make a circle, or too many levels at any moment.

    Of several that do so together, it is the last one. `above` has for each thing its lasting steps, `below` for each
    container those of what was put into it, both with the new ones and as far as 8 levels from them.
    """
    # What has nothing above it and nothing below is two levels, as most have.
    tall = sorted((one for one in new if above.get(one.parent) or below.get(one.child)), key=lambda one: one.order)
    left_out = {(one.child, one.event_key) for one in tall}  # until its turn comes
    for step in tall:
        places = list(_above(step, above, left_out))
        if any(place.name == step.child for place in places):
            yield step, Kind.CIRCLE
        elif _is_too_deep(step, places, below, left_out):
            yield step, Kind.TOO_DEEP
        else:
            left_out.remove((step.child, step.event_key))


def _above(step: Step, above: Mapping[str, Sequence[Step]], left_out: set[tuple[str, uuid.UUID]]) -> Iterator[_Place]:
    pending = [_Place(step.parent, step.since, step.end, 1)]
    seen = set()
    while pending:
        place = pending.pop()
        yield place
        if place.level > LEVELS_MAX or place.name == step.child:
            continue
        for one in above.get(place.name, ()):
            since, end = max(place.since, one.since), min(place.end, one.end)
            if since < end and (one.child, one.event_key) not in left_out:
                higher = _Place(one.parent, since, end, place.level + 1)
                if higher not in seen:
                    seen.add(higher)
                    pending.append(higher)


def _is_too_deep(
    step: Step, places: Sequence[_Place], below: Mapping[str, Sequence[Step]], left_out: set[tuple[str, uuid.UUID]]
) -> bool:
    """Whether an addition makes more than 8 levels at any moment, what is above it counted with what is below then."""
    height = _height(step.child, step.since, step.end, below, left_out)
    most = max(place.level for place in places) + 1 + height
    if height == 0 or most <= LEVELS_MAX:
        return most > LEVELS_MAX
    return any(
        place.level + 1 + _height(step.child, place.since, place.end, below, left_out) > LEVELS_MAX for place in places
    )


def _height(
    name: str,
    since: datetime,
    end: datetime,
    below: Mapping[str, Sequence[Step]],
    left_out: set[tuple[str, uuid.UUID]],
) -> int:
    """How many levels lie under a thing during this time, 8 at most."""
    level = {(name, since, end)}
    for height in range(LEVELS_MAX):
        level = {
            (one.child, max(start, one.since), min(stop, one.end))
            for parent, start, stop in level
            for one in below.get(parent, ())
            if max(start, one.since) < min(stop, one.end) and (one.child, one.event_key) not in left_out
        }
        if not level:
            return height
    return LEVELS_MAX
