"""Webhooks: what happened, told to a brand's own systems over HTTP, signed, at least once (Standard Webhooks, 1.0.0).

`emit` leaves an outbox message in the transaction in which the thing happens; `loyalty.webhook_worker` sends it. Each
endpoint has an outbox topic of its own, so that a slow receiver holds up nobody else's messages.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

from sqlalchemy import JSON, CheckConstraint, Column, Engine, Index, LargeBinary, Text, event, func, update
from sqlmodel import Field, SQLModel, col, select

from kit import outbox, paging
from kit.clock import iso
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id
from kit.paging import Position
from kit.vault import Vault

ENDPOINTS_PER_BRAND_MAX: Final = 10
URL_CHARACTERS_MAX: Final = 500
BODY_BYTES_MAX: Final = 16 * 1024
SECRET_BYTES: Final = 32
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the form of a secret, none itself
ROTATION_OVERLAP: Final = timedelta(hours=24)
"""So long both secrets sign, after a rotation."""
LISTENERS_CACHED_S: Final = 5.0
"""Other processes hear of a new endpoint within this time."""
TOPIC_PREFIX: Final = "webhook/"


class WebhookInvalid(Invalid):
    code = "WebhookInvalid"


class WebhookUnknown(NotFound):
    code = "WebhookUnknown"


class TooManyWebhooks(Conflict):
    code = "TooManyWebhooks"


class WebhookDisabled(Conflict):
    code = "WebhookDisabled"


class WebhookKind(StrEnum):
    """What can be heard of. `webhook.ping` is a test, sent when asked for."""

    MEMBER_JOINED = "member.joined"
    MEMBER_ERASED = "member.erased"
    PURCHASE_RECORDED = "purchase.recorded"
    PURCHASE_REFUNDED = "purchase.refunded"
    TIER_CHANGED = "tier.changed"
    BENEFIT_ISSUED = "benefit.issued"
    BENEFIT_REDEEMED = "benefit.redeemed"
    BENEFIT_EXPIRED = "benefit.expired"
    ORDER_COMPLETED = "order.completed"
    ORDER_REVERSED = "order.reversed"
    ORDER_FAILED = "order.failed"
    CLAIM_MADE = "claim.made"
    DRAW_PLAYED = "draw.played"
    RECALL_ORDERED = "recall.ordered"
    RECALL_WITHDRAWN = "recall.withdrawn"
    PING = "webhook.ping"


class DeliveryState(StrEnum):
    """Where one message to one endpoint stands."""

    WAITING = "waiting"  # tried, and to be tried again
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class Disabled(StrEnum):
    """Why an endpoint hears nothing more."""

    BY_HAND = "by hand"
    FAILING = "failing"  # so often and so long that nobody seems to be there
    GONE = "gone"  # it answered 410 (RFC 9110, 15.5.11)


class WebhookEndpoint(SQLModel, table=True):
    """A receiver of one brand. Its secrets are sealed by the vault; they sign and must be readable for that."""

    __tablename__: ClassVar[str] = "webhook_endpoint"
    __table_args__ = (
        CheckConstraint("disabled_why IN ('by hand', 'failing', 'gone')", name="disabled_why"),
        CheckConstraint("(disabled_at IS NULL) = (disabled_why IS NULL)", name="disabled"),
        CheckConstraint("(previous_sealed IS NULL) = (previous_until IS NULL)", name="previous"),
        CheckConstraint("failures >= 0", name="failures"),
    )

    endpoint_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(index=True)
    brand_slug: str = Field(sa_type=Text)
    url: str = Field(sa_type=Text)
    kinds: list[str] = Field(sa_column=Column(JSON, nullable=False))
    topic: str = Field(sa_type=Text)
    secret_sealed: bytes = Field(sa_type=LargeBinary)
    previous_sealed: bytes | None = Field(default=None, sa_type=LargeBinary)
    previous_until: datetime | None = Field(default=None, sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)
    failures: int = 0
    """Failed attempts since the last that got through."""
    failing_since: datetime | None = Field(default=None, sa_type=Moment)
    disabled_at: datetime | None = Field(default=None, sa_type=Moment)
    disabled_why: str | None = Field(default=None, sa_type=Text)


class WebhookDelivery(SQLModel, table=True):
    """What became of one message to one endpoint, from its first attempt on. The body is kept to be sent again."""

    __tablename__: ClassVar[str] = "webhook_delivery"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'delivered', 'given_up')", name="state"),
        CheckConstraint("last_status BETWEEN 100 AND 999", name="last_status"),
        Index("ix_webhook_delivery_newest", "endpoint_id", "at", "event_id"),
    )

    endpoint_id: uuid.UUID = Field(primary_key=True)
    event_id: uuid.UUID = Field(primary_key=True)
    kind: str = Field(sa_type=Text)
    body: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)
    state: str = Field(sa_type=Text)
    attempts: int
    last_attempt_at: datetime = Field(sa_type=Moment)
    last_status: int | None = None
    last_error: str | None = Field(default=None, sa_type=Text)
    next_attempt_at: datetime | None = Field(default=None, sa_type=Moment)


@dataclass(frozen=True, slots=True)
class _Listener:
    endpoint_id: uuid.UUID
    topic: str
    brand_slug: str


_Listeners = Mapping[tuple[int, str], Sequence[_Listener]]
# By the engine: one process may serve several databases, as tests do.
_cached: WeakKeyDictionary[Engine, tuple[float, _Listeners]] = WeakKeyDictionary()


async def emit(
    session: Session, brand_id: int, kind: WebhookKind, subject_id: uuid.UUID, data: Mapping[str, Any], now: datetime
) -> None:
    """Tell the brand's endpoints for this kind, once the caller's transaction commits; without one, nothing happens.

    `data` is JSON with ids and amounts, never phone numbers or codes. Who listens is remembered for 5 s in each
    process, so an event costs no statement where nobody does: one look at a small table in 5 s, not one a claim.
    """
    for listener in (await _listeners(session)).get((brand_id, kind), ()):
        _put(session, listener, kind, subject_id, data, now)


def _put(
    session: Session,
    listener: _Listener,
    kind: WebhookKind,
    subject_id: uuid.UUID,
    data: Mapping[str, Any],
    now: datetime,
) -> uuid.UUID:
    event_id = new_id()
    content = {
        "type": kind.value,
        "id": str(event_id),
        "at": iso(now),
        "brand": listener.brand_slug,
        "subject_id": str(subject_id),
        "data": dict(data),
    }
    # As text: every attempt must sign the same bytes, and a database may order a document's members anew.
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    assert len(body.encode()) <= BODY_BYTES_MAX, "a webhook's data holds ids and amounts"
    put_again(session, listener.endpoint_id, listener.topic, event_id, kind.value, body, now)
    return event_id


def put_again(
    session: Session, endpoint_id: uuid.UUID, topic: str, event_id: uuid.UUID, kind: str, body: str, now: datetime
) -> None:
    """Leave a message to be sent under the id that it has."""
    payload = {
        "endpoint_id": str(endpoint_id),
        "event_id": str(event_id),
        "kind": kind,
        "body": body,
        "at": now.isoformat(),
    }
    outbox.put(session, topic, outbox.key_of(event_id), payload, now)


async def _listeners(session: Session) -> _Listeners:
    engine = session.get_bind().engine
    known = _cached.get(engine)
    if known is not None and time.monotonic() - known[0] < LISTENERS_CACHED_S:
        return known[1]
    found: dict[tuple[int, str], list[_Listener]] = {}
    for row in await session.exec(select(WebhookEndpoint).where(col(WebhookEndpoint.disabled_at).is_(None))):
        for kind in row.kinds:
            listener = _Listener(row.endpoint_id, row.topic, row.brand_slug)
            found.setdefault((row.brand_id, kind), []).append(listener)
    _cached[engine] = time.monotonic(), found
    return found


def _forget_listeners(session: Session) -> None:
    # Now, for this transaction; and once it has committed, since another may have looked meanwhile.
    _cached.clear()
    event.listen(session.sync_session, "after_commit", lambda _session: _cached.clear(), once=True)


async def add(
    session: Session,
    vault: Vault,
    brand_id: int,
    brand_slug: str,
    url: str,
    kinds: Collection[WebhookKind],
    now: datetime,
) -> tuple[WebhookEndpoint, str]:
    """A new endpoint and its secret, which is never shown again. The URL was checked by `web_targets.check_url`.

    Raises WebhookInvalid, and TooManyWebhooks (10 a brand).
    """
    if not kinds or WebhookKind.PING in kinds:
        raise WebhookInvalid(
            "name at least one kind of events", hint=", ".join(kind for kind in WebhookKind if kind != WebhookKind.PING)
        )
    # Two that are added at once may make one too many, which harms nobody: the limit keeps the list short.
    held = await session.exec(
        select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.brand_id == brand_id)
    )
    if held.one() >= ENDPOINTS_PER_BRAND_MAX:
        raise TooManyWebhooks(
            f"a brand has at most {ENDPOINTS_PER_BRAND_MAX} webhooks", hint="Remove one that is disabled."
        )
    endpoint_id, secret = new_id(), secrets.token_bytes(SECRET_BYTES)
    endpoint = WebhookEndpoint(
        endpoint_id=endpoint_id,
        brand_id=brand_id,
        brand_slug=brand_slug,
        url=url,
        kinds=sorted(kind.value for kind in kinds),
        topic=f"{TOPIC_PREFIX}{endpoint_id}",
        secret_sealed=vault.seal(secret, _context(endpoint_id)),
        created_at=now,
    )
    session.add(endpoint)
    await session.flush()
    _forget_listeners(session)
    return endpoint, _written(secret)


async def rotate(session: Session, vault: Vault, endpoint_id: uuid.UUID, now: datetime) -> tuple[datetime, str]:
    """A new secret; the one before signs beside it for 24 hours. Returns till when, and the new one, shown once.

    Raises WebhookUnknown.
    """
    secret, until = secrets.token_bytes(SECRET_BYTES), now + ROTATION_OVERLAP
    changed = await session.exec(
        update(WebhookEndpoint)
        .where(col(WebhookEndpoint.endpoint_id) == endpoint_id)
        .values(
            previous_sealed=WebhookEndpoint.secret_sealed,
            previous_until=until,
            secret_sealed=vault.seal(secret, _context(endpoint_id)),
        )
        .returning(col(WebhookEndpoint.endpoint_id))
        .execution_options(synchronize_session=False)
    )
    if changed.first() is None:
        raise _unknown()
    return until, _written(secret)


async def disable(session: Session, endpoint_id: uuid.UUID, why: Disabled, now: datetime) -> None:
    """Send nothing more, from now on: what waits is given up when its time comes, and can be sent again later."""
    await session.exec(
        update(WebhookEndpoint)
        .where(col(WebhookEndpoint.endpoint_id) == endpoint_id, col(WebhookEndpoint.disabled_at).is_(None))
        .values(disabled_at=now, disabled_why=why.value)
    )
    _forget_listeners(session)


async def enable(session: Session, endpoint_id: uuid.UUID) -> None:
    """Send again what happens from now on."""
    await session.exec(
        update(WebhookEndpoint)
        .where(col(WebhookEndpoint.endpoint_id) == endpoint_id)
        .values(disabled_at=None, disabled_why=None, failures=0, failing_since=None)
    )
    _forget_listeners(session)


async def ping(session: Session, endpoint: WebhookEndpoint, now: datetime) -> uuid.UUID:
    """Send a test to one endpoint, whatever it listens to; the event's id. Raises WebhookDisabled."""
    _require_enabled(endpoint)
    listener = _Listener(endpoint.endpoint_id, endpoint.topic, endpoint.brand_slug)
    return _put(session, listener, WebhookKind.PING, endpoint.endpoint_id, {}, now)


