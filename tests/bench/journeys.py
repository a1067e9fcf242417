"""Journeys: a brand's containers from the factory to the shops, as the rows that capture would have stored for them.

One journey is a container of 4 pallets of 6 cases of 6 boxes of 10 items: made of one lot, packed on five levels,
shipped, unpacked level by level and sold item by item. Each kind of event is judged once by the very code of capture,
with samples in it; what that gives are the templates of the rows, and other journeys put their own names in.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from codes.gs1.linters import check_digit
from loadtest.installation import GTIN
from scan_api.provenance import aggregation, captures, event_hash, event_json
from scan_api.provenance.aggregation import Kind

CONTEXT = [
    "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld",
    {"cbvmda": "https://ref.gs1.org/cbv/cbvmda/", "ex": "https://ns.example.com/"},
]
PALLETS, CASES, BOXES, ITEMS = 4, 6, 6, 10
"""Of a container, a pallet, a case, a box."""
BOXES_ALL = PALLETS * CASES * BOXES
ITEMS_ALL = BOXES_ALL * ITEMS
TABLES = ("epcis_event", "event_thing", "packing", "item_lot")
COLUMNS: Mapping[str, Sequence[str]] = {
    "epcis_event": (
        *("event_key", "brand_id", "event_id", "digest", "type", "event_time", "record_time", "action", "biz_step"),
        *("disposition", "read_point", "biz_location", "is_error", "capture_id", "context_id", "content"),
    ),
    "event_thing": ("thing", "brand_id", "event_time", "event_key", "part"),
    "packing": ("child", "brand_id", "since", "event_key", "kind", "parent", "until"),
    "item_lot": ("thing", "brand_id", "lot", "produced_on", "expires_on", "event_time", "event_key"),
}

_STARTS_AT = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
_APART_S = 7_200
_SHOPS = 200
_COMPANY = "9506000"
_BOX_GTIN, _CASE_GTIN, _MILK_GTIN, _SUGAR_GTIN = (
    (digits := f"{indicator}{_COMPANY}{item:05}") + check_digit(digits)
    for indicator, item in ((1, 13435), (2, 13435), (0, 13436), (0, 13437))
)
_DEALER, _PORT, _FACTORY, *_SHOP_NUMBERS = (
    (digits := f"{_COMPANY}{place:05}") + check_digit(digits) for place in range(_SHOPS + 3)
)


def item_name(number: int) -> str:
    """The one name of an item; items are numbered through all journeys."""
    return f"https://id.gs1.org/01/{GTIN}/21/{_serial(number)}"


def _serial(number: int) -> str:
    return str(1_000_000_000 + number)


def _sscc(reference: int) -> str:
    digits = f"0{_COMPANY}{reference:09}"
    return digits + check_digit(digits)


# What stands for a journey's own names while an event is judged: none of it is a part of another, or of anything else.
_SAMPLES = {
    "event_id": "urn:uuid:77777777-7777-4777-8777-777777777777",
    "at": "2001-02-03T04:05:06.000Z",
    "made_on": "2002-03-04",
    "good_until": "2003-05-06",
    "lot": "L55555555",
    "milk": "M55555555",
    "sugar": "S55555555",
    "box": "8888888800",
    "case": "6666666600",
    "pallet": _sscc(444444444),
    "container": _sscc(333333333),
    "shop": _SHOP_NUMBERS[-1],
    **{f"item{number}": f"777777770{number}" for number in range(ITEMS)},
    **{f"box{number}": f"888888880{number + 1}" for number in range(BOXES)},
    **{f"case{number}": f"666666660{number + 1}" for number in range(CASES)},
    **{f"pallet{number}": _sscc(444444445 + number) for number in range(PALLETS)},
}


@dataclass(frozen=True, slots=True)
class Shared:
    """What the rows of all events have in common."""

    brand_id: int
    capture_id: str
    context_id: str
    record_time: str


class _Shape:
    """One kind of event: its content, and its rows in each table, with places for a journey's own names."""

    def __init__(self, shared: Shared, event: Mapping[str, Any]) -> None:
        whole = {"type": event["type"], "eventID": _SAMPLES["event_id"], "eventTime": _SAMPLES["at"], **event}
        document = event_json.read(_document([_written(whole)]))
        [judged] = captures.judge(shared.brand_id, document)
        assert judged.new is not None, judged.problems
        new, values = judged.new, judged.new.values
        row = {name: "\\N" if value is None else value for name, value in values.items()}
        row |= {"event_key": "@key@", "digest": "\\\\x@digest@", "is_error": "f", "event_time": _SAMPLES["at"]}
        row |= {name: getattr(shared, name) for name in ("brand_id", "record_time", "capture_id", "context_id")}
        assert "\\" not in values["content"]
        self.content = _template(values["content"])
        self.prehash = _template(event_hash.prehash(whole, document.context))
        self._lines = {"epcis_event": _template(_line(row[name] for name in COLUMNS["epcis_event"]))}
        at, brand = _SAMPLES["at"], shared.brand_id
        rows: dict[str, list[Sequence[object]]] = {
            "event_thing": [(thing, brand, at, "@key@", part) for thing, part in new.things],
            "packing": [
                (step.child, brand, at, "@key@", step.kind, step.parent, "@until@" if step.kind is Kind.ADD else at)
                for step in aggregation.steps_of(new)
            ],
            "item_lot": [
                (thing, brand, *(_SAMPLES[name] for name in ("lot", "made_on", "good_until")), at, "@key@")
                for thing, _part in new.things
                if "ilmd" in event
            ],
        }
        self._lines |= {table: "".join(_template(_line(one)) for one in some) for table, some in rows.items() if some}
        self.tables = frozenset(self._lines)
        self._identity = f"{shared.brand_id}\x1f%s\x1f\x1fgiven"

    def rows(self, table: str, names: dict[str, str]) -> str:
        """The lines of an event's rows for COPY."""
        identity = self._identity % names["event_id"]
        names["key"] = hashlib.sha256(identity.encode()).hexdigest()[:32]
        if table == "epcis_event":
            names["digest"] = hashlib.sha256((self.prehash % names).encode()).hexdigest()
        return self._lines[table] % names


