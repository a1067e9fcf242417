"""For members who earn without scanning: check-ins, tasks, referrals, red packets, draws; and draws in public."""

import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from kit.clock import iso
from kit.db import Database, Session
from kit.ids import derived_id
from loyalty import check_ins, programs, red_packets, referrals, tasks
from loyalty.check_ins import CheckedIn
from loyalty.draws import catalogue, notice, plays
from loyalty.draws.plays import Played, PlayRequest
from loyalty.draws.record import ENTROPY_BYTES_MAX, ENTROPY_BYTES_MIN
from loyalty.draws.terms import Terms
from loyalty.prizes import Given, Prize
from loyalty.programs import Program
from loyalty.red_packets import Opened, PacketState, RedPacket
from loyalty.tasks import SUBJECT_CHARACTERS_MAX
from scan_api.auth import api_keys, members
from scan_api.auth.api_keys import Role
from scan_api.callers import caller_of
from scan_api.idempotency import OnlyOnce
from scan_api.routers import example_of
from scan_api.services import Serve, Services

router = APIRouter(prefix="/v1", tags=["earning"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
RECORD_MEDIA_TYPE = "application/x-ndjson"
_EXAMPLE_ID = "0190f3a0-7b1c-7c11-8000-0123456789ab"


_PROGRAM: dict[str, Any] = {
    "program_id": _EXAMPLE_ID,
    "brand_id": 1,
    "title": {"zh": "每日签到", "en": "Daily check-in"},
    "ends_at": None,
}
_POINTS = {"kind": "points", "amount": 20}
_CHECK_IN = {
    "program_id": _EXAMPLE_ID,
    "day": "2026-05-17",
    "streak": 6,
    "points": 5,
    "balance": 325,
    "next_bonus": {"in_days": 1, "points": 50},
    "is_new": True,
}
_PACKET = {
    "packet_id": _EXAMPLE_ID,
    "kind": "fen",
    "total": 1_000,
    "shares": 5,
    "shares_left": 5,
    "minimum": 100,
    "state": "open",
    "expires_at": "2026-05-18T08:00:00.000Z",
    "commitment": "6d1c0f0b7f0c5f3c8a1ac6c3bd4c5f4f6f6fb2d7e2c4c6d3f0a9b8c7d6e5f4a3",
}
_PLAYED = {
    "play_id": _EXAMPLE_ID,
    "turn": 1,
    "prize": {"number": 2, "name": {"zh": "20 积分", "en": "20 points"}, "kind": "points", "amount": 20},
    "order_id": None,
    "receipt": "{…}: the play's line of the record, to be kept",
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ProgramBody(_Body):
    program_id: uuid.UUID = Field(examples=[_EXAMPLE_ID])


class ReferralBody(_Body):
    code: str = Field(max_length=32, examples=["7kq2m0x4c9vd31fh"], description="The code of the friend's link")


class PlayBody(_Body):
    entropy: str = Field(
        pattern=rf"^([0-9a-f]{{2}}){{{ENTROPY_BYTES_MIN},{ENTROPY_BYTES_MAX}}}$",
        examples=["9f86d081884c7d659a2feaa0c55ad015"],
        description=f"{ENTROPY_BYTES_MIN} to {ENTROPY_BYTES_MAX} random bytes in hex, chosen by the player's own "
        "client, so that nobody else chooses the ticket",
    )


class CompletionBody(_Body):
    member_id: uuid.UUID
    subject: str = Field(
        pattern=r"^[^\x00]*$",
        min_length=1,
        max_length=SUBJECT_CHARACTERS_MAX,
        examples=["survey-2026-05-17-00042"],
        description="What was done, by the caller's own id; the same one is paid once",
    )


def _device(request: Request, services: Services) -> str:
    caller = caller_of(request, services)
    # Who does not tell his device shares the limits of his network.
    return f"id {caller.device_id}" if caller.device_id else f"network {caller.address_network}"


@router.get(
    "/me/check-ins",
    summary="List check-ins",
    responses=example_of(
        200,
        {
            "data": [
                {**_PROGRAM, "checked_in": False, "streak": 5, "longest_streak": 12, "days": 31, "earns": 5},
            ]
        },
    ),
)
async def list_check_ins(request: Request, services: Serve) -> dict[str, Any]:
    """Where the member can check in (签到): today's state, the streak, and what the next day earns."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        found = await check_ins.standings(session, member_id, now)
    return {
        "data": [
            {
                **_program(standing.program),
                "checked_in": standing.checked_in,
                "streak": standing.streak,
                "longest_streak": standing.longest,
                "days": standing.days,
                "earns": standing.earns,
            }
            for standing in found
        ]
    }


@router.post("/me/check-ins", status_code=201, summary="Check in", responses=example_of(201, _CHECK_IN))
async def check_in(body: ProgramBody, request: Request, services: Serve, once: OnlyOnce) -> dict[str, Any]:
    """Check in for today, by the calendar of China. Once a day; a second time answers as before."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        work = partial(_check_in, services, session, member_id, body.program_id, _device(request, services), now)
        return await once.run(session, member_id, "check-in", body, now, work)


async def _check_in(
    services: Services, session: Session, member_id: uuid.UUID, program_id: uuid.UUID, device: str, now: datetime
) -> dict[str, Any]:
    done: CheckedIn = await check_ins.check_in(
        session, services.vault, member_id=member_id, program_id=program_id, device=device, now=now
    )
    bonus = done.next_bonus
    return {
        "program_id": str(program_id),
        "day": done.day.isoformat(),
        "streak": done.streak,
        "points": done.points,
        "balance": done.balance,
        "next_bonus": {"in_days": bonus[0], "points": bonus[1]} if bonus else None,
        "is_new": done.is_new,
    }


@router.get(
    "/me/tasks",
    summary="List tasks",
    responses=example_of(
        200,
        {
            "data": [
                {
                    **_PROGRAM,
                    "done_by": "brand",
                    "period": "daily",
                    "prize": _POINTS,
                    "chances": 0,
                    "draw_id": None,
                    "done_at": None,
                }
            ]
        },
    ),
)
async def list_tasks(request: Request, services: Serve) -> dict[str, Any]:
    """The tasks that the member can do now, with what each gives; `done_at`: when, if he has done it this period."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        found = await tasks.of_member(session, member_id, now)
    return {
        "data": [
            {
                **_program(offered.program),
                "done_by": offered.rules.done_by,
                "period": offered.rules.period,
                "prize": _prize(offered.rules.prize),
                "chances": offered.rules.chances,
                "draw_id": str(offered.rules.chance_draw_id) if offered.rules.chance_draw_id else None,
                "done_at": iso(offered.done_at) if offered.done_at else None,
            }
            for offered in found
        ]
    }


@router.post(
    "/crm/tasks/{program_id}/completions",
    status_code=201,
    summary="Tell of a task done",
    responses=example_of(
        201,
        {"program_id": _EXAMPLE_ID, "prize": {**_POINTS, "order_id": None}, "chances": 0, "is_new": True},
    ),
)
async def complete_task(
    program_id: uuid.UUID, body: CompletionBody, services: Serve, once: OnlyOnce, authorization: Authorization = None
) -> dict[str, Any]:
    """Tell that a member did a task, for the brand's own systems. Paid once a period, and once for each subject."""
    now = services.clock()
    async with services.database.writing() as session:
        key = await api_keys.authenticate(session, authorization, Role.CRM, Role.BRAND)
        program = await programs.get(session, program_id)
        key.require_brand(program.brand_id)
        work = partial(_complete, services, session, program_id, body, now)
        asked = {"program_id": str(program_id), **body.model_dump(mode="json")}
        return await once.run(session, key.caller_id, "complete task", asked, now, work)


async def _complete(
    services: Services, session: Session, program_id: uuid.UUID, body: CompletionBody, now: datetime
) -> dict[str, Any]:
    done = await tasks.complete(
        session,
        services.vault,
        program_id=program_id,
        member_id=body.member_id,
        subject_id=body.subject,
        now=now,
    )
    prize = _given(done.given)
    return {"program_id": str(program_id), "prize": prize, "chances": done.chances, "is_new": done.is_new}


@router.get(
    "/me/referral",
    summary="List referrals",
    responses=example_of(200, {"data": [{**_PROGRAM, "you_get": _POINTS, "your_friend_gets": _POINTS}]}),
)
async def list_referrals(request: Request, services: Serve) -> dict[str, Any]:
    """The programs by which the member can bring friends, and what both are given."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        found = await referrals.offered_to(session, member_id, now)
    rules = [(program, referrals.rules_of(program)) for program in found]
    return {
        "data": [
            {**_program(program), "you_get": _prize(rule.referrer), "your_friend_gets": _prize(rule.friend)}
            for program, rule in rules
        ]
    }


@router.post(
    "/me/referral/links",
    status_code=201,
    summary="Show my link",
    responses=example_of(201, {"program_id": _EXAMPLE_ID, "code": "7kq2m0x4c9vd31fh", "friends": 3}),
)
async def share(body: ProgramBody, request: Request, services: Serve) -> dict[str, Any]:
    """The member's link of one program, always the same, and how many friends came by it."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        told = caller_of(request, services).device_id
        shared = await referrals.link_of(
            session,
            services.vault,
            member_id=member_id,
            program_id=body.program_id,
            device=f"id {told}" if told else None,
            now=now,
        )
    return {"program_id": str(body.program_id), "code": shared.code, "friends": shared.friends}


@router.post(
    "/me/referral",
    status_code=201,
    summary="Join by a friend's link",
    responses=example_of(201, {"program_id": _EXAMPLE_ID, "prize": {**_POINTS, "order_id": None}, "is_new": True}),
)
async def join_by_referral(body: ReferralBody, request: Request, services: Serve, once: OnlyOnce) -> dict[str, Any]:
    """The member, who is new, came by a friend's link: both are given their prizes, once."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        work = partial(_join, services, session, member_id, body.code, _device(request, services), now)
        return await once.run(session, member_id, "referral", body, now, work)


async def _join(
    services: Services, session: Session, member_id: uuid.UUID, code: str, device: str, now: datetime
) -> dict[str, Any]:
    joined = await referrals.join(session, services.vault, code=code, friend_id=member_id, device=device, now=now)
    return {"program_id": str(joined.program_id), "prize": _given(joined.friend), "is_new": joined.is_new}


@router.post("/me/packets", status_code=201, summary="Make a red packet", responses=example_of(201, _PACKET))
async def make_packet(body: ProgramBody, request: Request, services: Serve, once: OnlyOnce) -> dict[str, Any]:
    """Make a red packet (裂变红包) to share; its shares are decided, and committed to, now."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        packet_id = derived_id("packet", member_id, once.key)
        work = partial(_make_packet, services, session, packet_id, member_id, body.program_id, now)
        return await once.run(session, member_id, "packet", body, now, work)


async def _make_packet(
    services: Services,
    session: Session,
    packet_id: uuid.UUID,
    member_id: uuid.UUID,
    program_id: uuid.UUID,
    now: datetime,
) -> dict[str, Any]:
    packet = await red_packets.make(
        session, services.vault, packet_id=packet_id, member_id=member_id, program_id=program_id, now=now
    )
    return _packet(packet, now)


@router.get("/packets/{packet_id}")
async def show_packet(packet_id: uuid.UUID, services: Serve) -> dict[str, Any]:
    """A red packet: what is left, the shares that were opened, and the seed once no share can be opened any more."""
    now = services.clock()
    async with services.database.reading() as session:
        packet = await red_packets.get(session, packet_id)
        opened = await red_packets.opened_of(session, packet_id)
    is_over = red_packets.state_at(packet, now) is not PacketState.OPEN
    return {
        **_packet(packet, now),
        "opened": [{"number": share.number, "amount": share.amount, "at": iso(share.at)} for share in opened],
        "seed": red_packets.seed_of(services.vault, packet).hex() if is_over else None,
    }


@router.post("/packets/{packet_id}/shares", status_code=201)
async def open_share(packet_id: uuid.UUID, request: Request, services: Serve, once: OnlyOnce) -> dict[str, Any]:
    """Open one share of a friend's packet, as a signed-in member. One share a member."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        work = partial(_open_share, services, session, packet_id, member_id, _device(request, services), now)
        return await once.run(session, member_id, "open packet", {"packet_id": str(packet_id)}, now, work)


async def _open_share(
    services: Services, session: Session, packet_id: uuid.UUID, member_id: uuid.UUID, device: str, now: datetime
) -> dict[str, Any]:
    opened: Opened = await red_packets.open_share(
        session, services.vault, packet_id=packet_id, member_id=member_id, device=device, now=now
    )
    prize = {"kind": opened.packet.asset, "amount": opened.amount}
    return {"packet_id": str(packet_id), "number": opened.number, "prize": prize, "is_new": opened.given is not None}


@router.get("/draws/{draw_id}")
async def show_draw(draw_id: uuid.UUID, services: Serve) -> dict[str, Any]:
    """A draw in public: terms, commitment, quantities and odds; the closing after its end; the seed once revealed."""
    async with services.database.reading() as session:
        return notice.published(await catalogue.get(session, draw_id))


@router.get("/draws/{draw_id}/record", response_class=StreamingResponse)
async def show_record(
    draw_id: Annotated[uuid.UUID, Path(examples=[_EXAMPLE_ID])], services: Serve
) -> StreamingResponse:
    """Every play of a revealed draw as NDJSON, for `fanxing draw verify` or any other program that recomputes it."""
    async with services.database.reading() as session:
        plays.require_revealed(await catalogue.get(session, draw_id))
    name = f"attachment; filename=draw-{draw_id}.ndjson"
    lines = await services.streams.made(_record_lines(services.database, draw_id))
    return StreamingResponse(lines, media_type=RECORD_MEDIA_TYPE, headers={"content-disposition": name})


async def _record_lines(database: Database, draw_id: uuid.UUID) -> AsyncIterator[bytes]:
    async with database.reading() as session:
        async for line in plays.record_of(session, await catalogue.get(session, draw_id)):
            yield line


@router.get(
    "/me/draws/{draw_id}",
    summary="Show my plays",
    responses=example_of(
        200,
        {
            "draw_id": _EXAMPLE_ID,
            "state": "open",
            "player": "9f86d081884c7d659a2feaa0c55ad015",
            "chances": 1,
            "plays": [_PLAYED],
        },
    ),
)
async def my_draw(draw_id: uuid.UUID, request: Request, services: Serve) -> dict[str, Any]:
    """The member's chances and plays of one draw, each with its receipt: a line of the record, to be kept."""
    now = services.clock()
    async with services.database.reading() as session:
        member_id = await members.require_member(session, request, now)
        draw = await catalogue.get(session, draw_id)
        chances = await plays.chances_of(session, member_id, draw_id)
        played = await plays.plays_of(session, member_id, draw_id)
    terms = catalogue.terms_of(draw)
    return {
        "draw_id": str(draw_id),
        "state": draw.state,
        "player": plays.player_of(services.vault, draw_id, member_id).hex(),
        "chances": chances,
        "plays": [_played(terms, one) for one in played],
    }


@router.post("/me/draws/{draw_id}/plays", status_code=201, summary="Play a draw", responses=example_of(201, _PLAYED))
async def play(draw_id: uuid.UUID, body: PlayBody, request: Request, services: Serve, once: OnlyOnce) -> dict[str, Any]:
    """Play once: a ticket, its prize and its price in one transaction."""
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        asked = PlayRequest(
            play_id=derived_id("play", member_id, once.key),
            member_id=member_id,
            draw_id=draw_id,
            entropy=bytes.fromhex(body.entropy),
            device=_device(request, services),
        )
        work = partial(_play, services, session, asked, now)
        said = {"draw_id": str(draw_id), "entropy": body.entropy}
        return await once.run(session, member_id, "play", said, now, work)


async def _play(services: Services, session: Session, asked: PlayRequest, now: datetime) -> dict[str, Any]:
    played = await plays.play(session, services.vault, asked, now)
    draw = await catalogue.get(session, asked.draw_id)
    return _played(catalogue.terms_of(draw), played)


def _played(terms: Terms, played: Played) -> dict[str, Any]:
    entry = terms.prizes[played.line.prize]
    return {
        "play_id": str(played.play_id),
        "turn": played.turn,
        "prize": {
            "number": played.line.prize,
            "name": {"zh": entry.name.zh, "en": entry.name.en},
            "kind": entry.kind.value,
            "amount": entry.amount,
        },
        "order_id": str(played.given.order_id) if played.given and played.given.order_id else None,
        "receipt": played.receipt.decode().rstrip("\n"),
    }


def _program(program: Program) -> dict[str, Any]:
    return {
        "program_id": str(program.program_id),
        "brand_id": program.brand_id,
        "title": {"zh": program.title_zh, "en": program.title_en},
        "ends_at": iso(program.ends_at) if program.ends_at else None,
    }


def _prize(prize: Prize) -> dict[str, Any]:
    return programs.prize_document(prize)


def _given(given: Given | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {**_prize(given.prize), "order_id": str(given.order_id) if given.order_id else None}


def _packet(packet: RedPacket, now: datetime) -> dict[str, Any]:
    return {
        "packet_id": str(packet.packet_id),
        "kind": packet.asset,
        "total": packet.total,
        "shares": packet.shares,
        "shares_left": packet.shares - packet.opened,
        "minimum": packet.minimum,
        "state": red_packets.state_at(packet, now),
        "expires_at": iso(packet.expires_at),
        "commitment": packet.commitment.hex(),
    }
