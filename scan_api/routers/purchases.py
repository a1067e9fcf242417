"""For tills and online shops: purchases, their refunds, and who is a member."""

import uuid
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field

from codes import catalogue
from codes.catalogue import Brand
from kit.clock import When
from kit.db import Session
from loyalty import members, purchases, refunds, tiers, till_limits
from loyalty.earn_rules import PAID_FEN_MAX
from loyalty.members import CARD_NUMBER_DIGITS, MemberUnknown
from loyalty.phones import PHONE_CHARACTERS_MAX
from loyalty.purchases import LINES_MAX, QUANTITY_MAX, RECEIPT_CHARACTERS_MAX, Buyer, Channel, Line, NewPurchase
from loyalty.refunds import NAME_CHARACTERS_MAX, NewRefund, RefundLine
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.idempotency import OnlyOnce
from scan_api.routers import At
from scan_api.services import Serve, Services

router = APIRouter(prefix="/v1/shop", tags=["shop"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…, a key of the role shop")]
Phone = Annotated[str, Field(max_length=PHONE_CHARACTERS_MAX, description="E.164, or a Chinese mobile number")]
CardNumber = Annotated[str, Field(pattern=rf"^[0-9]{{{CARD_NUMBER_DIGITS}}}$")]
Fen = Annotated[int, Field(ge=1, le=PAID_FEN_MAX)]

_PURCHASE_ID = "5b3f2d1c-3d55-5a0e-8c11-1f2e3d4c5b6a"
_MEMBER_ID = "0197f0f0-5c00-7000-8000-000000000002"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class PurchaseLine(_Body):
    """One line of the receipt; what was paid for it after every discount."""

    fen: int = Field(ge=0, le=PAID_FEN_MAX, description="For the whole line")
    gtin: str | None = Field(default=None, pattern=r"^[0-9]{14}$")
    quantity: int = Field(default=1, ge=1, le=QUANTITY_MAX)


class PurchaseBody(_Body):
    """A purchase. The buyer is named by one of phone, member_id and card_number."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "receipt": "S01-20260501-0042",
                "phone": "+8613800138000",
                "paid_fen": 12_800,
                "lines": [{"gtin": "09506000000133", "quantity": 2, "fen": 9_900}],
                "channel": "store",
            }
        }
    )

    receipt: str = Field(
        min_length=1, max_length=RECEIPT_CHARACTERS_MAX, description="The shop's own number, new for each purchase"
    )
    phone: Phone | None = None
    member_id: uuid.UUID | None = None
    card_number: CardNumber | None = None
    paid_fen: Fen
    lines: list[PurchaseLine] = Field(default=[], max_length=LINES_MAX)
    channel: Channel = Channel.STORE
    at: When | None = Field(default=None, description="When it was bought, at most 90 days ago; absent: now")


class PurchaseAnswer(BaseModel):
    """What the purchase earned, and what the member has now."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "purchase_id": _PURCHASE_ID,
                "member_id": _MEMBER_ID,
                "card_number": "1099822111545536",
                "points": 128,
                "points_repaid": 0,
                "balance": 528,
                "tier": "silver",
                "is_new": True,
            }
        }
    )

    purchase_id: uuid.UUID
    member_id: uuid.UUID
    card_number: str
    points: int = Field(description="Earned by this purchase")
    points_repaid: int = Field(description="Of them, what paid points that refunds had left owing")
    balance: int = Field(description="The member's points; below zero after a refund of what was spent")
    tier: str
    is_new: bool = Field(description="False: this receipt was recorded before, and nothing was done now")


