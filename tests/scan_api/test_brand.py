"""What brands, carriers of goods and shops send: events within limits, and coupons that are checked off once."""

import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlmodel import select

from loyalty.ledger import Entry
from scan_api.provenance.events import ITEMS_PER_EVENT_MAX, PLACE_CHARACTERS_MAX, ItemEvent, OrderEvent
from tests.stand import Stand


def _send(stand: Stand, order: str = "on sale", role: str = "brand", **body: Any) -> httpx2.Response:
    placed = stand.order(order)
    sent = {"step": "shipped", "gtin": placed.gtin, "order_number": placed.number, **body}
    return stand.http.post("/v1/brand/events", json=sent, headers=stand.key(role))


def _error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _refused_without_a_trace(stand: Stand, status: int, code: str, **event: Any) -> None:
    before = stand.counts()
    assert _error(_send(stand, **event)) == (status, code)
    assert stand.counts() == before


def test_event_of_named_items_is_a_row_an_item_under_one_id(stand: Stand) -> None:
    items = stand.take_items(3)
    answer = _send(stand, serials=[item.serial for item in items], place="Qingdao", role="logistics")
    assert (answer.status_code, answer.json()["items"]) == (201, 3)
    rows = stand.rows(select(ItemEvent).where(ItemEvent.event_id == uuid.UUID(answer.json()["event_id"])))
    assert {(row.step, row.place, row.by) for row in rows} == {("shipped", "Qingdao", "logistics")}
    assert len(rows) == 3
    steps = [(step["step"], step["place"], step["by"]) for step in stand.scan(items[0].outer).json()["timeline"]]
    assert ("shipped", "Qingdao", "logistics") in steps


def test_event_of_a_whole_order_is_one_row(stand: Stand) -> None:
    before = stand.counts()
    answer = _send(stand, order="other brand", role="other brand", step="received", place="Shanghai")
    assert answer.json()["items"] == 500
    after = stand.counts()
    assert (after["order_event"] - before["order_event"], after["item_event"] - before["item_event"]) == (1, 0)
    [row] = stand.rows(select(OrderEvent).where(OrderEvent.event_id == uuid.UUID(answer.json()["event_id"])))
    assert row.step == "received"


def test_activation_puts_a_dormant_order_on_sale_once(stand: Stand) -> None:
    placed, member = stand.order("to be activated"), stand.member()
    item = placed.items[0]
    assert _error(stand.claim(member, item.inner)) == (409, "ItemNotOnSale")
    parallel = {
        "url": "/v1/brand/events",
        "json": {"step": "activated", "gtin": item.gtin, "order_number": placed.number},
        "headers": stand.key("brand"),
    }
    answers = [answer.json() for answer in stand.at_once([parallel] * 10)]
    assert Counter(answer["items"] for answer in answers) == {20: 1, 0: 9}
    assert stand.scan(item.inner).json()["warnings"] == []
    assert stand.claim(member, item.inner).status_code == 201
    steps = [step["step"] for step in stand.scan(item.inner).json()["timeline"]]
    assert steps.count("activated") == 1


def test_recalled_order_cannot_be_put_on_sale(stand: Stand) -> None:
    _refused_without_a_trace(stand, 409, "OrderStateForbids", order="recalled", step="activated")


def test_named_items_cannot_be_put_on_sale(stand: Stand) -> None:
    _refused_without_a_trace(
        stand, 400, "EventInvalid", step="activated", serials=[stand.order("on sale").items[0].serial]
    )


@pytest.mark.parametrize("step", ["commissioned", "recalled", "scanned", "claimed"])
def test_step_that_is_not_the_callers_to_record_is_refused(stand: Stand, step: str) -> None:
    _refused_without_a_trace(stand, 400, "EventInvalid", step=step)


def test_as_many_serials_as_the_limit(stand: Stand) -> None:
    serials = [item.serial for item in stand.order("on sale").items[-ITEMS_PER_EVENT_MAX:]]
    assert _send(stand, serials=serials[:-1]).json()["items"] == ITEMS_PER_EVENT_MAX - 1
    assert _send(stand, serials=serials).json()["items"] == ITEMS_PER_EVENT_MAX
    more = [*serials, stand.order("on sale").items[0].serial]
    _refused_without_a_trace(stand, 400, "RequestInvalid", serials=more)


def test_no_serials_or_one_twice(stand: Stand) -> None:
    serial = stand.order("on sale").items[0].serial
    _refused_without_a_trace(stand, 400, "EventInvalid", serials=[])
    _refused_without_a_trace(stand, 400, "EventInvalid", serials=[serial, serial])


def test_serial_that_the_order_never_had(stand: Stand) -> None:
    genuine = stand.order("on sale").items[0].serial
    never = stand.installation.refused["NeverIssued serial"][-14:]
    of_another_order = stand.order("dormant").items[0].serial
    for wrong in (never, of_another_order):
        _refused_without_a_trace(stand, 404, "ItemUnknown", serials=[genuine, wrong])
    for text in ("123", "1" * 15, "x" * 14, "１" * 14):
        _refused_without_a_trace(stand, 400, "RequestInvalid", serials=[genuine, text])


