"""Event hash ids: the reference vectors, and what may differ in writing without being another event."""

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scan_api.provenance import documents
from scan_api.provenance.event_hash import DEPTH_MAX, EventUnhashable, event_hash, in_utc, prehash

VECTORS = Path(__file__).parents[2] / "vectors" / "epcis-event-hash"
STANDARD_CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
Event = dict[str, Any]


def document(*events: Event, **more: object) -> dict[str, Any]:
    return {
        "@context": [STANDARD_CONTEXT, {"example": "https://ns.example.com/epcis/"}],
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": "2024-05-06T07:08:09.000Z",
        "epcisBody": {"eventList": list(events)},
        **more,
    }


CONTEXT = documents.read(document()).context


def shipped() -> Event:
    return {
        "type": "ObjectEvent",
        "eventID": "urn:uuid:11111111-2222-4333-8444-555555555555",
        "eventTime": "2024-05-06T15:08:09.5+08:00",
        "eventTimeZoneOffset": "+08:00",
        "epcList": ["urn:epc:id:sgtin:4012345.011111.2", "urn:epc:id:sgtin:4012345.011111.1"],
        "action": "OBSERVE",
        "bizStep": "shipping",
        "disposition": "in_transit",
        "readPoint": {"id": "urn:epc:id:sgln:4012345.00011.0", "example:gate": "7"},
        "bizTransactionList": [{"type": "po", "bizTransaction": "urn:epcglobal:cbv:bt:4012345000009:1"}],
        "sourceList": [{"type": "owning_party", "source": "urn:epc:id:pgln:4012345.00000"}],
        "destinationList": [{"type": "owning_party", "destination": "urn:epc:id:pgln:0614141.00000"}],
        "example:weight": {"example:gross": "12.50", "example:unit": "KGM"},
    }


SHIPPED = (
    "eventType=ObjectEventeventTime=2024-05-06T07:08:09.500ZeventTimeZoneOffset=+08:00"
    "epcListepc=https://id.gs1.org/01/04012345111118/21/1epc=https://id.gs1.org/01/04012345111118/21/2"
    "action=OBSERVEbizStep=https://ref.gs1.org/cbv/BizStep-shippingdisposition=https://ref.gs1.org/cbv/Disp-in_transit"
    "readPointid=https://id.gs1.org/414/4012345000115{https://ns.example.com/epcis/}gate=7"
    "bizTransactionListtype=https://ref.gs1.org/cbv/BTT-pobizTransaction=urn:epcglobal:cbv:bt:4012345000009:1"
    "destinationListtype=https://ref.gs1.org/cbv/SDT-owning_partydestination=https://id.gs1.org/417/0614141000005"
    "sourceListtype=https://ref.gs1.org/cbv/SDT-owning_partysource=https://id.gs1.org/417/4012345000009"
    "{https://ns.example.com/epcis/}weight{https://ns.example.com/epcis/}gross=12.5"
    "{https://ns.example.com/epcis/}unit=KGM"
)


@pytest.mark.parametrize("name", sorted(path.stem for path in VECTORS.glob("*.jsonld")))
def test_reference_vectors_are_met(name: str) -> None:
    read = documents.read(json.loads((VECTORS / f"{name}.jsonld").read_text("utf-8")))
    hashes = (VECTORS / f"{name}.hashes").read_text("ascii").split()
    assert [event_hash(event, read.context) for event in read.events] == hashes


def test_there_are_vectors() -> None:
    assert len(list(VECTORS.glob("*.jsonld"))) == 4


def test_the_pre_hash_string_never_changes() -> None:
    assert prehash(shipped(), CONTEXT) == SHIPPED


def test_the_id_never_changes() -> None:
    # Kept in databases and logs, and by partners.
    digest = "08de353aa74f28abf5e1358b3a25aa2669a878ab07e123c5a59429554f3a862b"
    assert event_hash(shipped(), CONTEXT) == f"ni:///sha-256;{digest}?ver=CBV2.0"


