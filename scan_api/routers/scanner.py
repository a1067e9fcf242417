"""For shops' scanners: the trust bundle with which they judge codes on their own."""

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response

from scan_api.services import Serve

router = APIRouter(prefix="/v1", tags=["scanner"])

MEDIA_TYPE = "application/vnd.fanxing.trust-bundle+cbor"


@router.get("/trust-bundle", response_class=Response)
@router.head("/trust-bundle", include_in_schema=False)
async def trust_bundle(services: Serve, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The newest trust bundle (docs/trust-bundle.md). Public: its signature, not its secrecy, makes it good."""
    services.trust.verifier  # noqa: B018 - raises TrustBundleMissing
    headers = {"etag": services.trust.etag, "cache-control": "public, max-age=60"}
    if if_none_match == services.trust.etag:
        return Response(status_code=304, headers=headers)
    return Response(services.trust.document, media_type=MEDIA_TYPE, headers=headers)
