"""What happens in the wake of something, after it: endpoints hear of a claim, and tasks are paid that it was.

Who brings it about leaves one message in his own transaction, and only where somebody cares. Paying a task there and
then would lock a budget after the member's account, which nobody may; see `loyalty.claims`.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlmodel import select

from kit import outbox
from kit.clock import Clock
from kit.db import Database, Session
from kit.outbox import OutboxMessage
from kit.procedures import Kind, Step
from kit.vault import Vault
from loyalty import members, tasks, webhooks
from loyalty.members import Card
from loyalty.tasks import TaskEvent
from loyalty.webhooks import WebhookKind

CLAIMED, DONE = "claim", "task"
TOPICS = (CLAIMED, DONE)
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
                WHERE brand_id = :brand AND kind = 'task' AND event IN ('first_scan', 'join') AND status = 'active')
        """
    ),
)
"""Steps of the claim's procedure that leave the message. Besides these: `item`, `brand`, `now`."""


async def leave(
    session: Session, *, member_id: uuid.UUID, brand_id: int, event: TaskEvent, subject_id: str, now: datetime
) -> None:
    """Have the brand's tasks paid that this event does, after the caller's transaction; see `tasks.happened`."""
    if (await session.exec(select(tasks.offered(brand_id, event)))).one():
        told = {
            "member_id": str(member_id),
            "brand_id": brand_id,
            "event": event.value,
            "subject_id": subject_id,
            "at": now.isoformat(),
        }
        outbox.put(session, DONE, outbox.key_of(member_id), told, now)


async def work_once(database: Database, vault: Vault, clock: Clock) -> int:
    """Tell of what waits; the number of messages taken, 0..100 of each topic."""
    return sum([await _work_once(database, vault, clock, topic) for topic in TOPICS])


async def _work_once(database: Database, vault: Vault, clock: Clock, topic: str) -> int:
    async with database.writing() as session:
        messages = await outbox.lease(session, topic, clock(), BATCH_MESSAGES, LEASE)
    for message in messages:
        try:
            await _tell(database, vault, message, clock())
        except Exception as error:
            _log.exception("news not told, will try again", topic=topic, message_id=str(message.message_id))
            async with database.writing() as session:
                now = clock()
                await outbox.fail(session, message, now + TRIED_AGAIN_AFTER, type(error).__name__, now)
    return len(messages)


async def _tell(database: Database, vault: Vault, message: OutboxMessage, now: datetime) -> None:
    told: dict[str, Any] = message.payload
    member_id, brand_id = uuid.UUID(told["member_id"]), int(told["brand_id"])
    at = datetime.fromisoformat(told["at"])
    if message.topic == CLAIMED:
        events = {TaskEvent.FIRST_SCAN: told["claim_id"]}
        async with database.reading() as session:
            card = await session.get(Card, (member_id, brand_id))
        if card is not None and card.joined_at == at:
            events[TaskEvent.JOIN] = str(brand_id)
    else:
        events = {TaskEvent(told["event"]): told["subject_id"]}
    for event, subject_id in events.items():
        # Paid once, however often it is told: a completion is keyed by what it is for.
        await tasks.happened(
            database, vault, member_id=member_id, brand_id=brand_id, event=event, subject_id=subject_id, at=at, now=now
        )
    async with database.writing() as session:
        if message.topic == CLAIMED:
            await _tell_of_claim(session, member_id, brand_id, told, at, joined=TaskEvent.JOIN in events)
        await outbox.finish(session, message, now)


async def _tell_of_claim(
    session: Session, member_id: uuid.UUID, brand_id: int, told: Mapping[str, Any], at: datetime, *, joined: bool
) -> None:
    """Let the brand's endpoints hear of a claim."""
    claim_id = uuid.UUID(told["claim_id"])
    await webhooks.emit(session, brand_id, WebhookKind.CLAIM_MADE, claim_id, told, at)
    if told["prize"]["kind"] == "benefit":
        given = {"benefit_id": told["prize"]["benefit_id"], "member_id": told["member_id"], "points": 0}
        await webhooks.emit(session, brand_id, WebhookKind.BENEFIT_ISSUED, claim_id, given, at)
    if joined:
        await members.tell_joined(session, member_id, brand_id, at)


async def run(database: Database, vault: Vault, clock: Clock, stop: asyncio.Event) -> None:
    """Work until `stop` is set. What goes wrong is logged and tried again."""
    while not stop.is_set():
        try:
            busy = await work_once(database, vault, clock) >= BATCH_MESSAGES
        except Exception:
            _log.exception("telling news failed, will try again")
            busy = False
        if not busy:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), IDLE_WAIT_S)
