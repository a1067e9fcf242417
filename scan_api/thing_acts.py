"""Acts on a thing: what was done to it, its order, its lot and what it was packed in, holds that were lifted included.

Captured events tell where goods were; acts tell what was decided of them. A trace has both.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote

from codes.catalogue import Brand
from codes.digital_link import CANONICAL_STEM
from codes.serials import ITEM_NUMBERS, SerialScheme
from kit import procedures
from kit.clock import iso
from kit.db import Session
from kit.procedures import Ask, Kind, Procedure
from kit.procedures import Step as Statement
from offline_sdk.code_text import ORDER_DIGITS, SERIAL_DIGITS
from scan_api.auth import api_keys
from scan_api.provenance import events, life, lots, trace_step
from scan_api.provenance.events import Step
from scan_api.provenance.life import Lot, lot_prefix, lot_subject, order_subject
from scan_api.provenance.lots import LotItems
from scan_api.provenance.packed import ABOVE_SQL
from scan_api.provenance.things import name_of
from scan_api.provenance.trace_step import Taken
from scan_api.scans import Scans

MARKS_SHOWN_MAX: Final = 1_000
"""On one thing, oldest first."""
LIFTED: Final = "lifted"
_REASONED: Final = (Step.ACTIVATED.value, Step.VOIDED.value, Step.RECALLED.value)
_REASONS_READ_MAX: Final = 20

_OF_GTIN: Final = re.compile(r"https://id\.gs1\.org/01/([0-9]{14})(?:/(10|21)/([^/]+))?")
SchemeOf = Callable[[int], Awaitable[SerialScheme]]
"""Tells the permutation of serials of an issuer."""

_ITEM_LOT: Final = {"item_lot": Kind.TEXT, "item_made_on": Kind.TEXT, "item_good_until": Kind.TEXT}
_ASKED: Final = {
    "thing": Kind.TEXT,
    "gtin": Kind.TEXT,
    "is_issued": Kind.BOOLEAN,
    "order_number": Kind.INTEGER,
    "is_lot": Kind.BOOLEAN,
    "lot_asked": Kind.TEXT,
}
_FACT_STEPS: Final = (
    Statement("SELECT CAST(:brand_id AS integer)", gives={"of_brand": Kind.INTEGER}),
    Statement(
        """
        SELECT code_order.order_id, code_order.quantity, code_order.has_ranges, brand.issuer_id
        FROM code_order JOIN product ON product.gtin = code_order.gtin JOIN brand ON brand.brand_id = product.brand_id
        WHERE code_order.gtin = :gtin AND code_order.order_number = :order_number AND product.brand_id = :of_brand
        """,
        gives={
            "order": Kind.INTEGER,
            "quantity": Kind.INTEGER,
            "has_ranges": Kind.BOOLEAN,
            "issuer_id": Kind.INTEGER,
        },
        when="is_issued",
    ),
    Statement(
        "SELECT lot, produced_on, expires_on FROM item_lot WHERE thing = :thing AND brand_id = :of_brand",
        gives=_ITEM_LOT,
    ),
    Statement(
        "SELECT produced_on, expires_on FROM lot_dates WHERE brand_id = :of_brand AND subject = :lot_asked",
        gives={"lot_made_on": Kind.TEXT, "lot_good_until": Kind.TEXT},
        when="is_lot",
    ),
    Statement("SELECT EXISTS (SELECT 1 FROM life_mark WHERE brand_id = :of_brand)", gives={"was_marked": Kind.BOOLEAN}),
    Statement(
        f"{ABOVE_SQL} SELECT name, since, until FROM above",  # noqa: S608 - words of ours
        gives={"name": Kind.TEXT, "since": Kind.MOMENT, "until": Kind.MOMENT},
        collects="stays",
        when="was_marked",
    ),
)
_FACTS_TOLD: Final = (
    *("order_number", "order", "quantity", "has_ranges", "issuer_id", *_ITEM_LOT, "lot_made_on", "lot_good_until"),
    *("was_marked", "stays"),
)
_FACTS: Final = Procedure("thing_facts", {"brand_id": Kind.INTEGER, **_ASKED}, _FACT_STEPS, _FACTS_TOLD, writes=False)
TRACED: Final = Procedure(
    "traced_thing",
    {**api_keys.PARAMETERS, **_ASKED, **trace_step.PARAMETERS},
    (
        api_keys.KEY,
        *_FACT_STEPS,
        # Where a lot has signs that its class's one name writes otherwise, `first_step` sees that.
        Statement(
            f"SELECT '{CANONICAL_STEM}/01/' || :gtin || '/10/' || :item_lot",
            gives={"class_name": Kind.TEXT},
        ),
        *trace_step.steps("IN (:thing, :class_name)"),
    ),
    (*api_keys.KEY.gives, *_FACTS_TOLD, "thing", "class_name", *trace_step.ANSWER),
    writes=False,
)
"""The key that asks, what its brand's tables say of a thing first, for `known`, and the first step of its trace."""
_MOMENTS: Final = f"""
    SELECT recorded_at FROM order_event WHERE order_id = :order
    UNION ALL SELECT recorded_at FROM item_event WHERE item_key = :item
    UNION ALL SELECT recorded_at FROM ({events.of_part(Step.ACTIVATED)}) AS activated
    UNION ALL SELECT recorded_at FROM ({events.of_part(Step.VOIDED)}) AS voided
"""  # noqa: S608 - words of ours
_ITEM: Final = Procedure(
    "issued_thing",
    {
        **events.HISTORY_PARAMETERS,
        "has_ranges": Kind.BOOLEAN,
        "thing": Kind.TEXT,
        "of_brand": Kind.INTEGER,
        "lot_prefix": Kind.TEXT,
    },
    (
        *events.HISTORY,
        life.LOT,
        Statement(
            f"""
            SELECT kind, at, detail FROM order_act
            WHERE order_id = :order AND kind IN ({", ".join(f"'{kind}'" for kind in _REASONED)}) AND at IN ({_MOMENTS})
            ORDER BY act_id LIMIT {_REASONS_READ_MAX}
            """,  # noqa: S608 - words of ours
            gives={"kind": Kind.TEXT, "at": Kind.MOMENT, "detail": Kind.TEXT},
            collects="reasons",
        ),
    ),
    ("events", "part_events", *life.LOT.gives, "reasons"),
    writes=False,
)
"""What was recorded for an item that the brand issued, its lot, and why its order's parts were acted on."""
_MARK: Final = {
    "subject": Kind.TEXT,
    "kind": Kind.TEXT,
    "reason": Kind.TEXT,
    "message": Kind.TEXT,
    "at": Kind.MOMENT,
    "by": Kind.TEXT,
    "lifted_at": Kind.MOMENT,
    "lifted_by": Kind.TEXT,
}
_MARKS: Final = Procedure(
    "thing_marks",
    {"brand_id": Kind.INTEGER, "subjects": Kind.TEXTS, "of_order": Kind.TEXT, "issue_index": Kind.INTEGER},
    (
        Statement(
            f"""
            SELECT subject, kind, reason, message, at, "by", lifted_at, lifted_by FROM life_mark
            WHERE brand_id = :brand_id AND (subject = ANY(:subjects)
                OR (subject = :of_order AND first_index <= :issue_index AND last_index >= :issue_index))
            ORDER BY at, mark_id LIMIT {MARKS_SHOWN_MAX}
            """,  # noqa: S608 - words of ours
            gives=_MARK,
            collects="marks",
        ),
    ),
    ("marks",),
    writes=False,
)
PROCEDURES: Final = (_FACTS, TRACED, _ITEM, _MARKS, lots.ITEMS)


