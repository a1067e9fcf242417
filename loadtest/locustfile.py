"""The mix of the four users against a running server: shoppers, shop scanners, logistics and a regulator.

    locust -f loadtest/locustfile.py --headless --host http://127.0.0.1:8000 --users 40 --run-time 60s \\
        --outer outer.csv --inner inner.csv --keys keys.json

`outer.csv` and `inner.csv` are exports of one order that is on sale (`serial,code_text`); `keys.json` holds API keys:
{"logistics": "fx_…", "regulator": "fx_…"}. Every inner code is claimed once; when all are, shoppers only look on.
The server must show one-time codes (FANXING_CODE_SENDER=development), so this drives this machine alone.
"""

import csv
import ipaddress
import itertools
import json
import random
import urllib.parse
import uuid
from argparse import ArgumentTypeError
from collections import deque
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, between, events, task

USERS_MAX = 200
RUN_TIME_S_MAX = 600
RUN_TIME_S_DEFAULT = 60
SPAWN_RATE_USERS_PER_S = 20
ITEMS_PER_SHOPPER = 5
"""After so many items the next shopper comes, with another phone number."""
HTTP_NOT_MODIFIED, HTTP_CONFLICT = 304, 409

_JSON = {"Accept": "application/json"}
_PAGE = {"Accept": "text/html", "Accept-Language": "zh-CN"}


class Goods:
    """The codes and keys that all users share, read once before the first of them starts."""

    def __init__(self) -> None:
        self.outer: list[tuple[str, str]] = []
        self.inner: deque[str] = deque()
        self.keys: dict[str, str] = {}
        # Shoppers of an earlier run on the same server may not ask for another code yet, so begin anywhere.
        self._phones = itertools.count(random.randrange(10**8))

    def load(self, outer: Path, inner: Path, keys: Path) -> None:
        self.outer = _rows(outer)
        self.inner = deque(text for _, text in _rows(inner))
        self.keys = json.loads(keys.read_text(encoding="utf-8"))

    def any_item(self) -> tuple[str, str, str]:
        """GTIN, serial and outer code text of some item."""
        serial, text = random.choice(self.outer)
        return text.split("/01/")[1][:14], serial, text

    def phone(self) -> str:
        """A Chinese mobile number that nobody else here has."""
        return f"139{next(self._phones) % 10**8:08d}"


def _rows(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="ascii", newline="") as file:
        return [(row["serial"], row["code_text"]) for row in csv.DictReader(file)]


goods = Goods()


def local_url(text: str) -> str:
    """A URL of this machine, or ArgumentTypeError: load is a weapon, and one-time codes are shown."""
    host = urllib.parse.urlsplit(text).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        raise ArgumentTypeError(f"{text!r} is not this machine; use 127.0.0.1, localhost or [::1]")
    return text


def _options(parser: Any) -> None:
    parser.add_argument("--outer", type=Path, required=True, env_var="LOAD_OUTER", help="outer.csv of an order on sale")
    parser.add_argument("--inner", type=Path, required=True, env_var="LOAD_INNER", help="inner.csv of the same order")
    parser.add_argument("--keys", type=Path, required=True, env_var="LOAD_KEYS", help="JSON file with API keys")


def _prepare(environment: Any, **_more: object) -> None:
    options = environment.parsed_options
    try:
        local_url(options.host or "")
        if (options.num_users or 1) > USERS_MAX:
            raise ArgumentTypeError(f"--users is at most {USERS_MAX}")
        goods.load(options.outer, options.inner, options.keys)
    except (ArgumentTypeError, OSError, KeyError, ValueError) as error:
        raise SystemExit(f"loadtest: {error}") from None


events.init_command_line_parser.add_listener(_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_prepare)  # type: ignore[no-untyped-call]


