"""For print houses: fetch a sealed code package, report what was printed of it; as a page, or with curl.

Secrets never stand in addresses: the fetch code is typed into a form, or sent as `Authorization: Bearer fxp_…`.
"""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Header, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from codes.orders import CodeOrder
from codes.packages import CodePackage, PackageUnknown, links, reports
from codes.packages.reports import TEXT_CHARACTERS_MAX, PackageReport, Told
from kit.errors import FanxingError, Unavailable
from scan_api import page_answers, scans
from scan_api.errors import status_of
from scan_api.services import Serve, Services
from scan_api.web import pages, views

router = APIRouter(tags=["packages"])

PackageId = Annotated[uuid.UUID, Field(description="The package, as in the link")]
Authorization = Annotated[str | None, Header(description="Bearer fxp_…")]
FetchCode = Annotated[str, Form(max_length=100)]
Ranges = Annotated[str, Form(max_length=TEXT_CHARACTERS_MAX)]

_PROBLEMS: dict[str, views.PackageProblem] = {
    "PackageUnknown": "unknown",
    "PackageLinkSpent": "spent",
    "PackageLinkExpired": "expired",
    "PackageLinkRevoked": "revoked",
    "PackageFileMissing": "unavailable",
}


class PackageFileMissing(Unavailable):
    code = "PackageFileMissing"


class ReportBody(BaseModel):
    """What was made of a package: ranges such as 0-4999,7000 of issue indexes, or of serials; absent: none."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    report_id: uuid.UUID = Field(description="Chosen by the print house, new for each new report")
    printed: str = Field(default="", max_length=TEXT_CHARACTERS_MAX)
    spoiled: str = Field(default="", max_length=TEXT_CHARACTERS_MAX)
    overprinted: str = Field(default="", max_length=TEXT_CHARACTERS_MAX, description="on more than one label")


@router.get("/packages/{package_id}", include_in_schema=False)
async def page(request: Request, package_id: PackageId) -> Response:
    """The forms. The page is the same whether or not there is such a package."""
    return _page(_view(request, package_id))


@router.post("/packages/{package_id}", response_class=FileResponse)
async def fetch(
    request: Request,
    package_id: PackageId,
    services: Serve,
    fetch_code: FetchCode = "",
    authorization: Authorization = None,
) -> Response:
    """The package's file. The fetch is counted before the first byte, whether or not the last one arrives."""
    page_answers.require_own_form(request)
    try:
        package = await _count(request, package_id, services, _bearer(authorization) or fetch_code.strip())
    except FanxingError as error:
        if not page_answers.wants_page(request):
            raise
        view = replace(_view(request, package_id), problem=_PROBLEMS.get(error.code, "unavailable"), code=error.code)
        return _page(view, status_of(error))
    return FileResponse(_file(services, package), media_type="application/octet-stream", filename=package.file_name)


async def _count(request: Request, package_id: uuid.UUID, services: Services, code: str) -> CodePackage:
    remote = request.client.host if request.client else None
    async with services.database.writing() as session:
        tried = await links.fetch(session, package_id, code, remote, services.clock())
        if tried.package is not None and not _file(services, tried.package).is_file():
            # Raised in the transaction: what cannot be sent is not counted.
            raise PackageFileMissing("the package's file is not on this server", hint="Tell the brand.")
    if tried.package is None:  # after the transaction, which keeps the record of the refusal
        raise tried.refusal or PackageUnknown("there is no such package")
    return tried.package


def _file(services: Services, package: CodePackage) -> Path:
    return package.path(services.settings.home)


@router.post("/packages/{package_id}/report", status_code=202)
async def report(
    package_id: PackageId, body: ReportBody, services: Serve, authorization: Authorization = None
) -> dict[str, Any]:
    """Report what was printed, spoiled and overprinted. It takes effect when the brand accepts it.

    The same report may be sent again, and is taken down once. A spent or expired link still reports, a revoked one
    does not.
    """
    told = Told(**body.model_dump())
    return (await _receive(services, package_id, _bearer(authorization), told)).as_json()


@router.post(pages.REPORT_ACTION, include_in_schema=False)
async def report_by_form(
    request: Request,
    services: Serve,
    package_id: Annotated[uuid.UUID, Form()],
    report_id: Annotated[uuid.UUID, Form()],
    fetch_code: FetchCode,
    printed: Ranges = "",
    spoiled: Ranges = "",
    overprinted: Ranges = "",
) -> Response:
    """The same from the page's form."""
    page_answers.require_own_form(request)
    view = _view(request, package_id)
    typed = views.ReportView(printed, spoiled, overprinted)
    try:
        told = Told(report_id, printed, spoiled, overprinted)
        counted = (await _receive(services, package_id, fetch_code.strip(), told)).as_json()
    except FanxingError as error:
        # A correction keeps the id: the refused report was not taken down under it.
        view = replace(
            view,
            report_id=str(report_id),
            problem="report_refused",
            code=error.code,
            detail=error.message,
            report=typed,
        )
        return _page(view, status_of(error))
    received = (counted["on_sale"], counted["spoiled"], counted["overprinted"])
    return _page(replace(view, report=views.ReportView(received=received)), 202)


async def _receive(services: Services, package_id: uuid.UUID, code: str, told: Told) -> PackageReport:
    async with services.database.writing() as session:
        package, link = await links.authenticate(session, package_id, code)
        order = await session.get_one(CodeOrder, package.order_id)
        found = await scans.find_order(session, order.gtin, order.order_number)
        assert found is not None  # an order has its product and brand
        scheme = await services.scans.scheme(session, found[2].issuer_id)
        return await reports.receive(session, package, scheme, told, link.link_id, services.clock())


def _bearer(authorization: str | None) -> str:
    scheme, _, code = (authorization or "").partition(" ")
    return code.strip() if scheme.lower() == "bearer" else ""


def _view(request: Request, package_id: uuid.UUID) -> views.PackageView:
    return views.PackageView(page_answers.language_of(request), str(package_id), str(uuid.uuid4()))


def _page(view: views.PackageView, status: int = 200) -> Response:
    return page_answers.html_response(pages.package(view), view.language, status)
