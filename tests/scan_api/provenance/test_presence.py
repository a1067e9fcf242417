"""Presence: what is at a place now is listed once, page by page, as the holding of each thing tells it."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from kit.db import Database
from scan_api.provenance import presence, stock
from scan_api.provenance.presence import Position
from tests.scan_api.provenance.test_packing import BRAND, OTHER_BRAND, at, box, capture, declared, event, item
from tests.scan_api.provenance.test_stock import DEPOT, NORTH, SHOP, received, shipped

HALL = "https://id.gs1.org/414/9506000000036/254/hall"
PLACES = DEPOT, SHOP, HALL
THINGS = [*map(item, range(1, 6)), *map(box, range(1, 4))]
END = 1_000


async def listed(database: Database, place: str, limit: int = 100, brand_id: int = BRAND) -> list[str]:
    """What all pages have, each of which keeps its limit."""
    found: list[str] = []
    after: Position | None = None
    for _page in range(200):
        async with database.reading() as session:
            page = await presence.page(session, brand_id, place, at(END), after, limit)
        assert len(page.things) <= limit
        found += [one.thing for one in page.things]
        after = page.end
        if after is None:
            return found
    raise AssertionError("the pages do not end")


async def there(database: Database, place: str) -> list[str]:
    """What each thing's own holding tells."""
    async with database.reading() as session:
        held = {name: await stock.holding_of(session, BRAND, name, at(END)) for name in THINGS}
    return sorted(name for name, one in held.items() if one is not None and one.move.place == place)


async def test_a_container_is_at_its_place_with_all_that_was_in_it_since(database: Database) -> None:
    await capture(
        database,
        event("ADD", box(1), [item(1), item(2), item(3)], 10),
        event("ADD", box(2), [box(1)], 11),
        received(box(2), DEPOT, 20),
        event("DELETE", box(1), [item(2)], 30),
        event("ADD", box(1), [item(4)], 31),
        received(item(3), SHOP, 40),
        shipped(item(2), NORTH, 50),
        received(item(5), DEPOT, 60),
    )
    assert await listed(database, DEPOT) == [item(5), box(1), box(2), item(1), item(4)]
    assert await listed(database, SHOP) == [item(2), item(3)]  # one is on its way there
    assert await listed(database, HALL) == []
    assert await listed(database, DEPOT, brand_id=OTHER_BRAND) == []
    await capture(database, event("DELETE", box(2), [box(1)], 70), received(box(2), HALL, 80))
    assert await listed(database, HALL) == [box(2)]
    assert await listed(database, DEPOT) == [item(5), box(1), item(1), item(4)]


async def test_a_move_that_was_an_error_leaves_things_where_they_were(database: Database) -> None:
    wrong = received(item(1), SHOP, 20)
    await capture(database, received(item(1), DEPOT, 10), wrong)
    assert (await listed(database, DEPOT), await listed(database, SHOP)) == ([], [item(1)])
    await capture(database, declared(wrong, 30))
    assert (await listed(database, DEPOT), await listed(database, SHOP)) == ([item(1)], [])


async def test_what_is_still_to_happen_moved_nothing_yet(database: Database) -> None:
    await capture(database, received(item(1), DEPOT, 10), received(item(1), SHOP, END + 1))
    assert (await listed(database, DEPOT), await listed(database, SHOP)) == ([item(1)], [])


def lived(seed: int, count: int = 40) -> list[dict[str, Any]]:
    """What happens to a few things, at random."""
    chosen = random.Random(seed)
    events = []
    for minute in range(count):
        thing, place, container = chosen.choice(THINGS), chosen.choice(PLACES), box(chosen.randint(1, 3))
        match chosen.randrange(5):
            case 0 | 1 if thing != container:
                events.append(event(chosen.choice(["ADD", "DELETE"]), container, [thing], minute))
            case 2:
                to = [{"type": "possessing_party", "destination": NORTH}, {"type": "location", "destination": place}]
                events.append(shipped(thing, NORTH, minute, destinationList=to))
            case 3:
                events.append(received(thing, place, minute) | {"bizStep": "inspecting"})
            case _:
                events.append(received(thing, place, minute))
    return events


LIMITS = "EVENTS_READ_MAX", "MOVES_READ_MAX", "MOVES_AT_ONCE", "THINGS_EXAMINED_MAX"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("small", [(2_000, 200, 20, 1_000), (1, 1, 1, 1), (5, 3, 2, 4)])
async def test_every_page_size_lists_each_thing_once_where_its_holding_says(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int, small: Sequence[int]
) -> None:
    for name, value in zip(LIMITS, small, strict=True):
        monkeypatch.setattr(presence, name, value)
    await capture(database, *lived(seed))
    for place in PLACES:
        for limit in (1, 2, 100):
            assert sorted(await listed(database, place, limit)) == await there(database, place)
