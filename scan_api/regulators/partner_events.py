"""Events for partners: the simple event query, asked of what `visibility.decide` lets a partner see, and of no more.

What passed through a partner is found by its names: those of parties and of places are indexed. Where brands share
something with it, or it captured events itself, or its names and the brands are too many together, the brands' events
are walked, and columns narrow what is looked into.
All brands are asked at once, so that no statement is made for each.
What decides is the event itself. Page tokens are sealed: in the clear they would tell when something hidden happened.
"""

import base64
import binascii
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, or_
from sqlmodel import col, select

from codes.catalogue import Brand
from kit.db import Session
from kit.vault import Vault, VaultSealBroken
from scan_api.paging import CursorInvalid
from scan_api.provenance import event_query
from scan_api.provenance.captures import Capture
from scan_api.provenance.event_query import EventQuery, Path, QueryParameterInvalid
from scan_api.provenance.parties import EventParty
from scan_api.provenance.repository import EpcisEvent
from scan_api.regulators import brand_events, sights, visibility
from scan_api.regulators.brand_events import Asked, BrandsPage
from scan_api.regulators.partners import Partner
from scan_api.regulators.scope import Scope
from scan_api.regulators.visibility import Share, Viewer

WALKS_MAX: Final = 5
"""So often a page that is still empty is sought further before it is answered."""
CAPTURES_READ_MAX: Final = 100_000
"""Of one partner's own, newest first."""
TOKEN_CHARACTERS_MAX: Final = 500
BRANCHES_MAX: Final = 500
"""Paths times brands that are asked by name at once."""
_PLACES: Final = (col(EpcisEvent.read_point), col(EpcisEvent.biz_location))


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
    brand_events.require_few(brands)
    captured = await _captured(session, partner.viewer)
    found = await brand_events.merged(session, query, _asked(query, brands, partner.viewer, captured))
    for _ in range(WALKS_MAX - 1):
        if found.events or found.next_token is None:
            break
        query = query.on_page_of(event_query.parse([*asked, ("nextPageToken", found.next_token)]))
        found = await brand_events.merged(session, query, _asked(query, brands, partner.viewer, captured))
    token = None if found.next_token is None else _sealed(vault, partner, found.next_token)
    return BrandsPage(found.events, token)


@dataclass(frozen=True, slots=True)
class _Captured:
    """The captures of the partner's own keys: whose each was, and for which brands."""

    by: Mapping[uuid.UUID, uuid.UUID]
    brand_ids: frozenset[int]


def _asked(query: EventQuery, brands: Sequence[int], viewer: Viewer, captured: _Captured) -> list[Asked]:
    """What the brands are asked together whose events are walked, and those where all is found by name."""
    walked = captured.brand_ids | {share.brand_id for share in viewer.shares}
    paths = _paths(viewer)
    if len(paths) * sum(one not in walked for one in brands) > BRANCHES_MAX:
        walked = frozenset(brands)
    seen = replace(query.narrowed(_condition(viewer, brands, captured)), sift=_Sift(viewer, captured))
    asked = [
        Asked([one for one in brands if one in walked], seen),
        Asked([one for one in brands if one not in walked], replace(seen, paths=paths)),
    ]
    return [one for one in asked if one.brand_ids]


class _Sift:
    """Whether an event is seen."""

    def __init__(self, viewer: Viewer, captured: _Captured) -> None:
        self._viewer = viewer
        self._captured = captured

    def __call__(self, event: EpcisEvent, content: Mapping[str, Any]) -> bool:
        by = self._captured.by.get(event.capture_id)
        facts = visibility.facts_of(content, event.brand_id, event.event_time, by)
        return visibility.decide(facts, self._viewer).is_visible


async def _brands(session: Session, partner: Partner, slugs: Sequence[str]) -> list[int]:
    brand_ids = await sights.brands_of(session, Scope(sandbox=partner.key.sandbox))
    if slugs:
        sound = [slug for slug in slugs if "\0" not in slug]  # which no database stores
        named = select(Brand.brand_id).where(col(Brand.slug).in_(sound))
        brand_ids &= {brand_id for brand_id in await session.exec(named) if brand_id is not None}
    return sorted(brand_ids)


async def _captured(session: Session, viewer: Viewer) -> _Captured:
    asked = (
        select(Capture.capture_id, Capture.caller_id, Capture.brand_id)
        .where(col(Capture.caller_id).in_(viewer.callers))
        .order_by(col(Capture.created_at).desc())
        .limit(CAPTURES_READ_MAX)
    )
    rows = (await session.exec(asked)).all() if viewer.callers else ()
    return _Captured({row[0]: row[1] for row in rows}, frozenset(row[2] for row in rows))


def _condition(viewer: Viewer, brands: Collection[int], captured: _Captured) -> ColumnElement[bool]:
    """What at least holds for an event of these brands that is seen."""
    named = select(EventParty.party).where(
        col(EventParty.party).in_(sorted(viewer.names)),
        col(EventParty.brand_id) == col(EpcisEvent.brand_id),
        col(EventParty.event_time) == col(EpcisEvent.event_time),
        col(EventParty.event_key) == col(EpcisEvent.event_key),
    )
    own = select(Capture.capture_id).where(
        col(Capture.brand_id) == col(EpcisEvent.brand_id),
        col(Capture.capture_id) == col(EpcisEvent.capture_id),
        col(Capture.caller_id).in_(viewer.callers),
    )
    held: list[ColumnElement[bool]] = [named.exists()]
    held += [place.in_(_whole_names(viewer)) for place in _PLACES]
    if captured.by:
        held.append(own.exists())
    for brand_id in brands:
        if shares := [share for share in viewer.shares if share.brand_id == brand_id]:
            held.append(_shared(brand_id, shares))
    return or_(*held)


def _paths(viewer: Viewer) -> tuple[Path, ...]:
    """Along which all that passed through a partner is found."""
    as_party = [Path(EventParty, (col(EventParty.party) == name,)) for name in sorted(viewer.names)]
    as_place = [Path(EpcisEvent, (place == name,)) for name in _whole_names(viewer) for place in _PLACES]
    return (*as_party, *as_place)


def _whole_names(viewer: Viewer) -> list[str]:
    """How places of the partner's are named that are no part of another; the others are indexed as parties."""
    stems = ("https://id.gs1.org/414/", "https://id.gs1.org/417/")
    names = ([f"{stem}{name}" for stem in stems] if name.isdigit() else [name] for name in sorted(viewer.names))
    return [one for some in names for one in some]


def _shared(brand_id: int, shares: Sequence[Share]) -> ColumnElement[bool]:
    """What at least holds for an event that one of a brand's shares tells of, however many there are."""
    held = [col(EpcisEvent.brand_id) == brand_id, col(EpcisEvent.event_time) >= min(share.since for share in shares)]
    ends = [share.until for share in shares if share.until is not None]
    if len(ends) == len(shares):
        held.append(col(EpcisEvent.event_time) < max(ends))
    if all(share.types for share in shares):
        held.append(col(EpcisEvent.type).in_(sorted({one for share in shares for one in share.types})))
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
