"""Parts of an order over real HTTP: put on sale, voided, and what shoppers, members and regulators see of it."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from sqlmodel import col, select

from codes import acts, orders, ranges
from codes.ranges import RANGES_PER_CALL_MAX, IndexRange
from codes.serials import ITEM_NUMBERS, scheme_of
from kit.db import Session
from loyalty.claims import Claim
from offline_sdk.code_text import Profile, encode_message, encode_text
from scan_api.provenance import events
from scan_api.provenance.events import Happening, RangeEvent, Step
from scan_api.routers.brand import RANGES_CHARACTERS_MAX
from signer.keys import SigningKey
from tests.stand import GTIN, PLACED_AT, Item, PlacedOrder, Stand, signer_of

QUANTITY = 20
TITLES = {"zh-CN": "此码在上市前已停用", "en": "Code withdrawn before sale"}


def new_order(stand: Stand) -> PlacedOrder:
    """A dormant order that no other test has."""

    async def place(session: Session) -> PlacedOrder:
        plan = await orders.plan(session, GTIN, QUANTITY, tuple(Profile), "https://id.example.cn")
        placed = await orders.place(session, plan, PLACED_AT)
        await events.record_for_order(session, placed, Happening(Step.COMMISSIONED, PLACED_AT, None, None), PLACED_AT)
        scheme, key = await scheme_of(session, stand.vault, 1), await session.get_one(SigningKey, placed.kid)
        signer = signer_of(stand.home)
        items = []
        for item_number in scheme.item_numbers(GTIN, placed.order_number, 0, QUANTITY).tolist():
            item = Item(GTIN, placed.serial(item_number))
            for face in Profile:
                message = encode_message(int(face), key.kid, GTIN, item.serial)
                [signature] = signer.sign_many(key, [message])
                path = encode_text("", face, key.kid, signature, GTIN, item.serial)
                item = replace(item, **{face.name.lower(): path})
            items.append(item)
        return PlacedOrder(GTIN, placed.order_number, placed.order_id or 0, tuple(items))

    made: PlacedOrder = stand.run(place)
    return made


@pytest.fixture
def order(stand: Stand) -> PlacedOrder:
    return new_order(stand)


@pytest.fixture
def send(stand: Stand, order: PlacedOrder) -> Callable[..., httpx2.Response]:
    """Capture an event of the order: (step, ranges=None, role="brand", **more of the body)."""

    def capture(step: str, ranges: str | None = None, role: str = "brand", **more: Any) -> httpx2.Response:
        body = {"step": step, "gtin": order.gtin, "order_number": order.number, "ranges": ranges, **more}
        return stand.http.post("/v1/brand/events", json=body, headers=stand.key(role))

    return capture


Send = Callable[..., httpx2.Response]


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def steps(stand: Stand, item: Item) -> list[str]:
    """The recorded steps of an item, without its scans."""
    timeline = stand.scan(item.outer, user_agent="bot").json()["timeline"]
    return [step["step"] for step in timeline if step["step"] != "scanned"]


def claims_of(stand: Stand, order: PlacedOrder, items: Sequence[Item]) -> list[Claim]:
    keys = [order.order_id * ITEM_NUMBERS + int(item.serial[5:]) for item in items]
    return stand.rows(select(Claim).where(col(Claim.item_key).in_(keys)))


def test_a_part_goes_on_sale_by_itself(stand: Stand, order: PlacedOrder, send: Send) -> None:
    answer = send("activated", "0-4,7", place="Jinan")
    assert (answer.status_code, answer.json()["items"]) == (201, 6)
    assert [stand.scan(order.items[index].inner).json()["warnings"] for index in (4, 5, 6, 7)] == [
        [], ["not_active"], ["not_active"], []
    ]  # fmt: skip
    member = stand.member()
    assert stand.claim(member, order.items[7].inner).status_code == 201
    assert error_of(stand.claim(member, order.items[6].inner)) == (409, "ItemNotOnSale")
    assert steps(stand, order.items[4]) == ["commissioned", "activated"]
    assert steps(stand, order.items[5]) == ["commissioned"]
    rows = stand.rows(select(RangeEvent).where(RangeEvent.event_id == uuid.UUID(answer.json()["event_id"])))
    assert {(row.first_index, row.last_index, row.place, row.by) for row in rows} == {
        (0, 4, "Jinan", "brand"),
        (7, 7, "Jinan", "brand"),
    }


def test_serials_name_a_range_in_the_order_of_printing(stand: Stand, order: PlacedOrder, send: Send) -> None:
    first, last = order.items[3].serial, order.items[9].serial
    assert send("activated", f"{first}-{last}").json()["items"] == 7
    assert send("activated", f"{last}-{first}").status_code == 400
    assert [bool(stand.scan(order.items[index].outer).json()["warnings"]) for index in (2, 3, 9, 10)] == [
        True, False, False, True
    ]  # fmt: skip


@pytest.mark.parametrize("face", ["outer", "inner"])
def test_a_voided_code_is_refused_but_known(stand: Stand, order: PlacedOrder, send: Send, face: str) -> None:
    send("activated")
    assert send("voided", "5-6").json()["items"] == 2
    answer = stand.scan(getattr(order.items[5], face))
    seen = answer.json()
    assert (answer.status_code, seen["verdict"], seen["error"], seen["offers"]) == (410, "refused", "Voided", [])
    assert (seen["product"]["brand"], seen["warnings"], seen["scan_count"]) == ("star-cream", [], 1)
    assert "before sale" in seen["message"]
    assert steps(stand, order.items[5]) == ["commissioned", "activated", "voided"]
    assert stand.scan(getattr(order.items[7], face)).status_code == 200


@pytest.mark.parametrize("language", TITLES)
def test_a_voided_code_has_a_page_that_leads_to_no_claim(
    stand: Stand, order: PlacedOrder, send: Send, language: str
) -> None:
    send("voided", "5")
    page = stand.scan(order.items[5].inner, accept="text/html", accept_language=language)
    assert page.status_code == 410
    assert TITLES[language] in page.text
    assert "code_text" not in page.text


def test_a_voided_code_pays_nothing(stand: Stand, order: PlacedOrder, send: Send) -> None:
    send("activated")
    send("voided", "0-9")
    member = stand.member()
    before = stand.counts()
    assert error_of(stand.claim(member, order.items[9].inner)) == (410, "Voided")
    assert stand.counts() == before
    assert stand.claim(member, order.items[10].inner).status_code == 201


def test_what_is_voided_stays_so_when_the_order_goes_on_sale(stand: Stand, order: PlacedOrder, send: Send) -> None:
    send("activated", "0-4")
    send("voided", "5-9")
    refused = send("activated", "4-5")
    assert error_of(refused) == (409, "RangeVoided")
    assert "issue indexes 5 of" in refused.json()["detail"]
    assert send("activated").json()["items"] == QUANTITY
    assert [stand.scan(order.items[index].inner).status_code for index in (4, 5, 9, 10)] == [200, 410, 410, 200]
    assert steps(stand, order.items[0]) == ["commissioned", "activated"]
    assert steps(stand, order.items[5]) == ["commissioned", "voided"]
    assert steps(stand, order.items[10]) == ["commissioned", "activated"]


def test_a_change_is_recorded_once(stand: Stand, order: PlacedOrder, send: Send) -> None:
    assert [send("voided", ranges).json()["items"] for ranges in ("2-3", "0-5", "0-5")] == [2, 4, 0]
    assert send("voided", "0-5").json()["event_id"] is None
    assert steps(stand, order.items[2]) == steps(stand, order.items[5]) == ["commissioned", "voided"]

    async def recorded(session: Session) -> list[acts.Act]:
        return await acts.acts_of(session, order.order_id)

    assert [(act.kind, act.by, act.detail) for act in stand.run(recorded)] == [
        ("voided", "brand", {"ranges": "2-3", "items": 2}),
        ("voided", "brand", {"ranges": "0-5", "items": 4}),
    ]


def test_a_recall_is_told_of_a_voided_item_too(stand: Stand, order: PlacedOrder, send: Send) -> None:
    send("voided", "5")

    async def recall(session: Session) -> None:
        await orders.recall(session, await orders.order_numbered(session, GTIN, order.number), "glass")

    stand.run(recall)
    assert stand.scan(order.items[5].outer).json()["error"] == "Recalled"
    assert error_of(send("voided", "6")) == error_of(send("activated", "6")) == (409, "OrderStateForbids")


def test_regulator_reads_of_a_voided_item_that_its_serial_ended(stand: Stand, order: PlacedOrder, send: Send) -> None:
    send("activated", "0-9")
    send("voided", "5")

    def read(index: int) -> Any:
        path = f"/v1/regulator/items/{GTIN}/{order.items[index].serial}"
        return stand.http.get(path, headers=stand.key("regulator")).json()

    voided, kept, dormant = (read(index) for index in (5, 6, 10))
    assert [one["item"]["state"] for one in (voided, kept, dormant)] == ["voided", "active", "dormant"]
    history = voided["epcis"]["epcisBody"]["eventList"]
    assert [event["fanxing:step"] for event in history] == ["commissioned", "activated", "voided"]
    assert (history[-1]["action"], history[-1]["bizStep"], history[-1]["disposition"]) == (
        "DELETE", "decommissioning", "inactive"
    )  # fmt: skip
    assert "fanxing:order" not in history[-1]
    assert [event["fanxing:step"] for event in kept["epcis"]["epcisBody"]["eventList"]] == ["commissioned", "activated"]


# What is refused.


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"step": "voided"}, "EventInvalid"),
        ({"step": "voided", "serials": ["0" * 14]}, "EventInvalid"),
        ({"step": "voided", "ranges": "1", "serials": ["0" * 14]}, "EventInvalid"),
        ({"step": "activated", "ranges": "1", "serials": ["0" * 14]}, "EventInvalid"),
        ({"step": "voided", "ranges": "1", "role": "logistics"}, "EventInvalid"),
        ({"step": "activated", "ranges": "1", "role": "logistics"}, "EventInvalid"),
        ({"step": "shipped", "ranges": "1"}, "EventInvalid"),
        ({"step": "received", "ranges": "1"}, "EventInvalid"),
        ({"step": "voided", "ranges": ""}, "RangeInvalid"),
        ({"step": "voided", "ranges": "0-20"}, "RangeInvalid"),
        ({"step": "voided", "ranges": "3-2"}, "RangeInvalid"),
        ({"step": "voided", "ranges": "9" * 14}, "RangeInvalid"),
        ({"step": "voided", "ranges": "x" * (RANGES_CHARACTERS_MAX + 1)}, "RequestInvalid"),
        ({"step": "voided", "ranges": ["1"]}, "RequestInvalid"),
    ],
)
def test_what_means_no_change_is_refused_without_a_trace(
    stand: Stand, send: Send, event: dict[str, Any], code: str
) -> None:
    before = stand.counts()
    assert error_of(send(**event)) == (400, code)
    assert stand.counts() == before


def test_other_brands_keys_change_nothing(stand: Stand, send: Send) -> None:
    assert send("voided", "1", role="other brand").status_code == 404
    for role in ("brand, other GTINs", "shop", "regulator"):
        assert send("voided", "1", role=role).status_code == 403


def test_a_request_names_at_most_1000_ranges(send: Send) -> None:
    many = ",".join(["7"] * RANGES_PER_CALL_MAX)
    assert send("voided", many).json()["items"] == 1
    assert error_of(send("voided", f"{many},7")) == (400, "RangeInvalid")
    assert send("activated", "8".ljust(RANGES_CHARACTERS_MAX)).json()["items"] == 1


# At the same time.


def test_a_claim_waits_for_a_voiding_that_it_cannot_see_yet(stand: Stand, order: PlacedOrder, send: Send) -> None:
    send("activated")
    member, item = stand.member(), order.items[5]
    with ThreadPoolExecutor(1) as thread:

        async def void(session: Session) -> Any:
            await ranges.void(session, await orders.order_numbered(session, GTIN, order.number), [IndexRange(5, 5)])
            claiming = thread.submit(stand.claim, member, item.inner)
            time.sleep(0.5)
            assert not claiming.done()
            return claiming

        claiming = stand.run(void)
        assert error_of(claiming.result(30)) == (410, "Voided")
    assert claims_of(stand, order, [item]) == []


def test_claims_that_race_with_a_voiding_are_paid_or_refused(stand: Stand, order: PlacedOrder, send: Send) -> None:
    send("activated")
    members = stand.members(QUANTITY)
    claims = [stand.claim_request(member, item.inner) for member, item in zip(members, order.items, strict=True)]
    event = {"step": "voided", "gtin": GTIN, "order_number": order.number, "ranges": f"0-{QUANTITY - 1}"}
    voiding = {"url": "/v1/brand/events", "json": event, "headers": stand.key("brand")}
    answers = stand.at_once([*claims[:10], voiding, *claims[10:]])
    assert answers.pop(10).json()["items"] == QUANTITY
    outcomes = Counter(answer.json()["code"] if answer.is_error else "granted" for answer in answers)
    assert outcomes.keys() <= {"granted", "Voided"}
    assert len(claims_of(stand, order, order.items)) == outcomes["granted"]
    assert stand.books().faults == ()
    late = [stand.claim(member, item.inner) for member, item in zip(members, order.items, strict=True)]
    assert {error_of(answer) for answer in late} == {(410, "Voided")}
