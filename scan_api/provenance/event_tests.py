"""The parameters of a query that are answered by looking into events, from their names (EPCIS 2.0, 8.2.7.1).

EQ_bizTransaction_po  EQ_source_owning_party  EQ_transformationID  GE_quantity_KGM  GE_value_CEL  EQ_deviceID
EQ_ex:field  GT_INNER_ex:field  EXISTS_ILMD_ex:field  LT_SENSORREPORT_time  EQ_INNER_ERROR_DECLARATION_ex:field
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from scan_api.provenance import event_fields, vocabulary
from scan_api.provenance.documents import Context, is_moment
from scan_api.provenance.event_fields import FieldName, Fields, Sight, Test, equal_to, measured, number_of, objects
from scan_api.provenance.things import name_of

TEST_NAME: Final = re.compile(
    r"(?P<kind>EQ|GT|GE|LT|LE|EXISTS)_(?P<inner>INNER_)?"
    r"(?:(?P<scope>ILMD|ERROR_DECLARATION|SENSORELEMENT|SENSORMETADATA|SENSORREPORT|readPoint|bizLocation)_)?"
    r"(?P<name>.{1,2000})"
)
_AMOUNT: Final = re.compile(
    r"(?P<kind>EQ|GT|GE|LT|LE)_"
    r"(?P<field>quantity|value|minValue|maxValue|meanValue|sDev|percRank|percValue)(?:_(?P<unit>[A-Z0-9]{2,4}))?"
)
_PARTY: Final = re.compile(r"EQ_(?P<list>bizTransaction|source|destination)_(?P<type>.{1,2000})")
_QUANTITIES: Final = ("quantityList", "childQuantityList", "inputQuantityList", "outputQuantityList")
_OF_SENSORS: Final = frozenset({"SENSORELEMENT", "SENSORMETADATA", "SENSORREPORT"})
_EXISTS_VALUES: Final = frozenset({"", "1", "true"})


def _quantities(event: Fields) -> Iterator[Fields]:
    return (one for name in _QUANTITIES for one in objects(event.get(name)))


def _any_of(look: Callable[[Fields], Iterator[Any]], holds: Callable[[Any], bool]) -> Test:
    return lambda sight: any(holds(value) for value in look(sight.event))


def _fields(name: str, *holders: Callable[[Fields], Iterator[Fields]]) -> Callable[[Fields], Iterator[Any]]:
    def look(event: Fields) -> Iterator[Any]:
        for holder in holders:
            for one in holder(event):
                if name in one:
                    value = one[name]
                    yield from value if isinstance(value, list) else (value,)

    return look


_METADATA, _REPORTS = event_fields.sensor_metadata, event_fields.sensor_reports
_TEXTS: Final[Mapping[str, Callable[[Fields], Iterator[Any]]]] = {
    "EQ_transformationID": _fields("transformationID", objects),
    "EQ_correctiveEventID": _fields("correctiveEventIDs", event_fields.SCOPES["ERROR_DECLARATION"]),
    "EQ_deviceID": _fields("deviceID", _METADATA, _REPORTS),
    "EQ_deviceMetadata": _fields("deviceMetadata", _METADATA, _REPORTS),
    "EQ_rawData": _fields("rawData", _METADATA, _REPORTS),
    "EQ_dataProcessingMethod": _fields("dataProcessingMethod", _METADATA, _REPORTS),
    "EQ_bizRules": _fields("bizRules", _METADATA, _REPORTS),
    "EQ_microorganism": _fields("microorganism", _REPORTS),
    "EQ_chemicalSubstance": _fields("chemicalSubstance", _REPORTS),
    "EQ_coordinateReferenceSystem": _fields("coordinateReferenceSystem", _REPORTS),
    "EQ_stringValue": _fields("stringValue", _REPORTS),
    "EQ_booleanValue": _fields("booleanValue", _REPORTS),
    "EQ_uriValue": _fields("uriValue", _REPORTS),
}
_ERROR = event_fields.SCOPES["ERROR_DECLARATION"]
_PERSISTENT: Final = "persistentDisposition"
_WORDS: Final[Mapping[str, tuple[Callable[[Fields], Iterator[Any]], Mapping[str, str]]]] = {
    "EQ_persistentDisposition_set": (
        _fields("set", lambda event: objects(event.get(_PERSISTENT))),
        vocabulary.DISPOSITIONS,
    ),
    "EQ_persistentDisposition_unset": (
        _fields("unset", lambda event: objects(event.get(_PERSISTENT))),
        vocabulary.DISPOSITIONS,
    ),
    "EQ_errorReason": (_fields("reason", _ERROR), vocabulary.ERROR_REASONS),
    "EQ_type": (_fields("type", _REPORTS), vocabulary.MEASUREMENTS),
    "EQ_exception": (_fields("exception", _REPORTS), vocabulary.SENSOR_ALERTS),
    "EQ_component": (_fields("component", _REPORTS), vocabulary.COMPONENTS),
}
_DECLARED_AT = _fields("declarationTime", _ERROR)
_MOMENTS: Final[Mapping[str, tuple[str, Callable[[Fields], Iterator[Any]]]]] = {
    f"{comparison}_{name}": (comparison, look)
    for comparison in ("GE", "LT")
    for name, look in {
        "errorDeclarationTime": _DECLARED_AT,
        "errorDeclaration_Time": _DECLARED_AT,  # as the query schema of the REST binding spells it
        "time": _fields("time", _METADATA, _REPORTS),
        "startTime": _fields("startTime", _METADATA),
        "endTime": _fields("endTime", _METADATA),
    }.items()
}


def plain_parameter(name: str, values: Sequence[str], context: Context) -> Test | None:
    """The test that a parameter of the standard's own fields asks for; None: it is another, or has a wrong value."""
    if name in _TEXTS:
        return _any_of(_TEXTS[name], equal_to([*values, *(_full(value, context) for value in values)]))
    if name == "EQ_hexBinaryValue":
        wanted = {value.lower() for value in values}
        return _any_of(_fields("hexBinaryValue", _REPORTS), lambda value: str(value).lower() in wanted)
    if name in _WORDS:
        look, words = _WORDS[name]
        return _any_of(look, _is_word(values, words, context))
    if name in _MOMENTS:
        comparison, look = _MOMENTS[name]
        [text] = values if len(values) == 1 else [""]
        holds = event_fields.ordered(comparison, text) if is_moment(text) else None
        return None if holds is None else _any_of(look, holds)
    if name in ("EXISTS_sensorElementList", "EXISTS_sensorElement"):
        return _exists(values, lambda sight: bool(sight.event.get("sensorElementList")))
    return _amount(name, values) or _party(name, values, context)


