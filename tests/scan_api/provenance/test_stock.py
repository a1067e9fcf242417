"""Stock: who holds a thing follows from what was shipped and received, the thing or a container that it was in."""

from typing import Any

import pytest

from kit.db import Database
from kit.errors import Invalid
from scan_api.provenance import stock
from scan_api.provenance.stock import Holding
from tests.scan_api.provenance.test_packing import BRAND, OTHER_BRAND, at, box, capture, declared, event, item

NORTH, SOUTH = "https://id.gs1.org/417/9506000000012", "https://id.gs1.org/417/9506000000029"
DEPOT, SHOP = "https://id.gs1.org/414/9506000000036", "https://id.gs1.org/414/9506000000043"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def shipped(thing: str, to: str, minute: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "ObjectEvent",
        "action": "OBSERVE",
        "eventTime": at(minute).isoformat(),
        "eventTimeZoneOffset": "+00:00",
        "epcList": [thing],
        "bizStep": "shipping",
        "destinationList": [{"type": "possessing_party", "destination": to}, {"type": "location", "destination": SHOP}],
        **more,
    }


def received(thing: str, place: str, minute: int) -> dict[str, Any]:
    more = {"bizStep": "receiving", "bizLocation": {"id": place}}
    return shipped(thing, NORTH, minute, **more)


async def holding(database: Database, name: str, minute: int) -> Holding | None:
    async with database.reading() as session:
        assert await stock.holding_of(session, OTHER_BRAND, name, at(minute)) is None
        return await stock.holding_of(session, BRAND, name, at(minute))


async def test_a_thing_is_where_it_or_its_container_was_moved_last(database: Database) -> None:
    wrong = shipped(item(2), SOUTH, 45)
    await capture(
        database,
        event("ADD", box(1), [item(1), item(2)], 10),
        event("ADD", box(2), [box(1)], 11),
        shipped(box(2), NORTH, 20),
        received(box(2), DEPOT, 30),
        event("DELETE", box(1), [item(2)], 40),
        received(box(2), SHOP, 50),
        wrong,
    )
    assert await holding(database, item(1), 19) is None
    under_way = await holding(database, item(1), 25)
    assert under_way is not None
    assert (under_way.move.holder, under_way.move.place, under_way.moved) == (NORTH, SHOP, box(2))
    assert under_way.move.is_under_way
    there = await holding(database, item(1), 35)
    assert there is not None
    assert (there.move.place, there.move.is_under_way, there.since) == (DEPOT, False, at(30))
    later = await holding(database, item(1), 55)
    assert later is not None
    assert later.move.place == SHOP
    alone = await holding(database, item(2), 55)
    assert alone is not None
    assert (alone.move.holder, alone.moved) == (SOUTH, item(2))
    await capture(database, declared(wrong, 60))
    alone = await holding(database, item(2), 55)  # it left the box before the box went on
    assert alone is not None
    assert (alone.move.place, alone.moved) == (DEPOT, box(2))


async def test_what_is_put_into_a_container_comes_to_where_that_is(database: Database) -> None:
    await capture(
        database, received(box(1), DEPOT, 10), received(item(1), SHOP, 20), event("ADD", box(1), [item(1)], 30)
    )
    found = await holding(database, item(1), 40)
    assert found is not None
    assert (found.move.place, found.since) == (DEPOT, at(30))


@pytest.mark.parametrize(
    ("seen_in", "expected"), [("110105", False), ("11", False), ("1301", False), ("1302", True), ("310000", True)]
)
async def test_a_thing_seen_outside_its_holders_regions_was_diverted(
    database: Database, seen_in: str, expected: bool
) -> None:
    await capture(database, shipped(item(1), NORTH, 10))
    async with database.writing() as session:
        assert await stock.set_regions(session, BRAND, NORTH, ["31"]) == ("31",)
        assert await stock.set_regions(session, BRAND, NORTH, ["1301", "11", "110105"]) == ("11", "1301")
    async with database.reading() as session:
        told = await stock.diversion(session, BRAND, item(1), seen_in, at(20))
        unknown = await stock.diversion(session, BRAND, item(1), seen_in, at(5))
    assert (told.holder, told.sold_in, told.is_diverted) == (NORTH, ("11", "1301"), expected)
    assert unknown.is_diverted is None


@pytest.mark.parametrize("holder", ["", " North", "N\n", "N" * 501])
async def test_a_holder_has_a_plain_name(database: Database, holder: str) -> None:
    async with database.writing() as session:
        with pytest.raises(Invalid):
            await stock.set_regions(session, BRAND, holder, ["11"])
