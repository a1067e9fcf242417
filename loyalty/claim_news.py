"""What a claim brings in its wake, after it: the brand's endpoints hear of it, and tasks that a scan does are paid.

The claim leaves one message, and only where somebody cares; see `loyalty.claims`.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from kit import outbox
from kit.clock import Clock
from kit.db import Database, Session
from kit.outbox import OutboxMessage
from kit.procedures import Kind, Step
from kit.vault import Vault
from loyalty import tasks, webhooks
from loyalty.tasks import TaskEvent
from loyalty.webhooks import WebhookKind

TOPIC = "claim"
BATCH_MESSAGES = 100
LEASE = timedelta(minutes=1)
TRIED_AGAIN_AFTER = timedelta(minutes=1)
IDLE_WAIT_S = 1.0

_log = structlog.get_logger(__name__)

LEAVING_PARAMETERS: Mapping[str, Kind] = {"news": Kind.JSON, "news_id": Kind.UUID, "news_topic": Kind.TEXT}
LEAVING = (
    Step(
        """
        INSERT INTO outbox (item_key, message_id, topic, payload, attempts, failures, due_at)
        SELECT :item, :news_id, :news_topic, :news, 0, 0, :now
        WHERE EXISTS (SELECT 1 FROM webhook_endpoint WHERE brand_id = :brand AND disabled_at IS NULL)
            OR EXISTS (SELECT 1 FROM earning_program
                WHERE brand_id = :brand AND kind = 'task' AND event = 'first_scan' AND status = 'active')
        """
    ),
)
"""Steps of the claim's procedure that leave the message. Besides these: `item`, `brand`, `now`."""


async def work_once(database: Database, vault: Vault, clock: Clock) -> int:
    """Tell of the claims that wait; the number of messages taken, 0..100."""
    async with database.writing() as session:
        messages = await outbox.lease(session, TOPIC, clock(), BATCH_MESSAGES, LEASE)
    for message in messages:
        try:
            async with database.writing() as session:
                await _tell(session, vault, message, clock())
        except Exception as error:
            _log.exception("claim not told of, will try again", message_id=str(message.message_id))
            async with database.writing() as session:
                now = clock()
                await outbox.fail(session, message, now + TRIED_AGAIN_AFTER, type(error).__name__, now)
    return len(messages)


async def _tell(session: Session, vault: Vault, message: OutboxMessage, now: datetime) -> None:
    told: dict[str, Any] = message.payload
    member_id, brand_id, claim_id = uuid.UUID(told["member_id"]), int(told["brand_id"]), uuid.UUID(told["claim_id"])
    at = datetime.fromisoformat(told["at"])
    await webhooks.emit(session, brand_id, WebhookKind.CLAIM_MADE, claim_id, told, at)
    if told["prize"]["kind"] == "benefit":
        given = {"benefit_id": told["prize"]["benefit_id"], "member_id": told["member_id"], "points": 0}
        await webhooks.emit(session, brand_id, WebhookKind.BENEFIT_ISSUED, claim_id, given, at)
    # Paid once: a completion is keyed by what it is for.
    await tasks.happened(
        session,
        vault,
        member_id=member_id,
        brand_id=brand_id,
        event=TaskEvent.FIRST_SCAN,
        subject_id=str(claim_id),
        now=now,
    )
    await outbox.finish(session, message, now)


async def run(database: Database, vault: Vault, clock: Clock, stop: asyncio.Event) -> None:
    """Work until `stop` is set. What goes wrong is logged and tried again."""
    while not stop.is_set():
        try:
            busy = await work_once(database, vault, clock) == BATCH_MESSAGES
        except Exception:
            _log.exception("telling of claims failed, will try again")
            busy = False
        if not busy:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), IDLE_WAIT_S)
