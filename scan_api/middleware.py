"""What happens to every request: a limit on its body, headers that keep secrets at home, a count and a log line.

Plain ASGI: the framework's own middleware class costs a tenth of a millisecond a request.
"""

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scan_api import sandbox
from scan_api.errors import BodyTooLarge
from scan_api.metrics import Metrics
from scan_api.web import paths

BODY_BYTES_MAX = 256 * 1024
SIGN_IN_BODY_BYTES_MAX = 8 * 1024
"""Of what strangers send to sign in, or to ask for a one-time code: more than any such form holds."""
CAPTURE_BODY_BYTES_MAX = 256 * 1024 * 1024
"""Of a document of events."""
_CAPTURE_PATH = "/epcis/capture"
_SIGN_IN_PATHS = frozenset(
    {
        "/v1/sign-in",
        "/v1/sign-in/codes",
        paths.SIGN_IN_ACTION,
        paths.CONFIRM_ACTION,
        paths.CLAIM_ACTION,
        paths.PROVE_ACTION,
        paths.ERASE_ACTION,
        paths.MERGE_ACTION,
    }
)

_log = structlog.get_logger()

# A code's URL may hold a secret, and every other page is somebody's own: nothing is cached, passed on as a referrer,
# framed or indexed. Routes that are public say so themselves.
_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_HSTS = "max-age=31536000"
_STATUS_OF_OPENING = {"websocket.accept": 101, "websocket.close": 403}
"""Of a websocket; a server makes 403 of a close that comes before the opening (ASGI, websocket.close)."""


class Middleware:
    """The one wrapper around the application."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        https: bool,
        fail: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._fail = fail
        self._headers = {**_HEADERS, "strict-transport-security": _HSTS} if https else _HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._open(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0  # till the answer starts
        request_id = uuid.uuid4().hex
        watched = sandbox.watch()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(message, request_id, watched)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, _limited(scope, receive), send_with_headers)
            except Exception as error:
                # Here rather than in the framework, whose own answer would lack these headers and the request's id.
                if status:
                    raise
                response = await self._fail(Request(scope), error)
                await response(scope, receive, send_with_headers)
            finally:
                self._account(scope, status, time.perf_counter() - started)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The opening of a websocket is a request, answered when it is accepted or refused; the rest is its own."""
        started = time.perf_counter()
        request_id = uuid.uuid4().hex
        watched = sandbox.watch()
        is_answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                status = message.get("status", _STATUS_OF_OPENING.get(message["type"], 500))
                if message["type"] != "websocket.close":
                    self._complete(message, request_id, watched)
                self._account(scope, status, time.perf_counter() - started)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_with_headers)

    def _complete(self, message: Message, request_id: str, watched: sandbox.Watch) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in self._headers.items():
            headers.setdefault(name, value)
        headers["x-request-id"] = request_id
        if watched.is_sandbox:
            headers[sandbox.HEADER] = "true"

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, never the path: the path of an inner code is a secret.
        route: Any = getattr(scope.get("route"), "path", "(none)")
        method = scope.get("method", "WEBSOCKET")
        self._metrics.requests.labels(method, route, status).observe(seconds)
        _log.info("request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 1))


def _bytes_max(path: str) -> int:
    if path in _SIGN_IN_PATHS:
        return SIGN_IN_BODY_BYTES_MAX
    return CAPTURE_BODY_BYTES_MAX if path == _CAPTURE_PATH else BODY_BYTES_MAX


def _limited(scope: Scope, receive: Receive) -> Receive:
    bytes_max = _bytes_max(scope["path"])
    declared = Headers(scope=scope).get("content-length", "0")
    too_large = not declared.isdigit() or int(declared) > bytes_max
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        # A chunked body declares no length, so what arrives is counted as well.
        if too_large or received > bytes_max:
            raise BodyTooLarge(f"this request's body has at most {bytes_max // 1024} KiB")
        return message

    return receive_limited