class QuoteAnswer(BaseModel):
    """What a purchase would earn now."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"points": 128, "by_line": [29, 99], "experience": 138, "tier": "silver"}}
    )

    points: int
    by_line: list[int] = Field(description="What was paid beyond the lines first, then each line; they sum to points")
    experience: int
    tier: str = Field(description="The buyer's tier, by which this is reckoned")


class RefundLineBody(_Body):
    """What is given back of one line."""

    number: int = Field(ge=1, le=LINES_MAX, description="The line of the purchase, from 1")
    fen: Fen
    quantity: int = Field(default=0, ge=0, le=QUANTITY_MAX)


class RefundBody(_Body):
    """A refund of lines, or of an amount; with neither, of everything that is left."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"refund": "S01-R-0007", "lines": [{"number": 1, "fen": 4_950, "quantity": 1}]}}
    )

    refund: str = Field(
        min_length=1, max_length=NAME_CHARACTERS_MAX, description="The shop's own number, new for each refund"
    )
    fen: Fen | None = None
    lines: list[RefundLineBody] = Field(default=[], max_length=LINES_MAX)


class RefundAnswer(BaseModel):
    """What the refund took back, and what the member has now."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "refund_id": "7c1d2e3f-4a5b-5c6d-9e8f-0a1b2c3d4e5f",
                "purchase_id": _PURCHASE_ID,
                "fen": 4_950,
                "refunded_fen": 4_950,
                "points_taken": 50,
                "points_short": 0,
                "balance": 478,
                "tier": "silver",
                "at": "2026-05-02T08:00:00.000Z",
                "is_new": True,
            }
        }
    )

    refund_id: uuid.UUID
    purchase_id: uuid.UUID
    fen: int
    refunded_fen: int = Field(description="Of the purchase, by all its refunds")
    points_taken: int
    points_short: int = Field(description="Could not be taken: they were spent. The next purchases' points pay them")
    balance: int
    tier: str
    at: At
    is_new: bool


class LookupBody(_Body):
    """Whose number a shopper says is his."""

    model_config = ConfigDict(json_schema_extra={"example": {"phone": "+8613800138000"}})

    phone: Phone


class LookupAnswer(BaseModel):
    """Who he is here; without a card he joins with his first purchase."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "known": True,
                "member_id": _MEMBER_ID,
                "card_number": "1099822111545536",
                "tier": "silver",
                "tier_name": "Silver",
                "points": 528,
            }
        }
    )

    known: bool
    member_id: uuid.UUID | None = None
    card_number: str | None = None
    tier: str | None = None
    tier_name: str | None = None
    points: int = 0


async def _shop(session: Session, authorization: str | None) -> tuple[ApiKey, Brand]:
    key = await api_keys.authenticate(session, authorization, Role.SHOP)
    return key, await catalogue.brand_with(session, key.brand_id or 0)


def _purchase(body: PurchaseBody, key: ApiKey, brand: Brand) -> NewPurchase:
    return NewPurchase(
        brand_id=brand.brand_id or 0,
        group_id=brand.group_id,
        caller_id=key.caller_id,
        receipt=body.receipt,
        buyer=Buyer(body.phone, body.member_id, body.card_number),
        paid_fen=body.paid_fen,
        channel=body.channel,
        lines=tuple(Line(line.fen, line.gtin, line.quantity) for line in body.lines),
        at=body.at,
    )


@router.post("/purchases", status_code=201, summary="Record a purchase")
async def record(
    body: PurchaseBody, services: Serve, once: OnlyOnce, authorization: Authorization = None
) -> PurchaseAnswer:
    """Give a purchase's points and experience, in one transaction. A phone number that nobody has becomes a member.

    The receipt's number counts too: a receipt that was recorded before changes nothing, whatever the key.
    """
    now = services.clock()
    async with services.database.writing() as session:
        key, brand = await _shop(session, authorization)
        work = partial(_record, services, session, _purchase(body, key, brand), now)
        return PurchaseAnswer(**await once.run(session, key.caller_id, "purchase", _unnamed(services, body), now, work))


def _unnamed(services: Services, body: PurchaseBody) -> dict[str, Any]:
    # Kept as a plain hash with the answer: a phone number could be guessed from it.
    asked = body.model_dump(mode="json")
    if body.phone is not None:
        asked["phone"] = services.vault.fingerprint("purchase-phone", body.phone).hex()
    return asked


