"""The EPCIS 2.0 query interface: the simple event query, single events, and what a repository has (EPCIS 2.0, 12).

Its REST binding is GS1's OpenAPI of EPCIS 2.0: eventTypes, epcs, bizSteps, bizLocations, readPoints and dispositions,
and the events of each.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import JSONResponse, Response

from kit.db import Session
from kit.errors import NotFound
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.provenance import answers, event_query, event_search, history, repository, resources
from scan_api.provenance.documents import EVENT_TYPES
from scan_api.provenance.event_query import EventQuery
from scan_api.provenance.event_search import EventPage
from scan_api.provenance.history import HistoryPage
from scan_api.services import Serve, Services

router = APIRouter(prefix="/epcis", tags=["epcis"])

VERSIONS = {"GS1-EPCIS-Version": "2.0.0", "GS1-CBV-Version": "2.0.0"}
DISCOVERY: Final = {
    **VERSIONS,
    "GS1-EPCIS-Min": "1.0",
    "GS1-EPCIS-Max": "2.0",
    "GS1-CBV-Min": "1.0",
    "GS1-CBV-Max": "2.0",
    "GS1-EPC-Format": "Never_Translates",
    "GS1-CBV-XML-Format": "Never_Translates",
    "GS1-Vendor-Version": "Fanxing 0.1",
}
"""What OPTIONS answers: which versions are taken (XML of 1.0 on), and that events are answered as they were sent."""
TOP_LEVEL: Final = (
    *("events", "eventTypes", "epcs", "bizSteps", "bizLocations", "readPoints", "dispositions", "capture", "queries"),
)
Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
Extensions = Annotated[
    str | None, Header(alias="GS1-Extensions", description="prefixes of the query: ex=https://ns.example.com/, …")
]
Named = Annotated[str, Path(max_length=2_048)]


class EventsResponse(Response):
    """An answer that tells of events, see `answers.encoded`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return answers.encoded(content)


class EventUnknown(NotFound):
    """The brand has no event of this id."""

    code = "EventUnknown"
    problem_type = "epcisException:NoSuchNameException"


class ResourceUnknown(NotFound):
    """There is no such resource of the EPCIS interfaces (`NoSuchNameException`)."""

    code = "ResourceUnknown"
    problem_type = "epcisException:NoSuchNameException"


_ALLOWED: Final = tuple(
    (re.compile(pattern), methods)
    for pattern, methods in (
        ("events|queries|queries/[^/]+/subscriptions", "GET, POST"),
        ("capture", "POST"),
        ("queries/[^/]+(/subscriptions/[^/]+)?", "GET, DELETE"),
        ("locations", "GET, PUT"),
        ("locations/.+", "DELETE"),
        (rf"|({'|'.join(TOP_LEVEL)})(/.+)?", "GET"),
    )
)


class Resource(StrEnum):
    """Resources with events of their own, as they stand in a path."""

    EVENT_TYPES = "eventTypes"
    BIZ_STEPS = "bizSteps"
    BIZ_LOCATIONS = "bizLocations"
    READ_POINTS = "readPoints"
    DISPOSITIONS = "dispositions"


_PARAMETERS: Final = {
    Resource.EVENT_TYPES: "eventType",
    Resource.BIZ_STEPS: "EQ_bizStep",
    Resource.BIZ_LOCATIONS: "EQ_bizLocation",
    Resource.READ_POINTS: "EQ_readPoint",
    Resource.DISPOSITIONS: "EQ_disposition",
}


@router.get("/", summary="What there is")
async def top_level(services: Serve, authorization: Authorization = None) -> Response:
    """The names of the top-level resources."""
    async with services.database.reading() as session:
        await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
    return JSONResponse(list(TOP_LEVEL), 200, VERSIONS)