def _with(**fields: object) -> Callable[[Event], Event]:
    return lambda event: {**event, **fields}


SAME: dict[str, Callable[[Event], Event]] = {
    "its id": _with(eventID="urn:uuid:99999999-2222-4333-8444-555555555555"),
    "its record time": _with(recordTime="2024-05-06T15:09:00Z"),
    "an error declaration": _with(errorDeclaration={"declarationTime": "2024-06-06T15:09:00Z"}),
    "a comment": _with(**{"rdfs:comment": "for the eyes"}),
    "the zone of its time": _with(eventTime="2024-05-06T07:08:09.500000Z"),
    "the order of its fields": lambda event: dict(reversed(event.items())),
    "the order of its EPCs": _with(epcList=["urn:epc:id:sgtin:4012345.011111.1", "urn:epc:id:sgtin:4012345.011111.2"]),
    "links instead of URNs": _with(
        epcList=["https://example.com/01/04012345111118/21/2?a=b", "https://id.gs1.org/01/04012345111118/21/1"]
    ),
    "a URN for a word": _with(bizStep="urn:epcglobal:cbv:bizstep:shipping"),
    "a CURIE for a word": _with(bizStep="cbv:BizStep-shipping"),
    "a web URI for a word": _with(bizStep="https://ref.gs1.org/cbv/BizStep-shipping"),
    "the type after the party": _with(sourceList=[{"source": "urn:epc:id:pgln:4012345.00000", "type": "owning_party"}]),
    "a number without quotes": _with(**{"example:weight": {"example:gross": 12.5, "example:unit": "KGM"}}),
    "space around a text": _with(**{"example:weight": {"example:gross": " 12.5\n", "example:unit": "KGM "}}),
    "an empty list": _with(quantityList=[]),
    "full names": lambda event: {
        **{name: value for name, value in event.items() if name != "example:weight"},
        "https://ns.example.com/epcis/weight": event["example:weight"],
    },
    "a prefix of its own": lambda event: {
        **{name: value for name, value in event.items() if name != "example:weight"},
        "@context": {"mine": "https://ns.example.com/epcis/"},
        "mine:weight": {"mine:gross": "12.5", "mine:unit": "KGM"},
    },
}


@pytest.mark.parametrize("what", sorted(SAME))
def test_the_same_event_has_the_same_hash(what: str) -> None:
    assert prehash(SAME[what](shipped()), CONTEXT) == SHIPPED


DIFFERENT: dict[str, Callable[[Event], Event]] = {
    "a field of an extension that is called comment": _with(
        **{"example:weight": {"example:gross": 12.5, "example:unit": "KGM", "comment": "dry"}}
    ),
    "its type": _with(type="TransactionEvent"),
    "its time": _with(eventTime="2024-05-06T15:08:09.501+08:00"),
    "its offset": _with(eventTimeZoneOffset="+00:00"),
    "an EPC more": lambda event: {**event, "epcList": [*event["epcList"], "urn:epc:id:sgtin:4012345.011111.3"]},
    "an EPC twice": lambda event: {**event, "epcList": [*event["epcList"], event["epcList"][0]]},
    "an extension": _with(**{"example:other": None}),
    "a name without meaning": _with(**{"nobody:weight": "1"}),
    "long numbers": _with(**{"example:weight": {"example:gross": "123456789012345678", "example:unit": "KGM"}}),
    "other long numbers": _with(**{"example:weight": {"example:gross": "123456789012345679", "example:unit": "KGM"}}),
    "certificates": _with(certificationInfo=["https://a.example/2", "https://a.example/1"]),
}


def test_different_events_have_different_hashes() -> None:
    hashes = [event_hash(change(shipped()), CONTEXT) for change in [lambda event: event, *DIFFERENT.values()]]
    assert len(set(hashes)) == len(hashes)


