"""Signing out everywhere: by the app, by the page, and by whoever answers the phone at the brand."""

import json

import pytest
from sqlmodel import select

from loyalty.sign_in import MemberSession
from scan_api.web import paths
from tests.cli import invoke
from tests.stand import BRAND, SignedIn, Stand

OWN = {"accept": "text/html", "accept-language": "en", "sec-fetch-site": "same-origin"}


@pytest.fixture
def stand_kind() -> str:
    """Sessions end by the same statement on both databases; see tests/loyalty/test_sign_in.py."""
    return "sqlite"


def _tokens(stand: Stand, member: SignedIn) -> tuple[str, str]:
    """Two devices of one member's."""
    code = stand.http.post("/v1/sign-in/codes", json={"phone": member.phone}).json()["development_code"]
    answer = stand.http.post("/v1/sign-in", json={"phone": member.phone, "one_time_code": code})
    return member.token, answer.json()["token"]


def _status(stand: Stand, token: str) -> int:
    return stand.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code


def test_an_app_signs_out_every_device_of_its_member_and_nobody_else(stand: Stand) -> None:
    member, other = stand.members(2)
    tokens = _tokens(stand, member)
    answer = stand.http.post("/v1/me/sign-out-everywhere", headers={"Authorization": f"Bearer {tokens[1]}"})
    assert answer.status_code == 204
    assert [_status(stand, token) for token in (*tokens, other.token)] == [401, 401, 200]
    again = stand.http.post("/v1/me/sign-out-everywhere", headers=member.headers)
    assert (again.status_code, again.json()["code"]) == (401, "SignInNeeded")


def test_the_page_signs_out_every_device_and_forgets_the_cookie(stand: Stand) -> None:
    member = stand.member()
    tokens = _tokens(stand, member)
    with stand.client() as browser:
        browser.cookies.set("fanxing_session", member.token, domain="127.0.0.1")
        assert paths.SIGN_OUT_EVERYWHERE_ACTION in browser.get(paths.PRIVACY_PATH, headers=OWN).text
        answer = browser.post(paths.SIGN_OUT_EVERYWHERE_ACTION, headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, paths.ME_PATH)
        assert 'fanxing_session=""' in answer.headers["set-cookie"]
    assert [_status(stand, token) for token in tokens] == [401, 401]


def test_support_looks_first_and_then_signs_a_member_out(stand: Stand) -> None:
    member = stand.member()
    _tokens(stand, member)
    environment = {"FANXING_HOME": str(stand.home), "FANXING_DATABASE_URL": stand.database_url}
    line = f"member sign-out --brand {BRAND} --phone {member.phone} --json"
    told = [json.loads(invoke(f"{line}{more}", environment).stdout) for more in ("", " --yes", " --yes")]
    expected = {"member_id": str(member.member_id)}
    assert told == [
        {**expected, "sessions": 2, "done": False},
        {**expected, "sessions": 2, "done": True},
        {**expected, "sessions": 0, "done": True},
    ]
    assert _status(stand, member.token) == 401
    assert stand.rows(select(MemberSession).where(MemberSession.member_id == member.member_id)) == []
