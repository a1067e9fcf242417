"""The worker: brings every order that is due one step further, till the provider has said how it ended.

It asks before it orders again, and orders again under the same id only. It may die between any two lines: the order's
state says what was sent, and a step and its transfer happen together or not at all.
"""

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from sqlalchemy import func, update
from sqlmodel import col, select

from kit import outbox
from kit.clock import Clock
from kit.db import Database, Session
from kit.outbox import Backlog, OutboxMessage
from kit.vault import Vault
from loyalty import members, sandbox
from loyalty.fulfilment import callbacks, orders, steps
from loyalty.fulfilment.orders import SANDBOX, Attention, Order, OrderKind
from loyalty.fulfilment.providers import Answer, Breaker, Consignment, Provider
from loyalty.fulfilment.states import OPEN, OrderState, Teller, Word
from loyalty.fulfilment.steps import Effect, Outcome, Report

BATCH_ORDERS = 32
"""Orders that a worker takes at once."""
CONCURRENT_REQUESTS_MAX = 8
"""To one provider, from one worker."""
LEASE = timedelta(minutes=5)
"""A batch is done well within it: two requests an order, eight orders at a time, ten seconds a request."""
BACKOFF_FIRST = timedelta(seconds=2)
BACKOFF_MAX = timedelta(hours=1)
BROKEN_WAIT = timedelta(minutes=5)
"""Till an order is tried again that the worker broke on."""
AWAIT_USER_WAIT = timedelta(hours=6)
"""Between two looks at an order that the member has to confirm; its callback comes sooner."""
NO_END_AFTER = timedelta(days=3)
"""An order that is open for so long goes to the operator. It is still asked for."""
EXPIRY_GRACE = timedelta(days=1)
"""So much longer than agreed a provider may let a member confirm before the operator is told."""
IDLE_WAIT_S = 1.0
"""Time between two looks at an empty outbox."""
HEALTH_EVERY_S = 15.0
FORGET_EVERY = timedelta(hours=6)

_log = structlog.get_logger(__name__)
_chance = secrets.SystemRandom()


@dataclass(frozen=True)
class Health:
    """How fulfilment stands: open orders by provider and state, the oldest of them, what waits, what needs a person."""

    open_orders: Mapping[tuple[str, str], int] = field(default_factory=dict)
    oldest_open_s: Mapping[str, float] = field(default_factory=dict)
    """By provider: the age of its oldest open order."""
    attention: Mapping[str, int] = field(default_factory=dict)
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)


class Observer(Protocol):
    """Counts, for whoever watches the server."""

    def order_moved(self, provider: str, state: str, by: str) -> None: ...

    def fulfilment_health(self, health: Health) -> None: ...


@dataclass(frozen=True)
class _Job:
    message: OutboxMessage
    order: Order
    asked: Consignment
    known: bool
    """Whether the provider may have the order already."""


