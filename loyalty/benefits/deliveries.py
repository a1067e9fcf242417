"""Deliveries: things that are sent to a member's address, from his order to his door or back."""

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text, update
from sqlmodel import Field, SQLModel, col, select

from kit import paging
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.paging import Position
from kit.vault import Vault
from loyalty import member_export, members
from loyalty.benefits import using
from loyalty.benefits.catalogue import BenefitKind
from loyalty.benefits.held import (
    USABLE,
    BenefitState,
    BenefitStateForbids,
    HeldBenefit,
    MemberBenefit,
    Step,
    advance,
    move,
    row_of,
    shown,
)
from loyalty.ledger import Purpose
from loyalty.members import MemberUnknown

ADDRESS_LINE_CHARACTERS_MAX = 200
NAME_CHARACTERS_MAX = 60
CARRIER_CHARACTERS_MAX = 60
TRACKING_CHARACTERS_MAX = 60


class DeliveryState(StrEnum):
    """How far a thing has come."""

    ORDERED = "ordered"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    RETURNED = "returned"


_FROM = {
    DeliveryState.SHIPPED: (DeliveryState.ORDERED,),
    DeliveryState.DELIVERED: (DeliveryState.SHIPPED,),
    DeliveryState.RETURNED: (DeliveryState.ORDERED, DeliveryState.SHIPPED, DeliveryState.DELIVERED),
}


class AddressInvalid(Invalid):
    """The message names the field."""

    code = "AddressInvalid"


class DeliveryInvalid(Invalid):
    """The message names the field."""

    code = "DeliveryInvalid"


class DeliveryUnknown(NotFound):
    """There is no such delivery, or it is of another brand."""

    code = "DeliveryUnknown"


class DeliveryStateForbids(Conflict):
    """The thing is past that, or not yet there. `state` says where it is."""

    code = "DeliveryStateForbids"

    def __init__(self, state: str) -> None:
        super().__init__(f"this delivery is {state}")
        self.state = state


