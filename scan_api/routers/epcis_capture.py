"""The EPCIS 2.0 capture interface: documents of events, and events one by one (EPCIS 2.0, 12.6; its REST binding)."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from kit.clock import iso
from kit.db import Session
from kit.errors import Invalid
from kit.ids import new_id
from scan_api import paging
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.errors import BodyTooLarge
from scan_api.middleware import CAPTURE_BODY_BYTES_MAX
from scan_api.provenance import capture_jobs, captures, event_json, event_xml, spool
from scan_api.provenance.capture_jobs import CaptureRefusal
from scan_api.provenance.captures import (
    BYTES_AT_ONCE_MAX,
    EVENTS_AT_ONCE_MAX,
    THINGS_AT_ONCE_MAX,
    Capture,
    Captured,
    ErrorBehaviour,
    Judged,
    Outcome,
)
from scan_api.provenance.documents import EVENTS_PER_DOCUMENT_MAX, Document, DocumentFault, EpcisDocumentInvalid
from scan_api.provenance.spool import Upload
from scan_api.routers.epcis import VERSIONS, Authorization, key_of
from scan_api.services import Serve, Services

router = APIRouter(prefix="/epcis", tags=["epcis"])

LIMITS = {
    "GS1-EPCIS-Capture-Limit": str(EVENTS_PER_DOCUMENT_MAX),
    "GS1-EPCIS-Capture-File-Size-Limit": str(CAPTURE_BODY_BYTES_MAX),
}
PER_PAGE_DEFAULT, PER_PAGE_MAX = 30, 1_000
_WRITTEN_BYTES = 1024 * 1024
_ENCODE = msgspec.json.Encoder().encode
_JOBS, _REFUSALS = "epcis-captures", "epcis-refusals"
Behaviour = Annotated[
    ErrorBehaviour, Header(alias="GS1-Capture-Error-Behaviour", description="rollback: all events or none")
]
PerPage = Annotated[int, Query(alias="perPage", ge=1, le=PER_PAGE_MAX)]
Token = Annotated[str | None, Query(alias="nextPageToken", max_length=paging.CURSOR_CHARACTERS_MAX)]


class EventRefused(Invalid):
    """A single event that was sent breaks a rule."""

    code = "EventRefused"


@router.options("/capture", status_code=204, summary="What a capture may be")
async def capture_options() -> Response:
    """The limits of a document, and what becomes of it where an event is refused unless the sender says otherwise."""
    allowed = {"Allow": "OPTIONS, GET, POST", "GS1-Capture-Error-Behaviour": ErrorBehaviour.ROLLBACK.value}
    return Response(None, 204, {**VERSIONS, **LIMITS, **allowed})


@router.post("/capture", status_code=202, summary="Capture a document of events")
async def capture(
    request: Request,
    services: Serve,
    authorization: Authorization = None,
    behaviour: Behaviour = ErrorBehaviour.ROLLBACK,
) -> Response:
    """Hand in an EPCIS document, as JSON-LD or XML, of at most 100,000 events and 256 MiB.

    Up to 1,000 events (8 MiB, 20,000 things) are captured at once, and each is answered for; a larger document is
    captured in the background, and `Location` tells how far it is. Again, a document changes nothing: what is there is
    a duplicate, by its event id or, without one, its CBV 2.0 event hash.
    """
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
    received = await _received(request, spool.folder_of(services.settings.home))
    try:
        made = await _captured(services, key, received, behaviour)
    finally:
        if received.upload is not None:
            received.upload.discard()
    if isinstance(made, Capture):
        answer: dict[str, Any] = _shown(made)
    else:
        answer = {**_shown(made.capture), "events": [_result(one) for one in made.results]}
        made = made.capture
    headers = {**VERSIONS, **LIMITS, "Location": f"/epcis/capture/{made.capture_id}"}
    return Response(_ENCODE(answer), 202, headers, "application/json")


@router.get("/capture", summary="Captures")
async def capture_jobs_of(
    services: Serve, authorization: Authorization = None, per_page: PerPage = PER_PAGE_DEFAULT, token: Token = None
) -> Response:
    """The brand's captures, newest first; who moves its goods sees his own. `Link` with rel="next" leads on."""
    before = None if token is None else _decoded_id(token)
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
        caller = key.caller_id if key.role == Role.LOGISTICS else None
        found = await captures.newest(session, key.brand_id or 0, caller, before, per_page + 1)
    shown, headers = found[:per_page], dict(VERSIONS)
    if len(found) > per_page:
        headers["Link"] = _next("/epcis/capture", per_page, paging.encode(_JOBS, [str(shown[-1].capture_id)]))
    return JSONResponse([_shown(one) for one in shown], 200, headers)


