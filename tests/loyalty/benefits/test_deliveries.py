"""Things that are sent: ordered to a sealed address, shipped, delivered, or back on the shelf."""

import asyncio
import json
import uuid
from dataclasses import asdict, replace
from typing import Any

import pytest
from sqlmodel import select

from loyalty import member_export, members
from loyalty.benefits import (
    Benefit,
    BenefitKind,
    BenefitState,
    BenefitStateForbids,
    HeldBenefit,
    asset_of,
    deliveries,
)
from loyalty.benefits.deliveries import (
    Address,
    AddressInvalid,
    BenefitDelivery,
    DeliveryInvalid,
    DeliveryState,
    DeliveryStateForbids,
    DeliveryUnknown,
    Parcel,
)
from loyalty.ledger import Purpose
from tests.loyalty.benefits.conftest import House, MakeBenefit
from tests.loyalty.conftest import BRAND, NOW

HOME = Address("李雷", "+8613800138000", "山东省青岛市", "香港中路 1 号 101", "266000")


@pytest.fixture
async def thing(make_benefit: MakeBenefit) -> Benefit:
    return await make_benefit(kind=BenefitKind.GOODS)


@pytest.fixture
async def held(house: House, thing: Benefit, member_id: uuid.UUID) -> HeldBenefit:
    """A thing that the member bought for his 100 points."""
    return await house.obtain(member_id, thing)


async def _order(house: House, member_id: uuid.UUID, held: HeldBenefit, address: Address = HOME) -> HeldBenefit:
    ordered: HeldBenefit = await house.call(deliveries.order, member_id, held.held_id, address, NOW)
    return ordered


async def _move(house: House, held: HeldBenefit, to: DeliveryState, brand_id: int = BRAND, **given: Any) -> None:
    if to is DeliveryState.SHIPPED:
        given = {"carrier": "SF", "tracking": "SF1"} | given
    async with house.database.writing() as session:
        await deliveries.change(session, brand_id, held.held_id, to, NOW, **given)


async def _parcels(house: House, state: DeliveryState | None = None) -> list[Parcel]:
    async with house.database.reading() as session:
        return await deliveries.of_brand(session, house.vault, BRAND, state, None, 10)


async def test_a_thing_travels_from_its_order_to_the_door(
    house: House, member_id: uuid.UUID, thing: Benefit, held: HeldBenefit
) -> None:
    asset = asset_of(thing.benefit_id)
    assert (await _order(house, member_id, held)).state is BenefitState.RESERVED
    assert await house.balances(member_id) == {(asset, Purpose.PENDING): 1}
    await _move(house, held, DeliveryState.SHIPPED)
    [parcel] = await _parcels(house, DeliveryState.SHIPPED)
    assert (parcel.address, parcel.carrier, parcel.tracking) == (HOME, "SF", "SF1")
    for _ in range(2):
        await _move(house, held, DeliveryState.DELIVERED)
    assert await house.balances(member_id) == {(asset, Purpose.DELIVERED): 1}
    assert (await house.held(member_id))[0].state is BenefitState.REDEEMED
    await house.verify()


@pytest.mark.parametrize("after", [[], [DeliveryState.SHIPPED], [DeliveryState.SHIPPED, DeliveryState.DELIVERED]])
async def test_what_comes_back_returns_to_stock_and_its_points_to_the_member(
    house: House, member_id: uuid.UUID, thing: Benefit, held: HeldBenefit, after: list[DeliveryState]
) -> None:
    await _order(house, member_id, held)
    for state in after:
        await _move(house, held, state)
    await asyncio.gather(*(_move(house, held, DeliveryState.RETURNED) for _ in range(5)))
    assert (await house.points(member_id), await house.left(thing)) == (100, 50)
    assert (await house.held(member_id))[0].state is BenefitState.REVERSED
    await house.verify()


async def test_the_address_may_change_till_it_is_shipped(house: House, member_id: uuid.UUID, held: HeldBenefit) -> None:
    await _order(house, member_id, held)
    await _order(house, member_id, held, replace(HOME, line="新地址"))
    [parcel] = await _parcels(house)
    assert parcel.address == replace(HOME, line="新地址")
    await _move(house, held, DeliveryState.SHIPPED)
    with pytest.raises(DeliveryStateForbids):
        await _order(house, member_id, held)


async def test_an_export_tells_where_things_were_sent(house: House, member_id: uuid.UUID, held: HeldBenefit) -> None:
    await _order(house, member_id, held)
    async with house.database.reading() as session:
        told = [
            row async for section, row in member_export.export(session, house.vault, member_id) if "address" in section
        ]
    assert told == [{"held_id": str(held.held_id), **asdict(HOME)}]


async def test_an_address_is_noise_once_its_member_is_erased(
    house: House, member_id: uuid.UUID, held: HeldBenefit
) -> None:
    await _order(house, member_id, held)
    async with house.database.reading() as session:
        [stored] = await session.exec(select(BenefitDelivery))
    for part in json.loads(json.dumps(vars(HOME))).values():
        assert part.encode() not in stored.address_sealed
    async with house.database.writing() as session:
        await members.erase(session, member_id)
    [parcel] = await _parcels(house)
    assert (parcel.address, parcel.state) == (None, DeliveryState.ORDERED)


@pytest.mark.parametrize(
    "changes",
    [{"name": ""}, {"name": " "}, {"phone": "1" * 61}, {"line": "x" * 201}, {"region": "a\x00b"}, {"postcode": "1\n"}],
    ids=str,
)
async def test_an_address_that_nobody_can_send_to_is_refused(changes: dict[str, str]) -> None:
    replace(HOME, postcode="").check()
    with pytest.raises(AddressInvalid, match=f"^{next(iter(changes))}"):
        replace(HOME, **changes).check()


async def test_a_coupon_is_not_sent(house: House, member_id: uuid.UUID, coupon: HeldBenefit) -> None:
    with pytest.raises(BenefitStateForbids):
        await _order(house, member_id, coupon)


async def test_only_the_brand_moves_its_deliveries_and_only_forward(
    house: House, member_id: uuid.UUID, held: HeldBenefit
) -> None:
    with pytest.raises(DeliveryUnknown):
        await _move(house, held, DeliveryState.SHIPPED)
    await _order(house, member_id, held)
    with pytest.raises(DeliveryUnknown):
        await _move(house, held, DeliveryState.SHIPPED, BRAND + 1)
    with pytest.raises(DeliveryStateForbids):
        await _move(house, held, DeliveryState.DELIVERED)
    await _move(house, held, DeliveryState.RETURNED)
    with pytest.raises(DeliveryStateForbids):
        await _move(house, held, DeliveryState.SHIPPED)


async def test_a_move_that_makes_no_sense_is_refused(house: House, member_id: uuid.UUID, held: HeldBenefit) -> None:
    await _order(house, member_id, held)
    for to, given in (
        (DeliveryState.SHIPPED, {"carrier": ""}),
        (DeliveryState.SHIPPED, {"tracking": "x" * 61}),
        (DeliveryState.DELIVERED, {"carrier": "SF"}),
        (DeliveryState.ORDERED, {}),
    ):
        with pytest.raises(DeliveryInvalid):
            await _move(house, held, to, **given)
