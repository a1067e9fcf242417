"""For members: the history of their points."""

import uuid
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from codes import catalogue
from loyalty import ledger, points
from loyalty import members as loyalty_members
from loyalty.ledger import POINTS, Purpose
from scan_api.auth import members
from scan_api.paging import Page, Paged
from scan_api.routers import At
from scan_api.services import Serve

router = APIRouter(prefix="/v1/me", tags=["member"])

_LIST = "points"
_MOVEMENT: dict[str, Any] = {
    "number": 3,
    "transfer_id": "0197f0f0-5c00-7000-8000-000000000001",
    "at": "2026-05-01T08:00:00.000Z",
    "reason": "purchase",
    "brand": "star-cream",
    "amount": 120,
    "balance_after": 320,
}


class PointsMovement(BaseModel):
    """What came or went at once."""

    model_config = ConfigDict(json_schema_extra={"example": _MOVEMENT})

    number: int = Field(ge=1, description="Counts the member's movements; the latest has the highest")
    transfer_id: uuid.UUID
    at: At
    reason: str = Field(description="In a word: purchase, refund, check-in, …")
    brand: str | None = Field(description="The brand that gave or took them; null: a campaign's budget, or expiry")
    amount: int = Field(description="Below zero: they went")
    balance_after: int


class PointsExpiry(BaseModel):
    """What runs out next."""

    points: int = Field(ge=1)
    at: At


class PointsPage(Page[PointsMovement]):
    """A page of movements, with the balance of now."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "balance": 320,
                "next_expiry": {"points": 50, "at": "2027-04-30T16:00:00.000Z"},
                "data": [_MOVEMENT],
                "next_cursor": None,
            }
        }
    )

    balance: int
    next_expiry: PointsExpiry | None


@router.get("/points", summary="List the member's points")
async def history(request: Request, services: Serve, paging: Paged) -> PointsPage:
    """What came and went, latest first, and what runs out next. Points are the group's: every brand's are here."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        group_id = (await loyalty_members.get(session, member_id)).group_id
        slugs = await catalogue.slugs_of_group(session, group_id)
        rows = await points.movements(session, member_id, slugs, paging.after_number(_LIST), paging.count)
        balances = await ledger.balances(session, member_id)
        expiry = await points.next_expiry(session, member_id, now)
    return PointsPage(
        **paging.page(
            _LIST,
            rows,
            lambda row: row.number,
            lambda row: PointsMovement(
                number=row.number,
                transfer_id=row.transfer_id,
                at=row.at,
                reason=row.reason,
                brand=slugs.get(row.brand_id) if row.brand_id is not None else None,
                amount=row.amount,
                balance_after=row.balance_after,
            ),
        ),
        balance=balances.get((POINTS, Purpose.AVAILABLE), 0),
        next_expiry=PointsExpiry(points=expiry.points, at=expiry.at) if expiry else None,
    )
