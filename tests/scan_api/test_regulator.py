"""What a regulator reads: an item's whole history as an EPCIS 2.0 document, without a person in it."""

import re
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from tests.stand import GTIN, Item, Stand

# CBV 2.0, 7.1 and 7.2: the standard's own words, of which a history uses these.
BUSINESS_STEPS = {"commissioning", "shipping", "receiving", "holding", "inspecting", "decommissioning"}
DISPOSITIONS = {"encoded", "active", "in_transit", "in_progress", "recalled", "inactive"}
ACTIONS = {"ADD", "OBSERVE", "DELETE"}  # EPCIS 2.0, 7.3.2
ZONE = re.compile(r"[+-](0[0-9]|1[0-4]):[0-5][0-9]")


def _read(stand: Stand, item: Item, label: str = "regulator") -> dict[str, Any]:
    answer = stand.http.get(f"/v1/regulator/items/{item.gtin}/{item.serial}", headers=stand.key(label))
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def _live(stand: Stand) -> Item:
    """An item that was shipped, received, scanned and claimed."""
    item, member = stand.take_item(), stand.member()
    for step, place in (("shipped", "Qingdao"), ("received", "Shanghai")):
        sent = {
            "step": step,
            "gtin": GTIN,
            "order_number": stand.order("on sale").number,
            "serials": [item.serial],
            "place": place,
        }
        assert stand.http.post("/v1/brand/events", json=sent, headers=stand.key("logistics")).status_code == 201
    stand.scan(item.outer)
    stand.scan(item.inner)
    assert stand.claim(member, item.inner).status_code == 201
    return item


def test_document_has_the_form_of_epcis(stand: Stand) -> None:
    document = _read(stand, _live(stand))["epcis"]
    assert document["@context"][0] == "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
    assert (document["type"], document["schemaVersion"]) == ("EPCISDocument", "2.0")
    assert datetime.fromisoformat(document["creationDate"]).utcoffset() is not None
    assert list(document["epcisBody"]) == ["eventList"]


def test_events_have_the_fields_and_words_of_the_standard(stand: Stand) -> None:
    item = _live(stand)
    extensions = {"fanxing"}
    for event in _read(stand, item)["epcis"]["epcisBody"]["eventList"]:
        assert event["type"] == "ObjectEvent"
        assert event["action"] in ACTIONS
        assert ZONE.fullmatch(event["eventTimeZoneOffset"])
        for moment in ("eventTime", "recordTime"):
            assert event[moment].endswith("Z")
            assert datetime.fromisoformat(event[moment]).utcoffset() is not None
        assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", event["eventID"])
        assert event["epcList"] == [f"https://id.gs1.org/01/{GTIN}/21/{item.serial}"]
        assert event["bizStep"] in BUSINESS_STEPS or event["bizStep"].startswith("https://")
        assert event.get("disposition", "active") in DISPOSITIONS
        known = {
            "type", "eventID", "eventTime", "eventTimeZoneOffset", "recordTime",
            "epcList", "action", "bizStep", "disposition",
        }  # fmt: skip
        assert {name.split(":")[0] for name in set(event) - known} <= extensions


def test_history_is_complete_and_in_order(stand: Stand) -> None:
    read = _read(stand, _live(stand))
    events = read["epcis"]["epcisBody"]["eventList"]
    assert [event["fanxing:step"] for event in events] == [
        "commissioned", "shipped", "received", "scanned", "scanned", "claimed",
    ]  # fmt: skip
    assert all(one["eventTime"] <= next_one["eventTime"] for one, next_one in pairwise(events))
    assert [event.get("fanxing:place") for event in events[1:3]] == ["Qingdao", "Shanghai"]
    assert len({event["eventID"] for event in events}) == len(events)
    assert read["item"]["scan_count"] == 2


def test_item_is_described_with_issuer_and_order(stand: Stand) -> None:
    item = stand.take_item()
    described = _read(stand, item)["item"]
    assert (described["gtin"], described["serial"]) == (GTIN, item.serial)
    assert (described["issuer"], described["state"]) == ("Stand Dairy", "active")
    assert described["order"]["number"] == stand.order("on sale").number
    assert (described["first_scan_at"], described["scan_count"]) == (None, 0)


@pytest.mark.parametrize(
    ("order", "state"),
    [("items revoked", "revoked"), ("order revoked", "revoked"), ("key revoked", "revoked"), ("recalled", "recalled")],
)
def test_state_of_an_item_that_is_refused(stand: Stand, order: str, state: str) -> None:
    described = _read(stand, stand.order(order).items[0])["item"]
    assert described["state"] == state
    if order == "recalled":
        assert described["recall_reason"] == "Glass splinters were found in this batch."


def test_history_names_no_person_and_no_code(stand: Stand) -> None:
    item, member = stand.take_item(), stand.member()
    stand.claim(member, item.inner)
    answer = stand.http.get(f"/v1/regulator/items/{item.gtin}/{item.serial}", headers=stand.key("regulator")).text
    assert str(member.member_id) not in answer
    assert member.phone not in answer
    assert not re.search(r"[0-9]{100}", answer)


def test_reading_is_no_scan(stand: Stand) -> None:
    item, looks = stand.take_item(), ("regulator_access", "regulator_access_brand")
    before = stand.counts(without=looks)
    assert _read(stand, item)["item"]["scan_count"] == _read(stand, item)["item"]["scan_count"] == 0
    assert stand.counts(without=looks) == before


def test_what_was_never_issued_has_no_history(stand: Stand) -> None:
    headers = stand.key("regulator")
    wrong = {
        f"{GTIN}/{stand.installation.refused['NeverIssued serial'][-14:]}": (404, "ItemUnknown"),
        f"{GTIN}/{'9' * 14}": (404, "ItemUnknown"),
        f"09506000999999/{stand.take_item().serial}": (404, "ItemUnknown"),
        f"{GTIN}/123": (400, "RequestInvalid"),
        f"{GTIN[1:]}/{'9' * 14}": (400, "RequestInvalid"),
    }
    for path, expected in wrong.items():
        answer = stand.http.get(f"/v1/regulator/items/{path}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == expected


def test_activation_of_an_order_shows_at_every_item(stand: Stand) -> None:
    placed = stand.order("to be activated too")
    sent = {"step": "activated", "gtin": placed.gtin, "order_number": placed.number, "place": "Jinan"}
    assert stand.http.post("/v1/brand/events", json=sent, headers=stand.key("brand")).status_code == 201
    for item in placed.items[:2]:
        activated = _read(stand, item)["epcis"]["epcisBody"]["eventList"][-1]
        assert activated["fanxing:step"] == "activated"
        assert activated["fanxing:order"] == f"{placed.gtin}.{placed.number:05d}"
        assert activated["disposition"] == "active"
