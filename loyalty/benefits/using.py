"""Using benefits: points, data and cash turn into their worth, codes are shown, and what is unused goes back."""

import uuid
from datetime import datetime

from sqlalchemy import update
from sqlmodel import col

from kit.db import Session
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import fulfilment, ledger
from loyalty.benefits import code_pools, limits, stock
from loyalty.benefits.catalogue import BenefitKind, get
from loyalty.benefits.held import (
    USABLE,
    BenefitState,
    BenefitStateForbids,
    HeldBenefit,
    HeldBenefitUnknown,
    MemberBenefit,
    Step,
    advance,
    row_of,
    shown,
)
from loyalty.fulfilment import NewOrder, OrderKind
from loyalty.ledger import AccountId, Leg, Purpose, Transfer

_ORDERED = {BenefitKind.DATA: OrderKind.DATA, BenefitKind.CASH: OrderKind.CASH}


async def use(session: Session, held: MemberBenefit, now: datetime) -> None:
    """Turn a held benefit of points, data or cash into what it is worth, under the id of its last step."""
    kind = _ORDERED.get(BenefitKind(held.kind))
    asset = kind.asset if kind else ledger.POINTS
    source = ledger.issuance(held.brand_id, asset, held.held_id)
    target = AccountId(held.member_id, asset, Purpose.PENDING if kind else Purpose.AVAILABLE)
    lots_expire_at = None
    if kind is None:
        lots_expire_at = ledger.lot_expiry(await ledger.policy_of(session, held.group_id), now)
    legs = (
        Leg(held.account(Purpose.AVAILABLE), -1),
        Leg(held.account(Purpose.REDEEMED), 1),
        Leg(source, -held.amount),
        Leg(target, held.amount),
    )
    transfer = Transfer(held.transfer_id(held.turn), "benefit used", legs, lots_expire_at=lots_expire_at)
    await ledger.post(session, transfer, now)
    if kind is not None:
        order = NewOrder(
            order_of(held.held_id), held.member_id, kind, held.amount, source, held.brand_id, item_key=None
        )
        await fulfilment.place(session, order, now)


def order_of(held_id: uuid.UUID) -> uuid.UUID:
    """The id of the fulfilment order of a held benefit of data or cash."""
    return derived_id("benefit-order", held_id)


async def open_packet(
    session: Session, vault: Vault, member_id: uuid.UUID, held_id: uuid.UUID, now: datetime
) -> HeldBenefit:
    """The member takes his red packet: the cash is ordered. Again changes nothing.

    Raises HeldBenefitUnknown and BenefitStateForbids (another kind, expired, taken back).
    """
    while True:
        held = await row_of(session, member_id, held_id)
        if held.kind != BenefitKind.CASH:
            raise BenefitStateForbids(f"of the kind {held.kind}, which is not opened")
        state = held.state_at(now)
        if state is BenefitState.REDEEMED:
            return shown(vault, held, now)
        if state not in USABLE:
            raise BenefitStateForbids(state)
        opened = await advance(session, held, BenefitState.REDEEMED, Step.REDEEMED, now, redeemed_at=now)
        if opened is not None:
            await use(session, opened, now)
            return shown(vault, opened, now, is_new=True)


async def show(session: Session, vault: Vault, member_id: uuid.UUID, held_id: uuid.UUID, now: datetime) -> HeldBenefit:
    """The held benefit with its code, which counts as claimed from then on. Raises HeldBenefitUnknown."""
    while True:
        held = await row_of(session, member_id, held_id)
        if held.shown_at is not None or held.state_at(now) not in USABLE:
            return shown(vault, held, now)
        looked = await advance(session, held, BenefitState.CLAIMED, Step.CLAIMED, now, shown_at=now)
        if looked is not None:
            return shown(vault, looked, now)


