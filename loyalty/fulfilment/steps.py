"""One step of an order: its new state, the record of it and the transfer that goes with it, together and once."""

import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import update
from sqlmodel import col

from kit import outbox
from kit.clock import CHINA, china_day
from kit.db import Session
from kit.errors import Conflict
from kit.ids import derived_id
from loyalty import ledger, webhooks
from loyalty.fulfilment.orders import (
    REASON_CHARACTERS_MAX,
    REFERENCE_CHARACTERS_MAX,
    Attention,
    FulfilmentOrderUnknown,
    NewOrder,
    Order,
    OrderKind,
    OrderStep,
    find,
    place,
)
from loyalty.fulfilment.states import NEXT, OPEN, OrderState, Place, Teller, Word, place_of
from loyalty.ledger import AccountId, InsufficientBalance, Leg, Purpose, Transfer
from loyalty.webhooks import WebhookKind

AWAIT_USER_MAX = timedelta(days=3)
"""So long a member may take to confirm, by the contract with the provider."""
_TRIES_MAX = 10
_CAME_TO_NOTHING = (OrderState.FAILED, OrderState.REVERSED)
_WEBHOOKS = {
    OrderState.COMPLETED: WebhookKind.ORDER_COMPLETED,
    OrderState.REVERSED: WebhookKind.ORDER_REVERSED,
    OrderState.FAILED: WebhookKind.ORDER_FAILED,
}

_log = structlog.get_logger(__name__)


class OrderNotRepeatable(Conflict):
    """The order has not failed for good, or was placed anew already."""

    code = "OrderNotRepeatable"


class OrderContended(Conflict):
    """Others keep changing the order; the same call will succeed a little later."""

    code = "OrderContended"


@dataclass(frozen=True)
class Report:
    """What somebody tells of an order.

    `revision`: the provider's number of this word, rising with each of an order; None for our own findings. `at`: the
    provider's time of the event.
    """

    word: Word
    by: Teller
    revision: int | None = None
    at: datetime | None = None
    reference: str = ""
    reason: str = ""


class Effect(StrEnum):
    """What a report did."""

    MOVED = "moved"
    UNCHANGED = "unchanged"
    """The word leads nowhere from the state that the order is in."""
    STALE = "stale"
    """A later word of the provider was heard before."""


@dataclass(frozen=True)
class Outcome:
    """The order after a report, and what the report did."""

    order: Order
    effect: Effect
    before: OrderState

    @property
    def state(self) -> OrderState:
        return OrderState(self.order.state)


def day_of(moment: datetime) -> date:
    """The day of a moment in China, where providers keep their books."""
    return china_day(moment)


def end_of(day: date) -> datetime:
    """The first moment after a day in China."""
    return datetime.combine(day + timedelta(days=1), time.min, CHINA)


async def take(session: Session, member_id: uuid.UUID, order_id: uuid.UUID, report: Report, now: datetime) -> Outcome:
    """Let a report move the order, if it does. Any number of tellers may try at once, and again.

    Raises FulfilmentOrderUnknown and OrderContended.
    """
    for _ in range(_TRIES_MAX):
        order = await session.get(Order, (member_id, order_id), populate_existing=True)
        if order is None:
            raise FulfilmentOrderUnknown("there is no order of this id")
        before = OrderState(order.state)
        if report.revision is not None and report.revision <= order.revision:
            return Outcome(order, Effect.STALE, before)
        state = NEXT[before].get(report.word)
        if state is None and report.revision is None:
            return Outcome(order, Effect.UNCHANGED, before)
        changes = _changes(order, state or before, report, now)
        # Whoever changed the order since it was read made another decision necessary.
        changed = await session.exec(
            update(Order)
            .where(
                col(Order.member_id) == member_id,
                col(Order.order_id) == order_id,
                col(Order.seq) == order.seq,
                col(Order.revision) == order.revision,
            )
            .values(**changes)
            .returning(col(Order.order_id))
            .execution_options(synchronize_session=False)
        )
        if changed.first() is None:
            continue
        if state is not None:
            await _record(session, order, state, report, now)
        await session.refresh(order)
        return Outcome(order, Effect.MOVED if state else Effect.UNCHANGED, before)
    raise OrderContended("others keep changing this order", hint="Try again.")


