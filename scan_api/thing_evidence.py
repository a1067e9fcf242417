"""Thing evidence: which records of the transparency log tell of a thing, and what is said of the code that names it."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, false, or_
from sqlmodel import col, select

from codes.acts import BrandAct, OrderAct
from codes.catalogue import Brand
from kit.db import Session
from offline_sdk.code_text import ORDER_DIGITS
from offline_sdk.verifier import Verdict
from scan_api import life_acts, thing_acts
from scan_api.life_acts import OfThing
from scan_api.provenance import trace as traces
from scan_api.provenance.events import events_of
from scan_api.provenance.life import lot_subject
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
    found = await traces.trace(session, brand.brand_id, known.names(name), steps)
    subjects = [event.event_key for event in found.events]
    subjects += await _steps_and_acts(session, scans, brand, name, known)
    return About(name, subjects, found.is_cut, None if verdict is None else said(verdict))


async def _steps_and_acts(session: Session, scans: Scans, brand: Brand, name: str, known: Known) -> Sequence[uuid.UUID]:
    """The ids of an item's recorded steps, of all acts on its order, and of those on it, its lot and its containers."""
    found: list[uuid.UUID] = []
    item = await life_acts.own_item(
        session, brand.brand_id or 0, await scans.scheme(session, brand.issuer_id), OfThing(name)
    )
    if item is not None:
        serial = name.rpartition("/")[2]
        item_key = item.order.item_key(int(serial[ORDER_DIGITS:]))
        found += [one.event_id for one in await events_of(session, item.order, item_key, item.spans[0].first)]
        of_order = select(OrderAct.act_id).where(
            OrderAct.order_id == item.order.order_id, col(OrderAct.kind).in_(life_acts.KINDS)
        )
        found += (await session.exec(of_order)).all()
    # By what was acted on: when it was done is the brand's word, and need not be when it was written down.
    on_these = or_(false(), *(_begins_with(subject) for subject in sorted(_subjects(name, known))))
    found += (await session.exec(select(BrandAct.act_id).where(BrandAct.brand_id == brand.brand_id, on_these))).all()
    return found


def _subjects(name: str, known: Known) -> set[str]:
    """What brand acts call the thing, its lot and the containers of which its trace tells acts."""
    gtin, lot = thing_acts.gtin_in(name), known.lot
    lots = {lot_subject(gtin, lot.lot)} if gtin is not None and lot is not None and lot.lot is not None else set()
    return {name} | lots | {act.subject for act in known.acts if act.on is On.CONTAINER}


def _begins_with(subject: str) -> ColumnElement[bool]:
    written = f'{{"subject":{json.dumps(subject, ensure_ascii=False)},'
    return col(BrandAct.detail).startswith(written, autoescape=True)


def said(verdict: Verdict) -> dict[str, Any] | None:
    """What a verdict says of a code, without its text or signature; None where the text was no code's."""
    if verdict.serial is None:
        return None
    # How old the trust bundle is changes by itself, and the evidence must not.
    return {name: value for name, value in verdict.as_json().items() if name not in ("bundle_state", "clock_suspect")}
