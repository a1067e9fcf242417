"""The rules that one event must keep: those of the published JSON Schema and those it misses (EPCIS 2.0, 7.3, 7.4).

`check` looks at one event and changes nothing. A good event costs some microseconds; every fault that is found is told,
with a code that never changes and a pointer to the place.
"""

from collections.abc import Callable, Mapping

from codes.epc_uri import EpcUriInvalid, canonical
from scan_api.provenance import event_values as values
from scan_api.provenance import vocabulary
from scan_api.provenance.documents import EVENT_TYPES, STANDARD, Context, EpcisDocumentInvalid, is_uri
from scan_api.provenance.event_values import Fault, FaultCode, Findings, Full, Rule, Rules

FAULTS_MAX = 10
EPCS_PER_EVENT_MAX = 100_000

_ITEMS = ("https://id.gs1.org/01/", "https://id.gs1.org/8006/")
_CLASSES = ("urn:epc:class:", "urn:epc:idpat:")
_INSTANCES = "urn:epc:id:"


def check(event: object, context: Context = STANDARD, *, faults_max: int = FAULTS_MAX) -> list[Fault]:
    """Everything that is wrong with an event of a document in that context, none for a valid event.

    At most `faults_max` faults, in the order of the event's fields, then those of the fields together.
    """
    if not isinstance(event, dict):
        return [Fault(FaultCode.NOT_AN_OBJECT, "", "An event is a JSON object.")]
    try:
        findings = Findings(context.of_event(event), faults_max)
    except EpcisDocumentInvalid as error:
        return [Fault(FaultCode.CONTEXT_INVALID, error.pointer, error.message)]
    kind = event.get("type")
    if not isinstance(kind, str) or kind not in EVENT_TYPES:
        return [Fault(FaultCode.TYPE_UNKNOWN, "/type", f"It is one of {', '.join(sorted(EVENT_TYPES))}.")]
    try:
        _EVENTS[kind](event, "", findings)
        TOGETHER[kind](event, findings)
    except Full:
        pass
    return findings.faults


# Single fields.


def _instance(value: object, pointer: str, findings: Findings) -> None:
    if values.uri(value, pointer, findings) and isinstance(value, str) and value.startswith(_CLASSES):
        findings.add(FaultCode.CLASS_NOT_INSTANCE, pointer, "It names a class of things; a single thing is wanted.")


def _class(value: object, pointer: str, findings: Findings) -> None:
    if (
        values.uri(value, pointer, findings)
        and isinstance(value, str)
        and (value.startswith(_INSTANCES) or ("/21/" in value and _is_item(value)))
    ):
        findings.add(FaultCode.INSTANCE_NOT_CLASS, pointer, "It names a single thing; a class of things is wanted.")


def _is_item(link: str) -> bool:
    try:
        name = canonical(link)
    except EpcUriInvalid:
        return False
    return name.startswith(_ITEMS) and "/21/" in name


def _action(value: object, pointer: str, findings: Findings) -> None:
    if not (isinstance(value, str) and value in _ACTIONS) and values.string(value, pointer, findings):
        findings.add(FaultCode.ACTION_UNKNOWN, pointer, "It is ADD, OBSERVE or DELETE.")


def _nothing(value: object, pointer: str, findings: Findings) -> None:
    """`check` has looked at it already."""


def not_here(_value: object, pointer: str, findings: Findings) -> None:
    """The rule for a field of the standard that this type of event has not."""
    findings.add(FaultCode.FIELD_UNKNOWN, pointer, "Events of this type have no such field.")


def _instances(value: object, pointer: str, findings: Findings) -> None:
    if isinstance(value, list) and len(value) <= EPCS_PER_EVENT_MAX:
        for item in value:
            if not isinstance(item, str) or is_uri(item) is None or item.startswith(_CLASSES):
                break
        else:
            return
    _EPCS(value, pointer, findings)


def _different_instances(value: object, pointer: str, findings: Findings) -> None:
    _instances(value, pointer, findings)
    _check_different(value, pointer, findings)


def _check_different(value: object, pointer: str, findings: Findings) -> None:
    if not isinstance(value, list) or len(value) < 2:
        return
    texts = [item for item in value if isinstance(item, str)]
    if len(set(texts)) < len(texts):
        findings.add(FaultCode.DUPLICATE, pointer, "It has the same element twice.")


def _dispositions(value: object, pointer: str, findings: Findings) -> None:
    _DISPOSITIONS(value, pointer, findings)
    _check_different(value, pointer, findings)


def _persistent_disposition(value: object, pointer: str, findings: Findings) -> None:
    _PERSISTENT_DISPOSITION(value, pointer, findings)
    if isinstance(value, dict) and not value:
        findings.add(FaultCode.FIELD_MISSING, f"{pointer}/set", "It sets or unsets something.")


