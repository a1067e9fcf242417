"""For regulators: what their account reaches, items' histories and events in the standard's terms, and their looks."""

import uuid
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from codes import ranges
from codes.catalogue import BrandUnknown
from codes.ranges import ItemState
from kit.clock import iso
from kit.db import Session
from kit.paging import Position
from loyalty import claims
from offline_sdk.code_text import ORDER_DIGITS
from scan_api import sandbox, scans, thing_acts
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.paging import Page, Paged
from scan_api.provenance import answers, epcis, event_query, life, repository
from scan_api.provenance.events import Event, Step, events_of
from scan_api.provenance.life import Mark, MarkKind
from scan_api.regulators import accesses, accounts, auditing, brand_events, sights
from scan_api.regulators.accesses import Asked, RegulatorAccess
from scan_api.regulators.accounts import Regulator
from scan_api.regulators.auditing import GroupLook
from scan_api.regulators.sights import OutsideScope
from scan_api.routers import At, BrandSlug, example_of
from scan_api.routers.epcis import EventsResponse
from scan_api.routers.evidence import WithEvidence, beside
from scan_api.sandbox import SandboxOnly
from scan_api.scans import ItemUnknown
from scan_api.services import Serve, Services
from signer import keys

router = APIRouter(prefix="/v1/regulator", tags=["regulator"])

SCANS_SHOWN_MAX = 1_000
HELD, RECALLED = MarkKind.HELD, MarkKind.RECALLED
VERSIONS = {"GS1-EPCIS-Version": "2.0.0", "GS1-CBV-Version": "2.0.0"}

Digits14 = Annotated[str, Path(pattern=r"^[0-9]{14}$")]
Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
Purpose = Annotated[
    str | None,
    Header(
        alias="Fanxing-Purpose",
        max_length=3_000,
        description="What the answer is for, kept with the record of this look: up to 500 characters, percent-encoded",
    ),
]
_LOOKS, _LOOKS_OF_GROUP = "regulator-looks", "looks-of-group"
_ACCESS = "0197f0f0-5c00-7000-8000-0000000000a1"
_AT = "2026-05-01T08:00:00.000Z"


class Reached(BaseModel):
    """Who the caller is, and what he may see. An empty list bounds nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "account_id": "0197f0f0-5c00-7000-8000-0000000000a0",
                "name": "Xi'an Market Regulation Bureau",
                "regions": ["6101"],
                "categories": ["gpc:50000000"],
                "gtin_prefixes": [],
                "brands": ["star-cream"],
            }
        }
    )

    account_id: uuid.UUID | None
    name: str
    regions: list[str]
    categories: list[str]
    gtin_prefixes: list[str]
    brands: list[str] = Field(description="Brands of whose goods at least some are reached")


class Look(BaseModel):
    """One look of a regulator, as it was recorded."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "access_id": _ACCESS,
                "at": _AT,
                "regulator": "Xi'an Market Regulation Bureau",
                "key_id": "00112233445566aa",
                "operation": "item",
                "subject": "09506000134352/00014000000001",
                "filters": {},
                "purpose": "Case 2026-17",
                "outcome": "answered",
                "told": 1,
            }
        }
    )

    access_id: uuid.UUID
    at: At
    regulator: str
    key_id: str
    operation: str
    subject: str
    filters: dict[str, Any]
    purpose: str | None
    outcome: str = Field(description='"answered", or the code of the refusal')
    told: int | None = Field(
        description="How many things the answer told of; for auditors those of their group alone, null: not counted"
    )


async def regulator_of(services: Services, authorization: str | None) -> Regulator:
    """Who calls. Raises ApiKeyRefused, OutOfScope."""
    async with services.database.reading() as session:
        return await accounts.authenticate(session, authorization, services.clock())


def _shown_look(row: RegulatorAccess | GroupLook) -> Look:
    """A look as its regulator reads it, or as much of it as an auditor does."""
    return Look(
        access_id=row.access_id,
        at=row.at,
        regulator=row.name,
        key_id=row.key_id,
        operation=row.operation,
        subject=row.subject,
        filters=row.asked,
        purpose=row.purpose,
        outcome=row.outcome,
        told=row.told,
    )


