"""For members and the apps that speak for them: sign in, claim, look at one's own."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from kit.clock import iso
from loyalty import sign_in
from loyalty.members import PHONE_CHARACTERS_MAX
from offline_sdk.code_text import TEXT_CHARS_MAX
from scan_api import claims, membership
from scan_api.auth import members
from scan_api.routers import BrandSlug
from scan_api.services import Serve
from scan_api.web.language import choose

router = APIRouter(prefix="/v1", tags=["member"])

IdempotencyKey = Annotated[str, Header(description="Chosen by the caller, new for each new request; 8..64 characters")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class CodeRequest(_Body):
    phone: str = Field(max_length=PHONE_CHARACTERS_MAX, description="E.164, or a Chinese mobile number")
    brand: BrandSlug | None = None


class SignInRequest(CodeRequest):
    one_time_code: str = Field(max_length=20)


class ClaimBody(_Body):
    code_text: str = Field(max_length=TEXT_CHARS_MAX)
    campaign_id: uuid.UUID


@router.post("/sign-in/codes", status_code=202)
async def send_code(body: CodeRequest, request: Request, services: Serve) -> dict[str, Any]:
    """Send a one-time code to a phone: one in 60 s, five in an hour. The answer is the same for every number."""
    language = choose(request.headers.get("accept-language"))
    issued, shown = await members.send_code(services, body.brand, body.phone, language, services.clock())
    answer: dict[str, Any] = {"sent": True, "expires_at": iso(issued.expires_at)}
    return {**answer, "development_code": shown.code} if shown else answer


@router.post("/sign-in")
async def confirm(body: SignInRequest, services: Serve) -> dict[str, Any]:
    """Exchange a one-time code for a session; an unknown number becomes a member. Five tries a code."""
    member, token, is_new = await members.confirm(
        services, body.brand, body.phone, body.one_time_code, services.clock()
    )
    return {"token": token, "member_id": str(member.member_id), "is_new": is_new}


@router.delete("/session", status_code=204)
async def sign_out(request: Request, services: Serve) -> Response:
    """End the session that the request carries."""
    async with services.database.writing() as session:
        await sign_in.close_session(session, members.session_token(request) or "")
    return Response(status_code=204)


@router.get("/me")
async def me(request: Request, services: Serve) -> dict[str, Any]:
    """The member's points, mobile data, cards and coupons."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        holdings = await membership.holdings_of(session, services.vault, member_id, now)
    return membership.as_json(holdings, choose(request.headers.get("accept-language")))


@router.post("/claims", status_code=201)
async def claim(body: ClaimBody, request: Request, services: Serve, idempotency_key: IdempotencyKey) -> dict[str, Any]:
    """Claim a campaign's prize for an item, in one transaction. The same key and body get the same answer again."""
    now = services.clock()
    with services.metrics.counting_claim():
        async with services.database.writing() as session:
            member_id = await members.require_member(session, request, now)
            return await claims.claim(
                services, session, member_id, body.code_text, body.campaign_id, idempotency_key, now
            )
