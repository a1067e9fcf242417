"""Mobile data that members won, ordered from a carrier and settled exactly once.

An order has one id for ever, and the carrier is asked under that id only: what is not known to have arrived is queried,
then sent again under the same id. The worker may die between any two steps; the order's state and a transfer id
derived from the order keep the ledger from settling it twice.
"""

import asyncio
import contextlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Protocol

import httpx2
import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy import BigInteger, CheckConstraint, Column, Text, update
from sqlmodel import Field, SQLModel, col, select

from kit import outbox
from kit.clock import Clock
from kit.db import Database, Moment, Session
from kit.ids import derived_id
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty import ledger, members
from loyalty.ledger import MEGABYTES, AccountId, Leg, Purpose, Transfer

TOPIC = "data-order"
ORDERS_LISTED_MAX = 200
BATCH_ORDERS = 32
"""Orders that a worker takes at once."""
CONCURRENT_REQUESTS_MAX = 8
REQUEST_TIMEOUT_S = 10.0
LEASE = timedelta(minutes=5)
"""A batch is done well within it: two requests an order, eight orders at a time, ten seconds a request."""
BACKOFF_FIRST = timedelta(seconds=2)
BACKOFF_MAX = timedelta(hours=1)
IDLE_WAIT_S = 1.0
"""Time between two looks at an empty outbox."""

_log = structlog.get_logger(__name__)
_chance = secrets.SystemRandom()


class OrderState(StrEnum):
    """How far an order has come."""

    PENDING = "pending"
    """Not yet sent to the carrier."""
    SUBMITTED = "submitted"
    """Sent, perhaps received."""
    SETTLED = "settled"
    FAILED = "failed"


