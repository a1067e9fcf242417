"""Events read field by field: whatever is sent, they say what the same events say when they are read as a whole."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from codes import log_queue
from kit.clock import iso
from scan_api.provenance import captures, event_rules
from scan_api.provenance.documents import STANDARD_CONTEXT, Context, read
from scan_api.provenance.event_reading import (
    FIELDS_KEPT_MAX,
    FORM_FIELDS_MAX,
    FORMS_KEPT_MAX,
    IDENTIFIER_BYTES_MAX,
    Reader,
    Reading,
)
from scan_api.provenance.event_values import EXTENSION_VALUES_MAX, Fault, FaultCode
from scan_api.provenance.repository import NewEvent

ITEM = "urn:epc:id:sgtin:9506000.013435."
LINK = "https://example.com/01/09506000134352/21/"
_items = st.sampled_from(
    [
        *(f"{ITEM}1", f"{ITEM}2", f"{LINK}1", f"{LINK}A%2FB", f"{ITEM}%2F", f"{ITEM}٣", LINK + "1" * 21, " ", "x:y", 7),
        *("urn:epc:idpat:sgtin:9506000.013435.*", "urn:epc:id:sscc:9506000.0123456789", "https://example.com/a"),
        *("urn:epc:id:sgtin:9506000.0134350.1", "urn:epc:id:sgln:9506000.00001.0", "ex:" + "é" * 900, "urn:x:1.2/3"),
        "\x001",
    ]
)
_places = st.sampled_from(
    [
        {"id": "urn:epc:id:sgln:9506000.00001.0"},
        {"id": "https://example.com/a"},
        {},
        None,
        {"id": "x:1", "ex:n": [1, 2]},
    ]
)
_parties = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["owning_party", "ex:mine", "nobody"])},
        optional={"source": st.just("ex:a"), "destination": st.just("ex:b")},
    ),
    max_size=2,
)
_quantities = st.lists(
    st.fixed_dictionaries(
        {
            "epcClass": st.sampled_from(
                ["urn:epc:class:lgtin:9506000.013435.L1", "urn:epc:idpat:sgtin:9506000.013435.*"]
            )
        },
        optional={"quantity": st.sampled_from([1, 2.5, -1, 1e300]), "uom": st.sampled_from(["KGM", "kilo"])},
    ),
    max_size=2,
)
_OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "action": st.sampled_from(["ADD", "OBSERVE", "DELETE", "KEEP"]),
    "eventID": st.sampled_from(["urn:uuid:1", "ex:" + "é" * 1_200, "none", ""]),
    "recordTime": st.sampled_from(["2026-06-01T08:00:00Z", "today"]),
    "epcList": st.lists(_items, max_size=3),
    "childEPCs": st.lists(_items, max_size=3),
    "parentID": _items,
    "inputEPCList": st.lists(_items, max_size=3),
    "outputEPCList": st.lists(_items, max_size=3),
    "quantityList": _quantities,
    "outputQuantityList": _quantities,
    "bizStep": st.sampled_from(["shipping", "ex:own", "urn:epcglobal:cbv:bizstep:shipping", "driving", 1]),
    "disposition": st.sampled_from(["in_transit", "https://example.com/lost", "lost"]),
    "persistentDisposition": st.sampled_from([{"set": ["damaged", "recalled"]}, {"set": ["lost"]}, {}]),
    "readPoint": _places,
    "bizLocation": _places,
    "sourceList": _parties,
    "destinationList": _parties,
    "bizTransactionList": st.lists(
        st.fixed_dictionaries({"bizTransaction": st.just("urn:epcglobal:cbv:bt:9506000000015:1")}), max_size=2
    ),
    "ilmd": st.sampled_from([{"cbvmda:lotNumber": "L1"}, {"ex:a": {"#text": "1", "ex:b": [None, True]}}, []]),
    "certificationInfo": st.sampled_from(["ex:c", ["ex:c", "ex:d"]]),
    "sensorElementList": st.sampled_from(
        [[{"sensorReport": [{"type": "Temperature", "value": 26.0, "uom": "CEL"}]}], [{"sensorReport": []}]]
    ),
    "errorDeclaration": st.sampled_from([{"declarationTime": "2026-06-02T08:00:00Z"}, {"reason": "incorrect_data"}]),
    "@context": st.sampled_from([{"own": "https://own.example.com/"}, 7]),
    "ex:lorry": st.sampled_from(["沪A", 1, 1.0, None, [1, [2]], {"ex:a": 1, "free": "x"}, "\ud800", "\x00", [{}, {}]]),
    "own:n": st.just(1),
    "unknown": st.just(1),
    "https://own.example.com/x": st.just("2.50"),
}
_times = st.sampled_from(
    [
        *("2026-06-01T08:00:00Z", "2026-06-01T08:00:00.000+08:00", "2026-06-01T08:00:00.1-05:30", "now", None),
        *("2026-06-01T08:00:00.9996Z", "2026-06-01T08:00:59.9995+08:00", "2026-06-01T23:59:59.0004000Z"),
        *("2026-06-01T08:00:00.000000500001Z", "2026-06-01T08:00:60Z", "1969-12-31T23:59:59Z", "2026-06-01T08:00:00"),
    ]
)
_events = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["ObjectEvent"] * 3
            + ["AggregationEvent", "TransformationEvent", "TransactionEvent", "AssociationEvent", "E"]
        ),
        "eventTime": _times,
        "eventTimeZoneOffset": st.sampled_from(["+08:00", "+08:00", "-15:00"]),
    },
    optional=_OPTIONAL,
)
_simple = st.fixed_dictionaries(
    {
        "type": st.just("ObjectEvent"),
        "eventTime": st.sampled_from(["2026-06-01T08:00:00.000+08:00", "2026-06-01T08:00:00.1239Z"]),
        "eventTimeZoneOffset": st.just("+08:00"),
        "action": st.sampled_from(["ADD", "OBSERVE"]),
        "epcList": st.lists(
            st.sampled_from([f"{ITEM}1", f"{LINK}1", f"{ITEM}2", f"{LINK}%2F"]), min_size=1, max_size=3
        ),
    },
    optional={name: _OPTIONAL[name] for name in ("readPoint", "bizStep", "ex:lorry", "sourceList", "quantityList")},
)


def context() -> Context:
    declared = [STANDARD_CONTEXT, {"ex": "https://ns.example.com/"}]
    envelope = {"schemaVersion": "2.0", "creationDate": "2026-06-02T08:00:00Z", "epcisBody": {"eventList": []}}
    return read({"@context": declared, "type": "EPCISDocument", **envelope}).context


def told(read: object) -> Any:
    return msgspec.structs.replace(read, content="") if isinstance(read, Reading) else list(read)  # type: ignore[call-overload]


@pytest.mark.parametrize("events", [_events, _simple], ids=["any", "simple"])
def test_by_fields_and_as_a_whole_an_event_says_the_same(events: st.SearchStrategy[dict[str, Any]]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(events, min_size=1, max_size=4), st.booleans())
    def compare(sent: list[dict[str, Any]], ascii_only: bool) -> None:
        reader = Reader(context())
        for event in [*sent, *sent]:
            written = json.dumps(event, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
            read = reader.read(Raw(written))
            if isinstance(read, Reading):
                assert read.content == written.decode()
            if "\\ud800" in json.dumps(event):
                assert not isinstance(read, Reading)
            else:
                assert told(read) == told(Reader(context()).read(event))

    compare()


def sound(**more: Any) -> dict[str, Any]:
    return {
        "type": "ObjectEvent",
        "eventTime": "2026-06-01T08:00:00Z",
        "eventTimeZoneOffset": "+00:00",
        "action": "OBSERVE",
        "epcList": [f"{ITEM}1"],
        **more,
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"action"', '"bizStep": "shipping", "bizStep": "shipping", "action"'),
        ('"action"', '"ex:a": 1, "ex:\\u0061": 1, "action"'),
        ('"action"', '"ex:a": {"b": 1, "b": 1}, "action"'),
        ('"action"', '"readPoint": {"id": "ex:1", "id": "ex:1"}, "action"'),
        ('"type"', '"type": "ObjectEvent", "type"'),
    ],
)
def test_a_name_that_is_there_twice_is_seen_whatever_came_before(old: str, new: str) -> None:
    reader = Reader(context())
    once = json.dumps(sound()).encode()
    assert isinstance(reader.read(Raw(once)), Reading)
    [fault] = list(reader.read(Raw(once.decode().replace(old, new).encode())))  # type: ignore[arg-type]
    assert isinstance(fault, Fault)
    assert fault.code is FaultCode.DUPLICATE
    assert isinstance(reader.read(Raw(once)), Reading)


_NEEDED: dict[str, dict[str, Any]] = {
    "ObjectEvent": {"action": "OBSERVE", "epcList": [f"{ITEM}1"]},
    "AggregationEvent": {"action": "ADD", "parentID": "ex:box", "childEPCs": [f"{ITEM}1"]},
    "AssociationEvent": {"action": "ADD", "parentID": "ex:box", "childEPCs": [f"{ITEM}1"]},
    "TransactionEvent": {"action": "ADD", "bizTransactionList": [{"bizTransaction": "ex:1"}], "epcList": [f"{ITEM}1"]},
    "TransformationEvent": {"inputEPCList": [f"{ITEM}1"], "outputEPCList": [f"{ITEM}2"]},
}
_EPC_LISTS = ("epcList", "childEPCs", "inputEPCList", "outputEPCList")


@pytest.mark.parametrize("kind", sorted(event_rules.FIELD_RULES))
@pytest.mark.parametrize("field", _EPC_LISTS)
def test_a_list_that_its_type_has_not_is_refused_whatever_is_in_it(kind: str, field: str) -> None:
    time = {"eventTime": "2026-06-01T08:00:00Z", "eventTimeZoneOffset": "+00:00"}
    base = {"type": kind, **time, **_NEEDED[kind]}
    assert isinstance(Reader(context()).read(Raw(json.dumps(base).encode())), Reading)
    read = Reader(context()).read(Raw(json.dumps({**base, field: [f"{ITEM}3", f"{ITEM}4"]}).encode()))
    has_it = event_rules.FIELD_RULES[kind][field] is not event_rules.not_here
    assert has_it is (field in _NEEDED[kind])
    if has_it:
        assert isinstance(read, Reading)
    else:
        assert [(fault.code, fault.pointer) for fault in read] == [(FaultCode.FIELD_UNKNOWN, f"/{field}")]  # type: ignore[union-attr]


def test_names_may_be_written_with_escapes() -> None:
    written = json.dumps(sound(**{'ex:"沪"': '\\"'}))
    read = Reader(context()).read(Raw(written.encode()))
    assert told(read) == told(Reader(context()).read(json.loads(written)))
    assert isinstance(read, Reading)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_values_of_all_extensions_count_together(over: int) -> None:
    half = EXTENSION_VALUES_MAX // 2
    written = json.dumps(sound(**{"ex:a": [1] * half, "ex:b": [1] * (half + over)})).encode()
    reader = Reader(context())
    assert [isinstance(reader.read(Raw(written)), Reading) for _ in range(2)] == [over <= 0] * 2


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_values_in_fields_that_are_kept_count_too(over: int) -> None:
    kept = {"readPoint": {"id": "ex:1", "ex:n": [1] * 100}, "ilmd": {"ex:n": [1] * 100}}
    more = {"action": "ADD", "ex:a": [1] * (EXTENSION_VALUES_MAX - 200 + over)}
    reader = Reader(context())
    for extension in ([], more["ex:a"]):
        read = reader.read(Raw(json.dumps(sound(**{**kept, **more, "ex:a": extension})).encode()))
    assert isinstance(read, Reading) is (over <= 0)


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("field", ["eventID", "parentID", "childEPCs"])
def test_an_identifier_has_a_length(field: str, over: int) -> None:
    name = "ex:" + "é" * ((IDENTIFIER_BYTES_MAX - 4) // 2) + "x" * (1 + over)
    assert len(name.encode()) == IDENTIFIER_BYTES_MAX + over
    named = {"parentID": "ex:box", "childEPCs": ["ex:thing"], field: [name] if field == "childEPCs" else name}
    event = {**sound(**named), "type": "AggregationEvent"}
    del event["epcList"]
    read = Reader(context()).read(Raw(json.dumps(event).encode()))
    assert isinstance(read, Reading) is (over <= 0)
    if not isinstance(read, Reading):
        assert [fault.code for fault in read] == [FaultCode.URI_INVALID]


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("field", ["readPoint", "bizLocation", "sourceList", "destinationList"])
def test_a_party_or_place_has_a_name_of_the_same_length(field: str, over: int) -> None:
    name = "ex:" + "é" * ((IDENTIFIER_BYTES_MAX - 4) // 2) + "x" * (1 + over)
    side = field.removesuffix("List")
    value: Any = {"id": name} if side == field else [{"type": "owning_party", side: name}]
    read = Reader(context()).read(Raw(json.dumps(sound(**{field: value})).encode()))
    assert isinstance(read, Reading) is (over <= 0)
    if not isinstance(read, Reading):
        assert [fault.code for fault in read] == [FaultCode.URI_INVALID]


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_an_event_of_many_fields_is_read_as_a_whole(over: int) -> None:
    reader = Reader(context())
    own = {f"ex:{number}": number for number in range(FORM_FIELDS_MAX + over - len(sound()))}
    read = reader.read(Raw(json.dumps(sound(**own)).encode()))
    assert isinstance(read, Reading)
    assert told(read) == told(Reader(context()).read(sound(**own)))
    assert bool(reader._forms) is (over <= 0)


def test_what_is_kept_is_bounded() -> None:
    reader = Reader(context())
    for number in range(2 * FIELDS_KEPT_MAX + 1):
        event = sound(bizStep=f"ex:{number}", **{f"ex:{number % (2 * FORMS_KEPT_MAX)}": 1})
        assert isinstance(reader.read(Raw(json.dumps(event).encode())), Reading)
    assert 0 < len(reader._forms) <= FORMS_KEPT_MAX
    assert all(len(kept) <= FIELDS_KEPT_MAX for kept in reader._kept.values())
    assert all(len(form.blocks) <= FIELDS_KEPT_MAX for form in reader._forms.values())


@given(st.binary(max_size=60))
def test_no_bytes_upset_the_reader(written: bytes) -> None:
    read = Reader(context()).read(Raw(b'{"type":"ObjectEvent",' + written))
    assert not isinstance(read, Reading)
    assert read


def test_a_leaf_of_the_log_is_the_record_around_the_event() -> None:
    at = datetime(2026, 7, 1, 8, tzinfo=UTC)
    shared = {"brand_id": 7, "capture_id": uuid.UUID(int=1), "context_id": uuid.UUID(int=2), "record_time": at}
    shared["context_sha256"] = "ab" * 32
    content = '{"a":\n "沪"}'
    [entry] = captures.log_entries([NewEvent({"event_key": uuid.UUID(int=3), "content": content}, [])], shared)
    told = {"type": "event", "key": str(uuid.UUID(int=3)), "brand": 7, "at": iso(at)}
    told |= {"capture": str(uuid.UUID(int=1)), "context": str(uuid.UUID(int=2)), "context_sha256": "ab" * 32}
    assert entry == log_queue.NewEntry("event", uuid.UUID(int=3), 7, log_queue.record_around(told, "event", content))
