"""Signing in by phone number and one-time code over real HTTP, and the session that comes of it."""

import hashlib
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import update
from sqlmodel import select

from loyalty.members import Member, PhoneIdentity
from loyalty.sign_in import CODE_TRIES_MAX, MemberSession, OneTimeCode
from scan_api.middleware import SIGN_IN_BODY_BYTES_MAX
from tests.stand import BRAND, Stand


def _ask(stand: Stand, phone: str, **more: Any) -> httpx2.Response:
    return stand.http.post("/v1/sign-in/codes", json={"phone": phone, **more})


def _sign_in(stand: Stand, phone: str, code: str, **more: Any) -> httpx2.Response:
    return stand.http.post("/v1/sign-in", json={"phone": phone, "one_time_code": code, **more})


def _code(stand: Stand, phone: str) -> str:
    answer = _ask(stand, phone)
    assert answer.status_code == 202, answer.text
    code: str = answer.json()["development_code"]
    return code


def _error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _another(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06d}"


def _me(stand: Stand, token: str) -> httpx2.Response:
    return stand.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})


def _let_pass(stand: Stand, time: timedelta) -> None:
    """Make what the server remembers of one-time codes older."""
    for code in stand.rows(select(OneTimeCode)):
        stand.execute(
            update(OneTimeCode)
            .where(OneTimeCode.phone_fingerprint == code.phone_fingerprint)
            .values(
                expires_at=code.expires_at - time,
                sent_at=[(datetime.fromisoformat(at) - time).isoformat() for at in code.sent_at],
            )
        )


def test_new_phone_becomes_a_member_and_comes_back_as_the_same(stand: Stand) -> None:
    phone = stand.new_phone()
    first = _sign_in(stand, phone, _code(stand, phone)).json()
    _let_pass(stand, timedelta(minutes=2))
    again = _sign_in(stand, phone.removeprefix("+86"), _code(stand, phone.removeprefix("+86"))).json()
    assert (first["is_new"], again["is_new"]) == (True, False)
    assert first["member_id"] == again["member_id"]
    assert first["token"] != again["token"]
    me = _me(stand, first["token"]).json()
    assert me["member_id"] == first["member_id"]
    assert me["phone"] == f"{phone[:-8]}****{phone[-4:]}"
    assert (me["points"], me["cards"], me["coupons"]) == (0, [], [])


@pytest.mark.parametrize("stand_kind", ["sqlite"])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("path", ["/v1/sign-in", "/v1/sign-in/codes", "/web/sign-in", "/web/confirm", "/web/claim"])
def test_what_strangers_send_to_sign_in_has_at_most_8_kib(stand: Stand, path: str, chunked: bool) -> None:
    def send(size: int) -> httpx2.Response:
        is_form = path.startswith("/web/")
        content = b"phone=1&more=".ljust(size, b"x") if is_form else b'{"phone": "1"}'.ljust(size)
        kind = "application/x-www-form-urlencoded" if is_form else "application/json"
        body = (content[start : start + 3_000] for start in range(0, size, 3_000)) if chunked else content
        return stand.http.post(path, content=body, headers={"content-type": kind})

    for size in (SIGN_IN_BODY_BYTES_MAX - 1, SIGN_IN_BODY_BYTES_MAX):
        assert send(size).status_code == 400  # it was read, and is no phone number or lacks a field
    refused = send(SIGN_IN_BODY_BYTES_MAX + 1)
    assert _error(refused) == (413, "BodyTooLarge")
    assert "8 KiB" in refused.json()["detail"]


def test_brand_may_be_named(stand: Stand) -> None:
    phone = stand.new_phone()
    code = _ask(stand, phone, brand=BRAND).json()["development_code"]
    assert _sign_in(stand, phone, code, brand=BRAND).status_code == 200
    assert _error(_ask(stand, stand.new_phone(), brand="no-such-brand")) == (404, "BrandUnknown")


def test_wrong_code_costs_a_try_and_the_fifth_kills_the_code(stand: Stand) -> None:
    phone = stand.new_phone()
    code = _code(stand, phone)
    for left in range(CODE_TRIES_MAX - 1, 0, -1):
        answer = _sign_in(stand, phone, _another(code))
        assert _error(answer) == (400, "OneTimeCodeWrong")
        assert f"tries left: {left}" in answer.json()["detail"]
    assert _error(_sign_in(stand, phone, _another(code))) == (429, "OneTimeCodeTriesExhausted")
    assert _error(_sign_in(stand, phone, code)) == (429, "OneTimeCodeTriesExhausted")


def test_parallel_guesses_get_no_more_than_five_tries(stand: Stand) -> None:
    phone = stand.new_phone()
    code = _code(stand, phone)
    guess = {"url": "/v1/sign-in", "json": {"phone": phone, "one_time_code": _another(code)}}
    statuses = [answer.status_code for answer in stand.at_once([guess] * 20)]
    assert statuses.count(400) == CODE_TRIES_MAX - 1
    assert statuses.count(429) == 20 - CODE_TRIES_MAX + 1


def test_code_works_once(stand: Stand) -> None:
    phone = stand.new_phone()
    code = _code(stand, phone)
    right = {"url": "/v1/sign-in", "json": {"phone": phone, "one_time_code": code}}
    statuses = [answer.status_code for answer in stand.at_once([right] * 8)]
    assert statuses.count(200) == 1
    assert _error(_sign_in(stand, phone, code)) == (400, "OneTimeCodeExpired")


