"""A small real server of the device protocol, in a thread: it verifies signatures and keeps records in a dict."""

import base64
import gzip
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
)
from http_message_signatures.algorithms import ED25519

CREATED_TOLERANCE_S = 300
COVERED = ("@method", "@path", "content-digest", "content-type", "content-encoding")
RESENT_OTHERWISE = ("elapsed_ms",)  # these fields of a record tell the time of sending


class ClockSkewed(Exception):
    """The signature was made too far from the server's time."""


@dataclass
class Canned:
    """An answer given once instead of the right one."""

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class DeviceServer:
    """What the server knows. `clock_ahead_s` is how far its clock is from this machine's."""

    pin: str = "ab" * 32
    clock_ahead_s: int = 0
    codes: dict[str, str | None] = field(default_factory=dict)
    """Enrolment codes, each with the public key that used it."""
    devices: dict[str, str] = field(default_factory=dict)
    """Device ids with their public keys."""
    revoked: set[str] = field(default_factory=set)
    never_issued: set[str] = field(default_factory=set)
    """Serials whose records are refused."""
    records: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    """Every batch that was right, repeated ones too."""
    canned: deque[Canned] = field(default_factory=deque)
    trust: bytes | None = None
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0
    wait: Callable[[], object] = lambda: None
    """Called before each answer."""

    def __enter__(self) -> "DeviceServer":
        outer = self

        class Handler(_Handler):
            server_state = outer

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def now_s(self) -> float:
        return time.time() + self.clock_ahead_s

    def post(self, path: str, keyid: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a request whose signature was right."""
        with self.lock:
            self.requests += 1
            if path == "/v1/devices":
                return self._enrol(keyid, body)
            if keyid in self.revoked:
                return 403, refusal("DeviceRevoked")
            assert path == f"/v1/devices/{keyid}/scans"
            self.batches.append(body)
            answers = [self._keep(keyid, body["journal"], record) for record in body["records"]]
            return 200, {"server_time_ms": int(self.now_s() * 1000), "answers": answers}

    def _enrol(self, keyid: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert keyid == body["public_key"]
        if body["code"] not in self.codes:
            return 400, refusal("EnrolmentCodeInvalid")
        if self.codes[body["code"]] not in (None, keyid):
            return 409, refusal("EnrolmentCodeUsed")
        self.codes[body["code"]] = keyid
        known = {public: device_id for device_id, public in self.devices.items()}
        device_id = known.get(keyid) or str(uuid4())
        self.devices[device_id] = keyid
        return 201, {
            "device_id": device_id,
            "domain": "demo.example",
            "brand": "Demo Dairy",
            "pin": self.pin,
            "server_time_ms": int(self.now_s() * 1000),
        }

    def _keep(self, device_id: str, journal: str, record: dict[str, Any]) -> dict[str, Any]:
        key = (device_id, journal, record["number"])
        content = {name: value for name, value in record.items() if name not in RESENT_OTHERWISE}
        is_new = key not in self.records
        if not is_new and self.records[key] != content:
            return {"number": record["number"], "status": "refused", "error": "NumberReused"}
        self.records[key] = content
        if record["serial"] in self.never_issued:
            return {"number": record["number"], "status": "refused", "error": "NeverIssued"}
        return {"number": record["number"], "status": "accepted" if is_new else "duplicate", "error": None}


def refusal(code: str) -> dict[str, Any]:
    return {"type": f"urn:fanxing:problem:{code}", "title": code, "status": 400, "detail": "refused", "code": code}


class _Verifier(HTTPMessageVerifier):
    """Checks the time of a signature against a server clock of the test's choice."""

    now_s = 0.0

    def validate_created_and_expires(self, sig_input: Any, max_age: timedelta | None = None) -> None:
        if abs(sig_input.params["created"] - self.now_s) > CREATED_TOLERANCE_S:
            raise ClockSkewed


class _Keys(HTTPSignatureKeyResolver):
    def __init__(self, devices: dict[str, str]) -> None:
        self._devices = devices

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        text = self._devices.get(key_id, key_id)  # at enrolment the key is its own name
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


class _Request:
    def __init__(self, method: str, url: str, headers: dict[str, str]) -> None:
        self.method, self.url, self.headers = method, url, headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: DeviceServer

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        content = self.rfile.read(length)
        if len(content) < length:  # the link broke
            self.close_connection = True
            return
        if not self._canned():
            self._answer(*self._judge(content))

    def do_GET(self) -> None:
        if self._canned():
            return
        trust = self.server_state.trust
        if trust is None:
            self._send(204, {}, b"")
        else:
            self._send(200, {"Content-Type": "application/cbor-seq"}, trust)

    def _judge(self, content: bytes) -> tuple[int, dict[str, Any]]:
        state = self.server_state
        request = _Request("POST", state.url + self.path, dict(self.headers.items()))
        verifier = _Verifier(signature_algorithm=ED25519, key_resolver=_Keys(state.devices))
        verifier.now_s = state.now_s()
        try:
            [verified] = verifier.verify(
                request, expect_tag="fanxing-device", expect_label="sig1", require_components=COVERED, body=content
            )
        except ClockSkewed:
            return 401, refusal("SignatureClockSkewed")
        except InvalidSignature:
            return 401, refusal("DeviceSignatureRefused")
        assert verified.nonce is not None
        assert len(base64.b64decode(verified.nonce)) == 16
        assert verified.parameters["alg"] == "ed25519"
        assert datetime.fromtimestamp(int(verified.parameters["created"]), UTC)
        return state.post(self.path, str(verified.parameters["keyid"]), json.loads(gzip.decompress(content)))

    def _canned(self) -> bool:
        state = self.server_state
        with state.lock:
            canned = state.canned.popleft() if state.canned else None
        if canned is None:
            return False
        self._send(canned.status, {"Content-Type": canned.content_type, **canned.headers}, canned.body)
        return True

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        media_type = "application/json" if status < 400 else "application/problem+json"
        self._send(status, {"Content-Type": media_type}, json.dumps(body).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.server_state.wait()
        try:
            self.send_response(status)
            self.send_header("Fanxing-Time", str(int(self.server_state.now_s() * 1000)))
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204 and "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)
            self.close_connection = True
        except OSError:  # the link broke
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Quiet."""