@router.get("/me", summary="Who I am, and what I reach")
async def me(services: Serve, authorization: Authorization = None) -> Reached:
    """The caller's account and its scope. No look is recorded: nothing of anybody's goods is told."""
    async with services.database.reading() as session:
        regulator = await accounts.authenticate(session, authorization, services.clock())
        reach = await sights.reach_of(session, regulator.scope)
        slugs = await sights.slugs_of(session, reach.brands)
    scope = regulator.scope
    return Reached(
        account_id=regulator.account.account_id if regulator.account else None,
        name=regulator.name,
        regions=list(scope.regions),
        categories=list(scope.categories),
        gtin_prefixes=list(scope.gtin_prefixes),
        brands=sorted(slugs.values()),
    )


@router.get("/accesses", summary="My looks")
async def own_accesses(services: Serve, paging: Paged, authorization: Authorization = None) -> Page[Look]:
    """What this account looked at, newest first, with all its keys."""
    async with services.database.reading() as session:
        regulator = await accounts.authenticate(session, authorization, services.clock())
        rows = await accesses.of_holder(session, regulator.holder_id, paging.after(_LOOKS), paging.count)
    return Page[Look](**paging.page(_LOOKS, rows, lambda row: Position(row.at, row.access_id), _shown_look))


@router.get("/audit", summary="What regulators looked at")
async def audit(
    brand: Annotated[BrandSlug, Query()], services: Serve, paging: Paged, authorization: Authorization = None
) -> Page[Look]:
    """For the group's auditor: looks that told of goods of any of the group's brands, newest first.

    `told` counts the group's things alone; a subject or filter that names another's is left out.
    """
    async with services.database.reading() as session:
        key = await api_keys.authenticate(session, authorization, Role.AUDITOR)
        group_id = await auditing.group_of(session, key, brand)
        rows = await auditing.of_group(session, group_id, paging.after(_LOOKS_OF_GROUP), paging.count)
    return Page[Look](**paging.page(_LOOKS_OF_GROUP, rows, lambda row: Position(row.at, row.access_id), _shown_look))


@router.get("/events", summary="Query events of all brands", responses=example_of(200, {"type": "EPCISQueryDocument"}))
async def events(
    request: Request,
    services: Serve,
    with_evidence: WithEvidence = False,
    authorization: Authorization = None,
    purpose: Purpose = None,
) -> Response:
    """The EPCIS events that the account reaches, of all brands, newest first; parameters as of GET /epcis/events.

    Besides, `brand` names brands, and may come several times. `Link` with rel="next" leads to the next page.
    """
    regulator, given = await regulator_of(services, authorization), request.query_params.multi_items()
    asked = Asked("events", "", _gathered(given), accesses.purpose_of(purpose))
    async with accesses.recorded(services.database, services.clock, regulator, asked) as told:
        query = event_query.parse([(name, value) for name, value in given if name not in ("brand", "evidence")])
        async with services.database.reading() as session:
            reach = await _reach(session, regulator, [value for name, value in given if name == "brand"])
            page = await brand_events.search(session, reach, query)
            contexts = await repository.contexts_of(session, page.events)
            proofs = await beside(session, [(one.event_id, one.event_key) for one in page.events], with_evidence)
        for event in page.events:
            told.of(event.brand_id)
    headers = dict(VERSIONS)
    if page.next_token is not None:
        others = [(name, value) for name, value in given if name != "nextPageToken"]
        following = urlencode([*others, ("nextPageToken", page.next_token)])
        headers["Link"] = f'</v1/regulator/events?{following}>; rel="next"'
    document = answers.query_document(page.events, contexts, services.clock())
    return EventsResponse({**document, **proofs}, 200, headers)


async def _reach(session: Session, regulator: Regulator, slugs: list[str]) -> sights.Reach:
    reach = await sights.reach_of(session, regulator.scope)
    if not slugs:
        return reach
    wanted: list[int] = []
    for slug in slugs:
        brand_id = await sights.reached_named(session, reach, slug)
        if brand_id is None:
            raise BrandUnknown(
                "there is no such brand, or this account does not reach it", hint="GET /v1/regulator/me tells which."
            )
        wanted.append(brand_id)
    return brand_events.narrowed(reach, wanted)


