"""A provider of mobile data and cash that misbehaves on purpose, as a process of its own.

    python -m loadtest.carrier --port 9000 --state carrier.sqlite --drop 0.3 --fail 0.1 --seed 7

It speaks the contract of docs/loyalty/fulfilment.md: `PUT /orders/{id}`, `GET /orders/{id}`, `GET /statements/{date}`,
and signed callbacks. What becomes of an order, and what goes wrong on the way, depends on its id and the seed alone.
Orders go one state further when they are asked for, and all of them at `POST /advance`, which also sends what callbacks
are due. `GET /statistics` tells what really happened, for a test to compare with.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from loadtest.carrier_book import OrderBook
from loadtest.carrier_fate import Fate, Misbehaviour
from loadtest.carrier_post import CallbackPost

BODY_BYTES_MAX = 4096
_KINDS = ("data", "cash")


class CarrierServer(ThreadingHTTPServer):
    """Listens on the loopback interface only."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, book: OrderBook, fate: Fate, post: CallbackPost) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.book = book
        self.fate = fate
        self.post = post

    def advance(self) -> None:
        """Bring every order one state further, and send what callbacks are due."""
        self.book.advance_all()
        self.post.deliver()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: CarrierServer

    def do_PUT(self) -> None:
        order_id, body = self._order_id(), self._body()
        if order_id is None or body is None:
            return self._answer(400, {"state": "malformed"})
        chance = self.server.fate.of(order_id, f"submission {self.server.book.count(order_id, 'arrivals')}")
        if chance.hits("lose"):
            return self._cut(chance.hits("half"))
        status, order = self.server.book.submit(order_id, body)
        if status != 409 and chance.hits("duplicate"):
            self.server.book.submit(order_id, body)
        return self._say(chance, status, order)

    def do_GET(self) -> None:
        if self.path == "/statistics":
            return self._answer(200, self.server.book.statistics())
        if self.path.startswith("/statements/"):
            return self._statement(self.path.removeprefix("/statements/"))
        order_id = self._order_id()
        if order_id is None:
            return self._answer(404, {"state": "unknown"})
        chance = self.server.fate.of(order_id, f"query {self.server.book.count(order_id, 'questions')}")
        if chance.hits("lose"):
            return self._cut(chance.hits("half"))
        return self._say(chance, *self.server.book.query(order_id))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/advance":
            return self._answer(404, {"state": "unknown"})
        self.server.advance()
        return self._answer(200, {"callbacks_waiting": self.server.book.callbacks_waiting()})

    def _say(self, chance: Any, status: int, order: dict[str, Any]) -> None:
        time.sleep(self.server.fate.misbehaviour.delay_s * chance.share("delay") * 2)
        if chance.hits("drop"):
            return self._cut(chance.hits("half"))
        return self._answer(status, order)

    def _statement(self, day: str) -> None:
        lines = self.server.book.statement(day)
        content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        return self._send(200, content, "application/x-ndjson")

    def _order_id(self) -> str | None:
        prefix, _, order_id = self.path.rpartition("/")
        return order_id if prefix == "/orders" and order_id else None

    def _body(self) -> dict[str, Any] | None:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= BODY_BYTES_MAX:
            return None
        try:
            body = json.loads(self.rfile.read(length))
        except ValueError:
            return None
        good = (
            isinstance(body, dict)
            and body.get("kind") in _KINDS
            and isinstance(body.get("phone"), str)
            and type(body.get("amount")) is int
            and body["amount"] > 0
        )
        return body if good else None

    def _cut(self, with_an_error: bool) -> None:
        if with_an_error:
            return self._answer(500, {"state": "error"})
        self.close_connection = True
        return None

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        return self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: paths and bodies are not for the console."""


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A provider of mobile data and cash that misbehaves on purpose.")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1; 0: any free port, printed at the start")
    parser.add_argument("--state", type=Path, required=True, help="SQLite file that keeps the orders")
    parser.add_argument("--name", default="carrier", help="what its statements are headed with")
    parser.add_argument("--delay-s", type=float, default=0.0, help="mean seconds before an answer")
    chances = parser.add_argument_group("what goes wrong, as probabilities 0..1")
    chances.add_argument("--lose", type=float, default=0.0, help="a request never arrives")
    chances.add_argument("--drop", type=float, default=0.0, help="it arrives, and its answer does not")
    chances.add_argument("--duplicate", type=float, default=0.0, help="a submission or callback arrives twice")
    chances.add_argument("--fail", type=float, default=0.0, help="an order is refused for good")
    chances.add_argument("--reverse", type=float, default=0.0, help="a completed order is reversed")
    chances.add_argument("--lie", type=float, default=0.0, help="an order is refused, and delivered all the same")
    chances.add_argument("--await-user", type=float, default=0.0, help="the member has to confirm; half of them do")
    chances.add_argument("--lose-callback", type=float, default=0.0, help="a callback is never sent")
    chances.add_argument("--shuffle", type=float, default=0.0, help="a callback is sent an advance too late")
    chances.add_argument("--wrong-amount", type=float, default=0.0, help="a statement's line is 1 too high")
    chances.add_argument("--omit-line", type=float, default=0.0, help="a statement lacks an order")
    chances.add_argument("--repeat-line", type=float, default=0.0, help="a statement has a line twice")
    parser.add_argument(
        "--refuse", action="append", default=[], metavar="PHONE", help="a number to refuse (repeatable)"
    )
    parser.add_argument("--queries-until-settled", type=int, default=1, help="states before the end; 0: ends at once")
    parser.add_argument("--callback", default="", metavar="URL", help="where callbacks go; without it there are none")
    parser.add_argument("--callback-secret", default="", help="what they are signed with")
    parser.add_argument("--advance-s", type=float, default=0.0, help="advance by itself, this often")
    parser.add_argument("--today", default="", metavar="YYYY-MM-DD", help="pretend that it is always this day")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same decisions")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Serve until the process is stopped."""
    asked = vars(_arguments(given))
    asked["refuse"] = frozenset(asked["refuse"])
    misbehaviour = Misbehaviour(**{one.name: asked[one.name] for one in fields(Misbehaviour)})
    fate = Fate(misbehaviour)
    book = OrderBook(asked["state"], fate, asked["name"], asked["today"])
    server = CarrierServer(asked["port"], book, fate, CallbackPost(book, asked["callback"], asked["callback_secret"]))
    if asked["advance_s"] > 0:
        Thread(target=_advance_for_ever, args=(server, asked["advance_s"]), daemon=True).start()
    print(f"carrier on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


def _advance_for_ever(server: CarrierServer, every_s: float) -> None:
    while True:
        time.sleep(every_s)
        server.advance()


if __name__ == "__main__":
    main()
