"""The GS1-Conformant Resolver Standard 1.2, statement by statement, at a real server.

Each test is named after the clause it holds the server to. TLS (2.2) is the proxy's; EPC binary strings and compressed
links (2.3) are not read, which docs/resolver.md says.
"""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from scan_api.resolver.levels import KEYS
from tests.scan_api.resolver.conftest import Shop

pytestmark = pytest.mark.parametrize("stand_kind", ["postgresql"])

VOC = "https://ref.gs1.org/voc/"
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
# Of GS1's schema of link sets: an anchor, and besides a description only link types with links that have these members.
LINK_SET_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["linkset"],
    "additionalProperties": False,
    "properties": {
        "linkset": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["anchor"],
                "properties": {
                    "anchor": {"type": "string", "pattern": "^https?://[a-zA-Z0-9./]+"},
                    "itemDescription": {"type": "string"},
                },
                "patternProperties": {
                    "^https?://[a-zA-Z0-9./]+$": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["href", "title"],
                            "additionalProperties": False,
                            "properties": {
                                "href": {"type": "string", "pattern": "^https?://[a-zA-Z0-9./]+"},
                                "title": {"type": "string"},
                                "type": {"type": "string", "pattern": r"^\w+/[-+.\w]+$"},
                                "hreflang": {
                                    "type": "array",
                                    "items": {"type": "string", "pattern": r"(^\w{2}$)|(^\w{2}-\w{2}$)"},
                                },
                                "context": {"type": "array", "items": {"type": "string"}},
                            },
                        },
                    }
                },
                "additionalProperties": False,
            },
        }
    },
}

Check = Callable[[Shop], None]
CLAUSES: dict[str, Check] = {}


def clause(name: str) -> Callable[[Check], Check]:
    def take(check: Check) -> Check:
        CLAUSES[f"{name} {check.__name__.strip('_')}"] = check
        return check

    return take


@clause("2.1")
def _every_key_with_its_qualifiers(shop: Shop) -> None:
    for path in ("/414/9506000134376/254/D", "/8010/9506000ABC/8011/7", "/8004/9506000A1", "/00/095060001343520109"):
        shop.give(path, href="https://www.example.cn/other")
        assert shop.get(path).headers["location"] == "https://www.example.cn/other"


@clause("2.2")
def _get_head_and_options(shop: Shop) -> None:
    shop.give()
    got, head, options = (shop.get(method=method) for method in ("GET", "HEAD", "OPTIONS"))
    assert (got.status_code, head.status_code, options.status_code) == (307, 307, 204)
    assert head.headers["location"] == got.headers["location"]
    assert (head.content, options.content) == (b"", b"")
    assert options.headers["allow"] == "GET, HEAD, OPTIONS"
    assert shop.get("?linkType=linkset", "HEAD").content == b""


@clause("2.2")
def _cors(shop: Shop) -> None:
    for path, method in (("", "GET"), ("?linkType=linkset", "GET"), ("", "OPTIONS"), ("/10", "GET"), ("/99/x", "GET")):
        answer = shop.get(path, method, origin="https://elsewhere.example")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
        assert "access-control-allow-credentials" not in answer.headers


@clause("2.4.1")
def _bad_syntax_is_400(shop: Shop) -> None:
    other_check_digit = f"{shop.path[:-1]}{(int(shop.path[-1]) + 1) % 10}"
    for path in ("/foo", "/10", "/21/S/10/L", "/99/x", "/17/261231", "?17=999999", "?123456=x", "/21/" + "x" * 21):
        assert shop.get(path).status_code == 400, path
        assert shop.get(path, accept="text/html").status_code == 400
        assert shop.get(path, accept="application/linkset+json").status_code == 400
    assert shop.get(other_check_digit).status_code == 400
    assert shop.get("/foo").json()["code"] == "DigitalLinkInvalid"


@clause("2.4.1")
def _a_sound_link_to_nothing_is_404(shop: Shop) -> None:
    for path in ("/00/395060001343520100", "/414/9506000134352", "/01/04012345123456"):
        for query in ("", "?linkType=linkset", "?linkType=gs1:pip"):
            assert shop.get(path + query).status_code == 404, path
        assert shop.get(path, accept="application/linkset+json").json()["code"] == "NothingLinked"


