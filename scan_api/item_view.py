"""An item as its scanner sees it: verdict, scan record, history and offers, gathered for page and JSON alike."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kit.clock import iso
from kit.db import Session
from loyalty import claims, offers
from loyalty.claims import Claim
from loyalty.offers import Offer
from loyalty.prizes import Prize
from offline_sdk.code_text import Profile
from scan_api import scans
from scan_api.provenance.events import Event, Step, events_of
from scan_api.scans import Judgement, ScanRecord, Subject
from scan_api.services import Services

WARNING_NOT_ACTIVE = "not_active"
WARNING_SCANNED_OFTEN = "scanned_often"


@dataclass(frozen=True, slots=True)
class ItemView:
    """What one look at a code shows. Everything but the judgement is empty unless the item was issued."""

    judgement: Judgement
    record: ScanRecord
    timeline: tuple[Event, ...]
    offers: tuple[Offer, ...]
    warnings: tuple[str, ...]


async def look(
    services: Services,
    session: Session,
    text: str,
    *,
    channel: str | None,
    member_id: uuid.UUID | None,
    now: datetime,
) -> ItemView:
    """Judge a code text and gather what belongs to it. `channel` None looks without recording a scan."""
    judgement = await services.scans.judge(session, services.trust.verifier, text)
    subject = judgement.subject
    if subject is None:
        return ItemView(judgement, ScanRecord(None, 0), (), (), ())
    face = Profile(judgement.verdict.profile or 0)
    if channel is None:
        record = await scans.record_of(session, subject.item_key)
    else:
        record = await scans.record(session, subject.item_key, face, channel, now)
    claimed = await claims.claims_of(session, subject.item_key)
    offered: list[Offer] = []
    if judgement.genuine:
        offered = await offers.offers_of(
            session,
            claims_of_item=claimed,
            gtin=subject.order.gtin,
            brand_id=subject.product.brand_id,
            face=face,
            member_id=member_id,
            now=now,
        )
    return ItemView(
        judgement,
        record,
        tuple(await _timeline(session, subject, record, claimed)),
        tuple(offered),
        tuple(_warnings(judgement, subject, record)),
    )


async def _timeline(session: Session, subject: Subject, record: ScanRecord, claims: Sequence[Claim]) -> list[Event]:
    events = await events_of(session, subject.order, subject.item_key, subject.issue_index)
    if record.first_scan_at is not None:
        first = record.first_scan_at
        events.append(Event(event_id=uuid.UUID(int=0), step=Step.SCANNED, at=first, recorded_at=first))
    for claim in claims:
        events.append(Event(event_id=claim.claim_id, step=Step.CLAIMED, at=claim.at, recorded_at=claim.at))
    return sorted(events, key=lambda event: (event.at, event.recorded_at))


def _warnings(judgement: Judgement, subject: Subject, record: ScanRecord) -> list[str]:
    if not judgement.genuine:
        return []
    warnings = []
    if not subject.on_sale:
        warnings.append(WARNING_NOT_ACTIVE)
    if record.scan_count >= scans.SCANNED_OFTEN_FROM:
        warnings.append(WARNING_SCANNED_OFTEN)
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
