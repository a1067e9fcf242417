"""The event hash id of CBV 2.0 (8.9.2): the same for any two writings of the same event, in JSON or in XML.

The pre-hash string is the event's fields in a canonical order, each as `name=value`, without separators. Where the
text of the standard leaves room, this follows the reference generator's published vectors: `parentID` precedes the
EPCs; `bizTransactionList`, `destinationList`, `ilmd` and `sourceList` follow the sensors in the order of their names;
the type of a transaction or party precedes it; and whatever reads as a number is written as one, quoted or not.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from kit.errors import Invalid
from scan_api.provenance import vocabulary
from scan_api.provenance.documents import KEPT_CHARACTERS_MAX, STANDARD, Context
from scan_api.provenance.things import name_of

DEPTH_MAX = 40
"""Levels of objects and lists within an extension; `event_rules` takes fewer."""
VALUES_KEPT_MAX = 10_000
ZONES_KEPT = 256
EXACT_DIGITS_MAX = 15
"""Decimal digits that a double keeps: longer numbers are normalised as text, so that different ones stay different."""

_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?(Z|[+-][0-9]{2}:[0-9]{2})")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_IDENTIFIERS = ("urn:epc:id:", "https://")
"""What nobody declares as a prefix, and no word begins with."""
_NUMBER_STARTS = frozenset("0123456789+-.")
_SECOND = timedelta(seconds=1)

_Writer = Callable[[str, object, Context], str]


class EventUnhashable(Invalid):
    """What was given is not an event; `event_rules.check` says what is wrong with it."""

    code = "EventUnhashable"


def event_hash(event: Mapping[str, object], context: Context = STANDARD) -> str:
    """The event's hash id, see `digest` and `hash_id`."""
    return hash_id(digest(event, context))


def hash_id(digest: bytes) -> str:
    """A digest as an event id, `ni:///sha-256;…?ver=CBV2.0` (RFC 6920)."""
    return f"ni:///sha-256;{digest.hex()}?ver=CBV2.0"


def digest(event: Mapping[str, object], context: Context = STANDARD) -> bytes:
    """SHA-256 of the event's pre-hash string, in the context of its document.

    Left out are `eventID`, `recordTime`, `errorDeclaration`, comments, contexts, and the names in `context.ignored`.
    Raises EventUnhashable.
    """
    return hashlib.sha256(prehash(event, context).encode("utf-8", "surrogatepass")).digest()


def prehash(event: Mapping[str, object], context: Context = STANDARD) -> str:
    """The pre-hash string of an event (CBV 2.0, 8.9.2); raises EventUnhashable."""
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise EventUnhashable("An event is an object with a type.")
    context = context.of_event(event)
    written = [f"eventType={event['type']}"]
    get = event.get
    for name, write in _ORDERED:
        value = get(name)
        if value is not None:
            written.append(write(name, value, context))
    tail = [write(name, value, context) for name, write in _TAIL if (value := get(name)) is not None]
    for name in event.keys() - _KNOWN:
        tail += _extension(name, event[name], context, 0)
    tail.sort()
    return "".join(written + tail)


def piece(name: str, value: object, context: Context) -> list[str]:
    """What one field of a sound event adds to the pre-hash string; raises EventUnhashable.

    The string is `eventType=` and the type, then the fields of `PLACES` in its order, then the pieces of all others in
    the order of their texts.
    """
    write = _WRITERS.get(name)
    if write is not None:
        return [write(name, value, context)]
    return [] if name in _KNOWN else _extension(name, value, context, 0)


def _plain(name: str, value: object, context: Context) -> str:
    if isinstance(value, str):
        text = _text(value, context)
        return f"{name}={text}" if text else ""
    if isinstance(value, list):
        return "".join(sorted(_plain(name, item, context) for item in value))
    text = _text(value, context)
    return f"{name}={text}" if text else ""


def _moment(name: str, value: object, context: Context) -> str:
    return f"{name}={in_utc(value)}" if isinstance(value, str) else _plain(name, value, context)


def _word(words: Mapping[str, str]) -> _Writer:
    def write(name: str, value: object, context: Context) -> str:
        if isinstance(value, str) and (uri := words.get(value)) is not None:
            return f"{name}={uri}"
        return _plain(name, value, context)

    return write


def _epcs(name: str, value: object, context: Context) -> str:
    epcs = sorted([f"epc={text}" for item in _list(name, value) if (text := _epc(item, context))])
    return name + "".join(epcs) if epcs else ""


def _epc(value: object, context: Context) -> str:
    """An identifier of a single thing: not kept, as they hardly recur."""
    if not isinstance(value, str):
        return _text(value, context)
    text = value.strip()
    return name_of(text) if text.startswith(_IDENTIFIERS) else _canonical_text(text, context)


