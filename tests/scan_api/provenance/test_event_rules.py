"""What is wrong with an event, and that nothing is wrong with a good one."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scan_api.provenance import documents, vocabulary
from scan_api.provenance.event_rules import EPCS_PER_EVENT_MAX, FAULTS_MAX, check
from scan_api.provenance.event_values import (
    ELEMENTS_PER_LIST_MAX,
    EXTENSION_DEPTH_MAX,
    EXTENSION_VALUES_MAX,
    NAME_CHARACTERS_MAX,
    NUMBER_MAX,
    TEXT_CHARACTERS_MAX,
    FaultCode,
)

Event = dict[str, Any]
STANDARD_CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
ITEM = "urn:epc:id:sgtin:4012345.011111."
LOT = "urn:epc:class:lgtin:4012345.011111.L1"
BOX = "urn:epc:id:sscc:4012345.0000000111"


def context(*more: object) -> documents.Context:
    body = {
        "@context": [STANDARD_CONTEXT, {"example": "https://ns.example.com/epcis/"}, *more],
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": "2024-05-06T07:08:09Z",
        "epcisBody": {"eventList": []},
    }
    return documents.read(body).context


CONTEXT = context()
WHEN: Event = {"eventTime": "2024-05-06T15:08:09.5+08:00", "eventTimeZoneOffset": "+08:00"}


def object_event() -> Event:
    return {
        "type": "ObjectEvent",
        **WHEN,
        "@context": {"mine": "urn:example:mine:"},
        "recordTime": "2024-05-06T15:08:09Z",
        "eventID": "ni:///sha-256;08de353aa74f28abf5e1358b3a25aa2669a878ab07e123c5a59429554f3a862b?ver=CBV2.0",
        "certificationInfo": "https://a.example/1",
        "epcList": [ITEM + "1", "https://id.gs1.org/01/04012345111118/21/2", "urn:uuid:1"],
        "quantityList": [
            {"epcClass": LOT, "quantity": 12.5, "uom": "KGM"},
            {"epcClass": "https://id.gs1.org/01/04012345111118/10/21"},
        ],
        "action": "ADD",
        "bizStep": "commissioning",
        "disposition": "https://ns.example.com/disp/shiny",
        "persistentDisposition": {"set": ["completeness_verified"], "unset": ["completeness_inferred"]},
        "readPoint": {"id": "geo:50.95,6.92", "example:gate": 7},
        "bizLocation": {"id": "https://id.gs1.org/414/4012345000115"},
        "bizTransactionList": [{"type": "po", "bizTransaction": "http://a.example/po/1"}, {"bizTransaction": "a:b"}],
        "sourceList": [{"type": "owning_party", "source": "urn:epc:id:pgln:4012345.00000"}],
        "destinationList": [{"type": "mine:depot", "destination": "urn:epc:id:sgln:4012345.00011.0"}],
        "sensorElementList": [
            {
                "type": "epcis:SensorElement",
                "sensorMetadata": {"startTime": "2024-05-06T15:08:09Z", "bizRules": "a:b", "example:m": None},
                "sensorReport": [
                    {
                        "type": "Temperature",
                        "exception": "ALARM_CONDITION",
                        "value": 26,
                        "uom": "CEL",
                        "component": "x",
                        "booleanValue": False,
                        "hexBinaryValue": "F0f0",
                        "uriValue": "a:b",
                        "stringValue": "",
                        "time": "2024-05-06T15:08:09Z",
                        "mine:other": [],
                    },
                    {"type": "gs1:Temperature"},
                ],
                "example:s": {"bare": {"@id": "x"}},
            }
        ],
        "errorDeclaration": {
            "declarationTime": "2024-05-07T15:08:09Z",
            "reason": "did_not_occur",
            "correctiveEventIDs": ["urn:uuid:2"],
            "example:by": "me",
        },
        "ilmd": {"cbvmda:lotNumber": "L1", "example:colour": ["red", {"example:code": 3}]},
        "rdfs:comment": "for the eyes",
        "mine:note": "x",
        "https://other.example/ns#field": True,
    }


VALID: dict[str, Event] = {
    "object": object_event(),
    "sensors alone": {
        "type": "ObjectEvent",
        **WHEN,
        "action": "OBSERVE",
        "readPoint": {"id": "geo:1,2"},
        "sensorElementList": [{"sensorReport": [{"type": "Count", "value": 0}]}],
    },
    "aggregation": {"type": "AggregationEvent", **WHEN, "action": "ADD", "parentID": BOX, "childEPCs": [ITEM + "1"]},
    "aggregation of a lot": {
        "type": "AggregationEvent",
        **WHEN,
        "action": "ADD",
        "parentID": BOX,
        "childEPCs": [],
        "childQuantityList": [{"epcClass": LOT, "quantity": 2}],
    },
    "all children taken off": {"type": "AggregationEvent", **WHEN, "action": "DELETE", "parentID": BOX},
    "children seen without a parent": {
        "type": "AggregationEvent",
        **WHEN,
        "action": "OBSERVE",
        "childEPCs": [ITEM + "1", ITEM + "1"],
    },
    "association": {
        "type": "AssociationEvent",
        **WHEN,
        "action": "OBSERVE",
        "parentID": BOX,
        "childEPCs": [ITEM + "1"],
    },
    "all associations ended": {"type": "AssociationEvent", **WHEN, "action": "DELETE", "parentID": BOX},
    "transaction": {
        "type": "TransactionEvent",
        **WHEN,
        "action": "ADD",
        "bizTransactionList": [{"bizTransaction": "a:b"}],
        "parentID": BOX,
        "epcList": [],
    },
    "transaction ended": {
        "type": "TransactionEvent",
        **WHEN,
        "action": "DELETE",
        "bizTransactionList": [{"bizTransaction": "a:b"}],
    },
    "transformation": {
        "type": "TransformationEvent",
        **WHEN,
        "inputQuantityList": [{"epcClass": LOT}],
        "outputEPCList": [ITEM + "1"],
        "ilmd": {},
    },
    "half a transformation": {
        "type": "TransformationEvent",
        **WHEN,
        "transformationID": "urn:epc:id:gdti:4012345.11111.1",
        "inputEPCList": [ITEM + "1"],
    },
}


@pytest.mark.parametrize("name", sorted(VALID))
def test_a_valid_event_has_no_fault_and_stays_as_it_is(name: str) -> None:
    event = copy.deepcopy(VALID[name])
    assert check(event, CONTEXT) == []
    assert event == VALID[name]


@pytest.mark.parametrize(
    ("words", "field"),
    [(vocabulary.BUSINESS_STEPS, "bizStep"), (vocabulary.DISPOSITIONS, "disposition")],
    ids=["steps", "dispositions"],
)
def test_every_standard_word_is_known(words: dict[str, str], field: str) -> None:
    assert [word for word in words if check({**VALID["aggregation"], field: word}, CONTEXT)] == []


def put(*path: str | int, value: object) -> Callable[[Event], Event]:
    def change(event: Event) -> Event:
        place: Any = event
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return event

    return change


def without(name: str) -> Callable[[Event], Event]:
    return lambda event: {key: value for key, value in event.items() if key != name}


SENSOR = ("sensorElementList", 0)
REPORT = (*SENSOR, "sensorReport", 0)
REPORT_AT = "/sensorElementList/0/sensorReport/0"

# Of an object event: what is changed, the fault that this is, and where it is told.
WRONG: list[tuple[Callable[[Event], Event], FaultCode, str]] = [
    (put("type", value="QuantityEvent"), FaultCode.TYPE_UNKNOWN, "/type"),
    (put("type", value=["ObjectEvent"]), FaultCode.TYPE_UNKNOWN, "/type"),
    (without("type"), FaultCode.TYPE_UNKNOWN, "/type"),
    (without("eventTime"), FaultCode.FIELD_MISSING, "/eventTime"),
    (without("eventTimeZoneOffset"), FaultCode.FIELD_MISSING, "/eventTimeZoneOffset"),
    (put("@context", value=3), FaultCode.CONTEXT_INVALID, "/@context"),
    (put("eventTime", value="2024-05-06T15:08:09"), FaultCode.TIME_INVALID, "/eventTime"),
    (put("eventTime", value="2024-02-30T15:08:09Z"), FaultCode.TIME_INVALID, "/eventTime"),
    (put("eventTime", value="1969-12-31T23:59:59Z"), FaultCode.TIME_INVALID, "/eventTime"),
    (put("eventTime", value="2024-05-06 15:08:09Z"), FaultCode.TIME_INVALID, "/eventTime"),
    (put("eventTime", value=20240506), FaultCode.WRONG_TYPE, "/eventTime"),
    (put("recordTime", value="now"), FaultCode.TIME_INVALID, "/recordTime"),
    (put("eventTimeZoneOffset", value="+14:01"), FaultCode.OFFSET_INVALID, "/eventTimeZoneOffset"),
    (put("eventTimeZoneOffset", value="Z"), FaultCode.OFFSET_INVALID, "/eventTimeZoneOffset"),
    (put("eventTimeZoneOffset", value="8:00"), FaultCode.OFFSET_INVALID, "/eventTimeZoneOffset"),
    (put("eventID", value="7"), FaultCode.URI_INVALID, "/eventID"),
    (put("eventID", value=7), FaultCode.WRONG_TYPE, "/eventID"),
    (put("certificationInfo", value=42), FaultCode.WRONG_TYPE, "/certificationInfo"),
    (put("certificationInfo", value=["a:b", "c"]), FaultCode.URI_INVALID, "/certificationInfo/1"),
    (put("epcList", value="a:b"), FaultCode.WRONG_TYPE, "/epcList"),
    (put("epcList", 1, value="with space:x y"), FaultCode.URI_INVALID, "/epcList/1"),
    (put("epcList", 1, value=None), FaultCode.WRONG_TYPE, "/epcList/1"),
    (put("epcList", 2, value=LOT), FaultCode.CLASS_NOT_INSTANCE, "/epcList/2"),
    (put("epcList", 2, value=ITEM + "1"), FaultCode.DUPLICATE, "/epcList"),
    (put("quantityList", 0, "epcClass", value=ITEM + "1"), FaultCode.INSTANCE_NOT_CLASS, "/quantityList/0/epcClass"),
    (
        put("quantityList", 0, "epcClass", value="https://a.example/01/04012345111118/21/2"),
        FaultCode.INSTANCE_NOT_CLASS,
        "/quantityList/0/epcClass",
    ),
    (put("quantityList", 0, "quantity", value="2"), FaultCode.WRONG_TYPE, "/quantityList/0/quantity"),
    (put("quantityList", 0, "quantity", value=True), FaultCode.WRONG_TYPE, "/quantityList/0/quantity"),
    (put("quantityList", 0, "quantity", value=-1), FaultCode.NUMBER_INVALID, "/quantityList/0/quantity"),
    (put("quantityList", 0, "quantity", value=float("nan")), FaultCode.NUMBER_INVALID, "/quantityList/0/quantity"),
    (put("quantityList", 0, "uom", value="kg"), FaultCode.UNIT_INVALID, "/quantityList/0/uom"),
    (put("quantityList", 1, "uom", value="KGM"), FaultCode.UNIT_WITHOUT_QUANTITY, "/quantityList/1/uom"),
    (put("quantityList", 1, value={}), FaultCode.FIELD_MISSING, "/quantityList/1/epcClass"),
    (put("quantityList", 1, "weight", value=5), FaultCode.FIELD_NOT_ALLOWED, "/quantityList/1/weight"),
    (put("action", value="CREATE"), FaultCode.ACTION_UNKNOWN, "/action"),
    (put("bizStep", value="transforming"), FaultCode.WORD_UNKNOWN, "/bizStep"),
    (put("bizStep", value="urn:epcglobal:cbv:bizstep:shipping"), FaultCode.WORD_UNKNOWN, "/bizStep"),
    (put("disposition", value=1), FaultCode.WRONG_TYPE, "/disposition"),
    (put("persistentDisposition", value={}), FaultCode.FIELD_MISSING, "/persistentDisposition/set"),
    (put("persistentDisposition", "set", value=[]), FaultCode.LIST_EMPTY, "/persistentDisposition/set"),
    (put("persistentDisposition", "set", value=["active"] * 2), FaultCode.DUPLICATE, "/persistentDisposition/set"),
    (put("persistentDisposition", "unset", 0, value="?"), FaultCode.WORD_UNKNOWN, "/persistentDisposition/unset/0"),
    (put("readPoint", value="geo:1,2"), FaultCode.WRONG_TYPE, "/readPoint"),
    (put("readPoint", value={"example:x": 1}), FaultCode.FIELD_MISSING, "/readPoint/id"),
    (put("readPoint", "name", value="gate"), FaultCode.FIELD_UNKNOWN, "/readPoint/name"),
    (put("bizTransactionList", 0, "type", value="order"), FaultCode.WORD_UNKNOWN, "/bizTransactionList/0/type"),
    (put("sourceList", 0, value={"source": "a:b"}), FaultCode.FIELD_MISSING, "/sourceList/0/type"),
    (put("sourceList", 0, "example:x", value=1), FaultCode.FIELD_NOT_ALLOWED, "/sourceList/0/example:x"),
    (put("destinationList", 0, "destination", value="x"), FaultCode.URI_INVALID, "/destinationList/0/destination"),
    (put("sensorElementList", value={}), FaultCode.WRONG_TYPE, "/sensorElementList"),
    (put(*SENSOR, "sensorReport", value=[]), FaultCode.LIST_EMPTY, "/sensorElementList/0/sensorReport"),
    (put(*SENSOR, "sensorMetaData", value={}), FaultCode.FIELD_UNKNOWN, "/sensorElementList/0/sensorMetaData"),
    (put(*REPORT, "value", value="26"), FaultCode.WRONG_TYPE, f"{REPORT_AT}/value"),
    (put(*REPORT, "booleanValue", value=1), FaultCode.WRONG_TYPE, f"{REPORT_AT}/booleanValue"),
    (
        put(*REPORT, "hexBinaryValue", value="g"),
        FaultCode.TEXT_INVALID,
        f"{REPORT_AT}/hexBinaryValue",
    ),
    (put(*REPORT, "type", value="Warmth"), FaultCode.WORD_UNKNOWN, f"{REPORT_AT}/type"),
    (put(*SENSOR, "sensorReport", 1, value={}), FaultCode.FIELD_MISSING, "/sensorElementList/0/sensorReport/1/type"),
    (put("errorDeclaration", value={}), FaultCode.FIELD_MISSING, "/errorDeclaration/declarationTime"),
    (put("errorDeclaration", "reason", value="oops"), FaultCode.WORD_UNKNOWN, "/errorDeclaration/reason"),
    (
        put("errorDeclaration", "correctiveEventIDs", value="a:b"),
        FaultCode.WRONG_TYPE,
        "/errorDeclaration/correctiveEventIDs",
    ),
    (put("ilmd", value=[]), FaultCode.WRONG_TYPE, "/ilmd"),
    (put("ilmd", "material", value="soil"), FaultCode.FIELD_UNKNOWN, "/ilmd/material"),
    (put("action", value="OBSERVE"), FaultCode.ILMD_NOT_ALLOWED, "/ilmd"),
    (put("colour", value="red"), FaultCode.FIELD_UNKNOWN, "/colour"),
    (put("parentID", value=BOX), FaultCode.FIELD_UNKNOWN, "/parentID"),
    (put("nobody:x", value="red"), FaultCode.PREFIX_UNDECLARED, "/nobody:x"),
    (put("a/b~c:d", value="red"), FaultCode.PREFIX_UNDECLARED, "/a~1b~0c:d"),
    (put("mine:note", value={"nobody:x": 1}), FaultCode.PREFIX_UNDECLARED, "/mine:note/nobody:x"),
    (put("mine:note", value=["x\0"]), FaultCode.TEXT_INVALID, "/mine:note/0"),
    (put("mine:note", value={"\ud800": 1}), FaultCode.TEXT_INVALID, "/mine:note/\ud800"),
    (put("mine:note", value=float("inf")), FaultCode.NUMBER_INVALID, "/mine:note"),
]


@pytest.mark.parametrize(
    ("change", "code", "pointer"), WRONG, ids=[f"{at}-{pointer!a}" for at, (_, _, pointer) in enumerate(WRONG)]
)
def test_a_fault_is_told_with_its_place(change: Callable[[Event], Event], code: FaultCode, pointer: str) -> None:
    faults = check(change(object_event()), CONTEXT)
    assert [(fault.code, fault.pointer) for fault in faults] == [(code, pointer)]
    assert faults[0].message.endswith(".")


# Of the other types (7.4.3 to 7.4.6; conformance requirement 54).
TOGETHER: list[tuple[str, Callable[[Event], Event], FaultCode, str]] = [
    ("aggregation", without("parentID"), FaultCode.PARENT_MISSING, "/parentID"),
    ("all children taken off", without("parentID"), FaultCode.PARENT_MISSING, "/parentID"),
    ("aggregation", put("childEPCs", value=[]), FaultCode.CHILDREN_MISSING, "/childEPCs"),
    ("children seen without a parent", without("childEPCs"), FaultCode.CHILDREN_MISSING, "/childEPCs"),
    ("aggregation", put("parentID", value=LOT), FaultCode.CLASS_NOT_INSTANCE, "/parentID"),
    ("aggregation", put("ilmd", value={}), FaultCode.FIELD_UNKNOWN, "/ilmd"),
    ("aggregation", without("action"), FaultCode.FIELD_MISSING, "/action"),
    ("association", without("parentID"), FaultCode.PARENT_MISSING, "/parentID"),
    ("all associations ended", without("parentID"), FaultCode.PARENT_MISSING, "/parentID"),
    ("association", without("childEPCs"), FaultCode.CHILDREN_MISSING, "/childEPCs"),
    ("transaction", without("bizTransactionList"), FaultCode.TRANSACTIONS_MISSING, "/bizTransactionList"),
    ("transaction", put("bizTransactionList", value=[]), FaultCode.TRANSACTIONS_MISSING, "/bizTransactionList"),
    ("transaction", without("parentID"), FaultCode.OBJECTS_MISSING, "/epcList"),
    ("transformation", without("inputQuantityList"), FaultCode.INPUTS_MISSING, "/inputEPCList"),
    ("transformation", without("outputEPCList"), FaultCode.OUTPUTS_MISSING, "/outputEPCList"),
    ("transformation", put("action", value="ADD"), FaultCode.FIELD_UNKNOWN, "/action"),
    ("half a transformation", without("inputEPCList"), FaultCode.INPUTS_MISSING, "/inputEPCList"),
    ("sensors alone", without("sensorElementList"), FaultCode.OBJECTS_MISSING, "/epcList"),
    ("sensors alone", without("readPoint"), FaultCode.OBJECTS_MISSING, "/epcList"),
]


@pytest.mark.parametrize(
    ("name", "change", "code", "pointer"), TOGETHER, ids=[f"{at}-{row[0]}" for at, row in enumerate(TOGETHER)]
)
def test_fields_must_fit_together(name: str, change: Callable[[Event], Event], code: FaultCode, pointer: str) -> None:
    faults = check(change(copy.deepcopy(VALID[name])), CONTEXT)
    assert [(fault.code, fault.pointer) for fault in faults] == [(code, pointer)]


def test_a_context_from_elsewhere_may_declare_any_prefix() -> None:
    event = {**VALID["aggregation"], "nobody:x": "red"}
    assert check(event, context("https://ns.example.com/context.jsonld")) == []


def test_a_name_declared_as_a_term_is_known() -> None:
    event = {**VALID["aggregation"], "colour": "red"}
    assert check(event, context({"colour": {"@id": "example:colour"}})) == []


def test_faults_are_told_up_to_a_maximum() -> None:
    event = {**VALID["aggregation"], **{f"bare{number}": 1 for number in range(FAULTS_MAX + 1)}}
    assert len(check(event, CONTEXT)) == FAULTS_MAX
    assert len(check(event, CONTEXT, faults_max=FAULTS_MAX + 2)) == FAULTS_MAX + 1
    assert len(check(event, CONTEXT, faults_max=1)) == 1


def _nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = {"example:x": value}
    return value


@pytest.mark.parametrize(
    ("field", "value", "beyond", "code"),
    [
        ("example:x", "x" * TEXT_CHARACTERS_MAX, "x" * (TEXT_CHARACTERS_MAX + 1), FaultCode.TEXT_INVALID),
        ("example:x", _nested(EXTENSION_DEPTH_MAX), _nested(EXTENSION_DEPTH_MAX + 1), FaultCode.TOO_DEEP),
        ("example:x", NUMBER_MAX, NUMBER_MAX * 1.1, FaultCode.NUMBER_INVALID),
        ("example:x", 10**300, 10**400, FaultCode.NUMBER_INVALID),
        (
            "sourceList",
            [{"type": "location", "source": "a:b"}] * ELEMENTS_PER_LIST_MAX,
            [{"type": "location", "source": "a:b"}] * (ELEMENTS_PER_LIST_MAX + 1),
            FaultCode.TOO_MANY,
        ),
        ("childEPCs", ["a:b"] * EPCS_PER_EVENT_MAX, ["a:b"] * (EPCS_PER_EVENT_MAX + 1), FaultCode.TOO_MANY),
        ("parentID", "a:" + "b" * 1983, "a:" + "b" * 1984, FaultCode.URI_INVALID),
    ],
    ids=["text", "depth", "number", "integer", "elements", "epcs", "uri"],
)
def test_limits_hold_at_and_beyond(field: str, value: object, beyond: object, code: FaultCode) -> None:
    assert check({**VALID["aggregation"], field: value}, CONTEXT) == []
    assert [fault.code for fault in check({**VALID["aggregation"], field: beyond}, CONTEXT)] == [code]


def test_the_codes_of_faults_never_change() -> None:
    # They go out in answers: callers branch on them.
    assert " ".join(sorted(FaultCode)) == (
        "action_unknown children_missing class_not_instance context_invalid duplicate field_missing field_not_allowed "
        "field_unknown ilmd_not_allowed inputs_missing instance_not_class list_empty not_an_object number_invalid "
        "objects_missing offset_invalid outputs_missing parent_missing prefix_undeclared text_invalid time_invalid "
        "too_deep too_large too_many transactions_missing type_unknown unit_invalid unit_without_quantity "
        "uri_invalid word_unknown wrong_type"
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(json_values)
def test_anything_is_judged(value: object) -> None:
    assert check(value, CONTEXT)


@settings(max_examples=50)
@given(st.data())
def test_a_broken_event_is_judged(data: st.DataObject) -> None:
    event = copy.deepcopy(VALID[data.draw(st.sampled_from(sorted(VALID)))])
    places: list[tuple[Any, Any]] = [(event, name) for name in event]
    for holder, name in places:
        inner = holder[name]
        if isinstance(inner, dict):
            places += [(inner, key) for key in inner]
        elif isinstance(inner, list):
            places += [(inner, index) for index in range(len(inner))]
    holder, name = data.draw(st.sampled_from(places))
    holder[name] = data.draw(json_values)
    faults = check(event, CONTEXT)
    assert faults == check(json.loads(json.dumps(event)), CONTEXT)
    assert len(faults) <= FAULTS_MAX


@pytest.mark.parametrize(("over", "codes"), [(-1, []), (0, []), (1, ["too_many"])])
def test_values_of_extensions_are_counted_together(over: int, codes: list[str]) -> None:
    half = EXTENSION_VALUES_MAX // 2
    event = {"type": "ObjectEvent", **WHEN, "action": "OBSERVE", "epcList": [f"{ITEM}1"]}
    event |= {"example:a": [1] * half, "example:b": [2] * (half + over)}
    assert [fault.code for fault in check(event, CONTEXT)] == codes


@pytest.mark.parametrize(("over", "codes"), [(-1, []), (0, []), (1, ["text_invalid"])])
@pytest.mark.parametrize("is_inner", [False, True])
def test_a_name_of_ones_own_has_a_length(over: int, codes: list[str], is_inner: bool) -> None:
    name = "example:" + "x" * (NAME_CHARACTERS_MAX + over - len("{https://ns.example.com/epcis/}"))
    event = {"type": "ObjectEvent", **WHEN, "action": "OBSERVE", "epcList": [f"{ITEM}1"]}
    event |= {"example:a": {name: 1}} if is_inner else {name: 1}
    assert [fault.code for fault in check(event, CONTEXT)] == codes
