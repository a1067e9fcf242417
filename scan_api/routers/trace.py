"""Traces: where a thing came from and went, as JSON for systems and as a page for people."""

import uuid
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Form, Header, Path, Query, Request
from fastapi.responses import Response

from codes.serials import SerialScheme
from kit.errors import FanxingError, Invalid
from scan_api import thing_acts
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.errors import status_of
from scan_api.page_answers import html_response, language_of, require_own_form
from scan_api.provenance import repository, trace_answers
from scan_api.provenance import trace as traces
from scan_api.provenance.captures import IDENTIFIER_BYTES_MAX
from scan_api.provenance.things import name_of
from scan_api.provenance.trace import STEPS_DEFAULT, STEPS_MAX, Trace
from scan_api.routers.epcis import EventsResponse
from scan_api.services import Serve, Services
from scan_api.thing_acts import Known
from scan_api.web import paths, trace_page
from scan_api.web.trace_page import TraceView

router = APIRouter(tags=["provenance"])

KEY_CHARACTERS_MAX = 200
Thing = Annotated[
    str, Path(max_length=IDENTIFIER_BYTES_MAX, description="An EPC URN, a Digital Link or a code text, percent-encoded")
]


class ThingInvalid(Invalid):
    """What was asked for can be no thing's name."""

    code = "ThingInvalid"


@router.get("/v1/trace/{thing:path}", summary="Trace a thing", response_model=dict[str, Any])
async def trace(
    thing: Thing,
    services: Serve,
    authorization: Annotated[str | None, Header(description="Bearer fx_…")] = None,
    steps: Annotated[int, Query(ge=0, le=STEPS_MAX, description="From thing to thing, in either direction")] = (
        STEPS_DEFAULT
    ),
) -> Response:
    """Where a thing came from and went: what it was in, what it was made of, what was in it or made of it.

    With the events of its lot, and acts: activation, holds, recalls and voiding of itself, its order, its lot or what
    it was in. At most 2,000 things, 2,000 events of 16 MiB, 20,000 links; `is_cut` tells when there was more. Of a lot,
    `items` has the first 1,000 of the items that events bound to it.
    """
    found, known, contexts, now = await _traced(services, authorization, thing, steps)
    told = trace_answers.as_json(found, trace_answers.way_of(found), thing, contexts, now)
    return EventsResponse({**told, **known.as_json()})


@router.get(paths.TRACE_PATH, include_in_schema=False)
async def page(request: Request) -> Response:
    """The form that asks for a thing and a key."""
    language = language_of(request)
    return html_response(trace_page.page(TraceView(language)), language)


@router.post(paths.TRACE_PATH, include_in_schema=False)
async def trace_by_form(
    request: Request,
    services: Serve,
    thing: Annotated[str, Form(max_length=IDENTIFIER_BYTES_MAX)],
    key: Annotated[str, Form(max_length=KEY_CHARACTERS_MAX)],
) -> Response:
    """The same as a page. The key is asked for each time, and stays out of addresses and cookies."""
    require_own_form(request)
    language, asked = language_of(request), thing.strip()
    try:
        found, known, _contexts, _now = await _traced(services, f"Bearer {key.strip()}", asked, STEPS_DEFAULT)
    except FanxingError as error:
        view = TraceView(language, asked, problem="refused", code=error.code)
        return html_response(trace_page.page(view), language, status_of(error))
    view = trace_page.view_of(language, asked, found, trace_answers.way_of(found), known.acts)
    return html_response(trace_page.page(view), language)


def name_asked(thing: str) -> str:
    """The one name of what is to be traced. Raises ThingInvalid."""
    if not thing.strip() or not thing.isprintable() or len(thing.encode("utf-8", "replace")) > IDENTIFIER_BYTES_MAX:
        raise ThingInvalid(
            f"a thing's name is 1 to {IDENTIFIER_BYTES_MAX} bytes of printable text",
            hint="Send an EPC URN, a Digital Link or a code text.",
        )
    return name_of(thing)


async def _traced(
    services: Services, authorization: str | None, thing: str, steps: int
) -> tuple[Trace, Known, dict[uuid.UUID, Any], datetime]:
    name, ask = name_asked(thing), services.caller.call
    asked = {**api_keys.values(authorization), **thing_acts.values(name), **traces.first_values(steps)}
    facts = await ask(thing_acts.TRACED, asked)
    key = api_keys.admitted(authorization, facts, Role.BRAND)
    key.require_all_gtins("this interface is")
    known = await thing_acts.known(ask, partial(_scheme, services), key.brand_id or 0, name, facts)
    names = known.names(name)
    found = await traces.trace(ask, key.brand_id or 0, names, steps, thing_acts.first_step(facts, names))
    contexts = repository.contexts_kept(found.events)
    if contexts is None:
        async with services.database.reading() as session:
            contexts = await repository.contexts_of(session, found.events)
    return found, known, contexts, services.clock()


async def _scheme(services: Services, issuer_id: int) -> SerialScheme:
    async with services.database.reading() as session:
        return await services.scans.scheme(session, issuer_id)