class On(StrEnum):
    """What was acted on."""

    THING = "thing"
    ORDER = "order"
    LOT = "lot"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True)
class ThingAct:
    """One act. `subject` names what it was done to: a thing's one name, a lot's, or `GTIN/order number`.

    `kind` is a step of `events.Step`, of marks held, recalled or voided, or lifted.
    """

    at: datetime
    kind: str
    on: On
    subject: str
    reason: str | None = None
    message: str | None = None
    place: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a brand knows of a thing beside its captured events: acts, oldest first, and the lot."""

    acts: Sequence[ThingAct] = ()
    lot: Lot | None = None
    lot_name: str | None = None
    """The lot's one name as a class of things, where the thing is an item of it."""
    items: LotItems | None = None
    """The lot's items, where the thing is a lot."""

    def names(self, name: str) -> list[str]:
        """The thing's name and that of its lot: what its trace starts from."""
        return [name] if self.lot_name is None else [name, self.lot_name]

    def as_json(self) -> dict[str, Any]:
        """The members `lot`, `items` and `acts` of an answer."""
        return {
            "lot": None if self.lot is None else asdict(self.lot),
            "items": None if self.items is None else asdict(self.items),
            "acts": [{**asdict(act), "at": iso(act.at), "on": act.on.value} for act in self.acts],
        }


