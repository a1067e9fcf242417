"""Code orders: what may be ordered, under which number, and what becomes of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from codes import catalogue, orders
from codes.catalogue import GtinInvalid, ProductUnknown
from codes.orders import (
    BaseUrlInvalid,
    CodeOrder,
    FacesInvalid,
    OrderNumbersUsedUp,
    OrderState,
    OrderStateForbids,
    OrderUnknown,
    QuantityOutOfRange,
    RecallReasonInvalid,
)
from kit.db import Database
from offline_sdk import Profile
from signer import keys
from signer.keys import KeyState, SigningKeyMissing
from tests.codes.conftest import BASE_URL, GTIN, NOW, MakeOrder, Market

BOTH = (Profile.OUTER, Profile.INNER)
OTHER_GTIN = "09506000134352"


async def placed(
    database: Database, quantity: int = 10, faces: Sequence[Profile] = BOTH, gtin: str = GTIN
) -> CodeOrder:
    async with database.writing() as session:
        return await orders.place(session, await orders.plan(session, gtin, quantity, faces, BASE_URL), NOW)


async def found(database: Database, number: int = 1) -> CodeOrder:
    async with database.reading() as session:
        return await orders.order_numbered(session, GTIN, number)


async def test_an_order_is_kept_as_it_was_placed(database: Database, market: Market) -> None:
    made = await placed(database, 12_345)
    order = await found(database)
    assert (order.order_id, order.gtin, order.order_number, order.quantity) == (made.order_id, GTIN, 1, 12_345)
    assert (order.faces, order.base_url, order.kid) == (BOTH, BASE_URL, market.key.kid)
    assert (order.state, order.recall_reason, order.created_at) == (OrderState.DORMANT, None, NOW)


async def test_a_plan_stores_nothing(database: Database, market: Market) -> None:
    async with database.writing() as session:
        plan = await orders.plan(session, GTIN[1:], 10, BOTH, BASE_URL)
    assert (plan.product.gtin, plan.brand.slug, plan.order_number, plan.kid) == (GTIN, "demo-dairy", 1, market.key.kid)
    with pytest.raises(OrderUnknown):
        await found(database)


@pytest.mark.parametrize("quantity", [1, 1_000_000_000])
async def test_quantities_at_their_bounds_are_ordered(database: Database, market: Market, quantity: int) -> None:
    assert (await placed(database, quantity)).quantity == quantity


async def test_quantities_past_their_bounds_are_refused(database: Database, market: Market) -> None:
    for quantity in [-1, 0, 1_000_000_001]:
        with pytest.raises(QuantityOutOfRange, match=r"1 to 1,000,000,000"):
            await placed(database, quantity)


@pytest.mark.parametrize("quantity", [0, 1_000_000_001])
async def test_the_database_itself_refuses_such_quantities(
    database: Database, market: Market, make_order: MakeOrder, quantity: int
) -> None:
    with pytest.raises(IntegrityError):
        async with database.writing() as session:
            session.add(make_order(quantity, order_id=None, kid=market.key.kid))


@pytest.mark.parametrize(
    ("faces", "kept"),
    [
        ([Profile.OUTER], (Profile.OUTER,)),
        ([Profile.INNER], (Profile.INNER,)),
        ([Profile.INNER, Profile.OUTER], BOTH),
    ],
)
async def test_an_order_has_the_faces_that_were_asked_for(
    database: Database, market: Market, faces: list[Profile], kept: tuple[Profile, ...]
) -> None:
    await placed(database, faces=faces)
    assert (await found(database)).faces == kept


async def test_no_face_or_a_face_twice_is_refused(database: Database, market: Market) -> None:
    for faces in [[], [Profile.OUTER] * 2, [*BOTH, Profile.INNER]]:
        with pytest.raises(FacesInvalid):
            await placed(database, faces=faces)


async def test_a_base_url_that_codes_cannot_carry_is_refused(database: Database, market: Market) -> None:
    for url in ["", "id.example.cn", "https://id.example.cn/", "Https://id.example.cn", "ftp://a.cn", "https://a.cn:0"]:
        async with database.writing() as session:
            with pytest.raises(BaseUrlInvalid):
                await orders.plan(session, GTIN, 1, BOTH, url)


async def test_only_registered_products_are_ordered(database: Database, market: Market) -> None:
    with pytest.raises(ProductUnknown):
        await placed(database, gtin=OTHER_GTIN)
    with pytest.raises(GtinInvalid):
        await placed(database, gtin=GTIN[:-1] + "3")


async def test_each_product_counts_its_own_orders(database: Database, market: Market) -> None:
    async with database.writing() as session:
        await catalogue.create_product(session, market.brand, OTHER_GTIN, "酸奶", "Yoghurt", NOW)
    numbers = [(await placed(database, gtin=gtin)).order_number for gtin in (GTIN, GTIN, OTHER_GTIN, GTIN)]
    assert numbers == [1, 2, 1, 3]


async def test_twenty_placings_at_once_get_a_number_of_their_own_or_a_clear_refusal(
    database: Database, market: Market
) -> None:
    outcomes = await asyncio.gather(*(placed(database) for _ in range(20)), return_exceptions=True)
    made = [outcome for outcome in outcomes if isinstance(outcome, CodeOrder)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, OrderStateForbids)]
    assert len(made) + len(refused) == 20, outcomes
    assert all(refusal.hint == "Nothing was stored. Place the order again." for refusal in refused)
    async with database.reading() as session:
        stored = (await session.exec(select(CodeOrder.order_number))).all()
    assert sorted(stored) == sorted(order.order_number for order in made) == list(range(1, len(made) + 1))


async def test_placing_one_plan_twice_is_refused(database: Database, market: Market) -> None:
    async with database.reading() as session:
        plan = await orders.plan(session, GTIN, 10, BOTH, BASE_URL)
    async with database.writing() as session:
        await orders.place(session, plan, NOW)
    with pytest.raises(OrderStateForbids, match="00001 of 06901234567892"):
        async with database.writing() as session:
            await orders.place(session, plan, NOW)


async def test_the_last_order_number_is_the_last(database: Database, market: Market) -> None:
    async with database.writing() as session:
        plan = await orders.plan(session, GTIN, 10, BOTH, BASE_URL)
        await orders.place(session, replace(plan, order_number=99_998), NOW)
    assert (await placed(database)).order_number == 99_999
    with pytest.raises(OrderNumbersUsedUp, match="99,999"):
        await placed(database)


async def test_a_key_signs_the_orders_of_its_range_only(database: Database, market: Market) -> None:
    async with database.writing() as session:
        narrow = await market.service.create_key(session, market.issuer, NOW, order_min=5, order_max=6)
    assert [((order := await placed(database)).order_number, order.kid) for _ in range(2)] == [
        (5, narrow.kid),
        (6, narrow.kid),
    ]
    with pytest.raises(SigningKeyMissing, match="up to 00006, the next is 00007"):
        await placed(database)
    async with database.writing() as session:
        following = await market.service.create_key(session, market.issuer, NOW, order_min=7)
    assert ((order := await placed(database)).order_number, order.kid) == (7, following.kid)


async def test_without_an_active_key_nothing_is_ordered(database: Database, market: Market) -> None:
    async with database.writing() as session:
        await keys.end_key(session, market.key.kid, KeyState.RETIRED, NOW)
    with pytest.raises(SigningKeyMissing):
        await placed(database)


async def test_an_item_has_a_key_and_a_serial_of_its_own(database: Database, market: Market) -> None:
    first, second = await placed(database), await placed(database)
    assert (first.serial(42), second.serial(999_999_999)) == ("00001000000042", "00002999999999")
    assert first.order_id is not None
    assert first.item_key(42) == first.order_id * 10**9 + 42
    assert len({order.item_key(item) for order in (first, second) for item in (0, 999_999_999)}) == 4
    assert second.item_key(999_999_999) < 2**63


async def test_a_database_without_room_for_item_keys_takes_no_more_orders(
    database: Database, market: Market, make_order: MakeOrder
) -> None:
    if database.engine.dialect.name == "postgresql":
        pytest.skip("its order ids are of 31 bits and end long before the item keys do")
    full = (2**63 - 1) // 10**9 - 1
    async with database.writing() as session:
        session.add(make_order(1, order_id=full, order_number=1, kid=market.key.kid))
        assert make_order(1, order_id=full).item_key(10**9 - 1) < 2**63
        await session.flush()
        plan = await orders.plan(session, GTIN, 10, BOTH, BASE_URL)
        with pytest.raises(OrderNumbersUsedUp, match="no room"):
            await orders.place(session, plan, NOW)


async def test_activation_happens_once(database: Database, market: Market) -> None:
    await placed(database)
    for expected in (True, False):
        async with database.writing() as session:
            order = await orders.order_numbered(session, GTIN, 1)
            assert await orders.activate(session, order) is expected
            assert order.state == OrderState.ACTIVE
    assert (await found(database)).state == OrderState.ACTIVE


@pytest.mark.parametrize("active", [False, True])
async def test_a_recalled_order_stays_recalled(database: Database, market: Market, active: bool) -> None:
    await placed(database)
    async with database.writing() as session:
        order = await orders.order_numbered(session, GTIN, 1)
        if active:
            await orders.activate(session, order)
        assert await orders.recall(session, order, "  glass in the milk ")
    async with database.writing() as session:
        order = await orders.order_numbered(session, GTIN, 1)
        with pytest.raises(OrderStateForbids, match="00001 of 06901234567892 is recalled and stays so"):
            await orders.activate(session, order)
        assert not await orders.recall(session, order, "another reason")
    order = await found(database)
    assert (order.state, order.recall_reason) == (OrderState.RECALLED, "glass in the milk")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
async def test_a_recall_without_a_reason_is_refused(database: Database, market: Market, reason: str) -> None:
    await placed(database)
    async with database.writing() as session:
        with pytest.raises(RecallReasonInvalid):
            await orders.recall(session, await orders.order_numbered(session, GTIN, 1), reason)
    assert (await found(database)).state == OrderState.DORMANT


async def test_an_activation_never_takes_back_a_recall_it_had_not_seen(database: Database, market: Market) -> None:
    await placed(database)
    async with database.reading() as session:
        seen = await orders.order_numbered(session, GTIN, 1)
        session.expunge(seen)
    async with database.writing() as session:
        await orders.recall(session, await orders.order_numbered(session, GTIN, 1), "glass")
    assert seen.state == OrderState.DORMANT
    async with database.writing() as session:
        session.add(seen)
        with pytest.raises(OrderStateForbids):
            await orders.activate(session, seen)
    assert (await found(database)).state == OrderState.RECALLED


async def test_of_ten_activations_at_once_one_counts(database: Database, market: Market) -> None:
    await placed(database)

    async def activate() -> bool:
        async with database.writing() as session:
            return await orders.activate(session, await orders.order_numbered(session, GTIN, 1))

    assert sorted(await asyncio.gather(*(activate() for _ in range(10)))) == [False] * 9 + [True]


async def test_orders_are_listed_oldest_first_and_by_brand(database: Database, market: Market) -> None:
    async with database.writing() as session:
        other = await catalogue.create_brand(session, market.issuer, "Demo Group", "other", "牌", "Other", NOW)
        await catalogue.create_product(session, other, OTHER_GTIN, "酸奶", "Yoghurt", NOW)
    for gtin in (GTIN, OTHER_GTIN, GTIN):
        await placed(database, gtin=gtin)
    async with database.reading() as session:
        everything = [(order.gtin, order.order_number) for order in await orders.orders_of(session)]
        assert everything == [(GTIN, 1), (OTHER_GTIN, 1), (GTIN, 2)]
        assert [order.gtin for order in await orders.orders_of(session, other.brand_id)] == [OTHER_GTIN]
        assert await orders.orders_of(session, 4_711) == []


async def test_an_unknown_order_is_told(database: Database, market: Market) -> None:
    async with database.reading() as session:
        with pytest.raises(OrderUnknown, match="no order 00009 of GTIN 06901234567892"):
            await orders.order_numbered(session, GTIN, 9)
