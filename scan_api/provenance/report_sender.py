"""The report sender: posts reports to their subscribers, signed, and tries again for three days (EPCIS 2.0, 8.2.9).

As for webhooks (`loyalty.webhook_worker`): at least once and in no order; a report that comes again has the same
`webhook-id` and the same body.
"""

import asyncio
import base64
import hashlib
import hmac
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import case, exists, literal, update
from sqlmodel import col, select

from kit import outbox
from kit.clock import Clock
from kit.db import Database, Moment, Session
from kit.errors import FanxingError
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty.web_posts import GONE, Attempt, Poster, Rounds, attempted
from loyalty.web_targets import Targets
from loyalty.webhook_worker import LEASE, retry_after
from scan_api.provenance import reports
from scan_api.provenance.subscriptions import TOPIC_PREFIX, URL_CHARACTERS_MAX, Subscription, seal_context

IN_FLIGHT_PER_SUBSCRIPTION: Final = 4
SUBSCRIPTIONS_AT_ONCE_MAX: Final = 16
END_AFTER_GIVEN_UP: Final = 3
"""A subscription ends when so many reports in a row were given up, each after three days."""
_USER_AGENT: Final = "Fanxing-EPCIS/1"
_log = structlog.get_logger()

Telling = Callable[[Session, Subscription, Sequence[uuid.UUID]], Awaitable[Sequence[uuid.UUID] | None]]
"""Which of a report's events a subscriber may be told by now; None: nothing any more."""


async def everything(_session: Session, _subscription: Subscription, keys: Sequence[uuid.UUID]) -> Sequence[uuid.UUID]:
    """What brands are told: all that was reported."""
    return keys


