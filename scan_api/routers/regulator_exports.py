"""For regulators: exports that are made in the background, followed, fetched in parts, and deleted."""

import asyncio
import shutil
import uuid
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from kit.clock import When
from kit.errors import Conflict
from kit.paging import Position
from scan_api.idempotency import OnlyOnce
from scan_api.paging import Page, Paged
from scan_api.regulators import accesses, accounts, exports
from scan_api.regulators.accesses import ANSWERED, Asked, Told
from scan_api.regulators.accounts import Regulator
from scan_api.regulators.exports import (
    FILTER_VALUES_MAX,
    ExportFormat,
    ExportKind,
    ExportSpec,
    ExportState,
    ExportUnknown,
    RegulatorExport,
    RegulatorExportPart,
)
from scan_api.routers import At, BrandSlug
from scan_api.routers.regulator import Authorization, Purpose, regulator_of
from scan_api.services import Serve

router = APIRouter(prefix="/v1/regulator/exports", tags=["regulator"])

_LIST = "regulator-exports"
_MEDIA_TYPES = {ExportFormat.NDJSON: "application/x-ndjson", ExportFormat.PARQUET: "application/vnd.apache.parquet"}
_SINCE, _UNTIL = "2026-05-01T00:00:00.000Z", "2026-06-01T00:00:00.000Z"
Region = Annotated[str, Field(min_length=2, max_length=12)]
Gtin = Annotated[str, Field(pattern=r"^[0-9]{14}$")]


class ExportGone(Conflict):
    """The export's files were deleted."""

    code = "ExportGone"


class NewExport(BaseModel):
    """What is to be exported. An empty list bounds nothing."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "example": {"kind": "events", "format": "parquet", "since": _SINCE, "until": _UNTIL, "regions": ["6101"]}
        },
    )

    kind: ExportKind
    format: ExportFormat
    since: When = Field(description="Of the events, counts or acts")
    until: When = Field(description="Not included")
    brands: list[BrandSlug] = Field(default=[], max_length=FILTER_VALUES_MAX)
    gtins: list[Gtin] = Field(default=[], max_length=FILTER_VALUES_MAX)
    regions: list[Region] = Field(default=[], max_length=FILTER_VALUES_MAX)


class PartAnswer(BaseModel):
    """A file that is whole."""

    number: int
    rows: int
    bytes: int
    sha256: str = Field(description="Of the file, in hex")
    path: str


class ExportAnswer(BaseModel):
    """An export, and how far it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "export_id": "0197f0f0-5c00-7000-8000-0000000000e1",
                "kind": "events",
                "format": "parquet",
                "state": "running",
                "rows": 5_000,
                "bytes": 911_204,
                "in_scope": True,
                "created_at": _UNTIL,
                "ended_at": None,
                "kept_until": None,
                "failure": None,
                "parts": [
                    {
                        "number": 0,
                        "rows": 5_000,
                        "bytes": 911_204,
                        "sha256": "00" * 32,
                        "path": "/v1/regulator/exports/0197f0f0-5c00-7000-8000-0000000000e1/parts/0",
                    }
                ],
            }
        }
    )

    export_id: uuid.UUID
    kind: ExportKind
    format: ExportFormat
    state: ExportState
    rows: int
    bytes: int
    in_scope: bool = Field(
        default=True,
        description="false: the account reaches less than when it asked; the export can be deleted, and no more",
    )
    created_at: At
    ended_at: At | None
    kept_until: At | None
    failure: str | None
    parts: list[PartAnswer]


@router.post("", status_code=202, summary="Ask for an export")
async def ask(
    body: NewExport, services: Serve, once: OnlyOnce, authorization: Authorization = None, purpose: Purpose = None
) -> ExportAnswer:
    """Have an export made in the background: at most 5,000,000 rows, 2 GB, and three unfinished ones an account."""
    regulator, now = await regulator_of(services, authorization), services.clock()
    filters = body.model_dump(mode="json", exclude_defaults=True)
    asked = Asked("export", body.kind, filters, accesses.purpose_of(purpose))
    spec = ExportSpec(
        body.kind, body.format, body.since, body.until, tuple(body.brands), tuple(body.gtins), tuple(body.regions)
    )
    async with services.database.writing() as session:

        async def work() -> ExportAnswer:
            made = await exports.request(session, regulator, spec, now)
            await accesses.record(session, regulator, asked, Told(), ANSWERED, now)
            return _shown(made, regulator, [])

        return ExportAnswer(**await once.run(session, regulator.key.caller_id, "export", body, now, work))


