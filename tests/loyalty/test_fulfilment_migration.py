"""The data orders of the first release become orders like any other, with their work still to be done."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select

import migrations
from kit.db import Database
from kit.outbox import OutboxMessage
from loyalty.fulfilment import Order

MEMBER, CAMPAIGN, STRIPE = (uuid.UUID(int=number) for number in (1, 2, 3))
ENDS = {"pending": None, "submitted": None, "settled": "now", "failed": "now"}


def _until(revision: str) -> Callable[[Connection], None]:
    def upgrade(connection: Connection) -> None:
        settings = migrations.config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)

    return upgrade


async def test_data_orders_are_moved_with_their_work(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    writing = database.engine.execution_options(fanxing_writes=True)
    async with writing.begin() as connection:
        await connection.run_sync(_until("0009"))
        await _fill(connection)
    async with writing.begin() as connection:
        await connection.run_sync(_until("0010"))
    async with database.reading() as session:
        orders = (await session.exec(select(Order).order_by(col(Order.order_id)))).all()
        messages = (await session.exec(select(OutboxMessage).order_by(col(OutboxMessage.message_id)))).all()
    assert [(order.state, order.closed_at is not None, order.sent_at is not None) for order in orders] == [
        ("created", False, False),
        ("submitted", False, True),
        ("completed", True, True),
        ("failed", True, True),
    ]
    assert {
        (order.kind, order.provider, order.amount, order.brand_id, order.refund_to.purpose) for order in orders
    } == {("mb", "carrier", 5, 77, "budget")}
    assert [(one.topic, one.message_id, one.item_key) for one in messages] == [
        ("order.carrier", order.order_id, order.outbox_key) for order in orders[:2]
    ]
    assert [uuid.UUID(one.payload["order_id"]) for one in messages] == [order.order_id for order in orders[:2]]
    assert {uuid.UUID(one.payload["member_id"]) for one in messages} == {MEMBER}
    await database.close()


async def _fill(connection: AsyncConnection) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    postgresql = connection.dialect.name == "postgresql"

    def stored(value: object) -> object:
        return value if postgresql or not isinstance(value, uuid.UUID) else value.hex

    async def put(table: str, **values: object) -> None:
        names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        row = {name: stored(value) for name, value in values.items()}
        await connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), row)  # noqa: S608

    await put(
        "campaign",
        **{"campaign_id": CAMPAIGN, "brand_id": 77, "group_id": 1, "title_zh": "x", "title_en": "x", "face": 2},
        **{"prize_kind": "mb", "prize_amount": 5, "coupon_text_zh": "", "coupon_text_en": "", "coupon_value_fen": 0},
        **{"coupon_valid_days": 0, "budget": 500, "stripes": 1, "starts_at": now.replace(year=2025), "ends_at": now},
        **{"status": "active", "created_at": now},
    )
    for number, (state, end) in enumerate(ENDS.items(), 10):
        await put(
            "data_order",
            **{"member_id": MEMBER, "order_id": uuid.UUID(int=number), "item_key": number, "campaign_id": CAMPAIGN},
            **{"budget_holder_id": STRIPE, "megabytes": 5, "state": state, "attempts": 1, "created_at": now},
            settled_at=now if end else None,
        )
    await put(
        "outbox",
        **{"item_key": 10, "message_id": uuid.UUID(int=99), "topic": "data-order", "payload": "{}", "attempts": 0},
        due_at=now,
    )
