"""The regulators' reporter: what has arrived since a subscription's last report and lies in its scope, put out to send.

As with brands' reports (`provenance.reports`), a report, its record as a look and the new position are one transaction.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import update
from sqlmodel import col, select

from kit.clock import Clock
from kit.db import Database, Session
from kit.errors import FanxingError
from kit.ids import derived_id
from scan_api.provenance import arrivals, event_search, reports
from scan_api.provenance.event_search import Sized
from scan_api.provenance.reports import ARRIVALS_AT_ONCE_MAX, EVENTS_AT_ONCE_MAX
from scan_api.provenance.subscriptions import Subscription
from scan_api.regulators import accesses, accounts, sights, subscriptions
from scan_api.regulators.accesses import ANSWERED, Asked, Told
from scan_api.regulators.accounts import Regulator

IDLE_WAIT_S: Final = 2.0
SUBSCRIPTIONS_AT_ONCE_MAX: Final = 100
CLOSED: Final = "closed"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """The events behind a position that are to be told, by brand, and where that leads."""

    found: Mapping[int, Sequence[Sized]]
    position: int


class Reporter:
    """Makes reports for regulators. Any number of servers may run one."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, or the task is cancelled. What goes wrong is logged and tried again."""
        while not stop.is_set():
            try:
                await self.report()
            except Exception:
                _log.exception("regulators' subscriptions not looked at, will try again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), IDLE_WAIT_S)

    async def report(self) -> None:
        """Move every subscription behind which something arrived on by one step."""
        async with self._database.reading() as session:
            due = await _due(session)
        for subscription in due:
            try:
                await self.advance(subscription)
            except Exception as error:
                code = error.code if isinstance(error, FanxingError) else type(error).__name__
                _log.exception("subscription put off", code=code, subscription_id=str(subscription.subscription_id))
                await self._put_off(subscription)

    async def _put_off(self, subscription: Subscription) -> None:
        """Let others go first in the next round."""
        async with self._database.writing() as session:
            await session.exec(
                update(Subscription)
                .where(col(Subscription.subscription_id) == subscription.subscription_id)
                .values(reported_at=self._clock())
                .execution_options(synchronize_session=False)
            )

    async def advance(self, subscription: Subscription) -> None:
        """One step of a subscription, or its end when its key or account has ended."""
        now = self._clock()
        async with self._database.reading() as session:
            regulator = await accounts.with_key(session, subscription.key_id or "", now)
            step = None if regulator is None else await _next_step(session, subscription, regulator)
        async with self._database.writing() as session:
            if regulator is None or step is None:
                await _close(session, subscription, now)
            elif await reports.moved(session, subscription, {"position": step.position, "reported_at": now}):
                await _put(session, subscription, regulator, step, now)


async def _due(session: Session) -> Sequence[Subscription]:
    rows = await session.exec(
        select(Subscription)
        .where(
            col(Subscription.holder_id).is_not(None),
            col(Subscription.ended_at).is_(None),
            col(Subscription.position) < await arrivals.last_position(session),
        )
        .order_by(col(Subscription.reported_at).nulls_first())
        .limit(SUBSCRIPTIONS_AT_ONCE_MAX)
    )
    return rows.all()


async def _next_step(session: Session, subscription: Subscription, regulator: Regulator) -> Step:
    """What arrived and is seen. When all was looked at, the position is the last there is, whosever it is."""
    last = await arrivals.last_position(session)
    reach = await sights.reach_of(session, regulator.scope)
    read = await arrivals.of_brands(session, reach.brands, subscription.position, ARRIVALS_AT_ONCE_MAX + 1)
    keys: dict[int, list[uuid.UUID]] = {}
    position, count, taken = subscription.position, 0, 0
    for brand_id, arrival in read[:ARRIVALS_AT_ONCE_MAX]:
        if count and count + len(arrival.event_keys) > EVENTS_AT_ONCE_MAX:
            break
        keys.setdefault(brand_id, []).extend(arrival.event_keys)
        position, count, taken = arrival.position, count + len(arrival.event_keys), taken + 1
    query, found = subscriptions.query_of(subscription), {}
    for brand_id, some in keys.items():
        seen = query.narrowed(sights.event_condition(reach, brand_id))
        found[brand_id] = await event_search.among(session, brand_id, seen, some)
    return Step(found, last if taken == len(read) else position)


async def _close(session: Session, subscription: Subscription, now: datetime) -> None:
    await session.exec(
        update(Subscription)
        .where(col(Subscription.subscription_id) == subscription.subscription_id, col(Subscription.ended_at).is_(None))
        .values(ended_at=now, ended_why=CLOSED)
        .execution_options(synchronize_session=False)
    )


async def _put(session: Session, subscription: Subscription, regulator: Regulator, step: Step, now: datetime) -> None:
    """A report is of one brand's events."""
    asked = Asked("report", str(subscription.subscription_id), subscription.query or {}, subscription.purpose)
    number = 0
    for brand_id, found in step.found.items():
        for parcel in reports.parcels(found):
            report_id = derived_id("regulator-report", subscription.subscription_id, subscription.position, number)
            reports.put_out(session, subscription, report_id, [one.event_key for one in parcel], now)
            await accesses.record(session, regulator, asked, Told(len(parcel), {brand_id: len(parcel)}), ANSWERED, now)
            number += 1