def _full(value: str, context: Context) -> str:
    expanded = context.expanded(value) if ":" in value else None
    return value if expanded is None else expanded.replace("{", "", 1).replace("}", "", 1)


def _is_word(values: Sequence[str], words: Mapping[str, str], context: Context) -> Callable[[Any], bool]:
    wanted = {one for value in values for one in _word(value, words, context)}

    def holds(value: object) -> bool:
        return isinstance(value, str) and not wanted.isdisjoint(_word(value, words, context))

    return holds


def _word(value: str, words: Mapping[str, str], context: Context) -> set[str]:
    return {vocabulary.bare_word(value, words), vocabulary.bare_word(_full(value, context), words)}


def _exists(values: Sequence[str], test: Test) -> Test | None:
    return test if set(values) <= _EXISTS_VALUES else None


def _amount(name: str, values: Sequence[str]) -> Test | None:
    match = _AMOUNT.fullmatch(name)
    if match is None:
        return None
    numbers = [number for value in values if (number := number_of(value)) is not None]
    if len(numbers) < len(values) or (match["kind"] != "EQ" and len(numbers) > 1):
        return None
    holders = _quantities if match["field"] == "quantity" else _REPORTS
    return _any_of(holders, measured(match["kind"], numbers, match["field"], match["unit"]))


def _party(name: str, values: Sequence[str], context: Context) -> Test | None:
    """A business transaction, source or destination of a type: one of the values, identifiers by any name."""
    match = _PARTY.fullmatch(name)
    if match is None:
        return None
    field = match["list"]
    words = vocabulary.TRANSACTION_TYPES if field == "bizTransaction" else vocabulary.SOURCE_DESTINATION_TYPES
    is_type = _is_word([match["type"]], words, context)
    wanted = {name_of(one) for value in values for one in (value, _full(value, context))}

    def holds(element: Fields) -> bool:
        return is_type(element.get("type")) and name_of(str(element.get(field))) in wanted

    return _any_of(lambda event: objects(event.get(f"{field}List")), holds)


def field_parameter(name: str, values: Sequence[str], context: Context) -> Test | None:
    """The test that a parameter of an extension's field asks for, or of a sensor's own field in a named place."""
    match = TEST_NAME.fullmatch(name)
    if match is None:
        return None
    kind, scope, field = match["kind"], match["scope"] or "", match["name"]
    if ":" not in field and scope not in _OF_SENSORS and field not in context.terms:
        return None
    looked_for = FieldName.of(field, context)
    inner = match["inner"] is not None
    if kind == "EXISTS":
        return _exists(values, event_fields.field_test(scope, looked_for, None, inner=inner))
    if kind == "EQ":
        wanted = equal_to([*values, *(_full(value, context) for value in values)])
        return event_fields.field_test(scope, looked_for, wanted, inner=inner)
    holds = event_fields.ordered(kind, values[0]) if len(values) == 1 else None
    return None if holds is None else event_fields.field_test(scope, looked_for, holds, inner=inner)


def holds_all(tests: Sequence[Test], sight: Sight) -> bool:
    """Whether all tests hold for an event."""
    return all(test(sight) for test in tests)