async def resend(session: Session, endpoint: WebhookEndpoint, event_id: uuid.UUID, now: datetime) -> WebhookDelivery:
    """Send a message again under its id, however it ended. Raises WebhookUnknown and WebhookDisabled."""
    _require_enabled(endpoint)
    delivery = await session.get(WebhookDelivery, (endpoint.endpoint_id, event_id))
    if delivery is None:
        raise WebhookUnknown("this endpoint was sent no such event", hint="Its deliveries are kept for 30 days.")
    put_again(session, endpoint.endpoint_id, endpoint.topic, event_id, delivery.kind, delivery.body, now)
    return delivery


async def endpoints_of(session: Session, brand_id: int) -> list[WebhookEndpoint]:
    """A brand's endpoints, oldest first."""
    found = await session.exec(
        select(WebhookEndpoint)
        .where(WebhookEndpoint.brand_id == brand_id)
        .order_by(col(WebhookEndpoint.created_at), col(WebhookEndpoint.endpoint_id))
    )
    return list(found)


async def endpoint_of(session: Session, brand_id: int, endpoint_id: uuid.UUID) -> WebhookEndpoint:
    """A brand's own endpoint. Raises WebhookUnknown, also for another brand's."""
    endpoint = await session.get(WebhookEndpoint, endpoint_id)
    if endpoint is None or endpoint.brand_id != brand_id:
        raise _unknown()
    return endpoint


