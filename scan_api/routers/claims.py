"""For members who hold an item: claiming a campaign's prize, and seeing for themselves how it is drawn."""

import uuid
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from loyalty import campaigns
from offline_sdk.code_text import TEXT_CHARS_MAX
from scan_api.auth import members
from scan_api.callers import caller_of, subjects_of
from scan_api.claims import Ask
from scan_api.idempotency import OnlyOnce
from scan_api.routers import example_of
from scan_api.services import Serve

router = APIRouter(prefix="/v1", tags=["member"])

_CLAIMED = {
    "claim_id": "0197f0f0-5c00-7000-8000-0000000000a1",
    "campaign_id": "01981f3e-8a34-7c52-9f6e-0b7c2d0e4a11",
    "prize": {"kind": "points", "amount": 100},
    "at": "2026-05-01T08:00:00.000Z",
    "balance": 420,
    "card_number": "1099822111545536",
    "order_id": None,
    "benefit_id": None,
    "coupon_id": None,
    "coupon_code": None,
}


class ClaimBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "code_text": "https://id.example.cn/200001…/01/06901234567892/21/00001482913305",
                    "campaign_id": "01981f3e-8a34-7c52-9f6e-0b7c2d0e4a11",
                }
            ]
        },
    )

    code_text: str = Field(max_length=TEXT_CHARS_MAX)
    campaign_id: uuid.UUID


@router.post("/claims", status_code=201, summary="Claim a prize", responses=example_of(201, _CLAIMED))
async def claim(body: ClaimBody, request: Request, services: Serve, once: OnlyOnce) -> dict[str, Any]:
    """Claim a campaign's prize for an item, in one transaction. The same key and body get the same answer again."""
    device, place = subjects_of(services.vault, caller_of(request, services))
    ask = Ask(members.session_token(request) or "", body.code_text, body.campaign_id, once.key, device, place)
    with services.metrics.counting_claim():
        return await services.claims.claim(ask, services.clock())


@router.get("/campaigns/{campaign_id}/terms")
async def terms(campaign_id: uuid.UUID, services: Serve) -> dict[str, Any]:
    """What a campaign that draws is committed to: prizes, odds and quantities, and the seed once it is revealed."""
    async with services.database.reading() as session:
        return await campaigns.public_terms(session, services.vault, campaign_id)
