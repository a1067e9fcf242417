"""For providers of mobile data and cash: what became of an order, told by themselves (docs/loyalty/fulfilment.md)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Request
from pydantic import BaseModel

from loyalty.fulfilment import OrderState, Teller, callbacks
from loyalty.fulfilment.callbacks import BODY_BYTES_MAX, ProviderUnknown, SignedCallback
from loyalty.fulfilment.providers import OrderWord
from loyalty.fulfilment.steps import Effect
from scan_api.errors import BodyTooLarge
from scan_api.services import Serve

router = APIRouter(prefix="/v1/callbacks", tags=["callbacks"])


class Heard(BaseModel):
    """What the event did, and the state in which the order is now as far as we know."""

    effect: Literal["moved", "unchanged", "stale", "repeated"]
    state: OrderState | None = None


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": OrderWord.model_json_schema(),
                "example": {
                    "order_id": "0198f0c2-7d54-7c1b-9a3e-5b1d2c3e4f50",
                    "state": "completed",
                    "revision": 3,
                    "at": "2026-05-01T08:00:00.000Z",
                    "reference": "R-20260501-77",
                },
            }
        },
    }
}


@router.post("/{provider}", openapi_extra=_BODY)
async def hear(
    provider: Annotated[str, Path(max_length=40)],
    request: Request,
    services: Serve,
    fanxing_timestamp: Annotated[str, Header(description="Seconds since 1970, within five minutes of now")] = "",
    fanxing_event_id: Annotated[str, Header(description="The event's own, the same each time it is sent")] = "",
    fanxing_signature: Annotated[
        str, Header(description="v1= and hex HMAC-SHA-256 of timestamp.event id.body under the agreed secret")
    ] = "",
) -> Heard:
    """Tell what became of an order. Signed; may come again, late and in any order."""
    secrets = callbacks.secrets_of(services.settings).get(provider)
    if secrets is None:
        raise ProviderUnknown("no provider of this name calls back here")
    body = await request.body()
    if len(body) > BODY_BYTES_MAX:
        raise BodyTooLarge(f"a callback's body has at most {BODY_BYTES_MAX} bytes")
    given = SignedCallback(fanxing_timestamp, fanxing_event_id, fanxing_signature, body)
    now = services.clock()
    callbacks.check(given, secrets, now)
    async with services.database.writing() as session:
        outcome = await callbacks.hear(session, provider, given, now)
    if outcome is None:
        return Heard(effect="repeated")
    if outcome.effect is Effect.MOVED:
        services.metrics.order_moved(provider, outcome.state, Teller.CALLBACK)
    return Heard(effect=outcome.effect.value, state=outcome.state)