async def remove(session: Session, endpoint_id: uuid.UUID) -> None:
    """Forget an endpoint. What waits for it is dropped; its deliveries are forgotten with time."""
    endpoint = await session.get(WebhookEndpoint, endpoint_id)
    if endpoint is not None:
        await session.delete(endpoint)
        await session.flush()
        _forget_listeners(session)


async def deliveries_of(
    session: Session, endpoint_id: uuid.UUID, after: Position | None, count: int
) -> list[WebhookDelivery]:
    """An endpoint's messages that were tried, newest first."""
    statement = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    page = paging.newest_first(statement, col(WebhookDelivery.at), col(WebhookDelivery.event_id), after, count)
    return list((await session.exec(page)).all())


def signature(
    vault: Vault, endpoint: WebhookEndpoint, event_id: uuid.UUID, timestamp_s: int, body: bytes, now: datetime
) -> str:
    """The header webhook-signature: `v1,BASE64` of HMAC-SHA-256 over `id.timestamp.body`, for each valid secret."""
    sealed = [endpoint.secret_sealed]
    if endpoint.previous_sealed is not None and endpoint.previous_until is not None and now < endpoint.previous_until:
        sealed.append(endpoint.previous_sealed)
    message = f"{event_id}.{timestamp_s}.".encode() + body
    context = _context(endpoint.endpoint_id)
    digests = [hmac.digest(vault.unseal(one, context), message, hashlib.sha256) for one in sealed]
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)


def _context(endpoint_id: uuid.UUID) -> bytes:
    return b"webhook secret " + endpoint_id.bytes


def _written(secret: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(secret).decode("ascii")


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.disabled_at is not None:
        raise WebhookDisabled("this webhook is disabled", hint="Enable it first.")


def _unknown() -> WebhookUnknown:
    return WebhookUnknown("this brand has no such webhook", hint="The list of its webhooks shows their ids.")
