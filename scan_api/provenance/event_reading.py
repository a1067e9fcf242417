"""What an event says, read for keeping: checked, hashed and named, field by field, or else as a whole.

Events of one document say much of the same: the fields that recur are worked out once. What is out of the ordinary, or
wrong, is read as a whole, so that its faults are those that `event_rules.check` finds.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import DecodeError, Raw, Struct
from msgspec.json import Decoder

from codes.epc_uri import item_names
from scan_api.provenance import event_hash, event_json, event_rules, event_values, parties, vocabulary
from scan_api.provenance.documents import Context, moment_of
from scan_api.provenance.event_hash import EventUnhashable
from scan_api.provenance.event_rules import EPCS_PER_EVENT_MAX
from scan_api.provenance.event_values import (
    EXTENSION_VALUES_MAX,
    SHOWN_CHARACTERS_MAX,
    Fault,
    FaultCode,
    Findings,
    Full,
    Rule,
)
from scan_api.provenance.things import THING_LISTS, THING_QUANTITIES, Part, name_of, things_of

FORM_FIELDS_MAX: Final = 64
"""Of an event that is read field by field."""
FORMS_KEPT_MAX: Final = 64
FIELDS_KEPT_MAX: Final = 256
"""Values kept of one field; when there are more, it begins anew."""
FIELD_BYTES_KEPT_MAX: Final = 512
RECURRING: Final = frozenset(
    {
        *("eventTimeZoneOffset", "action", "bizStep", "disposition", "persistentDisposition", "readPoint"),
        *("bizLocation", "sourceList", "destinationList"),
    }
)
"""Fields that are often the same in all events of a line or a lorry, and so kept together."""
OFTEN_ALIKE: Final = frozenset({"bizTransactionList", "quantityList", "ilmd"})
"""Fields that are kept, each by itself."""
IDENTIFIER_BYTES_MAX: Final = 2_000
"""In UTF-8: what a row of PostgreSQL's indexes has room for."""
_WHOLE: Final = frozenset({"@context", "errorDeclaration"})
"""With one of these, an event is read as a whole."""
_WORDS: Final = {
    "bizStep": ("biz_step", vocabulary.BUSINESS_STEPS),
    "disposition": ("disposition", vocabulary.DISPOSITIONS),
}
_PLACES: Final = {"readPoint": "read_point", "bizLocation": "biz_location"}
_NO_COLUMNS: Final[Mapping[str, str | None]] = dict.fromkeys(
    ("action", "biz_step", "disposition", "read_point", "biz_location")
)
_COLUMN_OF: Final = {"action": "action", **{name: column for name, (column, _) in _WORDS.items()}, **_PLACES}
_LISTS: Final = {name for name, _ in THING_LISTS}
_QUANTITIES: Final = {name for name, _ in THING_QUANTITIES}
_PARTS: Final = (("parentID", Part.PARENT), *THING_LISTS, *THING_QUANTITIES)
_DIFFERENT: Final = frozenset({"epcList", "inputEPCList", "outputEPCList"})
_CHARACTER_BYTES_MAX: Final = 4
_fields = Decoder(dict[str, Raw])
_value = Decoder()


class Reading(Struct, frozen=True, gc=False):
    """What a sound event says; `event_id` None: it came without one. `columns` are its row's words and places."""

    type: str
    event_id: str | None
    digest: bytes
    """SHA-256 of its pre-hash string; of a declaration that it was an error, with what that says."""
    hash_id: str
    event_time: datetime
    columns: Mapping[str, str | None]
    things: list[tuple[str, Part]]
    parties: Sequence[str]
    content: str
    declared_at: str | None = None
    """When it was declared to be an error, in UTC."""


class _Field(Struct, frozen=True, gc=False):
    """A sound field of an event."""

    value: object
    pieces: list[str]
    """Of the pre-hash string."""
    quotes: int
    spent: int = 0
    """Values of extensions."""
    column: str | None = None
    names: Collection[str] = ()
    """Of the things in it."""
    parties: Collection[str] = ()
    """Under which it puts the event into the index of parties."""


_Kept = dict[bytes, _Field]


class _Slot(Struct, frozen=True, gc=False):
    """A field that events of a form have."""

    name: str
    rule: Rule | None
    kept: _Kept | None
    place: int | None
    """Among the pieces of the pre-hash string; None: it has none of its own."""


class _Block(Struct, frozen=True, gc=False):
    """The recurring fields of an event together."""

    event: dict[str, object]
    pieces: list[str]
    """Those of all fields that have a place; empty where the others go."""
    columns: Mapping[str, str | None]
    parties: list[str]
    quotes: int
    spent: int


class _Form(Struct, frozen=True, gc=False):
    """What events with the same type and the same fields have in common."""

    type: str
    quotes: int
    placed: int
    recurring: Sequence[_Slot]
    others: Sequence[_Slot]
    parts: Sequence[tuple[str, Part]]
    blocks: dict[tuple[bytes, ...], _Block]


class _Unusual(Exception):
    """To be read as a whole."""


