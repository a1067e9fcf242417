"""Which brand a shopper signs in with on a page of no brand: the one whose code he looked at last."""

from collections.abc import Iterator

import httpx2
import pytest
from sqlalchemy import delete
from sqlmodel import col

from codes.catalogue import BrandGroup
from kit.db import Session
from tests.stand import BRAND, OTHER_BRAND, Stand

OWN = {"accept": "text/html", "accept-language": "en", "sec-fetch-site": "same-origin"}
NAMED = f'name="brand" value="{BRAND}"'
SECOND = "a second group"


@pytest.fixture
def stand_kind() -> str:
    """Nothing here depends on the database."""
    return "sqlite"


@pytest.fixture
def browser(stand: Stand) -> Iterator[httpx2.Client]:
    """A browser without cookies, at an installation of two groups."""

    async def add(session: Session) -> None:
        session.add(BrandGroup(name=SECOND))

    stand.run(add)
    with stand.client(headers=OWN) as client:
        yield client
    stand.execute(delete(BrandGroup).where(col(BrandGroup.name) == SECOND))


def test_a_shopper_who_scanned_signs_in_on_his_own_page(stand: Stand, browser: httpx2.Client) -> None:
    phone = stand.new_phone()
    assert 'name="brand"' not in browser.get("/me").text
    unclear = browser.post("/web/sign-in", data={"phone": phone, "then": "/me"})
    assert (unclear.status_code, "GroupUnclear" in unclear.text) == (400, True)
    scanned = browser.get(stand.take_item().outer)
    cookie = {part.strip().lower() for part in scanned.headers["set-cookie"].split(";")}
    assert {f"fanxing_brand={BRAND}", "httponly", "samesite=lax"} <= cookie
    assert "set-cookie" not in browser.get(stand.take_item().outer).headers  # it is known by now
    for path in ("/me", "/me/points", "/me/privacy"):
        assert NAMED in browser.get(path).text
    asked = browser.post("/web/sign-in", data={"phone": phone, "brand": BRAND, "then": "/me"})
    assert (asked.status_code, NAMED in asked.text) == (200, True)


@pytest.mark.parametrize("slug", ["no-such-brand", "X", "", '"><b>', "a" * 41])
def test_a_cookie_that_names_no_brand_is_no_hint(browser: httpx2.Client, slug: str) -> None:
    page = browser.get("/me", headers={"cookie": f"fanxing_brand={slug}"})
    assert (page.status_code, 'name="brand"' in page.text) == (200, False)


def test_the_cookie_only_fills_in_a_form(stand: Stand, browser: httpx2.Client) -> None:
    cookie = {"cookie": f"fanxing_brand={BRAND}"}
    assert f'name="brand" value="{OTHER_BRAND}"' in browser.get(f"/me?brand={OTHER_BRAND}", headers=cookie).text
    refused = browser.post("/web/sign-in", data={"phone": stand.new_phone()}, headers=cookie)
    assert (refused.status_code, "GroupUnclear" in refused.text) == (400, True)


def test_a_client_that_takes_json_and_a_code_of_nobody_leave_no_cookie(stand: Stand, browser: httpx2.Client) -> None:
    as_json = browser.get(stand.take_item().outer, headers={"accept": "application/json"})
    forged = browser.get(stand.installation.refused["BadSignature"])
    assert ["set-cookie" in answer.headers for answer in (as_json, forged)] == [False, False]
