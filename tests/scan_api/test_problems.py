"""Refusals over HTTP are problems of RFC 9457, each with what its caller needs to go on."""

import uuid
from datetime import UTC, datetime

import pytest

from kit.errors import Conflict, Forbidden, Invalid, NotFound, TooMany, Unauthenticated, Unavailable
from loyalty.benefits.tills import CouponAlreadyRedeemed
from loyalty.sign_in import OneTimeCodeTooSoon, OneTimeCodeWrong
from scan_api import errors
from tests.stand import Stand

on_sqlite = pytest.mark.parametrize("stand_kind", ["sqlite"])


@on_sqlite
def test_a_refusal_is_a_problem(stand: Stand) -> None:
    answer = stand.http.post("/v1/sign-in/codes", json={"phone": "12", "brand": "star-cream"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json() == {
        "type": "urn:fanxing:problem:PhoneInvalid",
        "title": "Phone invalid",
        "status": 400,
        "detail": answer.json()["detail"],
        "code": "PhoneInvalid",
        "hint": answer.json()["hint"],
    }
    assert "12" not in answer.json()["detail"].split()


@on_sqlite
@pytest.mark.parametrize(
    ("method", "path", "status", "code", "title"),
    [
        ("GET", "/v1/nothing", 404, "PageUnknown", "Page unknown"),
        ("PUT", "/v1/me", 405, "Http405", "Method not allowed"),
        ("POST", "/v1/sign-in", 400, "RequestInvalid", "Request invalid"),
    ],
)
def test_what_no_route_takes_is_a_problem_too(
    stand: Stand, method: str, path: str, status: int, code: str, title: str
) -> None:
    answer = stand.http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, errors.MEDIA_TYPE)
    assert (answer.json()["status"], answer.json()["code"], answer.json()["title"]) == (status, code, title)


@on_sqlite
def test_a_verdict_on_a_code_is_an_answer_and_no_problem(stand: Stand) -> None:
    answer = stand.scan(stand.installation.refused["BadSignature"])
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert answer.json()["verdict"] == "refused"


@on_sqlite
@pytest.mark.parametrize("path", ["/v1/me", "/v1/brand/star-cream/orders"])
def test_who_must_prove_himself_is_told_how(stand: Stand, path: str) -> None:
    answer = stand.http.get(path)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="fanxing"')


@on_sqlite
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_who_came_too_soon_is_told_when_to_come_back(stand: Stand, accept: str) -> None:
    asked = {"phone": stand.new_phone(), "brand": "star-cream"}
    assert stand.http.post("/v1/sign-in/codes", json=asked).status_code == 202
    answer = stand.http.post("/v1/sign-in/codes", json=asked, headers={"accept": accept})
    assert (answer.status_code, 0 < int(answer.headers["retry-after"]) <= 60) == (429, True)
    if accept == "application/json":
        assert answer.json()["retry_after_s"] == int(answer.headers["retry-after"])


@on_sqlite
def test_a_missing_idempotency_key_is_named(stand: Stand) -> None:
    wanted = {**stand.key("shop")}
    answer = stand.http.post("/v1/shop/redemptions", json={"coupon_code": "x"}, headers=wanted)
    assert (answer.status_code, answer.json()["code"]) == (400, "IdempotencyKeyMissing")
    answer = stand.http.post("/v1/claims", json={}, headers=stand.member().headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "IdempotencyKeyMissing")


@on_sqlite
def test_a_repetition_says_that_it_is_one(stand: Stand) -> None:
    member = stand.member()
    coupon = stand.claim(member, stand.take_item().outer, "coupon").json()["coupon_code"]
    headers = {**stand.key("shop"), "Idempotency-Key": str(uuid.uuid4())}
    first, again = (
        stand.http.post("/v1/shop/redemptions", json={"coupon_code": coupon}, headers=headers) for _ in range(2)
    )
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    other = stand.http.post("/v1/shop/redemptions", json={"coupon_code": "another"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "IdempotencyKeyReused")


class TestForm:
    """The form alone, of errors that are hard to bring about."""

    @pytest.mark.parametrize(
        ("error", "members"),
        [
            (OneTimeCodeTooSoon(42), {"retry_after_s": 42}),
            (OneTimeCodeWrong(3), {"tries_left": 3}),
            (
                CouponAlreadyRedeemed(datetime(2026, 5, 1, 8, tzinfo=UTC)),
                {"redeemed_at": "2026-05-01T08:00:00.000Z"},
            ),
            (Conflict("x"), {}),
        ],
        ids=["retry", "tries", "redeemed", "none"],
    )
    def test_extension_members_are_those_that_the_error_carries(
        self, error: Conflict, members: dict[str, object]
    ) -> None:
        plain = {"type", "title", "status", "detail", "code", "hint"}
        assert {name: value for name, value in errors.as_json(error).items() if name not in plain} == members

    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            (Invalid, 400),
            (Unauthenticated, 401),
            (Forbidden, 403),
            (NotFound, 404),
            (Conflict, 409),
            (TooMany, 429),
            (Unavailable, 503),
        ],
    )
    def test_status_and_headers_follow_the_kind(self, kind: type[Conflict], status: int) -> None:
        error = kind("x")
        headers = errors.headers_of(error)
        assert errors.as_json(error)["status"] == errors.status_of(error) == status
        assert ("retry-after" in headers) == (status in (429, 503))
        assert ("www-authenticate" in headers) == (status == 401)

    def test_an_attribute_that_is_nobodys_business_stays(self) -> None:
        error = Conflict("x")
        error.judgement = "secret"  # type: ignore[attr-defined]
        assert "judgement" not in errors.as_json(error)
