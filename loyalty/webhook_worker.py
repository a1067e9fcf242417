"""The webhook worker: takes messages from the outbox, sends each signed, and tries again for three days.

At least once and in no order: a message whose sender died between sending and noting it down is sent again, under the
same webhook-id, by which the receiver knows it.
"""

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import case, delete, exists, func, literal, or_, true, update
from sqlmodel import col, select

from kit import outbox
from kit.clock import Clock
from kit.db import Database, Moment, Session, insert
from kit.errors import FanxingError
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty import webhooks
from loyalty.web_posts import GONE, Attempt, Poster, Rounds, attempted
from loyalty.web_targets import Targets
from loyalty.webhooks import DeliveryState, Disabled, WebhookDelivery, WebhookEndpoint

RETRY_AFTER: Final = tuple(timedelta(seconds=s) for s in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400))
"""After each failed attempt but the last: ten attempts within 75 h 35 min, up to a tenth more by chance."""
LEASE: Final = timedelta(seconds=30)
"""Well above the time-out: nobody else sends a message while this worker does."""
IN_FLIGHT_PER_ENDPOINT: Final = 8
ENDPOINTS_AT_ONCE_MAX: Final = 32
DISABLE_AFTER_FAILURES: Final = 20
DISABLE_AFTER: Final = timedelta(days=1)
"""An endpoint is disabled when so many attempts in a row failed, over so long a time."""
DELIVERIES_KEPT: Final = timedelta(days=30)
_USER_AGENT: Final = "Fanxing-Webhooks/1"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Job:
    message: OutboxMessage
    endpoint: WebhookEndpoint | None
    event_id: uuid.UUID
    body: str
    attempts_before: int


