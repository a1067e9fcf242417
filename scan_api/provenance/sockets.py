"""Subscriptions that last as long as a websocket: events told as they come, or at times of a schedule (EPCIS 2.0,
8.2.5.2 and 12.8; its REST binding, GET /queries/{queryName}/events with `Upgrade: websocket`).

Such a subscription stands at a position of `arrivals` like any other, but is kept nowhere: it moves on when what was
before has been sent, so that within one connection no event is lost or told twice. Who comes again says from which
record time on.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import func
from sqlmodel import col, select

from kit.clock import Clock
from kit.db import Database, Session
from kit.errors import TooMany, Unavailable
from kit.ids import new_id
from scan_api.auth.api_keys import ApiKey
from scan_api.provenance import arrivals, event_query, named_queries, reports
from scan_api.provenance.arrivals import EventArrival
from scan_api.provenance.named_queries import NamedQuery, NamedQueryUnknown
from scan_api.provenance.reports import Step
from scan_api.provenance.schedules import FIELDS, Schedule
from scan_api.provenance.subscriptions import SubscriptionInvalid

SOCKETS_MAX: Final = 200
"""Open at a time at one server."""
SOCKETS_PER_KEY_MAX: Final = 10
"""Open at a time with one API key, at one server."""
SOCKETS_PER_BRAND_MAX: Final = 50
"""Open at a time with all API keys of one brand, at one server."""
REPORT_BYTES_MAX: Final = 512 * 1024
"""Of the events of one message; one event is always told. Many clients take a message of 1 MiB at most."""
LOOK_EVERY_S: Final = 0.5
CHECK_EVERY_S: Final = 5.0
"""A socket whose key was revoked, or whose query was removed, is closed within so long."""
_NAP_S: Final = 60.0
"""The longest sleep towards a time of a schedule: a clock that was set is seen after it."""
_ONCE: Final = frozenset({"stream", "reportIfEmpty", "initialRecordTime"})
_log = structlog.get_logger()


class TooManySockets(TooMany):
    """The key, or its brand, has as many sockets open as it may have."""

    code = "TooManySockets"


class SocketsFull(Unavailable):
    """The server has as many sockets open as it can have."""

    code = "SocketsFull"


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the server closes a socket: code (RFC 6455, 7.4.1) and reason."""

    code: int
    reason: str


KEY_REVOKED: Final = Ending(1008, "this API key was revoked")
QUERY_REMOVED: Final = Ending(1000, "this query was removed")


@dataclass(frozen=True, slots=True)
class SocketAsked:
    """What a query string asks for: events as they come (`schedule` None), or at times."""

    schedule: Schedule | None
    report_if_empty: bool
    initial_record_time: datetime | None


def asked_of(pairs: Sequence[tuple[str, str]]) -> SocketAsked:
    """What the pairs of a query string ask for. Raises SubscriptionInvalid, ScheduleInvalid, QueryParameterInvalid."""
    given = dict(pairs)
    if len(given) < len(pairs) or not given.keys() <= _ONCE | FIELDS:
        raise SubscriptionInvalid(
            f"a socket has the parameters {', '.join(sorted(_ONCE))}, and those of a schedule, each once"
        )
    timing = {name: value for name, value in given.items() if name in FIELDS}
    if ("stream" in given) == bool(timing) or given.get("stream", "true") != "true":
        raise SubscriptionInvalid("a subscription has either stream=true, or a schedule such as hour=1&minute=5")
    if given.get("reportIfEmpty", "true") not in ("true", "false"):
        raise SubscriptionInvalid("reportIfEmpty is true or false")
    initial = given.get("initialRecordTime")
    return SocketAsked(
        Schedule.of(timing) if timing else None,
        given.get("reportIfEmpty") == "true",
        None if initial is None else event_query.moment("initialRecordTime", initial),
    )


