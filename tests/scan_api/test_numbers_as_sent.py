"""Numbers of captured events over real HTTP: every answer has them as they were sent, digit by digit."""

import json
from collections.abc import Sequence
from urllib.parse import quote

import pytest

from tests.scan_api.event_sender import CONTEXT, URN, document, seen, serial
from tests.stand import BRAND, Stand

NUMBERS = (
    *("1.10", "1E+2", "-0.0", "1e-320", "9007199254740993.0"),
    *("12345678901234567890123456789", "0.12345678901234567890123"),
)
FIELDS = (
    f'"ex:list":[{",".join(NUMBERS)}]',
    *(f'"ex:n{place}":{{"ex:in":{{ "value": {text} }}}}' for place, text in enumerate(NUMBERS)),
    '"sensorElementList":[{"sensorReport":[{"type":"Temperature","value":-18.500,"uom":"CEL"}]}]',
)
on_one = pytest.mark.parametrize("stand_kind", ["postgresql"])


def _send(stand: Stand, number: str, at: str = "2026-06-01T08:00:00Z", context: Sequence[object] = CONTEXT) -> str:
    """Capture an event of an item with these numbers; its hash id."""
    event = f"{json.dumps(seen(number, at))[:-1]},{','.join(FIELDS)}}}"
    body = json.dumps(document({"here": 1}, context=context)).replace('{"here": 1}', event)
    headers = stand.key("brand") | {"Content-Type": "application/json"}
    answer = stand.http.post("/epcis/capture", content=body, headers=headers)
    assert (answer.status_code, answer.json().get("accepted")) == (202, 1), answer.text
    hash_id: str = answer.json()["events"][0]["hashID"]
    return hash_id


def _missing(text: str, times: int = 1) -> list[str]:
    return [field for field in FIELDS if text.count(field) != times]


@pytest.mark.parametrize(
    "path",
    [
        "/epcis/events?MATCH_anyEPC={thing}",
        "/epcis/events?MATCH_epc={thing}",
        "/epcis/epcs/{thing}/events",
        "/epcis/events/{id}",
        "/v1/trace/{thing}",
        "/v1/regulator/events?MATCH_epc={thing}&brand={brand}",
        "/v1/regulator/trace/{thing}?brand={brand}",
    ],
)
def test_numbers_are_answered_as_they_were_sent(stand: Stand, path: str) -> None:
    number = serial()
    named = {"id": _send(stand, number), "thing": URN + number, "brand": BRAND}
    asked = path.format(**{name: quote(text, safe="") for name, text in named.items()})
    answer = stand.http.get(asked, headers=stand.key("regulator" if "regulator" in path else "brand"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    assert _missing(answer.text) == []


@on_one
def test_numbers_of_events_with_contexts_of_their_own_are_kept_too(stand: Stand) -> None:
    number = serial()
    _send(stand, number)
    _send(stand, number, "2026-06-02T08:00:00Z", [*CONTEXT, {"own": "https://own.example/"}])
    answer = stand.http.get("/epcis/events", params={"MATCH_anyEPC": URN + number}, headers=stand.key("brand"))
    assert _missing(answer.text, times=2) == []


@on_one
def test_the_record_time_is_ours_and_stands_once(stand: Stand) -> None:
    number = serial()
    sent = json.dumps(document(seen(number, recordTime="2020-01-01T00:00:00Z")))
    escaped = sent.replace("recordTime", "record\\u0054ime")
    headers = stand.key("brand") | {"Content-Type": "application/json"}
    assert stand.http.post("/epcis/capture", content=escaped, headers=headers).json()["accepted"] == 1
    answer = stand.http.get("/epcis/events", params={"MATCH_anyEPC": URN + number}, headers=stand.key("brand"))
    assert (answer.text.count("recordTime"), answer.text.count("u0054"), answer.text.count("2020-01")) == (1, 0, 0)