@router.options("/{path:path}", status_code=204, include_in_schema=False)
async def discover(services: Serve, authorization: Authorization = None, path: str = "") -> Response:
    """Which methods a resource has, and which versions are taken."""
    async with services.database.reading() as session:
        await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
    methods = next((allowed for pattern, allowed in _ALLOWED if pattern.fullmatch(path)), None)
    if methods is None:
        raise ResourceUnknown("there is no such resource", hint="GET /epcis lists them.")
    return Response(status_code=204, headers={**DISCOVERY, "Allow": f"OPTIONS, {methods}"})


@router.get("/events", summary="Query events")
async def query_events(
    request: Request, services: Serve, authorization: Authorization = None, extensions: Extensions = None
) -> Response:
    """The brand's events that fit, newest first. `Link` with rel="next" leads to the next page."""
    return await answer(services, request, authorization, extensions, "/epcis/events", [])


@router.get("/epcs", summary="The things that events name")
async def epcs(request: Request, services: Serve, authorization: Authorization = None) -> Response:
    """Each thing once, under its one name, in the order in which events first named them."""
    per_page, token = _page_asked(request)
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND)
        page = await resources.things(session, key.brand_id or 0, per_page, token)
    return _listed("EpcItemList", "epc", page.names, "/epcis/epcs", per_page, page.next_token)


@router.get("/epcs/{epc:path}/events", summary="Events of one thing")
async def events_of_epc(
    epc: Named,
    request: Request,
    services: Serve,
    authorization: Authorization = None,
    extensions: Extensions = None,
) -> Response:
    """Events that name the thing: an EPC URN, a Digital Link or a code text, percent-encoded."""
    path = f"/epcis/epcs/{quote(epc, safe='')}/events"
    return await answer(services, request, authorization, extensions, path, [("MATCH_anyEPC", epc)])


@router.get("/events/{event_id:path}", summary="One event")
async def event(event_id: Named, services: Serve, authorization: Authorization = None) -> Response:
    """An event by its id, or by its hash id when it came without one; percent-encoded. With it stand the declarations
    that it was an error.
    """
    now = services.clock()
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND)
        asked = event_query.parse_values({"EQ_eventID": [event_id], "orderDirection": ["ASC"]})
        page = await event_search.find(session, key.brand_id or 0, asked)
        if not page.events:
            raise EventUnknown("there is no such event")
        contexts = await repository.contexts_of(session, page.events)
    return EventsResponse(answers.query_document(page.events, contexts, now), 200, VERSIONS)


@router.get("/{resource}", summary="What events tell of")
async def resource_names(
    resource: str, request: Request, services: Serve, authorization: Authorization = None
) -> Response:
    """The types, business steps, places or dispositions of the brand's events, each once, sorted by name."""
    known, (per_page, token) = _known(resource), _page_asked(request)
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND)
        if known is Resource.EVENT_TYPES:
            page = resources.Page(sorted(EVENT_TYPES), None)
        else:
            page = await resources.words(session, key.brand_id or 0, known.value, per_page, token)
    name = known.value.removesuffix("s")
    return _listed(
        f"{name[0].upper()}{name[1:]}ItemList", name, page.names, f"/epcis/{known}", per_page, page.next_token
    )


@router.get("/{resource}/{name:path}/events", summary="Events of one resource")
async def resource_events(
    resource: str,
    name: Named,
    request: Request,
    services: Serve,
    authorization: Authorization = None,
    extensions: Extensions = None,
) -> Response:
    """The events of a type, business step, place or disposition; with any parameter of the event query beside it."""
    known = _known(resource, name)
    path = f"/epcis/{known}/{quote(name, safe='')}/events"
    return await answer(services, request, authorization, extensions, path, [(_PARAMETERS[known], name)])


@router.get("/{resource}/{name:path}", summary="What one resource has")
async def resource_parts(resource: str, name: Named, services: Serve, authorization: Authorization = None) -> Response:
    """That it has events."""
    async with services.database.reading() as session:
        await key_of(session, authorization, Role.BRAND)
    _known(resource, name)
    return JSONResponse(["events"], 200, VERSIONS)


