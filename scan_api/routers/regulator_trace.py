"""For regulators: where a thing came from and went, and what proves it, as far as their account reaches."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from codes.catalogue import brand_with
from scan_api import thing_evidence
from scan_api.provenance import repository, trace_answers
from scan_api.provenance.things import name_of
from scan_api.provenance.trace import STEPS_DEFAULT, STEPS_MAX
from scan_api.regulators import accesses, traces
from scan_api.regulators.accesses import Asked
from scan_api.routers import BrandSlug
from scan_api.routers.epcis import EventsResponse
from scan_api.routers.evidence import WithEvidence, beside, bundled
from scan_api.routers.regulator import Authorization, Purpose, regulator_of
from scan_api.routers.trace import Thing, name_asked
from scan_api.services import Serve

router = APIRouter(prefix="/v1/regulator", tags=["regulator"])

Steps = Annotated[int, Query(ge=0, le=STEPS_MAX, description="From thing to thing, in either direction")]
Whose = Annotated[
    BrandSlug | None, Query(description="By whose events; absent: those of the brand whose product it is")
]


@router.get("/trace/{thing:path}", summary="Trace a thing as far as the account reaches", response_model=dict[str, Any])
async def trace(
    thing: Thing,
    services: Serve,
    steps: Steps = STEPS_DEFAULT,
    brand: Whose = None,
    with_evidence: WithEvidence = False,
    authorization: Authorization = None,
    purpose: Purpose = None,
) -> Response:
    """What it was in, made of and held, its lot's events, and the acts on it, as brands are told.

    What the account does not reach is answered for as what nobody ever heard of.
    """
    regulator = await regulator_of(services, authorization)
    asked = Asked("trace", name_of(thing), {"brand": brand, "steps": steps}, accesses.purpose_of(purpose))
    async with accesses.recorded(services.database, services.clock, regulator, asked) as told:
        name = name_asked(thing)
        async with services.database.reading() as session:
            seen = await traces.seen_of(session, services.scans, regulator.scope, name, brand, steps)
            contexts = await repository.contexts_of(session, seen.trace.events)
            named = [(one.event_id, one.event_key) for one in seen.trace.events]
            proofs = await beside(session, named, with_evidence)
        if seen.brand_id is not None:
            told.of(seen.brand_id, len(seen.trace.events) + len(seen.known.acts))
    way = trace_answers.way_of(seen.trace)
    shown = trace_answers.as_json(seen.trace, way, thing, contexts, services.clock())
    return EventsResponse({**shown, **seen.known.as_json(), **proofs})


@router.get(
    "/evidence/{thing:path}",
    summary="Evidence of a thing as far as the account reaches",
    response_class=StreamingResponse,
)
async def evidence(
    thing: Thing,
    services: Serve,
    steps: Steps = STEPS_DEFAULT,
    brand: Whose = None,
    authorization: Authorization = None,
    purpose: Purpose = None,
) -> StreamingResponse:
    """The events and acts of the trace as they were logged, and an item's steps, with their proofs, in one zip.

    As `GET /v1/evidence/{thing}` gives brands. What the account does not reach is answered for as what nobody ever
    heard of: by a bundle with no records.
    """
    regulator = await regulator_of(services, authorization)
    asked = Asked("evidence", name_of(thing), {"brand": brand, "steps": steps}, accesses.purpose_of(purpose))
    async with accesses.recorded(services.database, services.clock, regulator, asked) as told:
        name = name_asked(thing)
        verdict = services.trust.verifier.check(thing.strip())
        async with services.database.reading() as session:
            seen = await traces.seen_of(session, services.scans, regulator.scope, name, brand, steps)
            owner = None if seen.brand_id is None else await brand_with(session, seen.brand_id)
            about = await thing_evidence.evidence_of(
                session, services.scans, owner, name, seen.trace, seen.known, verdict
            )
        answer = await bundled(services, about)
        if seen.brand_id is not None:
            told.of(seen.brand_id, len(about.subjects))
    return answer