class Reader:
    """Reads the events of a document, or of a part of it: what recurs is kept as long as this is."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._forms: dict[tuple[object, ...], _Form] = {}
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._findings = Findings(context, 1)

    def read(self, sent: object) -> Reading | Sequence[Fault]:
        """What an event says, or what is wrong with it; `sent` is `Raw` or the event itself."""
        if not isinstance(sent, Raw):
            return _whole(sent, _encoded(sent), self._context)
        try:
            return self._by_fields(bytes(sent))
        except (_Unusual, Full, EventUnhashable, DecodeError, UnicodeDecodeError, RecursionError):
            self._findings.faults.clear()
        read = event_json.parsed(sent)
        return [read] if isinstance(read, Fault) else _whole(*read, self._context)

    def _by_fields(self, sent: bytes) -> Reading:
        if len(sent) > event_json.EVENT_BYTES_MAX:
            raise _Unusual
        fields = _fields.decode(sent)
        form = self._form(fields)
        self._findings.values_left = EXTENSION_VALUES_MAX
        block = self._block(form, fields)
        event, pieces, quotes = block.event.copy(), block.pieces.copy(), block.quotes
        loose: list[str] = []
        named: dict[str, Collection[str]] = {}
        involved = block.parties
        for slot in form.others:
            name = slot.name
            field = self._field(slot, bytes(fields[name]))
            event[name] = field.value
            quotes += field.quotes
            if slot.place is None:
                loose += field.pieces
            else:
                pieces[slot.place] = field.pieces[0]
            if field.names:
                named[name] = field.names
            if field.parties:
                involved = [*involved, *field.parties]
        # More quotes than in its fields: one is there twice, or has a name that is written with escapes.
        if quotes != sent.count(b'"') or self._findings.values_left < 0:
            raise _Unusual
        event_rules.TOGETHER[form.type](event, self._findings)
        loose.sort()
        digest = hashlib.sha256("".join(pieces + loose).encode("utf-8", "surrogatepass")).digest()
        things = [(name, part) for field_name, part in form.parts for name in named.get(field_name, ())]
        return Reading(
            form.type,
            event.get("eventID"),  # type: ignore[arg-type]  # its rule has looked at it
            digest,
            event_hash.hash_id(digest),
            event["eventTime"],  # type: ignore[arg-type]
            block.columns,
            things,
            list(dict.fromkeys(involved)) if involved else involved,
            sent.decode(),
        )

    def _form(self, fields: Mapping[str, Raw]) -> _Form:
        """Raises _Unusual where the fields are not those of a sound event."""
        kind = fields.get("type")
        if kind is None or len(fields) > FORM_FIELDS_MAX:
            raise _Unusual
        key = (bytes(kind), *fields)
        form = self._forms.get(key)
        if form is None:
            form = self._made(_value.decode(kind), fields)
            if len(self._forms) >= FORMS_KEPT_MAX:
                self._forms.clear()
            self._forms[key] = form
        return form

    def _made(self, kind: object, fields: Mapping[str, Raw]) -> _Form:
        if not isinstance(kind, str) or kind not in event_rules.FIELD_RULES or not _WHOLE.isdisjoint(fields):
            raise _Unusual
        if not fields.keys() >= set(event_rules.FIELDS_REQUIRED[kind]):
            raise _Unusual
        rules, places = event_rules.FIELD_RULES[kind], event_hash.PLACES
        placed = sorted(places.keys() & fields.keys(), key=places.__getitem__)
        slots = [
            _Slot(
                name,
                rules.get(name),
                self._kept.setdefault((kind, name), {}) if name in RECURRING | OFTEN_ALIKE else None,
                placed.index(name) + 1 if name in places else None,
            )
            for name in fields
            if name != "type"
        ]
        return _Form(
            kind,
            2 * len(fields) + bytes(fields["type"]).count(b'"'),
            len(placed),
            [slot for slot in slots if slot.place is not None and slot.name in RECURRING],
            [slot for slot in slots if slot.place is None or slot.name not in RECURRING],
            [pair for pair in _PARTS if pair[0] in fields],
            {},
        )

    def _block(self, form: _Form, fields: Mapping[str, Raw]) -> _Block:
        key = tuple([bytes(fields[slot.name]) for slot in form.recurring])
        block = form.blocks.get(key)
        if block is not None:
            self._findings.values_left -= block.spent
            return block
        event: dict[str, object] = {"type": form.type}
        columns = dict(_NO_COLUMNS)
        involved: list[str] = []
        pieces, quotes = [f"eventType={form.type}"] + [""] * form.placed, form.quotes
        for slot, written in zip(form.recurring, key, strict=True):
            field = self._field(slot, written)
            event[slot.name] = field.value
            pieces[slot.place or 0] = field.pieces[0]
            quotes += field.quotes
            involved += field.parties
            if slot.name in _COLUMN_OF:
                columns[_COLUMN_OF[slot.name]] = field.column
        block = _Block(event, pieces, columns, involved, quotes, EXTENSION_VALUES_MAX - self._findings.values_left)
        if sum(map(len, key)) <= FIELD_BYTES_KEPT_MAX:
            if len(form.blocks) >= FIELDS_KEPT_MAX:
                form.blocks.clear()
            form.blocks[key] = block
        return block

    def _field(self, slot: _Slot, written: bytes) -> _Field:
        kept = slot.kept
        if kept is None:
            return self._judged(slot, written)
        field = kept.get(written)
        if field is not None:
            self._findings.values_left -= field.spent
            return field
        field = self._judged(slot, written)
        if len(written) <= FIELD_BYTES_KEPT_MAX:
            if len(kept) >= FIELDS_KEPT_MAX:
                kept.clear()
            kept[written] = field
        return field

    def _judged(self, slot: _Slot, written: bytes) -> _Field:
        """Raises Full or _Unusual where it is not sound."""
        name, findings = slot.name, self._findings
        value, quotes = _value.decode(written), written.count(b'"')
        if name == "eventTime":
            return _moment_field(value, quotes)
        if name in _LISTS and slot.rule is not event_rules.not_here:
            names = _item_names(name, value)
            if names is not None:
                piece = f"{name}epc={'epc='.join(sorted(names))}"
                return _Field(value, [piece], quotes, names=dict.fromkeys(names))
        left = findings.values_left
        if slot.rule is None:
            event_values.extension(name, value, "", findings)
        else:
            slot.rule(value, "", findings)
        if b"{" in written and event_json.says_twice(written, value):
            raise _Unusual
        pieces, spent = event_hash.piece(name, value, self._context), left - findings.values_left
        if slot.rule is None:
            return _Field(value, pieces, quotes, spent)
        found = _names(name, value)
        if any(len(one) > IDENTIFIER_BYTES_MAX // _CHARACTER_BYTES_MAX for one in found):
            raise _Unusual
        involved = parties.indexed({name: value}) if name in parties.FIELDS else ()
        return _Field(value, pieces, quotes, spent, _column(name, value), found, involved)


def _moment_field(value: object, quotes: int) -> _Field:
    moment = moment_of(value) if isinstance(value, str) else None
    if moment is None:
        raise _Unusual
    if moment.microsecond % 1_000:
        text = event_hash.in_utc(str(value))
    else:
        text = moment.astimezone(UTC).isoformat(timespec="milliseconds")[: -len("+00:00")] + "Z"
    return _Field(moment, [f"eventTime={text}"], quotes)


def _item_names(field: str, value: object) -> list[str] | None:
    """The names of things that are all items of the simplest form: such need no other look. None: there are others."""
    if not isinstance(value, list) or not 0 < len(value) <= EPCS_PER_EVENT_MAX:
        return None
    names = item_names(value)
    return None if names and field in _DIFFERENT and len(set(value)) < len(value) else names


def _names(field: str, value: Any) -> Collection[str]:
    """What a sound field names that is to be found by its name: things, each once, parties, or the event itself."""
    if field == "parentID":
        return (name_of(value),)
    if field == "eventID":
        return (value,)
    if field in _LISTS:
        return dict.fromkeys([name_of(epc) for epc in value])
    if field in _QUANTITIES:
        return dict.fromkeys([name_of(quantity["epcClass"]) for quantity in value])
    return parties.names_in({field: value}) if field in parties.FIELDS else ()


def columns_of(event: Mapping[str, Any]) -> dict[str, str | None]:
    """What the row of a sound event has of its words and places."""
    columns = {column: _column(name, event[name]) for name, column in _COLUMN_OF.items() if name in event}
    return {**_NO_COLUMNS, **columns}


def _column(field: str, value: Any) -> str | None:
    """What the event's row has of a sound field."""
    if field in _PLACES:
        return name_of(value["id"]) if "id" in value else None
    if field in _WORDS:
        return _WORDS[field][1].get(value, str(value))
    return str(value) if field == "action" else None