class Bounded(LoadTestShape):
    """So many users for so long, and then the end, whatever was asked for."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        options: Any = self.runner.environment.parsed_options if self.runner else None
        run_time_s = min(float(options.run_time or RUN_TIME_S_DEFAULT), RUN_TIME_S_MAX)
        if self.get_run_time() >= run_time_s:  # type: ignore[no-untyped-call]
            return None
        return min(options.num_users or 1, USERS_MAX), SPAWN_RATE_USERS_PER_S


class Shopper(FastHttpUser):
    """Scans what he buys, signs in, uncovers the inner code, claims, and looks at what he has."""

    weight = 20
    wait_time = between(0.05, 0.3)

    def on_start(self) -> None:
        self._token: str | None = None
        self._items = 0

    @task(3)
    def scan(self) -> None:
        """The outer code, as a phone opens it or as an app asks for it."""
        _, _, text = goods.any_item()
        page = random.random() < 0.5
        name = "GET code (outer, page)" if page else "GET code (outer, JSON)"
        self.client.get(_path(text), headers=_PAGE if page else _JSON, name=name)

    @task(2)
    def claim(self) -> None:
        """The inner code of an item that nobody has claimed yet."""
        if not goods.inner:
            self.scan()
            return
        text = goods.inner.popleft()
        with self.client.get(_path(text), headers=_JSON, name="GET code (inner, JSON)", catch_response=True) as seen:
            if seen.status_code != 200:
                seen.failure(f"status {seen.status_code}")
                return
            view = seen.json()
        offers = [offer for offer in view["offers"] if offer["state"] == "open"]
        if not offers or not self._signed_in(view["product"]["brand"]):
            return
        body = {"code_text": text, "campaign_id": offers[0]["campaign_id"]}
        headers = {**self._authorization, "Idempotency-Key": str(uuid.uuid4())}
        with self.client.post(
            "/v1/claims", json=body, headers=headers, name="POST /v1/claims", catch_response=True
        ) as answer:
            # Another run may have claimed it before: a refusal, not a failure.
            if answer.status_code == HTTP_CONFLICT:
                answer.success()
        self._items += 1
        if self._items >= ITEMS_PER_SHOPPER:
            self.client.delete("/v1/session", headers=self._authorization, name="DELETE /v1/session")
            self.on_start()

    @task(1)
    def look_at_oneself(self) -> None:
        if self._token is not None:
            self.client.get("/v1/me", headers=self._authorization, name="GET /v1/me")

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def _signed_in(self, brand: str) -> bool:
        if self._token is None:
            phone = goods.phone()
            asked = self._post("/v1/sign-in/codes", {"phone": phone, "brand": brand})
            if asked is None or "development_code" not in asked:
                return False
            proof = {"phone": phone, "brand": brand, "one_time_code": asked["development_code"]}
            opened = self._post("/v1/sign-in", proof)
            self._token = opened["token"] if opened else None
        return self._token is not None

    def _post(self, path: str, body: dict[str, str]) -> dict[str, Any] | None:
        with self.client.post(path, json=body, name=f"POST {path}", catch_response=True) as answer:
            if not answer.ok:
                answer.failure(f"status {answer.status_code}")
                return None
            content: dict[str, Any] = answer.json()
            return content


class ShopScanner(FastHttpUser):
    """Asks for the trust bundle again and again, and mostly has it already."""

    weight = 3
    wait_time = between(0.2, 1.0)

    def on_start(self) -> None:
        self._etag = ""

    @task
    def fetch(self) -> None:
        headers = {"If-None-Match": self._etag} if self._etag else {}
        with self.client.get("/v1/trust", headers=headers, name="GET /v1/trust", catch_response=True) as answer:
            if answer.status_code == HTTP_NOT_MODIFIED:
                answer.success()
            self._etag = answer.headers.get("etag", self._etag)


class Logistics(FastHttpUser):
    """Ships and receives items."""

    weight = 2
    wait_time = between(0.2, 1.0)

    @task
    def move(self) -> None:
        gtin, serial, _ = goods.any_item()
        body = {
            "step": random.choice(("shipped", "received")),
            "gtin": gtin,
            "order_number": int(serial[:5]),
            "serials": [serial],
            "place": "Load test depot",
        }
        headers = {"Authorization": f"Bearer {goods.keys['logistics']}"}
        self.client.post("/v1/brand/events", json=body, headers=headers, name="POST /v1/brand/events")


class Regulator(FastHttpUser):
    """Reads the history of items."""

    weight = 1
    wait_time = between(0.2, 1.0)

    @task
    def read(self) -> None:
        gtin, serial, _ = goods.any_item()
        headers = {"Authorization": f"Bearer {goods.keys['regulator']}"}
        self.client.get(f"/v1/regulator/items/{gtin}/{serial}", headers=headers, name="GET /v1/regulator/items")


def _path(text: str) -> str:
    return urllib.parse.urlsplit(text).path
