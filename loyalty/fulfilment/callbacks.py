"""What providers tell by themselves: signed, heard once, in any order."""

import hashlib
import hmac
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from pydantic import ValidationError
from sqlalchemy import LargeBinary, Text, delete
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid, NotFound, Unauthenticated
from kit.settings import Settings
from loyalty.fulfilment import orders, steps
from loyalty.fulfilment.orders import PROVIDER_OF, OrderKind
from loyalty.fulfilment.providers import PROVIDERS_WORDS, OrderWord
from loyalty.fulfilment.states import Teller
from loyalty.fulfilment.steps import Outcome, Report

CLOCK_DIFFERENCE_MAX = timedelta(minutes=5)
BODY_BYTES_MAX = 16 * 1024
EVENT_ID_CHARACTERS_MAX = 80
REMEMBERED_FOR = timedelta(days=35)
"""Longer than a provider repeats an event."""
SCHEME = "v1="


class CallbackRefused(Unauthenticated):
    """The request is not signed by the provider, or not now."""

    code = "CallbackRefused"


class CallbackInvalid(Invalid):
    """The request is signed, and does not say what a callback says."""

    code = "CallbackInvalid"


class CallbackReused(Conflict):
    """An event of this id said something else before."""

    code = "CallbackReused"


class ProviderUnknown(NotFound):
    """No provider of this name calls back here."""

    code = "ProviderUnknown"


class CallbackEvent(SQLModel, table=True):
    """An event that was heard, so that it is not heard again."""

    __tablename__: ClassVar[str] = "fulfilment_callback"

    provider: str = Field(primary_key=True, sa_type=Text)
    event_id: str = Field(primary_key=True, sa_type=Text)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    order_id: uuid.UUID
    at: datetime = Field(sa_type=Moment, index=True)


@dataclass(frozen=True)
class SignedCallback:
    """A callback as it came: three headers and the bytes of its body."""

    timestamp: str
    event_id: str
    signature: str
    body: bytes


def secrets_of(settings: Settings) -> dict[str, tuple[str, ...]]:
    """What each provider signs with; one without a secret cannot call back."""
    given = {
        PROVIDER_OF[OrderKind.DATA]: settings.carrier_callback_secret,
        PROVIDER_OF[OrderKind.CASH]: settings.cash_callback_secret,
    }
    split = {provider: tuple(secret.get_secret_value().split()) for provider, secret in given.items()}
    return {provider: secrets for provider, secrets in split.items() if secrets}


def sign(secret: str, timestamp: str, event_id: str, body: bytes) -> str:
    """The signature header: HMAC-SHA-256 (RFC 2104, FIPS 180-4) over timestamp, event id and body, joined by dots."""
    message = b".".join((timestamp.encode(), event_id.encode(), body))
    return SCHEME + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def check(given: SignedCallback, secrets: Sequence[str], now: datetime) -> None:
    """Whether the provider signed this, within five minutes of now. Raises CallbackRefused."""
    refusal = CallbackRefused("this callback is not signed as agreed", hint="docs/loyalty/fulfilment.md says how.")
    if not (given.event_id.isascii() and given.event_id.isprintable() and given.signature.isascii()):
        raise refusal
    if not (given.timestamp.isascii() and given.timestamp.isdigit() and len(given.timestamp) <= 12):
        raise refusal
    wanted = [sign(secret, given.timestamp, given.event_id, given.body) for secret in secrets]
    if not any(hmac.compare_digest(one, given.signature) for one in wanted):
        raise refusal
    # As numbers: twelve digits of seconds reach beyond the last year of a calendar.
    if abs(now.timestamp() - int(given.timestamp)) > CLOCK_DIFFERENCE_MAX.total_seconds():
        raise CallbackRefused("this callback was signed at another time", hint="Sign anew, and set the clock.")


async def hear(session: Session, provider: str, given: SignedCallback, now: datetime) -> Outcome | None:
    """Let a callback, already checked, move its order; None: this event was heard before.

    Raises CallbackInvalid, CallbackReused and FulfilmentOrderUnknown.
    """
    if not 1 <= len(given.event_id) <= EVENT_ID_CHARACTERS_MAX:
        raise CallbackInvalid(f"an event's id has 1 to {EVENT_ID_CHARACTERS_MAX} characters")
    said = _read(given.body)
    order = await orders.find(session, said.order_id)
    if order.provider != provider:
        # Nor does it learn that somebody else has such an order.
        raise orders.FulfilmentOrderUnknown("there is no order of this id")
    if not await _is_new(session, provider, given, said.order_id, now):
        return None
    report = Report(PROVIDERS_WORDS[said.state], Teller.CALLBACK, said.revision, said.at, said.reference, said.reason)
    return await steps.take(session, order.member_id, order.order_id, report, now)


def _read(body: bytes) -> OrderWord:
    try:
        if len(body) > BODY_BYTES_MAX:
            raise ValueError
        said = OrderWord.model_validate_json(body)
        if said.state not in PROVIDERS_WORDS:
            raise ValueError
    except (ValidationError, ValueError):
        raise CallbackInvalid(
            "the body is not an order's state", hint="docs/loyalty/fulfilment.md has an example."
        ) from None
    return said


async def _is_new(session: Session, provider: str, given: SignedCallback, order_id: uuid.UUID, now: datetime) -> bool:
    fingerprint = hashlib.sha256(given.body).digest()
    heard = await session.exec(
        insert(session, CallbackEvent)
        .values(provider=provider, event_id=given.event_id, fingerprint=fingerprint, order_id=order_id, at=now)
        .on_conflict_do_nothing()
        .returning(col(CallbackEvent.event_id))
    )
    if heard.first() is not None:
        return True
    known = await session.exec(
        select(CallbackEvent.fingerprint).where(
            CallbackEvent.provider == provider, CallbackEvent.event_id == given.event_id
        )
    )
    if known.one() != fingerprint:
        raise CallbackReused("an event of this id said something else before", hint="Give each event an id of its own.")
    return False


async def forget(session: Session, now: datetime) -> None:
    """Forget events that no provider repeats any more."""
    await session.exec(delete(CallbackEvent).where(col(CallbackEvent.at) < now - REMEMBERED_FOR))
