"""Thing evidence: which records of the transparency log tell of a thing, and what is said of the code that names it."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, false, or_
from sqlmodel import col, select

from codes.acts import BrandAct, OrderAct
from codes.catalogue import Brand
from kit import procedures
from kit.db import Session
from offline_sdk.code_text import ORDER_DIGITS
from offline_sdk.verifier import Verdict
from scan_api import life_acts, thing_acts
from scan_api.life_acts import OfThing
from scan_api.provenance import trace as traces
from scan_api.provenance.events import events_of
from scan_api.provenance.life import lot_subject
from scan_api.provenance.trace import Trace
from scan_api.scans import Scans
from scan_api.thing_acts import Known, On
from scan_api.transparency.bundling import About


async def evidence_about(
    session: Session, scans: Scans, brand: Brand, name: str, steps: int, verdict: Verdict | None = None
) -> About:
    """All that was recorded of the thing of this one name: the events of its trace, steps of its life, and acts on it.

    `steps` as in `trace.trace`; `verdict` where the thing was asked for by a code.
    """
    assert brand.brand_id is not None  # rows read from the database have their key
    known = await thing_acts.known_of(session, scans, brand, name)
    found = await traces.trace(procedures.asking(session), brand.brand_id, known.names(name), steps)
    return await evidence_of(session, scans, brand, name, found, known, verdict)


async def evidence_of(
    session: Session,
    scans: Scans,
    brand: Brand | None,
    name: str,
    found: Trace,
    known: Known,
    verdict: Verdict | None = None,
) -> About:
    """The same of what is told of a thing: as much of its trace as that is, and, if acts are told, their records.

    `brand` None: nothing but the trace.
    """
    subjects = [event.event_key for event in found.events]
    if brand is not None:
        subjects += await _steps_and_acts(session, scans, brand, name, known)
    return About(name, subjects, found.is_cut, None if verdict is None else said(verdict))


async def _steps_and_acts(session: Session, scans: Scans, brand: Brand, name: str, known: Known) -> Sequence[uuid.UUID]:
    """The ids of an item's recorded steps, of the acts on its part of its order, and of the others that are known."""
    found: list[uuid.UUID] = []
    item = await life_acts.own_item(
        session, brand.brand_id or 0, await scans.scheme(session, brand.issuer_id), OfThing(name)
    )
    if item is not None:
        serial = name.rpartition("/")[2]
        item_key = item.order.item_key(int(serial[ORDER_DIGITS:]))
        index = item.spans[0].first
        found += [one.event_id for one in await events_of(session, item.order, item_key, index)]
        of_order = select(OrderAct.act_id, OrderAct.detail).where(
            OrderAct.order_id == item.order.order_id, col(OrderAct.kind).in_(life_acts.KINDS)
        )
        found += [act_id for act_id, detail in await session.exec(of_order) if _reaches(detail, index)]
    # By what was acted on: when it was done is the brand's word, and need not be when it was written down.
    on_these = or_(false(), *(_begins_with(subject) for subject in sorted(_subjects(name, known))))
    found += (await session.exec(select(BrandAct.act_id).where(BrandAct.brand_id == brand.brand_id, on_these))).all()
    return found


def _reaches(detail: str, index: int) -> bool:
    """Whether an act on an order, by its detail, was on the item of this issue index too."""
    told = json.loads(detail).get("ranges")
    parts = (part.partition("-") for part in told.split(",")) if told is not None else ()
    return told is None or any(int(first) <= index <= int(last or first) for first, _hyphen, last in parts)


def _subjects(name: str, known: Known) -> set[str]:
    """What brand acts call the thing, its lot and the containers, of which acts are known."""
    gtin, lot = thing_acts.gtin_in(name), known.lot
    found = {act.subject for act in known.acts if act.on in (On.THING, On.CONTAINER)}
    if gtin is not None and lot is not None and lot.lot is not None and any(act.on is On.LOT for act in known.acts):
        found.add(lot_subject(gtin, lot.lot))
    return found


def _begins_with(subject: str) -> ColumnElement[bool]:
    written = f'{{"subject":{json.dumps(subject, ensure_ascii=False)},'
    return col(BrandAct.detail).startswith(written, autoescape=True)


def said(verdict: Verdict) -> dict[str, Any] | None:
    """What a verdict says of a code, without its text or signature; None where the text was no code's."""
    if verdict.serial is None:
        return None
    # How old the trust bundle is changes by itself, and the evidence must not.
    return {name: value for name, value in verdict.as_json().items() if name not in ("bundle_state", "clock_suspect")}
