"""A till that looks up too much over HTTP: every way of asking is closed to it, whether there is something or not."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from sqlmodel import select

from codes.catalogue import brand_named
from kit.db import Session
from loyalty import till_limits
from loyalty.code_limits import LIMITS, CodeWindow, Scope
from loyalty.till_limits import MISS_UNITS
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from tests.stand import BRAND, Stand

NO_COUPON = "0000-0000-0000-0000"
AT_MOST = LIMITS[Scope.TILL].count_max // MISS_UNITS


@pytest.fixture
def stand_kind() -> str:
    """How windows are counted is tested on both databases in tests/loyalty/test_till_limits.py."""
    return "sqlite"


class Till:
    """A till with an API key of its own."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.key, self._text = stand.run(self._make)

    @staticmethod
    async def _make(session: Session) -> tuple[api_keys.ApiKey, str]:
        brand = await brand_named(session, BRAND)
        return await api_keys.create(session, Role.SHOP, "a till", datetime.now(UTC), brand_id=brand.brand_id)

    def ask(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self._text}", "Idempotency-Key": str(uuid.uuid4())}
        return self.stand.http.post(f"/v1/shop/{path}", json=body, headers=headers)

    def miss(self, misses: int) -> None:
        async def count(session: Session) -> None:
            now = datetime.now(UTC)
            await till_limits.count_misses(session, self.stand.vault, self.key.caller_id, now, misses)

        self.stand.run(count)

    def units(self) -> int:
        subject = self.stand.vault.fingerprint("code-window", f"till\x00{self.key.caller_id}")
        return sum(self.stand.rows(select(CodeWindow.codes).where(CodeWindow.subject == subject)))


def _coupon(path: str, **more: Any) -> Callable[[Till], httpx2.Response]:
    return lambda till: till.ask(path, {"coupon_code": NO_COUPON, **more})


def _lookup(till: Till) -> httpx2.Response:
    return till.ask("members/lookup", {"phone": till.stand.new_phone()})


def _quote(till: Till, **buyer: Any) -> httpx2.Response:
    buyer = buyer or {"phone": till.stand.new_phone()}
    return till.ask("purchases/quote", {"receipt": "R", "paid_fen": 100, **buyer})


def _offline(till: Till, redemption_id: str = "") -> httpx2.Response:
    line = {"redemption_id": redemption_id or str(uuid.uuid4()), "coupon_code": NO_COUPON}
    return till.ask("redemptions/offline", {"redemptions": [{**line, "at": datetime.now(UTC).isoformat()}]})


BASKET = {"basket_id": str(uuid.UUID(int=5))}
MISSES: dict[str, Callable[[Till], httpx2.Response]] = {
    "validate": lambda till: till.ask("redemptions/validate", {"coupon_codes": [NO_COUPON]}),
    "redeem": _coupon("redemptions"),
    "reserve": _coupon("reservations", **BASKET),
    "release": _coupon("reservations/release", **BASKET),
    "offline": _offline,
    "lookup": _lookup,
    "quote": _quote,
}


def test_each_way_of_asking_counts_ten_when_nothing_is_found(stand: Stand) -> None:
    till = Till(stand)
    for number, ask in enumerate(MISSES.values(), 1):
        ask(till)
        assert till.units() == number * MISS_UNITS


@pytest.mark.parametrize("ask", MISSES.values(), ids=MISSES)
def test_each_way_of_asking_is_answered_up_to_the_limit_and_closed_beyond(
    stand: Stand, ask: Callable[[Till], httpx2.Response]
) -> None:
    till = Till(stand)
    till.miss(AT_MOST - 1)
    assert ask(till).status_code in (200, 404)
    refused = ask(till)
    assert (refused.status_code, refused.json()["code"]) == (429, "TillLookupsLimited")
    assert 3_500 < int(refused.headers["retry-after"]) <= 3_600


def test_members_count_one_and_ids_and_repetitions_nothing(stand: Stand) -> None:
    till, member = Till(stand), stand.member()
    assert till.ask("members/lookup", {"phone": member.phone}).json()["known"] is True
    assert till.units() == 1
    assert _quote(till, phone=member.phone).status_code == 200
    assert till.units() == 2
    assert _quote(till, member_id=str(member.member_id)).status_code == 200
    assert till.units() == 2
    told = [_offline(till, str(uuid.UUID(int=9))).json()["counts"] for _ in range(2)]
    assert told == [{"unknown": 1}] * 2
    assert till.units() == 2 + MISS_UNITS


def test_good_coupons_count_nothing_and_wait_too_beyond_the_limit(stand: Stand) -> None:
    till = Till(stand)
    code = stand.claim(stand.member(), stand.take_item().outer, "coupon").json()["coupon_code"]
    assert till.ask("redemptions/validate", {"coupon_codes": [code]}).json()["coupons"][0]["refusal"] is None
    assert till.units() == 0
    till.miss(AT_MOST)
    for path, body in (("redemptions", {"coupon_code": code}), ("redemptions/validate", {"coupon_codes": [code]})):
        refused = till.ask(path, body)
        assert (refused.status_code, refused.json()["code"]) == (429, "TillLookupsLimited")


def test_a_till_over_its_limit_closes_no_other(stand: Stand) -> None:
    full, other = Till(stand), Till(stand)
    full.miss(AT_MOST)
    member = stand.member()
    statuses = [till.ask("members/lookup", {"phone": member.phone}).status_code for till in (full, other)]
    assert statuses == [429, 200]
