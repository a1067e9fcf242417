"""What the events of a brand tell of: the words and places in them, and the things, each once (EPCIS 2.0, 12.7).

Words are read off their index from one to the next, without looking at the events between. Things are listed at the
first event that names them, so that a list needs no index of its own and no other brand's things are passed on the way.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Uuid, literal, tuple_, union_all
from sqlalchemy import select as sql_select
from sqlmodel import col, func

from kit.db import Moment, Session
from scan_api import paging
from scan_api.provenance import vocabulary
from scan_api.provenance.documents import is_moment
from scan_api.provenance.event_query import QueryParameterInvalid
from scan_api.provenance.repository import EpcisEvent, EventThing
from scan_api.provenance.things import Part, things_of

EVENTS_EXAMINED_MAX: Final = 500
THINGS_EXAMINED_MAX: Final = 5_000
"""For one page of things; a page may be short, and still lead on."""
_FIRSTS_AT_ONCE: Final = 100
_EVENTS_AT_ONCE: Final = 20
_WHOLE: Final = 2**31
_LIST: Final = "epcis-things"
_WORDS: Final = {
    "bizSteps": ("biz_step", vocabulary.BUSINESS_STEPS),
    "dispositions": ("disposition", vocabulary.DISPOSITIONS),
    "bizLocations": ("biz_location", {}),
    "readPoints": ("read_point", {}),
}
_SINGLE: Final = frozenset({Part.EPC, Part.CHILD, Part.PARENT, Part.INPUT, Part.OUTPUT})


@dataclass(frozen=True, slots=True)
class Page:
    """A page of names; `next_token` None: it was the last."""

    names: Sequence[str]
    next_token: str | None


async def words(session: Session, brand_id: int, resource: str, per_page: int, token: str | None) -> Page:
    """The words or places of a brand's events, sorted. Raises CursorInvalid."""
    column_name, standard = _WORDS[resource]
    column = col(getattr(EpcisEvent, column_name))
    name = f"epcis-{resource}"
    last = "" if token is None else str(paging.decode(name, token, 1)[0])
    held = col(EpcisEvent.brand_id) == brand_id
    first = sql_select(func.min(column).label("word")).where(held, column > last)
    walk = first.cte("walk", recursive=True)
    following = sql_select(func.min(column)).where(held, column > walk.c.word).scalar_subquery()
    walk = walk.union_all(sql_select(following).where(walk.c.word.is_not(None)))
    found = sql_select(walk.c.word).where(walk.c.word.is_not(None)).limit(per_page + 1)
    rows = [str(row[0]) for row in await (await session.connection()).execute(found)]
    shown = rows[:per_page]
    names = [vocabulary.bare_word(word, standard) for word in shown]
    return Page(names, paging.encode(name, [shown[-1]]) if len(rows) > per_page else None)


@dataclass(frozen=True, slots=True)
class _Spot:
    """A place in the walk: an event, and how many of its things were dealt with; `_WHOLE`: all."""

    at: datetime
    event_key: uuid.UUID
    things: int

    def token(self) -> str:
        return paging.encode(_LIST, [self.at.astimezone(UTC).isoformat(), str(self.event_key), self.things])


def _spot(token: str) -> _Spot:
    at, key, things = paging.decode(_LIST, token, 3)
    try:
        if not is_moment(str(at)) or not isinstance(things, int) or things < 0:
            raise ValueError("no place")
        return _Spot(datetime.fromisoformat(str(at)), uuid.UUID(str(key)), things)
    except ValueError:
        raise QueryParameterInvalid("nextPageToken does not belong to this list") from None


async def things(session: Session, brand_id: int, per_page: int, token: str | None) -> Page:
    """The single things that a brand's events name, each at the first event (by its time) that does.

    Raises CursorInvalid, QueryParameterInvalid.
    """
    spot = None if token is None else _spot(token)
    names: list[str] = []
    room, left = THINGS_EXAMINED_MAX, EVENTS_EXAMINED_MAX
    while left > 0:
        rows = await _events_from(session, brand_id, spot)
        for at, key, content in rows:
            named = [name for name, part in things_of(json.loads(content)) if part in _SINGLE]
            done = spot.things if spot is not None and key == spot.event_key else 0
            while done < len(named):
                if room <= 0 or len(names) >= per_page:
                    return Page(names, _Spot(at, key, done).token())
                some = named[done : done + min(_FIRSTS_AT_ONCE, per_page - len(names), room)]
                firsts = await _firsts(session, brand_id, some)
                names += [name for name in dict.fromkeys(some) if firsts.get(name) == key and name not in names]
                done += len(some)
                room -= len(some)
            spot = _Spot(at, key, _WHOLE)
        left -= len(rows)
        if len(rows) < _EVENTS_AT_ONCE or spot is None:
            return Page(names, None)
    return Page(names, spot.token() if spot is not None else None)


async def _events_from(session: Session, brand_id: int, spot: _Spot | None) -> Sequence[Any]:
    """The next few events: with the one at the spot, unless all its things were dealt with."""
    columns = (col(EpcisEvent.event_time), col(EpcisEvent.event_key), col(EpcisEvent.content))
    statement = sql_select(*columns).where(col(EpcisEvent.brand_id) == brand_id)
    if spot is not None:
        place = tuple_(col(EpcisEvent.event_time), col(EpcisEvent.event_key))
        here = tuple_(literal(spot.at, Moment()), literal(spot.event_key, Uuid()))
        statement = statement.where(place > here if spot.things == _WHOLE else place >= here)
    statement = statement.order_by(col(EpcisEvent.event_time), col(EpcisEvent.event_key)).limit(_EVENTS_AT_ONCE)
    return (await (await session.connection()).execute(statement)).all()


async def _firsts(session: Session, brand_id: int, names: Sequence[str]) -> dict[str, Any]:
    """The first event of a brand that names each of these things as a single one."""
    branches = []
    for name in dict.fromkeys(names):
        first = (
            sql_select(col(EventThing.thing), col(EventThing.event_key))
            .where(
                col(EventThing.thing) == name,
                col(EventThing.brand_id) == brand_id,
                col(EventThing.part).in_(sorted(_SINGLE)),
            )
            .order_by(col(EventThing.event_time), col(EventThing.event_key))
            .limit(1)
            .subquery()
        )
        branches.append(sql_select(first.c.thing, first.c.event_key))
    rows = await (await session.connection()).execute(union_all(*branches))
    return {row[0]: row[1] for row in rows}
