"""EPCIS 2.0's subscriptions by websocket: GET /epcis/queries/{name}/events with `Upgrade: websocket`.

What is refused before the opening is a problem with a status, as everywhere; afterwards it is a close with a code.
"""

import asyncio
import contextlib
from typing import Final

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from kit.clock import iso
from kit.errors import FanxingError
from scan_api.auth.api_keys import Role
from scan_api.provenance import named_queries, sockets
from scan_api.provenance.named_queries import NamedQueryUnknown
from scan_api.provenance.sockets import QUERY_REMOVED, Ending, SocketSubscription
from scan_api.routers.epcis import VERSIONS, key_of
from scan_api.services import Services

router = APIRouter(prefix="/epcis", tags=["epcis"])

NOTHING_TO_SAY: Final = Ending(1003, "a subscriber has nothing to say here")
OVER: Final = Ending(1000, "this schedule never comes round again")
FAILED: Final = Ending(1011, "something went wrong here: come again from ten minutes before the last record time")
_log = structlog.get_logger()


@router.websocket("/queries/{query_name}/events")
async def subscribe(websocket: WebSocket, query_name: str) -> None:
    """Have what the query finds sent as it comes (`stream=true`), or at times (`hour=1&minute=5`)."""
    services: Services = websocket.app.state.services
    async with services.database.reading() as session:
        # By the header alone: an address is written down in too many places to hold a key.
        key = await key_of(session, websocket.headers.get("authorization"), Role.BRAND)
        query = await named_queries.named(session, key.brand_id or 0, query_name)
        asked = sockets.asked_of(websocket.query_params.multi_items())
        subscription = await sockets.begin(session, key, query, asked, services.clock)
    with services.sockets.held(subscription):
        told = {**VERSIONS, "GS1-Query-Min-Record-Time": iso(subscription.since)}
        await websocket.accept(headers=[(name.lower().encode(), value.encode()) for name, value in told.items()])
        ending = await _served(websocket, services, subscription)
        if ending is not None:
            await _close(websocket, ending)


async def _served(websocket: WebSocket, services: Services, subscription: SocketSubscription) -> Ending | None:
    """Tell, until there is an end of it; None: the client went."""
    tasks: list[asyncio.Future[Ending | None]] = [
        asyncio.ensure_future(_tell(websocket, services, subscription)),
        asyncio.ensure_future(_hear(websocket)),
        subscription.ended,
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell(websocket: WebSocket, services: Services, subscription: SocketSubscription) -> Ending | None:
    try:
        async with contextlib.aclosing(subscription.reports(services.database, services.clock)) as reports:
            async for report in reports:
                await websocket.send_text(report)
    except WebSocketDisconnect:
        return None
    except NamedQueryUnknown:
        return QUERY_REMOVED
    except FanxingError as error:
        _log.error("socket closed", code=error.code, subscription_id=str(subscription.subscription_id))
        return FAILED
    except Exception:
        _log.exception("socket closed", subscription_id=str(subscription.subscription_id))
        return FAILED
    return OVER


async def _hear(websocket: WebSocket) -> Ending | None:
    message = await websocket.receive()
    return None if message["type"] == "websocket.disconnect" else NOTHING_TO_SAY


async def _close(websocket: WebSocket, ending: Ending) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the client went at the same time
        await websocket.close(ending.code, ending.reason)
