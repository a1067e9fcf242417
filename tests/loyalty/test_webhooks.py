"""Webhooks: each event reaches each endpoint at least once, signed; receivers that misbehave hurt themselves alone."""

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlmodel import col, select

from kit import vault as vaults
from kit.db import Database, Session
from kit.outbox import OutboxMessage
from kit.paging import Position
from kit.vault import Vault
from loyalty import web_posts, web_targets, webhook_worker, webhooks
from loyalty.web_targets import WebTargetRefused
from loyalty.webhook_worker import DISABLE_AFTER, DISABLE_AFTER_FAILURES, RETRY_AFTER, Worker
from loyalty.webhooks import (
    DeliveryState,
    Disabled,
    TooManyWebhooks,
    WebhookDelivery,
    WebhookDisabled,
    WebhookEndpoint,
    WebhookInvalid,
    WebhookKind,
    WebhookUnknown,
)

NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
BRAND, SLUG = 7, "star-cream"
SUBJECT = uuid.UUID("0197f0f0-0000-7000-8000-0000000000aa")
CLAIM = {"claim_id": str(SUBJECT), "points": 100}


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Receiver:
    """`python -m loadtest.webhook_receiver`, and what it has seen."""

    url: str
    _seen_before: int = 0

    def seen(self) -> list[dict[str, Any]]:
        """What arrived since the last call."""
        everything = httpx2.get(f"{self.url}/seen", trust_env=False, verify=False).json()
        new = everything[self._seen_before :]
        self._seen_before = len(everything)
        return list(new)


@pytest.fixture(scope="module")
def receiver_process() -> Iterator[Receiver]:
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest.webhook_receiver", "--port", "0"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield Receiver(process.stdout.readline().split()[-1])
    process.kill()
    process.communicate()


@pytest.fixture
def receiver(receiver_process: Receiver) -> Receiver:
    receiver_process.seen()
    return receiver_process


@dataclass
class Room:
    """A database with a vault, a clock, and a worker at hand."""

    database: Database
    vault: Vault
    clock: Clock = field(default_factory=Clock)
    _worker: Worker | None = None

    def worker(self) -> Worker:
        """One worker: each loads all certificate authorities of the world."""
        if self._worker is None:
            self._worker = Worker(self.database, self.vault, "private", self.clock)
        return self._worker

    async def add(self, url: str, *kinds: WebhookKind, brand_id: int = BRAND) -> tuple[WebhookEndpoint, str]:
        async with self.database.writing() as session:
            return await webhooks.add(
                session, self.vault, brand_id, SLUG, url, kinds or (WebhookKind.CLAIM_MADE,), self.clock()
            )

    async def emit(self, kind: WebhookKind = WebhookKind.CLAIM_MADE, brand_id: int = BRAND) -> None:
        async with self.database.writing() as session:
            await webhooks.emit(session, brand_id, kind, SUBJECT, CLAIM, self.clock())

    async def delivery(self) -> WebhookDelivery:
        async with self.database.reading() as session:
            return (await session.exec(select(WebhookDelivery))).one()

    async def endpoint(self, endpoint_id: uuid.UUID) -> WebhookEndpoint:
        async with self.database.reading() as session:
            return await session.get_one(WebhookEndpoint, endpoint_id)

    async def undone(self) -> list[OutboxMessage]:
        async with self.database.reading() as session:
            return list((await session.exec(select(OutboxMessage).where(col(OutboxMessage.done_at).is_(None)))).all())


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database, Vault(vaults.new_key()))