def _quantity_element(value: object, pointer: str, findings: Findings) -> None:
    _QUANTITY_ELEMENT(value, pointer, findings)
    if isinstance(value, dict) and "uom" in value and "quantity" not in value:
        findings.add(FaultCode.UNIT_WITHOUT_QUANTITY, f"{pointer}/uom", "A unit needs a quantity.")


def _certification(value: object, pointer: str, findings: Findings) -> None:
    if isinstance(value, list):
        _URIS(value, pointer, findings)
    else:
        values.uri(value, pointer, findings)


def _ilmd(value: object, pointer: str, findings: Findings) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            values.extension(name, inner, pointer, findings)
    else:
        findings.add(FaultCode.WRONG_TYPE, pointer, "It is an object.")


# The fields of an event together.


def _any(event: Mapping[str, object], name: str, other: str) -> bool:
    return bool(event.get(name) or event.get(other))


def _object_event(event: Mapping[str, object], findings: Findings) -> None:
    # Without things an event may still tell what a sensor measured at a place (7.4.2).
    sensed = event.get("sensorElementList") and ("epcList" in event or "readPoint" in event)
    if not sensed and not _any(event, "epcList", "quantityList"):
        findings.add(FaultCode.OBJECTS_MISSING, "/epcList", "Neither epcList nor quantityList names anything.")
    if "ilmd" in event and event.get("action") in ("OBSERVE", "DELETE"):
        findings.add(FaultCode.ILMD_NOT_ALLOWED, "/ilmd", "Only ADD comes with master data of its things (7.3.8).")


def _grouping_event(event: Mapping[str, object], findings: Findings) -> None:
    """Aggregation and association (7.4.3, 7.4.6; conformance requirement 54).

    DELETE without children takes all children off the parent. An aggregation may be observed without its parent.
    """
    action = event.get("action")
    if "parentID" not in event and (action != "OBSERVE" or event["type"] == "AssociationEvent"):
        findings.add(FaultCode.PARENT_MISSING, "/parentID", "It names the parent.")
    if action != "DELETE" and not _any(event, "childEPCs", "childQuantityList"):
        findings.add(FaultCode.CHILDREN_MISSING, "/childEPCs", "ADD and OBSERVE name children.")


def _transaction_event(event: Mapping[str, object], findings: Findings) -> None:
    if not event.get("bizTransactionList"):
        findings.add(FaultCode.TRANSACTIONS_MISSING, "/bizTransactionList", "It names at least one transaction.")
    named = _any(event, "epcList", "quantityList") or ("parentID" in event and "epcList" in event)
    if event.get("action") != "DELETE" and not named:
        findings.add(FaultCode.OBJECTS_MISSING, "/epcList", "Only DELETE may leave out the things (7.4.4).")


def _transformation_event(event: Mapping[str, object], findings: Findings) -> None:
    inputs = _any(event, "inputEPCList", "inputQuantityList")
    outputs = _any(event, "outputEPCList", "outputQuantityList")
    if "transformationID" in event:
        if not inputs and not outputs:
            findings.add(FaultCode.INPUTS_MISSING, "/inputEPCList", "It has inputs or outputs (7.4.5).")
        return
    if not inputs:
        findings.add(FaultCode.INPUTS_MISSING, "/inputEPCList", "Without transformationID it has inputs (7.4.5).")
    if not outputs:
        findings.add(FaultCode.OUTPUTS_MISSING, "/outputEPCList", "Without transformationID it has outputs (7.4.5).")


# Tables.

_ACTIONS = frozenset({"ADD", "OBSERVE", "DELETE"})
_URIS = values.list_of(values.uri)
_EPCS = values.list_of(_instance, EPCS_PER_EVENT_MAX)
_QUANTITY_FIELDS: Rules = {"epcClass": _class, "quantity": values.quantity, "uom": values.unit}
_QUANTITY_ELEMENT = values.object_of(_QUANTITY_FIELDS, ("epcClass",), is_open=False)
_QUANTITIES = values.list_of(_quantity_element)
_PLACE = values.object_of({"id": values.uri}, ("id",))
_STEP = values.word(vocabulary.BUSINESS_STEPS, "business step")
_DISPOSITION = values.word(vocabulary.DISPOSITIONS, "disposition")
_DISPOSITIONS = values.list_of(_DISPOSITION, elements_min=1)
_PERSISTENT_DISPOSITION = values.object_of({"set": _dispositions, "unset": _dispositions}, is_open=False)
_TRANSACTION = values.object_of(
    {"type": values.word(vocabulary.TRANSACTION_TYPES, "business transaction type"), "bizTransaction": values.uri},
    ("bizTransaction",),
    is_open=False,
)
_PARTY_TYPE = values.word(vocabulary.SOURCE_DESTINATION_TYPES, "source or destination type")


def _party(side: str) -> Rule:
    return values.object_of({"type": _PARTY_TYPE, side: values.uri}, ("type", side), is_open=False)


