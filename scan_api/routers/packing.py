"""For packing lines and warehouses: what goes into which container, and what was where at any moment."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field

from kit.clock import When
from scan_api.auth.api_keys import Role
from scan_api.provenance import line, packed
from scan_api.provenance.line import CHILDREN_PER_SCAN_MAX, THING_CHARACTERS_MAX, LineAction, LineScan
from scan_api.provenance.packed import CONTENTS_SHOWN_MAX, Packed
from scan_api.routers import At
from scan_api.routers.epcis import key_of
from scan_api.services import Serve

router = APIRouter(prefix="/v1/packing", tags=["packing"])

CONTENTS_SHOWN = 1_000

Authorization = Annotated[str | None, Header(description="Bearer fx_…")]
Thing = Annotated[str, Field(min_length=1, max_length=THING_CHARACTERS_MAX)]
_CONTAINER = "https://id.gs1.org/00/095060000000000077"
_ITEM = "https://id.gs1.org/01/09506000134352/21/00014000000007"


class Scan(BaseModel):
    """What a line scanner saw at one container. Things are code texts, EPC URNs or Digital Links."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "example": {"action": "add", "parent": _CONTAINER, "children": [_ITEM], "at": "2026-05-01T08:00:00Z"}
        },
    )

    action: LineAction = Field(description="replace: `removed` came out and `children` went in; empty: all came out")
    parent: Thing
    children: list[Thing] = Field(default=[], max_length=CHILDREN_PER_SCAN_MAX)
    removed: list[Thing] = Field(default=[], max_length=CHILDREN_PER_SCAN_MAX)
    at: When | None = Field(default=None, description="absent: now. The same again with its time changes nothing")
    read_point: Thing | None = Field(default=None, description="A URI of the place")


class Told(BaseModel):
    """The aggregation events that tell of a scan."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"event_ids": ["ni:///sha-256;…?ver=CBV2.0"], "accepted": 1, "duplicates": 0}}
    )

    event_ids: list[str]
    accepted: int = Field(ge=0)
    duplicates: int = Field(ge=0, description="Events that were there already")


class PackedThing(BaseModel):
    """A thing in a container."""

    thing: str
    parent: str
    since: At
    level: int = Field(ge=1, description="1: next to what was asked for")


class Contents(BaseModel):
    """What was in a container on all levels."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "thing": _CONTAINER,
                "at": "2026-05-01T08:00:00.000Z",
                "things": [
                    {"thing": _ITEM, "parent": _CONTAINER, "since": "2026-05-01T07:00:00.000Z", "level": 1},
                ],
                "is_cut": False,
            }
        }
    )

    thing: str
    at: At
    things: list[PackedThing]
    is_cut: bool = Field(description="Whether there was more than `limit`")


class Containers(BaseModel):
    """In what a thing was, from the innermost container outwards."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "thing": _ITEM,
                "at": "2026-05-01T08:00:00.000Z",
                "containers": [
                    {"thing": _ITEM, "parent": _CONTAINER, "since": "2026-05-01T07:00:00.000Z", "level": 1},
                ],
            }
        }
    )

    thing: str
    at: At
    containers: list[PackedThing]


AskedThing = Annotated[str, Query(max_length=THING_CHARACTERS_MAX, description="A code text, EPC URN or Digital Link")]
AskedAt = Annotated[When | None, Query(description="absent: now")]


@router.post("", status_code=201, summary="Pack, unpack or rework")
async def record(body: Scan, services: Serve, authorization: Authorization = None) -> Told:
    """Tell what a line scanner saw go into a container or come out. It is kept as EPCIS aggregation events."""
    now = services.clock()
    scan = LineScan(body.action, body.parent, body.children, body.at or now, body.removed, body.read_point)
    async with services.database.writing() as session:
        key = await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
        done = await line.record(session, key.brand_id or 0, key.caller_id, [scan], now)
    return Told(event_ids=list(done.event_ids), accepted=done.accepted, duplicates=done.duplicates)


@router.get("/contents", summary="What was in a container")
async def contents(
    thing: AskedThing,
    services: Serve,
    at: AskedAt = None,
    limit: Annotated[int, Query(ge=1, le=CONTENTS_SHOWN_MAX)] = CONTENTS_SHOWN,
    authorization: Authorization = None,
) -> Contents:
    """All that was in the container at a moment, on all levels, the outer ones first."""
    moment, name = at or services.clock(), line.name(thing, "the thing")
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
        found = await packed.contents_of(session, key.brand_id or 0, name, moment, limit)
    return Contents(thing=name, at=moment, things=[_shown(one) for one in found.things], is_cut=found.is_cut)


@router.get("/containers", summary="In what a thing was")
async def containers(
    thing: AskedThing, services: Serve, at: AskedAt = None, authorization: Authorization = None
) -> Containers:
    """The containers of a thing at a moment, from the innermost outwards."""
    moment, name = at or services.clock(), line.name(thing, "the thing")
    async with services.database.reading() as session:
        key = await key_of(session, authorization, Role.BRAND, Role.LOGISTICS)
        found = await packed.containers_of(session, key.brand_id or 0, name, moment)
    return Containers(thing=name, at=moment, containers=[_shown(one) for one in found])


def _shown(one: Packed) -> PackedThing:
    return PackedThing(thing=one.child, parent=one.parent, since=one.since, level=one.level)
