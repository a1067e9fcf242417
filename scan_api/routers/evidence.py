"""Evidence: what the transparency log holds of a thing, with its proofs, as a zip or beside the events of an answer."""

import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from codes.catalogue import brand_with
from kit.db import Session
from scan_api import thing_evidence
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.provenance.trace import STEPS_DEFAULT, STEPS_MAX
from scan_api.routers.trace import Thing, name_asked
from scan_api.services import Serve, Services
from scan_api.transparency import attached, bundling
from scan_api.transparency.bundling import About

router = APIRouter(tags=["provenance"])

MEDIA_TYPE = "application/zip"

WithEvidence = Annotated[
    bool, Query(alias="evidence", description="Add of each event its leaf in the transparency log, and what proves it")
]


async def beside(session: Session, events: Sequence[tuple[str, uuid.UUID]], is_wanted: bool) -> dict[str, Any]:
    """The member `fanxing:evidence` of an answer that tells of these events, by id and key of the record.

    None unless somebody asked for it.
    """
    if not is_wanted:
        return {}
    found = await attached.attach(session, [key for _event_id, key in events])
    return {attached.MEMBER: found.as_json(events)}


async def bundled(services: Services, about: About) -> StreamingResponse:
    """The bundle, made whole before it is sent."""
    return StreamingResponse(
        await services.streams.made(bundling.blocks(services.database, about)),
        media_type=MEDIA_TYPE,
        headers={"content-disposition": 'attachment; filename="evidence.zip"'},
    )


@router.get("/v1/evidence/{thing:path}", summary="Evidence of a thing", response_class=StreamingResponse)
async def evidence(
    thing: Thing,
    services: Serve,
    authorization: Annotated[str | None, Header(description="Bearer fx_…")] = None,
    steps: Annotated[int, Query(ge=0, le=STEPS_MAX, description="From thing to thing, in either direction")] = (
        STEPS_DEFAULT
    ),
) -> StreamingResponse:
    """All events, steps and acts of a thing's trace as they were logged, with their proofs, in one zip.

    `fanxing-audit evidence` checks it with no network. At most 5,000 records of 64 MiB; what no signed checkpoint holds
    yet is named as pending.
    """
    name = name_asked(thing)
    async with services.database.reading() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND)
        key.require_all_gtins("this interface is")
        brand = await brand_with(session, key.brand_id or 0)
        verdict = services.trust.verifier.check(thing.strip())
        about = await thing_evidence.evidence_about(session, services.scans, brand, name, steps, verdict)
    return await bundled(services, about)
