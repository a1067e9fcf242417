"""Parameters of queries that are answered by looking into events: each lets through what fits, and nothing else."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codes.epc_uri import epc_pattern
from kit.errors import FanxingError
from scan_api.provenance import event_query, units
from scan_api.provenance.event_fields import Sight
from scan_api.provenance.event_query import QueryParameterInvalid
from scan_api.provenance.event_tests import holds_all
from scan_api.provenance.thing_sets import ThingSet
from tests.scan_api.event_sender import CONTEXT, seen

NS = "https://ns.example.com/"
ITEM = "urn:epc:id:sgtin:9506000.013435."
EVENT: dict[str, Any] = seen("1") | {
    "action": "ADD",
    "persistentDisposition": {"set": ["recalled"], "unset": ["sellable_accessible"]},
    "quantityList": [{"epcClass": "urn:epc:class:lgtin:9506000.013435.L1", "quantity": 1.5, "uom": "TNE"}],
    "bizTransactionList": [{"type": "po", "bizTransaction": "urn:epcglobal:cbv:bt:9506000000015:7"}],
    "sourceList": [{"type": "owning_party", "source": "urn:epc:id:pgln:9506000.00001"}],
    "destinationList": [{"type": "location", "destination": "urn:epc:id:sgln:9506000.00002.0"}],
    "errorDeclaration": {
        "declarationTime": "2026-06-03T08:00:00Z",
        "reason": "incorrect_data",
        "correctiveEventIDs": ["urn:x:corrected"],
        "ex:by": "Mei",
    },
    "ilmd": {"ex:lot": {"ex:vat": [{"ex:number": "007"}]}, "ex:best": "2027-01-01T00:00:00Z"},
    "readPoint": {"id": "urn:epc:id:sgln:9506000.00001.7", "ex:lane": 4},
    "ex:lorry": {"ex:plate": "沪A 12345", "ex:axles": 3},
    "ex:sealed": True,
    "sensorElementList": [
        {
            "ex:batch": "b1",
            "sensorMetadata": {
                "time": "2026-06-01T07:00:00Z",
                "startTime": "2026-06-01T06:00:00Z",
                "deviceID": "urn:epc:id:giai:9506000.111",
            },
            "sensorReport": [
                {"type": "Temperature", "value": 20.0, "uom": "CEL", "maxValue": 25, "percRank": 50},
                {"type": "Illuminance", "exception": "ALARM_CONDITION", "stringValue": "dim", "hexBinaryValue": "0aF"},
            ],
        }
    ],
}


def fits(name: str, *values: str, header: str = "", event: dict[str, Any] = EVENT) -> bool:
    query = event_query.parse_values({name: list(values)}, event_query.context_of(header))
    assert query.tests, name
    return holds_all(query.tests, Sight.of(event, CONTEXT))


EXTENSIONS = f"my={NS}"


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("EQ_persistentDisposition_set", "https://ref.gs1.org/cbv/Disp-recalled", "sellable_accessible"),
        ("EQ_persistentDisposition_unset", "sellable_accessible", "recalled"),
        ("EQ_quantity", "1.5", "1500"),
        ("EQ_quantity_KGM", "1500", "1.5"),
        ("GT_quantity_TNE", "1.4", "1.5"),
        ("LE_quantity_TNE", "1.5", "1.4"),
        ("EQ_bizTransaction_po", "urn:epcglobal:cbv:bt:9506000000015:7", "urn:epcglobal:cbv:bt:9506000000015:8"),
        ("EQ_bizTransaction_urn:epcglobal:cbv:btt:po", "urn:epcglobal:cbv:bt:9506000000015:7", "x"),
        ("EQ_source_owning_party", "https://id.gs1.org/417/9506000000015", "https://id.gs1.org/417/9506000000022"),
        ("EQ_destination_location", "https://id.example/414/9506000000022", "urn:epc:id:sgln:9506000.00001.0"),
        ("EQ_errorReason", "incorrect_data", "did_not_occur"),
        ("EQ_correctiveEventID", "urn:x:corrected", "urn:x:other"),
        ("GE_errorDeclarationTime", "2026-06-03T16:00:00+08:00", "2026-06-03T08:00:01Z"),
        ("LT_errorDeclaration_Time", "2026-06-03T08:00:01Z", "2026-06-03T08:00:00Z"),
        ("EQ_type", "gs1:Temperature", "Speed"),
        ("EQ_exception", "ALARM_CONDITION", "ERROR_CONDITION"),
        ("EQ_deviceID", "https://id.gs1.org/8004/9506000111", "urn:epc:id:giai:9506000.112"),
        ("EQ_SENSORMETADATA_deviceID", "urn:epc:id:giai:9506000.111", "urn:epc:id:giai:9506000.112"),
        ("GE_startTime", "2026-06-01T06:00:00Z", "2026-06-01T06:00:01Z"),
        ("LT_time", "2026-06-01T07:00:01Z", "2026-06-01T07:00:00Z"),
        ("LT_SENSORMETADATA_time", "2026-06-01T07:00:01Z", "2026-06-01T07:00:00Z"),
        ("EQ_value_FAH", "68", "20"),
        ("GE_value_KEL", "293.15", "294"),
        ("LT_maxValue_CEL", "26", "25"),
        ("GE_percRank", "50", "51"),
        ("EQ_stringValue", "dim", "bright"),
        ("EQ_hexBinaryValue", "0AF", "0B"),
        ("EXISTS_sensorElementList", "", None),
        ("EQ_ex:sealed", "true", "false"),
        ("EQ_my:sealed", "true", "false"),
        (f"EXISTS_{NS}lorry", "", None),
        ("EXISTS_INNER_my:plate", "", None),
        ("EQ_INNER_my:plate", "沪A 12345", "沪A"),
        ("GT_INNER_my:axles", "2", "3"),
        ("EXISTS_ILMD_my:lot", "", None),
        ("EQ_INNER_ILMD_my:number", "007", "7"),
        ("GE_ILMD_my:best", "2027-01-01T08:00:00+08:00", "2027-01-02T00:00:00Z"),
        ("EQ_ERROR_DECLARATION_my:by", "Mei", "Tom"),
        ("EQ_SENSORELEMENT_my:batch", "b1", "b2"),
        ("LE_readPoint_my:lane", "4", "3"),
    ],
)
def test_a_parameter_lets_through_what_fits(name: str, right: str, wrong: str | None) -> None:
    assert fits(name, right, header=EXTENSIONS)
    assert wrong is None or not fits(name, wrong, header=EXTENSIONS)
    assert not fits(name, right, header=EXTENSIONS, event=seen("1"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EXISTS_my:sealed", "yes"),
        ("GE_ex:axles", "many"),
        ("EQ_quantity_KGM", "much"),
        ("GE_startTime", "noon"),
        ("EQ_colour", "red"),
        ("WD_bizStep", "shipping"),
        ("EQ_", "x"),
        ("GE_stringValue", "a"),
    ],
)
def test_what_is_no_parameter_or_no_value_is_refused(name: str, value: str) -> None:
    with pytest.raises(QueryParameterInvalid):
        event_query.parse_values({name: [value]})


@given(
    name=st.text(max_size=12)
    | st.sampled_from(["EQ_ex:a", "MATCH_epc", "EQ_value_CEL", "nextPageToken", "EQ_bizStep"])
    | st.from_regex(r"(EQ|GE|EXISTS)_(INNER_)?(ILMD_|SENSORREPORT_)?[a-z]{1,3}:[a-z]{1,3}", fullmatch=True),
    values=st.lists(st.text(max_size=20), max_size=3),
    header=st.text(max_size=20) | st.just("ex=https://x.example/"),
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_asked_is_a_query_or_refused(name: str, values: list[str], header: str) -> None:
    try:
        query = event_query.parse_values({name: values}, event_query.context_of(header))
    except FanxingError:
        return
    holds_all(query.tests, Sight.of(EVENT, CONTEXT))


_PATTERNS = [f"urn:epc:idpat:sgtin:9506000.013435.{last}" for last in ("*", "[10-20]", "17", "5")] + [
    "urn:epc:idpat:sgtin:9506000.*.*",
    "urn:epc:idpat:sscc:9506000.*",
    "urn:epc:idpat:sgtin:*.*.*",
    "urn:x:a",
]
_NAMES = [f"https://id.gs1.org/01/0950600013435{digit}/21/{n}" for digit in (2, 9) for n in (5, 15, 17, 99)] + [
    "https://id.gs1.org/00/095060000000000012",
    "https://id.gs1.org/01/09506000134352",
    "urn:x:a",
]


@given(st.lists(st.sampled_from(_PATTERNS), min_size=1, max_size=5))
def test_a_set_of_things_has_what_one_of_its_patterns_matches(texts: list[str]) -> None:
    patterns = [epc_pattern(text) for text in texts]
    things = ThingSet.of(frozenset({"epc"}), patterns)
    for name in _NAMES:
        assert things.has(name) == any(pattern.matches(name) for pattern in patterns), name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, "KGM"), (1_000, "GRM")),
        ((100, "CEL"), (212, "FAH")),
        ((1, "BAR"), (1_000, "MBR")),
        ((36, "KMH"), (10, "MTS")),
    ],
)
def test_units_of_one_quantity_compare(one: tuple[float, str], other: tuple[float, str]) -> None:
    (first, amount), (second, same) = units.comparable(*one), units.comparable(*other)
    assert (first, units.is_equal(amount, same)) == (second, True)
    assert units.comparable(1, "XYZ")[0] not in {"mass", first}
