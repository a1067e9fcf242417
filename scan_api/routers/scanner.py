"""For shops' scanners: root documents and trust bundles, with which they judge codes on their own."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response

from offline_sdk.bundle import SEQ_MAX
from scan_api.services import Serve
from scan_api.trust import etag_of

router = APIRouter(prefix="/v1", tags=["scanner"])

MEDIA_TYPE = "application/cbor-seq"  # RFC 8742, 6.2

Held = Annotated[int, Query(ge=0, le=SEQ_MAX)]


@router.get("/trust", response_class=Response)
@router.head("/trust", include_in_schema=False)
async def trust(
    services: Serve,
    root: Held = 0,
    seq: Held = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The trust file (docs/trust-bundle.md) for who holds this root version and this bundle; 204 when both are newest.

    Public: signatures, not secrecy, make it good.
    """
    documents = services.trust.documents_since(root, seq)
    if not documents:
        return Response(status_code=204, headers={"cache-control": "public, max-age=60"})
    headers = {"etag": etag_of(documents), "cache-control": "public, max-age=60"}
    # Proxies that compress make a validator weak, which is good enough here (RFC 9110, 13.1.2).
    held = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    if headers["etag"] in held:
        return Response(status_code=304, headers=headers)
    content = b"".join(document.content for document in documents)
    return Response(content, media_type=MEDIA_TYPE, headers=headers)
