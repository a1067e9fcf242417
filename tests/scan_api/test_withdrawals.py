"""What orders say that scanners must refuse: which items, how many at most, and never fewer than told before."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from codes import orders, ranges
from codes.orders import CodeOrder
from codes.ranges import IndexRange
from kit.clock import system_clock
from kit.db import Database, Session
from kit.settings import Settings
from offline_sdk.bundle import Bundle
from scan_api import withdrawals
from scan_api.commands.terminal import Workshop
from scan_api.withdrawals import withdrawn
from signer import publication, roots
from signer.keys import take_turn
from tests.scan_api.test_device_scans import statements
from tests.stand import MakeStand, Stand

STATEMENTS_MAX = 3  # the orders, marks of containers and lots, and the key of their one issuer's serials


@pytest.fixture
def stand(make_stand: MakeStand) -> Stand:
    """An installation of which one order is recalled and nothing is voided; its server does not run."""
    return make_stand()


@pytest.fixture
async def shop(stand: Stand) -> AsyncIterator[Workshop]:
    database = Database(stand.database_url)
    yield Workshop(Settings(home=stand.home, database_url=stand.database_url), database)
    await database.close()


async def void(session: Session, stand: Stand, name: str, *spans: IndexRange) -> CodeOrder:
    order = await orders.order_numbered(session, stand.order(name).gtin, stand.order(name).number)
    await ranges.void(session, order, list(spans))
    return order


def told_of(stand: Stand, name: str, *indexes: int) -> set[tuple[str, int, int]]:
    order = stand.order(name)
    return {(order.gtin, order.number, int(order.items[index].serial[5:])) for index in indexes}


async def test_each_voided_item_is_told_and_whole_orders_as_such(shop: Workshop, stand: Stand) -> None:
    async with shop.database.writing() as session:
        await void(session, stand, "on sale", IndexRange(3, 4), IndexRange(7, 7))
        await void(session, stand, "other brand", IndexRange(0, 0))
        await void(session, stand, "outer only", IndexRange(0, 4))
        told = await withdrawn(session, shop.vault)
    assert set(told.items) == told_of(stand, "on sale", 3, 4, 7) | told_of(stand, "other brand", 0)
    assert set(told.orders) == {
        (order.gtin, order.number, order.number) for order in (stand.order("recalled"), stand.order("outer only"))
    }
    assert told.left_out == ()


async def test_what_was_voided_of_a_recalled_order_is_told_with_it(shop: Workshop, stand: Stand) -> None:
    async with shop.database.writing() as session:
        order = await void(session, stand, "on sale", IndexRange(3, 4))
        await orders.recall(session, order, "Glass.")
        await session.flush()
        told = await withdrawn(session, shop.vault)
    assert (order.gtin, order.order_number, order.order_number) in told.orders
    assert told.items == ()


@pytest.mark.parametrize(
    ("items_max", "left_out"), [(6, []), (5, ["on sale"]), (2, ["on sale"]), (1, ["other brand", "on sale"])]
)
async def test_the_largest_orders_are_left_out_when_there_is_too_much(
    shop: Workshop, stand: Stand, monkeypatch: pytest.MonkeyPatch, items_max: int, left_out: list[str]
) -> None:
    monkeypatch.setattr(withdrawals, "VOIDED_ITEMS_MAX", items_max)
    async with shop.database.writing() as session:
        await void(session, stand, "on sale", IndexRange(0, 3))
        await void(session, stand, "other brand", IndexRange(0, 1))
        told = await withdrawn(session, shop.vault)
    assert list(told.left_out) == [(stand.order(name).gtin, stand.order(name).number) for name in left_out]
    kept = {"on sale": 4, "other brand": 2}
    assert len(told.items) == sum(count for name, count in kept.items() if name not in left_out)


async def test_many_orders_take_no_more_statements_than_one(shop: Workshop, stand: Stand) -> None:
    async with shop.database.writing() as session:
        for name in ("on sale", "other brand", "outer only", "key revoked", "items revoked"):
            await void(session, stand, name, IndexRange(1, 1))
        await session.flush()
        with statements(shop.database) as seen:
            told = await withdrawn(session, shop.vault)
    assert len(told.items) == 5
    assert len(seen) <= STATEMENTS_MAX, seen


async def test_a_publication_that_waits_for_its_turn_tells_what_was_voided_meanwhile(
    shop: Workshop, stand: Stand
) -> None:
    async def publish() -> publication.TrustBundle:
        async with shop.database.writing() as session:
            return await shop.publish(session, system_clock())

    async with shop.database.writing() as session:
        await take_turn(session)
        await void(session, stand, "on sale", IndexRange(3, 3))
        waiting = asyncio.create_task(publish())
        await asyncio.sleep(0.5)  # long enough to read what it would tell, were it not to wait before that
        assert not waiting.done()
    published = await waiting
    async with shop.database.reading() as session:
        root = await roots.current(session, shop.pin)
    gtin, number, item = told_of(stand, "on sale", 3).pop()
    [group] = [
        one
        for one in Bundle.load(published.document, root.publishers).revocations.items
        if (one.gtin, one.order) == (gtin, number)
    ]
    assert item in group.items