@dataclass
class Worker:
    """Works on the orders of one provider."""

    database: Database
    vault: Vault
    provider: Provider
    clock: Clock
    observer: Observer | None = None
    breaker: Breaker = field(default_factory=Breaker)

    async def work_once(self) -> int:
        """Bring every order that is due one step further; the number of orders taken, 0..32.

        No transaction is open while the provider is asked.
        """
        wanted = self.breaker.count_max(self.clock(), BATCH_ORDERS)
        if not wanted:
            return 0
        async with self.database.writing() as session:
            topic = orders.topic_of(self.provider.name)
            messages = await outbox.lease(session, topic, self.clock(), wanted, LEASE)
        at_once = asyncio.Semaphore(CONCURRENT_REQUESTS_MAX)

        async def bring_on(message: OutboxMessage) -> None:
            async with at_once:
                try:
                    await self._bring_on(message)
                except Exception as error:
                    # One order that cannot be worked on must not hold up the others.
                    _log.exception("order put off", order_id=str(message.message_id))
                    await self._give_up(message, error)

        await asyncio.gather(*(bring_on(message) for message in messages))
        return len(messages)

    async def _bring_on(self, message: OutboxMessage) -> None:
        async with self.database.writing() as session:
            job = await self._begin(session, message)
        if job is None:
            return
        if job.known:
            answer = await self._heard(await self.provider.query(job.asked))
            async with self.database.writing() as session:
                outcome = await self._apply(session, job, answer)
                send = await self._send_again(session, job, outcome, answer)
                if not send:
                    await self._put_off(session, job, outcome, answer)
            if not send:
                return
        answer = await self._heard(await self.provider.submit(job.asked))
        async with self.database.writing() as session:
            outcome = await self._apply(session, job, answer)
            await self._put_off(session, job, outcome, answer)

    async def _begin(self, session: Session, message: OutboxMessage) -> _Job | None:
        """What to ask, or None when the order has come to an end meanwhile."""
        now = self.clock()
        member_id, order_id = uuid.UUID(message.payload["member_id"]), uuid.UUID(message.payload["order_id"])
        order = await session.get_one(Order, (member_id, order_id))
        if order.state not in OPEN:
            await outbox.finish(session, message, now)
            return None
        try:
            phone = await members.phone_of(session, self.vault, member_id)
        except members.MemberUnknown:
            phone = None
        known = order.state != OrderState.CREATED
        if not known and order.provider != SANDBOX and await _is_make_believe(session, order):
            await _keep_in_the_house(session, message, order, now)
            return None
        if not known:
            # Before the request leaves: whoever finds the order after a crash must ask for it first.
            word = Word.NO_NUMBER if phone is None else Word.SENT
            order = await self._take(session, order, Report(word, Teller.WORKER), now)
            if phone is None:
                return None
        await session.exec(
            update(Order)
            .where(col(Order.member_id) == member_id, col(Order.order_id) == order_id)
            .values(attempts=col(Order.attempts) + 1)
            .execution_options(synchronize_session=False)
        )
        asked = Consignment(order_id, OrderKind(order.kind), order.amount, phone, order.expires_at)
        return _Job(message, order, asked, known)

    async def _heard(self, answer: Answer) -> Answer:
        self.breaker.heard(answer, self.clock())
        return answer

    async def _take(self, session: Session, order: Order, report: Report, now: datetime) -> Order:
        return self._count(await steps.take(session, order.member_id, order.order_id, report, now), report).order

    def _count(self, outcome: Outcome, report: Report) -> Outcome:
        if self.observer is not None and outcome.effect is Effect.MOVED:
            self.observer.order_moved(outcome.order.provider, outcome.order.state, report.by)
        return outcome

    async def _apply(self, session: Session, job: _Job, answer: Answer) -> Outcome:
        report = report_of(answer, Teller.WORKER)
        outcome = await steps.take(session, job.order.member_id, job.order.order_id, report, self.clock())
        return self._count(outcome, report)

    async def _send_again(self, session: Session, job: _Job, outcome: Outcome, answer: Answer) -> bool:
        """Whether the order has to be sent, under its own id: the provider said that it never had it."""
        if answer.word is not Word.NEVER_RECEIVED or outcome.state is not OrderState.UNKNOWN:
            return False
        if outcome.before in (OrderState.ACCEPTED, OrderState.PENDING, OrderState.AWAIT_USER):
            return False  # it did have it: one such answer may be a slip, so ask once more
        word = Word.NO_NUMBER if job.asked.phone_e164 is None else Word.SENT
        await self._take(session, outcome.order, Report(word, Teller.WORKER), self.clock())
        return word is Word.SENT

    async def _put_off(self, session: Session, job: _Job, outcome: Outcome, answer: Answer) -> None:
        """Look again later, unless the order came to an end; tell the operator of one that comes to none."""
        order, now = outcome.order, self.clock()
        if order.state not in OPEN:
            return
        wait = backoff(job.message.attempts, _chance.random())
        late = now - order.created_at >= NO_END_AFTER
        if order.state == OrderState.AWAIT_USER and order.expires_at is not None:
            wait = min(AWAIT_USER_WAIT, max(order.expires_at - now, wait))
            late = now - order.expires_at >= EXPIRY_GRACE
        if late and order.attention is None:
            await steps.flag(session, order, Attention.NO_END)
        await outbox.postpone(session, job.message, now + wait, answer.word)

    async def _give_up(self, message: OutboxMessage, error: Exception) -> None:
        """Note that the worker broke on an order; after ten times it is the operator's."""
        now = self.clock()
        try:
            async with self.database.writing() as session:
                if await outbox.fail(session, message, now + BROKEN_WAIT, type(error).__name__, now):
                    order = await orders.find(session, message.message_id)
                    await steps.flag(session, order, Attention.SET_ASIDE)
        except Exception:
            _log.exception("order left to its lease", order_id=str(message.message_id))

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. What goes wrong is logged and tried again; orders wait in the outbox meanwhile."""
        while not stop.is_set():
            try:
                busy = await self.work_once() == BATCH_ORDERS
            except Exception:
                _log.exception("fulfilment failed, will try again", provider=self.provider.name)
                busy = False
            if not busy:
                await _pause(stop, IDLE_WAIT_S)


async def _is_make_believe(session: Session, order: Order) -> bool:
    member = await members.get(session, order.member_id)
    return await sandbox.is_sandbox(session, member.group_id)


async def _keep_in_the_house(session: Session, message: OutboxMessage, order: Order, now: datetime) -> None:
    """Hand an order of a sandbox's member to the built-in provider, whoever forgot to say that it is one."""
    await session.exec(
        update(Order)
        .where(col(Order.member_id) == order.member_id, col(Order.order_id) == order.order_id)
        .values(provider=SANDBOX)
        .execution_options(synchronize_session=False)
    )
    await outbox.redirect(session, message, orders.topic_of(SANDBOX), now)


