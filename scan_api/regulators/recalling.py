"""Recalling: what a recall order makes true of codes, in one call that knows how each kind of subject is recalled."""

from datetime import datetime
from typing import Final

from sqlmodel import col, select

from codes.orders import CodeOrder, OrderState
from codes.serials import SerialScheme
from kit.db import Session
from kit.errors import Conflict
from scan_api import life_acts
from scan_api.life_acts import Done, LifeAct, OfLot, OfOrder, OfThing, Target, Wish
from scan_api.provenance.epcis import item_uri
from scan_api.provenance.life import Reason
from scan_api.regulators.recall_orders import RecallOrder, Subject, SubjectKind

ORDERS_AT_ONCE_MAX: Final = 1_000


class RecallByHand(Conflict):
    """So much cannot be recalled by one call."""

    code = "RecallByHand"


async def recall(session: Session, given: RecallOrder, scheme: SerialScheme, by: str, now: datetime) -> Done:
    """Recall what the order names, with its reason; what was recalled before stays so.

    Raises RecallByHand for more than 1,000 orders of a GTIN, and what `life_acts.act` raises.
    """
    wish = Wish(LifeAct.RECALL, Reason.SAFETY, given.reason, now, by)
    items, marks = 0, 0
    for target in await _targets(session, Subject.of(SubjectKind(given.kind), given.subject)):
        done = await life_acts.act(session, given.brand_id, scheme, target, wish, now)
        items, marks = items + (done.items or 0), marks + done.marks
    return Done(items, marks)


async def _targets(session: Session, subject: Subject) -> list[Target]:
    gtin = subject.gtin or ""
    if subject.kind is SubjectKind.CONTAINER:
        return [OfThing(subject.name)]
    if subject.kind is SubjectKind.ITEM:
        return [OfThing(item_uri(gtin, subject.part))]
    if subject.kind is SubjectKind.LOT:
        return [OfLot(gtin, subject.part)]
    asked = select(CodeOrder).where(CodeOrder.gtin == gtin, CodeOrder.state != OrderState.RECALLED)
    if subject.kind is SubjectKind.ORDER:
        asked = asked.where(CodeOrder.order_number == int(subject.part))
    placed = (await session.exec(asked.order_by(col(CodeOrder.order_id)).limit(ORDERS_AT_ONCE_MAX + 1))).all()
    if len(placed) > ORDERS_AT_ONCE_MAX:
        raise RecallByHand(
            f"{gtin} has more than {ORDERS_AT_ONCE_MAX:,} orders that are not recalled",
            hint="Recall some with `fanxing order recall` first.",
        )
    return [OfOrder(one) for one in placed]