def _gathered(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(accesses.named(name, value))
    return {name: "|".join(values) for name, values in found.items()}


@router.get("/items/{gtin}/{serial}")
async def item(
    gtin: Digits14,
    serial: Digits14,
    services: Serve,
    with_evidence: WithEvidence = False,
    authorization: Authorization = None,
    purpose: Purpose = None,
) -> dict[str, Any]:
    """What the item is, who issued it, and all that happened to it as an EPCIS 2.0 document.

    With its lot, the marks that reach it, and the acts on it, its order, its lot and what it was in: activation, holds,
    their end, recalls and voiding, with reasons. Scans and claims carry no person. At most the first 1,000 scans are
    listed; `scan_count` counts all. Evidence is of the recorded steps: scans and claims are no records of the log.
    """
    regulator = await regulator_of(services, authorization)
    asked = Asked("item", f"{gtin}/{serial}", {}, accesses.purpose_of(purpose))
    async with accesses.recorded(services.database, services.clock, regulator, asked) as told:
        async with services.database.reading() as session:
            brand_id, document = await _item(session, services, regulator, gtin, serial, with_evidence)
        told.of(brand_id)
    return document


def _state(of_order: ItemState, marks: Sequence[Mark]) -> str:
    """How an item stands by its order and the marks that reach it, as `scans.judgement_of` judges it."""
    if not marks or of_order is ItemState.RECALLED:
        return of_order.value
    kind = marks[0].kind
    return of_order.value if kind is HELD and of_order is ItemState.VOIDED else kind.value


async def _item(
    session: Session, services: Services, regulator: Regulator, gtin: str, serial: str, with_evidence: bool
) -> tuple[int, dict[str, Any]]:
    regulator.key.require_gtin(gtin)
    link = epcis.item_uri(gtin, serial)
    try:
        found = await scans.find_order(session, gtin, int(serial[:ORDER_DIGITS]))
        if found is None:
            raise ItemUnknown("there is no such order")
        order, product, brand = found
        await sandbox.require_side(session, regulator.scope.sandbox, brand.group_id)
        [(item_key, index)] = await services.scans.items(session, order, brand.issuer_id, [serial])
        history = await events_of(session, order, item_key, index)
        sights.require(regulator.scope.sees(await sights.item_facts(session, product, link, history)))
    except (ItemUnknown, SandboxOnly, OutsideScope):
        # One refusal for all, in the answer and in the record: he could read there what is kept from him here.
        raise ItemUnknown(
            "no such item was issued, or this account does not reach it", hint="GET /v1/regulator/me tells its scope."
        ) from None
    issuer = await session.get_one(keys.Issuer, brand.issuer_id)
    record = await scans.record_of(session, item_key)
    state = await ranges.state_at(session, order, index)
    known = await thing_acts.known_of(session, services.scans, brand, link)
    place = life.values(product.brand_id, order.order_id or 0, gtin, serial, index)
    marks, _lot = await life.life_of(session, place)
    proofs = await beside(session, [(epcis.event_uri(one), one.event_id) for one in history], with_evidence)
    for scan in await scans.scans_of(session, item_key, SCANS_SHOWN_MAX):
        history.append(Event(scan.scan_id, Step.SCANNED, scan.at, scan.at))
    for claim in await claims.claims_of(session, item_key):
        history.append(Event(claim.claim_id, Step.CLAIMED, claim.at, claim.at))
    revoked = await keys.is_revoked(session, order.kid, gtin, order.order_number, int(serial[ORDER_DIGITS:]))
    history.sort(key=lambda event: (event.at, event.recorded_at))
    described = {
        "epc": link,
        "gtin": gtin,
        "serial": serial,
        "issuer": issuer.name,
        "brand": {"zh": brand.name_zh, "en": brand.name_en},
        "product": {"zh": product.name_zh, "en": product.name_en},
        "order": {"number": order.order_number, "quantity": order.quantity, "placed_at": iso(order.created_at)},
        "kid": order.kid,
        "state": "revoked" if revoked else _state(state, marks),
        "recall_reason": order.recall_reason or next((one.message for one in marks if one.kind is RECALLED), None),
        "first_scan_at": iso(record.first_scan_at) if record.first_scan_at else None,
        "scan_count": record.scan_count,
    }
    # What reaches the item by now; what it is all due to, and what was lifted, stands among the acts.
    described["marks"] = [
        {"kind": one.kind.value, "reason": one.reason.value, "at": iso(one.at), "on_batch": one.on_batch}
        for one in marks
    ]
    return product.brand_id, {
        "item": {**described, **known.as_json()},
        "epcis": epcis.document(gtin, serial, history, services.clock()),
        **proofs,
    }
