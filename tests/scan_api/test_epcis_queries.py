"""EPCIS resources, named queries and subscriptions over real HTTP."""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.scan_api.event_sender import LINK, URN, capture, events_in, seen, serial
from tests.scan_api.test_webhooks import Receiver
from tests.stand import MakeStand, Stand, wait_until

TOKEN = "0435ojtojt02"
QUERIES = "/epcis/queries"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.stop()


def ask(stand: Stand, method: str, path: str, label: str = "brand", **more: Any) -> httpx2.Response:
    return stand.http.request(method, path, headers=stand.key(label), **more)


def name_query(stand: Stand, **query: Any) -> str:
    name = f"q-{uuid.uuid4()}"
    made = ask(stand, "POST", QUERIES, json={"name": name, "query": query})
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"{QUERIES}/{name}"
    return name


def test_events_are_reached_by_what_they_tell_of(stand: Stand) -> None:
    number, dock = serial(), f"urn:epc:id:sgln:9506000.00001.{serial()}"
    capture(stand, seen(number, readPoint={"id": dock}, disposition="in_transit"), seen(serial()))
    for path, count in (
        (f"/epcis/readPoints/{quote(dock, safe='')}/events", 1),
        (f"/epcis/epcs/{quote(LINK + number, safe='')}/events", 1),
        (f"/epcis/bizSteps/receiving/events?MATCH_epc={quote(URN + number)}", 0),
        (f"/epcis/bizSteps/shipping/events?MATCH_epc={quote(URN + number)}", 1),
        (f"/epcis/dispositions/urn:epcglobal:cbv:disp:in_transit/events?MATCH_epc={quote(URN + number)}", 1),
        (f"/epcis/eventTypes/ObjectEvent/events?MATCH_epc={quote(URN + number)}", 1),
    ):
        assert len(events_in(ask(stand, "GET", path))) == count, path
    assert "shipping" in ask(stand, "GET", "/epcis/bizSteps?perPage=1000").json()["bizStep"]
    assert ask(stand, "GET", "/epcis/eventTypes").json()["type"] == "EventTypeItemList"
    assert ask(stand, "GET", "/epcis/eventTypes/ObjectEvent").json() == ["events"]
    assert "epcs" in ask(stand, "GET", "/epcis/").json()
    listed = ask(stand, "GET", "/epcis/epcs?perPage=1")
    assert (len(listed.json()["epc"]), "next" in listed.links) == (1, True)
    for path in ("/epcis/colours", "/epcis/eventTypes/Event/events", "/epcis/eventTypes/Event"):
        assert ask(stand, "GET", path).status_code == 404
    assert ask(stand, "OPTIONS", "/epcis/colours").status_code == 404


def test_a_refusal_names_the_exception_of_the_standard(stand: Stand) -> None:
    refused = ask(stand, "GET", "/epcis/events?EQ_colour=red")
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.status_code, refused.json()["type"]) == (400, "epcisException:QueryParameterException")


def test_what_a_resource_takes_can_be_asked(stand: Stand) -> None:
    for path, methods in (("events", "GET, POST"), ("queries/x", "GET, DELETE"), ("", "GET")):
        told = ask(stand, "OPTIONS", f"/epcis/{path}")
        assert (told.status_code, told.headers["allow"]) == (204, f"OPTIONS, {methods}")
        assert told.headers["gs1-epcis-max"] == "2.0"


