"""For members: what they agreed to, what is held about them, being forgotten, and being one person with two numbers."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from kit.clock import iso
from kit.db import Session
from loyalty import consents, erasure, member_export, merges, news, profiles
from loyalty import members as loyalty_members
from loyalty.consents import KIND_CHARACTERS_MAX, VERSION_CHARACTERS_MAX, Agreement, Channel
from loyalty.merge_moves import MemberMerge
from loyalty.merges import Approval, Merged, NewMerge
from loyalty.phones import PHONE_CHARACTERS_MAX, parse_phone, phone_fingerprint
from loyalty.profiles import Birthday
from loyalty.sign_in import CodePurpose
from loyalty.tasks import TaskEvent
from scan_api.auth import members
from scan_api.idempotency import OnlyOnce
from scan_api.routers import At, BrandSlug
from scan_api.services import Serve, Services
from scan_api.web.language import choose

router = APIRouter(prefix="/v1")

_CODE_CHARACTERS_MAX = 20
_MERGE = "merge"
_MERGE_EXAMPLE: dict[str, Any] = {
    "merge_id": "0197a3f0-6f0e-7c55-b8a5-2b1c9d3e4f50",
    "moved": [
        {"asset": "points", "purpose": "available", "amount": 1200, "expires_at": "2027-06-01T00:00:00+08:00"},
        {"asset": "mb", "purpose": "delivered", "amount": 15, "expires_at": None},
    ],
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ConsentBody(_Body):
    kind: str = Field(max_length=KIND_CHARACTERS_MAX, examples=["marketing"])
    version: str = Field(max_length=VERSION_CHARACTERS_MAX, examples=["2026-05"])
    given: bool = Field(description="false withdraws", examples=[True])


class BirthdayBody(_Body):
    month: int = Field(ge=1, le=12, examples=[2])
    day: int = Field(ge=1, le=31, examples=[29])


class ProofBody(_Body):
    one_time_code: str | None = Field(
        default=None,
        max_length=_CODE_CHARACTERS_MAX,
        description="The digits sent to the member's own phone for this purpose; needed when the sign-in is older than "
        "10 minutes",
    )


class MergeBody(ProofBody):
    phone: str = Field(
        max_length=PHONE_CHARACTERS_MAX, description="The other member's phone number", examples=["13900139000"]
    )
    phone_code: str = Field(
        max_length=_CODE_CHARACTERS_MAX,
        description="The digits sent to that phone, for the purpose merge",
        examples=["123456"],
    )


class UnmergeBody(ProofBody):
    merge_id: uuid.UUID


class DocumentAnswer(BaseModel):
    """A document that the group asks members to agree to, in the version in force."""

    kind: str = Field(examples=["privacy"])
    version: str = Field(examples=["2026-05"])
    title: str = Field(examples=["Privacy policy"])
    url: str = Field(examples=["https://brand.example.cn/privacy/2026-05"])
    published_at: At


class ConsentAnswer(BaseModel):
    """The member's last word on a kind of document."""

    kind: str = Field(examples=["privacy"])
    version: str = Field(examples=["2026-05"])
    given: bool = Field(examples=[True])
    at: At
    channel: Channel


class ConsentsAnswer(BaseModel):
    """What is in force, and what the member said."""

    documents: list[DocumentAnswer]
    given: list[ConsentAnswer]


class MovedAnswer(BaseModel):
    """Units that moved between the two members."""

    asset: str
    purpose: str
    amount: int
    expires_at: At | None


class MergeAnswer(BaseModel):
    """What became one, or two again, and what moved with it."""

    model_config = ConfigDict(json_schema_extra={"example": _MERGE_EXAMPLE})

    merge_id: uuid.UUID
    moved: list[MovedAnswer]


class PastMergeAnswer(BaseModel):
    """A merge of another member into this one."""

    merge_id: uuid.UUID
    at: At
    undone_at: At | None


class MergesAnswer(BaseModel):
    """Merges, earliest first."""

    data: list[PastMergeAnswer]


@router.get("/consent-documents")
async def consent_documents(
    request: Request, services: Serve, brand: Annotated[BrandSlug | None, Query()] = None
) -> list[DocumentAnswer]:
    """The documents that a brand's group asks its members to agree to: show them before signing in."""
    async with services.database.reading() as session:
        group_id = await members.group_of(session, request, brand, services.clock())
        return await _documents(session, group_id, request)


@router.get("/me/consents")
async def list_consents(request: Request, services: Serve) -> ConsentsAnswer:
    """What the member agreed to, and the versions in force."""
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, services.clock())
        group_id = (await loyalty_members.get(session, member_id)).group_id
        held = await consents.held_by(session, member_id)
        documents = await _documents(session, group_id, request)
    return ConsentsAnswer(documents=documents, given=[_consent(held[kind]) for kind in sorted(held)])


