"""What of a trace a regulator sees: the way of a thing that he reaches, and of its branches what he reaches too."""

import uuid
from datetime import timedelta
from typing import Any

import pytest

from codes import ranges
from codes.catalogue import brand_with
from codes.ranges import IndexRange
from codes.serials import create_serial_key, scheme_of
from kit import procedures
from kit.vault import Vault, new_key
from scan_api import life_acts, thing_acts
from scan_api.life_acts import LifeAct, OfLot, OfOrder, OfThing, Target, Wish
from scan_api.provenance import trace_step
from scan_api.provenance.epcis import item_uri
from scan_api.provenance.life import Reason
from scan_api.provenance.packing import Packing
from scan_api.regulators import sights, territory, traces
from scan_api.regulators.scope import Scope
from scan_api.regulators.traces import BrandNeeded, Seen
from scan_api.scans import Scans
from scan_api.thing_acts import On
from tests.scan_api.regulators.conftest import MILK, NOW, SHANGHAI_SHOP, TEA, TOY, XIAN_SHOP, World, link, seen

BOX, FARM_LOT = "https://id.gs1.org/00/095060000000000017", f"https://id.gs1.org/01/{TEA}/10/LEAVES"
ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
VAULT = Vault(new_key())
XIAN, SHANGHAI, EVERYWHERE = Scope(("6101",)), Scope(("31",)), Scope()
PLACE = {"readPoint": {"id": XIAN_SHOP}}


@pytest.fixture
async def trading(world: World) -> World:
    """The world with serial keys."""
    async with world.database.writing() as session:
        issuer_id = (await brand_with(session, world.tea_house)).issuer_id
        create_serial_key(session, VAULT, issuer_id)
    await procedures.install(world.database, [trace_step.STEP, *thing_acts.PROCEDURES])
    return world


async def look(world: World, scope: Scope, name: str, slug: str | None = None, steps: int = 5) -> Seen:
    async with world.database.reading() as session:
        return await traces.seen_of(session, Scans(VAULT), scope, name, slug, steps)


def told(found: Seen) -> tuple[int, int, int, int]:
    return len(found.trace.things), len(found.trace.links), len(found.trace.events), len(found.known.acts)


def packed(box: str, *children: str, hours: int = 0) -> dict[str, Any]:
    when = NOW + timedelta(hours=hours)
    return {
        "type": "AggregationEvent", "eventTime": when.isoformat(), "eventTimeZoneOffset": "+08:00", "action": "ADD",
        "parentID": box, "childEPCs": list(children), "bizStep": "packing",
    }  # fmt: skip


def moved(thing: str, hours: int, **fields: Any) -> dict[str, Any]:
    return seen(TEA, 0, NOW + timedelta(hours=hours), **fields) | {"epcList": [thing], "bizStep": "shipping"}


def made(lots: str, item: str, hours: int) -> dict[str, Any]:
    return {
        "type": "TransformationEvent", "eventTime": (NOW + timedelta(hours=hours)).isoformat(),
        "eventTimeZoneOffset": "+08:00", "inputQuantityList": [{"epcClass": lots, "quantity": 1, "uom": "KGM"}],
        "outputEPCList": [item],
    }  # fmt: skip


@ONE_DATABASE
async def test_a_thing_that_was_in_the_jurisdiction_is_traced_whole_and_others_not_at_all(trading: World) -> None:
    here, there = link(TEA, 1), link(TEA, 2)
    await trading.capture(
        trading.tea_house,
        made(FARM_LOT, here, -2),
        seen(TEA, 1, NOW - timedelta(hours=1), readPoint={"id": SHANGHAI_SHOP}),
        packed(BOX, here),
        moved(BOX, 1, **PLACE),
        seen(TEA, 2, readPoint={"id": SHANGHAI_SHOP}),
        moved(FARM_LOT, -9) | {"epcList": [], "quantityList": [{"epcClass": FARM_LOT, "quantity": 9, "uom": "KGM"}]},
    )
    assert told(await look(trading, EVERYWHERE, here)) == (3, 2, 5, 0)
    # Its box brought it to Xi'an. The leaves' own journey is not of this jurisdiction.
    assert told(await look(trading, XIAN, here)) == (3, 2, 4, 0)
    assert told(await look(trading, SHANGHAI, here)) == (3, 2, 5, 0)
    unknown, hidden = await look(trading, XIAN, link(TEA, 9)), await look(trading, XIAN, there)
    assert (hidden.brand_id, unknown.brand_id) == (None, None)
    assert told(unknown) == told(hidden) == (1, 0, 0, 0)
    nobodys = await look(trading, XIAN, "https://id.gs1.org/01/09506000999999/21/1")
    assert told(nobodys) == (1, 0, 0, 0)


