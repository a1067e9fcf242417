"""The transparency log for everybody: checkpoint, tiles and key, proofs, and how far it is behind (C2SP tlog-tiles)."""

import hashlib
import uuid
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import Response

from codes.catalogue import Brand
from codes.log_queue import LogEntry
from kit.db import Session
from offline_sdk.transparency.note import encode_base64
from offline_sdk.transparency.tiles import PATH_CHARS_MAX
from offline_sdk.transparency.tree import TREE_SIZE_MAX
from scan_api import sandbox
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.regulators import accesses, logged
from scan_api.regulators.accesses import Asked
from scan_api.routers.regulator import Authorization, Purpose, regulator_of
from scan_api.services import Serve
from scan_api.transparency import proofs, store
from scan_api.transparency.proofs import LogEntryUnknown
from scan_api.transparency.standing import standing
from scan_api.transparency.tile_files import tile_file

router = APIRouter(prefix="/log", tags=["log"])

TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
FOR_EVER: Final = "public, max-age=31536000, immutable"
"""A tile never changes, a partial one neither: a wider one has another address."""
FOR_A_SECOND: Final = "public, max-age=1"
FOR_AN_HOUR: Final = "public, max-age=3600"
_UNKNOWN: Final = "there is no such entry"

IfNoneMatch = Annotated[str | None, Header()]
Size = Annotated[int, Query(ge=0, le=TREE_SIZE_MAX)]


@router.get("/checkpoint", response_class=Response, summary="Signed checkpoint")
@router.head("/checkpoint", include_in_schema=False)
async def checkpoint(services: Serve, if_none_match: IfNoneMatch = None) -> Response:
    """The newest checkpoint, with the cosignatures of witnesses (C2SP tlog-checkpoint)."""
    async with services.database.reading() as session:
        signed = await proofs.published(session)
    return _file(bytes(signed), TEXT, FOR_A_SECOND, if_none_match)


@router.get("/key", response_class=Response, summary="Verifier key")
@router.head("/key", include_in_schema=False)
async def key(services: Serve, if_none_match: IfNoneMatch = None) -> Response:
    """The log's verifier key (C2SP signed-note). Get it once, over a way that you trust, and keep it."""
    async with services.database.reading() as session:
        head = await store.head_of(session)
    return _file(f"{head.key}\n".encode(), TEXT, FOR_AN_HOUR, if_none_match)


@router.get("/tile/{path:path}", response_class=Response, summary="Tile")
@router.head("/tile/{path:path}", include_in_schema=False)
async def tile(
    path: Annotated[str, Path(max_length=PATH_CHARS_MAX)], services: Serve, if_none_match: IfNoneMatch = None
) -> Response:
    """A tile of hashes, or of entries (`entries/…`), by its path, such as 0/x001/234 or 0/x001/234.p/8."""
    async with services.database.reading() as session:
        content = await tile_file(session, f"tile/{path}")
    return _file(content, BYTES, FOR_EVER, if_none_match)


@router.get("/consistency", summary="Consistency of two sizes")
async def consistency(services: Serve, old: Size, new: Size) -> dict[str, Any]:
    """The proof that the tree of `new` leaves continues that of `old` (RFC 9162, 2.1.4), each hash in base64."""
    async with services.database.reading() as session:
        proof = await proofs.consistency(session, old, new)
    return {"old": old, "new": new, "proof": [encode_base64(one) for one in proof]}


@router.get("/status", summary="How the log stands")
async def status(services: Serve) -> dict[str, Any]:
    """How far the log goes, and how far it is behind what was committed; healthy up to ten seconds."""
    async with services.database.reading() as session:
        return (await standing(session, services.clock())).as_json()


@router.get("/entries/{entry_id}/proof", summary="Evidence of an entry")
async def proof(
    entry_id: uuid.UUID, services: Serve, authorization: Authorization = None, purpose: Purpose = None
) -> dict[str, Any]:
    """What proves an entry (C2SP tlog-proof), and what it commits to, for its brand and for regulators."""
    async with services.database.reading() as session:
        key = await api_keys.authenticate(session, authorization, Role.BRAND, Role.REGULATOR)
        if key.role == Role.BRAND:
            key.require_all_gtins("entries of the log are")
            entry = await session.get(LogEntry, entry_id)
            if entry is None or not await _covers(session, key, entry):
                raise LogEntryUnknown(_UNKNOWN)
            return (await proofs.prove_entry(session, entry)).as_json()
    regulator = await regulator_of(services, authorization)
    asked = Asked("log_proof", str(entry_id), {}, accesses.purpose_of(purpose))
    async with accesses.recorded(services.database, services.clock, regulator, asked) as told:
        async with services.database.reading() as session:
            entry = await session.get(LogEntry, entry_id)
            if entry is None or not await logged.sees(session, regulator.scope, entry):
                raise LogEntryUnknown(_UNKNOWN)
            proved = await proofs.prove_entry(session, entry)
        if entry.brand_id is not None:
            told.of(entry.brand_id)
    return proved.as_json()


async def _covers(session: Session, key: ApiKey, entry: LogEntry) -> bool:
    """Whether the entry is of the key's brand, and of its side of the sandbox's wall."""
    if entry.brand_id is None or entry.brand_id != key.brand_id:
        return False
    brand = await session.get_one(Brand, entry.brand_id)
    await sandbox.require_side(session, key.sandbox, brand.group_id)
    return True


def _file(content: bytes, media_type: str, caching: str, if_none_match: str | None) -> Response:
    headers = {"etag": f'"{hashlib.sha256(content).hexdigest()}"', "cache-control": caching}
    # Proxies that compress make a validator weak, which is good enough here (RFC 9110, 13.1.2).
    held = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    if headers["etag"] in held:
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "content-type": media_type})
