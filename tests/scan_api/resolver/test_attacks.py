"""What strangers try at the resolver: to get a signature out, a header in, a cache poisoned, or a circle walked."""

import re
import socket
from urllib.parse import quote, unquote

import httpx2
import pytest
from sqlmodel import col, select

from scan_api.resolver import wishes
from scan_api.scans import Item, Scan
from tests.scan_api.resolver.conftest import Shop
from tests.stand import GTIN, Stand
from tests.stand import Item as PrintedItem

pytestmark = pytest.mark.parametrize("stand_kind", ["postgresql"])

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
TRICKS = (
    "?linkType=linkset",
    "?linkType=all",
    "?linkType=gs1:pip",
    "?linkType=gs1:nosuch",
    "?linkType=gs1%3Apip&utm=%2F",
    "?linkType=gs1:pip&code={signed}",
    "?linkType=gs1:pip&code={escaped}",
    "?linkType=gs1:pip&code={twice}",
    "?linkType=gs1:pip&{signed}",
    "?linkType={signed}",
    "?context={signed}&linkType=gs1:pip",
    "/?linkType=gs1:pip",
    "/foo?linkType=gs1:pip",
    "?linkType=gs1:pip&17=9",
    "?linkType=gs1:pip&{signed}=1",
    "?linkType=gs1:defaultLink",
)


def _escaped(text: str) -> str:
    return "".join(f"%{ord(sign):02x}" for sign in text)


def _told(answer: httpx2.Response) -> str:
    """All that an answer says to whoever is not the page's reader: headers, and a body that is no page of ours."""
    fields = "\n".join(f"{name}: {value}" for name, value in answer.headers.multi_items())
    return fields if answer.headers.get("content-type", "").startswith("text/html") else fields + answer.text


@pytest.mark.parametrize("accept", ["*/*", BROWSER, "application/linkset+json", "application/linkset"])
def test_a_signature_never_goes_along(stand: Stand, accept: str) -> None:
    code = stand.take_item().inner
    signed = code[1:162]
    for number, trick in enumerate(TRICKS):
        query = trick.format(signed=signed, escaped=_escaped(signed), twice=quote(_escaped(signed)))
        for method in ("GET", "HEAD", "OPTIONS") if number < 3 else ("GET",):
            answer = stand.http.request(method, code + query, headers={"accept": accept}, follow_redirects=False)
            assert not re.search("[0-9]{30}", unquote(unquote(_told(answer)))), (method, trick)
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
    assert not re.search("[0-9]{100}", stand.server.log)


def test_links_of_a_code_are_no_scan_and_no_verdict(stand: Stand) -> None:
    item = stand.take_item()
    before = stand.counts()
    asked = (("?linkType=linkset", "*/*"), ("?linkType=gs1:pip", BROWSER), ("", "application/linkset+json"))
    for query, accept in asked:
        answer = stand.http.get(item.inner + query, headers={"accept": accept}, follow_redirects=False)
        assert answer.status_code in (200, 307)
        assert "verdict" not in answer.text
    assert stand.counts() == before


@pytest.mark.parametrize("accept", [BROWSER, "application/json", "*/*"])
@pytest.mark.parametrize(
    "query", ["", "?from=singlemessage", "?linkType=", "?linkType=gs1:defaultLink", "?linktype=linkset", "?x=%6C%69"]
)
def test_a_scanned_code_goes_on_showing_its_verdict(stand: Stand, accept: str, query: str) -> None:
    item = stand.take_item()
    answer = stand.http.get(item.outer + query, headers={"accept": accept}, follow_redirects=False)
    assert answer.status_code == 200
    assert ("<html" in answer.text) == (accept == BROWSER)
    assert _scans(stand, item) == 1
    unsigned = f"{stand.server.url}/01/{item.gtin}/21/{item.serial}?linkType=linkset"
    assert answer.headers["link"] == f'<{unsigned}>; rel="linkset"; type="application/linkset+json"'
    assert answer.headers["access-control-allow-origin"] == "*"


def _scans(stand: Stand, item: PrintedItem) -> int:
    key = stand.order("on sale").order_id * 10**9 + int(item.serial[5:])
    assert stand.rows(select(Item).where(Item.item_key == key)) != []
    return len(stand.rows(select(Scan).where(col(Scan.item_key) == key)))