@ONE_DATABASE
async def test_the_category_decides(trading: World) -> None:
    await trading.capture(trading.dairy, seen(MILK, 1), seen(TOY, 1))
    food = Scope(("6101",), ("own:food",))
    assert len((await look(trading, food, link(MILK, 1))).trace.events) == 1
    assert (await look(trading, food, link(TOY, 1))).brand_id is None
    assert (await look(trading, Scope(gtin_prefixes=("9506000134369",)), link(MILK, 1))).brand_id is None


@ONE_DATABASE
async def test_a_container_is_traced_in_the_events_of_the_brand_that_is_named(trading: World) -> None:
    await trading.capture(trading.tea_house, packed(BOX, link(TEA, 1)), moved(BOX, 1, **PLACE), moved(BOX, 2))
    with pytest.raises(BrandNeeded):
        await look(trading, EVERYWHERE, BOX)
    assert len((await look(trading, EVERYWHERE, BOX, "tea")).trace.events) == 3
    assert len((await look(trading, SHANGHAI, BOX, "tea")).trace.events) == 3
    assert len((await look(trading, XIAN, BOX, "tea")).trace.events) == 1
    assert (await look(trading, XIAN, BOX, "dairy")).trace.events == []
    await trading.capture(trading.dairy, packed(BOX, link(MILK, 1), link(TOY, 1)))
    toys = Scope(("6101",), ("own:toys",))
    found = await look(trading, toys, BOX, "dairy")
    assert len(found.trace.events) == 1  # it names a toy
    assert (await look(trading, Scope(("31",)), BOX, "dairy")).brand_id is None


async def acted(world: World, brand_id: int, target: Target, what: LifeAct, hours: int = 0, **more: Any) -> None:
    when = NOW + timedelta(hours=hours)
    wish = Wish(what, more.get("reason", Reason.OTHER), more.get("message"), when, "ERP")
    async with world.database.writing() as session:
        scheme = await scheme_of(session, VAULT, (await brand_with(session, brand_id)).issuer_id)
        await life_acts.act(session, brand_id, scheme, target, wish, NOW + timedelta(days=1))


async def test_acts_on_an_item_its_order_its_lot_and_its_box_are_told_with_the_lots_events(trading: World) -> None:
    order = await trading.order(MILK, 14)
    async with trading.database.reading() as session:
        scheme = await scheme_of(session, VAULT, (await brand_with(session, trading.dairy)).issuer_id)
    [number] = scheme.item_numbers(MILK, 14, 7, 1)
    name = item_uri(MILK, f"00014{number:09d}")
    lot = f"https://id.gs1.org/01/{MILK}/10/L%2F7"
    some = [IndexRange(5, 9)]
    async with trading.database.writing() as session:
        await life_acts.bind_lot(session, trading.dairy, OfOrder(order, some), "L/7", None, NOW.date(), "ERP", NOW)
    quantity = {"epcList": [], "quantityList": [{"epcClass": lot, "quantity": 5}]}
    await trading.capture(trading.dairy, packed(BOX, name, hours=1), seen(MILK, 0) | quantity)
    dairy = trading.dairy
    await acted(trading, dairy, OfOrder(order, some), LifeAct.ACTIVATE, 2)
    await acted(trading, dairy, OfOrder(order, [IndexRange(8, 20)]), LifeAct.HOLD, 2)
    await acted(trading, dairy, OfThing(name), LifeAct.HOLD, 3, reason=Reason.DIVERSION)
    await acted(trading, dairy, OfThing(name), LifeAct.LIFT, 4)
    await acted(trading, dairy, OfThing(BOX), LifeAct.HOLD, 5, reason=Reason.STOLEN)
    await acted(trading, dairy, OfLot(MILK, "L/7"), LifeAct.RECALL, 6, reason=Reason.SAFETY, message="Glass.")
    await acted(trading, dairy, OfOrder(order, [IndexRange(7, 7)]), LifeAct.VOID, 7, reason=Reason.DAMAGED)
    found = await look(trading, XIAN, name)
    assert [(act.kind, act.on, act.reason) for act in found.known.acts] == [
        ("activated", On.THING, "other"),
        ("held", On.THING, "diversion"),
        ("lifted", On.THING, "diversion"),
        ("held", On.CONTAINER, "stolen"),
        ("recalled", On.LOT, "safety"),
        ("voided", On.THING, "damaged"),
    ]
    assert [act.subject for act in found.known.acts][-2:] == [lot, name]
    assert found.known.lot is not None
    assert (found.known.lot.lot, found.known.lot.expires_on) == ("L/7", NOW.date().isoformat())
    assert len(found.trace.events) == 2  # its own, and its lot's
    of_lot = await look(trading, XIAN, lot)
    assert [act.kind for act in of_lot.known.acts] == ["recalled"]
    assert of_lot.known.lot == found.known.lot
    of_box = await look(trading, XIAN, BOX, "dairy")
    assert [act.kind for act in of_box.known.acts] == ["held"]
    async with trading.database.reading() as session:
        assert await ranges.state_at(session, await session.get_one(type(order), order.order_id), 7) == "voided"


