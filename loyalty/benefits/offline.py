"""Redemptions without network: a till checks coupons off by itself and uploads them later.

The first redemption that is heard of wins; every other is kept as a conflict, for the brand to see.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import col, select

from kit import paging
from kit.db import Session
from kit.paging import Position
from kit.vault import Vault
from loyalty.benefits import baskets, coupon_codes, tills
from loyalty.benefits.held import BenefitState, MemberBenefit
from loyalty.benefits.tills import RedemptionOutcome, ShopRedemption, Till

OFFLINE_GRACE = timedelta(hours=72)
"""So long after a coupon's end a till may still tell that it was redeemed before."""
OFFLINE_AGE_MAX = timedelta(days=7)
CLOCK_AHEAD_MAX = timedelta(minutes=5)
"""A till's clock may be so much ahead of ours."""
BATCH_LINES_MAX = 500
_GOOD = (RedemptionOutcome.REDEEMED, RedemptionOutcome.ROLLED_BACK)


@dataclass(frozen=True)
class OfflineLine:
    """A redemption that a till made without network, and when it did."""

    redemption_id: uuid.UUID
    code: str
    at: datetime


@dataclass(frozen=True)
class Uploaded:
    """What became of one line of an upload. `is_new` is false on a repetition."""

    redemption_id: uuid.UUID
    outcome: RedemptionOutcome
    held_id: uuid.UUID | None
    value_fen: int | None
    is_new: bool


async def upload(session: Session, vault: Vault, till: Till, line: OfflineLine, now: datetime) -> Uploaded:
    """Take in a redemption that a till made without network, or record why it cannot stand.

    A reservation by another till gives way: the coupon was used. Raises RedemptionIdReused.
    """
    while True:
        held = await tills.find(session, vault, till, line.code)
        before = await tills.noted(session, till, line.redemption_id)
        if before is not None:
            if before.code_fingerprint not in tills.fingerprints(vault, line.code):
                raise tills.reused()
            outcome = RedemptionOutcome(before.outcome)
            return Uploaded(line.redemption_id, outcome, before.held_id, held.value_fen if held else None, False)
        outcome = _judge_offline(held, line.at, now)
        if outcome is RedemptionOutcome.REDEEMED:
            assert held is not None
            if not await tills.check_off(session, held, till, line.at, now):
                continue
            await baskets.leave_lapsed(session, held, None, now)
        fingerprint = coupon_codes.fingerprint(vault, line.code)
        if await tills.note(
            session, till, line.redemption_id, held, outcome, at=line.at, now=now, offline=True, fingerprint=fingerprint
        ):
            held_id, value_fen = (held.held_id, held.value_fen) if held else (None, None)
            return Uploaded(line.redemption_id, outcome, held_id, value_fen, True)
        if outcome is RedemptionOutcome.REDEEMED:
            raise tills.reused()


def _judge_offline(held: MemberBenefit | None, at: datetime, now: datetime) -> RedemptionOutcome:
    if held is None:
        return RedemptionOutcome.UNKNOWN
    end = held.expires_at
    refusals = [
        (RedemptionOutcome.TIME_REFUSED, not now - OFFLINE_AGE_MAX <= at <= now + CLOCK_AHEAD_MAX),
        (RedemptionOutcome.ALREADY_REDEEMED, held.status == BenefitState.REDEEMED),
        (RedemptionOutcome.REVERSED, held.status == BenefitState.REVERSED),
        (RedemptionOutcome.NOT_YET_ISSUED, at < held.issued_at - CLOCK_AHEAD_MAX),
        (RedemptionOutcome.EXPIRED, end is not None and at >= end),
        (
            RedemptionOutcome.TOO_LATE,
            held.status == BenefitState.EXPIRED or (end is not None and now >= end + OFFLINE_GRACE),
        ),
    ]
    return next((outcome for outcome, is_so in refusals if is_so), RedemptionOutcome.REDEEMED)


async def conflicts_of(session: Session, brand_id: int, after: Position | None, count: int) -> list[ShopRedemption]:
    """Redemptions that tills made without network and that do not stand, latest first."""
    wanted = select(ShopRedemption).where(
        ShopRedemption.brand_id == brand_id, col(ShopRedemption.outcome).not_in(_GOOD)
    )
    page = paging.newest_first(wanted, col(ShopRedemption.recorded_at), col(ShopRedemption.redemption_id), after, count)
    return list((await session.exec(page)).all())
