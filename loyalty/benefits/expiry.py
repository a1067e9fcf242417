"""The sweep over held benefits: reservations that lapsed, and benefits whose time is over. Any number may sweep."""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Mapped
from sqlmodel import col, select

from kit.clock import Clock
from kit.db import Database, Session
from loyalty import ledger, webhooks
from loyalty.benefits import baskets
from loyalty.benefits.held import USABLE, BenefitState, MemberBenefit, Step, advance, apart, move
from loyalty.benefits.offline import OFFLINE_GRACE
from loyalty.benefits.stock import asset_of
from loyalty.ledger import AccountId, Purpose
from loyalty.ledger.expiry import lock
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
    lapsed = await _locked(
        session,
        (MemberBenefit.status == BenefitState.RESERVED, col(MemberBenefit.reserved_until) <= now),
        col(MemberBenefit.reserved_until),
        count_max,
    )
    ended = now - OFFLINE_GRACE
    over = await _locked(
        session,
        (col(MemberBenefit.status).in_(USABLE), col(MemberBenefit.expires_at) <= ended),
        col(MemberBenefit.expires_at),
        count_max,
    )
    # All accounts before the first is moved on: two sweeps that came to them one by one would wait for each other.
    await lock(session, {account for held in (*lapsed, *over) for account in _accounts(held)})
    free = [await _release(session, held, now) for held in sorted(lapsed, key=_basket)]
    over += [held for held in free if held.expires_at is not None and held.expires_at <= ended]
    for held in sorted(over, key=_target):
        await _expire(session, held, now)
    await baskets.sweep(session, now)
    return Swept(len(over), len(free))


async def _locked(
    session: Session, due: tuple[ColumnElement[bool] | bool, ...], first: Mapped[datetime | None], count_max: int
) -> list[MemberBenefit]:
    """What is due and in nobody's hands just now."""
    found = await session.exec(
        select(MemberBenefit).where(*due).order_by(first).limit(count_max).with_for_update(skip_locked=True)
    )
    return [apart(session, held) for held in found]


def _accounts(held: MemberBenefit) -> Iterable[AccountId]:
    yield from (held.account(Purpose.AVAILABLE), held.account(Purpose.HELD), _target(held))


def _target(held: MemberBenefit) -> AccountId:
    return ledger.expired(held.group_id, asset_of(held.benefit_id), held.held_id)


def _basket(held: MemberBenefit) -> tuple[int, str]:
    return held.brand_id, str(held.basket_id)


async def _release(session: Session, held: MemberBenefit, now: datetime) -> MemberBenefit:
    after = await baskets.free(session, held, None, now, None)
    assert after is not None, "the row is locked"
    return after


async def _expire(session: Session, held: MemberBenefit, now: datetime) -> None:
    after = await advance(session, held, BenefitState.EXPIRED, Step.EXPIRED, now, at=held.expires_at)
    assert after is not None, "the row is locked"
    await move(session, after, after.account(Purpose.AVAILABLE), _target(after), "benefit expired", now)
    told = {"benefit_id": str(after.benefit_id), "member_id": str(after.member_id)}
    await webhooks.emit(session, after.brand_id, WebhookKind.BENEFIT_EXPIRED, after.held_id, told, now)


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
