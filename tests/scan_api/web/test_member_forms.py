"""The member's pages over real HTTP: who is not signed in, whose form it is, and refusals as pages."""

import re
import uuid
from pathlib import Path

import httpx2
import pytest

from scan_api.page_answers import ERROR_REASONS
from scan_api.web import paths
from tests.stand import SignedIn, Stand

OWN = {"accept": "text/html", "accept-language": "en", "sec-fetch-site": "same-origin"}
ID, KEY = str(uuid.UUID(int=7)), "key-of-a-form"
FORMS = {
    paths.SHOW_CODE_ACTION: {"held_id": ID},
    paths.OPEN_ACTION: {"held_id": ID},
    paths.ADDRESS_ACTION: {"held_id": ID, "name": "N", "phone": "1", "region": "R", "line": "L"},
    paths.OBTAIN_ACTION: {"benefit_id": ID, "points_expected": "1", "idempotency_key": KEY},
    paths.CHECK_IN_ACTION: {"program_id": ID},
    paths.PLAY_ACTION: {"draw_id": ID, "entropy": "00" * 16, "idempotency_key": KEY},
    paths.SHARE_ACTION: {"program_id": ID},
    paths.JOIN_ACTION: {"code": "0123456789abcdef"},
    paths.MAKE_PACKET_ACTION: {"program_id": ID, "idempotency_key": KEY},
    paths.OPEN_SHARE_ACTION: {"packet_id": ID},
    paths.CONSENT_ACTION: {"kind": "privacy", "version": "1", "given": "yes"},
    paths.SIGN_OUT_EVERYWHERE_ACTION: {},
    paths.PROVE_ACTION: {"purpose": "erase"},
    paths.ERASE_ACTION: {"one_time_code": "000000", "idempotency_key": KEY},
    paths.MERGE_ACTION: {"phone": "13800138000", "phone_code": "000000", "idempotency_key": KEY},
}
PAGES = (paths.ME_PATH, paths.POINTS_PATH, paths.BENEFITS_PATH, paths.SHOP_PATH, paths.EARN_PATH, paths.PRIVACY_PATH)


@pytest.fixture
def stand_kind() -> str:
    """Nothing here depends on the database."""
    return "sqlite"


def _send(stand: Stand, action: str, member: SignedIn | None, **changes: str) -> httpx2.Response:
    cookie = {"cookie": f"fanxing_session={member.token}"} if member else {}
    site = changes.pop("site", "same-origin")
    return stand.http.post(action, data={**FORMS[action], **changes}, headers={**OWN, **cookie, "sec-fetch-site": site})


def test_forms_of_other_sites_change_nothing(stand: Stand) -> None:
    member = stand.member()
    before = stand.counts()
    answers = {action: _send(stand, action, member, site="cross-site") for action in FORMS}
    assert {action for action, answer in answers.items() if answer.status_code != 403} == set()
    assert all("CrossSiteForm" in answer.text for answer in answers.values())
    assert stand.counts() == before


def test_who_is_not_signed_in_is_asked_to(stand: Stand) -> None:
    for action in FORMS:
        answer = _send(stand, action, None)
        assert (answer.status_code, "SignInNeeded" in answer.text) == (401, True), action
    for path in PAGES:
        page = stand.http.get(path, headers=OWN)
        assert page.status_code == 200
        assert f'name="then" value="{path}"' in page.text


def test_what_is_not_there_is_refused_as_a_page(stand: Stand) -> None:
    member = stand.member()
    known = (paths.PROVE_ACTION, paths.ERASE_ACTION, paths.MERGE_ACTION, paths.SIGN_OUT_EVERYWHERE_ACTION)
    unknown = [action for action in FORMS if action not in known]
    for action in unknown:
        answer = _send(stand, action, member)
        assert answer.status_code == 404, (action, answer.text)
        assert answer.headers["content-type"].startswith("text/html")
    cookie = {**OWN, "cookie": f"fanxing_session={member.token}"}
    for path in (f"/me/benefits/{ID}", f"/me/shop/{ID}", f"/draws/{ID}", f"/packet/{ID}", "/r/0123456789abcdef"):
        assert stand.http.get(path, headers=cookie).status_code == 404
    for path in ("/me/points?cursor=AAAA", "/me/shop?brand=nobody", "/me/benefits?page=0", "/draws/7"):
        assert stand.http.get(path, headers=cookie).status_code in (400, 404)


@pytest.mark.parametrize("own", ["x" * 12, "x" * 13, "𝄞" * 12])
def test_a_player_may_add_up_to_twelve_characters(stand: Stand, own: str) -> None:
    answer = _send(stand, paths.PLAY_ACTION, stand.member(), own=own)
    assert answer.status_code == (400 if len(own) > 12 else 404)  # there is no such draw


def test_every_page_of_a_member_can_be_empty(stand: Stand) -> None:
    cookie = {**OWN, "cookie": f"fanxing_session={stand.member().token}"}
    for path in PAGES:
        page = stand.http.get(path, headers=cookie)
        assert page.status_code == 200, page.text
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["content-language"] == "en"


def _codes(page: httpx2.Response) -> list[str]:
    found = re.findall(r"\b([0-9]{6})</strong>", page.text)
    assert found, page.text
    return found


def test_a_merge_is_told_as_done_only_to_the_form_that_made_it(stand: Stand) -> None:
    member, old, other = stand.members(3)
    shown = _send(stand, paths.PROVE_ACTION, member, purpose="merge", phone=old.phone)
    form = {"phone": old.phone, "phone_code": _codes(shown)[0], "idempotency_key": "form-7-of-merges"}
    first = _send(stand, paths.MERGE_ACTION, member, **form)
    again = _send(stand, paths.MERGE_ACTION, member, **form)
    assert (first.status_code, again.status_code, first.text) == (200, 200, again.text)
    for phone in (other.phone, stand.new_phone()):
        refused = _send(stand, paths.MERGE_ACTION, member, **form | {"phone": phone})
        assert (refused.status_code, "IdempotencyKeyReused" in refused.text) == (409, True)
    assert stand.http.get("/v1/me", headers=other.headers).status_code == 200


def test_forms_prove_by_codes_of_their_own(stand: Stand) -> None:
    member = stand.member()
    asked = _send(stand, paths.PROVE_ACTION, member)  # to be erased
    [code] = _codes(asked)
    signing_in = {"phone": member.phone, "one_time_code": code}
    assert stand.http.post("/web/confirm", data=signing_in, headers=OWN).status_code == 400
    assert _send(stand, paths.ERASE_ACTION, member, one_time_code=code).status_code == 200


def test_reasons_are_given_for_errors_that_exist() -> None:
    codes = (Path(__file__).parents[2] / "contract" / "error_codes.txt").read_text(encoding="utf-8").split()
    assert set(ERROR_REASONS) - set(codes) == set()


@pytest.mark.parametrize("stand_kind", ["postgresql"])
def test_texts_that_no_database_can_hold_are_refused(stand: Stand) -> None:
    member = stand.member()
    cookie = {**OWN, "cookie": f"fanxing_session={member.token}"}
    assert stand.http.get("/r/%00", headers=cookie).status_code == 404
    assert _send(stand, paths.JOIN_ACTION, member, code="\x00").status_code == 404
    assert _send(stand, paths.CONSENT_ACTION, member, kind="\x00").status_code == 404
    phone = stand.new_phone()
    stand.http.post("/web/sign-in", data={"phone": phone}, headers=OWN)
    ticked = {"phone": phone, "one_time_code": "000000", "agreed": "privacy@\x00"}
    assert stand.http.post("/web/confirm", data=ticked, headers=OWN).status_code == 404
