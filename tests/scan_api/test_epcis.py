"""The EPCIS interfaces over real HTTP: captures answered event by event, queries that find one thing by any name."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from scan_api import paging
from scan_api.middleware import CAPTURE_BODY_BYTES_MAX
from scan_api.provenance.captures import EVENTS_AT_ONCE_MAX, THINGS_AT_ONCE_MAX
from scan_api.provenance.event_query import PER_PAGE_MAX
from tests.stand import Stand

CONTEXT = ["https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld", {"ex": "https://ns.example.com/"}]
URN = "urn:epc:id:sgtin:9506000.013435."
LINK = "https://shop.example/01/09506000134352/21/"

_numbers = iter(range(10**9))


def serial() -> str:
    """A serial that no other test uses."""
    return f"S{next(_numbers)}"


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


def test_an_event_is_found_as_it_was_sent_under_every_name_of_its_item(stand: Stand) -> None:
    number = serial()
    event = seen(number, **{"ex:lorry": {"ex:plate": "沪A 12345"}})
    told = capture(stand, event)
    assert (told["success"], told["accepted"], outcomes(told)) == (True, 1, ["accepted"])
    for name in (URN + number, LINK + number, f"https://id.gs1.org/01/09506000134352/21/{number}"):
        assert without_record_time(events_in(query(stand, ("MATCH_epc", name)))) == [event]
        path = f"/epcis/epcs/{quote(name, safe='')}/events"
        assert len(events_in(stand.http.get(path, headers=stand.key("brand")))) == 1
    alone = stand.http.get(f"/epcis/events/{quote(told['events'][0]['hashID'], safe='')}", headers=stand.key("brand"))
    assert alone.status_code == 200
    assert alone.json().pop("@context") == CONTEXT
    assert {name: value for name, value in alone.json().items() if name not in {"@context", "recordTime"}} == event


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


def test_pages_hold_every_event_once_in_order(stand: Stand) -> None:
    number = serial()
    moments = [f"2026-06-{day:02}T08:00:00Z" for day in range(1, 8)]
    capture(stand, *(seen(number, at) for at in moments))
    for direction, expected in (("ASC", moments), ("DESC", moments[::-1])):
        asked = [("MATCH_epc", URN + number), ("perPage", "3"), ("orderDirection", direction)]
        found: list[str] = []
        answer = query(stand, *asked)
        pages = 1
        while found.extend(event["eventTime"] for event in events_in(answer)) or "link" in answer.headers:
            assert answer.headers["link"].endswith('rel="next"')
            answer = stand.http.get(answer.links["next"]["url"], headers=stand.key("brand"))
            pages += 1
        assert (found, pages) == (expected, 3)
    limited = query(stand, ("MATCH_epc", URN + number), ("eventCountLimit", "2"))
    assert len(events_in(limited)) == 2
    assert "link" not in limited.headers
    too_many = query(stand, ("MATCH_epc", URN + number), ("maxEventCount", "6"))
    assert (too_many.status_code, too_many.json()["code"]) == (413, "TooManyEvents")
    assert len(events_in(query(stand, ("MATCH_epc", URN + number), ("maxEventCount", "7")))) == 7


def test_each_parameter_lets_through_what_fits(stand: Stand) -> None:
    item, box = serial(), f"urn:epc:id:sscc:9506000.{next(_numbers):010}"
    dock = "urn:epc:id:sgln:9506000.00001.7"
    packed = {
        "type": "AggregationEvent",
        "eventTime": "2026-06-02T08:00:00Z",
        "eventTimeZoneOffset": "+00:00",
        "parentID": box,
        "childEPCs": [URN + item],
        "action": "ADD",
        "bizStep": "packing",
        "disposition": "in_progress",
        "readPoint": {"id": dock},
        "bizLocation": {"id": "urn:epc:id:sgln:9506000.00001.0"},
    }
    capture(stand, seen(item), packed)
    of_item = ("MATCH_anyEPC", URN + item)
    for pair, fits in {
        ("eventType", "AggregationEvent"): [packed],
        ("eventType", "ObjectEvent|AggregationEvent"): [packed, seen(item)],
        ("GE_eventTime", "2026-06-02T08:00:00Z"): [packed],
        ("LT_eventTime", "2026-06-02T16:00:00+08:00"): [seen(item)],
        ("EQ_action", "OBSERVE"): [seen(item)],
        ("EQ_bizStep", "packing"): [packed],
        ("EQ_bizStep", "https://ref.gs1.org/cbv/BizStep-packing"): [packed],
        ("EQ_disposition", "in_progress"): [packed],
        ("EQ_disposition", "in_transit"): [],
        ("EQ_readPoint", "https://id.gs1.org/414/9506000000015/254/7"): [packed],
        ("EQ_bizLocation", "https://id.example/414/9506000000015"): [packed],
        ("MATCH_parentID", box): [packed],
        ("MATCH_parentID", URN + item): [],
        ("MATCH_epc", "urn:epc:idpat:sgtin:9506000.013435.*"): [packed, seen(item)],
        ("MATCH_epc", "urn:epc:idpat:sgtin:9506000.013436.*"): [],
        ("LT_recordTime", "2026-01-01T00:00:00Z"): [],
    }.items():
        assert without_record_time(events_in(query(stand, of_item, pair))) == fits, pair


@pytest.mark.parametrize(
    ("pair", "code"),
    [
        (("EQ_colour", "red"), "QueryParameterInvalid"),
        (("eventType", "DeletionEvent"), "QueryParameterInvalid"),
        (("GE_eventTime", "yesterday"), "QueryParameterInvalid"),
        (("perPage", "0"), "QueryParameterInvalid"),
        (("perPage", str(PER_PAGE_MAX + 1)), "QueryParameterInvalid"),
        (("orderBy", "price"), "QueryParameterInvalid"),
        (("MATCH_epc", "urn:epc:id:sgtin:1"), "QueryParameterInvalid"),
        (("nextPageToken", "AAAA"), "CursorInvalid"),
        (("EQ_bizStep", "|".join(["x"] * 101)), "QueryParameterInvalid"),
    ],
)
def test_what_cannot_be_asked_is_refused(stand: Stand, pair: tuple[str, str], code: str) -> None:
    answer = query(stand, pair)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize("count", [EVENTS_AT_ONCE_MAX - 1, EVENTS_AT_ONCE_MAX, EVENTS_AT_ONCE_MAX + 1])
def test_a_thousand_events_at_once(stand: Stand, count: int) -> None:
    sent = document(*(seen(serial()) for _ in range(count)))
    answer = stand.http.post("/epcis/capture", json=sent, headers=stand.key("brand"))
    if count <= EVENTS_AT_ONCE_MAX:
        assert (answer.status_code, answer.json()["accepted"]) == (202, count)
    else:
        assert (answer.status_code, answer.json()["code"]) == (400, "EpcisDocumentInvalid")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000, b"null", b'{"type": 1}'])
def test_what_is_no_document_is_refused(stand: Stand, body: bytes) -> None:
    for path in ("/epcis/capture", "/epcis/events"):
        answer = stand.http.post(path, content=body, headers=stand.key("brand"))
        assert (answer.status_code, answer.json()["code"]) == (400, "EpcisDocumentInvalid")


def test_a_body_is_limited(stand: Stand) -> None:
    filled = json.dumps(document(seen(serial()))).encode()
    for size, status in ((CAPTURE_BODY_BYTES_MAX, 202), (CAPTURE_BODY_BYTES_MAX + 1, 413)):
        answer = stand.http.post(
            "/epcis/capture", content=filled + b" " * (size - len(filled)), headers=stand.key("brand")
        )
        assert answer.status_code == status


def test_a_repository_is_its_brands_alone(stand: Stand) -> None:
    number = serial()
    told = capture(stand, seen(number))
    hash_id = quote(told["events"][0]["hashID"], safe="")
    assert events_in(query(stand, ("MATCH_epc", URN + number), label="other brand")) == []
    for path in (f"/epcis/events/{hash_id}", f"/epcis/capture/{told['captureID']}"):
        assert stand.http.get(path, headers=stand.key("other brand")).status_code == 404
    # The same event, captured for another brand, is another row: nobody learns what others have.
    assert outcomes(capture(stand, seen(number), label="other brand")) == ["accepted"]
    assert stand.http.get(f"/epcis/capture/{told['captureID']}", headers=stand.key("logistics")).status_code == 404
    for label, status in (("shop", 403), ("regulator", 403), ("logistics", 403), ("brand, other GTINs", 403)):
        assert query(stand, label=label).status_code == status
    assert stand.http.get("/epcis/events").status_code == 401


def test_captures_of_the_same_events_at_once_keep_each_once(stand: Stand) -> None:
    events = [seen(serial()) for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda turn: capture(stand, *events[turn:], *events[:turn]), range(0, 40, 5)))
    assert sum(one["accepted"] for one in told) == len(events)
    assert sum(one["duplicates"] for one in told) == 7 * len(events)


def test_names_that_two_documents_declare_unlike_are_declared_at_the_events(stand: Stand) -> None:
    number = serial()
    for day, namespace in ((1, "https://one.example/"), (2, "https://two.example/")):
        sent = document(
            seen(number, f"2026-06-0{day}T08:00:00Z", **{"ex:mark": day}), context=[CONTEXT[0], {"ex": namespace}]
        )
        assert stand.http.post("/epcis/capture", json=sent, headers=stand.key("brand")).status_code == 202
    answer = query(stand, ("MATCH_epc", URN + number), ("orderDirection", "ASC"))
    declared = [entry for entry in answer.json()["@context"] if isinstance(entry, dict)]
    meanings = []
    for event in events_in(answer):
        own = [entry for entry in event.get("@context", []) if isinstance(entry, dict)]
        [meaning] = own or declared
        meanings.append(meaning["ex"])
    assert meanings == ["https://one.example/", "https://two.example/"]


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
    assert (answer.status_code, answer.json()["code"]) == (400, "EpcisDocumentInvalid")


@pytest.mark.parametrize(("count", "status"), [(THINGS_AT_ONCE_MAX, 202), (THINGS_AT_ONCE_MAX + 1, 400)])
def test_things_of_a_capture_are_limited(stand: Stand, count: int, status: int) -> None:
    items = [f"{URN}{serial()}" for _ in range(count)]
    sent = document(seen("x", epcList=items[:15_000]), seen("x", epcList=items[15_000:]))
    assert stand.http.post("/epcis/capture", json=sent, headers=stand.key("brand")).status_code == status


def test_nobody_takes_an_events_own_id_by_giving_it_to_another(stand: Stand) -> None:
    number, elsewhere = serial(), serial()
    hash_id = stand.http.post("/epcis/capture", json=document(seen(number)), headers=stand.key("other brand")).json()[
        "events"
    ][0]["hashID"]
    assert outcomes(capture(stand, seen(elsewhere, eventID=hash_id), label="logistics")) == ["accepted"]
    assert outcomes(capture(stand, seen(number))) == ["accepted"]
    assert outcomes(capture(stand, seen(number, eventID=hash_id))) == ["duplicate"]
    found = stand.http.get(f"/epcis/events/{quote(hash_id, safe='')}", headers=stand.key("brand")).json()
    assert found["epcList"] == [URN + number]


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


@pytest.mark.parametrize("name", ["EQ_eventID", "EQ_readPoint", "EQ_bizStep", "EQ_disposition", "MATCH_epc"])
def test_a_nul_is_no_value(stand: Stand, name: str) -> None:
    answer = query(stand, (name, "a\0b"))
    assert (answer.status_code, answer.json()["code"]) == (400, "QueryParameterInvalid")


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_made_up_token_is_refused(stand: Stand, at: str) -> None:
    token = paging.encode("epcis-events", [at, "01a204ac-36b7-7475-a282-4557b79a1701", 1])
    answer = query(stand, ("nextPageToken", token))
    assert (answer.status_code, answer.json()["code"]) == (400, "QueryParameterInvalid")


def test_events_of_a_thing_with_any_name_are_paged(stand: Stand) -> None:
    name = f"urn:example:沪/{serial()}"
    capture(stand, *(seen("x", f"2026-06-0{day}T08:00:00Z", epcList=[name]) for day in (1, 2)))
    first = stand.http.get(f"/epcis/epcs/{quote(name, safe='')}/events?perPage=1", headers=stand.key("brand"))
    second = stand.http.get(first.links["next"]["url"], headers=stand.key("brand"))
    assert [len(events_in(page)) for page in (first, second)] == [1, 1]
    assert "link" not in second.headers


def test_a_namespace_without_end_is_refused(stand: Stand) -> None:
    xml = f"""<epcis:EPCISDocument xmlns:epcis="urn:epcglobal:epcis:xsd:2" schemaVersion="2.0"
      creationDate="2026-06-02T08:00:00Z"><EPCISBody xmlns="u:{"x" * 65_536}">{"<b/>" * 16_384}</EPCISBody>
      </epcis:EPCISDocument>"""
    headers = stand.key("brand") | {"Content-Type": "application/xml"}
    answer = stand.http.post("/epcis/capture", content=xml, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "EpcisDocumentInvalid")
