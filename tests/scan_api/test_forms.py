"""The forms behind a scanned code, sent as a browser sends them, and what other sites may not make it send."""

import re
import uuid
from typing import Any

import httpx2
import pytest

from tests.stand import Stand

OWN = {"accept": "text/html", "accept-language": "en", "sec-fetch-site": "same-origin"}


def _code(page: str) -> str:
    found = re.search(r"\b([0-9]{6})</strong>", page)
    assert found, page
    return found[1]


def _fields(stand: Stand, path: str, campaign: str = "points", **more: str) -> dict[str, str]:
    return {"code_text": stand.text(path), "campaign_id": stand.campaign(campaign), **more}


def _sign_in_and_claim(stand: Stand, browser: httpx2.Client, fields: dict[str, str], phone: str) -> httpx2.Response:
    asked = browser.post("/web/sign-in", data={**fields, "phone": phone}, headers=OWN)
    assert asked.status_code == 200, asked.text
    more = {"phone": phone, "idempotency_key": str(uuid.uuid4()), "one_time_code": _code(asked.text)}
    return browser.post("/web/claim", data={**fields, **more}, headers=OWN)


def test_session_cookie_is_out_of_reach_of_scripts_and_other_sites(stand: Stand) -> None:
    with stand.client() as browser:
        answer = _sign_in_and_claim(stand, browser, _fields(stand, stand.take_item().inner), stand.new_phone())
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 200
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "domain" not in cookie
    assert "secure" not in cookie  # this server is reached without TLS; see the next test


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_behind_tls_the_cookie_is_secure_and_the_host_is_pinned(make_stand: Any) -> None:
    stand = make_stand(BASE_URL="https://id.example.cn")
    stand.server.start()
    fields = {**_fields(stand, ""), "code_text": f"https://id.example.cn{stand.take_item().inner}"}
    with stand.client() as browser:
        answer = _sign_in_and_claim(stand, browser, fields, stand.new_phone())
    assert "secure" in answer.headers["set-cookie"].lower()
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_refused_claim_leaves_the_member_signed_in(stand: Stand) -> None:
    item = stand.take_item()
    assert stand.claim(stand.member(), item.inner).status_code == 201
    with stand.client() as browser:
        answer = _sign_in_and_claim(stand, browser, _fields(stand, item.inner), stand.new_phone())
        assert (answer.status_code, "AlreadyClaimed" in answer.text) == (409, True)
        assert browser.get("/me", headers=OWN).text.count("****") == 1


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/web/sign-in", "/web/claim", "/web/confirm", "/web/sign-out"])
def test_form_of_another_site_is_refused(stand: Stand, path: str, site: str) -> None:
    member, item = stand.member(), stand.take_item()
    data = _fields(stand, item.inner, phone=stand.new_phone(), idempotency_key=str(uuid.uuid4()))
    data["one_time_code"] = "000000"
    before = stand.counts()
    headers = {**OWN, "sec-fetch-site": site, "cookie": f"fanxing_session={member.token}"}
    answer = stand.http.post(path, data=data, headers=headers)
    assert answer.status_code == 403
    assert "CrossSiteForm" in answer.text
    assert stand.counts() == before