def test_fields_that_a_repository_added_are_left_out() -> None:
    # The reference generator's example of ignored fields (its issue 109), whose hash id is this.
    event = {
        "type": "ObjectEvent",
        "eventTime": "2019-10-21T14:45:00Z",
        "eventTimeZoneOffset": "+01:00",
        "epcList": ["https://id.gs1.org/00/040123451111111127"],
        "action": "OBSERVE",
        "bizStep": "inspecting",
        "disposition": "in_progress",
        "readPoint": {"id": "https://id.gs1.org/414/4012345000245/254/1"},
    }
    enriched = {**event, "recordTime": "2023-06-02T07:03:16.073Z", "x:hash": "abc", "example:captureID": "cc90bbe4"}
    expected = "ni:///sha-256;b3d481c5590757ab8361a6cb0e924820feb3b61eb568e7d7703f21a96f76f51d?ver=CBV2.0"
    context = [
        STANDARD_CONTEXT,
        {"x": "https://repository-x.example.com/"},
        {"example": "https://ns.example.com/epcis/"},
    ]
    listed = {"x:ignoreFields": ["x:hash", "example:captureID", "bizStep", 7]}
    sent = {**document(event, enriched), **listed, "@context": context}
    answered = {
        "@context": context,
        "type": "EPCISQueryDocument",
        "epcisBody": {
            "queryResults": {
                "queryName": "SimpleEventQuery",
                **listed,
                "resultsBody": {"eventList": [event, enriched]},
            }
        },
    }
    for body in (sent, answered):
        read = documents.read(body)
        assert [event_hash(item, read.context) for item in read.events] == [expected, expected]


SENSORS = {
    "type": "ObjectEvent",
    "eventTime": "2020-04-01T14:00:00Z",
    "eventTimeZoneOffset": "+01:00",
    "action": "OBSERVE",
    "readPoint": {"id": "geo:50.95,6.92"},
    "sensorElementList": [
        {
            "type": "epcis:SensorElement",
            "sensorMetadata": {"time": "2020-04-01T15:00:00.00049+01:00", "example:meta": "m"},
            "sensorReport": [
                {"type": "gs1:Temperature", "value": 26.0, "component": "x", "booleanValue": True, "example:cv": "1"},
                {"type": "example:Own", "exception": "ALARM_CONDITION", "hexBinaryValue": "f0"},
            ],
            "example:more": [{"example:a": "1"}, "2"],
        }
    ],
    "persistentDisposition": {"unset": ["damaged"], "set": ["recalled", "expired"]},
}


def test_sensors_hash_with_their_extensions_beside_them() -> None:
    assert prehash(SENSORS, CONTEXT) == (
        "eventType=ObjectEventeventTime=2020-04-01T14:00:00.000ZeventTimeZoneOffset=+01:00action=OBSERVE"
        "persistentDispositionset=https://ref.gs1.org/cbv/Disp-expiredset=https://ref.gs1.org/cbv/Disp-recalled"
        "unset=https://ref.gs1.org/cbv/Disp-damagedreadPointid=geo:50.95,6.92"
        "sensorElementListsensorElementsensorMetadatatime=2020-04-01T14:00:00.000Z"
        "{https://ns.example.com/epcis/}meta=m"
        "sensorReporttype=https://gs1.org/voc/Temperaturevalue=26component=https://ref.gs1.org/cbv/Comp-x"
        "booleanValue=true{https://ns.example.com/epcis/}cv=1"
        "sensorReporttype=https://ns.example.com/epcis/Ownexception=https://gs1.org/voc/ALARM_CONDITIONhexBinaryValue=f0"
        "{https://ns.example.com/epcis/}more=2{https://ns.example.com/epcis/}more{https://ns.example.com/epcis/}a=1"
    )