@clause("2.4.1")
def _no_error_is_200(shop: Shop) -> None:
    for path in ("/foo", "?linkType=gs1:nosuch", "/10"):
        for accept in ("*/*", "text/html", "application/json", "application/linkset+json"):
            answer = shop.get(path, accept=accept)
            assert answer.status_code != 200 or (path.startswith("?") and "linkset" in accept)


@clause("2.5.8")
def _one_default_with_a_title_and_nothing_else(shop: Shop) -> None:
    shop.give(role="default", languages=["en"], media_type="text/html", contexts=["CN"])
    shop.give(role="variant", languages=["zh"])
    [entry] = shop.link_set()
    assert entry[VOC + "defaultLink"] == [{"href": "https://www.example.cn/pip", "title": "Product information"}]
    assert len(entry[VOC + "defaultLinkMulti"]) == 2
    assert len(entry[VOC + "pip"]) == 2


@clause("2.5.9")
def _a_default_at_every_level(shop: Shop) -> None:
    for path in ("", "/10/L", "/22/V/10/L/21/S", "/235/T"):
        assert shop.get(path).headers["location"] == f"{shop.url}?linkType=linkset"
    shop.give("/10/L", href="https://www.example.cn/lot")
    assert shop.get("/10/L").headers["location"] == f"{shop.url}?linkType=linkset"
    shop.give("/10/L", href="https://www.example.cn/lot-default", role="default")
    shop.give("/21/S", href="https://www.example.cn/item", role="default")
    assert shop.get("/10/L").headers["location"] == "https://www.example.cn/lot-default"
    assert shop.get("/10/L/21/S").headers["location"] == "https://www.example.cn/item"


@clause("2.6.1")
def _redirect_to_the_default(shop: Shop) -> None:
    shop.give(role="default")
    answer = shop.get()
    assert (answer.status_code, answer.headers["location"]) == (307, "https://www.example.cn/pip")
    assert shop.get("?linkType=gs1:defaultLink").headers["location"].startswith("https://www.example.cn/pip?")


@clause("2.6.1")
def _or_to_a_better_match(shop: Shop) -> None:
    shop.give(role="default")
    shop.give(role="variant", href="https://www.example.cn/zh", languages=["zh"])
    asked = ("zh-CN,zh;q=0.9", "en", "")
    assert [shop.get(accept=BROWSER, accept_language=one).headers["location"] for one in asked] == [
        "https://www.example.cn/zh", "https://www.example.cn/pip", "https://www.example.cn/pip",
    ]  # fmt: skip


@clause("2.6.2")
def _redirect_to_the_type_asked_for(shop: Shop) -> None:
    shop.give(link_type="gs1:instructions", href="https://www.example.cn/how")
    for written in ("gs1:instructions", "gs1%3Ainstructions", "https://ref.gs1.org/voc/instructions"):
        for path in ("", "/10/L/21/S"):
            answer = shop.get(f"{path}?linkType={written}")
            assert answer.headers["location"] == f"https://www.example.cn/how?linkType={written}"


@clause("2.6.2")
def _or_404(shop: Shop) -> None:
    for asked in ("gs1:instructions", "gs1:nosuchlt", "%00", "x" * 1_000):
        answer = shop.get(f"?linkType={asked}")
        assert (answer.status_code, answer.json()["code"]) == (404, "LinkTypeUnavailable")


@clause("2.6.3")
def _300_for_links_that_fit_alike(shop: Shop) -> None:
    for name in ("one", "two"):
        shop.give(link_type="gs1:certificationInfo", href=f"https://www.example.cn/{name}", title=name.title())
    answer = shop.get("?linkType=gs1:certificationInfo")
    assert (answer.status_code, "location" in answer.headers) == (300, False)
    jsonschema.validate(answer.json(), LINK_SET_SCHEMA)
    [entry] = answer.json()["linkset"]
    assert [link["title"] for link in entry[VOC + "certificationInfo"]] == ["One", "Two"]
    page = shop.get("?linkType=gs1:certificationInfo", accept=BROWSER)
    assert page.status_code == 300
    assert 'href="https://www.example.cn/two"' in page.text


