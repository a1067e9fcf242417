"""Coupons: shown to their member, redeemed once."""

import asyncio
import uuid
from collections import Counter
from datetime import datetime, timedelta

import pytest
from sqlmodel import select

from kit.db import Database
from kit.vault import Vault
from loyalty import benefits, ledger
from loyalty.benefits import (
    Coupon,
    CouponAlreadyRedeemed,
    CouponExpired,
    CouponState,
    CouponUnknown,
    HeldCoupon,
    Redemption,
)
from loyalty.ledger import Purpose
from tests.loyalty.conftest import BRAND, COUPON_FIELDS, NOW, MakeCampaign, MakeClaim, MakeMember

SHOP = uuid.UUID(int=77)
A_MOMENT = timedelta(microseconds=1)


class Shop:
    """Redeems, each time in a transaction of its own."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def redeem(self, code: str, now: datetime = NOW, brand_ids: set[int] | None = None) -> Redemption:
        async with self._database.writing() as session:
            return await benefits.redeem(session, self._vault, code, shop_caller_id=SHOP, brand_ids=brand_ids, now=now)


@pytest.fixture
def shop(database: Database, vault: Vault) -> Shop:
    return Shop(database, vault)


@pytest.fixture
async def member_id(make_member: MakeMember) -> uuid.UUID:
    return await make_member()


@pytest.fixture
async def coupon(member_id: uuid.UUID, make_campaign: MakeCampaign, make_claim: MakeClaim) -> HeldCoupon:
    grant = await make_claim(await make_campaign(**COUPON_FIELDS), member_id)
    assert grant.coupon is not None
    return grant.coupon


async def held(database: Database, vault: Vault, member_id: uuid.UUID, now: datetime = NOW) -> list[HeldCoupon]:
    async with database.reading() as session:
        return await benefits.coupons_of(session, vault, member_id, now)


async def test_a_redeemed_coupon_moves_in_the_ledger_and_says_who_redeemed_it(
    database: Database, shop: Shop, member_id: uuid.UUID, coupon: HeldCoupon
) -> None:
    redemption = await shop.redeem(coupon.code)
    assert redemption == Redemption(
        coupon_id=coupon.coupon_id,
        campaign_id=coupon.campaign_id,
        brand_id=BRAND,
        text_zh="满十减五",
        text_en="5 off 10",
        value_fen=500,
        at=NOW,
    )
    asset = benefits.coupon_asset(coupon.campaign_id)
    async with database.reading() as session:
        assert await ledger.balances(session, member_id) == {
            (asset, Purpose.AVAILABLE): 0,
            (asset, Purpose.REDEEMED): 1,
        }
        stored = (await session.exec(select(Coupon))).one()
        assert (stored.status, stored.redeemed_at, stored.redeemed_by) == ("redeemed", NOW, SHOP)
        assert (await ledger.verify(session)).sound


async def test_fifty_shops_redeem_one_coupon_and_one_succeeds(
    database: Database, shop: Shop, coupon: HeldCoupon
) -> None:
    results = await asyncio.gather(*(shop.redeem(coupon.code) for _ in range(50)), return_exceptions=True)
    assert Counter(type(result).__name__ for result in results) == {"Redemption": 1, "CouponAlreadyRedeemed": 49}
    async with database.reading() as session:
        assert (await ledger.verify(session)).sound


async def test_a_second_redemption_tells_when_the_first_was(shop: Shop, coupon: HeldCoupon) -> None:
    await shop.redeem(coupon.code)
    with pytest.raises(CouponAlreadyRedeemed) as refusal:
        await shop.redeem(coupon.code, NOW + timedelta(days=1))
    assert refusal.value.redeemed_at == NOW


async def test_a_coupon_is_good_until_just_before_it_expires(shop: Shop, coupon: HeldCoupon) -> None:
    with pytest.raises(CouponExpired):
        await shop.redeem(coupon.code, coupon.expires_at)
    assert (await shop.redeem(coupon.code, coupon.expires_at - A_MOMENT)).coupon_id == coupon.coupon_id


async def test_a_shop_redeems_only_coupons_of_its_brands(shop: Shop, coupon: HeldCoupon) -> None:
    for brands in ({BRAND + 1}, set[int]()):
        with pytest.raises(CouponUnknown):
            await shop.redeem(coupon.code, brand_ids=brands)
    assert (await shop.redeem(coupon.code, brand_ids={BRAND, BRAND + 1})).brand_id == BRAND


async def test_a_code_may_be_typed_as_people_type(shop: Shop, coupon: HeldCoupon) -> None:
    typed = coupon.code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert (await shop.redeem(f" {typed}\n")).coupon_id == coupon.coupon_id


@pytest.mark.parametrize("code", ["", "0000-0000-0000-0000", "x" * 10_000, "券"])
async def test_an_unknown_code_is_refused(shop: Shop, coupon: HeldCoupon, code: str) -> None:
    with pytest.raises(CouponUnknown):
        await shop.redeem(code)


async def test_a_member_sees_his_coupons_with_codes_and_states(
    database: Database, vault: Vault, shop: Shop, member_id: uuid.UUID, coupon: HeldCoupon, make_member: MakeMember
) -> None:
    assert await held(database, vault, member_id) == [coupon]
    assert (await held(database, vault, member_id, coupon.expires_at))[0].state is CouponState.EXPIRED
    await shop.redeem(coupon.code)
    after = (await held(database, vault, member_id, coupon.expires_at))[0]
    assert (after.state, after.redeemed_at, after.code) == (CouponState.REDEEMED, NOW, coupon.code)
    assert await held(database, vault, await make_member(1)) == []


async def test_a_code_is_stored_sealed_and_found_by_its_hash(database: Database, coupon: HeldCoupon) -> None:
    async with database.reading() as session:
        stored = (await session.exec(select(Coupon))).one()
    plain = coupon.code.replace("-", "").encode()
    assert plain not in stored.code_sealed
    assert plain not in stored.code_fingerprint


def test_a_code_is_shown_in_groups_of_four() -> None:
    assert benefits.show_code("0123456789ABCDEF") == "0123-4567-89AB-CDEF"
