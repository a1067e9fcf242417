"""For shoppers: a code's own URL, which answers a phone with a page and a client with JSON.

Digital Links without a signature, and whoever asks for links instead of the verdict, `routers.resolver` answers.
"""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.convertors import PathConvertor, register_url_convertor

from scan_api import item_view, page_answers, robots
from scan_api.auth import members
from scan_api.errors import STATUS_BY_VERDICT, PageUnknown
from scan_api.item_view import ItemView
from scan_api.routers import pages, resolver
from scan_api.services import Serve, Services
from scan_api.web.language import choose
from scan_api.web.views import Language, MemberView


class CodePath(PathConvertor):
    """A path that may be a code's: no other begins with a digit."""

    regex = "[0-9].*"


register_url_convertor("code", CodePath())
router = APIRouter(tags=["consumer"])
elsewhere = APIRouter(include_in_schema=False)


@router.get("/{code_path:code}", summary="Scan a code, or follow a Digital Link", responses=resolver.ANSWERS)
@router.head("/{code_path:code}", include_in_schema=False)
async def scan(request: Request, services: Serve) -> Response:
    """Judge the code whose URL this is, and record the scan before the answer leaves.

    200 genuine, also with a warning; 400 malformed; 404 never issued or forged; 410 revoked or recalled. HEAD requests,
    prefetches and link-preview robots are answered, but are no scans. A GET claims nothing.

    A GS1 Digital Link without a signature (`/01/GTIN…`), and a code with `?linkType=` or an Accept of
    `application/linkset+json`, is resolved instead: 307 to a link of the brand's, 300 where several fit alike, 200 with
    the link set, 404 without such a link. No signature goes on in any of them.
    """
    # The raw path, since a code is canonical or refused: a percent-encoded digit is no digit. The query is no part of
    # a code; chat programs add some to every link that is passed on.
    path = request.scope["raw_path"].decode("latin-1")
    if not path[1:2].isdigit():
        raise PageUnknown("there is nothing at this address")
    if resolver.asked(request, path) and (resolved := await resolver.answer(request, services, path)) is not None:
        return resolved
    text = services.settings.base_url + path
    page, language, now = (
        page_answers.wants_page(request),
        choose(request.headers.get("accept-language")),
        services.clock(),
    )
    channel = ("page" if page else "api") if robots.is_scan(request.method, request.headers) else None
    view = await item_view.look(services, text, channel=channel, session_token=members.session_token(request), now=now)
    services.metrics.scans.labels(view.judgement.error or "genuine").inc()
    if view.judgement.error is not None and channel is not None:
        services.refused_scans.note(view.judgement, now)
    status = STATUS_BY_VERDICT[view.judgement.error] if view.judgement.error else 200
    headers = {
        "vary": "accept, accept-language, cookie",
        **resolver.headers_of_code(services, view.judgement.verdict),
    }
    if page:
        member, benefits = await _shown_besides(services, view, language)
        response = pages.scan_page(view, text, member, benefits, language, status, headers)
        if view.judgement.subject is not None:
            members.remember_brand(request, response, services, view.judgement.subject.brand.slug)
        return response
    return JSONResponse(item_view.as_json(view, language), status, headers={**headers, "content-language": language})


@router.options("/{code_path:code}", include_in_schema=False)
async def preflight() -> Response:
    """What may be asked of a Digital Link, also by scripts of other sites."""
    return resolver.preflight()


@elsewhere.get("/{path:path}")
@elsewhere.head("/{path:path}")
async def nothing() -> Response:
    """Whatever no route takes."""
    raise PageUnknown("there is nothing at this address")


async def _shown_besides(
    services: Services, view: ItemView, language: Language
) -> tuple[MemberView | None, pages.Benefits]:
    """What the page shows of the visitor, and of benefits among the prizes. Most pages have neither."""
    prizes = (chance.prize for offer in view.offers for chance in offer.chances)
    if view.visitor is None and all(prize.benefit_id is None for prize in prizes):
        return None, {}
    async with services.database.reading() as session:
        return await pages.member_view(session, view.visitor, view, language), await pages.benefits_of(session, view)
