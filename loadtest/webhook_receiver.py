"""A receiver of webhooks that misbehaves when told to, as a process of its own.

    python -m loadtest.webhook_receiver --port 9001

`POST /KIND/anything` takes a webhook and behaves as KIND says: `ok` answers 204, `500` and other numbers answer that
status, `flaky` answers 500 at a message's first arrival and 204 later, `slow` waits 60 s, `lost` cuts the connection
after it took the message, `huge` answers 204's opposite: a body without end, `redirect` sends elsewhere. `GET /seen`
tells every arrival, for a test to compare with: path, headers and body, in the order in which they came.
"""

import argparse
import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BODY_BYTES_MAX = 64 * 1024
SLOW_S = 60.0
_CHUNK = b"x" * 65_536


class Receiver(ThreadingHTTPServer):
    """What arrived, in order."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.seen: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def take(self, path: str, headers: dict[str, str], body: str) -> bool:
        """Note an arrival; whether this message came for the first time."""
        with self.lock:
            known = any(
                (one["path"], one["headers"].get("webhook-id")) == (path, headers.get("webhook-id"))
                for one in self.seen
            )
            self.seen.append({"path": path, "headers": headers, "body": body, "at": time.time()})
            return not known


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_GET(self) -> None:
        if self.path != "/seen":
            self.server.take(self.path, _headers(self), "")
            self._answer(200, b"{}")
            return
        with self.server.lock:
            content = json.dumps(self.server.seen).encode()
        self._answer(200, content)

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        if length > BODY_BYTES_MAX:
            self._answer(413)
            return
        is_first = self.server.take(self.path, _headers(self), self.rfile.read(length).decode())
        kind = self.path.split("/")[1]
        if kind == "slow":
            self.server.closing.wait(SLOW_S)
        elif kind == "lost":
            self.close_connection = True
        elif kind == "huge":
            self._never_ending()
        elif kind == "redirect":
            self._answer(302, headers={"location": "/ok/elsewhere"})
        elif kind == "flaky":
            self._answer(500 if is_first else 204)
        else:
            self._answer(int(kind) if kind.isdigit() else 204)

    def _never_ending(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.closing.is_set():
                self.wfile.write(_CHUNK)
        except OSError:  # it had enough
            return

    def _answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: what arrives may be anything."""


def _headers(request: BaseHTTPRequestHandler) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Listen on 127.0.0.1 and say where; port 0 is any that is free."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9001)
    with Receiver(parser.parse_args(arguments).port) as receiver:
        print(f"webhook receiver listening on http://127.0.0.1:{receiver.server_address[1]}", flush=True)
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            receiver.closing.set()


if __name__ == "__main__":
    main()