def _changes(order: Order, state: OrderState, report: Report, now: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if report.revision is not None:
        changes["revision"] = report.revision
    if report.reference:
        changes["provider_ref"] = report.reference[:REFERENCE_CHARACTERS_MAX]
    before = OrderState(order.state)
    if state is before:
        return changes
    changes |= {"state": state, "seq": order.seq + 1, "reason": report.reason[:REASON_CHARACTERS_MAX] or None}
    if report.word is Word.NEVER_RECEIVED:
        # A provider that lost its book begins to count anew. Nothing final was heard, so nothing old can do harm.
        changes["revision"] = 0
    if state is OrderState.SUBMITTED:
        changes["sent_at"] = order.sent_at or now
    if state is OrderState.AWAIT_USER:
        changes["expires_at"] = now + AWAIT_USER_MAX
    if state not in OPEN:
        changes["closed_at"] = now
        # Whatever kept it from ending is over.
        changes["attention"] = order.attention if place_of(before) is not Place.ON_ITS_WAY else None
    if place_of(before) is Place.RETURNED:
        changes["attention"] = Attention.DELIVERED_TWICE if order.replaced_by else Attention.LATE_COMPLETION
    return changes


async def _record(session: Session, order: Order, state: OrderState, report: Report, now: datetime) -> None:
    before, seq = OrderState(order.state), order.seq + 1
    moves = place_of(before) is not place_of(state)
    transfer_id = derived_id("order-step", order.order_id, seq) if moves else None
    session.add(
        OrderStep(
            member_id=order.member_id,
            order_id=order.order_id,
            seq=seq,
            from_state=before,
            to_state=state,
            by=report.by,
            provider=order.provider,
            revision=report.revision,
            provider_ref=report.reference[:REFERENCE_CHARACTERS_MAX] or None,
            reason=report.reason[:REASON_CHARACTERS_MAX] or None,
            transfer_id=transfer_id,
            day=day_of(report.at or now),
            at=now,
        )
    )
    await session.flush()
    if transfer_id is not None:
        await _move_value(session, order, transfer_id, place_of(before), place_of(state), now)
    if before in OPEN and state not in OPEN:
        await outbox.close(session, order.outbox_key, order.order_id, now)
    if state in _WEBHOOKS:
        data = {"member_id": str(order.member_id), "kind": OrderKind(order.kind).name.lower(), "amount": order.amount}
        await webhooks.emit(session, order.brand_id, _WEBHOOKS[state], order.order_id, data, now)
    _log.info("order moved", order_id=str(order.order_id), before=before.value, state=state.value, by=report.by.value)


async def _move_value(
    session: Session, order: Order, transfer_id: uuid.UUID, source: Place, target: Place, now: datetime
) -> None:
    accounts = {
        Place.ON_ITS_WAY: order.account(Purpose.PENDING),
        Place.ARRIVED: order.account(Purpose.DELIVERED),
        Place.RETURNED: order.refund_to,
    }
    reason = {Place.ARRIVED: "order delivered", Place.RETURNED: "order given back"}[target]
    if source is not Place.RETURNED:
        await _transfer(session, transfer_id, reason, accounts[source], accounts[target], order.amount, now)
        return
    try:
        async with session.begin_nested():
            await _transfer(session, transfer_id, reason, accounts[source], accounts[target], order.amount, now)
    except InsufficientBalance:
        # The budget has spent what came back to it. The member has the goods all the same and the provider will bill
        # them: the brand's own issuance pays, and the operator is told.
        issuance = ledger.issuance(order.brand_id, OrderKind(order.kind).asset, order.member_id)
        reason = "order delivered after all, budget used up"
        await _transfer(session, transfer_id, reason, issuance, accounts[target], order.amount, now)


async def _transfer(
    session: Session,
    transfer_id: uuid.UUID,
    reason: str,
    source: AccountId,
    target: AccountId,
    amount: int,
    now: datetime,
) -> None:
    await ledger.post(session, Transfer(transfer_id, reason, (Leg(source, -amount), Leg(target, amount))), now)


async def repeat(session: Session, order: Order, now: datetime) -> Order:
    """Place a new order for one that came to nothing, to the member's present phone number.

    Under a new id, which only an order that is over may have: its value went back, and comes from there again. The same
    call again finds the same new order. Raises OrderNotRepeatable (its benefit was taken back, too) and
    InsufficientBalance.
    """
    new_id = derived_id("order-repeated", order.order_id)
    if not await _replace(session, order, new_id):
        placed = await session.get(Order, (order.member_id, new_id))
        if placed is not None:
            return placed
        if (await find(session, order.order_id)).replaced_by is not None:
            raise OrderNotRepeatable("its benefit was taken back, so nothing is owed any more")
        raise OrderNotRepeatable(
            "only an order that failed or was reversed is placed anew", hint="Wait till it comes to an end."
        )
    refund_to, pending = order.refund_to, order.account(Purpose.PENDING)
    transfer_id = derived_id("order-repeated-value", order.order_id)
    await _transfer(session, transfer_id, "order placed anew", refund_to, pending, order.amount, now)
    new = NewOrder(
        order_id=new_id,
        member_id=order.member_id,
        kind=OrderKind(order.kind),
        amount=order.amount,
        refund_to=refund_to,
        brand_id=order.brand_id,
        item_key=order.item_key,
        sandbox=order.provider == "sandbox",
    )
    return await place(session, new, now, replaces=order.order_id)


async def settle(session: Session, order_id: uuid.UUID, instead: uuid.UUID) -> Order:
    """Put something else in the place of an order that came to nothing, so that it is never placed anew.

    Of an order that was placed anew all have to have come to nothing, and the latest is settled. Returns the order that
    was settled, now or before: `instead` replaces it; or else the one that stands in the way. Raises
    FulfilmentOrderUnknown.
    """
    while True:
        settled = await _replace(session, await find(session, order_id), instead)
        order = await find(session, order_id)
        if settled or order.replaced_by in (None, instead) or order.state not in _CAME_TO_NOTHING:
            return order
        order_id = order.replaced_by


async def _replace(session: Session, order: Order, by: uuid.UUID) -> bool:
    # The one decision on what becomes of an order that came to nothing: whoever comes second finds it made.
    replaced = await session.exec(
        update(Order)
        .where(
            col(Order.member_id) == order.member_id,
            col(Order.order_id) == order.order_id,
            col(Order.state).in_(_CAME_TO_NOTHING),
            col(Order.replaced_by).is_(None),
        )
        .values(replaced_by=by)
        .returning(col(Order.order_id))
        .execution_options(synchronize_session=False)
    )
    return replaced.first() is not None


async def flag(session: Session, order: Order, attention: Attention | None) -> None:
    """Have an operator look at the order; None: he has. What cost more than was planned stays till then."""
    statement = update(Order).where(col(Order.member_id) == order.member_id, col(Order.order_id) == order.order_id)
    if attention is not None:
        statement = statement.where(
            col(Order.attention).is_(None)
            | col(Order.attention).not_in([Attention.LATE_COMPLETION, Attention.DELIVERED_TWICE])
        )
    await session.exec(statement.values(attention=attention).execution_options(synchronize_session=False))