@clause("2.6.3")
def _context_and_media_type(shop: Shop) -> None:
    shop.give(contexts=["CN"], href="https://www.example.cn/cn")
    shop.give(contexts=["DE"], href="https://www.example.cn/de", media_type="application/pdf")
    assert shop.get("?linkType=gs1:pip&context=de").headers["location"].startswith("https://www.example.cn/de")
    assert (
        shop.get("?linkType=gs1:pip", accept="application/pdf")
        .headers["location"]
        .startswith("https://www.example.cn/de")
    )


@clause("2.9")
def _the_link_set_without_a_redirect(shop: Shop) -> None:
    shop.give(role="default")
    shop.give("/10/L", link_type="gs1:recallStatus")
    shop.give("/21/S", link_type="gs1:dpp", media_type="application/vc")
    shop.give("/10/M")
    for query, accept in (("?linkType=linkset", "*/*"), ("?linkType=all", "*/*"), ("", "application/linkset+json")):
        answer = shop.get(f"/22/V/10/L/21/S{query}", accept=accept)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/linkset+json")
        jsonschema.validate(answer.json(), LINK_SET_SCHEMA)
        anchors = [entry["anchor"].removeprefix(shop.url) for entry in answer.json()["linkset"]]
        assert anchors == ["/21/S", "/10/L", ""]


@clause("2.10")
def _forms_of_the_link_set(shop: Shop) -> None:
    shop.give()
    forms = {"application/json": "linkset", "application/ld+json": "@context", "application/linkset+json": "linkset"}
    for accept, member in forms.items():
        answer = shop.get("?linkType=linkset", accept=accept)
        assert answer.headers["content-type"] == accept
        assert next(iter(answer.json())) == member
    text = shop.get(accept="application/linkset")
    assert text.headers["content-type"] == "application/linkset"
    assert text.text.startswith('<https://www.example.cn/pip>; rel="https://ref.gs1.org/voc/defaultLink"; anchor="')
    page = shop.get("?linkType=linkset", accept=BROWSER, accept_language="en")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Star Cream Ice of a test" in page.text
    assert '<script type="application/ld+json">{"@context"' in page.text


@clause("2.10")
def _a_link_to_the_context(shop: Shop) -> None:
    link = shop.get("?linkType=linkset").headers["link"]
    assert 'rel="http://www.w3.org/ns/json-ld#context"; type="application/ld+json"' in link


@clause("2.9")
def _a_link_to_the_link_set_when_redirecting(shop: Shop) -> None:
    shop.give()
    link = shop.get("/10/L?a=b").headers["link"]
    assert link == f'<{shop.url}/10/L?linkType=linkset>; rel="linkset"; type="application/linkset+json"'


@clause("2.12")
def _the_query_is_passed_on(shop: Shop) -> None:
    shop.give(href="https://www.example.cn/pip?own=1#part")
    query = "17=261231&utm_source=a%20b&x=%C3%A9&flag&a=1&a=2"
    assert shop.get(f"?{query}").headers["location"] == f"https://www.example.cn/pip?own=1&{query}#part"


@clause("2.13")
def _a_trailing_slash_does_no_harm(shop: Shop) -> None:
    shop.give("/10/L", role="default")
    assert shop.get("/10/L/").headers["location"] == shop.get("/10/L").headers["location"]
    assert shop.get("/").status_code == 307
    assert shop.get("//").status_code == 400


@clause("3")
def _the_description_file(shop: Shop) -> None:
    answer = shop.stand.http.get("/.well-known/gs1resolver")
    assert answer.headers["content-type"] == "application/json"
    described = answer.json()
    assert described["resolverRoot"] == shop.stand.server.url
    assert described["supportedPrimaryKeys"] == sorted(KEYS)
    assert described["supportedLinkType"] == [{"namespace": VOC, "prefix": "gs1:"}]
    assert described["linkTypeDefaultCanBeLinkset"] is False
    assert described["jsonLdContextLocation"].startswith("https://ref.gs1.org/standards/resolver/")
    for method in ("HEAD", "OPTIONS"):
        other = shop.stand.http.request(method, "/.well-known/gs1resolver")
        assert (other.content, other.headers["access-control-allow-origin"]) == (b"", "*")


@pytest.mark.parametrize("name", CLAUSES)
def test_resolver_keeps_the_clause(shop: Shop, name: str) -> None:
    CLAUSES[name](shop)
