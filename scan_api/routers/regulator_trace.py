"""For regulators: where a thing came from and went, as far as their account reaches."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from scan_api.provenance import repository, trace_answers
from scan_api.provenance.things import name_of
from scan_api.provenance.trace import STEPS_DEFAULT, STEPS_MAX
from scan_api.regulators import accesses, traces
from scan_api.regulators.accesses import Asked
from scan_api.routers import BrandSlug
from scan_api.routers.evidence import WithEvidence, beside
from scan_api.routers.regulator import Authorization, Purpose, regulator_of
from scan_api.routers.trace import Thing, name_asked
from scan_api.services import Serve

router = APIRouter(prefix="/v1/regulator", tags=["regulator"])


@router.get("/trace/{thing:path}", summary="Trace a thing as far as the account reaches")
async def trace(
    thing: Thing,
    services: Serve,
    steps: Annotated[int, Query(ge=0, le=STEPS_MAX, description="From thing to thing, in either direction")] = (
        STEPS_DEFAULT
    ),
    brand: Annotated[
        BrandSlug | None, Query(description="By whose events; absent: those of the brand whose product it is")
    ] = None,
    with_evidence: WithEvidence = False,
    authorization: Authorization = None,
    purpose: Purpose = None,
) -> dict[str, Any]:
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
            proofs = await beside(session, seen.trace.events, with_evidence)
        if seen.brand_id is not None:
            told.of(seen.brand_id, len(seen.trace.events) + len(seen.known.acts))
    way = trace_answers.way_of(seen.trace)
    return {
        **trace_answers.as_json(seen.trace, way, thing, contexts, services.clock()),
        **seen.known.as_json(),
        **proofs,
    }
