"""Traces over real HTTP: for systems as JSON, for people as a page."""

from urllib.parse import quote

import pytest

from scan_api.provenance.captures import IDENTIFIER_BYTES_MAX
from scan_api.provenance.trace import STEPS_MAX
from tests.scan_api.event_sender import LINK, URN, capture, numbers, seen, serial, without_record_time
from tests.stand import BRAND, Stand


def _sscc() -> str:
    return f"urn:epc:id:sscc:9506000.{next(numbers):010}"


def _traced(stand: Stand, thing: str, **params: int) -> dict[str, object]:
    answer = stand.http.get(f"/v1/trace/{quote(thing, safe='')}", params=params, headers=stand.key("brand"))
    assert answer.status_code == 200, answer.text
    told: dict[str, object] = answer.json()
    return told


def _journey(stand: Stand) -> tuple[str, str, list[dict[str, object]]]:
    item, box = serial(), _sscc()
    packed = {
        "type": "AggregationEvent",
        "eventTime": "2026-06-01T09:00:00Z",
        "eventTimeZoneOffset": "+08:00",
        "parentID": box,
        "childEPCs": [URN + item],
        "action": "ADD",
        "bizStep": "packing",
    }
    sent = seen(box, "2026-06-01T10:00:00Z") | {
        "epcList": [box],
        "readPoint": {"id": "geo:31.2304,121.4737"},
        "bizTransactionList": [{"type": "po", "bizTransaction": "urn:epcglobal:cbv:bt:9506000000000:PO-7"}],
    }
    come = sent | {
        "eventTime": "2026-06-03T10:00:00Z",
        "readPoint": {"id": "geo:30.5728,104.0668"},
        "bizStep": "receiving",
    }
    events = [seen(item, bizStep="commissioning"), packed, sent, come]
    capture(stand, *events)
    return item, box, events


def test_an_item_is_traced_under_every_name_through_its_box(stand: Stand) -> None:
    item, box, events = _journey(stand)
    for name in (URN + item, LINK + item, f"https://id.gs1.org/01/09506000134352/21/{item}"):
        told = _traced(stand, name)
        assert told["thing"] == f"https://id.gs1.org/01/09506000134352/21/{item}"
        assert [stop["bizStep"] for stop in told["way"]] == ["commissioning", "packing", "shipping", "receiving"]
        assert without_record_time(told["epcis"]["epcisBody"]["queryResults"]["resultsBody"]["eventList"]) == events
        assert [document["id"] for document in told["documents"]] == ["urn:epcglobal:cbv:bt:9506000000000:PO-7"]
    of_box = _traced(stand, box, steps=1)
    assert [(thing["direction"], thing["steps"]) for thing in of_box["things"]] == [("self", 0), ("down", 1)]


@pytest.mark.parametrize("sign", ["A", "7/b%"])
def test_what_happened_to_an_items_lot_is_in_its_trace(stand: Stand, sign: str) -> None:
    item, lot = serial(), f"{sign}{next(numbers)}"
    of_lot = f"https://id.gs1.org/01/09506000134352/10/{quote(lot, safe='')}"
    made = seen(item, action="ADD", bizStep="commissioning", ilmd={"cbvmda:lotNumber": lot})
    tested = seen(item, "2026-06-02T08:00:00Z", bizStep="inspecting", quantityList=[{"epcClass": of_lot}])
    capture(stand, made, tested | {"epcList": []})
    told = _traced(stand, URN + item)
    assert [stop["bizStep"] for stop in told["way"]] == ["commissioning", "inspecting"]
    assert [thing["id"] for thing in told["things"] if thing["direction"] == "self"] == [told["thing"], of_lot]
    assert told["lot"]["lot"] == lot


def test_a_lot_has_the_items_that_events_bound_to_it(stand: Stand) -> None:
    items, lot = [serial(), serial()], serial()
    made = {"action": "ADD", "bizStep": "commissioning", "ilmd": {"cbvmda:lotNumber": lot}}
    capture(stand, *(seen(item, **made) for item in items))
    told = _traced(stand, f"urn:epc:class:lgtin:9506000.013435.{lot}")
    names = sorted(f"https://id.gs1.org/01/09506000134352/21/{item}" for item in items)
    assert told["items"] == {"count": 2, "names": names, "is_cut": False}
    assert _traced(stand, URN + items[0])["items"] is None
    by = {"brand": BRAND}
    path = f"/v1/regulator/trace/{quote(f'https://id.gs1.org/01/09506000134352/10/{lot}', safe='')}"
    assert stand.http.get(path, params=by, headers=stand.key("regulator")).json()["items"] in (None, told["items"])


def test_the_page_shows_the_way_and_a_map_and_keeps_no_key(stand: Stand) -> None:
    item, _box, _events = _journey(stand)
    key = stand.key("brand")["Authorization"].removeprefix("Bearer ")
    asked = {"thing": URN + item, "key": key}
    page = stand.http.post("/trace", data=asked, headers={"accept-language": "en", "accept": "text/html"})
    assert page.status_code == 200
    assert key not in page.text
    assert page.text.count('r="8"/>') == 2
    assert "PO-7" in page.text
    assert page.text.index("commissioning") < page.text.index("shipping") < page.text.index("receiving")
    assert "geo:30.5728,104.0668" in page.text
    chinese = stand.http.post("/trace", data=asked, headers={"accept-language": "zh"})
    assert "收货" in chinese.text
    empty = stand.http.post("/trace", data=asked | {"thing": URN + serial()}, headers={"accept-language": "en"})
    assert "No event names it." in empty.text


def test_a_form_with_a_wrong_key_is_refused_and_tells_nothing(stand: Stand) -> None:
    item, _box, _events = _journey(stand)
    refused = stand.http.post("/trace", data={"thing": URN + item, "key": "fx_0"}, headers={"accept-language": "en"})
    assert (refused.status_code, "commissioning" in refused.text) == (401, False)
    assert "ApiKeyRefused" in refused.text
    foreign = stand.http.post(
        "/trace", data={"thing": "a", "key": "b"}, headers={"sec-fetch-site": "cross-site", "accept": "text/html"}
    )
    assert foreign.status_code == 403


@pytest.mark.parametrize(
    "thing", [" ", "a\nb", "x" * (IDENTIFIER_BYTES_MAX + 1), "é" * (IDENTIFIER_BYTES_MAX // 2 + 1)]
)
def test_what_is_no_name_is_refused(stand: Stand, thing: str) -> None:
    answer = stand.http.get(f"/v1/trace/{quote(thing, safe='')}", headers=stand.key("brand"))
    assert answer.status_code in {400, 404, 422}
    assert answer.json()["code"] in {"ThingInvalid", "RequestInvalid", "PageUnknown"}


def test_steps_and_names_are_taken_up_to_their_limits(stand: Stand) -> None:
    assert _traced(stand, "x" * IDENTIFIER_BYTES_MAX, steps=STEPS_MAX)["way"] == []
    for steps in (-1, STEPS_MAX + 1):
        assert stand.http.get(f"/v1/trace/x?steps={steps}", headers=stand.key("brand")).status_code == 400


def test_only_the_brand_traces(stand: Stand) -> None:
    assert stand.http.get("/v1/trace/x").status_code == 401
    for label in ("regulator", "logistics"):
        assert stand.http.get("/v1/trace/x", headers=stand.key(label)).status_code == 403
