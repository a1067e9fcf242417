"""The simulated provider: it keeps the contract, misbehaves by seed alone, and tells the truth when asked for it."""

import json
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest

from kit.ids import derived_id
from loadtest.carrier_fate import Fate, Misbehaviour
from loyalty.fulfilment import callbacks
from tests.loyalty.fulfilment_world import DAY, SECRET, CarrierProcess, StartCarrier, start_carrier_in

BODY = {"kind": "data", "phone": "+8613800138000", "amount": 5}
ORDERS = [str(derived_id("simulated", number)) for number in range(30)]


@pytest.fixture
def start_carrier(tmp_path: Path) -> Iterator[StartCarrier]:
    started: list[CarrierProcess] = []

    def start(*options: str, folder: str = "one") -> CarrierProcess:
        (tmp_path / folder).mkdir(exist_ok=True)
        started.append(start_carrier_in(tmp_path / folder, "--today", DAY.isoformat(), *options))
        return started[-1]

    yield start
    for carrier in started:
        carrier.kill()


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, verify=False) as client:
        yield client


class Listener(ThreadingHTTPServer):
    """Takes callbacks, or refuses the first ones."""

    def __init__(self, refused: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.refused = refused
        self.taken: list[tuple[callbacks.SignedCallback, dict[str, Any]]] = []
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/callbacks/carrier"


class _Answer(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        names = ("Fanxing-Timestamp", "Fanxing-Event-Id", "Fanxing-Signature")
        given = callbacks.SignedCallback(*(self.headers[name] for name in names), body)
        self.server.taken.append((given, json.loads(body)))
        self.server.refused -= 1
        self.send_response(503 if self.server.refused >= 0 else 200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.shutdown()
    server.server_close()


def test_one_order_has_one_body(start_carrier: StartCarrier, http: httpx2.Client) -> None:
    simulator = start_carrier()
    order = f"{simulator.url}/orders/{uuid.uuid4()}"
    statuses = [http.put(order, json=BODY).status_code for _ in range(2)]
    statuses.append(http.put(order, json=BODY | {"amount": 6}).status_code)
    for wrong in (BODY | {"amount": 0}, BODY | {"amount": "5"}, BODY | {"kind": "gold"}, {}):
        statuses.append(http.put(order, json=wrong).status_code)
    statuses.append(http.put(order, content=b"nonsense").status_code)
    assert statuses == [201, 200, 409, 400, 400, 400, 400, 400]
    assert simulator.statistics()["orders"] == 1


def test_the_numbers_of_an_orders_states_rise(start_carrier: StartCarrier, http: httpx2.Client) -> None:
    simulator = start_carrier("--queries-until-settled", "2", "--reverse", "1")
    order = f"{simulator.url}/orders/{ORDERS[0]}"
    said = [http.put(order, json=BODY).json(), *(http.get(order).json() for _ in range(3))]
    simulator.advance()
    said.append(http.get(order).json())
    assert [(one["state"], one["revision"]) for one in said] == [
        ("accepted", 1),
        ("pending", 2),
        ("completed", 3),
        ("completed", 3),
        ("reversed", 4),
    ]


def _misdeeds(simulator: CarrierProcess) -> dict[str, Any]:
    with httpx2.Client(trust_env=False, verify=False) as http:
        for order_id in ORDERS[:10]:
            for _ in range(3):
                try:
                    http.put(f"{simulator.url}/orders/{order_id}", json=BODY)
                    http.get(f"{simulator.url}/orders/{order_id}")
                except httpx2.TransportError:
                    continue
    for _ in range(5):
        simulator.advance()
    told = simulator.statistics()
    return {
        order_id: (order["state"], order["submissions"], order["queries"])
        for order_id, order in told["by_order"].items()
    }


def test_the_same_seed_does_the_same_and_another_does_not(start_carrier: StartCarrier) -> None:
    options = (
        "--lose",
        "0.3",
        "--drop",
        "0.3",
        "--duplicate",
        "0.3",
        "--fail",
        "0.2",
        "--reverse",
        "0.2",
        "--lie",
        "0.1",
    )
    done = [
        _misdeeds(start_carrier(*options, "--seed", seed, folder=folder))
        for seed, folder in (("1", "one"), ("1", "two"), ("2", "three"))
    ]
    assert done[0] == done[1]
    assert done[0] != done[2]
    assert {state for state, _submissions, _queries in done[0].values()} == {"completed", "failed", "reversed"}


@pytest.mark.parametrize(
    ("misdeed", "path"),
    [
        ("fail", ["failed"]),
        ("lie", ["accepted", "failed", "completed"]),
        ("reverse", ["accepted", "completed", "reversed"]),
        ("seed", ["accepted", "completed"]),
    ],
)
def test_each_misdeed_has_its_path(misdeed: str, path: list[str]) -> None:
    assert Fate(Misbehaviour(**{misdeed: 1})).path(ORDERS[0], "") == path


def test_half_of_those_who_have_to_confirm_do() -> None:
    fate = Fate(Misbehaviour(await_user=1.0))
    ends = [fate.path(order_id, "")[-1] for order_id in ORDERS]
    assert {tuple(fate.path(order_id, "")[:2]) for order_id in ORDERS} == {("accepted", "await_user")}
    assert 5 < ends.count("completed") < 25
    assert len(ends) == ends.count("completed") + ends.count("reversed")


def test_its_statement_is_its_truth_unless_it_is_told_to_lie(start_carrier: StartCarrier, http: httpx2.Client) -> None:
    simulator = start_carrier("--queries-until-settled", "0", "--reverse", "0.5", "--seed", "4")
    for order_id in ORDERS:
        http.put(f"{simulator.url}/orders/{order_id}", json=BODY)
    simulator.advance()
    heading, *lines, totals = map(json.loads, http.get(f"{simulator.url}/statements/{DAY}").text.splitlines())
    assert heading == {"statement": DAY.isoformat(), "provider": "carrier"}
    told = simulator.statistics()
    assert totals["lines"] == len(lines) == 30 + told["reversed"]
    assert totals["completed"] - totals["reversed"] == told["delivered"] == 5 * told["completed"]
    assert http.get(f"{simulator.url}/statements/2026-05-02").text.count("\n") == 2


def test_callbacks_are_signed_as_agreed_and_sent_till_somebody_takes_them(
    start_carrier: StartCarrier, http: httpx2.Client, listener: Listener
) -> None:
    listener.refused = 1
    simulator = start_carrier("--callback", listener.url, "--callback-secret", SECRET, "--queries-until-settled", "0")
    http.put(f"{simulator.url}/orders/{ORDERS[0]}", json=BODY)
    assert simulator.statistics()["callbacks_waiting"] == 1
    assert [simulator.advance()["callbacks_waiting"] for _ in range(3)] == [1, 0, 0]
    assert [said["state"] for _given, said in listener.taken] == ["completed", "completed"]
    for given, _said in listener.taken:
        assert given.signature == callbacks.sign(SECRET, given.timestamp, given.event_id, given.body)
    assert len({given.event_id for given, _said in listener.taken}) == 1


def test_callbacks_are_lost_doubled_and_late(
    start_carrier: StartCarrier, http: httpx2.Client, listener: Listener
) -> None:
    options = ("--lose-callback", "0.3", "--duplicate", "0.4", "--shuffle", "0.4", "--seed", "5")
    simulator = start_carrier("--callback", listener.url, "--callback-secret", SECRET, "--reverse", "0.5", *options)
    for order_id in ORDERS:
        http.put(f"{simulator.url}/orders/{order_id}", json=BODY)
    for _ in range(5):
        simulator.advance()
    by_order: dict[str, list[int]] = {order_id: [] for order_id in ORDERS}
    for _given, said in listener.taken:
        by_order[said["order_id"]].append(said["revision"])
    heard = by_order.values()
    assert any(len(set(revisions)) < len(revisions) for revisions in heard)
    assert any(sorted(revisions) != revisions for revisions in heard)
    assert any(len(set(revisions)) < 2 for revisions in heard)