def _fields(value: object, table: tuple[tuple[str, _Writer], ...], known: frozenset[str], context: Context) -> str:
    """The fields of a structure in their order, then its extensions (rule 21)."""
    if not isinstance(value, dict):
        raise EventUnhashable("A structured field of the event is not an object.")
    written = [write(name, inner, context) for name, write in table if (inner := value.get(name)) is not None]
    if len(value) > len(written):
        extensions: list[str] = []
        for name in value.keys() - known:
            extensions += _extension(name, value[name], context, 0)
        written += sorted(extensions)
    return "".join(written)


def _structure(table: tuple[tuple[str, _Writer], ...], *, also: tuple[str, ...] = ()) -> _Writer:
    known = frozenset([name for name, _ in table] + list(also))

    def write(name: str, value: object, context: Context) -> str:
        if isinstance(value, list):
            return "".join(sorted(write(name, item, context) for item in value))
        inner = _fields(value, table, known, context)
        return name + inner if inner else ""

    return write


def _structures(element: str, table: tuple[tuple[str, _Writer], ...], *, also: tuple[str, ...] = ()) -> _Writer:
    known = frozenset([name for name, _ in table] + list(also))

    def write(name: str, value: object, context: Context) -> str:
        inner = [text for item in _list(name, value) if (text := _fields(item, table, known, context))]
        return name + "".join(sorted([element + text for text in inner])) if inner else ""

    return write


def _ilmd(name: str, value: object, context: Context) -> str:
    return "".join(_extension(name, value, context, 0))


def _extension(name: str, value: object, context: Context, depth: int) -> list[str]:
    """An extension as the strings to be sorted into its parent: one for each item of a list (rules 19 and 20)."""
    if depth > DEPTH_MAX:
        raise EventUnhashable(f"An extension is nested more than {DEPTH_MAX} levels deep.")
    full = context.expanded(name) or name
    if full in context.ignored:
        return []
    items = value if isinstance(value, list) else (value,)
    return [full + _content(item, context, depth) for item in items]


def _content(value: object, context: Context, depth: int) -> str:
    if isinstance(value, dict):
        text = _text(value.get("#text"), context)
        inner: list[str] = []
        for name, item in value.items():
            if name != "#text":
                inner += _extension(name, item, context, depth + 1)
        return (f"={text}" if text else "") + "".join(sorted(inner))
    if isinstance(value, list):
        if depth > DEPTH_MAX:
            raise EventUnhashable(f"An extension is nested more than {DEPTH_MAX} levels deep.")
        return "".join(sorted(_content(item, context, depth + 1) for item in value))
    text = _text(value, context)
    return f"={text}" if text else ""


def _text(value: object, context: Context) -> str:
    """A value in its canonical form: numbers, standard words, CURIEs, EPCs and Digital Links (rules 5 to 18)."""
    if isinstance(value, str):
        kept = context.values.get(value)
        if kept is None:
            kept = _canonical_text(value.strip(), context)
            if len(context.values) < VALUES_KEPT_MAX and len(value) <= KEPT_CHARACTERS_MAX:
                context.values[value] = kept
        return kept
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    raise EventUnhashable("A field of the event has a list or an object where a single value belongs.")


def _canonical_text(text: str, context: Context) -> str:
    if not text:
        return text
    if text[0] in _NUMBER_STARTS:
        return _number_text(text)
    prefix, colon, local = text.partition(":")
    if not colon:
        return text
    if prefix in context.prefixes and not local.startswith("//"):
        text = context.prefixes[prefix] + local
    text = vocabulary.web_uri(text)
    if text[:4].lower() == "http" or text[:8].lower() == "urn:epc:":
        return name_of(text)
    return text


def _number(value: float) -> str:
    try:
        if not math.isfinite(value):
            return str(value)
        whole = int(value)
        return str(whole) if whole == value else repr(value)
    except ValueError:  # Python prints no integer of thousands of digits
        raise EventUnhashable("A number of the event has too many digits.") from None


def _number_text(text: str) -> str:
    if _NUMBER.fullmatch(text) is None:
        return text
    if sum(map(str.isdigit, text)) > EXACT_DIGITS_MAX:
        exact = f"{Decimal(text):f}"
        if "." in exact:
            exact = exact.rstrip("0").rstrip(".")
        return exact if exact != "-0" else "0"
    value = float(text)
    return _number(value) if math.isfinite(value) else text