class Sender:
    """Sends what is due. Any number of servers share the work."""

    def __init__(
        self, database: Database, vault: Vault, targets: Targets, clock: Clock, telling: Telling = everything
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._telling = telling
        self._poster = Poster(targets, _USER_AGENT)
        self._rounds = Rounds(
            self._topics_due, self.send_due, SUBSCRIPTIONS_AT_ONCE_MAX, what="reports", whose="a subscription"
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, or the task is cancelled. What goes wrong is logged and tried again."""
        async with self._poster:
            await self._rounds.run(stop)

    async def _topics_due(self) -> Sequence[str]:
        async with self._database.reading() as session:
            return await _topics_due(session, self._clock())

    async def send_due(self, topic: str) -> bool:
        """Send up to 4 due reports of one subscription at once; whether there were so many and all got through."""
        async with self._database.writing() as session:
            messages = await outbox.lease(session, topic, self._clock(), IN_FLIGHT_PER_SUBSCRIPTION, LEASE)
        if not messages:
            return False
        async with self._database.reading() as session:
            subscription = await session.get(Subscription, uuid.UUID(messages[0].payload["subscription_id"]))
            if subscription is not None and await self._telling(session, subscription, []) is None:
                subscription = None
        if subscription is None or subscription.ended_at is not None:
            async with self._database.writing() as session:
                for message in messages:
                    await outbox.finish(session, message, self._clock())
            return True
        attempts = await asyncio.gather(*(self._attempt(subscription, message) for message in messages))
        async with self._database.writing() as session:
            for message, attempt in zip(messages, attempts, strict=True):
                await _note(session, subscription, message, attempt, self._clock())
        return len(messages) == IN_FLIGHT_PER_SUBSCRIPTION and all(one.got_through for one in attempts)

    async def _attempt(self, subscription: Subscription, message: OutboxMessage) -> Attempt:
        try:
            return await attempted(self._send(subscription, message))
        except FanxingError as error:
            _log.error("report not signed", code=error.code, subscription_id=str(subscription.subscription_id))
            return Attempt(None, error.code)

    async def _body(self, subscription: Subscription, message: OutboxMessage) -> bytes:
        """The same bytes at every attempt, unless less may be told now: events and their order are in the message."""
        keys: Sequence[uuid.UUID] = [uuid.UUID(hex=key) for key in message.payload["event_keys"]]
        at = datetime.fromisoformat(message.payload["at"])
        async with self._database.reading() as session:
            keys = await self._telling(session, subscription, keys) or []
            document = await reports.document(session, keys, at, subscription.query_name, subscription.subscription_id)
        return document.encode()

    async def _send(self, subscription: Subscription, message: OutboxMessage) -> Attempt:
        report_id, body = message.message_id, await self._body(subscription, message)

        def headers() -> dict[str, str]:
            timestamp_s = int(self._clock().timestamp())
            return {
                "webhook-id": str(report_id),
                "webhook-timestamp": str(timestamp_s),
                **self._signatures(subscription, report_id, timestamp_s, body),
            }

        return await self._poster.post(subscription.dest, URL_CHARACTERS_MAX, body, headers)

    def _signatures(
        self, subscription: Subscription, report_id: uuid.UUID, timestamp_s: int, body: bytes
    ) -> dict[str, str]:
        """`GS1-Signature`: base64 of HMAC-SHA-256 of the body; `webhook-signature` is of its id and time as well."""
        if subscription.token_sealed is None:
            return {}
        token = self._vault.unseal(subscription.token_sealed, seal_context(subscription.subscription_id))
        whole = f"{report_id}.{timestamp_s}.".encode() + body
        return {
            "GS1-Signature": _digest(token, body),
            "webhook-signature": f"v1,{_digest(token, whole)}",
        }


def _digest(token: bytes, message: bytes) -> str:
    return base64.b64encode(hmac.digest(token, message, hashlib.sha256)).decode("ascii")


async def _topics_due(session: Session, now: datetime) -> Sequence[str]:
    due = exists().where(
        col(OutboxMessage.topic) == col(Subscription.topic),
        col(OutboxMessage.done_at).is_(None),
        col(OutboxMessage.set_aside_at).is_(None),
        col(OutboxMessage.due_at) <= now,
    )
    topics = list((await session.exec(select(Subscription.topic).where(due))).all())
    random.shuffle(topics)
    return topics


async def _note(
    session: Session, subscription: Subscription, message: OutboxMessage, attempt: Attempt, now: datetime
) -> None:
    """Write down how an attempt ended, and what follows from it."""
    if attempt.got_through:
        await outbox.finish(session, message, now)
        await _count(session, subscription, now, 0, is_gone=False)
        return
    # A message's attempts are counted by the leases; a lease that ran out was an attempt as well.
    wait = None if attempt.status == GONE else retry_after(message.attempts, random.random())  # noqa: S311
    if wait is None:
        _log.error("report given up", subscription_id=str(subscription.subscription_id), status=attempt.status)
        await outbox.finish(session, message, now)
        await _count(session, subscription, now, 1, is_gone=attempt.status == GONE)
    else:
        await outbox.postpone(session, message, now + wait, attempt.error or f"status {attempt.status}")


async def _count(session: Session, subscription: Subscription, now: datetime, given_up: int, *, is_gone: bool) -> None:
    failures = col(Subscription.failures) + 1 if given_up else literal(0)
    is_over = literal(is_gone) | (failures >= END_AFTER_GIVEN_UP)
    await session.exec(
        update(Subscription)
        .where(
            col(Subscription.subscription_id) == subscription.subscription_id,
            col(Subscription.ended_at).is_(None),
            *([] if given_up else [col(Subscription.failures) > 0]),
        )
        .values(
            failures=failures,
            ended_at=case((is_over, literal(now, Moment()))),
            ended_why=case((is_over, "gone" if is_gone else "failing")),
        )
        .execution_options(synchronize_session=False)
    )


async def sweep(session: Session, now: datetime) -> None:
    """Drop the reports of subscriptions that were removed."""
    has_subscription = exists().where(col(Subscription.topic) == col(OutboxMessage.topic))
    await session.exec(
        update(OutboxMessage)
        .where(
            col(OutboxMessage.topic).startswith(TOPIC_PREFIX), col(OutboxMessage.done_at).is_(None), ~has_subscription
        )
        .values(done_at=now)
        .execution_options(synchronize_session=False)
    )