async def _record(services: Services, session: Session, new: NewPurchase, now: datetime) -> PurchaseAnswer:
    done = await purchases.record(session, services.vault, new, now)
    return PurchaseAnswer(
        purchase_id=done.purchase.purchase_id,
        member_id=done.purchase.member_id,
        card_number=done.card_number,
        points=done.purchase.points,
        points_repaid=done.points_repaid,
        balance=done.balance,
        tier=done.tier.slug,
        is_new=done.is_new,
    )


@router.post("/purchases/quote", summary="Say what a purchase would earn")
async def quote(body: PurchaseBody, services: Serve, authorization: Authorization = None) -> QuoteAnswer:
    """Reckon a purchase's points and experience, and change nothing. An unknown buyer is of the lowest tier."""
    now = services.clock()
    async with services.database.writing() as session:
        key, brand = await _shop(session, authorization)
        new = _purchase(body, key, brand)
        member_id = await purchases.known_buyer(session, services.vault, new.group_id, new.buyer)
        if member_id is None:
            tier = (await tiers.ladder(session, new.brand_id, now))[0]
        else:
            tier = (await tiers.standing(session, member_id, new.brand_id, now)).tier
        quoted, figures = await purchases.quote(session, new, tier.rank, member_id, now)
        if new.buyer.phone is not None:  # nobody guesses ids or numbers of cards
            is_found = member_id is not None
            await till_limits.count_person(session, services.vault, key.caller_id, now, is_found=is_found)
    return QuoteAnswer(
        points=quoted.points, by_line=list(quoted.by_part), experience=figures.experience, tier=tier.slug
    )


@router.post("/purchases/{purchase_id}/refunds", status_code=201, summary="Record a refund")
async def refund(
    purchase_id: uuid.UUID, body: RefundBody, services: Serve, once: OnlyOnce, authorization: Authorization = None
) -> RefundAnswer:
    """Take back what a purchase earned, in proportion, also when it was spent; the tier follows at once."""
    now = services.clock()
    async with services.database.writing() as session:
        key, brand = await _shop(session, authorization)
        new = NewRefund(
            purchase_id,
            brand.brand_id,
            body.refund,
            body.fen,
            tuple(RefundLine(line.number, line.fen, line.quantity) for line in body.lines),
        )
        asked = {"purchase_id": str(purchase_id)} | body.model_dump(mode="json")
        work = partial(_refund, session, new, now)
        return RefundAnswer(**await once.run(session, key.caller_id, "refund", asked, now, work))


async def _refund(session: Session, new: NewRefund, now: datetime) -> RefundAnswer:
    done = await refunds.refund(session, new, now)
    made = done.refund
    return RefundAnswer(
        refund_id=made.refund_id,
        purchase_id=made.purchase_id,
        fen=made.fen,
        refunded_fen=done.refunded_fen,
        points_taken=made.points_taken,
        points_short=made.points_short,
        balance=done.balance,
        tier=done.tier.slug,
        at=made.at,
        is_new=done.is_new,
    )


@router.post("/members/lookup", summary="Look a member up by phone")
async def lookup(body: LookupBody, services: Serve, authorization: Authorization = None) -> LookupAnswer:
    """Tell a till who a shopper is: card, tier and points. The number travels in the body, never in an address.

    Limited by till: 6,000 units an hour, of which a member counts one, and a number that is nobody's ten.
    """
    now = services.clock()
    async with services.database.writing() as session:
        key, brand = await _shop(session, authorization)
        count = partial(till_limits.count_person, session, services.vault, key.caller_id, now)
        try:
            member_id = await members.member_with(session, services.vault, brand.group_id, body.phone)
        except MemberUnknown:
            await count(is_found=False)
            return LookupAnswer(known=False)
        await count(is_found=True)
        card = next(
            (card for card in await members.cards_of(session, member_id) if card.brand_id == brand.brand_id), None
        )
        standing = await tiers.standing(session, member_id, brand.brand_id or 0, now)
        return LookupAnswer(
            known=True,
            member_id=member_id,
            card_number=card.card_number if card else None,
            tier=standing.tier.slug,
            tier_name=standing.tier.name_en,
            points=await purchases.balance_of(session, member_id),
        )
