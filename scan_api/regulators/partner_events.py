"""Events for partners: the simple event query, asked of what `visibility.decide` lets a partner see, and of no more.

Columns narrow what is looked into: places, times and types of shares, and whether an event names parties at all. What
decides is the event itself. Page tokens are sealed: in the clear they would tell when something hidden happened.
"""

import base64
import binascii
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, or_
from sqlmodel import col, select

from codes.catalogue import Brand
from kit.db import Session
from kit.vault import Vault, VaultSealBroken
from scan_api.paging import CursorInvalid
from scan_api.provenance import event_query
from scan_api.provenance.captures import Capture
from scan_api.provenance.event_query import EventQuery, QueryParameterInvalid
from scan_api.provenance.repository import EpcisEvent
from scan_api.regulators import brand_events, sights, visibility
from scan_api.regulators.brand_events import BrandsPage
from scan_api.regulators.partners import Partner
from scan_api.regulators.scope import Scope
from scan_api.regulators.visibility import Share, Viewer

WALKS_MAX: Final = 5
"""So often a page that is still empty is sought further before it is answered."""
CAPTURES_READ_MAX: Final = 100_000
"""Of one partner's own, newest first."""
TOKEN_CHARACTERS_MAX: Final = 500
_PARTIES: Final = ('"sourceList"', '"destinationList"')


async def page(session: Session, vault: Vault, partner: Partner, given: Sequence[tuple[str, str]]) -> BrandsPage:
    """A page of what a partner sees; `given` is the query, and `brand` in it names brands, else all are asked.

    A brand that there is not is one of which nothing is seen. Raises QueryParameterInvalid, also for `maxEventCount`
    and for what asks a brand's master data (WD_…, HASATTR_…, EQATTR_…), CursorInvalid, ScopeTooWide above 100 brands.
    """
    asked = [(name, value) for name, value in given if name not in ("brand", "nextPageToken")]
    tokens = [_opened(vault, partner, value) for name, value in given if name == "nextPageToken"]
    query = event_query.parse([*asked, *(("nextPageToken", token) for token in tokens)])
    if query.count_max is not None:
        raise QueryParameterInvalid("partners cannot ask for maxEventCount", hint="Use eventCountLimit.")
    if query.locations:
        raise QueryParameterInvalid("partners cannot ask by master data", hint="Name places with EQ_….")
    brands = await _brands(session, partner, [value for name, value in given if name == "brand"])
    captured = await _captured(session, partner.viewer)

    def of_brand(brand_id: int) -> EventQuery:
        narrowed = query.narrowed(_condition(partner.viewer, brand_id, captured))
        return replace(narrowed, sift=_Sift(partner.viewer, captured))

    found = await brand_events.merged(session, brands, query, of_brand)
    for _ in range(WALKS_MAX - 1):
        if found.events or found.next_token is None:
            break
        query = query.on_page_of(event_query.parse([*asked, ("nextPageToken", found.next_token)]))
        found = await brand_events.merged(session, brands, query, of_brand)
    token = None if found.next_token is None else _sealed(vault, partner, found.next_token)
    return BrandsPage(found.events, token)


class _Sift:
    """Whether an event is seen."""

    def __init__(self, viewer: Viewer, captured: Mapping[uuid.UUID, uuid.UUID]) -> None:
        self._viewer = viewer
        self._captured = captured

    def __call__(self, event: EpcisEvent, content: Mapping[str, Any]) -> bool:
        by = self._captured.get(event.capture_id)
        facts = visibility.facts_of(content, event.brand_id, event.event_time, by)
        return visibility.decide(facts, self._viewer).is_visible


async def _brands(session: Session, partner: Partner, slugs: Sequence[str]) -> list[int]:
    brand_ids = await sights.brands_of(session, Scope(sandbox=partner.key.sandbox))
    if slugs:
        sound = [slug for slug in slugs if "\0" not in slug]  # which no database stores
        named = select(Brand.brand_id).where(col(Brand.slug).in_(sound))
        brand_ids &= {brand_id for brand_id in await session.exec(named) if brand_id is not None}
    return sorted(brand_ids)


async def _captured(session: Session, viewer: Viewer) -> dict[uuid.UUID, uuid.UUID]:
    """The captures of the partner's own keys, and whose each was."""
    if not viewer.callers:
        return {}
    rows = await session.exec(
        select(Capture.capture_id, Capture.caller_id)
        .where(col(Capture.caller_id).in_(viewer.callers))
        .order_by(col(Capture.created_at).desc())
        .limit(CAPTURES_READ_MAX)
    )
    return dict(rows.all())


def _condition(viewer: Viewer, brand_id: int, captured: Mapping[uuid.UUID, uuid.UUID]) -> ColumnElement[bool]:
    """What at least holds for an event that is seen."""
    held: list[ColumnElement[bool]] = [col(EpcisEvent.content).contains(field) for field in _PARTIES]
    held += [_shared(share) for share in viewer.shares if share.brand_id == brand_id]
    for place in (col(EpcisEvent.read_point), col(EpcisEvent.biz_location)):
        for name in sorted(viewer.names):
            if not name.isdigit():
                held.append(place == name)
                continue
            for stem in (f"https://id.gs1.org/414/{name}", f"https://id.gs1.org/417/{name}"):
                held += [place == stem, place.startswith(f"{stem}/254/", autoescape=True)]
    if captured:
        held.append(col(EpcisEvent.capture_id).in_(captured))
    return or_(*held)


def _shared(share: Share) -> ColumnElement[bool]:
    held: list[ColumnElement[bool]] = [col(EpcisEvent.event_time) >= share.since]
    if share.until is not None:
        held.append(col(EpcisEvent.event_time) < share.until)
    if share.types:
        held.append(col(EpcisEvent.type).in_(sorted(share.types)))
    return and_(*held)


def _context(partner: Partner) -> bytes:
    return b"partner page " + partner.account.partner_id.bytes


def _sealed(vault: Vault, partner: Partner, token: str) -> str:
    return base64.urlsafe_b64encode(vault.seal(token.encode(), _context(partner))).rstrip(b"=").decode("ascii")


def _opened(vault: Vault, partner: Partner, sealed: str) -> str:
    """Raises CursorInvalid."""
    try:
        if len(sealed) > TOKEN_CHARACTERS_MAX:
            raise ValueError
        content = base64.b64decode(sealed + "=" * (-len(sealed) % 4), altchars=b"-_", validate=True)
        return vault.unseal(content, _context(partner)).decode()
    except (ValueError, binascii.Error, VaultSealBroken):
        raise CursorInvalid(
            "this token does not belong to this list", hint="Start without one, and send nextPageToken as it came."
        ) from None
