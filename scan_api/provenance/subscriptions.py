"""Subscriptions to named queries: events told as they come, or at times of a schedule (EPCIS 2.0, 8.2.5.2, 12.8).

A subscription stands at a position of `arrivals`. A report and the new position are written in one transaction, so that
no event is lost or told in two reports; `report_sender` sends a report until it gets through, under an id that stays.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Index, LargeBinary, Text, delete, func
from sqlmodel import Field, SQLModel, col, select

from kit.clock import iso
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id
from kit.vault import Vault
from scan_api.provenance import arrivals
from scan_api.provenance.schedules import Schedule

SUBSCRIPTIONS_PER_BRAND_MAX: Final = 100
TOKEN_CHARACTERS_MAX: Final = 200
URL_CHARACTERS_MAX: Final = 500
TOPIC_PREFIX: Final = "epcis-report/"


class SubscriptionInvalid(Invalid):
    """This cannot be subscribed to so (`SubscriptionControlsException`)."""

    code = "SubscriptionInvalid"
    problem_type = "epcisException:SubscriptionControlsException"


class SubscriptionUnknown(NotFound):
    """The query has no such subscription (`NoSuchNameException`)."""

    code = "SubscriptionUnknown"
    problem_type = "epcisException:NoSuchSubscriptionException"


class TooManySubscriptions(Conflict):
    """The brand has as many subscriptions as it may have."""

    code = "TooManySubscriptions"


class Subscription(SQLModel, table=True):
    """Whom a query's events are told to, when, and how far that has come."""

    __tablename__: ClassVar[str] = "event_subscription"
    __table_args__ = (
        CheckConstraint("(schedule IS NULL) = (due_at IS NULL)", name="schedule"),
        CheckConstraint("ended_why IN ('failing', 'gone', 'closed')", name="ended_why"),
        CheckConstraint("(ended_at IS NULL) = (ended_why IS NULL)", name="ended"),
        CheckConstraint("(holder_id IS NULL) = (key_id IS NULL)", name="holder"),
        Index("ix_event_subscription_brand_id_query_name", "brand_id", "query_name"),
        Index("ix_event_subscription_holder_id", "holder_id"),
    )

    subscription_id: uuid.UUID = Field(primary_key=True)
    brand_id: int
    query_name: str = Field(sa_type=Text)
    dest: str = Field(sa_type=Text)
    topic: str = Field(sa_type=Text)
    """Of its reports in the outbox."""
    token_sealed: bytes | None = Field(default=None, sa_type=LargeBinary)
    """What reports are signed with, `signatureToken`; None: they are not signed."""
    schedule: dict[str, str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    report_if_empty: bool = False
    initial_record_time: datetime = Field(sa_type=Moment)
    created_at: datetime = Field(sa_type=Moment)
    position: int = Field(sa_column=Column(BigInteger, nullable=False))
    """Up to which arrival its reports have come."""
    has_told: bool = False
    """Whether the run of the schedule that is under way has made a report."""
    due_at: datetime | None = Field(default=None, sa_type=Moment)
    """When its schedule comes round next."""
    reported_at: datetime | None = Field(default=None, sa_type=Moment)
    failures: int = 0
    """Reports given up since the last that got through."""
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    ended_why: str | None = Field(default=None, sa_type=Text)
    """"closed": its holder's account or key ended."""
    holder_id: uuid.UUID | None = None
    """Of a regulator, whose subscription it is; then its events are of all brands, and `brand_id` is 0."""
    key_id: str | None = Field(default=None, sa_type=Text)
    """The key that a regulator subscribed with, which bounds what he is told."""
    query: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """What a regulator asks for, as a named query's parameters."""
    purpose: str | None = Field(default=None, sa_type=Text)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: events as they come (`schedule` None), or at times."""

    dest: str
    token: str | None
    schedule: Schedule | None
    report_if_empty: bool
    initial_record_time: datetime | None


async def add(
    session: Session, vault: Vault, brand_id: int, query_name: str, asked: Asked, now: datetime
) -> Subscription:
    """A new subscription, from `initial_record_time` on, or from now. The address was checked by `web_targets`.

    Raises TooManySubscriptions, SubscriptionInvalid.
    """
    held = await session.exec(select(func.count()).select_from(Subscription).where(Subscription.brand_id == brand_id))
    if held.one() >= SUBSCRIPTIONS_PER_BRAND_MAX:
        raise TooManySubscriptions(f"a brand has at most {SUBSCRIPTIONS_PER_BRAND_MAX} subscriptions")
    due_at = asked.schedule.after(now) if asked.schedule is not None else None
    if asked.schedule is not None and due_at is None:
        raise SubscriptionInvalid("this schedule never comes round")
    subscription_id = new_id()
    begins_now = asked.initial_record_time is None or asked.initial_record_time >= now
    made = Subscription(
        subscription_id=subscription_id,
        brand_id=brand_id,
        query_name=query_name,
        dest=asked.dest,
        topic=f"{TOPIC_PREFIX}{subscription_id}",
        token_sealed=vault.seal(asked.token.encode(), seal_context(subscription_id)) if asked.token else None,
        schedule=asked.schedule.as_given() if asked.schedule is not None else None,
        report_if_empty=asked.report_if_empty,
        initial_record_time=asked.initial_record_time or now,
        created_at=now,
        position=await arrivals.last_position(session) if begins_now else 0,
        due_at=due_at,
    )
    session.add(made)
    await session.flush()
    return made


def seal_context(subscription_id: uuid.UUID) -> bytes:
    """What a subscription's sealed token is bound to."""
    return b"epcis subscription " + subscription_id.bytes


async def of_query(session: Session, brand_id: int, query_name: str) -> Sequence[Subscription]:
    """A query's subscriptions, oldest first."""
    rows = await session.exec(
        select(Subscription)
        .where(Subscription.brand_id == brand_id, Subscription.query_name == query_name)
        .order_by(col(Subscription.created_at), col(Subscription.subscription_id))
    )
    return rows.all()


async def find(session: Session, brand_id: int, query_name: str, subscription_id: uuid.UUID) -> Subscription:
    """A subscription of a query. Raises SubscriptionUnknown, also for another brand's."""
    found = await session.get(Subscription, subscription_id)
    if found is None or (found.brand_id, found.query_name) != (brand_id, query_name):
        raise SubscriptionUnknown("there is no such subscription")
    return found


async def remove(session: Session, brand_id: int, query_name: str, subscription_id: uuid.UUID | None) -> None:
    """End a subscription, or all of a query (None); reports that wait are dropped by the sender."""
    statement = delete(Subscription).where(
        col(Subscription.brand_id) == brand_id, col(Subscription.query_name) == query_name
    )
    if subscription_id is not None:
        statement = statement.where(col(Subscription.subscription_id) == subscription_id)
    await session.exec(statement)


def shown(subscription: Subscription) -> Mapping[str, Any]:
    """A subscription as JSON, without its token (EPCIS 2.0, REST binding)."""
    timing: dict[str, Any] = (
        {"stream": True} if subscription.schedule is None else {"schedule": dict(subscription.schedule)}
    )
    body = {
        "subscriptionID": str(subscription.subscription_id),
        "queryName": subscription.query_name,
        "dest": subscription.dest,
        **timing,
        "reportIfEmpty": subscription.report_if_empty,
        "initialRecordTime": iso(subscription.initial_record_time),
        "createdAt": iso(subscription.created_at),
    }
    if subscription.ended_at is not None:
        body |= {"endedAt": iso(subscription.ended_at), "endedWhy": subscription.ended_why}
    return body
