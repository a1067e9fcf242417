"""Webhooks over real HTTP and by command: a brand manages its own, and the server sends also after kill -9."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from sqlalchemy import update
from sqlmodel import select

from codes.catalogue import Brand
from kit.db import Session
from kit.outbox import OutboxMessage
from loyalty import webhooks
from loyalty.webhooks import LISTENERS_CACHED_S, WebhookDelivery, WebhookEndpoint, WebhookKind
from tests.stand import BRAND, OTHER_BRAND, ROOT, MakeStand, Stand, wait_until

PATH = f"/v1/brand/{BRAND}/webhooks"
SUBJECT = uuid.UUID("0197f0f0-0000-7000-8000-0000000000aa")


class Receiver:
    """`python -m loadtest.webhook_receiver` as a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.webhook_receiver", "--port", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]

    def seen(self, path: str) -> list[dict[str, Any]]:
        everything = httpx2.get(f"{self.url}/seen", trust_env=False, verify=False).json()
        return [one for one in everything if one["path"] == path]

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.stop()


@pytest.fixture
def private(make_stand: MakeStand) -> Stand:
    """A server whose webhooks may go to this machine."""
    stand = make_stand(WEBHOOK_TARGETS="private")
    stand.server.start()
    return stand


def add(stand: Stand, url: str, *kinds: str) -> dict[str, Any]:
    body = {"url": url, "kinds": list(kinds or ("claim.made",))}
    answer = stand.http.post(PATH, json=body, headers=stand.key("brand"))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def emit(stand: Stand) -> None:
    async def work(session: Session) -> None:
        brand = (await session.exec(select(Brand).where(Brand.slug == BRAND))).one()
        data = {"claim_id": str(SUBJECT)}
        await webhooks.emit(session, brand.brand_id or 0, WebhookKind.CLAIM_MADE, SUBJECT, data, datetime.now(UTC))

    stand.run(work)


def is_signed(arrived: dict[str, Any], secret: str) -> bool:
    headers = arrived["headers"]
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{arrived['body']}".encode()
    digest = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), message, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}" in headers["webhook-signature"].split()


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_a_brand_adds_tests_and_removes_its_webhook(private: Stand, receiver: Receiver) -> None:
    key = private.key("brand")
    made = add(private, f"{receiver.url}/ok/{uuid.uuid4()}")
    secret = made.pop("secret")
    listed = private.http.get(PATH, headers=key)
    assert (listed.json(), secret in listed.text) == ({"data": [made], "next_cursor": None}, False)
    sent = private.http.post(f"{PATH}/{made['webhook_id']}/ping", headers=key)
    assert sent.status_code == 202
    path = made["url"].removeprefix(receiver.url)
    arrived = wait_until(lambda: receiver.seen(path), "the ping to arrive")[0]
    assert (is_signed(arrived, secret), json.loads(arrived["body"])["id"]) == (True, sent.json()["event_id"])
    deliveries = f"{PATH}/{made['webhook_id']}/deliveries"
    wait_until(lambda: private.http.get(deliveries, headers=key).json()["data"], "the delivery to be noted")
    [row] = private.http.get(deliveries, headers=key).json()["data"]
    assert (row["event_id"], row["type"], row["state"], row["last_status"]) == (
        sent.json()["event_id"],
        "webhook.ping",
        "delivered",
        204,
    )
    again = private.http.post(f"{deliveries}/{row['event_id']}/resend", headers=key)
    assert again.status_code == 202
    wait_until(lambda: len(receiver.seen(path)) == 2, "the message to arrive again")
    assert len({one["headers"]["webhook-id"] for one in receiver.seen(path)}) == 1

    rotated = private.http.post(f"{PATH}/{made['webhook_id']}/rotate", headers=key).json()
    private.http.post(f"{PATH}/{made['webhook_id']}/ping", headers=key)
    both = wait_until(lambda: receiver.seen(path)[2:], "another ping")[0]
    assert (is_signed(both, secret), is_signed(both, rotated["secret"])) == (True, True)

    disabled = private.http.post(f"{PATH}/{made['webhook_id']}/disable", headers=key).json()
    assert disabled["disabled_why"] == "by hand"
    refused = private.http.post(f"{PATH}/{made['webhook_id']}/ping", headers=key)
    assert (refused.status_code, refused.json()["code"]) == (409, "WebhookDisabled")
    enabled = private.http.post(f"{PATH}/{made['webhook_id']}/enable", headers=key).json()
    assert (enabled["disabled_at"], enabled["failures"]) == (None, 0)
    assert private.http.delete(f"{PATH}/{made['webhook_id']}", headers=key).status_code == 204
    assert private.http.get(PATH, headers=key).json()["data"] == []


