"""The sweep over held benefits: reservations that lapsed, and benefits whose time is over. Any number may sweep."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlmodel import col, select

from kit.clock import Clock
from kit.db import Database, Session
from loyalty import ledger, webhooks
from loyalty.benefits import baskets
from loyalty.benefits.held import USABLE, BenefitState, MemberBenefit, Step, advance, apart, move
from loyalty.benefits.offline import OFFLINE_GRACE
from loyalty.ledger import Purpose
from loyalty.webhooks import WebhookKind

COUNT_DEFAULT = 500
SWEEP_EVERY_S = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Swept:
    """What a sweep did: benefits that ran out, reservations that ended."""

    expired: int
    released: int


async def sweep(session: Session, now: datetime, count_max: int = COUNT_DEFAULT) -> Swept:
    """End up to `count_max` lapsed reservations, and as many benefits past their end. A second sweep finds nothing.

    A benefit is written off 72 hours after its end: so long a till may tell that it took it in time.
    """
    released = await _release(session, now, count_max)
    expired = await _expire(session, now, count_max)
    await baskets.sweep(session, now)
    return Swept(expired, released)


async def _release(session: Session, now: datetime, count_max: int) -> int:
    lapsed = await session.exec(
        select(MemberBenefit)
        .where(MemberBenefit.status == BenefitState.RESERVED, col(MemberBenefit.reserved_until) <= now)
        .order_by(col(MemberBenefit.reserved_until))
        .limit(count_max)
        .with_for_update(skip_locked=True)
    )
    rows = [apart(session, held) for held in lapsed]
    for held in rows:
        await baskets.free(session, held, None, now, None)
    return len(rows)


async def _expire(session: Session, now: datetime, count_max: int) -> int:
    over = await session.exec(
        select(MemberBenefit)
        .where(
            col(MemberBenefit.status).in_(USABLE),
            col(MemberBenefit.expires_at) <= now - OFFLINE_GRACE,
        )
        .order_by(col(MemberBenefit.expires_at))
        .limit(count_max)
        .with_for_update(skip_locked=True)
    )
    rows = [apart(session, held) for held in over]
    for held in rows:
        after = await advance(session, held, BenefitState.EXPIRED, Step.EXPIRED, now, at=held.expires_at)
        assert after is not None, "the row is locked"
        source = after.account(Purpose.AVAILABLE)
        target = ledger.expired(after.group_id, source.asset, after.held_id)
        await move(session, after, source, target, "benefit expired", now)
        told = {"benefit_id": str(after.benefit_id), "member_id": str(after.member_id)}
        await webhooks.emit(session, after.brand_id, WebhookKind.BENEFIT_EXPIRED, after.held_id, told, now)
    return len(rows)


async def run(database: Database, clock: Clock, stop: asyncio.Event) -> None:
    """Sweep every minute till `stop` is set, in batches, each a transaction of its own."""
    while not stop.is_set():
        try:
            async with database.writing() as session:
                swept = await sweep(session, clock())
            if max(swept.expired, swept.released) == COUNT_DEFAULT:
                continue  # there is more
        except Exception:
            _log.exception("sweep of benefits failed, will try again")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SWEEP_EVERY_S)
