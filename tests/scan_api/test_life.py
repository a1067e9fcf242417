"""Life acts and packing over real HTTP: what shoppers, lines and scanners without a network hear of them."""

import itertools
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from codes import orders, ranges
from codes.ranges import IndexRange
from kit.db import Session
from scan_api import withdrawals
from scan_api.provenance.packed import CONTENTS_SHOWN_MAX
from tests.scan_api.test_serial_life import new_order
from tests.stand import GTIN, OTHER_GTIN, Item, PlacedOrder, Stand

numbers = itertools.count(70_000)
EARLY, LATE = "2026-05-01T08:00:00Z", "2026-05-02T08:00:00Z"


def new_box() -> str:
    return f"urn:epc:id:sscc:9506000.{next(numbers):010}"


@pytest.fixture
def order(stand: Stand) -> PlacedOrder:
    made = new_order(stand)
    body = {"step": "activated", "gtin": made.gtin, "order_number": made.number}
    assert stand.http.post("/v1/brand/events", json=body, headers=stand.key("brand")).status_code == 201
    return made


Post = Callable[..., httpx2.Response]


@pytest.fixture
def pack(stand: Stand) -> Post:
    def post(action: str, parent: str, *children: str, role: str = "logistics", **more: Any) -> httpx2.Response:
        body = {"action": action, "parent": parent, "children": children, **more}
        return stand.http.post("/v1/packing", json=body, headers=stand.key(role))

    return post


@pytest.fixture
def act(stand: Stand) -> Post:
    def post(what: str, role: str = "brand", **more: Any) -> httpx2.Response:
        return stand.http.post("/v1/brand/life", json={"act": what, **more}, headers=stand.key(role))

    return post


def error_of(stand: Stand, item: Item) -> str | None:
    answer: str | None = stand.scan(item.outer, user_agent="bot").json()["error"]
    return answer


def link(item: Item) -> str:
    return f"https://id.gs1.org/01/{item.gtin}/21/{item.serial}"


def contents(stand: Stand, thing: str, **more: Any) -> Any:
    return stand.http.get("/v1/packing/contents", params={"thing": thing, **more}, headers=stand.key("brand")).json()


def test_a_line_packs_unpacks_and_reworks(stand: Stand, order: PlacedOrder, pack: Post) -> None:
    box, pallet = new_box(), new_box()
    first, second, third = order.items[:3]
    told = pack("add", box, stand.text(first.outer), stand.text(second.inner), at=EARLY)
    assert (told.status_code, told.json()["accepted"]) == (201, 1)
    again = pack("add", box, stand.text(first.outer), stand.text(second.inner), at=EARLY).json()
    assert (again["accepted"], again["duplicates"], again["event_ids"]) == (0, 1, told.json()["event_ids"])
    pack("add", pallet, box, at="2026-05-01T09:00:00Z")
    pack("replace", box, link(third), removed=[link(first)], at=LATE)
    assert {one["thing"] for one in contents(stand, box, at="2026-05-01T10:00:00Z")["things"]} == {
        link(first),
        link(second),
    }
    assert {one["thing"] for one in contents(stand, pallet, at=LATE)["things"] if one["level"] == 2} == {
        link(second),
        link(third),
    }
    assert contents(stand, pallet, limit=1)["is_cut"]
    chain = stand.http.get(
        "/v1/packing/containers", params={"thing": stand.text(third.inner)}, headers=stand.key("logistics")
    ).json()["containers"]
    assert [one["level"] for one in chain] == [1, 2]
    pack("empty", box)
    assert contents(stand, box)["things"] == []
    found = stand.http.get(
        "/epcis/events", params={"MATCH_epc": link(third), "EQ_bizStep": "packing"}, headers=stand.key("brand")
    )
    [event] = found.json()["epcisBody"]["queryResults"]["resultsBody"]["eventList"]
    assert event["childEPCs"] == [link(third)]  # without the signature