class DataOrder(SQLModel, table=True):
    """Megabytes that a member won, on their way to his phone."""

    __tablename__: ClassVar[str] = "data_order"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'submitted', 'settled', 'failed')", name="state"),
        CheckConstraint("megabytes > 0", name="megabytes"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    order_id: uuid.UUID = Field(primary_key=True)
    item_key: int = Field(sa_column=Column(BigInteger, nullable=False))
    campaign_id: uuid.UUID
    budget_holder_id: uuid.UUID
    """The budget stripe that paid, and gets the megabytes back when the order fails."""
    megabytes: int = Field(sa_type=BigInteger)
    state: str = Field(sa_type=Text)
    attempts: int = 0
    created_at: datetime = Field(sa_type=Moment)
    settled_at: datetime | None = Field(default=None, sa_type=Moment)


class CarrierAnswer(StrEnum):
    """What the carrier says about an order, or that it says nothing."""

    UNDER_WAY = "under_way"
    SETTLED = "settled"
    FAILED = "failed"
    """Refused for good: not a number of this carrier, for example."""
    NEVER_RECEIVED = "never_received"
    NO_ANSWER = "no_answer"
    """Time-out, broken connection, server error, or an answer that makes no sense: the order may have been received."""


class Carrier(Protocol):
    """Sells mobile data. Both calls may be repeated at will: the order id makes them one order."""

    async def submit(self, order_id: uuid.UUID, phone_e164: str, megabytes: int) -> CarrierAnswer: ...

    async def query(self, order_id: uuid.UUID) -> CarrierAnswer: ...


class _OrderAnswer(BaseModel):
    state: str


_ANSWERS = {
    "accepted": CarrierAnswer.UNDER_WAY,
    "pending": CarrierAnswer.UNDER_WAY,
    "settled": CarrierAnswer.SETTLED,
    "failed": CarrierAnswer.FAILED,
}


class HttpCarrier:
    """A carrier behind `PUT /orders/{id}` and `GET /orders/{id}`, both answering {"state": …}."""

    def __init__(self, base_url: str, token: str, client: httpx2.AsyncClient) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = client

    async def submit(self, order_id: uuid.UUID, phone_e164: str, megabytes: int) -> CarrierAnswer:
        return await self._ask("PUT", order_id, {"phone": phone_e164, "megabytes": megabytes})

    async def query(self, order_id: uuid.UUID) -> CarrierAnswer:
        return await self._ask("GET", order_id, None)

    async def _ask(self, method: str, order_id: uuid.UUID, body: dict[str, str | int] | None) -> CarrierAnswer:
        try:
            response = await self._client.request(
                method,
                f"{self._base_url}/orders/{order_id}",
                json=body,
                headers=self._headers,
                timeout=REQUEST_TIMEOUT_S,
            )
        except httpx2.HTTPError as error:
            _log.warning("carrier unreachable", order_id=str(order_id), error=type(error).__name__)
            return CarrierAnswer.NO_ANSWER
        if method == "GET" and response.status_code == httpx2.codes.NOT_FOUND:
            return CarrierAnswer.NEVER_RECEIVED
        try:
            # Only the carrier's own word "failed" returns the budget; a refused token or request is for us to repair.
            response.raise_for_status()
            return _ANSWERS[_OrderAnswer.model_validate_json(response.content).state]
        except (httpx2.HTTPStatusError, ValidationError, KeyError):
            _log.warning("carrier answer not understood", order_id=str(order_id), status=response.status_code)
            return CarrierAnswer.NO_ANSWER


@dataclass(frozen=True)
class _Job:
    message: OutboxMessage
    order: DataOrder
    phone_e164: str | None
    sent_before: bool


async def place(session: Session, order: DataOrder, now: datetime) -> None:
    """Leave an order to the worker; the caller has moved its megabytes to the member's pending account."""
    session.add(order)
    outbox.put(
        session,
        TOPIC,
        order.item_key,
        {"member_id": str(order.member_id), "order_id": str(order.order_id)},
        now,
    )
    await session.flush()


async def orders_of(session: Session, member_id: uuid.UUID) -> list[DataOrder]:
    """The member's orders, latest first, at most 200."""
    orders = await session.exec(
        select(DataOrder)
        .where(DataOrder.member_id == member_id)
        .order_by(col(DataOrder.created_at).desc(), col(DataOrder.order_id).desc())
        .limit(ORDERS_LISTED_MAX)
    )
    return list(orders)


async def work_once(database: Database, vault: Vault, carrier: Carrier, clock: Clock) -> int:
    """Bring every order that is due one step further; the number of orders taken, 0..32.

    No transaction is open while the carrier is asked.
    """
    async with database.writing() as session:
        messages = await outbox.lease(session, TOPIC, clock(), BATCH_ORDERS, LEASE)
    at_once = asyncio.Semaphore(CONCURRENT_REQUESTS_MAX)

    async def bring_on(message: OutboxMessage) -> None:
        async with at_once:
            try:
                async with database.writing() as session:
                    job = await _start(session, vault, message)
                answer = await _ask(carrier, job)
                async with database.writing() as session:
                    await _apply(session, job, answer, clock())
            except Exception:
                # One order that cannot be worked on must not hold up the others; its lease brings it back.
                _log.exception("data order put off", message_id=str(message.message_id))

    await asyncio.gather(*(bring_on(message) for message in messages))
    return len(messages)


async def _start(session: Session, vault: Vault, message: OutboxMessage) -> _Job:
    member_id, order_id = uuid.UUID(message.payload["member_id"]), uuid.UUID(message.payload["order_id"])
    order = await session.get_one(DataOrder, (member_id, order_id))
    sent_before = order.state != OrderState.PENDING
    try:
        phone = await members.phone_of(session, vault, member_id)
    except members.MemberUnknown:
        phone = None
    if phone is not None and not sent_before:
        # Before the request leaves: whoever finds the order after a crash must query it first.
        order.state = OrderState.SUBMITTED
    order.attempts += 1
    return _Job(message, order, phone, sent_before)


async def _ask(carrier: Carrier, job: _Job) -> CarrierAnswer:
    if job.order.state in (OrderState.SETTLED, OrderState.FAILED):
        return CarrierAnswer(job.order.state)
    if job.sent_before:
        answer = await carrier.query(job.order.order_id)
        if answer is not CarrierAnswer.NEVER_RECEIVED:
            return answer
    if job.phone_e164 is None:
        return CarrierAnswer.FAILED
    return await carrier.submit(job.order.order_id, job.phone_e164, job.order.megabytes)


async def _apply(session: Session, job: _Job, answer: CarrierAnswer, now: datetime) -> None:
    if answer in (CarrierAnswer.SETTLED, CarrierAnswer.FAILED):
        await _close(session, job.order, OrderState(answer), now)
        await outbox.finish(session, job.message, now)
    else:
        wait = backoff(job.message.attempts, _chance.random())
        await outbox.postpone(session, job.message, now + wait, answer)


async def _close(session: Session, order: DataOrder, state: OrderState, now: datetime) -> None:
    closed = await session.exec(
        update(DataOrder)
        .where(
            col(DataOrder.member_id) == order.member_id,
            col(DataOrder.order_id) == order.order_id,
            col(DataOrder.state).in_((OrderState.PENDING, OrderState.SUBMITTED)),
        )
        .values(state=state, settled_at=now)
        .returning(col(DataOrder.order_id))
    )
    if closed.first() is None:
        return
    pending = AccountId(order.member_id, MEGABYTES, Purpose.PENDING)
    if state is OrderState.SETTLED:
        goes_to, reason = AccountId(order.member_id, MEGABYTES, Purpose.DELIVERED), "mobile data delivered"
    else:
        goes_to, reason = AccountId(order.budget_holder_id, MEGABYTES, Purpose.BUDGET), "mobile data order failed"
    legs = (Leg(pending, -order.megabytes), Leg(goes_to, order.megabytes))
    # One id for either end: the ledger refuses the second should an order ever be closed both ways.
    await ledger.post(session, Transfer(derived_id("data-order-closed", order.order_id), reason, legs), now)
    _log.info("data order closed", order_id=str(order.order_id), state=state.value, megabytes=order.megabytes)


def backoff(attempts: int, chance: float) -> timedelta:
    """How long to wait after this many attempts: doubling from 2 s to an hour, less up to half by `chance` (0..1).

    Chance keeps orders that failed together from coming back together.
    """
    doublings = min(max(attempts, 1) - 1, 12)  # 2 s doubled that often is past the longest wait
    longest: timedelta = min(BACKOFF_FIRST * 2**doublings, BACKOFF_MAX)
    return longest * (1 - chance / 2)


async def run(database: Database, vault: Vault, carrier: Carrier, clock: Clock, stop: asyncio.Event) -> None:
    """Work until `stop` is set. What goes wrong is logged and tried again; orders wait in the outbox meanwhile."""
    while not stop.is_set():
        try:
            busy = await work_once(database, vault, carrier, clock) == BATCH_ORDERS
        except Exception:
            _log.exception("fulfilment failed, will try again")
            busy = False
        if not busy:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), IDLE_WAIT_S)
