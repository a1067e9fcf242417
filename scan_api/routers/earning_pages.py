"""For members in a browser who earn without scanning: check-ins, tasks, draws, and what they share with friends."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from codes import catalogue as brands
from kit import idempotency
from kit.db import Session
from kit.ids import derived_id
from loyalty import check_ins, programs, red_packets, referrals, tasks
from loyalty import members as loyalty_members
from loyalty.benefits import Benefit
from loyalty.benefits import catalogue as benefit_catalogue
from loyalty.draws import catalogue, notice, plays
from loyalty.draws.plays import Played, PlayRequest
from loyalty.draws.record import ENTROPY_BYTES_MAX
from loyalty.draws.terms import Made, Price, Terms
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import ProgramKind
from loyalty.red_packets import PacketState, RedPacket
from scan_api.auth import members
from scan_api.callers import caller_of
from scan_api.page_answers import device_of, html_response, language_of, require_own_form, sign_in_page
from scan_api.routers.member_pages import points_of
from scan_api.services import Serve
from scan_api.web import member_pages, paths, qr
from scan_api.web import member_views as views
from scan_api.web.views import Language

router = APIRouter(include_in_schema=False)

PLAYS_SHOWN_MAX = 10
OWN_CHARACTERS_MAX = 12
"""What a player may add to his ticket himself: at most 48 bytes of UTF-8, beside the 16 of the form."""
ENTROPY_BYTES = 16

ProgramId = Annotated[uuid.UUID, Form()]
Key = Annotated[str, Form(max_length=idempotency.KEY_CHARACTERS_MAX)]
_Benefits = Mapping[uuid.UUID, Benefit]

assert ENTROPY_BYTES + 4 * OWN_CHARACTERS_MAX <= ENTROPY_BYTES_MAX


async def _benefits_of(session: Session, prizes: Sequence[Prize]) -> _Benefits:
    ids = {prize.benefit_id for prize in prizes if prize.benefit_id is not None}
    return await benefit_catalogue.named(session, ids) if ids else {}


def _prize(prize: Prize, benefits: _Benefits, language: Language) -> views.PrizeView:
    benefit = benefits.get(prize.benefit_id) if prize.benefit_id is not None else None
    if benefit is None:
        return views.PrizeView(prize.kind.value, prize.amount)
    return views.PrizeView(prize.kind.value, prize.amount, benefit.name(language), benefit.value_fen)


@router.get(paths.EARN_PATH)
async def earn(request: Request, services: Serve) -> Response:
    """Everything that brings points without a scan."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        member_id = await members.visitor(session, request, now)
        if member_id is None:
            return await sign_in_page(session, request, paths.EARN_PATH)
        view = await _earn(session, member_id, language, now)
    return html_response(member_pages.earn(view), language)


async def _earn(session: Session, member_id: uuid.UUID, language: Language, now: datetime) -> views.EarnView:
    group_id = (await loyalty_members.get(session, member_id)).group_id
    offered = await tasks.of_member(session, member_id, now)
    sharing = [
        (program, referrals.rules_of(program)) for program in await referrals.offered_to(session, member_id, now)
    ]
    packets = [
        (program, red_packets.rules_of(program))
        for program in await programs.running_for(session, member_id, ProgramKind.PACKET, now)
    ]
    given = [one.rules.prize for one in offered] + [
        prize for _, rule in sharing for prize in (rule.referrer, rule.friend)
    ]
    benefits = await _benefits_of(session, given)
    return views.EarnView(
        language,
        await points_of(session, member_id),
        tuple(
            views.CheckInView(
                str(one.program.program_id),
                one.program.title(language),
                one.checked_in,
                one.streak,
                one.earns,
            )
            for one in await check_ins.standings(session, member_id, now)
        ),
        tuple(
            views.TaskView(
                one.program.title(language),
                one.rules.period.value,
                _prize(one.rules.prize, benefits, language),
                one.rules.chances,
                one.done_at is not None,
            )
            for one in offered
        ),
        tuple(
            views.DrawLink(str(draw.draw_id), _title(catalogue.terms_of(draw), language), draw.closes_at)
            for draw in await catalogue.open_in_group(session, group_id, now)
        ),
        tuple(
            views.ReferralView(
                str(program.program_id),
                program.title(language),
                _prize(rule.referrer, benefits, language),
                _prize(rule.friend, benefits, language),
            )
            for program, rule in sharing
        ),
        tuple(
            views.PacketOffer(
                str(program.program_id),
                program.title(language),
                views.PrizeView(rule.asset.value, rule.total),
                rule.shares,
                str(uuid.uuid4()),
            )
            for program, rule in packets
        ),
    )