@router.get("/capture/{capture_id}", summary="What became of a capture")
async def capture_job(capture_id: uuid.UUID, services: Serve, authorization: Authorization = None) -> Response:
    """How far a capture is or how it ended, with the faults of up to 100 refused events."""
    async with services.database.reading() as session:
        found = await _found(session, authorization, capture_id)
    return JSONResponse(_shown(found), 200, VERSIONS)


@router.get("/capture/{capture_id}/refused", summary="What a capture in the background refused")
async def refused_events(
    capture_id: uuid.UUID,
    services: Serve,
    authorization: Authorization = None,
    per_page: PerPage = PER_PAGE_DEFAULT,
    token: Token = None,
) -> Response:
    """All events that a capture in the background refused, with their faults, in the order of its document."""
    after = -1 if token is None else _decoded_position(token)
    async with services.database.reading() as session:
        await _found(session, authorization, capture_id)
        found = await capture_jobs.refusals(session, capture_id, after, per_page + 1)
    shown, headers = found[:per_page], dict(VERSIONS)
    if len(found) > per_page:
        token = paging.encode(_REFUSALS, [shown[-1].position])
        headers["Link"] = _next(f"/epcis/capture/{capture_id}/refused", per_page, token)
    return JSONResponse([_refusal(one) for one in shown], 200, headers)


@router.post("/events", status_code=201, summary="Capture one event")
async def capture_event(request: Request, services: Serve, authorization: Authorization = None) -> Response:
    """Hand in one event with its own @context. One that is there already is answered alike."""
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
    document = event_json.read(await request.body())
    if document.events_at:
        raise EpcisDocumentInvalid(
            DocumentFault.KIND_UNKNOWN, "/type", "One event is sent here.", hint="POST /epcis/capture takes documents."
        )
    judged = await asyncio.to_thread(captures.judge, key.brand_id or 0, document)
    [result] = (await _kept(services, key, document, judged, ErrorBehaviour.ROLLBACK)).results
    if result.outcome is Outcome.REFUSED:
        told = "; ".join(f"{one.pointer or 'the event'}: {one.message}" for one in result.problems)
        raise EventRefused(told, hint="docs/epcis.md lists the rules.")
    location = f"/epcis/events/{quote(result.event_id or '', safe='')}"
    return Response(_ENCODE(_result(result)), 201, {**VERSIONS, "Location": location}, "application/json")


@dataclass(frozen=True, slots=True)
class _Received:
    """A body: in memory while it is small, else a file."""

    body: bytes
    upload: Upload | None
    is_xml: bool


async def _received(request: Request, folder: FilePath) -> _Received:
    is_xml = "xml" in request.headers.get("content-type", "")
    pieces, size = bytearray(), 0
    upload: Upload | None = None
    try:
        async for piece in request.stream():
            size += len(piece)
            pieces += piece
            if size > BYTES_AT_ONCE_MAX and len(pieces) >= _WRITTEN_BYTES:
                upload = await asyncio.to_thread(_written, upload, folder, bytes(pieces))
                pieces.clear()
        if upload is not None or size > BYTES_AT_ONCE_MAX:
            upload = await asyncio.to_thread(_written, upload, folder, bytes(pieces))
            pieces.clear()
    except BaseException:
        if upload is not None:
            upload.discard()
        raise
    return _Received(bytes(pieces), upload, is_xml)


def _written(upload: Upload | None, folder: FilePath, content: bytes) -> Upload:
    if upload is None:
        upload = Upload(folder)
    upload.write(content)
    return upload


