"""Whoever sends events to the EPCIS interfaces and asks for them again, over real HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from tests.stand import Stand

CONTEXT = ["https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld", {"ex": "https://ns.example.com/"}]
URN = "urn:epc:id:sgtin:9506000.013435."
LINK = "https://shop.example/01/09506000134352/21/"

numbers = iter(range(10**9))


def serial() -> str:
    """A serial that no other test uses."""
    return f"S{next(numbers)}"


def seen(number: str, at: str = "2026-06-01T08:00:00Z", **more: Any) -> dict[str, Any]:
    """An item that was seen."""
    return {
        "type": "ObjectEvent",
        "eventTime": at,
        "eventTimeZoneOffset": "+08:00",
        "epcList": [URN + number],
        "action": "OBSERVE",
        "bizStep": "shipping",
    } | more


def document(*events: Mapping[str, Any], context: object = CONTEXT) -> dict[str, Any]:
    return {
        "@context": context,
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": "2026-06-02T08:00:00Z",
        "epcisBody": {"eventList": list(events)},
    }


def capture(stand: Stand, *events: Mapping[str, Any], label: str = "brand", **headers: str) -> dict[str, Any]:
    answer = stand.http.post("/epcis/capture", json=document(*events), headers=stand.key(label) | headers)
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


def outcomes(told: Mapping[str, Any]) -> list[str]:
    return [event["outcome"] for event in told["events"]]


def query(stand: Stand, *pairs: tuple[str, str], label: str = "brand") -> httpx2.Response:
    return stand.http.get("/epcis/events", params=list(pairs), headers=stand.key(label))


def events_in(answer: httpx2.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["epcisBody"]["queryResults"]["resultsBody"]["eventList"]
    return found


def without_record_time(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in event.items() if name != "recordTime"} for event in events]
