"""Asking an ASGI application in this process: requests, how their callers prove who they are, and answers."""

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlencode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver
from http_message_signatures.algorithms import ED25519

from loyalty.fulfilment import callbacks
from tests.scan_api.shop_scanner import COVERED, TAG

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """A refusal's code; empty when it is none, or a page."""
        kind = self.headers.get("content-type", "")
        return str(json.loads(self.body)["code"]) if kind == "application/problem+json" and self.body else ""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, before its caller proves who he is."""

    method: str
    target: str
    """Path and query, percent-encoded."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_of_pages(self) -> bool:
        return not self.target.startswith(("/v1/", "/epcis/", "/packages/")) or "text/html" in self.headers["accept"]


Proof = Callable[[Request], Mapping[str, str]]
"""The headers by which a caller proves who he is, for a request."""


def bearer(token: str) -> Proof:
    return lambda _request: {"authorization": f"Bearer {token}"}


def session_of(token: str) -> Proof:
    """A member's session: in the cookie for pages, as a bearer token elsewhere."""
    return lambda request: (
        {"cookie": f"fanxing_session={token}"} if request.is_of_pages else {"authorization": f"Bearer {token}"}
    )


def signature_of(key: Ed25519PrivateKey, device_id: str | None = None) -> Proof:
    """RFC 9421, as docs/scanner-api.md says; without an id by the public key itself, as an enrolment is signed."""

    def signed(request: Request) -> Mapping[str, str]:
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        headers = {**request.headers, "content-digest": f"sha-256=:{digest}:"}
        headers.setdefault("content-type", "application/json")
        message = SimpleNamespace(method=request.method, url=f"https://server.invalid{request.target}", headers=headers)
        key_id = device_id or public_text(key)
        resolver = MappingKeyResolver(public_keys={}, private_keys={key_id: key})
        HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=resolver).sign(
            message,  # type: ignore[arg-type]  # any message will do
            key_id=key_id,
            created=datetime.now(UTC),
            covered_component_ids=COVERED,
            label="sig1",
            tag=TAG,
            nonce=base64.b64encode(os.urandom(16)).decode(),
            use_existing_digest=True,
        )
        return {name: value for name, value in headers.items() if name not in request.headers}

    return signed


def public_text(key: Ed25519PrivateKey) -> str:
    return base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()


def provider_signature(secret: str) -> Proof:
    def signed(request: Request) -> Mapping[str, str]:
        timestamp, event_id = str(int(datetime.now(UTC).timestamp())), str(uuid.uuid4())
        return {
            "fanxing-timestamp": timestamp,
            "fanxing-event-id": event_id,
            "fanxing-signature": callbacks.sign(secret, timestamp, event_id, request.body),
        }

    return signed


def json_request(method: str, path: str, body: Any = None) -> Request:
    """A request of a client that reads JSON, under an idempotency key of its own."""
    headers = {"accept": "application/json", "idempotency-key": str(uuid.uuid4())}
    if body is None:
        return Request(method, path, headers)
    return Request(method, path, {**headers, "content-type": "application/json"}, json.dumps(body).encode())


def form_request(path: str, fields: dict[str, str]) -> Request:
    """A form of ours, sent by a browser."""
    headers = {"accept": "text/html", "accept-language": "en", "sec-fetch-site": "same-origin", "content-type": FORM}
    return Request("POST", path, headers, urlencode(fields).encode())


def page_request(path: str) -> Request:
    """A browser that opens a page."""
    return Request("GET", path, {"accept": "text/html", "accept-language": "en"})


async def ask(app: Any, request: Request) -> Answer:
    """One request to an ASGI application, without a client: thousands of them are asked. The method WEBSOCKET is the
    opening of one, which is answered 101 when it is let in.
    """
    path, _, query = request.target.partition("?")
    headers = {"host": "id.example.cn", "content-length": str(len(request.body)), **request.headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "https",
        "path": _unquoted(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 40_000),
        "server": ("id.example.cn", 443),
        "state": {},
    }
    kind = "http"
    arriving = [{"type": "http.request", "body": request.body, "more_body": False}]
    if request.method == "WEBSOCKET":
        del scope["method"]
        kind = "websocket"
        scope |= {"type": kind, "scheme": "wss", "extensions": {"websocket.http.response": {}}, "subprotocols": []}
        arriving = [{"type": "websocket.connect"}]  # who is let in goes at once
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return arriving.pop() if arriving else {"type": f"{kind}.disconnect", "code": 1005}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Answer(sent[0].get("status", 101), told, b"".join(message.get("body", b"") for message in sent[1:]))


def _unquoted(path: str) -> str:
    return unquote(path, "latin-1").encode("latin-1").decode("utf-8", "replace")
