"""A message gateway that misbehaves on purpose, as a process of its own, so that one-time codes travel over real HTTP.

    python -m loadtest.messages --port 9100 --token secret --drop 0.3 --seed 7

`POST /messages` with {"id", "phone", "template", "language", "code", "expires_at"} sends a message before anything can
go wrong, once for each id; the same id with another body gets 409. `GET /messages` tells what was really sent, for a
test to compare with.
"""

import argparse
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BODY_BYTES_MAX = 4096
_FIELDS = ("id", "phone", "template", "language", "code", "expires_at")


@dataclass(frozen=True)
class Misbehaviour:
    """What goes wrong: probabilities 0..1, chosen by `seed`."""

    delay_s: float = 0.0
    """Every answer waits this long."""
    drop: float = 0.0
    """The message is sent, then the connection is cut, or the answer is 500: one as often as the other."""
    fail: float = 0.0
    """The answer is 503, and nothing was sent."""
    refuse: frozenset[str] = frozenset()
    """Phone numbers that get nothing: refused for good, and repeated in the answer, as gateways do."""
    seed: int = 0


class MessageServer(ThreadingHTTPServer):
    """Listens on the loopback interface only. Messages by id, with how often each was submitted."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, token: str, misbehaviour: Misbehaviour) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.token = token
        self.misbehaviour = misbehaviour
        self._random = random.Random(misbehaviour.seed)
        self._lock = threading.Lock()
        self._messages: dict[str, dict[str, Any]] = {}

    def hits(self, probability: float) -> bool:
        with self._lock:
            return self._random.random() < probability

    def submit(self, body: dict[str, str]) -> int:
        """Send a message, once for its id; the HTTP status."""
        with self._lock:
            known = self._messages.get(body["id"])
            if known is None:
                self._messages[body["id"]] = {**body, "submissions": 1}
                return 202
            known["submissions"] += 1
            return 202 if all(known[field] == body[field] for field in _FIELDS) else 409

    def sent(self) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(message) for message in self._messages.values()]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MessageServer

    def do_POST(self) -> None:
        body = self._body()
        misbehaviour = self.server.misbehaviour
        time.sleep(misbehaviour.delay_s)
        if self.path != "/messages" or body is None or self.headers.get("Idempotency-Key") != body["id"]:
            return self._answer(400, {"state": "malformed"})
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._answer(401, {"state": "who are you"})
        if body["phone"] in misbehaviour.refuse:
            return self._answer(422, {"state": "refused", "phone": body["phone"]})
        if self.server.hits(misbehaviour.fail):
            return self._answer(503, {"state": "busy"})
        status = self.server.submit(body)
        if self.server.hits(misbehaviour.drop):
            return self._drop()
        return self._answer(status, {"id": body["id"], "state": "sent" if status == 202 else "conflict"})

    def do_GET(self) -> None:
        if self.path == "/messages":
            return self._answer(200, {"messages": self.server.sent()})
        return self._answer(404, {"state": "unknown"})

    def _body(self) -> dict[str, str] | None:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= BODY_BYTES_MAX:
            return None
        try:
            body = json.loads(self.rfile.read(length))
        except ValueError:
            return None
        good = isinstance(body, dict) and all(isinstance(body.get(field), str) for field in _FIELDS)
        return body if good else None

    def _drop(self) -> None:
        if self.server.hits(0.5):
            return self._answer(500, {"state": "error"})
        self.close_connection = True
        return None

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: bodies are not for the console."""


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A message gateway that misbehaves on purpose.")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1; 0: any free port, printed at the start")
    parser.add_argument("--token", default="", help="what Authorization: Bearer must say")
    parser.add_argument("--delay-s", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--drop", type=float, default=0.0, help="probability of sending, then not answering")
    parser.add_argument("--fail", type=float, default=0.0, help="probability of answering 503 and sending nothing")
    parser.add_argument(
        "--refuse", action="append", default=[], metavar="PHONE", help="a number to refuse (repeatable)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same decisions")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Serve until the process is stopped."""
    asked = _arguments(given)
    misbehaviour = Misbehaviour(
        delay_s=asked.delay_s, drop=asked.drop, fail=asked.fail, refuse=frozenset(asked.refuse), seed=asked.seed
    )
    server = MessageServer(asked.port, asked.token, misbehaviour)
    print(f"messages on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