class BenefitDelivery(SQLModel, table=True):
    """A thing on its way to a member. The address is sealed under the member's own key and goes with it."""

    __tablename__: ClassVar[str] = "benefit_delivery"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(repr(str(state)) for state in DeliveryState)})", name="state"),
        Index("ix_benefit_delivery_held_id", "held_id"),
        Index("ix_benefit_delivery_brand_id_ordered_at", "brand_id", "ordered_at", "held_id"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    held_id: uuid.UUID = Field(primary_key=True)
    brand_id: int
    address_sealed: bytes = Field(sa_type=LargeBinary)
    state: str = Field(sa_type=Text)
    carrier: str | None = Field(default=None, sa_type=Text)
    tracking: str | None = Field(default=None, sa_type=Text)
    ordered_at: datetime = Field(sa_type=Moment)
    shipped_at: datetime | None = Field(default=None, sa_type=Moment)
    delivered_at: datetime | None = Field(default=None, sa_type=Moment)
    returned_at: datetime | None = Field(default=None, sa_type=Moment)


@dataclass(frozen=True)
class Address:
    """Where a thing goes. All parts but the last are needed; phone as the carrier dials it."""

    name: str
    phone: str
    region: str
    line: str
    postcode: str = ""

    def check(self) -> None:
        """Raises AddressInvalid."""
        for part, text in asdict(self).items():
            longest = ADDRESS_LINE_CHARACTERS_MAX if part == "line" else NAME_CHARACTERS_MAX
            least = 0 if part == "postcode" else 1
            if not least <= len(text.strip()) or len(text) > longest or (text and not text.isprintable()):
                raise AddressInvalid(f"{part}: {least} to {longest} printable characters")


@dataclass(frozen=True)
class Parcel:
    """A delivery as the brand sees it. `address` is None when the member was erased."""

    held_id: uuid.UUID
    benefit_id: uuid.UUID
    text_zh: str
    text_en: str
    state: DeliveryState
    address: Address | None
    carrier: str | None
    tracking: str | None
    ordered_at: datetime


async def order(
    session: Session, vault: Vault, member_id: uuid.UUID, held_id: uuid.UUID, address: Address, now: datetime
) -> HeldBenefit:
    """The member says where his thing goes; till it is shipped he may say it again.

    Raises AddressInvalid, HeldBenefitUnknown, BenefitStateForbids and DeliveryStateForbids.
    """
    address.check()
    content = json.dumps(asdict(address), ensure_ascii=False).encode()
    sealed = await members.seal_for(session, vault, member_id, content, _context(held_id))
    while True:
        held = await row_of(session, member_id, held_id)
        if held.kind != BenefitKind.GOODS:
            raise BenefitStateForbids(f"of the kind {held.kind}, which is not sent")
        if held.status == BenefitState.RESERVED:
            await _redirect(session, held, sealed)
            return shown(vault, held, now)
        state = held.state_at(now)
        if state not in USABLE:
            raise BenefitStateForbids(state)
        after = await advance(session, held, BenefitState.RESERVED, Step.RESERVED, now)
        if after is not None:
            break
    delivery = BenefitDelivery(
        member_id=member_id,
        held_id=held_id,
        brand_id=after.brand_id,
        address_sealed=sealed,
        state=DeliveryState.ORDERED,
        ordered_at=now,
    )
    session.add(delivery)
    await session.flush()
    source, target = after.account(Purpose.AVAILABLE), after.account(Purpose.PENDING)
    await move(session, after, source, target, "thing ordered", now)
    return shown(vault, after, now, is_new=True)


async def _redirect(session: Session, held: MemberBenefit, sealed: bytes) -> None:
    changed = await session.exec(
        update(BenefitDelivery)
        .where(
            col(BenefitDelivery.member_id) == held.member_id,
            col(BenefitDelivery.held_id) == held.held_id,
            col(BenefitDelivery.state) == DeliveryState.ORDERED,
        )
        .values(address_sealed=sealed)
        .returning(col(BenefitDelivery.held_id))
    )
    if changed.first() is None:
        raise DeliveryStateForbids("on its way")


async def change(
    session: Session,
    brand_id: int,
    held_id: uuid.UUID,
    to: DeliveryState,
    now: datetime,
    *,
    carrier: str | None = None,
    tracking: str | None = None,
    by: uuid.UUID | None = None,
) -> BenefitDelivery:
    """The brand ships a thing (with carrier and tracking number), or hears that it arrived or came back.

    What comes back goes to stock, and its points to the member. Again changes nothing. Raises DeliveryInvalid,
    DeliveryUnknown and DeliveryStateForbids.
    """
    values: dict[str, Any] = {f"{to}_at": now}
    if to is DeliveryState.SHIPPED:
        for name, text, longest in (
            ("carrier", carrier, CARRIER_CHARACTERS_MAX),
            ("tracking", tracking, TRACKING_CHARACTERS_MAX),
        ):
            if not text or len(text) > longest or not text.isprintable():
                raise DeliveryInvalid(f"{name}: 1 to {longest} printable characters")
            values[name] = text
    elif to is DeliveryState.ORDERED or carrier or tracking:
        raise DeliveryInvalid("state: shipped with carrier and tracking, delivered, or returned")
    delivery = await _of(session, brand_id, held_id)
    before = delivery.state
    changed = await session.exec(
        update(BenefitDelivery)
        .where(
            col(BenefitDelivery.member_id) == delivery.member_id,
            col(BenefitDelivery.held_id) == held_id,
            col(BenefitDelivery.state) == before,
            col(BenefitDelivery.state).in_(_FROM[to]),
        )
        .values(state=to, **values)
        .returning(BenefitDelivery)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    after: BenefitDelivery | None = changed.scalar_one_or_none()
    if after is None:
        delivery = await _of(session, brand_id, held_id)
        if delivery.state == to:
            return delivery
        raise DeliveryStateForbids(delivery.state)
    await _follow(session, after, before, now, by)
    return after


async def _follow(
    session: Session, delivery: BenefitDelivery, before: str, now: datetime, by: uuid.UUID | None
) -> None:
    """Let the held benefit and the ledger follow the thing."""
    if delivery.state == DeliveryState.SHIPPED:
        return
    held = await row_of(session, delivery.member_id, delivery.held_id)
    if delivery.state == DeliveryState.DELIVERED:
        after = await advance(session, held, BenefitState.REDEEMED, Step.REDEEMED, now, by=by, redeemed_at=now)
        assert after is not None, "the delivery's row is locked"
        source, target = after.account(Purpose.PENDING), after.account(Purpose.DELIVERED)
        await move(session, after, source, target, "thing delivered", now)
        return
    after = await advance(session, held, BenefitState.REVERSED, Step.REVERSED, now, by=by, redeemed_at=None)
    assert after is not None, "the delivery's row is locked"
    lay_in = Purpose.DELIVERED if before == DeliveryState.DELIVERED else Purpose.PENDING
    await using.restore(session, after, after.account(lay_in), now)


async def _of(session: Session, brand_id: int, held_id: uuid.UUID) -> BenefitDelivery:
    found = await session.exec(
        select(BenefitDelivery)
        .where(BenefitDelivery.held_id == held_id, BenefitDelivery.brand_id == brand_id)
        .execution_options(populate_existing=True)
    )
    delivery = found.first()
    if delivery is None:
        raise DeliveryUnknown("this brand has no such delivery")
    return delivery


async def of_brand(
    session: Session,
    vault: Vault,
    brand_id: int,
    state: DeliveryState | None,
    after: Position | None,
    count: int,
) -> list[Parcel]:
    """The brand's deliveries with their addresses, latest first."""
    wanted = (
        select(BenefitDelivery, MemberBenefit)
        .join(
            MemberBenefit,
            (col(MemberBenefit.member_id) == BenefitDelivery.member_id)
            & (col(MemberBenefit.held_id) == BenefitDelivery.held_id),
        )
        .where(BenefitDelivery.brand_id == brand_id)
    )
    if state is not None:
        wanted = wanted.where(BenefitDelivery.state == state)
    page = paging.newest_first(wanted, col(BenefitDelivery.ordered_at), col(BenefitDelivery.held_id), after, count)
    rows = (await session.exec(page)).all()
    return [await _parcel(session, vault, delivery, held) for delivery, held in rows]


async def _parcel(session: Session, vault: Vault, delivery: BenefitDelivery, held: MemberBenefit) -> Parcel:
    try:
        content = await members.unseal_for(
            session, vault, delivery.member_id, delivery.address_sealed, _context(delivery.held_id)
        )
        address = Address(**json.loads(content))
    except MemberUnknown:
        address = None
    return Parcel(
        held_id=delivery.held_id,
        benefit_id=held.benefit_id,
        text_zh=held.text_zh,
        text_en=held.text_en,
        state=DeliveryState(delivery.state),
        address=address,
        carrier=delivery.carrier,
        tracking=delivery.tracking,
        ordered_at=delivery.ordered_at,
    )


def _context(held_id: uuid.UUID) -> bytes:
    return b"delivery-address" + held_id.bytes


async def _addresses(session: Session, vault: Vault, member_id: uuid.UUID) -> AsyncIterator[dict[str, Any]]:
    """Where the member's things were sent, for his export."""
    deliveries = select(BenefitDelivery).where(BenefitDelivery.member_id == member_id)
    for delivery in (await session.exec(deliveries.order_by(col(BenefitDelivery.ordered_at)))).all():
        content = await members.unseal_for(
            session, vault, member_id, delivery.address_sealed, _context(delivery.held_id)
        )
        yield {"held_id": str(delivery.held_id), **json.loads(content)}


member_export.OPENED["delivery_address"] = _addresses
