"""An item's history: the newest events that name one thing, read together with the key that asks, in one round trip.

It is what the event query asked for `MATCH_anyEPC` and nothing else answers. That is asked most often, and its answer
is always to be found by one index, so it goes a way of its own, at a fifth of the cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kit.procedures import Kind, Procedure, Step
from scan_api.auth import api_keys
from scan_api.provenance import event_rows
from scan_api.provenance.event_query import ANY_EPC, EventQuery, Place
from scan_api.provenance.event_rows import EventRow
from scan_api.provenance.event_search import token

_NEWEST: Final = f"""
    SELECT event_key FROM (
        SELECT DISTINCT event_time, event_key FROM event_thing
        WHERE thing = :thing AND brand_id = :brand_id AND part IN ({", ".join(f"'{part}'" for part in ANY_EPC)})
        ORDER BY event_time DESC, event_key DESC LIMIT :events_max
    ) AS newest
"""  # noqa: S608 - words of ours
HISTORY: Final = Procedure(
    "history",
    {**api_keys.PARAMETERS, "thing": Kind.TEXT, "events_max": Kind.INTEGER},
    (
        api_keys.KEY,
        Step(event_rows.events_sql(_NEWEST, "DESC"), gives=event_rows.COLUMNS, collects="events"),
    ),
    (*api_keys.KEY.gives, "events"),
    writes=False,
)
"""The key, and the events by their time, newest first."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of events; `next_token` None: it was the last."""

    events: Sequence[EventRow]
    next_token: str | None


def thing_of(query: EventQuery) -> str | None:
    """The one thing whose newest events a query asks for, by its one name; None: it asks for anything else."""
    if len(query.things) != 1 or query != EventQuery(things=query.things, per_page=query.per_page):
        return None
    [things] = query.things
    if things.prefixes or len(things.names) != 1 or things.parts != frozenset(ANY_EPC):
        return None
    return next(iter(things.names))


def values(authorization: str | None, thing: str, per_page: int) -> dict[str, Any]:
    """The parameters of `HISTORY` for the first page."""
    return {**api_keys.values(authorization), "thing": thing, "events_max": per_page + 1}


def page_of(found: Mapping[str, Any], per_page: int) -> HistoryPage:
    """The page that `HISTORY` found."""
    events, is_cut = event_rows.rows_of(found["events"])
    if len(events) <= per_page and not is_cut:
        return HistoryPage(events, None)
    shown = events[:per_page]
    return HistoryPage(shown, token(Place(shown[-1].event_time, shown[-1].event_key), len(shown)))
