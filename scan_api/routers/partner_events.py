"""For partners of brands: events that passed through them, and those that brands share with them."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from scan_api.provenance import answers, repository
from scan_api.regulators import partner_events, partners
from scan_api.routers import example_of
from scan_api.routers.epcis import VERSIONS, EventsResponse
from scan_api.services import Serve

router = APIRouter(prefix="/v1/partner", tags=["partners"])


@router.get("/events", summary="Query what a partner sees", responses=example_of(200, {"type": "EPCISQueryDocument"}))
async def events(
    request: Request,
    services: Serve,
    authorization: Annotated[str | None, Header(description="Bearer fx_…, of a partner")] = None,
) -> Response:
    """Events that passed through the partner or are shared with it, newest first; parameters as of GET /epcis/events.

    Besides, `brand` names brands, and may come several times; maxEventCount is refused. `Link` with rel="next" leads to
    the next page, also from a short or empty one. What is not seen is answered for as what there is not.
    """
    given = request.query_params.multi_items()
    async with services.database.reading() as session:
        partner = await partners.authenticate(session, authorization, services.clock())
        page = await partner_events.page(session, services.vault, partner, given)
        contexts = await repository.contexts_of(session, page.events)
    headers = dict(VERSIONS)
    if page.next_token is not None:
        others = [(name, value) for name, value in given if name != "nextPageToken"]
        following = urlencode([*others, ("nextPageToken", page.next_token)])
        headers["Link"] = f'</v1/partner/events?{following}>; rel="next"'
    return EventsResponse(answers.query_document(page.events, contexts, services.clock()), 200, headers)