def in_utc(text: str) -> str:
    """A time in UTC with milliseconds and a Z (rules 8, 9), the fourth decimal rounding, 5 up; other text as it is."""
    text = text.strip()
    match = _MOMENT.fullmatch(text)
    if match is None:
        return text
    base, fraction, zone = match.groups()
    fraction = fraction or "000"
    if len(fraction) <= 3 and zone in ("Z", "+00:00", "-00:00"):
        return f"{base}.{fraction:0<3}Z"
    milliseconds = int(fraction[:3].ljust(3, "0")) + (len(fraction) > 3 and fraction[3] >= "5")
    try:
        moment = datetime.fromisoformat(base) - _offset(zone)
        if milliseconds == 1000:  # rounded up
            moment += _SECOND
    except (ValueError, OverflowError):
        return text
    return f"{moment.isoformat()}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=ZONES_KEPT)
def _offset(zone: str) -> timedelta:
    if zone == "Z":
        return timedelta()
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
    return -offset if zone[0] == "-" else offset


def _list(name: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise EventUnhashable(f"{name} is not a list.")
    return value


# Canonical property order (CBV 2.0, 8.9.2, table).
_QUANTITIES = _structures("quantityElement", (("epcClass", _plain), ("quantity", _plain), ("uom", _plain)))
_PLACE = _structure((("id", _plain),))
_DISPOSITION = _word(vocabulary.DISPOSITIONS)


def _dispositions(name: str, value: object, context: Context) -> str:
    if isinstance(value, list):
        return "".join(sorted(_DISPOSITION(name, item, context) for item in value))
    return _DISPOSITION(name, value, context)


_SENSOR_METADATA = _structure(
    (
        ("time", _moment),
        ("startTime", _moment),
        ("endTime", _moment),
        ("deviceID", _plain),
        ("deviceMetadata", _plain),
        ("rawData", _plain),
        ("dataProcessingMethod", _plain),
        ("bizRules", _plain),
    )
)
_SENSOR_REPORT = _structure(
    (
        ("type", _word(vocabulary.MEASUREMENTS)),
        ("exception", _word(vocabulary.SENSOR_ALERTS)),
        ("deviceID", _plain),
        ("deviceMetadata", _plain),
        ("rawData", _plain),
        ("dataProcessingMethod", _plain),
        ("time", _moment),
        ("microorganism", _plain),
        ("chemicalSubstance", _plain),
        ("value", _plain),
        ("component", _word(vocabulary.COMPONENTS)),
        ("stringValue", _plain),
        ("booleanValue", _plain),
        ("hexBinaryValue", _plain),
        ("uriValue", _plain),
        ("minValue", _plain),
        ("maxValue", _plain),
        ("meanValue", _plain),
        ("sDev", _plain),
        ("percRank", _plain),
        ("percValue", _plain),
        ("uom", _plain),
        ("coordinateReferenceSystem", _plain),
    )
)
_ORDERED: tuple[tuple[str, _Writer], ...] = (
    ("eventTime", _moment),
    ("eventTimeZoneOffset", _plain),
    ("certificationInfo", _plain),
    ("parentID", _plain),
    ("epcList", _epcs),
    ("inputEPCList", _epcs),
    ("childEPCs", _epcs),
    ("quantityList", _QUANTITIES),
    ("childQuantityList", _QUANTITIES),
    ("inputQuantityList", _QUANTITIES),
    ("outputEPCList", _epcs),
    ("outputQuantityList", _QUANTITIES),
    ("action", _plain),
    ("transformationID", _plain),
    ("bizStep", _word(vocabulary.BUSINESS_STEPS)),
    ("disposition", _DISPOSITION),
    ("persistentDisposition", _structure((("set", _dispositions), ("unset", _dispositions)))),
    ("readPoint", _PLACE),
    ("bizLocation", _PLACE),
    (
        "sensorElementList",
        _structures(
            "sensorElement", (("sensorMetadata", _SENSOR_METADATA), ("sensorReport", _SENSOR_REPORT)), also=("type",)
        ),
    ),
)
_TRANSACTION_TYPE = _word(vocabulary.TRANSACTION_TYPES)
_PARTY_TYPE = _word(vocabulary.SOURCE_DESTINATION_TYPES)
_TAIL: tuple[tuple[str, _Writer], ...] = (
    (
        "bizTransactionList",
        _structures("", (("type", _word(vocabulary.TRANSACTION_TYPES)), ("bizTransaction", _plain))),
    ),
    ("destinationList", _structures("", (("type", _PARTY_TYPE), ("destination", _plain)))),
    ("ilmd", _ilmd),
    ("sourceList", _structures("", (("type", _PARTY_TYPE), ("source", _plain)))),
)
_KNOWN = frozenset([name for name, _ in _ORDERED + _TAIL]) | {
    "type",
    "eventID",
    "recordTime",
    "errorDeclaration",
    "@context",
}
_WRITERS: Mapping[str, _Writer] = dict(_ORDERED + _TAIL)
PLACES: Mapping[str, int] = {name: place for place, (name, _) in enumerate(_ORDERED)}
"""Where the fields of an event that have a fixed place stand in the pre-hash string."""
