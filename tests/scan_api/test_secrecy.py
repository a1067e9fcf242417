"""What the server writes down: neither codes nor phone numbers nor tokens, however hard it is made to talk."""

import re

import pytest

from tests.stand import MakeStand, forged

FORM = {"accept": "text/html", "sec-fetch-site": "same-origin"}


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_log_holds_no_secret_even_at_its_most_talkative(make_stand: MakeStand) -> None:
    stand = make_stand(LOG_LEVEL="DEBUG")
    stand.server.start()
    item, other, phone = stand.take_item(), stand.take_item(), stand.new_phone()
    secrets = {item.inner[1:162], other.inner[1:162], phone, phone.removeprefix("+86")}

    # A shopper's whole way on the pages, with a slip at each step, and the same through the API.
    stand.scan(item.inner, accept="text/html")
    stand.scan(f"{item.inner}?utm_source={item.inner[1:]}")
    stand.scan(forged(item.inner))
    stand.scan(f"{item.inner}0")
    stand.scan(item.inner.replace("/01/", "/%301/"))
    form = {"code_text": stand.text(item.inner), "campaign_id": stand.campaign("data"), "phone": phone}
    with stand.client() as browser:
        assert browser.post("/web/sign-in", data={**form, "phone": f"{phone}000"}, headers=FORM).status_code == 400
        asked = browser.post("/web/sign-in", data=form, headers=FORM).text
        code = re.search(r"\b([0-9]{6})</strong>", asked)[1]  # type: ignore[index]
        key = {"idempotency_key": "a-key-of-this-form"}
        wrong = {**form, **key, "one_time_code": f"{(int(code) + 1) % 10**6:06d}"}
        assert browser.post("/web/claim", data=wrong, headers=FORM).status_code == 400
        claimed = browser.post("/web/claim", data={**form, **key, "one_time_code": code}, headers=FORM)
        assert claimed.status_code == 200, claimed.text
        secrets |= {code, browser.cookies["fanxing_session"]}
        browser.post("/web/claim", data={**form, "code_text": "x" * 5_000}, headers=FORM)
    member = stand.member()
    secrets |= {member.token, member.phone, member.phone.removeprefix("+86")}
    coupon = stand.claim(member, other.outer, "coupon").json()["coupon_code"]
    secrets |= {coupon, coupon.replace("-", "")}
    stand.claim(member, other.inner)
    stand.claim(member, other.inner, code_text=[stand.text(other.inner)])
    stand.claim(member, f"{other.inner} ")
    stand.http.post("/v1/claims", content=stand.text(other.inner), headers=member.headers)
    stand.http.post("/v1/sign-in/codes", json={"phone": [member.phone]})
    stand.scan("/v1/me", authorization=f"Bearer {member.token[:-1]}")
    for label in ("shop", "revoked"):
        stand.http.post(
            "/v1/shop/redemptions",
            json={"coupon_code": coupon},
            headers={**stand.key(label), "Idempotency-Key": "a-key-of-this-till"},
        )
        secrets.add(stand.installation.api_keys[label].split("_", 2)[2])
    stand.wait_for_fulfilment()
    stand.server.stop()

    log = re.sub(r'"timestamp": "[^"]*"', "", stand.server.log)  # its fractions look like one-time codes
    assert log.count('"event": "request"') > 15
    for secret in secrets:
        assert len(secret) >= 6
        # Any six digits may turn up in a number of something else, never on their own.
        found = re.search(rf"(?<![0-9a-f]){re.escape(secret)}(?![0-9a-f])", log)
        assert found is None, log[max(0, found.start() - 300) : found.end() + 100]
    assert not re.search(r"[0-9]{100}", log)
