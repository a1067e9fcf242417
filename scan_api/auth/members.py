"""Signing in: from a phone number and a one-time code to a member's session, for the API and the pages alike."""

import uuid
from datetime import datetime

from fastapi import Request
from fastapi.responses import Response
from sqlmodel import col, select

from codes.catalogue import BrandGroup, brand_named
from kit.db import Session
from kit.errors import Invalid, Unauthenticated
from loyalty import members, sign_in
from loyalty.members import Member
from loyalty.sign_in import DevelopmentCode, IssuedCode
from scan_api.services import Services
from scan_api.web.views import Language

COOKIE = "fanxing_session"
_BEARER = "bearer "


class SignInNeeded(Unauthenticated):
    code = "SignInNeeded"


class GroupUnclear(Invalid):
    code = "GroupUnclear"


def session_token(request: Request) -> str | None:
    """The session's token, from the Authorization header or the cookie."""
    authorization = request.headers.get("authorization", "")
    if authorization.lower().startswith(_BEARER):
        return authorization[len(_BEARER) :]
    return request.cookies.get(COOKIE)


def set_cookie(response: Response, services: Services, token: str) -> None:
    """Keep the session in the browser, out of reach of scripts and of other sites' forms."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(sign_in.SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=services.settings.base_url.startswith("https:"),
    )


async def visitor(session: Session, request: Request, now: datetime) -> uuid.UUID | None:
    """The signed-in member, or None."""
    token = session_token(request)
    return await sign_in.member_of(session, token, now) if token else None


async def require_member(session: Session, request: Request, now: datetime) -> uuid.UUID:
    """The signed-in member. Raises SignInNeeded."""
    member_id = await visitor(session, request, now)
    if member_id is None:
        raise SignInNeeded("sign in first", hint="POST /v1/sign-in/codes sends a one-time code.")
    return member_id


async def group_of(session: Session, brand_slug: str | None) -> int:
    """The group to sign in to: the brand's, or the only one there is. Raises BrandUnknown, GroupUnclear."""
    if brand_slug is not None:
        return (await brand_named(session, brand_slug)).group_id
    groups = (await session.exec(select(BrandGroup.group_id).order_by(col(BrandGroup.group_id)).limit(2))).all()
    if len(groups) != 1 or groups[0] is None:
        raise GroupUnclear("say for which brand you sign in", hint="Scan one of its codes and sign in there.")
    return groups[0]


async def send_code(
    services: Services, brand_slug: str | None, phone: str, language: Language, now: datetime
) -> tuple[IssuedCode, DevelopmentCode | None]:
    """Make a one-time code and send it. The answer is the same for a known and an unknown number."""
    async with services.database.writing() as session:
        issued = await sign_in.issue_code(session, services.vault, await group_of(session, brand_slug), phone, now)
    return issued, await services.sender.send(issued.phone_e164, issued.code, language)


async def confirm(
    services: Services, brand_slug: str | None, phone: str, one_time_code: str, now: datetime
) -> tuple[Member, str, bool]:
    """Sign in with a one-time code: the member, his session's token, and whether he is new.

    The try is counted in a transaction of its own, so that it counts when it was wrong. Raises OneTimeCodeWrong and
    its kin.
    """
    async with services.database.writing() as session:
        group_id = await group_of(session, brand_slug)
        check = await sign_in.check_code(session, services.vault, group_id, phone, one_time_code, now=now)
    check.raise_if_refused()
    async with services.database.writing() as session:
        member, is_new = await members.find_or_enrol(session, services.vault, group_id, phone, now)
        return member, await sign_in.open_session(session, member.member_id, now), is_new
