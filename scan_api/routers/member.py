"""For members and the apps that speak for them: sign in, claim, look at one's own."""

import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from loyalty import sign_in
from loyalty.consents import AGREEMENTS_MAX, KIND_CHARACTERS_MAX, VERSION_CHARACTERS_MAX, Agreement, Channel
from loyalty.phones import PHONE_CHARACTERS_MAX
from loyalty.sign_in import CodePurpose
from scan_api import membership
from scan_api.auth import members
from scan_api.callers import name_device
from scan_api.routers import At, BrandSlug, example_of
from scan_api.services import Serve
from scan_api.web.language import choose

router = APIRouter(prefix="/v1", tags=["member"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _WhoseCode(_Body):
    phone: str = Field(max_length=PHONE_CHARACTERS_MAX, description="E.164, or a Chinese mobile number")
    brand: BrandSlug | None = None


class CodeRequest(_WhoseCode):
    """Who wants a one-time code, and what for."""

    model_config = ConfigDict(json_schema_extra={"example": {"phone": "13800138000", "brand": "star-cream"}})

    purpose: CodePurpose = Field(
        default=CodePurpose.SIGN_IN,
        description="What the code is good for, and nothing else; all but sign_in take a member who is signed in",
    )


class Agreed(_Body):
    kind: str = Field(max_length=KIND_CHARACTERS_MAX, examples=["privacy"])
    version: str = Field(max_length=VERSION_CHARACTERS_MAX, examples=["2026-05"])


class SignInRequest(_WhoseCode):
    """The one-time code that came, and what is agreed to."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "phone": "13800138000",
                "brand": "star-cream",
                "one_time_code": "123456",
                "consents": [{"kind": "privacy", "version": "2026-05"}],
            }
        }
    )

    one_time_code: str = Field(max_length=20)
    consents: list[Agreed] = Field(
        default=[], max_length=AGREEMENTS_MAX, description="Documents that the shopper agrees to by signing in"
    )


class CodeSent(BaseModel):
    """A code is on its way."""

    model_config = ConfigDict(json_schema_extra={"example": {"sent": True, "expires_at": "2026-05-01T08:05:00.000Z"}})

    sent: bool
    expires_at: At
    development_code: str | None = Field(default=None, description="The code itself, in a sandbox and in development")


class SignedIn(BaseModel):
    """A session. Send its token as `Authorization: Bearer`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "token": "AZfw8FwAcACAAAAAAAAAAW5ldmVyIHVzZSB0aGlzIHRva2VuLCBpdCBpcyBvbmUh",
                "member_id": "0197f0f0-5c00-7000-8000-000000000001",
                "is_new": True,
            }
        }
    )

    token: str
    member_id: uuid.UUID
    is_new: bool


_ME = {
    "member_id": "0197f0f0-5c00-7000-8000-000000000001",
    "phone": "+86138****8000",
    "points": 320,
    "megabytes": {"pending": 5, "delivered": 10},
    "cards": [
        {
            "brand": "star-cream",
            "brand_name": "Star Cream",
            "card_number": "1099822111545536",
            "tier": "silver",
            "tier_name": "Silver",
            "card_face": {"colours": ["#334155", "#0f172a"], "text_colour": "#ffffff", "pattern": "stars"},
            "joined_at": "2026-05-01T08:00:00.000Z",
        }
    ],
    "coupons": [
        {
            "coupon_id": "0197f0f0-5c00-7000-8000-0000000000d1",
            "code": "7Q4M-0ZKE-9XTB-3VHN",
            "text": "5 off 10",
            "value_fen": 500,
            "state": "issued",
            "expires_at": "2026-05-31T08:00:00.000Z",
        }
    ],
    "orders": [
        {
            "order_id": "0197f0f0-5c00-7000-8000-0000000000c1",
            "kind": "data",
            "amount": 5,
            "state": "completed",
            "created_at": "2026-05-01T08:00:00.000Z",
            "expires_at": None,
        }
    ],
}


@router.post("/sign-in/codes", status_code=202, summary="Send a one-time code", response_model_exclude_none=True)
async def send_code(body: CodeRequest, request: Request, response: Response, services: Serve) -> CodeSent:
    """Send a one-time code to a phone: one in 60 s, five in an hour. The answer is the same for every number.

    The message says what the code is for, and it works for nothing else. Device and network are limited, too. An app
    tells its own id in the header Fanxing-Device, 16 to 64 of A-Z a-z 0-9 _ -; a browser gets one as a cookie.
    """
    language = choose(request.headers.get("accept-language"))
    issued, shown = await members.send_code(
        services, request, body.brand, body.phone, language, services.clock(), body.purpose
    )
    name_device(request, response, services)
    return CodeSent(sent=True, expires_at=issued.expires_at, development_code=shown.code if shown else None)


@router.post("/sign-in", summary="Sign in")
async def confirm(body: SignInRequest, request: Request, services: Serve) -> SignedIn:
    """Exchange a one-time code for a session; an unknown number becomes a member. Five tries a code."""
    member, token, is_new = await members.confirm(
        services,
        request,
        body.brand,
        body.phone,
        body.one_time_code,
        services.clock(),
        agreed=[Agreement(agreed.kind, agreed.version) for agreed in body.consents],
        channel=Channel.API,
    )
    return SignedIn(token=token, member_id=member.member_id, is_new=is_new)


@router.delete("/session", status_code=204, summary="Sign out")
async def sign_out(request: Request, services: Serve) -> Response:
    """End the session that the request carries."""
    async with services.database.writing() as session:
        await sign_in.close_session(session, members.session_token(request) or "")
    return Response(status_code=204)


@router.post("/me/sign-out-everywhere", status_code=204, summary="Sign out everywhere")
async def sign_out_everywhere(request: Request, services: Serve) -> Response:
    """End every session of the member, on all devices, this one too."""
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, services.clock())
        await sign_in.close_sessions(session, [member_id])
    return Response(status_code=204)


@router.get("/me", summary="Show what I hold", responses=example_of(200, _ME))
async def me(request: Request, services: Serve) -> dict[str, Any]:
    """The member's points, mobile data, cards and coupons."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        holdings = await membership.holdings_of(session, services.vault, member_id, now)
    return membership.as_json(holdings, choose(request.headers.get("accept-language")))