def signs(secret: str, arrived: dict[str, Any]) -> bool:
    """Whether one of the signatures is by this secret, computed as the specification says and not by our code."""
    headers = arrived["headers"]
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{arrived['body']}"
    expected = base64.b64encode(hmac.new(key, message.encode(), hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")


# ---- what is sent


async def test_an_event_reaches_who_listens_signed_and_in_full(room: Room, receiver: Receiver) -> None:
    endpoint, secret = await room.add(f"{receiver.url}/ok/crm?shop=3")
    await room.emit()
    assert await room.worker().send_due(endpoint.topic) is False
    [arrived] = receiver.seen()
    told = json.loads(arrived["body"])
    assert told == {
        "type": "claim.made",
        "id": arrived["headers"]["webhook-id"],
        "at": "2026-05-01T08:00:00.000Z",
        "brand": SLUG,
        "subject_id": str(SUBJECT),
        "data": CLAIM,
    }
    assert arrived["path"] == "/ok/crm?shop=3"
    assert arrived["headers"]["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert (arrived["headers"]["content-type"], arrived["headers"]["host"]) == (
        "application/json",
        receiver.url.removeprefix("http://"),
    )
    assert (signs(secret, arrived), signs("whsec_" + base64.b64encode(b"x" * 32).decode(), arrived)) == (True, False)
    row = await room.delivery()
    assert (row.state, row.attempts, row.last_status, row.next_attempt_at) == (DeliveryState.DELIVERED, 1, 204, None)
    assert await room.undone() == []


@pytest.mark.parametrize(("kind", "brand_id"), [(WebhookKind.TIER_CHANGED, BRAND), (WebhookKind.CLAIM_MADE, BRAND + 1)])
async def test_nothing_is_left_behind_where_nobody_listens(room: Room, kind: WebhookKind, brand_id: int) -> None:
    await room.add("https://crm.example/")
    await room.emit(kind, brand_id)
    assert await room.undone() == []


async def test_an_event_of_a_transaction_that_failed_is_never_told(room: Room) -> None:
    await room.add("https://crm.example/")

    async def fail() -> None:
        async with room.database.writing() as session:
            await webhooks.emit(session, BRAND, WebhookKind.CLAIM_MADE, SUBJECT, CLAIM, NOW)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await room.undone() == []


async def test_a_process_looks_for_listeners_once_and_then_remembers(room: Room) -> None:
    await room.emit()
    async with room.database.writing() as session:
        session.add(
            WebhookEndpoint(
                endpoint_id=SUBJECT, brand_id=BRAND, brand_slug=SLUG, url="https://x.example/", topic="webhook/x",
                kinds=["claim.made"], secret_sealed=b"", created_at=NOW,
            )
        )  # fmt: skip
    await room.emit()  # as another process that did not hear of it yet
    assert await room.undone() == []
    webhooks._cached.clear()
    await room.emit()
    assert len(await room.undone()) == 1


async def test_both_secrets_sign_until_the_old_one_runs_out(room: Room, receiver: Receiver) -> None:
    endpoint, old = await room.add(f"{receiver.url}/ok/rotated")
    async with room.database.writing() as session:
        until, new = await webhooks.rotate(session, room.vault, endpoint.endpoint_id, NOW)
    assert until == NOW + webhooks.ROTATION_OVERLAP
    signed = []
    for moment in (NOW, until - timedelta(seconds=1), until):
        room.clock.now = moment
        await room.emit()
        await room.worker().send_due(endpoint.topic)
        [arrived] = receiver.seen()
        signed.append((signs(old, arrived), signs(new, arrived)))
    assert signed == [(True, True), (True, True), (False, True)]


async def test_a_secret_is_sealed_and_bound_to_its_endpoint(room: Room) -> None:
    endpoint, secret = await room.add("https://crm.example/")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stored = await room.endpoint(endpoint.endpoint_id)
    assert key not in stored.secret_sealed
    assert len(key) == webhooks.SECRET_BYTES
    other, _ = await room.add("https://crm.example/2")
    other.secret_sealed = stored.secret_sealed
    with pytest.raises(vaults.VaultSealBroken):
        webhooks.signature(room.vault, other, SUBJECT, 1, b"{}", NOW)


# ---- receivers that misbehave


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("500", 500, None),
        ("404", 404, None),
        ("redirect", 302, None),
        ("lost", None, "RemoteProtocolError"),
    ],
)
async def test_a_failed_attempt_is_noted_and_made_again_under_the_same_id(
    room: Room, receiver: Receiver, kind: str, status: int | None, error: str | None
) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/{kind}/x")
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    row = await room.delivery()
    assert (row.state, row.attempts, row.last_status, row.last_error) == (DeliveryState.WAITING, 1, status, error)
    assert row.next_attempt_at is not None
    assert RETRY_AFTER[0] <= row.next_attempt_at - NOW <= RETRY_AFTER[0] * 1.1
    room.clock.now = row.next_attempt_at - timedelta(milliseconds=1)
    await room.worker().send_due(endpoint.topic)
    room.clock.now = row.next_attempt_at
    await room.worker().send_due(endpoint.topic)
    first, second = receiver.seen()
    assert (await room.delivery()).attempts == 2
    assert first["headers"]["webhook-id"] == second["headers"]["webhook-id"]
    assert first["body"] == second["body"]
    assert first["headers"]["webhook-timestamp"] != second["headers"]["webhook-timestamp"]