@dataclass(frozen=True, slots=True)
class _Marked:
    """A mark, see `life.LifeMark`."""

    subject: str
    kind: str
    reason: str
    message: str | None
    at: datetime
    by: str | None
    lifted_at: datetime | None
    lifted_by: str | None


@dataclass(frozen=True, slots=True)
class _Placed:
    """An item in its order."""

    order_id: int
    order_name: str
    has_ranges: bool
    issue_index: int
    item_key: int


def gtin_in(name: str) -> str | None:
    """The 14-digit GTIN of a thing of this one name (`things.name_of`); None for containers and foreign names."""
    found = _OF_GTIN.fullmatch(name)
    return found[1] if found else None


def lot_name(gtin: str, lot: str) -> str:
    """The one name of a lot as a class of things (GS1 Digital Link URI Syntax, 4.12: AI (10) after (01))."""
    return name_of(f"https://id.gs1.org/01/{gtin}/10/{quote(lot, safe='')}")


async def known_of(session: Session, scans: Scans, brand: Brand, name: str) -> Known:
    """What a brand knows of the thing of this one name, in the caller's transaction."""
    assert brand.brand_id is not None  # rows read from the database have their key
    ask = procedures.asking(session)
    found = await ask(_FACTS, {"brand_id": brand.brand_id, **values(name)})
    return await known(ask, partial(scans.scheme, session), brand.brand_id, name, found)


def values(name: str) -> dict[str, Any]:
    """The parameters about the thing of this one name."""
    gtin, kind, own = _parts(name)
    is_issued = kind == "21" and own.isascii() and own.isdigit() and len(own) == SERIAL_DIGITS
    is_lot = kind == "10"
    return {
        "thing": name,
        "gtin": gtin or "",
        "is_issued": is_issued,
        "order_number": int(own[:ORDER_DIGITS]) if is_issued else 0,
        "is_lot": is_lot,
        "lot_asked": lot_subject(gtin or "", unquote(own)) if is_lot else "",
    }


async def known(ask: Ask, scheme_of: SchemeOf, brand_id: int, name: str, found: Mapping[str, Any]) -> Known:
    """What a brand knows of the thing of this one name, of which `TRACED` told."""
    gtin, kind, own = _parts(name)
    acts: list[ThingAct] = []
    placed = items = None
    if found["order"] is not None:
        placed = _placed(await scheme_of(found["issuer_id"]), gtin or "", own, found)
    if kind == "10":
        lot: Lot | None = Lot(unquote(own), found["lot_made_on"], found["lot_good_until"])
        items = await lots.items_of(ask, brand_id, gtin or "", unquote(own))
    elif placed is None:
        lot = None if found["item_lot"] is None else Lot(*(found[one] for one in _ITEM_LOT))
    else:
        acts, lot = await _recorded(ask, brand_id, gtin or "", placed, name)
    of_lot = None if gtin is None or lot is None or lot.lot is None else lot_name(gtin, lot.lot)
    if found["was_marked"]:
        subjects = {name: (On.THING, name)}
        if of_lot is not None and lot is not None:
            subjects[lot_subject(gtin or "", lot.lot or "")] = On.LOT, of_lot
        acts += await _marked(ask, brand_id, subjects, found["stays"], placed)
    acts.sort(key=lambda act: act.at)
    return Known(tuple(acts), lot, None if of_lot == name else of_lot, items)


def first_step(found: Mapping[str, Any], names: Sequence[str]) -> Taken | None:
    """The first step of the trace from these names that `TRACED` took; None: it started from others."""
    started = [found["thing"], found["class_name"]]
    return trace_step.taken_of(found) if [one for one in started if one is not None] == list(names) else None