_DEVICE: dict[str, Rule] = {
    "time": values.moment,
    "deviceID": values.uri,
    "deviceMetadata": values.uri,
    "rawData": values.uri,
    "dataProcessingMethod": values.uri,
    "bizRules": values.uri,
}
_SENSOR_REPORT = values.object_of(
    {
        **_DEVICE,
        "type": values.word(vocabulary.MEASUREMENTS, "measurement type"),
        "exception": values.word(vocabulary.SENSOR_ALERTS, "sensor alert"),
        "microorganism": values.uri,
        "chemicalSubstance": values.uri,
        "component": values.word(vocabulary.COMPONENTS, "component"),
        "stringValue": values.text,
        "booleanValue": values.boolean,
        "hexBinaryValue": values.hexadecimal,
        "uriValue": values.uri,
        "uom": values.text,
        "coordinateReferenceSystem": values.uri,
        **dict.fromkeys(("value", "minValue", "maxValue", "meanValue", "sDev", "percRank", "percValue"), values.number),
    },
    ("type",),
)
_SENSOR_ELEMENT = values.object_of(
    {
        "type": values.uri,  # GS1's examples have had it
        "sensorMetadata": values.object_of({**_DEVICE, "startTime": values.moment, "endTime": values.moment}),
        "sensorReport": values.list_of(_SENSOR_REPORT, elements_min=1),
    },
    ("sensorReport",),
)
_COMMON: dict[str, Rule] = {
    "type": _nothing,
    "@context": _nothing,
    "eventTime": values.moment,
    "recordTime": values.moment,
    "eventTimeZoneOffset": values.offset,
    "eventID": values.uri,
    "certificationInfo": _certification,
    "errorDeclaration": values.object_of(
        {
            "declarationTime": values.moment,
            "reason": values.word(vocabulary.ERROR_REASONS, "error reason"),
            "correctiveEventIDs": _URIS,
        },
        ("declarationTime",),
    ),
    "bizStep": _STEP,
    "disposition": _DISPOSITION,
    "persistentDisposition": _persistent_disposition,
    "readPoint": _PLACE,
    "bizLocation": _PLACE,
    "bizTransactionList": values.list_of(
        values.object_of(
            {
                "type": values.word(vocabulary.TRANSACTION_TYPES, "business transaction type"),
                "bizTransaction": values.uri,
            },
            ("bizTransaction",),
            is_open=False,
        )
    ),
    "sourceList": values.list_of(
        values.object_of({"type": _PARTY_TYPE, "source": values.uri}, ("type", "source"), is_open=False)
    ),
    "destinationList": values.list_of(
        values.object_of({"type": _PARTY_TYPE, "destination": values.uri}, ("type", "destination"), is_open=False)
    ),
    "sensorElementList": values.list_of(_SENSOR_ELEMENT),
}
_GROUPING = {
    **_COMMON,
    "action": _action,
    "parentID": _instance,
    "childEPCs": _instances,
    "childQuantityList": _QUANTITIES,
}
_RULES: Mapping[str, Rules] = {
    "ObjectEvent": {
        **_COMMON,
        "action": _action,
        "epcList": _different_instances,
        "quantityList": _QUANTITIES,
        "ilmd": _ilmd,
    },
    "AggregationEvent": _GROUPING,
    "AssociationEvent": _GROUPING,
    "TransactionEvent": {
        **_COMMON,
        "action": _action,
        "parentID": _instance,
        "epcList": _instances,
        "quantityList": _QUANTITIES,
    },
    "TransformationEvent": {
        **_COMMON,
        "inputEPCList": _different_instances,
        "inputQuantityList": _QUANTITIES,
        "outputEPCList": _different_instances,
        "outputQuantityList": _QUANTITIES,
        "transformationID": values.uri,
        "ilmd": _ilmd,
    },
}
_FIELDS = frozenset().union(*_RULES.values())
_REQUIRED = ("eventTime", "eventTimeZoneOffset")
# A context may give any name another meaning, but not those of the standard's own fields.
FIELD_RULES: Mapping[str, Rules] = {
    kind: dict.fromkeys(_FIELDS - rules.keys(), not_here) | dict(rules) for kind, rules in _RULES.items()
}
"""By type of event and by field; what is not in it is an extension, see `event_values.extension`."""
FIELDS_REQUIRED: Mapping[str, tuple[str, ...]] = {
    kind: (*_REQUIRED, "action") if "action" in rules else _REQUIRED for kind, rules in _RULES.items()
}
_EVENTS: Mapping[str, Rule] = {
    kind: values.object_of(rules, FIELDS_REQUIRED[kind]) for kind, rules in FIELD_RULES.items()
}
TOGETHER: Mapping[str, Callable[[Mapping[str, object], Findings], None]] = {
    "ObjectEvent": _object_event,
    "AggregationEvent": _grouping_event,
    "AssociationEvent": _grouping_event,
    "TransactionEvent": _transaction_event,
    "TransformationEvent": _transformation_event,
}
"""By type of event, the rules for its fields together, once each is sound by itself."""
