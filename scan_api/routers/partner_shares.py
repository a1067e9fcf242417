"""For brands: what they share with which partner."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import brand_named
from kit.clock import When
from kit.db import Session
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.idempotency import OnlyOnce
from scan_api.paging import Page
from scan_api.regulators import partners
from scan_api.regulators.partners import GTINS_PER_SHARE_MAX, PartnerShare
from scan_api.routers import At, BrandSlug
from scan_api.routers.regulator import Authorization
from scan_api.services import Serve

router = APIRouter(prefix="/v1/brand/{brand}/partner-shares", tags=["partners"])

_AT = "2026-05-01T08:00:00.000Z"
_PARTNER = "0197f0f0-5c00-7000-8000-0000000000b1"
_EXAMPLE: dict[str, Any] = {
    "partner_id": _PARTNER,
    "gtins": ["09506000134352"],
    "types": ["ObjectEvent", "AggregationEvent"],
    "since": _AT,
    "until": None,
}


class NewShare(BaseModel):
    """What is shared. An empty list means all."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, json_schema_extra={"example": _EXAMPLE})

    partner_id: uuid.UUID
    gtins: list[Annotated[str, Field(pattern=r"^[0-9]{14}$")]] = Field(default=[], max_length=GTINS_PER_SHARE_MAX)
    types: list[str] = Field(default=[], max_length=5, description="Types of events, such as ObjectEvent")
    since: When = Field(description="Events from then on, by their time")
    until: When | None = Field(default=None, description="Not included; null: without end")


class ShareAnswer(BaseModel):
    """A share."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_EXAMPLE,
                "share_id": "0197f0f0-5c00-7000-8000-0000000000b2",
                "created_at": _AT,
                "created_by": "The brand's ERP",
                "revoked_at": None,
            }
        }
    )

    share_id: uuid.UUID
    partner_id: uuid.UUID
    gtins: list[str]
    types: list[str]
    since: At
    until: At | None
    created_at: At
    created_by: str
    revoked_at: At | None


@router.get("", summary="What a brand shares")
async def list_shares(brand: BrandSlug, services: Serve, authorization: Authorization = None) -> Page[ShareAnswer]:
    """All shares, oldest first, the revoked among them, on one page."""
    async with services.database.reading() as session:
        brand_id, _label = await _brand(session, authorization, brand)
        rows = await partners.shares_of(session, brand_id)
    return Page[ShareAnswer](data=[_shown(row) for row in rows], next_cursor=None)


@router.post("", status_code=201, summary="Share with a partner")
async def share(
    brand: BrandSlug, body: NewShare, services: Serve, once: OnlyOnce, authorization: Authorization = None
) -> ShareAnswer:
    """Let a partner see events of these products and types, from now on."""
    now = services.clock()
    async with services.database.writing() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND)
        brand_id, label = await _brand(session, authorization, brand)

        async def work() -> ShareAnswer:
            made = await partners.share(
                session, brand_id, body.partner_id, body.gtins, body.types, body.since, body.until, label, now
            )
            return _shown(made)

        asked = {"brand": brand, **body.model_dump(mode="json")}
        return ShareAnswer(**await once.run(session, key.caller_id, "partner_share", asked, now, work))


@router.delete("/{share_id}", summary="Revoke a share")
async def revoke(
    brand: BrandSlug, share_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> ShareAnswer:
    """The partner sees no more of it at once. Again, it stays so."""
    async with services.database.writing() as session:
        brand_id, label = await _brand(session, authorization, brand)
        return _shown(await partners.revoke(session, brand_id, share_id, label, services.clock()))


async def _brand(session: Session, authorization: str | None, slug: str) -> tuple[int, str]:
    key = await api_keys.authenticate(session, authorization, Role.BRAND)
    brand_id = (await brand_named(session, slug)).brand_id
    assert brand_id is not None  # rows read from the database have their key
    key.require_brand(brand_id)
    key.require_all_gtins("shares are")
    return brand_id, key.label


def _shown(row: PartnerShare) -> ShareAnswer:
    return ShareAnswer(
        share_id=row.share_id,
        partner_id=row.partner_id,
        gtins=row.gtins,
        types=row.types,
        since=row.since_time,
        until=row.until_time,
        created_at=row.created_at,
        created_by=row.created_by,
        revoked_at=row.revoked_at,
    )
