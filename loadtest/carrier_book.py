"""The simulated provider's book: its orders, what was delivered, and the callbacks that it owes, in a SQLite file."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from loadtest.carrier_fate import Fate

_CHINA = timezone(timedelta(hours=8))
_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY, body TEXT NOT NULL, kind TEXT NOT NULL, amount INTEGER NOT NULL, path TEXT NOT NULL,
    revision INTEGER NOT NULL, at TEXT NOT NULL, submissions INTEGER NOT NULL, queries INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS counts (order_id TEXT, what TEXT, count INTEGER NOT NULL, PRIMARY KEY (order_id, what));
CREATE TABLE IF NOT EXISTS movements (
    order_id TEXT, revision INTEGER, day TEXT NOT NULL, kind TEXT NOT NULL, amount INTEGER NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (order_id, revision)
);
CREATE TABLE IF NOT EXISTS callbacks (
    event_id TEXT PRIMARY KEY, body TEXT NOT NULL, copies INTEGER NOT NULL, waits INTEGER NOT NULL,
    tries INTEGER NOT NULL
);
"""
Order = dict[str, Any]


class OrderBook:
    """Safe to use from several threads; everything is written before anybody is told."""

    def __init__(self, path: Path, fate: Fate, name: str = "carrier", today: str = "") -> None:
        self._fate = fate
        self._name = name
        self._today = today
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        # What the process wrote survives its own death; only a power cut would need the disk to be waited for.
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(_SCHEMA)

    def count(self, order_id: str, what: str) -> int:
        """How often this was counted before."""
        with self._lock:
            return self._count(order_id, what) - 1

    def submit(self, order_id: str, body: Order) -> tuple[int, Order]:
        """Record an order, or find it again: the HTTP status and what is said of the order."""
        text = json.dumps(body, sort_keys=True)
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            known = self._find(order_id)
            if known is None:
                path = self._fate.path(order_id, body["phone"])
                self._connection.execute(
                    "INSERT INTO orders VALUES (?, ?, ?, ?, ?, 0, '', 1, 0)",
                    (order_id, text, body["kind"], body["amount"], json.dumps(path)),
                )
                self._step(order_id)
                return 201, self._said(order_id)
            if known["body"] != text:
                return 409, {"order_id": order_id, "state": "conflict"}
            self._connection.execute("UPDATE orders SET submissions = submissions + 1 WHERE order_id = ?", (order_id,))
            return 200, self._said(order_id)

    def query(self, order_id: str) -> tuple[int, Order]:
        """What is said of the order, after bringing it one state nearer to its first end."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            known = self._find(order_id)
            if known is None:
                return 404, {"order_id": order_id, "state": "unknown"}
            self._connection.execute("UPDATE orders SET queries = queries + 1 WHERE order_id = ?", (order_id,))
            if json.loads(known["path"])[known["revision"] - 1] in ("accepted", "pending"):
                self._step(order_id)
            return 200, self._said(order_id)

    def advance_all(self) -> None:
        """Bring every order one state further, ends included: what was completed may be reversed."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for row in self._connection.execute("SELECT order_id FROM orders ORDER BY order_id").fetchall():
                self._step(row["order_id"])

    def statement(self, day: str) -> Iterator[Order]:
        """The statement of a day, as the provider publishes it: heading, movements, totals. It may be wrong."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT * FROM movements WHERE day = ? ORDER BY order_id, revision", (day,)
            ).fetchall()
        yield {"statement": day, "provider": self._name}
        totals = {"lines": 0, "completed": 0, "reversed": 0}
        for row in rows:
            chance = self._fate.of(row["order_id"], "statement")
            if chance.hits("omit_line"):
                continue
            amount = row["amount"] + chance.hits("wrong_amount")
            for _copy in range(1 + chance.hits("repeat_line")):
                totals["lines"] += 1
                totals[row["kind"]] += amount
                line = {name: row[name] for name in ("order_id", "kind", "revision", "at")}
                yield {**line, "amount": amount, "reference": f"R-{row['order_id'][:8]}"}
        yield totals

    def statistics(self) -> dict[str, Any]:
        """What really happened: counts over all orders, and each order's state and net deliveries."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT orders.*, (SELECT COALESCE(SUM(CASE kind WHEN 'completed' THEN 1 ELSE -1 END), 0) "
                "FROM movements WHERE movements.order_id = orders.order_id) AS deliveries "
                "FROM orders ORDER BY order_id"
            ).fetchall()
        columns = ("kind", "amount", "revision", "submissions", "queries", "deliveries")
        by_order = {
            row["order_id"]: {column: row[column] for column in columns}
            | {
                "state": json.loads(row["path"])[row["revision"] - 1],
                "over": len(json.loads(row["path"])) == row["revision"],
            }
            for row in rows
        }
        states = [order["state"] for order in by_order.values()]
        return {
            "orders": len(rows),
            "completed": states.count("completed"),
            "failed": states.count("failed"),
            "reversed": states.count("reversed"),
            "delivered": sum(row["amount"] * row["deliveries"] for row in rows),
            "over": all(order["over"] for order in by_order.values()),
            "callbacks_waiting": self.callbacks_waiting(),
            "by_order": by_order,
        }

    def due_callbacks(self) -> list[sqlite3.Row]:
        """What has to be sent now, latest first, so that order means nothing; the others come nearer."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            due = self._connection.execute("SELECT * FROM callbacks WHERE waits = 0 ORDER BY rowid DESC").fetchall()
            self._connection.execute("UPDATE callbacks SET waits = waits - 1 WHERE waits > 0")
        return due

    def callback_sent(self, event_id: str, *, taken: bool, tries_max: int) -> None:
        """Forget a callback that was taken, or that was tried often enough."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("UPDATE callbacks SET tries = tries + 1 WHERE event_id = ?", (event_id,))
            self._connection.execute(
                "DELETE FROM callbacks WHERE event_id = ? AND (? OR tries >= ?)", (event_id, taken, tries_max)
            )

    def callbacks_waiting(self) -> int:
        """How many callbacks are still to be sent."""
        with self._lock:
            return int(self._connection.execute("SELECT COUNT(*) FROM callbacks").fetchone()[0])

    def _find(self, order_id: str) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._connection.execute(
            "SELECT * FROM orders WHERE order_id = ?", (order_id,)
        ).fetchone()
        return found

    def _count(self, order_id: str, what: str) -> int:
        counted = self._connection.execute(
            "INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count",
            (order_id, what),
        ).fetchone()
        return int(counted[0])

    def _step(self, order_id: str) -> None:
        """One state further, if there is one: book what it moves, and owe a callback for it."""
        row = self._find(order_id)
        assert row is not None
        path, revision = json.loads(row["path"]), row["revision"] + 1
        if revision > len(path):
            return
        now = self._now()
        self._connection.execute(
            "UPDATE orders SET revision = ?, at = ? WHERE order_id = ?", (revision, now.isoformat(), order_id)
        )
        if path[revision - 1] == "completed" or path[revision - 2 : revision] == ["completed", "reversed"]:
            self._connection.execute(
                "INSERT INTO movements VALUES (?, ?, ?, ?, ?, ?)",
                (order_id, revision, now.date().isoformat(), path[revision - 1], row["amount"], now.isoformat()),
            )
        chance = self._fate.of(order_id, f"callback {revision}")
        if not chance.hits("lose_callback"):
            self._connection.execute(
                "INSERT INTO callbacks VALUES (?, ?, ?, ?, 0)",
                (
                    f"{order_id}-{revision}",
                    json.dumps(self._said(order_id)),
                    1 + chance.hits("duplicate"),
                    int(chance.hits("shuffle")),
                ),
            )

    def _said(self, order_id: str) -> Order:
        row = self._find(order_id)
        assert row is not None
        return {
            "order_id": order_id,
            "state": json.loads(row["path"])[row["revision"] - 1],
            "revision": row["revision"],
            "at": row["at"],
            "reference": f"R-{order_id[:8]}",
        }

    def _now(self) -> datetime:
        now = datetime.now(UTC).astimezone(_CHINA)
        if not self._today:
            return now
        return datetime.combine(datetime.fromisoformat(self._today).date(), now.timetz())