def test_a_query_is_named_asked_and_removed(stand: Stand) -> None:
    number = serial()
    capture(stand, *(seen(number, f"2026-06-0{day}T08:00:00Z", **{"ex:day": day}) for day in (1, 2, 3)))
    query = {"@context": {"my": "https://ns.example.com/"}, "MATCH_epc": [URN + number], "GE_my:day": 2}
    name = name_query(stand, **query)
    assert ask(stand, "GET", f"{QUERIES}/{name}").json() == {"name": name, "query": query}
    first = ask(stand, "GET", f"{QUERIES}/{name}/events?perPage=1")
    second = ask(stand, "GET", first.links["next"]["url"])
    assert [event["ex:day"] for page in (first, second) for event in events_in(page)] == [3, 2]
    assert first.json()["epcisBody"]["queryResults"]["queryName"] == name
    assert any(one["name"] == name for one in ask(stand, "GET", f"{QUERIES}?perPage=1000").json())
    again = ask(stand, "POST", QUERIES, json={"name": name, "query": {"EQ_bizStep": ["packing"]}})
    assert (again.status_code, again.json()["code"]) == (409, "NamedQueryTaken")
    assert ask(stand, "GET", f"{QUERIES}/{name}", label="other brand").status_code == 404
    assert ask(stand, "DELETE", f"{QUERIES}/{name}").status_code == 204
    assert ask(stand, "DELETE", f"{QUERIES}/{name}").status_code == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "a b", "query": {}}, "NamedQueryInvalid"),
        ({"name": "SimpleEventQuery", "query": {}}, "NamedQueryInvalid"),
        ({"name": "x", "query": {"EQ_colour": "red"}}, "QueryParameterInvalid"),
        ({"name": "x", "query": {"EQ_bizStep": [{}]}}, "QueryParameterInvalid"),
        ({"name": "x", "query": {"perPage": 3}}, "QueryParameterInvalid"),
        ({"name": "x", "query": {"@context": 7}}, "QueryParameterInvalid"),
        ({"name": "x"}, "RequestInvalid"),
    ],
)
def test_what_is_no_query_is_refused(stand: Stand, body: dict[str, Any], code: str) -> None:
    refused = ask(stand, "POST", QUERIES, json=body)
    assert (refused.status_code, refused.json()["code"]) == (400, code)


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_a_subscriber_is_told_signed(make_stand: MakeStand, receiver: Receiver) -> None:
    stand = make_stand(WEBHOOK_TARGETS="private")
    stand.server.start()
    name, path = name_query(stand, EQ_bizStep=["shipping"]), f"/ok/{uuid.uuid4()}"
    body = {"dest": receiver.url + path, "signatureToken": TOKEN, "stream": True}
    made = ask(stand, "POST", f"{QUERIES}/{name}/subscriptions", json=body)
    assert (made.status_code, TOKEN in made.text) == (201, False)
    number = serial()
    capture(stand, seen(number), seen(serial(), bizStep="receiving"))
    arrived = wait_until(lambda: receiver.seen(path), "the report to arrive")[0]
    digest = base64.b64encode(hmac.digest(TOKEN.encode(), arrived["body"].encode(), hashlib.sha256)).decode()
    assert arrived["headers"]["gs1-signature"] == digest
    results = json.loads(arrived["body"])["epcisBody"]["queryResults"]
    assert (results["queryName"], results["subscriptionID"]) == (name, made.json()["subscriptionID"])
    assert [event["epcList"] for event in results["resultsBody"]["eventList"]] == [[URN + number]]
    assert ask(stand, "GET", made.headers["location"]).json() == made.json()
    assert ask(stand, "DELETE", made.headers["location"]).status_code == 204
    assert ask(stand, "GET", made.headers["location"]).status_code == 404
    assert ask(stand, "GET", f"{QUERIES}/{name}/subscriptions").json() == []


@pytest.mark.parametrize("stand_kind", ["sqlite"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"stream": None}, "SubscriptionInvalid"),
        ({"schedule": {"hour": "1"}}, "SubscriptionInvalid"),
        ({"stream": None, "schedule": {"hour": "25"}}, "ScheduleInvalid"),
        ({"stream": None, "schedule": {"month": "2", "dayOfMonth": "31"}}, "SubscriptionInvalid"),
        ({"dest": "https://127.0.0.1/"}, "WebTargetRefused"),
        ({"initialRecordTime": "yesterday"}, "QueryParameterInvalid"),
        ({"signatureToken": "汉" * 8}, "SubscriptionInvalid"),
    ],
)
def test_what_is_no_subscription_is_refused(stand: Stand, change: dict[str, Any], code: str) -> None:
    name = name_query(stand, EQ_bizStep=["shipping"])
    body = {"dest": "https://93.184.215.14/", "signatureToken": TOKEN, "stream": True} | change
    refused = ask(stand, "POST", f"{QUERIES}/{name}/subscriptions", json=body)
    assert (refused.status_code, refused.json()["code"]) == (400, code)


def test_locations_are_told_and_forgotten(stand: Stand) -> None:
    extension = serial()
    name = f"urn:epc:id:sgln:9506000.00001.{extension}"
    told = {"location": name, "parent": "urn:epc:id:sgln:9506000.00001.0", "attributes": {"ex:a": "b"}}
    assert ask(stand, "PUT", "/epcis/locations", json={"locations": [told]}).status_code == 204
    listed = ask(stand, "GET", "/epcis/locations?perPage=1000").json()["locations"]
    assert [one["attributes"] for one in listed if one["location"].endswith(f"/254/{extension}")] == [{"ex:a": "b"}]
    assert ask(stand, "DELETE", f"/epcis/locations/{quote(name, safe='')}").status_code == 204
    wrong = ask(stand, "PUT", "/epcis/locations", json={"locations": [told, told]})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "LocationInvalid")
