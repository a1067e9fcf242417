"""What a member holds: points, mobile data, cards and coupons, gathered for page and JSON alike."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import col, select

from codes.catalogue import Brand
from kit.clock import iso
from kit.db import Session
from kit.vault import Vault
from loyalty import benefits, fulfilment, ledger, members, tiers
from loyalty.benefits import HeldBenefit
from loyalty.fulfilment import Order, OrderKind
from loyalty.ledger import Purpose
from loyalty.members import Card
from loyalty.tier_rules import CardFace, Tier


@dataclass(frozen=True, slots=True)
class HeldCard:
    """A card, the brand whose it is, and its tier there."""

    card: Card
    brand: Brand
    tier: Tier


@dataclass(frozen=True, slots=True)
class Holdings:
    """Amounts: points; megabytes on their way and delivered."""

    member_id: uuid.UUID
    phone_e164: str
    points: int
    megabytes_pending: int
    megabytes_delivered: int
    cards: Sequence[HeldCard]
    coupons: Sequence[HeldBenefit]
    orders: Sequence[Order]


async def holdings_of(session: Session, vault: Vault, member_id: uuid.UUID, now: datetime) -> Holdings:
    """Everything that the member's own page shows. Raises MemberUnknown."""
    balances = await ledger.balances(session, member_id)
    return Holdings(
        member_id=member_id,
        phone_e164=await members.phone_of(session, vault, member_id),
        points=balances.get((ledger.POINTS, Purpose.AVAILABLE), 0),
        megabytes_pending=balances.get((ledger.MEGABYTES, Purpose.PENDING), 0),
        megabytes_delivered=balances.get((ledger.MEGABYTES, Purpose.DELIVERED), 0),
        cards=await held_cards(session, member_id),
        # A pool's code comes into view when the member asks for it: the list of benefits lets him.
        coupons=[held for held in await benefits.held_by(session, vault, member_id, now) if held.code is not None],
        orders=await fulfilment.orders_of(session, member_id),
    )


async def held_cards(session: Session, member_id: uuid.UUID) -> list[HeldCard]:
    """The member's cards, earliest first."""
    cards = await members.cards_of(session, member_id)
    wanted = select(Brand).where(col(Brand.brand_id).in_([card.brand_id for card in cards]))
    brands = {brand.brand_id: brand for brand in (await session.exec(wanted)).all()}
    held = zip(cards, await tiers.tiers_of(session, cards), strict=True)
    return [HeldCard(card, brands[card.brand_id], tier) for card, tier in held]


def as_json(holdings: Holdings, language: str) -> dict[str, Any]:
    """The holdings for a client."""
    chinese = language == "zh"
    return {
        "member_id": str(holdings.member_id),
        "phone": masked(holdings.phone_e164),
        "points": holdings.points,
        "megabytes": {"pending": holdings.megabytes_pending, "delivered": holdings.megabytes_delivered},
        "cards": [
            {
                "brand": held.brand.slug,
                "brand_name": held.brand.name(language),
                "card_number": held.card.card_number,
                "tier": held.tier.slug,
                "tier_name": held.tier.name(language),
                "card_face": face_json(held.tier.face),
                "joined_at": iso(held.card.joined_at),
            }
            for held in holdings.cards
        ],
        "coupons": [
            {
                "coupon_id": str(coupon.held_id),
                "code": coupon.code,
                "text": coupon.text_zh if chinese else coupon.text_en,
                "value_fen": coupon.value_fen,
                "state": coupon.state.value,
                "expires_at": iso(coupon.expires_at) if coupon.expires_at else None,
            }
            for coupon in holdings.coupons
        ],
        "orders": [
            {
                "order_id": str(order.order_id),
                "kind": OrderKind(order.kind).name.lower(),
                "amount": order.amount,
                "state": order.state,
                "created_at": iso(order.created_at),
                "expires_at": iso(order.expires_at) if order.expires_at else None,
            }
            for order in holdings.orders
        ],
    }


def face_json(face: CardFace) -> dict[str, Any]:
    """How a card looks, for a client."""
    return {"colours": list(face.colours), "text_colour": face.text_colour, "pattern": face.pattern.value}


def masked(phone_e164: str) -> str:
    """A phone number that its owner recognises and nobody else learns: +86138****8000."""
    return f"{phone_e164[:-8]}****{phone_e164[-4:]}"
