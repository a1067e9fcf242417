"""What scopes reach in a database: brands, products, items by where they were, and captured events."""

import uuid
from typing import Any

import pytest
from sqlmodel import select

from codes.catalogue import Product
from kit.errors import FanxingError
from scan_api.provenance.events import Event, Step
from scan_api.provenance.repository import EpcisEvent
from scan_api.regulators import sights, territory
from scan_api.regulators.scope import Scope, Sight
from scan_api.regulators.sights import OutsideScope
from scan_api.regulators.territory import PLACES_PER_CALL_MAX, PlaceInvalid
from tests.scan_api.regulators.conftest import MILK, NOW, SHANGHAI_SHOP, TEA, TOY, XIAN_SHOP, World, link, seen

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def _reached(world: World, scope: Scope) -> sights.Reach:
    async with world.database.reading() as session:
        return await sights.reach_of(session, scope)


async def test_brands_and_products_that_a_scope_reaches(world: World) -> None:
    everywhere = await _reached(world, Scope())
    assert (everywhere.brands, sorted(everywhere.gtins)) == ([world.dairy, world.tea_house], [MILK, TOY, TEA])
    xian = await _reached(world, Scope(("6101",)))
    assert (xian.seated, xian.elsewhere) == ({world.dairy}, {world.tea_house})
    far = await _reached(world, Scope(("62",)))
    assert far.brands == []
    food = await _reached(world, Scope(categories=("own:food",)))
    assert (sorted(food.gtins), food.mixed) == ([MILK, TEA], {world.dairy})
    toys = await _reached(world, Scope(("61",), ("own:toys",)))
    assert (toys.brands, list(toys.gtins)) == ([world.dairy], [TOY])
    prefix = await _reached(world, Scope(gtin_prefixes=(TEA[1:13],)))
    assert (prefix.brands, list(prefix.gtins)) == ([world.tea_house], [TEA])
    assert (await _reached(world, Scope(sandbox=True))).brands == []
    assert (await _reached(world, Scope(brand_id=world.dairy))).brands == [world.dairy]


async def _seen(world: World, scope: Scope) -> list[tuple[int, str]]:
    reach = await _reached(world, scope)
    found = []
    async with world.database.reading() as session:
        for brand_id in (world.dairy, world.tea_house):
            asked = select(EpcisEvent.brand_id, EpcisEvent.biz_step).where(sights.event_condition(reach, brand_id))
            found += [(one, str(step).rpartition("-")[2]) for one, step in await session.exec(asked)]
    return sorted(found)


async def test_events_that_a_scope_sees(world: World) -> None:
    dairy, tea = world.dairy, world.tea_house
    shop = {"id": "urn:epc:id:sgln:9506000.13437.0"}
    box: dict[str, Any] = {"epcList": ["urn:epc:id:sscc:9506000.0000000001"]}
    await world.capture(
        dairy,
        seen(MILK, 1, bizStep="packing"),
        seen(TOY, 1, bizStep="storing"),
        {**seen(MILK, 1), **box, "bizStep": "loading"},
    )
    await world.capture(
        tea,
        seen(TEA, 1, bizStep="receiving", readPoint={"id": XIAN_SHOP}),
        seen(TEA, 1, bizStep="retail_selling", bizLocation=shop),
        seen(TEA, 1, bizStep="shipping", readPoint={"id": SHANGHAI_SHOP}),
        seen(TEA, 1, bizStep="holding"),
    )
    of_dairy = [(dairy, "loading"), (dairy, "packing"), (dairy, "storing")]
    in_xian = [(tea, "receiving"), (tea, "retail_selling")]
    of_tea = sorted([*in_xian, (tea, "shipping"), (tea, "holding")])
    assert await _seen(world, Scope()) == sorted(of_dairy + of_tea)
    assert await _seen(world, Scope(("6101",))) == sorted(of_dairy + in_xian)
    assert await _seen(world, Scope(("610113",))) == in_xian  # a county sees no brand that is seated in the prefecture
    assert await _seen(world, Scope(("31",))) == of_tea
    assert await _seen(world, Scope(categories=("own:food/dairy",))) == [(dairy, "packing")]  # and no bare container
    assert await _seen(world, Scope(("61",), ("own:food",))) == sorted([(dairy, "packing"), *in_xian])
    assert await _seen(world, Scope(brand_id=tea, gtin_prefixes=(TEA[1:],))) == of_tea
    assert await _seen(world, Scope(("62",))) == []


async def test_an_item_is_seen_where_it_was(world: World) -> None:
    await world.capture(world.tea_house, seen(TEA, 2, readPoint={"id": XIAN_SHOP}))
    depot = Event(NOW_ID, Step.RECEIVED, NOW, NOW, "Depot Xi'an")
    async with world.database.reading() as session:
        product = await session.get_one(Product, TEA)
        elsewhere = await sights.item_facts(session, product, link(TEA, 1), [])
        captured = await sights.item_facts(session, product, link(TEA, 2), [])
        received = await sights.item_facts(session, product, link(TEA, 1), [depot])
    scope = Scope(("61",))
    assert scope.sees(elsewhere) is Sight.OUTSIDE_JURISDICTION
    assert scope.sees(captured) is scope.sees(received) is Sight.BY_PLACE
    assert Scope(("31",)).sees(elsewhere) is Sight.BY_SEAT
    sights.require(Sight.BY_PLACE)
    with pytest.raises(OutsideScope):
        sights.require(scope.sees(elsewhere))


NOW_ID = uuid.UUID(int=7)


@ONE_DATABASE
async def test_territory_is_said_anew(world: World) -> None:
    async with world.database.writing() as session:
        assert await territory.set_seats(session, world.dairy, ["62", "DE-BY"], NOW) == ("62", "DE-BY")
        assert await territory.seats_of(session, world.dairy) == ("62", "DE-BY")
        assert await territory.set_categories(session, MILK, [], NOW) == ()
        assert await territory.categories_of(session, MILK) == ()
        assert await territory.set_places(session, world.tea_house, {"urn:epc:id:sgln:9506000.13437.0": "62"}, NOW) == 3
        assert await territory.regions_of(session, world.tea_house, [XIAN_SHOP, "nowhere"]) == {XIAN_SHOP: "62"}


@ONE_DATABASE
async def test_limits_of_places(world: World) -> None:
    async with world.database.writing() as session:
        for count in (PLACES_PER_CALL_MAX - 1, PLACES_PER_CALL_MAX):
            told = {f"place {at}": "61" for at in range(count)}
            assert await territory.set_places(session, world.dairy, told, NOW) == count
    for bad in (
        {},
        {f"p{at}": "61" for at in range(PLACES_PER_CALL_MAX + 1)},
        {"": "61"},
        {"x" * 501: "61"},
        {"p": "x"},
    ):
        with pytest.raises(FanxingError):
            async with world.database.writing() as session:
                await territory.set_places(session, world.dairy, bad, NOW)
    assert territory.place_name("x" * 500) == "x" * 500
    with pytest.raises(PlaceInvalid):
        territory.place_name("a\0b")
