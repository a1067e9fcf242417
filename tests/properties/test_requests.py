"""Whatever arrives over HTTP, the server answers: never with a failure of its own, and without repeating a secret.

Requests that fit /openapi.json, or nearly, and their callers: tests/contract/test_schemathesis.py.
"""

import string
from collections.abc import Callable
from typing import Any

import httpx2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.stand import BRAND, GTIN, Stand

EXAMPLES = 100
PATHS = [
    "/healthz", "/readyz", "/metrics", "/openapi.json", "/me", "/favicon.ico", "/", "//", "/..", "/%2e%2e/etc/passwd",
    "/log/checkpoint", "/log/tile/0/000", "/log/tile/%00", "/log/consistency?old=1&new=0", "/log/entries/x/proof",
    "/v1/evidence/%00?steps=x",
    "/v1/me", "/v1/session", "/v1/claims", "/v1/sign-in", "/v1/sign-in/codes", "/v1/trust", "/v1/brand/events",
    "/v1/callbacks/carrier", "/v1/packing", "/v1/packing/contents?thing=%00", "/v1/packing/containers?thing=x&at=x",
    "/v1/brand/life", "/v1/brand/lots", "/v1/packing/holding?thing=x&region=x", "/v1/brand/stock",
    f"/v1/brand/{BRAND}/orders", "/v1/brand/%00/orders", "/v1/brand/%ff/orders", "/v1/shop/redemptions",
    f"/v1/regulator/items/{GTIN}/{'0' * 14}", "/v1/regulator/items/%00/x", "/web/claim", "/web/sign-in", "/web/confirm",
    "/me/points?cursor=%00", "/me/shop?brand=%00", "/me/benefits/x", "/draws/x", "/packet/x", "/r/%00", "/web/obtain",
    "/web/sign-out", "/v1/me/points", "/v1/me/points?cursor=%00", f"/v1/brand/{BRAND}/webhooks",
    f"/v1/brand/{BRAND}/webhooks/x/ping",
    "/v1/me/check-ins", "/v1/me/tasks", "/v1/me/referral", "/v1/me/packets", "/v1/packets/x/shares",
    "/v1/draws/x/record",
    "/v1/me/export", "/v1/me/merge", "/v1/me/sign-out-everywhere", "/v1/me/consents", "/v1/me/birthday",
    "/v1/consent-documents?brand=%00",
    "/v1/regulator/events?brand=%00", "/v1/regulator/statistics?first=x&last=2026-01", "/v1/regulator/exports/x",
    "/v1/regulator/trace/%00?brand=%00", "/v1/regulator/subscriptions/x", "/v1/partner/events?nextPageToken=%00",
    "/v1/regulator/recall-orders", f"/v1/brand/{BRAND}/seats", f"/v1/brand/{BRAND}/partner-shares/x",
    f"/01/{GTIN}", f"/01/{GTIN}?linkType=linkset", f"/01/{GTIN}/10/%00", f"/v1/brand/{BRAND}/links?identifier=%00",
    "/.well-known/gs1resolver",
]  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
HEADER_NAMES = [
    "accept", "accept-language", "authorization", "content-type", "cookie", "idempotency-key", "if-none-match",
    "origin", "purpose", "range", "sec-fetch-site", "user-agent", "x-forwarded-for", "x-forwarded-proto",
    "expect", "x-http-method-override",
]  # fmt: skip
FIELDS = [
    "phone", "brand", "one_time_code", "code_text", "campaign_id", "idempotency_key", "step", "gtin", "order_number",
    "serials", "at", "place", "act", "thing", "lot", "parent", "children", "action", "coupon_code", "another",
]  # fmt: skip

# What HTTP lets into a header's value: visible ASCII, blanks, and the upper half of Latin-1.
values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60).map(
    lambda text: text.strip().encode("latin-1").strip()
)
telling_values = st.sampled_from(
    [
        b"text/html", b"application/json", b"*/*", b"en", b"zh", b"application/x-www-form-urlencoded",
        b"multipart/form-data", b"multipart/form-data; boundary=x", b"Bearer x", b"fanxing_session=x", b"same-origin",
        b"prefetch", b"bytes=0-", b"a-key-of-a-test", b"100-continue",
    ]
)  # fmt: skip
headers = st.dictionaries(st.sampled_from(HEADER_NAMES), values | telling_values, max_size=5)
segments = st.text(string.printable.translate({ord(c): None for c in " \t\n\r\x0b\x0c#?"}), max_size=30)
paths = (
    st.sampled_from(PATHS)
    | segments.map(lambda text: f"/{text}")
    | st.from_regex(r"/[12][0-9]{0,5}(/01/[0-9]{14})?", fullmatch=True)
)
texts = st.text(max_size=40) | st.sampled_from(
    [GTIN, "0" * 14, "+8613800138000", "2026-05-01T08:00:00Z", "shipped", BRAND]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=8,
)
bodies = st.binary(max_size=200) | st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=8)


def _ask(stand: Stand, method: str, path: str, given_headers: dict[str, bytes], body: Any) -> httpx2.Response:
    path = stand.server.url + path  # "//x" alone would name another host
    if isinstance(body, bytes):
        return stand.http.request(method, path, headers=given_headers, content=body)
    if b"form" in given_headers.get("content-type", b""):
        form = {name: str(value).encode("utf-8", "replace") for name, value in body.items()}
        return stand.http.request(method, path, headers=given_headers, data=form)
    return stand.http.request(method, path, headers={"content-type": "application/json", **given_headers}, json=body)


def _check(answer: httpx2.Response) -> None:
    assert answer.status_code < 500, answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] in ("no-store", "public, max-age=60")
    if answer.headers.get("content-type") == "application/problem+json" and answer.content:
        body = answer.json()
        assert (body["status"], body["type"]) == (answer.status_code, f"urn:fanxing:problem:{body['code']}")
        assert body["title"]
        assert body["detail"]
    elif answer.status_code >= 400 and answer.headers.get("content-type") == "application/json" and answer.content:
        assert set(answer.json()) & {"verdict", "checks"}  # what is no refusal: a verdict on a code, /readyz


def _never_a_failure(**strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    quiet = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    return lambda test: quiet(given(**strategies)(test))


@_never_a_failure(method=st.sampled_from(METHODS), path=paths, given_headers=headers, body=st.just(b"") | bodies)
@example(method="GET", path="/v1/brand/%00/orders", given_headers={}, body=b"")
@example(method="POST", path="/v1/sign-in/codes", given_headers={}, body={"phone": "+8613800138000", "brand": "\x00"})
@example(method="POST", path="/web/claim", given_headers={"content-type": b"multipart/form-data"}, body=b"x")
def test_any_request_gets_an_answer(stand: Stand, method: str, path: str, given_headers: Any, body: Any) -> None:
    _check(_ask(stand, method, path, given_headers, body))
