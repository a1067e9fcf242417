"""The EPCIS capture interface over real HTTP: captures answered event by event."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from scan_api.middleware import CAPTURE_BODY_BYTES_MAX
from scan_api.provenance.captures import BYTES_AT_ONCE_MAX, EVENTS_AT_ONCE_MAX, THINGS_AT_ONCE_MAX
from tests.scan_api.event_sender import (
    CONTEXT,
    LINK,
    URN,
    capture,
    document,
    events_in,
    outcomes,
    query,
    seen,
    serial,
)
from tests.stand import Stand


def test_the_same_event_again_is_a_duplicate_however_it_is_written(stand: Stand) -> None:
    number = serial()
    capture(stand, seen(number))
    again = seen(number, at="2026-06-01T16:00:00.000+08:00", epcList=[LINK + number])
    assert outcomes(capture(stand, again, again)) == ["duplicate", "duplicate"]
    assert len(events_in(query(stand, ("MATCH_epc", LINK + number)))) == 1


def test_an_event_id_names_one_event(stand: Stand) -> None:
    number, event_id = serial(), f"urn:example:{serial()}"
    assert outcomes(capture(stand, seen(number, eventID=event_id))) == ["accepted"]
    assert outcomes(capture(stand, seen(number, eventID=event_id))) == ["duplicate"]
    told = capture(stand, seen(number, eventID=event_id, bizStep="receiving"))
    assert (told["success"], outcomes(told)) == (False, ["refused"])
    [problem] = told["events"][0]["problems"]
    assert (problem["reason"], problem["pointer"]) == ("event_id_reused", "/epcisBody/eventList/0/eventID")
    error = {"declarationTime": "2026-06-03T08:00:00Z", "reason": "did_not_occur"}
    assert outcomes(capture(stand, seen(number, eventID=event_id, errorDeclaration=error))) == ["accepted"]
    assert len(events_in(query(stand, ("EQ_eventID", event_id)))) == 2


@pytest.mark.parametrize(("behaviour", "kept"), [("rollback", 0), ("proceed", 1)])
def test_a_refused_event_is_told_with_its_place_and_takes_the_others_along_or_not(
    stand: Stand, behaviour: str, kept: int
) -> None:
    number = serial()
    told = capture(stand, seen(number), seen(serial(), action="LOOKED"), **{"GS1-Capture-Error-Behaviour": behaviour})
    assert outcomes(told) == [("undone", "accepted")[kept], "refused"]
    [problem] = told["events"][1]["problems"]
    assert (problem["reason"], problem["pointer"]) == ("action_unknown", "/epcisBody/eventList/1/action")
    assert len(events_in(query(stand, ("MATCH_epc", URN + number)))) == kept
    job = stand.http.get(f"/epcis/capture/{told['captureID']}", headers=stand.key("brand")).json()
    assert (job["running"], job["success"], job["accepted"], job["refused"]) == (False, False, kept, 1)
    assert job["errors"][0]["problems"] == told["events"][1]["problems"]


def test_xml_is_the_same_event(stand: Stand) -> None:
    number = serial()
    xml = f"""<?xml version="1.0"?>
    <epcis:EPCISDocument xmlns:epcis="urn:epcglobal:epcis:xsd:1" schemaVersion="1.2"
      creationDate="2026-06-02T08:00:00Z">
      <EPCISBody><EventList><ObjectEvent>
        <eventTime>2026-06-01T08:00:00Z</eventTime><eventTimeZoneOffset>+08:00</eventTimeZoneOffset>
        <epcList><epc>{URN}{number}</epc></epcList><action>OBSERVE</action>
        <bizStep>urn:epcglobal:cbv:bizstep:shipping</bizStep>
      </ObjectEvent></EventList></EPCISBody></epcis:EPCISDocument>"""
    answer = stand.http.post(
        "/epcis/capture", content=xml, headers=stand.key("brand") | {"Content-Type": "application/xml"}
    )
    assert (answer.status_code, outcomes(answer.json())) == (202, ["accepted"])
    assert outcomes(capture(stand, seen(number))) == ["duplicate"]


def test_one_event_by_itself(stand: Stand) -> None:
    event = {"@context": CONTEXT, **seen(serial())}
    first, again = (stand.http.post("/epcis/events", json=event, headers=stand.key("brand")) for _ in range(2))
    assert [first.status_code, again.status_code] == [201, 201]
    assert first.headers["location"] == again.headers["location"]
    assert stand.http.get(first.headers["location"], headers=stand.key("brand")).status_code == 200
    wrong = stand.http.post("/epcis/events", json=event | {"action": "LOOKED"}, headers=stand.key("brand"))
    assert (wrong.status_code, wrong.json()["code"]) == (400, "EventRefused")
    whole = stand.http.post("/epcis/events", json=document(event), headers=stand.key("brand"))
    assert (whole.status_code, whole.json()["code"]) == (400, "EpcisDocumentInvalid")


def finished(stand: Stand, capture_id: str, label: str = "brand") -> dict[str, Any]:
    """A capture in the background, once it has ended."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        told: dict[str, Any] = stand.http.get(f"/epcis/capture/{capture_id}", headers=stand.key(label)).json()
        if not told["running"]:
            return told
        time.sleep(0.05)
    raise AssertionError("the capture does not end")