def _parts(name: str) -> tuple[str | None, str | None, str]:
    """The GTIN of a thing of this one name, the AI of what is below it, and that itself."""
    named = _OF_GTIN.fullmatch(name)
    return (named[1], named[2], named[3] or "") if named else (None, None, "")


def _placed(scheme: SerialScheme, gtin: str, serial: str, found: Mapping[str, Any]) -> _Placed | None:
    item_number, number = int(serial[ORDER_DIGITS:]), found["order_number"]
    index = scheme.issue_index(gtin, number, item_number)
    if index >= found["quantity"]:
        return None
    order_name, item_key = f"{gtin}/{number:05d}", found["order"] * ITEM_NUMBERS + item_number
    return _Placed(found["order"], order_name, found["has_ranges"], index, item_key)


async def _recorded(
    ask: Ask, brand_id: int, gtin: str, placed: _Placed, name: str
) -> tuple[list[ThingAct], Lot | None]:
    """What was recorded for an item, for its part of the order and for the whole of it; and its lot."""
    asked = {
        "order": placed.order_id,
        "item": placed.item_key,
        "issue_index": placed.issue_index,
        "has_ranges": placed.has_ranges,
        "thing": name,
        "of_brand": brand_id,
        "lot_prefix": lot_prefix(gtin),
    }
    found = await ask(_ITEM, asked)
    reasons = _reasons(found["reasons"])
    acts = [
        ThingAct(
            event.at,
            event.step.value,
            On.ORDER if event.whole_order else On.THING,
            placed.order_name if event.whole_order else name,
            *reasons.get((event.step.value, event.recorded_at), (None, None)),
            event.place,
            event.by,
        )
        for event in events.history_of(found)
    ]
    return acts, life.lot_of(found)


def _reasons(rows: Sequence[Sequence[Any]]) -> dict[tuple[str, datetime], tuple[str | None, str | None]]:
    """Why parts of an order were put on sale, voided or recalled: by kind and moment, as the order's acts tell."""
    found: dict[tuple[str, datetime], tuple[str | None, str | None]] = {}
    for kind, at, detail in rows:
        told = json.loads(detail)
        # An order's recall has a reason in free text, as its acts have had since the beginning; others a word of ours.
        pair = (None, told.get("reason")) if kind == Step.RECALLED else (told.get("reason"), told.get("message"))
        found.setdefault((kind, at), pair)
    return found


async def _marked(
    ask: Ask,
    brand_id: int,
    subjects: dict[str, tuple[On, str]],
    stays: Sequence[tuple[str, datetime, datetime | None]],
    placed: _Placed | None,
) -> list[ThingAct]:
    """The marks that reach a thing, or did until they were lifted. `subjects`: what it and its lot are called."""
    times: dict[str, list[tuple[datetime, datetime | None]]] = {}
    for container, since, until in stays:
        subjects[container] = On.CONTAINER, container
        times.setdefault(container, []).append((since, until))
    asked: dict[str, Any] = {"brand_id": brand_id, "subjects": list(subjects), "of_order": "", "issue_index": 0}
    if placed is not None:
        own = order_subject(placed.order_id)
        subjects[own] = On.ORDER, placed.order_name
        asked |= {"of_order": own, "issue_index": placed.issue_index}
    marks = (_Marked(*row) for row in (await ask(_MARKS, asked))["marks"])
    return [
        act
        for mark in marks
        if mark.subject not in times or any(_overlap(mark, *stay) for stay in times[mark.subject])
        for act in _acts_of(mark, *subjects[mark.subject])
    ]


def _overlap(mark: _Marked, since: datetime, until: datetime | None) -> bool:
    """Whether a thing was in the container while the mark lasted."""
    return (until is None or until > mark.at) and (mark.lifted_at is None or since < mark.lifted_at)


def _acts_of(mark: _Marked, on: On, subject: str) -> list[ThingAct]:
    done = [ThingAct(mark.at, mark.kind, on, subject, mark.reason, mark.message, None, mark.by)]
    if mark.lifted_at is not None:
        done.append(ThingAct(mark.lifted_at, LIFTED, on, subject, mark.reason, None, None, mark.lifted_by))
    return done
