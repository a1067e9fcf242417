"""Webhooks of brands: endpoints, their secrets, and what was sent to them."""

import uuid
from typing import Annotated, Any

import typer

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from kit.db import Session
from loyalty import web_targets, webhooks
from loyalty.webhooks import URL_CHARACTERS_MAX, Disabled, WebhookDelivery, WebhookEndpoint, WebhookKind
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out
from scan_api.paging import LIMIT_DEFAULT, LIMIT_MAX

webhook = typer.Typer(help="Webhooks: what happens at a brand, told to its own systems.", no_args_is_help=True)

Slug = Annotated[str, typer.Option("--brand", help="The brand's short name.")]
WebhookId = Annotated[uuid.UUID, typer.Argument(help="The webhook's id; `fanxing webhook list` shows it.")]


@webhook.command("add")
def add(
    slug: Slug,
    url: Annotated[str, typer.Argument(help="Where to send: https, reachable from the internet.")],
    kind: Annotated[list[WebhookKind], typer.Option(help="A kind of events; give it again for more.")],
    as_json: Json = False,
) -> None:
    """Begin to send. The secret is shown once."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            targets = shop.settings.webhook_targets
            web_targets.check_url(url, URL_CHARACTERS_MAX, targets)
            await web_targets.resolve(url, targets)
            async with shop.database.writing() as session:
                brand_id = await _brand_id(session, slug)
                made, secret = await webhooks.add(session, shop.vault, brand_id, slug, url, kind, system_clock())
            return {**_about(made), "secret": secret}

    terminal.run(work, as_json=as_json, show=_show_secret)


@webhook.command("list")
def list_webhooks(slug: Slug, as_json: Json = False) -> None:
    """A brand's webhooks and how they stand."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [_about(one) for one in await webhooks.endpoints_of(session, await _brand_id(session, slug))]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No webhook yet."))


@webhook.command("rotate")
def rotate(slug: Slug, webhook_id: WebhookId, as_json: Json = False) -> None:
    """Give a new secret, shown once. For 24 hours every message carries both signatures."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            endpoint = await _endpoint(session, slug, webhook_id)
            until, secret = await webhooks.rotate(session, shop.vault, endpoint.endpoint_id, system_clock())
            return {"webhook_id": str(webhook_id), "previous_until": iso(until), "secret": secret}

    terminal.run(work, as_json=as_json, show=_show_secret)


@webhook.command("disable")
def disable(slug: Slug, webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send nothing more; `fanxing webhook enable` begins again."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            endpoint = await _endpoint(session, slug, webhook_id)
            await webhooks.disable(session, endpoint.endpoint_id, Disabled.BY_HAND, system_clock())
            await session.refresh(endpoint)
            return _about(endpoint)

    terminal.run(work, as_json=as_json, show=terminal.fields)


@webhook.command("enable")
def enable(slug: Slug, webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send again what happens from now on."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            endpoint = await _endpoint(session, slug, webhook_id)
            await webhooks.enable(session, endpoint.endpoint_id)
            await session.refresh(endpoint)
            return _about(endpoint)

    terminal.run(work, as_json=as_json, show=terminal.fields)


@webhook.command("ping")
def ping(slug: Slug, webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send a test; the server sends it, and the list of deliveries tells how it went."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            endpoint = await _endpoint(session, slug, webhook_id)
            return {"event_id": str(await webhooks.ping(session, endpoint, system_clock()))}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@webhook.command("deliveries")
def deliveries(
    slug: Slug,
    webhook_id: WebhookId,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Most rows.")] = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """The latest messages to a webhook, and what became of them."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            endpoint = await _endpoint(session, slug, webhook_id)
            rows = await webhooks.deliveries_of(session, endpoint.endpoint_id, None, limit)
            return [_about_delivery(row) for row in rows]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "Nothing was sent yet."))


@webhook.command("resend")
def resend(
    slug: Slug,
    webhook_id: WebhookId,
    event_id: Annotated[uuid.UUID, typer.Argument(help="The event's id; `fanxing webhook deliveries` shows it.")],
    as_json: Json = False,
) -> None:
    """Send a message again under the id that it had, however it ended."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            endpoint = await _endpoint(session, slug, webhook_id)
            await webhooks.resend(session, endpoint, event_id, system_clock())
            return {"event_id": str(event_id)}

    terminal.run(work, as_json=as_json, show=terminal.fields)


async def _brand_id(session: Session, slug: str) -> int:
    brand_id = (await brand_named(session, slug)).brand_id
    assert brand_id is not None  # rows read from the database have their key
    return brand_id


async def _endpoint(session: Session, slug: str, webhook_id: uuid.UUID) -> WebhookEndpoint:
    return await webhooks.endpoint_of(session, await _brand_id(session, slug), webhook_id)


def _about(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "webhook_id": str(endpoint.endpoint_id),
        "url": endpoint.url,
        "kinds": endpoint.kinds,
        "failures": endpoint.failures,
        "failing_since": iso(endpoint.failing_since) if endpoint.failing_since else None,
        "disabled": endpoint.disabled_why,
        "disabled_at": iso(endpoint.disabled_at) if endpoint.disabled_at else None,
    }


def _about_delivery(row: WebhookDelivery) -> dict[str, Any]:
    return {
        "event_id": str(row.event_id),
        "kind": row.kind,
        "at": iso(row.at),
        "state": row.state,
        "attempts": row.attempts,
        "last_status": row.last_status,
        "last_error": row.last_error,
        "next_attempt_at": iso(row.next_attempt_at) if row.next_attempt_at else None,
    }


def _show_secret(result: dict[str, Any]) -> None:
    out.print(result["secret"], soft_wrap=True)
    terminal.err.print(f"Webhook {result['webhook_id']}. This is the only time that the secret is shown.")
