"""The application: routers, error answers, and the background work that runs beside them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import httpx2
import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from psycopg_pool import PoolTimeout
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from kit import idempotency
from kit.errors import FanxingError
from loyalty import claims as loyalty_claims
from loyalty import fulfilment, ledger, merges, news, sign_in, tiers, webhook_worker
from loyalty.benefits import expiry as benefit_expiry
from scan_api import allowed_methods, openapi, page_answers
from scan_api.earning import sweep as sweep_earning
from scan_api.errors import (
    DatabaseUnavailable,
    PageUnknown,
    RequestInvalid,
    headers_of,
    problem_response,
    unrouted_response,
)
from scan_api.idempotency import HEADER, IdempotencyKeyMissing
from scan_api.middleware import Middleware
from scan_api.provenance import capture_jobs, report_sender, spool
from scan_api.provenance.reports import Reporter
from scan_api.regulators import export_worker, subscriptions
from scan_api.regulators.reporter import Reporter as RegulatorsReporter
from scan_api.routers import (
    benefits,
    brand,
    brand_benefits,
    brand_tiers,
    callbacks,
    cards,
    claims,
    consumer,
    devices,
    earning,
    earning_pages,
    epcis,
    epcis_capture,
    epcis_queries,
    epcis_sockets,
    evidence,
    life,
    links,
    log,
    member,
    member_account,
    member_pages,
    operations,
    oversight,
    packages,
    packing,
    pages,
    partner_events,
    partner_shares,
    points,
    privacy_pages,
    purchases,
    redemptions,
    regulator,
    regulator_exports,
    regulator_recalls,
    regulator_statistics,
    regulator_subscriptions,
    regulator_trace,
    resolver,
    scanner,
    shop_pages,
    stock,
    trace,
    webhooks,
)
from scan_api.services import Services
from scan_api.transparency import task as transparency

_log = structlog.get_logger()

SWEEP_EVERY_S = 3_600

# Routes are tried in this order, so those that are asked most often come first.
ROUTERS = (
    consumer,
    claims,
    operations,
    trace,
    epcis_capture,
    epcis_queries,
    epcis_sockets,
    epcis,
    scanner,
    devices,
    member,
    member_account,
    brand,
    benefits,
    brand_benefits,
    redemptions,
    purchases,
    cards,
    brand_tiers,
    regulator,
    regulator_recalls,
    regulator_statistics,
    regulator_subscriptions,
    regulator_trace,
    regulator_exports,
    oversight,
    partner_shares,
    partner_events,
    log,
    packing,
    life,
    stock,
    packages,
    callbacks,
    webhooks,
    links,
    resolver,
    points,
    earning,
    pages,
    member_pages,
    shop_pages,
    earning_pages,
    privacy_pages,
    evidence,
)

DESCRIPTION = """One item, one code: scans, provenance, rewards and membership.

A code's own URL (`GET /{code path}`) is the shopper's page, or JSON for clients. Everything else lies under /v1."""


def create_app(services: Services) -> FastAPI:
    """The ASGI application of one server."""
    app = _routed(_lifespan(services))
    app.state.services = services
    https = services.settings.base_url.startswith("https:")
    app.add_middleware(Middleware, metrics=services.metrics, https=https, fail=_fail)
    app.add_exception_handler(FanxingError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_unrouted)
    for away in (OperationalError, InterfaceError, TimeoutError, psycopg.OperationalError, PoolTimeout):
        app.add_exception_handler(away, _refuse_without_database)
    return app


def description() -> dict[str, Any]:
    """The API's description (OpenAPI 3.1), for who has no server."""
    return openapi.document(_routed(None))


