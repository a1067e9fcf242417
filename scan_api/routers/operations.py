"""For whoever runs the server: is it alive, is it ready, what does it count."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from kit.errors import FanxingError, Forbidden
from offline_sdk.verifier import BundleState
from scan_api.services import Serve
from scan_api.transparency.standing import standing

router = APIRouter(tags=["operations"])


# A proxy on this machine makes every caller look local; most say in one of these headers whom they speak for.
_PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class MetricsLocalOnly(Forbidden):
    code = "MetricsLocalOnly"


@router.get("/healthz")
@router.head("/healthz", include_in_schema=False)
async def alive() -> dict[str, str]:
    """The process answers. It says nothing of the database: a restart would not mend that."""
    return {"status": "ok"}


@router.get("/readyz")
@router.head("/readyz", include_in_schema=False)
async def ready(services: Serve) -> JSONResponse:
    """Whether this server can judge and record scans: database, trust bundle. 503 when it can't."""
    checks: dict[str, Any] = {}
    try:
        async with services.database.reading() as session:
            log = await standing(session, services.clock())
        checks["database"] = "ok"
        # A log that is behind is nothing that fewer servers would mend: it is told, and does not make this one unready.
        checks["transparency_log"] = f"{log.behind_s:.0f} s behind" if log.is_behind else "ok"
    except (SQLAlchemyError, OSError):
        checks["database"] = "not reachable"
    try:
        state = services.trust.verifier.bundle_state()
        checks["trust_bundle"] = "expired" if state is BundleState.EXPIRED else "ok"
        checks["trust_bundle_seq"] = services.trust.verifier.bundle.seq
    except FanxingError as error:
        checks["trust_bundle"] = error.message
    good = checks["database"] == "ok" and checks["trust_bundle"] == "ok"
    return JSONResponse({"status": "ok" if good else "not ready", "checks": checks}, 200 if good else 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, services: Serve) -> Response:
    """Prometheus metrics, for callers on this machine. Scan volumes are a brand's business, not the public's."""
    local = request.client is not None and request.client.host in {"127.0.0.1", "::1"}
    if not local or any(name in request.headers for name in _PROXY_HEADERS):
        raise MetricsLocalOnly("metrics are for callers on this machine", hint="Scrape 127.0.0.1, past any proxy.")
    return Response(services.metrics.text(), media_type="text/plain; version=0.0.4")
