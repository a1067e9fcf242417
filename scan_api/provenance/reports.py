"""Reports of subscriptions: what one is told next, put into the outbox with its new position in one transaction.

Two servers may make the same report; the one whose transaction is first moves the position on, and the other's is
nothing. So each event is in one report, and a report's id follows from where its subscription stood.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy import exists, or_, update
from sqlmodel import col, select

from kit import outbox
from kit.clock import Clock
from kit.db import Database, Session
from kit.errors import FanxingError
from kit.ids import derived_id
from scan_api.provenance import answers, arrivals, event_search, named_queries, repository
from scan_api.provenance.arrivals import EventArrival
from scan_api.provenance.event_search import Sized
from scan_api.provenance.named_queries import NamedQueryUnknown
from scan_api.provenance.repository import EpcisEvent
from scan_api.provenance.schedules import Schedule
from scan_api.provenance.subscriptions import Subscription

IDLE_WAIT_S: Final = 0.5
ARRIVALS_AT_ONCE_MAX: Final = 50
EVENTS_AT_ONCE_MAX: Final = 5_000
"""Looked at before a subscription's position is moved on; one arrival is always looked at whole."""
REPORT_EVENTS_MAX: Final = 200
REPORT_BYTES_MAX: Final = 2 * 1024 * 1024
"""Of the events of one report, as they were sent; one event is always told."""
SUBSCRIPTIONS_AT_ONCE_MAX: Final = 100
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """What a subscription's query finds behind a position, and where that leads; `is_last`: there is no more by now."""

    found: Sequence[Sized]
    position: int
    is_last: bool


async def next_step(session: Session, brand_id: int, query_name: str, position: int, since: datetime) -> Step:
    """The events behind a position that a query asks for. Raises NamedQueryUnknown."""
    query = (await named_queries.named(session, brand_id, query_name)).query()
    read = await arrivals.since(session, brand_id, position, ARRIVALS_AT_ONCE_MAX + 1)
    keys: list[uuid.UUID] = []
    taken = 0
    for arrival in read[:ARRIVALS_AT_ONCE_MAX]:
        if keys and len(keys) + len(arrival.event_keys) > EVENTS_AT_ONCE_MAX:
            break
        taken, position = taken + 1, arrival.position
        if arrival.recorded_at >= since:
            keys += arrival.event_keys
    found = await event_search.among(session, brand_id, query, keys) if keys else []
    return Step(found, position, taken == len(read))


def parcels(found: Sequence[Sized], bytes_max: int = REPORT_BYTES_MAX) -> Iterator[list[Sized]]:
    """The events of a step in reports of bounded size."""
    parcel: list[Sized] = []
    size = 0
    for one in found:
        if parcel and (len(parcel) >= REPORT_EVENTS_MAX or size + one.size > bytes_max):
            yield parcel
            parcel, size = [], 0
        parcel.append(one)
        size += one.size
    if parcel:
        yield parcel


async def document(
    session: Session, keys: Sequence[uuid.UUID], at: datetime, query_name: str, subscription_id: uuid.UUID
) -> str:
    """A report as it is sent: an EPCISQueryDocument of these events, in their order; the same at every asking."""
    rows = (await session.exec(select(EpcisEvent).where(col(EpcisEvent.event_key).in_(keys)))).all()
    by_key = {row.event_key: row for row in rows}
    contexts = await repository.contexts_of(session, rows)
    made = answers.query_document(
        [by_key[key] for key in keys if key in by_key],
        {key: contexts[key] for key in sorted(contexts)},
        at,
        query_name,
        subscription_id,
    )
    return answers.encoded(made).decode()


class Reporter:
    """Makes reports as events come and schedules come round. Any number of servers may run one."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, or the task is cancelled. What goes wrong is logged and tried again."""
        while not stop.is_set():
            try:
                while await arrivals.place(self._database):
                    pass
                await self.report()
            except Exception:
                _log.exception("subscriptions not looked at, will try again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), IDLE_WAIT_S)

    async def report(self) -> None:
        """Move every subscription that has something to tell on by one step."""
        async with self._database.reading() as session:
            due = await _due(session, self._clock())
        for subscription in due:
            try:
                await self.advance(subscription)
            except FanxingError as error:
                _log.error("subscription put off", code=error.code, subscription_id=str(subscription.subscription_id))

    async def advance(self, subscription: Subscription) -> None:
        """One step of a subscription."""
        now = self._clock()
        async with self._database.reading() as session:
            try:
                step = await next_step(
                    session,
                    subscription.brand_id,
                    subscription.query_name,
                    subscription.position,
                    subscription.initial_record_time,
                )
            except NamedQueryUnknown:
                return  # it was removed just now, and its subscriptions with it
        async with self._database.writing() as session:
            if await _move_on(session, subscription, step, now):
                _put(session, subscription, step, now)


async def _due(session: Session, now: datetime) -> Sequence[Subscription]:
    arrived = exists().where(
        col(EventArrival.brand_id) == col(Subscription.brand_id),
        col(EventArrival.position) > col(Subscription.position),
    )
    is_due = or_(col(Subscription.due_at) <= now, col(Subscription.due_at).is_(None) & arrived)
    rows = await session.exec(
        select(Subscription)
        .where(col(Subscription.ended_at).is_(None), is_due)
        .order_by(col(Subscription.reported_at).nulls_first())
        .limit(SUBSCRIPTIONS_AT_ONCE_MAX)
    )
    return rows.all()


async def _move_on(session: Session, subscription: Subscription, step: Step, now: datetime) -> bool:
    """Whether this is the one that moves the subscription from where it stood."""
    values: dict[str, Any] = {"position": step.position, "reported_at": now}
    if subscription.schedule is not None:
        values["has_told"] = subscription.has_told or bool(step.found)
        if step.is_last:
            values |= {"has_told": False, "due_at": Schedule.of(subscription.schedule).after(now)}
    return await moved(session, subscription, values)


async def moved(session: Session, subscription: Subscription, values: Mapping[str, Any]) -> bool:
    """Whether this is the one that moves the subscription from where it stood; `values` are its columns from now on."""
    changed = await session.exec(
        update(Subscription)
        .where(
            col(Subscription.subscription_id) == subscription.subscription_id,
            col(Subscription.position) == subscription.position,
            col(Subscription.due_at).is_not_distinct_from(subscription.due_at),
            col(Subscription.ended_at).is_(None),
        )
        .values(**values)
        .returning(col(Subscription.subscription_id))
        .execution_options(synchronize_session=False)
    )
    return changed.first() is not None


def put_out(
    session: Session, subscription: Subscription, report_id: uuid.UUID, keys: Sequence[uuid.UUID], now: datetime
) -> None:
    """Have a report of these events sent."""
    payload = {
        "subscription_id": str(subscription.subscription_id),
        "event_keys": [key.hex for key in keys],
        "at": now.isoformat(),
    }
    outbox.put(session, subscription.topic, outbox.key_of(report_id), payload, now, report_id)


def _put(session: Session, subscription: Subscription, step: Step, now: datetime) -> None:
    reports = [[one.event_key for one in parcel] for parcel in parcels(step.found)]
    is_run_over = subscription.schedule is not None and step.is_last
    if not reports and is_run_over and subscription.report_if_empty and not subscription.has_told:
        reports = [[]]
    for number, keys in enumerate(reports):
        report_id = derived_id(
            "epcis-report", subscription.subscription_id, subscription.position, subscription.due_at, number
        )
        put_out(session, subscription, report_id, keys, now)
