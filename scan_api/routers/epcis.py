"""The EPCIS 2.0 interfaces: capture of events, and the simple event query (EPCIS 2.0, 12; its REST binding)."""

import asyncio
import json
import math
import re
import uuid
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import JSONResponse, Response

from kit.clock import iso
from kit.errors import Invalid, NotFound
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, OutOfScope, Role
from scan_api.provenance import answers, captures, documents, event_query, event_xml, repository
from scan_api.provenance.captures import (
    EVENTS_AT_ONCE_MAX,
    THINGS_AT_ONCE_MAX,
    Capture,
    Captured,
    ErrorBehaviour,
    Outcome,
)
from scan_api.provenance.documents import STANDARD, Document, DocumentFault, EpcisDocumentInvalid
from scan_api.provenance.event_query import EventQuery
from scan_api.services import Serve, Services

router = APIRouter(prefix="/epcis", tags=["epcis"])

_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
VERSIONS = {"GS1-EPCIS-Version": "2.0.0", "GS1-CBV-Version": "2.0.0"}
LIMITS = {"GS1-EPCIS-Capture-Limit": str(EVENTS_AT_ONCE_MAX)}
Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
Behaviour = Annotated[
    ErrorBehaviour, Header(alias="GS1-Capture-Error-Behaviour", description="rollback: all events or none")
]


class EventUnknown(NotFound):
    """The brand has no event of this id."""

    code = "EventUnknown"


class EventRefused(Invalid):
    """A single event that was sent breaks a rule."""

    code = "EventRefused"


@router.post("/capture", status_code=202, summary="Capture a document of events")
async def capture(
    request: Request,
    services: Serve,
    authorization: Authorization = None,
    behaviour: Behaviour = ErrorBehaviour.ROLLBACK,
) -> Response:
    """Hand in an EPCIS document, as JSON-LD or XML, of at most 1,000 events; each is answered for.

    Again, it changes nothing: what is there is a duplicate, by its event id or, without one, its CBV 2.0 event hash.
    """
    captured = await _capture(services, request, authorization, behaviour)
    return JSONResponse(
        {**_shown(captured.capture), "events": [_result(result) for result in captured.results]},
        202,
        {**VERSIONS, **LIMITS, "Location": f"/epcis/capture/{captured.capture.capture_id}"},
    )


@router.get("/capture/{capture_id}", summary="What became of a capture")
async def capture_job(capture_id: uuid.UUID, services: Serve, authorization: Authorization = None) -> Response:
    """How a capture ended, with the faults of up to 100 refused events."""
    async with services.database.reading() as session:
        key = await _key(services, session, authorization, Role.BRAND, Role.LOGISTICS)
        found = await captures.find(session, key.brand_id or 0, capture_id)
        if key.role == Role.LOGISTICS and found.caller_id != key.caller_id:
            raise captures.CaptureUnknown("there is no such capture")
    return JSONResponse(_shown(found), 200, VERSIONS)


@router.post("/events", status_code=201, summary="Capture one event")
async def capture_event(request: Request, services: Serve, authorization: Authorization = None) -> Response:
    """Hand in one event with its own @context. One that is there already is answered alike."""
    captured = await _capture(services, request, authorization, ErrorBehaviour.ROLLBACK, is_single=True)
    [result] = captured.results
    if result.outcome is Outcome.REFUSED:
        told = "; ".join(f"{one.pointer or 'the event'}: {one.message}" for one in result.problems)
        raise EventRefused(told, hint="docs/epcis.md lists the rules.")
    location = f"/epcis/events/{quote(result.event_id or '', safe='')}"
    return JSONResponse(_result(result), 201, {**VERSIONS, "Location": location})


@router.get("/events", summary="Query events")
async def query_events(request: Request, services: Serve, authorization: Authorization = None) -> Response:
    """The brand's events that fit, newest first. `Link` with rel="next" leads to the next page."""
    return await _query(services, request, authorization, "/epcis/events", EventQuery())


@router.get("/epcs/{epc:path}/events", summary="Events of one thing")
async def events_of_epc(
    epc: Annotated[str, Path(max_length=2_048)], request: Request, services: Serve, authorization: Authorization = None
) -> Response:
    """Events that name the thing: an EPC URN, a Digital Link or a code text, percent-encoded."""
    also = event_query.parse([("MATCH_anyEPC", epc.replace("|", "%7C"))])
    return await _query(services, request, authorization, f"/epcis/epcs/{quote(epc, safe='')}/events", also)


@router.get("/events/{event_id:path}", summary="One event")
async def event(
    event_id: Annotated[str, Path(max_length=2_048)], services: Serve, authorization: Authorization = None
) -> Response:
    """An event by its id, or by its hash id when it came without one; percent-encoded."""
    async with services.database.reading() as session:
        key = await _key(services, session, authorization, Role.BRAND)
        found = await repository.find(session, key.brand_id or 0, event_id)
        if found is None:
            raise EventUnknown("there is no such event")
        contexts = await repository.contexts_of(session, [found])
    return JSONResponse(answers.single(found, contexts[found.context_id]), 200, VERSIONS)


