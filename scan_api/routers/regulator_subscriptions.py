"""For regulators: events within their scope, posted to an address of theirs as they come."""

import uuid
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from loyalty import web_targets
from scan_api.paging import Page
from scan_api.provenance.subscriptions import TOKEN_CHARACTERS_MAX, URL_CHARACTERS_MAX
from scan_api.regulators import accesses, accounts, subscriptions
from scan_api.routers import At
from scan_api.routers.regulator import Authorization, Purpose, regulator_of
from scan_api.services import Serve

router = APIRouter(prefix="/v1/regulator/subscriptions", tags=["regulator"])

_EXAMPLE: Final[dict[str, Any]] = {
    "dest": "https://platform.example.cn/epcis",
    "query": {"EQ_bizStep": ["shipping", "receiving"]},
}


class NewSubscription(BaseModel):
    """Where reports go, what they are signed with, and what of all that is seen they tell."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"example": {**_EXAMPLE, "signature_token": "0435ojtojt02"}},
    )

    dest: str = Field(max_length=URL_CHARACTERS_MAX, description="https, reachable from the internet")
    signature_token: str = Field(
        min_length=8,
        max_length=TOKEN_CHARACTERS_MAX,
        description="The key of GS1-Signature and webhook-signature, made up by the subscriber",
    )
    query: dict[str, Any] = Field(
        default={}, description="Parameters as of GET /epcis/events; absent: all that is seen"
    )


class SubscriptionAnswer(BaseModel):
    """A subscription, without its token."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_EXAMPLE,
                "subscription_id": "0197f0f0-5c00-7000-8000-0000000000d1",
                "purpose": "Routine supervision",
                "key_id": "00112233445566aa",
                "created_at": "2026-05-01T08:00:00.000Z",
                "ended_at": None,
                "ended_why": None,
            }
        }
    )

    subscription_id: uuid.UUID
    dest: str
    query: dict[str, Any]
    purpose: str | None = Field(description="It stands in the record of each report")
    key_id: str = Field(description="The key that it was made with, and ends with")
    created_at: At
    ended_at: At | None
    ended_why: str | None = Field(description="failing, gone (the address said so), or closed (key or account ended)")


@router.get("", summary="My subscriptions")
async def list_subscriptions(services: Serve, authorization: Authorization = None) -> Page[SubscriptionAnswer]:
    """All of the account, oldest first, those that ended among them, on one page."""
    async with services.database.reading() as session:
        regulator = await accounts.authenticate(session, authorization, services.clock())
        rows = await subscriptions.of_holder(session, regulator)
    data = [SubscriptionAnswer(**subscriptions.shown(row)) for row in rows]
    return Page[SubscriptionAnswer](data=data, next_cursor=None)


@router.post("", status_code=201, summary="Subscribe to events")
async def subscribe(
    body: NewSubscription, services: Serve, authorization: Authorization = None, purpose: Purpose = None
) -> SubscriptionAnswer:
    """Have events that the account reaches posted as they come, from now on, signed, and for three days if need be.

    What the account reaches is asked anew for each report, and each is recorded as a look.
    """
    await regulator_of(services, authorization)
    said, targets = accesses.purpose_of(purpose), services.settings.webhook_targets
    # Before the transaction: a name server may take its time.
    web_targets.check_url(body.dest, URL_CHARACTERS_MAX, targets)
    await web_targets.resolve(body.dest, targets)
    now = services.clock()
    async with services.database.writing() as session:
        regulator = await accounts.authenticate(session, authorization, now)
        made = await subscriptions.add(
            session, services.vault, regulator, body.dest, body.signature_token, body.query, said, now
        )
        return SubscriptionAnswer(**subscriptions.shown(made))


@router.delete("/{subscription_id}", status_code=204, summary="Unsubscribe")
async def unsubscribe(subscription_id: uuid.UUID, services: Serve, authorization: Authorization = None) -> Response:
    """End a subscription and forget it; reports that wait are dropped."""
    async with services.database.writing() as session:
        regulator = await accounts.authenticate(session, authorization, services.clock())
        await subscriptions.remove(session, regulator, subscription_id)
    return Response(status_code=204)