def test_the_link_set_of_a_signed_code_is_that_of_the_item(stand: Stand) -> None:
    item = stand.take_item()
    signed = stand.http.get(f"{item.inner}?linkType=linkset")
    unsigned = stand.http.get(f"/01/{item.gtin}/21/{item.serial}?linkType=linkset")
    assert signed.json() == unsigned.json()
    assert signed.json()["linkset"][-1]["anchor"] == f"{stand.server.url}/01/{GTIN}"


@pytest.mark.parametrize(
    "path",
    [
        "/2{signature}/00/095060001343520109",  # a code's stem before another key than an item's
        "/1/01/{gtin}",
        "/2{signature}",
        "/2{signature}/",
        "/01",
        "/01/",
        "/0101/{gtin}",
        "//01/{gtin}",
        "/%30%31/{gtin}",
        "/01%2f{gtin}",
    ],
)
@pytest.mark.parametrize("query", ["", "?linkType=linkset"])
def test_odd_paths_are_refused(stand: Stand, path: str, query: str) -> None:
    url = stand.server.url + path.format(signature="7" * 160, gtin=GTIN) + query
    assert stand.http.get(url, follow_redirects=False).status_code in (400, 404)


def test_no_header_gets_in_by_the_query(shop: Shop) -> None:
    shop.give(role="default", href="https://www.example.cn/?own=1")
    answer = shop.get("?a=%0d%0aset-cookie:%20evil=1&b=%0D%0A%0D%0A<".replace("<", "%3C"))
    assert answer.status_code == 307
    assert "set-cookie" not in answer.headers
    assert answer.headers["location"].endswith("?own=1&a=%0d%0aset-cookie:%20evil=1&b=%0D%0A%0D%0A%3C")


@pytest.mark.parametrize("raw", [b'"', b"<", b">", b"\\", b"^", b"`", b"{", b"\x7f", b"\xff", b"\xe4\xb8\xad"])
def test_what_is_no_uri_is_refused(stand: Stand, raw: bytes) -> None:
    for where in (b"/10/" + raw, b"?a=" + raw):
        with socket.create_connection(("127.0.0.1", stand.server.port), 20) as connection:
            target = f"/01/{GTIN}".encode() + where
            connection.sendall(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            heard = b""
            while more := connection.recv(65_536):
                heard += more
        assert heard.startswith(b"HTTP/1.1 400")
        assert b"location:" not in heard.lower()


def test_other_hosts_in_the_request_change_nothing(shop: Shop) -> None:
    """A cache or a proxy in front may take a forged host for part of the answer."""
    shop.give()
    plain = shop.get("?linkType=linkset")
    forged = shop.get(
        "?linkType=linkset", host="evil.example", x_forwarded_host="evil.example", forwarded="host=evil.example"
    )
    assert plain.json() == forged.json()
    assert "evil" not in _told(shop.get(host="evil.example", x_forwarded_host="evil.example"))


def test_answers_say_what_they_vary_by(shop: Shop) -> None:
    shop.give(role="default")
    for path in ("", "?linkType=linkset", "?linkType=gs1:nosuch", "/foo"):
        for accept in ("*/*", BROWSER, "application/linkset+json"):
            answer = shop.get(path, accept=accept)
            assert {part.strip() for part in answer.headers["vary"].split(",")} >= {"accept", "accept-language"}
            assert answer.headers["cache-control"] == "no-store"
            assert "set-cookie" not in answer.headers


def test_huge_headers_are_read_in_part(shop: Shop) -> None:
    shop.give(role="default")
    shop.give(role="variant", languages=["en"], href="https://www.example.cn/en")
    huge = "zz;q=0.1," * 3_000
    answer = shop.get(accept=huge + "text/html", accept_language=huge + "en")
    assert answer.status_code in (307, 400)  # the whole head has a limit, too
    within = huge[: wishes.HEADER_CHARACTERS_MAX * 4]
    assert shop.get(accept_language=within + ",en").headers["location"] == "https://www.example.cn/pip"


def test_no_redirect_leads_in_a_circle(shop: Shop) -> None:
    for path in ("", "?linkType=gs1:pip", "/21/S?linkType=gs1:defaultLink&linkType=linkset"):
        first = shop.get(path)
        assert first.status_code == 307
        second = shop.stand.http.get(first.headers["location"], follow_redirects=False)
        assert second.status_code == 200
    own = shop.stand.server.url
    for href in (own, f"{own}{shop.path}", own.replace("http:", "https:"), "https://127.0.0.1/"):
        assert shop.put(href=href).json()["code"] == "LinkTargetInvalid"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_links_are_not_changed_where_they_are_read(stand: Stand, method: str) -> None:
    assert stand.http.request(method, f"/01/{GTIN}").status_code == 405
