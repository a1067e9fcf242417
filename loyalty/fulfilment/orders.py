"""Orders of mobile data and cash: what a member is owed by way of a provider, and every step on the way."""

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Date,
    Index,
    MetaData,
    Table,
    Text,
    event,
    text,
)
from sqlmodel import Field, SQLModel, col, select

from kit import outbox
from kit.db import Moment, Session
from kit.errors import NotFound
from loyalty.fulfilment.states import OrderState, Teller
from loyalty.ledger import AccountId, Purpose

ORDERS_LISTED_MAX = 200
REASON_CHARACTERS_MAX = 200
REFERENCE_CHARACTERS_MAX = 80
SANDBOX = "sandbox"
_TOPIC_PREFIX = "order."


class OrderKind(StrEnum):
    """What is ordered, and by its value the ledger's asset."""

    DATA = "mb"
    """Mobile data, in megabytes."""
    CASH = "fen"
    """A cash red packet, in fen."""

    @property
    def asset(self) -> str:
        """The ledger's name of what is ordered."""
        return self.value


PROVIDER_OF = {OrderKind.DATA: "carrier", OrderKind.CASH: "cash"}
"""Who fulfils which kind of order."""


class Attention(StrEnum):
    """Why an operator has to look at an order."""

    NO_END = "no_end"
    """It came to no end in three days, or awaits the member longer than the provider may let it."""
    SET_ASIDE = "set_aside"
    """The worker broke on it ten times in a row and has stopped trying."""
    LATE_COMPLETION = "late_completion"
    """The provider delivered what it had refused or reversed."""
    DELIVERED_TWICE = "delivered_twice"
    """It was delivered after all, and so may be the order that replaced it, or its worth was given back."""
    AMOUNT_DIFFERS = "amount_differs"
    """The provider's statement has another amount."""
    STATE_DIFFERS = "state_differs"
    """The provider's statement contradicts what the provider said under the same number."""
    NOT_ON_STATEMENT = "not_on_statement"
    """It was delivered, and the provider's statement does not say so."""


class FulfilmentOrderUnknown(NotFound):
    """There is no such order."""

    code = "FulfilmentOrderUnknown"


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


