"""A regulator's subscription over real HTTP: made, delivered signed, and silent once its key is revoked."""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlmodel import select

from scan_api.auth import api_keys
from scan_api.provenance.subscriptions import Subscription
from scan_api.regulators import accounts
from tests.scan_api.event_sender import URN, capture, seen, serial
from tests.scan_api.test_webhooks import Receiver
from tests.stand import MakeStand, Stand, wait_until

PATH, TOKEN = "/v1/regulator/subscriptions", "0435ojtojt02"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.stop()


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_a_platform_is_told_signed_until_its_key_is_revoked(make_stand: MakeStand, receiver: Receiver) -> None:
    stand = make_stand(WEBHOOK_TARGETS="private")
    stand.server.start()
    keys: list[str] = []

    async def make(session: Any) -> str:
        account = await accounts.create(session, "County platform", [], [], datetime.now(UTC))
        made, text = await accounts.create_key(session, account.account_id, "platform", datetime.now(UTC))
        keys.append(made.key_id)
        return text

    headers, path = {"Authorization": f"Bearer {stand.run(make)}"}, f"/ok/{uuid.uuid4()}"
    body = {"dest": receiver.url + path, "signature_token": TOKEN, "query": {"EQ_bizStep": ["shipping"]}}
    made = stand.http.post(PATH, json=body, headers={**headers, "Fanxing-Purpose": "Case%207"})
    assert (made.status_code, TOKEN in made.text) == (201, False), made.text
    assert stand.http.get(PATH, headers=headers).json()["data"] == [made.json()]
    number = serial()
    capture(stand, seen(number), seen(serial(), bizStep="receiving"))
    arrived = wait_until(lambda: receiver.seen(path), "the report to arrive")[0]
    digest = base64.b64encode(hmac.digest(TOKEN.encode(), arrived["body"].encode(), hashlib.sha256)).decode()
    assert arrived["headers"]["gs1-signature"] == digest
    results = json.loads(arrived["body"])["epcisBody"]["queryResults"]
    assert results["subscriptionID"] == made.json()["subscription_id"]
    assert [event["epcList"] for event in results["resultsBody"]["eventList"]] == [[URN + number]]
    [look] = stand.http.get("/v1/regulator/accesses", headers=headers).json()["data"]
    assert (look["operation"], look["told"], look["purpose"]) == ("report", 1, "Case 7")

    async def revoke(session: Any) -> None:
        await api_keys.revoke(session, keys[0], datetime.now(UTC))

    stand.run(revoke)
    capture(stand, seen(serial()))
    wait_until(lambda: stand.rows(select(Subscription.ended_why)) == ["closed"], "the subscription to end")
    assert len(receiver.seen(path)) == 1
    assert stand.http.get(PATH, headers=headers).status_code == 401


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_subscriptions_that_are_refused(stand: Stand) -> None:
    headers = stand.key("regulator")
    good = {"dest": "https://93.184.215.14/", "signature_token": TOKEN}
    for change, code in (
        ({"dest": "https://127.0.0.1/"}, "WebTargetRefused"),
        ({"signature_token": "short"}, "RequestInvalid"),
        ({"signature_token": "é" * 9}, "SubscriptionInvalid"),
        ({"query": {"EQ_colour": "red"}}, "QueryParameterInvalid"),
        ({"more": 1}, "RequestInvalid"),
    ):
        answer = stand.http.post(PATH, json={**good, **change}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
    made = stand.http.post(PATH, json=good, headers=headers).json()
    path = f"{PATH}/{made['subscription_id']}"
    assert stand.http.delete(path, headers=stand.key("regulator, other GTINs")).status_code == 404
    assert stand.http.delete(path, headers=headers).status_code == 204
    assert stand.http.delete(path, headers=headers).status_code == 404
