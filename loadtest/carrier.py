"""A mobile carrier that misbehaves on purpose, as a process of its own, so that fulfilment is tested against real HTTP.

    python -m loadtest.carrier --port 9000 --state carrier.sqlite --drop 0.3 --fail 0.1 --seed 7

`PUT /orders/{id}` with {"phone", "megabytes"} records an order durably before anything can go wrong, and answers the
same for the same id and body; another body gets 409. `GET /orders/{id}` answers its state and brings it nearer to being
settled. `GET /statistics` tells what really happened, for a test to compare with.
"""

import argparse
import hashlib
import json
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BODY_BYTES_MAX = 4096
_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY, body TEXT NOT NULL, megabytes INTEGER NOT NULL, state TEXT NOT NULL,
    submissions INTEGER NOT NULL, queries INTEGER NOT NULL, deliveries INTEGER NOT NULL
)
"""


@dataclass(frozen=True)
class Misbehaviour:
    """What goes wrong: probabilities 0..1, chosen by `seed`."""

    delay_s: float = 0.0
    """Every answer waits this long."""
    drop: float = 0.0
    """The order is recorded, then the connection is cut, or the answer is 500: one as often as the other."""
    duplicate: float = 0.0
    """The submission arrives a second time, as networks do it."""
    fail: float = 0.0
    """The order is refused for good."""
    refuse: frozenset[str] = frozenset()
    """Phone numbers that are not this carrier's: refused for good."""
    queries_until_settled: int = 1
    """How often an accepted order must be asked for before it is settled; 0: settled on submission."""
    seed: int = 0


class OrderBook:
    """The carrier's orders, in a SQLite file. Safe to use from several threads."""

    def __init__(self, path: Path, misbehaviour: Misbehaviour) -> None:
        self._misbehaviour = misbehaviour
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(_SCHEMA)

    def submit(self, order_id: str, body: dict[str, Any]) -> tuple[int, str]:
        """Record an order, or find it again: the HTTP status and the order's state."""
        text = json.dumps(body, sort_keys=True)
        with self._lock:
            known = self._find(order_id)
            if known is None:
                state = self._first_state(order_id, body)
                self._connection.execute(
                    "INSERT INTO orders VALUES (?, ?, ?, ?, 1, 0, ?)",
                    (order_id, text, body["megabytes"], state, int(state == "settled")),
                )
                return 201, state
            if known["body"] != text:
                return 409, "conflict"
            self._connection.execute("UPDATE orders SET submissions = submissions + 1 WHERE order_id = ?", (order_id,))
            return 200, str(known["state"])

    def query(self, order_id: str) -> tuple[int, str]:
        """The order's state, after settling it if it has been asked for often enough."""
        with self._lock:
            known = self._find(order_id)
            if known is None:
                return 404, "unknown"
            state = str(known["state"])
            self._connection.execute("UPDATE orders SET queries = queries + 1 WHERE order_id = ?", (order_id,))
            if state in ("accepted", "pending"):
                state = "settled" if known["queries"] + 1 >= self._misbehaviour.queries_until_settled else "pending"
                self._connection.execute(
                    "UPDATE orders SET state = ?, deliveries = deliveries + ? WHERE order_id = ?",
                    (state, int(state == "settled"), order_id),
                )
            return 200, state

    def statistics(self) -> dict[str, Any]:
        """Counts over all orders, and each order's megabytes, state, submissions, queries and deliveries."""
        with self._lock:
            rows = self._connection.execute("SELECT * FROM orders ORDER BY order_id").fetchall()
        delivered = sum(row["megabytes"] * row["deliveries"] for row in rows)
        columns = ("megabytes", "state", "submissions", "queries", "deliveries")
        return {
            "orders": len(rows),
            "settled": sum(row["state"] == "settled" for row in rows),
            "failed": sum(row["state"] == "failed" for row in rows),
            "megabytes_delivered": delivered,
            "by_order": {row["order_id"]: {column: row[column] for column in columns} for row in rows},
        }

    def _find(self, order_id: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            "SELECT * FROM orders WHERE order_id = ?", (order_id,)
        ).fetchone()
        return row

    def _first_state(self, order_id: str, body: dict[str, Any]) -> str:
        # By the order's id, so that a refusal does not depend on which try arrives first.
        digest = hashlib.sha256(f"{self._misbehaviour.seed} {order_id}".encode()).digest()
        if int.from_bytes(digest[:4]) < self._misbehaviour.fail * 2**32 or body["phone"] in self._misbehaviour.refuse:
            return "failed"
        return "accepted" if self._misbehaviour.queries_until_settled else "settled"


@dataclass
class Chance:
    """Random decisions that a seed repeats, shared by the threads."""

    seed: int
    _random: random.Random = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def hits(self, probability: float) -> bool:
        with self._lock:
            return self._random.random() < probability


class CarrierServer(ThreadingHTTPServer):
    """Listens on the loopback interface only."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, book: OrderBook, misbehaviour: Misbehaviour) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.book = book
        self.misbehaviour = misbehaviour
        self.chance = Chance(misbehaviour.seed)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CarrierServer

    def do_PUT(self) -> None:
        order_id = self._order_id()
        body = self._body()
        if order_id is None or body is None:
            return self._answer(400, {"state": "malformed"})
        status, state = self.server.book.submit(order_id, body)
        if status != 409 and self.server.chance.hits(self.server.misbehaviour.duplicate):
            self.server.book.submit(order_id, body)
        time.sleep(self.server.misbehaviour.delay_s)
        if self.server.chance.hits(self.server.misbehaviour.drop):
            return self._drop()
        return self._answer(status, {"order_id": order_id, "state": state})

    def do_GET(self) -> None:
        if self.path == "/statistics":
            return self._answer(200, self.server.book.statistics())
        order_id = self._order_id()
        if order_id is None:
            return self._answer(404, {"state": "unknown"})
        status, state = self.server.book.query(order_id)
        time.sleep(self.server.misbehaviour.delay_s)
        if self.server.chance.hits(self.server.misbehaviour.drop):
            return self._drop()
        return self._answer(status, {"order_id": order_id, "state": state})

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
        good = isinstance(body, dict) and isinstance(body.get("phone"), str) and isinstance(body.get("megabytes"), int)
        return body if good else None

    def _drop(self) -> None:
        if self.server.chance.hits(0.5):
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
        """Nothing: paths and bodies are not for the console."""


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A mobile carrier that misbehaves on purpose.")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1; 0: any free port, printed at the start")
    parser.add_argument("--state", type=Path, required=True, help="SQLite file that keeps the orders")
    parser.add_argument("--delay-s", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument(
        "--drop", type=float, default=0.0, help="probability of recording the order, then not answering"
    )
    parser.add_argument("--duplicate", type=float, default=0.0, help="probability that a submission arrives twice")
    parser.add_argument("--fail", type=float, default=0.0, help="probability that an order is refused for good")
    parser.add_argument(
        "--refuse", action="append", default=[], metavar="PHONE", help="a number to refuse (repeatable)"
    )
    parser.add_argument("--queries-until-settled", type=int, default=1, help="0: settled on submission")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same decisions")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Serve until the process is stopped."""
    asked = _arguments(given)
    misbehaviour = Misbehaviour(
        delay_s=asked.delay_s,
        drop=asked.drop,
        duplicate=asked.duplicate,
        fail=asked.fail,
        refuse=frozenset(asked.refuse),
        queries_until_settled=asked.queries_until_settled,
        seed=asked.seed,
    )
    server = CarrierServer(asked.port, OrderBook(asked.state, misbehaviour), misbehaviour)
    print(f"carrier on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
