"""Claims: a member who holds an item asks for a campaign's prize, once, however often the request arrives."""

import uuid
from datetime import datetime
from typing import Any

from codes import ranges
from codes.ranges import ItemState
from kit import idempotency
from kit.clock import iso
from kit.db import Session
from kit.errors import Conflict
from loyalty import benefits, campaigns
from loyalty.campaigns import ClaimRequest, Grant
from scan_api import scans
from scan_api.services import Services
from signer import keys


class ItemRevoked(Conflict):
    code = "ItemRevoked"


class ItemNotOnSale(Conflict):
    code = "ItemNotOnSale"


async def claim(
    services: Services,
    session: Session,
    member_id: uuid.UUID,
    code_text: str,
    campaign_id: uuid.UUID,
    idempotency_key: str,
    now: datetime,
) -> dict[str, Any]:
    """Grant the prize in the session's transaction and answer what was granted, or answer again as the first time.

    Raises CodeRefused, ItemRevoked, ItemNotOnSale, the refusals of `loyalty.campaigns.claim` and those of
    `kit.idempotency.begin`.
    """
    asked = idempotency.fingerprint("claim", {"code_text": code_text, "campaign_id": str(campaign_id)})
    answer = await idempotency.begin(session, member_id, idempotency_key, asked, now)
    if answer is None:
        judgement = await services.scans.judge(session, services.trust.verifier, code_text)
        subject = scans.refuse_unless_genuine(judgement)
        order_number, item_number = subject.order.order_number, subject.item_number
        if await keys.is_revoked(session, subject.order.kid, subject.order.gtin, order_number, item_number):
            raise ItemRevoked("this item was revoked a moment ago, so it pays nothing", hint="Scan it again.")
        state = await ranges.hold(session, subject.order_id, subject.issue_index)
        if state is ItemState.VOIDED:
            raise scans.CodeRefused(scans.voided(judgement))
        if state is not ItemState.ACTIVE:
            raise ItemNotOnSale(
                "this item is not yet on sale, so it pays nothing yet", hint="Ask the shop or the brand."
            )
        grant = await campaigns.claim(
            session,
            services.vault,
            ClaimRequest(
                item_key=subject.item_key,
                gtin=subject.order.gtin,
                brand_id=subject.product.brand_id,
                face=judgement.verdict.profile or 0,
                member_id=member_id,
                campaign_id=campaign_id,
            ),
            now,
        )
        answer = _answer(grant)
        await idempotency.remember(session, member_id, idempotency_key, answer)
    return await _with_coupon(services, session, member_id, answer, now)


def _answer(grant: Grant) -> dict[str, Any]:
    return {
        "claim_id": str(grant.claim_id),
        "campaign_id": str(grant.campaign_id),
        "prize": {"kind": grant.prize_kind.value, "amount": grant.prize_amount},
        "at": iso(grant.at),
        "balance": grant.balance,
        "card_number": grant.card_number,
        "coupon_id": str(grant.coupon.coupon_id) if grant.coupon else None,
        "order_id": str(grant.order_id) if grant.order_id else None,
    }


async def _with_coupon(
    services: Services, session: Session, member_id: uuid.UUID, answer: dict[str, Any], now: datetime
) -> dict[str, Any]:
    """Add the coupon's code. It is money, so it is stored sealed, and not with the remembered answer."""
    if answer["coupon_id"] is None:
        return {**answer, "coupon_code": None}
    held = await benefits.coupon_of(session, services.vault, member_id, uuid.UUID(answer["coupon_id"]), now)
    return {**answer, "coupon_code": held.code}