async def _key(services: Services, session: Any, authorization: str | None, *roles: Role) -> ApiKey:
    key = await api_keys.authenticate(session, authorization, *roles)
    if key.gtin_prefixes:
        raise OutOfScope("this interface is for keys that cover all of a brand's GTINs")
    return key


async def _capture(
    services: Services,
    request: Request,
    authorization: str | None,
    behaviour: ErrorBehaviour,
    *,
    is_single: bool = False,
) -> Captured:
    now = services.clock()
    async with services.database.reading() as session:
        key = await _key(services, session, authorization, Role.BRAND, Role.LOGISTICS)
    brand_id, body = key.brand_id or 0, await request.body()
    is_xml = "xml" in request.headers.get("content-type", "")
    # In a thread: a thousand events take a tenth of a second, and meanwhile others are answered.
    declared, judged = await asyncio.to_thread(_read, brand_id, body, is_xml, is_single)
    async with services.database.writing() as session:
        return await captures.capture(session, brand_id, key.caller_id, declared, judged, behaviour, now)


def _read(brand_id: int, body: bytes, is_xml: bool, is_single: bool) -> tuple[object, list[captures.Judged]]:
    document: Document
    declared: object
    if is_xml:
        document = event_xml.read(body)
        added = {name: uri for name, uri in document.context.prefixes.items() if STANDARD.prefixes.get(name) != uri}
        declared = [answers.STANDARD_CONTEXT, *([added] if added else [])]
    else:
        parsed = _parsed(body)
        document = documents.read(parsed)
        declared = parsed["@context"]
    if is_single and document.events_at:
        raise EpcisDocumentInvalid(
            DocumentFault.KIND_UNKNOWN, "/type", "One event is sent here.", hint="POST /epcis/capture takes documents."
        )
    if len(document.events) > EVENTS_AT_ONCE_MAX:
        raise EpcisDocumentInvalid(
            DocumentFault.TOO_MANY_EVENTS,
            document.events_at,
            f"It has {len(document.events):,} events; one capture takes {EVENTS_AT_ONCE_MAX:,}.",
            hint="Send it in parts: what is there already is no harm.",
        )
    judged = captures.judge(brand_id, document)
    things = sum(len(one.new.things) for one in judged if one.new is not None)
    if things > THINGS_AT_ONCE_MAX:
        raise EpcisDocumentInvalid(
            DocumentFault.TOO_MANY_EVENTS,
            document.events_at,
            f"Its events name {things:,} things; those of one capture name {THINGS_AT_ONCE_MAX:,}.",
            hint="Send it in parts.",
        )
    return declared, judged


def _parsed(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
        parsed = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if _HALF_PAIR.search(text) is not None:
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # an escape may be one half of a pair alone
        return parsed
    except (ValueError, RecursionError):
        raise EpcisDocumentInvalid(
            DocumentFault.NOT_AN_OBJECT, "", "The body is not JSON in UTF-8.", hint="XML has a content type of its own."
        ) from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a number of JSON")
    return number


async def _query(
    services: Services, request: Request, authorization: str | None, path: str, also: EventQuery
) -> Response:
    now = services.clock()
    given = request.query_params.multi_items()
    query = event_query.parse(given)
    query = replace(query, conditions=query.conditions + also.conditions)
    async with services.database.reading() as session:
        key = await _key(services, session, authorization, Role.BRAND)
        page = await event_query.find(session, key.brand_id or 0, query)
        contexts = await repository.contexts_of(session, page.events)
    headers = dict(VERSIONS)
    if page.next_token is not None:
        others = [(name, value) for name, value in given if name != "nextPageToken"]
        following = urlencode([*others, ("nextPageToken", page.next_token)])
        headers["Link"] = f'<{path}?{following}>; rel="next"'
    return JSONResponse(answers.query_document(page.events, contexts, now), 200, headers)


def _shown(capture: Capture) -> dict[str, Any]:
    """A capture job (EPCIS 2.0, REST binding)."""
    return {
        "captureID": str(capture.capture_id),
        "createdAt": iso(capture.created_at),
        "finishedAt": iso(capture.finished_at),
        "running": False,
        "success": capture.success,
        "captureErrorBehaviour": capture.behaviour,
        "accepted": capture.accepted,
        "duplicates": capture.duplicates,
        "refused": capture.refused,
        "errors": capture.refusals,
    }


def _result(result: captures.Result) -> dict[str, Any]:
    return {
        "pointer": result.pointer,
        "outcome": result.outcome,
        "eventID": result.event_id,
        "hashID": result.hash_id,
        "problems": [{"reason": one.reason, "pointer": one.pointer, "message": one.message} for one in result.problems],
    }