def _routed(lifespan: Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]] | None) -> FastAPI:
    app = FastAPI(
        title="Fanxing 繁星",
        version="0.1.0",
        description=DESCRIPTION,
        lifespan=lifespan,
        # The framework's documentation pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]  # the framework's way to replace it
    for router in ROUTERS:
        app.include_router(router.router)
    app.include_router(consumer.elsewhere)  # last: it takes every path that nobody else did
    return app


def _lifespan(services: Services) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await services.trust.refresh()
        stop = asyncio.Event()
        work: list[Coroutine[Any, Any, None]] = [
            services.trust.keep_fresh(),
            _sweep(services),
            tiers.keep_settled(services.database, services.clock),
        ]
        async with httpx2.AsyncClient() as client:
            providers = fulfilment.providers_of(services.settings, client, services.clock)
            work.append(
                fulfilment.run(services.database, services.vault, providers, services.clock, stop, services.metrics)
            )
            sender = webhook_worker.Worker(
                services.database, services.vault, services.settings.webhook_targets, services.clock
            )
            work.append(sender.run(stop))
            work.append(Reporter(services.database, services.clock).run(stop))
            work.append(RegulatorsReporter(services.database, services.clock).run(stop))
            reports = report_sender.Sender(
                services.database,
                services.vault,
                services.settings.webhook_targets,
                services.clock,
                subscriptions.telling(services.clock),
            )
            work.append(reports.run(stop))
            work.append(services.sockets.run(stop))
            work.append(services.refused_scans.run(stop))
            work.append(benefit_expiry.run(services.database, services.clock, stop))
            work.append(export_worker.run(services.database, services.settings.home, services.clock, stop))
            folder = spool.folder_of(services.settings.home)
            work.append(capture_jobs.run(services.database, folder, services.clock, stop))
            work.append(news.run(services.database, services.vault, services.clock, stop))
            work.append(
                transparency.run(services.database, services.settings, client, services.clock, stop, services.metrics)
            )
            tasks = [asyncio.create_task(coroutine) for coroutine in work]
            try:
                yield
            finally:
                stop.set()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await services.caller.close()
                await services.sender.close()
                await services.database.close()

    return lifespan


async def _sweep(services: Services) -> None:
    """Forget what is over, for ever, and expire what is due."""
    database, clock = services.database, services.clock
    sweeps: tuple[Callable[[], Coroutine[Any, Any, object]], ...] = (
        partial(_forget, services),
        partial(merges.gather, database, clock),
        partial(ledger.sweep, database, clock),
        lambda: sweep_earning(database, services.vault, clock()),
    )
    while True:
        for sweep in sweeps:  # what breaks one shall not keep the others
            try:
                await sweep()
            except Exception:
                _log.exception("sweep failed, will try again")
        await asyncio.sleep(SWEEP_EVERY_S)


async def _forget(services: Services) -> None:
    async with services.database.writing() as session:
        await sign_in.sweep(session, services.clock())
        await loyalty_claims.sweep(session, services.clock())
        await webhook_worker.sweep(session, services.clock())
        await report_sender.sweep(session, services.clock())
        await idempotency.sweep(session, services.clock())


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, FanxingError)
    if not page_answers.wants_page(request):
        if isinstance(error, PageUnknown) and (allowed := _methods_of(request)):
            return _method_not_allowed(allowed)
        return problem_response(error)
    page = page_answers.error_page(request, error)
    page.headers.update(headers_of(error))
    return page


async def _refuse_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(fault["loc"] == ("header", HEADER.lower()) for fault in found):
        return await _refuse(request, IdempotencyKeyMissing())
    # Say where and why, never what was sent: it may be a phone number or an inner code.
    faults = "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'][1:]) or fault['loc'][0]}: {fault['msg']}" for fault in found[:5]
    )
    return await _refuse(request, RequestInvalid(faults, hint="/openapi.json describes every request."))


async def _refuse_unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, FanxingError):  # what stops the reading of a body, FastAPI calls a bad request
        return await _refuse(request, error.__cause__)
    if error.status_code == 404:
        return await _refuse(request, PageUnknown("there is nothing at this address"))
    if error.status_code == 405 and (allowed := _methods_of(request)):
        return _method_not_allowed(allowed)
    return unrouted_response(error.status_code, str(error.detail), dict(error.headers or {}))


def _methods_of(request: Request) -> list[str]:
    """The methods that the address has, where the one that was asked is none of them."""
    allowed = allowed_methods.methods_of(request.app, request.url.path)
    return [] if request.method in allowed else allowed


def _method_not_allowed(allowed: list[str]) -> Response:
    return unrouted_response(405, "this address takes other methods", {"allow": ", ".join(allowed)})


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