def _written(event: Mapping[str, Any]) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _line(values: Any) -> str:
    return "\t".join(str(value) for value in values) + "\n"


def _template(text: str) -> str:
    text = text.replace("%", "%%")
    for name, sample in _SAMPLES.items():
        text = text.replace(sample, f"%({name})s")
    for name in ("key", "digest", "until"):
        text = text.replace(f"@{name}@", f"%({name})s")
    return text


def _document(events: Sequence[str]) -> bytes:
    head = {"@context": CONTEXT, "type": "EPCISDocument", "schemaVersion": "2.0", "creationDate": _SAMPLES["at"]}
    return f'{_written(head)[:-1]},"epcisBody":{{"eventList":[{",".join(events)}]}}}}'.encode()


class Journeys:
    """All journeys, each by its number."""

    def __init__(self, shared: Shared) -> None:
        self._shapes = {name: _Shape(shared, event) for name, event in _events().items()}

    def documents(self, number: int, events_max: int) -> Iterator[bytes]:
        """A journey as somebody would send it."""
        events = [shape.content % names for shape, names in self._happenings(number)]
        for start in range(0, len(events), events_max):
            yield _document(events[start : start + events_max])

    def rows(self, table: str, number: int) -> str:
        """A journey's rows in a table, as lines for COPY."""
        return "".join([shape.rows(table, names) for shape, names in self._happenings(number, table)])

    def _happenings(self, number: int, table: str = TABLES[0]) -> Iterator[tuple[_Shape, dict[str, str]]]:
        """The events of a journey that have rows in a table, and the names in each, by what happens and not by time."""
        starts_at, shape = _STARTS_AT + number * _APART_S, self._shapes
        ids = f"urn:uuid:{number:08x}-%04x-4000-8000-000000000000"
        day = int(starts_at)
        shared = {
            "lot": f"L{number:08}",
            "milk": f"M{number:08}",
            "sugar": f"S{number:08}",
            "container": _sscc(200_000_000 + number),
            "made_on": _moment(day)[:10],
            "good_until": _moment(day + 300 * 86_400)[:10],
        }
        pallets = [_sscc(300_000_000 + number * PALLETS + pallet) for pallet in range(PALLETS)]
        for position, (kind, after_s, until_s, names) in enumerate(_plan(number, pallets)):
            if table not in shape[kind].tables:
                continue
            names.update(shared)
            names["event_id"], names["at"] = ids % position, _moment(starts_at + after_s)
            if until_s:
                names["until"] = _moment(starts_at + until_s)
            yield shape[kind], names


