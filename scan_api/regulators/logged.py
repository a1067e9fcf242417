"""Which entries of the transparency log a regulator's scope sees."""

from sqlmodel import col, exists, select

from codes.log_queue import LogEntry
from kit.db import Session
from scan_api.provenance.repository import EpcisEvent
from scan_api.regulators import sights
from scan_api.regulators.scope import Scope


async def sees(session: Session, scope: Scope, entry: LogEntry) -> bool:
    """An event's entry is seen with the event; of acts and steps those of brands that are seen whole.

    What is the installation's own concerns all brands, and is seen by who is bound to nothing.
    """
    if entry.brand_id is None:
        return not (scope.regions or scope.is_bounded_by_product or scope.brand_id or scope.sandbox)
    reach = await sights.reach_of(session, scope)
    if entry.kind != "event":
        return entry.brand_id in reach.seated - reach.mixed
    seen = exists().where(col(EpcisEvent.event_key) == entry.subject, sights.event_condition(reach, entry.brand_id))
    return bool((await session.exec(select(seen))).one())