async def _captured(
    services: Services, key: ApiKey, received: _Received, behaviour: ErrorBehaviour
) -> Captured | Capture:
    try:
        # In a thread: a thousand events take some tens of milliseconds, and meanwhile others are answered.
        document, judged = await asyncio.to_thread(_read, key.brand_id or 0, received)
    except EpcisDocumentInvalid as error:
        if error.fault in (DocumentFault.TOO_MANY_EVENTS, DocumentFault.TOO_LARGE):
            raise BodyTooLarge(error.message, hint="Send it in parts: what is there already is no harm.") from None
        raise
    if judged is not None and document is not None:
        return await _kept(services, key, document, judged, behaviour)
    capture_id, upload = new_id(), received.upload
    if upload is None:
        upload = await asyncio.to_thread(_written, None, spool.folder_of(services.settings.home), received.body)
    # First the file and then the row: a row without its document would be a promise that nobody can keep.
    await asyncio.to_thread(upload.keep, capture_id, is_xml=received.is_xml)
    events = len(document.events) if document is not None else None
    async with services.database.writing() as session:
        return capture_jobs.begin(
            session, key.brand_id or 0, key.caller_id, capture_id, behaviour, events, services.clock()
        )


def _read(brand_id: int, received: _Received) -> tuple[Document | None, list[Judged] | None]:
    """The document, None where that is left to the background; its events judged if they are few."""
    if received.is_xml and received.upload is not None:
        return None, None
    if received.is_xml:
        document = event_xml.read(received.body)
    else:
        document = event_json.read(received.body if received.upload is None else received.upload.mapped())
    if received.upload is not None or len(document.events) > EVENTS_AT_ONCE_MAX:
        return document, None
    judged = captures.judge(brand_id, document)
    things = sum(len(one.new.things) for one in judged if one.new is not None)
    return document, judged if things <= THINGS_AT_ONCE_MAX else None


async def _kept(
    services: Services, key: ApiKey, document: Document, judged: Sequence[Judged], behaviour: ErrorBehaviour
) -> Captured:
    async with services.database.writing() as session:
        return await captures.capture(
            session, key.brand_id or 0, key.caller_id, document.declared, judged, behaviour, services.clock()
        )


async def _found(session: Session, authorization: str | None, capture_id: uuid.UUID) -> Capture:
    key = await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
    found = await captures.find(session, key.brand_id or 0, capture_id)
    if key.role == Role.LOGISTICS and found.caller_id != key.caller_id:
        raise captures.CaptureUnknown("there is no such capture")
    return found


def _decoded_id(token: str) -> uuid.UUID:
    [value] = paging.decode(_JOBS, token, 1)
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise paging.CursorInvalid("nextPageToken does not belong to this list") from None


def _decoded_position(token: str) -> int:
    [value] = paging.decode(_REFUSALS, token, 1)
    if not isinstance(value, int) or not 0 <= value <= EVENTS_PER_DOCUMENT_MAX:
        raise paging.CursorInvalid("nextPageToken does not belong to this list")
    return value


def _next(path: str, per_page: int, token: str) -> str:
    return f'<{path}?{urlencode({"perPage": per_page, "nextPageToken": token})}>; rel="next"'


def _shown(capture: Capture) -> dict[str, Any]:
    """A capture job (EPCIS 2.0, REST binding), with how far it is."""
    return {
        "captureID": str(capture.capture_id),
        "createdAt": iso(capture.created_at),
        "finishedAt": iso(capture.finished_at) if capture.finished_at is not None else None,
        "running": capture.finished_at is None,
        "success": capture.success,
        "captureErrorBehaviour": capture.behaviour,
        "total": capture.events,
        "done": capture.position,
        "accepted": capture.accepted,
        "duplicates": capture.duplicates,
        "refused": capture.refused,
        "errors": capture.refusals,
    }


def _refusal(one: CaptureRefusal) -> dict[str, Any]:
    return {
        "pointer": one.pointer,
        "outcome": Outcome.REFUSED,
        "eventID": one.event_id,
        "hashID": one.hash_id,
        "problems": one.problems,
    }


def _result(result: captures.Result) -> dict[str, Any]:
    return {
        "pointer": result.pointer,
        "outcome": result.outcome,
        "eventID": result.event_id,
        "hashID": result.hash_id,
        "problems": result.problems,
    }
