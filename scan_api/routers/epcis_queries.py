"""EPCIS 2.0's named queries and subscriptions, and a brand's locations (EPCIS 2.0, 12.8; its REST binding)."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from kit.db import Session
from loyalty import web_targets
from scan_api import paging
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.provenance import event_query, locations, named_queries, subscriptions
from scan_api.provenance.locations import Told
from scan_api.provenance.schedules import Schedule
from scan_api.provenance.subscriptions import Asked, SubscriptionInvalid
from scan_api.routers.epcis import VERSIONS, Authorization, key_of, link, page_of
from scan_api.services import Serve

router = APIRouter(prefix="/epcis", tags=["epcis"])

_QUERIES: Final = "epcis-queries"
_LOCATIONS: Final = "epcis-locations"
_URL: Final = "https://erp.example.cn/epcis"
QueryName = Annotated[str, Path(max_length=100)]


class NewQuery(BaseModel):
    """A named query: parameters of the event query as members, lists as lists; `@context` declares prefixes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"name": "shipped", "query": {"eventType": ["ObjectEvent"], "EQ_bizStep": ["shipping"]}}
        },
    )

    name: str = Field(min_length=1, max_length=100)
    query: dict[str, Any]


class NewSubscription(BaseModel):
    """Where reports go, and when they are made: `stream`, or `schedule`."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"example": {"dest": _URL, "signatureToken": "0435ojtojt02", "stream": True}},
    )

    dest: str = Field(max_length=subscriptions.URL_CHARACTERS_MAX, description="https, reachable from the internet")
    signatureToken: str | None = Field(
        default=None,
        min_length=8,
        max_length=subscriptions.TOKEN_CHARACTERS_MAX,
        description="The key of the header GS1-Signature, made up by the subscriber",
    )
    stream: bool | None = Field(default=None, description="true: report as events are captured")
    schedule: dict[str, str] | None = Field(default=None, description="second, minute, hour, dayOfMonth, …; in UTC")
    reportIfEmpty: bool = False
    initialRecordTime: str | None = Field(default=None, max_length=64)


class NewLocation(BaseModel):
    """What is told of a location."""

    model_config = ConfigDict(extra="forbid")

    location: str = Field(max_length=2_048)
    parent: str | None = Field(default=None, max_length=2_048)
    attributes: dict[str, str] = Field(default_factory=dict)


class NewLocations(BaseModel):
    """Locations, each in place of what was told of it before."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "locations": [
                    {
                        "location": "urn:epc:id:sgln:9506000.00001.dock7",
                        "parent": "urn:epc:id:sgln:9506000.00001.0",
                        "attributes": {"urn:epcglobal:cbv:mda:countryCode": "CN"},
                    }
                ]
            }
        },
    )

    locations: list[NewLocation] = Field(max_length=locations.PUT_AT_ONCE_MAX)


async def _brand(session: Session, authorization: str | None) -> int:
    key: ApiKey = await key_of(session, authorization, Role.BRAND)
    return key.brand_id or 0


@router.get("/queries", summary="List named queries")
async def list_queries(request: Request, services: Serve, authorization: Authorization = None) -> Response:
    """The brand's queries, by name."""
    asked = event_query.page_parameters(request.query_params.multi_items())
    after = "" if asked.token is None else str(paging.decode(_QUERIES, asked.token, 1)[0])
    async with services.database.reading() as session:
        brand_id = await _brand(session, authorization)
        found = await named_queries.listed(session, brand_id, after, asked.per_page + 1)
    headers = dict(VERSIONS)
    if len(found) > asked.per_page:
        following = paging.encode(_QUERIES, [found[asked.per_page - 1].name])
        headers["Link"] = link("/epcis/queries", [("perPage", str(asked.per_page))], following)
    shown = [{"name": one.name, "query": one.parameters} for one in found[: asked.per_page]]
    return JSONResponse(shown, 200, headers)


@router.post("/queries", status_code=201, summary="Name a query")
async def add_query(body: NewQuery, services: Serve, authorization: Authorization = None) -> Response:
    """Keep a query under a name. It cannot be changed, only removed; the same again is no harm."""
    async with services.database.writing() as session:
        brand_id = await _brand(session, authorization)
        kept = await named_queries.add(session, brand_id, body.name, body.query, services.clock())
    headers = {**VERSIONS, "Location": f"/epcis/queries/{quote(kept.name)}"}
    return JSONResponse({"name": kept.name, "query": kept.parameters}, 201, headers)


@router.get("/queries/{query_name}", summary="One named query")
async def one_query(query_name: QueryName, services: Serve, authorization: Authorization = None) -> Response:
    """What a query asks for."""
    async with services.database.reading() as session:
        found = await named_queries.named(session, await _brand(session, authorization), query_name)
    return JSONResponse({"name": found.name, "query": found.parameters}, 200, VERSIONS)


@router.delete("/queries/{query_name}", status_code=204, summary="Remove a named query")
async def remove_query(query_name: QueryName, services: Serve, authorization: Authorization = None) -> Response:
    """Forget a query and end its subscriptions."""
    async with services.database.writing() as session:
        brand_id = await _brand(session, authorization)
        await named_queries.remove(session, brand_id, query_name)
        await subscriptions.remove(session, brand_id, query_name, None)
    return Response(status_code=204, headers=VERSIONS)


