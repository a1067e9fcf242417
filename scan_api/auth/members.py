"""Signing in: from a phone number and a one-time code to a member's session, for the API and the pages alike."""

import re
import uuid
from collections.abc import Sequence
from datetime import datetime

from fastapi import Request
from fastapi.responses import Response
from sqlmodel import col, select

from codes.catalogue import BrandGroup, BrandUnknown, brand_named
from kit.db import Session
from kit.errors import Invalid, Unauthenticated
from loyalty import consents, members, sandbox, sign_in
from loyalty.code_limits import Asker
from loyalty.code_senders import DevelopmentCode
from loyalty.consents import Agreement, Channel
from loyalty.members import Member
from loyalty.sandbox import SandboxGroup
from loyalty.sign_in import CodeCheck, CodePurpose, IssuedCode
from scan_api import earning
from scan_api.callers import caller_of
from scan_api.cookies import cookie_of
from scan_api.errors import SignInNeeded
from scan_api.sandbox import mark_answer
from scan_api.services import Services
from scan_api.web.views import Language

COOKIE = "fanxing_session"
BRAND_COOKIE = "fanxing_brand"
BRAND_COOKIE_LIFETIME_S = 90 * 86_400
BRAND_HEADER = "fanxing-brand"
_BEARER = "bearer "
_SLUG = re.compile(r"[a-z0-9-]{1,40}")


class FreshSignInNeeded(Unauthenticated):
    code = "FreshSignInNeeded"


class GroupUnclear(Invalid):
    code = "GroupUnclear"


def session_token(request: Request) -> str | None:
    """The session's token, from the Authorization header or the cookie."""
    authorization = request.headers.get("authorization", "")
    if authorization.lower().startswith(_BEARER):
        return authorization[len(_BEARER) :]
    return cookie_of(request, COOKIE)


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


async def require_proof(
    services: Services, request: Request, one_time_code: str | None, purpose: CodePurpose, now: datetime
) -> uuid.UUID:
    """The signed-in member, who has just proven his phone: by this session's age, or by a code sent to it for this.

    For what cannot be undone. Raises SignInNeeded, FreshSignInNeeded, OneTimeCodeWrong and its kin.
    """
    async with services.database.reading() as session:
        member_id = await require_member(session, request, now)
        fresh = await sign_in.member_freshly_of(session, session_token(request) or "", now)
        phone = await members.phone_of(session, services.vault, member_id)
        group_id = (await members.get(session, member_id)).group_id
    if fresh is None and one_time_code is None:
        raise FreshSignInNeeded(
            f"prove your phone again: this sign-in is older than {sign_in.FRESH_MAX.seconds // 60} minutes",
            hint=f"POST /v1/sign-in/codes with the purpose {purpose} sends a code; send it along as one_time_code.",
        )
    if one_time_code is not None:
        (await _check(services, group_id, phone, one_time_code, purpose, now)).raise_if_refused()
    return member_id


async def group_of(session: Session, request: Request, brand_slug: str | None, now: datetime) -> int:
    """The group that the request is about.

    That of the brand named, in the body, as `?brand=` or in the header Fanxing-Brand; else the signed-in member's; else
    the only one there is. Raises BrandUnknown, GroupUnclear.
    """
    named = brand_slug or request.query_params.get("brand") or request.headers.get(BRAND_HEADER)
    if named:
        if not _SLUG.fullmatch(named):
            raise BrandUnknown("there is no such brand")
        return (await brand_named(session, named)).group_id
    member_id = await visitor(session, request, now)
    if member_id is not None:
        return (await members.get(session, member_id)).group_id
    real = select(BrandGroup.group_id).where(col(BrandGroup.group_id).not_in(select(SandboxGroup.group_id)))
    groups = (await session.exec(real.order_by(col(BrandGroup.group_id)).limit(2))).all()
    if len(groups) != 1 or groups[0] is None:
        raise GroupUnclear(
            "say for which brand you sign in", hint="Scan one of its codes and sign in there, or add ?brand=."
        )
    return groups[0]


