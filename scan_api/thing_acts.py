"""Acts on a thing: what was done to it, its order, its lot and what it was packed in, holds that were lifted included.

Captured events tell where goods were; acts tell what was decided of them. A trace has both.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote, unquote

import sqlalchemy as sa
from sqlmodel import col, select

from codes.acts import OrderAct
from codes.catalogue import Brand
from codes.orders import CodeOrder
from kit.clock import iso
from kit.db import Moment, Session
from offline_sdk.code_text import ORDER_DIGITS
from scan_api import life_acts
from scan_api.life_acts import OfThing
from scan_api.provenance import events, life
from scan_api.provenance.events import Event, Step
from scan_api.provenance.life import LifeMark, Lot, lot_subject, order_subject
from scan_api.provenance.lots import ItemLot, LotDates
from scan_api.provenance.packed import ABOVE_SQL
from scan_api.provenance.things import name_of
from scan_api.scans import Scans

MARKS_SHOWN_MAX: Final = 1_000
"""On one thing, oldest first."""
LIFTED: Final = "lifted"
_REASONED: Final = (Step.ACTIVATED.value, Step.VOIDED.value, Step.RECALLED.value)
_REASONS_READ_MAX: Final = 20

_OF_GTIN: Final = re.compile(r"https://id\.gs1\.org/01/([0-9]{14})(?:/(10|21)/([^/]+))?")
_ABOVE: Final = sa.text(f"{ABOVE_SQL} SELECT name, since, until FROM above").columns(  # noqa: S608 - words of ours
    name=sa.Text, since=Moment, until=Moment
)


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

    def names(self, name: str) -> list[str]:
        """The thing's name and that of its lot: what its trace starts from."""
        return [name] if self.lot_name is None else [name, self.lot_name]

    def as_json(self) -> dict[str, Any]:
        """The members `lot` and `acts` of an answer."""
        return {
            "lot": None if self.lot is None else asdict(self.lot),
            "acts": [{**asdict(act), "at": iso(act.at), "on": act.on.value} for act in self.acts],
        }


@dataclass(frozen=True, slots=True)
class _Placed:
    """An item in its order."""

    order: CodeOrder
    issue_index: int
    item_key: int
    serial: str

    @property
    def order_name(self) -> str:
        return f"{self.order.gtin}/{self.order.order_number:05d}"


def gtin_in(name: str) -> str | None:
    """The 14-digit GTIN of a thing of this one name (`things.name_of`); None for containers and foreign names."""
    found = _OF_GTIN.fullmatch(name)
    return found[1] if found else None


def lot_name(gtin: str, lot: str) -> str:
    """The one name of a lot as a class of things (GS1 Digital Link URI Syntax, 4.12: AI (10) after (01))."""
    return name_of(f"https://id.gs1.org/01/{gtin}/10/{quote(lot, safe='')}")


async def known_of(session: Session, scans: Scans, brand: Brand, name: str) -> Known:
    """What a brand knows of the thing of this one name."""
    assert brand.brand_id is not None  # rows read from the database have their key
    named = _OF_GTIN.fullmatch(name)
    placed = await _placed(session, scans, brand, name) if named is not None and named[2] == "21" else None
    lot = await _lot(session, brand.brand_id, name, placed, named)
    acts = [] if placed is None else await _recorded(session, placed, name)
    acts += await _marked(session, brand.brand_id, name, placed, named, lot)
    acts.sort(key=lambda act: act.at)
    of_lot = lot_name(named[1], lot.lot) if named is not None and lot is not None and lot.lot is not None else None
    return Known(tuple(acts), lot, None if of_lot == name else of_lot)


async def _placed(session: Session, scans: Scans, brand: Brand, name: str) -> _Placed | None:
    scheme = await scans.scheme(session, brand.issuer_id)
    found = await life_acts.own_item(session, brand.brand_id or 0, scheme, OfThing(name))
    if found is None:
        return None
    serial = name.rpartition("/")[2]
    return _Placed(found.order, found.spans[0].first, found.order.item_key(int(serial[ORDER_DIGITS:])), serial)


