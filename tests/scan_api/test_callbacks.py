"""A provider's callbacks over real HTTP: signed ones move orders, everything else is refused."""

import json
import uuid
from datetime import UTC, datetime

import httpx2
import pytest

from loyalty.fulfilment import callbacks
from tests.stand import MakeStand, Stand, free_port

SECRET = "a-secret-of-the-stand-that-is-long-enough"


@pytest.fixture
def calling(make_stand: MakeStand) -> Stand:
    """A stand that can reach no carrier, and that one calls back."""
    stand = make_stand(CARRIER_URL=f"http://127.0.0.1:{free_port()}", CARRIER_CALLBACK_SECRET=SECRET)
    stand.server.start()
    return stand


def send(stand: Stand, order_id: str, state: str, revision: int = 1, secret: str = SECRET) -> httpx2.Response:
    body = json.dumps({"order_id": order_id, "state": state, "revision": revision}).encode()
    timestamp, event_id = str(int(datetime.now(UTC).timestamp())), str(uuid.uuid4())
    headers = {
        "Content-Type": "application/json",
        "Fanxing-Timestamp": timestamp,
        "Fanxing-Event-Id": event_id,
        "Fanxing-Signature": callbacks.sign(secret, timestamp, event_id, body),
    }
    return stand.http.post("/v1/callbacks/carrier", content=body, headers=headers)


def test_a_signed_callback_completes_an_order_and_is_counted(calling: Stand) -> None:
    member = calling.member()
    order_id = calling.claim(member, calling.take_item().inner, "data").json()["order_id"]
    answer = send(calling, order_id, "completed")
    assert (answer.status_code, answer.json()) == (200, {"effect": "moved", "state": "completed"})
    assert send(calling, order_id, "completed").json() == {"effect": "stale", "state": "completed"}
    me = calling.http.get("/v1/me", headers=member.headers).json()
    assert me["megabytes"] == {"pending": 0, "delivered": 5}
    assert calling.metric("fanxing_order_steps_total", provider="carrier", state="completed", by="callback") == 1
    refused = [
        send(calling, order_id, "failed", 2, secret="x" * 40),
        calling.http.post("/v1/callbacks/carrier", content=b"{}"),
        calling.http.post("/v1/callbacks/cash", content=b"{}"),
        calling.http.post("/v1/callbacks/carrier", content=b" " * 16_385),
        send(calling, str(uuid.uuid4()), "failed"),
        send(calling, order_id, "settled", 2),
    ]
    assert [(one.status_code, one.json()["code"]) for one in refused] == [
        (401, "CallbackRefused"),
        (401, "CallbackRefused"),
        (404, "ProviderUnknown"),
        (413, "BodyTooLarge"),
        (404, "FulfilmentOrderUnknown"),
        (400, "CallbackInvalid"),
    ]
    assert calling.books().faults == ()