@pytest.mark.parametrize("stand_kind", ["postgresql"])
def test_a_sender_killed_between_sending_and_noting_sends_again_under_the_same_id(
    private: Stand, receiver: Receiver
) -> None:
    path = f"/slow/{uuid.uuid4()}"
    made = add(private, receiver.url + path)
    emit(private)
    wait_until(lambda: receiver.seen(path), "the message to arrive")
    private.server.kill()
    assert private.rows(select(WebhookDelivery)) == []
    # The receiver is well again, and the dead one's lease over.
    private.execute(update(WebhookEndpoint).values(url=made["url"].replace("/slow/", "/ok/")))
    private.execute(update(OutboxMessage).where(OutboxMessage.topic != "").values(due_at=datetime.now(UTC)))
    private.server.start()
    arrived = wait_until(lambda: receiver.seen(path.replace("/slow/", "/ok/")), "the message to arrive again")[0]
    first = receiver.seen(path)[0]
    assert arrived["headers"]["webhook-id"] == first["headers"]["webhook-id"]
    assert arrived["body"] == first["body"]
    assert is_signed(arrived, made["secret"])
    wait_until(lambda: private.rows(select(WebhookDelivery.state)) == ["delivered"], "the delivery to be noted")


@pytest.mark.parametrize("stand_kind", ["sqlite"])
class TestAccess:
    """Who may, and where to."""

    @pytest.mark.parametrize(
        "url",
        [
            "https://127.0.0.1/",
            "https://localhost/",
            "https://[::1]/",
            "https://169.254.169.254/latest/meta-data/",
            "http://93.184.215.14/",
            "https://nobody.invalid/",
            "nonsense",
        ],
    )
    def test_this_server_calls_no_private_address(self, stand: Stand, url: str) -> None:
        answer = stand.http.post(PATH, json={"url": url, "kinds": ["claim.made"]}, headers=stand.key("brand"))
        assert (answer.status_code, answer.json()["code"]) == (400, "WebTargetRefused")
        assert "127.0.0.1" not in answer.json()["detail"]

    @pytest.mark.parametrize("kinds", [[], ["nonsense"], ["webhook.ping"]], ids=["none", "unknown", "ping"])
    def test_kinds_are_those_that_happen(self, stand: Stand, kinds: list[str]) -> None:
        body = {"url": "https://93.184.215.14/", "kinds": kinds}
        assert stand.http.post(PATH, json=body, headers=stand.key("brand")).status_code == 400

    @pytest.mark.parametrize("key", ["shop", "logistics", "regulator", "other brand"])
    def test_only_the_brand_itself_may(self, stand: Stand, key: str) -> None:
        webhook_id = uuid.uuid4()
        for method, path in (
            ("GET", PATH),
            ("POST", PATH),
            ("DELETE", f"{PATH}/{webhook_id}"),
            ("POST", f"{PATH}/{webhook_id}/rotate"),
            ("POST", f"{PATH}/{webhook_id}/ping"),
            ("GET", f"{PATH}/{webhook_id}/deliveries"),
        ):
            body = {"url": "https://93.184.215.14/", "kinds": ["claim.made"]} if path == PATH else None
            answer = stand.http.request(method, path, json=body, headers=stand.key(key))
            assert (method, path, answer.status_code) == (method, path, 403)

    def test_another_brands_webhook_is_unknown(self, stand: Stand) -> None:
        body = {"url": "https://93.184.215.14/", "kinds": ["claim.made"]}
        made = stand.http.post(PATH, json=body, headers=stand.key("brand")).json()
        theirs = f"/v1/brand/{OTHER_BRAND}/webhooks/{made['webhook_id']}/rotate"
        answer = stand.http.post(theirs, headers=stand.key("other brand"))
        assert (answer.status_code, answer.json()["code"]) == (404, "WebhookUnknown")
        assert stand.http.delete(f"{PATH}/{made['webhook_id']}", headers=stand.key("brand")).status_code == 204

    def test_a_cursor_of_another_list_is_refused(self, stand: Stand) -> None:
        body = {"url": "https://93.184.215.14/", "kinds": ["claim.made"]}
        made = stand.http.post(PATH, json=body, headers=stand.key("brand")).json()
        path = f"{PATH}/{made['webhook_id']}/deliveries"
        for query, code in (
            ({"cursor": "x"}, "CursorInvalid"),
            ({"limit": 0}, "RequestInvalid"),
            ({"limit": 101}, "RequestInvalid"),
        ):
            answer = stand.http.get(path, params=query, headers=stand.key("brand"))
            assert (answer.status_code, answer.json()["code"]) == (400, code)
        for limit in (1, 100):
            assert stand.http.get(path, params={"limit": limit}, headers=stand.key("brand")).status_code == 200
        assert stand.http.delete(f"{PATH}/{made['webhook_id']}", headers=stand.key("brand")).status_code == 204


def test_listeners_are_looked_up_often_enough() -> None:
    assert LISTENERS_CACHED_S <= 5