@pytest.mark.parametrize(
    "body",
    [
        {"action": "add", "parent": "urn:epc:id:sscc:9506000.0000000001", "children": []},
        {"action": "empty", "parent": "urn:epc:id:sscc:9506000.0000000001", "children": ["urn:x:1"]},
        {"action": "add", "parent": "a box", "children": ["urn:x:1"]},
        {"action": "add", "parent": "urn:x:1", "children": ["an item"]},
        {"action": "replace", "parent": "urn:x:1", "children": ["urn:x:2"]},
        {"action": "add", "parent": "urn:x:1", "children": ["urn:x:2"], "removed": ["urn:x:3"]},
        {"action": "add", "parent": "urn:x:1", "children": ["urn:x:2"], "at": "2999-01-01T00:00:00Z"},
        {"action": "add", "parent": "urn:x:1", "children": ["urn:x:2"], "at": "2190-01-01T00:00:00Z"},
        {"action": "add", "parent": "urn:x:1", "children": ["urn:x:2"], "read_point": "dock 3"},
        {"action": "add", "parent": "urn:epc:id:sscc:950.1", "children": ["urn:x:2"]},
    ],
    ids=range(10),
)
def test_a_scan_that_says_nothing_is_refused(stand: Stand, body: dict[str, Any]) -> None:
    answer = stand.http.post("/v1/packing", json=body, headers=stand.key("logistics"))
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("count", [1_000, 1_001])
def test_a_scan_moves_a_thousand_things(stand: Stand, pack: Post, count: int) -> None:
    start = next(numbers) * 10_000
    things = [f"urn:epc:id:sgtin:9506000.013435.{start + number}" for number in range(count)]
    assert pack("add", new_box(), *things).status_code == (201 if count == 1_000 else 400)


def test_only_who_may_packs_and_acts(stand: Stand, pack: Post, act: Post) -> None:
    for role in ("shop", "regulator"):
        assert pack("add", new_box(), "urn:x:2", role=role).status_code == 403
    for role in ("shop", "logistics"):
        assert act("hold", role, thing=new_box()).status_code == 403
    params = {"thing": new_box(), "limit": CONTENTS_SHOWN_MAX + 1}
    assert stand.http.get("/v1/packing/contents", params=params, headers=stand.key("brand")).status_code == 400


def test_a_held_container_holds_what_is_in_it_until_it_is_lifted(
    stand: Stand, order: PlacedOrder, pack: Post, act: Post
) -> None:
    box, pallet, inside, outside = new_box(), new_box(), order.items[0], order.items[1]
    pack("add", box, link(inside), at=EARLY)
    pack("add", pallet, box, at=EARLY)
    assert act("hold", thing=pallet, reason="investigation").json() == {"items": None, "marks": 1}
    assert act("hold", thing=pallet, reason="investigation").json() == {"items": None, "marks": 0}
    answer = stand.scan(inside.outer)
    assert (answer.status_code, answer.json()["error"], answer.json()["verdict"]) == (409, "Held", "refused")
    assert "暂停" in stand.scan(inside.outer, accept="text/html", accept_language="zh-CN").text
    refused = stand.claim(stand.member(), inside.inner)
    assert (refused.status_code, refused.json()["code"]) == (409, "Held")
    assert error_of(stand, outside) is None
    pack("empty", box)  # what was in it when it was held stays held
    assert error_of(stand, inside) == "Held"
    pack("add", box, link(outside))
    assert error_of(stand, outside) == "Held"
    assert act("lift", thing=pallet).json() == {"items": None, "marks": 1}
    assert [error_of(stand, item) for item in (inside, outside)] == [None, None]
    assert stand.claim(stand.member(), inside.inner).status_code == 201


def _told(stand: Stand, item: Item) -> list[dict[str, Any]]:
    """What the timeline tells of acts."""
    timeline = stand.scan(item.outer, user_agent="bot").json()["timeline"]
    return [one for one in timeline if one["step"] in ("held", "recalled", "voided")]


HELD_SINCE, RECALLED_SINCE = "2026-05-03T08:00:00.000Z", "2026-05-04T08:00:00.000Z"


def test_the_timeline_tells_since_when_an_item_is_held_or_recalled_and_not_why(
    stand: Stand, order: PlacedOrder, pack: Post, act: Post
) -> None:
    box, item, whole = new_box(), order.items[0], {"gtin": GTIN, "order_number": order.number}
    pack("add", box, link(item), at=EARLY)
    assert _told(stand, item) == []
    act("hold", thing=box, reason="diversion", at="2026-05-05T08:00:00Z")
    act("hold", thing=link(item), reason="stolen", at=HELD_SINCE)
    held = {"step": "held", "at": HELD_SINCE, "place": None, "by": None}
    assert _told(stand, item) == [held]
    for language, words in (("zh-CN", "品牌方暂停销售"), ("en", "Held back by the brand")):
        page = stand.scan(item.outer, accept="text/html", accept_language=language, user_agent="bot").text
        assert words in page
        assert not [word for word in ("diversion", "stolen", "窜货", "被盗") if word in page]
    act("lift", thing=box)
    act("lift", thing=link(item))
    assert _told(stand, item) == []
    act("recall", thing=box, message="Glass.", reason="safety", at=RECALLED_SINCE)
    recalled = {"step": "recalled", "at": RECALLED_SINCE, "place": None, "by": None}
    assert _told(stand, item) == [recalled]
    act("void", thing=box, reason="damaged", at=LATE)
    assert [one["step"] for one in _told(stand, item)] == ["voided", "recalled"]
    act("recall", **whole, message="Stop all.")
    assert [one["step"] for one in _told(stand, item)] == ["voided", "recalled"]  # once, by the order's own event
    for language, words in (("zh-CN", "品牌方召回"), ("en", "Recalled by the brand")):
        page = stand.scan(item.outer, accept="text/html", accept_language=language, user_agent="bot").text
        assert words in page


