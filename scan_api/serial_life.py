"""Serial life: an order or parts of it put on sale, voided or recalled, with the event that items show and the act."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from codes import orders, ranges
from codes.acts import record_act
from codes.orders import CodeOrder
from codes.ranges import IndexRange
from kit.db import Session
from scan_api.provenance import events
from scan_api.provenance.events import EventInvalid, Happening, Step


@dataclass(frozen=True, slots=True)
class Change:
    """What a change did: the parts that it changed (None: the whole order), and its event if it did anything."""

    event_id: uuid.UUID | None
    ranges: list[IndexRange] | None
    items: int


async def change(
    session: Session,
    order: CodeOrder,
    parts: Sequence[IndexRange] | None,
    happening: Happening,
    now: datetime,
    detail: Mapping[str, Any] | None = None,
) -> Change:
    """Put parts of an order on sale, or all of it (None), or void parts, as the happening's step says.

    `detail` goes into the act. Raises EventInvalid for another step and for voiding without ranges, and what
    `codes.ranges.activate` and `.void` and `codes.orders.activate` raise.
    """
    changed: list[IndexRange] | None = None
    if happening.step is Step.ACTIVATED and parts is None:
        items = order.quantity if await orders.activate(session, order) else 0
    elif happening.step is Step.ACTIVATED and parts is not None:
        changed = await ranges.activate(session, order, parts)
        items = sum(part.items for part in changed)
    elif happening.step is Step.VOIDED and parts is not None:
        changed = await ranges.void(session, order, parts)
        items = sum(part.items for part in changed)
    else:
        raise EventInvalid("an order or ranges of it are activated, ranges of it are voided", hint="Name the ranges.")
    if not items:
        return Change(None, changed, 0)
    event_id = await events.record_for_order(session, order, happening, now, changed)
    assert order.order_id is not None
    # What was asked for, since what it changed may be a hundred times as many ranges.
    asked = {} if parts is None else {"ranges": ranges.written(parts)}
    await record_act(
        session, order.order_id, happening.step.value, happening.by, {**asked, "items": items, **(detail or {})}, now
    )
    return Change(event_id, changed, items)


async def recall(session: Session, order: CodeOrder, reason: str, by: str | None, now: datetime) -> int:
    """Recall an order, with its event and act; how many items that changed. Raises RecallReasonInvalid."""
    if not await orders.recall(session, order, reason):
        return 0
    await events.record_for_order(session, order, Happening(Step.RECALLED, now, None, by), now)
    assert order.order_id is not None
    await record_act(session, order.order_id, Step.RECALLED.value, by, {"reason": order.recall_reason}, now)
    return order.quantity
