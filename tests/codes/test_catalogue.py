"""Brands and products: what may be registered, under which prefixes, once."""

import asyncio

import pytest
from sqlmodel import func, select

from codes import catalogue
from codes.catalogue import (
    Brand,
    BrandExists,
    BrandGroup,
    BrandInvalid,
    BrandUnknown,
    GtinInvalid,
    GtinOutsidePrefixes,
    Product,
    ProductExists,
    ProductUnknown,
    gtin14,
)
from kit.db import Database
from tests.codes.conftest import GTIN, NOW, Market


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("06901234567892", "06901234567892"),
        ("6901234567892", "06901234567892"),
        ("614141000036", "00614141000036"),
        ("96385074", "00000096385074"),
        ("16901234567899", "16901234567899"),
    ],
)
def test_a_gtin_of_any_length_becomes_fourteen_digits(given: str, expected: str) -> None:
    assert gtin14(given) == expected


@pytest.mark.parametrize(
    "gtin",
    [
        "",
        "0",
        "6901234567893",  # wrong check digit
        "06901234567890",
        "690123456789",  # twelve digits of thirteen
        "901234567892",
        "106901234567892",
        "69012345 67892",
        "６９０１２３４５６７８９２",
        "690123456789X",
        "+690123456789",
        "-6901234567892",
        "6901234567892\n",
    ],
)
def test_anything_else_is_no_gtin(gtin: str) -> None:
    with pytest.raises(GtinInvalid):
        gtin14(gtin)


@pytest.mark.parametrize("digit", range(10))
def test_only_one_check_digit_is_right(digit: int) -> None:
    gtin = f"0690123456789{digit}"
    if digit == 2:
        assert gtin14(gtin) == gtin
    else:
        with pytest.raises(GtinInvalid):
            gtin14(gtin)


async def test_a_product_under_any_of_its_issuers_prefixes_is_registered(database: Database, market: Market) -> None:
    for gtin in ["6901234560008", "9506000134352", "16901234567899", "9506000000008"]:
        async with database.writing() as session:
            made = await catalogue.create_product(session, market.brand, gtin, " 酸奶 ", "Yoghurt", NOW)
        async with database.reading() as session:
            found = await catalogue.product_with(session, gtin14(gtin))
        assert (made.gtin, found.name_zh, found.name("zh"), found.name("en")) == (
            gtin14(gtin),
            "酸奶",
            "酸奶",
            "Yoghurt",
        )


@pytest.mark.parametrize(
    "gtin",
    [
        "5901234123457",
        "6901234578904",  # shares eight digits of the prefix's nine
        "96385074",
    ],
)
async def test_a_product_outside_the_prefixes_is_refused(database: Database, market: Market, gtin: str) -> None:
    async with database.writing() as session:
        with pytest.raises(GtinOutsidePrefixes, match="690123456"):
            await catalogue.create_product(session, market.brand, gtin, "酸奶", "Yoghurt", NOW)


async def test_the_indicator_digit_is_no_part_of_a_prefix(database: Database, market: Market) -> None:
    async with database.writing() as session:
        # As a GTIN-14 this has the indicator 6 and begins with 901234, not with 690123.
        with pytest.raises(GtinOutsidePrefixes):
            await catalogue.create_product(session, market.brand, "69012345600008", "箱", "Case", NOW)


async def test_a_gtin_is_registered_once(database: Database, market: Market) -> None:
    async with database.writing() as session:
        for gtin in (GTIN, GTIN[1:]):
            with pytest.raises(ProductExists):
                await catalogue.create_product(session, market.brand, gtin, "鲜奶", "Milk", NOW)


async def test_an_unknown_product_is_told(database: Database, market: Market) -> None:
    async with database.reading() as session:
        with pytest.raises(ProductUnknown):
            await catalogue.product_with(session, "09506000134352")


async def test_good_short_names_make_brands(database: Database, market: Market) -> None:
    for slug in ["a", "0", "a-b", "a--b", "a" * 40]:
        async with database.writing() as session:
            await catalogue.create_brand(session, market.issuer, "Demo Group", slug, "牌", "Brand", NOW)
        async with database.reading() as session:
            found = await catalogue.brand_named(session, slug)
            assert (found.name("zh"), found.name("en"), found.group_id) == ("牌", "Brand", market.brand.group_id)


async def test_a_short_name_that_would_not_fit_an_address_is_refused(database: Database, market: Market) -> None:
    for slug in ["", "-", "-a", "a-", "A", "a_b", "a b", "品牌", "a" * 41, "a\n"]:
        async with database.writing() as session:
            with pytest.raises(BrandInvalid):
                await catalogue.create_brand(session, market.issuer, "Demo Group", slug, "牌", "Brand", NOW)


async def test_names_are_one_to_a_hundred_characters(database: Database, market: Market) -> None:
    for name in ["", "  ", "x" * 101]:
        async with database.writing() as session:
            for group, chinese, english in ((name, "牌", "Brand"), ("G", name, "Brand"), ("G", "牌", name)):
                with pytest.raises(BrandInvalid):
                    await catalogue.create_brand(session, market.issuer, group, "other", chinese, english, NOW)
            with pytest.raises(BrandInvalid):
                await catalogue.create_product(session, market.brand, "9506000134352", name, "Yoghurt", NOW)


async def test_a_short_name_belongs_to_one_brand(database: Database, market: Market) -> None:
    async with database.writing() as session:
        with pytest.raises(BrandExists):
            await catalogue.create_brand(session, market.issuer, "Other", "demo-dairy", "牌", "Brand", NOW)


async def test_an_unknown_brand_is_told(database: Database) -> None:
    async with database.reading() as session:
        with pytest.raises(BrandUnknown):
            await catalogue.brand_named(session, "nobody")


@pytest.mark.parametrize("name", ["Demo Group", "  Demo Group "])
async def test_a_group_of_that_name_is_found_again(database: Database, market: Market, name: str) -> None:
    async with database.writing() as session:
        assert (await catalogue.create_group(session, name)).group_id == market.brand.group_id


async def test_ten_brands_at_once_share_the_group_that_they_all_found(database: Database, market: Market) -> None:
    async def found(number: int) -> int:
        async with database.writing() as session:
            return (
                await catalogue.create_brand(session, market.issuer, "New", f"brand-{number}", "牌", "B", NOW)
            ).group_id

    assert len(set(await asyncio.gather(*map(found, range(10))))) == 1
    async with database.reading() as session:
        assert (await session.exec(select(func.count()).select_from(BrandGroup))).one() == 2


async def test_of_ten_that_register_the_same_at_once_one_succeeds(database: Database, market: Market) -> None:
    async def brand() -> None:
        async with database.writing() as session:
            await catalogue.create_brand(session, market.issuer, "Demo Group", "same", "牌", "B", NOW)

    async def product() -> None:
        async with database.writing() as session:
            await catalogue.create_product(session, market.brand, "9506000134352", "酸奶", "Yoghurt", NOW)

    for register, refusal, kind in ((brand, BrandExists, Brand), (product, ProductExists, Product)):
        outcomes = await asyncio.gather(*(register() for _ in range(10)), return_exceptions=True)
        assert sum(outcome is None for outcome in outcomes) == 1
        assert sum(isinstance(outcome, refusal) for outcome in outcomes) == 9
        async with database.reading() as session:
            assert (await session.exec(select(func.count()).select_from(kind))).one() == 2
