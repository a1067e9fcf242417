"""For brands: the webhooks that tell their systems what happened."""

import uuid
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import brand_named
from kit.db import Session
from kit.paging import Position
from loyalty import web_targets, webhooks
from loyalty.webhooks import URL_CHARACTERS_MAX, Disabled, WebhookDelivery, WebhookEndpoint, WebhookKind
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.paging import Page, Paged
from scan_api.routers import At, BrandSlug
from scan_api.services import Serve

router = APIRouter(prefix="/v1/brand/{brand}/webhooks", tags=["webhooks"])

Authorization = Annotated[str | None, Header(description="Bearer fx_…, an API key with the role brand")]
_DELIVERIES = "deliveries"
_URL = "https://crm.example.cn/fanxing"
_ID, _EVENT = "0197f0f0-5c00-7000-8000-000000000001", "0197f0f0-5c00-7000-8000-0000000000e1"
_AT = "2026-05-01T08:00:00.000Z"


class NewWebhook(BaseModel):
    """An endpoint to send to, and what it wants to hear of."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"example": {"url": _URL, "kinds": ["claim.made", "benefit.redeemed"]}},
    )

    url: str = Field(max_length=URL_CHARACTERS_MAX, description="https, reachable from the internet")
    kinds: list[WebhookKind] = Field(min_length=1, max_length=len(WebhookKind))


_WEBHOOK: Final[dict[str, Any]] = {
    "webhook_id": _ID,
    "url": _URL,
    "kinds": ["benefit.redeemed", "claim.made"],
    "created_at": _AT,
    "failures": 0,
    "failing_since": None,
    "disabled_at": None,
    "disabled_why": None,
}


class Webhook(BaseModel):
    """An endpoint and how it stands; never its secret."""

    model_config = ConfigDict(json_schema_extra={"example": _WEBHOOK})

    webhook_id: uuid.UUID
    url: str
    kinds: list[WebhookKind]
    created_at: At
    failures: int = Field(ge=0, description="Failed attempts since the last that got through")
    failing_since: At | None
    disabled_at: At | None = Field(description="Set: nothing is sent")
    disabled_why: Disabled | None


class AddedWebhook(Webhook):
    """A new endpoint, with its secret."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**_WEBHOOK, "secret": "whsec_bmV2ZXIgdXNlIHRoaXMgc2VjcmV0LCBvZiBhbiBleGFt"}}
    )

    secret: str = Field(description="Shown this once: base64 after whsec_ is the HMAC key")


class RotatedSecret(BaseModel):
    """The new secret. Both sign until the moment named."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"secret": "whsec_bmV2ZXIgdXNlIHRoaXMgc2VjcmV0LCBvZiBhbiBleGFt", "previous_until": _AT}
        }
    )

    secret: str
    previous_until: At


class Delivery(BaseModel):
    """What became of one message, from its first attempt on."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "event_id": _EVENT,
                "type": "claim.made",
                "at": _AT,
                "state": "waiting",
                "attempts": 1,
                "last_attempt_at": _AT,
                "last_status": 503,
                "last_error": None,
                "next_attempt_at": "2026-05-01T08:00:05.000Z",
            }
        }
    )

    event_id: uuid.UUID = Field(description="The header webhook-id of every attempt")
    type: WebhookKind
    at: At
    state: webhooks.DeliveryState
    attempts: int = Field(ge=0)
    last_attempt_at: At
    last_status: int | None = Field(description="null: there was no answer, see last_error")
    last_error: str | None
    next_attempt_at: At | None


class Sent(BaseModel):
    """A message that is on its way."""

    model_config = ConfigDict(json_schema_extra={"example": {"event_id": _EVENT}})

    event_id: uuid.UUID


async def _brand_id(session: Session, authorization: str | None, slug: str) -> int:
    key = await api_keys.authenticate(session, authorization, Role.BRAND)
    brand_id = (await brand_named(session, slug)).brand_id
    assert brand_id is not None  # rows read from the database have their key
    key.require_brand(brand_id)
    return brand_id


async def _endpoint(session: Session, authorization: str | None, slug: str, webhook_id: uuid.UUID) -> WebhookEndpoint:
    return await webhooks.endpoint_of(session, await _brand_id(session, authorization, slug), webhook_id)


@router.get("", summary="List webhooks")
async def list_webhooks(brand: BrandSlug, services: Serve, authorization: Authorization = None) -> Page[Webhook]:
    """The brand's webhooks, oldest first; at most 10, so they are one page."""
    async with services.database.reading() as session:
        found = await webhooks.endpoints_of(session, await _brand_id(session, authorization, brand))
    return Page[Webhook](data=[_shown(endpoint) for endpoint in found], next_cursor=None)