async def reverse(
    session: Session,
    vault: Vault,
    member_id: uuid.UUID,
    held_id: uuid.UUID,
    now: datetime,
    *,
    by: uuid.UUID | None = None,
    brand_id: int | None = None,
) -> HeldBenefit:
    """Take an unused benefit back and give back the points that it cost, to the lots they came from.

    It returns to stock, unless it is a pool's code that the member has seen. Data, and cash that was opened, go back
    when their order failed, which is then never placed anew. `brand_id`: only if it is of this brand. Again changes
    nothing. Raises HeldBenefitUnknown and BenefitStateForbids.
    """
    while True:
        held = await row_of(session, member_id, held_id)
        if brand_id not in (None, held.brand_id):
            raise HeldBenefitUnknown("this brand gave no such benefit")
        if held.status == BenefitState.REVERSED:
            return shown(vault, held, now)
        await _claim(session, held, now)
        taken = await advance(
            session, held, BenefitState.REVERSED, Step.REVERSED, now, by=by, redeemed_at=None, redeemed_by=None
        )
        if taken is not None:
            was = Purpose.REDEEMED if held.status == BenefitState.REDEEMED else Purpose.AVAILABLE
            await restore(session, taken, taken.account(was), now)
            return shown(vault, taken, now, is_new=True)


async def _claim(session: Session, held: MemberBenefit, now: datetime) -> None:
    """Make sure that the benefit can be taken back. Raises BenefitStateForbids."""
    state = held.state_at(now)
    if state in USABLE:
        if held.status == BenefitState.RESERVED:
            raise BenefitStateForbids("reserved", hint="Release it first.")
        return
    if state is BenefitState.REDEEMED and held.kind in _ORDERED:
        order = await fulfilment.settle(session, order_of(held.held_id), held.held_id)
        if order.replaced_by == held.held_id:
            return
        raise BenefitStateForbids(f"redeemed, and its order {order.state}")
    raise BenefitStateForbids(state)


async def restore(session: Session, held: MemberBenefit, source: AccountId, now: datetime) -> None:
    """Give a benefit that was just reversed back to stock, and its points back to the member."""
    benefit = await get(session, held.benefit_id)
    seen = held.kind == BenefitKind.POOL and held.shown_at is not None
    if seen:
        target = ledger.expired(held.group_id, source.asset, held.held_id)
    else:
        target = stock.put_back(benefit, held.held_id)
    legs = [Leg(source, -1), Leg(target, 1)]
    lots_expire_at = None
    if held.points_paid:
        # To lots of his own they go back by themselves.
        lots_expire_at = await _day_of(session, held, now)
        spent = ledger.spent(held.brand_id, held.held_id)
        legs += [Leg(spent, -held.points_paid), Leg(points_of(held.member_id), held.points_paid)]
    undoes = held.held_id if held.points_paid else None
    transfer = Transfer(
        held.transfer_id(held.turn), "benefit reversed", tuple(legs), lots_expire_at=lots_expire_at, undoes=undoes
    )
    await ledger.post(session, transfer, now)
    if held.kind == BenefitKind.POOL and not seen and held.code_fingerprint is not None:
        await code_pools.take_back(session, held.benefit_id, held.code_fingerprint)
        await session.exec(
            update(MemberBenefit)
            .where(col(MemberBenefit.member_id) == held.member_id, col(MemberBenefit.held_id) == held.held_id)
            .values(code_fingerprint=None, code_sealed=None)
        )
    await limits.uncount(session, held.member_id, held.benefit_id)


async def _day_of(session: Session, held: MemberBenefit, now: datetime) -> datetime | None:
    """When points run out that come back to another member than he who paid: when the last of those would have."""
    days = await ledger.days_of(session, held.paid_by or held.member_id, held.held_id)
    if not days:
        return ledger.lot_expiry(await ledger.policy_of(session, held.group_id), now)
    return max((day for day in days if day is not None), default=None)


def points_of(member_id: uuid.UUID) -> AccountId:
    """The member's points to spend."""
    return AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)