@pytest.mark.parametrize(
    ("since", "until", "is_reached"),
    [(-9, -4, False), (-9, -3, False), (-9, -2, True), (0, 1, False), (-1, None, True)],
)
@ONE_DATABASE
async def test_a_lifted_hold_reaches_what_was_in_the_box_while_it_lasted(
    trading: World, since: int, until: int | None, is_reached: bool
) -> None:
    name = link(MILK, 3)
    async with trading.database.writing() as session:
        row = {"child": name, "parent": BOX, "brand_id": trading.dairy, "kind": "add"}
        times = {"since": NOW + timedelta(hours=since), "until": until and NOW + timedelta(hours=until)}
        session.add(Packing(**row, **times, event_key=uuid.UUID(int=7)))
    await acted(trading, trading.dairy, OfThing(BOX), LifeAct.HOLD, -3)
    await acted(trading, trading.dairy, OfThing(BOX), LifeAct.LIFT, 0)
    kinds = [act.kind for act in (await look(trading, EVERYWHERE, name)).known.acts]
    assert kinds == (["held", "lifted"] if is_reached else [])


@ONE_DATABASE
async def test_that_some_of_its_lot_was_there_does_not_open_an_item(trading: World) -> None:
    name, lot = link(TEA, 4), f"https://id.gs1.org/01/{TEA}/10/L1"
    commissioned = seen(TEA, 4, ilmd={"cbvmda:lotNumber": "L1"}, readPoint={"id": SHANGHAI_SHOP})
    there = {"epcList": [], "quantityList": [{"epcClass": lot, "quantity": 5}], **PLACE}
    await trading.capture(trading.tea_house, commissioned | {"action": "ADD"}, seen(TEA, 0) | there)
    assert (await look(trading, XIAN, name)).brand_id is None
    of_lot = await look(trading, XIAN, lot)
    assert len(of_lot.trace.events) == 1
    assert of_lot.known.items is None  # which items there are is told where the brand is seated, or everywhere
    everywhere = (await look(trading, EVERYWHERE, lot)).known.items
    assert everywhere is not None
    assert (everywhere.count, everywhere.names) == (1, [name])
    assert len((await look(trading, SHANGHAI, name)).trace.events) == 2
    async with trading.database.writing() as session:
        await territory.set_categories(session, TEA, [], NOW)
    assert (await look(trading, Scope(("31",), ("own:food",)), name)).brand_id is None


@ONE_DATABASE
async def test_of_a_container_seen_in_part_neither_acts_nor_stays_are_told(trading: World) -> None:
    outer = "https://id.gs1.org/00/095060000000000024"
    await trading.capture(trading.tea_house, packed(outer, BOX), moved(BOX, 1, **PLACE), moved(outer, 2, **PLACE))
    await acted(trading, trading.tea_house, OfThing(BOX), LifeAct.HOLD)
    whole, part = await look(trading, SHANGHAI, BOX, "tea"), await look(trading, XIAN, BOX, "tea")
    assert (len(whole.known.acts), len(part.known.acts)) == (1, 0)
    stays = [[thing.since for thing in one.trace.things if thing.name == outer] for one in (whole, part)]
    assert stays == [[NOW], [None]]


@ONE_DATABASE
async def test_of_a_class_only_the_events_that_are_seen_are_told(trading: World) -> None:
    name = f"https://id.gs1.org/01/{TEA}"
    quantity = {"epcList": [], "quantityList": [{"epcClass": name, "quantity": 9, "uom": "KGM"}]}
    await trading.capture(
        trading.tea_house, *(moved(name, hour, **more) | quantity for hour, more in ((1, PLACE), (2, {})))
    )
    assert len((await look(trading, SHANGHAI, name)).trace.events) == 2
    assert len((await look(trading, XIAN, name)).trace.events) == 1


@ONE_DATABASE
async def test_an_own_thing_is_traced_however_many_products_are_reached(
    trading: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sights, "PRODUCTS_NAMED_MAX", 0)
    await trading.capture(trading.dairy, seen(MILK, 1))
    assert len((await look(trading, Scope((), ("own:food",)), link(MILK, 1))).trace.events) == 1