def test_what_left_a_container_before_is_not_recalled(stand: Stand, order: PlacedOrder, pack: Post, act: Post) -> None:
    box, gone, there = new_box(), order.items[0], order.items[1]
    pack("add", box, link(gone), link(there), at=EARLY)
    pack("remove", box, link(gone), at=LATE)
    assert act("recall", thing=box, reason="safety", message="Glass.", at="2026-05-03T08:00:00Z").status_code == 201
    assert error_of(stand, gone) is None
    assert stand.scan(there.outer).json()["message"] == "Glass."
    assert act("lift", thing=box).json()["marks"] == 0
    told = stand.run(lambda session: withdrawals.withdrawn(session, stand.vault))
    assert (GTIN, order.number, int(there.serial[5:])) in told.items
    assert (GTIN, order.number, int(gone.serial[5:])) not in told.items


def test_a_lot_is_bound_shown_and_recalled(stand: Stand, order: PlacedOrder, act: Post) -> None:
    lot, item = f"L{next(numbers)}", order.items[3]
    bound = {"gtin": GTIN, "order_number": order.number, "ranges": "0-4", "lot": lot, "expires_on": "2026-01-31"}
    answer = stand.http.post("/v1/brand/lots", json=bound, headers=stand.key("brand"))
    assert (answer.status_code, answer.json()) == (201, {"items": 5})
    seen = stand.scan(item.outer).json()
    assert seen["lot"] == {"lot": lot, "produced_on": None, "expires_on": "2026-01-31"}
    assert seen["warnings"] == ["expired"]
    assert "有效期" in stand.scan(item.outer, accept="text/html", accept_language="zh-CN").text
    assert act("recall", gtin=GTIN, lot=lot, message="Wrong label.", reason="labelling").json()["marks"] == 1
    assert [error_of(stand, order.items[index]) for index in (0, 4, 5)] == ["Recalled", "Recalled", None]
    told = stand.run(lambda session: withdrawals.withdrawn(session, stand.vault))
    mine = [one for one in told.items if one[:2] == (GTIN, order.number)]
    assert sorted(mine) == sorted((GTIN, order.number, int(one.serial[5:])) for one in order.items[:5])


def test_items_and_ranges_are_held_let_go_in_part_and_the_danger_is_told_first(
    stand: Stand, order: PlacedOrder, act: Post
) -> None:
    whole = {"gtin": GTIN, "order_number": order.number}
    assert act("hold", **whole, ranges="0-9", message="All held.").json() == {"items": 10, "marks": 1}
    assert act("hold", thing=link(order.items[2]), message="This one held.").json()["marks"] == 1
    assert stand.scan(order.items[2].outer).json()["message"] == "All held."  # the batch overrides the item
    assert act("lift", **whole, ranges="2-4").json()["marks"] == 1
    assert stand.scan(order.items[2].outer).json()["message"] == "This one held."
    assert [error_of(stand, order.items[index]) for index in (1, 3, 4, 5, 9, 10)] == [
        "Held", None, None, "Held", "Held", None
    ]  # fmt: skip
    assert act("void", thing=link(order.items[1]), reason="sample").json() == {"items": 1, "marks": 0}
    assert error_of(stand, order.items[1]) == "Voided"
    assert act("recall", thing=link(order.items[1]), message="Stop.").json()["marks"] == 1
    assert error_of(stand, order.items[1]) == "Recalled"
    assert act("recall", **whole, message="Stop all.").json()["items"] == len(order.items)
    assert stand.scan(order.items[1].outer).json()["message"] == "Stop all."