@router.get("/queries/{query_name}/events", summary="Events of a named query")
async def query_events(
    query_name: QueryName, request: Request, services: Serve, authorization: Authorization = None
) -> Response:
    """The events that the query finds now, in its order; `perPage` and `nextPageToken` page through them.

    With `Upgrade: websocket`, and `stream=true` or a schedule, it is a subscription: see docs/epcis.md.
    """
    given = request.query_params.multi_items()
    event_query.page_parameters(given)
    page = event_query.parse(given)
    async with services.database.reading() as session:
        brand_id = await _brand(session, authorization)
        found = await named_queries.named(session, brand_id, query_name)
        query = found.query().on_page_of(page)
        path = f"/epcis/queries/{quote(found.name)}/events"
        return await page_of(services, session, brand_id, query, path, given, found.name)


@router.get("/queries/{query_name}/subscriptions", summary="List subscriptions")
async def list_subscriptions(query_name: QueryName, services: Serve, authorization: Authorization = None) -> Response:
    """The query's subscriptions, oldest first; at most 100, so they are one page."""
    async with services.database.reading() as session:
        brand_id = await _brand(session, authorization)
        await named_queries.named(session, brand_id, query_name)
        found = await subscriptions.of_query(session, brand_id, query_name)
    return JSONResponse([subscriptions.shown(one) for one in found], 200, VERSIONS)


@router.post("/queries/{query_name}/subscriptions", status_code=201, summary="Subscribe to a named query")
async def subscribe(
    query_name: QueryName, body: NewSubscription, services: Serve, authorization: Authorization = None
) -> Response:
    """Have what the query finds posted to an address, as it comes or at times, signed, until it gets through."""
    asked = _asked(body)
    targets = services.settings.webhook_targets
    async with services.database.reading() as session:
        await named_queries.named(session, await _brand(session, authorization), query_name)
    # Before the transaction: a name server may take its time.
    web_targets.check_url(asked.dest, subscriptions.URL_CHARACTERS_MAX, targets)
    await web_targets.resolve(asked.dest, targets)
    async with services.database.writing() as session:
        brand_id = await _brand(session, authorization)
        await named_queries.named(session, brand_id, query_name)
        made = await subscriptions.add(session, services.vault, brand_id, query_name, asked, services.clock())
    location = f"/epcis/queries/{quote(query_name)}/subscriptions/{made.subscription_id}"
    return JSONResponse(subscriptions.shown(made), 201, {**VERSIONS, "Location": location})


def _asked(body: NewSubscription) -> Asked:
    if (body.stream is True) == (body.schedule is not None) or body.stream is False:
        raise SubscriptionInvalid("a subscription has either stream, true, or a schedule")
    if body.signatureToken is not None and not (body.signatureToken.isascii() and body.signatureToken.isprintable()):
        raise SubscriptionInvalid("signatureToken is printable ASCII")
    initial = None
    if body.initialRecordTime is not None:
        initial = event_query.moment("initialRecordTime", body.initialRecordTime)
    schedule = None if body.schedule is None else Schedule.of(body.schedule)
    return Asked(body.dest, body.signatureToken, schedule, body.reportIfEmpty, initial)


@router.get("/queries/{query_name}/subscriptions/{subscription_id}", summary="One subscription")
async def one_subscription(
    query_name: QueryName, subscription_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> Response:
    """How a subscription stands; never its token."""
    async with services.database.reading() as session:
        brand_id = await _brand(session, authorization)
        found = await subscriptions.find(session, brand_id, query_name, subscription_id)
    return JSONResponse(subscriptions.shown(found), 200, VERSIONS)


@router.delete("/queries/{query_name}/subscriptions/{subscription_id}", status_code=204, summary="Unsubscribe")
async def unsubscribe(
    query_name: QueryName, subscription_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> Response:
    """End a subscription; reports that wait are dropped."""
    async with services.database.writing() as session:
        brand_id = await _brand(session, authorization)
        await subscriptions.find(session, brand_id, query_name, subscription_id)
        await subscriptions.remove(session, brand_id, query_name, subscription_id)
    return Response(status_code=204, headers=VERSIONS)


@router.get("/locations", summary="List locations")
async def list_locations(request: Request, services: Serve, authorization: Authorization = None) -> Response:
    """The brand's locations by name, with what each lies in and what is known of it."""
    asked = event_query.page_parameters(request.query_params.multi_items())
    after = None if asked.token is None else str(paging.decode(_LOCATIONS, asked.token, 1)[0])
    async with services.database.reading() as session:
        brand_id = await _brand(session, authorization)
        found = await locations.listed(session, brand_id, after, asked.per_page + 1)
    headers = dict(VERSIONS)
    if len(found) > asked.per_page:
        following = paging.encode(_LOCATIONS, [found[asked.per_page - 1].location])
        headers["Link"] = link("/epcis/locations", [("perPage", str(asked.per_page))], following)
    return JSONResponse({"locations": [_shown(one) for one in found[: asked.per_page]]}, 200, headers)


def _shown(told: Told) -> Mapping[str, Any]:
    return {"location": told.location, "parent": told.parent, "attributes": dict(told.attributes)}


@router.put("/locations", status_code=204, summary="Tell of locations")
async def put_locations(body: NewLocations, services: Serve, authorization: Authorization = None) -> Response:
    """Say which location lies in which, and what is known of it: for WD_, HASATTR_ and EQATTR_ parameters."""
    told = [Told(one.location, one.parent, one.attributes) for one in body.locations]
    async with services.database.writing() as session:
        await locations.put(session, await _brand(session, authorization), told)
    return Response(status_code=204, headers=VERSIONS)


@router.delete("/locations/{location:path}", status_code=204, summary="Forget a location")
async def forget_location(
    location: Annotated[str, Path(max_length=2_048)], services: Serve, authorization: Authorization = None
) -> Response:
    """Forget a location; percent-encoded. One that is not there is forgotten already."""
    async with services.database.writing() as session:
        await locations.forget(session, await _brand(session, authorization), location)
    return Response(status_code=204, headers=VERSIONS)