async def test_a_receiver_that_recovers_is_reached_and_forgiven(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/flaky/x")
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    assert (await room.endpoint(endpoint.endpoint_id)).failures == 1
    room.clock.now += timedelta(minutes=1)
    await room.worker().send_due(endpoint.topic)
    stored = await room.endpoint(endpoint.endpoint_id)
    assert ((await room.delivery()).state, stored.failures, stored.failing_since) == (DeliveryState.DELIVERED, 0, None)


async def test_an_endless_answer_is_left_where_it_is(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/huge/x")
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    assert (await room.delivery()).state == DeliveryState.DELIVERED


async def test_a_slow_receiver_holds_up_nobody_else(room: Room, receiver: Receiver) -> None:
    slow, _ = await room.add(f"{receiver.url}/slow/x")
    quick, _ = await room.add(f"{receiver.url}/ok/x")
    for _ in range(20):
        await room.emit()
    running = asyncio.create_task(room.worker().run(asyncio.Event()))

    async def noted(endpoint: WebhookEndpoint) -> int:
        async with room.database.reading() as session:
            return len(await webhooks.deliveries_of(session, endpoint.endpoint_id, None, 100))

    while await noted(quick) < 20:
        assert not running.done()
        await asyncio.sleep(0.02)
    assert await noted(slow) == 0  # eight of them wait for their answers
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_answer_that_does_not_come_in_time_is_a_failure(
    room: Room, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_posts, "TIMEOUT_S", 1.0)
    endpoint, _ = await room.add(f"{receiver.url}/slow/x")
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    row = await room.delivery()
    assert (row.state, row.last_status, row.last_error) == (DeliveryState.WAITING, None, "no answer in 1 s")


async def test_two_workers_share_the_work(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/ok/shared")
    for _ in range(40):
        await room.emit()

    async def work(worker: Worker) -> None:
        while await worker.send_due(endpoint.topic):
            pass

    await asyncio.gather(work(room.worker()), work(Worker(room.database, room.vault, "private", room.clock)))
    ids = [arrived["headers"]["webhook-id"] for arrived in receiver.seen()]
    assert (len(ids), len(set(ids))) == (40, 40)


async def test_a_sender_that_died_after_sending_sends_again_under_the_same_id(
    room: Room, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/ok/died")
    await room.emit()

    async def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(webhook_worker, "_note", die)
        with pytest.raises(KeyboardInterrupt):
            await room.worker().send_due(endpoint.topic)
    await room.worker().send_due(endpoint.topic)  # its lease still runs
    assert len(receiver.seen()) == 1
    room.clock.now += webhook_worker.LEASE
    await room.worker().send_due(endpoint.topic)
    [again] = receiver.seen()
    row = await room.delivery()
    assert (str(row.event_id), row.state) == (again["headers"]["webhook-id"], DeliveryState.DELIVERED)


# ---- giving up


@pytest.mark.parametrize("attempts", range(1, len(RETRY_AFTER) + 1))
def test_waits_grow_and_chance_lengthens_them(attempts: int) -> None:
    wait = RETRY_AFTER[attempts - 1]
    assert webhook_worker.retry_after(attempts, 0.0) == wait
    assert webhook_worker.retry_after(attempts, 1.0) == wait * 1.1


def test_ten_attempts_take_about_three_days() -> None:
    assert webhook_worker.retry_after(len(RETRY_AFTER) + 1, 0.0) is None
    assert list(RETRY_AFTER) == sorted(RETRY_AFTER)
    assert timedelta(days=3) < sum(RETRY_AFTER, timedelta(0)) < timedelta(days=4)


async def _fail_until_given_up(room: Room, endpoint: WebhookEndpoint) -> WebhookDelivery:
    worker = room.worker()
    while (message := next(iter(await room.undone()), None)) is not None:
        room.clock.now = max(room.clock.now, message.due_at)
        await worker.send_due(endpoint.topic)
    return await room.delivery()


async def test_after_the_last_attempt_a_message_is_given_up_and_can_be_resent(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/500/x")
    await room.emit()
    row = await _fail_until_given_up(room, endpoint)
    assert (row.state, row.attempts, row.next_attempt_at) == (DeliveryState.GIVEN_UP, len(RETRY_AFTER) + 1, None)
    first_id = {arrived["headers"]["webhook-id"] for arrived in receiver.seen()}
    async with room.database.writing() as session:
        stored = await session.get_one(WebhookEndpoint, endpoint.endpoint_id)
        stored.url = f"{receiver.url}/ok/x"
        session.add(stored)
        await webhooks.resend(session, stored, row.event_id, room.clock())
    await room.worker().send_due(endpoint.topic)
    [again] = receiver.seen()
    assert first_id == {again["headers"]["webhook-id"]}
    assert (await room.delivery()).state == DeliveryState.DELIVERED


@pytest.mark.parametrize(
    ("failures", "since", "disabled"),
    [
        (DISABLE_AFTER_FAILURES - 2, DISABLE_AFTER, False),
        (DISABLE_AFTER_FAILURES - 1, DISABLE_AFTER - timedelta(seconds=1), False),
        (DISABLE_AFTER_FAILURES - 1, DISABLE_AFTER, True),
        (DISABLE_AFTER_FAILURES + 5, DISABLE_AFTER + timedelta(days=1), True),
    ],
)
async def test_an_endpoint_that_failed_often_and_for_long_is_disabled(
    room: Room, receiver: Receiver, failures: int, since: timedelta, disabled: bool
) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/500/x")
    async with room.database.writing() as session:
        stored = await session.get_one(WebhookEndpoint, endpoint.endpoint_id)
        stored.failures, stored.failing_since = failures, NOW - since
        session.add(stored)
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    stored = await room.endpoint(endpoint.endpoint_id)
    assert (stored.failures, stored.disabled_why) == (failures + 1, Disabled.FAILING.value if disabled else None)


async def test_an_endpoint_that_says_it_is_gone_is_disabled_at_once(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/410/x")
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    assert (await room.endpoint(endpoint.endpoint_id)).disabled_why == Disabled.GONE


async def test_a_disabled_endpoint_gives_up_what_waits_and_hears_nothing_new(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/ok/x")
    await room.emit()
    async with room.database.writing() as session:
        await webhooks.disable(session, endpoint.endpoint_id, Disabled.BY_HAND, NOW)
    await room.emit()
    assert len(await room.undone()) == 1
    await room.worker().send_due(endpoint.topic)
    row = await room.delivery()
    assert (row.state, row.attempts, receiver.seen(), await room.undone()) == (DeliveryState.GIVEN_UP, 0, [], [])
    async with room.database.writing() as session:
        stored = await session.get_one(WebhookEndpoint, endpoint.endpoint_id)
        with pytest.raises(WebhookDisabled):
            await webhooks.resend(session, stored, row.event_id, NOW)
        with pytest.raises(WebhookDisabled):
            await webhooks.ping(session, stored, NOW)
        await webhooks.enable(session, endpoint.endpoint_id)
    async with room.database.writing() as session:
        stored = await session.get_one(WebhookEndpoint, endpoint.endpoint_id)
        await webhooks.resend(session, stored, row.event_id, NOW)
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    assert len(receiver.seen()) == 2


async def test_a_ping_goes_to_one_endpoint_whatever_it_listens_to(room: Room, receiver: Receiver) -> None:
    endpoint, secret = await room.add(f"{receiver.url}/ok/pinged")
    await room.add(f"{receiver.url}/ok/other")
    async with room.database.writing() as session:
        event_id = await webhooks.ping(session, endpoint, NOW)
    await room.worker().send_due(endpoint.topic)
    [arrived] = receiver.seen()
    assert (arrived["headers"]["webhook-id"], signs(secret, arrived)) == (str(event_id), True)
    assert json.loads(arrived["body"])["type"] == "webhook.ping"


# ---- endpoints


@pytest.mark.parametrize("kinds", [(), (WebhookKind.PING,), (WebhookKind.CLAIM_MADE, WebhookKind.PING)], ids=len)
async def test_an_endpoint_listens_to_something_that_happens(room: Room, kinds: tuple[WebhookKind, ...]) -> None:
    async with room.database.writing() as session:
        with pytest.raises(WebhookInvalid):
            await webhooks.add(session, room.vault, BRAND, SLUG, "https://x.example/", kinds, NOW)


async def test_a_brand_has_ten_endpoints_and_no_more(room: Room) -> None:
    for number in range(webhooks.ENDPOINTS_PER_BRAND_MAX):
        await room.add(f"https://crm.example/{number}")
    with pytest.raises(TooManyWebhooks):
        await room.add("https://crm.example/more")
    await room.add("https://crm.example/", brand_id=BRAND + 1)


async def test_another_brands_endpoint_is_unknown(room: Room) -> None:
    endpoint, _ = await room.add("https://crm.example/")
    async with room.database.reading() as session:
        assert (await webhooks.endpoint_of(session, BRAND, endpoint.endpoint_id)).url == "https://crm.example/"
        for brand_id, endpoint_id in ((BRAND + 1, endpoint.endpoint_id), (BRAND, SUBJECT)):
            with pytest.raises(WebhookUnknown):
                await webhooks.endpoint_of(session, brand_id, endpoint_id)


async def test_what_is_left_of_a_removed_endpoint_is_swept(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/500/x")
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    async with room.database.writing() as session:
        await webhooks.remove(session, endpoint.endpoint_id)
    async with room.database.writing() as session:
        await webhook_worker.sweep(session, NOW)
    assert await room.undone() == []
    assert await _deliveries(room) == 0


@pytest.mark.parametrize(("age", "left"), [(timedelta(0), 1), (timedelta(seconds=1), 0)], ids=["at", "over"])
async def test_deliveries_are_forgotten_after_thirty_days(
    room: Room, receiver: Receiver, age: timedelta, left: int
) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/ok/x")
    await room.emit()
    await room.worker().send_due(endpoint.topic)
    async with room.database.writing() as session:
        await webhook_worker.sweep(session, NOW + webhook_worker.DELIVERIES_KEPT + age)
    assert await _deliveries(room) == left


async def _deliveries(room: Room) -> int:
    async with room.database.reading() as session:
        return len((await session.exec(select(WebhookDelivery.event_id))).all())


# ---- where requests may go


@pytest.mark.parametrize(
    "url",
    [
        "http://crm.example/",
        "ftp://crm.example/",
        "https:///x",
        "https://",
        "crm.example",
        "https://user@crm.example/",
        "https://user:word@crm.example/",
        "https://crm.example/#part",
        "https://crm.example:99999/",
        "https://crm.example/ x",
        "https://crm.example/\x00",
        "https://店.example/",
        "https://[::1/",
        "https://crm.example/" + "x" * 481,
    ],
    ids=range(14),
)
def test_urls_of_another_form_are_refused(url: str) -> None:
    for targets in ("public", "private"):
        with pytest.raises(WebTargetRefused):
            web_targets.check_url(url, webhooks.URL_CHARACTERS_MAX, targets)


@pytest.mark.parametrize("url", ["https://crm.example/", "https://crm.example:8443/x?y=1", "https://x/" + "x" * 490])
def test_https_urls_are_taken(url: str) -> None:
    web_targets.check_url(url, webhooks.URL_CHARACTERS_MAX, "public")


@pytest.mark.parametrize("host", ["127.0.0.1:9001", "localhost", "[::1]:80"])
def test_http_is_for_this_machine_in_development(host: str) -> None:
    web_targets.check_url(f"http://{host}/", 100, "private")
    with pytest.raises(WebTargetRefused):
        web_targets.check_url(f"http://{host}/", 100, "public")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("198.18.0.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::93.184.215.14", True),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses_are_told_from_all_others(address: str, public: bool) -> None:
    assert web_targets.is_public(ip_address(address)) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "[::1]", "0"])
async def test_no_spelling_of_this_machine_is_public(host: str) -> None:
    with pytest.raises(WebTargetRefused):
        await web_targets.resolve(f"https://{host}/", "public")


async def test_a_name_that_nobody_knows_is_refused() -> None:
    with pytest.raises(WebTargetRefused):
        await web_targets.resolve("https://nobody.invalid/", "private")


async def test_a_connection_goes_to_the_address_that_was_looked_at() -> None:
    target = await web_targets.resolve("https://localhost:8443/x?y=1", "private")
    assert target.url in ("https://127.0.0.1:8443/x?y=1", "https://[::1]:8443/x?y=1")
    assert (target.host, target.authority) == ("localhost", "localhost:8443")
    assert (await web_targets.resolve("https://127.0.0.1/", "private")).authority == "127.0.0.1"


async def test_an_address_is_looked_at_again_when_a_message_is_sent(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(receiver.url.replace("http://", "https://") + "/ok/x")  # public when it was added
    await room.emit()
    await Worker(room.database, room.vault, "public", room.clock).send_due(endpoint.topic)
    row = await room.delivery()
    assert (row.state, row.last_status) == (DeliveryState.WAITING, None)
    assert row.last_error == "the URL leads to an address that is not public"
    assert receiver.seen() == []


async def test_a_list_of_deliveries_is_read_in_pages(room: Room, receiver: Receiver) -> None:
    endpoint, _ = await room.add(f"{receiver.url}/ok/x")
    for _ in range(3):
        room.clock.now += timedelta(seconds=1)
        await room.emit()
    await room.worker().send_due(endpoint.topic)

    async def page(session: Session, after: Any) -> list[WebhookDelivery]:
        return await webhooks.deliveries_of(session, endpoint.endpoint_id, after, 2)

    async with room.database.reading() as session:
        first = await page(session, None)
        last = await page(session, Position(first[-1].at, first[-1].event_id))
    assert [row.at for row in first + last] == [NOW + timedelta(seconds=number) for number in (3, 2, 1)]