@router.post("/me/consents")
async def consent(body: ConsentBody, request: Request, services: Serve) -> ConsentAnswer:
    """Agree to the version in force, or withdraw. Saying the same again changes nothing."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        group_id = (await loyalty_members.get(session, member_id)).group_id
        agreement = Agreement(body.kind, body.version, body.given)
        [noted] = await consents.record(session, member_id, group_id, [agreement], Channel.API, now)
        return _consent(noted)


@router.put("/me/birthday", status_code=204)
async def set_birthday(body: BirthdayBody, request: Request, services: Serve) -> Response:
    """Tell the day of birth, once; the year is nobody's business."""
    birthday, now = Birthday(body.month, body.day), services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        await profiles.set_birthday(session, services.vault, member_id, birthday)
        for card in await loyalty_members.cards_of(session, member_id):
            await news.leave(
                session,
                member_id=member_id,
                brand_id=card.brand_id,
                event=TaskEvent.PROFILE,
                subject_id=str(member_id),
                now=now,
            )
    return Response(status_code=204)


@router.get("/me/export", response_class=StreamingResponse)
async def export(request: Request, services: Serve) -> StreamingResponse:
    """Everything that is held about the member, as one JSON document to keep."""
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, services.clock())
    return StreamingResponse(
        await services.streams.made(_exported(services, member_id, services.clock())),
        media_type="application/json",
        headers={"content-disposition": 'attachment; filename="fanxing-export.json"'},
    )


async def _exported(services: Services, member_id: uuid.UUID, now: datetime) -> AsyncIterator[bytes]:
    # Row after row: an export may be larger than what a server should hold.
    yield f'{{"exported_at": "{iso(now)}"'.encode()
    current = ""
    async with services.database.reading() as session:
        async for section, row in member_export.export(session, services.vault, member_id):
            head = "" if section == current else f'{"]" if current else ""},\n"{section}": ['
            yield (head + ("," if section == current else "") + "\n" + json.dumps(row, ensure_ascii=False)).encode()
            current = section
    yield b"]}\n" if current else b"}\n"


@router.delete("/me", status_code=204)
async def erase(request: Request, services: Serve, body: ProofBody | None = None) -> Response:
    """Be forgotten: phone number, name, birthday and whatever else tells who the member was. There is no way back.

    Points and benefits are lost with it; the books stay as they are, under a bare id.
    """
    now = services.clock()
    member_id = await members.require_proof(
        services, request, body.one_time_code if body else None, CodePurpose.ERASE, now
    )
    async with services.database.writing() as session:
        await erasure.erase(session, member_id, now)
    return Response(status_code=204)


@router.get("/me/merges")
async def list_merges(request: Request, services: Serve) -> MergesAnswer:
    """The merges of other members into this one."""
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, services.clock())
        return MergesAnswer(data=[_past(made) for made in await merges.merges_of(session, member_id)])


@router.post("/me/merge", status_code=201)
async def merge(body: MergeBody, request: Request, services: Serve, once: OnlyOnce) -> MergeAnswer:
    """Become one with the member of another phone of one's own, such as the old number.

    Both phones are proven: the own one by a fresh sign-in or a code, the other by a code. Its value, cards and
    experience come over; from then on it signs in to this member.
    """
    now = services.clock()
    # Codes are used up by being checked, so whether this was done before is asked first.
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        group_id = (await loyalty_members.get(session, member_id)).group_id
        # By the keyed hash: a number cannot be guessed from what is stored of the request.
        phone = phone_fingerprint(services.vault, group_id, parse_phone(body.phone)).hex()
        earlier = await once.earlier(session, member_id, _MERGE, {"phone": phone})
    if earlier is not None:
        return MergeAnswer(**earlier)
    await members.require_proof(services, request, body.one_time_code, CodePurpose.MERGE, now)
    other_id = await members.prove_phone(services, member_id, body.phone, body.phone_code, now)
    new = NewMerge(merges.merge_id(member_id, once.key), member_id, other_id, Approval.CODES)
    async with services.database.writing() as session:

        async def work() -> MergeAnswer:
            return _answer(await merges.merge(session, new, now))

        return MergeAnswer(**await once.run(session, member_id, _MERGE, {"phone": phone}, now, work))


@router.post("/me/unmerge")
async def unmerge(body: UnmergeBody, request: Request, services: Serve, once: OnlyOnce) -> MergeAnswer:
    """Undo a merge: the other number signs in to its own member again, and gets back what is still there.

    The same request again changes nothing, whatever its key.
    """
    now = services.clock()
    member_id = await members.require_proof(services, request, body.one_time_code, CodePurpose.UNMERGE, now)
    async with services.database.writing() as session:
        return _answer(await merges.unmerge(session, member_id, body.merge_id, now))


async def _documents(session: Session, group_id: int, request: Request) -> list[DocumentAnswer]:
    language = choose(request.headers.get("accept-language"))
    return [
        DocumentAnswer(
            kind=document.kind,
            version=document.version,
            title=document.title_zh if language == "zh" else document.title_en,
            url=document.url,
            published_at=document.published_at,
        )
        for document in await consents.in_force(session, group_id)
    ]


def _consent(held: consents.Consent) -> ConsentAnswer:
    return ConsentAnswer(
        kind=held.kind, version=held.version, given=held.is_given, at=held.at, channel=Channel(held.channel)
    )


def _past(made: MemberMerge) -> PastMergeAnswer:
    return PastMergeAnswer(merge_id=made.merge_id, at=made.at, undone_at=made.undone_at)


def _answer(merged: Merged) -> MergeAnswer:
    return MergeAnswer(
        merge_id=merged.merge_id,
        moved=[
            MovedAnswer(asset=one.asset, purpose=one.purpose, amount=one.amount, expires_at=one.expires_at)
            for one in merged.moved
        ],
    )