@pytest.mark.parametrize("count", [EVENTS_AT_ONCE_MAX - 1, EVENTS_AT_ONCE_MAX, EVENTS_AT_ONCE_MAX + 1])
def test_more_than_a_thousand_events_are_captured_in_the_background(stand: Stand, count: int) -> None:
    sent = document(*(seen(serial()) for _ in range(count)))
    answer = stand.http.post("/epcis/capture", json=sent, headers=stand.key("brand"))
    assert answer.status_code == 202
    told = answer.json()
    assert answer.headers["location"] == f"/epcis/capture/{told['captureID']}"
    assert (told["running"], told["total"]) == (count > EVENTS_AT_ONCE_MAX, count)
    ended = finished(stand, told["captureID"])
    assert (ended["success"], ended["accepted"], ended["done"]) == (True, count, count)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000, b"null", b'{"type": 1}'])
def test_what_is_no_document_is_refused(stand: Stand, body: bytes) -> None:
    for path in ("/epcis/capture", "/epcis/events"):
        answer = stand.http.post(path, content=body, headers=stand.key("brand"))
        assert (answer.status_code, answer.json()["code"]) == (400, "EpcisDocumentInvalid")


@pytest.mark.parametrize("over", [0, 1])
def test_a_body_beyond_what_is_captured_at_once_goes_to_the_background(stand: Stand, over: int) -> None:
    filled = json.dumps(document(seen(serial()))).encode()
    body = filled.replace(b', "epcisBody"', b" " * (BYTES_AT_ONCE_MAX + over * 10_000 - len(filled)) + b', "epcisBody"')
    answer = stand.http.post("/epcis/capture", content=body, headers=stand.key("brand"))
    assert answer.status_code == (413 if over else 202)  # all of it is envelope, which has a limit of its own
    inner = filled.replace(b'"eventList": [', b'"eventList": [' + b" " * (BYTES_AT_ONCE_MAX + over - len(filled)))
    answer = stand.http.post("/epcis/capture", content=inner, headers=stand.key("brand"))
    assert (answer.status_code, answer.json()["running"]) == (202, bool(over))
    assert finished(stand, answer.json()["captureID"])["duplicates"] == 1 - over


@pytest.mark.parametrize(("over", "status"), [(-1, 100), (0, 100), (1, 413)])
def test_a_body_is_limited(stand: Stand, over: int, status: int) -> None:
    # Who may go on is told so (RFC 9110, 10.1.1) and needs not; who has too much is told before he has sent it.
    expecting = "Expect: 100-continue\r\n" if status == 100 else ""
    head = (
        f"POST /epcis/capture HTTP/1.1\r\nHost: x\r\nAuthorization: {stand.key('brand')['Authorization']}\r\n"
        f"Content-Length: {CAPTURE_BODY_BYTES_MAX + over}\r\n{expecting}\r\n"
    )
    with socket.create_connection((stand.http.base_url.host, stand.http.base_url.port or 80), 60) as connection:
        connection.sendall(head.encode() + (b"" if expecting else b"{"))
        assert connection.recv(12) == b"HTTP/1.1 %d" % status


def test_captures_of_the_same_events_at_once_keep_each_once(stand: Stand) -> None:
    events = [seen(serial()) for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda turn: capture(stand, *events[turn:], *events[:turn]), range(0, 40, 5)))
    assert sum(one["accepted"] for one in told) == len(events)
    assert sum(one["duplicates"] for one in told) == 7 * len(events)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"ex:a": "\ud800"}, None),
        ({"ex:\ud800": 1}, None),
        ({"epcList": ["urn:x:" + "汉" * 665]}, "uri_invalid"),
        ({"epcList": ["urn:x:" + "汉" * 664]}, "accepted"),
        ({"eventID": "urn:x:" + "x" * 1_981}, "accepted"),
        ({"eventID": "urn:x:" + "x" * 1_982}, "uri_invalid"),
        ({"@context": {"inputQuantityList": "https://x/y"}, "inputQuantityList": [{"ex:a": 1}]}, "field_unknown"),
        ({"@context": {"parentID": "https://x/y"}, "parentID": ["a"]}, "field_unknown"),
        ({"@context": {"urn": "https://evil.example/"}}, "context_invalid"),
    ],
)
def test_no_event_upsets_the_server(stand: Stand, event: dict[str, Any], reason: str | None) -> None:
    body = json.dumps(document(seen(serial(), **event)))
    answer = stand.http.post("/epcis/capture", content=body, headers=stand.key("brand"))
    if reason is None:
        assert (answer.status_code, answer.json()["code"]) == (400, "EpcisDocumentInvalid")
        return
    assert answer.status_code == 202
    [result] = answer.json()["events"]
    assert [result["outcome"], *(one["reason"] for one in result["problems"])][-1] == reason


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"@x": inner}
    return inner