def test_a_container_and_a_lot_go_on_sale(stand: Stand, pack: Post, act: Post) -> None:
    dormant, box, lot = new_order(stand), new_box(), f"N{next(numbers)}"
    pack("add", box, *[link(item) for item in dormant.items[3:6]], "urn:epc:id:sgtin:9506000.099999.1")
    assert act("activate", thing=box).json() == {"items": 3, "marks": 0}
    body = {"gtin": GTIN, "order_number": dormant.number, "ranges": "5-7", "lot": lot}
    stand.http.post("/v1/brand/lots", json=body, headers=stand.key("brand"))
    assert act("activate", gtin=GTIN, lot=lot).json()["items"] == 2
    assert act("activate", thing=link(dormant.items[0])).json()["items"] == 1
    on_sale = [not stand.scan(item.outer, user_agent="bot").json()["warnings"] for item in dormant.items]
    assert [index for index, is_on in enumerate(on_sale) if is_on] == [0, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"thing": "urn:x:1", "gtin": GTIN},
        {"gtin": GTIN},
        {"gtin": GTIN, "lot": "L1", "order_number": 1},
        {"gtin": GTIN, "lot": "L1", "ranges": "0-1"},
        {"gtin": GTIN, "lot": "a lot"},
        {"gtin": OTHER_GTIN, "lot": "L1"},
        {"gtin": OTHER_GTIN, "order_number": 1},
        {"thing": "urn:x:1", "act": "recall"},
        {"thing": "urn:x:1", "message": " "},
        {"thing": "urn:x:1", "at": "2190-01-01T00:00:00Z"},
    ],
    ids=range(11),
)
def test_an_act_that_names_nothing_is_refused(act: Post, body: dict[str, Any]) -> None:
    answer = act(**{"what": body.get("act", "hold"), **{name: body[name] for name in body if name != "act"}})
    assert answer.status_code in (400, 404), answer.text


def test_what_is_at_a_place_is_listed_page_by_page(stand: Stand, order: PlacedOrder, pack: Post) -> None:
    box, place = new_box(), f"urn:epc:id:sgln:9506000.{next(numbers) % 100_000:05}.hall"
    pack("add", box, link(order.items[0]), link(order.items[1]), at=EARLY)
    moved = {
        "type": "ObjectEvent", "action": "OBSERVE", "eventTime": LATE, "eventTimeZoneOffset": "+00:00",
        "epcList": [box], "bizStep": "receiving", "bizLocation": {"id": place},
    }  # fmt: skip
    context = {"GS1-EPCIS-Version": "2.0.0", **stand.key("logistics")}
    body = {"@context": "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld", **moved}
    assert stand.http.post("/epcis/events", json=body, headers=context).status_code == 201

    def page(**more: Any) -> httpx2.Response:
        params = {"place": place, **more}
        return stand.http.get("/v1/packing/present", params=params, headers=stand.key("brand"))

    whole = page().json()
    assert [one["since"] for one in whole["data"]] == ["2026-05-02T08:00:00.000Z"] * 3
    assert {one["moved"] for one in whole["data"]} == {whole["data"][0]["thing"]}  # the box comes first
    assert [one["thing"] for one in whole["data"][1:]] == sorted(link(item) for item in order.items[:2])
    assert (whole["next_cursor"], whole["data"][0]["is_under_way"]) == (None, False)
    found, cursor = [], None
    while not found or cursor is not None:
        answer = page(limit=1, **({"cursor": cursor} if cursor else {})).json()
        found, cursor = found + answer["data"], answer["next_cursor"]
    assert found == whole["data"]
    for wrong in ({"cursor": "x"}, {"cursor": "W10"}, {"limit": 0}, {"limit": 101}, {"place": ""}):
        assert page(**wrong).status_code == 400


def test_an_item_seen_outside_its_distributors_region_was_diverted(stand: Stand, order: PlacedOrder) -> None:
    holder = f"North Trade {next(numbers)}"

    async def allot(session: Session) -> None:
        placed = await orders.order_numbered(session, GTIN, order.number)
        await ranges.allot(session, placed, [IndexRange(0, 9)], holder)

    stand.run(allot)
    told = stand.http.put(
        "/v1/brand/sales-regions", json={"holder": holder, "regions": ["110000"]}, headers=stand.key("brand")
    )
    assert (told.status_code, told.json()["regions"]) == (200, ["11"])

    def seen_in(item: Item, region: str) -> Any:
        params = {"thing": stand.text(item.outer), "region": region}
        return stand.http.get("/v1/packing/holding", params=params, headers=stand.key("brand")).json()["diversion"]

    assert seen_in(order.items[3], "310000") == {
        "holder": holder, "sold_in": ["11"], "seen_in": "31", "is_diverted": True
    }  # fmt: skip
    assert seen_in(order.items[3], "110105")["is_diverted"] is False
    assert seen_in(order.items[10], "110105")["is_diverted"] is None
    listed = stand.http.get("/v1/brand/stock", headers=stand.key("brand")).json()["allotted"]
    assert {"gtin": GTIN, "holder": holder, "items": 10, "sold_in": ["11"]} in listed