def test_unknown_order(stand: Stand) -> None:
    _refused_without_a_trace(stand, 404, "OrderUnknown", order_number=98_765)
    for number in (0, 100_000, -1, "x"):
        _refused_without_a_trace(stand, 400, "RequestInvalid", order_number=number)


def test_place_has_1_to_200_characters(stand: Stand) -> None:
    serials = [stand.take_item().serial]
    for place in ("仓", "仓" * PLACE_CHARACTERS_MAX, None):
        assert _send(stand, serials=serials, place=place).status_code == 201
    for place in ("", "x" * (PLACE_CHARACTERS_MAX + 1)):
        _refused_without_a_trace(stand, 400, "RequestInvalid", serials=serials, place=place)


def test_place_without_characters_that_no_database_keeps(stand: Stand) -> None:
    serials = [stand.take_item().serial]
    assert _send(stand, serials=serials, place="a\x00b").status_code == 400


def test_place_is_shown_as_text(stand: Stand) -> None:
    item = stand.take_item()
    _send(stand, serials=[item.serial], place="<script>alert(1)</script>")
    page = stand.scan(item.outer, accept="text/html").text
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("shift", "status"),
    [(timedelta(minutes=4), 201), (timedelta(minutes=6), 400), (timedelta(days=-400), 201), (timedelta(0), 201)],
)
def test_time_may_lie_back_but_not_ahead(stand: Stand, shift: timedelta, status: int) -> None:
    at = (datetime.now(UTC) + shift).isoformat()
    assert _send(stand, serials=[stand.take_item().serial], at=at).status_code == status


@pytest.mark.parametrize("at", ["2026-05-01T08:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_time_that_means_no_moment_is_refused(stand: Stand, at: str) -> None:
    _refused_without_a_trace(stand, 400, "EventInvalid", at=at)


@pytest.mark.parametrize("at", ["yesterday", "2026-13-01T00:00:00Z", "", [], 10**30])
def test_what_is_no_time_is_refused(stand: Stand, at: object) -> None:
    _refused_without_a_trace(stand, 400, "RequestInvalid", at=at)


def test_time_with_a_zone_is_kept_as_the_same_moment(stand: Stand) -> None:
    item = stand.take_item()
    _send(stand, serials=[item.serial], at="2026-05-01T08:00:00+08:00")
    shipped = [step["at"] for step in stand.scan(item.outer).json()["timeline"] if step["step"] == "shipped"]
    assert shipped == ["2026-05-01T00:00:00.000Z"]


def test_unknown_field_is_refused(stand: Stand) -> None:
    _refused_without_a_trace(stand, 400, "RequestInvalid", quantity=5)


def _coupon(stand: Stand) -> str:
    code: str = stand.claim(stand.member(), stand.take_item().outer, "coupon").json()["coupon_code"]
    return code


def _redemption(stand: Stand, code: str, key: str | None = None) -> dict[str, Any]:
    return {
        "url": "/v1/shop/redemptions",
        "json": {"coupon_code": code},
        "headers": {**stand.key("shop"), "Idempotency-Key": key or str(uuid.uuid4())},
    }


def _redeem(stand: Stand, code: str, key: str | None = None) -> httpx2.Response:
    return stand.http.post(**_redemption(stand, code, key))


def test_coupon_is_redeemed_once_by_twenty_tills_at_once(stand: Stand) -> None:
    code = _coupon(stand)
    before = stand.counts()
    answers = stand.at_once([_redemption(stand, code) for _ in range(20)])
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 19}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"CouponAlreadyRedeemed"}
    after = stand.counts()
    assert after["ledger_transfer"] - before["ledger_transfer"] == 1
    assert after["idempotent_request"] - before["idempotent_request"] == 1
    assert stand.books().faults == ()
    assert set(stand.asset_totals().values()) == {0}


def test_redemption_that_is_repeated_gets_its_answer_again(stand: Stand) -> None:
    code, key = _coupon(stand), str(uuid.uuid4())
    answers = stand.at_once([_redemption(stand, code, key)] * 20)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["value_fen"] == 500
    assert _error(_redeem(stand, _coupon(stand), key)) == (409, "IdempotencyKeyReused")


def test_coupon_is_read_as_people_type_it(stand: Stand) -> None:
    code = _coupon(stand)
    typed = f" {code.replace('-', ' ').lower().replace('0', 'o').replace('1', 'l')} "
    assert _redeem(stand, typed).status_code == 201


def test_member_sees_his_coupon_as_redeemed(stand: Stand) -> None:
    member, item = stand.member(), stand.take_item()
    code = stand.claim(member, item.outer, "coupon").json()["coupon_code"]
    assert _redeem(stand, code).status_code == 201
    [held] = stand.http.get("/v1/me", headers=member.headers).json()["coupons"]
    assert held["state"] == "redeemed"
    assert len(stand.rows(select(Entry).where(Entry.holder_id == member.member_id, Entry.purpose == "redeemed"))) == 1


@pytest.mark.parametrize("code", ["", "0000-0000-0000-0000", "\x00", "﷐"])
def test_coupon_that_nobody_holds_is_unknown(stand: Stand, code: str) -> None:
    # A code that is none counts towards the till's limit, which is all that stays of it.
    before = stand.counts(without=["code_window"])
    assert _error(_redeem(stand, code)) == (404, "CouponUnknown")
    assert stand.counts(without=["code_window"]) == before
