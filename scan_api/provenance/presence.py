"""Presence: what is at a place now, each thing by its last move or that of a container that it was in (`stock`).

The moves to a place are walked from the newest on, by indexes. A thing has one last move, so it is met there and
nowhere else; what an event moved, and all that was in it since, is asked whether that is its last.
"""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Uuid, literal, tuple_, union
from sqlalchemy import select as sql_select
from sqlmodel import col, select

from kit.db import Moment, Session
from scan_api.provenance import packed, stock
from scan_api.provenance.event_query import Path
from scan_api.provenance.parties import EventParty, party_name
from scan_api.provenance.repository import EpcisEvent
from scan_api.provenance.stock import MOVING_STEPS, Holding, Move

EVENTS_READ_MAX: Final = 2_000
"""That name the place, for one page."""
MOVES_READ_MAX: Final = 200
MOVES_AT_ONCE: Final = 20
THINGS_EXAMINED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where a page came: behind a thing of an event, or behind all of it where `thing` is empty."""

    at: datetime
    event_key: uuid.UUID
    thing: str


@dataclass(frozen=True, slots=True)
class Present:
    """A thing that is at the place, or under way to it."""

    thing: str
    holding: Holding


@dataclass(frozen=True, slots=True)
class PresencePage:
    """Things, by the time of the move that brought them, the newest first; `end` None: there are no more."""

    things: Sequence[Present]
    end: Position | None


async def page(
    session: Session, brand_id: int, place: str, now: datetime, after: Position | None, limit: int
) -> PresencePage:
    """A page of what is at the place of this one name; it may be short or empty and lead on."""
    keys, end = await _keys(session, brand_id, place, now, after)
    found: list[tuple[Move, str]] = []
    async for move, things in _moves(session, keys, place):
        behind = after.thing if after is not None and after.event_key == move.event_key else ""
        room = THINGS_EXAMINED_MAX - len(found)
        names = await _moved(session, brand_id, things, move.at, behind, room + 1)
        found += [(move, name) for name in names[:room]]
        if len(names) > room:
            end = _place_of(found[-1])
            break
    holdings = await stock.holdings_of(session, brand_id, sorted({name for _move, name in found}), now)
    present = [
        (move, name) for move, name in found if name in holdings and holdings[name].move.event_key == move.event_key
    ]
    if len(present) > limit:
        end = _place_of(present[limit - 1])
    return PresencePage([Present(name, holdings[name]) for _move, name in present[:limit]], end)


def _place_of(found: tuple[Move, str]) -> Position:
    move, name = found
    return Position(move.at, move.event_key, name)


async def _moved(
    session: Session, brand_id: int, things: Sequence[str], since: datetime, behind: str, count: int
) -> list[str]:
    """What an event moved and what was in that since, by name, the first `count` behind a name."""
    inside = await packed.ever_inside(session, brand_id, things, since, count, behind)
    return sorted({*inside, *(name for name in things if name > behind)})[:count]


async def _moves(session: Session, keys: Sequence[uuid.UUID], place: str) -> AsyncIterator[tuple[Move, Sequence[str]]]:
    """Those of these events that moved something to a place, and what they moved; few are in memory at once."""
    for start in range(0, len(keys), MOVES_AT_ONCE):
        some = keys[start : start + MOVES_AT_ONCE]
        events = await session.exec(select(EpcisEvent).where(col(EpcisEvent.event_key).in_(some)))
        by_key = {event.event_key: event for event in events}
        for key in some:
            move = stock.move_of(by_key[key])
            if move.place == place:
                yield move, stock.moved_by(by_key[key])


async def _keys(
    session: Session, brand_id: int, place: str, now: datetime, after: Position | None
) -> tuple[list[uuid.UUID], Position | None]:
    """The next events that may have moved something to a place, and up to where they were sought; None: to the last."""
    rows = await _events(session, brand_id, place, now, after)
    end = None
    moving = [row for row in rows[:EVENTS_READ_MAX] if row.biz_step in MOVING_STEPS]
    if len(moving) > MOVES_READ_MAX:
        moving = moving[:MOVES_READ_MAX]
        end = Position(moving[-1].event_time, moving[-1].event_key, "")
    elif len(rows) > EVENTS_READ_MAX:
        end = Position(rows[EVENTS_READ_MAX - 1].event_time, rows[EVENTS_READ_MAX - 1].event_key, "")
    return [row.event_key for row in moving], end


async def _events(session: Session, brand_id: int, place: str, now: datetime, after: Position | None) -> Sequence[Any]:
    """Events that name a place, the newest first: as business location or read point, or as where something goes."""
    paths = (
        Path(EpcisEvent, (col(EpcisEvent.biz_location) == place,)),
        Path(EpcisEvent, (col(EpcisEvent.read_point) == place,)),
        Path(EventParty, (col(EventParty.party) == party_name(place),)),
    )
    branches = []
    for path in paths:
        at, key = col(path.model.event_time), col(path.model.event_key)
        held: list[ColumnElement[bool]] = [col(path.model.brand_id) == brand_id, at <= now, *path.held]
        if after is not None:
            end = tuple_(literal(after.at, Moment()), literal(after.event_key, Uuid()))
            held.append(tuple_(at, key) <= end if after.thing else tuple_(at, key) < end)
        branch = sql_select(at, key).where(*held).order_by(at.desc(), key.desc()).limit(EVENTS_READ_MAX + 1)
        branches.append(sql_select(branch.subquery()))
    found = union(*branches).subquery().c
    asked = (
        sql_select(found.event_time, found.event_key, col(EpcisEvent.biz_step))
        .join(EpcisEvent, col(EpcisEvent.event_key) == found.event_key)
        .order_by(found.event_time.desc(), found.event_key.desc())
        .limit(EVENTS_READ_MAX + 1)
    )
    return (await (await session.connection()).execute(asked)).all()