@router.get("", summary="My exports")
async def mine(services: Serve, paging: Paged, authorization: Authorization = None) -> Page[ExportAnswer]:
    """The account's exports, newest first, without their parts; of those out of its scope by now, without sizes."""
    async with services.database.reading() as session:
        regulator = await accounts.authenticate(session, authorization, services.clock())
        rows = await exports.page(session, regulator, paging.after(_LIST), paging.count)

    def shown(row: RegulatorExport) -> ExportAnswer:
        return _shown(row, regulator, [])

    return Page[ExportAnswer](**paging.page(_LIST, rows, lambda row: Position(row.created_at, row.export_id), shown))


@router.get("/{export_id}", summary="One export")
async def one(export_id: uuid.UUID, services: Serve, authorization: Authorization = None) -> ExportAnswer:
    """How far it is, and the parts that can be fetched. Refused once the account reaches less than when it asked."""
    async with services.database.reading() as session:
        regulator = await accounts.authenticate(session, authorization, services.clock())
        found = await exports.of_holder(session, regulator, export_id)
        exports.require_within(found, regulator.scope)
        return _shown(found, regulator, await exports.parts_of(session, export_id))


@router.get(
    "/{export_id}/parts/{number}",
    summary="Fetch a part of an export",
    response_class=FileResponse,
    responses={200: {"content": {kind: {} for kind in _MEDIA_TYPES.values()}}, 206: {"description": "A range of it"}},
)
async def part(
    export_id: uuid.UUID,
    number: Annotated[int, Path(ge=0, le=2**31 - 1)],
    services: Serve,
    authorization: Authorization = None,
    purpose: Purpose = None,
) -> Response:
    """A part's file, or a range of it (RFC 9110, 14). Each fetch is recorded, also one of a range.

    Refused once the account reaches less than when it asked for the export.
    """
    regulator = await regulator_of(services, authorization)
    asked = Asked("export part", f"{export_id}/{number}", {}, accesses.purpose_of(purpose))
    async with accesses.recorded(services.database, services.clock, regulator, asked) as told:
        async with services.database.reading() as session:
            found = await exports.of_holder(session, regulator, export_id)
            exports.require_within(found, regulator.scope)
            parts = {one.number: one for one in await exports.parts_of(session, export_id)}
        path = exports.path_of(services.settings.home, found, number)
        if found.state in (ExportState.GONE, ExportState.FAILED):
            raise ExportGone("the files of this export were deleted", hint="Ask for another export.")
        if number not in parts or not path.is_file():
            raise ExportUnknown("this export has no such part yet")
        for brand_id, rows in found.brands[str(number)].items():
            told.of(int(brand_id), rows)
    return FileResponse(path, media_type=_MEDIA_TYPES[found.asked.format], filename=path.name)


@router.delete("/{export_id}", status_code=204, summary="Delete an export")
async def delete(export_id: uuid.UUID, services: Serve, authorization: Authorization = None) -> Response:
    """Stop it if it is being made, and delete its files. That it was asked for stays recorded."""
    now = services.clock()
    async with services.database.writing() as session:
        regulator = await accounts.authenticate(session, authorization, now)
        found = await exports.of_holder(session, regulator, export_id)
        await exports.drop(session, found, now)
    folder = exports.folder_of(services.settings.home, export_id)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return Response(status_code=204)


def _shown(export: RegulatorExport, regulator: Regulator, parts: list[RegulatorExportPart]) -> ExportAnswer:
    spec, in_scope = export.asked, exports.is_within(export, regulator.scope)
    is_there = export.state not in (ExportState.GONE, ExportState.FAILED)
    return ExportAnswer(
        export_id=export.export_id,
        kind=spec.kind,
        format=spec.format,
        state=ExportState(export.state),
        rows=export.rows if in_scope else 0,
        bytes=export.size_bytes if in_scope else 0,
        in_scope=in_scope,
        created_at=export.created_at,
        ended_at=export.ended_at,
        kept_until=export.kept_until,
        failure=export.failure,
        parts=[
            PartAnswer(
                number=one.number,
                rows=one.rows,
                bytes=one.size_bytes,
                sha256=one.sha256.hex(),
                path=f"/v1/regulator/exports/{export.export_id}/parts/{one.number}",
            )
            for one in parts
            if is_there
        ],
    )
