"""The `fanxing order` commands for ranges: put on sale, voided, allotted, released, listed."""

import asyncio
import json
from typing import Any

from sqlmodel import select

from codes import acts
from codes.orders import CodeOrder
from codes.ranges import HOLDER_CHARACTERS_MAX
from kit.db import Database
from tests.scan_api.test_commands import Terminal, bare, shop
from tests.stand import GTIN

__all__ = ["bare", "shop"]

WHICH = f"--gtin {GTIN} --order 1"


def place(terminal: Terminal, quantity: int = 20) -> None:
    terminal.ask(f"order create --gtin {GTIN} --quantity {quantity} --face outer --face inner")


def standing(terminal: Terminal) -> list[tuple[Any, ...]]:
    rows = terminal.ask(f"order ranges {WHICH}")
    assert all(row["items"] == row["last"] - row["first"] + 1 for row in rows)
    return [(row["first"], row["last"], row["state"], row["holder"]) for row in rows]


def recorded(terminal: Terminal) -> list[tuple[str, dict[str, Any]]]:
    """The order's acts: kind and detail."""

    async def read() -> list[tuple[str, dict[str, Any]]]:
        database = Database(terminal.database_url)
        try:
            async with database.reading() as session:
                [order_id] = (await session.exec(select(CodeOrder.order_id))).all()
                return [(act.kind, act.detail) for act in await acts.acts_of(session, order_id or 0)]
        finally:
            await database.close()

    return asyncio.run(read())


def test_ranges_go_on_sale_and_then_the_rest(shop: Terminal) -> None:
    place(shop)
    first = shop.ask(f"order activate {WHICH} --range 0-4,7")
    assert (first["ranges"], first["items"], first["state"]) == ("0-4,7", 6, "dormant")
    assert shop.ask(f"order activate {WHICH} --range 3-8")["ranges"] == "5-6,8"
    assert standing(shop) == [(0, 8, "active", None), (9, 19, "dormant", None)]
    assert shop.ask(f"order activate {WHICH}")["state"] == "active"
    assert standing(shop) == [(0, 19, "active", None)]
    assert shop.ask(f"order activate {WHICH} --range 3-8")["items"] == 0
    assert recorded(shop) == [
        ("activated", {"ranges": "0-4,7", "items": 6}),
        ("activated", {"ranges": "3-8", "items": 3}),
        ("activated", {"items": 20}),
    ]


def test_voiding_says_first_what_it_would_do(shop: Terminal) -> None:
    place(shop)
    shop.ask(f"order void {WHICH} --range 5 --yes")
    before = shop.rows()
    plan = shop.ask(f"order void {WHICH} --range 3-6 --reason 'a torn roll'")
    assert (plan["dry_run"], plan["ranges"], plan["items"]) == (True, "3-4,6", 3)
    assert shop.rows() == before
    assert standing(shop) == [(0, 4, "dormant", None), (5, 5, "voided", None), (6, 19, "dormant", None)]
    done = shop.ask(f"order void {WHICH} --range 3-6 --reason 'a torn roll' --yes")
    assert (done["ranges"], done["items"], "dry_run" in done) == ("3-4,6", 3, False)
    assert standing(shop) == [(0, 2, "dormant", None), (3, 6, "voided", None), (7, 19, "dormant", None)]
    assert recorded(shop)[1] == ("voided", {"ranges": "3-6", "items": 3, "reason": "a torn roll"})
    assert shop.refusal(f"order activate {WHICH} --range 0-19") == "RangeVoided"
    shop.ask(f"order activate {WHICH}")
    assert [state for _, _, state, _ in standing(shop)] == ["active", "voided", "active"]


def test_a_voided_order_of_one_item_stays_away(shop: Terminal) -> None:
    place(shop, 1)
    shop.ask(f"order void {WHICH} --range 0 --yes")
    assert standing(shop) == [(0, 0, "voided", None)]


def test_parts_are_allotted_reassigned_and_released(shop: Terminal) -> None:
    place(shop)
    assert shop.ask(f"order allot {WHICH} --range 0-9 --to '印刷厂 甲'")["items"] == 10
    assert shop.ask(f"order allot {WHICH} --range 5-14 --to 'plant B'")["ranges"] == "5-14"
    assert shop.ask(f"order release {WHICH} --range 7,19")["ranges"] == "7"
    assert standing(shop) == [
        (0, 4, "dormant", "印刷厂 甲"),
        (5, 6, "dormant", "plant B"),
        (7, 7, "dormant", None),
        (8, 14, "dormant", "plant B"),
        (15, 19, "dormant", None),
    ]
    assert recorded(shop) == [
        ("allotted", {"ranges": "0-9", "items": 10, "to": "印刷厂 甲"}),
        ("allotted", {"ranges": "5-14", "items": 10, "to": "plant B"}),
        ("released", {"ranges": "7,19", "items": 1}),
    ]
    before = shop.rows()
    assert shop.ask(f"order release {WHICH} --range 15-19")["items"] == 0
    too_long = "x" * (HOLDER_CHARACTERS_MAX + 1)
    assert shop.refusal(f"order allot {WHICH} --range 0 --to {too_long}") == "HolderInvalid"
    assert shop.rows() == before


def test_what_is_no_range_of_the_order_is_refused(shop: Terminal) -> None:
    place(shop)
    before = shop.rows()
    for command in ("activate", "void --yes", "release", "allot --to plant"):
        for text in ("20", "5-4", "x", "99999999999999"):
            assert shop.refusal(f"order {command} {WHICH} --range {text}") == "RangeInvalid"
        assert shop.refusal(f"order {command} --gtin {GTIN} --order 7 --range 0") == "OrderUnknown"
    assert shop.rows() == before


def test_people_read_what_changed(shop: Terminal) -> None:
    place(shop)
    told = shop.run(f"order void {WHICH} --range 3-6")
    assert told.exit_code == 0
    assert "4 items of order 00001" in told.output
    assert "would change: 3-6" in told.output
    assert "--yes" in told.output
    assert "changed: 3-6" in shop.run(f"order activate {WHICH} --range 3-6").output
    assert "changed: none" in shop.run(f"order activate {WHICH} --range 3-6").output
    table = shop.run(f"order ranges {WHICH}").output
    assert "holder" in table
    assert "dormant" in table
    assert json.loads(shop.run(f"order ranges {WHICH} --json").stdout)[1]["state"] == "active"