def test_repeated_form_claims_once_and_shows_the_prize_again(stand: Stand) -> None:
    member, item = stand.member(), stand.take_item()
    form = _fields(stand, item.inner, idempotency_key=str(uuid.uuid4()))
    headers = {**OWN, "cookie": f"fanxing_session={member.token}"}
    first = stand.http.post("/web/claim", data=form, headers=headers)
    before = stand.counts()
    again = stand.http.post("/web/claim", data=form, headers=headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.text == again.text
    assert stand.counts() == before


@pytest.mark.parametrize("language", ["zh-CN", "en"])
@pytest.mark.parametrize(
    ("campaign", "face", "status", "words"),
    [
        ("not started", "inner", 409, {"zh-CN": "活动还没有开始", "en": "has not started"}),
        ("ended", "inner", 409, {"zh-CN": "结束", "en": "has ended"}),
        ("points", "outer", 409, {"zh-CN": "请扫描瓶盖内", "en": "under the cap"}),
    ],
)
def test_refused_claim_has_a_page_that_says_why(
    stand: Stand, language: str, campaign: str, face: str, status: int, words: dict[str, str]
) -> None:
    item, member = stand.take_item(), stand.member()
    form = _fields(stand, getattr(item, face), campaign, idempotency_key=str(uuid.uuid4()))
    headers = {**OWN, "accept-language": language, "cookie": f"fanxing_session={member.token}"}
    answer = stand.http.post("/web/claim", data=form, headers=headers)
    assert answer.status_code == status
    assert f'lang="{language}"' in answer.text
    assert words[language] in answer.text


def test_winner_and_loser_read_different_words(stand: Stand) -> None:
    item, (winner, loser) = stand.take_item(), stand.members(2)
    stand.claim(winner, item.inner)
    pages = []
    for member in (winner, loser):
        form = _fields(stand, item.inner, idempotency_key=str(uuid.uuid4()))
        answer = stand.http.post("/web/claim", data=form, headers={**OWN, "cookie": f"fanxing_session={member.token}"})
        assert answer.status_code == 409
        pages.append(re.findall(r'<p class="lead">(.*?)</p>', answer.text))
    assert pages[0] != pages[1]


def test_claim_without_a_session_asks_to_sign_in(stand: Stand) -> None:
    form = _fields(stand, stand.take_item().inner, idempotency_key=str(uuid.uuid4()))
    answer = stand.http.post("/web/claim", data=form, headers=OWN)
    assert answer.status_code == 401
    assert "SignInNeeded" in answer.text


def test_wrong_one_time_code_is_asked_for_again_five_times(stand: Stand) -> None:
    phone, item = stand.new_phone(), stand.take_item()
    fields = _fields(stand, item.inner, phone=phone)
    asked = stand.http.post("/web/sign-in", data=fields, headers=OWN)
    wrong = f"{(int(_code(asked.text)) + 1) % 10**6:06d}"
    before = stand.counts()
    for tried in range(1, 7):
        form = {**fields, "idempotency_key": "key-of-the-form", "one_time_code": wrong}
        answer = stand.http.post("/web/claim", data=form, headers=OWN)
        assert answer.status_code == (400 if tried < 5 else 429)
        assert 'value="key-of-the-form"' in answer.text
        assert "set-cookie" not in answer.headers
    assert stand.counts() == before


def test_second_code_too_soon_is_told_as_such(stand: Stand) -> None:
    phone = stand.new_phone()
    assert stand.http.post("/web/sign-in", data={"phone": phone}, headers=OWN).status_code == 200
    assert stand.http.post("/web/sign-in", data={"phone": phone}, headers=OWN).status_code == 429
    assert stand.http.post("/web/sign-in", data={"phone": "12"}, headers=OWN).status_code == 400


def test_forged_code_gets_no_sign_in(stand: Stand) -> None:
    form = {**_fields(stand, stand.installation.refused["BadSignature"]), "phone": stand.new_phone()}
    before = stand.counts()
    answer = stand.http.post("/web/sign-in", data=form, headers=OWN)
    assert (answer.status_code, "BadSignature" in answer.text) == (404, True)
    assert stand.counts() == before


@pytest.mark.parametrize(
    "data", [{}, {"campaign_id": "x"}, {"code_text": "x" * 5_000}, {"idempotency_key": "k" * 65}], ids=str.__class__
)
def test_form_that_is_not_ours_is_a_page_not_a_failure(stand: Stand, data: dict[str, str]) -> None:
    answer = stand.http.post("/web/claim", data=data, headers=OWN)
    assert answer.status_code == 400
    assert "RequestInvalid" in answer.text
    assert "x" * 20 not in answer.text


def test_sign_in_from_the_members_page_and_out_again(stand: Stand) -> None:
    phone = stand.new_phone()
    with stand.client() as browser:
        assert "/web/sign-in" in browser.get("/me", headers=OWN).text
        asked = browser.post("/web/sign-in", data={"phone": phone}, headers=OWN).text
        signed_in = browser.post("/web/confirm", data={"phone": phone, "one_time_code": _code(asked)}, headers=OWN)
        assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/me")
        token = browser.cookies["fanxing_session"]
        assert phone[-4:] in browser.get("/me", headers=OWN).text
        out = browser.post("/web/sign-out", headers=OWN)
        assert (out.status_code, "fanxing_session" in browser.cookies) == (303, False)
    assert stand.scan("/v1/me", authorization=f"Bearer {token}").status_code == 401