async def _lot(
    session: Session, brand_id: int, name: str, placed: _Placed | None, named: re.Match[str] | None
) -> Lot | None:
    if named is None or named[2] is None:
        return None
    if named[2] == "10":
        lot = unquote(named[3])
        dates = await session.get(LotDates, (brand_id, lot_subject(named[1], lot)))
        return Lot(lot, dates.produced_on if dates else None, dates.expires_on if dates else None)
    if placed is not None:
        order = placed.order
        asked = life.values(brand_id, order.order_id or 0, order.gtin, placed.serial, placed.issue_index)
        return (await life.life_of(session, asked))[1]
    told = await session.get(ItemLot, (name, brand_id))
    return None if told is None else Lot(told.lot, told.produced_on, told.expires_on)


async def _recorded(session: Session, placed: _Placed, name: str) -> list[ThingAct]:
    """What was recorded for an item, for its part of the order and for the whole of it."""
    history = await events.events_of(session, placed.order, placed.item_key, placed.issue_index)
    reasons = await _reasons(session, placed.order, history)
    return [
        ThingAct(
            event.at,
            event.step.value,
            On.ORDER if event.whole_order else On.THING,
            placed.order_name if event.whole_order else name,
            *reasons.get((event.step.value, event.recorded_at), (None, None)),
            event.place,
            event.by,
        )
        for event in history
    ]


async def _reasons(
    session: Session, order: CodeOrder, history: Sequence[Event]
) -> dict[tuple[str, datetime], tuple[str | None, str | None]]:
    """Why parts of an order were put on sale, voided or recalled: by kind and moment, as the order's acts tell."""
    moments = {event.recorded_at for event in history if event.step.value in _REASONED}
    if not moments:
        return {}
    asked = (
        select(OrderAct.kind, OrderAct.at, OrderAct.detail)
        .where(OrderAct.order_id == order.order_id, col(OrderAct.kind).in_(_REASONED), col(OrderAct.at).in_(moments))
        .order_by(col(OrderAct.act_id))
        .limit(_REASONS_READ_MAX)
    )
    found: dict[tuple[str, datetime], tuple[str | None, str | None]] = {}
    for kind, at, detail in await session.exec(asked):
        told = json.loads(detail)
        # An order's recall has a reason in free text, as its acts have had since the beginning; others a word of ours.
        pair = (None, told.get("reason")) if kind == Step.RECALLED else (told.get("reason"), told.get("message"))
        found.setdefault((kind, at), pair)
    return found


async def _marked(
    session: Session,
    brand_id: int,
    name: str,
    placed: _Placed | None,
    named: re.Match[str] | None,
    lot: Lot | None,
) -> list[ThingAct]:
    """The marks that reach a thing, or did until they were lifted."""
    subjects = {name: (On.THING, name)}
    if named is not None and lot is not None and lot.lot is not None:
        subjects[lot_subject(named[1], lot.lot)] = On.LOT, lot_name(named[1], lot.lot)
    asked = {"thing": name, "of_brand": brand_id}
    stays: dict[str, list[tuple[datetime, datetime | None]]] = {}
    for container, since, until in (await (await session.connection()).execute(_ABOVE, asked)).all():
        subjects[container] = On.CONTAINER, container
        stays.setdefault(container, []).append((since, until))
    reached: sa.ColumnElement[bool] = col(LifeMark.subject).in_(subjects)
    if placed is not None:
        own = order_subject(placed.order.order_id or 0)
        subjects[own] = On.ORDER, placed.order_name
        index = placed.issue_index
        reached |= sa.and_(
            col(LifeMark.subject) == own, col(LifeMark.first_index) <= index, col(LifeMark.last_index) >= index
        )
    rows = (
        select(LifeMark)
        .where(LifeMark.brand_id == brand_id, reached)
        .order_by(col(LifeMark.at), col(LifeMark.mark_id))
        .limit(MARKS_SHOWN_MAX)
    )
    return [
        act
        for mark in await session.exec(rows)
        if mark.subject not in stays or any(_overlap(mark, *stay) for stay in stays[mark.subject])
        for act in _acts_of(mark, *subjects[mark.subject])
    ]


def _overlap(mark: LifeMark, since: datetime, until: datetime | None) -> bool:
    """Whether a thing was in the container while the mark lasted."""
    return (until is None or until > mark.at) and (mark.lifted_at is None or since < mark.lifted_at)


def _acts_of(mark: LifeMark, on: On, subject: str) -> list[ThingAct]:
    done = [ThingAct(mark.at, mark.kind, on, subject, mark.reason, mark.message, None, mark.by)]
    if mark.lifted_at is not None:
        done.append(ThingAct(mark.lifted_at, LIFTED, on, subject, mark.reason, None, None, mark.lifted_by))
    return done