@dataclass(eq=False, slots=True)
class SocketSubscription:
    """Whom a query's events are told to, and how far that has come."""

    subscription_id: uuid.UUID
    brand_id: int
    key_id: str
    query_name: str
    query_made_at: datetime
    asked: SocketAsked
    since: datetime
    """The record time from which on events are told."""
    position: int
    """Up to which arrival they were."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be arrivals behind the position."""
    ended: "asyncio.Future[Ending | None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """That the server must close it, and why."""

    async def reports(self, database: Database, clock: Clock) -> AsyncGenerator[str, None]:
        """The messages, each when it is due, without end but for a schedule's. Raises NamedQueryUnknown when the
        query is removed.
        """
        schedule = self.asked.schedule
        if schedule is None:
            self.news.set()
            while True:
                await self.news.wait()
                self.news.clear()
                async for report in self._run(database, clock):
                    yield report
        due = schedule.after(clock())
        while due is not None:
            while (left := (due - clock()).total_seconds()) > 0:
                await asyncio.sleep(min(left, _NAP_S))
            is_empty = True
            async for report in self._run(database, clock):
                is_empty = False
                yield report
            if is_empty and self.asked.report_if_empty:
                yield await self._report(database, clock, [])
            due = schedule.after(max(due, clock()))

    async def _run(self, database: Database, clock: Clock) -> AsyncGenerator[str, None]:
        """What there is to tell by now."""
        is_last = False
        while not is_last:
            # Shielded, as below: a query that is broken off when the client goes would cost its connection.
            step = await asyncio.shield(self._step(database))
            for parcel in reports.parcels(step.found, REPORT_BYTES_MAX):
                yield await self._report(database, clock, [one.event_key for one in parcel])
            self.position, is_last = step.position, step.is_last

    async def _step(self, database: Database) -> Step:
        async with database.reading() as session:
            query = await named_queries.named(session, self.brand_id, self.query_name)
            if query.created_at != self.query_made_at:
                raise NamedQueryUnknown("there is another query of this name now")
            return await reports.next_step(session, self.brand_id, self.query_name, self.position, self.since)

    async def _report(self, database: Database, clock: Clock, keys: Sequence[uuid.UUID]) -> str:
        async def made() -> str:
            # A session of its own: whoever reads slowly holds no connection to the database.
            async with database.reading() as session:
                return await reports.document(session, keys, clock(), self.query_name, self.subscription_id)

        return await asyncio.shield(made())


async def begin(
    session: Session, key: ApiKey, query: NamedQuery, asked: SocketAsked, clock: Clock
) -> SocketSubscription:
    """A subscription from `initial_record_time` on, or from now. Raises SubscriptionInvalid."""
    position = await arrivals.last_position(session)
    now = clock()  # not before: what arrived up to that position was recorded before it
    if asked.schedule is not None and asked.schedule.after(now) is None:
        raise SubscriptionInvalid("this schedule never comes round")
    since = asked.initial_record_time or now
    if since < now:
        before = await _position_before(session, query.brand_id, since)
        position = position if before is None else min(position, before)
    return SocketSubscription(
        subscription_id=new_id(),
        brand_id=query.brand_id,
        key_id=key.key_id,
        query_name=query.name,
        query_made_at=query.created_at,
        asked=asked,
        since=since,
        position=position,
    )


async def _position_before(session: Session, brand_id: int, since: datetime) -> int | None:
    """The position before all arrivals that were recorded since a moment; None: none has a position yet."""
    first = select(func.min(col(EventArrival.position))).where(
        EventArrival.brand_id == brand_id,
        col(EventArrival.recorded_at) >= since,
        col(EventArrival.position).is_not(None),
    )
    found = (await session.exec(first)).one()
    return None if found is None else found - 1


class Sockets:
    """The sockets of one server. What they wait for is looked for once for all of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: set[SocketSubscription] = set()
        self._seen: int | None = None

    @contextlib.contextmanager
    def held(self, subscription: SocketSubscription) -> Iterator[None]:
        """Count a socket while it is open. Raises TooManySockets, SocketsFull."""
        if sum(one.key_id == subscription.key_id for one in self._open) >= SOCKETS_PER_KEY_MAX:
            raise TooManySockets(
                f"an API key has at most {SOCKETS_PER_KEY_MAX} sockets open", hint="Close one, or subscribe by webhook."
            )
        if sum(one.brand_id == subscription.brand_id for one in self._open) >= SOCKETS_PER_BRAND_MAX:
            raise TooManySockets(
                f"a brand has at most {SOCKETS_PER_BRAND_MAX} sockets open", hint="Close one, or subscribe by webhook."
            )
        if len(self._open) >= SOCKETS_MAX:
            raise SocketsFull("this server has no socket left", hint="Come again, or subscribe by webhook.")
        self._open.add(subscription)
        try:
            yield
        finally:
            self._open.discard(subscription)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, or the task is cancelled. What goes wrong is logged and tried again."""
        looks_between = round(CHECK_EVERY_S / LOOK_EVERY_S)
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                await self.look()
                if turn % looks_between == 0:
                    await self.check()
            except Exception:
                _log.exception("sockets not looked after, will try again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_EVERY_S)

    async def look(self) -> None:
        """Wake the sockets of brands that have new arrivals."""
        if not self._open:
            self._seen = None
            return
        async with self._database.reading() as session:
            last = await arrivals.last_position(session)
            if last == self._seen:
                return
            brands = None if self._seen is None else await _brands_between(session, self._seen, last)
        self._seen = last
        for one in self._open:
            if brands is None or one.brand_id in brands:
                one.news.set()

    async def check(self) -> None:
        """End the sockets whose key was revoked, or whose query was removed."""
        looked_at = list(self._open)  # others may open meanwhile
        if not looked_at:
            return
        async with self._database.reading() as session:
            keys = select(ApiKey.key_id).where(
                col(ApiKey.key_id).in_({one.key_id for one in looked_at}), col(ApiKey.revoked_at).is_(None)
            )
            sound = set((await session.exec(keys)).all())
            queries = select(NamedQuery.brand_id, NamedQuery.name, NamedQuery.created_at).where(
                col(NamedQuery.brand_id).in_({one.brand_id for one in looked_at}),
                col(NamedQuery.name).in_({one.query_name for one in looked_at}),
            )
            there = {tuple(row) for row in (await session.exec(queries)).all()}
        for one in looked_at:
            if one.key_id not in sound:
                _end(one, KEY_REVOKED)
            elif (one.brand_id, one.query_name, one.query_made_at) not in there:
                _end(one, QUERY_REMOVED)


def _end(subscription: SocketSubscription, why: Ending) -> None:
    if not subscription.ended.done():
        subscription.ended.set_result(why)


async def _brands_between(session: Session, position: int, last: int) -> set[int]:
    found = await session.exec(
        select(EventArrival.brand_id)
        .where(col(EventArrival.position) > position, col(EventArrival.position) <= last)
        .distinct()
    )
    return set(found.all())