class Order(SQLModel, table=True):
    """Value on its way to a member. Its id is the provider's name for it too, for ever."""

    __tablename__: ClassVar[str] = "fulfilment_order"
    __table_args__ = (
        CheckConstraint(_one_of("kind", OrderKind), name="kind"),
        CheckConstraint(_one_of("state", OrderState), name="state"),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("(closed_at IS NULL) = (state NOT IN ('completed', 'reversed', 'failed'))", name="closed"),
        # Callbacks and statements name an order by its id alone.
        Index("ix_fulfilment_order_order_id", "order_id"),
        Index(
            "ix_fulfilment_order_open", "provider", "state", "created_at", postgresql_where=text("closed_at IS NULL")
        ),
        Index("ix_fulfilment_order_attention", "attention", postgresql_where=text("attention IS NOT NULL")),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    order_id: uuid.UUID = Field(primary_key=True)
    kind: str = Field(sa_type=Text)
    provider: str = Field(sa_type=Text)
    """Who fulfils it: carrier, cash or sandbox."""
    amount: int = Field(sa_type=BigInteger)
    brand_id: int
    item_key: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    refund_holder_id: uuid.UUID
    refund_purpose: str = Field(sa_type=Text)
    """With the holder: the account that paid, and gets the value back when the order fails."""
    state: str = Field(sa_type=Text)
    seq: int = 0
    """Number of the last step; 0: none yet."""
    revision: int = Field(default=0, sa_type=BigInteger)
    """The provider's number of its last word that was heard; older words change nothing."""
    attempts: int = 0
    """How often the provider was asked."""
    provider_ref: str | None = Field(default=None, sa_type=Text)
    reason: str | None = Field(default=None, sa_type=Text)
    attention: str | None = Field(default=None, sa_type=Text)
    replaces: uuid.UUID | None = None
    """The failed order that this one stands in for."""
    replaced_by: uuid.UUID | None = None
    """What stands in for it since it came to nothing: another order, or the benefit that was taken back for it."""
    created_at: datetime = Field(sa_type=Moment)
    sent_at: datetime | None = Field(default=None, sa_type=Moment)
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    """Until when the member may confirm."""
    closed_at: datetime | None = Field(default=None, sa_type=Moment)

    @property
    def outbox_key(self) -> int:
        """The distribution key of the order's message in the outbox; the message's id is the order's."""
        return outbox.key_of(self.order_id) if self.item_key is None else self.item_key

    def account(self, purpose: Purpose) -> AccountId:
        """The member's account that an order like this one moves value in."""
        return AccountId(self.member_id, OrderKind(self.kind).asset, purpose)

    @property
    def refund_to(self) -> AccountId:
        """The account that paid."""
        return AccountId(self.refund_holder_id, OrderKind(self.kind).asset, Purpose(self.refund_purpose))


class OrderStep(SQLModel, table=True):
    """One change of an order's state, and the transfer that went with it. Append-only."""

    __tablename__: ClassVar[str] = "fulfilment_step"
    __table_args__ = (
        CheckConstraint(_one_of("by", Teller), name="by"),
        Index("ix_fulfilment_step_day", "provider", "day", postgresql_where=text("transfer_id IS NOT NULL")),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    order_id: uuid.UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    from_state: str = Field(sa_type=Text)
    to_state: str = Field(sa_type=Text)
    by: str = Field(sa_type=Text)
    provider: str = Field(sa_type=Text)
    revision: int | None = Field(default=None, sa_type=BigInteger)
    provider_ref: str | None = Field(default=None, sa_type=Text)
    reason: str | None = Field(default=None, sa_type=Text)
    transfer_id: uuid.UUID | None = None
    day: date = Field(sa_type=Date)
    """The provider's day of the change, in China: the statement that has to tell of it."""
    at: datetime = Field(sa_type=Moment)
    """When we heard of it."""


@dataclass(frozen=True)
class NewOrder:
    """An order to be placed. `amount` in megabytes or fen, moved to the member's PENDING account by the caller.

    `refund_to` is the account that paid. `item_key`, if any, keeps the order's message with its item. A sandbox order
    goes to the built-in provider and never leaves the house.
    """

    order_id: uuid.UUID
    member_id: uuid.UUID
    kind: OrderKind
    amount: int
    refund_to: AccountId
    brand_id: int
    item_key: int | None = None
    sandbox: bool = False


def topic_of(provider: str) -> str:
    """The outbox topic of a provider's orders."""
    return _TOPIC_PREFIX + provider


def payload_of(member_id: uuid.UUID, order_id: uuid.UUID) -> dict[str, Any]:
    """What the outbox message of an order says."""
    return {"member_id": str(member_id), "order_id": str(order_id)}


async def place(session: Session, new: NewOrder, now: datetime, replaces: uuid.UUID | None = None) -> Order:
    """Leave an order to the worker; the caller has moved its amount to the member's pending account."""
    order = Order(
        member_id=new.member_id,
        order_id=new.order_id,
        kind=new.kind,
        provider=SANDBOX if new.sandbox else PROVIDER_OF[new.kind],
        amount=new.amount,
        brand_id=new.brand_id,
        item_key=new.item_key,
        refund_holder_id=new.refund_to.holder_id,
        refund_purpose=new.refund_to.purpose,
        state=OrderState.CREATED,
        replaces=replaces,
        created_at=now,
    )
    session.add(order)
    payload = payload_of(new.member_id, new.order_id)
    outbox.put(session, topic_of(order.provider), order.outbox_key, payload, now, message_id=new.order_id)
    await session.flush()
    return order


async def orders_of(session: Session, member_id: uuid.UUID) -> list[Order]:
    """The member's orders, latest first, at most 200."""
    orders = await session.exec(
        select(Order)
        .where(Order.member_id == member_id)
        .order_by(col(Order.created_at).desc(), col(Order.order_id).desc())
        .limit(ORDERS_LISTED_MAX)
    )
    return list(orders)


async def find(session: Session, order_id: uuid.UUID) -> Order:
    """The order of this id, as the database has it now. Raises FulfilmentOrderUnknown."""
    found = await session.exec(
        select(Order).where(Order.order_id == order_id).execution_options(populate_existing=True)
    )
    order = found.first()
    if order is None:
        raise FulfilmentOrderUnknown("there is no order of this id")
    return order


async def steps_of(session: Session, order: Order) -> list[OrderStep]:
    """Every change of the order's state, first to last."""
    steps = await session.exec(
        select(OrderStep)
        .where(OrderStep.member_id == order.member_id, OrderStep.order_id == order.order_id)
        .order_by(col(OrderStep.seq))
    )
    return list(steps)


async def listed(
    session: Session,
    *,
    states: frozenset[OrderState] = frozenset(),
    needing_attention: bool = False,
    count_max: int = ORDERS_LISTED_MAX,
) -> list[Order]:
    """Orders in these states (none named: all), or those that an operator has to look at; oldest first."""
    wanted = select(Order).order_by(col(Order.created_at), col(Order.order_id)).limit(count_max)
    if states:
        wanted = wanted.where(col(Order.state).in_(states))
    if needing_attention:
        wanted = wanted.where(col(Order.attention).is_not(None))
    return list(await session.exec(wanted))


def append_only_ddl(dialect: str) -> list[str]:
    """Statements that make the database itself refuse to change or delete steps. `dialect`: sqlite or postgresql."""
    table = str(OrderStep.__tablename__)
    if dialect == "postgresql":
        return [
            "CREATE OR REPLACE FUNCTION fulfilment_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the steps of an order are append-only'; END $$",
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION fulfilment_refuse_change()",
        ]
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the steps of an order are append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ]


@event.listens_for(SQLModel.metadata, "after_create")
def _make_append_only(_metadata: MetaData, connection: Connection, tables: list[Table], **_given: object) -> None:
    if any(table.name == OrderStep.__tablename__ for table in tables):
        for statement in append_only_ddl(connection.dialect.name):
            connection.exec_driver_sql(statement)
