"""An item as its scanner sees it: verdict, scan record, history and offers, gathered for page and JSON alike.

A look at a code is one procedure, put together here from the steps of those who know the tables: one round trip on
PostgreSQL. What an order and a campaign were made with does not change, so it is read once and kept; whatever can
change is asked each time.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from codes import ranges
from codes.ranges import ItemStanding
from kit.clock import china_day, iso
from kit.ids import new_id
from kit.procedures import Procedure
from loyalty import offers, sign_in
from loyalty.offers import Looked, Offer
from loyalty.prizes import Prize
from offline_sdk.verifier import Verdict
from scan_api import scans
from scan_api.provenance import events, life
from scan_api.provenance.events import Event, Step
from scan_api.provenance.life import Mark
from scan_api.scans import Issued, Judgement, ScanRecord, Subject
from scan_api.services import Services

WARNING_NOT_ACTIVE = "not_active"
WARNING_SCANNED_OFTEN = "scanned_often"
WARNING_EXPIRED = "expired"

_PARAMETERS = {
    **ranges.STANDING_PARAMETERS,
    **sign_in.VISITING_PARAMETERS,
    **offers.PARAMETERS,
    **events.HISTORY_PARAMETERS,
    **life.PARAMETERS,
}
_STEPS = (*ranges.STANDING, *life.LIFE, *sign_in.VISITING, *events.HISTORY, *offers.STEPS)
_STANDING = tuple(ranges.STANDING[0].gives)
_EVENTS = ("events", "part_events")
_ANSWER = (*_STANDING, *life.ANSWER, "visitor", *_EVENTS, *offers.ANSWER, "first_scan_at", "scan_count")
# Scans of one item wait for each other from the recording on, so it comes last.
SCAN = Procedure("scan", {**_PARAMETERS, **scans.RECORDING_PARAMETERS}, (*_STEPS, *scans.RECORDING), _ANSWER)
LOOK = Procedure("look", _PARAMETERS, (*_STEPS, *scans.RECORDED), _ANSWER, writes=False)
"""A look that is no scan: robots cannot make the database queue."""


@dataclass(frozen=True, slots=True)
class ItemView:
    """What one look at a code shows. Everything but the judgement is empty unless the item was issued.

    `visitor` is the member who looks.
    """

    judgement: Judgement
    record: ScanRecord = scans.NEVER_SCANNED
    timeline: tuple[Event, ...] = ()
    offers: tuple[Offer, ...] = ()
    warnings: tuple[str, ...] = ()
    visitor: uuid.UUID | None = None


async def look(
    services: Services, text: str, *, channel: str | None, session_token: str | None, now: datetime
) -> ItemView:
    """Judge a code text and gather what belongs to it. `channel` None looks without recording a scan."""
    verdict = services.trust.verifier.check(text)
    if verdict.issuer is None:
        return ItemView(scans.unbelieved(verdict))
    item = await _issued(services, verdict)
    if item is None:
        return ItemView(scans.never_issued(verdict))
    face, facts = verdict.profile or 0, item.facts
    offering = services.offers.values(facts.brand_id, facts.gtin, face, now)
    values = {
        **offering,
        **sign_in.visiting_values(session_token),
        **item.life_values(),
        "item": item.item_key,
    }
    if channel is None:
        found = await services.caller.call(LOOK, values)
    else:
        found = await services.caller.call(SCAN, {**values, "scan": new_id(), "face": face, "channel": channel})
    standing = ItemStanding(*(found[name] for name in _STANDING))
    marks = life.marks_of(found)
    judgement = scans.judgement_of(verdict, item, standing, marks, life.lot_of(found))
    record = ScanRecord(found["first_scan_at"], found["scan_count"] or 0)
    offered: list[Offer] = []
    if judgement.genuine:
        looked = Looked(facts.brand_id, facts.gtin, face, found["visitor"], now)
        offered = await services.offers.offers_of(looked, found, offering["stripes"])
    return ItemView(
        judgement,
        record,
        tuple(_timeline(found, record, marks)),
        tuple(offered),
        tuple(_warnings(judgement, record, now)),
        found["visitor"],
    )


async def _issued(services: Services, verdict: Verdict) -> Issued | None:
    facts = services.scans.kept_order(verdict)
    if facts is None:
        async with services.database.reading() as session:
            facts = await services.scans.order(session, verdict)
    return services.scans.issued(facts, verdict)


def _timeline(found: Mapping[str, Any], record: ScanRecord, marks: Sequence[Mark]) -> list[Event]:
    timeline = events.history_of(found)
    timeline += _withdrawals(marks, {event.step for event in timeline})
    if record.first_scan_at is not None:
        first = record.first_scan_at
        timeline.append(Event(event_id=uuid.UUID(int=0), step=Step.SCANNED, at=first, recorded_at=first))
    for claim in offers.claims_in(found):
        timeline.append(Event(event_id=claim.claim_id, step=Step.CLAIMED, at=claim.at, recorded_at=claim.at))
    return sorted(timeline, key=lambda event: (event.at, event.recorded_at))


def _withdrawals(marks: Sequence[Mark], told: Collection[Step]) -> list[Event]:
    """Since when an item is held, recalled or void, each once; who did it and why is not for shoppers."""
    since: dict[Step, datetime] = {}
    for mark in marks:
        step = Step(mark.kind.value)
        since[step] = min(mark.at, since.get(step, mark.at))
    return [Event(uuid.UUID(int=0), step, at, at) for step, at in since.items() if step not in told]


def _warnings(judgement: Judgement, record: ScanRecord, now: datetime) -> list[str]:
    if not judgement.genuine or judgement.subject is None:
        return []
    warnings = []
    if not judgement.subject.on_sale:
        warnings.append(WARNING_NOT_ACTIVE)
    if record.scan_count >= scans.SCANNED_OFTEN_FROM:
        warnings.append(WARNING_SCANNED_OFTEN)
    lot = judgement.subject.lot
    if lot is not None and lot.expires_on is not None and lot.expires_on < china_day(now).isoformat():
        warnings.append(WARNING_EXPIRED)
    return warnings


def as_json(view: ItemView, language: str) -> dict[str, Any]:
    """The view for a client. The code text does not stand in it."""
    judgement, subject = view.judgement, view.judgement.subject
    return {
        **judgement.verdict.as_json(),
        "verdict": "genuine" if judgement.genuine else "refused",
        "error": judgement.error,
        "message": judgement.message,
        "warnings": list(view.warnings),
        "product": None if subject is None else _product(subject, language),
        "lot": None if subject is None or subject.lot is None else asdict(subject.lot),
        "first_scan_at": iso(view.record.first_scan_at) if view.record.first_scan_at else None,
        "scan_count": view.record.scan_count,
        "timeline": [
            {"step": event.step.value, "at": iso(event.at), "place": event.place, "by": event.by}
            for event in view.timeline
        ],
        "offers": [_offer(offer, subject, language) for offer in view.offers if subject is not None],
    }


def _product(subject: Subject, language: str) -> dict[str, Any]:
    return {
        "gtin": subject.product.gtin,
        "name": subject.product.name(language),
        "brand": subject.brand.slug,
        "brand_name": subject.brand.name(language),
    }


def _offer(offer: Offer, subject: Subject, language: str) -> dict[str, Any]:
    return {
        "campaign_id": str(offer.campaign_id),
        "title": offer.title_zh if language == "zh" else offer.title_en,
        # Several prizes are drawn among; the odds are published, always.
        "prizes": [{**_prize(chance.prize), "weight": chance.weight, "of": chance.of} for chance in offer.chances],
        "given": _prize(offer.given) if offer.given is not None else None,
        "state": offer.state.value if subject.on_sale else WARNING_NOT_ACTIVE,
        "starts_at": iso(offer.starts_at),
        "ends_at": iso(offer.ends_at),
    }


def _prize(prize: Prize) -> dict[str, Any]:
    return {
        "kind": prize.kind.value,
        "amount": prize.amount,
        "benefit_id": str(prize.benefit_id) if prize.benefit_id else None,
    }