@pytest.mark.parametrize(
    ("told", "hashed"),
    [
        ("2023-02-02T11:04:03Z", "2023-02-02T11:04:03.000Z"),
        ("2023-02-02T11:04:03.1Z", "2023-02-02T11:04:03.100Z"),
        ("2023-02-02T11:04:03.1415Z", "2023-02-02T11:04:03.142Z"),
        ("2023-02-02T11:04:03.1414Z", "2023-02-02T11:04:03.141Z"),
        ("2023-02-02T11:04:03.1405Z", "2023-02-02T11:04:03.141Z"),
        ("2023-12-31T23:59:59.9995-00:30", "2024-01-01T00:30:00.000Z"),
        ("2023-01-01T00:30:00+01:00", "2022-12-31T23:30:00.000Z"),
        ("0001-01-01T00:30:00+01:00", "0001-01-01T00:30:00+01:00"),
        ("2023-13-01T00:30:00+01:00", "2023-13-01T00:30:00+01:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_hash_in_utc_with_milliseconds(told: str, hashed: str) -> None:
    assert in_utc(told) == hashed


@pytest.mark.parametrize(
    ("told", "hashed"),
    [
        ("007", "{e}x=7"),
        ("+4", "{e}x=4"),
        ("1.0", "{e}x=1"),
        ("1e3", "{e}x=1000"),
        ("3.50", "{e}x=3.5"),
        ("-0", "{e}x=0"),
        ("1e400", "{e}x=1e400"),
        ("1_000", "{e}x=1_000"),
        ("00000000000000012345.500", "{e}x=12345.5"),
        ("-00000000000000000.0", "{e}x=0"),
        (12, "{e}x=12"),
        (0.125, "{e}x=0.125"),
        (2.0, "{e}x=2"),
        (False, "{e}x=false"),
        (None, "{e}x"),
        ("", "{e}x"),
        ("\u3000", "{e}x"),
        ([], ""),
        ([[2], [1]], "{e}x=1{e}x=2"),
        ("urn:epc:id:sgtin:wrong", "{e}x=urn:epc:id:sgtin:wrong"),
        ("e:word", "{e}x=eword"),
        ({"#text": "3.50", "unit": "KGM"}, "{e}x=3.5unit=KGM"),
    ],
    ids=repr,
)
def test_values_hash_in_one_form(told: object, hashed: str) -> None:
    event = {"type": "ObjectEvent", "e:x": told}
    assert prehash(event, documents.Context({"e": "e"})) == "eventType=ObjectEvent" + hashed


def test_an_extension_may_be_nested_to_the_limit_and_no_deeper() -> None:
    value: object = "x"
    for _ in range(DEPTH_MAX):
        value = {"example:a": value}
    event = {"type": "ObjectEvent", "example:a": value}
    assert prehash(event, CONTEXT).endswith("=x")
    with pytest.raises(EventUnhashable):
        prehash({"type": "ObjectEvent", "example:a": {"example:a": value}}, CONTEXT)


@pytest.mark.parametrize(
    "event",
    [{}, [], {"type": 1}, {"type": "ObjectEvent", "epcList": "x"}, {"type": "ObjectEvent", "readPoint": "x"}],
    ids=repr,
)
def test_what_is_no_event_has_no_hash(event: Any) -> None:
    with pytest.raises(EventUnhashable):
        event_hash(event)


def test_hashing_changes_nothing() -> None:
    event = shipped()
    before = copy.deepcopy(event)
    event_hash(event, CONTEXT)
    assert event == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.data())
def test_a_broken_event_is_hashed_or_refused_by_name(data: st.DataObject) -> None:
    event: dict[str, Any] = {**shipped(), **SENSORS}
    for name in data.draw(st.lists(st.sampled_from(sorted(event)), max_size=3)):
        event[name] = data.draw(json_values)
    event |= data.draw(st.dictionaries(st.text(max_size=8), json_values, max_size=2))
    with contextlib.suppress(EventUnhashable, documents.EpcisDocumentInvalid):
        assert event_hash(event, CONTEXT) == event_hash(json.loads(json.dumps(event)), CONTEXT)