def remember_brand(request: Request, response: Response, services: Services, slug: str) -> None:
    """Keep the brand whose code was looked at last in the browser, for the next form that asks for a phone number."""
    if cookie_of(request, BRAND_COOKIE) != slug:
        response.set_cookie(
            BRAND_COOKIE,
            slug,
            max_age=BRAND_COOKIE_LIFETIME_S,
            httponly=True,
            samesite="lax",
            secure=services.settings.base_url.startswith("https:"),
        )


async def remembered_brand(session: Session, request: Request) -> str | None:
    """The brand whose code was looked at last, if there is such a brand: a hint, which the form then names openly."""
    slug = cookie_of(request, BRAND_COOKIE) or ""
    try:
        return (await brand_named(session, slug)).slug if _SLUG.fullmatch(slug) else None
    except BrandUnknown:
        return None


async def send_code(
    services: Services,
    request: Request,
    brand_slug: str | None,
    phone: str,
    language: Language,
    now: datetime,
    purpose: CodePurpose = CodePurpose.SIGN_IN,
) -> tuple[IssuedCode, DevelopmentCode | None]:
    """Make a one-time code and send it. The answer is the same for a known and an unknown number.

    What is for members alone takes a member to ask for its code. Raises SignInNeeded and as `sign_in.issue_code`.
    """
    asker = _asker(services, request)
    async with services.database.writing() as session:
        if purpose is not CodePurpose.SIGN_IN:
            await require_member(session, request, now)
        group_id = await group_of(session, request, brand_slug, now)
        is_sandbox = await sandbox.is_sandbox(session, group_id)
        issued = await sign_in.issue_code(
            session,
            services.vault,
            group_id,
            phone,
            purpose,
            now,
            None if is_sandbox else asker,
            is_sent=not is_sandbox,
        )
    if is_sandbox:
        mark_answer()
        return issued, DevelopmentCode(issued.code)
    return issued, await services.sender.send(issued, language)


async def confirm(
    services: Services,
    request: Request,
    brand_slug: str | None,
    phone: str,
    one_time_code: str,
    now: datetime,
    *,
    agreed: Sequence[Agreement] = (),
    channel: Channel = Channel.PAGE,
) -> tuple[Member, str, bool]:
    """Sign in with a one-time code: the member, his session's token, and whether he is new.

    The try is counted in a transaction of its own, so that it counts when it was wrong. `agreed`: what he consents to
    along with it. Raises OneTimeCodeWrong and its kin, ConsentDocumentUnknown, ConsentOutdated.
    """
    async with services.database.reading() as session:
        group_id = await group_of(session, request, brand_slug, now)
        await consents.require_in_force(session, group_id, agreed)
    asker = _asker(services, request)
    if asker is not None:
        async with services.database.writing() as session:
            await sign_in.count_try(session, services.vault, asker, now)
    (await _check(services, group_id, phone, one_time_code, CodePurpose.SIGN_IN, now)).raise_if_refused()
    async with services.database.writing() as session:
        member, is_new = await members.find_or_enrol(session, services.vault, group_id, phone, now)
        await consents.record(session, member.member_id, group_id, agreed, channel, now)
        token = await sign_in.open_session(session, member.member_id, now)
    await earning.greet(services.database, services.vault, member.member_id, now)
    return member, token, is_new


def _asker(services: Services, request: Request) -> Asker | None:
    """From where codes are asked for or typed; None where that is not limited."""
    if not services.sender.is_limited:
        return None
    caller = caller_of(request, services)
    return Asker(caller.address_network, caller.address_network_wide, caller.device_id)


async def prove_phone(
    services: Services, member_id: uuid.UUID, phone: str, one_time_code: str, now: datetime
) -> uuid.UUID:
    """The member of the same group whose phone this code for merging proves.

    Raises OneTimeCodeWrong and its kin, MemberUnknown.
    """
    async with services.database.reading() as session:
        group_id = (await members.get(session, member_id)).group_id
    (await _check(services, group_id, phone, one_time_code, CodePurpose.MERGE, now)).raise_if_refused()
    async with services.database.reading() as session:
        return await members.member_with(session, services.vault, group_id, phone)


async def _check(
    services: Services, group_id: int, phone: str, one_time_code: str, purpose: CodePurpose, now: datetime
) -> CodeCheck:
    async with services.database.writing() as session:
        return await sign_in.check_code(session, services.vault, group_id, phone, one_time_code, purpose, now=now)