@pytest.mark.parametrize("context", [nested(16), {"@x": "\ud800"}, {"https": "https://evil.example/"}])
def test_a_context_that_cannot_be_kept_is_refused(stand: Stand, context: dict[str, Any]) -> None:
    body = json.dumps(document(seen(serial()), context=[CONTEXT[0], context]))
    answer = stand.http.post("/epcis/capture", content=body, headers=stand.key("brand"))
    assert (answer.status_code, answer.json()["code"]) == (400, "EpcisDocumentInvalid")


def test_a_number_without_end_is_refused(stand: Stand) -> None:
    body = json.dumps(document(seen(serial(), **{"ex:a": 7}))).replace(": 7", ": 1e400")
    answer = stand.http.post("/epcis/capture", content=body, headers=stand.key("brand"))
    assert (answer.status_code, outcomes(answer.json())) == (202, ["refused"])
    [problem] = answer.json()["events"][0]["problems"]
    assert (problem["reason"], problem["pointer"]) == ("number_invalid", "/epcisBody/eventList/0")


@pytest.mark.parametrize(("count", "runs"), [(THINGS_AT_ONCE_MAX, False), (THINGS_AT_ONCE_MAX + 1, True)])
def test_many_things_are_captured_in_the_background(stand: Stand, count: int, runs: bool) -> None:
    items = [f"{URN}{serial()}" for _ in range(count)]
    sent = document(seen("x", epcList=items[:15_000]), seen("x", epcList=items[15_000:]))
    answer = stand.http.post("/epcis/capture", json=sent, headers=stand.key("brand"))
    assert (answer.status_code, answer.json()["running"]) == (202, runs)
    assert finished(stand, answer.json()["captureID"])["accepted"] == 2


def test_nobody_takes_an_events_own_id_by_giving_it_to_another(stand: Stand) -> None:
    number, elsewhere = serial(), serial()
    hash_id = stand.http.post("/epcis/capture", json=document(seen(number)), headers=stand.key("other brand")).json()[
        "events"
    ][0]["hashID"]
    assert outcomes(capture(stand, seen(elsewhere, eventID=hash_id), label="logistics")) == ["accepted"]
    assert outcomes(capture(stand, seen(number))) == ["accepted"]
    assert outcomes(capture(stand, seen(number, eventID=hash_id))) == ["duplicate"]
    found = events_in(stand.http.get(f"/epcis/events/{quote(hash_id, safe='')}", headers=stand.key("brand")))
    assert [URN + number] in [one["epcList"] for one in found]


def test_a_code_text_names_its_item_in_either_case(stand: Stand) -> None:
    number = serial()
    texts = [f"{scheme}://ID.EXAMPLE.CN/1{'0' * 160}/01/09506000134352/21/{number}" for scheme in ("https", "HTTPS")]
    told = [outcomes(capture(stand, seen(number, epcList=[text]))) for text in texts]
    assert told == [["accepted"], ["duplicate"]]


def test_two_declarations_of_an_error_at_one_time_are_two_claims(stand: Stand) -> None:
    number = serial()
    capture(stand, seen(number))
    told = [
        outcomes(capture(stand, seen(number, errorDeclaration={"declarationTime": at, "reason": reason})))
        for at, reason in (
            ("2026-06-03T08:00:00Z", "did_not_occur"),
            ("2026-06-03T16:00:00.000+08:00", "incorrect_data"),
        )
    ]
    assert told == [["accepted"], ["refused"]]


def test_a_namespace_without_end_is_refused(stand: Stand) -> None:
    xml = f"""<epcis:EPCISDocument xmlns:epcis="urn:epcglobal:epcis:xsd:2" schemaVersion="2.0"
      creationDate="2026-06-02T08:00:00Z"><EPCISBody xmlns="u:{"x" * 65_536}">{"<b/>" * 16_384}</EPCISBody>
      </epcis:EPCISDocument>"""
    headers = stand.key("brand") | {"Content-Type": "application/xml"}
    answer = stand.http.post("/epcis/capture", content=xml, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "EpcisDocumentInvalid")