class Worker:
    """Sends what is due. Any number of workers, in any number of processes, share the work."""

    def __init__(self, database: Database, vault: Vault, targets: Targets, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._poster = Poster(targets, _USER_AGENT)
        self._rounds = Rounds(
            self._topics_due, self.send_due, ENDPOINTS_AT_ONCE_MAX, what="webhooks", whose="an endpoint"
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, or the task is cancelled. What goes wrong is logged and tried again."""
        async with self._poster:
            await self._rounds.run(stop)

    async def _topics_due(self) -> Sequence[str]:
        async with self._database.reading() as session:
            return await _topics_due(session, self._clock())

    async def send_due(self, topic: str) -> bool:
        """Send up to 8 due messages of one endpoint at once; whether there were so many and all got through."""
        async with self._database.writing() as session:
            messages = await outbox.lease(session, topic, self._clock(), IN_FLIGHT_PER_ENDPOINT, LEASE)
        if not messages:
            return False
        async with self._database.reading() as session:
            jobs = await _jobs(session, messages)
        attempts = await asyncio.gather(*(self._attempt(job) for job in jobs))
        async with self._database.writing() as session:
            for job, attempt in zip(jobs, attempts, strict=True):
                await _note(session, job, attempt, self._clock())
        return len(jobs) == IN_FLIGHT_PER_ENDPOINT and all(one is not None and one.got_through for one in attempts)

    async def _attempt(self, job: _Job) -> Attempt | None:
        if job.endpoint is None or job.endpoint.disabled_at is not None:
            return None
        try:
            return await attempted(self._send(job.endpoint, job))
        except FanxingError as error:
            _log.error("webhook not signed", code=error.code, endpoint_id=str(job.endpoint.endpoint_id))
            return Attempt(None, error.code)

    async def _send(self, endpoint: WebhookEndpoint, job: _Job) -> Attempt:
        body = job.body.encode()

        def headers() -> dict[str, str]:
            now = self._clock()
            timestamp_s = int(now.timestamp())
            return {
                "webhook-id": str(job.event_id),
                "webhook-timestamp": str(timestamp_s),
                "webhook-signature": webhooks.signature(self._vault, endpoint, job.event_id, timestamp_s, body, now),
            }

        return await self._poster.post(endpoint.url, webhooks.URL_CHARACTERS_MAX, body, headers)


async def _topics_due(session: Session, now: datetime) -> Sequence[str]:
    """The topics of endpoints with something to send, in an order of chance so that none is always last."""
    due = exists().where(
        col(OutboxMessage.topic) == col(WebhookEndpoint.topic),
        col(OutboxMessage.done_at).is_(None),
        col(OutboxMessage.set_aside_at).is_(None),
        col(OutboxMessage.due_at) <= now,
    )
    topics = list((await session.exec(select(WebhookEndpoint.topic).where(due))).all())
    random.shuffle(topics)
    return topics


async def _jobs(session: Session, messages: Sequence[OutboxMessage]) -> list[_Job]:
    endpoint_id = uuid.UUID(messages[0].payload["endpoint_id"])
    endpoint = await session.get(WebhookEndpoint, endpoint_id)
    event_ids = [uuid.UUID(message.payload["event_id"]) for message in messages]
    tried = dict(
        (
            await session.exec(
                select(WebhookDelivery.event_id, WebhookDelivery.attempts).where(
                    WebhookDelivery.endpoint_id == endpoint_id,
                    col(WebhookDelivery.event_id).in_(event_ids),
                    WebhookDelivery.state == DeliveryState.WAITING,
                )
            )
        ).all()
    )
    return [
        _Job(message, endpoint, event_id, message.payload["body"], tried.get(event_id, 0))
        for message, event_id in zip(messages, event_ids, strict=True)
    ]


async def _note(session: Session, job: _Job, attempt: Attempt | None, now: datetime) -> None:
    """Write down how an attempt ended (None: there was none, for nobody is to be told), and what follows from it."""
    if job.endpoint is None:
        await outbox.finish(session, job.message, now)
        return
    attempts = job.attempts_before + (attempt is not None)
    wait = None
    if attempt is None:
        attempt, state = Attempt(None, "the webhook is disabled"), DeliveryState.GIVEN_UP
    elif attempt.got_through:
        state = DeliveryState.DELIVERED
    else:
        wait = retry_after(attempts, random.random())  # noqa: S311 - keeps failures from coming back together
        state = DeliveryState.GIVEN_UP if wait is None else DeliveryState.WAITING
    await _record(session, job, attempt, state, attempts, now, wait)
    if wait is None:
        await outbox.finish(session, job.message, now)
    else:
        await outbox.postpone(session, job.message, now + wait, attempt.error or f"status {attempt.status}")
    if attempt.got_through:
        await _reached(session, job.endpoint.endpoint_id)
    elif job.endpoint.disabled_at is None:
        await _missed(session, job.endpoint.endpoint_id, attempt, now)


def retry_after(attempts: int, chance: float) -> timedelta | None:
    """How long to wait after so many failed attempts (1..), up to a tenth longer by `chance` (0..1); None: give up."""
    if attempts > len(RETRY_AFTER):
        return None
    wait: timedelta = RETRY_AFTER[attempts - 1] * (1 + chance / 10)
    return wait


async def _record(
    session: Session,
    job: _Job,
    attempt: Attempt,
    state: DeliveryState,
    attempts: int,
    now: datetime,
    wait: timedelta | None,
) -> None:
    payload = job.message.payload
    told = {
        "state": state.value,
        "attempts": attempts,
        "last_attempt_at": now,
        "last_status": attempt.status,
        "last_error": attempt.error,
        "next_attempt_at": now + wait if wait is not None else None,
    }
    await session.exec(
        insert(session, WebhookDelivery)
        .values(
            endpoint_id=uuid.UUID(payload["endpoint_id"]),
            event_id=job.event_id,
            kind=payload["kind"],
            body=job.body,
            at=datetime.fromisoformat(payload["at"]),
            **told,
        )
        .on_conflict_do_update(index_elements=["endpoint_id", "event_id"], set_=told)
    )


async def _reached(session: Session, endpoint_id: uuid.UUID) -> None:
    await session.exec(
        update(WebhookEndpoint)
        .where(col(WebhookEndpoint.endpoint_id) == endpoint_id, col(WebhookEndpoint.failures) > 0)
        .values(failures=0, failing_since=None)
        .execution_options(synchronize_session=False)
    )


async def _missed(session: Session, endpoint_id: uuid.UUID, attempt: Attempt, now: datetime) -> None:
    """Count a failure; an endpoint that is gone, or has failed for long enough, is disabled by the same statement."""
    failures = col(WebhookEndpoint.failures) + 1
    failing_for_long = (failures >= DISABLE_AFTER_FAILURES) & (
        col(WebhookEndpoint.failing_since) <= now - DISABLE_AFTER
    )
    gone = attempt.status == GONE
    why = Disabled.GONE if gone else Disabled.FAILING
    is_over = true() if gone else failing_for_long
    changed = await session.exec(
        update(WebhookEndpoint)
        .where(col(WebhookEndpoint.endpoint_id) == endpoint_id, col(WebhookEndpoint.disabled_at).is_(None))
        .values(
            failures=failures,
            failing_since=func.coalesce(col(WebhookEndpoint.failing_since), now),
            disabled_at=case((is_over, literal(now, Moment()))),
            disabled_why=case((is_over, why.value)),
        )
        .returning(col(WebhookEndpoint.disabled_why))
        .execution_options(synchronize_session=False)
    )
    if changed.scalar_one_or_none() is not None:
        _log.error("webhook disabled", endpoint_id=str(endpoint_id), why=why.value)


async def sweep(session: Session, now: datetime) -> None:
    """Forget deliveries that ended 30 days ago, and what is left of endpoints that were removed."""
    is_webhook = col(OutboxMessage.topic).startswith(webhooks.TOPIC_PREFIX)
    has_endpoint = exists().where(col(WebhookEndpoint.topic) == col(OutboxMessage.topic))
    await session.exec(
        update(OutboxMessage)
        .where(is_webhook, col(OutboxMessage.done_at).is_(None), ~has_endpoint)
        .values(done_at=now)
        .execution_options(synchronize_session=False)
    )
    await session.exec(
        delete(WebhookDelivery).where(
            or_(
                (col(WebhookDelivery.state) != DeliveryState.WAITING.value)
                & (col(WebhookDelivery.last_attempt_at) < now - DELIVERIES_KEPT),
                ~exists().where(col(WebhookEndpoint.endpoint_id) == col(WebhookDelivery.endpoint_id)),
            )
        )
    )