def _moment(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC).isoformat()[:19]}.000Z"


_Planned = tuple[str, int, int, dict[str, str]]


def _plan(number: int, pallets: Sequence[str]) -> Iterator[_Planned]:
    """What happens: its shape, seconds after the start, when what it packs is unpacked (0: it packs nothing), names."""
    yield "received milk", 0, 0, {}
    yield "made", 600, 0, {}
    for box in range(BOXES_ALL):
        own = number * BOXES_ALL + box
        names = {f"item{item}": _serial(own * ITEMS + item) for item in range(ITEMS)} | {"box": _serial(own)}
        shop = _SHOP_NUMBERS[own // BOXES % _SHOPS]
        yield "commissioned", 1_000 + 10 * box, 0, dict(names)
        yield "inspected", 1_003 + 10 * box, 0, dict(names)
        yield "boxed", 1_005 + 10 * box, 220_000 + 20 * box, names
        yield "stocked", 210_000 + 20 * box, 0, {"box": names["box"], "shop": shop}
        yield "emptied box", 220_000 + 20 * box, 0, {"box": names["box"]}
        for item in range(ITEMS):
            at = 300_000 + 60 * (box * ITEMS + item)
            yield "sold", at, 0, {"item0": names[f"item{item}"], "shop": shop}
    for case in range(PALLETS * CASES):
        own = number * PALLETS * CASES + case
        name, shop = _serial(own), _SHOP_NUMBERS[own % _SHOPS]
        boxes = {f"box{box}": _serial(own * BOXES + box) for box in range(BOXES)}
        yield "cased", 4_000 + 30 * case, 205_000 + 60 * case, {"case": name, **boxes}
        yield "shipped case", 150_000 + 60 * case, 0, {"case": name}
        yield "received case", 200_000 + 60 * case, 0, {"case": name, "shop": shop}
        yield "emptied case", 205_000 + 60 * case, 0, {"case": name}
    for pallet, name in enumerate(pallets):
        cases = {f"case{case}": _serial((number * PALLETS + pallet) * CASES + case) for case in range(CASES)}
        yield "palletised", 6_000 + 60 * pallet, 141_000 + 60 * pallet, {"pallet": name, **cases}
        yield "shipped pallet", 100_000 + 60 * pallet, 0, {"pallet": name}
        yield "received pallet", 140_000 + 60 * pallet, 0, {"pallet": name}
        yield "emptied pallet", 141_000 + 60 * pallet, 0, {"pallet": name}
    yield "loaded", 7_000, 96_000, {f"pallet{pallet}": name for pallet, name in enumerate(pallets)}
    yield "shipped container", 8_000, 0, {}
    yield "arrived", 90_000, 0, {}
    yield "received container", 95_000, 0, {}
    yield "emptied container", 96_000, 0, {}


def _events() -> dict[str, dict[str, Any]]:
    """One event of each kind, with samples in it."""
    s = _SAMPLES
    items = [f"https://id.gs1.org/01/{GTIN}/21/{s[f'item{item}']}" for item in range(ITEMS)]
    boxes = [f"https://id.gs1.org/01/{_BOX_GTIN}/21/{s[f'box{box}']}" for box in range(BOXES)]
    cases = [f"https://id.gs1.org/01/{_CASE_GTIN}/21/{s[f'case{case}']}" for case in range(CASES)]
    pallets = [f"https://id.gs1.org/00/{s[f'pallet{pallet}']}" for pallet in range(PALLETS)]
    box, case = (
        f"https://id.gs1.org/01/{gtin}/21/{s[name]}" for gtin, name in ((_BOX_GTIN, "box"), (_CASE_GTIN, "case"))
    )
    pallet, container = (f"https://id.gs1.org/00/{s[name]}" for name in ("pallet", "container"))
    product, milk = f"https://id.gs1.org/01/{GTIN}/10/{s['lot']}", f"https://id.gs1.org/01/{_MILK_GTIN}/10/{s['milk']}"
    sugar = f"https://id.gs1.org/01/{_SUGAR_GTIN}/10/{s['sugar']}"
    ilmd = {"lotNumber": s["lot"], "productionDate": s["made_on"], "itemExpirationDate": s["good_until"]}
    line, dock, port, dealer, shop = (
        {"id": f"https://id.gs1.org/414/{place}"} for place in (_FACTORY, _FACTORY, _PORT, _DEALER, s["shop"])
    )
    return {
        "received milk": {
            **_seen("receiving", "in_progress", dock),
            "quantityList": [{"epcClass": milk, "quantity": 500, "uom": "KGM"}],
        },
        "made": {
            "type": "TransformationEvent",
            "eventTimeZoneOffset": "+08:00",
            "bizStep": "commissioning",
            "readPoint": line,
            "inputQuantityList": [
                {"epcClass": milk, "quantity": 500, "uom": "KGM"},
                {"epcClass": sugar, "quantity": 80, "uom": "KGM"},
            ],
            "outputQuantityList": [{"epcClass": product, "quantity": ITEMS_ALL}],
        },
        "commissioned": {
            **_seen("commissioning", "active", line, *items),
            "action": "ADD",
            "ilmd": {f"cbvmda:{name}": value for name, value in ilmd.items()},
        },
        "inspected": {**_seen("inspecting", "active", line, *items), "ex:inspector": "机 3"},
        "boxed": _packed(box, line, *items),
        "cased": _packed(case, line, *boxes),
        "palletised": _packed(pallet, line, *cases),
        "loaded": _packed(container, dock, *pallets),
        "shipped container": {
            **_seen("shipping", "in_transit", dock, container),
            "bizTransactionList": [{"type": "po", "bizTransaction": f"urn:epcglobal:cbv:bt:9506000000015:{s['lot']}"}],
        },
        "arrived": _seen("arriving", "in_progress", port, container),
        "received container": _seen("receiving", "in_progress", port, container),
        "emptied container": _emptied(container, port),
        "shipped pallet": _seen("shipping", "in_transit", port, pallet),
        "received pallet": _seen("receiving", "in_progress", dealer, pallet),
        "emptied pallet": _emptied(pallet, dealer),
        "shipped case": _seen("shipping", "in_transit", dealer, case),
        "received case": _seen("receiving", "sellable_not_accessible", shop, case),
        "emptied case": _emptied(case, dealer),
        "stocked": _seen("stocking", "sellable_accessible", shop, box),
        "emptied box": _emptied(box, dealer),
        "sold": _seen("retail_selling", "retail_sold", shop, items[0]),
    }


def _seen(step: str, disposition: str, place: Mapping[str, str], *things: str) -> dict[str, Any]:
    event = {
        "type": "ObjectEvent",
        "eventTimeZoneOffset": "+08:00",
        "action": "OBSERVE",
        "bizStep": step,
        "disposition": disposition,
        "readPoint": place,
        "bizLocation": place,
    }
    return event | {"epcList": list(things)} if things else event


def _packed(parent: str, place: Mapping[str, str], *children: str) -> dict[str, Any]:
    event = {
        "type": "AggregationEvent",
        "eventTimeZoneOffset": "+08:00",
        "action": "ADD",
        "bizStep": "packing",
        "readPoint": place,
        "parentID": parent,
    }
    return event | {"childEPCs": list(children)} if children else event


def _emptied(parent: str, place: Mapping[str, str]) -> dict[str, Any]:
    return _packed(parent, place) | {"action": "DELETE", "bizStep": "unpacking"}


EVENTS_ALL = sum(1 for _planned in _plan(0, [""] * PALLETS))
"""Of a journey."""