@router.post(paths.CHECK_IN_ACTION)
async def check_in(request: Request, services: Serve, program_id: ProgramId) -> Response:
    """Check in for today; again on the same day changes nothing."""
    require_own_form(request)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        await check_ins.check_in(
            session,
            services.vault,
            member_id=member_id,
            program_id=program_id,
            device=device_of(request, services),
            now=now,
        )
    return RedirectResponse(paths.EARN_PATH, 303)


def _title(terms: Terms, language: Language) -> str:
    return terms.title.zh if language == "zh" else terms.title.en


@router.get(paths.DRAWS_PATH + "/{draw_id}")
async def draw(draw_id: uuid.UUID, request: Request, services: Serve) -> Response:
    """A draw with everything that was published of it, for everybody; and for a member of its group, to play."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        found = await catalogue.get(session, draw_id)
        terms, told = catalogue.terms_of(found), notice.published(found)
        brand = await brands.brand_with(session, found.brand_id)
        member_id = await _member_of_group(session, request, found.group_id, now)
        chances, played = None, []
        if member_id is not None:
            played = await plays.plays_of(session, member_id, draw_id)
            if terms.price is Price.CHANCES:
                chances = await plays.chances_of(session, member_id, draw_id)
    view = views.DrawView(
        language,
        str(draw_id),
        _title(terms, language),
        brand.slug,
        told["state"],
        tuple(told["notice"][language]),
        told["commitment"],
        told["seed"],
        is_member=member_id is not None,
        may_play=found.opens_at <= now < found.closes_at and chances != 0,
        chances=chances,
        plays=tuple(_play(terms, one, language) for one in played[:PLAYS_SHOWN_MAX]),
        entropy=secrets.token_hex(ENTROPY_BYTES),
        idempotency_key=str(uuid.uuid4()),
    )
    return html_response(member_pages.draw(view), language)


async def _member_of_group(session: Session, request: Request, group_id: int, now: datetime) -> uuid.UUID | None:
    """The signed-in member, unless he is one of another group: there he is a stranger."""
    member_id = await members.visitor(session, request, now)
    if member_id is None or (await loyalty_members.get(session, member_id)).group_id != group_id:
        return None
    return member_id


def _play(terms: Terms, played: Played, language: Language) -> views.PlayView:
    won = terms.prizes[played.line.prize]
    name = won.name.zh if language == "zh" else won.name.en
    return views.PlayView(
        played.turn, name, won.kind is not Made.NOTHING, played.line.at, played.receipt.decode().rstrip("\n")
    )


@router.post(paths.PLAY_ACTION)
async def play(
    request: Request,
    services: Serve,
    draw_id: Annotated[uuid.UUID, Form()],
    entropy: Annotated[str, Form(pattern=rf"^[0-9a-f]{{{2 * ENTROPY_BYTES}}}$")],
    idempotency_key: Key,
    own: Annotated[str, Form(max_length=OWN_CHARACTERS_MAX)] = "",
) -> Response:
    """Play once. Without scripts a browser cannot choose at random, so the form does, and the player may add to it."""
    require_own_form(request)
    idempotency.check_key(idempotency_key)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        asked = PlayRequest(
            play_id=derived_id("play", member_id, idempotency_key),
            member_id=member_id,
            draw_id=draw_id,
            entropy=bytes.fromhex(entropy) + own.encode(),
            device=device_of(request, services),
        )
        await plays.play(session, services.vault, asked, now)
    return RedirectResponse(f"{paths.DRAWS_PATH}/{draw_id}", 303)


@router.post(paths.SHARE_ACTION)
async def share(request: Request, services: Serve, program_id: ProgramId) -> Response:
    """Show the member's own link, made now unless he has one."""
    require_own_form(request)
    language, now = language_of(request), services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        told = caller_of(request, services).device_id
        shared = await referrals.link_of(
            session,
            services.vault,
            member_id=member_id,
            program_id=program_id,
            device=f"id {told}" if told else None,  # a network is no device: friends may share one
            now=now,
        )
    url = f"{services.settings.base_url}{paths.REFERRAL_PATH}/{shared.code}"
    view = views.ShareView(language, shared.program.title(language), url, qr.symbol(url), shared.friends)
    return html_response(member_pages.share(view), language)


