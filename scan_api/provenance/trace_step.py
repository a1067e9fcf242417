"""One step of a trace: what some things were in, the events of them on their way, and what was in them.

All of it comes in one round trip, and costs the same however many events there are of other things.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kit.procedures import Ask, Kind, Procedure, Step
from scan_api.provenance import event_rows
from scan_api.provenance.aggregation import LEVELS_MAX
from scan_api.provenance.event_rows import EventRow

Around = tuple[str, str, uuid.UUID, datetime, datetime | None, int]
"""A container, what was in it, by which event, from when until when, and its level."""
Inside = tuple[str, str, uuid.UUID]
"""A thing, what it was in, and by which event."""

_AROUND: Final = f"""
    WITH RECURSIVE stay(thing, child, event_key, since, until, level) AS (
        SELECT parent, child, event_key, since, until, 1 FROM packing
        WHERE child {{are_these}} AND brand_id = :brand_id AND kind = 'add' AND (until IS NULL OR until > since)
        UNION
        SELECT packing.parent, packing.child, packing.event_key,
            CASE WHEN packing.since > stay.since THEN packing.since ELSE stay.since END,
            CASE WHEN stay.until IS NULL OR packing.until < stay.until THEN packing.until ELSE stay.until END,
            stay.level + 1
        FROM stay JOIN packing ON packing.child = stay.thing AND packing.brand_id = :brand_id
        WHERE packing.kind = 'add' AND stay.level < {LEVELS_MAX}
            AND (packing.until IS NULL OR (packing.until > packing.since AND packing.until > stay.since))
            AND (stay.until IS NULL OR packing.since < stay.until)
    )
"""  # noqa: S608 - words of ours
# What else a container was filled with is no part of the way of what is in it.
_KEYS: Final = f"""
    {_AROUND}
    SELECT event_key FROM event_thing WHERE thing {{are_these}} AND brand_id = :brand_id
    UNION
    SELECT named.event_key FROM stay
        JOIN event_thing AS named ON named.thing = stay.thing AND named.brand_id = :brand_id
            AND named.event_time >= stay.since AND (stay.until IS NULL OR named.event_time < stay.until)
        WHERE named.part <> 'parent' OR NOT EXISTS (
            SELECT 1 FROM epcis_event
            WHERE epcis_event.event_key = named.event_key AND type IN ('AggregationEvent', 'AssociationEvent')
        )
"""  # noqa: S608 - words of ours
PARAMETERS: Final = {
    "looks_inside": Kind.BOOLEAN,
    "events_max": Kind.INTEGER,
    "things_max": Kind.INTEGER,
}
ANSWER: Final = ("around", "events", "inside")


def steps(are_these: str) -> tuple[Step, ...]:
    """What collects `ANSWER` by `PARAMETERS` and `:brand_id`; `are_these` is how names of things are asked for."""
    return (
        Step(
            f"""
            {_AROUND.format(are_these=are_these)} SELECT thing, child, event_key, since, until, level FROM stay
            ORDER BY level, since, thing LIMIT :things_max
            """,  # noqa: S608 - words of ours
            gives={
                "thing": Kind.TEXT,
                "child": Kind.TEXT,
                "event_key": Kind.UUID,
                "since": Kind.MOMENT,
                "until": Kind.MOMENT,
                "level": Kind.INTEGER,
            },
            collects="around",
        ),
        Step(
            event_rows.events_sql(_KEYS.format(are_these=are_these), "ASC"),
            gives=event_rows.COLUMNS,
            collects="events",
        ),
        Step(
            f"""
            SELECT child, parent, event_key FROM packing
            WHERE parent {are_these} AND brand_id = :brand_id AND kind = 'add' AND (until IS NULL OR until > since)
            ORDER BY parent, since, child LIMIT :things_max
            """,  # noqa: S608 - words of ours
            gives={"child": Kind.TEXT, "parent": Kind.TEXT, "event_key": Kind.UUID},
            collects="inside",
            when="looks_inside",
        ),
    )


STEP: Final = Procedure(
    "trace_step",
    {"brand_id": Kind.INTEGER, "names": Kind.TEXTS, **PARAMETERS},
    steps("= ANY(:names)"),
    ANSWER,
    writes=False,
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a step met, events by their time. `is_cut`: there was no room for all of them."""

    around: Sequence[Around]
    events: Sequence[EventRow]
    inside: Sequence[Inside]
    is_cut: bool


async def take(
    ask: Ask,
    brand_id: int,
    names: Sequence[str],
    *,
    looks_inside: bool,
    events_max: int,
    things_max: int,
) -> Taken:
    """One step from these things, by their one names; `around` and `inside` have `things_max` each at most."""
    values = (brand_id, list(names), looks_inside, events_max, things_max)
    return taken_of(await ask(STEP, dict(zip(STEP.parameters, values, strict=True))))


def taken_of(found: Mapping[str, Any]) -> Taken:
    """What a procedure with `steps` collected."""
    events, is_cut = event_rows.rows_of(found["events"])
    return Taken(found["around"], events, found["inside"] or (), is_cut)
