"""For shoppers: a code's own URL, which answers a phone with a page and a client with JSON."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from scan_api import item_view, page_answers, robots
from scan_api.auth import members
from scan_api.errors import STATUS_BY_VERDICT, PageUnknown
from scan_api.routers import pages
from scan_api.services import Serve
from scan_api.web.language import choose

router = APIRouter(tags=["consumer"])


@router.get("/{code_path:path}", summary="Scan a code")
@router.head("/{code_path:path}", include_in_schema=False)
async def scan(request: Request, services: Serve) -> Response:
    """Judge the code whose URL this is, and record the scan before the answer leaves.

    200 genuine, also with a warning; 400 malformed; 404 never issued or forged; 410 revoked or recalled. HEAD requests,
    prefetches and link-preview robots are answered, but are no scans. A GET claims nothing.
    """
    # The raw path, since a code is canonical or refused: a percent-encoded digit is no digit. The query is no part of
    # a code; chat programs add some to every link that is passed on.
    path = request.scope["raw_path"].decode("latin-1")
    if not path[1:2].isdigit():
        raise PageUnknown("there is nothing at this address")
    text = services.settings.base_url + path
    page, language, now = (
        page_answers.wants_page(request),
        choose(request.headers.get("accept-language")),
        services.clock(),
    )
    channel = ("page" if page else "api") if robots.is_scan(request.method, request.headers) else None
    # Only a recorded scan writes, so that robots cannot make the database queue.
    transaction = services.database.reading if channel is None else services.database.writing
    async with transaction() as session:
        member_id = await members.visitor(session, request, now)
        view = await item_view.look(services, session, text, channel=channel, member_id=member_id, now=now)
        member = await pages.member_view(session, member_id, view, language) if page else None
        benefits = await pages.benefits_of(session, view) if page else {}
    services.metrics.scans.labels(view.judgement.error or "genuine").inc()
    status = STATUS_BY_VERDICT[view.judgement.error] if view.judgement.error else 200
    vary = {"vary": "accept, accept-language, cookie"}
    if page:
        return pages.scan_page(view, text, member, benefits, language, status, vary)
    return JSONResponse(item_view.as_json(view, language), status, headers={**vary, "content-language": language})