@router.get(paths.REFERRAL_PATH + "/{code}")
async def invitation(code: str, request: Request, services: Serve) -> Response:
    """What a friend's link opens. Looking at it takes nothing."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        program = await referrals.program_of(session, code)
        programs.require_running(program, now)
        gift = referrals.rules_of(program).friend
        benefits = await _benefits_of(session, [gift])
        brand = await brands.brand_with(session, program.brand_id)
        member_id = await _member_of_group(session, request, program.group_id, now)
    view = views.InvitationView(
        language,
        code,
        program.title(language),
        brand.name(language),
        brand.slug,
        _prize(gift, benefits, language),
        member_id is not None,
    )
    return html_response(member_pages.invitation(view), language)


@router.post(paths.JOIN_ACTION)
async def join(request: Request, services: Serve, code: Annotated[str, Form(max_length=32)]) -> Response:
    """Take the gift of a friend's link, once."""
    require_own_form(request)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        device = device_of(request, services)
        await referrals.join(session, services.vault, code=code, friend_id=member_id, device=device, now=now)
    return RedirectResponse(paths.ME_PATH, 303)


@router.post(paths.MAKE_PACKET_ACTION)
async def make_packet(request: Request, services: Serve, program_id: ProgramId, idempotency_key: Key) -> Response:
    """Make a red packet to share; the same form again leads to the same packet."""
    require_own_form(request)
    idempotency.check_key(idempotency_key)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        packet_id = derived_id("packet", member_id, idempotency_key)
        await red_packets.make(
            session, services.vault, packet_id=packet_id, member_id=member_id, program_id=program_id, now=now
        )
    return RedirectResponse(f"{paths.PACKET_PATH}/{packet_id}", 303)


@router.get(paths.PACKET_PATH + "/{packet_id}")
async def packet(packet_id: uuid.UUID, request: Request, services: Serve) -> Response:
    """A red packet: for its owner to share, for a friend to open."""
    language, now = language_of(request), services.clock()
    async with services.database.reading() as session:
        found = await red_packets.get(session, packet_id)
        opened = await red_packets.opened_of(session, packet_id)
        program = await programs.get(session, found.program_id)
        brand = await brands.brand_with(session, program.brand_id)
        member_id = await _member_of_group(session, request, program.group_id, now)
    state, url = red_packets.state_at(found, now), f"{services.settings.base_url}{paths.PACKET_PATH}/{packet_id}"
    own = next((share.amount for share in opened if share.member_id == member_id), None)
    is_owner = member_id == found.member_id
    view = views.PacketView(
        language,
        str(packet_id),
        program.title(language),
        brand.slug,
        _part(found, found.total),
        found.shares,
        state.value,
        found.expires_at,
        found.commitment.hex(),
        red_packets.seed_of(services.vault, found).hex() if state is not PacketState.OPEN else None,
        tuple(views.ShareOpened(share.number, _part(found, share.amount), share.at) for share in opened),
        is_member=member_id is not None,
        is_owner=is_owner,
        own=_part(found, own) if own is not None else None,
        url=url,
        qr=qr.symbol(url) if is_owner and state is PacketState.OPEN else None,
    )
    return html_response(member_pages.packet(view), language)


def _part(packet: RedPacket, amount: int) -> views.PrizeView:
    return views.PrizeView(PrizeKind(packet.asset).value, amount)


@router.post(paths.OPEN_SHARE_ACTION)
async def open_share(request: Request, services: Serve, packet_id: Annotated[uuid.UUID, Form()]) -> Response:
    """Open one share of a friend's packet, once."""
    require_own_form(request)
    now = services.clock()
    async with services.database.writing() as session:
        member_id = await members.require_member(session, request, now)
        device = device_of(request, services)
        await red_packets.open_share(
            session, services.vault, packet_id=packet_id, member_id=member_id, device=device, now=now
        )
    return RedirectResponse(f"{paths.PACKET_PATH}/{packet_id}", 303)