def report_of(answer: Answer, by: Teller) -> Report:
    """A provider's answer as a report."""
    return Report(answer.word, by, answer.revision, answer.at, answer.reference, answer.reason)


def backoff(attempts: int, chance: float) -> timedelta:
    """How long to wait after this many attempts: doubling from 2 s to an hour, less up to half by `chance` (0..1).

    Chance keeps orders that failed together from coming back together.
    """
    doublings = min(max(attempts, 1) - 1, 12)  # 2 s doubled that often is past the longest wait
    longest: timedelta = min(BACKOFF_FIRST * 2**doublings, BACKOFF_MAX)
    return longest * (1 - chance / 2)


async def health(session: Session, now: datetime) -> Health:
    """How fulfilment stands now."""
    is_open = col(Order.closed_at).is_(None)
    counted = await session.exec(
        select(Order.provider, Order.state, func.count()).where(is_open).group_by(col(Order.provider), col(Order.state))
    )
    oldest = await session.exec(
        select(Order.provider, func.min(Order.created_at)).where(is_open).group_by(col(Order.provider))
    )
    flagged = await session.exec(
        select(Order.attention, func.count()).where(col(Order.attention).is_not(None)).group_by(col(Order.attention))
    )
    return Health(
        open_orders={(provider, state): count for provider, state, count in counted},
        oldest_open_s={provider: (now - first).total_seconds() for provider, first in oldest},
        attention={attention: count for attention, count in flagged if attention is not None},
        backlogs=await outbox.backlogs(session, now),
    )


async def run(
    database: Database,
    vault: Vault,
    providers: Sequence[Provider],
    clock: Clock,
    stop: asyncio.Event,
    observer: Observer | None = None,
) -> None:
    """Work for every provider until `stop` is set, and keep an eye on it."""
    workers = [Worker(database, vault, provider, clock, observer) for provider in providers]
    await asyncio.gather(*(worker.run(stop) for worker in workers), _watch(database, clock, stop, observer))


async def _watch(database: Database, clock: Clock, stop: asyncio.Event, observer: Observer | None) -> None:
    forget_at = clock()
    while not stop.is_set():
        try:
            if observer is not None:
                async with database.reading() as session:
                    observer.fulfilment_health(await health(session, clock()))
            if clock() >= forget_at:
                async with database.writing() as session:
                    await callbacks.forget(session, clock())
                forget_at = clock() + FORGET_EVERY
        except Exception:
            _log.exception("fulfilment not watched, will try again")
        await _pause(stop, HEALTH_EVERY_S)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