def _known(resource: str, name: str = "") -> Resource:
    if resource not in _PARAMETERS:
        raise ResourceUnknown("there is no such resource", hint="GET /epcis lists them.")
    if resource == Resource.EVENT_TYPES and name and name not in EVENT_TYPES:
        raise ResourceUnknown("there is no such type of events", hint="GET /epcis/eventTypes lists them.")
    return Resource(resource)


async def key_of(session: Session, authorization: str | None, *roles: Role) -> ApiKey:
    """The caller's key, of one of these roles, for the EPCIS interfaces. Raises ApiKeyRefused, Forbidden."""
    key = await api_keys.authenticate(session, authorization, *roles)
    key.require_all_gtins("this interface is")
    return key


async def answer(
    services: Services,
    request: Request,
    authorization: str | None,
    extensions: str | None,
    path: str,
    also: Sequence[tuple[str, str]],
) -> Response:
    """The page of events that a request asks for; `also` holds whatever it asks."""
    given = request.query_params.multi_items()
    context = event_query.context_of(extensions)
    query = event_query.parse(given, context)
    for name, value in also:
        query = query.also(event_query.parse_values({name: [value]}, context))
    thing = history.thing_of(query)
    if thing is not None:
        return await _history(services, authorization, thing, query.per_page, path, given)
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND)
        return await page_of(services, session, key.brand_id or 0, query, path, given)


async def _history(
    services: Services,
    authorization: str | None,
    thing: str,
    per_page: int,
    path: str,
    given: Sequence[tuple[str, str]],
) -> Response:
    asked = history.values(authorization, thing, per_page)
    found = await services.caller.call(history.HISTORY, asked)
    key = api_keys.admitted(authorization, found, Role.BRAND)
    key.require_all_gtins("this interface is")
    page = history.page_of(found, per_page)
    contexts = repository.contexts_kept(page.events)
    if contexts is None:
        async with services.database.reading() as session:
            contexts = await repository.contexts_of(session, page.events)
    return _paged(services, page, contexts, path, given)


async def page_of(
    services: Services,
    session: Session,
    brand_id: int,
    query: EventQuery,
    path: str,
    given: Sequence[tuple[str, str]],
    query_name: str = answers.QUERY_NAME,
) -> Response:
    """A page of events as an answer; `given` are the pairs of the request, which the next page is asked with."""
    page = await event_search.find(session, brand_id, query)
    contexts = await repository.contexts_of(session, page.events)
    return _paged(services, page, contexts, path, given, query_name)


def _paged(
    services: Services,
    page: EventPage | HistoryPage,
    contexts: Mapping[uuid.UUID, Any],
    path: str,
    given: Sequence[tuple[str, str]],
    query_name: str = answers.QUERY_NAME,
) -> Response:
    headers = {**VERSIONS, "GS1-EPC-Format": DISCOVERY["GS1-EPC-Format"]}
    if page.next_token is not None:
        headers["Link"] = link(path, given, page.next_token)
    document = answers.query_document(page.events, contexts, services.clock(), query_name)
    return EventsResponse(document, 200, headers)


def link(path: str, given: Sequence[tuple[str, str]], token: str) -> str:
    """The header that leads to the next page."""
    others = [(name, value) for name, value in given if name != "nextPageToken"]
    return f'<{path}?{urlencode([*others, ("nextPageToken", token)])}>; rel="next"'


def _page_asked(request: Request) -> tuple[int, str | None]:
    """How many names of a list are asked for, 1 to 1,000, and behind which. Raises QueryParameterInvalid."""
    given = request.query_params.multi_items()
    paging_alone = event_query.page_parameters(given)
    return paging_alone.per_page, paging_alone.token


def _listed(kind: str, name: str, names: Sequence[str], path: str, per_page: int, token: str | None) -> Response:
    body: dict[str, Any] = {"@context": [answers.STANDARD_CONTEXT], "type": kind, name: list(names)}
    headers = dict(VERSIONS)
    if token is not None:
        headers["Link"] = link(path, [("perPage", str(per_page))], token)
    return JSONResponse(body, 200, headers)