@router.post("", status_code=201, summary="Add a webhook")
async def add(brand: BrandSlug, body: NewWebhook, services: Serve, authorization: Authorization = None) -> AddedWebhook:
    """Begin to send: from 5 s on at the latest, whatever of these kinds happens at the brand. The secret is shown once.

    The URL is https and leads to public addresses; redirects are not followed.
    """
    targets = services.settings.webhook_targets
    async with services.database.reading() as session:
        await _brand_id(session, authorization, brand)
    # Before the transaction: a name server may take its time.
    web_targets.check_url(body.url, URL_CHARACTERS_MAX, targets)
    await web_targets.resolve(body.url, targets)
    async with services.database.writing() as session:
        brand_id = await _brand_id(session, authorization, brand)
        endpoint, secret = await webhooks.add(
            session, services.vault, brand_id, brand, body.url, body.kinds, services.clock()
        )
    return AddedWebhook(**_shown(endpoint).model_dump(), secret=secret)


@router.delete("/{webhook_id}", status_code=204, summary="Remove a webhook")
async def remove(
    brand: BrandSlug, webhook_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> Response:
    """Forget a webhook; what waits for it is dropped."""
    async with services.database.writing() as session:
        endpoint = await _endpoint(session, authorization, brand, webhook_id)
        await webhooks.remove(session, endpoint.endpoint_id)
    return Response(status_code=204)


@router.post("/{webhook_id}/rotate", summary="Rotate a webhook's secret")
async def rotate(
    brand: BrandSlug, webhook_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> RotatedSecret:
    """Give a new secret, shown once. For 24 hours every message carries both signatures."""
    async with services.database.writing() as session:
        endpoint = await _endpoint(session, authorization, brand, webhook_id)
        until, secret = await webhooks.rotate(session, services.vault, endpoint.endpoint_id, services.clock())
    return RotatedSecret(secret=secret, previous_until=until)


@router.post("/{webhook_id}/disable", summary="Disable a webhook")
async def disable(
    brand: BrandSlug, webhook_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> Webhook:
    """Send nothing more. What happens meanwhile is not kept for it; what waits is given up, and can be resent."""
    async with services.database.writing() as session:
        endpoint = await _endpoint(session, authorization, brand, webhook_id)
        await webhooks.disable(session, endpoint.endpoint_id, Disabled.BY_HAND, services.clock())
        await session.refresh(endpoint)
    return _shown(endpoint)


@router.post("/{webhook_id}/enable", summary="Enable a webhook")
async def enable(
    brand: BrandSlug, webhook_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> Webhook:
    """Send again what happens from now on; its count of failures begins anew."""
    async with services.database.writing() as session:
        endpoint = await _endpoint(session, authorization, brand, webhook_id)
        await webhooks.enable(session, endpoint.endpoint_id)
        await session.refresh(endpoint)
    return _shown(endpoint)


@router.post("/{webhook_id}/ping", status_code=202, summary="Test a webhook")
async def ping(brand: BrandSlug, webhook_id: uuid.UUID, services: Serve, authorization: Authorization = None) -> Sent:
    """Send an event of the type webhook.ping to this webhook; the list of deliveries tells how it went."""
    async with services.database.writing() as session:
        endpoint = await _endpoint(session, authorization, brand, webhook_id)
        event_id = await webhooks.ping(session, endpoint, services.clock())
    return Sent(event_id=event_id)


@router.get("/{webhook_id}/deliveries", summary="List deliveries")
async def deliveries(
    brand: BrandSlug, webhook_id: uuid.UUID, services: Serve, paging: Paged, authorization: Authorization = None
) -> Page[Delivery]:
    """What was sent to the webhook in the last 30 days, newest first, each from its first attempt on."""
    async with services.database.reading() as session:
        endpoint = await _endpoint(session, authorization, brand, webhook_id)
        rows = await webhooks.deliveries_of(session, endpoint.endpoint_id, paging.after(_DELIVERIES), paging.count)
    return Page[Delivery](**paging.page(_DELIVERIES, rows, lambda row: Position(row.at, row.event_id), _shown_delivery))


@router.post("/{webhook_id}/deliveries/{event_id}/resend", status_code=202, summary="Resend a delivery")
async def resend(
    brand: BrandSlug,
    webhook_id: uuid.UUID,
    event_id: uuid.UUID,
    services: Serve,
    authorization: Authorization = None,
) -> Sent:
    """Send a message again under the id that it had, however it ended."""
    async with services.database.writing() as session:
        endpoint = await _endpoint(session, authorization, brand, webhook_id)
        await webhooks.resend(session, endpoint, event_id, services.clock())
    return Sent(event_id=event_id)


def _shown(endpoint: WebhookEndpoint) -> Webhook:
    return Webhook(
        webhook_id=endpoint.endpoint_id,
        url=endpoint.url,
        kinds=[WebhookKind(kind) for kind in endpoint.kinds],
        created_at=endpoint.created_at,
        failures=endpoint.failures,
        failing_since=endpoint.failing_since,
        disabled_at=endpoint.disabled_at,
        disabled_why=Disabled(endpoint.disabled_why) if endpoint.disabled_why else None,
    )


def _shown_delivery(delivery: WebhookDelivery) -> Delivery:
    return Delivery(
        event_id=delivery.event_id,
        type=WebhookKind(delivery.kind),
        at=delivery.at,
        state=webhooks.DeliveryState(delivery.state),
        attempts=delivery.attempts,
        last_attempt_at=delivery.last_attempt_at,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        next_attempt_at=delivery.next_attempt_at,
    )
