"""Regulators' subscriptions: events within their scope posted to them as they come, signed, until they get through.

They are rows beside the brands' own (`provenance.subscriptions`), and `provenance.report_sender` posts their reports.
A report is recorded as a look in the transaction that makes it. What the scope is by then is asked when a report is
made and again at each attempt to post it: when key or account have ended, nothing leaves any more.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, func
from sqlmodel import col, select

from kit.clock import Clock, iso
from kit.db import Session
from kit.ids import new_id
from kit.vault import Vault
from scan_api.provenance import arrivals, named_queries
from scan_api.provenance.event_query import EventQuery
from scan_api.provenance.named_queries import DEFINITION_BYTES_MAX
from scan_api.provenance.report_sender import Telling
from scan_api.provenance.repository import EpcisEvent
from scan_api.provenance.subscriptions import (
    TOPIC_PREFIX,
    Subscription,
    SubscriptionInvalid,
    SubscriptionUnknown,
    TooManySubscriptions,
    seal_context,
)
from scan_api.regulators import accesses, accounts, sights
from scan_api.regulators.accounts import Regulator
from scan_api.regulators.sights import Reach

SUBSCRIPTIONS_PER_REGULATOR_MAX: Final = 20
NO_BRAND: Final = 0
KEYS_ASKED_AT_ONCE_MAX: Final = 500
_QUERY_NAME: Final = "SimpleEventQuery"


async def add(
    session: Session,
    vault: Vault,
    regulator: Regulator,
    dest: str,
    token: str,
    query: Mapping[str, Any],
    purpose: str | None,
    now: datetime,
) -> Subscription:
    """A new subscription from now on, to all that is seen or what of it `query` asks for (`named_queries.query_of`).

    The address was checked by `web_targets`. Raises QueryParameterInvalid, SubscriptionInvalid, TooManySubscriptions.
    """
    query = _kept(query)
    _asked(query)
    if len(json.dumps(query).encode()) > DEFINITION_BYTES_MAX:
        raise SubscriptionInvalid(f"a query has at most {DEFINITION_BYTES_MAX // 1024} KiB")
    if not (token.isascii() and token.isprintable()):
        raise SubscriptionInvalid("a signature token is printable ASCII")
    held = select(func.count()).where(Subscription.holder_id == regulator.holder_id)
    if (await session.exec(held)).one() >= SUBSCRIPTIONS_PER_REGULATOR_MAX:
        raise TooManySubscriptions(
            f"an account has at most {SUBSCRIPTIONS_PER_REGULATOR_MAX} subscriptions", hint="Delete one."
        )
    subscription_id = new_id()
    made = Subscription(
        subscription_id=subscription_id,
        brand_id=NO_BRAND,
        query_name=_QUERY_NAME,
        dest=dest,
        topic=f"{TOPIC_PREFIX}{subscription_id}",
        token_sealed=vault.seal(token.encode(), seal_context(subscription_id)),
        initial_record_time=now,
        created_at=now,
        position=await arrivals.last_position(session),
        holder_id=regulator.holder_id,
        key_id=regulator.key.key_id,
        query=dict(query),
        purpose=purpose,
    )
    session.add(made)
    await session.flush()
    return made


def _reached(regulator: Regulator) -> ColumnElement[bool]:
    return and_(
        col(Subscription.holder_id) == regulator.holder_id,
        regulator.asked_with(func.coalesce(col(Subscription.key_id), "")),
    )


async def of_holder(session: Session, regulator: Regulator) -> Sequence[Subscription]:
    """A regulator's subscriptions that his key reaches, oldest first, those that ended among them."""
    rows = await session.exec(
        select(Subscription)
        .where(_reached(regulator))
        .order_by(col(Subscription.created_at), col(Subscription.subscription_id))
    )
    return rows.all()


async def remove(session: Session, regulator: Regulator, subscription_id: uuid.UUID) -> None:
    """End a subscription; reports that wait are dropped. Raises SubscriptionUnknown, also for another's."""
    removed = await session.exec(
        delete(Subscription)
        .where(col(Subscription.subscription_id) == subscription_id, _reached(regulator))
        .returning(col(Subscription.subscription_id))
    )
    if removed.first() is None:
        raise SubscriptionUnknown("there is no such subscription")


def shown(subscription: Subscription) -> dict[str, Any]:
    """A subscription as JSON, without its token."""
    return {
        "subscription_id": str(subscription.subscription_id),
        "dest": subscription.dest,
        "query": subscription.query or {},
        "purpose": subscription.purpose,
        "key_id": subscription.key_id,
        "created_at": iso(subscription.created_at),
        "ended_at": iso(subscription.ended_at) if subscription.ended_at else None,
        "ended_why": subscription.ended_why,
    }


def query_of(subscription: Subscription) -> EventQuery:
    """What a subscription asks for."""
    return _asked(subscription.query or {})


def _kept(query: Mapping[str, Any]) -> dict[str, Any]:
    """A query as it is kept: what is asked for by code texts, by their one names, which hold no signatures."""
    kept: dict[str, Any] = {}
    for name, value in query.items():
        if isinstance(value, list):
            kept[name] = [accesses.named(name, one) if isinstance(one, str) else one for one in value]
        else:
            kept[name] = accesses.named(name, value) if isinstance(value, str) else value
    return kept


def _asked(query: Mapping[str, Any]) -> EventQuery:
    """A report has its own order and size, so limits of the query are none of its."""
    return replace(named_queries.query_of(query), count_limit=None, count_max=None)


def telling(clock: Clock) -> Telling:
    """What `report_sender` asks before it posts: of a regulator's report, what the scope still sees."""

    async def seen(
        session: Session, subscription: Subscription, keys: Sequence[uuid.UUID]
    ) -> Sequence[uuid.UUID] | None:
        if subscription.key_id is None:
            return keys
        regulator = await accounts.with_key(session, subscription.key_id, clock())
        if regulator is None:
            return None
        return await _within(session, await sights.reach_of(session, regulator.scope), keys) if keys else keys

    return seen


async def _within(session: Session, reach: Reach, keys: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Those of these events that are seen, in their order."""
    rows = select(EpcisEvent.brand_id).where(col(EpcisEvent.event_key).in_(keys[:KEYS_ASKED_AT_ONCE_MAX])).distinct()
    seen: set[uuid.UUID] = set()
    for brand_id in (await session.exec(rows)).all():
        asked = select(EpcisEvent.event_key).where(
            col(EpcisEvent.event_key).in_(keys[:KEYS_ASKED_AT_ONCE_MAX]), sights.event_condition(reach, brand_id)
        )
        seen |= set(await session.exec(asked))
    return [key for key in keys if key in seen]
