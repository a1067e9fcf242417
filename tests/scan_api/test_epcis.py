"""The EPCIS query interface over real HTTP: queries that find one thing by any name."""

from urllib.parse import quote

import pytest

from scan_api import paging
from scan_api.provenance.event_query import PER_PAGE_MAX
from tests.scan_api.event_sender import (
    CONTEXT,
    LINK,
    URN,
    capture,
    document,
    events_in,
    numbers,
    outcomes,
    query,
    seen,
    serial,
    without_record_time,
)
from tests.stand import Stand


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
    assert (alone.json()["@context"], without_record_time(events_in(alone))) == (CONTEXT, [event])


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
    item, box = serial(), f"urn:epc:id:sscc:9506000.{next(numbers):010}"
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