def _whole(event: object, content: str, context: Context) -> Reading | Sequence[Fault]:
    faults = event_rules.check(event, context)
    if faults or not isinstance(event, dict):
        return faults
    hashed = digest = event_hash.digest(event, context)
    error, declared_at = event.get("errorDeclaration"), None
    if error is not None:
        # What the declaration says is no part of the event's hash.
        declared_at = event_hash.in_utc(error["declarationTime"])
        digest = hashlib.sha256(hashed + json.dumps(error, sort_keys=True).encode()).digest()
    things = things_of(event)
    for name in (event.get("eventID") or "", *[name for name, _ in things], *parties.names_in(event)):
        if len(name) * _CHARACTER_BYTES_MAX > IDENTIFIER_BYTES_MAX and len(name.encode()) > IDENTIFIER_BYTES_MAX:
            told = f"An identifier has at most {IDENTIFIER_BYTES_MAX} bytes: {name[:SHOWN_CHARACTERS_MAX]}…"
            return [Fault(FaultCode.URI_INVALID, "", told)]
    return Reading(
        event["type"],
        event.get("eventID"),
        digest,
        event_hash.hash_id(hashed),
        datetime.fromisoformat(event["eventTime"]),
        columns_of(event),
        things,
        parties.indexed(event),
        content,
        declared_at,
    )


_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
