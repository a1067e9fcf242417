"""A brand's links at a real server: products that no other test has, and ways to give links to them."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from codes import catalogue
from kit.db import Session
from offline_sdk.gtin import check_digit
from tests.stand import BRAND, PLACED_AT, PREFIX, Stand

_numbers: Iterator[int] = itertools.count(70_000)

INFORMATION: dict[str, Any] = {
    "link_type": "gs1:pip",
    "title": "Product information",
    "href": "https://www.example.cn/pip",
}


@dataclass(frozen=True)
class Shop:
    """One product of the brand, and the server."""

    stand: Stand
    gtin: str

    @property
    def path(self) -> str:
        return f"/01/{self.gtin}"

    @property
    def url(self) -> str:
        return self.stand.server.url + self.path

    def put(self, path: str = "", *, key: str = "brand", brand: str = BRAND, **link: Any) -> httpx2.Response:
        """Give a link to the product, or to what `path` names."""
        identifier = path if path.startswith(("/00", "/4", "/8")) else self.path + path
        return self.stand.http.put(
            f"/v1/brand/{brand}/links/{link.pop('link_id', uuid.uuid4())}",
            json={"identifier": identifier, **INFORMATION} | link,
            headers=self.stand.key(key),
        )

    def give(self, path: str = "", **link: Any) -> dict[str, Any]:
        answer = self.put(path, **link)
        assert answer.status_code == 200, answer.text
        given: dict[str, Any] = answer.json()
        return given

    def get(self, path: str = "", method: str = "GET", **headers: str) -> httpx2.Response:
        """Follow the product's Digital Link with something behind it, or another path; redirects are not followed."""
        whole = path if path.startswith("/") and path[1:2].isdigit() and not self._is_below(path) else self.path + path
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.stand.http.request(method, whole, headers={"accept": "*/*", **sent}, follow_redirects=False)

    def link_set(self, path: str = "") -> list[dict[str, Any]]:
        answer = self.get(path, accept="application/linkset+json")
        assert answer.status_code == 200, answer.text
        entries: list[dict[str, Any]] = answer.json()["linkset"]
        return entries

    @staticmethod
    def _is_below(path: str) -> bool:
        return path.startswith(("/10/", "/21/", "/22/", "/235/"))


@pytest.fixture
def new_shop(stand: Stand) -> Callable[[], Shop]:
    def make() -> Shop:
        body = f"0{PREFIX}{next(_numbers):05d}"
        gtin = f"{body}{check_digit(body)}"

        async def register(session: Session) -> None:
            brand = await catalogue.brand_named(session, BRAND)
            await catalogue.create_product(session, brand, gtin, "测试雪糕", "Ice of a test", PLACED_AT)

        stand.run(register)
        return Shop(stand, gtin)

    return make


@pytest.fixture
def shop(new_shop: Callable[[], Shop]) -> Shop:
    return new_shop()
