"""The application: routers, error answers, and the background work that runs beside them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx2
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from kit.errors import FanxingError
from loyalty import fulfilment, sign_in
from scan_api.errors import DatabaseUnavailable, PageUnknown, Refusal, RequestInvalid, as_json, status_of
from scan_api.middleware import Middleware
from scan_api.routers import brand, consumer, devices, member, operations, packages, pages, regulator, scanner
from scan_api.services import Services

_log = structlog.get_logger()

SWEEP_EVERY_S = 3_600

DESCRIPTION = """One item, one code: scans, provenance, rewards and membership.

A code's own URL (`GET /{code path}`) is the shopper's page, or JSON for clients. Everything else lies under /v1."""


def create_app(services: Services) -> FastAPI:
    """The ASGI application of one server."""
    app = FastAPI(
        title="Fanxing 繁星",
        version="0.1.0",
        description=DESCRIPTION,
        lifespan=_lifespan(services),
        # The framework's documentation pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": Refusal, "description": "A refusal, or a failure of this server"}},
    )
    app.state.services = services
    https = services.settings.base_url.startswith("https:")
    app.add_middleware(Middleware, metrics=services.metrics, https=https, fail=_fail)
    app.add_exception_handler(FanxingError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_unrouted)
    for away in (OperationalError, InterfaceError, TimeoutError):
        app.add_exception_handler(away, _refuse_without_database)
    for router in (operations, scanner, devices, member, brand, regulator, packages, pages):
        app.include_router(router.router)
    app.include_router(consumer.router)  # last: it takes every path that nobody else did
    return app


def _lifespan(services: Services) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await services.trust.refresh()
        stop = asyncio.Event()
        work: list[Coroutine[Any, Any, None]] = [services.trust.keep_fresh(), _sweep(services)]
        async with httpx2.AsyncClient() as client:
            if services.settings.carrier_url:
                carrier = fulfilment.HttpCarrier(
                    services.settings.carrier_url, services.settings.carrier_token.get_secret_value(), client
                )
                work.append(fulfilment.run(services.database, services.vault, carrier, services.clock, stop))
            tasks = [asyncio.create_task(coroutine) for coroutine in work]
            try:
                yield
            finally:
                stop.set()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await services.database.close()

    return lifespan


async def _sweep(services: Services) -> None:
    """Forget sessions and one-time codes that are over, for ever."""
    while True:
        try:
            async with services.database.writing() as session:
                await sign_in.sweep(session, services.clock())
        except Exception:
            _log.exception("sweep failed, will try again")
        await asyncio.sleep(SWEEP_EVERY_S)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, FanxingError)
    if pages.wants_page(request):
        return pages.error_page(request, error)
    headers = {"www-authenticate": "Bearer"} if status_of(error) == 401 else {}
    retry_after = getattr(error, "retry_after_s", None)
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return JSONResponse(as_json(error), status_of(error), headers)


async def _refuse_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Say where and why, never what was sent: it may be a phone number or an inner code.
    faults = "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'][1:]) or fault['loc'][0]}: {fault['msg']}"
        for fault in error.errors()[:5]
    )
    return await _refuse(request, RequestInvalid(faults, hint="/openapi.json describes every request."))


async def _refuse_unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, FanxingError):  # what stops the reading of a body, FastAPI calls a bad request
        return await _refuse(request, error.__cause__)
    if error.status_code == 404:
        return await _refuse(request, PageUnknown("there is nothing at this address"))
    body = {"error": {"code": "Http" + str(error.status_code), "message": str(error.detail)}}
    return JSONResponse(body, error.status_code, headers=dict(error.headers or {}))


async def _refuse_without_database(request: Request, error: Exception) -> Response:
    _log.error("database away", exc_info=error)
    return await _refuse(
        request,
        DatabaseUnavailable("the database does not answer", hint="Try again, under the same Idempotency-Key if any."),
    )


async def _fail(request: Request, error: Exception) -> Response:
    _log.error("request failed", exc_info=error)
    return await _refuse(
        request, FanxingError("something went wrong here", hint="Try again, under the same Idempotency-Key if any.")
    )
