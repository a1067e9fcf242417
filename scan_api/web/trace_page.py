"""The page of a trace: the way of a thing on a map and as a list, what it was in, made of and held, and its papers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scan_api.provenance.trace import Direction, Reached, Trace
from scan_api.provenance.trace_answers import Way, Waypoint
from scan_api.thing_acts import On, ThingAct
from scan_api.web import wording
from scan_api.web.rendering import Html, render
from scan_api.web.trace_words import ACTS, REASONS, STEPS
from scan_api.web.views import Language

THINGS_SHOWN_MAX, WAYPOINTS_SHOWN_MAX, ACTS_SHOWN_MAX = 200, 500, 200
_WIDTH, _HEIGHT, _EDGE = 320.0, 200.0, 16.0
_SPAN_MIN_DEGREES = 0.01
"""A map of one place, or of places side by side, is not drawn larger than a town."""


@dataclass(frozen=True, slots=True)
class StopView:
    """One event of the way. `number` is its place on the map, None if it has none. `step` is in the reader's words."""

    moment: str
    step: str
    place: str | None
    through: str | None
    is_undone: bool
    number: int | None


@dataclass(frozen=True, slots=True)
class ActView:
    """An act on the thing, in the reader's words. `on` is what was acted on, where it was not the thing itself."""

    moment: str
    kind: str
    reason: str | None
    message: str | None
    on: str | None


@dataclass(frozen=True, slots=True)
class PointView:
    """A numbered point of the map."""

    number: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class MapView:
    """Where the thing was, drawn to scale between its own places; `path` joins them in order of time."""

    width: int
    height: int
    points: tuple[PointView, ...]
    path: str


@dataclass(frozen=True, slots=True)
class TraceView:
    """The form, and below it the trace that was asked for, if any. `code` is the error's that refused it."""

    language: Language
    thing: str = ""
    problem: Literal["refused"] | None = None
    code: str | None = None
    is_found: bool = False
    is_cut: bool = False
    stops: tuple[StopView, ...] = ()
    map: MapView | None = None
    around: tuple[str, ...] = ()
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    documents: tuple[tuple[str | None, str], ...] = ()
    certificates: tuple[str, ...] = ()
    acts: tuple[ActView, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of the thing that was asked for."""
        return self.is_found and not (self.stops or self.acts)


def page(view: TraceView) -> Html:
    """The page."""
    return render("trace.html", view)


def view_of(language: Language, asked: str, trace: Trace, way: Way, acts: Sequence[ThingAct] = ()) -> TraceView:
    """A trace as its page shows it."""
    waypoints = way.waypoints[:WAYPOINTS_SHOWN_MAX]
    drawn, numbers = _map(waypoints)
    own = {thing.name for thing in trace.things if thing.direction is Direction.SELF}
    return TraceView(
        language,
        asked,
        is_found=True,
        is_cut=trace.is_cut
        or len(waypoints) < len(way.waypoints)
        or len(acts) > ACTS_SHOWN_MAX
        or any(len(_all(trace, one)) > THINGS_SHOWN_MAX for one in Direction),
        stops=tuple(
            StopView(
                wording.moment(language, one.at),
                _step(language, one),
                one.place,
                None if one.through in own else one.through,
                one.is_undone,
                numbers.get(one.position) if one.position else None,
            )
            for one in waypoints
        ),
        map=drawn,
        around=_names(trace, Direction.AROUND),
        up=_names(trace, Direction.UP),
        down=_names(trace, Direction.DOWN),
        documents=tuple((paper.kind, paper.identifier) for paper in way.documents),
        certificates=tuple(paper.identifier for paper in way.certificates),
        acts=tuple(_act(language, act) for act in acts[:ACTS_SHOWN_MAX]),
    )


def _act(language: Language, act: ThingAct) -> ActView:
    reason = None if act.reason is None else REASONS[language].get(act.reason)
    on = None if act.on is On.THING else act.subject
    return ActView(wording.moment(language, act.at), ACTS[language][act.kind], reason, act.message, on)


def _step(language: Language, one: Waypoint) -> str:
    words = STEPS[language]
    bare = (one.step or "").rpartition("-")[2].rpartition(":")[2]
    return words.get(bare) or words.get(f"{one.kind}.{one.action}") or words.get(one.kind) or one.kind


def _all(trace: Trace, direction: Direction) -> list[Reached]:
    return [thing for thing in trace.things if thing.direction is direction]


def _names(trace: Trace, direction: Direction) -> tuple[str, ...]:
    return tuple(thing.name for thing in _all(trace, direction)[:THINGS_SHOWN_MAX])


def _map(waypoints: Sequence[Waypoint]) -> tuple[MapView | None, dict[tuple[float, float], int]]:
    """The places in the order in which they were first seen: equirectangular, true at their middle latitude."""
    stops = [one.position for one in waypoints if one.position is not None and not one.is_undone]
    places = {place: number for number, place in enumerate(dict.fromkeys(stops), 1)}
    if not places:
        return None, {}
    middle = sum(latitude for latitude, _ in places) / len(places)
    narrow = max(math.cos(math.radians(middle)), 0.01)
    flat = {place: (place[1] * narrow, -place[0]) for place in places}
    west, north = (min(axis) for axis in zip(*flat.values(), strict=True))
    wide, high = (max(axis) - min(axis) for axis in zip(*flat.values(), strict=True))
    scale = min(
        (_WIDTH - 2 * _EDGE) / max(wide, _SPAN_MIN_DEGREES), (_HEIGHT - 2 * _EDGE) / max(high, _SPAN_MIN_DEGREES)
    )
    left, top = (_WIDTH - wide * scale) / 2, (_HEIGHT - high * scale) / 2
    at = {
        place: (round(left + (x - west) * scale, 1), round(top + (y - north) * scale, 1))
        for place, (x, y) in flat.items()
    }
    points = tuple(PointView(number, *at[place]) for place, number in places.items())
    path = "M" + "L".join(f"{at[place][0]} {at[place][1]}" for place in stops)
    return MapView(int(_WIDTH), int(_HEIGHT), points, path), places