def test_code_expires(stand: Stand) -> None:
    phone = stand.new_phone()
    code = _code(stand, phone)
    _let_pass(stand, timedelta(minutes=5))
    assert _error(_sign_in(stand, phone, code)) == (400, "OneTimeCodeExpired")


def test_next_code_comes_after_a_pause_and_says_when(stand: Stand) -> None:
    phone = stand.new_phone()
    _code(stand, phone)
    answer = _ask(stand, phone)
    assert _error(answer) == (429, "OneTimeCodeTooSoon")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert "development_code" not in answer.text


def test_five_codes_in_an_hour_are_the_most(stand: Stand) -> None:
    phone = stand.new_phone()
    for _ in range(5):
        _code(stand, phone)
        _let_pass(stand, timedelta(minutes=2))
    answer = _ask(stand, phone)
    assert _error(answer) == (429, "OneTimeCodeTooSoon")
    assert int(answer.headers["retry-after"]) > 60


def test_known_and_unknown_phones_get_the_same_answers(stand: Stand) -> None:
    known, unknown = stand.member().phone, stand.new_phone()
    asked = [_ask(stand, phone) for phone in (known, unknown)]
    assert [(answer.status_code, sorted(answer.json())) for answer in asked] == [
        (202, ["development_code", "expires_at", "sent"])
    ] * 2
    wrong = [
        _sign_in(stand, phone, _another(answer.json()["development_code"]))
        for phone, answer in zip((known, unknown), asked, strict=True)
    ]
    assert wrong[0].status_code == wrong[1].status_code == 400
    assert wrong[0].json() == wrong[1].json()
    soon = [_ask(stand, phone).json()["code"] for phone in (known, unknown)]
    assert soon == ["OneTimeCodeTooSoon"] * 2
    never_asked = [_sign_in(stand, phone, "123456").json() for phone in (stand.member().phone, stand.new_phone())]
    assert never_asked[0] == never_asked[1]


@pytest.mark.parametrize(
    "phone", ["", "12345", "+8610888888", "not a phone", "+86138", "１３８", "\x00", "+1" + "0" * 30]
)
def test_what_is_no_mobile_phone_is_refused_and_not_repeated(stand: Stand, phone: str) -> None:
    before = stand.counts()
    for answer in (_ask(stand, phone), _sign_in(stand, phone, "123456")):
        assert _error(answer) == (400, "PhoneInvalid")
        assert not phone or phone not in answer.text
    assert stand.counts() == before


def test_phone_of_more_than_32_characters_is_refused(stand: Stand) -> None:
    assert _error(_ask(stand, "1" * 33)) == (400, "RequestInvalid")


def test_sign_out_ends_the_session_and_no_other(stand: Stand) -> None:
    phone = stand.new_phone()
    first = _sign_in(stand, phone, _code(stand, phone)).json()["token"]
    _let_pass(stand, timedelta(minutes=2))
    second = _sign_in(stand, phone, _code(stand, phone)).json()["token"]
    out = stand.http.delete("/v1/session", headers={"Authorization": f"Bearer {first}"})
    assert out.status_code == 204
    assert _error(_me(stand, first)) == (401, "SignInNeeded")
    assert _me(stand, second).status_code == 200
    assert stand.http.delete("/v1/session").status_code == 204


def test_session_ends_after_its_time(stand: Stand) -> None:
    member = stand.member()
    assert _me(stand, member.token).status_code == 200
    stand.execute(
        update(MemberSession)
        .where(MemberSession.member_id == member.member_id)
        .values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    )
    assert _error(_me(stand, member.token)) == (401, "SignInNeeded")


@pytest.mark.parametrize("spoil", [lambda t: t[:-1], lambda t: t[::-1], lambda t: f"{t}A", lambda t: "x"])
def test_token_that_is_not_ours_is_nobody(stand: Stand, spoil: Any) -> None:
    answer = _me(stand, spoil(stand.member().token))
    assert _error(answer) == (401, "SignInNeeded")
    assert answer.headers["www-authenticate"] == 'Bearer realm="fanxing"'


def test_database_holds_neither_token_nor_code_nor_phone(stand: Stand) -> None:
    phone = stand.new_phone()
    code = _code(stand, phone)
    stored = stand.rows(select(OneTimeCode).order_by(OneTimeCode.expires_at.desc()))[0]
    assert code.encode() not in stored.code_hash
    token = _sign_in(stand, phone, code).json()["token"]
    member_id = _me(stand, token).json()["member_id"]
    [session] = [row for row in stand.rows(select(MemberSession)) if str(row.member_id) == member_id]
    assert session.token_hash == hashlib.sha256(urlsafe_b64decode(token)).digest()
    [member] = [row for row in stand.rows(select(Member)) if str(row.member_id) == member_id]
    [identity] = [row for row in stand.rows(select(PhoneIdentity)) if str(row.member_id) == member_id]
    for stored_bytes in (member.phone_sealed, identity.fingerprint):
        assert phone.encode() not in stored_bytes
        assert phone[-8:].encode() not in stored_bytes
